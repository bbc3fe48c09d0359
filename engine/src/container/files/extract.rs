//! A tar becomes files in a directory that is there: names are the tar's word, and none leads out of the directory.

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tar::EntryType;

use crate::error::{Error, Result};
use crate::layer::members::{Member, MemberError, Members};
use crate::layer::unpack::is_layer_xattr;

/// Who the files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// Whoever unpacks them.
    Ours,
    /// Whom the archive says, by number.
    Archived,
}

/// How a tar is unpacked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) owner: Owner,
    /// Whether symbolic links on the way to an entry are followed: only where the process's own root is the end of
    /// the world.
    pub(super) follow: bool,
}

struct Extractor {
    base: OwnedFd,
    rules: Rules,
    bytes: u64,
    /// Directories get their times and modes last: what is made in them would change the times, and a mode
    /// without write permission is no obstacle then.
    directories: Vec<(OwnedFd, Member)>,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// As many directories are held open for their last attributes; deeper trees get theirs as they come.
const MOST_HELD: usize = 256;

/// Unpacks a whole tar; the sum of its files' sizes.
pub(super) fn extract(base: OwnedFd, reader: impl BufRead, rules: Rules) -> Result<u64> {
    let mut extractor = Extractor { base, rules, bytes: 0, directories: Vec::new() };
    let mut members = Members::new(reader);
    let broken = |error: MemberError| Error::failed("unpack the archive", error);
    while let Some(member) = members.next().map_err(broken)? {
        extractor.place(member, &mut members)?;
    }
    members.drain().map_err(broken)?;
    extractor.finish()
}

// === impl Extractor ===

impl Extractor {
    fn place<R: BufRead>(&mut self, member: Member, members: &mut Members<R>) -> Result<()> {
        let path = clean(&member.path)?;
        // The directory that is unpacked into stays as it is.
        let Some((name, parents)) = path.split_last() else { return Ok(()) };
        let fail = |error: Errno| failed(&member.path, error);
        let parent = self.parent(parents).map_err(fail)?;
        if member.kind == EntryType::Directory {
            let directory = make_directory(&parent, name, &member)?;
            if self.directories.len() < MOST_HELD {
                self.directories.push((directory, member));
                return Ok(());
            }
            return self.dress_directory(&directory, &member).map_err(fail);
        }
        clear(&parent, name, &member)?;
        match member.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&parent, name, &member, members)
            }
            EntryType::Symlink => {
                rustix::fs::symlinkat(member.link.as_slice(), &parent, *name).map_err(fail)?;
                self.dress(&parent, name, &member, false).map_err(fail)
            }
            EntryType::Link => {
                let target = clean(&member.link)?;
                let Some((target_name, above)) = target.split_last() else {
                    return Err(refused(&member.path, "a hard link to the directory itself"));
                };
                let from = self.parent(above).map_err(fail)?;
                rustix::fs::linkat(&from, *target_name, &parent, *name, AtFlags::empty()).map_err(fail)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let kind = match member.kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(member.device.0, member.device.1);
                let mode = Mode::from_raw_mode(member.mode & 0o777);
                rustix::fs::mknodat(&parent, *name, kind, mode, device).map_err(fail)?;
                self.dress(&parent, name, &member, true).map_err(fail)
            }
            _ => Err(refused(&member.path, "an entry of a kind that is no file")),
        }
    }

    fn file<R: BufRead>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        member: &Member,
        members: &mut Members<R>,
    ) -> Result<()> {
        let fail = |error: Errno| failed(&member.path, error);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
        let whole = [(0, member.size)];
        let pieces = member.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.pieces);
        for (offset, length) in pieces {
            let mut written = 0;
            while written < *length {
                let bytes = members.content().map_err(|error| Error::failed("unpack the archive", error))?;
                if bytes.is_empty() {
                    return Err(Error::failed("unpack the archive", MemberError::Truncated));
                }
                let most = usize::try_from(length - written).unwrap_or(usize::MAX).min(bytes.len());
                let count = match rustix::io::pwrite(&file, &bytes[..most], offset + written) {
                    Err(Errno::INTR) => continue,
                    other => other.map_err(fail)?,
                };
                members.consume(count);
                written += count as u64;
            }
        }
        if let Some(sparse) = &member.sparse {
            rustix::fs::ftruncate(&file, sparse.size).map_err(fail)?;
        }
        self.bytes += member.size;
        self.dress_open(&file, member).map_err(fail)
    }

    /// Owner, then mode, because a change of owner takes setuid away; then what else there is.
    fn dress_open(&self, file: &OwnedFd, member: &Member) -> Result<(), Errno> {
        if self.rules.owner == Owner::Archived {
            rustix::fs::fchown(file, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(member.mode))?;
        for (name, value) in member.xattrs.iter().filter(|(name, _)| is_layer_xattr(name)) {
            match rustix::fs::fsetxattr(file, name.as_slice(), value, rustix::fs::XattrFlags::empty()) {
                // A file system without attributes holds the file all the same.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(error) => return Err(error),
            }
        }
        rustix::fs::futimens(file, &times(member))
    }

    fn dress_directory(&self, directory: &OwnedFd, member: &Member) -> Result<(), Errno> {
        self.dress_open(directory, member)
    }

    fn dress(&self, parent: &OwnedFd, name: &[u8], member: &Member, mode: bool) -> Result<(), Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.rules.owner == Owner::Archived {
            let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)?;
        }
        if mode {
            // It is no symbolic link: it was made here a moment ago, and a link in its place would only lose its
            // own target's mode to somebody who could change that anyway.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(member.mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(parent, name, &times(member), flags)
    }

    fn finish(mut self) -> Result<u64> {
        while let Some((directory, member)) = self.directories.pop() {
            self.dress_directory(&directory, &member).map_err(|error| failed(&member.path, error))?;
        }
        Ok(self.bytes)
    }

    /// The directory an entry goes into, made when missing.
    fn parent(&self, path: &[&[u8]]) -> Result<OwnedFd, Errno> {
        let whole = path.join(&b'/');
        let target = if whole.is_empty() { &b"."[..] } else { &whole };
        match self.open(self.base.as_fd(), target) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut here = self.open(self.base.as_fd(), b".")?;
        for name in path {
            here = match self.open(here.as_fd(), name) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&here, *name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    self.open(here.as_fd(), name)?
                }
                other => other?,
            };
        }
        Ok(here)
    }

    fn open(&self, base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = if self.rules.follow {
            ResolveFlags::NO_MAGICLINKS
        } else {
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
        };
        loop {
            match rustix::fs::openat2(base, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }
}

/// A directory is merged with one that is there; it takes the place of nothing else.
fn make_directory(parent: &OwnedFd, name: &[u8], member: &Member) -> Result<OwnedFd> {
    let fail = |error: Errno| failed(&member.path, error);
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(fail(error)),
    }
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()).map_err(|error| match error {
        Errno::NOTDIR | Errno::LOOP => Error::conflict(format!(
            "cannot overwrite non-directory {:?} with a directory",
            String::from_utf8_lossy(&member.path)
        )),
        error => fail(error),
    })
}

