//! What becomes of a key.

#[cfg(test)]
use crate::keys;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It becomes this.
    Becomes(&'static str),
    /// It has no counterpart, and this follows from it.
    Lost(&'static str),
    /// It says nothing about what runs: it is for people, for building, or was obeyed when the files were read.
    Done(&'static str),
}

/// Rows of a path in the schema (`services.*.ports[].mode`) and the fate of all that is there and below; the
/// longest path that fits decides.
pub(crate) type Table = [(&'static str, Fate)];

/// The row for a path.
#[cfg(test)]
pub(crate) fn find(table: &'static Table, path: &str) -> Option<&'static Fate> {
    table
        .iter()
        .filter(|(pattern, _)| keys::covers(pattern, path))
        .max_by_key(|(pattern, _)| pattern.len())
        .map(|(_, fate)| fate)
}
