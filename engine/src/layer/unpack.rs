//! A tar becomes a layer directory. Every path is the tar's word and none is believed: all work is relative to
//! descriptors, parents are resolved inside the layer (openat2(2), RESOLVE_IN_ROOT), last components are never
//! followed, and what would leave the layer is refused.

use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use tar::EntryType;

use crate::layer::donor::{Donor, Donors};
use crate::layer::members::{Member, MemberError, Members};
use crate::rootless;

/// What a layer holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The sum of its files' sizes.
    pub(crate) size: u64,
    /// How many members its tar has.
    pub(crate) members: u64,
    /// How long its uncompressed tar is, where that is known.
    pub(crate) tar_size: u64,
    /// Bytes of its files that are another layer's too.
    pub(crate) shared: u64,
}

/// Why a tar was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error(transparent)]
    Archive(#[from] MemberError),
    #[error("refuse {path:?}: {reason}")]
    Refused { path: String, reason: &'static str },
    #[error("{step} {path:?}")]
    Step { step: &'static str, path: String, source: io::Error },
    #[error("stop unpacking: the file system has less than {} MiB left", ROOM_KEPT >> 20)]
    Full(#[source] io::Error),
}

/// Unpacks a whole tar stream into an empty directory.
pub(crate) fn unpack(root: OwnedFd, reader: impl BufRead, donors: Donors) -> Result<Contents, UnpackError> {
    let mut unpacker = Unpacker {
        donors,
        root: Rc::new(root),
        umask: umask(),
        parent: None,
        directories: Vec::new(),
        contents: Contents::default(),
        room_checked_at: 0,
    };
    let mut members = Members::new(reader);
    while let Some(member) = members.next()? {
        unpacker.contents.members += 1;
        unpacker.place(&member, &mut members)?;
    }
    members.drain()?;
    unpacker.finish()
}

/// The prefix of names that say what a layer removes (OCI image-spec, layer.md, "Whiteouts").
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name that says a directory hides what lower layers have in it.
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// overlayfs' mark of such a directory (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
/// directories"). In a user namespace it keeps its attributes among the user's.
pub(crate) fn opaque_xattr() -> &'static str {
    if rootless::is_inside() { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// What every attribute of overlayfs' own begins with (overlayfs.rst).
pub(crate) fn overlay_xattrs() -> &'static [u8] {
    if rootless::is_inside() { b"user.overlay." } else { b"trusted.overlay." }
}

/// Whether a file's extended attribute belongs to a layer. The others are the machine's business, or would tell
/// overlayfs to look elsewhere.
pub(crate) fn is_layer_xattr(name: &[u8]) -> bool {
    name == CAPABILITY
        || (name.starts_with(b"user.") && !name.starts_with(overlay_xattrs()))
        || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// The attribute that gives a program capabilities (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";

struct Unpacker {
    root: Rc<OwnedFd>,
    donors: Donors,
    umask: u32,
    /// The directory of the last member, because the next one is most often there too.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories get their attributes last: children change times, and a setgid directory would pass its group
    /// on to them.
    directories: Vec<Directory>,
    contents: Contents,
    /// The sum of bytes and members at which the file system's free room was looked at last.
    room_checked_at: u64,
}

struct Directory {
    path: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    time: Option<Timespec>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What stays free, so that an archive that unpacks without end stops before the machine does.
const ROOM_KEPT: u64 = 64 << 20;

/// Bytes after which the free room is looked at again; a member counts as 4 KiB.
const ROOM_STEP: u64 = 32 << 20;

/// Symbolic links followed on the way to one parent (path_resolution(7): 40).
const MOST_LINKS: u32 = 40;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

// === impl Unpacker ===

impl Unpacker {
    fn place<R: BufRead>(&mut self, member: &Member, members: &mut Members<R>) -> Result<(), UnpackError> {
        self.check_room()?;
        let path = clean(&member.path)?;
        let (parent, name) = split(&path);
        if name.is_empty() {
            if member.kind == EntryType::Directory {
                self.directories.push(Directory::of(member, path));
            }
            return Ok(());
        }
        if name.starts_with(WHITEOUT_PREFIX) {
            return self.hide(parent, name);
        }
        match member.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&path, member, members)
            }
            EntryType::Directory => self.directory(&path, member),
            EntryType::Symlink => self.symlink(&path, member),
            EntryType::Link => self.hard_link(&path, member),
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.node(&path, member),
            // A volume's label.
            other if other.as_byte() == b'V' => Ok(()),
            _ => Err(refused(&path, "a member of a kind that layers do not have")),
        }
    }

    /// `.wh.name` and `.wh..wh..opq`. They hide what lower layers have and nothing of this one.
    fn hide(&mut self, parent_path: &[u8], marker: &[u8]) -> Result<(), UnpackError> {
        let parent = self.parent(parent_path)?;
        if marker == OPAQUE_NAME {
            return rustix::fs::fsetxattr(&parent, opaque_xattr(), b"y", rustix::fs::XattrFlags::empty())
                .map_err(step("mark as opaque", parent_path));
        }
        let name = &marker[WHITEOUT_PREFIX.len()..];
        if name.starts_with(WHITEOUT_PREFIX) {
            // What AUFS kept for itself.
            return Ok(());
        }
        if matches!(name, b"" | b"." | b"..") {
            return Err(refused(&join(parent_path, marker), "a whiteout of no name"));
        }
        match rustix::fs::mknodat(&*parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {
                let existing = rustix::fs::statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(step("look at", marker))?;
                if FileType::from_raw_mode(existing.st_mode) == FileType::Directory {
                    let directory = rustix::fs::openat(&*parent, name, DIRECTORY, Mode::empty())
                        .map_err(step("open", marker))?;
                    make_opaque(&directory).map_err(step("mark as opaque", marker))?;
                }
                Ok(())
            }
            other => other.map_err(step("make the whiteout", marker)),
        }
    }

    fn file<R: BufRead>(
        &mut self,
        path: &[u8],
        member: &Member,
        members: &mut Members<R>,
    ) -> Result<(), UnpackError> {
        let (parent_path, name) = split(path);
        let parent = self.parent(parent_path)?;
        let donor = self.donors.open(path, member);
        if let Some(donor) = &donor
            && self.link_to(donor, &parent, path, member)?
        {
            self.contents.size += member.size;
            self.contents.shared += member.size;
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(member.mode & 0o777);
        let file = match rustix::fs::openat(&*parent, name, flags, mode) {
            Err(Errno::EXIST) => {
                self.clear(&parent, path)?;
                rustix::fs::openat(&*parent, name, flags, mode)
            }
            other => other,
        }
        .map_err(step("create", path))?;
        match &member.sparse {
            None if donor.is_some_and(|donor| self.donors.clone_to(&donor, &file)) => {}
            None => self.piece(&file, path, member.size, members)?,
            Some(sparse) => {
                for (offset, length) in &sparse.pieces {
                    seek(&file, *offset).map_err(step("write", path))?;
                    self.piece(&file, path, *length, members)?;
                }
                rustix::fs::ftruncate(&file, sparse.size).map_err(step("size", path))?;
            }
        }
        self.contents.size += member.size;
        // The owner first: changing it takes setuid bits and capabilities away (chown(2)).
        if (member.uid, member.gid) != (0, 0) {
            rustix::fs::fchown(&file, Some(uid(member.uid)), Some(gid(member.gid)))
                .map_err(step("set the owner of", path))?;
        }
        if member.mode & (0o7000 | self.umask) != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(member.mode))
                .map_err(step("set the mode of", path))?;
        }
        set_xattrs(&file, &member.xattrs).map_err(step("set an attribute of", path))?;
        rustix::fs::futimens(&file, &times(member)).map_err(step("set the time of", path))
    }

    /// Lets a file of another layer be one of this layer too, if nothing tells the two apart.
    fn link_to(
        &mut self,
        donor: &Donor,
        parent: &OwnedFd,
        path: &[u8],
        member: &Member,
    ) -> Result<bool, UnpackError> {
        if !donor.may_share || !donor.is_like(member) || !self.donors.take(donor) {
            return Ok(false);
        }
        let (_, name) = split(path);
        let link = || rustix::fs::linkat(&*donor.layer, path, parent, name, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST) => {
                self.clear(parent, path)?;
                link()
            }
            other => other,
        };
        // Where there are as many links as the file system takes, or it takes none, the file is written.
        Ok(linked.is_ok())
    }

    fn piece<R: BufRead>(
        &mut self,
        file: &OwnedFd,
        path: &[u8],
        mut length: u64,
        members: &mut Members<R>,
    ) -> Result<(), UnpackError> {
        while length > 0 {
            let bytes = members.content()?;
            let most = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            if most == 0 {
                return Err(MemberError::Truncated.into());
            }
            write_all(file, &bytes[..most]).map_err(step("write", path))?;
            members.consume(most);
            length -= most as u64;
            self.room_checked_at += most as u64;
            self.check_room()?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &[u8], member: &Member) -> Result<(), UnpackError> {
        let (parent_path, name) = split(path);
        let parent = self.parent(parent_path)?;
        self.make_directory(&parent, path, name)?;
        self.directories.push(Directory::of(member, path.to_vec()));
        Ok(())
    }

    fn symlink(&mut self, path: &[u8], member: &Member) -> Result<(), UnpackError> {
        let (parent_path, name) = split(path);
        let parent = self.parent(parent_path)?;
        let link = member.link.as_slice();
        match rustix::fs::symlinkat(link, &*parent, name) {
            Err(Errno::EXIST) => {
                self.clear(&parent, path)?;
                rustix::fs::symlinkat(link, &*parent, name)
            }
            other => other,
        }
        .map_err(step("make the link", path))?;
        self.dress(&parent, path, member, false)
    }

    fn hard_link(&mut self, path: &[u8], member: &Member) -> Result<(), UnpackError> {
        let target = clean(&member.link)?;
        let (target_parent, target_name) = split(&target);
        let no_target = || refused(path, "a hard link to what this layer does not have");
        let from = self.existing_parent(target_parent).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => no_target(),
            other => step("find the target of the link", path)(other),
        })?;
        let (parent_path, name) = split(path);
        let parent = self.parent(parent_path)?;
        let link = || rustix::fs::linkat(&*from, target_name, &*parent, name, AtFlags::empty());
        let result = match link() {
            Err(Errno::EXIST) => {
                let stat = |directory: &OwnedFd, name| {
                    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map(|found| (found.st_dev, found.st_ino))
                };
                // Clearing the way for a link to itself would lose the file.
                if stat(&from, target_name).ok() == stat(&parent, name).ok() {
                    return Ok(());
                }
                self.clear(&parent, path)?;
                link()
            }
            other => other,
        };
        match result {
            Err(Errno::NOENT) => Err(no_target()),
            Err(Errno::PERM) => Err(refused(path, "a hard link to a directory")),
            other => other.map_err(step("link", path)),
        }
    }

    fn node(&mut self, path: &[u8], member: &Member) -> Result<(), UnpackError> {
        let (parent_path, name) = split(path);
        let parent = self.parent(parent_path)?;
        let kind = match member.kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let (major, minor) = member.device;
        let device = rustix::fs::makedev(major, minor);
        let make =
            || rustix::fs::mknodat(&*parent, name, kind, Mode::from_raw_mode(member.mode & 0o777), device);
        let made = match make() {
            Err(Errno::EXIST) => {
                self.clear(&parent, path)?;
                make()
            }
            other => other,
        };
        match made {
            // No device may be made in a user namespace (mknod(2)); containers there are shown the host's.
            Err(Errno::PERM) if rootless::is_inside() && kind != FileType::Fifo => return Ok(()),
            other => other.map_err(step("make the node", path))?,
        }
        self.dress(&parent, path, member, true)
    }

    /// Owner, mode and time of what cannot be opened without consequences.
    fn dress(
        &self,
        parent: &OwnedFd,
        path: &[u8],
        member: &Member,
        with_mode: bool,
    ) -> Result<(), UnpackError> {
        let (_, name) = split(path);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if (member.uid, member.gid) != (0, 0) {
            rustix::fs::chownat(parent, name, Some(uid(member.uid)), Some(gid(member.gid)), flags)
                .map_err(step("set the owner of", path))?;
        }
        if with_mode && member.mode & (0o7000 | self.umask) != 0 {
            // It was made a moment ago in a directory nobody else reaches, and is no symbolic link.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(member.mode), AtFlags::empty())
                .map_err(step("set the mode of", path))?;
        }
        rustix::fs::utimensat(parent, name, &times(member), flags).map_err(step("set the time of", path))
    }

    /// Sets the directories' own attributes now that nothing is added to them any more.
    fn finish(mut self) -> Result<Contents, UnpackError> {
        let flags = DIRECTORY;
        for directory in std::mem::take(&mut self.directories) {
            let path = &directory.path;
            let handle = match open_in_root(&self.root, path, flags) {
                Ok(handle) => handle,
                // A later member took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(step("open", path)(error)),
            };
            if directory.owner != (0, 0) || path.is_empty() {
                let (owner, group) = directory.owner;
                rustix::fs::fchown(&handle, Some(uid(owner)), Some(gid(group)))
                    .map_err(step("set the owner of", path))?;
            }
            rustix::fs::fchmod(&handle, Mode::from_raw_mode(directory.mode))
                .map_err(step("set the mode of", path))?;
            set_xattrs(&handle, &directory.xattrs).map_err(step("set an attribute of", path))?;
            if let Some(time) = directory.time {
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::futimens(&handle, &times).map_err(step("set the time of", path))?;
            }
        }
        Ok(self.contents)
    }

    /// Opens the directory a member goes into, making what is missing of it.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        if let Some((cached, handle)) = &self.parent
            && cached == path
        {
            return Ok(handle.clone());
        }
        let handle = match self.existing_parent(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path)?,
            other => other.map_err(step("open the directory", path))?,
        };
        self.parent = Some((path.to_vec(), handle.clone()));
        Ok(handle)
    }

    fn existing_parent(&self, path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        // Symbolic links of this layer are followed on the way, inside the layer, as in a container.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open_in_root(&self.root, path, flags).map(Rc::new)
    }

    /// Walks to a directory component by component, making what is missing and following links within the layer.
    fn make_parents(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        let mut todo: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut trail: Vec<(Vec<u8>, Rc<OwnedFd>)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                trail.pop();
                continue;
            }
            let here = trail.last().map_or_else(|| self.root.clone(), |(_, handle)| handle.clone());
            let so_far = trail.last().map_or(&b""[..], |(path, _)| path);
            let full = join(so_far, &name);
            match rustix::fs::openat(&*here, name.as_slice(), DIRECTORY, Mode::empty()) {
                Ok(handle) => trail.push((full, Rc::new(handle))),
                Err(Errno::NOENT) => {
                    let handle = self.make_directory(&here, &full, &name)?;
                    self.directories.push(Directory::implied(full.clone()));
                    trail.push((full, Rc::new(handle)));
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let Ok(target) = rustix::fs::readlinkat(&*here, name.as_slice(), Vec::new()) else {
                        // A whiteout gives way to a directory; anything else is in the way.
                        let handle = self.make_directory(&here, &full, &name)?;
                        self.directories.push(Directory::implied(full.clone()));
                        trail.push((full, Rc::new(handle)));
                        continue;
                    };
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(step("open the directory", path)(Errno::LOOP));
                    }
                    let target = target.as_bytes();
                    if target.starts_with(b"/") {
                        trail.clear();
                    }
                    let parts = target.split(|byte| *byte == b'/').rev();
                    todo.extend(parts.filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec));
                }
                Err(error) => return Err(step("open the directory", &full)(error)),
            }
        }
        Ok(trail.pop().map_or_else(|| self.root.clone(), |(_, handle)| handle))
    }

    /// Makes a directory, or keeps the one that is there. One in the place of a whiteout hides what lower layers
    /// have in it.
    fn make_directory(&mut self, parent: &OwnedFd, path: &[u8], name: &[u8]) -> Result<OwnedFd, UnpackError> {
        let make = || rustix::fs::mkdirat(parent, name, Mode::RWXU);
        let open = || rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
        match make() {
            Ok(()) => return open().map_err(step("open", path)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(step("make the directory", path)(error)),
        }
        let existing =
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(step("look at", path))?;
        if FileType::from_raw_mode(existing.st_mode) == FileType::Directory {
            return open().map_err(step("open", path));
        }
        self.clear(parent, path)?;
        make().map_err(step("make the directory", path))?;
        let directory = open().map_err(step("open", path))?;
        if is_whiteout(&existing) {
            make_opaque(&directory).map_err(step("mark as opaque", path))?;
        }
        Ok(directory)
    }

    /// Removes what a later member of the same name replaces.
    fn clear(&mut self, parent: &OwnedFd, path: &[u8]) -> Result<(), UnpackError> {
        // The directory known for the next member may be on the way to what goes.
        self.parent = None;
        remove_all(parent, split(path).1).map_err(step("replace", path))
    }

    fn check_room(&mut self) -> Result<(), UnpackError> {
        self.room_checked_at += 4096;
        if self.room_checked_at < ROOM_STEP {
            return Ok(());
        }
        self.room_checked_at = 0;
        let left =
            rustix::fs::fstatvfs(&*self.root).map_err(step("look at the room left for", b"the layer"))?;
        let full = left.f_bavail.saturating_mul(left.f_frsize) < ROOM_KEPT;
        // File systems without a fixed number of inodes report none at all.
        let no_inodes = left.f_files > 0 && left.f_favail < 1024;
        if full || no_inodes { Err(UnpackError::Full(io::ErrorKind::StorageFull.into())) } else { Ok(()) }
    }
}

