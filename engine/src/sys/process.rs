//! Processes: clone into namespaces, execute, signals, system call filters.
#![expect(unsafe_code, reason = "clone3, execve, sigaction and seccomp exist in no safe form")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use rustix::process::Pid;

/// Namespaces made for a new process: `CLONE_NEW…` flags of clone(2).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NewNamespaces {
    pub(crate) pid: bool,
    pub(crate) mount: bool,
    pub(crate) net: bool,
    pub(crate) ipc: bool,
    pub(crate) uts: bool,
    /// The others then belong to it.
    pub(crate) user: bool,
}

/// The exit code of a child that panicked.
const PANICKED: i32 = 125;
/// clone(2); the C library's binding of it is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// The highest signal number.
const SIGNALS: i32 = 64;

/// Clones this process as fork(2) does, into new namespaces and a cgroup of the unified hierarchy. The child runs
/// `child` and ends with the code it returns; it never comes back here.
///
/// The caller must have one thread: another one might hold the allocator's lock, which the child would wait for
/// for ever.
pub(crate) fn clone_process(
    new: NewNamespaces,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> io::Result<(Pid, OwnedFd)> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = libc::CLONE_PIDFD as u64;
    for (wanted, flag) in [
        (new.pid, libc::CLONE_NEWPID),
        (new.mount, libc::CLONE_NEWNS),
        (new.net, libc::CLONE_NEWNET),
        (new.ipc, libc::CLONE_NEWIPC),
        (new.uts, libc::CLONE_NEWUTS),
        (new.user, libc::CLONE_NEWUSER),
    ] {
        flags |= if wanted { flag as u64 } else { 0 };
    }
    let mut args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(directory) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
    }
    args.flags = flags;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    // SAFETY: the arguments live through the call and their size is given; without CLONE_VM and a stack of its
    // own the child continues here on a copy of this one, as after fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<CloneArgs>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // A panic must not unwind into what the parent was doing.
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
        exit_now(code);
    }
    // SAFETY: the kernel has just stored a new descriptor there that nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok((pid, pidfd))
}

/// Clones this process with the oldest call there is, which every system call filter lets through.
pub(crate) fn fork_process(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: a zero stack and no shared memory: the child continues here on a copy, as after fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if check(pid)? == 0 {
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
        exit_now(code);
    }
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// clone3(2)'s arguments up to `cgroup` (88 bytes, CLONE_ARGS_SIZE_VER2).
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Ends this process without running anything that was registered for its end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any code and does not return.
    unsafe { libc::_exit(code) }
}

/// Replaces this process's program. Comes back only with the reason why not.
pub(crate) fn execute(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let argv = pointers(argv);
    let env = pointers(env);
    // SAFETY: all three are NUL-terminated, the arrays end with a null pointer, and they outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect()
}

/// Sends a signal by number: real-time ones have no name in any safe interface.
pub(crate) fn signal_process(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: two numbers; no memory is touched.
    let result = unsafe { libc::kill(pid.as_raw_nonzero().get(), number) };
    check(result.into()).map(|_| ())
}

/// Gives every signal its default action and blocks none: what a new program expects.
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in (1..=SIGNALS).filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP)) {
        // The C library refuses the two signals it keeps for itself, so the kernel is asked directly, with its
        // own layout: handler, flags, restorer and mask are all zero for the default action.
        let kernel_action = [0u64; 4];
        // SAFETY: the layout is the kernel's, 32 bytes with an eight-byte mask; no old action is asked for.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                kernel_action.as_ptr(),
                ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    mask_signals(0).map(|_| ())
}

/// No signal reaches this thread until it is dropped.
#[derive(Debug)]
pub(crate) struct BlockedSignals {
    before: u64,
}

impl BlockedSignals {
    pub(crate) fn all() -> io::Result<Self> {
        mask_signals(u64::MAX).map(|before| Self { before })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // A mask that was valid before is valid now.
        let _ = mask_signals(self.before);
    }
}

/// Blocks every signal, for [`take_signal`].
pub(crate) fn block_signals() -> io::Result<()> {
    mask_signals(u64::MAX).map(|_| ())
}

