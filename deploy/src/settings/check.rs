//! Finds everything that is wrong with settings, each where it stands, before they are read.

use std::collections::BTreeSet;

use compose::document::{Document, suggestion};
use compose::{Diagnostic, Diagnostics};
use serde_json::Value;

use super::table::{ELSEWHERE, SETTINGS, Shape, platform};

/// Where the walk is, and what it found.
struct Checker<'a> {
    document: &'a Document,
    path: Vec<String>,
    found: Vec<Diagnostic>,
}

/// Checks a document by itself and against the services of the project, and brings numbers and truths that variables
/// stand for into form.
pub(super) fn check(document: &mut Document, services: &BTreeSet<&str>) -> Result<(), Diagnostics> {
    let mut value = std::mem::take(&mut document.value);
    let original = value.clone();
    document.value = original;
    let mut checker = Checker { document, path: Vec::new(), found: Vec::new() };
    checker.check(&mut value, &SETTINGS);
    if checker.found.is_empty() {
        checker.names(&value, services);
    }
    let found = checker.found;
    document.value = value;
    if found.is_empty() { Ok(()) } else { Err(Diagnostics::sorted(found)) }
}

// === impl Checker ===

impl Checker<'_> {
    fn wrong(&mut self, message: String) -> &mut Option<String> {
        self.found.push(self.document.wrong_value(&self.path, message));
        let last = self.found.len() - 1;
        &mut self.found[last].help
    }

    fn inside(&mut self, step: &str, check: impl FnOnce(&mut Self)) {
        self.path.push(step.to_owned());
        check(self);
        self.path.pop();
    }

    /// What the value here is called.
    fn subject(&self) -> String {
        match self.path.as_slice() {
            [] => "the settings".to_owned(),
            [.., list, item] if item.parse::<usize>().is_ok() => format!("an item of {list}"),
            [.., key] => key.clone(),
        }
    }

    fn expected(&mut self, value: &Value, what: &str) -> &mut Option<String> {
        let message = format!("{} must be {what}, not {}", self.subject(), kind(value));
        self.wrong(message)
    }

    fn check(&mut self, value: &mut Value, shape: &Shape) {
        match shape {
            Shape::Text => drop(self.text(value, "a string")),
            Shape::Checked(check) => {
                if self.takes_time() && value.as_u64() == Some(0) {
                    // The one length of time that needs no unit.
                    *value = "0".into();
                }
                let what = if self.takes_time() { "a length of time such as 30s" } else { "a string" };
                let Some(text) = self.text(value, what) else { return };
                if let Err(problem) = check(&text) {
                    self.wrong(problem);
                }
            }
            Shape::Word(words) => self.word(value, words),
            Shape::Bool => match value.as_str().and_then(|text| text.parse().ok()) {
                Some(truth) => *value = Value::Bool(truth),
                None if value.is_boolean() => {}
                None => drop(self.expected(value, "true or false").take()),
            },
            Shape::Count => match value.as_str().and_then(|text| text.parse::<u64>().ok()) {
                Some(number) => *value = number.into(),
                None if value.is_u64() => {}
                None => drop(self.expected(value, "a whole number from 0 on").take()),
            },
            Shape::List(inner) => self.list(value, inner),
            Shape::Map(inner) => {
                let Value::Object(map) = value else {
                    self.expected(value, "a mapping");
                    return;
                };
                for (key, entry) in map {
                    self.inside(key, |checker| checker.check(entry, inner));
                }
            }
            Shape::Object(fields, required) => self.object(value, fields, required),
            Shape::TextOr(text, _) if value.is_string() => self.check(value, text),
            Shape::TextOr(_, long) if value.is_object() => self.check(value, long),
            Shape::TextOr(..) => drop(self.expected(value, "a string or a mapping").take()),
        }
    }

    fn text(&mut self, value: &Value, what: &str) -> Option<String> {
        if let Value::String(text) = value {
            return Some(text.clone());
        }
        let help = match value {
            // A length of time without its unit.
            Value::Number(number) if self.takes_time() => Some(format!("with its unit: {number}s")),
            Value::Number(_) | Value::Bool(_) => Some(format!("quote it: \"{value}\"")),
            _ => None,
        };
        *self.expected(value, what) = help;
        None
    }

    fn takes_time(&self) -> bool {
        self.path.last().is_some_and(|key| matches!(key.as_str(), "drain" | "persist"))
    }

    fn word(&mut self, value: &Value, words: &[&str]) {
        let Some(text) = self.text(value, "a string") else { return };
        if !words.contains(&text.as_str()) {
            let message = format!("invalid value {text:?}: {} is needed", words.join(" or "));
            *self.wrong(message) = suggestion(&text, words.iter().copied());
        }
    }

    fn list(&mut self, value: &mut Value, inner: &Shape) {
        let Value::Array(items) = value else {
            let written = value.as_str().map(|text| {
                let plain =
                    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@.:-_/".contains(&byte));
                let key = self.path.last().cloned().unwrap_or_default();
                if plain { format!("write {key}: [{text}]") } else { format!("write {key}: ['{text}']") }
            });
            *self.expected(value, "a list") = written;
            return;
        };
        for (number, item) in items.iter_mut().enumerate() {
            self.inside(&number.to_string(), |checker| checker.check(item, inner));
        }
    }

    fn object(&mut self, value: &mut Value, fields: &[(&str, Shape)], required: &[&str]) {
        let Value::Object(map) = value else {
            *self.expected(value, "a mapping") =
                Some(format!("its keys are {}", names(fields.iter().map(|(name, _)| *name))));
            return;
        };
        for (key, entry) in map.iter_mut() {
            match fields.iter().find(|(name, _)| name == key) {
                // A key that says nothing is as good as none.
                Some(_) if entry.is_null() => {}
                Some((_, shape)) => self.inside(key, |checker| checker.check(entry, shape)),
                None => self.unknown(key, fields),
            }
        }
        map.retain(|_, entry| !entry.is_null());
        for name in required.iter().filter(|name| !map.contains_key(**name)) {
            let message = format!("{name} is missing in {}", self.subject());
            self.wrong(message);
        }
    }

    fn unknown(&mut self, key: &str, fields: &[(&str, Shape)]) {
        self.path.push(key.to_owned());
        let mut problem = self.document.wrong_key(&self.path, format!("unknown key {key:?}"));
        self.path.pop();
        let known = || fields.iter().map(|(name, _)| *name);
        let underscored = key.replace('_', "-");
        let same = known().find(|name| *name == underscored).map(|name| format!("did you mean {name:?}?"));
        let elsewhere =
            ELSEWHERE.iter().find(|(name, _)| *name == key).map(|(_, here)| format!("here it is {here}"));
        problem.help = same
            .or_else(|| suggestion(key, known()))
            .or(elsewhere)
            .or_else(|| Some(format!("the keys here are {}", names(known()))));
        self.found.push(problem);
    }

    /// What names must name: services of the project, and roles of the settings.
    fn names(&mut self, value: &Value, services: &BTreeSet<&str>) {
        let empty = serde_json::Map::new();
        let map = |key: &str| value.get(key).and_then(Value::as_object).unwrap_or(&empty);
        for service in map("strategy").keys() {
            self.known_key(&["strategy", service], "service", service, services);
        }
        for (role, list) in map("roles") {
            for (number, service) in list.as_array().into_iter().flatten().enumerate() {
                let path = ["roles", role, &number.to_string()];
                self.known(&path, "service", service.as_str().unwrap_or_default(), services);
            }
        }
        let roles: BTreeSet<&str> = map("roles").keys().map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        for (number, host) in value.get("hosts").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let number = number.to_string();
            let address = host.as_str().or_else(|| host.get("address")?.as_str()).unwrap_or_default();
            if !seen.insert(address) {
                self.path = ["hosts", &number].map(str::to_owned).to_vec();
                self.wrong(format!("the host {address} is there twice"));
            }
            for (place, role) in host.get("roles").and_then(Value::as_array).into_iter().flatten().enumerate()
            {
                let path = ["hosts", &number, "roles", &place.to_string()];
                self.known(&path, "role", role.as_str().unwrap_or_default(), &roles);
            }
        }
        if value.get("builder").is_some_and(Value::is_object) {
            for kind in map("builder").keys() {
                if let Err(problem) = platform(kind) {
                    let path = ["builder", kind].map(str::to_owned);
                    self.found.push(self.document.wrong_key(&path, problem));
                }
            }
        }
    }

    fn known(&mut self, path: &[&str], what: &str, name: &str, names: &BTreeSet<&str>) {
        let path: Vec<String> = path.iter().map(|&step| step.to_owned()).collect();
        let problem = |message| self.document.wrong_value(&path, message);
        self.found.extend(unknown_name(what, name, names, problem));
    }

    fn known_key(&mut self, path: &[&str], what: &str, name: &str, names: &BTreeSet<&str>) {
        let path: Vec<String> = path.iter().map(|&step| step.to_owned()).collect();
        let problem = |message| self.document.wrong_key(&path, message);
        self.found.extend(unknown_name(what, name, names, problem));
    }
}

fn unknown_name(
    what: &str,
    name: &str,
    known: &BTreeSet<&str>,
    problem: impl FnOnce(String) -> Diagnostic,
) -> Option<Diagnostic> {
    if known.contains(name) {
        return None;
    }
    let place = if what == "role" { "is defined under `roles`" } else { "is in the project" };
    let list = if known.is_empty() {
        "none is".to_owned()
    } else {
        format!("there is {}", names(known.iter().copied()))
    };
    let help = suggestion(name, known.iter().copied()).unwrap_or(list);
    Some(problem(format!("no {what} {name:?} {place}")).with_help(help))
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.collect::<Vec<_>>().join(", ")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_i64() && !number.is_u64() => "a negative number",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
