//! A directory as one line for each file: all that an image has a word about.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What a builder needs while commands run, what the base image has and nothing here touches, and volumes, which
/// buildah makes and BuildKit does not.
const PASSED_OVER: [&str; 10] = [
    "/bin",
    "/dev",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/proc",
    "/run",
    "/sys",
    "/vol",
    "/vol2",
];

/// Files are as old as they were made here; a younger one was made by a build, whose clock is its own.
pub(super) const LATEST: i64 = 1_000_000_000;

/// Every file below a directory, in order.
pub(super) fn listed(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut known = HashMap::new();
    list(root, "", &mut known, &mut lines);
    lines
}

fn list(root: &Path, directory: &str, known: &mut HashMap<u64, String>, lines: &mut Vec<String>) {
    let mut names: Vec<String> = fs::read_dir(root.join(directory.trim_start_matches('/')))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in names {
        let path = format!("{directory}/{name}");
        if PASSED_OVER.contains(&path.as_str()) {
            continue;
        }
        let full = root.join(&path[1..]);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let owner = format!("{}:{}", metadata.uid(), metadata.gid());
        // Buildah loses the bits that set a user or a group.
        let mode = metadata.mode() & 0o1777;
        if metadata.is_symlink() {
            lines.push(format!("{path} -> {} {owner}", fs::read_link(&full).unwrap().display()));
        } else if metadata.is_dir() {
            lines.push(format!("{path}/ {mode:o} {owner}"));
            list(root, &path, known, lines);
        } else if metadata.file_type().is_fifo() {
            lines.push(format!("{path} fifo {mode:o} {owner}"));
        } else {
            let age = if metadata.mtime() <= LATEST { metadata.mtime().to_string() } else { "new".into() };
            let first = known.entry(metadata.ino()).or_insert_with(|| path.clone()).clone();
            let same = if first == path { String::new() } else { format!(" is {first}") };
            let text = String::from_utf8_lossy(&fs::read(&full).unwrap()).into_owned();
            lines.push(format!("{path} {mode:o} {owner} {age} {text:?}{same}"));
        }
    }
}
