//! Networks: bridges, addresses, names and published ports of one root. Kernel objects are made over netlink and
//! named after the root, so that two roots never meet; what is attached is told by files in the run directory.

mod attachment;
pub mod cidr;
mod conntrack;
mod departure;
pub mod dns;
pub mod endpoint;
mod firewall;
mod heal;
mod inside;
mod ipam;
pub mod link;
mod link_options;
mod nft;
mod options;
pub mod ports;
pub(crate) mod relay;
pub mod resolv;
mod shares;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::cidr::Cidr;
pub use self::dns::{DnsSockets, Resolver, open_dns_sockets};
pub use self::endpoint::{Endpoint, EndpointAddress, Party};
pub use self::firewall::share::Draw;
pub use self::inside::{forget_link, visit};
pub use self::link::{InsideLink, configure_inside, inside_links, plug};
pub use self::link_options::LinkOptions;
pub use self::ports::{PublishedPort, parked};
pub use self::resolv::{
    HOST_HOSTS, HOST_RESOLV_CONF, needs_name_server, render_hostname, render_hosts, render_hosts_of_host,
    render_resolv_conf,
};
pub use self::watch::{FirewallWatch, Watch};

use self::attachment::names_in;
use self::firewall::share::ShareTable;
use self::firewall::{Table, Zone};
use self::link::{Bridge, UsedRange};
use self::options::{Driver, DriverOptions};
use crate::error::{Error, Kind};
use crate::event::{Event, EventKind, Journal};
use crate::id::{ContainerId, Digest, NetworkId, NetworkName};
use crate::paths::{MACHINE_LOCK, Root};
use crate::store::{self, Durability, Lock};

/// The name of the network a container is attached to when it names none.
pub const DEFAULT_NETWORK: &str = "bridge";

