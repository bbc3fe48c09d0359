//! A Dockerfile's text cut into instructions: directives, continued lines, comments and here-documents.

use super::expand::Expander;
use super::fault::Fault;
use super::parser::json_array;

/// A Dockerfile cut into instructions.
#[derive(Debug, Clone)]
pub(crate) struct Lexed {
    /// The escape character: `\` unless `# escape=` says `` ` ``.
    pub(crate) escape: char,
    /// `# syntax=`, and its line.
    pub(crate) syntax: Option<(String, usize)>,
    /// `# check=`.
    pub(crate) check: Option<String>,
    /// The instructions.
    pub(crate) lines: Vec<Line>,
}

/// One instruction, its continuation lines joined.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    /// The joined text without comments and here-document bodies.
    pub(crate) text: String,
    /// First and last line in the file, from 1.
    pub(crate) lines: (usize, usize),
    /// The here-documents that follow it.
    pub(crate) heredocs: Vec<Heredoc>,
    /// Whether empty lines were skipped inside it.
    pub(crate) has_gap: bool,
    /// The comments right above it, without their marks.
    pub(crate) remarks: Vec<String>,
    /// Where each piece of the text comes from: offset in the text, line, column.
    pieces: Vec<(usize, usize, usize)>,
}

/// A text that follows its instruction: `<<EOF`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Heredoc {
    /// The word that ends it.
    pub(crate) name: String,
    /// Whether variables in it are expanded: no part of the word was quoted.
    pub(crate) expand: bool,
    /// Whether leading tabs are taken off: `<<-`.
    pub(crate) chomp: bool,
    /// The text, each line with its end.
    pub(crate) text: String,
}

/// How long one line may be: the buffer of BuildKit's scanner.
const LINE_LIMIT: usize = 65_535;

/// Cuts a Dockerfile into instructions.
pub(crate) fn lex(text: &str) -> Result<Lexed, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.split_inclusive('\n').collect();
    if let Some(at) = physical.iter().position(|line| line.trim_end_matches(['\r', '\n']).len() > LINE_LIMIT)
    {
        return Err(Fault::at(
            at + 1,
            format!("dockerfile line greater than max allowed size of {LINE_LIMIT}"),
        ));
    }
    let mut lexed = Lexed { escape: '\\', syntax: None, check: None, lines: Vec::new() };
    read_directives(&physical, &mut lexed)?;
    if lexed.syntax.is_none() {
        lexed.syntax = foreign_syntax(&physical);
    }
    let mut at = 0;
    let mut remarks = Vec::new();
    while at < physical.len() {
        let start = content(physical[at]).trim_start();
        if start.is_empty() {
            remarks.clear();
            at += 1;
            continue;
        }
        if let Some(remark) = start.strip_prefix('#') {
            remarks.push(remark.trim().to_owned());
            at += 1;
            continue;
        }
        let (mut line, next) = join(&physical, at, lexed.escape);
        at = next;
        if line.text.trim().is_empty() {
            continue;
        }
        for mut heredoc in heredocs_of(&line.text, lexed.escape) {
            at = read_heredoc(&physical, at, &mut heredoc)
                .ok_or_else(|| unterminated(&heredoc.name, line.lines.0))?;
            line.heredocs.push(heredoc);
        }
        line.lines.1 = at;
        line.remarks = std::mem::take(&mut remarks);
        lexed.lines.push(line);
    }
    if lexed.lines.is_empty() {
        return Err(Fault::at(physical.len().max(1), "file with no instructions"));
    }
    Ok(lexed)
}

fn unterminated(name: &str, line: usize) -> Fault {
    Fault::at(line, format!("unterminated heredoc: no line that is {name} alone ends it"))
}

/// The here-document a word stands for: `N<<-"WORD"`.
pub(crate) fn parse_heredoc(word: &str, escape: char) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let unset = |_: &str| None;
    if Expander::for_splitting(escape).expand(rest, &unset).ok()?.words.len() != 1 {
        return None;
    }
    let mut words = Expander::new(escape).expand(rest, &unset).ok()?.words;
    let name = words.pop().filter(|_| words.is_empty())?;
    Some(Heredoc { expand: name == rest, name, chomp, text: String::new() })
}

