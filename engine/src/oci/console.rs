//! The engine's side of a container's terminal: handed to whoever asked for it, or carried to the caller's own.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::container::terminal::{self, RawMode};
use crate::error::{Error, Result};
use crate::sys::notice::Notices;
use crate::sys::pidfd;

/// Sends the master side of a terminal to the socket at this path, with its name as the message.
pub(super) fn send(socket: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", master.as_raw_fd())).unwrap_or_default();
    send_descriptor(socket, master, name.as_os_str().as_encoded_bytes()).map_err(|error| {
        Error::failed(format!("send the terminal to {}", socket.display()), io::Error::from(error))
    })
}

/// Sends a descriptor to the socket at this path, with a message.
pub(super) fn send_descriptor(
    socket: &Path,
    descriptor: BorrowedFd<'_>,
    message: &[u8],
) -> Result<(), Errno> {
    let connection =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&connection, &SocketAddrUnix::new(socket)?)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let slices = [io::IoSlice::new(message)];
    rustix::net::sendmsg(&connection, &slices, &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Signals that are not the container's business.
const OWN: [i32; 8] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGTTOU,
    libc::SIGTTIN,
];

/// Stays with a process until it ends: passes signals on to it, and carries its terminal to this process's own.
pub(super) struct Attendance {
    notices: Notices,
    master: Option<OwnedFd>,
    _raw: Option<RawMode>,
}

// === impl Attendance ===

impl Attendance {
    /// Signals are caught from now on, so that none is lost before there is a process.
    pub(super) fn begin() -> Result<Self> {
        let mut caught: Vec<i32> = (1..32).filter(|signal| !OWN.contains(signal)).collect();
        caught.push(libc::SIGWINCH);
        let notices = Notices::of(&caught).map_err(|error| Error::failed("catch signals", error))?;
        Ok(Self { notices, master: None, _raw: None })
    }

    /// Carries this terminal from now on.
    pub(super) fn carry(&mut self, master: OwnedFd) -> Result<()> {
        let failed = |error| Error::failed("use the terminal", error);
        self._raw = RawMode::enter(io::stdin()).map_err(failed)?;
        self.master = Some(master);
        self.resize();
        Ok(())
    }

    fn resize(&self) {
        if let (Some(master), Some(size)) = (&self.master, terminal::size_of(io::stdin().as_fd())) {
            // A terminal that has ended has no size any more.
            let _ = terminal::resize(master.as_fd(), size);
        }
    }

    /// Until the process has ended, and what it wrote is carried over.
    pub(super) fn until_end_of(mut self, process: BorrowedFd<'_>) -> Result<()> {
        let mut input = self.master.is_some();
        loop {
            let (ended, typed, written) = self.wait(process, input)?;
            for signal in self.notices.take() {
                if signal == libc::SIGWINCH {
                    self.resize();
                } else {
                    // One that has ended meanwhile does not mind.
                    let _ = pidfd::send_signal(process, signal);
                }
            }
            if typed && let Some(master) = &self.master {
                input = copy(io::stdin().as_fd(), master.as_fd());
            }
            let mut more = false;
            if (written || ended)
                && let Some(master) = &self.master
            {
                more = copy(master.as_fd(), io::stdout().as_fd());
                if !more {
                    self.master = None;
                    input = false;
                }
            }
            if ended && !more {
                return Ok(());
            }
        }
    }

    /// Whether the process has ended, something was typed, and something was written.
    fn wait(&self, process: BorrowedFd<'_>, input: bool) -> Result<(bool, bool, bool)> {
        let stdin = io::stdin();
        let mut waited = vec![
            PollFd::from_borrowed_fd(process, PollFlags::IN),
            PollFd::from_borrowed_fd(self.notices.descriptor(), PollFlags::IN),
        ];
        if let Some(master) = &self.master {
            waited.push(PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN));
            if input {
                waited.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            }
        }
        loop {
            match poll(&mut waited, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::failed("wait for the process", io::Error::from(error))),
                Ok(_) => {
                    let ready = |index: usize| waited.get(index).is_some_and(|fd| !fd.revents().is_empty());
                    return Ok((ready(0), ready(3), ready(2)));
                }
            }
        }
    }
}

/// Copies what is there; whether there may be more.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut bytes = [0; 4096];
    match rustix::io::read(from, &mut bytes) {
        Ok(0) => false,
        Ok(length) => {
            let mut rest = &bytes[..length];
            while !rest.is_empty() {
                match rustix::io::write(to, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::INTR) => {}
                    Err(_) => return false,
                }
            }
            true
        }
        Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => false,
    }
}
