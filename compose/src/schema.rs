//! Which keys there are and what they take: one table. Checking also turns scalars into the one form that the later
//! stages see (`"64m"` into bytes, `"yes"` into true). Short forms stay; they are expanded by the next stage.

use engine::quantity::{ByteSize, Span};
use engine::signal::Signal;

use crate::position::Part;
use crate::value::{Map, Path, Step, Value};

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A string.
    Text,
    /// A string that a function finds nothing wrong with; the function says what would be right.
    Checked(fn(&str) -> Result<(), &'static str>),
    /// One of these strings.
    Word(&'static [&'static str]),
    /// A string; other scalars are written out.
    Scalar,
    /// True or false.
    Bool,
    /// A whole number in this range.
    Int(i64, i64),
    /// Any number.
    Number,
    /// A size in bytes, with a unit or without; the flag allows -1.
    Bytes(bool),
    /// A length of time with units.
    Duration,
    /// Microseconds, as a number or as a length of time.
    Micros,
    /// Permission bits, in octal.
    Mode,
    /// A number of devices, or `all`.
    Count,
    /// A list of strings.
    Texts,
    /// A string or a list of strings.
    TextOrTexts,
    /// A list of strings and numbers.
    Scalars,
    /// A mapping of scalars, or a list of `key=value`. The flag says that a key without a value is kept as such.
    Pairs(bool),
    /// A mapping of scalars.
    Options,
    /// A mapping of names to a scalar or a list of them.
    MultiOptions,
    /// Names and addresses: a mapping, or a list of `name=address`.
    Hosts,
    /// A command: nothing, a line, or a list.
    Command,
    /// A mapping with these keys.
    Object(&'static Object),
    /// A mapping of names to this.
    Map(&'static Shape),
    /// A list of this.
    List(&'static Shape),
    /// This, or nothing at all.
    Nullable(&'static Shape),
    /// This, or a short form of it.
    Short(Short, &'static Shape),
}

/// The short forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// A context.
    Build,
    /// A service.
    Extends,
    /// `[[ip:]host:]container[/protocol]`.
    Port,
    /// `[source:]target[:options]`.
    Mount,
    /// The name of a secret or configuration.
    Reference,
    /// A path.
    EnvFile,
    /// A path or a list; the items may be short again.
    EnvFiles,
    /// `source[:target[:permissions]]`.
    Device,
    /// A list of services.
    DependsOn,
    /// A list of names.
    Names,
    /// `true`, or the legacy mapping with a name.
    External,
    /// `all`.
    Gpus,
    /// One number for soft and hard.
    Ulimit,
    /// A line for the shell.
    HealthTest,
    /// A path or a list of paths.
    Include,
}

/// A mapping whose keys are known.
#[derive(Debug)]
pub(crate) struct Object {
    /// The keys and what they take.
    pub(crate) fields: &'static [(&'static str, Shape)],
    /// The keys that must be there.
    pub(crate) required: &'static [&'static str],
    /// Whether `x-…` keys are allowed.
    pub(crate) extensions: bool,
}

/// Something that is wrong at a path. Where that is in which file is found out by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The entry.
    pub(crate) path: Path,
    /// Its key or its value.
    pub(crate) part: Part,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

impl Problem {
    /// Something wrong with the value at a path.
    pub(crate) fn value(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.clone(), part: Part::Value, message: message.into(), help: None }
    }

    /// Something wrong with the key at a path.
    pub(crate) fn key(path: &Path, message: impl Into<String>) -> Self {
        Self { part: Part::Key, ..Self::value(path, message) }
    }

    /// The same with what to do about it.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Checks one document against the table and brings its scalars into form. Missing keys and empty values are not
/// looked at: another file may supply them. `raw` leaves texts with a `$` alone.
pub(crate) fn check(value: &mut Value, raw: bool) -> Vec<Problem> {
    let mut checker = Checker { raw, problems: Vec::new(), path: Path::default() };
    checker.check(value, &FILE);
    checker.problems
}

/// Checks what only the merged whole can tell: keys that are missing, and keys without a value.
pub(crate) fn check_complete(value: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    complete(value, &FILE, &mut Path::default(), &mut problems);
    problems
}

struct Checker {
    raw: bool,
    problems: Vec<Problem>,
    path: Path,
}

// === impl Checker ===

impl Checker {
    fn wrong(&mut self, message: String) {
        self.problems.push(Problem::value(&self.path, message));
    }

    fn expected(&mut self, value: &Value, what: &str) {
        let key = self.path.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        let subject = match self.path.0.last() {
            None => "a compose file".to_owned(),
            Some(Step::Index(_)) => format!("an item of {}", key.unwrap_or_default()),
            Some(Step::Key(key)) => key.clone(),
        };
        self.wrong(format!("{subject} must be {what}, not {}", value.kind()));
    }

    fn inside(&mut self, step: Step, check: impl FnOnce(&mut Self)) {
        self.path.0.push(step);
        check(self);
        self.path.0.pop();
    }

