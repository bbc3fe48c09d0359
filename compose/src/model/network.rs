//! Networks, how a service is attached to them, and the ports it publishes.

use std::collections::BTreeMap;

use engine::container::spec::Protocol;
use serde::{Deserialize, Serialize};

use super::form;
use super::form::is_default;

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// A free name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Option<String>,
    /// `ingress` or `host`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Option<String>,
    /// The address of the host; every one when `None`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_ip: Option<String>,
    /// The port in the container.
    pub target: u16,
    /// The port of the host, or a range of which one is taken; any free one when `None`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub published: Option<String>,
    /// Its protocol.
    #[serde(default = "form::tcp")]
    pub protocol: Protocol,
    /// The protocol spoken on it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub app_protocol: Option<String>,
}

/// How a service is attached to one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceNetwork {
    /// Further names it answers to there.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// The attachment with the highest one gives the default route.
    #[serde(skip_serializing_if = "is_default")]
    pub gw_priority: i32,
    /// The name of the interface.
    #[serde(skip_serializing_if = "is_default")]
    pub interface_name: Option<String>,
    /// The address wanted.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv4_address: Option<String>,
    /// The address wanted.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6_address: Option<String>,
    /// Link-local addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub link_local_ips: Vec<String>,
    /// The hardware address.
    #[serde(skip_serializing_if = "is_default")]
    pub mac_address: Option<String>,
    /// Networks are attached in descending order of it.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its real name, `<project>_<key>` unless given.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Its driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// Its addresses.
    pub ipam: Ipam,
    /// Whether it must exist already.
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    /// Whether nothing outside can be reached from it.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// Whether single containers may join it.
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    /// Its labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Whether it has IPv4; yes when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_ipv4: Option<bool>,
    /// Whether it has IPv6; no when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_ipv6: Option<bool>,
}

/// The addresses of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// Who hands them out.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// From which pools.
    #[serde(skip_serializing_if = "is_default")]
    pub config: Vec<IpamPool>,
    /// Options of the driver.
    #[serde(skip_serializing)]
    pub options: BTreeMap<String, String>,
}

/// A pool of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpamPool {
    /// `address/prefix`.
    #[serde(skip_serializing_if = "is_default")]
    pub subnet: Option<String>,
    /// The bridge's own address.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: Option<String>,
    /// The part containers get addresses from.
    #[serde(skip_serializing_if = "is_default")]
    pub ip_range: Option<String>,
    /// Addresses that are taken, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub aux_addresses: BTreeMap<String, String>,
}

// === impl Port ===

impl Port {
    /// The candidates on the host, first and last; any free port when `None`.
    pub fn published_range(&self) -> Option<(u16, u16)> {
        let text = self.published.as_deref().filter(|text| !text.is_empty())?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse().ok()?, last.parse().ok()?) {
            (0, 0) => None,
            range => Some(range),
        }
    }
}
