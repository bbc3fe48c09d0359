//! One run of the loader: the files read so far, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FsPath, PathBuf};

use engine::builder::NamedBy;

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::environment::{Environment, cannot_read};
use crate::holes::Holes;
use crate::interpolate::{InterpolateError, Unset, interpolate};
use crate::position::{Part, Source, Sources};
use crate::remote::Remote;
use crate::schema::{Problem, check};
use crate::shorthand::expand;
use crate::syntax;
use crate::value::{Path, Step, Value, read};

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The files.
    pub(crate) sources: Sources,
    /// What is wrong.
    pub(crate) errors: Vec<Diagnostic>,
    /// What is odd.
    pub(crate) warnings: Vec<Diagnostic>,
    /// Leave `${…}` as it is.
    pub(crate) raw: bool,
    /// What standard input holds.
    pub(crate) stdin: Option<String>,
    /// What is not known of the merged project.
    pub(crate) holes: Holes,
    /// File names are shown relative to this directory.
    pub(crate) shown_from: PathBuf,
    /// How files are had that are named by an address.
    pub(crate) remote: Option<Remote>,
    warned: BTreeSet<String>,
    /// What was fetched, by its address: it stays the same during one run.
    fetched: BTreeMap<String, PathBuf>,
    /// Files that were looked into before their turn: parsing is most of the work, and done once.
    peeked: BTreeMap<PathBuf, Peeked>,
}

/// Something was wrong; what, is in the session.
#[derive(Debug)]
pub(crate) struct Failed;

/// A file's documents, and which source they came from.
#[derive(Debug)]
pub(crate) struct Read {
    /// The index of the source.
    pub(crate) source: usize,
    /// Its documents.
    pub(crate) documents: Vec<Value>,
}

/// A file that was looked into before its turn.
#[derive(Debug)]
struct Peeked {
    text: String,
    documents: Result<Vec<Value>, serde_yaml::Error>,
}

// === impl Session ===

impl Session {
    /// Reads a file; `-` is standard input. Empty documents stay in, so that positions can be found by number.
    pub(crate) fn read(&mut self, file: &FsPath) -> Result<Read, Failed> {
        let Peeked { text, documents } = match self.peeked.remove(file).map_or_else(|| self.parse(file), Ok) {
            Ok(peeked) => peeked,
            Err(error) => return self.fail(cannot_read("compose file", file, &error)),
        };
        let shown = file.strip_prefix(&self.shown_from).unwrap_or(file);
        let source = Source::new(shown, text);
        let documents = match documents {
            Ok(documents) => documents,
            Err(error) => {
                self.errors.push(syntax(&source, &error));
                return Err(Failed);
            }
        };
        self.errors.extend(twice(&source, &documents));
        self.sources.0.push(source);
        let source = self.sources.0.len() - 1;
        let mut documents = documents;
        for (number, document) in documents.iter_mut().enumerate() {
            self.read_old_numbers(source, number, document);
        }
        Ok(Read { source, documents })
    }

    /// The file that an address means, fetched once; `None` for what is no address. An error has no place yet.
    pub(crate) fn fetch(&mut self, name: &str, by: NamedBy) -> Result<Option<PathBuf>, Box<Diagnostic>> {
        let Some(remote) = &self.remote else { return Ok(None) };
        if let Some(known) = self.fetched.get(name) {
            return Ok(Some(known.clone()));
        }
        let fetched = remote.fetch(name, by).map_err(|error| {
            let help = error.hint().map(str::to_owned);
            Box::new(Diagnostic { help, ..Diagnostic::error(engine::error::chain(&error)) })
        })?;
        if let Some(file) = &fetched {
            self.fetched.insert(name.to_owned(), file.clone());
        }
        Ok(fetched)
    }

    /// The documents of a file that is loaded later. What is wrong with it is said then.
    pub(crate) fn peek(&mut self, file: &FsPath) -> &[Value] {
        if !self.peeked.contains_key(file)
            && let Ok(parsed) = self.parse(file)
        {
            self.peeked.insert(file.to_owned(), parsed);
        }
        let peeked = self.peeked.get(file).and_then(|peeked| peeked.documents.as_ref().ok());
        peeked.map_or(&[], Vec::as_slice)
    }

    fn parse(&self, file: &FsPath) -> std::io::Result<Peeked> {
        let text = if file == FsPath::new("-") {
            self.stdin.clone().unwrap_or_default()
        } else {
            utf8(std::fs::read(file)?)?
        };
        Ok(Peeked { documents: read(&text), text })
    }

    /// Interpolates, checks and expands one document. What is wrong in it is unknown afterwards.
    pub(crate) fn prepare(
        &mut self,
        source: usize,
        number: usize,
        document: &mut Value,
        environment: &Environment,
    ) {
        if !self.raw {
            let mut unset = Unset::new();
            for failure in interpolate(document, environment, &mut unset) {
                self.interpolation_failed(source, number, &failure.path, &failure.error);
            }
            for (name, path) in unset {
                self.warn_unset(source, number, &name, &path);
            }
        }
        for problem in check(document, self.raw) {
            self.problem(source, number, &problem, Severity::Error);
            document.forget(&problem.path.0);
        }
        let findings = expand(document, self.raw);
        for problem in &findings.errors {
            self.problem(source, number, problem, Severity::Error);
            document.forget(&problem.path.0);
        }
        for problem in &findings.warnings {
            self.problem(source, number, problem, Severity::Warning);
        }
    }

