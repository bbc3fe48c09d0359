//! Finding a container's monitor, or starting one.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::container::client::Connection;
use crate::container::monitor::{ARGV0, Ahead};
use crate::container::ready::Ready;
use crate::error::{Error, Kind, Result};
use crate::id::ContainerId;
use crate::paths::Root;
use crate::store::{self, Lock};
use crate::sys::{detached, self_exec};

/// Long enough for a monitor that has nothing else to do, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Long enough for one that is starting its container.
const PATIENCE: Duration = Duration::from_secs(10);
/// Guards the moments in which a monitor's lock and its socket do not agree.
const TURN: &str = "turn";

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Names the executable that becomes the monitor: for programs that use this crate without calling
/// `engine::enter_monitor_if_asked` first thing in their own `main`. The first call counts.
pub fn monitor_program(program: &Path) {
    // A later call changes nothing, as said.
    let _ = PROGRAM.set(program.to_owned());
}

/// The executable that becomes a monitor: this one, unless another was named.
pub(crate) fn program() -> &'static Path {
    PROGRAM.get().map_or(Path::new("/proc/self/exe"), PathBuf::as_path)
}

/// Starts a monitor for a container that has none, or joins the one another command has just started. The container
/// starts when [`Connection::started`] or [`Connection::subscribe`] is called.
///
/// # Errors
/// When the system refuses a step.
pub fn spawn_monitor(root: &Root, id: &ContainerId) -> Result<Connection> {
    spawn_monitor_ahead(root, id, None)
}

/// As [`spawn_monitor`], for a container that is about to be made: until it is, its monitor makes this.
///
/// # Errors
/// As for [`spawn_monitor`].
pub fn spawn_monitor_ahead(root: &Root, id: &ContainerId, ahead: Option<Ahead>) -> Result<Connection> {
    let failed = |error| Error::failed(format!("start a monitor for container {}", id.short()), error);
    let (lock, listener) = match claim_anew(root, id).map_err(failed)? {
        Claim::Ours { lock, listener } => (lock, listener),
        Claim::Theirs(socket) => {
            let mut connection = Connection::new(root, id, socket);
            connection.joined = true;
            return Ok(connection);
        }
    };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| failed(error.into()))?;
    launch(root, id, [theirs.as_fd(), lock.file().as_fd(), listener.as_fd()], ahead).map_err(failed)?;
    Ok(Connection::new(root, id, ours))
}

/// The monitor of a container; `None` when none lives. One that is about to end is waited for.
///
/// # Errors
/// When it does not answer, or the system refuses a step.
pub fn connect(root: &Root, id: &ContainerId) -> Result<Option<Connection>> {
    let failed = |error| Error::failed(format!("reach the monitor of container {}", id.short()), error);
    let mut found = match dial(root, id) {
        Ok(socket) => Some(socket),
        Err(error) if !is_absent(&error) => return Err(failed(error)),
        Err(_) if !root.container_run(id).exists() => None,
        Err(_) => dial_in_turn(root, id).map_err(failed)?,
    };
    while let Some(socket) = found {
        let mut connection = Connection::new(root, id, socket);
        connection.asked_to_start = true;
        match is_answered(&mut connection) {
            Ok(true) => return Ok(Some(connection)),
            Ok(false) => return Err(silent(root, id)),
            // It closed its door on us: it is ending.
            Err(_) if connection.ended => found = dial_in_turn(root, id).map_err(failed)?,
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Kills the monitor of a container, and with it the container, whatever the two of them are doing. Returns when it
/// is gone; none at all is fine.
///
/// # Errors
/// When the system refuses a step.
pub fn kill_monitor(root: &Root, id: &ContainerId) -> Result<()> {
    let failed = |error: rustix::io::Errno| {
        Error::failed(format!("kill the monitor of container {}", id.short()), error)
    };
    let Some(monitor) = find_monitor(root, id) else { return Ok(()) };
    match pidfd_send_signal(&monitor, Signal::KILL) {
        Err(error) if error != rustix::io::Errno::SRCH => return Err(failed(error)),
        _ => {}
    }
    let mut ready = Ready::new();
    ready.add((), monitor.as_fd(), PollFlags::IN);
    ready.wait(None).map(|_| ()).map_err(|error| {
        Error::failed(format!("wait for the end of the monitor of container {}", id.short()), error)
    })
}

/// A monitor does nothing that takes long, so one that is silent for a second and stands still will stay so.
fn is_answered(connection: &mut Connection) -> Result<bool> {
    if connection.answers(AT_ONCE)? {
        return Ok(true);
    }
    let stands_still = find_monitor_pid(&connection.root, &connection.id).is_some_and(is_stopped);
    if stands_still { Ok(false) } else { connection.answers(PATIENCE) }
}

fn silent(root: &Root, id: &ContainerId) -> Error {
    let pid = find_monitor_pid(root, id);
    let process = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    let why = if pid.is_some_and(is_stopped) { "stands still" } else { "does not answer" };
    let hint = match pid {
        Some(pid) if is_stopped(pid) => {
            format!(
                "let it go on with: kill -CONT {pid}, or remove the container with: rengine rm -f {}",
                id.short()
            )
        }
        _ => format!("try again, or remove the container with: rengine rm -f {}", id.short()),
    };
    Error::new(Kind::Conflict, format!("the monitor of container {}{process} {why}", id.short()))
        .with_hint(hint)
}

fn find_monitor(root: &Root, id: &ContainerId) -> Option<OwnedFd> {
    let pid = Pid::from_raw(find_monitor_pid(root, id)?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // The number may have been given to another process meanwhile.
    is_monitor(pid.as_raw_pid(), root, id).then_some(pidfd)
}

/// The monitor among all processes, by its arguments: what listens on its socket was opened by another process, and
/// whoever stands still cannot be asked.
fn find_monitor_pid(root: &Root, id: &ContainerId) -> Option<i32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.find(|pid| is_monitor(*pid, root, id))
}

fn is_monitor(pid: i32, root: &Root, id: &ContainerId) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let expected = [ARGV0.as_bytes(), root.state().as_os_str().as_encoded_bytes(), id.as_str().as_bytes()];
    let mut arguments = arguments.split(|byte| *byte == 0);
    expected.iter().all(|expected| arguments.next() == Some(expected))
}

/// Whether a process was stopped by a signal or a tracer (proc(5), state T or t).
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

/// Who may become the monitor.
enum Claim {
    /// We: the lock is ours and somebody listens, even if not yet to what is said.
    Ours { lock: Lock, listener: UnixListener },
    /// Another command was faster.
    Theirs(OwnedFd),
}

/// A check may take away the run directory of a container that is not on record yet.
fn claim_anew(root: &Root, id: &ContainerId) -> io::Result<Claim> {
    store::private_directory(&root.container_run(id))?;
    match claim(root, id) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            store::private_directory(&root.container_run(id))?;
            claim(root, id)
        }
        claimed => claimed,
    }
}

