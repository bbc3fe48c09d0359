//! Whose a project's containers, networks and volumes are, when nobody named it: two directories may well be called the
//! same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use engine::Error;

use crate::labels;
use crate::model::Project;

/// The labels that say of which directory something is, and of which files there.
pub(crate) fn labels_of(project: &Project) -> [(&'static str, String); 2] {
    let files: Vec<String> = project.files.iter().map(|file| file.display().to_string()).collect();
    [
        (labels::WORKING_DIR, project.working_dir.display().to_string()),
        (labels::CONFIG_FILES, files.join(",")),
    ]
}

/// Refuses things of the project, given by their labels, that a directory other than the one it is named after has made
/// and still has the files of.
pub(crate) fn check<'a>(
    home: &Path,
    project: &str,
    kind: &str,
    mut things: impl Iterator<Item = &'a BTreeMap<String, String>>,
) -> engine::Result<()> {
    let Some(other) = things.find_map(|labels| elsewhere(home, labels)) else {
        return Ok(());
    };
    let message = format!(
        "project {project} is that of {other}, and its {kind} are left alone: {} is only called the same",
        home.display()
    );
    Err(Error::conflict(message).with_hint(format!(
        "give this one another name, by `name:` in its compose file or -p; -p {project} goes on with those {kind} from here"
    )))
}

/// The other directory that something is of; a directory that has moved is not another one.
fn elsewhere<'a>(home: &Path, labels: &'a BTreeMap<String, String>) -> Option<&'a str> {
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
