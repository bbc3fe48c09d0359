//! Lines to instructions: flags, JSON forms, key-value forms, and a clear word about what is wrong.

use std::collections::BTreeMap;

use super::fault::{Fault, nearest};
use super::instruction::{CommandLine, Copy, Dockerfile, Instruction, Run, Stage, Step};
use super::lexer::{Lexed, Line, lex, parse_heredoc};
use crate::image::config::ImageHealthCheck;
use crate::quantity::Span;

/// The flags before an instruction's arguments.
struct Flags<'a> {
    line: &'a Line,
    found: Vec<Flag>,
}

struct Flag {
    name: String,
    value: Option<String>,
    offset: usize,
}

/// A line cut into keyword, flags and the rest.
struct Parts<'a> {
    line: &'a Line,
    escape: char,
    keyword: String,
    flags: Flags<'a>,
    rest: &'a str,
    rest_offset: usize,
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What the flags of each instruction are called.
const FLAGS: [(&str, &[&str]); 5] = [
    ("FROM", &["platform"]),
    ("ADD", &["chmod", "chown", "link", "keep-git-dir", "checksum", "unpack", "exclude"]),
    ("COPY", &["from", "chmod", "chown", "link", "parents", "exclude"]),
    ("RUN", &["mount", "network", "security", "device"]),
    ("HEALTHCHECK", &["interval", "timeout", "start-period", "start-interval", "retries"]),
];

/// Flags that may be given several times.
const REPEATABLE: [&str; 3] = ["exclude", "mount", "device"];

/// Parses a whole Dockerfile.
pub(crate) fn parse(text: &str) -> Result<Dockerfile, Fault> {
    let lexed = lex(text)?;
    check_syntax(&lexed)?;
    let mut dockerfile = Dockerfile {
        escape: lexed.escape,
        check: lexed.check.clone(),
        remarks: BTreeMap::new(),
        globals: Vec::new(),
        stages: Vec::new(),
    };
    for line in &lexed.lines {
        if !line.remarks.is_empty() {
            dockerfile.remarks.insert(line.lines.0, line.remarks.clone());
        }
        let parts = Parts::of(line, lexed.escape)?;
        if parts.keyword == "FROM" {
            dockerfile.stages.push(parts.stage()?);
            continue;
        }
        let step = parts.step()?;
        match dockerfile.stages.last_mut() {
            Some(stage) => stage.steps.push(step),
            None if matches!(step.instruction, Instruction::Arg(_)) => dockerfile.globals.push(step),
            None => return Err(line.fault(0, "no build stage in current context: FROM must come first")),
        }
    }
    if dockerfile.stages.is_empty() {
        let last = lexed.lines.last().map_or(1, |line| line.lines.1);
        return Err(Fault::at(last, "dockerfile contains no stages to build: FROM is missing"));
    }
    Ok(dockerfile)
}

/// Parses the instruction of an ONBUILD trigger.
pub(crate) fn parse_trigger(text: &str, escape: char, line: usize) -> Result<Step, Fault> {
    let relocate = |fault: Fault| Fault {
        message: format!("{} in the ONBUILD trigger {text:?}", fault.message),
        ..Fault::at(line, "")
    };
    let mut lexed = lex(&format!("#\n{text}")).map_err(relocate)?;
    lexed.lines.truncate(1);
    let mut trigger =
        lexed.lines.pop().ok_or_else(|| Fault::at(line, format!("empty ONBUILD trigger {text:?}")))?;
    let heredocs = std::mem::take(&mut trigger.heredocs);
    let trigger = Line::synthetic(&trigger.text, heredocs, line);
    Parts::of(&trigger, escape).and_then(|parts| parts.step()).map_err(relocate)
}

/// A JSON array of strings; `None` when the text is no JSON array, an error when it is one of other things.
pub(crate) fn json_array(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned()),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Only the syntax built in here is spoken; asking for docker's own is asking for that.
fn check_syntax(lexed: &Lexed) -> Result<(), Fault> {
    match &lexed.syntax {
        Some((syntax, line)) if !is_spoken(syntax) => {
            Err(Fault::at(*line, format!("syntax {syntax:?} {NOT_SPOKEN}")))
        }
        _ => Ok(()),
    }
}

