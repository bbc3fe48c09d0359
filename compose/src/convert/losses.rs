//! What a conversion loses, and what it cannot do at all.

use std::fmt::Display;

use serde_json::Value as Json;

use super::fate::{Fate, Table};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::position::{Part, Sources};
use crate::value::{Path, Step};

/// What was lost so far.
pub(super) struct Losses<'a> {
    sources: &'a Sources,
    lost: Vec<Diagnostic>,
    errors: Vec<Diagnostic>,
}

// === impl Losses ===

impl<'a> Losses<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self { sources, lost: Vec::new(), errors: Vec::new() }
    }

    /// Records that the entry at a path is lost, and what follows from it.
    pub(super) fn add(&mut self, path: &Path, consequence: impl Display) {
        let key = path.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        let message = format!("{} is lost: {consequence}", key.unwrap_or_default());
        let place = self.sources.locate(path, Part::Key);
        self.lost.push(Diagnostic::warning(message).at(place).on(path.to_string()));
    }

    /// As [`Losses::add`], of a service.
    pub(super) fn of_service(&mut self, service: &str, keys: &[&str], consequence: impl Display) {
        let path = keys.iter().fold(Path::keys(&["services", service]), |path, key| path.key(key));
        self.add(&path, consequence);
    }

    /// Records that nothing can be made of the entry at a path.
    pub(super) fn refuse(&mut self, path: &Path, message: impl Display, help: &str) {
        let place = self.sources.locate(path, Part::Key);
        let error = Diagnostic::error(message.to_string()).at(place).on(path.to_string());
        self.errors.push(if help.is_empty() { error } else { error.with_help(help) });
    }

    /// Records all that a table says is lost of what a project says.
    pub(super) fn of_table(&mut self, table: &'static Table, project: &Json) {
        self.walk(table, project, &Path::default(), "");
    }

    fn walk(&mut self, table: &'static Table, value: &Json, path: &Path, pattern: &str) {
        if says_nothing(value) {
            return;
        }
        let row = table.iter().find(|(row, _)| *row == pattern);
        if let Some((_, Fate::Lost(consequence))) = row {
            self.add(path, consequence);
            return;
        }
        match value {
            Json::Object(map) => {
                // The names under these sections are the user's.
                let named =
                    matches!(pattern, "services" | "networks" | "volumes" | "secrets" | "configs" | "models")
                        || matches!(
                            pattern,
                            "services.*.networks" | "services.*.models" | "services.*.depends_on"
                        );
                for (key, value) in map {
                    let step = if named { "*" } else { key.as_str() };
                    let below =
                        if pattern.is_empty() { step.to_owned() } else { format!("{pattern}.{step}") };
                    self.walk(table, value, &path.key(key), &below);
                }
            }
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.walk(table, item, &path.index(index), &format!("{pattern}[]"));
                }
            }
            _ => {}
        }
    }

    /// The errors, and the losses sorted by place.
    pub(super) fn into_parts(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        (self.errors, Diagnostics::sorted(self.lost).0)
    }
}

fn says_nothing(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::Object(map) => map.is_empty(),
        Json::Array(items) => items.is_empty(),
        _ => false,
    }
}