fn content(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Directives stand before anything else; the first line that is none ends them.
fn read_directives(physical: &[&str], lexed: &mut Lexed) -> Result<(), Fault> {
    let mut seen: Vec<String> = Vec::new();
    for (at, line) in physical.iter().enumerate() {
        let line = content(line).trim();
        if at == 0 && line.starts_with("#!") {
            continue;
        }
        let Some((key, value)) = line.strip_prefix('#').and_then(|rest| rest.split_once('=')) else { break };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if value.is_empty() || !matches!(key.as_str(), "escape" | "syntax" | "check") {
            break;
        }
        if seen.contains(&key) {
            return Err(Fault::at(at + 1, format!("only one {key} parser directive can be used")));
        }
        match key.as_str() {
            "escape" => {
                lexed.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message = format!("invalid escape token {other:?}: only ` or \\ can be used");
                        return Err(Fault::at(at + 1, message));
                    }
                }
            }
            "syntax" => lexed.syntax = Some((value.to_owned(), at + 1)),
            _ => lexed.check = Some(value.to_owned()),
        }
        seen.push(key);
    }
    Ok(())
}

/// The syntax that a file says it is in which is no Dockerfile: `// syntax=` above a program, or `syntax` in JSON.
fn foreign_syntax(physical: &[&str]) -> Option<(String, usize)> {
    let start = usize::from(physical.first().is_some_and(|line| line.starts_with("#!")));
    let above = physical[start..].iter().zip(start + 1..).map_while(|(line, number)| {
        let (key, value) = line.strip_prefix("//")?.split_once('=')?;
        Some((key.trim().to_ascii_lowercase(), value.trim(), number))
    });
    let mut known = above.take_while(|(key, ..)| matches!(key.as_str(), "escape" | "syntax" | "check"));
    if let Some((_, value, number)) = known.find(|(key, ..)| key == "syntax") {
        return Some((value.to_owned(), number));
    }
    if !physical.get(start)?.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Value = serde_json::from_str(&physical[start..].concat()).ok()?;
    Some((object.get("syntax")?.as_str()?.to_owned(), start + 1))
}

/// Joins the line at `at` with those that continue it; returns it and the index of the line after.
fn join(physical: &[&str], mut at: usize, escape: char) -> (Line, usize) {
    let raw = content(physical[at]);
    let first = raw.trim_start();
    let mut line = Line { lines: (at + 1, at + 1), ..Line::default() };
    let mut piece = (first, raw.chars().count() - first.chars().count() + 1);
    loop {
        let (text, continued) = without_continuation(piece.0, escape);
        line.pieces.push((line.text.len(), at + 1, piece.1));
        line.text.push_str(text);
        at += 1;
        if !continued {
            break;
        }
        // Comments inside an instruction vanish; empty lines do too, but people are told.
        while let Some(next) = physical.get(at).map(|next| content(next).trim_start()) {
            if !next.is_empty() && !next.starts_with('#') {
                break;
            }
            line.has_gap |= next.is_empty();
            at += 1;
        }
        match physical.get(at) {
            Some(next) => piece = (content(next), 1),
            None => break,
        }
    }
    line.lines.1 = at;
    (line, at)
}

fn without_continuation(text: &str, escape: char) -> (&str, bool) {
    let trimmed = text.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (text, false),
    }
}

fn heredocs_of(text: &str, escape: char) -> Vec<Heredoc> {
    if !text.contains("<<") {
        return Vec::new();
    }
    let mut words = text.split_whitespace();
    let mut keyword = words.next().unwrap_or_default().to_ascii_uppercase();
    if keyword == "ONBUILD" {
        keyword = words.next().unwrap_or_default().to_ascii_uppercase();
    }
    let arguments = words.skip_while(|word| word.starts_with("--")).collect::<Vec<_>>().join(" ");
    if !matches!(keyword.as_str(), "ADD" | "COPY" | "RUN") || matches!(json_array(&arguments), Ok(Some(_))) {
        return Vec::new();
    }
    let words =
        Expander::for_splitting(escape).expand(text, &|_| None).map(|it| it.words).unwrap_or_default();
    words.iter().filter_map(|word| parse_heredoc(word, escape)).collect()
}

/// Reads a here-document's body from the line at `at`; returns the index after its last line.
fn read_heredoc(physical: &[&str], mut at: usize, heredoc: &mut Heredoc) -> Option<usize> {
    loop {
        let raw = *physical.get(at)?;
        at += 1;
        let line = content(raw);
        let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
        if line == heredoc.name {
            return Some(at);
        }
        heredoc.text.push_str(raw);
    }
}

// === impl Line ===

