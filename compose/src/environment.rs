//! Which variables a project is interpolated with: the caller's, over those of `.env` files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path as FsPath, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::dotenv;
use crate::position::Source;

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// Reads environment files; a later file wins over an earlier one, and `outer` is what they may refer to.
pub(crate) fn read_files(files: &[PathBuf], outer: &Variables) -> Result<Variables, Box<Diagnostic>> {
    let mut found = Variables::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).map_err(|error| Box::new(cannot_read("env file", file, &error)))?;
        let lookup = |name: &str| outer.get(name).or_else(|| found.get(name)).cloned();
        let variables = dotenv::parse(&text, &lookup, &mut |_| {})
            .map_err(|error| Box::new(at_line(file, &text, error)))?;
        found.extend(variables.into_iter().filter_map(|(key, value)| Some((key, value?))));
    }
    Ok(found)
}

/// Takes over what is not there yet.
pub(crate) fn add_missing(environment: &mut Variables, more: Variables) {
    for (key, value) in more {
        environment.entry(key).or_insert(value);
    }
}

/// The environment files asked for by option or by `COMPOSE_ENV_FILES`, if any.
pub(crate) fn explicit_files(options: &[PathBuf], environment: &Variables, dir: &FsPath) -> Vec<PathBuf> {
    let named = environment.get("COMPOSE_ENV_FILES").map(String::as_str).unwrap_or_default();
    let from_environment = named.split(',').filter(|file| !file.is_empty()).map(PathBuf::from);
    let files: Vec<PathBuf> = if options.is_empty() { from_environment.collect() } else { options.to_vec() };
    files.into_iter().map(|file| dir.join(file)).collect()
}

/// Whether `.env` is not to be read.
pub(crate) fn is_disabled(environment: &Variables) -> bool {
    environment
        .get("COMPOSE_DISABLE_ENV_FILE")
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "t" | "yes"))
}

/// A file that cannot be read, as a diagnostic.
pub(crate) fn cannot_read(what: &str, file: &FsPath, error: &io::Error) -> Diagnostic {
    if file.as_os_str().is_empty() {
        Diagnostic::error(format!("{what}: a path is needed"))
    } else if error.kind() == io::ErrorKind::NotFound {
        Diagnostic::error(format!("{what} {} not found", file.display()))
    } else {
        Diagnostic::error(format!("cannot read {what} {}: {error}", file.display()))
    }
}

/// A line that makes no sense, as a diagnostic.
pub(crate) fn at_line(file: &FsPath, text: &str, error: dotenv::DotenvError) -> Diagnostic {
    let place = Source::new(file, text).place_at(error.line, error.column, 1);
    Diagnostic::error(error.message).at(Some(place))
}
