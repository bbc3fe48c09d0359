//! The grammar of `.env` files. It parses; which files are read and who wins is decided elsewhere.

use std::collections::BTreeMap;

use crate::interpolate::{InterpolateError, substitute};

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct DotenvError {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The column, from 1, in characters.
    pub(crate) column: usize,
    /// What.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<&'static str>,
}

/// Variables in the order of the file; `None` when the line has only a name and the name is set nowhere.
pub(crate) type Variables = Vec<(String, Option<String>)>;

/// What a file says, and what of it makes no sense.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// The variables of the lines that make sense.
    pub(crate) variables: Variables,
    /// The lines that make none. Of several below each other that have no `=` only the first one: they are mostly one
    /// value.
    pub(crate) errors: Vec<DotenvError>,
    /// The last line that is no `NAME=`.
    last: usize,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// Parses a file. `outer` is asked first when a value refers to a variable, then the lines above it. When `outer` does
/// not know all there are, one that is not found is not missed.
pub(crate) fn parse(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
    is_whole: bool,
    unset: &mut dyn FnMut(&str),
) -> Parsed {
    let mut reader = Reader { text: text.strip_prefix('\u{feff}').unwrap_or(text), at: 0 };
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut parsed = Parsed::default();
    while reader.next_statement() {
        let start = reader.at;
        let (key, raw) = match reader.statement() {
            Ok(statement) => statement,
            Err(error) => {
                reader.at = start;
                let line = reader.rest().lines().next().unwrap_or_default();
                parsed.note(error, !assigns(line));
                reader.skip_line();
                continue;
            }
        };
        let lookup = |name: &str| outer(name).or_else(|| known.get(name).cloned());
        let value = match raw {
            Raw::Inherited => outer(&key),
            Raw::Literal(text) => Some(text),
            Raw::Expanded(text) => match substitute(&text, &lookup, unset) {
                Ok(value) => Some(value),
                Err(InterpolateError::Required { .. }) if !is_whole || !parsed.errors.is_empty() => continue,
                Err(error) => {
                    parsed.errors.push(reader.error_at(start, error.to_string()));
                    continue;
                }
            },
            Raw::Open(error) => {
                // Where it was to end nobody knows, so nothing can be said of what follows.
                parsed.errors.push(error);
                return parsed;
            }
        };
        known.extend(value.clone().map(|value| (key.clone(), value)));
        parsed.variables.push((key, value));
    }
    parsed
}

/// Parses docker's own format: `NAME=value` to the end of the line, nothing quoted, nothing interpolated.
pub(crate) fn parse_raw(text: &str, outer: &dyn Fn(&str) -> Option<String>) -> Parsed {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parsed = Parsed::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (line, outer(line)),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            let message = format!("variable name {key:?} is empty or contains white space");
            parsed.note(DotenvError { line: index + 1, column: 1, message, help: None }, !assigns(line));
            continue;
        }
        parsed.variables.push((key.to_owned(), value));
    }
    parsed
}

enum Raw {
    /// There is only the name.
    Inherited,
    /// A quote that is not closed.
    Open(DotenvError),
    Literal(String),
    Expanded(String),
}

// === impl Parsed ===

impl Parsed {
    /// `is_value` says whether the line may be a part of a value that begins above.
    fn note(&mut self, error: DotenvError, is_value: bool) {
        let line = error.line;
        match self.errors.last_mut() {
            Some(first) if self.last + 1 == line && is_value => {
                first.help = Some("quote a value that has several lines: NAME=\"…\"");
            }
            _ => self.errors.push(error),
        }
        self.last = line;
    }
}

/// Whether a line is meant to give a variable a value, whatever is wrong with it: the signs at the end of base64 are not.
fn assigns(line: &str) -> bool {
    line.trim_end().trim_end_matches('=').contains('=')
}

// === impl Reader ===

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Goes to the start of the next statement; `false` at the end.
    fn next_statement(&mut self) -> bool {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if !self.rest().starts_with('#') {
                return !self.rest().is_empty();
            }
            self.skip_line();
        }
    }

    fn skip_line(&mut self) {
        self.at += self.rest().find('\n').unwrap_or(self.rest().len());
    }

    /// Reads one line, or as many as its value has.
    fn statement(&mut self) -> Result<(String, Raw), DotenvError> {
        let (key, inherited) = self.key()?;
        let raw = if inherited { Raw::Inherited } else { self.value() };
        Ok((key, raw))
    }

    /// Reads a name and what ends it. The second value says whether the line has only the name.
    fn key(&mut self) -> Result<(String, bool), DotenvError> {
        let export = self.rest().strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
        if let Some(after) = export.map(|rest| rest.trim_start_matches([' ', '\t'])) {
            self.at = self.text.len() - after.len();
        }
        let start = self.at;
        let line = self.rest().lines().next().unwrap_or_default().to_owned();
        let mut end = self.text.len();
        let mut inherited = true;
        for (offset, c) in self.rest().char_indices() {
            match c {
                '=' | ':' | '\n' => {
                    end = start + offset;
                    inherited = c == '\n';
                    break;
                }
                '_' | '.' | '-' | '[' | ']' => {}
                c if c.is_alphanumeric() || is_space(c) => {}
                c => {
                    let message = format!("unexpected character {c:?} in variable name {line:?}");
                    return Err(self.error_at(start + offset, message));
                }
            }
        }
        let key = self.text[start..end].trim_end().to_owned();
        if key.contains(' ') {
            return Err(self.error_at(start, format!("the variable name {key:?} contains a space")));
        }
        if key.is_empty() {
            return Err(self.error_at(start, "a variable name is missing".to_owned()));
        }
        self.at = if inherited { end } else { end + 1 };
        let rest = self.rest();
        let skipped = rest.len() - rest.trim_start_matches(is_space).len();
        self.at += skipped;
        Ok((key, inherited))
    }

    fn value(&mut self) -> Raw {
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return self.unquoted(),
        };
        let start = self.at;
        let mut value = String::new();
        let mut escaped = false;
        let mut end = None;
        for (offset, c) in self.rest().char_indices().skip(1) {
            if c == quote && !escaped {
                end = Some(offset + 1);
                break;
            }
            if c == '\\' && !escaped {
                escaped = true;
                continue;
            }
            if escaped && c != quote {
                value.push('\\');
            }
            escaped = false;
            value.push(c);
        }
        let Some(length) = end else {
            let line = self.rest().lines().next().unwrap_or_default();
            return Raw::Open(self.error_at(start, format!("unterminated quoted value {line}")));
        };
        self.at += length;
        if quote == '"' { Raw::Expanded(unescape(&value)) } else { Raw::Literal(value) }
    }

    fn unquoted(&mut self) -> Raw {
        let line = self.rest().split('\n').next().unwrap_or_default();
        let value = line.split(" #").next().unwrap_or_default().trim_end().to_owned();
        self.skip_line();
        Raw::Expanded(value)
    }

    fn error_at(&self, at: usize, message: String) -> DotenvError {
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        DotenvError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
            help: None,
        }
    }
}