    /// Records an error and fails.
    pub(crate) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Result<T, Failed> {
        self.errors.push(diagnostic);
        Err(Failed)
    }

    /// Fails if anything was wrong so far.
    pub(crate) fn settle(&self) -> Result<(), Failed> {
        if self.errors.is_empty() { Ok(()) } else { Err(Failed) }
    }

    /// What was wrong, sorted.
    pub(crate) fn into_diagnostics(mut self) -> Diagnostics {
        for place in self.errors.iter_mut().filter_map(|one| one.place.as_mut()) {
            if let Ok(shown) = place.file.strip_prefix(&self.shown_from) {
                place.file = shown.to_path_buf();
            }
        }
        Diagnostics::sorted(self.errors)
    }

    /// Records a problem of one document.
    pub(crate) fn problem(&mut self, source: usize, number: usize, problem: &Problem, severity: Severity) {
        let place = self.sources.0[source].place(number, &problem.path, problem.part);
        self.record(problem, place, severity);
    }

    /// Records a problem of the merged whole, at the last place that says something about it. One that rests on what is
    /// not known may be none.
    pub(crate) fn merged_problem(&mut self, problem: &Problem, severity: Severity) {
        if problem.rests_on.iter().any(|path| self.holes.has(path)) {
            return;
        }
        let place = self.locate(&problem.path, problem.part);
        self.record(problem, place, severity);
    }

    /// The last place that says something about a path, or about the nearest thing above it.
    pub(crate) fn locate(&self, path: &Path, part: Part) -> Option<Place> {
        self.sources.locate(path, part)
    }

    fn record(&mut self, problem: &Problem, place: Option<Place>, severity: Severity) {
        let diagnostic = problem.diagnostic(place, severity);
        match severity {
            Severity::Error => self.errors.push(diagnostic),
            Severity::Warning => self.warnings.push(diagnostic),
        }
    }

    fn interpolation_failed(&mut self, source: usize, number: usize, path: &Path, error: &InterpolateError) {
        let (needle, help) = match error {
            InterpolateError::Invalid { expression } => (
                expression.clone(),
                Some(
                    "write $$ for a dollar sign, or ${NAME}, ${NAME:-default}, ${NAME:?message}, ${NAME:+instead}",
                ),
            ),
            InterpolateError::Required { name, .. } => (format!("${{{name}"), None),
        };
        let place = self.sources.0[source].place_inside(number, path, &needle);
        let mut diagnostic = Diagnostic::error(error.to_string()).at(place).on(path.to_string());
        diagnostic.help = help.map(str::to_owned);
        self.errors.push(diagnostic);
    }

    fn warn_unset(&mut self, source: usize, number: usize, name: &str, path: &Path) {
        if !self.warned.insert(name.to_owned()) {
            return;
        }
        let place = self.sources.0[source].place_inside(number, path, name);
        let message = format!("the variable {name} is not set, an empty string takes its place");
        self.warnings.push(Diagnostic::warning(message).at(place).on(path.to_string()));
    }

    /// YAML 1.1 numbers (`0777`, `1_000`) that the parser leaves as texts and the reference reads as numbers.
    fn read_old_numbers(&self, source: usize, number: usize, document: &mut Value) {
        if !holds_old_number(document) {
            return;
        }
        let mut candidates = Vec::new();
        collect_old_numbers(document, &mut Path::default(), &mut candidates);
        for path in candidates {
            if self.sources.0[source].is_plain(number, &path)
                && let Some(value) = at_mut(document, &path)
                && let Some(number) = value.as_text().and_then(old_number)
            {
                *value = number;
            }
        }
    }
}

/// The text of a file, or where it is none.
fn utf8(bytes: Vec<u8>) -> std::io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let what = match (bytes, bytes.get(at)) {
            ([0xff, 0xfe, ..] | [0xfe, 0xff, ..], _) => "it is UTF-16: save it as UTF-8".to_owned(),
            (_, byte) => {
                let before = &bytes[..at];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let text = String::from_utf8_lossy(before);
                let column = text.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
                let byte = byte.copied().unwrap_or_default();
                format!("the byte {byte:#04x} in line {line}, column {column}, is no UTF-8: save it as UTF-8")
            }
        };
        std::io::Error::new(std::io::ErrorKind::InvalidData, what)
    })
}

/// The parser names the line before a tab.
fn tab_behind(source: &Source, message: &str, place: &Place) -> Option<Place> {
    let is_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    let line = |number: usize| source.text.lines().nth(number);
    if !message.contains("tab") || line(place.line.checked_sub(1)?).is_some_and(is_tab) {
        return None;
    }
    let next = line(place.line).filter(|line| is_tab(line))?;
    let column = next.chars().take_while(|c| *c == ' ').count() + 1;
    Some(source.place_at(place.line + 1, column, 1))
}

