//! Which keys there are and what they take: one table. Checking also turns scalars into the one form that the later
//! stages see (`"64m"` into bytes, `"yes"` into true). Short forms stay; they are expanded by the next stage.

mod build;
mod cast;
mod check;
mod deploy;
mod file;
mod rule;
mod service;
mod whole;

use self::check::Checker;
pub(crate) use self::file::FILE;
use self::whole::{complete, drop_open};
pub(crate) use self::whole::{prune, suggestion};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::position::Part;
use crate::value::{Path, Value};

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
    /// The keys and what they take, sorted.
    pub(crate) fields: &'static [(&'static str, Shape)],
    /// The keys that must be there.
    pub(crate) required: &'static [&'static str],
    /// Whether `x-…` keys are allowed.
    pub(crate) extensions: bool,
}

impl Object {
    /// What a key takes.
    pub(crate) fn field(&self, key: &str) -> Option<&'static Shape> {
        let at = self.fields.binary_search_by_key(&key, |(name, _)| name).ok()?;
        Some(&self.fields[at].1)
    }
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
    /// What has to be known for it to be one: something that is missing may be what nobody could read.
    pub(crate) rests_on: Vec<Path>,
}

impl Problem {
    /// Something wrong with the value at a path.
    pub(crate) fn value(path: &Path, message: impl Into<String>) -> Self {
        Self {
            path: path.clone(),
            part: Part::Value,
            message: message.into(),
            help: None,
            rests_on: Vec::new(),
        }
    }

    /// Something wrong with the key at a path.
    pub(crate) fn key(path: &Path, message: impl Into<String>) -> Self {
        Self { part: Part::Key, ..Self::value(path, message) }
    }

    /// What is told of it, at the place where it was found.
    pub(crate) fn diagnostic(&self, place: Option<Place>, severity: Severity) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(&self.message).at(place).on(self.path.to_string());
        diagnostic.severity = severity;
        diagnostic.help.clone_from(&self.help);
        diagnostic
    }

    /// The same, if what stands at a path is known.
    pub(crate) fn resting_on(mut self, path: Path) -> Self {
        self.rests_on.push(path);
        self
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
    let mut checker = Checker { raw, casts: !raw, problems: Vec::new(), path: Path::default() };
    checker.check(value, &FILE);
    checker.problems
}

/// Casts what was left as it is written. What has to be more than a text and still has a variable in it goes.
pub(crate) fn cast(value: &mut Value) {
    Checker { raw: true, casts: true, problems: Vec::new(), path: Path::default() }.check(value, &FILE);
    drop_open(value, &FILE);
}

/// Checks what only the merged whole can tell: keys that are missing, and keys without a value.
pub(crate) fn check_complete(value: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    complete(value, &FILE, &mut Path::default(), &mut problems);
    problems
}

const MAX: i64 = i64::MAX;

const ANY_INT: Shape = Shape::Int(i64::MIN, MAX);

const NATURAL: Shape = Shape::Int(0, MAX);

const fn object(fields: &'static [(&'static str, Shape)]) -> Object {
    Object { fields, required: &[], extensions: true }
}

const fn requiring(fields: &'static [(&'static str, Shape)], required: &'static [&'static str]) -> Object {
    Object { fields, required, extensions: true }
}

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

    fn assert_sorted(shape: &'static Shape) {
        match shape {
            Shape::Object(object) => {
                let names: Vec<&str> = object.fields.iter().map(|(name, _)| *name).collect();
                assert!(names.is_sorted(), "{names:?}");
                object.fields.iter().for_each(|(_, shape)| assert_sorted(shape));
            }
            Shape::Map(inner) | Shape::List(inner) | Shape::Nullable(inner) | Shape::Short(_, inner) => {
                assert_sorted(inner);
            }
            _ => {}
        }
    }

    #[test]
    fn keys_are_sorted_for_those_who_look_them_up() {
        assert_sorted(&FILE);
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
            value.get("services").unwrap().get("a").unwrap().clone().into_json().to_string(),
            r#"{"cpus":0.5,"deploy":{"replicas":2,"resources":{"limits":{"memory":1073741824}}},"environment":{"A":"1","B":null},"expose":["80"],"mem_limit":67108864,"stop_grace_period":"1m30s","tty":true}"#
        );
    }

    #[test]
    fn extensions_are_allowed_and_resets_are_not_looked_at() {
        assert!(problems("x-a: 1\nservices: {a: {x-b: {}, ports: !reset null, image: !reset 5}}").is_empty());
    }
}
