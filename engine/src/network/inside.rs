//! Work inside the network namespace of a container that runs already, done by a process of the host that returns.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use crate::network::link::{self, InsideLink};
use crate::network::{Endpoint, NetworkError};

/// Does something in the network namespace of a process, given by its pidfd (setns(2)), and comes back. What is
/// opened there stays there: a socket belongs to the namespace it was made in.
///
/// # Errors
/// When the process has ended, or what is done there fails.
pub fn visit<T>(
    process: impl AsFd,
    act: impl FnOnce() -> Result<T, NetworkError>,
) -> Result<T, NetworkError> {
    let failed = |step| {
        move |errno: rustix::io::Errno| NetworkError::Link {
            step,
            object: "network namespace".to_owned(),
            source: io::Error::from(errno),
        }
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own: OwnedFd = rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())
        .map_err(failed("open the host's"))?;
    move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::NETWORK)
        .map_err(failed("enter the container's"))?;
    let done = act();
    // This thread came from there and holds it: only a lack of memory could keep it from going back.
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(failed("return to the host's"))?;
    done
}

/// Removes the link of an attachment from the network namespace of the calling thread, and leads the default routes
/// over those that remain. A link that is gone is fine.
///
/// # Errors
/// When the kernel refuses.
pub fn forget_link(gone: &Endpoint, remaining: &[Endpoint]) -> Result<(), NetworkError> {
    link::remove(&gone.interface)?;
    let links: Vec<InsideLink> = link::inside_links(remaining);
    link::route_over(&links)
}
