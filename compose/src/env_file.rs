//! Files beside services that say more of them: `env_file` and `label_file`.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};

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
pub(crate) fn read_variables(session: &mut Session, project: &mut Project) {
    for service in project.services.values_mut() {
        match variables_of(service, &project.environment) {
            Ok(variables) => {
                for (key, value) in variables {
                    service.environment.entry(key).or_insert(value);
                }
                service.env_file.clear();
            }
            Err(diagnostics) => session.errors.extend(
                diagnostics
                    .into_iter()
                    .map(|(index, diagnostic)| {
                        let item = (index, service.env_file[index].path.as_str());
                        placed(session, service, "env_file", item, diagnostic)
                    })
                    .collect::<Vec<_>>(),
            ),
        }
    }
}

/// `label_file` of the services that run, in the same way.
pub(crate) fn read_labels(session: &mut Session, project: &mut Project) {
    for service in project.services.values_mut() {
        match labels_of(service) {
            Ok(labels) => {
                for (key, value) in labels {
                    service.labels.entry(key).or_insert(value);
                }
                service.label_file.clear();
            }
            Err((index, diagnostic)) => {
                let item = (index, service.label_file[index].as_str());
                session.errors.push(placed(session, service, "label_file", item, *diagnostic));
            }
        }
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

fn variables_of(service: &Service, environment: &Variables) -> Result<Found, Vec<(usize, Diagnostic)>> {
    let mut found = Found::new();
    let mut wrong = Vec::new();
    for (index, file) in service.env_file.iter().enumerate() {
        match variables_in(file, service, environment) {
            Ok(variables) => found.extend(variables),
            Err(diagnostic) => wrong.push((index, *diagnostic)),
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

fn variables_in(
    file: &EnvFile,
    service: &Service,
    environment: &Variables,
) -> Result<Found, Box<Diagnostic>> {
    let path = PathBuf::from(&file.path);
    if !file.required && !path.exists() {
        return Ok(Found::new());
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Box::new(environment::cannot_read("env file", &path, &error)))?;
    let lookup = |name: &str| {
        environment.get(name).or_else(|| service.environment.get(name).and_then(Option::as_ref)).cloned()
    };
    let variables = match file.format.as_deref() {
        Some("raw") => dotenv::parse_raw(&text, &lookup),
        None | Some("") => dotenv::parse(&text, &lookup, &mut |_| {}),
        Some(other) => {
            let message = format!("unknown format {other:?} of an env file: raw is the only one");
            return Err(Box::new(Diagnostic::error(message)));
        }
    };
    let variables = variables.map_err(|error| Box::new(environment::at_line(&path, &text, error)))?;
    Ok(variables.into_iter().filter(|(_, value)| value.is_some()).collect())
}

fn labels_of(service: &Service) -> Result<BTreeMap<String, String>, (usize, Box<Diagnostic>)> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (index, file) in service.label_file.iter().enumerate() {
        let path = PathBuf::from(file);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| (index, Box::new(environment::cannot_read("label file", &path, &error))))?;
        // What is set in one of them is all that can stand in another.
        let variables = dotenv::parse(&text, &|name| found.get(name).cloned(), &mut |_| {})
            .map_err(|error| (index, Box::new(environment::at_line(&path, &text, error))))?;
        found.extend(variables.into_iter().map(|(key, value)| (key, value.unwrap_or_default())));
    }
    Ok(found)
}
