//! Which paths of a context are left out: `.dockerignore` and `--exclude` with moby's rules, which are not
//! git's. Patterns are rooted at the context, the last one that matches wins, and what matches a directory
//! matches all that is in it. Pure.

use super::glob;

/// Patterns in the order they were written.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// How each pattern stood at a directory: what a parent matched, its children match.
#[derive(Debug, Clone)]
pub struct Matched(Vec<bool>);

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// `!` and nothing more.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamation,
    /// An unfinished class or escape.
    #[error("pattern {0:?}: {1}")]
    Bad(String, glob::BadPattern),
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    brings_back: bool,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Pieces(Vec<Piece>),
}

#[derive(Debug, Clone)]
enum Piece {
    /// `(.*/)?`
    Directories,
    /// `.*`
    Everything,
    /// `[^/]*`
    Star,
    /// `[^/]`
    Any,
    Literal(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

// === impl Ignore ===

impl Ignore {
    /// Reads a `.dockerignore` file.
    pub fn from_file(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for line in text.lines() {
            // Only a `#` in the first column makes a comment.
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let (mark, body) = match trimmed.strip_prefix('!') {
                Some(body) => ("!", body.trim()),
                None => ("", trimmed),
            };
            let mut body = if body.is_empty() { String::new() } else { clean(body) };
            if body.len() > 1 && body.starts_with('/') {
                body.remove(0);
            }
            patterns.push(format!("{mark}{body}"));
        }
        Self::from_patterns(patterns.iter().map(String::as_str))
    }

    /// Patterns one by one, as `--exclude` gives them.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let mut parsed = Vec::new();
        for pattern in patterns {
            let pattern = pattern.trim();
            if pattern.is_empty() {
                continue;
            }
            let (brings_back, text) = match pattern.strip_prefix('!') {
                Some("") => return Err(IgnoreError::LoneExclamation),
                Some(rest) => (true, clean(rest)),
                None => (false, clean(pattern)),
            };
            glob::check(&text).map_err(|error| IgnoreError::Bad(pattern.to_owned(), error))?;
            let form =
                Form::of(&text).ok_or_else(|| IgnoreError::Bad(pattern.to_owned(), glob::BadPattern))?;
            parsed.push(Pattern { text, brings_back, form });
        }
        Ok(Self { patterns: parsed })
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// How the patterns stand at the root.
    pub(crate) fn root(&self) -> Matched {
        Matched(vec![false; self.patterns.len()])
    }

    /// Whether the path, whose parent stood at `parent`, is left out; and how the patterns stand for its children.
    pub(crate) fn check(&self, path: &str, parent: &Matched) -> (bool, Matched) {
        let mut matched = Matched(vec![false; self.patterns.len()]);
        let mut out = false;
        for (at, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.0.get(at).copied().unwrap_or(false);
            // A pattern that could not change the answer is not asked, which is part of moby's rules: it counts
            // as not matched for the children too.
            if !inherited && pattern.brings_back != out {
                continue;
            }
            if inherited || pattern.form.matches(path) {
                matched.0[at] = true;
                out = !pattern.brings_back;
            }
        }
        (out, matched)
    }

    /// Whether the path is left out, and how the patterns stand for its children, found from the root down.
    pub fn standing(&self, path: &str) -> (bool, Matched) {
        let mut standing = (false, self.root());
        if path.is_empty() || self.is_empty() {
            return standing;
        }
        for (at, _) in path.match_indices('/').chain(std::iter::once((path.len(), ""))) {
            standing = self.check(&path[..at], &standing.1);
        }
        standing
    }

    /// Whether something below this left-out directory may come back: only then is it worth a look. What brings back the
    /// directory itself, or one above it, has had its say.
    pub fn may_bring_back_below(&self, directory: &str) -> bool {
        self.patterns.iter().filter(|pattern| pattern.brings_back).any(|pattern| {
            let mut parts = pattern.text.split('/');
            for name in directory.split('/') {
                match parts.next() {
                    None => return false,
                    Some(part) if part.contains("**") => return true,
                    Some(part) if part == name || glob::matches(part, name).unwrap_or(true) => {}
                    Some(_) => return false,
                }
            }
            parts.next().is_some()
        })
    }
}

// === impl Form ===

impl Form {
    fn of(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        // Which short cut fits so far; moby's short cuts are rules of their own: `**x` matches `ax`.
        let mut plain = true;
        let mut suffix = false;
        let mut first = true;
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    chars.next_if_eq(&'/');
                    if chars.peek().is_none() {
                        if plain && !first {
                            return Some(Self::Prefix(text[..text.len() - 2].to_owned()));
                        }
                        pieces.push(Piece::Everything);
                    } else {
                        pieces.push(Piece::Directories);
                    }
                    suffix = first;
                    plain = false;
                }
                '*' | '?' => {
                    pieces.push(if c == '*' { Piece::Star } else { Piece::Any });
                    (plain, suffix) = (false, false);
                }
                '\\' => {
                    pieces.push(Piece::Literal(chars.next().unwrap_or('\\')));
                    (plain, suffix) = (false, false);
                }
                '[' => {
                    pieces.push(class(&mut chars)?);
                    (plain, suffix) = (false, false);
                }
                other => pieces.push(Piece::Literal(other)),
            }
            first = false;
        }
        Some(match (plain, suffix) {
            (true, _) => Self::Exact(text.to_owned()),
            (_, true) => Self::Suffix(text[2..].to_owned()),
            _ => Self::Pieces(pieces),
        })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(text) => path.starts_with(text.as_str()),
            Self::Suffix(text) => path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path),
            Self::Pieces(pieces) => pieces_match(pieces, path),
        }
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Piece> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let mut from = chars.next()?;
        if from == ']' && !ranges.is_empty() {
            return Some(Piece::Class { negated, ranges });
        }
        if from == '\\' {
            from = chars.next()?;
        }
        let mut to = from;
        if chars.next_if_eq(&'-').is_some() {
            to = chars.next()?;
            if to == '\\' {
                to = chars.next()?;
            }
        }
        ranges.push((from, to));
    }
}

