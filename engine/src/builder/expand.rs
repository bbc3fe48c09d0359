//! Variables in the words of a Dockerfile: `$name`, `${name…}`, quotes and the escape character. Pure.

use std::collections::BTreeSet;

/// Looks a variable up; `None` is unset, which is not the same as empty.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How words are expanded. `Expander::new(escape)` expands as instructions do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expander {
    escape: char,
    keep_quotes: bool,
    keep_escapes: bool,
    keep_unset: bool,
    ignore_quotes: bool,
}

/// An expanded text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// All of it.
    pub(crate) text: String,
    /// It, split at blanks that were not quoted.
    pub(crate) words: Vec<String>,
    /// The variables that were asked for and are not set.
    pub(crate) unset: BTreeSet<String>,
}

/// One run over one text.
struct Scan<'a> {
    how: Expander,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    lookup: Lookup<'a>,
    unset: BTreeSet<String>,
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    in_word: bool,
}

/// A shell pattern without brackets: the `p` of `${v#p}`.
struct Pattern(Vec<Piece>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Star,
    Any,
    Literal(char),
}

// === impl Expander ===

impl Expander {
    /// Expansion as instructions do it, with this escape character.
    pub(crate) fn new(escape: char) -> Self {
        Self { escape, keep_quotes: false, keep_escapes: false, keep_unset: false, ignore_quotes: false }
    }

    /// Expansion for display and for splitting: quotes and variables that are not set stay as written.
    pub(crate) fn for_display(escape: char) -> Self {
        Self { keep_quotes: true, keep_unset: true, ..Self::new(escape) }
    }

    /// Splitting alone: quotes, escapes and variables that are not set stay as written.
    pub(crate) fn for_splitting(escape: char) -> Self {
        Self { keep_escapes: true, ..Self::for_display(escape) }
    }

    /// Expansion of a here-document's body: quotes mean nothing.
    pub(crate) fn for_heredoc(escape: char) -> Self {
        Self { ignore_quotes: true, ..Self::new(escape) }
    }

    /// Expands a text.
    pub(crate) fn expand(&self, text: &str, lookup: Lookup<'_>) -> Result<Expanded, String> {
        let mut scan = Scan { how: *self, rest: text.chars().peekable(), lookup, unset: BTreeSet::new() };
        let (text_out, words) =
            scan.until(None, self.keep_escapes).map_err(|e| format!("failed to process {text:?}: {e}"))?;
        Ok(Expanded { text: text_out, words, unset: scan.unset })
    }
}

// === impl Scan ===

