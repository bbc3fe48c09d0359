//! What `watch` does about files that changed: rules and changes in, reactions out. Pure; the tree of directories
//! that tells of changes is its own room.

mod rule;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::model::{Hook, WatchAction};

pub use rule::Rule;
pub use tree::{Changed, Stopper, Tree, WatchError};

/// What is to be done about one batch of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaction {
    /// Services whose image is built anew.
    pub rebuild: BTreeSet<String>,
    /// Files to bring to the containers of services: where they are here, by where they belong there.
    pub sync: BTreeMap<String, BTreeMap<PathBuf, PathBuf>>,
    /// What is to go from the containers of services first: it is of another kind than what comes.
    pub replace: BTreeMap<String, BTreeSet<PathBuf>>,
    /// Services that restart.
    pub restart: BTreeSet<String>,
    /// Commands to run in the containers of services, each rule's once.
    pub exec: Vec<(String, Hook)>,
}

// === impl Reaction ===

impl Reaction {
    /// What the rules say about these files.
    pub fn to(rules: &[Rule], changed: &Changed) -> Self {
        let mut reaction = Self::default();
        for rule in rules {
            let mut concerned = changed.paths.iter().filter(|path| rule.is_about(path)).peekable();
            if concerned.peek().is_none() {
                continue;
            }
            if rule::syncs(rule.action) {
                let replaced = changed.replaced.iter().filter(|path| rule.is_about(path));
                let replaced: Vec<PathBuf> = replaced.filter_map(|path| rule.destination(path)).collect();
                reaction.replace.entry(rule.service.clone()).or_default().extend(replaced);
                let files = reaction.sync.entry(rule.service.clone()).or_default();
                files.extend(concerned.filter_map(|path| Some((rule.destination(path)?, path.clone()))));
            }
            match rule.action {
                WatchAction::Rebuild => drop(reaction.rebuild.insert(rule.service.clone())),
                WatchAction::Restart | WatchAction::SyncRestart => {
                    reaction.restart.insert(rule.service.clone());
                }
                WatchAction::SyncExec => reaction.exec.push((rule.service.clone(), rule.exec.clone())),
                WatchAction::Sync => {}
            }
        }
        // A service that is made anew has started anew.
        reaction.restart.retain(|service| !reaction.rebuild.contains(service));
        reaction
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything the rules with `initial_sync` bring to containers, whatever its age.
pub fn initial(rules: &[Rule]) -> BTreeMap<String, BTreeMap<PathBuf, PathBuf>> {
    let mut sync: BTreeMap<String, BTreeMap<PathBuf, PathBuf>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.initial_sync) {
        let files = sync.entry(rule.service.clone()).or_default();
        let mut found = BTreeSet::new();
        files_below(std::slice::from_ref(rule), &rule.path, &mut found);
        files.extend(found.into_iter().filter_map(|path| Some((rule.destination(&path)?, path))));
    }
    sync
}

/// The files below a path that some rule is about. What cannot be read is none.
fn files_below(rules: &[Rule], path: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    if !metadata.is_dir() {
        if rules.iter().any(|rule| rule.is_about(path)) {
            found.insert(path.to_owned());
        }
        return;
    }
    if !rules.iter().any(|rule| rule.looks_into(path)) {
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        files_below(rules, &entry.path(), found);
    }
}
