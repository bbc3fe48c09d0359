//! A socket at an address of this host, which is the kernel's own test for a conflict with any other program.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// As many as the kernel allows (listen(2)).
const BACKLOG: i32 = i32::MAX;

/// A socket of this kind that listens there, or receives there when it is one of datagrams. One at an address of IPv6 is
/// of that family alone.
pub(crate) fn listen(place: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if place.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if place.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    let is_stream = kind == SocketType::STREAM;
    if is_stream {
        // A connection that lingers after its server has ended is no conflict; one that is being served shows when
        // listening.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &place)?;
    if is_stream {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}
