//! The functions of templates: those of Go's text/template, and docker's own.

use serde_json::Value;

use super::{Result, TemplateError, shown, truth};

/// What stands between `%` and a verb.
#[derive(Debug, Default)]
struct Directive {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// Wider than any line.
const WIDEST: usize = 1 << 16;

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    let wrong = || TemplateError(format!("{name}: wrong arguments"));
    let text = |index: usize| arguments.get(index).map(shown).ok_or_else(wrong);
    let count = |index: usize| {
        let number = arguments.get(index).and_then(Value::as_u64).ok_or_else(wrong)?;
        usize::try_from(number).map_err(|_| wrong())
    };
    Ok(match name {
        "json" => serde_json::to_string(arguments.first().ok_or_else(wrong)?)
            .map_err(|error| TemplateError(error.to_string()))?
            .into(),
        "upper" => text(0)?.to_uppercase().into(),
        "lower" => text(0)?.to_lowercase().into(),
        "title" => title(&text(0)?).into(),
        "println" => format!("{}\n", arguments.iter().map(shown).collect::<Vec<_>>().join(" ")).into(),
        "print" => arguments.iter().map(shown).collect::<String>().into(),
        "printf" => print_formatted(&text(0)?, arguments.get(1..).unwrap_or_default()).into(),
        "html" => arguments.iter().map(shown).map(|text| html(&text)).collect::<String>().into(),
        "js" => arguments.iter().map(shown).map(|text| script(&text)).collect::<String>().into(),
        "urlquery" => arguments.iter().map(shown).map(|text| query(&text)).collect::<String>().into(),
        "len" => match arguments.first() {
            Some(Value::Array(list)) => list.len().into(),
            Some(Value::Object(map)) => map.len().into(),
            Some(Value::String(text)) => text.len().into(),
            Some(Value::Null) => 0.into(),
            _ => return Err(wrong()),
        },
        "index" => {
            let (first, keys) = arguments.split_first().ok_or_else(wrong)?;
            keys.iter().try_fold(first.clone(), |value, key| element(&value, key))?
        }
        "slice" => {
            let (first, bounds) = arguments.split_first().ok_or_else(wrong)?;
            let from = if bounds.is_empty() { 0 } else { count(1)? };
            let to = if bounds.len() < 2 { None } else { Some(count(2)?) };
            part(first, from, to)?
        }
        "join" => match arguments.first() {
            Some(Value::Array(list)) => list.iter().map(shown).collect::<Vec<_>>().join(&text(1)?).into(),
            _ => Value::String(String::new()),
        },
        "split" => text(0)?.split(&text(1)?).map(str::to_owned).collect::<Vec<_>>().into(),
        "truncate" => text(0)?.chars().take(count(1)?).collect::<String>().into(),
        "pad" => match text(0)? {
            empty if empty.is_empty() => empty.into(),
            text => format!("{:2$}{text}{:3$}", "", "", count(1)?, count(2)?).into(),
        },
        "eq" => arguments.iter().skip(1).any(|other| Some(other) == arguments.first()).into(),
        "ne" => (arguments.first() != arguments.get(1)).into(),
        "not" => (!truth(arguments.first().ok_or_else(wrong)?)).into(),
        "and" => {
            arguments.iter().find(|value| !truth(value)).or(arguments.last()).cloned().ok_or_else(wrong)?
        }
        "or" => {
            arguments.iter().find(|value| truth(value)).or(arguments.last()).cloned().ok_or_else(wrong)?
        }
        "gt" | "lt" | "ge" | "le" => {
            let number = |index: usize| arguments.get(index).and_then(Value::as_f64).ok_or_else(wrong);
            let (a, b) = (number(0)?, number(1)?);
            match name {
                "gt" => a > b,
                "lt" => a < b,
                "ge" => a >= b,
                _ => a <= b,
            }
            .into()
        }
        _ => return Err(TemplateError(format!("function {name:?} not defined"))),
    })
}

/// One of a list by its number, or of a map by its key: what a map does not have is empty, what a list does not have is
/// an error, so that nobody takes an empty word for a port.
fn element(value: &Value, key: &Value) -> Result<Value> {
    let wrong = |reason: String| TemplateError(format!("error calling index: {reason}"));
    match (value, key) {
        (Value::Array(list), Value::Number(number)) => {
            let at = number.as_u64().and_then(|number| usize::try_from(number).ok());
            let found = at.and_then(|at| list.get(at)).cloned();
            found.ok_or_else(|| wrong(format!("index out of range: {number}")))
        }
        (Value::Null | Value::String(_), Value::Number(number)) => {
            Err(wrong(format!("index out of range: {number}")))
        }
        (Value::Object(_) | Value::Null, Value::String(key)) => {
            Ok(value.get(key).cloned().unwrap_or_else(|| "".into()))
        }
        _ => Err(wrong(format!("cannot index {} with {}", shown(value), shown(key)))),
    }
}

