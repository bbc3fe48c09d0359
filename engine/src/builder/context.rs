//! What COPY and ADD see: the paths a pattern names in a context, a stage or an image, without what is ignored,
//! and one digest over all that a copy of them would bring along.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::digests::{Digests, Sum};
use super::fault::nearest;
use super::glob;
use super::ignore::{Ignore, Matched, clean};
use super::stack::{Entry, Stack, lossy};

/// A place that files are copied from.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// The files.
    pub(crate) stack: Stack,
    /// What is left out of it.
    pub(crate) ignore: Ignore,
    /// Whether files keep their owners: those of stages and images do, those of the host do not.
    pub(crate) keeps_owners: bool,
}

/// What one source of a COPY stands for.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    /// The name it was asked for by; `None` for the root.
    pub(crate) name: Option<OsString>,
    /// Where it goes below the destination when the structure is kept (`--parents`).
    pub(crate) kept_path: Option<PathBuf>,
    /// What it is, links followed.
    pub(crate) entry: Entry,
    /// What is in it, parents before children, in the order of names.
    pub(crate) nodes: Vec<Node>,
}

/// Something in a copied directory.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its path in the directory.
    pub(crate) path: PathBuf,
    /// What it is; links stay links here.
    pub(crate) entry: Entry,
}

/// Why a source cannot be copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelectError {
    /// There is no such file.
    #[error("{0:?}: not found")]
    Missing(String),
    /// There is one, but it is ignored.
    #[error("{0:?}: not found, because .dockerignore leaves it out of the build context")]
    Ignored(String),
    /// The pattern cannot be read.
    #[error("{0:?}: {1}")]
    Pattern(String, glob::BadPattern),
    /// The system refused.
    #[error("read {0:?}: {1}")]
    Io(String, #[source] io::Error),
}

/// A path that a source stands for, and what is there if a pattern was matched with it.
type Matching = (PathBuf, Option<Entry>);

struct Walk<'a> {
    ignore: &'a Ignore,
    exclude: &'a Ignore,
    nodes: Vec<Node>,
}

// === impl Tree ===

impl Tree {
    /// What a source means: one path, or what a pattern matches, in the order of names.
    pub(crate) fn select(
        &self,
        source: &str,
        exclude: &Ignore,
        keep_paths: bool,
    ) -> Result<Vec<Selected>, SelectError> {
        let wanted = clean(&format!("/{source}"));
        let mut found = Vec::new();
        for (path, entry) in self.matches(&wanted, keep_paths)? {
            // A pattern does not name what is left out, not even a link that leads nowhere.
            if entry.as_ref().is_some_and(|entry| self.hides(&path, entry)) {
                continue;
            }
            let shown = format!("/{}", path.display());
            let resolved = match entry {
                Some(entry) if !entry.metadata.is_symlink() => (path.clone(), Some(entry)),
                _ => {
                    let found = self.stack.resolve(&path, true);
                    let found = found.map_err(|error| SelectError::Io(shown.clone(), error))?;
                    (found.path, found.entry)
                }
            };
            let Some(entry) = resolved.1 else {
                // What has no layers has a root with nothing in it.
                if path.as_os_str().is_empty() {
                    continue;
                }
                return Err(SelectError::Missing(shown));
            };
            if [&path, &resolved.0].into_iter().any(|path| self.hides(path, &entry)) {
                if glob::has_wildcards(&wanted) {
                    continue;
                }
                return Err(SelectError::Ignored(shown));
            }
            let name = path.file_name().map(ToOwned::to_owned);
            if !entry.metadata.is_dir()
                && name.as_deref().is_some_and(|name| exclude.standing(&lossy(name)).0)
            {
                continue;
            }
            let mut walk = Walk { ignore: &self.ignore, exclude, nodes: Vec::new() };
            if entry.metadata.is_dir() {
                let absolute = lossy(resolved.0.as_os_str());
                let (is_out, standing) = self.ignore.standing(&absolute);
                walk.enter(&entry, &absolute, Path::new(""), (&standing, &exclude.root()))
                    .map_err(|error| SelectError::Io(shown.clone(), error))?;
                // One that is left out is there only with what comes back in it.
                if is_out && walk.nodes.is_empty() {
                    if glob::has_wildcards(&wanted) {
                        continue;
                    }
                    return Err(SelectError::Ignored(shown));
                }
            }
            let kept_path = keep_paths.then(|| kept_part(source, &path));
            found.push(Selected { name, kept_path, entry, nodes: walk.nodes });
        }
        Ok(found)
    }