/// Takes what a file replaces out of the way; a directory is not replaced.
fn clear(parent: &OwnedFd, name: &[u8], member: &Member) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(Error::conflict(format!(
            "cannot overwrite directory {:?} with a non-directory",
            String::from_utf8_lossy(&member.path)
        ))),
        Err(error) => Err(failed(&member.path, error)),
    }
}

/// The components of a name, which must not climb.
fn clean(path: &[u8]) -> Result<Vec<&[u8]>> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused(path, "the name leads out of the directory")),
            part if part.contains(&0) => return Err(refused(path, "the name has a zero byte")),
            part => parts.push(part),
        }
    }
    Ok(parts)
}

fn times(member: &Member) -> Timestamps {
    let time = Timespec { tv_sec: member.seconds, tv_nsec: member.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn failed(path: &[u8], error: Errno) -> Error {
    let failure =
        Error::failed(format!("unpack {:?}", String::from_utf8_lossy(path)), std::io::Error::from(error));
    if error == Errno::ROFS {
        return failure.with_hint("the container's root file system, or the volume there, is read-only");
    }
    failure
}

fn refused(path: &[u8], reason: &str) -> Error {
    Error::invalid(format!("refuse {:?} in the archive: {reason}", String::from_utf8_lossy(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn tar(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o750);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            if is_link {
                header.set_link_name_literal(content).unwrap();
            }
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack(into: &Path, entries: &[(EntryType, &str, &str)]) -> Result<u64> {
        let base = File::open(into).unwrap().into();
        extract(base, &tar(entries)[..], Rules { owner: Owner::Ours, follow: false })
    }

    #[test]
    fn files_are_merged_and_kinds_are_not_swapped() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/old"), "old").unwrap();
        let entries = [
            (EntryType::Directory, "d/", ""),
            (EntryType::Regular, "d/new", "abc"),
            (EntryType::Link, "l", "d/new"),
        ];
        assert_eq!(unpack(directory.path(), &entries).unwrap(), 3);
        assert_eq!(fs::read_to_string(at("d/old")).unwrap(), "old");
        assert_eq!(fs::read_to_string(at("l")).unwrap(), "abc");
        let error = unpack(directory.path(), &[(EntryType::Regular, "d", "x")]).unwrap_err();
        assert!(error.to_string().contains("cannot overwrite directory"), "{error}");
        let error = unpack(directory.path(), &[(EntryType::Directory, "l/", "")]).unwrap_err();
        assert!(error.to_string().contains("cannot overwrite non-directory"), "{error}");
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let directory = tempfile::tempdir().unwrap();
        symlink(outside.path(), directory.path().join("out")).unwrap();
        let target = outside.path().to_str().unwrap();
        for entries in [
            vec![(EntryType::Regular, "../x", "x")],
            vec![(EntryType::Regular, "out/x", "x")],
            vec![(EntryType::Directory, "out/", "")],
            vec![(EntryType::Symlink, "s", target), (EntryType::Regular, "s/x", "x")],
            vec![(EntryType::Link, "h", "../../etc/passwd")],
            vec![(EntryType::Link, "h", "out/x")],
        ] {
            assert!(unpack(directory.path(), &entries).is_err(), "{entries:?}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