impl Scan<'_> {
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<(String, Vec<String>), String> {
        let outer = std::mem::replace(&mut self.how.keep_escapes, keep_escapes);
        let result = self.until_inner(stop);
        self.how.keep_escapes = outer;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(&next) = self.rest.peek() {
            if Some(next) == stop {
                self.rest.next();
                return Ok((text, words.finish()));
            }
            match next {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.add(c));
                    text.push_str(&value);
                }
                '\'' | '"' if !self.how.ignore_quotes => {
                    let value = if next == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    words.add_quoted(&value);
                    text.push_str(&value);
                }
                _ => {
                    self.rest.next();
                    if next != self.how.escape {
                        words.add(next);
                        text.push(next);
                        continue;
                    }
                    if self.how.keep_escapes {
                        words.add_raw(next);
                        text.push(next);
                    }
                    if let Some(escaped) = self.rest.next() {
                        words.add_raw(escaped);
                        text.push(escaped);
                    }
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok((text, words.finish())),
        }
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        text.extend(self.rest.next().filter(|_| self.how.keep_quotes));
        loop {
            match self.rest.next() {
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
                Some('\'') => {
                    text.extend(self.how.keep_quotes.then_some('\''));
                    return Ok(text);
                }
                Some(other) => text.push(other),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        text.extend(self.rest.next().filter(|_| self.how.keep_quotes));
        loop {
            match self.rest.peek().copied() {
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
                Some('"') => {
                    self.rest.next();
                    text.extend(self.how.keep_quotes.then_some('"'));
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(mut next) => {
                    self.rest.next();
                    if next == self.how.escape {
                        if self.how.keep_escapes {
                            text.push(next);
                        }
                        match self.rest.peek().copied() {
                            None => continue,
                            Some(c) if c == '"' || c == '$' || c == self.how.escape => {
                                self.rest.next();
                                next = c;
                            }
                            Some(_) if self.how.keep_escapes => continue,
                            Some(_) => {}
                        }
                    }
                    text.push(next);
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.rest.next();
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                None if self.how.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.rest.next();
        match self.rest.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            Some('}') => Ok(match self.value(&name) {
                None if self.how.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let modifier = self.rest.next();
                self.modified(&name, modifier, true)
            }
            Some('/') => self.replaced(&name),
            modifier @ Some('+' | '-' | '?' | '#' | '%') => self.modified(&name, modifier, false),
            Some(other) => Err(format!("unsupported modifier ({other}) in substitution")),
            None => Err("syntax error: missing '}'".into()),
        }
    }

    /// `${name-word}` and its kin; `colon` makes empty as good as unset.
    fn modified(&mut self, name: &str, modifier: Option<char>, colon: bool) -> Result<String, String> {
        let shown = format!("{}{}", if colon { ":" } else { "" }, modifier.unwrap_or('}'));
        let unsupported = || format!("unsupported modifier ({shown}) in substitution");
        let modifier = modifier.ok_or_else(unsupported)?;
        if !matches!(modifier, '+' | '-' | '?' | '#' | '%') || (colon && matches!(modifier, '#' | '%')) {
            return Err(unsupported());
        }
        let (word, _) = self.until(Some('}'), matches!(modifier, '#' | '%')).map_err(|error| {
            if self.rest.peek().is_none() { "syntax error: missing '}'".to_owned() } else { error }
        })?;
        // These forms say themselves what happens without the variable: it is not missed.
        let value = (self.lookup)(name);
        if value.is_none() && self.how.keep_unset {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let missing = value.is_none() || (colon && value.as_deref() == Some(""));
        match modifier {
            '-' if missing => Ok(word),
            '+' => Ok(if missing { String::new() } else { word }),
            '?' if missing => {
                let what = if value.is_none() { "unset" } else { "empty" };
                let reason = if word.is_empty() { format!("is not allowed to be {what}") } else { word };
                Err(format!("{name}: {reason}"))
            }
            '#' | '%' => {
                let (longest, pattern) = match word.strip_prefix(modifier) {
                    Some(rest) => (true, rest),
                    None => (false, word.as_str()),
                };
                let pattern = Pattern::parse(pattern)?;
                let value = value.unwrap_or_default();
                Ok(if modifier == '#' {
                    pattern.trim_start(&value, longest)
                } else {
                    pattern.trim_end(&value, longest)
                })
            }
            _ => Ok(value.unwrap_or_default()),
        }
    }

    /// `${name/pattern/word}` and `${name//pattern/word}`.
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.rest.next_if_eq(&'/').is_some();
        let (pattern, _) =
            self.until(Some('/'), true).map_err(|_| "syntax error: missing '/' in ${}".to_owned())?;
        let (word, _) = self.until(Some('}'), true).map_err(|_| "syntax error: missing '}'".to_owned())?;
        match self.value(name) {
            None if self.how.keep_unset => Ok(format!("${{{name}/{pattern}/{word}}}")),
            value => Ok(Pattern::parse(&pattern)?.replace(&value.unwrap_or_default(), &word, all)),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(digit);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            _ => {
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        if value.is_none() {
            self.unset.insert(name.to_owned());
        }
        value
    }
}

// === impl Words ===

impl Words {
    fn add(&mut self, c: char) {
        if !c.is_whitespace() {
            self.add_raw(c);
        } else if self.in_word && !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
            self.in_word = false;
        }
    }

    fn add_raw(&mut self, c: char) {
        self.current.push(c);
        self.in_word = true;
    }

    fn add_quoted(&mut self, text: &str) {
        self.current.push_str(text);
        self.in_word = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

// === impl Pattern ===

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                '*' => Piece::Star,
                '?' => Piece::Any,
                '\\' => match chars.next() {
                    Some(escaped @ ('}' | '/' | '*' | '?' | '\\')) => Piece::Literal(escaped),
                    other => {
                        let shown = other.map(String::from).unwrap_or_default();
                        return Err(format!(
                            "invalid pattern ({text}) in substitution: invalid escape '\\{shown}'"
                        ));
                    }
                },
                other => Piece::Literal(other),
            });
        }
        Ok(Self(pieces))
    }

    /// Whether all of the text is matched.
    fn matches(&self, text: &[char]) -> bool {
        // One row of the usual table: which prefixes of the text the pieces so far can match.
        let mut reach = vec![false; text.len() + 1];
        reach[0] = true;
        for piece in &self.0 {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                next[at] = match piece {
                    Piece::Star => reach[at] || (at > 0 && next[at - 1] && text[at - 1] != '\n'),
                    Piece::Any => at > 0 && reach[at - 1] && text[at - 1] != '\n',
                    Piece::Literal(c) => at > 0 && reach[at - 1] && text[at - 1] == *c,
                };
            }
            reach = next;
        }
        reach[text.len()]
    }

    fn trim_start(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut ends = 0..=chars.len();
        let found = |end: &usize| self.matches(&chars[..*end]);
        let end = if longest { ends.rev().find(found) } else { ends.find(found) };
        chars[end.unwrap_or(0)..].iter().collect()
    }

    fn trim_end(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut starts = 0..=chars.len();
        let found = |start: &usize| self.matches(&chars[*start..]);
        let start = if longest { starts.find(found) } else { starts.rev().find(found) };
        chars[..start.unwrap_or(chars.len())].iter().collect()
    }

    fn replace(&self, value: &str, word: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut text = String::new();
        let mut at = 0;
        let mut done = false;
        while at <= chars.len() {
            let end = (at..=chars.len()).rev().find(|end| !done && self.matches(&chars[at..*end]));
            match end {
                Some(end) => {
                    text.push_str(word);
                    done = !all;
                    if end > at {
                        at = end;
                        continue;
                    }
                }
                None if done => {
                    text.extend(&chars[at..]);
                    break;
                }
                None => {}
            }
            text.extend(chars.get(at));
            at += 1;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "PWD" => "/home",
            "SHELL" => "bash",
            "KOREAN" => "한국어",
            "NULL" => "",
            "FILE" => "/usr/lib/libfoo.tar.gz",
            "SEMVER" => "1.2.3-beta",
            "WILD" => "a*c?d\\e",
            "SLASH" => "a/b/c",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn expand(text: &str) -> Result<String, String> {
        Expander::new('\\').expand(text, &lookup).map(|expanded| expanded.text)
    }

    #[test]
    fn variables_quotes_and_escapes_are_expanded() {
        for (text, wanted) in [
            ("hello", "hello"),
            ("he'll'o", "hello"),
            ("he\"llo\"", "hello"),
            ("he\\'llo", "he'llo"),
            ("hello\\", "hello"),
            ("\"hello\\\"", "!"),
            ("'hello", "!"),
            ("\"$PWD\\\"x\"", "/home\"x"),
            ("'$PWD'", "$PWD"),
            ("\\$PWD", "$PWD"),
            ("\"a\\b\"", "a\\b"),
            ("\"a\\\\b\"", "a\\b"),
            ("a\\b", "ab"),
            ("$PWD", "/home"),
            ("$PWDx", ""),
            ("${PWD}x", "/homex"),
            ("$", "$"),
            ("$/x", "$/x"),
            ("he$1x", "hex"),
            ("he$.", "he$."),
            ("$$x", "x"),
            ("${}", "!"),
            ("${", "!"),
            ("${PWD", "!"),
            ("${:x}", "!"),
            ("${{x}", "!"),
            ("${x:-$PWD}", "/home"),
            ("${x:-\"a b\"}", "a b"),
            ("${x-y}", "y"),
            ("${NULL-y}", ""),
            ("${NULL:-y}", "y"),
            ("${NULL+y}", "y"),
            ("${NULL:+y}", ""),
            ("${x+y}", ""),
            ("${PWD:+y${SHELL}}", "ybash"),
            ("${x:-a\\}b}", "a}b"),
            ("안녕${KOREAN}", "안녕한국어"),
            ("${PWD=x}", "!"),
            ("${PWD:=x}", "!"),
            ("${PWD:#x}", "!"),
        ] {
            match expand(text) {
                Ok(got) => assert_eq!(got, wanted, "{text}"),
                Err(_) => assert_eq!("!", wanted, "{text}"),
            }
        }
    }

    #[test]
    fn patterns_trim_and_replace() {
        for (text, wanted) in [
            ("${FILE#*/}", "usr/lib/libfoo.tar.gz"),
            ("${FILE##*/}", "libfoo.tar.gz"),
            ("${FILE%.*}", "/usr/lib/libfoo.tar"),
            ("${FILE%%.*}", "/usr/lib/libfoo"),
            ("${FILE#x}", "/usr/lib/libfoo.tar.gz"),
            ("${SEMVER%-*}", "1.2.3"),
            ("${SEMVER#?}", ".2.3-beta"),
            ("${SEMVER/./_}", "1_2.3-beta"),
            ("${SEMVER//./_}", "1_2_3-beta"),
            ("${SEMVER//[0-9]/x}", "1.2.3-beta"),
            ("${SLASH//\\//-}", "a-b-c"),
            ("${WILD#a\\*}", "c?d\\e"),
            ("${WILD%\\\\e}", "a*c?d"),
            ("${x#a}", ""),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(wanted), "{text}");
        }
        assert!(expand("${WILD#\\a}").unwrap_err().contains("invalid escape '\\a'"));
    }

    #[test]
    fn a_demanded_variable_says_why_it_is_missing() {
        assert_eq!(
            expand("${x:?}").unwrap_err(),
            "failed to process \"${x:?}\": x: is not allowed to be unset"
        );
        assert!(expand("${NULL:?}").unwrap_err().ends_with("NULL: is not allowed to be empty"));
        assert!(expand("${x?set it}").unwrap_err().ends_with("x: set it"));
        assert_eq!(expand("${NULL?}").unwrap(), "");
    }

    #[test]
    fn words_split_at_blanks_that_are_not_quoted() {
        let words = |text: &str| Expander::new('\\').expand(text, &lookup).unwrap().words;
        assert_eq!(words("a  b 'c d' e\"f g\"h"), ["a", "b", "c d", "ef gh"]);
        assert_eq!(words("a\\ b c"), ["a b", "c"]);
        assert_eq!(words("${x:-a b}"), ["a", "b"]);
        assert_eq!(words("  "), Vec::<String>::new());
    }

    #[test]
    fn display_keeps_what_it_cannot_know() {
        let shown = |text: &str| Expander::for_display('\\').expand(text, &lookup).unwrap().text;
        assert_eq!(shown("RUN echo \"$PWD\" $x ${x} ${x:-y}"), "RUN echo \"/home\" $x ${x} ${x:-y}");
    }

    #[test]
    fn unset_variables_are_told() {
        let expanded = Expander::new('\\').expand("$a ${b} ${c:-x} $PWD", &lookup).unwrap();
        assert_eq!(expanded.unset.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
