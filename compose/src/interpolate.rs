//! `$NAME` and `${NAME:-default}` in texts. Keys are never touched, and the environment is only read.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::environment::Environment;
use crate::value::{Path, Step, Value};

/// Why a text cannot be interpolated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InterpolateError {
    /// `${` with something after it that is not one of the forms.
    #[error("invalid interpolation {expression:?}")]
    Invalid {
        /// The text from `${` on, up to its end if it has one.
        expression: String,
    },
    /// `${NAME:?message}` and `NAME` is not set.
    #[error("required variable {name} is missing a value{}{message}", if message.is_empty() { "" } else { ": " })]
    Required {
        /// The variable.
        name: String,
        /// What the file says about it.
        message: String,
    },
}

/// What went wrong while interpolating a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The value.
    pub(crate) path: Path,
    /// Why.
    pub(crate) error: InterpolateError,
}

/// Names of variables that were used without a default and are not set, with the first value that uses each.
pub(crate) type Unset = BTreeMap<String, Path>;

/// Interpolates every text of a document in place. What cannot be is unknown afterwards, and so is what asks for a
/// variable that may be among those that are not known.
pub(crate) fn interpolate(value: &mut Value, environment: &Environment, unset: &mut Unset) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut path = Path::default();
    walk(value, &mut path, environment, unset, &mut failures);
    failures
}

/// Interpolates one text. `unset` hears of variables that are used without a default and are not set.
pub(crate) fn substitute(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
) -> Result<String, InterpolateError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if after.starts_with('{') {
            let (expression, tail) = braced(after)?;
            out.push_str(&evaluate(expression, lookup, unset)?);
            rest = tail;
        } else {
            let name = name_at(after);
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&lookup(name).unwrap_or_else(|| {
                    unset(name);
                    String::new()
                }));
            }
            rest = &after[name.len()..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// A variable that a text asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: String,
    /// Whether the text makes no sense without it.
    pub(crate) required: bool,
    /// What takes its place when it is not set.
    pub(crate) default: String,
    /// What takes its place when it is set.
    pub(crate) alternate: String,
}

/// The variables a text asks for, those in defaults included. What is no valid form asks for none.
pub(crate) fn variables(text: &str, found: &mut BTreeMap<String, Variable>) {
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            rest = tail;
        } else if after.starts_with('{') {
            let Ok((expression, tail)) = braced(after) else { return };
            let variable = Variable::of(expression);
            for operand in [&variable.default, &variable.alternate] {
                variables(operand, found);
            }
            if !variable.name.is_empty() {
                found.entry(variable.name.clone()).or_default().and(variable);
            }
            rest = tail;
        } else {
            let name = name_at(after);
            if !name.is_empty() {
                found.entry(name.to_owned()).or_default().and(Variable::of(name));
            }
            rest = &after[name.len()..];
        }
    }
}

impl Variable {
    /// The same variable in another place: the first default counts, and that it is required somewhere.
    fn and(&mut self, other: Self) {
        self.name = other.name;
        self.required |= other.required;
        if self.default.is_empty() {
            self.default = other.default;
        }
        if self.alternate.is_empty() {
            self.alternate = other.alternate;
        }
    }

    fn of(expression: &str) -> Self {
        let name = name_at(expression).to_owned();
        let operation = expression[name.len()..].trim_start_matches(':');
        let operand = operation.get(1..).unwrap_or_default().to_owned();
        let mut variable = Self { name, ..Self::default() };
        match operation.chars().next() {
            Some('-') => variable.default = operand,
            Some('+') => variable.alternate = operand,
            Some('?') => variable.required = true,
            _ => {}
        }
        variable
    }
}

