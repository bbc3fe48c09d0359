//! The layer that the same step made the last time. Of what a COPY copies again most is what it was then, and such a
//! file is linked, not written: layers never change, so two of them may share a file (see `layer/rebuild`).

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Timespec;

use super::context::attributes;
use super::copy::Meta;
use super::digests::{Digests, Sum};
use super::stack::Entry;
use crate::id::DiffId;
use crate::layer::{Layers, may_share};

/// A layer with the digests of the files in it that may be linked into another one.
pub(crate) struct Predecessor<'a> {
    directory: PathBuf,
    sums: HashMap<PathBuf, Sum>,
    digests: &'a Digests,
    /// Those that are in the new layer already: two files of it stay two, whatever they were.
    taken: HashSet<u64>,
    /// No file is left younger than this, in seconds since 1970.
    latest: Option<i64>,
}

// === impl Predecessor ===

impl<'a> Predecessor<'a> {
    /// The predecessor that this layer is, if it is still here and the digests of its files are known. `latest` is the time
    /// that younger files get.
    pub(crate) fn of(
        layers: &Layers,
        diff: &DiffId,
        digests: &'a Digests,
        latest: Option<i64>,
    ) -> Option<Self> {
        layers.record(diff).ok()?;
        let entries = layers.kept_table(diff).ok()??.entries().ok()?;
        let is_wanted = |path: &[u8]| may_share(path);
        let sums = (entries.into_iter())
            .filter(|entry| entry.is_plain && is_wanted(&entry.path))
            .map(|entry| (std::ffi::OsString::from_vec(entry.path).into(), *entry.sum.as_bytes()))
            .collect();
        Some(Self { directory: layers.dir(diff), sums, digests, taken: HashSet::new(), latest })
    }

    /// Links the file that was at this path, if it is just what copying this one with these attributes would make. What
    /// was read to find out whether the step is cached tells it: no content is read for it.
    ///
    /// # Errors
    /// When there is something at that place of the new layer, or the source's attributes cannot be read.
    pub(crate) fn link(&mut self, path: &Path, source: &Entry, meta: &Meta, to: &Path) -> io::Result<bool> {
        let Some(sum) = self.sums.get(path) else { return Ok(false) };
        if self.digests.known(&source.metadata) != Some(*sum) {
            return Ok(false);
        }
        let from = self.directory.join(path);
        let Ok(there) = std::fs::symlink_metadata(&from) else { return Ok(false) };
        if !self.is_like(&there, source.metadata.size(), meta) || self.taken.contains(&there.ino()) {
            return Ok(false);
        }
        if attributes(&from).ok() != Some(attributes(&source.host)?) {
            return Ok(false);
        }
        match std::fs::hard_link(&from, to) {
            Ok(()) => Ok(self.taken.insert(there.ino())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A file can have too many names (EMLINK), and some file systems know only one.
            Err(_) => Ok(false),
        }
    }

    fn is_like(&self, there: &Metadata, size: u64, meta: &Meta) -> bool {
        let Timespec { tv_sec, tv_nsec } = meta.mtime;
        let mtime = self.latest.filter(|latest| tv_sec >= *latest).map_or((tv_sec, tv_nsec), |it| (it, 0));
        there.is_file()
            && there.size() == size
            && there.mode() & 0o7777 == meta.mode & 0o7777
            && (there.uid(), there.gid()) == (meta.owner.uid, meta.owner.gid)
            && (there.mtime(), there.mtime_nsec()) == mtime
    }
}
