//! `RUN --mount=type=ssh`: a socket inside the container that leads to an SSH agent of ours. No key passes it.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::mount::Mount;
use crate::store::scratch::Scratch;

/// The id of the agent that SSH_AUTH_SOCK names.
pub(crate) const DEFAULT: &str = "default";

/// A socket that leads to an agent, as long as it lives.
pub(crate) struct Door {
    room: Scratch,
    closed: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

// === impl Door ===

impl Door {
    /// Makes a socket in this directory for whoever the mount is for.
    pub(crate) fn open(directory: &Path, agent: &Path, mount: &Mount) -> io::Result<Self> {
        // An agent that is not there should be known of now, not by what ssh makes of it.
        drop(UnixStream::connect(agent)?);
        let room = Scratch::directory_in(directory)?;
        let path = room.path().join("agent");
        let socket = UnixListener::bind(&path)?;
        chown(&path, Some(mount.uid.unwrap_or(0)), Some(mount.gid.unwrap_or(0)))?;
        fs::set_permissions(&path, Permissions::from_mode(mount.mode.unwrap_or(0o600)))?;
        let closed = Arc::new(AtomicBool::new(false));
        let (agent, is_closed) = (agent.to_owned(), closed.clone());
        let listener = std::thread::spawn(move || {
            for visitor in socket.incoming() {
                if is_closed.load(Ordering::Acquire) {
                    break;
                }
                if let (Ok(visitor), Ok(agent)) = (visitor, UnixStream::connect(&agent)) {
                    // A conversation that breaks off is its parties' business.
                    let _ = lead(visitor, agent);
                }
            }
        });
        Ok(Self { room, closed, listener: Some(listener) })
    }

    /// Where the socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.room.path().join("agent")
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        // The listener waits for visitors: one more makes it look.
        let woken = UnixStream::connect(self.socket()).is_ok();
        if let Some(listener) = self.listener.take().filter(|_| woken) {
            let _ = listener.join();
        }
    }
}

/// Passes bytes on in both directions, each on a thread of its own, until both ends are done.
fn lead(visitor: UnixStream, agent: UnixStream) -> io::Result<()> {
    for (mut from, mut to) in [(visitor.try_clone()?, agent.try_clone()?), (agent, visitor)] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to).and_then(|_| to.flush());
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_asked_at_the_door_is_answered_by_the_agent() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("real");
        let real = UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || {
            // The first visitor only sees whether somebody is at home.
            drop(real.accept().unwrap());
            let (mut stream, _) = real.accept().unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).unwrap();
            stream.write_all(asked.to_uppercase().as_bytes()).unwrap();
        });
        let mount = Mount { mode: Some(0o640), ..Mount::default() };
        let door = Door::open(temp.path(), &path, &mount).unwrap();
        assert_eq!(fs::metadata(door.socket()).unwrap().permissions().mode() & 0o777, 0o640);
        let mut visitor = UnixStream::connect(door.socket()).unwrap();
        visitor.write_all(b"keys?").unwrap();
        visitor.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        visitor.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "KEYS?");
        agent.join().unwrap();
        let socket = door.socket();
        drop(door);
        assert!(!socket.exists());
    }
}