    fn check(&mut self, value: &mut Value, shape: &Shape) {
        match value {
            Value::Reset | Value::Null => return,
            Value::Override(inner) => return self.check(inner, shape),
            Value::Text(text) if self.raw && text.contains('$') => return,
            _ => {}
        }
        match shape {
            Shape::Nullable(inner) => self.check(value, inner),
            Shape::Object(object) => self.object(value, object),
            Shape::Map(inner) => self.map(value, inner),
            Shape::List(inner) => self.list(value, "a list", |checker, item| checker.check(item, inner)),
            Shape::Short(short, inner) => self.short(value, *short, inner),
            Shape::Texts => self.list(value, "a list of strings", Self::text),
            Shape::Scalars => self.list(value, "a list", Self::scalar),
            Shape::TextOrTexts => match value {
                Value::Text(_) => {}
                _ => self.list(value, "a string or a list of strings", Self::text),
            },
            Shape::Pairs(_) => self.pairs(value),
            Shape::Options => self.options(value),
            Shape::MultiOptions => self.multi_options(value),
            Shape::Hosts => self.hosts(value),
            Shape::Command => match value {
                Value::Text(_) => {}
                _ => self.list(value, "a string or a list of strings", Self::text),
            },
            scalar => self.check_scalar(value, scalar),
        }
    }

    fn check_scalar(&mut self, value: &mut Value, shape: &Shape) {
        match shape {
            Shape::Scalar => self.scalar(value),
            Shape::Checked(check) => match value {
                Value::Text(text) => {
                    if let Err(right) = check(text) {
                        let message = format!("invalid value {text:?}: {right}");
                        self.wrong(message);
                    }
                }
                other => self.expected(&other.clone(), "a string"),
            },
            Shape::Word(words) => match value {
                Value::Text(text) if words.contains(&text.as_str()) => {}
                Value::Text(text) => {
                    let message = format!("invalid value {text:?}: one of {} is needed", words.join(", "));
                    let mut problem = Problem::value(&self.path, message);
                    problem.help = suggestion(text, words.iter().copied());
                    self.problems.push(problem);
                }
                other => self.expected(&other.clone(), "a string"),
            },
            Shape::Bool => self.cast(value, "true or false", to_bool),
            Shape::Int(min, max) => self.cast(value, "a whole number", |value| to_int(value, *min, *max)),
            Shape::Number => self.cast(value, "a number", to_number),
            Shape::Bytes(signed) => self.cast(value, "a size such as 64m", |value| to_bytes(value, *signed)),
            Shape::Duration => self.cast(value, "a duration such as 1m30s", to_duration),
            Shape::Micros => self.cast(value, "a number of microseconds", to_micros),
            Shape::Mode => self.cast(value, "permission bits such as 0440", to_mode),
            Shape::Count => self.cast(value, "a whole number or `all`", to_count),
            _ => self.text(value),
        }
    }

