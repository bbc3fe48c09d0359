//! A YAML file that belongs to another program, or a key of a compose file that does, with what is wrong in it told as
//! for compose files.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use serde_json::Value as Json;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::interpolate::substitute;
use crate::position::{Part, Source};
use crate::session::{syntax, twice};
use crate::value::{Path, Step, Value, read};

/// What one such file says.
#[derive(Debug)]
pub struct Document {
    source: Source,
    /// Which of the file's documents it is.
    number: usize,
    /// The key that it is below.
    top: Option<String>,
    /// What it says.
    pub value: Json,
}

// === impl Document ===

impl Document {
    /// Reads a file: all of its first document, or what the first one that has the key says there. `None` when that is
    /// nothing.
    ///
    /// # Errors
    /// When it is no YAML.
    pub fn read(name: &FilePath, text: &str, key: Option<&str>) -> Result<Option<Self>, Diagnostics> {
        let source = Source::new(name, text);
        let documents = match read(&source.text) {
            Ok(documents) => documents,
            Err(error) => return Err(syntax(&source, &error).into()),
        };
        let twice = twice(&source, &documents);
        if !twice.is_empty() {
            return Err(Diagnostics::sorted(twice));
        }
        let found = documents.into_iter().enumerate().find_map(|(number, document)| match key {
            None => Some((number, document)),
            Some(key) => Some((number, document.get(key)?.clone())),
        });
        let Some((number, value)) = found.filter(|(_, value)| *value != Value::Null) else { return Ok(None) };
        let value = value.into_json();
        Ok(Some(Self { source, number, top: key.map(str::to_owned), value }))
    }

    /// Puts in what variables stand for. Below `except` shells read them, where nobody else has done so before: in a file
    /// that is not a compose file.
    ///
    /// # Errors
    /// When one is not set and has no default, or an expression makes no sense.
    pub fn interpolate(
        &mut self,
        environment: &BTreeMap<String, String>,
        except: &str,
    ) -> Result<(), Diagnostics> {
        let is_file = self.top.is_none();
        let mut value = std::mem::take(&mut self.value);
        let mut wrong = Vec::new();
        walk(&mut value, &mut Vec::new(), &mut |text, path| {
            if is_file && path.first().is_some_and(|key| key == except) {
                return;
            }
            let mut unset = None;
            let lookup = |name: &str| environment.get(name).cloned();
            match substitute(text, &lookup, &mut |name| unset = Some(name.to_owned())) {
                Ok(done) => *text = done,
                Err(error) => wrong.push((path.to_vec(), error.to_string())),
            }
            wrong.extend(unset.map(|name| (path.to_vec(), format!("the variable {name} is not set"))));
        });
        self.value = value;
        let told = |(path, message): (Vec<String>, String)| {
            let help =
                path.first().filter(|key| *key == except).map(|_| "write $$ where a shell is to read it");
            Diagnostic { help: help.map(str::to_owned), ..self.wrong_value(&path, message) }
        };
        let wrong: Vec<_> = wrong.into_iter().map(told).collect();
        if wrong.is_empty() { Ok(()) } else { Err(Diagnostics::sorted(wrong)) }
    }

    /// Something wrong with the value at a path of keys and numbers.
    pub fn wrong_value(&self, path: &[String], message: impl Into<String>) -> Diagnostic {
        self.wrong(path, Part::Value, message)
    }

    /// Something wrong with the key at a path of keys and numbers.
    pub fn wrong_key(&self, path: &[String], message: impl Into<String>) -> Diagnostic {
        self.wrong(path, Part::Key, message)
    }

    fn wrong(&self, path: &[String], part: Part, message: impl Into<String>) -> Diagnostic {
        let mut steps: Vec<Step> = self.top.iter().cloned().map(Step::Key).collect();
        let mut here = Some(&self.value);
        for word in path {
            let number = word.parse().ok().filter(|_| here.is_some_and(Json::is_array));
            here = here.and_then(|value| match number {
                Some(number) => value.get::<usize>(number),
                None => value.get(word),
            });
            steps.push(number.map_or_else(|| Step::Key(word.clone()), Step::Index));
        }
        let path = Path(steps);
        let place = self.source.place(self.number, &path, part);
        Diagnostic::error(message).at(place).on(path.to_string())
    }
}

fn walk(value: &mut Json, path: &mut Vec<String>, change: &mut dyn FnMut(&mut String, &[String])) {
    match value {
        Json::String(text) => change(text, path),
        Json::Array(items) => {
            for (number, item) in items.iter_mut().enumerate() {
                path.push(number.to_string());
                walk(item, path, change);
                path.pop();
            }
        }
        Json::Object(map) => {
            for (key, item) in map {
                path.push(key.clone());
                walk(item, path, change);
                path.pop();
            }
        }
        _ => {}
    }
}

/// A line as words, quoted as for a shell.
///
/// # Errors
/// When a quote is not closed, or there is something that only a shell could do.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    match crate::shorthand::words(line)? {
        (words, "") => Ok(words),
        (_, rest) => Err(format!("invalid command: {rest:?} means something to a shell only; quote it")),
    }
}

/// `did you mean "image"?`, when one of the names is near enough.
pub fn suggestion<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    crate::schema::suggestion(wrong, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, key: Option<&str>) -> Document {
        Document::read(FilePath::new("f.yaml"), text, key).unwrap().unwrap()
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_stands() {
        let text = "a: 1\nx-it:\n  list: [b, c]\n";
        let path = ["list".to_owned(), "1".to_owned()];
        let shown = document(text, Some("x-it")).wrong_value(&path, "no").to_string();
        assert_eq!(
            shown,
            "error: no\n --> f.yaml:3:13\n  |\n3 |   list: [b, c]\n  |             ^\n  key: x-it.list[1]"
        );
        assert!(Document::read(FilePath::new("f"), text, Some("x-other")).unwrap().is_none());
        assert!(Document::read(FilePath::new("f"), "# nothing\n", None).unwrap().is_none());
        let twice = Document::read(FilePath::new("f"), "a: 1\na: 2\n", None).unwrap_err().to_string();
        assert!(twice.contains("the key \"a\" is there twice") && twice.contains("f:2:1"), "{twice}");
    }

    #[test]
    fn variables_count_but_where_a_shell_reads_them() {
        let environment = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        let mut one = document("x: $A-${B:-c}\nhooks: [echo $A]\n", None);
        one.interpolate(&environment, "hooks").unwrap();
        assert_eq!(one.value, serde_json::json!({"x": "b-c", "hooks": ["echo $A"]}));
        let mut key = document("x: {hooks: [echo $$A]}\n", Some("x"));
        key.interpolate(&environment, "hooks").unwrap();
        assert_eq!(key.value, serde_json::json!({"hooks": ["echo $A"]}));
        let wrong = document("x: [$B]\n", None).interpolate(&environment, "hooks").unwrap_err().to_string();
        assert!(wrong.contains("the variable B is not set") && wrong.contains("f.yaml:1:5"), "{wrong}");
    }
}
