//! Messages over TCP: each behind its length in two bytes (RFC 1035, 4.2.2). Never blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A connection and what is still to be read or written on it.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    received: Vec<u8>,
    waiting: Vec<u8>,
}

/// What may wait to be written before the other side has read it.
const MOST_WAITING: usize = 256 * 1024;
const LENGTH: usize = 2;

// === impl Stream ===

impl Stream {
    /// A connection that a client made.
    pub(super) fn accepted(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, received: Vec::new(), waiting: Vec::new() })
    }

    /// A connection to a server, which may still be under way.
    pub(super) fn connect(server: SocketAddr) -> io::Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Self { socket: TcpStream::from(socket), received: Vec::new(), waiting: Vec::new() })
    }

    /// Adds a message to what waits, and writes what can be written.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
        if self.waiting.len() > MOST_WAITING {
            return Err(ErrorKind::OutOfMemory.into());
        }
        self.waiting.extend_from_slice(&length.to_be_bytes());
        self.waiting.extend_from_slice(message);
        self.write()
    }

    /// Writes what can be written and reads what can be read, once. Returns the messages that are complete.
    ///
    /// # Errors
    /// When the other side has closed the connection, or it broke.
    pub(super) fn exchange(&mut self) -> io::Result<Vec<Vec<u8>>> {
        self.write()?;
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.received.extend_from_slice(&buffer[..length]),
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(std::iter::from_fn(|| self.take_message()).collect())
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> EventFlags {
        if self.waiting.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.socket.write(&self.waiting) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_message(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.received.split_at_checked(LENGTH)?;
        let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
        let message = rest.get(..length)?.to_vec();
        self.received.drain(..LENGTH + length);
        Some(message)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_later(error: &io::Error) -> bool {
    // A connection that is under way can be neither read nor written yet.
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}
