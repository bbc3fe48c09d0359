//! The grammar of `.env` files. It parses; which files are read and who wins is decided elsewhere.

use std::collections::BTreeMap;

use crate::interpolate::substitute;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct DotenvError {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The column, from 1, in characters.
    pub(crate) column: usize,
    /// What.
    pub(crate) message: String,
}

/// Variables in the order of the file; `None` when the line has only a name and the name is set nowhere.
pub(crate) type Variables = Vec<(String, Option<String>)>;

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// Parses a file. `outer` is asked first when a value refers to a variable, then the lines above it.
pub(crate) fn parse(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
) -> Result<Variables, DotenvError> {
    let mut reader = Reader { text: text.strip_prefix('\u{feff}').unwrap_or(text), at: 0 };
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut variables = Vec::new();
    while reader.next_statement() {
        let start = reader.at;
        let (key, inherited) = reader.key()?;
        if inherited {
            let value = outer(&key);
            if let Some(value) = &value {
                known.insert(key.clone(), value.clone());
            }
            variables.push((key, value));
            continue;
        }
        let raw = reader.value()?;
        let value = match raw {
            Raw::Literal(text) => text,
            Raw::Expanded(text) => {
                let lookup = |name: &str| outer(name).or_else(|| known.get(name).cloned());
                substitute(&text, &lookup, unset)
                    .map_err(|error| reader.error_at(start, error.to_string()))?
            }
        };
        known.insert(key.clone(), value.clone());
        variables.push((key, Some(value)));
    }
    Ok(variables)
}

/// Parses docker's own format: `NAME=value` to the end of the line, nothing quoted, nothing interpolated.
pub(crate) fn parse_raw(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<Variables, DotenvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = Vec::new();
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
            return Err(DotenvError { line: index + 1, column: 1, message });
        }
        variables.push((key.to_owned(), value));
    }
    Ok(variables)
}

enum Raw {
    Literal(String),
    Expanded(String),
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

    fn value(&mut self) -> Result<Raw, DotenvError> {
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return Ok(self.unquoted()),
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
            return Err(self.error_at(start, format!("unterminated quoted value {line}")));
        };
        self.at += length;
        Ok(if quote == '"' { Raw::Expanded(unescape(&value)) } else { Raw::Literal(value) })
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

    fn values(text: &str) -> Vec<(String, Option<String>)> {
        let outer = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        parse(text, &outer, &mut |_| {}).unwrap()
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
            let error = parse(text, &|_| None, &mut |_| {}).unwrap_err();
            assert_eq!((error.line, error.column, error.message.as_str()), (line, column, message));
        }
    }

    #[test]
    fn the_raw_format_keeps_everything() {
        let variables = parse_raw("A=\"b\" # c\n#x\nHOME\n", &|_| None).unwrap();
        assert_eq!(variables[0].1.as_deref(), Some("\"b\" # c"));
        assert_eq!(variables[1], ("HOME".to_owned(), None));
    }
}
