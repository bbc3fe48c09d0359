//! Files beside services that say more of them: `env_file` and `label_file`.

use std::collections::BTreeMap;
use std::path::Path as FsPath;

use crate::diagnostic::Diagnostic;
use crate::dotenv;
use crate::environment::{self, Variables};
use crate::model::{EnvFile, Project, Service};
use crate::position::Part;
use crate::session::Session;
use crate::value::Path;

/// Variables by name.
type Found = BTreeMap<String, Option<String>>;

/// `env_file` of the services that run: a later file wins over an earlier one, the service's own variables over all.
/// `is_whole` says whether the project's environment is all known.
pub(crate) fn read_variables(session: &mut Session, project: &mut Project, is_whole: bool) {
    for service in project.services.values_mut() {
        let own = Path::keys(&["services", &service.name, "environment"]);
        let is_whole = is_whole && !session.holes.has(&own);
        let mut found = Found::new();
        for (index, file) in service.env_file.iter().enumerate() {
            let (variables, errors) = variables_in(file, service, &project.environment, is_whole);
            found.extend(variables);
            for error in errors {
                let error = placed(session, service, "env_file", (index, &file.path), error);
                session.errors.push(error);
            }
        }
        for (key, value) in found {
            service.environment.entry(key).or_insert(value);
        }
        service.env_file.clear();
    }
}

/// `label_file` of the services that run, in the same way.
pub(crate) fn read_labels(session: &mut Session, project: &mut Project) {
    for service in project.services.values_mut() {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        let mut is_whole = true;
        for (index, file) in service.label_file.iter().enumerate() {
            let (labels, errors) = labels_in(FsPath::new(file), &found, is_whole);
            found.extend(labels);
            is_whole &= errors.is_empty();
            for error in errors {
                let error = placed(session, service, "label_file", (index, file), error);
                session.errors.push(error);
            }
        }
        for (key, value) in found {
            service.labels.entry(key).or_insert(value);
        }
        service.label_file.clear();
    }
}

/// An error about a file that is not there is shown where the file is named.
fn placed(
    session: &Session,
    service: &Service,
    key: &str,
    (index, file): (usize, &str),
    diagnostic: Diagnostic,
) -> Diagnostic {
    if diagnostic.place.is_some() {
        return diagnostic;
    }
    let path = Path::keys(&["services", &service.name, key]);
    let item = session.locate(&path.index(index).key("path"), Part::Value);
    // In several files it may be an item of another one.
    let name = FsPath::new(file).file_name().unwrap_or_default().to_string_lossy();
    let item = item.filter(|place| place.excerpt.contains(&*name));
    let place = item.or_else(|| session.locate(&path, Part::Value));
    diagnostic.at(place).on(path.to_string())
}

fn variables_in(
    file: &EnvFile,
    service: &Service,
    environment: &Variables,
    is_whole: bool,
) -> (Found, Vec<Diagnostic>) {
    let path = FsPath::new(&file.path);
    if !file.required && !path.exists() {
        return (Found::new(), Vec::new());
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return (Found::new(), vec![environment::cannot_read("env file", path, &error)]),
    };
    let lookup = |name: &str| {
        environment.get(name).or_else(|| service.environment.get(name).and_then(Option::as_ref)).cloned()
    };
    let parsed = match file.format.as_deref() {
        Some("raw") => dotenv::parse_raw(&text, &lookup),
        None | Some("") => dotenv::parse(&text, &lookup, is_whole, &mut |_| {}),
        Some(other) => {
            let message = format!("unknown format {other:?} of an env file: raw is the only one");
            return (Found::new(), vec![Diagnostic::error(message)]);
        }
    };
    let variables = parsed.variables.into_iter().filter(|(_, value)| value.is_some()).collect();
    (variables, environment::at_lines(path, &text, parsed.errors))
}

/// What is set in one of a service's label files is all that can stand in another.
fn labels_in(
    file: &FsPath,
    known: &BTreeMap<String, String>,
    is_whole: bool,
) -> (BTreeMap<String, String>, Vec<Diagnostic>) {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return (BTreeMap::new(), vec![environment::cannot_read("label file", file, &error)]),
    };
    let parsed = dotenv::parse(&text, &|name| known.get(name).cloned(), is_whole, &mut |_| {});
    let labels = parsed.variables.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
    (labels, environment::at_lines(file, &text, parsed.errors))
}
