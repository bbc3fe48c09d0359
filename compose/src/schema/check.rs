//! Walks a document along the table, casts what is right and notes what is not.

use super::cast::{to_bool, to_bytes, to_count, to_duration, to_int, to_micros, to_mode, to_number};
use super::{Object, Problem, Shape, Short, suggestion};
use crate::value::{Map, Path, Step, Value};

/// Where the walk is, and what it found.
pub(super) struct Checker {
    pub(super) raw: bool,
    pub(super) casts: bool,
    pub(super) problems: Vec<Problem>,
    pub(super) path: Path,
}

/// What was meant by something that stands where a mapping is needed.
fn misplaced(path: &Path, value: &Value, object: &Object) -> Option<String> {
    let is_key = |name: &str| object.field(name).is_some();
    if let Some((key, rest)) =
        value.as_text().and_then(|text| text.split_once(':')).filter(|(key, _)| is_key(key))
    {
        return Some(format!("a space is missing behind the colon: {key}: {rest}"));
    }
    match path.0.last() {
        Some(Step::Key(key)) if is_key(key) => {
            Some(format!("{key:?} stands beside what it belongs to: indent it by more"))
        }
        _ => None,
    }
}

/// Where a key belongs that is not of this object.
fn elsewhere(path: &Path, key: &str, value: &Value, object: &Object) -> Option<String> {
    if path.0.is_empty() {
        let is_service = value.get("image").is_some() || value.get("build").is_some();
        return is_service.then(|| {
            format!("a service stands under the top-level key `services`: indent {key:?} below it")
        });
    }
    let knows = |shape: &Shape| match shape {
        Shape::Object(inner)
        | Shape::Nullable(Shape::Object(inner))
        | Shape::Short(_, Shape::Object(inner)) => inner.field(key).is_some(),
        _ => false,
    };
    let owner = object.fields.iter().find(|(_, shape)| knows(shape))?;
    Some(format!("{key:?} is a key of `{}`", owner.0))
}

/// An entry of a list that was to be a text, `- KEY: value`, as a text.
fn as_entry(value: &Value) -> Option<String> {
    let (key, value) = value.as_map().filter(|map| map.len() == 1)?.iter().next()?;
    Some(format!("write \"{key}={}\", or leave out the dashes", value.scalar_text()?))
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

    pub(super) fn check(&mut self, value: &mut Value, shape: &Shape) {
        match value {
            Value::Reset | Value::Null | Value::Unknown => return,
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
                other => self.text(other),
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
            Value::Text(_) | Value::Unknown => {}
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                let written = value.scalar_text().unwrap_or_default();
                self.expected(&value.clone(), "a string");
                if let Some(problem) = self.problems.last_mut() {
                    problem.help = Some(format!("quote it: \"{written}\""));
                }
            }
            _ => {
                self.expected(&value.clone(), "a string");
                if let Some(problem) = self.problems.last_mut() {
                    problem.help = as_entry(value);
                }
            }
        }
    }

    fn scalar(&mut self, value: &mut Value) {
        match value.scalar_text() {
            Some(text) => *value = Value::Text(text),
            None if matches!(value, Value::Null | Value::Unknown) => {}
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
            // What is printed as it is written is not cast before that.
            Some(Ok(_)) if self.raw && !self.casts => {}
            Some(Ok(done)) => *value = done,
            Some(Err(message)) => self.wrong(message),
            None => self.expected(&value.clone(), what),
        }
    }

    fn object(&mut self, value: &mut Value, object: &Object) {
        let Value::Map(map) = value else {
            self.expected(&value.clone(), "a mapping");
            if let Some(problem) = self.problems.last_mut() {
                problem.help = misplaced(&self.path, value, object);
            }
            return;
        };
        for (key, entry) in map.iter_mut() {
            if let Some(shape) = object.field(key) {
                self.inside(Step::Key(key.clone()), |checker| checker.check(entry, shape));
            } else if !(object.extensions && key.starts_with("x-")) {
                let path = self.path.key(key);
                let place = if self.path.0.is_empty() { String::new() } else { format!(" in {}", self.path) };
                let mut problem = Problem::key(&path, format!("unknown key {key:?}{place}"));
                problem.help = suggestion(key, object.fields.iter().map(|(name, _)| *name))
                    .or_else(|| elsewhere(&self.path, key, entry, object));
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
                Value::Reset | Value::Unknown => {}
                Value::Text(text) if checker.raw && text.contains('$') => {}
                Value::Override(inner) => check(checker, inner),
                Value::Null => checker.wrong("an item of a list has no value".to_owned()),
                item => check(checker, item),
            });
        }
    }

    fn pairs(&mut self, value: &mut Value) {
        match value {
            Value::Map(map) if map.contains_key("") => {
                let path = self.path.key("");
                self.problems.push(Problem::key(&path, "a name is empty"));
            }
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
