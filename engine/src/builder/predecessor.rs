//! The layer that the same step made the last time. Of what a COPY copies again most is what it was then, and such a
//! file is linked, not written: layers never change, so two of them may share a file (see `layer/rebuild`).

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::copy::Meta;
use super::digests::Digests;
use super::stack::Entry;
use crate::id::DiffId;
use crate::layer::pack::Known;
use crate::layer::{Layers, Sum, may_share};

/// A layer with the digests of the files in it that may be linked into another one.
pub(crate) struct Predecessor<'a> {
    directory: PathBuf,
    sums: HashMap<Vec<u8>, Sum>,
    digests: &'a Digests,
    /// Those that are in the new layer already, by inode: two files of it stay two, whatever they were.
    taken: Known,
    /// No file is left younger than this, in seconds since 1970.
    latest: Option<i64>,
    /// The directory of the last file, here and in the new layer: the next one is most often there too.
    at: Option<Place>,
}

struct Place {
    parent: PathBuf,
    from: OwnedFd,
    to: OwnedFd,
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
        let sums = (entries.into_iter())
            .filter(|entry| entry.is_plain && !entry.has_attributes && may_share(&entry.path))
            .map(|entry| (entry.path, entry.sum))
            .collect();
        Some(Self { directory: layers.dir(diff), sums, digests, taken: Known::new(), latest, at: None })
    }

    /// Links the file that was at this path, if it is just what copying this one with these attributes would make. What
    /// was read to find out whether the step is cached tells it: no content is read for it.
    ///
    /// # Errors
    /// When there is something at that place of the new layer, or the source's attributes cannot be read.
    pub(crate) fn link(
        &mut self,
        path: &Path,
        source: &Entry,
        meta: &Meta,
        upper: &Path,
    ) -> io::Result<bool> {
        let Some(sum) = self.sums.get(path.as_os_str().as_bytes()).copied() else { return Ok(false) };
        if self.digests.known(&source.metadata) != Some(*sum.as_bytes()) || !source.attributes()?.is_empty() {
            return Ok(false);
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
        let latest = self.latest;
        let Ok(place) = self.place(parent, upper) else { return Ok(false) };
        let Ok(there) = rustix::fs::statat(&place.from, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(false);
        };
        if !is_like(&there, source.metadata.size(), meta, latest) {
            return Ok(false);
        }
        let inode = there.st_ino;
        if self.taken.contains_key(&inode) {
            return Ok(false);
        }
        let place = self.place(parent, upper)?;
        match rustix::fs::linkat(&place.from, name, &place.to, name, AtFlags::empty()) {
            Ok(()) => {
                self.taken.insert(inode, sum);
                Ok(true)
            }
            Err(Errno::EXIST) => Err(Errno::EXIST.into()),
            // A file can have too many names (EMLINK), and some file systems know only one.
            Err(_) => Ok(false),
        }
    }

    /// The digests of the files that are in the new layer now, by inode.
    pub(crate) fn taken(self) -> Known {
        self.taken
    }

    fn place(&mut self, parent: &Path, upper: &Path) -> io::Result<&Place> {
        let place = match self.at.take().filter(|place| place.parent == parent) {
            Some(place) => place,
            None => {
                // What was copied may have links in it that lead anywhere.
                let open = |top: &Path| {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let top = rustix::fs::open(top, flags, Mode::empty())?;
                    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                    rustix::fs::openat2(&top, parent, flags, Mode::empty(), inside)
                };
                Place { parent: parent.to_owned(), from: open(&self.directory)?, to: open(upper)? }
            }
        };
        Ok(self.at.insert(place))
    }
}

/// Whether a file is what a copy with these attributes would be.
fn is_like(there: &Stat, size: u64, meta: &Meta, latest: Option<i64>) -> bool {
    let (seconds, nanoseconds) = (meta.mtime.tv_sec, meta.mtime.tv_nsec);
    let mtime = latest.filter(|latest| seconds >= *latest).map_or((seconds, nanoseconds), |it| (it, 0));
    FileType::from_raw_mode(there.st_mode) == FileType::RegularFile
        && there.st_size.cast_unsigned() == size
        && there.st_mode & 0o7777 == meta.mode & 0o7777
        && (there.st_uid, there.st_gid) == (meta.owner.uid, meta.owner.gid)
        && there.st_mtime == mtime.0
        && i64::try_from(there.st_mtime_nsec) == Ok(mtime.1)
}