fn claim(root: &Root, id: &ContainerId) -> io::Result<Claim> {
    loop {
        let turn = Lock::exclusive(&root.container_run(id).join(TURN))?;
        if let Some(lock) = Lock::try_exclusive(&root.monitor_lock(id))? {
            let socket = root.control_socket(id);
            store::remove_file(&socket)?;
            let listener = UnixListener::bind(&socket)?;
            return Ok(Claim::Ours { lock, listener });
        }
        match dial(root, id) {
            Ok(socket) => return Ok(Claim::Theirs(socket)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
        drop(turn);
        // The lock is held and nobody listens: the last monitor says its farewells, or a command removes the
        // container. The lock says when.
        drop(Lock::exclusive(&root.monitor_lock(id))?);
    }
}

/// A second look where the first one found nobody: another command may be between the lock and the socket, and a
/// monitor that ends takes its socket away before its lock.
fn dial_in_turn(root: &Root, id: &ContainerId) -> io::Result<Option<OwnedFd>> {
    loop {
        let turn = match Lock::exclusive(&root.container_run(id).join(TURN)) {
            // The container went away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            turn => turn?,
        };
        match dial(root, id) {
            Ok(socket) => return Ok(Some(socket)),
            Err(error) if !is_absent(&error) => return Err(error),
            Err(_) => {}
        }
        if Lock::try_exclusive(&root.monitor_lock(id))?.is_some() {
            return Ok(None);
        }
        drop(turn);
        drop(Lock::shared(&root.monitor_lock(id))?);
    }
}

fn dial(root: &Root, id: &ContainerId) -> io::Result<OwnedFd> {
    UnixStream::connect(root.control_socket(id)).map(OwnedFd::from)
}

/// Whether nobody listens: no socket, or one that a killed monitor left.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn launch(
    root: &Root,
    id: &ContainerId,
    [connection, lock, listener]: [BorrowedFd<'_>; 3],
    ahead: Option<Ahead>,
) -> io::Result<()> {
    let program = self_exec::read_only_program(program())?;
    let descriptors = [connection, lock, listener, program.as_fd()];
    let numbers = descriptors.map(|descriptor| descriptor.as_raw_fd().to_string());
    let mut args: Vec<&OsStr> = vec![root.state().as_os_str(), OsStr::new(id.as_str())];
    args.extend(numbers.iter().map(OsStr::new));
    args.extend(ahead.map(Ahead::word).map(OsStr::new));
    detached::spawn(program.as_fd(), ARGV0, &args, &descriptors)
}