fn pieces_match(pieces: &[Piece], path: &str) -> bool {
    let path: Vec<char> = path.chars().collect();
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for piece in pieces {
        let mut next = vec![false; path.len() + 1];
        // Whether some earlier place was reached: what `.*` needs to know.
        let mut reached_before = false;
        for at in 0..=path.len() {
            let last = at.checked_sub(1).map(|before| (before, path[before]));
            next[at] = match (piece, last) {
                (Piece::Everything, _) => reach[at] || reached_before,
                (Piece::Directories, last) => reach[at] || (reached_before && matches!(last, Some((_, '/')))),
                (Piece::Star, None) => reach[at],
                (Piece::Star, Some((before, c))) => reach[at] || (next[before] && c != '/'),
                (_, None) => false,
                (Piece::Any, Some((before, c))) => reach[before] && c != '/',
                (Piece::Literal(wanted), Some((before, c))) => reach[before] && c == *wanted,
                (Piece::Class { negated, ranges }, Some((before, c))) => {
                    let inside = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                    reach[before] && inside != *negated
                }
            };
            reached_before |= reach[at];
        }
        reach = next;
    }
    reach[path.len()]
}

/// Go's `path.Clean`: no empty or `.` parts, `..` taken away where something is before it.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(patterns: &[&str], path: &str) -> bool {
        Ignore::from_patterns(patterns.iter().copied()).unwrap().standing(path).0
    }

    #[test]
    fn single_patterns_match_as_mobys_do() {
        for (pattern, path, wanted) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**/*", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/*.txt", "file.txt", true),
            ("**/**/*.txt", "file.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt", "a/file.txt", true),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "ae", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abc.def", true),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("abc?def", "abcdef", false),
            ("a\\\\", "a\\", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/foo/bar", true),
            ("**/foo/bar", "dir/dir2/foo/bar", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/def", true),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", ".foo", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a(b)c/def", "a(b)c/xyz", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            (
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                true,
            ),
            ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
            ("a\\*b", "a*b", true),
            ("a\\", "a\\", true),
        ] {
            // A lone backslash at the end is refused by Go's Match, as the last row shows.
            match Ignore::from_patterns([pattern]) {
                Ok(ignore) => assert_eq!(ignore.standing(path).0, wanted, "{pattern} {path}"),
                Err(_) => assert_eq!(pattern, "a\\"),
            }
        }
    }

    #[test]
    fn the_last_pattern_that_matches_wins() {
        for (patterns, path, wanted) in [
            (&["*.go", "!fileutils.go"][..], "fileutils.go", false),
            (&["docs", "!docs/README.md"], "docs/README.md", false),
            (&["docs/", "!docs/README.md"], "docs/README.md", false),
            (&["docs/*", "!docs/README.md"], "docs/README.md", false),
            (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
            (&["*.md", "README-secret.md", "!README*.md"], "README-secret.md", false),
            (&["!docs/README.md", "docs"], "docs/README.md", true),
            (&["**", "!util/docker/web"], "util/docker/web/foo", false),
            (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["**", "!dist/proxy.py-*.whl"], "dist/proxy.py-2.whl", false),
            (&["docs"], "docs/a/b", true),
            (&["docs"], "docsx", false),
            (&["dir", "!dir/a", "dir/a/b"], "dir/a/b", true),
            (&["dir", "!dir/a", "dir/a/b"], "dir/a/c", false),
        ] {
            assert_eq!(excludes(patterns, path), wanted, "{patterns:?} {path}");
        }
    }

    #[test]
    fn a_file_of_patterns_is_trimmed_and_cleaned() {
        let ignore = Ignore::from_file(
            "\u{feff}# comment\n  # not a comment\n/rooted\n  spaced  \na/../b//c/\n! /kept\n\n!  spaced/x\n",
        )
        .unwrap();
        let texts: Vec<_> = ignore.patterns.iter().map(|it| (it.brings_back, it.text.as_str())).collect();
        assert_eq!(
            texts,
            [
                (false, "# not a comment"),
                (false, "rooted"),
                (false, "spaced"),
                (false, "b/c"),
                (true, "kept"),
                (true, "spaced/x")
            ]
        );
        assert_eq!(Ignore::from_file("!\n").unwrap_err(), IgnoreError::LoneExclamation);
        assert!(matches!(Ignore::from_file("[\n").unwrap_err(), IgnoreError::Bad(..)));
    }

    #[test]
    fn a_left_out_directory_is_only_entered_for_what_may_come_back() {
        let ignore = Ignore::from_patterns(["**", "!src/*.rs", "!deep/**/x"]).unwrap();
        assert!(ignore.may_bring_back_below("src"));
        assert!(ignore.may_bring_back_below("deep/a/b"));
        assert!(!ignore.may_bring_back_below("target"));
        assert!(!Ignore::from_patterns(["a"]).unwrap().may_bring_back_below("a"));
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, wanted) in
            [("", "."), ("a/./b/", "a/b"), ("/../a", "/a"), ("../a", "../a"), ("a/../..", "..")]
        {
            assert_eq!(clean(path), wanted);
        }
    }
}