fn is_space(c: char) -> bool {
    c != '\n' && c.is_whitespace()
}

/// The escapes of double quotes. `\$` becomes `$$`, which interpolation turns into `$`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('c') => out.push_str("\\c"),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some('\\') => out.push('\\'),
            Some('"') => out.push('"'),
            Some('$') => out.push_str("$$"),
            Some('0') => {
                let mut code = 0u32;
                for _ in 0..3 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    chars.next();
                }
                out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in which nothing is wrong.
    fn parsed(text: &str, outer: &dyn Fn(&str) -> Option<String>) -> Parsed {
        let parsed = parse(text, outer, true, &mut |_| {});
        assert_eq!(parsed.errors, []);
        parsed
    }

    fn values(text: &str) -> Vec<(String, Option<String>)> {
        let outer = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        parsed(text, &outer).variables
    }

    #[test]
    fn every_form_of_a_line() {
        for (text, expected) in [
            ("A=b", "b"),
            ("export A=b", "b"),
            ("A: b", "b"),
            ("A = b ", "b"),
            ("A=", ""),
            ("A=b # c", "b"),
            ("A=b#c", "b#c"),
            ("A=$HOME/x", "/root/x"),
            ("A='$HOME'", "$HOME"),
            ("A=\"$HOME\\n\\\"\\$x\\t\\\\\"", "/root\n\"$x\t\\"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A='it\\'s'", "it's"),
            ("A=\"\\0101\"", "A"),
            ("A=${B:-d}", "d"),
            ("\u{feff}# c\n\nA=b", "b"),
            ("A=b\r\n", "b"),
            ("A.b-c[0]=d", "d"),
        ] {
            assert_eq!(values(text)[0].1.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_name_alone_takes_the_outer_value_and_later_lines_see_earlier_ones() {
        assert_eq!(
            values("HOME\nNONE\nA=1\nB=$A$HOME"),
            [
                ("HOME".to_owned(), Some("/root".to_owned())),
                ("NONE".to_owned(), None),
                ("A".to_owned(), Some("1".to_owned())),
                ("B".to_owned(), Some("1/root".to_owned())),
            ]
        );
    }

    #[test]
    fn errors_say_line_and_column() {
        for (text, line, column, message) in [
            ("A=1\nB C=2", 2, 1, "the variable name \"B C\" contains a space"),
            ("A=1\n\nB!=2", 3, 2, "unexpected character '!' in variable name \"B!=2\""),
            ("A=1\nB='x\ny", 2, 3, "unterminated quoted value 'x"),
            ("A=${B", 1, 1, "invalid interpolation \"${B\""),
        ] {
            let errors = parse(text, &|_| None, true, &mut |_| {}).errors;
            let [error] = errors.as_slice() else { panic!("{errors:?}") };
            assert_eq!((error.line, error.column, error.message.as_str()), (line, column, message));
        }
    }

    #[test]
    fn each_line_that_makes_no_sense_is_told_but_not_what_it_leads_to() {
        let told = |text: &str| {
            let parsed = parse(text, &|_| None, true, &mut |_| {});
            let errors = parsed.errors.iter().map(|error| (error.line, error.help.is_some()));
            (errors.collect::<Vec<_>>(), parsed.variables.len())
        };
        assert_eq!(
            told("A B=1\nC=2\nD!=3\nE=${F\nG=4\nH=${I:?needed}\n"),
            (vec![(1, false), (3, false), (4, false)], 2)
        );
        assert_eq!(told("KEY=begin\nAB+/C\nDE+/F\n+end\nA=1\n\nB C=2\n"), (vec![(2, true), (7, false)], 2));
        assert_eq!(told("A B=1\nC D=2\nE F\n"), (vec![(1, false), (2, true)], 0));
        assert_eq!(told("A B=1\nC='x\nD!=3\n"), (vec![(1, false), (2, false)], 0));
        assert_eq!(told("A=${I:?needed}\nB=1\nC=${I:?needed}\n"), (vec![(1, false)], 1));
    }

    #[test]
    fn the_raw_format_keeps_everything() {
        let variables = parse_raw("A=\"b\" # c\n#x\nHOME\n", &|_| None).variables;
        assert_eq!(variables[0].1.as_deref(), Some("\"b\" # c"));
        assert_eq!(variables[1], ("HOME".to_owned(), None));
    }
}