fn walk(
    value: &mut Value,
    path: &mut Path,
    environment: &Environment,
    unset: &mut Unset,
    failures: &mut Vec<Failure>,
) {
    match value {
        Value::Text(text) if text.contains('$') => {
            let mut missing = |name: &str| {
                unset.entry(name.to_owned()).or_insert_with(|| path.clone());
            };
            let is_open = Cell::new(false);
            let lookup = |name: &str| {
                let found = environment.variables.get(name).cloned();
                is_open.set(is_open.get() || (found.is_none() && !environment.is_whole));
                found
            };
            match substitute(text, &lookup, &mut missing) {
                Err(InterpolateError::Required { .. }) | Ok(_) if is_open.get() => *value = Value::Unknown,
                Ok(done) => *text = done,
                Err(error) => {
                    failures.push(Failure { path: path.clone(), error });
                    *value = Value::Unknown;
                }
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.0.push(Step::Index(index));
                walk(item, path, environment, unset, failures);
                path.0.pop();
            }
        }
        Value::Map(map) => {
            let is_plain = |item: &Value| match item {
                Value::Text(text) => !text.contains('$'),
                other => !matches!(other, Value::Map(_) | Value::List(_) | Value::Override(_)),
            };
            for (key, item) in map.iter_mut().filter(|(_, item)| !is_plain(item)) {
                path.0.push(Step::Key(key.clone()));
                walk(item, path, environment, unset, failures);
                path.0.pop();
            }
        }
        Value::Override(inner) => walk(inner, path, environment, unset, failures),
        _ => {}
    }
}

/// Splits `{NAME…}tail` into what is between the braces and the tail. Braces inside are counted.
fn braced(text: &str) -> Result<(&str, &str), InterpolateError> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Ok((&text[1..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    Err(InterpolateError::Invalid { expression: format!("${text}") })
}

fn evaluate(
    expression: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
) -> Result<String, InterpolateError> {
    let name = name_at(expression);
    let operation = &expression[name.len()..];
    let invalid = || InterpolateError::Invalid { expression: format!("${{{expression}}}") };
    if name.is_empty() {
        return Err(invalid());
    }
    let value = lookup(name);
    if operation.is_empty() {
        return Ok(value.unwrap_or_else(|| {
            unset(name);
            String::new()
        }));
    }
    let (operator, operand) = match operation.strip_prefix(':') {
        Some(rest) => (rest.chars().next(), rest.get(1..)),
        None => (operation.chars().next(), operation.get(1..)),
    };
    let operand = operand.ok_or_else(invalid)?;
    // With a colon an empty value counts as none.
    let present = value.filter(|value| !operation.starts_with(':') || !value.is_empty());
    match (operator, present) {
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('+'), None) => Ok(String::new()),
        (Some('-'), None) | (Some('+'), Some(_)) => substitute(operand, lookup, unset),
        (Some('?'), None) => Err(InterpolateError::Required {
            name: name.to_owned(),
            message: substitute(operand, lookup, unset)?,
        }),
        _ => Err(invalid()),
    }
}

fn name_at(text: &str) -> &str {
    let starts = text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    if starts { &text[..end] } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, InterpolateError> {
        let lookup = |name: &str| match name {
            "HOME" => Some("/root".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(text, &lookup, &mut |_| {})
    }

    #[test]
    fn every_form_is_as_in_the_reference() {
        for (text, expected) in [
            ("x$", "x$"),
            ("x$5", "x$5"),
            ("x$ y", "x$ y"),
            ("$$A", "$A"),
            ("$$$HOME", "$/root"),
            ("$HOME.x", "/root.x"),
            ("{$A}", "{}"),
            ("%$A%", "%%"),
            ("$A-b", "-b"),
            ("${A-${B:-c}}", "c"),
            ("${A:-x}}", "x}"),
            ("${HOME:+${B-z}-}", "z-"),
            ("${HOME:-a:-b}", "/root"),
            ("${A-b:-c}", "b:-c"),
            ("${A:+x}", ""),
            ("${EMPTY-x}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY+x}", "x"),
            ("${EMPTY:+x}", ""),
            ("${EMPTY?x}", ""),
            ("${A-}x", "x"),
            ("${A:-{\"a\":\"b\"}}", "{\"a\":\"b\"}"),
            ("${A:-$$x}", "$x"),
            ("${A-\\}}", "\\}"),
            ("${HOME?${B?x}}", "/root"),
        ] {
            assert_eq!(with(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_form_that_is_none_is_an_error() {
        for text in ["${}", "${A/b/c}", "${A", "${1A}", "${A.b}", "${A:}", "${A:=b}", "${A:-${HOME}"] {
            assert!(matches!(with(text), Err(InterpolateError::Invalid { .. })), "{text}");
        }
    }

    #[test]
    fn a_required_variable_says_what_the_file_says() {
        assert_eq!(
            with("${A:?set it in $HOME}").unwrap_err().to_string(),
            "required variable A is missing a value: set it in /root"
        );
        assert_eq!(with("${A?}").unwrap_err().to_string(), "required variable A is missing a value");
    }
}