/// What is said of other syntaxes.
pub(crate) const NOT_SPOKEN: &str = "is not supported: only docker/dockerfile is, and it is built in";

/// Whether a syntax is the one that is built in, from wherever a registry has it: many keep a copy of docker's.
pub(crate) fn is_spoken(syntax: &str) -> bool {
    let name = syntax.split(['@', ' ']).next().unwrap_or_default();
    let mut parts = name.rsplit('/');
    let last = parts.next().unwrap_or_default();
    let last = last.split_once(':').map_or(last, |(last, _)| last);
    match parts.next() {
        None => last == "dockerfile.v0",
        Some(owner) => owner == "docker" && matches!(last, "dockerfile" | "dockerfile-upstream"),
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn of(line: &'a Line, escape: char) -> Result<Self, Fault> {
        let text = line.text.as_str();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let keyword = text[..end].to_ascii_uppercase();
        if !KEYWORDS.contains(&keyword.as_str()) {
            let mut message = format!("unknown instruction: {}", &text[..end]);
            if let Some(meant) = nearest(&keyword, KEYWORDS) {
                message.push_str(&format!(" (did you mean {meant}?)"));
            }
            return Err(line.fault(0, message));
        }
        let (found, rest_offset) = cut_flags(text, end);
        let flags = Flags { line, found };
        let rest = &text[rest_offset..];
        let lead = rest.len() - rest.trim_start().len();
        let parts = Self { line, escape, keyword, flags, rest: rest.trim(), rest_offset: rest_offset + lead };
        parts.flags.check(&parts.keyword)?;
        Ok(parts)
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        self.line.fault(0, message)
    }

    fn step(&self) -> Result<Step, Fault> {
        Ok(Step {
            instruction: self.instruction()?,
            code: self.line.text.trim_end().to_owned(),
            lines: self.line.lines,
            has_gap: self.line.has_gap,
        })
    }

    fn instruction(&self) -> Result<Instruction, Fault> {
        Ok(match self.keyword.as_str() {
            "ADD" | "COPY" => Instruction::Copy(self.copy()?),
            "ARG" => Instruction::Arg(self.arguments()?),
            "CMD" => Instruction::Cmd(self.command_line(false)?),
            "ENTRYPOINT" => Instruction::Entrypoint(self.command_line(false)?),
            "RUN" => Instruction::Run(self.run()?),
            "ENV" => self.key_values().map(|(pairs, legacy)| Instruction::Env(pairs, legacy))?,
            "LABEL" => self.key_values().map(|(pairs, legacy)| Instruction::Label(pairs, legacy))?,
            "EXPOSE" => Instruction::Expose(self.some_words()?),
            "VOLUME" => Instruction::Volume(self.volumes()?),
            "HEALTHCHECK" => Instruction::Healthcheck(self.healthcheck()?),
            "USER" => Instruction::User(self.one()?),
            "WORKDIR" => Instruction::Workdir(self.one()?),
            "STOPSIGNAL" => Instruction::Stopsignal(self.one()?),
            "MAINTAINER" => Instruction::Maintainer(self.one()?),
            "SHELL" => match self.json()? {
                Some(words) if !words.is_empty() => Instruction::Shell(words),
                Some(_) => return Err(self.fault("SHELL requires at least one argument")),
                None => return Err(self.fault("SHELL requires the arguments to be in JSON form")),
            },
            "ONBUILD" => Instruction::Onbuild(self.trigger()?),
            other => return Err(self.fault(format!("{other} is not allowed here"))),
        })
    }

    fn stage(&self) -> Result<Stage, Fault> {
        let words: Vec<&str> = self.rest.split_whitespace().collect();
        let (base, name) = match words[..] {
            [base] => (base, None),
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (base, Some(name)),
            _ => return Err(self.fault("FROM requires either one or three arguments")),
        };
        let name = name.map(|name| self.stage_name(name)).transpose()?;
        Ok(Stage {
            base: base.to_owned(),
            name,
            platform: self.flags.text("platform")?,
            code: self.line.text.trim_end().to_owned(),
            lines: self.line.lines,
            steps: Vec::new(),
        })
    }

    fn stage_name(&self, name: &str) -> Result<String, Fault> {
        let lower = name.to_lowercase();
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if lower.starts_with(|c: char| c.is_ascii_lowercase()) && lower.chars().all(letters) {
            return Ok(lower);
        }
        let message = format!(
            "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
        );
        let offset = self.line.text.rfind(name).unwrap_or(0);
        Err(self.line.fault(offset, message))
    }

    fn json(&self) -> Result<Option<Vec<String>>, Fault> {
        json_array(self.rest).map_err(|message| self.line.fault(self.rest_offset, message))
    }

    fn one(&self) -> Result<String, Fault> {
        if self.rest.is_empty() {
            return Err(self.fault(format!("{} requires exactly one argument", self.keyword)));
        }
        Ok(self.rest.to_owned())
    }

    fn some_words(&self) -> Result<Vec<String>, Fault> {
        let words: Vec<String> = self.rest.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(self.fault(format!("{} requires at least one argument", self.keyword)));
        }
        Ok(words)
    }

    fn volumes(&self) -> Result<Vec<String>, Fault> {
        let words = match self.json()? {
            Some(words) => words,
            None => self.some_words()?,
        };
        if words.iter().any(|word| word.trim().is_empty()) {
            return Err(self.fault("VOLUME specified can not be an empty string"));
        }
        Ok(words)
    }

    fn command_line(&self, must_have_words: bool) -> Result<CommandLine, Fault> {
        if let Some(words) = self.json()? {
            if must_have_words && words.is_empty() {
                return Err(self.fault(format!("{} requires at least one argument", self.keyword)));
            }
            return Ok(CommandLine::Exec(words));
        }
        if self.rest.is_empty() {
            return Err(self.fault(format!("{} requires at least one argument", self.keyword)));
        }
        Ok(CommandLine::Shell(self.rest.to_owned()))
    }

    fn run(&self) -> Result<Run, Fault> {
        let network = self.flags.text("network")?;
        if let Some(other) = network.as_deref().filter(|it| !matches!(*it, "default" | "none" | "host")) {
            return Err(self.flags.fault("network", format!("invalid network mode: {other:?}")));
        }
        let security = self.flags.text("security")?;
        if let Some(other) = security.as_deref().filter(|it| !matches!(*it, "sandbox" | "insecure")) {
            return Err(self.flags.fault("security", format!("security {other:?} is not valid")));
        }
        Ok(Run {
            command: self.command_line(true)?,
            mounts: self.flags.all("mount")?,
            network,
            security,
            devices: self.flags.all("device")?,
            heredocs: self.line.heredocs.clone(),
        })
    }

    fn copy(&self) -> Result<Copy, Fault> {
        let mut words = match self.json()? {
            Some(words) => words,
            None => self.rest.split_whitespace().map(str::to_owned).collect(),
        };
        let destination = words.pop().unwrap_or_default();
        if words.is_empty() {
            return Err(self.fault(format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined",
                self.keyword
            )));
        }
        if parse_heredoc(&destination, self.escape).is_some() {
            return Err(self.fault(format!("{} cannot accept a heredoc as a destination", self.keyword)));
        }
        // Every here-document is named by a word; the words are not paths then.
        let heredocs = self.line.heredocs.clone();
        if !heredocs.is_empty() {
            words.retain(|word| parse_heredoc(word, self.escape).is_none());
        }
        let flags = &self.flags;
        Ok(Copy {
            is_add: self.keyword == "ADD",
            from: flags.text("from")?,
            chown: flags.text("chown")?,
            chmod: flags.text("chmod")?,
            link: flags.boolean("link")?.unwrap_or(false),
            parents: flags.boolean("parents")?.unwrap_or(false),
            exclude: flags.all("exclude")?,
            keeps_git: flags.boolean("keep-git-dir")?,
            checksum: flags.text("checksum")?,
            unpack: flags.boolean("unpack")?,
            sources: words,
            heredocs,
            destination,
        })
    }

    fn arguments(&self) -> Result<Vec<(String, Option<String>)>, Fault> {
        let words = words_with_quotes(self.rest, self.escape);
        if words.is_empty() {
            return Err(self.fault("ARG requires at least one argument"));
        }
        words
            .into_iter()
            .map(|word| {
                let (name, value) = match word.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (word, None),
                };
                if name.is_empty() {
                    Err(self.fault("ARG names can not be blank"))
                } else {
                    Ok((name, value))
                }
            })
            .collect()
    }

    /// `name=value …` or the old form `name value`, for ENV and LABEL.
    fn key_values(&self) -> Result<(Vec<(String, String)>, bool), Fault> {
        let words = words_with_quotes(self.rest, self.escape);
        let Some(first) = words.first() else {
            return Err(self.fault(format!("{} requires at least one argument", self.keyword)));
        };
        if !first.contains('=') {
            let (name, value) = self
                .rest
                .split_once(char::is_whitespace)
                .ok_or_else(|| self.fault(format!("{} must have two arguments", self.keyword)))?;
            return Ok((vec![(name.to_owned(), value.trim_start().to_owned())], true));
        }
        let mut pairs = Vec::new();
        for word in words {
            let Some((name, value)) = word.split_once('=') else {
                let offset = self.line.text.rfind(word.as_str()).unwrap_or(0);
                let message =
                    format!("syntax error: can't find = in {word:?}. Must be of the form: name=value");
                return Err(self.line.fault(offset, message));
            };
            if name.is_empty() {
                return Err(self.fault(format!("{} names can not be blank", self.keyword)));
            }
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok((pairs, false))
    }

    fn healthcheck(&self) -> Result<ImageHealthCheck, Fault> {
        let (kind, command) = self.rest.split_once(char::is_whitespace).unwrap_or((self.rest, ""));
        let command = command.trim();
        match kind.to_ascii_uppercase().as_str() {
            "" => Err(self.fault("HEALTHCHECK requires at least one argument")),
            "NONE" if !command.is_empty() => Err(self.fault("HEALTHCHECK NONE takes no arguments")),
            "NONE" => Ok(ImageHealthCheck { test: vec!["NONE".into()], ..ImageHealthCheck::default() }),
            "CMD" if command.is_empty() => Err(self.fault("missing command after HEALTHCHECK CMD")),
            "CMD" => {
                let words = json_array(command).map_err(|message| self.fault(message))?;
                let test = match words {
                    Some(words) if words.is_empty() => {
                        return Err(self.fault("missing command after HEALTHCHECK CMD"));
                    }
                    Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
                    None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
                };
                Ok(ImageHealthCheck {
                    test,
                    interval: self.flags.span("interval")?,
                    timeout: self.flags.span("timeout")?,
                    start_period: self.flags.span("start-period")?,
                    start_interval: self.flags.span("start-interval")?,
                    retries: self.flags.count("retries")?,
                })
            }
            other => Err(self
                .line
                .fault(self.rest_offset, format!("unknown type {other:?} in HEALTHCHECK (try CMD)"))),
        }
    }

    fn trigger(&self) -> Result<String, Fault> {
        let inner = self.rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match inner.as_str() {
            "" => return Err(self.fault("ONBUILD requires at least one argument")),
            "ONBUILD" => return Err(self.fault("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
            "FROM" | "MAINTAINER" => {
                return Err(self.fault(format!("{inner} isn't allowed as an ONBUILD trigger")));
            }
            _ => {}
        }
        let mut text = self.rest.to_owned();
        for heredoc in &self.line.heredocs {
            text.push_str(&format!("\n{}{}", heredoc.text, heredoc.name));
        }
        // A trigger that cannot be parsed is told here, not to whoever builds on this image.
        let line = Line::synthetic(self.rest, self.line.heredocs.clone(), self.line.lines.0);
        Parts::of(&line, self.escape)?.step()?;
        Ok(text)
    }
}

// === impl Flags ===

impl Flags<'_> {
    fn check(&self, keyword: &str) -> Result<(), Fault> {
        let known = FLAGS.iter().find(|(name, _)| *name == keyword).map_or(&[][..], |(_, flags)| flags);
        let mut seen: Vec<&str> = Vec::new();
        for flag in &self.found {
            if !known.contains(&flag.name.as_str()) {
                let mut message = format!("unknown flag: --{}", flag.name);
                if let Some(meant) = nearest(&flag.name, known.iter().copied()) {
                    message.push_str(&format!(" (did you mean --{meant}?)"));
                }
                return Err(self.line.fault(flag.offset, message));
            }
            if seen.contains(&flag.name.as_str()) && !REPEATABLE.contains(&flag.name.as_str()) {
                return Err(self
                    .line
                    .fault(flag.offset, format!("duplicate flag specified: --{}", flag.name)));
            }
            seen.push(&flag.name);
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&Flag> {
        self.found.iter().find(|flag| flag.name == name)
    }

    fn fault(&self, name: &str, message: impl Into<String>) -> Fault {
        self.line.fault(self.get(name).map_or(0, |flag| flag.offset), message)
    }

    fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        self.get(name).map(|flag| self.value_of(flag)).transpose()
    }

    fn all(&self, name: &str) -> Result<Vec<String>, Fault> {
        let flags = self.found.iter().filter(|flag| flag.name == name);
        flags.map(|flag| self.value_of(flag)).collect()
    }

    fn value_of(&self, flag: &Flag) -> Result<String, Fault> {
        let missing = || self.line.fault(flag.offset, format!("missing a value on flag: --{}", flag.name));
        flag.value.clone().ok_or_else(missing)
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>, Fault> {
        let Some(flag) = self.get(name) else { return Ok(None) };
        match flag.value.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => {
                Err(self.fault(name, format!("expecting boolean value for flag --{name}, not: {other}")))
            }
        }
    }

    fn span(&self, name: &str) -> Result<Span, Fault> {
        let Some(text) = self.text(name)? else { return Ok(Span::default()) };
        let span: Span = text.parse().map_err(|error| self.fault(name, format!("--{name}: {error}")))?;
        if !span.0.is_zero() && span.0.as_millis() == 0 {
            return Err(self.fault(name, format!("--{name} {text:?} cannot be less than 1ms")));
        }
        Ok(span)
    }

    fn count(&self, name: &str) -> Result<u32, Fault> {
        let Some(text) = self.text(name)? else { return Ok(0) };
        text.parse().map_err(|_| {
            self.fault(name, format!("--{name} must be a whole number of 0 or more, got {text:?}"))
        })
    }
}

/// The flags in front of the arguments, and where the arguments start. Quotes and backslashes hold blanks.
fn cut_flags(text: &str, from: usize) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut at = from;
    loop {
        let rest = &text[at..];
        let start = at + (rest.len() - rest.trim_start().len());
        if !text[start..].starts_with("--") {
            return (flags, start);
        }
        let (word, end) = flag_word(text, start);
        at = end;
        if word == "--" {
            return (flags, at);
        }
        let (name, value) = match word[2..].split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word[2..].to_owned(), None),
        };
        flags.push(Flag { name, value, offset: start });
    }
}

