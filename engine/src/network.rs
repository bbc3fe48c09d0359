//! Networks: bridges, addresses, names and published ports of one root. Kernel objects are made over netlink and
//! named after the root, so that two roots never meet; what is attached is told by files in the run directory.

pub mod cidr;
pub mod dns;
pub mod endpoint;
pub mod link;
pub mod ports;
pub mod resolv;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::cidr::Cidr;
pub use self::dns::{DnsSockets, Resolver, open_dns_sockets};
pub use self::endpoint::{Endpoint, EndpointAddress, Party};
pub use self::link::{InsideLink, configure_inside, plug};
pub use self::ports::PublishedPort;
pub use self::resolv::{render_hostname, render_hosts, render_resolv_conf};

use crate::container::spec::{NetworkAttachment, PortBinding};
use crate::error::{Error, Kind};
use crate::id::{ContainerId, ContainerName, NetworkId, NetworkName};
use crate::paths::Root;

/// The name of the network a container is attached to when it names none.
pub const DEFAULT_NETWORK: &str = "bridge";

/// The networks of one root.
#[derive(Debug, Clone)]
pub struct Networks {
    root: Root,
}

/// A network as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name.
    pub name: NetworkName,
    /// `bridge`; no other driver makes networks.
    pub driver: String,
    /// Whether it has no way out and no way in.
    pub internal: bool,
    /// Whether its members get IPv6 addresses too.
    pub ipv6: bool,
    /// Its subnets, one per family; chosen when a family has none.
    pub subnets: Vec<Subnet>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options under docker's names: `com.docker.network.driver.mtu`, `…bridge.enable_icc`,
    /// `…bridge.enable_ip_masquerade`, `…bridge.name`.
    pub options: BTreeMap<String, String>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its range.
    pub cidr: Cidr,
    /// The host's address in it; the first one when `None`.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The part of it that addresses are taken from; all of it when `None`.
    #[serde(default)]
    pub ip_range: Option<Cidr>,
    /// Addresses that are never given, by the name of what has them.
    #[serde(default)]
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// A network that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its identity.
    pub id: NetworkId,
    /// When it was made.
    pub created: Timestamp,
    /// What was asked for, with every subnet and gateway decided.
    pub spec: NetworkSpec,
    /// The name of its bridge on the host; empty for `host` and `none`.
    pub bridge: String,
}

