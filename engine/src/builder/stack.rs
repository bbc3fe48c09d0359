//! Directories stacked as overlayfs stacks them, read without mounting: which file a path means, with symbolic
//! links resolved inside the stack and never outside of it.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::context::attributes;
use crate::layer::unpack::opaque_xattr;

/// Directories, topmost first. Whiteouts and opaque directories of an upper one hide what is in lower ones.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    dirs: Vec<PathBuf>,
}

/// A file, directory or link somewhere in the stack.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its uppermost place on the host.
    pub(crate) host: PathBuf,
    /// What is known about it; of a link, about the link.
    pub(crate) metadata: Metadata,
    /// A directory's parts, topmost first.
    parts: Vec<PathBuf>,
    /// Its attributes that a layer keeps, once they were read.
    attributes: OnceLock<Vec<(String, Vec<u8>)>>,
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The path without links, relative to the stack's root; empty for the root itself.
    pub(crate) path: PathBuf,
    /// What is there, if anything.
    pub(crate) entry: Option<Entry>,
}

/// How many links one path may lead through, as in the kernel.
const LINK_LIMIT: usize = 40;

// === impl Stack ===

impl Stack {
    /// These directories, topmost first.
    pub(crate) fn of(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// The same with a directory on top.
    pub(crate) fn below(&self, top: &Path) -> Self {
        Self { dirs: std::iter::once(top.to_owned()).chain(self.dirs.iter().cloned()).collect() }
    }

    /// The root directory; `None` in an empty stack.
    pub(crate) fn root(&self) -> io::Result<Option<Entry>> {
        let Some(top) = self.dirs.first() else { return Ok(None) };
        Ok(Some(Entry::new(top.clone(), fs::symlink_metadata(top)?, self.dirs.clone())))
    }

    /// Where a path leads. `..` stops at the root. A link in the last place is followed if `follow` says so.
    /// Parts after a missing one are taken as written.
    pub(crate) fn resolve(&self, path: &Path, follow: bool) -> io::Result<Found> {
        let mut todo: VecDeque<OsString> = VecDeque::new();
        push_front(&mut todo, path);
        let Some(root) = self.root()? else {
            let mut done = PathBuf::new();
            todo.iter().for_each(|name| step(&mut done, name));
            return Ok(Found { path: done, entry: None });
        };
        let mut trail: Vec<Entry> = vec![root];
        let mut names: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                if !names.is_empty() {
                    names.pop();
                    trail.pop();
                }
                continue;
            }
            let Some(parent) = trail.last() else { break };
            let Some(entry) = parent.child(&name)? else {
                let mut done: PathBuf = names.iter().collect();
                step(&mut done, &name);
                todo.iter().for_each(|name| step(&mut done, name));
                return Ok(Found { path: done, entry: None });
            };
            if entry.metadata.is_symlink() && (follow || !todo.is_empty()) {
                links += 1;
                if links > LINK_LIMIT {
                    return Err(io::Error::other(format!(
                        "too many levels of symbolic links in {}",
                        path.display()
                    )));
                }
                let target = fs::read_link(&entry.host)?;
                if target.is_absolute() {
                    names.clear();
                    trail.truncate(1);
                }
                push_front(&mut todo, &target);
                continue;
            }
            if !entry.metadata.is_dir() && !todo.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    format!("{} is not a directory", path.display()),
                ));
            }
            names.push(name);
            trail.push(entry);
        }
        Ok(Found { path: names.iter().collect(), entry: trail.pop() })
    }

    /// Reads a file inside the stack; `None` when it is missing or no regular file.
    pub(crate) fn read(&self, path: &str) -> io::Result<Option<String>> {
        match self.resolve(Path::new(path), true)?.entry {
            Some(entry) if entry.metadata.is_file() => {
                Ok(Some(String::from_utf8_lossy(&fs::read(entry.host)?).into_owned()))
            }
            _ => Ok(None),
        }
    }
}

// === impl Entry ===

impl Entry {
    fn new(host: PathBuf, metadata: Metadata, parts: Vec<PathBuf>) -> Self {
        Self { host, metadata, parts, attributes: OnceLock::new() }
    }

    /// The attributes that a layer keeps: capabilities of programs, and what users set.
    pub(crate) fn attributes(&self) -> io::Result<&[(String, Vec<u8>)]> {
        if let Some(known) = self.attributes.get() {
            return Ok(known);
        }
        let read = attributes(&self.host)?;
        Ok(self.attributes.get_or_init(|| read))
    }

