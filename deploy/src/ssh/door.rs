//! A socket on a server that leads to one of this machine, over the connection that is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssh::{ForwardType, Socket};

use super::failure::SshError;
use super::line::runtime;
use super::pipes::local;
use super::session::{Session, quoted, random};

/// A socket on a server that leads to one of this machine. Dropped, it is taken away.
#[derive(Debug)]
pub struct Door {
    session: Arc<Session>,
    there: String,
    here: PathBuf,
}

// === impl Door ===

impl Door {
    /// Opens one where only the user who is logged in and root there get in.
    ///
    /// # Errors
    /// When the server does not allow it.
    pub fn open(session: Arc<Session>, here: &Path) -> Result<Self, SshError> {
        let there = format!("/tmp/rdeploy-{}", random().map_err(local("draw a random number"))?);
        let door = Self { session, there, here: here.to_owned() };
        let runtime = runtime().map_err(local("start the client"))?;
        let (outer, inner) = door.ends();
        let line = door.session.line();
        runtime.block_on(line.remote.request_port_forward(ForwardType::Remote, outer, inner)).map_err(
            |error| {
                let at = door.session.address().to_owned();
                if line.goes_down() { line.failure(&at, &error) } else { SshError::SocketRefused { at } }
            },
        )?;
        Ok(door)
    }

    /// Where it is on the server.
    pub fn there(&self) -> &str {
        &self.there
    }

    fn ends(&self) -> (Socket<'_>, Socket<'_>) {
        let socket = |path: &'_ Path| Socket::UnixSocket { path: path.to_owned().into() };
        (socket(Path::new(&self.there)), socket(&self.here))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // A connection that is lost has closed it, and sshd leaves the file of the socket behind either way.
        if let Ok(runtime) = runtime() {
            let (outer, inner) = self.ends();
            let remote = &self.session.line().remote;
            let _ = runtime.block_on(remote.close_port_forward(ForwardType::Remote, outer, inner));
        }
        let _ = self.session.run(&format!("rm -f {}", quoted(&self.there)), b"");
    }
}
