//! Whose containers a project's are, when nobody named it: two directories may well be called the same.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use engine::Error;
use engine::engine::Container;

use crate::labels;

/// Refuses containers that a directory other than the one their project is named after has made and still has the
/// files of.
pub(crate) fn check(home: &Path, project: &str, containers: &[Container]) -> engine::Result<()> {
    let Some(other) = containers.iter().find_map(|container| elsewhere(home, container)) else {
        return Ok(());
    };
    let message = format!(
        "project {project} is that of {other}, and its containers are left alone: {} is only called the same",
        home.display()
    );
    Err(Error::conflict(message).with_hint(format!(
        "give this one another name, by `name:` in its compose file or -p; -p {project} goes on with those containers from here"
    )))
}

/// The other directory that a container is of; a directory that has moved is not another one.
fn elsewhere<'a>(home: &Path, container: &'a Container) -> Option<&'a str> {
    let labels = &container.record.spec.labels;
    let other = labels::value(labels, labels::WORKING_DIR);
    if other.is_empty() || Path::new(other) == home || is_same(Path::new(other), home) {
        return None;
    }
    let mut files = labels::value(labels, labels::CONFIG_FILES).split(',').map(Path::new);
    files.any(|file| file.is_absolute() && file.exists()).then_some(other)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}
