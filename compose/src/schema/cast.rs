//! Casts: `None` is the wrong kind of value, an error is a value of the right kind that makes no sense.

use engine::quantity::{ByteSize, Span};

use crate::value::Value;

pub(super) type Cast = Option<Result<Value, String>>;

pub(super) fn to_bool(value: &Value) -> Cast {
    match value {
        Value::Bool(_) => Some(Ok(value.clone())),
        Value::Text(text) => Some(match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" | "t" => Ok(Value::Bool(true)),
            "false" | "no" | "off" | "n" | "0" | "f" => Ok(Value::Bool(false)),
            _ => Err(format!("invalid value {text:?}: true or false is needed")),
        }),
        _ => None,
    }
}

pub(super) fn to_int(value: &Value, min: i64, max: i64) -> Cast {
    let number = match value {
        Value::Int(number) => *number,
        Value::Float(number) if number.fract() == 0.0 => *number as i128,
        Value::Text(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => return Some(Err(format!("invalid value {text:?}: a whole number is needed"))),
        },
        _ => return None,
    };
    if (i128::from(min)..=i128::from(max)).contains(&number) {
        Some(Ok(Value::Int(number)))
    } else if max == i64::MAX {
        Some(Err(format!("invalid value {number}: it must be {min} or more")))
    } else {
        Some(Err(format!("invalid value {number}: it must be between {min} and {max}")))
    }
}

/// Single precision, as the reference keeps it, in the shortest notation.
pub(super) fn to_number(value: &Value) -> Cast {
    let number = match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Text(text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => number,
            _ => return Some(Err(format!("invalid value {text:?}: a number is needed"))),
        },
        _ => return None,
    };
    let single = number as f32;
    Some(Ok(Value::Float(single.to_string().parse().unwrap_or(number))))
}

pub(super) fn to_bytes(value: &Value, signed: bool) -> Cast {
    let number = match value {
        Value::Int(number) => *number,
        Value::Float(number) => *number as i128,
        Value::Text(text) if signed && text.trim() == "-1" => -1,
        Value::Text(text) => match text.parse::<ByteSize>() {
            Ok(size) => i128::from(size.0),
            Err(error) => return Some(Err(error.to_string())),
        },
        _ => return None,
    };
    let min = if signed { -1 } else { 0 };
    if number < min || number > i128::from(i64::MAX) {
        return Some(Err(format!("invalid size {number}")));
    }
    Some(Ok(Value::Int(number)))
}

pub(super) fn to_duration(value: &Value) -> Cast {
    match value {
        Value::Text(text) => Some(match text.parse::<Span>() {
            Ok(span) => Ok(Value::Text(span.to_string())),
            Err(error) => Err(error.to_string()),
        }),
        Value::Int(number) => {
            Some(Err(format!("invalid duration {number}: a unit is needed, as in {number}s")))
        }
        _ => None,
    }
}

pub(super) fn to_micros(value: &Value) -> Cast {
    match value {
        Value::Text(text) if text.parse::<i64>().is_err() => Some(match text.parse::<Span>() {
            Ok(span) => Ok(Value::Int(span.0.as_micros() as i128)),
            Err(error) => Err(error.to_string()),
        }),
        _ => to_int(value, i64::MIN, i64::MAX),
    }
}

pub(super) fn to_mode(value: &Value) -> Cast {
    match value {
        Value::Int(number) => Some(Ok(Value::Int(*number))),
        Value::Text(text) => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            Some(match u32::from_str_radix(digits, 8) {
                Ok(mode) => Ok(Value::Int(mode.into())),
                Err(_) => Err(format!("invalid mode {text:?}: octal digits are needed, as in \"0440\"")),
            })
        }
        _ => None,
    }
}

pub(super) fn to_count(value: &Value) -> Cast {
    match value {
        Value::Text(text) if text.eq_ignore_ascii_case("all") => Some(Ok(Value::Int(-1))),
        _ => to_int(value, -1, i64::MAX),
    }
}