// === impl Directory ===

impl Directory {
    fn of(member: &Member, path: Vec<u8>) -> Self {
        let time = Timespec { tv_sec: member.seconds, tv_nsec: member.nanoseconds.into() };
        Self {
            path,
            mode: member.mode,
            owner: (member.uid, member.gid),
            time: Some(time),
            xattrs: member.xattrs.clone(),
        }
    }

    /// A directory that only a path mentions.
    fn implied(path: Vec<u8>) -> Self {
        Self { path, mode: 0o755, owner: (0, 0), time: None, xattrs: Vec::new() }
    }
}

/// Removes a file, or a directory with all that is in it, without following anything.
pub(crate) fn remove_all(parent: &impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    for child in names(&directory)? {
        remove_all(&directory, &child)?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether this is overlayfs' mark of a removed name.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// A directory and a name in it.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// The path without empty and `.` components and without a leading slash: everything is relative to the layer.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    if path.contains(&0) {
        return Err(refused(path, "the name has a zero byte"));
    }
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused(path, "the name leads out of the layer")),
            _ => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok(clean)
}

/// A path's directory and last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn open_in_root(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename elsewhere made `..` uncertain (openat2(2), EAGAIN), or a signal came.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn make_opaque(directory: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(directory, opaque_xattr(), b"y", rustix::fs::XattrFlags::empty())
}

