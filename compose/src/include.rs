//! `include`: whole projects become part of this one, each with its own directory and environment.

use std::path::{Path as FsPath, PathBuf};

use engine::builder::NamedBy;

use crate::diagnostic::Diagnostic;
use crate::environment::{add_missing, read_files};
use crate::load::{Scope, load_files};
use crate::merge::merge;
use crate::paths;
use crate::position::Part;
use crate::session::{Failed, Session};
use crate::value::{Path, Value};

/// Takes `include` out of an expanded document and puts what it names beneath the rest of the document.
pub(crate) fn apply(session: &mut Session, document: &mut Value, scope: &Scope<'_>) -> Result<(), Failed> {
    let Some(Value::List(entries)) = document.as_map_mut().and_then(|map| map.remove("include")) else {
        return Ok(());
    };
    for (index, entry) in entries.iter().enumerate() {
        let path = Path::keys(&["include"]).index(index);
        let mut included = included(session, entry, &path, scope)?;
        merge(&mut included, std::mem::replace(document, Value::Null));
        *document = included;
    }
    Ok(())
}

fn included(session: &mut Session, entry: &Value, path: &Path, scope: &Scope<'_>) -> Result<Value, Failed> {
    let home = scope.environment.get("HOME").map(String::as_str);
    let resolve = |text: &str| PathBuf::from(paths::absolute(text, &scope.directory, home));
    let place = session.locate(path, Part::Value);
    let mut files = Vec::new();
    for name in texts(entry, "path") {
        match session.fetch(name, NamedBy::File) {
            Ok(fetched) => files.push(fetched.unwrap_or_else(|| resolve(name))),
            Err(diagnostic) => return session.fail(diagnostic.at(place).on(path.to_string())),
        }
    }
    let Some(main) = files.first() else {
        let message = "an include needs a path";
        return session.fail(Diagnostic::error(message).at(place).on(path.to_string()));
    };
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        let is = if missing.is_dir() { "is a directory: name the file in it" } else { "not found" };
        let message = format!("included file {} {is}", missing.display());
        return session.fail(Diagnostic::error(message).at(place).on(path.to_string()));
    }
    if let Some(start) = scope.included.iter().position(|file| file == main) {
        let mut circle: Vec<String> =
            scope.included[start..].iter().map(|file| shown(session, file)).collect();
        circle.push(shown(session, main));
        let message = format!("files include each other in a circle: {}", circle.join(" -> "));
        return session.fail(Diagnostic::error(message).at(place).on(path.to_string()));
    }
    let directory = match entry.get("project_directory").and_then(Value::as_text) {
        Some(directory) => resolve(directory),
        None => main.parent().map(FsPath::to_path_buf).unwrap_or_default(),
    };
    let mut environment = scope.environment.clone();
    match read_files(&env_files(entry, &directory, &resolve), &environment) {
        Ok(more) => add_missing(&mut environment, more),
        Err(diagnostic) if diagnostic.place.is_none() => {
            return session.fail(diagnostic.at(place).on(path.to_string()));
        }
        Err(diagnostic) => return session.fail(*diagnostic),
    }
    let inner =
        Scope { directory, environment: &environment, included: scope.included.clone(), resolve_paths: true };
    load_files(session, &files, &inner)
}

/// `.env` of the included project, or the files named instead of it; `/dev/null` names none.
fn env_files(entry: &Value, directory: &FsPath, resolve: &dyn Fn(&str) -> PathBuf) -> Vec<PathBuf> {
    let named = texts(entry, "env_file");
    if named.is_empty() {
        let default = directory.join(".env");
        return if default.is_file() { vec![default] } else { Vec::new() };
    }
    named.into_iter().filter(|file| *file != "/dev/null").map(resolve).collect()
}

fn texts<'a>(entry: &'a Value, key: &str) -> Vec<&'a str> {
    match entry.get(key) {
        Some(Value::Text(text)) => vec![text],
        Some(Value::List(items)) => items.iter().filter_map(Value::as_text).collect(),
        _ => Vec::new(),
    }
}

fn shown(session: &Session, file: &FsPath) -> String {
    file.strip_prefix(&session.shown_from).unwrap_or(file).display().to_string()
}
