//! Paths inside a container's root, looked up by the kernel with that root as the end of the world: neither `..`
//! nor a symbolic link of an image leads out of it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What a missing target is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

const PARENTS: Mode = Mode::from_raw_mode(0o755);
const EMPTY_FILE: Mode = Mode::from_raw_mode(0o644);
/// As many symbolic links as the kernel follows in one lookup (path_resolution(7)).
const LINKS: usize = 40;

/// A descriptor that only names what is at this path inside the root.
pub(crate) fn find(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::PATH)
}

/// Opens what is at this path inside the root.
pub(crate) fn open(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    resolve_retrying(root.as_fd(), path, flags, resolve)
}

/// A directory directly below the root that is no symbolic link; made when missing. The kernel's own file systems
/// go there, and an image must not choose another place for them (CVE-2019-19921).
pub(crate) fn real_directory(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match resolve_retrying(root, Path::new(name), flags, resolve) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(root, name, PARENTS)?;
            resolve_retrying(root, Path::new(name), flags, resolve)
        }
        other => other,
    }
}

/// As [`find`], making what is missing.
pub(crate) fn find_or_make(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
    match find(root, path) {
        Err(Errno::NOENT) => make(root, path, missing, LINKS),
        other => other,
    }
}

/// The directory a new entry goes into, made when missing, and the entry's name.
pub(crate) fn parent_of(root: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, OsString), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
    let parent = find_or_make(root, path.parent().unwrap_or(Path::new("/")), Missing::Directory)?;
    Ok((parent, name))
}

fn make(root: BorrowedFd<'_>, path: &Path, missing: Missing, links_left: usize) -> Result<OwnedFd, Errno> {
    let names: Vec<&OsStr> = path.components().filter_map(in_root).collect();
    let mut so_far = PathBuf::from("/");
    let mut here = find(root, &so_far)?;
    for (index, name) in names.iter().enumerate() {
        so_far.push(name);
        here = match find(root, &so_far) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                let kind = if index + 1 == names.len() { missing } else { Missing::Directory };
                if let Some(elsewhere) = dangling(here.as_fd(), name, &so_far)? {
                    // What is missing is what a symbolic link of the image points to.
                    let left = links_left.checked_sub(1).ok_or(Errno::LOOP)?;
                    let rest: PathBuf = names[index + 1..].iter().collect();
                    return make(root, &elsewhere.join(rest), missing, left);
                }
                make_entry(here.as_fd(), name, kind)?;
                find(root, &so_far)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(here)
}

fn in_root(component: Component<'_>) -> Option<&OsStr> {
    match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    }
}

fn dangling(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<Option<PathBuf>, Errno> {
    match rustix::fs::readlinkat(parent, name, Vec::new()) {
        Ok(link) => {
            let link = PathBuf::from(OsString::from_vec(link.into_bytes()));
            Ok(Some(path.parent().unwrap_or(Path::new("/")).join(link)))
        }
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_entry(parent: BorrowedFd<'_>, name: &OsStr, kind: Missing) -> Result<(), Errno> {
    let made = match kind {
        Missing::Directory => rustix::fs::mkdirat(parent, name, PARENTS),
        Missing::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, EMPTY_FILE).map(drop)
        }
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn resolve_retrying(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed during the lookup, which the kernel will not judge then.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root_with(make: impl FnOnce(&Path)) -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        make(&directory.path().join("root"));
        let root = fs::File::open(directory.path().join("root")).unwrap();
        (directory, root.into())
    }

    #[test]
    fn missing_targets_are_made_where_the_links_of_the_root_lead() {
        let (directory, root) = root_with(|root| {
            fs::create_dir(root.join("etc")).unwrap();
            symlink("../run/resolve/stub.conf", root.join("etc/resolv.conf")).unwrap();
            symlink("/absent", root.join("etc/far")).unwrap();
            symlink("../../../../escaped", root.join("etc/out")).unwrap();
        });
        for (path, missing, made) in [
            ("/etc/resolv.conf", Missing::File, "run/resolve/stub.conf"),
            ("/etc/far/deep", Missing::Directory, "absent/deep"),
            ("/etc/out", Missing::Directory, "escaped"),
            ("/a/../b/./c", Missing::File, "b/c"),
        ] {
            find_or_make(root.as_fd(), Path::new(path), missing).unwrap();
            let made = directory.path().join("root").join(made);
            assert_eq!(made.is_dir(), missing == Missing::Directory, "{path}");
            assert_eq!(made.is_file(), missing == Missing::File, "{path}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_that_lead_in_circles_end() {
        let (_directory, root) = root_with(|root| {
            symlink("b", root.join("a")).unwrap();
            symlink("a", root.join("b")).unwrap();
        });
        assert_eq!(find_or_make(root.as_fd(), Path::new("/a"), Missing::File).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn the_places_of_kernel_file_systems_are_no_links() {
        let (_directory, root) = root_with(|root| symlink("/etc", root.join("proc")).unwrap());
        assert_eq!(real_directory(root.as_fd(), "proc").unwrap_err(), Errno::LOOP);
        real_directory(root.as_fd(), "sys").unwrap();
    }
}
