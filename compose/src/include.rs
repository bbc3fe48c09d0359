//! `include`: whole projects become part of this one, each with its own directory and environment.

use std::path::{Path as FsPath, PathBuf};

use engine::builder::NamedBy;

use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::load::{Scope, load_files};
use crate::merge::merge;
use crate::paths;
use crate::position::Part;
use crate::session::{Failed, Session};
use crate::value::{Path, Value};

/// Takes `include` out of an expanded document and puts what it names beneath the rest of the document. It is unknown
/// afterwards when something of that cannot be had.
pub(crate) fn apply(session: &mut Session, document: &mut Value, scope: &Scope<'_>) {
    let entries = match document.as_map_mut().and_then(|map| map.remove("include")) {
        Some(Value::List(entries)) => entries,
        Some(Value::Unknown) => vec![Value::Unknown],
        _ => return,
    };
    let mut is_whole = true;
    for (index, entry) in entries.iter().enumerate() {
        let path = Path::keys(&["include"]).index(index);
        match included(session, entry, &path, scope) {
            Ok(mut included) => {
                merge(&mut included, std::mem::replace(document, Value::Null));
                *document = included;
            }
            Err(Failed) => is_whole = false,
        }
    }
    if !is_whole {
        document.say_unknown("include");
    }
}

fn included(session: &mut Session, entry: &Value, path: &Path, scope: &Scope<'_>) -> Result<Value, Failed> {
    // What is wrong with the entry itself has been told.
    if entry.holds_unknown() {
        return Err(Failed);
    }
    let home = scope.environment.variables.get("HOME").map(String::as_str);
    let resolve = |text: &str| PathBuf::from(paths::absolute(text, &scope.directory, home));
    let files = files(session, entry, path, &resolve)?;
    let Some(main) = files.first() else {
        return refuse(session, path, Diagnostic::error("an include needs a path"));
    };
    not_in_a_circle(session, main, path, scope)?;
    let directory = match entry.get("project_directory").and_then(Value::as_text) {
        Some(directory) => resolve(directory),
        None => main.parent().map(FsPath::to_path_buf).unwrap_or_default(),
    };
    let environment = environment(session, path, scope, &env_files(entry, &directory, &resolve));
    let inner =
        Scope { directory, environment: &environment, included: scope.included.clone(), resolve_paths: true };
    Ok(load_files(session, &files, &inner))
}

/// Something that is wrong with an entry.
fn refuse<T>(session: &mut Session, path: &Path, diagnostic: Diagnostic) -> Result<T, Failed> {
    let place = session.locate(path, Part::Value);
    session.fail(diagnostic.at(place).on(path.to_string()))
}

/// The files that an entry names, all of which are there.
fn files(
    session: &mut Session,
    entry: &Value,
    path: &Path,
    resolve: &dyn Fn(&str) -> PathBuf,
) -> Result<Vec<PathBuf>, Failed> {
    let mut files = Vec::new();
    for name in texts(entry, "path") {
        match session.fetch(name, NamedBy::File) {
            Ok(fetched) => files.push(fetched.unwrap_or_else(|| resolve(name))),
            Err(diagnostic) => return refuse(session, path, *diagnostic),
        }
    }
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        let is = if missing.is_dir() { "is a directory: name the file in it" } else { "not found" };
        let message = format!("included file {} {is}", missing.display());
        return refuse(session, path, Diagnostic::error(message));
    }
    Ok(files)
}

fn not_in_a_circle(
    session: &mut Session,
    main: &FsPath,
    path: &Path,
    scope: &Scope<'_>,
) -> Result<(), Failed> {
    let Some(start) = scope.included.iter().position(|file| file == main) else { return Ok(()) };
    let mut circle: Vec<String> = scope.included[start..].iter().map(|file| shown(session, file)).collect();
    circle.push(shown(session, main));
    let message = format!("files include each other in a circle: {}", circle.join(" -> "));
    refuse(session, path, Diagnostic::error(message))
}

/// What included files are interpolated with: this project's environment, over theirs.
fn environment(session: &mut Session, path: &Path, scope: &Scope<'_>, files: &[PathBuf]) -> Environment {
    let mut environment = scope.environment.clone();
    for mut error in environment.add_files(files) {
        if error.place.is_none() {
            error = error.at(session.locate(path, Part::Value)).on(path.to_string());
        }
        session.errors.push(error);
    }
    environment
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
