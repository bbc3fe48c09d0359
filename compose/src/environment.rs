//! Which variables a project is interpolated with: the caller's, over those of `.env` files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path as FsPath, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::dotenv;
use crate::position::Source;

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// Variables, and whether they are all there are: those of a file in which something is wrong are not all known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// The variables.
    pub(crate) variables: Variables,
    /// Whether one that is not among them is not set.
    pub(crate) is_whole: bool,
}

// === impl Environment ===

impl Environment {
    /// Takes over from files what is not there yet. Gives back what is wrong in them.
    pub(crate) fn add_files(&mut self, files: &[PathBuf]) -> Vec<Diagnostic> {
        let (more, errors) = read_files(files, self);
        add_missing(&mut self.variables, more);
        self.is_whole &= errors.is_empty();
        errors
    }
}

/// Reads environment files; a later file wins over an earlier one, and `outer` is what they may refer to. What is wrong
/// in them comes with what is not.
pub(crate) fn read_files(files: &[PathBuf], outer: &Environment) -> (Variables, Vec<Diagnostic>) {
    let mut found = Variables::new();
    let mut errors = Vec::new();
    for file in files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                errors.push(cannot_read("env file", file, &error));
                continue;
            }
        };
        let is_whole = outer.is_whole && errors.is_empty();
        let lookup = |name: &str| outer.variables.get(name).or_else(|| found.get(name)).cloned();
        let parsed = dotenv::parse(&text, &lookup, is_whole, &mut |_| {});
        errors.extend(at_lines(file, &text, parsed.errors));
        found.extend(parsed.variables.into_iter().filter_map(|(key, value)| Some((key, value?))));
    }
    (found, errors)
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

/// Lines that make no sense, as diagnostics.
pub(crate) fn at_lines(file: &FsPath, text: &str, errors: Vec<dotenv::DotenvError>) -> Vec<Diagnostic> {
    if errors.is_empty() {
        return Vec::new();
    }
    let source = Source::new(file, text);
    let shown = |error: dotenv::DotenvError| Diagnostic {
        help: error.help.map(str::to_owned),
        ..Diagnostic::error(error.message).at(Some(source.place_at(error.line, error.column, 1)))
    };
    errors.into_iter().map(shown).collect()
}
