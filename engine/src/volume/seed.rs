//! First use of an empty volume: the image's content at its place is copied up, with owners, modes, times,
//! extended attributes and hard links. Nothing is ever followed out of either tree.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, XattrFlags, fchmod, fchown,
    fstat, futimens, linkat, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

/// Where the first name of a hard-linked file was copied to: its directory and its name there.
type Linked = HashMap<(u64, u64), (OwnedFd, CString)>;

/// Copies everything below `from` into `into` if that is empty, and gives `into` the owner and mode of `from`. A `from`
/// that is as a mount point is made gives nothing: `into` keeps the owner that somebody chose for it.
/// Returns whether anything was done.
///
/// # Errors
/// When a file cannot be read or written; what was copied by then stays.
pub fn seed(from: BorrowedFd<'_>, into: BorrowedFd<'_>) -> io::Result<bool> {
    // Two containers may meet a new volume at once: the second one waits, and finds it filled.
    rustix::fs::flock(into, rustix::fs::FlockOperation::LockExclusive)?;
    let stat = fstat(from)?;
    if !is_empty(into)? || is_plain(&stat) && is_empty(from)? {
        return Ok(false);
    }
    copy_tree(from, into, &mut Linked::new())?;
    copy_metadata(from, into, &stat)?;
    Ok(true)
}

/// Whether it has the owner and mode that directories are made with.
fn is_plain(directory: &Stat) -> bool {
    directory.st_uid == 0 && directory.st_gid == 0 && directory.st_mode & 0o7777 == 0o755
}

fn is_empty(directory: BorrowedFd<'_>) -> io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        if !is_dot(entry?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn copy_tree(from: BorrowedFd<'_>, into: BorrowedFd<'_>, linked: &mut Linked) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_dot(name) {
            continue;
        }
        copy_entry(from, into, name, linked)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy())))?;
    }
    Ok(())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    into: BorrowedFd<'_>,
    name: &CStr,
    linked: &mut Linked,
) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory && stat.st_nlink > 1 {
        let file = (stat.st_dev, stat.st_ino);
        if let Some((directory, first)) = linked.get(&file) {
            return Ok(linkat(directory, first.as_c_str(), into, name, AtFlags::empty())?);
        }
        linked.insert(file, (rustix::io::fcntl_dupfd_cloexec(into, 3)?, name.to_owned()));
    }
    match kind {
        FileType::Directory => {
            mkdirat(into, name, Mode::RWXU)?;
            let (source, target) = (open_directory(from, name)?, open_directory(into, name)?);
            copy_tree(source.as_fd(), target.as_fd(), linked)?;
            copy_metadata(source.as_fd(), target.as_fd(), &stat)
        }
        FileType::RegularFile => copy_file(from, into, name, &stat),
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), into, name)?;
            set_link_metadata(into, name, &stat)
        }
        _ => {
            mknodat(into, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            set_link_metadata(into, name, &stat)
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn copy_file(from: BorrowedFd<'_>, into: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let source = openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(into, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut source_file = std::fs::File::from(source);
    let mut target_file = std::fs::File::from(target);
    io::copy(&mut source_file, &mut target_file)?;
    copy_metadata(source_file.as_fd(), target_file.as_fd(), stat)
}

/// Owner first: changing it clears the set-user-id bits that the mode then sets.
fn copy_metadata(source: BorrowedFd<'_>, target: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(target, Some(uid), Some(gid))?;
    fchmod(target, Mode::from_raw_mode((stat.st_mode & 0o7777) as RawMode))?;
    copy_attributes(source, target)?;
    Ok(futimens(target, &times(stat))?)
}

fn set_link_metadata(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(directory, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn owner(stat: &Stat) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid))
}

fn times(stat: &Stat) -> Timestamps {
    let moment = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as i64 };
    Timestamps {
        last_access: moment(stat.st_atime, stat.st_atime_nsec),
        last_modification: moment(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Copies the attributes that mean something outside of their file system: not those of overlayfs.
fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::flistxattr(source, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let size = rustix::fs::fgetxattr(source, name, &mut value)?;
        match rustix::fs::fsetxattr(target, name, &value[..size], XattrFlags::empty()) {
            // A file system without this kind of attribute keeps the file all the same.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn an_empty_volume_gets_the_content_with_owners_modes_and_links() {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("sub")).unwrap();
        fs::write(from.path().join("sub/file"), "text").unwrap();
        fs::hard_link(from.path().join("sub/file"), from.path().join("again")).unwrap();
        chown(from.path().join("sub/file"), Some(70), Some(71)).unwrap();
        fs::set_permissions(from.path().join("sub/file"), PermissionsExt::from_mode(0o4711)).unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        chown(from.path(), Some(5), Some(6)).unwrap();
        let note = (from.path().join("sub/file"), into.path().join("sub/file"));
        rustix::fs::setxattr(&note.0, "user.note", b"kept", XattrFlags::empty()).unwrap();
        let open = |path: &std::path::Path| File::open(path).unwrap();
        assert!(seed(open(from.path()).as_fd(), open(into.path()).as_fd()).unwrap());
        let copied = fs::metadata(into.path().join("sub/file")).unwrap();
        assert_eq!((copied.uid(), copied.gid(), copied.mode() & 0o7777), (70, 71, 0o4711));
        assert_eq!(copied.ino(), fs::metadata(into.path().join("again")).unwrap().ino());
        assert_eq!(fs::read_link(into.path().join("link")).unwrap().to_str(), Some("/etc/passwd"));
        assert_eq!(fs::metadata(into.path()).unwrap().uid(), 5);
        let mut value = [0u8; 4];
        assert_eq!(rustix::fs::getxattr(&note.1, "user.note", &mut value), Ok(4));
        assert_eq!(&value, b"kept");
    }

    #[test]
    fn a_volume_with_content_is_left_alone() {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("new"), "").unwrap();
        fs::write(into.path().join("old"), "").unwrap();
        let open = |path: &std::path::Path| File::open(path).unwrap();
        assert!(!seed(open(from.path()).as_fd(), open(into.path()).as_fd()).unwrap());
        assert!(!into.path().join("new").exists());
    }
}