    fn text(&mut self, value: &mut Value) {
        match value {
            Value::Text(_) => {}
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                let written = value.scalar_text().unwrap_or_default();
                self.expected(&value.clone(), "a string");
                if let Some(problem) = self.problems.last_mut() {
                    problem.help = Some(format!("quote it: \"{written}\""));
                }
            }
            _ => self.expected(&value.clone(), "a string"),
        }
    }

    fn scalar(&mut self, value: &mut Value) {
        match value.scalar_text() {
            Some(text) => *value = Value::Text(text),
            None if *value == Value::Null => {}
            None => self.expected(&value.clone(), "a string or a number"),
        }
    }

    fn cast(
        &mut self,
        value: &mut Value,
        what: &str,
        convert: impl FnOnce(&Value) -> Option<Result<Value, String>>,
    ) {
        match convert(value) {
            Some(Ok(done)) => *value = done,
            Some(Err(message)) => self.wrong(message),
            None => self.expected(&value.clone(), what),
        }
    }

    fn object(&mut self, value: &mut Value, object: &Object) {
        let Value::Map(map) = value else { return self.expected(&value.clone(), "a mapping") };
        for (key, entry) in map.iter_mut() {
            if let Some((_, shape)) = object.fields.iter().find(|(name, _)| name == key) {
                self.inside(Step::Key(key.clone()), |checker| checker.check(entry, shape));
            } else if !(object.extensions && key.starts_with("x-")) {
                let path = self.path.key(key);
                let place = if self.path.0.is_empty() { String::new() } else { format!(" in {}", self.path) };
                let mut problem = Problem::key(&path, format!("unknown key {key:?}{place}"));
                problem.help = suggestion(key, object.fields.iter().map(|(name, _)| *name));
                self.problems.push(problem);
            }
        }
    }

    fn map(&mut self, value: &mut Value, inner: &Shape) {
        let Value::Map(map) = value else { return self.expected(&value.clone(), "a mapping") };
        for (key, entry) in map.iter_mut() {
            let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if key.is_empty() || !key.chars().all(valid) {
                let path = self.path.key(key);
                let message = format!("invalid name {key:?}: letters, digits, `.`, `_` and `-` are allowed");
                self.problems.push(Problem::key(&path, message));
            }
            self.inside(Step::Key(key.clone()), |checker| checker.check(entry, inner));
        }
    }

    fn list(&mut self, value: &mut Value, what: &str, mut check: impl FnMut(&mut Self, &mut Value)) {
        let Value::List(items) = value else { return self.expected(&value.clone(), what) };
        for (index, item) in items.iter_mut().enumerate() {
            self.inside(Step::Index(index), |checker| match item {
                Value::Reset => {}
                Value::Text(text) if checker.raw && text.contains('$') => {}
                Value::Override(inner) => check(checker, inner),
                Value::Null => checker.wrong("an item of a list has no value".to_owned()),
                item => check(checker, item),
            });
        }
    }

    fn pairs(&mut self, value: &mut Value) {
        match value {
            Value::Map(map) => self.each(map, |checker, entry| match entry {
                Value::Null | Value::Reset => {}
                Value::Override(inner) => checker.scalar(inner),
                entry => checker.scalar(entry),
            }),
            _ => self.list(value, "a mapping or a list of strings", Self::text),
        }
    }

    fn options(&mut self, value: &mut Value) {
        let Value::Map(map) = value else { return self.expected(&value.clone(), "a mapping") };
        self.each(map, |checker, entry| match entry {
            Value::Null => *entry = Value::Text(String::new()),
            Value::Reset => {}
            Value::Override(inner) => checker.scalar(inner),
            entry => checker.scalar(entry),
        });
    }

    fn multi_options(&mut self, value: &mut Value) {
        let Value::Map(map) = value else { return self.expected(&value.clone(), "a mapping") };
        self.each(map, |checker, entry| match entry {
            Value::List(_) => checker.list(entry, "a list", Self::scalar),
            entry => checker.scalar(entry),
        });
    }

    fn hosts(&mut self, value: &mut Value) {
        match value {
            Value::Map(map) => self.each(map, |checker, entry| match entry {
                Value::List(_) => checker.list(entry, "an address or a list of addresses", Self::text),
                entry => checker.text(entry),
            }),
            _ => self.list(value, "a mapping or a list of strings", Self::text),
        }
    }

    fn each(&mut self, map: &mut Map, mut check: impl FnMut(&mut Self, &mut Value)) {
        for (key, entry) in map.iter_mut() {
            self.inside(Step::Key(key.clone()), |checker| check(checker, entry));
        }
    }

    /// The short form when the value is one, the long form else.
    fn short(&mut self, value: &mut Value, short: Short, inner: &Shape) {
        match (short, &mut *value) {
            (Short::Port, Value::Int(number)) => *value = Value::Text(number.to_string()),
            (Short::Port, Value::Float(_)) => {
                self.expected(&value.clone(), "a port");
                if let Some(problem) = self.problems.last_mut() {
                    problem.help = Some("quote it, as in \"8080:80\"".to_owned());
                }
            }
            (
                Short::Build
                | Short::Extends
                | Short::Port
                | Short::Mount
                | Short::Reference
                | Short::EnvFile
                | Short::EnvFiles
                | Short::Device
                | Short::HealthTest
                | Short::Include,
                Value::Text(_),
            ) => {}
            (Short::Gpus, Value::Text(text)) if text == "all" => {}
            (Short::Gpus, Value::Text(_)) => self.wrong("gpus must be `all` or a list".to_owned()),
            (Short::DependsOn | Short::Names, Value::List(_)) => {
                self.list(value, "a list of strings or a mapping", Self::text);
            }
            (Short::External, Value::Map(_)) => self.check(value, inner),
            (Short::External, _) => self.cast(value, "true or false", to_bool),
            (Short::Ulimit, Value::Map(_)) => self.check(value, inner),
            (Short::Ulimit, _) => self.cast(value, "a whole number", |value| to_int(value, -1, i64::MAX)),
            _ => self.check(value, inner),
        }
    }
}

// === casts: `None` is the wrong kind of value, an error is a value of the right kind that makes no sense ===

type Cast = Option<Result<Value, String>>;

fn to_bool(value: &Value) -> Cast {
    match value {
        Value::Bool(_) => Some(Ok(value.clone())),
        Value::Text(text) => Some(match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" | "t" => Ok(Value::Bool(true)),
            "false" | "no" | "off" | "n" | "0" | "f" => Ok(Value::Bool(false)),
            _ => Err(format!("invalid value {text:?}: true or false is needed")),
        }),
        _ => None,
    }
}

fn to_int(value: &Value, min: i64, max: i64) -> Cast {
    let number = match value {
        Value::Int(number) => *number,
        Value::Float(number) if number.fract() == 0.0 => *number as i128,
        Value::Text(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => return Some(Err(format!("invalid value {text:?}: a whole number is needed"))),
        },
        _ => return None,
    };
    if (i128::from(min)..=i128::from(max)).contains(&number) {
        Some(Ok(Value::Int(number)))
    } else if max == i64::MAX {
        Some(Err(format!("invalid value {number}: it must be {min} or more")))
    } else {
        Some(Err(format!("invalid value {number}: it must be between {min} and {max}")))
    }
}

/// Single precision, as the reference keeps it, in the shortest notation.
fn to_number(value: &Value) -> Cast {
    let number = match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Text(text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => number,
            _ => return Some(Err(format!("invalid value {text:?}: a number is needed"))),
        },
        _ => return None,
    };
    let single = number as f32;
    Some(Ok(Value::Float(single.to_string().parse().unwrap_or(number))))
}

fn to_bytes(value: &Value, signed: bool) -> Cast {
    let number = match value {
        Value::Int(number) => *number,
        Value::Float(number) => *number as i128,
        Value::Text(text) if signed && text.trim() == "-1" => -1,
        Value::Text(text) => match text.parse::<ByteSize>() {
            Ok(size) => i128::from(size.0),
            Err(error) => return Some(Err(error.to_string())),
        },
        _ => return None,
    };
    let min = if signed { -1 } else { 0 };
    if number < min || number > i128::from(i64::MAX) {
        return Some(Err(format!("invalid size {number}")));
    }
    Some(Ok(Value::Int(number)))
}