fn part(value: &Value, from: usize, to: Option<usize>) -> Result<Value> {
    let wrong = || TemplateError("error calling slice: index out of range".to_owned());
    match value {
        Value::String(text) => {
            let part = text.get(from..to.unwrap_or(text.len())).ok_or_else(wrong)?;
            Ok(part.into())
        }
        Value::Array(list) => {
            let part = list.get(from..to.unwrap_or(list.len())).ok_or_else(wrong)?;
            Ok(part.to_vec().into())
        }
        _ => Err(TemplateError("error calling slice: only texts and lists have parts".to_owned())),
    }
}

fn title(text: &str) -> String {
    let mut begins = true;
    let raise = |c: char| {
        let raised = if begins { c.to_uppercase().collect() } else { c.to_string() };
        begins = c.is_whitespace();
        raised
    };
    text.chars().map(raise).collect()
}

fn html(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&#34;".to_owned(),
        '\'' => "&#39;".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

fn script(text: &str) -> String {
    let escape = |c: char| match c {
        '\\' | '\'' | '"' => format!("\\{c}"),
        '<' | '>' | '&' | '=' => format!("\\u{:04X}", u32::from(c)),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

fn query(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Go's verbs, as far as values of JSON have use for them, with their flags, width and precision.
fn print_formatted(format: &str, arguments: &[Value]) -> String {
    let mut text = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let directive = Directive::read(&mut chars);
        match chars.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(verb) => match arguments.next() {
                None => text.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => text.push_str(&directive.show(verb, value)),
            },
        }
    }
    text
}

// === impl Directive ===

impl Directive {
    fn read(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Self {
        let mut directive = Self::default();
        while let Some(flag) = chars.next_if(|c| "-+# 0".contains(*c)) {
            match flag {
                '-' => directive.left = true,
                '0' => directive.zeros = true,
                '+' => directive.plus = true,
                _ => {}
            }
        }
        directive.width = read_number(chars);
        if chars.next_if_eq(&'.').is_some() {
            directive.precision = Some(read_number(chars));
        }
        directive
    }

    fn show(&self, verb: char, value: &Value) -> String {
        let cut = |text: String| match self.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text,
        };
        let signed =
            |text: String| if self.plus && !text.starts_with('-') { format!("+{text}") } else { text };
        let shown = match (verb, value) {
            ('s' | 'v', value) => cut(shown(value)),
            ('q', value) => format!("{:?}", cut(shown(value))),
            ('t', Value::Bool(truth)) => truth.to_string(),
            ('d', Value::Number(number)) => signed(number.to_string()),
            ('x', Value::Number(number)) => number.as_i64().map_or_else(String::new, |n| format!("{n:x}")),
            ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('f', Value::Number(number)) => {
                let number = number.as_f64().unwrap_or_default();
                signed(format!("{number:.0$}", self.precision.unwrap_or(6)))
            }
            (verb, value) => format!("%!{verb}({})", kind_and_value(value)),
        };
        let lacking = self.width.saturating_sub(shown.chars().count());
        match shown.strip_prefix(['-', '+']) {
            _ if self.left => shown + &" ".repeat(lacking),
            Some(digits) if self.zeros => {
                let sign = &shown[..shown.len() - digits.len()];
                format!("{sign}{}{digits}", "0".repeat(lacking))
            }
            _ => (if self.zeros { "0" } else { " " }).repeat(lacking) + &shown,
        }
    }
}

fn read_number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut number = 0;
    while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
        number = (number * 10 + digit as usize).min(WIDEST);
    }
    number
}

/// As Go says that a verb is not for a value.
fn kind_and_value(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "<nil>".to_owned(),
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    format!("{kind}={}", shown(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn verbs_have_flags_width_and_precision_as_in_go() {
        for (format, value, text) in [
            ("%-6s|", json!("web"), "web   |"),
            ("%6s|", json!("web"), "   web|"),
            ("%.2s|", json!("web"), "we|"),
            ("%-4.2s|", json!("web"), "we  |"),
            ("%05d", json!(42), "00042"),
            ("%05d", json!(-42), "-0042"),
            ("%+d", json!(42), "+42"),
            ("%x", json!(255), "ff"),
            ("%.2f", json!(1.5), "1.50"),
            ("%t", json!(true), "true"),
            ("%q", json!("a\"b"), r#""a\"b""#),
            ("%d", json!("web"), "%!d(string=web)"),
            ("100%%", json!(1), "100%"),
            ("%s %s", json!("a"), "a %!s(MISSING)"),
        ] {
            assert_eq!(print_formatted(format, &[value]), text, "{format}");
        }
    }
}