    /// The entry of this name in a directory.
    pub(crate) fn child(&self, name: &OsStr) -> io::Result<Option<Entry>> {
        let mut found: Option<Entry> = None;
        for (at, part) in self.parts.iter().enumerate() {
            // Only what is below cares whether this one hides it.
            let is_last = at + 1 == self.parts.len();
            let host = part.join(name);
            let metadata = match fs::symlink_metadata(&host) {
                Ok(metadata) => metadata,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            if is_whiteout(&metadata) {
                break;
            }
            let is_dir = metadata.is_dir();
            match &mut found {
                None if !is_dir => return Ok(Some(Entry::new(host, metadata, Vec::new()))),
                None => {
                    let opaque = !is_last && is_opaque(&host);
                    found = Some(Entry::new(host.clone(), metadata, vec![host]));
                    if opaque {
                        break;
                    }
                }
                Some(_) if !is_dir => break,
                Some(entry) => {
                    let opaque = !is_last && is_opaque(&host);
                    entry.parts.push(host);
                    if opaque {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// What is at a path of the host where no other directory has a say; `None` when nothing is.
    pub(crate) fn alone(host: PathBuf) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(&host) {
            Ok(metadata) => {
                let parts = if metadata.is_dir() { vec![host.clone()] } else { Vec::new() };
                Ok(Some(Self::new(host, metadata, parts)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A directory's entries in the order of their names.
    pub(crate) fn children(&self) -> io::Result<Vec<(OsString, Entry)>> {
        let mut names: BTreeMap<OsString, ()> = BTreeMap::new();
        for part in &self.parts {
            for entry in fs::read_dir(part)? {
                names.entry(entry?.file_name()).or_default();
            }
        }
        let mut children = Vec::with_capacity(names.len());
        for (name, ()) in names {
            if let Some(entry) = self.child(&name)? {
                children.push((name, entry));
            }
        }
        Ok(children)
    }

    /// Whether part of the directory is in this layer.
    pub(crate) fn is_in(&self, dir: &Path) -> bool {
        self.host.starts_with(dir)
    }

    /// The directories of the host that show together what this directory shows, topmost first.
    pub(crate) fn parts(&self) -> &[PathBuf] {
        &self.parts
    }

    /// The only directory of the host that shows exactly what this directory shows, if there is one.
    pub(crate) fn single(&self) -> Option<&Path> {
        if self.metadata.is_dir() && self.parts.len() != 1 { None } else { Some(&self.host) }
    }
}

fn push_front(todo: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => todo.push_front(name.to_owned()),
            Component::ParentDir => todo.push_front("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

fn step(path: &mut PathBuf, name: &OsStr) {
    if name == ".." {
        path.pop();
    } else {
        path.push(name);
    }
}

/// Whether this hides what lower layers have.
pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Whether a directory hides what lower layers have in it.
pub(crate) fn is_opaque(directory: &Path) -> bool {
    let mut value = [0u8; 1];
    matches!(rustix::fs::lgetxattr(directory, opaque_xattr(), &mut value), Ok(1) if value == *b"y")
}

/// A name as text for patterns; bytes that are no text are replaced.
pub(crate) fn lossy(name: &OsStr) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn whiteout(path: &Path) {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .unwrap();
    }

    #[test]
    fn upper_layers_hide_lower_ones_as_overlayfs_does() {
        let temp = tempfile::tempdir().unwrap();
        let (low, high) = (temp.path().join("low"), temp.path().join("high"));
        for dir in ["low/a/b", "low/gone", "low/opaque", "high/a", "high/opaque"] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        fs::write(low.join("a/one"), "low").unwrap();
        fs::write(high.join("a/one"), "high").unwrap();
        fs::write(low.join("a/two"), "low").unwrap();
        fs::write(low.join("opaque/x"), "low").unwrap();
        whiteout(&high.join("gone"));
        rustix::fs::setxattr(high.join("opaque"), opaque_xattr(), b"y", rustix::fs::XattrFlags::empty())
            .unwrap();
        let stack = Stack::of(vec![high, low]);
        assert_eq!(stack.read("/a/one").unwrap().as_deref(), Some("high"));
        assert_eq!(stack.read("a/two").unwrap().as_deref(), Some("low"));
        assert_eq!(stack.read("opaque/x").unwrap(), None);
        assert!(stack.resolve(Path::new("gone"), true).unwrap().entry.is_none());
        let names: Vec<_> =
            stack.root().unwrap().unwrap().children().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "opaque"]);
    }

    #[test]
    fn links_never_lead_out() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("root");
        fs::create_dir_all(dir.join("real/sub")).unwrap();
        symlink("/real", dir.join("absolute")).unwrap();
        symlink("../../../real", dir.join("up")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let stack = Stack::of(vec![dir]);
        let path = |text: &str| stack.resolve(Path::new(text), true).unwrap().path;
        assert_eq!(path("/absolute/sub"), Path::new("real/sub"));
        assert_eq!(path("/up/new/deep"), Path::new("real/new/deep"));
        assert_eq!(path("../../real/../real"), Path::new("real"));
        assert_eq!(stack.resolve(Path::new("up"), false).unwrap().path, Path::new("up"));
        assert!(stack.resolve(Path::new("loop"), true).is_err());
    }
}
