//! Executing a program as nobody's child, without a copy of this process on the way.
#![expect(unsafe_code, reason = "clone with shared memory exists in no safe form")]

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;

use crate::sys::pipe::Pipe;
use crate::sys::{process, self_exec};

/// What the two processes on the way need: all of it made before, for they allocate nothing.
struct Execution<'a> {
    path: CString,
    argv: Vec<*const c_char>,
    null: BorrowedFd<'a>,
    kept: &'a [BorrowedFd<'a>],
    stack: Stack,
    /// Why the program is not being executed.
    failure: Option<io::Error>,
}

/// The stack of a process that shares our memory.
struct Stack(Box<[MaybeUninit<u128>]>);

/// In units of sixteen bytes, to which a stack is aligned: 64 KiB, of which a few pages are ever touched.
const STACK: usize = (64 << 10) / size_of::<u128>();
/// The caller stands still until the new process has left its memory; no signal tells that it ended.
const SHARED: c_int = libc::CLONE_VM | libc::CLONE_VFORK;

/// Executes a program as nobody's child in a session of its own, with these descriptors alone. They keep their
/// numbers.
///
/// Neither of the two processes on the way has memory of its own, as after vfork(2): a copy of this one's page tables
/// takes longer than everything else here. The first one ends, and leaves the second one to init.
pub(crate) fn spawn(
    program: BorrowedFd<'_>,
    name: &str,
    args: &[&OsStr],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let words = std::iter::once(OsStr::new(name)).chain(args.iter().copied());
    let words: Vec<CString> = words.map(|word| CString::new(word.as_bytes())).collect::<Result<_, _>>()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut execution = Execution {
        path: CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?,
        argv: words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect(),
        null: null.as_fd(),
        kept: descriptors,
        stack: Stack::new(),
        failure: None,
    };
    let mut stack = Stack::new();
    // A handler of ours must not run in a process that only borrows our memory.
    let blocked = process::BlockedSignals::all()?;
    let argument = ptr::from_mut(&mut execution).cast::<c_void>();
    // SAFETY: the stack is the new process's alone; it and all that the argument leads to outlive it, since this
    // thread goes on when it has ended.
    let pid = unsafe { libc::clone(between, stack.top(), SHARED, argument) };
    let outcome = if pid < 0 { Err(io::Error::last_os_error()) } else { reap(pid) };
    drop(blocked);
    outcome?;
    execution.failure.map_or(Ok(()), Err)
}

/// Executes this program under another name as nobody's child, with these descriptors beside its first one, and waits
/// until it says that it is ready: by a byte to the descriptor whose number is its first argument.
pub(crate) fn post(name: &str, args: &[&OsStr], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Pipe { read: told, write: tells } = Pipe::new()?;
    let program = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let number = tells.as_raw_fd().to_string();
    let args: Vec<&OsStr> = std::iter::once(OsStr::new(&number)).chain(args.iter().copied()).collect();
    let kept: Vec<BorrowedFd<'_>> =
        std::iter::once(tells.as_fd()).chain(descriptors.iter().copied()).collect();
    spawn(program.as_fd(), name, &args, &kept)?;
    drop(tells);
    File::from(told).read_exact(&mut [0])
}

/// Becomes such a process when this one was executed under that name; `serve` does its work, and says whether it could.
pub(crate) fn enter(name: &str, serve: impl FnOnce(&[OsString]) -> Option<()>) -> Option<ExitCode> {
    let mut args = std::env::args_os();
    (args.next()? == name).then(|| {
        let args: Vec<OsString> = args.collect();
        serve(&args).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
    })
}

/// A descriptor that such a process was started with, by its number in the arguments. Each is asked for once.
pub(crate) fn inherited(number: &OsStr) -> Option<OwnedFd> {
    self_exec::inherited(number.to_str()?.parse().ok()?).ok()
}

/// The first process: begins the second one and ends when that one is executing its program.
extern "C" fn between(argument: *mut c_void) -> c_int {
    let execution = argument.cast::<Execution<'_>>();
    // SAFETY: it is the execution that `spawn` passed, and `spawn` stands still.
    let top = unsafe { (*execution).stack.top() };
    // SAFETY: as in `spawn`; this process stands still meanwhile.
    let pid = unsafe { libc::clone(detached, top, SHARED | libc::SIGCHLD, argument) };
    if pid < 0 {
        // SAFETY: as above; there is no second process.
        unsafe { (*execution).failure = Some(io::Error::last_os_error()) };
    }
    0
}

/// The second process, until its program is executed.
extern "C" fn detached(argument: *mut c_void) -> c_int {
    // SAFETY: it is the execution that `spawn` passed, and the two others stand still.
    let execution = unsafe { &mut *argument.cast::<Execution<'_>>() };
    execution.failure = Some(match execution.prepare() {
        Ok(()) => execution.execute(),
        Err(error) => error,
    });
    1
}

/// The first process has ended when this is called: its memory is ours again.
fn reap(pid: c_int) -> io::Result<()> {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WALL) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

// === impl Execution ===

impl Execution<'_> {
    fn prepare(&self) -> io::Result<()> {
        rustix::process::setsid()?;
        rustix::process::chdir(c"/")?;
        rustix::stdio::dup2_stdin(self.null)?;
        rustix::stdio::dup2_stdout(self.null)?;
        rustix::stdio::dup2_stderr(self.null)?;
        process::close_on_exec_from(3)?;
        for descriptor in self.kept {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        process::reset_signals()
    }

    /// Comes back only with the reason why not.
    fn execute(&self) -> io::Error {
        let path: &CStr = &self.path;
        let environment = [ptr::null()];
        // SAFETY: all are NUL-terminated, both arrays end with a null pointer, and they outlive the call.
        unsafe { libc::execve(path.as_ptr(), self.argv.as_ptr(), environment.as_ptr()) };
        io::Error::last_os_error()
    }
}

// === impl Stack ===

impl Stack {
    fn new() -> Self {
        Self(Box::new_uninit_slice(STACK))
    }

    /// Where it begins: stacks grow down.
    fn top(&mut self) -> *mut c_void {
        self.0.as_mut_ptr_range().end.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe::Pipe;
    use crate::sys::self_exec::read_only_program;
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
        spawn(mount.as_fd(), "sh", &args, &[go.read.as_fd(), answer.write.as_fd()]).unwrap();
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
