//! What a container changed of its image: its writable layer compared with the layers below.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::layer::unpack::{is_whiteout, join, names, opaque_xattr};

/// One path that is not as in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path, absolute.
    pub path: PathBuf,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another one now, or something below it is.
    Changed,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

struct Comparison {
    lower: Vec<OwnedFd>,
    /// Places that the engine made, not the container.
    made_by_us: BTreeSet<Vec<u8>>,
    changes: Vec<Change>,
}

/// What the engine makes for its own mounts when the image has it not; parents last.
const PLACES: [&str; 12] = [
    ".dockerenv",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "dev",
    "proc",
    "sys",
    "etc/mtab",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc",
];

/// Where old programs look for what is mounted, and where that is told (docker's image of it).
pub(crate) const MTAB: (&str, &str) = ("etc/mtab", "/proc/mounts");

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The changes a writable layer makes to the layers below it (topmost first), in the order of their paths.
///
/// # Errors
/// When a directory cannot be read.
pub fn changes(upper: &Path, lower: &[PathBuf]) -> io::Result<Vec<Change>> {
    let upper: OwnedFd = File::open(upper)?.into();
    let lower = open_all(lower)?;
    let made_by_us = places(&upper, &lower)?;
    let mut comparison = Comparison { lower, made_by_us, changes: Vec::new() };
    comparison.walk(&upper, b"")?;
    Ok(comparison.changes)
}

/// The places in a writable layer that the engine made for its own mounts and that hold nothing.
///
/// # Errors
/// When a directory cannot be read.
pub fn made_by_engine(upper: &Path, lower: &[PathBuf]) -> io::Result<BTreeSet<Vec<u8>>> {
    places(&File::open(upper)?.into(), &open_all(lower)?)
}

fn open_all(lower: &[PathBuf]) -> io::Result<Vec<OwnedFd>> {
    lower.iter().map(|path| File::open(path).map(OwnedFd::from)).collect()
}

fn places(upper: &OwnedFd, lower: &[OwnedFd]) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut found: BTreeSet<Vec<u8>> = BTreeSet::new();
    for place in PLACES {
        let Some(stat) = look(upper, place.as_bytes())? else { continue };
        let ours = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => stat.st_size == 0,
            FileType::Symlink => place == MTAB.0,
            FileType::Directory => {
                let directory = open_directory(upper, place.as_bytes())?;
                let inside = names(&directory)?;
                inside.iter().all(|name| found.contains(&join(place.as_bytes(), name)))
            }
            _ => false,
        };
        if ours && below(lower, place.as_bytes())?.is_none() {
            found.insert(place.as_bytes().to_vec());
        }
    }
    Ok(found)
}

// === impl Comparison ===

impl Comparison {
    /// Whether anything in this directory of the writable layer is worth mentioning its parents for.
    fn walk(&mut self, directory: &OwnedFd, path: &[u8]) -> io::Result<bool> {
        let mut told = false;
        let upper = names(directory)?;
        let mut all: BTreeSet<Vec<u8>> = upper.iter().cloned().collect();
        let opaque = is_opaque(directory)?;
        if opaque {
            // What the layers below have here and this one has not is gone.
            all.extend(names_below(&self.lower, path)?);
        }
        for name in all {
            let full = join(path, &name);
            if self.made_by_us.contains(&full) {
                continue;
            }
            if !upper.contains(&name) {
                if below(&self.lower, &full)?.is_some() {
                    self.add(&full, ChangeKind::Deleted);
                    told = true;
                }
                continue;
            }
            told |= self.compare(directory, &name, &full)?;
        }
        Ok(told)
    }

    fn compare(&mut self, directory: &OwnedFd, name: &[u8], full: &[u8]) -> io::Result<bool> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Programs at work remove files.
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        let before = below(&self.lower, full)?;
        if is_whiteout(&stat) {
            if before.is_some() {
                self.add(full, ChangeKind::Deleted);
            }
            return Ok(before.is_some());
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let at = self.changes.len();
        let inside = if is_directory {
            match rustix::fs::openat(directory, name, DIRECTORY, Mode::empty()) {
                Ok(opened) => self.walk(&opened, full)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => false,
                Err(error) => return Err(error.into()),
            }
        } else {
            false
        };
        let kind = match before {
            None => ChangeKind::Added,
            // A directory may have been copied up only on the way to something in it.
            Some(before) if is_directory && !inside && self.same_directory(&before, &stat, full) => {
                return Ok(false);
            }
            Some(_) => ChangeKind::Changed,
        };
        self.changes.insert(at, Change { path: absolute(full), kind });
        Ok(true)
    }

    /// Whether a directory is as it was. Places that the engine made in it changed its time alone.
    fn same_directory(&self, before: &Stat, now: &Stat, path: &[u8]) -> bool {
        let ours = self.made_by_us.iter().any(|place| {
            place.strip_prefix(path).is_some_and(|rest| rest.len() > 1 && rest.starts_with(b"/"))
        });
        let is_directory = FileType::from_raw_mode(before.st_mode) == FileType::Directory;
        is_directory
            && (before.st_mode, before.st_uid, before.st_gid) == (now.st_mode, now.st_uid, now.st_gid)
            && (ours || before.st_mtime == now.st_mtime)
    }

    fn add(&mut self, path: &[u8], kind: ChangeKind) {
        self.changes.push(Change { path: absolute(path), kind });
    }
}

/// What the layers below show at a path: the topmost layer that has it, or hides it, decides.
fn below(lower: &[OwnedFd], path: &[u8]) -> io::Result<Option<Stat>> {
    'layers: for layer in lower {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let mut here = rustix::fs::openat(layer, ".", DIRECTORY, Mode::empty())?;
        for (index, part) in parts.iter().enumerate() {
            let hides = is_opaque(&here)?;
            let stat = match rustix::fs::statat(&here, *part, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) if hides => return Ok(None),
                Err(Errno::NOENT) => continue 'layers,
                Err(error) => return Err(error.into()),
            };
            if is_whiteout(&stat) {
                return Ok(None);
            }
            if index + 1 == parts.len() {
                return Ok(Some(stat));
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(None);
            }
            here = rustix::fs::openat(&here, *part, DIRECTORY, Mode::empty())?;
        }
    }
    Ok(None)
}

fn names_below(lower: &[OwnedFd], path: &[u8]) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut found = BTreeSet::new();
    for layer in lower {
        match open_directory(layer, path) {
            Ok(directory) => found.extend(names(&directory)?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn look(base: &OwnedFd, path: &[u8]) -> io::Result<Option<Stat>> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    let looked = open_directory(base, parent)
        .and_then(|parent| rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW));
    match looked {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open_directory(base: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let path = if path.is_empty() { &b"."[..] } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(base, path, DIRECTORY, Mode::empty(), resolve)
}

fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::fgetxattr(directory, opaque_xattr(), &mut value) {
        Ok(length) => Ok(length == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn absolute(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}