    /// What is there under a name like that of something that is not.
    pub(crate) fn neighbour(&self, path: &str) -> Option<String> {
        let (parent, name) = path.rsplit_once('/')?;
        let children = self.stack.resolve(Path::new(parent), true).ok()?.entry?.children().ok()?;
        let parent_path = Path::new(parent.trim_start_matches('/'));
        let names: Vec<String> = children
            .into_iter()
            .filter(|(name, entry)| !self.hides(&parent_path.join(name), entry))
            .map(|(name, _)| lossy(&name))
            .collect();
        let meant = nearest(name, names.iter().map(String::as_str))?;
        Some(format!("{parent}/{meant}"))
    }

    /// One digest over all that copying these would bring along, times apart.
    pub(crate) fn digest(&self, selected: &[Selected], digests: &Digests) -> io::Result<Sum> {
        let mut files: Vec<(&Path, &Metadata)> = Vec::new();
        for entry in entries(selected) {
            if entry.metadata.is_file() {
                files.push((&entry.host, &entry.metadata));
            }
        }
        let mut sums = digests.of(&files)?.into_iter();
        let mut hash = Sha256::new();
        for source in selected {
            let name = if source.entry.metadata.is_dir() { None } else { source.name.as_ref() };
            text(&mut hash, name.map_or(&b""[..], |name| name.as_bytes()));
            text(&mut hash, source.kept_path.as_ref().map_or(&b""[..], |path| path.as_os_str().as_bytes()));
            self.add(&mut hash, &source.entry, &mut sums)?;
            for node in &source.nodes {
                text(&mut hash, node.path.as_os_str().as_bytes());
                self.add(&mut hash, &node.entry, &mut sums)?;
            }
            hash.update([0xff]);
        }
        Ok(hash.finalize().into())
    }

    /// Each copied file with the digest of its content, for people to see which one has changed.
    pub(crate) fn parts(&self, selected: &[Selected], digests: &Digests) -> Vec<(String, String)> {
        let mut files: Vec<(&Path, &Metadata)> = Vec::new();
        let mut names = Vec::new();
        for source in selected {
            let name = source.name.as_ref().map(|name| lossy(name)).unwrap_or_default();
            if source.entry.metadata.is_file() {
                files.push((&source.entry.host, &source.entry.metadata));
                names.push(name.clone());
            }
            for node in source.nodes.iter().filter(|node| node.entry.metadata.is_file()) {
                files.push((&node.entry.host, &node.entry.metadata));
                names.push(Path::new(&name).join(&node.path).display().to_string());
            }
        }
        // A file that cannot be read any more is the copy's business.
        let sums = digests.of(&files).unwrap_or_default();
        let short = |sum: &Sum| crate::id::hex(&sum[..6]);
        names.into_iter().zip(&sums).map(|(name, sum)| (name, short(sum))).collect()
    }

    fn add(&self, hash: &mut Sha256, entry: &Entry, sums: &mut dyn Iterator<Item = Sum>) -> io::Result<()> {
        let metadata = &entry.metadata;
        let kind = metadata.file_type();
        hash.update((metadata.mode() & 0o177_777).to_le_bytes());
        if self.keeps_owners {
            hash.update(metadata.uid().to_le_bytes());
            hash.update(metadata.gid().to_le_bytes());
        }
        if kind.is_file() {
            hash.update(sums.next().unwrap_or_default());
        } else if kind.is_symlink() {
            text(hash, std::fs::read_link(&entry.host)?.as_os_str().as_bytes());
        } else if kind.is_char_device() || kind.is_block_device() {
            hash.update(metadata.rdev().to_le_bytes());
        }
        for (name, value) in entry.attributes()? {
            text(hash, name.as_bytes());
            text(hash, value);
        }
        Ok(())
    }

