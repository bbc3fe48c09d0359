//! What becomes of each key of a compose file, as one table: the document `compose/KEYS.md` is made from it. Every key
//! of the schema is tried out: what the loader warns about, what a container cannot be made of, and what changes a
//! container is found out; the rest must say where it acts.

mod elsewhere;
mod trial;

use std::collections::BTreeSet;

use self::elsewhere::{ELSEWHERE, NOTES};
use self::trial::Trial;
use crate::schema::{FILE, Shape};

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It does what the specification says, or the note says where it differs.
    Honoured,
    /// It has no effect, for this reason, and a warning says so.
    Warned(String),
    /// It is refused by name.
    Refused,
}

/// A key by its path: `services.*.ports[].target`.
struct Key {
    path: String,
    shape: &'static Shape,
}

/// Every key that takes a value of its own, in the order of the schema.
fn keys() -> Vec<Key> {
    let mut found = Vec::new();
    collect(&FILE, String::new(), &mut found);
    found
}

/// The paths of all keys, sorted.
pub(crate) fn paths() -> BTreeSet<String> {
    keys().into_iter().map(|key| key.path).collect()
}

fn collect(shape: &'static Shape, path: String, found: &mut Vec<Key>) {
    match shape {
        Shape::Object(object) => {
            for (name, field) in object.fields {
                let dot = if path.is_empty() { "" } else { "." };
                collect(field, format!("{path}{dot}{name}"), found);
            }
        }
        Shape::Map(inner) => collect(inner, format!("{path}.*"), found),
        Shape::List(inner) => collect(inner, format!("{path}[]"), found),
        Shape::Nullable(inner) | Shape::Short(_, inner) => collect(inner, path, found),
        _ => found.push(Key { path, shape }),
    }
}

/// Where a key acts that no container shows, by itself or by what it stands under.
fn acts_elsewhere(path: &str) -> Option<&'static str> {
    ELSEWHERE.iter().rev().find(|(key, _)| covers(key, path)).map(|(_, place)| *place)
}

/// Whether a path is a key's or below it.
pub(crate) fn covers(key: &str, path: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The table as a document.
fn document(rows: &[(Key, Standing)]) -> String {
    let mut text = String::from(
        "# Keys of a compose file\n\n\
         What becomes of each key of the Compose Specification. It is *honoured* (it does what the specification says, \
         or the note says where it differs), *warned* about by name and place because it has no effect here, or \
         *refused*. A key that is not here is an error where it stands, unless it begins with `x-`. Nothing is accepted \
         and ignored.\n\n\
         This file is made by a test that tries every key out (`compose/src/keys.rs`).\n\n\
         | key | | |\n| --- | --- | --- |\n",
    );
    for (Key { path, .. }, standing) in rows {
        let note = NOTES.iter().find(|(key, _)| key == path).map(|(_, note)| *note);
        let (word, note) = match standing {
            Standing::Honoured => {
                ("honoured", note.or_else(|| acts_elsewhere(path)).unwrap_or_default().to_owned())
            }
            Standing::Warned(why) => ("warned", note.map_or_else(|| why.clone(), str::to_owned)),
            Standing::Refused => ("refused", note.unwrap_or_default().to_owned()),
        };
        text.push_str(&format!("| `{path}` | {word} | {note} |\n"));
    }
    text
}

#[test]
fn every_key_is_honoured_warned_about_or_refused_as_the_document_says() {
    let trial = Trial::new();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for key in keys() {
        match trial.standing(&key) {
            Ok(Some(standing)) => rows.push((key, standing)),
            Ok(None) if acts_elsewhere(&key.path).is_some() => rows.push((key, Standing::Honoured)),
            Ok(None) => {
                wrong.push(format!("{} changes no container, and nobody says where it acts", key.path))
            }
            Err(why) => wrong.push(why),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/KEYS.md");
    let made = document(&rows);
    if std::env::var_os("WRITE_KEYS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == made, "write it anew: WRITE_KEYS=1 cargo test -p compose --lib keys");
}

#[test]
fn what_is_said_of_keys_is_said_of_keys_that_exist() {
    let known = paths();
    for (path, _) in NOTES {
        assert!(known.contains(*path), "{path}");
    }
    for (path, _) in ELSEWHERE {
        assert!(known.iter().any(|key| key.starts_with(path)), "{path}");
    }
}
