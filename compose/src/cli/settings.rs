//! What `COMPOSE_*` variables say of the tool itself: those of the caller, then those of the project's `.env`.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use super::Globals;
use super::failure::CliError;
use crate::environment::{Environment, Variables, add_missing, explicit_files, is_disabled, read_files};
use crate::load::own_environment;

/// What the variables of the tool say.
pub(super) struct Settings {
    /// Where a `.env` may lie, the first one first.
    directories: Vec<PathBuf>,
    env_files: Vec<PathBuf>,
    variables: OnceCell<Variables>,
}

// === impl Settings ===

impl Settings {
    pub(super) fn of(globals: &Globals) -> Self {
        let first = globals.file.first().filter(|file| *file != "-" && !file.contains("://"));
        let beside = first.and_then(|file| Path::new(file).parent()).map(Path::to_path_buf);
        let project = globals.project_directory.as_ref().map(PathBuf::from).or(beside);
        Self {
            directories: [Some(PathBuf::new()), project].into_iter().flatten().collect(),
            env_files: globals.env_file.iter().map(PathBuf::from).collect(),
            variables: OnceCell::new(),
        }
    }

    /// What a variable says; nothing when it is empty.
    pub(super) fn get(&self, variable: &str) -> Option<String> {
        let own = std::env::var(variable).ok();
        own.or_else(|| self.variables().get(variable).cloned()).filter(|value| !value.is_empty())
    }

    /// Whether a variable says yes.
    pub(super) fn says_yes(&self, variable: &str) -> bool {
        self.get(variable).is_some_and(|value| is_true(&value))
    }

    /// What a variable says in words of its own.
    pub(super) fn parse<T>(
        &self,
        variable: &str,
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
    ) -> Result<Option<T>, CliError> {
        let Some(value) = self.get(variable) else { return Ok(None) };
        let invalid = || CliError::Invalid(format!("{variable}: {value:?} is not {wanted}"));
        parse(&value).map(Some).ok_or_else(invalid)
    }

    /// What is wrong with a file is said when the project is loaded with it.
    fn variables(&self) -> &Variables {
        self.variables.get_or_init(|| {
            let own = Environment { variables: own_environment(), is_whole: true };
            let explicit = explicit_files(&self.env_files, &own.variables, Path::new(""));
            if is_disabled(&own.variables) {
                Variables::new()
            } else if explicit.is_empty() {
                let mut found = Variables::new();
                for file in self.directories.iter().map(|directory| directory.join(".env")) {
                    add_missing(&mut found, read_files(&[file], &own).0);
                }
                found
            } else {
                read_files(&explicit, &own).0
            }
        })
    }
}

/// As these variables say yes.
pub(super) fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "t" | "y" | "yes" | "on")
}
