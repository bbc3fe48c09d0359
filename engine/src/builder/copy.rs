//! Writes files into a layer that nobody has mounted: the upper directory is filled as overlayfs would have
//! filled it, and links of the layers below lead where they would lead inside the container.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::context::Selected;
use super::digests::{Stamp, open_regular};
use super::predecessor::Predecessor;
use super::stack::{Entry, Stack};
use crate::layer::pack::Known;
use crate::layer::unpack::opaque_xattr;

/// Who files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Owner {
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
}

/// What `--chmod` does to a mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// Sets it.
    To(u32),
    /// Changes it, clause by clause.
    Symbolic(Vec<Clause>),
}

/// One clause of a symbolic mode: `u+rwX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    letters: String,
}

/// What happens to files on their way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// The new owner of everything copied.
    pub(crate) owner: Option<Owner>,
    /// The change of every mode.
    pub(crate) chmod: Option<Chmod>,
    /// Whether files keep their owners when there is no new one.
    pub(crate) keep_owners: bool,
    /// Whether a file may take the place of a directory, as tar has it.
    pub(crate) replace_directories: bool,
}

/// A layer being written on top of others.
pub(crate) struct Writer<'a> {
    upper: PathBuf,
    stack: Stack,
    changes: Changes,
    now: Timespec,
    /// The times that directories have in the end, whatever is written into them until then.
    times: BTreeMap<PathBuf, Timespec>,
    /// Directories made here where lower layers show nothing: what is in them is in this layer alone.
    fresh: HashSet<PathBuf>,
    /// Whether every file was, when it was copied, as it was when it was looked at.
    steady: bool,
    /// The layer that files which are still the same are linked from.
    predecessor: Option<Predecessor<'a>>,
}

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Whether all files were, when they were copied, as they were when they were looked at.
    pub(crate) is_steady: bool,
    /// The digests of contents that are known.
    pub(crate) known: Known,
}

/// What a file in an archive or a text in a Dockerfile becomes.
pub(crate) struct Meta {
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) owner: Owner,
    /// Modification time.
    pub(crate) mtime: Timespec,
}

// === impl Writer ===

impl<'a> Writer<'a> {
    /// Starts a layer in an empty directory on top of these.
    pub(crate) fn new(upper: &Path, lower: &Stack, changes: Changes, now: Timespec) -> io::Result<Self> {
        let mut writer = Self {
            upper: upper.to_owned(),
            stack: lower.below(upper),
            changes,
            now,
            times: BTreeMap::new(),
            fresh: HashSet::new(),
            steady: true,
            predecessor: None,
        };
        let metadata = lower.root()?.map(|root| root.metadata);
        let meta = metadata.as_ref().map_or_else(|| writer.plain(0o755), Meta::of);
        writer.settle_directory(Path::new(""), &meta)?;
        Ok(writer)
    }

    /// Lets files that are still the same be those of the layer that was made the last time.
    pub(crate) fn follow(&mut self, predecessor: Option<Predecessor<'a>>) {
        self.predecessor = predecessor;
    }

    /// Copies one source to the destination. `into` says that the destination was written as a directory.
    pub(crate) fn copy(&mut self, source: &Selected, destination: &Path, into: bool) -> io::Result<()> {
        let mut destination = destination.to_owned();
        if let Some(kept) = &source.kept_path {
            let below = if source.entry.metadata.is_dir() { Some(kept.as_path()) } else { kept.parent() };
            destination.extend(below);
        }
        let into = into || source.kept_path.is_some();
        if source.entry.metadata.is_dir() {
            return self.copy_directory(source, &destination);
        }
        let mut target = self.stack.resolve(&destination, true)?;
        if into && target.entry.is_none() {
            self.make_directories(&destination)?;
            target = self.stack.resolve(&destination, true)?;
        }
        let mut path = target.path;
        if target.entry.is_some_and(|entry| entry.metadata.is_dir()) {
            path.extend(source.name.as_ref());
        }
        self.make_directories(path.parent().unwrap_or(Path::new("")))?;
        self.place(&path, &source.entry, &mut HashMap::new())
    }

