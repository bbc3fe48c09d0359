//! What the builder keeps between builds: listed, and removed by age or until little enough is left.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::cache::Record;
use crate::error::{Error, Kind, Result};
use crate::id::DiffId;
use crate::layer::Layers;
use crate::paths::Root;
use crate::quantity::ByteSize;
use crate::store::{read_json, remove_file, remove_tree, tree_size};

/// One thing the builder keeps.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What it is known by.
    pub id: String,
    /// What it is.
    pub kind: KeptKind,
    /// Its bytes on the disk.
    pub size: u64,
    /// When a build last wanted it.
    pub used: SystemTime,
    /// The instruction it is of, for people.
    pub description: String,
    path: PathBuf,
    diff: Option<DiffId>,
}

/// What kind of thing the builder keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptKind {
    /// A layer.
    Regular,
    /// The directory of a cache mount.
    CacheMount,
    /// A file that was fetched.
    Download,
    /// Commits of a repository.
    Repository,
}

/// What of it goes.
#[derive(Debug, Clone, Default)]
pub struct Garbage {
    /// Only what no build has wanted for so long.
    pub until: Option<Duration>,
    /// As much as this may stay; what was wanted last stays.
    pub keep: Option<ByteSize>,
    /// Only this kind.
    pub kind: Option<KeptKind>,
    /// Only what is known by this.
    pub id: Option<String>,
}

/// Everything the builder keeps, what was wanted longest ago first.
///
/// # Errors
/// When its directories cannot be read.
pub(crate) fn kept(root: &Root) -> Result<Vec<Kept>> {
    let base = root.build_cache();
    let layers = Layers::at(root);
    let mut kept = Vec::new();
    for (id, path, used) in entries(&base.join("records"))? {
        let Some(record) = read_json::<Record>(&path).ok().flatten() else { continue };
        let (kind, description) = (KeptKind::Regular, record.instruction);
        kept.push(Kept { id, kind, size: 0, used, description, path, diff: Some(record.diff) });
    }
    weigh(&layers, &mut kept)?;
    for (name, kind, description) in [
        ("mounts", KeptKind::CacheMount, "RUN --mount=type=cache"),
        ("http", KeptKind::Download, "ADD"),
        ("git", KeptKind::Repository, "git"),
    ] {
        for (id, path, used) in entries(&base.join(name))?.into_iter().filter(|(_, path, _)| path.is_dir()) {
            let (size, description) = (tree_size(&path), description.to_owned());
            kept.push(Kept { id, kind, size, used, description, path, diff: None });
        }
    }
    kept.sort_by_key(|kept| kept.used);
    Ok(kept)
}

/// Counts each layer, and each file that layers share, with whoever wanted it last: as much is won when the others go.
fn weigh(layers: &Layers, kept: &mut [Kept]) -> Result<()> {
    kept.sort_by_key(|kept| std::cmp::Reverse(kept.used));
    let mut counted = BTreeSet::new();
    let mut weighed: Vec<(&mut u64, DiffId)> = Vec::new();
    for Kept { diff, size, .. } in kept {
        // Several steps may have made the same layer; it is there once.
        weighed.extend(
            (diff.clone())
                .filter(|it| layers.contains(it) && counted.insert(it.clone()))
                .map(|it| (size, it)),
        );
    }
    let diffs: Vec<DiffId> = weighed.iter().map(|(_, diff)| diff.clone()).collect();
    for ((size, _), room) in weighed.into_iter().zip(layers.rooms(&diffs)?) {
        *size = room;
    }
    Ok(())
}

/// Removes what is asked for, and says what went. Layers that images are made of stay in those.
///
/// # Errors
/// When somebody builds at the moment, or a file cannot be removed.
pub(crate) fn remove(root: &Root, garbage: &Garbage) -> Result<Vec<Kept>> {
    let layers = Layers::at(root);
    let Some(_collector) = layers.collector()? else {
        return Err(Error::new(Kind::Conflict, "somebody builds, pulls or loads at the moment")
            .with_hint("wait until it is done"));
    };
    let all = kept(root)?;
    let mut left: u64 = all.iter().map(|kept| kept.size).sum();
    let mut removed = Vec::new();
    let mut staying = BTreeSet::new();
    let mut oldest = None;
    let now = SystemTime::now();
    for kept in all {
        let is_enough = garbage.keep.is_some_and(|keep| left <= keep.0);
        if is_enough || !garbage.takes(&kept, now) {
            oldest.get_or_insert(kept.used);
            staying.extend(kept.diff);
            continue;
        }
        left -= kept.size;
        removed.push(kept);
    }
    for kept in &removed {
        let failed = |error| Error::failed(format!("remove {} from the build cache", kept.id), error);
        match &kept.diff {
            Some(diff) => {
                remove_file(&kept.path).map_err(failed)?;
                if !staying.contains(diff) {
                    layers.unpin(diff)?;
                }
            }
            None => remove_tree(&kept.path).map_err(failed)?,
        }
    }
    if garbage.kind.is_none() && garbage.id.is_none() {
        let limit = garbage.until.and_then(|until| now.checked_sub(until));
        forget(&root.build_cache().join("last"), limit.or(oldest).unwrap_or(now))?;
    }
    Ok(removed)
}

/// Forgets how steps were made before this time. Nothing is lost with that but what `--explain` compares with, and a layer
/// to take unchanged files over from.
fn forget(notes: &Path, before: SystemTime) -> Result<()> {
    for (_, path, made) in entries(notes)? {
        if made < before {
            remove_file(&path).map_err(|error| Error::failed("forget how a step was made", error))?;
        }
    }
    Ok(())
}

// === impl Garbage ===

impl Garbage {
    fn takes(&self, kept: &Kept, now: SystemTime) -> bool {
        // A clock that was set back makes nothing old.
        let age = now.duration_since(kept.used).unwrap_or_default();
        self.until.is_none_or(|until| age >= until)
            && self.kind.is_none_or(|kind| kind == kept.kind)
            && self.id.as_ref().is_none_or(|id| kept.id.starts_with(id))
    }
}

// === impl KeptKind ===

impl KeptKind {
    /// BuildKit's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::CacheMount => "exec.cachemount",
            Self::Download => "source.http",
            Self::Repository => "source.git.checkout",
        }
    }

    /// The kind that BuildKit's word means.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Regular, Self::CacheMount, Self::Download, Self::Repository];
        all.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What is in a directory: its name, path and time.
fn entries(directory: &Path) -> Result<Vec<(String, PathBuf, SystemTime)>> {
    let failed = |error: io::Error| Error::failed("read the build cache", error);
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(failed)?;
        let used = entry.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path(), used));
    }
    Ok(found)
}