    /// The paths a source stands for. Literal ones come without an entry, whether they exist or not. Where `is_deep`, as
    /// with `--parents`, a part `**` stands for directories one below the other, or for none.
    fn matches(&self, wanted: &str, is_deep: bool) -> Result<Vec<Matching>, SelectError> {
        let wanted = wanted.trim_start_matches('/');
        let parts: Vec<&str> = wanted.split('/').filter(|part| !part.is_empty()).collect();
        let Some(first) = parts.iter().position(|part| glob::has_wildcards(part)) else {
            return Ok(vec![(wanted.into(), None)]);
        };
        let io = |error| SelectError::Io(format!("/{wanted}"), error);
        for part in &parts[first..] {
            glob::check(part).map_err(|error| SelectError::Pattern(wanted.to_owned(), error))?;
        }
        let start = self.stack.resolve(Path::new(&parts[..first].join("/")), true).map_err(io)?;
        let Some(entry) = start.entry else { return Ok(Vec::new()) };
        let mut found = vec![(start.path, Some(entry))];
        for (at, part) in parts.iter().enumerate().skip(first) {
            // At the end it is what is there, with all that is below.
            if is_deep && *part == "**" && at + 1 < parts.len() {
                found = self.descended(found).map_err(io)?;
                continue;
            }
            let mut next = Vec::new();
            for (path, entry) in found {
                let Some(entry) = entry.filter(|entry| entry.metadata.is_dir()) else { continue };
                for (name, child) in entry.children().map_err(io)? {
                    if glob::matches(part, &lossy(&name)).unwrap_or(false) {
                        next.push((path.join(name), Some(child)));
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }

    /// These, and all directories below them that are not left out.
    fn descended(&self, tops: Vec<Matching>) -> io::Result<Vec<Matching>> {
        let (mut found, mut open) = (Vec::new(), tops);
        open.reverse();
        while let Some((path, entry)) = open.pop() {
            let Some(entry) = entry.filter(|entry| entry.metadata.is_dir()) else { continue };
            let mut below = Vec::new();
            for (name, child) in entry.children()? {
                let path = path.join(name);
                if child.metadata.is_dir() && !self.hides(&path, &child) {
                    below.push((path, Some(child)));
                }
            }
            open.extend(below.into_iter().rev());
            found.push((path, Some(entry)));
        }
        Ok(found)
    }

    fn hides(&self, path: &Path, entry: &Entry) -> bool {
        let path = lossy(path.as_os_str());
        !path.is_empty()
            && self.ignore.standing(&path).0
            && !(entry.metadata.is_dir() && self.ignore.may_bring_back_below(&path))
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn enter(
        &mut self,
        directory: &Entry,
        absolute: &str,
        relative: &Path,
        standing: (&Matched, &Matched),
    ) -> io::Result<()> {
        for (name, entry) in directory.children()? {
            let path = relative.join(&name);
            let name = lossy(&name);
            let full = if absolute.is_empty() { name } else { format!("{absolute}/{name}") };
            let shown = lossy(path.as_os_str());
            let (ignored, for_ignore) = self.ignore.check(&full, standing.0);
            let (excluded, for_exclude) = self.exclude.check(&shown, standing.1);
            if !entry.metadata.is_dir() {
                if !ignored && !excluded {
                    self.nodes.push(Node { path, entry });
                }
                continue;
            }
            if (ignored && !self.ignore.may_bring_back_below(&full))
                || (excluded && !self.exclude.may_bring_back_below(&shown))
            {
                continue;
            }
            // A left-out directory is there only for what comes back inside it.
            let mark = self.nodes.len();
            self.nodes.push(Node { path: path.clone(), entry: entry.clone() });
            self.enter(&entry, &full, &path, (&for_ignore, &for_exclude))?;
            if (ignored || excluded) && self.nodes.len() == mark + 1 {
                self.nodes.truncate(mark);
            }
        }
        Ok(())
    }
}

/// The attributes that a layer keeps: capabilities of programs, and what users set.
pub(crate) fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0u8; 256];
    let size = loop {
        match rustix::fs::llistxattr(path, &mut names) {
            Ok(0) => return Ok(Vec::new()),
            Ok(size) => break size,
            Err(rustix::io::Errno::RANGE) => names.resize(names.len() * 4, 0),
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    for name in names[..size].split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0u8; 65_536];
        let size = rustix::fs::lgetxattr(path, name, &mut value)?;
        value.truncate(size);
        found.push((name.to_owned(), value));
    }
    found.sort();
    Ok(found)
}

fn entries(selected: &[Selected]) -> impl Iterator<Item = &Entry> {
    selected
        .iter()
        .flat_map(|source| std::iter::once(&source.entry).chain(source.nodes.iter().map(|node| &node.entry)))
}

fn text(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// The part of a path that `--parents` keeps: all of it, or what comes after `/./` in the source.
fn kept_part(source: &str, path: &Path) -> PathBuf {
    let Some((before, _)) = source.split_once("/./") else { return path.to_owned() };
    let depth = clean(&format!("/{before}")).split('/').filter(|part| !part.is_empty()).count();
    path.components().skip(depth).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(dir: &Path, ignore: &[&str]) -> Tree {
        Tree {
            stack: Stack::of(vec![dir.to_owned()]),
            ignore: Ignore::from_patterns(ignore.iter().copied()).unwrap(),
            keeps_owners: false,
        }
    }

    fn paths(tree: &Tree, source: &str) -> Vec<String> {
        let selected = tree.select(source, &Ignore::default(), false).unwrap();
        selected
            .iter()
            .flat_map(|source| {
                let name = source.name.as_ref().map_or("/".to_owned(), |name| lossy(name));
                std::iter::once(name).chain(source.nodes.iter().map(|node| lossy(node.path.as_os_str())))
            })
            .collect()
    }

    fn fixture() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["a/deep", "b"] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        for file in ["a/1.txt", "a/deep/2.txt", "b/1.md", "top.txt"] {
            fs::write(temp.path().join(file), file).unwrap();
        }
        symlink("a", temp.path().join("to-a")).unwrap();
        symlink("/../../top.txt", temp.path().join("b/to-top")).unwrap();
        temp
    }

    #[test]
    fn sources_are_paths_and_patterns_inside_the_context() {
        let temp = fixture();
        let tree = tree(temp.path(), &[]);
        assert_eq!(paths(&tree, "a"), ["a", "1.txt", "deep", "deep/2.txt"]);
        assert_eq!(paths(&tree, "../../a/deep"), ["deep", "2.txt"]);
        assert_eq!(paths(&tree, "*/1.*"), ["1.txt", "1.md"]);
        assert_eq!(paths(&tree, "to-a"), ["to-a", "1.txt", "deep", "deep/2.txt"]);
        assert_eq!(paths(&tree, "b/to-top"), ["to-top"]);
        assert_eq!(paths(&tree, "*.none"), Vec::<String>::new());
        assert_eq!(paths(&tree, "/")[..3], ["/", "a", "a/1.txt"]);
        let missing = tree.select("none", &Ignore::default(), false).unwrap_err();
        assert_eq!(missing.to_string(), "\"/none\": not found");
    }

    #[test]
    fn two_stars_go_down_only_where_paths_are_kept() {
        let temp = fixture();
        let tree = tree(temp.path(), &["b"]);
        let kept = |source: &str| -> Vec<String> {
            let selected = tree.select(source, &Ignore::default(), true).unwrap();
            selected.iter().map(|source| lossy(source.kept_path.as_ref().unwrap().as_os_str())).collect()
        };
        assert_eq!(kept("**/*.txt"), ["top.txt", "a/1.txt", "a/deep/2.txt"]);
        assert_eq!(kept("./a/./**/*.txt"), ["1.txt", "deep/2.txt"]);
        assert_eq!(kept("a/**"), ["a/1.txt", "a/deep"]);
        assert_eq!(kept("**/1.md"), Vec::<String>::new());
        assert_eq!(paths(&tree, "**/*.txt"), ["1.txt"]);
    }

    #[test]
    fn ignored_files_are_not_there() {
        let temp = fixture();
        let tree = tree(temp.path(), &["a", "!a/deep/2.txt", "top.txt"]);
        assert_eq!(
            paths(&tree, "/"),
            ["/", "a", "a/deep", "a/deep/2.txt", "b", "b/1.md", "b/to-top", "to-a"]
        );
        assert_eq!(paths(&tree, "a"), ["a", "deep", "deep/2.txt"]);
        let error = tree.select("top.txt", &Ignore::default(), false).unwrap_err();
        assert!(error.to_string().contains("leaves it out"), "{error}");
    }

    #[test]
    fn a_pattern_does_not_name_what_is_left_out_and_keeps_names_as_they_are() {
        let temp = fixture();
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
        fs::write(temp.path().join(name), "latin").unwrap();
        symlink("nowhere", temp.path().join("lost")).unwrap();
        let names = |tree: &Tree, source: &str| -> Result<Vec<OsString>, SelectError> {
            let selected = tree.select(source, &Ignore::default(), false)?;
            Ok(selected.into_iter().filter_map(|source| source.name).collect())
        };
        assert_eq!(names(&tree(temp.path(), &[]), "*.txt").unwrap(), [name, "top.txt".as_ref()]);
        assert!(matches!(names(&tree(temp.path(), &[]), "l*"), Err(SelectError::Missing(_))));
        assert_eq!(names(&tree(temp.path(), &["lost"]), "l*").unwrap(), [""; 0]);
        // Neither `!a` nor an exception for what is not there makes a directory of nothing.
        for rules in [&["!a", "a/**", "[ab]"][..], &["a", "!a/nosuch"]] {
            let tree = tree(temp.path(), rules);
            assert!(matches!(names(&tree, "a"), Err(SelectError::Ignored(_))), "{rules:?}");
            assert!(matches!(names(&tree, "a/deep"), Err(SelectError::Ignored(_))), "{rules:?}");
            assert_eq!(names(&tree, "a*").unwrap(), [""; 0], "{rules:?}");
        }
    }

    #[test]
    fn the_digest_is_of_content_and_mode_but_not_of_time() {
        let temp = fixture();
        let tree = tree(temp.path(), &[]);
        let digests = Digests::open(temp.path().join("b/table"));
        let digest = || {
            let selected = tree.select("a", &Ignore::default(), false).unwrap();
            tree.digest(&selected, &digests).unwrap()
        };
        let first = digest();
        fs::File::options()
            .write(true)
            .open(temp.path().join("a/1.txt"))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        assert_eq!(digest(), first);
        fs::write(temp.path().join("a/1.txt"), "changed").unwrap();
        assert_ne!(digest(), first);
    }
}