/// Why a verb of this room failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No such network.
    #[error("network {0} not found")]
    NotFound(String),
    /// Taken, in use or ambiguous.
    #[error("{0}")]
    Conflict(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// This engine cannot do it.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A record could not be read or written.
    #[error("{step} {object}")]
    File {
        /// What was being done.
        step: &'static str,
        /// To which file.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("{step} {object}")]
    Link {
        /// What was being done.
        step: &'static str,
        /// To which link.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused a change of the firewall.
    #[error("{step} in the firewall table {table}")]
    Firewall {
        /// What was being done.
        step: &'static str,
        /// Whose table.
        table: String,
        /// Why not.
        source: io::Error,
    },
    /// The name server could not be set up.
    #[error("name server: {step}")]
    Dns {
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
}

// === impl Networks ===

impl Networks {
    /// The networks of this root.
    pub fn at(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// Makes a network: its record and its bridge.
    ///
    /// # Errors
    /// When the name is taken, a subnet overlaps with something that exists, or no subnet is left.
    pub fn create(&self, spec: NetworkSpec) -> Result<Network, NetworkError> {
        let _ = (&self.root, &spec);
        Err(NetworkError::Unsupported(format!("creating the network {}", spec.name)))
    }

    /// Removes a network that nobody is attached to.
    ///
    /// # Errors
    /// When containers are attached, which it names, or the network is one of the three built-in ones.
    pub fn remove(&self, id: &NetworkId) -> Result<(), NetworkError> {
        Err(NetworkError::NotFound(id.to_string()))
    }

    /// Every network by name, `bridge`, `host` and `none` included.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn list(&self) -> Result<Vec<Network>, NetworkError> {
        Ok(Vec::new())
    }

    /// The network with this name, id or unambiguous prefix of an id.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, name_or_id: &str) -> Result<Network, NetworkError> {
        Err(NetworkError::NotFound(name_or_id.to_owned()))
    }

    /// Removes the networks that nobody is attached to and that the caller does not want to keep, which are those
    /// that stopped containers name. Returns what was removed.
    ///
    /// # Errors
    /// When a record cannot be read or removed.
    pub fn prune(&self, keep: &dyn Fn(&Network) -> bool) -> Result<Vec<Network>, NetworkError> {
        let _ = keep;
        Ok(Vec::new())
    }

    /// Who is attached to a network now.
    ///
    /// # Errors
    /// When an endpoint's record cannot be read.
    pub fn members(&self, id: &NetworkId) -> Result<Vec<Endpoint>, NetworkError> {
        let _ = id;
        Ok(Vec::new())
    }

    /// Where a container is attached now, in the order `eth0`, `eth1`, ….
    ///
    /// # Errors
    /// When an endpoint's record cannot be read.
    pub fn endpoints(&self, container: &ContainerId) -> Result<Vec<Endpoint>, NetworkError> {
        let _ = container;
        Ok(Vec::new())
    }

    /// Attaches a container: bridges up, addresses allocated, names known. No attachment at all means the default
    /// network. What is attached already keeps its addresses. Nothing stays attached on failure.
    ///
    /// # Errors
    /// When a network does not exist, or has no address left, or not the one that was asked for.
    pub fn attach(
        &self,
        party: &Party,
        attachments: &[NetworkAttachment],
    ) -> Result<Vec<Endpoint>, NetworkError> {
        let _ = (party, attachments);
        Err(NetworkError::Unsupported("attaching".to_owned()))
    }

    /// Gives an attached container another name.
    ///
    /// # Errors
    /// When an endpoint's record cannot be written.
    pub fn rename(&self, container: &ContainerId, name: &ContainerName) -> Result<(), NetworkError> {
        let _ = (container, name);
        Ok(())
    }

    /// Publishes ports of an attached container, all or none, in one transaction. Replaces what it had published.
    ///
    /// # Errors
    /// When a port is taken, naming by whom.
    pub fn publish(
        &self,
        container: &ContainerId,
        bindings: &[PortBinding],
        endpoints: &[Endpoint],
    ) -> Result<Vec<PublishedPort>, NetworkError> {
        let _ = (container, bindings, endpoints);
        Err(NetworkError::Unsupported("publishing ports".to_owned()))
    }

    /// The ports a container has published now.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn published(&self, container: &ContainerId) -> Result<Vec<PublishedPort>, NetworkError> {
        let _ = container;
        Ok(Vec::new())
    }

    /// Moves every published port of one container to another one, which listens on the same ports of its own, in
    /// one transaction: new connections go to the new container, established ones stay with the old one.
    ///
    /// # Errors
    /// When the other container is not attached to any network with a way in.
    pub fn move_ports(
        &self,
        from: &ContainerId,
        to: &ContainerId,
    ) -> Result<Vec<PublishedPort>, NetworkError> {
        let _ = (from, to);
        Err(NetworkError::Unsupported("moving ports".to_owned()))
    }

    /// Takes back everything a container had: ports, addresses, names. Its links vanish with its network
    /// namespace. Doing it twice is fine.
    ///
    /// # Errors
    /// When a record cannot be removed.
    pub fn release(&self, container: &ContainerId) -> Result<(), NetworkError> {
        let _ = container;
        Ok(())
    }

    /// Releases every container that is not among the live ones. Returns what was released.
    ///
    /// # Errors
    /// When a record cannot be read or removed.
    pub fn sweep(&self, live: &[ContainerId]) -> Result<Vec<ContainerId>, NetworkError> {
        let _ = live;
        Ok(Vec::new())
    }

    /// Removes every kernel object of this root: bridges and the firewall table. Records stay, and the next
    /// attachment makes everything again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn teardown(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}

// === impl NetworkSpec ===

impl NetworkSpec {
    /// A bridge network with this name and nothing else asked for.
    pub fn new(name: NetworkName) -> Self {
        Self {
            name,
            driver: DEFAULT_NETWORK.to_owned(),
            internal: false,
            ipv6: false,
            subnets: Vec::new(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }
}

// === impl NetworkError ===

impl From<NetworkError> for Error {
    fn from(error: NetworkError) -> Self {
        let kind = match &error {
            NetworkError::NotFound(_) => Kind::NotFound,
            NetworkError::Conflict(_) => Kind::Conflict,
            NetworkError::Invalid(_) => Kind::Invalid,
            NetworkError::Unsupported(_) => Kind::Unsupported,
            _ => Kind::Failed,
        };
        let wrapped = Self::new(kind, error.to_string());
        match error {
            NetworkError::NotFound(_) => {
                wrapped.with_hint("`rengine network ls` shows the networks that exist")
            }
            NetworkError::File { source, .. }
            | NetworkError::Link { source, .. }
            | NetworkError::Firewall { source, .. }
            | NetworkError::Dns { source, .. } => wrapped.with_source(source),
            _ => wrapped,
        }
    }
}