    /// Writes a text to the destination, as a file of this name if that is a directory.
    pub(crate) fn write_text(
        &mut self,
        name: &str,
        text: &[u8],
        destination: &Path,
        into: bool,
    ) -> io::Result<()> {
        if into {
            self.make_directories(destination)?;
        }
        let target = self.stack.resolve(destination, true)?;
        let mut path = target.path;
        if target.entry.is_some_and(|entry| entry.metadata.is_dir()) {
            path.push(name);
        }
        self.make_directories(path.parent().unwrap_or(Path::new("")))?;
        let mut meta = self.plain(0o644);
        meta.mode = self.changed_mode(meta.mode, false);
        self.write_file(&path, &mut &text[..], &meta)
    }

    /// Makes a directory and its missing parents, following links. Returns where it really is.
    pub(crate) fn make_directories(&mut self, path: &Path) -> io::Result<PathBuf> {
        let found = self.stack.resolve(path, true)?;
        if let Some(entry) = &found.entry {
            if !entry.metadata.is_dir() {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    format!("cannot copy to non-directory: /{}", found.path.display()),
                ));
            }
            self.copy_up(&found.path)?;
            return Ok(found.path);
        }
        let mode = match self.changes.chmod {
            Some(Chmod::To(mode)) => mode,
            _ => 0o755,
        };
        let mut at = PathBuf::new();
        for name in &found.path {
            at.push(name);
            if self.entry(&at)?.is_some() {
                self.copy_up(&at)?;
                continue;
            }
            let meta = Meta { mode, ..self.plain(0o755) };
            self.new_directory(&at, &meta)?;
        }
        Ok(found.path)
    }

    /// Writes a regular file in the place of whatever is there but a directory.
    pub(crate) fn write_file(&mut self, path: &Path, content: &mut dyn Read, meta: &Meta) -> io::Result<()> {
        self.clear_for_file(path)?;
        let host = self.host(path);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&host)?;
        io::copy(content, &mut file)?;
        self.settle(path, meta, true)
    }

    /// Makes a symbolic link in the place of whatever is there but a directory.
    pub(crate) fn write_link(&mut self, path: &Path, target: &Path, meta: &Meta) -> io::Result<()> {
        self.clear_for_file(path)?;
        std::os::unix::fs::symlink(target, self.host(path))?;
        self.settle(path, meta, false)
    }

    /// Makes a further name for a file; both paths are without links.
    pub(crate) fn write_hardlink(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("/{}: not found", target.display()));
        let entry = self.entry(target)?.ok_or_else(missing)?;
        if entry.metadata.is_dir() {
            return Err(io::Error::other(format!(
                "/{} is a directory and cannot be linked",
                target.display()
            )));
        }
        if !entry.is_in(&self.upper) {
            // A link to a file of a lower layer needs that file here, as overlayfs would copy it up.
            self.copy_up(target.parent().unwrap_or(Path::new("")))?;
            let changes =
                std::mem::replace(&mut self.changes, Changes { keep_owners: true, ..Changes::default() });
            let copied = self.place(target, &entry, &mut HashMap::new());
            self.changes = changes;
            copied?;
        }
        self.clear_for_file(path)?;
        fs::hard_link(self.host(target), self.host(path))
    }

    /// Makes a device, a pipe or a socket.
    pub(crate) fn write_node(
        &mut self,
        path: &Path,
        kind: FileType,
        device: u64,
        meta: &Meta,
    ) -> io::Result<()> {
        self.clear_for_file(path)?;
        rustix::fs::mknodat(CWD, self.host(path), kind, Mode::from_raw_mode(0o600), device)?;
        self.settle(path, meta, true)
    }

    /// Makes a directory, or gives the one that is there these attributes. What is no directory is replaced.
    pub(crate) fn write_directory(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        match self.entry(path)? {
            Some(entry) if entry.metadata.is_dir() => {
                self.copy_up(path)?;
                self.settle_directory(path, meta)
            }
            Some(_) => {
                self.remove(path)?;
                self.new_directory(path, meta)
            }
            None => self.new_directory(path, meta),
        }
    }

    /// Takes a path away, whatever it is, so that something else can be put there.
    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let host = self.host(path);
        match fs::symlink_metadata(&host) {
            Ok(metadata) if metadata.is_dir() => {
                self.times.retain(|directory, _| !directory.starts_with(path));
                self.fresh.retain(|directory| !directory.starts_with(path));
                fs::remove_dir_all(host)
            }
            Ok(_) => fs::remove_file(host),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hides what lower layers have at a path, after whatever this one has there is gone.
    pub(crate) fn hide(&mut self, path: &Path) -> io::Result<()> {
        self.remove(path)?;
        if self.entry(path)?.is_none() {
            return Ok(());
        }
        self.copy_up(path.parent().unwrap_or(Path::new("")))?;
        Ok(rustix::fs::mknodat(
            CWD,
            self.host(path),
            FileType::CharacterDevice,
            Mode::empty(),
            rustix::fs::makedev(0, 0),
        )?)
    }

    /// Puts a directory of another layer on top of what is there: an opaque one hides it.
    pub(crate) fn lay_directory(&mut self, path: &Path, entry: &Entry, is_opaque: bool) -> io::Result<()> {
        let meta = Meta::of(&entry.metadata);
        let is_hidden = fs::symlink_metadata(self.host(path)).is_ok_and(|there| !there.is_dir());
        if path.as_os_str().is_empty() {
            self.settle_directory(path, &meta)?;
        } else if is_opaque || is_hidden {
            self.remove(path)?;
            self.new_directory(path, &meta)?;
        } else {
            self.write_directory(path, &meta)?;
        }
        copy_attributes(entry, &self.host(path))
    }

    /// Says whether a file may take the place of a directory from now on.
    pub(crate) fn replaces_directories(&mut self, yes: bool) {
        self.changes.replace_directories = yes;
    }

    /// Sets extended attributes of what was just written.
    pub(crate) fn set_attributes(&self, path: &Path, attributes: &[(String, Vec<u8>)]) -> io::Result<()> {
        for (name, value) in attributes {
            rustix::fs::lsetxattr(self.host(path), name.as_str(), value, XattrFlags::empty())?;
        }
        Ok(())
    }

    /// Where a path leads on top of all layers.
    pub(crate) fn resolve(&self, path: &Path, follow: bool) -> io::Result<super::stack::Found> {
        self.stack.resolve(path, follow)
    }

    /// Gives directories their times.
    pub(crate) fn finish(self) -> io::Result<Written> {
        // Children first: setting a time needs no other time, but reads better in a trace.
        for (path, mtime) in self.times.iter().rev() {
            set_mtime(&self.host(path), *mtime)?;
        }
        let known = self.predecessor.map(Predecessor::taken).unwrap_or_default();
        Ok(Written { is_steady: self.steady, known })
    }

    fn copy_directory(&mut self, source: &Selected, destination: &Path) -> io::Result<()> {
        let path = self.make_directories(destination)?;
        let mtime = mtime_of(&source.entry.metadata);
        self.times.insert(path.clone(), mtime);
        let mut links = HashMap::new();
        for node in &source.nodes {
            let target = path.join(&node.path);
            if !node.entry.metadata.is_dir() {
                self.place(&target, &node.entry, &mut links)?;
                continue;
            }
            let mut meta = self.meta(&node.entry.metadata);
            meta.mode = self.changed_mode(meta.mode, true);
            match self.entry(&target)? {
                Some(entry) if !entry.metadata.is_dir() => {
                    return Err(io::Error::new(
                        io::ErrorKind::NotADirectory,
                        format!("cannot copy to non-directory: /{}", target.display()),
                    ));
                }
                Some(_) => {
                    self.copy_up(&target)?;
                    self.settle_directory(&target, &meta)?;
                }
                None => self.new_directory(&target, &meta)?,
            }
            copy_attributes(&node.entry, &self.host(&target))?;
        }
        Ok(())
    }

    /// Copies a file, link, pipe or device to exactly this path. Hardlinks within one source stay hardlinks.
    pub(crate) fn place(
        &mut self,
        path: &Path,
        entry: &Entry,
        links: &mut HashMap<(u64, u64), PathBuf>,
    ) -> io::Result<()> {
        let metadata = &entry.metadata;
        let kind = metadata.file_type();
        let identity = (metadata.dev(), metadata.ino());
        if kind.is_file()
            && metadata.nlink() > 1
            && let Some(first) = links.get(&identity)
        {
            let first = first.clone();
            self.clear_for_file(path)?;
            return fs::hard_link(self.host(&first), self.host(path));
        }
        let mut meta = self.meta(metadata);
        if kind.is_symlink() {
            return self.write_link(path, &fs::read_link(&entry.host)?, &meta);
        }
        meta.mode = self.changed_mode(meta.mode, false);
        if kind.is_file() {
            self.copy_file(path, entry, &meta)?;
            if metadata.nlink() > 1 {
                links.insert(identity, path.to_owned());
            }
            return Ok(());
        }
        if kind.is_socket() {
            return self.write_file(path, &mut io::empty(), &meta);
        }
        let kind = match kind {
            kind if kind.is_fifo() => FileType::Fifo,
            kind if kind.is_char_device() => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        self.write_node(path, kind, metadata.rdev(), &meta)
    }

    fn copy_file(&mut self, path: &Path, entry: &Entry, meta: &Meta) -> io::Result<()> {
        if self.inherit(path, entry, meta)? {
            return Ok(());
        }
        let mut from = open_regular(&entry.host)?;
        self.clear_for_file(path)?;
        let mut to = File::options().write(true).create_new(true).mode(0o600).open(self.host(path))?;
        if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
            io::copy(&mut from, &mut to)?;
        }
        // A file of a layer never changes; its change time does, with every layer that shares it from then on.
        let is_of_layer = self.changes.keep_owners;
        self.steady &= is_of_layer || Stamp::of(&from.metadata()?) == Stamp::of(&entry.metadata);
        self.settle(path, meta, true)?;
        copy_attributes(entry, &self.host(path))
    }

    /// Takes the file over that the last layer had here, if it is the same.
    fn inherit(&mut self, path: &Path, entry: &Entry, meta: &Meta) -> io::Result<bool> {
        if self.predecessor.is_none() {
            return Ok(false);
        }
        // In a directory that was made here there is hardly ever anything in the way.
        if !self.is_in_fresh(path) {
            self.clear_for_file(path)?;
        }
        for is_last in [false, true] {
            let Some(predecessor) = &mut self.predecessor else { break };
            match predecessor.link(path, entry, meta, &self.upper) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !is_last => {
                    self.clear_for_file(path)?;
                }
                other => return other,
            }
        }
        Ok(false)
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        if self.is_in_fresh(path) {
            return Entry::alone(self.host(path));
        }
        // The path has no links but perhaps the last part, and that one is meant itself.
        Ok(self.stack.resolve(path, false)?.entry)
    }

    fn host(&self, path: &Path) -> PathBuf {
        self.upper.join(path)
    }

    /// Makes room for something that is no directory: its parents are here, and nothing is at its place.
    fn clear_for_file(&mut self, path: &Path) -> io::Result<()> {
        if let Some(entry) = self.entry(path)?
            && entry.metadata.is_dir()
            && !self.changes.replace_directories
        {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                format!("cannot replace directory /{} with a file", path.display()),
            ));
        }
        self.copy_up(path.parent().unwrap_or(Path::new("")))?;
        self.remove(path)
    }

    /// Makes an existing directory, and those above it, part of this layer with the attributes they have.
    fn copy_up(&mut self, path: &Path) -> io::Result<()> {
        if self.fresh.contains(path) {
            return Ok(());
        }
        let mut at = PathBuf::new();
        for name in path {
            at.push(name);
            let Some(entry) = self.entry(&at)? else { continue };
            if entry.is_in(&self.upper) {
                continue;
            }
            DirBuilder::new().mode(0o700).create(self.host(&at))?;
            self.settle_directory(&at, &Meta::of(&entry.metadata))?;
            copy_attributes(&entry, &self.host(&at))?;
        }
        Ok(())
    }

    /// Makes a directory where there is none. One that a file of this layer has hidden until now must not show
    /// what lower layers have there.
    fn new_directory(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        self.copy_up(path.parent().unwrap_or(Path::new("")))?;
        let host = self.host(path);
        DirBuilder::new().mode(0o700).create(&host)?;
        if !self.is_in_fresh(path) && self.shows_lower(path)? {
            rustix::fs::lsetxattr(&host, opaque_xattr(), b"y", XattrFlags::empty())?;
        }
        self.fresh.insert(path.to_owned());
        self.settle_directory(path, meta)
    }

    fn is_in_fresh(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.fresh.contains(parent))
    }

    fn shows_lower(&self, path: &Path) -> io::Result<bool> {
        Ok(self.entry(path)?.is_some_and(|entry| entry.metadata.is_dir() && entry.single().is_none()))
    }

    fn settle_directory(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        self.settle(path, meta, true)?;
        self.times.insert(path.to_owned(), meta.mtime);
        Ok(())
    }

    fn settle(&self, path: &Path, meta: &Meta, has_mode: bool) -> io::Result<()> {
        let host = self.host(path);
        let owner = (Uid::from_raw(meta.owner.uid), Gid::from_raw(meta.owner.gid));
        rustix::fs::chownat(CWD, &host, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        if has_mode {
            // After the owner: changing that one takes setuid bits away.
            fs::set_permissions(&host, fs::Permissions::from_mode(meta.mode & 0o7777))?;
        }
        set_mtime(&host, meta.mtime)
    }

    fn plain(&self, mode: u32) -> Meta {
        Meta { mode, owner: self.changes.owner.unwrap_or_default(), mtime: self.now }
    }

    fn meta(&self, metadata: &Metadata) -> Meta {
        let meta = Meta::of(metadata);
        let kept = if self.changes.keep_owners { meta.owner } else { Owner::default() };
        Meta { owner: self.changes.owner.unwrap_or(kept), ..meta }
    }

    fn changed_mode(&self, mode: u32, is_dir: bool) -> u32 {
        self.changes.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, is_dir))
    }
}

