//! Keeps the rooms' imports one-way, as ARCHITECTURE.md says: a room may use itself and those listed beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Values every room may use.
const SHARED: [&str; 5] = ["error", "id", "paths", "quantity", "signal"];

/// Each room and what it may use besides the shared values.
const ROOMS: [(&str, &[&str]); 18] = [
    ("error", &[]),
    ("id", &[]),
    ("paths", &[]),
    ("quantity", &[]),
    ("signal", &[]),
    ("store", &[]),
    ("sys", &[]),
    ("rootless", &["store", "sys"]),
    ("event", &["store"]),
    ("volume", &["event", "store"]),
    ("layer", &["rootless", "store", "sys"]),
    ("image", &["event", "layer", "rootless", "store", "sys"]),
    // What is asked of a network is part of a container's specification.
    ("network", &["container::spec", "event", "rootless", "store", "sys"]),
    ("container", &["event", "image::config", "layer", "network", "rootless", "store", "sys", "volume"]),
    ("oci", &["container", "network", "store", "sys"]),
    ("builder", &["container::cdi", "container::spec", "container::stdio", "image", "layer", "store", "sys"]),
    (
        "engine",
        &["builder", "container", "event", "image", "layer", "network", "rootless", "store", "volume"],
    ),
    ("cli", &["builder", "container", "engine", "event", "image", "network", "oci", "store", "volume"]),
];

#[test]
fn rooms_import_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = BTreeSet::new();
    for (room, allowed) in ROOMS {
        for file in files(&source, room) {
            let text = fs::read_to_string(&file).unwrap();
            for path in text.split("crate::").skip(1) {
                let used: String =
                    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
                let name = used.split("::").next().unwrap_or_default();
                let room_of_ours = ROOMS.iter().any(|(known, _)| *known == name);
                let may = name == room
                    || SHARED.contains(&name)
                    || allowed
                        .iter()
                        .any(|allowed| used == *allowed || used.starts_with(&format!("{allowed}::")));
                if room_of_ours && !may {
                    wrong.insert(format!("{room} must not use {used} ({})", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The files of a room: `room.rs` and everything below `room/`.
fn files(source: &Path, room: &str) -> Vec<PathBuf> {
    let mut found = vec![source.join(format!("{room}.rs"))];
    let mut folders = vec![source.join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found
}
