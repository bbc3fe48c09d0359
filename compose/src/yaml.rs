//! Writes YAML the way the reference does: two spaces, sequences indented, quotes only where they are needed.

mod order;

use std::borrow::Cow;

use serde_json::Value as Json;

/// The document as text, with a line break at the end.
pub(crate) fn write(value: &Json) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// A mapping or a sequence on lines of its own; anything else on one line.
fn block(value: &Json, indent: usize, out: &mut String) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            for (key, value) in order::sorted(map) {
                push_indent(indent, out);
                out.push_str(&scalar(key, indent));
                out.push(':');
                after(value, indent, out);
            }
        }
        Json::Array(items) if !items.is_empty() => {
            for item in items {
                push_indent(indent, out);
                out.push('-');
                // The first key stands next to the dash.
                match item {
                    Json::Object(map) if !map.is_empty() => {
                        let mut inner = String::new();
                        block(item, indent + 2, &mut inner);
                        out.push(' ');
                        out.push_str(inner.trim_start());
                    }
                    item => after(item, indent, out),
                }
            }
        }
        value => {
            out.push_str(&inline(value, indent));
            out.push('\n');
        }
    }
}

/// What follows a key or a dash.
fn after(value: &Json, indent: usize, out: &mut String) {
    let is_block = match value {
        Json::Object(map) => !map.is_empty(),
        Json::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        block(value, indent + 2, out);
    } else {
        out.push(' ');
        out.push_str(&inline(value, indent));
        out.push('\n');
    }
}

fn push_indent(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn inline(value: &Json, indent: usize) -> Cow<'_, str> {
    match value {
        Json::Null => "null".into(),
        Json::Bool(value) => value.to_string().into(),
        Json::Number(number) => number.to_string().into(),
        Json::String(text) => scalar(text, indent),
        Json::Array(_) => "[]".into(),
        Json::Object(_) => "{}".into(),
    }
}

fn scalar(text: &str, indent: usize) -> Cow<'_, str> {
    if is_word(text) && !is_reserved(text) {
        return text.into();
    }
    if text.is_empty() || reads_as_something_else(text) {
        return double_quoted(text).into();
    }
    if text.contains('\n') {
        return literal(text, indent + 2).unwrap_or_else(|| double_quoted(text)).into();
    }
    if text.chars().any(|c| c.is_control() || c == '\u{feff}') {
        return double_quoted(text).into();
    }
    if is_plain(text) { text.into() } else { format!("'{}'", text.replace('\'', "''")).into() }
}

/// Whether a text is so plain that it can only be read as itself, as most keys and values are: a letter, then letters,
/// digits and what stands between them in names and paths. Numbers and dates begin otherwise.
fn is_word(text: &str) -> bool {
    let [first, rest @ ..] = text.as_bytes() else { return false };
    (first.is_ascii_alphabetic() || *first == b'/')
        && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/'))
}

/// A block of lines as they are, unless spaces would be lost.
fn literal(text: &str, indent: usize) -> Option<String> {
    let is_lost = |line: &str| line.ends_with(' ') || line.chars().any(|c| c.is_control() && c != '\t');
    if text.split('\n').any(is_lost) {
        return None;
    }
    // A reader takes the indentation from the first line that is not empty, and has to be told where that says nothing.
    let hint = if text.starts_with([' ', '\n']) { "2" } else { "" };
    let body = text.trim_end_matches('\n');
    let chomping = match text.len() - body.len() {
        0 => "-",
        1 if !body.is_empty() => "",
        _ => "+",
    };
    let mut out = format!("|{hint}{chomping}");
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent));
            out.push_str(line);
        }
    }
    Some(out)
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{feff}' => out.push_str("\\uFEFF"),
            c if c.is_control() => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a plain text would be read as nothing, a truth value, a number or a date.
fn reads_as_something_else(text: &str) -> bool {
    is_reserved(text) || is_number(text) || is_date(text) || is_base_60(text)
}