fn to_duration(value: &Value) -> Cast {
    match value {
        Value::Text(text) => Some(match text.parse::<Span>() {
            Ok(span) => Ok(Value::Text(span.to_string())),
            Err(error) => Err(error.to_string()),
        }),
        Value::Int(number) => {
            Some(Err(format!("invalid duration {number}: a unit is needed, as in {number}s")))
        }
        _ => None,
    }
}

fn to_micros(value: &Value) -> Cast {
    match value {
        Value::Text(text) if text.parse::<i64>().is_err() => Some(match text.parse::<Span>() {
            Ok(span) => Ok(Value::Int(span.0.as_micros() as i128)),
            Err(error) => Err(error.to_string()),
        }),
        _ => to_int(value, i64::MIN, i64::MAX),
    }
}

fn to_mode(value: &Value) -> Cast {
    match value {
        Value::Int(number) => Some(Ok(Value::Int(*number))),
        Value::Text(text) => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            Some(match u32::from_str_radix(digits, 8) {
                Ok(mode) => Ok(Value::Int(mode.into())),
                Err(_) => Err(format!("invalid mode {text:?}: octal digits are needed, as in \"0440\"")),
            })
        }
        _ => None,
    }
}

fn to_count(value: &Value) -> Cast {
    match value {
        Value::Text(text) if text.eq_ignore_ascii_case("all") => Some(Ok(Value::Int(-1))),
        _ => to_int(value, -1, i64::MAX),
    }
}

// === what only the whole can tell ===

fn complete(value: &Value, shape: &Shape, path: &mut Path, problems: &mut Vec<Problem>) {
    match (shape, value) {
        (Shape::Nullable(_) | Shape::Command, Value::Null) => {}
        (_, Value::Null) if !path.0.is_empty() => {
            let key = match path.0.last() {
                Some(Step::Key(key)) => key.as_str(),
                _ => "an item",
            };
            problems.push(
                Problem::key(path, format!("{key} has no value"))
                    .with_help("give it one or leave the key out"),
            );
        }
        (Shape::Nullable(inner) | Shape::Short(_, inner), value) => complete(value, inner, path, problems),
        (Shape::Object(object), Value::Map(map)) => {
            for name in object.required.iter().filter(|name| !map.contains_key(**name)) {
                problems.push(Problem::key(path, format!("{name} is missing in {path}")));
            }
            for (key, entry) in map {
                let Some((_, shape)) = object.fields.iter().find(|(name, _)| name == key) else { continue };
                path.0.push(Step::Key(key.clone()));
                complete(entry, shape, path, problems);
                path.0.pop();
            }
        }
        (Shape::Map(inner), Value::Map(map)) => {
            for (key, entry) in map {
                path.0.push(Step::Key(key.clone()));
                complete(entry, inner, path, problems);
                path.0.pop();
            }
        }
        (Shape::List(inner), Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                path.0.push(Step::Index(index));
                complete(item, inner, path, problems);
                path.0.pop();
            }
        }
        _ => {}
    }
}

/// Drops what says nothing from a merged document: texts that are empty, and keys without a value.
pub(crate) fn prune(value: &mut Value) {
    prune_at(value, &FILE);
}

fn prune_at(value: &mut Value, shape: &Shape) {
    match (shape, value) {
        (Shape::Nullable(inner) | Shape::Short(_, inner), value) => prune_at(value, inner),
        (Shape::Object(object), Value::Map(map)) => {
            let shape =
                |key: &str| object.fields.iter().find(|(name, _)| *name == key).map(|(_, shape)| shape);
            map.retain(|key, entry| {
                let is_text = matches!(shape(key), Some(Shape::Text | Shape::Checked(_) | Shape::Word(_)));
                *entry != Value::Null && !(is_text && entry.as_text() == Some(""))
            });
            for (key, entry) in map {
                if let Some(shape) = shape(key) {
                    prune_at(entry, shape);
                }
            }
        }
        (Shape::Map(inner), Value::Map(map)) => map.values_mut().for_each(|entry| prune_at(entry, inner)),
        (Shape::List(inner), Value::List(items)) => items.iter_mut().for_each(|item| prune_at(item, inner)),
        _ => {}
    }
}

/// `did you mean "image"?`, when one of the names is near enough.
pub(crate) fn suggestion<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = (wrong.chars().count() / 3).clamp(1, 3);
    names
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| format!("did you mean {name:?}?"))
}

/// How many letters must be added, dropped, replaced or swapped to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

// === texts with rules ===

fn restart(text: &str) -> Result<(), &'static str> {
    let right = "no, always, unless-stopped or on-failure[:max-retries] is needed";
    match text.split_once(':').unwrap_or((text, "")) {
        ("" | "no" | "always" | "unless-stopped" | "on-failure", "") => Ok(()),
        ("on-failure", limit) if limit.parse::<u32>().is_ok() => Ok(()),
        _ => Err(right),
    }
}

fn pull_policy(text: &str) -> Result<(), &'static str> {
    const WORDS: [&str; 9] =
        ["", "always", "never", "missing", "if_not_present", "build", "refresh", "daily", "weekly"];
    let every = text.strip_prefix("every_").is_some_and(|span| span.parse::<Span>().is_ok());
    if WORDS.contains(&text) || every {
        Ok(())
    } else {
        Err("always, never, missing, build, daily, weekly or every_<duration> is needed")
    }
}

