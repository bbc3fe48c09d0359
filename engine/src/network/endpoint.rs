//! A container's place in a network: its addresses and the names it answers to there, as one file in the run
//! directory of the network. These files are the truth that addresses, names and published ports are read from.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, ContainerName, NetworkId, NetworkName};
use crate::network::options::Driver;

/// Who is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The container.
    pub container: ContainerId,
    /// Its name, which resolves on every user network it is attached to.
    pub name: ContainerName,
    /// Its host name when one was asked for, which resolves as well.
    pub hostname: Option<String>,
    /// Whether nobody finds it by its names yet, because another container still answers to them.
    #[serde(default)]
    pub held: bool,
}

/// A live attachment of a container to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The form of this record.
    pub version: u32,
    /// The network.
    pub network: NetworkId,
    /// The network's name.
    pub network_name: NetworkName,
    /// The container.
    pub party: Party,
    /// Further names it answers to in this network.
    pub aliases: Vec<String>,
    /// The name of the link inside the container.
    pub interface: String,
    /// The link's hardware address, `02:42:ac:11:00:02`.
    pub mac_address: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<EndpointAddress>,
    /// Further addresses that are good on the link alone.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// The attachment with the highest one gives the default route.
    pub gateway_priority: i32,
    /// Whether the network has no way out.
    pub internal: bool,
    /// Whether members of the network are kept from one another.
    pub isolated: bool,
    /// Whether names are resolved on this network: every network but the default one.
    pub resolves: bool,
    /// The bridge on the host, or the link of the host that it is on.
    pub bridge: String,
    /// What makes the link.
    #[serde(default)]
    pub(crate) driver: Driver,
    /// Where its ports are published when they name no address of the host; everywhere when `None`.
    #[serde(default)]
    pub(crate) host_binding: Option<IpAddr>,
    /// Bytes a frame may carry; the kernel's default when `None`.
    pub mtu: Option<u32>,
    /// Which of the container's links it is, where the name does not tell.
    #[serde(default)]
    pub(crate) place: Option<u32>,
    /// Kernel parameters of the link, by their paths below /proc/sys.
    #[serde(default)]
    pub(crate) sysctls: Vec<(String, String)>,
}

/// One address of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointAddress {
    /// The address.
    pub address: IpAddr,
    /// The length of the subnet's prefix.
    pub prefix: u8,
    /// The way out of the subnet, when there is one.
    pub gateway: Option<IpAddr>,
}

// === impl Endpoint ===

impl Endpoint {
    /// Its IPv4 address.
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.addresses.iter().map(|entry| entry.address).find(IpAddr::is_ipv4)
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.addresses.iter().map(|entry| entry.address).find(IpAddr::is_ipv6)
    }

    /// Whether the host can lead packets to it: neither an internal network nor a link beside the host's lets it.
    pub fn is_reached_by_host(&self) -> bool {
        !self.internal && self.driver == Driver::Bridge
    }

    /// Which of the container's links it is, by the number behind its name unless it has a name of its own: attachments
    /// are in its order.
    pub(crate) fn number(&self) -> u32 {
        if let Some(place) = self.place {
            return place;
        }
        let digits = self.interface.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        digits
            .rsplit(|letter: char| !letter.is_ascii_digit())
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    }

    /// Every name it answers to in this network.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [self.party.name.as_str(), self.party.container.short()]
            .into_iter()
            .chain(self.party.hostname.as_deref())
            .chain(self.aliases.iter().map(String::as_str))
    }
}