fn holds_old_number(value: &Value) -> bool {
    match value {
        Value::Text(text) => may_be_old_number(text),
        Value::List(items) => items.iter().any(holds_old_number),
        Value::Map(map) => map.values().any(holds_old_number),
        _ => false,
    }
}

fn collect_old_numbers(value: &Value, path: &mut Path, found: &mut Vec<Path>) {
    match value {
        Value::Text(text) if may_be_old_number(text) => found.push(path.clone()),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                path.0.push(Step::Index(index));
                collect_old_numbers(item, path, found);
                path.0.pop();
            }
        }
        Value::Map(map) => {
            for (key, item) in map {
                path.0.push(Step::Key(key.clone()));
                collect_old_numbers(item, path, found);
                path.0.pop();
            }
        }
        _ => {}
    }
}

fn at_mut<'a>(value: &'a mut Value, path: &Path) -> Option<&'a mut Value> {
    path.0.iter().try_fold(value, |value, step| match (value, step) {
        (Value::Map(map), Step::Key(key)) => map.get_mut(key),
        (Value::List(items), Step::Index(index)) => items.get_mut(*index),
        _ => None,
    })
}

/// Whether a text would be an old number without quotes. What the parser itself reads as a number had quotes.
fn may_be_old_number(text: &str) -> bool {
    let is_new = || !matches!(read(text).as_deref(), Ok([Value::Text(_)]));
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    !is_decimal && old_number(text).is_some() && !is_new()
}

/// What Go's YAML makes of a plain text that begins like a number: octal with a leading 0, `_` between digits.
fn old_number(text: &str) -> Option<Value> {
    let unsigned = text.trim_start_matches(['+', '-']);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits: String = unsigned.chars().filter(|c| *c != '_').collect();
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let radix = |prefix: &str, radix: u32| {
        // `0-3` is a range of processors, and the parser of numbers would take its sign.
        let digits = digits.strip_prefix(prefix).filter(|digits| !digits.starts_with(['+', '-']))?;
        i128::from_str_radix(digits, radix).ok()
    };
    let whole = radix("0x", 16)
        .or_else(|| radix("0b", 2))
        .or_else(|| radix("0o", 8))
        .or_else(|| if digits.len() > 1 { radix("0", 8) } else { None })
        .or_else(|| if digits.starts_with('0') && digits.len() > 1 { None } else { digits.parse().ok() });
    if let Some(whole) = whole {
        return Some(Value::Int(sign * whole));
    }
    let is_float = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    let float = digits.parse::<f64>().ok().filter(|_| is_float)?;
    Some(Value::Float(f64::from(sign as i32) * float))
}

/// The keys that stand twice in a file's documents.
pub(crate) fn twice(source: &Source, documents: &[Value]) -> Vec<Diagnostic> {
    if !documents.iter().any(Value::holds_unknown) {
        return Vec::new();
    }
    let found = source.duplicates().into_iter().map(|duplicate| {
        let key = match duplicate.path.0.last() {
            Some(Step::Key(key)) => key.as_str(),
            _ => "",
        };
        Diagnostic {
            related: Some((duplicate.first, "it is there first here".to_owned())),
            ..Diagnostic::error(format!("the key {key:?} is there twice"))
                .at(Some(duplicate.second))
                .on(duplicate.path.to_string())
        }
    });
    let found: Vec<Diagnostic> = found.collect();
    if !found.is_empty() {
        return found;
    }
    // They are written differently and mean the same, as `~` and `null`.
    let unknown = documents
        .iter()
        .enumerate()
        .flat_map(|(number, document)| document.unknown().into_iter().map(move |path| (number, path)));
    let shown = unknown.map(|(number, path)| {
        Diagnostic::error("two keys of a mapping are the same")
            .at(source.place(number, &path, Part::Key))
            .on(path.to_string())
    });
    shown.collect()
}

/// What is wrong with a file that is not YAML: the first error.
pub(crate) fn syntax(source: &Source, error: &serde_yaml::Error) -> Diagnostic {
    if let Some(error) = source.syntax_error() {
        let place = tab_behind(source, &error.message, &error.place).unwrap_or(error.place);
        let help = syntax::advice(source, &error.message, place.line, place.column);
        let said = Diagnostic::error(format!("invalid YAML: {}", error.message)).at(Some(place));
        return Diagnostic { help, ..said };
    }
    if let Some(place) = source.heaviest_alias() {
        let message = "aliases make the file too large to be meant";
        return Diagnostic::error(message).at(Some(place)).with_help("write out what it stands for");
    }
    let place = error.location().map(|location| source.place_at(location.line(), location.column(), 1));
    let message = error.to_string();
    let help = place.as_ref().and_then(|place| syntax::advice(source, &message, place.line, place.column));
    Diagnostic { help, ..Diagnostic::error(format!("invalid YAML: {message}")).at(place) }
}