fn flag_word(text: &str, start: usize) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text[start..].char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            ('\\', _) => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => return (word, start + at),
            (c, _) => word.push(c),
        }
    }
    (word, text.len())
}

/// Words at blanks, as ENV, LABEL and ARG see them: quotes and escapes hold blanks and stay in the word.
fn words_with_quotes(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, open) if c == escape && open != Some('\'') => {
                if let Some(next) = chars.next() {
                    word.push(c);
                    word.push(next);
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Instruction {
        let dockerfile = parse(&format!("FROM scratch\n{text}\n")).unwrap();
        dockerfile.stages[0].steps[0].instruction.clone()
    }

    fn error(text: &str) -> String {
        let fault = parse(text).unwrap_err();
        let column = fault.column.map(|column| format!(":{column}")).unwrap_or_default();
        format!("{}{column}: {}", fault.lines.0, fault.message)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn mistakes_are_told_with_line_column_and_what_was_meant() {
        for (text, wanted) in [
            ("FORM scratch", "1:1: unknown instruction: FORM (did you mean FROM?)"),
            ("FROM scratch\n  wokrdir /x", "2:3: unknown instruction: wokrdir (did you mean WORKDIR?)"),
            ("FROM scratch\napt-get install", "2:1: unknown instruction: apt-get"),
            ("FROM scratch\nCOPY --form=a b c", "2:6: unknown flag: --form (did you mean --from?)"),
            ("FROM scratch\nCOPY \\\n  --chwon=1 b c", "3:3: unknown flag: --chwon (did you mean --chown?)"),
            ("FROM scratch\nCOPY --from=a --from=b c d", "2:15: duplicate flag specified: --from"),
            ("FROM scratch\nCOPY --from c d", "2:6: missing a value on flag: --from"),
            ("FROM scratch\nRUN --mount=target=/x --mount y", "2:23: missing a value on flag: --mount"),
            ("FROM scratch\nCOPY --link=x c d", "2:6: expecting boolean value for flag --link, not: x"),
            (
                "FROM scratch\nCOPY a",
                "2:1: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            ),
            ("FROM a b", "1:1: FROM requires either one or three arguments"),
            (
                "FROM a AS 1b",
                "1:11: invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
            ),
            ("RUN x", "1:1: no build stage in current context: FROM must come first"),
            ("ARG a", "1: dockerfile contains no stages to build: FROM is missing"),
            ("FROM a\nENV a", "2:1: ENV must have two arguments"),
            (
                "FROM a\nENV a=b c",
                "2:9: syntax error: can't find = in \"c\". Must be of the form: name=value",
            ),
            ("FROM a\nENV =b", "2:1: ENV names can not be blank"),
            ("FROM a\nARG", "2:1: ARG requires at least one argument"),
            ("FROM a\nCMD", "2:1: CMD requires at least one argument"),
            (
                "FROM a\nCMD [1]",
                "2:5: when using JSON array syntax, arrays must be comprised of strings only",
            ),
            ("FROM a\nSHELL bash", "2:1: SHELL requires the arguments to be in JSON form"),
            ("FROM a\nHEALTHCHECK NONE x", "2:1: HEALTHCHECK NONE takes no arguments"),
            ("FROM a\nHEALTHCHECK CMD", "2:1: missing command after HEALTHCHECK CMD"),
            ("FROM a\nHEALTHCHECK x y", "2:13: unknown type \"X\" in HEALTHCHECK (try CMD)"),
            (
                "FROM a\nHEALTHCHECK --interval=10us CMD x",
                "2:13: --interval \"10us\" cannot be less than 1ms",
            ),
            ("FROM a\nONBUILD ONBUILD RUN x", "2:1: chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            ("FROM a\nONBUILD FROM x", "2:1: FROM isn't allowed as an ONBUILD trigger"),
            ("FROM a\nONBUILD RNU x", "2:1: unknown instruction: RNU (did you mean RUN?)"),
            ("FROM a\nWORKDIR", "2:1: WORKDIR requires exactly one argument"),
            ("FROM a\nRUN --network=x y", "2:5: invalid network mode: \"x\""),
            (
                "#!/usr/bin/env x\n// syntax=example/other:1\n{}",
                "2: syntax \"example/other:1\" is not supported: only docker/dockerfile is, and it is built in",
            ),
            (
                "{\n  \"syntax\": \"example/other:1\",\n  \"a\": 1\n}",
                "1: syntax \"example/other:1\" is not supported: only docker/dockerfile is, and it is built in",
            ),
            (
                "# syntax=example/other:1\nFROM a",
                "1: syntax \"example/other:1\" is not supported: only docker/dockerfile is, and it is built in",
            ),
        ] {
            assert_eq!(error(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_syntax_that_is_built_in_may_come_from_anywhere() {
        for spoken in [
            "docker/dockerfile",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile@sha256:0000",
            "localhost:5000/docker/dockerfile",
            "registry.example.com:443/mirror/docker/dockerfile-upstream:master",
            "dockerfile.v0",
        ] {
            assert!(is_spoken(spoken), "{spoken}");
        }
        for other in ["example/dockerfile", "dockerfile", "docker/other:1", "ghcr.io/reproducible/buildkit"] {
            assert!(!is_spoken(other), "{other}");
        }
    }

    #[test]
    fn key_values_keep_their_quotes_for_the_expansion() {
        assert_eq!(
            one(r#"ENV a=1 b="x y" c=x\ y"#),
            Instruction::Env(pairs(&[("a", "1"), ("b", "\"x y\""), ("c", "x\\ y")]), false)
        );
        assert_eq!(one("ENV a  b c "), Instruction::Env(pairs(&[("a", "b c")]), true));
        assert_eq!(one(r#"LABEL "a b"='c d'"#), Instruction::Label(pairs(&[("\"a b\"", "'c d'")]), false));
    }

    #[test]
    fn commands_have_a_shell_form_and_an_exec_form() {
        assert_eq!(one("CMD echo hi"), Instruction::Cmd(CommandLine::Shell("echo hi".into())));
        assert_eq!(
            one(r#"CMD ["echo", "hi"]"#),
            Instruction::Cmd(CommandLine::Exec(vec!["echo".into(), "hi".into()]))
        );
        assert_eq!(one("CMD ['echo']"), Instruction::Cmd(CommandLine::Shell("['echo']".into())));
        assert_eq!(one("ENTRYPOINT []"), Instruction::Entrypoint(CommandLine::Exec(Vec::new())));
    }

    #[test]
    fn copy_takes_flags_words_json_and_heredocs() {
        let Instruction::Copy(copy) = one("COPY --from=b --chown=\"a b\" --exclude=x --exclude=y a b /c/")
        else {
            panic!("not a copy")
        };
        assert_eq!((copy.from.as_deref(), copy.chown.as_deref()), (Some("b"), Some("a b")));
        assert_eq!((copy.exclude.len(), copy.sources.len(), copy.destination.as_str()), (2, 2, "/c/"));
        let Instruction::Copy(copy) = one(r#"ADD ["a b", "/c d"]"#) else { panic!("not a copy") };
        assert_eq!((copy.is_add, copy.sources[0].as_str(), copy.destination.as_str()), (true, "a b", "/c d"));
        let Instruction::Copy(copy) = one("COPY <<EOF x /c\nhello\nEOF") else { panic!("not a copy") };
        assert_eq!((copy.sources.len(), copy.heredocs[0].text.as_str()), (1, "hello\n"));
    }

    #[test]
    fn stages_are_named_in_lower_case() {
        let dockerfile =
            parse("ARG v=1\nFROM --platform=linux/amd64 a:$v AS Base\nFROM base\nRUN x\n").unwrap();
        assert_eq!(dockerfile.globals.len(), 1);
        assert_eq!(dockerfile.stages[0].name.as_deref(), Some("base"));
        assert_eq!(dockerfile.stages[0].platform.as_deref(), Some("linux/amd64"));
        assert_eq!(dockerfile.stages[1].steps.len(), 1);
    }

    #[test]
    fn a_health_check_is_complete() {
        let Instruction::Healthcheck(check) =
            one("HEALTHCHECK --interval=5s --retries=2 CMD curl -f x || exit 1")
        else {
            panic!("not a health check")
        };
        assert_eq!(check.test, ["CMD-SHELL", "curl -f x || exit 1"]);
        assert_eq!((check.interval, check.retries), (Span::seconds(5), 2));
    }

    #[test]
    fn a_trigger_keeps_its_heredoc() {
        let Instruction::Onbuild(text) = one("ONBUILD RUN <<E cat\nx\nE") else { panic!("no trigger") };
        assert_eq!(text, "RUN <<E cat\nx\nE");
        let step = parse_trigger(&text, '\\', 7).unwrap();
        let Instruction::Run(run) = step.instruction else { panic!("not a run") };
        assert_eq!((run.heredocs[0].text.as_str(), step.lines), ("x\n", (7, 7)));
    }
}