fn signal(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.parse::<Signal>().is_ok() {
        Ok(())
    } else {
        Err("the name or number of a signal is needed, as in SIGTERM")
    }
}

fn container_name(text: &str) -> Result<(), &'static str> {
    let mut chars = text.chars();
    let first = chars.next().is_none_or(|c| c.is_ascii_alphanumeric());
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first && rest && text.len() != 1 {
        Ok(())
    } else {
        Err("two or more letters, digits, `_`, `.` and `-` are needed, a letter or digit first")
    }
}

fn ipv4(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.parse::<std::net::Ipv4Addr>().is_ok() {
        Ok(())
    } else {
        Err("an IPv4 address is needed")
    }
}

fn ipv6(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.parse::<std::net::Ipv6Addr>().is_ok() {
        Ok(())
    } else {
        Err("an IPv6 address is needed")
    }
}

// === the table ===

const MAX: i64 = i64::MAX;
const ANY_INT: Shape = Shape::Int(i64::MIN, MAX);
const NATURAL: Shape = Shape::Int(0, MAX);

const fn object(fields: &'static [(&'static str, Shape)]) -> Object {
    Object { fields, required: &[], extensions: true }
}

const fn requiring(fields: &'static [(&'static str, Shape)], required: &'static [&'static str]) -> Object {
    Object { fields, required, extensions: true }
}

/// The whole file.
pub(crate) static FILE: Shape = Shape::Object(&Object {
    fields: &[
        ("version", Shape::Scalar),
        ("name", Shape::Text),
        ("include", Shape::List(&Shape::Short(Short::Include, &INCLUDE))),
        ("services", Shape::Map(&SERVICE)),
        ("models", Shape::Map(&MODEL)),
        ("networks", Shape::Map(&Shape::Nullable(&NETWORK))),
        ("volumes", Shape::Map(&Shape::Nullable(&VOLUME))),
        ("secrets", Shape::Map(&SECRET)),
        ("configs", Shape::Map(&CONFIG)),
    ],
    required: &[],
    extensions: true,
});

/// A service.
pub(crate) static SERVICE: Shape = Shape::Object(&object(&[
    ("annotations", Shape::Pairs(false)),
    ("attach", Shape::Bool),
    ("blkio_config", Shape::Object(&BLKIO)),
    ("build", Shape::Short(Short::Build, &BUILD)),
    ("cap_add", Shape::Texts),
    ("cap_drop", Shape::Texts),
    ("cgroup", Shape::Word(&["host", "private"])),
    ("cgroup_parent", Shape::Text),
    ("command", Shape::Command),
    ("configs", Shape::List(&REFERENCE)),
    ("container_name", Shape::Checked(container_name)),
    ("cpu_count", NATURAL),
    ("cpu_percent", Shape::Number),
    ("cpu_period", Shape::Micros),
    ("cpu_quota", Shape::Micros),
    ("cpu_rt_period", Shape::Micros),
    ("cpu_rt_runtime", Shape::Micros),
    ("cpu_shares", ANY_INT),
    ("cpus", Shape::Number),
    ("cpuset", Shape::Text),
    (
        "credential_spec",
        Shape::Object(&object(&[("config", Shape::Text), ("file", Shape::Text), ("registry", Shape::Text)])),
    ),
    ("depends_on", Shape::Short(Short::DependsOn, &Shape::Map(&DEPENDENCY))),
    ("deploy", Shape::Nullable(&DEPLOY)),
    ("develop", Shape::Nullable(&DEVELOP)),
    ("device_cgroup_rules", Shape::Texts),
    ("devices", Shape::List(&Shape::Short(Short::Device, &DEVICE))),
    ("dns", Shape::TextOrTexts),
    ("dns_opt", Shape::Texts),
    ("dns_search", Shape::TextOrTexts),
    ("domainname", Shape::Text),
    ("entrypoint", Shape::Command),
    ("env_file", Shape::Short(Short::EnvFiles, &Shape::List(&Shape::Short(Short::EnvFile, &ENV_FILE)))),
    ("environment", Shape::Pairs(true)),
    ("expose", Shape::Scalars),
    ("extends", Shape::Short(Short::Extends, &EXTENDS)),
    ("external_links", Shape::Texts),
    ("extra_hosts", Shape::Hosts),
    ("gpus", Shape::Short(Short::Gpus, &Shape::List(&DEVICE_REQUEST))),
    ("group_add", Shape::Scalars),
    ("healthcheck", HEALTHCHECK),
    ("hostname", Shape::Text),
    ("image", Shape::Text),
    ("init", Shape::Bool),
    ("ipc", Shape::Text),
    ("isolation", Shape::Text),
    ("label_file", Shape::TextOrTexts),
    ("labels", Shape::Pairs(false)),
    ("links", Shape::Texts),
    ("logging", Shape::Object(&object(&[("driver", Shape::Text), ("options", Shape::Options)]))),
    ("mac_address", Shape::Text),
    ("mem_limit", Shape::Bytes(false)),
    ("mem_reservation", Shape::Bytes(false)),
    ("mem_swappiness", Shape::Bytes(true)),
    ("memswap_limit", Shape::Bytes(true)),
    ("models", Shape::Short(Short::Names, &Shape::Map(&Shape::Nullable(&SERVICE_MODEL)))),
    ("network_mode", Shape::Text),
    ("networks", Shape::Short(Short::Names, &Shape::Map(&Shape::Nullable(&SERVICE_NETWORK)))),
    ("oom_kill_disable", Shape::Bool),
    ("oom_score_adj", Shape::Int(-1000, 1000)),
    ("pid", Shape::Nullable(&Shape::Text)),
    ("pids_limit", ANY_INT),
    ("platform", Shape::Text),
    ("ports", Shape::List(&Shape::Short(Short::Port, &PORT))),
    ("post_start", Shape::List(&HOOK)),
    ("pre_start", Shape::List(&PRE_START)),
    ("pre_stop", Shape::List(&HOOK)),
    ("privileged", Shape::Bool),
    ("profiles", Shape::Texts),
    (
        "provider",
        Shape::Object(&requiring(&[("type", Shape::Text), ("options", Shape::MultiOptions)], &["type"])),
    ),
    ("pull_policy", Shape::Checked(pull_policy)),
    ("pull_refresh_after", Shape::Text),
    ("read_only", Shape::Bool),
    ("restart", Shape::Checked(restart)),
    ("runtime", Shape::Text),
    ("scale", Shape::Int(0, u32::MAX as i64)),
    ("secrets", Shape::List(&REFERENCE)),
    ("security_opt", Shape::Texts),
    ("shm_size", Shape::Bytes(false)),
    ("stdin_open", Shape::Bool),
    ("stop_grace_period", Shape::Duration),
    ("stop_signal", Shape::Checked(signal)),
    ("storage_opt", Shape::Options),
    ("sysctls", Shape::Pairs(false)),
    ("tmpfs", Shape::TextOrTexts),
    ("tty", Shape::Bool),
    ("ulimits", ULIMITS),
    ("use_api_socket", Shape::Bool),
    ("user", Shape::Text),
    ("userns_mode", Shape::Text),
    ("uts", Shape::Text),
    ("volumes", Shape::List(&Shape::Short(Short::Mount, &MOUNT))),
    ("volumes_from", Shape::Texts),
    ("working_dir", Shape::Text),
]));

