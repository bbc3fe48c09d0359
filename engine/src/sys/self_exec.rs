//! Executing this very program again, detached and through a mount that nobody can write to.
#![expect(
    unsafe_code,
    reason = "mount_setattr, fork without exec and inherited descriptors exist in no safe form"
)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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

/// Executes a program as nobody's child in a session of its own, with these descriptors alone. They keep their
/// numbers.
pub(crate) fn spawn_detached(
    program: BorrowedFd<'_>,
    name: &str,
    args: &[&OsStr],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let kept: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0(name).args(args).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec the closure makes plain system calls only and allocates nothing.
    unsafe { command.pre_exec(move || leave_parent(&kept)) };
    let mut child = command.spawn()?;
    // The child ends as soon as it has left its own child behind.
    child.wait().map(|_| ())
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

/// Runs in the forked child: forks again and leaves, so that the program's parent is init; the grandchild goes on.
fn leave_parent(kept: &[RawFd]) -> io::Result<()> {
    // SAFETY: fork in a child that has one thread; the parent side ends at once without running any handler.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        // SAFETY: _exit takes any code and does not return.
        _ => unsafe { libc::_exit(0) },
    }
    rustix::process::setsid()?;
    // SAFETY: three numbers; no memory is touched.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    for descriptor in kept {
        // SAFETY: the descriptor is open: its owner lives in the frame that waits for this child.
        let descriptor = unsafe { BorrowedFd::borrow_raw(*descriptor) };
        rustix::io::fcntl_setfd(descriptor.as_fd(), rustix::io::FdFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe::Pipe;
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};

    #[test]
    fn a_program_runs_detached_and_cannot_be_opened_for_writing() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("busybox");
        std::fs::copy("/bin/busybox", &program).unwrap();
        let mount = read_only_program(&program).unwrap();
        let answer = Pipe::new().unwrap();
        let go = Pipe::new().unwrap();
        let script = format!(
            "read go <&{}; read -r stat </proc/$$/stat; echo $$ $PWD $stat >&{}",
            go.read.as_raw_fd(),
            answer.write.as_raw_fd()
        );
        let args = ["-c", script.as_str()].map(OsStr::new);
        spawn_detached(mount.as_fd(), "sh", &args, &[go.read.as_fd(), answer.write.as_fd()]).unwrap();
        drop(answer.write);
        // Only now has the process between the two surely ended: before, the program could still be its child.
        File::from(go.write).write_all(b"go\n").unwrap();
        let mut text = String::new();
        File::from(answer.read).read_to_string(&mut text).unwrap();
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [pid, "/", own, _, _, parent, _, session, ..] = fields[..] else { panic!("{text}") };
        assert_eq!((own, session), (pid, pid));
        assert_ne!(parent, std::process::id().to_string());
        let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
        let error = OpenOptions::new().write(true).open(path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
}