impl Line {
    /// An instruction that comes from no file: an ONBUILD trigger of a base image.
    pub(crate) fn synthetic(text: &str, heredocs: Vec<Heredoc>, line: usize) -> Self {
        Self {
            text: text.to_owned(),
            lines: (line, line),
            heredocs,
            remarks: Vec::new(),
            has_gap: false,
            pieces: vec![(0, line, 1)],
        }
    }

    /// The line and column, from 1, of a place in the joined text.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let piece = self.pieces.iter().rev().find(|piece| piece.0 <= offset);
        let (start, line, column) = piece.copied().unwrap_or((0, self.lines.0, 1));
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, column + before.chars().count())
    }

    /// A mistake at a place in the joined text.
    pub(crate) fn fault(&self, offset: usize, message: impl Into<String>) -> Fault {
        let (line, column) = self.position(offset);
        Fault::at(line, message).over(line, self.lines.1.max(line)).in_column(column)
    }
}

// === impl Heredoc ===

impl Heredoc {
    /// The text as the instruction gets it.
    pub(crate) fn body(&self) -> String {
        if !self.chomp {
            return self.text.clone();
        }
        self.text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        lex(text).unwrap().lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn continued_lines_join_and_comments_inside_vanish() {
        let lexed = lex("FROM scratch\nRUN a \\\n  # why\n  b \\  \n\n  c\n").unwrap();
        assert_eq!(lexed.lines[1].text, "RUN a   b   c");
        assert_eq!(lexed.lines[1].lines, (2, 6));
        assert!(lexed.lines[1].has_gap);
        assert_eq!(lexed.lines[1].position(8), (4, 3));
    }

    #[test]
    fn an_escaped_escape_does_not_continue() {
        assert_eq!(texts("RUN a \\\\\nRUN b"), ["RUN a \\\\", "RUN b"]);
    }

    #[test]
    fn directives_stand_before_everything_else() {
        let lexed = lex("# syntax=docker/dockerfile:1\n# escape=`\nFROM a`\n  b\n").unwrap();
        assert_eq!((lexed.escape, lexed.lines[0].text.as_str()), ('`', "FROM a  b"));
        assert_eq!(lexed.syntax, Some(("docker/dockerfile:1".into(), 1)));
        assert_eq!(lex("# hello\n# escape=`\nFROM a\n").unwrap().escape, '\\');
        assert_eq!(lex("\n# escape=`\nFROM a\n").unwrap().escape, '\\');
        assert_eq!(lex("# ESCAPE = `\nFROM a\n").unwrap().escape, '`');
        let twice = lex("# escape=`\n# escape=`\nFROM a\n").unwrap_err();
        assert_eq!(twice, Fault::at(2, "only one escape parser directive can be used"));
        assert!(lex("# escape=x\nFROM a\n").is_err());
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_are_not_seen() {
        assert_eq!(texts("\u{feff}FROM a\r\nRUN b \\\r\n c\r\n"), ["FROM a", "RUN b  c"]);
    }

    #[test]
    fn heredocs_follow_their_instruction() {
        let lexed = lex("FROM a\nRUN <<EOF cat\nx\n  y\nEOF\nCOPY <<a <<-\"b\" /d/\n1\na\n\t2\n\tb\nRUN z\n")
            .unwrap();
        assert_eq!(lexed.lines[1].heredocs[0].text, "x\n  y\n");
        assert!(lexed.lines[1].heredocs[0].expand);
        let second = &lexed.lines[2].heredocs[1];
        assert_eq!((second.name.as_str(), second.expand, second.body().as_str()), ("b", false, "2\n"));
        assert_eq!(lexed.lines[3].text, "RUN z");
        assert_eq!(lexed.lines[2].lines, (6, 10));
    }

    #[test]
    fn no_heredoc_where_none_is_meant() {
        assert_eq!(texts("RUN cat <<<EOF\nRUN x").len(), 2);
        assert_eq!(texts("RUN [\"cat\", \"<<EOF\"]\nRUN x").len(), 2);
        assert_eq!(texts("ENV a=<<EOF\nRUN x").len(), 2);
        assert_eq!(
            lex("RUN <<EOF\nx\n").unwrap_err().message,
            "unterminated heredoc: no line that is EOF alone ends it"
        );
    }

    #[test]
    fn an_empty_file_has_no_instructions() {
        for text in ["", "\n\n", "# only\n# comments\n"] {
            assert_eq!(lex(text).unwrap_err().message, "file with no instructions");
        }
    }
}