/// Blocks these signals and no others; what was blocked before.
fn mask_signals(mask: u64) -> io::Result<u64> {
    let mut before = 0u64;
    // SAFETY: both masks are eight bytes as said and live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(&mask),
            ptr::from_mut(&mut before),
            size_of::<u64>(),
        )
    };
    check(result).map(|_| before)
}

/// Waits for a blocked signal and takes it: its number.
pub(crate) fn take_signal() -> io::Result<i32> {
    let all = u64::MAX;
    loop {
        // SAFETY: the set is eight bytes as said; neither information nor a time limit is asked for.
        let number = unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                ptr::from_ref(&all),
                ptr::null_mut::<libc::siginfo_t>(),
                ptr::null::<libc::timespec>(),
                size_of::<u64>(),
            )
        };
        match check(number) {
            Ok(number) => return Ok(i32::try_from(number).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Marks every descriptor from this one on to be closed when a program is executed.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from this one on. Owners of such descriptors must be forgotten, not dropped.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: three numbers; no memory is touched.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    check(result).map(|_| ())
}

/// Puts this process into a cgroup namespace whose root is its present cgroup.
pub(crate) fn new_cgroup_namespace() -> io::Result<()> {
    // SAFETY: this flag alone shares or splits nothing that memory safety hangs on.
    let result = unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    check(result.into()).map(|_| ())
}

/// Puts this process into a user namespace of its own, whose ids mean nothing until somebody says what.
pub(crate) fn new_user_namespace() -> io::Result<()> {
    // SAFETY: this flag alone shares or splits nothing that memory safety hangs on.
    let result = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
    check(result.into()).map(|_| ())
}

/// Puts this process into mount, network, IPC and UTS namespaces of its own: a host within the host.
pub(crate) fn new_host_namespaces() -> io::Result<()> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: as above.
    let result = unsafe { libc::unshare(flags) };
    check(result.into()).map(|_| ())
}

/// Puts this process into a network namespace of its own.
pub(crate) fn new_network_namespace() -> io::Result<()> {
    // SAFETY: sockets that are open stay where they were made; memory is not concerned.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    check(result.into()).map(|_| ())
}

/// Puts this process into an IPC namespace of its own.
pub(crate) fn new_ipc_namespace() -> io::Result<()> {
    // SAFETY: queues and segments of others stay mapped where they are; none is mapped here.
    let result = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
    check(result.into()).map(|_| ())
}

/// Puts this thread into a mount namespace of its own.
pub(crate) fn new_mount_namespace() -> io::Result<()> {
    // SAFETY: mounts are no memory.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    check(result.into()).map(|_| ())
}

/// Makes files as this user and group from now on (setfsuid(2)). Capabilities that concern files may be lost by it.
pub(crate) fn set_file_owner(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: a number; no memory is touched.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    unsafe { libc::setfsuid(uid) };
    // The calls do not say whether they worked; asked for an impossible id they say which one holds.
    // SAFETY: as above.
    let group = unsafe { libc::setfsgid(u32::MAX) };
    // SAFETY: as above.
    let user = unsafe { libc::setfsuid(u32::MAX) };
    let holds = (user.cast_unsigned(), group.cast_unsigned()) == (uid, gid);
    if holds { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Gives this process a session keyring of its own, so that it cannot read its parent's keys.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for a new anonymous keyring.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
    check(result).map(|_| ())
}

/// Chooses the execution domain of this process and its children (personality(2)).
pub(crate) fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: a number; no memory is touched.
    let result = unsafe { libc::personality(domain.into()) };
    check(result.into()).map(|_| ())
}

/// Asks seccomp(2) for a descriptor on which calls are reported that the filter hands on.
pub(crate) const NEW_LISTENER: u32 = 8;

/// Installs a system call filter for this thread and everything it becomes: the listener, if it was asked for.
pub(crate) fn install_filter(filter: &[libc::sock_filter], flags: u32) -> io::Result<Option<OwnedFd>> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program's length is its slice's; the kernel copies it and keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, ptr::from_ref(&program)) };
    let result = check(result)?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    let number = libc::c_int::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just opened it for this process, and nobody else knows its number.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions};
    use std::os::fd::AsFd;

    #[test]
    fn a_clone_ends_with_the_code_it_returns() {
        // The child allocates nothing: this test process has threads.
        let (_, pidfd) = clone_process(NewNamespaces::default(), None, || 7).unwrap();
        let status =
            rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(7));
    }
}