// === impl Meta ===

impl Meta {
    fn of(metadata: &Metadata) -> Self {
        Self {
            mode: metadata.mode() & 0o7777,
            owner: Owner { uid: metadata.uid(), gid: metadata.gid() },
            mtime: mtime_of(metadata),
        }
    }
}

// === impl Chmod ===

impl Chmod {
    /// Reads an octal mode or a symbolic one such as `u=rwX,go=rX`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("invalid mode {text:?}: octal up to 7777 or symbolic as in u=rwX,go=rX is needed");
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::To(mode)),
                _ => Err(wrong()),
            };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let end = part.find(['+', '-', '=']).ok_or_else(wrong)?;
            let mut who = 0;
            for letter in part[..end].chars() {
                who |= match letter {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return Err(wrong()),
                };
            }
            let mut rest = &part[end..];
            while let Some(operator) = rest.chars().next() {
                let next = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
                let letters = &rest[1..next];
                if !letters.chars().all(|letter| "rwxXstugo".contains(letter)) {
                    return Err(wrong());
                }
                let who = if who == 0 { 0o7777 } else { who };
                clauses.push(Clause { who, operator, letters: letters.to_owned() });
                rest = &rest[next..];
            }
        }
        Ok(Self::Symbolic(clauses))
    }

    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::To(mode) => *mode,
            Self::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let spread = |bits: u32| bits << 6 | bits << 3 | bits;
        let bits = self.letters.chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => spread(mode >> 6 & 7),
                'g' => spread(mode >> 3 & 7),
                'o' => spread(mode & 7),
                _ => 0,
            }
        }) & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            // A directory keeps its set-id bits unless they are named, as chmod(1) has it.
            _ if is_dir => mode & !(self.who & 0o1777) | bits,
            _ => mode & !self.who | bits,
        }
    }
}

