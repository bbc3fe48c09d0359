//! Mounts: attributes and propagation of mounts that are held by descriptor.
#![expect(unsafe_code, reason = "mount_setattr exists in no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What changes of a mount (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Attributes set: `MOUNT_ATTR_…`.
    pub(crate) set: u64,
    /// Attributes cleared.
    pub(crate) clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, or 0 to leave it.
    pub(crate) propagation: u64,
    /// Whether mounts below it change too.
    pub(crate) recursive: bool,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount whose root this descriptor is.
pub(crate) fn change(mount: impl AsFd, change: Change) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    set(mount.as_fd(), &attr, change.recursive)
}

/// Shows the files of a detached mount with their owners mapped as this user namespace maps them: 0 on the disk is what
/// its root is outside (mount_setattr(2), `MOUNT_ATTR_IDMAP`). Not every file system can.
pub(crate) fn map_owners(mount: impl AsFd, users: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let userns_fd = u64::try_from(users.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let attr = MountAttr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set(mount.as_fd(), &attr, recursive)
}

fn set(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string, the attributes live through the call and their size is
    // given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
