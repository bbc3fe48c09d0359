//! Executing this very program again, through a mount that nobody can write to.
#![expect(unsafe_code, reason = "mount_setattr and inherited descriptors exist in no safe form")]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Where this program was when it was last asked.
static NAMED: OnceLock<PathBuf> = OnceLock::new();

/// Remembers where this program is, for a process that is about to leave its mount namespace: only there has the
/// executable a name.
pub(crate) fn remember_name() -> io::Result<()> {
    let path = std::fs::read_link("/proc/self/exe")?;
    NAMED.get_or_init(|| path);
    Ok(())
}

/// The descriptor of an executable in a mount of its own that is read-only and nowhere to be found: whoever gets
/// hold of a process that runs it, through `/proc/<pid>/exe` say, can open it for reading at most (CVE-2019-5736).
pub(crate) fn read_only_program(program: &Path) -> io::Result<OwnedFd> {
    let opened = rustix::fs::open(program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatvfs(&opened)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        // As for a monitor that starts another one: its own program is behind such a mount already.
        return Ok(opened);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = match open_tree(CWD, program, flags) {
        // A process that has moved to another mount namespace: what it runs was mounted in the former one.
        Err(rustix::io::Errno::INVAL) => {
            let path = NAMED.get().ok_or(io::ErrorKind::NotFound)?;
            let named = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let (one, other) = (rustix::fs::fstat(&opened)?, rustix::fs::fstat(&named)?);
            if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
                return Err(io::ErrorKind::NotFound.into());
            }
            open_tree(&named, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?
        }
        other => other?,
    };
    let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    // SAFETY: the path is an empty NUL-terminated string; the attributes live through the call and their size is
    // given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attr),
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(mount) }
}

/// Executes this very program again through such a mount, unless it already runs from one.
pub(crate) fn again_read_only(arguments: &[OsString]) -> io::Result<()> {
    let own = Path::new("/proc/self/exe");
    if rustix::fs::statvfs(own)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let program = read_only_program(&std::fs::read_link(own)?)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    Err(command.exec())
}

/// A descriptor that this program was started with.
///
/// It must be named once only, which is for the caller to see to: it is called at the very start of the program,
/// with numbers that this program itself passed on.
///
/// # Errors
/// When there is none of that number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on a number that is no descriptor fails without harm.
    let flags = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nothing else in this program has taken it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
