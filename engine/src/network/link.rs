//! Bridges and veth pairs, over rtnetlink. Nothing here knows who is attached or why.

use std::net::IpAddr;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::network::NetworkError;
use crate::network::endpoint::{Endpoint, EndpointAddress};

/// What is left to do for one link inside the container's network namespace. It travels from the host's side to
/// the container's over the launch handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideLink {
    /// The link's name there.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<EndpointAddress>,
    /// The gateways of the default routes that lead over this link: one per family at most.
    pub default_routes: Vec<IpAddr>,
}

/// Plugs one veth per endpoint: one end into the bridge, the other one straight into the network namespace of
/// this process, in one netlink batch.
///
/// # Errors
/// When a bridge or the process is gone, or the kernel refuses.
pub fn plug(endpoints: &[Endpoint], pid: Pid) -> Result<Vec<InsideLink>, NetworkError> {
    let _ = (endpoints, pid);
    Err(NetworkError::Unsupported("plugging links".to_owned()))
}

/// Configures the links of the calling thread's network namespace: loopback up, addresses, links up, default
/// routes. Without links it only brings up loopback.
///
/// # Errors
/// When the kernel refuses.
pub fn configure_inside(links: &[InsideLink]) -> Result<(), NetworkError> {
    let _ = links;
    Err(NetworkError::Unsupported("configuring links".to_owned()))
}