/// A file's modification time.
pub(crate) fn mtime_of(metadata: &Metadata) -> Timespec {
    Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() }
}

fn set_mtime(path: &Path, mtime: Timespec) -> io::Result<()> {
    let times = Timestamps { last_access: mtime, last_modification: mtime };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_attributes(from: &Entry, to: &Path) -> io::Result<()> {
    for (name, value) in from.attributes()? {
        match rustix::fs::lsetxattr(to, name.as_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::context::Tree;
    use crate::builder::ignore::Ignore;

    #[test]
    fn a_file_that_another_layer_shares_meanwhile_is_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let (source, upper, elsewhere) =
            (temp.path().join("layer"), temp.path().join("upper"), temp.path().join("elsewhere"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "content").unwrap();
        let time = Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_steady = |keeps_owners: bool| {
            let tree =
                Tree { stack: Stack::of(vec![source.clone()]), ignore: Ignore::default(), keeps_owners };
            let selected = tree.select("file", &Ignore::default(), false).unwrap();
            // A further name moves the change time as soon as the kernel's clock has moved on.
            let before = Stamp::of(&selected[0].entry.metadata);
            while Stamp::of(&fs::metadata(source.join("file")).unwrap()) == before {
                fs::hard_link(source.join("file"), &elsewhere).unwrap();
                fs::remove_file(&elsewhere).unwrap();
            }
            fs::create_dir(&upper).unwrap();
            let changes = Changes { keep_owners: tree.keeps_owners, ..Changes::default() };
            let mut writer = Writer::new(&upper, &Stack::of(vec![]), changes, time).unwrap();
            writer.copy(&selected[0], Path::new("file"), false).unwrap();
            let written = writer.finish().unwrap();
            fs::remove_dir_all(&upper).unwrap();
            written.is_steady
        };
        assert!(is_steady(true));
        assert!(!is_steady(false));
    }
}