/// The networks that always exist, and their drivers.
const BUILTIN: [(&str, &str); 3] = [(DEFAULT_NETWORK, DEFAULT_NETWORK), ("host", "host"), ("none", "null")];
/// The longest name of a link, without its NUL.
const INTERFACE_NAME: usize = 15;
/// The form of a network's record.
const VERSION: u32 = 1;

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
    /// `bridge` or `macvlan`.
    pub driver: String,
    /// Whether it has no way out and no way in.
    pub internal: bool,
    /// Whether its members get IPv4 addresses.
    #[serde(default = "always")]
    pub ipv4: bool,
    /// Whether its members get IPv6 addresses too.
    pub ipv6: bool,
    /// Its subnets, one per family; chosen when a family has none.
    pub subnets: Vec<Subnet>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options under docker's names: `com.docker.network.driver.mtu`,
    /// `com.docker.network.container_iface_prefix`; of a bridge `com.docker.network.bridge.name`, `…enable_icc`,
    /// `…enable_ip_masquerade` and `…host_binding_ipv4`; of macvlan `parent` and `macvlan_mode`.
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
    /// The name of its bridge on the host, or of the link of the host that it is on; empty for `host` and `none`.
    pub bridge: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    network: Network,
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
        step: String,
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
        if is_builtin(spec.name.as_str()) {
            return Err(NetworkError::Conflict(format!("the network {} exists already", spec.name)));
        }
        let network = self.make(NetworkId::random(), spec)?;
        self.announce(&network, "create");
        Ok(network)
    }

    /// Tells everybody who listens to events that a container came to a network, or left it.
    pub(crate) fn announce_endpoint(&self, endpoint: &Endpoint, container: &ContainerId, action: &str) {
        let details = [
            ("container", container.as_str()),
            ("name", endpoint.network_name.as_str()),
            ("type", DEFAULT_NETWORK),
        ];
        let event = Event::now(EventKind::Network, action, endpoint.network.as_str(), details);
        Journal::of(&self.root).append(&event);
    }

    /// Tells everybody who listens to events what was put right, in words, and whose it is when it is one container's.
    fn announce_repair(&self, network: &Network, text: &str, container: Option<&ContainerId>) {
        let mut details = vec![
            ("name", network.spec.name.to_string()),
            ("repair", text.to_owned()),
            ("type", network.spec.driver.clone()),
        ];
        details.extend(container.map(|id| ("container", id.to_string())));
        let event = Event::now(EventKind::Network, "repair", network.id.as_str(), details);
        Journal::of(&self.root).append(&event);
    }

    fn announce(&self, network: &Network, action: &str) {
        let details = [("name", network.spec.name.to_string()), ("type", network.spec.driver.clone())];
        let event = Event::now(EventKind::Network, action, network.id.as_str(), details);
        Journal::of(&self.root).append(&event);
    }

    /// Removes a network that nobody is attached to.
    ///
    /// # Errors
    /// When containers are attached, which it names, or the network is one of the three built-in ones.
    pub fn remove(&self, id: &NetworkId) -> Result<(), NetworkError> {
        let _lock = self.lock()?;
        let network = self.list()?.into_iter().find(|network| network.id == *id);
        let network = network.ok_or_else(|| NetworkError::NotFound(id.to_string()))?;
        let name = &network.spec.name;
        if is_builtin(name.as_str()) {
            return Err(NetworkError::Conflict(format!(
                "the network {name} is built in and cannot be removed"
            )));
        }
        let members = self.members(id)?;
        if !members.is_empty() {
            let names: Vec<&str> = members.iter().map(|member| member.party.name.as_str()).collect();
            let noun = if names.len() == 1 { "container" } else { "containers" };
            return Err(NetworkError::Conflict(format!(
                "the network {name} is in use by {noun} {}",
                names.join(", ")
            )));
        }
        self.take_down(&network)?;
        let directory = self.root.network_run(id);
        store::remove_tree(&directory).map_err(|source| file_error("remove", &directory, source))?;
        let record = self.root.network(id);
        store::remove_file(&record).map_err(|source| file_error("remove", &record, source))?;
        self.announce(&network, "destroy");
        Ok(())
    }

    /// Every network by name, `bridge`, `host` and `none` included.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn list(&self) -> Result<Vec<Network>, NetworkError> {
        let mut networks = self.recorded()?;
        for (name, driver) in BUILTIN {
            if !networks.iter().any(|network| network.spec.name.as_str() == name) {
                networks.extend(self.builtin(name, driver));
            }
        }
        networks.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
        Ok(networks)
    }

    /// The network with this name, id or unambiguous prefix of an id.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, name_or_id: &str) -> Result<Network, NetworkError> {
        let networks = self.list()?;
        let exact = |network: &&Network| {
            network.spec.name.as_str() == name_or_id || network.id.as_str() == name_or_id
        };
        if let Some(network) = networks.iter().find(exact) {
            return Ok(network.clone());
        }
        let mut matching = networks
            .into_iter()
            .filter(|network| !name_or_id.is_empty() && network.id.as_str().starts_with(name_or_id));
        match (matching.next(), matching.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => Err(NetworkError::Conflict(format!(
                "several networks have an id that begins with {name_or_id}"
            ))),
            (None, _) => Err(NetworkError::NotFound(name_or_id.to_owned())),
        }
    }

    /// Removes the networks that nobody is attached to and that the caller does not want to keep, which are those
    /// that stopped containers name. Returns what was removed.
    ///
    /// # Errors
    /// When a record cannot be read or removed.
    pub fn prune(&self, keep: &dyn Fn(&Network) -> bool) -> Result<Vec<Network>, NetworkError> {
        let mut removed = Vec::new();
        for network in self.recorded()? {
            if is_builtin(network.spec.name.as_str()) || keep(&network) {
                continue;
            }
            match self.remove(&network.id) {
                Ok(()) => removed.push(network),
                // In use, or removed by somebody else meanwhile.
                Err(NetworkError::Conflict(_) | NetworkError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Removes every kernel object of this root: bridges, the firewall table and the relay's address. Records stay, and the next
    /// attachment makes everything again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn teardown(&self) -> Result<(), NetworkError> {
        if self.root.relay().exists() {
            relay::clear_away(&self.root)?;
        }
        let networks = self.recorded()?;
        let table = Table::named(self.root.tag());
        // The table outlives the last network, in case there is a next one.
        if networks.is_empty() && !table.is_current()? {
            return Ok(());
        }
        let _lock = self.lock()?;
        networks
            .iter()
            .filter(|network| network.has_bridge())
            .try_for_each(|network| link::remove(&network.bridge))?;
        ShareTable::beside(self.root.tag()).iter().try_for_each(|table| table.set(&[]))?;
        table.delete()?;
        Ok(())
    }

    /// The default network, made if need be.
    fn ensure_default(&self) -> Result<Network, NetworkError> {
        let Some(implicit) = self.builtin(DEFAULT_NETWORK, DEFAULT_NETWORK) else {
            return Err(NetworkError::NotFound(DEFAULT_NETWORK.to_owned()));
        };
        match self.make(implicit.id.clone(), implicit.spec) {
            // Somebody else made it meanwhile.
            Err(NetworkError::Conflict(reason)) => {
                self.known(&implicit.id)?.ok_or(NetworkError::Conflict(reason))
            }
            made => made,
        }
    }

    fn make(&self, id: NetworkId, mut spec: NetworkSpec) -> Result<Network, NetworkError> {
        let options = DriverOptions::parse(&spec.driver, &spec.options)?;
        check_families(&spec)?;
        // Two roots must not choose the same subnet, so the machine's lock comes before the root's.
        let _machine = self.machine_lock()?;
        let _lock = self.lock()?;
        let others = self.recorded()?;
        if others.iter().any(|other| other.spec.name == spec.name) {
            return Err(NetworkError::Conflict(format!("the network {} exists already", spec.name)));
        }
        spec.subnets = settle_subnets(&id, &spec, options.driver, &others)?;
        spec.ipv6 = spec.subnets.iter().any(|subnet| !subnet.cidr.is_ipv4());
        let bridge = match &options.parent {
            Some(parent) => existing_link(parent)?,
            None => self.bridge_name(&id, options.bridge_name)?,
        };
        let network = Network { id, created: Timestamp::now(), spec, bridge };
        self.write_record(&network)?;
        if let Err(error) = self.bring_up(&network) {
            // The failure to make it is the one to tell.
            let _ = self.take_down(&network);
            let _ = store::remove_file(&self.root.network(&network.id));
            return Err(error);
        }
        Ok(network)
    }

    /// Makes the kernel know a network. The firewall comes first, so that a bridge is never without it.
    fn bring_up(&self, network: &Network) -> Result<(), NetworkError> {
        if !network.has_bridge() {
            return existing_link(&network.bridge).map(|_| ());
        }
        let exists = link::exists(&network.bridge)?;
        let table = Table::named(self.root.tag());
        if !table.is_current()? {
            self.make_table()?;
        } else if !exists {
            table.add_zone(&network.zone())?;
        }
        if exists {
            return Ok(());
        }
        make_bridge(network)
    }

    /// Makes the firewall table from the records: it is not there yet, or somebody flushed it.
    fn make_table(&self) -> Result<(), NetworkError> {
        let networks = self.recorded()?;
        let bridged = networks.iter().filter(|network| network.has_bridge());
        let zones: Vec<Zone> = bridged.map(Network::zone).collect();
        Table::named(self.root.tag()).make(&zones, &self.recorded_forwards()?)
    }

    fn take_down(&self, network: &Network) -> Result<(), NetworkError> {
        // Links on a parent go with their containers; the parent is none of ours.
        if !network.has_bridge() {
            return Ok(());
        }
        link::remove(&network.bridge)?;
        let table = Table::named(self.root.tag());
        if table.is_current()? { table.remove_zone(&network.zone()) } else { Ok(()) }
    }

    fn recorded(&self) -> Result<Vec<Network>, NetworkError> {
        let mut networks = Vec::new();
        for name in names_in(&self.root.networks())? {
            let Ok(id) = name.parse() else { continue };
            networks.extend(self.known(&id)?);
        }
        networks.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
        Ok(networks)
    }

    fn known(&self, id: &NetworkId) -> Result<Option<Network>, NetworkError> {
        let path = self.root.network(id);
        let record: Option<Record> =
            store::read_json(&path).map_err(|source| file_error("read", &path, source))?;
        Ok(record.map(|record| record.network))
    }

    fn write_record(&self, network: &Network) -> Result<(), NetworkError> {
        let directory = self.root.networks();
        store::private_directory(&directory).map_err(|source| file_error("make", &directory, source))?;
        let path = self.root.network(&network.id);
        let record = Record { version: VERSION, network: network.clone() };
        store::write_json(&path, &record, Durability::Sync)
            .map_err(|source| file_error("write", &path, source))
    }

    /// What a built-in network is before anything is attached to it. Its identity is made from the root's path, so
    /// that it can be shown before it exists.
    fn builtin(&self, name: &str, driver: &str) -> Option<Network> {
        let seed = [self.root.state().as_os_str().as_encoded_bytes(), b"/", name.as_bytes()].concat();
        let id: NetworkId = Digest::of(&seed).hex().parse().ok()?;
        let mut spec = NetworkSpec::new(name.parse().ok()?);
        driver.clone_into(&mut spec.driver);
        Some(Network { id, created: Timestamp::UNIX_EPOCH, spec, bridge: String::new() })
    }

    /// At most 15 bytes (`IFNAMSIZ`), of which the root's tag comes first unless a name was asked for.
    fn bridge_name(&self, id: &NetworkId, asked: Option<String>) -> Result<String, NetworkError> {
        let name = asked.unwrap_or_else(|| {
            format!("{}b{}", self.root.short_tag(), id.as_str()).chars().take(INTERFACE_NAME).collect()
        });
        if link::exists(&name)? {
            return Err(NetworkError::Conflict(format!("a link with the name {name} exists already")));
        }
        Ok(name)
    }

    fn lock(&self) -> Result<Lock, NetworkError> {
        let path = self.root.network_lock();
        store::private_directory(self.root.run())
            .and_then(|()| Lock::exclusive(&path))
            .map_err(|source| file_error("lock", &path, source))
    }

    fn machine_lock(&self) -> Result<Lock, NetworkError> {
        let path = Path::new(MACHINE_LOCK);
        Lock::exclusive(path).map_err(|source| file_error("lock", path, source))
    }
}

// === impl Network ===

impl Network {
    /// Whether containers are attached to it by a link, as against `host` and `none`.
    pub fn can_be_joined(&self) -> bool {
        DriverOptions::parse(&self.spec.driver, &self.spec.options).is_ok()
    }

    /// Whether it is one of the three that always exist.
    pub fn is_builtin(&self) -> bool {
        is_builtin(self.spec.name.as_str())
    }

    /// What its driver was told. A record can only hold what was understood when it was made.
    fn driver_options(&self) -> DriverOptions {
        DriverOptions::parse(&self.spec.driver, &self.spec.options).unwrap_or_default()
    }

    fn has_bridge(&self) -> bool {
        self.driver_options().driver == Driver::Bridge
    }

    fn gateways(&self) -> Vec<EndpointAddress> {
        self.spec
            .subnets
            .iter()
            .filter_map(|subnet| {
                let address = subnet.gateway?;
                Some(EndpointAddress { address, prefix: subnet.cidr.prefix(), gateway: None })
            })
            .collect()
    }

    fn zone(&self) -> Zone {
        let options = self.driver_options();
        let hides = !self.spec.internal && options.masqueraded;
        Zone {
            bridge: self.bridge.clone(),
            internal: self.spec.internal,
            isolated: options.isolated,
            masqueraded: self.spec.subnets.iter().filter(|_| hides).map(|subnet| subnet.cidr).collect(),
        }
    }
}

fn is_builtin(name: &str) -> bool {
    BUILTIN.iter().any(|(builtin, _)| *builtin == name)
}

fn check_families(spec: &NetworkSpec) -> Result<(), NetworkError> {
    let subnets = &spec.subnets;
    if !spec.ipv4 && subnets.iter().any(|subnet| subnet.cidr.is_ipv4()) {
        return Err(NetworkError::Invalid(format!(
            "the network {} has an IPv4 subnet and no IPv4",
            spec.name
        )));
    }
    if !spec.ipv4 && !spec.ipv6 && subnets.is_empty() {
        return Err(NetworkError::Invalid(format!("the network {} has neither IPv4 nor IPv6", spec.name)));
    }
    for family in [true, false] {
        if subnets.iter().filter(|subnet| subnet.cidr.is_ipv4() == family).count() > 1 {
            return Err(NetworkError::Unsupported(
                "more than one subnet of a family in a network".to_owned(),
            ));
        }
    }
    Ok(())
}

fn existing_link(name: &str) -> Result<String, NetworkError> {
    if link::exists(name)? {
        return Ok(name.to_owned());
    }
    Err(NetworkError::Invalid(format!("the host has no link {name} for a network to be on")))
}

fn settle_subnets(
    id: &NetworkId,
    spec: &NetworkSpec,
    driver: Driver,
    others: &[Network],
) -> Result<Vec<Subnet>, NetworkError> {
    let mut used: Vec<UsedRange> = others
        .iter()
        .flat_map(|other| {
            let user = format!("the network {}", other.spec.name);
            other.spec.subnets.iter().map(move |subnet| UsedRange {
                range: subnet.cidr,
                user: user.clone(),
                is_route: false,
            })
        })
        .collect();
    // Whoever is on a link of the host may have addresses of that link's network; those are no conflict.
    let mut everything = used.clone();
    // The networks come first: they are the better name for what is also a link and a route.
    everything.extend(link::used_ranges()?);
    if driver == Driver::Bridge {
        used.clone_from(&everything);
    }
    let asked = |ipv4: bool| spec.subnets.iter().find(|subnet| subnet.cidr.is_ipv4() == ipv4);
    let whole = |cidr| Subnet { cidr, gateway: None, ip_range: None, aux_addresses: BTreeMap::new() };
    let mut subnets = Vec::new();
    match asked(true) {
        Some(subnet) => subnets.push(subnet.clone()),
        None if spec.ipv4 => subnets.push(whole(ipam::choose_subnet(&everything)?)),
        None => {}
    }
    match asked(false) {
        Some(subnet) => subnets.push(subnet.clone()),
        None if spec.ipv6 => subnets.extend(ula_of(id).map(whole)),
        None => {}
    }
    subnets.iter().map(|subnet| ipam::settle_subnet(subnet, &used)).collect()
}

/// Networks of earlier versions all have IPv4.
fn always() -> bool {
    true
}

/// Forty random bits for the site and sixteen for the subnet, all from the network's identity.
fn ula_of(id: &NetworkId) -> Option<Cidr> {
    let bits = u64::from_str_radix(id.as_str().get(..14)?, 16).ok()?;
    let seed: [u8; 7] = bits.to_be_bytes()[1..].try_into().ok()?;
    ipam::choose_ula(&seed)
}

/// Makes the bridge of a network unless it is there, and gives it its addresses.
fn make_bridge(network: &Network) -> Result<(), NetworkError> {
    link::enable_forwarding(network.spec.ipv6)?;
    link::ensure_bridge(&Bridge {
        name: &network.bridge,
        gateways: network.gateways(),
        mtu: network.driver_options().mtu,
    })?;
    Ok(())
}

fn file_error(step: &'static str, path: &Path, source: io::Error) -> NetworkError {
    NetworkError::File { step, object: path.display().to_string(), source }
}

// === impl NetworkSpec ===

impl NetworkSpec {
    /// A bridge network with this name and nothing else asked for.
    pub fn new(name: NetworkName) -> Self {
        Self {
            name,
            driver: DEFAULT_NETWORK.to_owned(),
            internal: false,
            ipv4: true,
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