static BUILD: Shape = Shape::Object(&object(&[
    ("additional_contexts", Shape::Pairs(false)),
    ("args", Shape::Pairs(true)),
    ("cache_from", Shape::Texts),
    ("cache_to", Shape::Texts),
    ("context", Shape::Text),
    ("dockerfile", Shape::Text),
    ("dockerfile_inline", Shape::Text),
    ("entitlements", Shape::Texts),
    ("extra_hosts", Shape::Hosts),
    ("isolation", Shape::Text),
    ("labels", Shape::Pairs(false)),
    ("network", Shape::Text),
    ("no_cache", Shape::Bool),
    ("no_cache_filter", Shape::TextOrTexts),
    ("platforms", Shape::Texts),
    ("privileged", Shape::Bool),
    ("provenance", Shape::Scalar),
    ("pull", Shape::Bool),
    ("sbom", Shape::Scalar),
    ("secrets", Shape::List(&REFERENCE)),
    ("shm_size", Shape::Bytes(false)),
    ("ssh", Shape::Pairs(false)),
    ("tags", Shape::Texts),
    ("target", Shape::Text),
    ("ulimits", ULIMITS),
]));

static BLKIO: Object = object(&[
    ("device_read_bps", Shape::List(&THROTTLE)),
    ("device_read_iops", Shape::List(&THROTTLE)),
    ("device_write_bps", Shape::List(&THROTTLE)),
    ("device_write_iops", Shape::List(&THROTTLE)),
    ("weight", Shape::Int(0, 1000)),
    ("weight_device", Shape::List(&WEIGHT)),
]);

static THROTTLE: Shape = Shape::Object(&object(&[("path", Shape::Text), ("rate", Shape::Bytes(false))]));

static WEIGHT: Shape = Shape::Object(&object(&[("path", Shape::Text), ("weight", Shape::Int(0, 1000))]));

static DEPENDENCY: Shape = Shape::Object(&requiring(
    &[
        ("condition", Shape::Word(&["service_started", "service_healthy", "service_completed_successfully"])),
        ("required", Shape::Bool),
        ("restart", Shape::Bool),
    ],
    &["condition"],
));

static DEPLOY: Shape = Shape::Object(&object(&[
    ("endpoint_mode", Shape::Text),
    ("labels", Shape::Pairs(false)),
    ("mode", Shape::Text),
    (
        "placement",
        Shape::Object(&object(&[
            ("constraints", Shape::Texts),
            ("max_replicas_per_node", NATURAL),
            ("preferences", Shape::List(&Shape::Object(&PREFERENCE))),
        ])),
    ),
    ("replicas", Shape::Int(0, u32::MAX as i64)),
    (
        "resources",
        Shape::Object(&object(&[("limits", LIMITS), ("reservations", Shape::Object(&RESERVATIONS))])),
    ),
    (
        "restart_policy",
        Shape::Object(&object(&[
            ("condition", Shape::Text),
            ("delay", Shape::Duration),
            ("max_attempts", NATURAL),
            ("window", Shape::Duration),
        ])),
    ),
    ("rollback_config", UPDATE),
    ("update_config", UPDATE),
]));

static PREFERENCE: Object = object(&[("spread", Shape::Text)]);

const LIMITS: Shape =
    Shape::Object(&object(&[("cpus", Shape::Number), ("memory", Shape::Bytes(false)), ("pids", ANY_INT)]));

