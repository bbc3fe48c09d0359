//! Things in the making: files and directories under the root's scratch directory that end with their maker.
//!
//! Every one is locked by whoever makes it (flock(2)), so that what a killed process left behind can be told
//! from what is still being made, and swept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, IFlags};

use crate::id::{Digest, hex};
use crate::paths::Root;
use crate::store::Lock;

/// A file or directory in the making. Dropping it removes it, unless it was moved away.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    held: File,
}

/// The right to make what has a digest, so that it is made once. Ends with its holder.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _lock: Lock,
}

// === impl Scratch ===

impl Scratch {
    /// A new empty directory for the engine alone.
    pub(crate) fn directory(root: &Root) -> io::Result<Self> {
        let room = root.scratch();
        crate::store::private_directory(&room)?;
        scatter(&room);
        Self::directory_in(&room)
    }

    /// A new empty directory for the engine alone, below one of the rooms that [`sweep`] looks at: beside the root's
    /// scratch directory, its run directory, which is in memory.
    pub(crate) fn directory_in(room: &Path) -> io::Result<Self> {
        Self::make(room, |path| {
            fs::DirBuilder::new().mode(0o700).create(path)?;
            File::open(path)
        })
    }

    /// A new empty file for the engine alone.
    pub(crate) fn file(root: &Root) -> io::Result<Self> {
        Self::make(&root.scratch(), |path| {
            fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
        })
    }

    /// A directory that was something until now: at once nobody finds it any more, and dropped it is removed.
    pub(crate) fn taking(root: &Root, directory: &Path) -> io::Result<Self> {
        let held = File::open(directory)?;
        rustix::fs::flock(&held, FlockOperation::LockExclusive)?;
        let path = fresh_path(&root.scratch())?;
        fs::rename(directory, &path)?;
        Ok(Self { path, held })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file or directory.
    pub(crate) fn handle(&self) -> &File {
        &self.held
    }

    /// Gives it its final name. A directory that is there already stays, and ours goes.
    pub(crate) fn publish(self, target: &Path) -> io::Result<()> {
        match fs::rename(&self.path, target) {
            Ok(()) => Ok(()),
            Err(error) if is_taken(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn make(room: &Path, create: impl Fn(&Path) -> io::Result<File>) -> io::Result<Self> {
        loop {
            let path = fresh_path(room)?;
            let held = match create(&path) {
                // A sweeper took it between its making and its opening.
                Err(error) if error.kind() == io::ErrorKind::NotFound && room.exists() => continue,
                other => other?,
            };
            rustix::fs::flock(&held, FlockOperation::LockExclusive)?;
            if rustix::fs::fstat(&held)?.st_nlink > 0 {
                return Ok(Self { path, held });
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a rename there is nothing under this name; a failure leaves what `sweep` finds later.
        let _ = remove(&self.path);
    }
}

// === impl Claim ===

impl Claim {
    /// Waits until nobody else makes what has this digest.
    pub(crate) fn on(root: &Root, digest: &Digest) -> io::Result<Self> {
        crate::store::private_directory(&root.scratch())?;
        let path = root.scratch().join(format!("{CLAIM}{}", digest.hex()));
        let lock = Lock::exclusive(&path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // One who waits for this very file finds what was made, or makes it beside one who comes later: no harm.
        let _ = crate::store::remove_file(&self.path);
    }
}

/// Removes what makers that no longer live have left behind, and claims that nobody holds. Returns how many.
pub(crate) fn sweep(root: &Root) -> io::Result<usize> {
    Ok(sweep_room(&root.scratch())? + sweep_room(root.run())?)
}

fn sweep_room(room: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(room) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut swept = 0;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(PREFIX) && !name.starts_with(CLAIM) {
            continue;
        }
        let Ok(held) = File::open(&path) else { continue };
        if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&path)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// What the lock files of claims are named with: a claim on something that is about to be made.
const CLAIM: &str = "claim-";
const PREFIX: &str = "making-";

fn fresh_path(room: &Path) -> io::Result<PathBuf> {
    crate::store::private_directory(room)?;
    let mut bytes = [0u8; 12];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(room.join(format!("{PREFIX}{}", hex(&bytes))))
}

/// Asks the file system to take what is made in a directory for trees of their own, and to spread them over the disk
/// (chattr(1), `T`). Otherwise ext4 puts the files of a new layer where those of one that was just removed were, and
/// passes over each of their inodes for a minute, once for every new file: a pull after a removal took three times as
/// long.
fn scatter(room: &Path) {
    /// `FS_TOPDIR_FL` (linux/fs.h).
    const TOP: IFlags = IFlags::from_bits_retain(0x0002_0000);
    let Ok(room) = File::open(room) else { return };
    // Other file systems have no such thing, or no need for it.
    if let Ok(flags) = rustix::fs::ioctl_getflags(&room)
        && !flags.contains(TOP)
    {
        let _ = rustix::fs::ioctl_setflags(&room, flags | TOP);
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => crate::store::remove_tree(path),
        Ok(_) => crate::store::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_published_is_gone_and_what_is_being_made_is_not_swept() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        let kept = Scratch::directory(&root).unwrap();
        fs::create_dir(root.scratch().join("making-left-behind")).unwrap();
        fs::create_dir(root.scratch().join("somebody-else's")).unwrap();
        sweep(&root).unwrap();
        assert!(kept.path().exists());
        assert_eq!(fs::read_dir(root.scratch()).unwrap().count(), 2);
        let target = directory.path().join("target");
        kept.publish(&target).unwrap();
        assert!(target.exists());
        let taken = Scratch::taking(&root, &target).unwrap();
        assert!(!target.exists());
        sweep(&root).unwrap();
        assert!(taken.path().exists());
        drop(taken);
        assert_eq!(fs::read_dir(root.scratch()).unwrap().count(), 1);
        let dropped = Scratch::file(&root).unwrap();
        let path = dropped.path().to_owned();
        drop(dropped);
        assert!(!path.exists());
    }
}
