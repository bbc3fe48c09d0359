//! Ports of the host that lead into the namespaces of a user's engine, and the verbs for them. Nothing on the way has a
//! port of its own: a socket that was made on the host stays one of the host's wherever its descriptor goes, so the
//! *outpost* makes it there, and the *porter* takes what comes in by it to the port of the same number inside.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketType;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::paths::{self, RootlessRun};

/// A port of the host that leads into the network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Door {
    /// What goes through.
    pub(crate) transport: Transport,
    /// The address of the host; the unspecified one is every one of its family.
    pub(crate) host: IpAddr,
    /// The port, on both sides.
    pub(crate) port: u16,
}

/// What can be carried from one namespace to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// What the porter is asked for: to shut the doors that were and shall not be any more, and to open those that were not.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) before: Vec<Door>,
    pub(super) now: Vec<Door>,
}

/// What the porter answers: the door that cannot be opened and the number of the kernel's error, if there is one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Changed {
    pub(super) refused: Option<(Door, i32)>,
}

/// The address of the network namespace that stands for all those of the host of IPv6: translation of ::1, which never
/// leaves its link, does not exist. It is one of a unique local range (RFC 4193) drawn for this purpose.
pub(super) const HERE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd2e, 0x7265, 0x6e67, 1, 0, 0, 0, 1);
/// Long enough for an answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Changes which doors are open. Those of others are left alone.
///
/// # Errors
/// When a port of the host cannot be had, which is named; the others may be open then.
pub(crate) fn change(before: &[Door], now: &[Door]) -> Result<()> {
    if before.is_empty() && now.is_empty() {
        return Ok(());
    }
    let change = Change { before: before.to_vec(), now: now.to_vec() };
    let changed: Changed = ask(&inside().porter(), &change)
        .map_err(|error| Error::failed("ask the porter of the user's engine", error))?;
    changed.refused.map_or(Ok(()), |(door, errno)| Err(door.refused(Errno::from_raw_os_error(errno))))
}

/// Where what comes in for an address of the host comes in inside. Each address of IPv4 has one of its own, as far as
/// its lower bits tell it from others.
pub(crate) fn entrance(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(host) if host.is_unspecified() || host.is_loopback() => host.into(),
        IpAddr::V4(host) => {
            let [_, second, third, fourth] = host.octets();
            Ipv4Addr::new(127, second | 128, third, fourth).into()
        }
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Writes a request to a socket and reads the answer.
pub(super) fn ask<T: DeserializeOwned>(socket: &Path, request: &impl Serialize) -> io::Result<T> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&serde_json::to_vec(request)?)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

pub(super) fn inside() -> RootlessRun {
    RootlessRun::at(paths::ROOTLESS_INSIDE.into())
}

// === impl Door ===

impl Door {
    /// Where the host listens.
    pub(super) fn outside(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Where it leads: the firewall of the network namespace knows whose the port is.
    pub(super) fn target(&self) -> SocketAddr {
        let address = match entrance(self.host) {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => HERE_IPV6.into(),
            IpAddr::V4(address) => address.into(),
        };
        SocketAddr::new(address, self.port)
    }

    fn refused(&self, errno: Errno) -> Error {
        let why = match errno {
            Errno::ACCESS => {
                "ordinary users get those from net.ipv4.ip_unprivileged_port_start on, 1024 unless changed"
            }
            Errno::ADDRINUSE => "another program listens there",
            Errno::ADDRNOTAVAIL => "the address is none of this host",
            _ => "the host refuses",
        };
        Error::conflict(format!("the port {self} of the host cannot be had: {why}"))
            .with_source(io::Error::from(errno))
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{}/{transport}", self.outside())
    }
}

// === impl Transport ===

impl Transport {
    pub(super) fn kind(self) -> SocketType {
        match self {
            Self::Tcp => SocketType::STREAM,
            Self::Udp => SocketType::DGRAM,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_the_host_has_an_entrance() {
        for (host, entrance_of, target) in [
            ("0.0.0.0", "0.0.0.0", "127.0.0.1:80"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1:80"),
            ("127.0.0.2", "127.0.0.2", "127.0.0.2:80"),
            ("10.0.0.1", "127.128.0.1", "127.128.0.1:80"),
            ("192.168.1.5", "127.168.1.5", "127.168.1.5:80"),
            ("::", "::", "[fd2e:7265:6e67:1::1]:80"),
            ("::1", "::", "[fd2e:7265:6e67:1::1]:80"),
        ] {
            let host: IpAddr = host.parse().unwrap();
            assert_eq!(entrance(host), entrance_of.parse::<IpAddr>().unwrap(), "{host}");
            let door = Door { transport: Transport::Tcp, host, port: 80 };
            assert_eq!(door.target(), target.parse().unwrap(), "{host}");
        }
    }
}