static RESERVATIONS: Object = object(&[
    ("cpus", Shape::Number),
    ("devices", Shape::List(&DEVICE_REQUEST)),
    ("generic_resources", Shape::List(&GENERIC)),
    ("memory", Shape::Bytes(false)),
]);

static GENERIC: Shape = Shape::Object(&object(&[(
    "discrete_resource_spec",
    Shape::Object(&object(&[("kind", Shape::Text), ("value", ANY_INT)])),
)]));

const UPDATE: Shape = Shape::Object(&object(&[
    ("delay", Shape::Duration),
    ("failure_action", Shape::Text),
    ("max_failure_ratio", Shape::Number),
    ("monitor", Shape::Duration),
    ("order", Shape::Word(&["start-first", "stop-first"])),
    ("parallelism", NATURAL),
]));

static DEVELOP: Shape = Shape::Object(&object(&[("watch", Shape::List(&WATCH))]));

static WATCH: Shape = Shape::Object(&requiring(
    &[
        ("action", Shape::Word(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])),
        ("exec", HOOK),
        ("ignore", Shape::TextOrTexts),
        ("include", Shape::TextOrTexts),
        ("initial_sync", Shape::Bool),
        ("path", Shape::Text),
        ("target", Shape::Text),
    ],
    &["path", "action"],
));

const HOOK: Shape = Shape::Object(&requiring(
    &[
        ("command", Shape::Command),
        ("environment", Shape::Pairs(true)),
        ("privileged", Shape::Bool),
        ("user", Shape::Text),
        ("working_dir", Shape::Text),
    ],
    &["command"],
));

static PRE_START: Shape = Shape::Object(&object(&[
    ("command", Shape::Command),
    ("environment", Shape::Pairs(true)),
    ("image", Shape::Text),
    ("per_replica", Shape::Bool),
    ("privileged", Shape::Bool),
    ("user", Shape::Text),
    ("working_dir", Shape::Text),
]));

static DEVICE: Shape = Shape::Object(&requiring(
    &[("permissions", Shape::Text), ("source", Shape::Text), ("target", Shape::Text)],
    &["source"],
));

static DEVICE_REQUEST: Shape = Shape::Object(&object(&[
    ("capabilities", Shape::Texts),
    ("count", Shape::Count),
    ("device_ids", Shape::Texts),
    ("driver", Shape::Text),
    ("options", Shape::Pairs(false)),
]));

static ENV_FILE: Shape = Shape::Object(&Object {
    fields: &[("format", Shape::Text), ("path", Shape::Text), ("required", Shape::Bool)],
    required: &["path"],
    extensions: false,
});

static EXTENDS: Shape = Shape::Object(&Object {
    fields: &[("file", Shape::Text), ("service", Shape::Text)],
    required: &["service"],
    extensions: false,
});

static INCLUDE: Shape = Shape::Object(&Object {
    fields: &[
        ("env_file", Shape::TextOrTexts),
        ("path", Shape::TextOrTexts),
        ("project_directory", Shape::Text),
    ],
    required: &[],
    extensions: false,
});

const HEALTHCHECK: Shape = Shape::Object(&object(&[
    ("disable", Shape::Bool),
    ("interval", Shape::Duration),
    ("retries", Shape::Int(0, u32::MAX as i64)),
    ("start_interval", Shape::Duration),
    ("start_period", Shape::Duration),
    ("test", Shape::Short(Short::HealthTest, &Shape::Texts)),
    ("timeout", Shape::Duration),
]));

static MODEL: Shape = Shape::Object(&requiring(
    &[
        ("context_size", ANY_INT),
        ("model", Shape::Text),
        ("name", Shape::Text),
        ("runtime_flags", Shape::Texts),
    ],
    &["model"],
));

static SERVICE_MODEL: Shape =
    Shape::Object(&object(&[("endpoint_var", Shape::Text), ("model_var", Shape::Text)]));

static SERVICE_NETWORK: Shape = Shape::Object(&object(&[
    ("aliases", Shape::Texts),
    ("driver_opts", Shape::Options),
    ("gw_priority", ANY_INT),
    ("interface_name", Shape::Text),
    ("ipv4_address", Shape::Checked(ipv4)),
    ("ipv6_address", Shape::Checked(ipv6)),
    ("link_local_ips", Shape::Texts),
    ("mac_address", Shape::Text),
    ("priority", ANY_INT),
]));

static PORT: Shape = Shape::Object(&requiring(
    &[
        ("app_protocol", Shape::Text),
        ("host_ip", Shape::Text),
        ("mode", Shape::Text),
        ("name", Shape::Text),
        ("protocol", Shape::Text),
        ("published", Shape::Scalar),
        ("target", Shape::Int(1, 65_535)),
    ],
    &["target"],
));