/// Whether a plain text is a word for nothing, a truth value or no number.
fn is_reserved(text: &str) -> bool {
    // YAML 1.1's words are among them, for readers that still know them.
    const WORDS: [&str; 14] =
        ["~", "null", "true", "false", ".nan", ".inf", "+.inf", "-.inf", "y", "n", "yes", "no", "on", "off"];
    // They may be small, large, or begin large.
    let has_case = || {
        text.bytes().skip(1).all(|byte| !byte.is_ascii_uppercase())
            || text.bytes().all(|byte| !byte.is_ascii_lowercase())
    };
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) && has_case()
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '_')) {
        return false;
    }
    let unsigned =
        if unsigned.contains('_') { unsigned.replace('_', "").into() } else { Cow::from(unsigned) };
    let radix = |prefix: &str, digits: fn(char) -> bool| {
        unsigned.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(digits))
    };
    if radix("0x", |c| c.is_ascii_hexdigit())
        || radix("0o", |c| ('0'..='7').contains(&c))
        || radix("0b", |c| c == '0' || c == '1')
    {
        return true;
    }
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit())
        || unsigned.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    starts
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && unsigned.parse::<f64>().is_ok()
}

fn is_date(text: &str) -> bool {
    let digits = |part: Option<&str>, least: usize, most: usize| {
        part.is_some_and(|part| {
            (least..=most).contains(&part.len()) && part.chars().all(|c| c.is_ascii_digit())
        })
    };
    let end = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let mut parts = text[..end].split('-');
    digits(parts.next(), 4, 4)
        && digits(parts.next(), 1, 2)
        && digits(parts.next(), 1, 2)
        && parts.next().is_none()
}

/// `22:22` was a number once.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let Some((first, rest)) = whole.split_once(':') else { return false };
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '_');
    first.starts_with(|c: char| c.is_ascii_digit())
        && digits(first)
        && rest.split(':').all(|part| {
            matches!(part.len(), 1 | 2) && digits(part) && part.parse::<u8>().is_ok_and(|number| number < 60)
        })
        && digits(fraction)
}

/// Whether a text of one line means itself without quotes.
fn is_plain(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let second_is_space = text.chars().nth(1).is_none_or(char::is_whitespace);
    let indicator = match first {
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => {
            true
        }
        '-' | '?' | ':' => second_is_space,
        _ => false,
    };
    !(indicator
        || text.starts_with(' ')
        || text.ends_with(' ')
        || text.starts_with("---")
        || text.starts_with("...")
        || text.contains(": ")
        || text.ends_with(':')
        || text.contains(" #"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_in_the_reference() {
        for (text, written) in [
            ("a b", "a b"),
            ("1", "\"1\""),
            ("true", "\"true\""),
            ("yes", "\"yes\""),
            ("", "\"\""),
            ("#x", "'#x'"),
            ("a: b", "'a: b'"),
            ("it's", "it's"),
            ("*", "'*'"),
            ("-x", "-x"),
            ("a\nb\n", "|\n  a\n  b"),
            ("a\nb", "|-\n  a\n  b"),
            ("\n", "|2+\n"),
            ("\n a\n", "|2\n\n   a"),
            ("  a\n b\n", "|2\n    a\n   b"),
            ("a \nb", "\"a \\nb\""),
            ("a\n\n", "|+\n  a\n"),
            ("22:22", "\"22:22\""),
            ("2020-01-01", "\"2020-01-01\""),
            ("1.2.3.4", "1.2.3.4"),
            ("tab\there", "\"tab\\there\""),
            ("image", "image"),
            ("Off", "\"Off\""),
            ("oFF", "oFF"),
            ("a:", "'a:'"),
            ("/var/lib", "/var/lib"),
        ] {
            assert_eq!(scalar(text, 0), written, "{text:?}");
        }
    }
}
