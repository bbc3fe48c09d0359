//! `compose/CONVERT.md`: what becomes of each key of a compose file elsewhere.

use super::{Fate, Target, fate_of};

/// The document, made from the tables that the program itself works with.
fn document() -> String {
    let mut text = include_str!("document.md").to_owned();
    for path in crate::keys::paths() {
        let cell = |target| match fate_of(target, &path) {
            Some(Fate::Becomes(what)) => (*what).to_owned(),
            Some(Fate::Done(what)) => format!("({what})"),
            Some(Fate::Lost(why)) => format!("**lost**: {why}"),
            None => String::new(),
        };
        let row = [cell(Target::Kubernetes), cell(Target::Swarm)].map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| `{path}` | {} | {} |\n", row[0], row[1]));
    }
    text
}

#[test]
fn the_document_is_what_the_tables_say() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/CONVERT.md");
    let document = document();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file, &document).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let found = std::fs::read_to_string(file).unwrap_or_default();
    assert!(found == document, "{file} is old: run this test with BLESS=1");
}