static MOUNT: Shape = Shape::Object(&requiring(
    &[
        (
            "bind",
            Shape::Object(&object(&[
                ("create_host_path", Shape::Bool),
                (
                    "propagation",
                    Shape::Word(&["", "rprivate", "private", "rshared", "shared", "rslave", "slave"]),
                ),
                ("recursive", Shape::Word(&["enabled", "disabled", "writable", "readonly"])),
                ("selinux", Shape::Word(&["z", "Z"])),
            ])),
        ),
        ("consistency", Shape::Text),
        ("image", Shape::Object(&object(&[("subpath", Shape::Text)]))),
        ("read_only", Shape::Bool),
        ("source", Shape::Text),
        ("target", Shape::Text),
        ("tmpfs", Shape::Object(&object(&[("mode", Shape::Mode), ("size", Shape::Bytes(false))]))),
        ("type", Shape::Word(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
        (
            "volume",
            Shape::Object(&object(&[
                ("labels", Shape::Pairs(false)),
                ("nocopy", Shape::Bool),
                ("subpath", Shape::Text),
            ])),
        ),
    ],
    &["type", "target"],
));

static REFERENCE: Shape = Shape::Short(
    Short::Reference,
    &Shape::Object(&requiring(
        &[
            ("gid", Shape::Text),
            ("mode", Shape::Mode),
            ("source", Shape::Text),
            ("target", Shape::Text),
            ("uid", Shape::Text),
        ],
        &["source"],
    )),
);

const ULIMITS: Shape = Shape::Map(&Shape::Short(
    Short::Ulimit,
    &Shape::Object(&requiring(
        &[("hard", Shape::Int(-1, MAX)), ("soft", Shape::Int(-1, MAX))],
        &["soft", "hard"],
    )),
));

static EXTERNAL: Shape = Shape::Short(Short::External, &Shape::Object(&object(&[("name", Shape::Text)])));

static NETWORK: Shape = Shape::Object(&object(&[
    ("attachable", Shape::Bool),
    ("driver", Shape::Text),
    ("driver_opts", Shape::Options),
    ("enable_ipv4", Shape::Bool),
    ("enable_ipv6", Shape::Bool),
    ("external", Shape::Nullable(&EXTERNAL)),
    ("internal", Shape::Bool),
    (
        "ipam",
        Shape::Object(&object(&[
            ("config", Shape::List(&POOL)),
            ("driver", Shape::Text),
            ("options", Shape::Options),
        ])),
    ),
    ("labels", Shape::Pairs(false)),
    ("name", Shape::Text),
]));

static POOL: Shape = Shape::Object(&object(&[
    ("aux_addresses", Shape::Options),
    ("gateway", Shape::Text),
    ("ip_range", Shape::Text),
    ("subnet", Shape::Text),
]));

static VOLUME: Shape = Shape::Object(&object(&[
    ("driver", Shape::Text),
    ("driver_opts", Shape::Options),
    ("external", Shape::Nullable(&EXTERNAL)),
    ("labels", Shape::Pairs(false)),
    ("name", Shape::Text),
]));

static SECRET: Shape = Shape::Object(&object(&[
    ("driver", Shape::Text),
    ("driver_opts", Shape::Options),
    ("environment", Shape::Text),
    ("external", Shape::Nullable(&EXTERNAL)),
    ("file", Shape::Text),
    ("labels", Shape::Pairs(false)),
    ("name", Shape::Text),
    ("template_driver", Shape::Text),
]));

static CONFIG: Shape = Shape::Object(&object(&[
    ("content", Shape::Text),
    ("environment", Shape::Text),
    ("external", Shape::Nullable(&EXTERNAL)),
    ("file", Shape::Text),
    ("labels", Shape::Pairs(false)),
    ("name", Shape::Text),
    ("template_driver", Shape::Text),
]));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::read;

    fn problems(text: &str) -> Vec<String> {
        let mut value = read(text).unwrap().remove(0);
        let found = check(&mut value, false);
        found
            .into_iter()
            .map(|problem| {
                let help = problem.help.map(|help| format!(" ({help})")).unwrap_or_default();
                format!("{}: {}{help}", problem.path, problem.message)
            })
            .collect()
    }

    #[test]
    fn every_wrong_key_and_value_is_found_in_one_run() {
        assert_eq!(
            problems(
                "servces: {}\nservices:\n  a: {imag: x, image: 5, ports: {}, tty: maybe, mem_limit: 5q, restart: never}\n"
            ),
            [
                "servces: unknown key \"servces\" (did you mean \"services\"?)",
                "services.a.imag: unknown key \"imag\" in services.a (did you mean \"image\"?)",
                "services.a.image: image must be a string, not a number (quote it: \"5\")",
                "services.a.mem_limit: invalid size \"5q\": a number with b, k, m, g or t is needed, as in 64m",
                "services.a.ports: ports must be a list, not a mapping",
                "services.a.restart: invalid value \"never\": no, always, unless-stopped or \
                 on-failure[:max-retries] is needed",
                "services.a.tty: invalid value \"maybe\": true or false is needed",
            ]
        );
    }

    #[test]
    fn scalars_come_out_in_one_form() {
        let mut value = read(
            "services: {a: {tty: \"yes\", mem_limit: 64m, cpus: \"0.5\", stop_grace_period: 90s, expose: [80], \
             deploy: {replicas: \"2\", resources: {limits: {memory: 1g}}}, environment: {A: 1, B: }}}",
        )
        .unwrap()
        .remove(0);
        assert_eq!(check(&mut value, false), []);
        assert_eq!(
            value.get("services").unwrap().get("a").unwrap().to_json().to_string(),
            r#"{"cpus":0.5,"deploy":{"replicas":2,"resources":{"limits":{"memory":1073741824}}},"environment":{"A":"1","B":null},"expose":["80"],"mem_limit":67108864,"stop_grace_period":"1m30s","tty":true}"#
        );
    }

    #[test]
    fn extensions_are_allowed_and_resets_are_not_looked_at() {
        assert!(problems("x-a: 1\nservices: {a: {x-b: {}, ports: !reset null, image: !reset 5}}").is_empty());
    }
}
