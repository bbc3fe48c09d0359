//! What to do about a line that is no YAML: the parser says only what it came upon.

use crate::indentation;
use crate::position::Source;

/// What to do about the mistake that the parser came upon in this line, from 1, at this column.
pub(crate) fn advice(source: &Source, message: &str, line: usize, column: usize) -> Option<String> {
    indentation::advice(&source.text, line).or_else(|| {
        let written = source.text.lines().nth(line.checked_sub(1)?)?;
        let rest: String = written.chars().skip(column.saturating_sub(1)).collect();
        unquoted(message, written, &rest)
            .or_else(|| unended(message, &source.text, line))
            .or_else(|| unclosed(message, &source.text, line))
    })
}

/// A value that YAML takes for something else.
fn unquoted(message: &str, written: &str, rest: &str) -> Option<String> {
    if message.contains("mapping values are not allowed") {
        let value = written.split_once(": ").map_or("", |(_, value)| value).trim();
        if !value.contains(": ") {
            return None;
        }
        return Some(format!("a value with \": \" in it needs quotes: '{}'", value.replace('\'', "''")));
    }
    if message.contains("unexpected ':'") {
        return Some("a key without a value needs a space after its colon: `{A: , B: 1}`".to_owned());
    }
    if message.contains("quoted scalar") {
        return Some("the quote that begins here is not closed".to_owned());
    }
    let first = rest.chars().next()?;
    if message.contains("unknown anchor") {
        return Some(
            "an alias stands for what `&name` marks above it; a value that begins with * needs quotes"
                .to_owned(),
        );
    }
    matches!(first, '@' | '`' | '%').then(|| format!("a value cannot begin with {first}: put it in quotes"))
}

/// The line above that lacks the colon which makes it the key of what follows.
fn unended(message: &str, text: &str, line: usize) -> Option<String> {
    if !message.contains("mapping values are not allowed") {
        return None;
    }
    let depth = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().take(line).collect();
    let (written, above) = lines.split_last()?;
    let is_said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let (number, above) = above.iter().enumerate().rev().find(|(_, line)| is_said(line))?;
    let key = above.trim();
    let is_key = depth(above) < depth(written) && !key.contains([':', ' ', '"', '\'']);
    is_key.then(|| format!("a colon is missing in line {}: `{key}:`", number + 1))
}

/// The bracket that is open where the parser gave up.
fn unclosed(message: &str, text: &str, line: usize) -> Option<String> {
    if !message.contains("flow") && !message.contains("illegal placement") {
        return None;
    }
    let mut open = Vec::new();
    for (number, written) in text.lines().enumerate().take(line) {
        for character in written.chars() {
            match character {
                '{' | '[' => open.push((character, number + 1)),
                '}' | ']' => drop(open.pop()),
                _ => {}
            }
        }
    }
    let (bracket, begun) = open.into_iter().find(|(_, number)| *number < line)?;
    Some(format!("the {bracket} in line {begun} is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let source = Source::new("compose.yaml", text);
        let error = source.syntax_error().unwrap();
        advice(&source, &error.message, error.place.line, error.place.column).unwrap_or_default()
    }

    #[test]
    fn what_needs_quotes_and_what_is_not_closed_is_named() {
        assert!(said("a: echo it's b: c\n").contains("quotes: 'echo it''s b: c'"));
        assert!(said("a: @x\n").contains("cannot begin with @"));
        assert!(said("a: \"x\nb: c\n").contains("quote that begins here"));
        assert!(said("a: *x\n").contains("begins with *"));
        assert!(said("a:\n  b: {c: d\n  e: {f: g}\n").contains("{ in line 2 is not closed"));
        assert!(said("a:\n  b\n    c: d\n").contains("missing in line 2: `b:`"));
        assert!(said("a: [b\nc: d\n").contains("[ in line 1 is not closed"));
    }
}
