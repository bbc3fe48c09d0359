//! Records and locks: JSON files that are always whole, and locks that end with their holder.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub mod content;
pub(crate) mod scratch;

/// Whether losing the newest version of a record in a power cut would lose data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The record means nothing after a power cut, which may leave it empty.
    Fleeting,
    /// The record can be made again, or describes what a power cut ends anyway.
    Rename,
    /// The record and its name are on the disk when the call returns.
    Sync,
}

/// A lock on the thing it guards. The kernel releases it when the holder ends, however it ends (flock(2): the
/// lock belongs to the open file description).
#[derive(Debug)]
pub struct Lock(File);

/// Keeps the temporary names of two threads apart.
static TURN: AtomicU64 = AtomicU64::new(0);

/// Writes a record under a temporary name and renames it, so that no reader ever sees half of one.
pub fn write_json<T: Serialize>(path: &Path, record: &T, durability: Durability) -> io::Result<()> {
    let bytes = serde_json::to_vec(record)?;
    write_atomic(path, &bytes, 0o600, durability)
}

/// Writes a file under a temporary name and renames it.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".{name}.{}.{turn}.tmp", std::process::id()));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        if durability == Durability::Sync {
            file.sync_all()?;
        }
        if durability == Durability::Fleeting {
            replace(&temporary, path)
        } else {
            fs::rename(&temporary, path)
        }
    };
    write().inspect_err(|_| {
        // The failure to write is the one to tell.
        let _ = remove_file(&temporary);
    })?;
    if durability == Durability::Sync {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Renames a file, over another one if there is one. Where a rename alone would make the file system write the new
/// content first, so that no power cut leaves it empty (ext4(5), `auto_da_alloc`), an exchange does not.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
        Ok(()) => fs::remove_file(from),
        // There is none, or the file system has no exchange.
        Err(_) => fs::rename(from, to),
    }
}

/// Removes the temporary files in a directory whose writers were killed. Returns how many there were.
pub fn sweep_temporary(directory: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut swept = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let writer = name.to_str().and_then(writer_of);
        if writer.is_some_and(|writer| !is_alive(writer)) {
            remove_file(&entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Whether a process can still do something: one that waits to be reaped (proc(5), state Z) cannot.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The process that gave a temporary file its name.
fn writer_of(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplitn(3, '.');
    parts.next()?.parse::<u64>().ok()?;
    parts.next()?.parse().ok()
}

/// Reads a record; `None` when there is none. An empty file is none: a power cut can leave one of a record that was
/// written without [`Durability::Sync`].
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a directory and its parents for the engine alone (0700).
pub fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a file; one that is not there is fine.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a directory and all that is in it; one that is not there is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The bytes of all files below a directory.
pub fn tree_size(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => tree_size(&entry.path()),
            Ok(metadata) if metadata.is_file() => metadata.size(),
            _ => 0,
        })
        .sum()
}

/// The bytes of all files below a directory that have no name elsewhere: what is won when it goes.
pub fn tree_size_alone(directory: &Path) -> u64 {
    let (alone, linked) = weigh([directory.to_owned()]);
    alone + linked.values().filter(|file| file.names == file.links).map(|file| file.size).sum::<u64>()
}

/// The bytes of all files below these directories, each counted once, whatever names it has.
pub fn trees_size(directories: impl IntoIterator<Item = PathBuf>) -> u64 {
    let (alone, linked) = weigh(directories);
    alone + linked.values().map(|file| file.size).sum::<u64>()
}

/// The bytes of the files below each of these directories that none before it has.
pub fn trees_sizes(directories: impl IntoIterator<Item = PathBuf>) -> Vec<u64> {
    let mut seen = HashSet::new();
    let mut sizes = Vec::new();
    for directory in directories {
        let (alone, linked) = weigh([directory]);
        let new = linked.iter().filter(|(file, _)| seen.insert(**file));
        sizes.push(alone + new.map(|(_, file)| file.size).sum::<u64>());
    }
    sizes
}

/// A file with several names.
struct Linked {
    /// Names that were found.
    names: u64,
    /// Names that there are.
    links: u64,
    size: u64,
}

/// The bytes of all files with one name, and the files with several, by device and inode.
fn weigh(directories: impl IntoIterator<Item = PathBuf>) -> (u64, HashMap<(u64, u64), Linked>) {
    let mut alone = 0;
    let mut linked: HashMap<(u64, u64), Linked> = HashMap::new();
    let mut directories: Vec<PathBuf> = directories.into_iter().collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.is_file() && metadata.nlink() == 1 {
                alone += metadata.size();
            } else if metadata.is_file() {
                let (links, size) = (metadata.nlink(), metadata.size());
                let file = linked.entry((metadata.dev(), metadata.ino()));
                file.or_insert(Linked { names: 0, links, size }).names += 1;
            }
        }
    }
    (alone, linked)
}

// === impl Lock ===

impl Lock {
    /// Waits until nobody else holds the lock in this file, which is made when missing.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Waits until nobody holds it exclusively; several may share it.
    pub fn shared(path: &Path) -> io::Result<Self> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// Takes the lock if nobody holds it now.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.0
    }

    fn take(path: &Path, operation: FlockOperation) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Self(file)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), None);
        write_json(&path, &[1, 2], Durability::Rename).unwrap();
        write_json(&path, &[3], Durability::Sync).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_temporary_file_goes_with_its_writer() {
        let directory = tempfile::tempdir().unwrap();
        let own = format!(".record.json.{}.0.tmp", std::process::id());
        // The largest number a process can have is 4194304 (proc(5), pid_max).
        for name in [own.as_str(), ".record.json.4194305.7.tmp", "record.json", ".lock", ".x.tmp"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(sweep_temporary(directory.path()).unwrap(), 1);
        assert_eq!(sweep_temporary(&directory.path().join("nosuch")).unwrap(), 0);
        assert!(directory.path().join(own).exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_lock_ends_with_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::exclusive(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }
}
