//! The conversation between a launching process and its child, over a socket pair that closes when the child
//! executes its program.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::container::failure::LaunchError;

/// What the child says. Descriptors travel beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Something is not as asked, but no reason to fail.
    Warning(String),
    /// The master side of its terminal comes with this.
    Terminal,
    /// Sockets opened in its network namespace come with this.
    Sockets,
    /// Everything is mounted; the network, and what else waits for the mounts, comes next.
    Mounted,
    /// It stands at its gate: whoever comes through it hears the rest.
    Waiting,
    /// It has a filter whose listener is this descriptor of its own, and waits until that was taken.
    Listener(RawFd),
    /// Everything is done but the last call; nothing more comes unless that fails.
    Executing,
    /// It gives up.
    Failed(LaunchError),
}

/// What the parent says.
#[derive(Debug)]
pub(crate) enum Order {
    /// The child's user ids mean something.
    Mapped,
    /// Its listener was taken.
    Taken,
    /// The host's side of its network is there; this is for [`Links::inside`](super::launch::Links::inside).
    Plugged(Vec<u8>),
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub(crate) struct ChildEnd(OwnedFd);

/// More than a child ever sends at once.
const MESSAGE: usize = 64 * 1024;
const FDS: usize = 16;

/// Both ends. One message is one packet, so none is ever read in part.
pub(crate) fn pair() -> Result<(ParentEnd, ChildEnd), Errno> {
    let (parent, child) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((ParentEnd(parent), ChildEnd(child)))
}

/// A socket at this path that a child can wait at until it is told to start.
pub(crate) fn gate(path: &Path) -> Result<OwnedFd, Errno> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

// === impl ParentEnd ===

impl ParentEnd {
    /// Comes to the gate at this path.
    pub(crate) fn connect(path: &Path) -> Result<Self, Errno> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// Sends an order. A child that is gone is found out by [`ParentEnd::receive`].
    pub(crate) fn send(&self, order: &Order) -> Result<(), Errno> {
        let (tag, bytes): (u8, &[u8]) = match order {
            Order::Mapped => (b'm', &[]),
            Order::Taken => (b't', &[]),
            Order::Plugged(message) => (b'n', message),
        };
        match send(&self.0, &[&[tag], bytes], &[]) {
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            other => other,
        }
    }

    /// Says nothing more: a child that waits for an order learns that none will come.
    pub(crate) fn close(&self) -> Result<(), Errno> {
        rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write)
    }

    /// The next report with its descriptors; `None` once the child's end is closed.
    pub(crate) fn receive(&self) -> Result<Option<(Report, Vec<OwnedFd>)>, Errno> {
        let (bytes, fds) = match receive(&self.0) {
            // The child closed its end without reading every order. That is said once, before what it wrote.
            Err(Errno::CONNRESET) => receive(&self.0)?,
            other => other?,
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        let report = serde_json::from_slice(&bytes).map_err(|_| Errno::BADMSG)?;
        Ok(Some((report, fds)))
    }
}

// === impl ChildEnd ===

impl ChildEnd {
    /// Waits at this listening socket for whoever comes first.
    pub(crate) fn accept(gate: BorrowedFd<'_>) -> Result<Self, Errno> {
        retry(|| rustix::net::accept_with(gate, SocketFlags::CLOEXEC)).map(Self)
    }

    /// Sends a report.
    pub(crate) fn send(&self, report: &Report, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(report).map_err(|_| Errno::BADMSG)?;
        send(&self.0, &[&bytes], fds)
    }

    /// Sends a warning. A parent that is gone needs none.
    pub(crate) fn warn(&self, text: String) {
        let _ = self.send(&Report::Warning(text), &[]);
    }

    /// Says why the child ends. Returns the exit code that it ends with.
    pub(crate) fn give_up(&self, failure: LaunchError) -> i32 {
        let code = failure.exit_code();
        // A parent that is gone needs no reason.
        let _ = self.send(&Report::Failed(failure), &[]);
        code
    }

    /// Waits for the next order; `None` when the parent is gone.
    pub(crate) fn receive(&self) -> Result<Option<Order>, Errno> {
        let (bytes, _) = receive(&self.0)?;
        match bytes.split_first() {
            Some((b'm', _)) => Ok(Some(Order::Mapped)),
            Some((b't', _)) => Ok(Some(Order::Taken)),
            Some((b'n', message)) => Ok(Some(Order::Plugged(message.to_vec()))),
            Some(_) => Err(Errno::BADMSG),
            None => Ok(None),
        }
    }

    /// Tells where the listener of this process's filter is, and waits until it was taken. The filter holds already: this
    /// is done by write(2), which no filter may ask the listener about, and read(2).
    pub(crate) fn hand_over_listener(&self, listener: &OwnedFd) -> Result<(), Errno> {
        let report = Report::Listener(listener.as_raw_fd());
        let bytes = serde_json::to_vec(&report).map_err(|_| Errno::BADMSG)?;
        retry(|| rustix::io::write(&self.0, &bytes))?;
        let mut order = [0; 1];
        loop {
            match retry(|| rustix::io::read(&self.0, &mut order))? {
                0 => return Err(Errno::PIPE),
                _ if order == *b"t" => return Ok(()),
                // Who joins a container waits for no other order, and finds those here.
                _ => {}
            }
        }
    }

    /// Whether the parent has gone.
    pub(crate) fn is_orphaned(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec};
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let polled = rustix::event::poll(&mut fds, Some(&now));
        polled.is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }
}

impl AsFd for ChildEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn send(socket: &OwnedFd, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    retry(|| rustix::net::sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL)).map(|_| ())
}

fn receive(socket: &OwnedFd) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut bytes = vec![0; MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry(|| {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    bytes.truncate(received.bytes);
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((bytes, fds))
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_carry_descriptors_and_end_with_the_child() {
        let (parent, child) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        child.send(&Report::Terminal, &[writer.as_fd()]).unwrap();
        drop(writer);
        let (report, fds) = parent.receive().unwrap().unwrap();
        assert!(matches!(report, Report::Terminal));
        rustix::io::write(&fds[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
        parent.send(&Order::Plugged(b"links".to_vec())).unwrap();
        assert!(matches!(child.receive().unwrap(), Some(Order::Plugged(m)) if m == b"links"));
        assert!(!child.is_orphaned());
        drop(child);
        assert!(parent.receive().unwrap().is_none());
        parent.send(&Order::Mapped).unwrap();
    }

    #[test]
    fn the_last_words_of_a_child_that_did_not_listen_are_heard() {
        let (parent, child) = pair().unwrap();
        parent.send(&Order::Mapped).unwrap();
        child.send(&Report::Executing, &[]).unwrap();
        drop(child);
        assert!(matches!(parent.receive().unwrap(), Some((Report::Executing, _))));
        assert!(parent.receive().unwrap().is_none());
    }

    #[test]
    fn a_child_knows_that_its_parent_is_gone() {
        let (parent, child) = pair().unwrap();
        drop(parent);
        assert!(child.is_orphaned());
        assert!(child.receive().unwrap().is_none());
    }
}
