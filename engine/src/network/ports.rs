//! Published ports: who claims which port of the host, and where it leads. Conflicts are found before anything
//! is changed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::container::spec::ContainerPort;

/// A port of the host that leads to a port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The address of the host it is published on; `0.0.0.0` and `::` are every one of that family.
    pub host_ip: IpAddr,
    /// The port of the host.
    pub host_port: u16,
    /// The port of the container.
    pub container: ContainerPort,
    /// Where it leads: the container's address and port.
    pub target: SocketAddr,
}

impl fmt::Display for PublishedPort {
    /// As tables print it: `0.0.0.0:8080->80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = SocketAddr::new(self.host_ip, self.host_port);
        write!(f, "{host}->{}", self.container)
    }
}
