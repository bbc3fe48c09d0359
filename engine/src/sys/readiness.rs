//! Waiting for a descriptor among other tasks.
#![expect(unsafe_code, reason = "whoever lends a descriptor by number must keep it open")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime of this thread tell when something can be read from a descriptor.
pub(crate) fn of(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open and keeps its number until it is dropped, which the result does last.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