fn set_xattrs(file: &OwnedFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
    xattrs.iter().filter(|(name, _)| is_layer_xattr(name)).try_for_each(|(name, value)| {
        match rustix::fs::fsetxattr(file, name.as_slice(), value, rustix::fs::XattrFlags::empty()) {
            // A file system without access lists is none without permissions, but a program without its capabilities
            // is another one.
            Err(Errno::NOTSUP) if name != CAPABILITY => Ok(()),
            other => other,
        }
    })
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn seek(file: &OwnedFd, offset: u64) -> Result<u64, Errno> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(offset))
}

fn times(member: &Member) -> Timestamps {
    let time = Timespec { tv_sec: member.seconds, tv_nsec: member.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn uid(number: u32) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(number)
}

fn gid(number: u32) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(number)
}

/// The process's umask, which can only be read by changing it or from here. Unknown counts as "everything", which
/// costs a chmod(2) a file.
fn umask() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o777)
}

fn refused(path: &[u8], reason: &'static str) -> UnpackError {
    UnpackError::Refused { path: String::from_utf8_lossy(path).into_owned(), reason }
}

fn step(step: &'static str, path: &[u8]) -> impl Fn(Errno) -> UnpackError {
    move |error| UnpackError::Step {
        step,
        path: String::from_utf8_lossy(path).into_owned(),
        source: error.into(),
    }
}
