//! Finding a container's monitor, or starting one.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::container::client::Connection;
use crate::container::monitor::ARGV0;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::paths::Root;
use crate::store::{self, Lock};
use crate::sys::self_exec;

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
    let failed = |error| Error::failed(format!("start a monitor for container {}", id.short()), error);
    store::private_directory(&root.container_run(id)).map_err(failed)?;
    let (lock, listener) = match claim(root, id).map_err(failed)? {
        Claim::Ours { lock, listener } => (lock, listener),
        Claim::Theirs(socket) => {
            let mut connection = Connection::new(root, id, socket);
            connection.joined = true;
            return Ok(connection);
        }
    };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| failed(error.into()))?;
    launch(root, id, &theirs, &lock, &listener).map_err(failed)?;
    Ok(Connection::new(root, id, ours))
}

/// The monitor of a container; `None` when none lives. One that is about to end is waited for.
///
/// # Errors
/// When the system refuses a step.
pub fn connect(root: &Root, id: &ContainerId) -> Result<Option<Connection>> {
    let failed = |error| Error::failed(format!("reach the monitor of container {}", id.short()), error);
    let socket = match dial(root, id) {
        Ok(socket) => Some(socket),
        Err(error) if !is_absent(&error) => return Err(failed(error)),
        Err(_) if !root.container_run(id).exists() => None,
        Err(_) => dial_in_turn(root, id).map_err(failed)?,
    };
    Ok(socket.map(|socket| {
        let mut connection = Connection::new(root, id, socket);
        connection.asked_to_start = true;
        connection
    }))
}

/// Who may become the monitor.
enum Claim {
    /// We: the lock is ours and somebody listens, even if not yet to what is said.
    Ours { lock: Lock, listener: UnixListener },
    /// Another command was faster.
    Theirs(OwnedFd),
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
    connection: &OwnedFd,
    lock: &Lock,
    listener: &UnixListener,
) -> io::Result<()> {
    let program = self_exec::read_only_program(program())?;
    let descriptors = [connection.as_fd(), lock.file().as_fd(), listener.as_fd()];
    let numbers = descriptors.map(|descriptor| descriptor.as_raw_fd().to_string());
    let mut args: Vec<&OsStr> = vec![root.state().as_os_str(), OsStr::new(id.as_str())];
    args.extend(numbers.iter().map(OsStr::new));
    self_exec::spawn_detached(program.as_fd(), ARGV0, &args, &descriptors)
}
