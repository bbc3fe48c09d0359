//! Published ports: who claims which port of the host, and where it leads. Conflicts are found before anything
//! is changed.
//!
//! The kernel's maps are the truth, for every root on the machine; the files in the run directory only say what to
//! put back when somebody flushed the firewall. No socket is held for a published port: a port must be able to move
//! from one container to another, and traffic for it never gets as far as a socket of the host.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::SocketType;
use serde::{Deserialize, Serialize};

use crate::container::spec::{ContainerPort, PortBinding, Protocol};
use crate::id::ContainerId;
use crate::network::attachment::names_in;
use crate::network::endpoint::Endpoint;
use crate::network::firewall::{self, Forward, Table};
use crate::network::{NetworkError, Networks, conntrack, file_error, relay};
use crate::paths::Root;
use crate::rootless;
use crate::rootless::door::{Door, Transport};
use crate::store::{self, Durability};
use crate::sys::listener;

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

/// What a container has published, as its file says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    version: u32,
    owner: String,
    ports: Vec<PublishedPort>,
    /// Whether a part of the connections to ports of others may be led to it.
    #[serde(default)]
    shared: bool,
}

/// A container that connections to ports of another one are led to.
#[derive(Debug)]
pub(crate) struct Successor {
    /// As the owner of forwards is written.
    pub(crate) owner: String,
    name: String,
    reach: Reach,
}

/// Where a container can be reached: one address per family at most.
#[derive(Debug, Clone, Copy)]
struct Reach {
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
    /// The address of the host that its network publishes on by default.
    host_binding: Option<IpAddr>,
    /// Whether whoever comes by IPv6 can be carried to an address of IPv4.
    carried: bool,
}

/// A port that is to be published, before a port of the host is chosen for it.
#[derive(Debug)]
struct Wish {
    hosts: Vec<(IpAddr, IpAddr)>,
    candidates: Candidates,
    /// The port of the host that it had before.
    earlier: Option<u16>,
    container: ContainerPort,
}

/// Ports of the host to try.
#[derive(Debug, Clone, Copy)]
enum Candidates {
    /// From the first one to the last one.
    Asked(u16, u16),
    /// All of them, from a random one on.
    Any(u16, u16),
}

/// Which ports are claimed already.
#[derive(Debug)]
struct Claims<'a> {
    networks: &'a Networks,
    /// What the container itself has published.
    own: &'a [Forward],
    others: &'a [(String, Forward)],
    chosen: Vec<PublishedPort>,
}

/// Who has a port already.
#[derive(Debug)]
enum Holder {
    /// A container or a program, as people call it.
    Somebody(String),
    /// The address is none of this host's.
    Nobody,
    /// It is not for ordinary users (ip(7), `ip_unprivileged_port_start`).
    Administrator,
}

/// The form of a record.
const VERSION: u32 = 1;
/// What the kernel gives to programs when its setting cannot be read (ip(7)).
const COMMON_EPHEMERAL_PORTS: (u16, u16) = (32768, 60999);
const LISTENING: &str = "0A";

/// In whose name the ports of a container are while they are parked.
pub fn parked(container: &ContainerId) -> ContainerId {
    ContainerId::derived(&format!("parked {container}"))
}

impl Networks {
    /// Publishes ports of an attached container, all or none, in one transaction. Replaces what it had published; a
    /// port of the host that may be any one stays the same then.
    ///
    /// A binding without an address is published on every address of the host, in the families the container has an
    /// address of, unless its network says where. A container without a network that has a way in publishes nothing,
    /// as with docker.
    ///
    /// # Errors
    /// When a port is taken, naming by whom.
    pub fn publish(
        &self,
        container: &ContainerId,
        bindings: &[PortBinding],
        endpoints: &[Endpoint],
    ) -> Result<Vec<PublishedPort>, NetworkError> {
        let reach = Reach::of(endpoints);
        let mut wishes = wishes(bindings, reach)?;
        if wishes.is_empty() && !self.root.port_run(container).exists() {
            return Ok(Vec::new());
        }
        let _machine = self.machine_lock()?;
        let _lock = self.lock()?;
        let Some(first) = endpoints.first() else {
            self.withdraw(std::slice::from_ref(container))?;
            return Ok(Vec::new());
        };
        let owner = format!("{} {}", container.short(), first.party.name);
        let before = self.read_ports(container)?.unwrap_or_default();
        wishes.iter_mut().for_each(|wish| wish.remember(&before.ports));
        let before_ports = before.ports.clone();
        self.ensure_table()?;
        let taken = firewall::all_forwards()?;
        let (own, others): (Vec<_>, Vec<_>) = taken
            .into_iter()
            .partition(|(table, forward)| table == self.root.tag() && is_of(forward, container));
        let own: Vec<Forward> = own.into_iter().map(|(_, forward)| forward).collect();
        let mut claims = Claims { networks: self, own: &own, others: &others, chosen: Vec::new() };
        for wish in wishes {
            let ports = wish.choose(&claims)?;
            claims.chosen.extend(ports);
        }
        let chosen = claims.chosen;
        if chosen.iter().any(PublishedPort::is_carried) {
            relay::ensure(&self.root)?;
        }
        self.write_ports(
            container,
            &Record { version: VERSION, owner: owner.clone(), ports: chosen.clone(), ..before },
        )?;
        let new: Vec<Forward> = chosen.iter().map(|port| port.forward(&owner, &self.root)).collect();
        let replaced = Table::named(self.root.tag()).replace(&own, &new);
        if let Err(error) = replaced {
            // What the file says must not come back with the next table.
            let _ = store::remove_file(&self.root.port_run(container));
            return Err(error);
        }
        forget_flows(&new);
        if let Err(error) = lead_in(&before_ports, &chosen) {
            // The first failure is the one to tell.
            let _ = self.withdraw(std::slice::from_ref(container));
            return Err(error);
        }
        Ok(chosen)
    }

    /// Expects that these ports of the host could be published once some containers have given way. Nothing is claimed:
    /// it is only said early who is in the way. Ports that may be any are always free.
    ///
    /// # Errors
    /// When a port is taken, naming by whom.
    pub fn expect_free(
        &self,
        bindings: &[PortBinding],
        giving_way: &[ContainerId],
    ) -> Result<(), NetworkError> {
        let gives_way = |table: &str, forward: &Forward| {
            let is_theirs =
                |container: &ContainerId| is_of(forward, container) || is_of(forward, &parked(container));
            table == self.root.tag() && giving_way.iter().any(is_theirs)
        };
        let taken = firewall::all_forwards()?;
        let (own, others): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|(table, forward)| gives_way(table, forward));
        let own: Vec<Forward> = own.into_iter().map(|(_, forward)| forward).collect();
        for binding in bindings.iter().filter(|binding| binding.host_port.is_some()) {
            // Only the family counts: what it will lead to has no address yet.
            let is_ipv6 = binding.host_ip.is_some_and(|address| address.is_ipv6());
            let reach = Reach {
                ipv4: (!is_ipv6).then_some(Ipv4Addr::UNSPECIFIED.into()),
                ipv6: is_ipv6.then_some(Ipv6Addr::UNSPECIFIED.into()),
                host_binding: None,
                carried: relay::is_needed_here(),
            };
            for wish in wishes(std::slice::from_ref(binding), reach)? {
                let claims = Claims { networks: self, own: &own, others: &others, chosen: Vec::new() };
                wish.choose(&claims)?;
            }
        }
        Ok(())
    }

    /// The ports a container has published now.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn published(&self, container: &ContainerId) -> Result<Vec<PublishedPort>, NetworkError> {
        Ok(self.read_ports(container)?.map(|record| record.ports).unwrap_or_default())
    }

    /// Moves every published port of one container to another one, which listens on the same ports of its own, in
    /// one transaction: new connections go to the new container, established ones stay with the old one. What the
    /// other container has published already, it keeps.
    ///
    /// # Errors
    /// When the other container is not attached to any network with a way in.
    pub fn move_ports(
        &self,
        from: &ContainerId,
        to: &ContainerId,
    ) -> Result<Vec<PublishedPort>, NetworkError> {
        let successor = self.successor(to)?;
        let _machine = self.machine_lock()?;
        let _lock = self.lock()?;
        self.ensure_table()?;
        let moving = self.read_ports(from)?.map(|record| record.ports).unwrap_or_default();
        let mut kept = self.read_ports(to)?.unwrap_or_default();
        let moved = successor.take(moving)?;
        let owner = successor.owner;
        let table = Table::named(self.root.tag());
        let coming: Vec<Forward> = moved.iter().map(|port| port.forward(&owner, &self.root)).collect();
        let leaving = displaced(table.forwards()?, from, &coming);
        // Both files name the ports for a moment; a table made again then takes the first of the two.
        let moves_in = |port: &PublishedPort| {
            moved.iter().any(|new| {
                (new.host_ip, new.host_port, new.container.protocol)
                    == (port.host_ip, port.host_port, port.container.protocol)
            })
        };
        kept.ports.retain(|port| !moves_in(port));
        kept.ports.extend(moved.iter().cloned());
        let shared = kept.shared;
        self.write_ports(to, &Record { version: VERSION, owner, ..kept })?;
        table.replace(&leaving, &coming)?;
        if shared {
            self.end_shares(to)?;
        }
        let path = self.root.port_run(from);
        store::remove_file(&path).map_err(|source| file_error("remove", &path, source))?;
        Ok(moved)
    }

    /// Who a container is to those whose ports it is led to.
    pub(crate) fn successor(&self, container: &ContainerId) -> Result<Successor, NetworkError> {
        let endpoints = self.endpoints(container)?;
        let Some(first) = endpoints.first() else {
            return Err(NetworkError::Conflict(format!(
                "the container {} is attached to no network",
                container.short()
            )));
        };
        let name = first.party.name.to_string();
        Ok(Successor { owner: format!("{} {name}", container.short()), name, reach: Reach::of(&endpoints) })
    }

    /// Leads every published port of one container to listeners on the host, in one transaction. They are nobody's
    /// until [`Networks::move_ports`] gives them, from what [`parked`] says of `owner`, to a container.
    ///
    /// `listener` says where the listener for a port is. A port without one is not published meanwhile.
    ///
    /// # Errors
    /// When the table or a record cannot be changed.
    pub fn park_ports(
        &self,
        from: &ContainerId,
        owner: &ContainerId,
        listener: &dyn Fn(&PublishedPort) -> Option<SocketAddr>,
    ) -> Result<(), NetworkError> {
        let _machine = self.machine_lock()?;
        let _lock = self.lock()?;
        self.ensure_table()?;
        let moving = self.read_ports(from)?.map(|record| record.ports).unwrap_or_default();
        if moving.is_empty() {
            return Ok(());
        }
        let waiting: Vec<PublishedPort> = moving
            .into_iter()
            .filter_map(|port| listener(&port).map(|target| PublishedPort { target, ..port }))
            .collect();
        let lot = parked(owner);
        let owner = format!("{} parked", lot.short());
        let table = Table::named(self.root.tag());
        let coming: Vec<Forward> = waiting.iter().map(|port| port.forward(&owner, &self.root)).collect();
        let leaving = displaced(table.forwards()?, from, &coming);
        self.write_ports(&lot, &Record { version: VERSION, owner, ports: waiting, shared: false })?;
        table.replace(&leaving, &coming)?;
        forget_flows(&coming);
        let path = self.root.port_run(from);
        store::remove_file(&path).map_err(|source| file_error("remove", &path, source))
    }

    /// Who sent a datagram that a listener of this host has got for a parked port, and to what address: `from` is what the
    /// listener at `listener` sees of it. `None` when the kernel does not know such a flow.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn datagram_ends(
        &self,
        listener: SocketAddr,
        from: SocketAddr,
    ) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
        conntrack::udp_ends(listener, from)
    }

    /// Takes back what is still parked for a container.
    ///
    /// # Errors
    /// When the table or a record cannot be changed.
    pub(crate) fn unpark(&self, container: &ContainerId) -> Result<(), NetworkError> {
        let lot = parked(container);
        if !self.root.port_run(&lot).exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.withdraw(&[lot])
    }

    /// Takes back the published ports of containers, in one transaction. The caller holds the lock.
    pub(crate) fn withdraw(&self, containers: &[ContainerId]) -> Result<(), NetworkError> {
        let publishing: Vec<&ContainerId> =
            containers.iter().filter(|container| self.root.port_run(container).exists()).collect();
        if publishing.is_empty() {
            return Ok(());
        }
        for container in &publishing {
            let record = self.read_ports(container)?.unwrap_or_default();
            if record.shared {
                self.end_shares(container)?;
            }
            // A way out that is gone has closed its doors itself.
            let _ = lead_in(&record.ports, &[]);
        }
        let table = Table::named(self.root.tag());
        if table.is_current()? {
            // Not what the files say but what the kernel says: a port that has moved on is not theirs any more.
            let is_theirs = |forward: &Forward| publishing.iter().any(|container| is_of(forward, container));
            let own: Vec<Forward> = table.forwards()?.into_iter().filter(is_theirs).collect();
            table.remove(&own)?;
            forget_flows(&own);
        }
        publishing.into_iter().map(|container| self.root.port_run(container)).try_for_each(|path| {
            store::remove_file(&path).map_err(|source| file_error("remove", &path, source))
        })
    }

    /// The ports that the relay carries, and where it leads them.
    pub(super) fn carried_ports(&self) -> Result<HashMap<(IpAddr, u16), SocketAddr>, NetworkError> {
        let records = self.all_ports()?;
        let carried = records.iter().flat_map(|record| &record.ports).filter(|port| port.is_carried());
        Ok(carried.map(|port| ((port.host_ip, port.host_port), port.target)).collect())
    }

    /// What every file of published ports says, each port once.
    pub(crate) fn recorded_forwards(&self) -> Result<Vec<Forward>, NetworkError> {
        let mut seen = HashSet::new();
        let mut forwards = Vec::new();
        for record in self.all_ports()? {
            let new = record
                .ports
                .iter()
                .filter(|port| seen.insert((port.host_ip, port.host_port, port.container.protocol)));
            forwards.extend(new.map(|port| port.forward(&record.owner, &self.root)));
        }
        Ok(forwards)
    }

    /// The records of all containers. One that is removed meanwhile is none.
    fn all_ports(&self) -> Result<Vec<Record>, NetworkError> {
        let names = names_in(&self.root.port_runs())?;
        let containers = names.iter().filter_map(|name| name.parse().ok());
        containers.filter_map(|container| self.read_ports(&container).transpose()).collect()
    }

    /// Writes down whether connections to ports of others may be led to a container, so that it is seen to when it goes.
    pub(crate) fn mark_shared(
        &self,
        container: &ContainerId,
        owner: &str,
        shared: bool,
    ) -> Result<(), NetworkError> {
        let new = Record { version: VERSION, owner: owner.to_owned(), ..Record::default() };
        let record = self.read_ports(container)?.unwrap_or(new);
        self.write_ports(container, &Record { shared, ..record })
    }

    fn ensure_table(&self) -> Result<(), NetworkError> {
        if Table::named(self.root.tag()).is_current()? { Ok(()) } else { self.make_table() }
    }

    fn read_ports(&self, container: &ContainerId) -> Result<Option<Record>, NetworkError> {
        let path = self.root.port_run(container);
        store::read_json(&path).map_err(|source| file_error("read", &path, source))
    }

    fn write_ports(&self, container: &ContainerId, record: &Record) -> Result<(), NetworkError> {
        let path = self.root.port_run(container);
        store::private_directory(&self.root.port_runs())
            .and_then(|()| store::write_json(&path, record, Durability::Rename))
            .map_err(|source| file_error("write", &path, source))
    }
}

/// Opens the ports of the host that lead into the namespaces of an ordinary user's engine, and shuts those that do no
/// more. Nothing is to be done for root, whose host it is.
fn lead_in(before: &[PublishedPort], now: &[PublishedPort]) -> Result<(), NetworkError> {
    if !rootless::is_inside() {
        return Ok(());
    }
    let door = |port: &PublishedPort| door(port.host_ip, port.host_port, port.container.protocol);
    if let Some(port) = now.iter().find(|port| door(port).is_none()) {
        return Err(NetworkError::Conflict(format!(
            "{port} cannot be published by an ordinary user's engine, which does so for TCP and UDP alone"
        )));
    }
    let doors = |ports: &[PublishedPort]| ports.iter().filter_map(door).collect::<Vec<_>>();
    rootless::door::change(&doors(before), &doors(now))
        .map_err(|error| NetworkError::Conflict(crate::error::chain(&error)))
}

fn door(host: IpAddr, port: u16, protocol: Protocol) -> Option<Door> {
    let transport = match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => return None,
    };
    Some(Door { transport, host, port })
}

/// Where what comes in for this address of the host comes in, as the firewall sees it.
fn entrance(host: IpAddr) -> IpAddr {
    if rootless::is_inside() { rootless::door::entrance(host) } else { host }
}

/// What of a table gives way when ports of a container move: what is in its name, and what a crash in the middle of an
/// earlier move left in another one's.
fn displaced(all: Vec<Forward>, from: &ContainerId, coming: &[Forward]) -> Vec<Forward> {
    let is_taken = |forward: &Forward| {
        coming.iter().any(|new| {
            (new.host_ip, new.host_port, new.protocol)
                == (forward.host_ip, forward.host_port, forward.protocol)
        })
    };
    all.into_iter().filter(|forward| is_of(forward, from) || is_taken(forward)).collect()
}

// === impl PublishedPort ===

impl PublishedPort {
    /// Whether the firewall cannot lead it to the container: the relay does.
    pub(crate) fn is_carried(&self) -> bool {
        self.host_ip.is_ipv6() && self.target.is_ipv4()
    }

    pub(crate) fn forward(&self, owner: &str, root: &Root) -> Forward {
        Forward {
            host_ip: entrance(self.host_ip),
            host_port: self.host_port,
            protocol: self.container.protocol,
            target: if self.is_carried() { relay::place(root) } else { self.target },
            owner: owner.to_owned(),
        }
    }
}

impl fmt::Display for PublishedPort {
    /// As tables print it: `0.0.0.0:8080->80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = SocketAddr::new(self.host_ip, self.host_port);
        write!(f, "{host}->{}", self.container)
    }
}

// === impl Successor ===

impl Successor {
    /// These ports, as they lead to the same ports of this container.
    pub(crate) fn take(&self, ports: Vec<PublishedPort>) -> Result<Vec<PublishedPort>, NetworkError> {
        let lead = |port: PublishedPort| {
            let Some(address) = self.reach.address(port.target.is_ipv4()) else {
                let name = &self.name;
                return Err(NetworkError::Conflict(format!(
                    "the container {name} has no address for {port}"
                )));
            };
            Ok(PublishedPort { target: SocketAddr::new(address, port.container.port), ..port })
        };
        ports.into_iter().map(lead).collect()
    }
}

// === impl Reach ===

impl Reach {
    fn of(endpoints: &[Endpoint]) -> Self {
        let best = |address: fn(&Endpoint) -> Option<IpAddr>| {
            endpoints
                .iter()
                .filter(|endpoint| endpoint.is_reached_by_host() && address(endpoint).is_some())
                // The first one of those with the highest priority, like the default route.
                .rev()
                .max_by_key(|endpoint| endpoint.gateway_priority)
        };
        let (ipv4, ipv6) = (best(Endpoint::ipv4), best(Endpoint::ipv6));
        Self {
            ipv4: ipv4.and_then(Endpoint::ipv4),
            ipv6: ipv6.and_then(Endpoint::ipv6),
            host_binding: ipv4.and_then(|endpoint| endpoint.host_binding),
            carried: relay::is_needed_here(),
        }
    }

    /// Where a port leads that is published on this address of the host.
    fn target(self, host: IpAddr, protocol: Protocol) -> Option<IpAddr> {
        let carried = || (self.carried && protocol == Protocol::Tcp).then_some(self.ipv4).flatten();
        self.address(host.is_ipv4()).or_else(|| if host.is_ipv6() { carried() } else { None })
    }

    fn address(self, ipv4: bool) -> Option<IpAddr> {
        if ipv4 { self.ipv4 } else { self.ipv6 }
    }
}

// === impl Wish ===

fn wishes(bindings: &[PortBinding], reach: Reach) -> Result<Vec<Wish>, NetworkError> {
    let mut wishes = Vec::new();
    let mut seen = HashSet::new();
    for binding in bindings.iter().filter(|binding| seen.insert(*binding)) {
        let every: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let asked =
            binding.host_ip.or(reach.host_binding).map_or_else(|| every.to_vec(), |address| vec![address]);
        let hosts: Vec<(IpAddr, IpAddr)> = asked
            .into_iter()
            .filter_map(|host| Some((host, reach.target(host, binding.container.protocol)?)))
            .collect();
        if hosts.is_empty() {
            let has_way_in = reach.ipv4.or(reach.ipv6).is_some();
            if let Some(address) = binding.host_ip.filter(|_| has_way_in) {
                return Err(NetworkError::Invalid(format!(
                    "port {} cannot be published on {address}: the container has no address of that family",
                    binding.container
                )));
            }
            continue;
        }
        let candidates = match binding.host_port {
            Some((first, last)) => Candidates::Asked(first, last),
            None => {
                let (first, last) = ephemeral_ports();
                Candidates::Any(first, last)
            }
        };
        wishes.push(Wish { hosts, candidates, earlier: None, container: binding.container });
    }
    Ok(wishes)
}

impl Wish {
    /// Takes note of the port that it had before, if it may have that one again.
    fn remember(&mut self, before: &[PublishedPort]) {
        let had = before.iter().find(|port| {
            port.container == self.container
                && self.candidates.include(port.host_port)
                && self.hosts.iter().any(|(host, _)| *host == port.host_ip)
        });
        self.earlier = had.map(|port| port.host_port);
    }

    fn choose(&self, claims: &Claims<'_>) -> Result<Vec<PublishedPort>, NetworkError> {
        let mut first_conflict = None;
        for port in self.earlier.into_iter().chain(self.candidates.ports()) {
            let conflict = self.hosts.iter().find_map(|(host, _)| {
                self.holder(*host, port, claims).transpose().map(|holder| (*host, holder))
            });
            let Some((host, holder)) = conflict else {
                return Ok(self
                    .hosts
                    .iter()
                    .map(|(host, target)| PublishedPort {
                        host_ip: *host,
                        host_port: port,
                        container: self.container,
                        target: SocketAddr::new(*target, self.container.port),
                    })
                    .collect());
            };
            let error = conflict_error(host, port, self.container.protocol, holder?);
            if matches!(error, NetworkError::Invalid(_)) {
                return Err(error);
            }
            first_conflict.get_or_insert(error);
        }
        Err(first_conflict.unwrap_or_else(|| {
            NetworkError::Invalid(format!("no port of the host is given for {}", self.container))
        }))
    }

    fn holder(&self, host: IpAddr, port: u16, claims: &Claims<'_>) -> Result<Option<Holder>, NetworkError> {
        let protocol = self.container.protocol;
        let place = SocketAddr::new(host, port);
        let host = entrance(host);
        let clashes = |address: IpAddr, other: u16, of: Protocol| {
            let wide = address.is_unspecified() || host.is_unspecified();
            let meets = address == host || (address.is_ipv4() == host.is_ipv4() && wide);
            other == port && of == protocol && meets
        };
        let is_chosen =
            |port: &PublishedPort| clashes(entrance(port.host_ip), port.host_port, port.container.protocol);
        if claims.chosen.iter().any(is_chosen) {
            return Ok(Some(Holder::Somebody("another port of this container".to_owned())));
        }
        let holder =
            claims.others.iter().find(|(_, taken)| clashes(taken.host_ip, taken.host_port, taken.protocol));
        if let Some((table, forward)) = holder {
            let (id, name) = forward.owner.split_once(' ').unwrap_or(("", &forward.owner));
            if table != claims.networks.root.tag() {
                return Ok(Some(Holder::Somebody(format!("container {name} of the engine {table}"))));
            }
            // It may have got another name since the port was led to it.
            let name = claims.networks.name_of(id)?.unwrap_or_else(|| name.to_owned());
            return Ok(Some(Holder::Somebody(format!("container {name}"))));
        }
        // A port that leads here already is nobody else's, though a connection of the host's may happen to begin at it.
        let is_own = |forward: &Forward| {
            (forward.host_ip, forward.host_port, forward.protocol) == (host, port, protocol)
        };
        if claims.own.iter().any(is_own) {
            return Ok(None);
        }
        match try_to_bind(place, protocol) {
            Ok(()) => Ok(None),
            Err(Errno::ADDRINUSE) => Ok(Some(Holder::Somebody(program_at(port, protocol)))),
            Err(Errno::ADDRNOTAVAIL) => Ok(Some(Holder::Nobody)),
            Err(Errno::ACCESS) => Ok(Some(Holder::Administrator)),
            Err(errno) => Err(NetworkError::Link {
                step: "try the port",
                object: SocketAddr::new(host, port).to_string(),
                source: errno.into(),
            }),
        }
    }
}

impl Candidates {
    fn include(self, port: u16) -> bool {
        let (Self::Asked(first, last) | Self::Any(first, last)) = self;
        (first..=last).contains(&port)
    }

    fn ports(self) -> Box<dyn Iterator<Item = u16>> {
        match self {
            Self::Asked(first, last) => Box::new(first..=last),
            Self::Any(first, last) => {
                let mut bytes = [0; 2];
                // Zeros, should the call be interrupted, are as good a place to begin.
                let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
                let count = u32::from(last.saturating_sub(first)) + 1;
                let start = u32::from(u16::from_ne_bytes(bytes)) % count;
                Box::new(
                    (0..count).filter_map(move |step| {
                        u16::try_from(u32::from(first) + (start + step) % count).ok()
                    }),
                )
            }
        }
    }
}

fn conflict_error(host: IpAddr, port: u16, protocol: Protocol, holder: Holder) -> NetworkError {
    let place = format!("port {}/{protocol}", SocketAddr::new(host, port));
    match holder {
        Holder::Somebody(name) => NetworkError::Conflict(format!("{place} is in use by {name}")),
        Holder::Nobody => {
            NetworkError::Invalid(format!("{place} cannot be published: {host} is no address of this host"))
        }
        Holder::Administrator => NetworkError::Invalid(format!(
            "{place} cannot be published: ordinary users have the ports from net.ipv4.ip_unprivileged_port_start on, \
             1024 unless changed"
        )),
    }
}

/// Binds a socket of the host for a moment, which is the kernel's own test for a conflict with any program there.
fn try_to_bind(place: SocketAddr, protocol: Protocol) -> Result<(), Errno> {
    // A program that serves SCTP is so rare that the module is not loaded for the test's sake.
    let Some(door) = door(place.ip(), place.port(), protocol) else { return Ok(()) };
    let tried = if rootless::is_inside() {
        rootless::outpost::try_to_open(&door)
    } else {
        let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
        listener::listen(place, kind).map(drop)
    };
    // Without IPv6 nobody can have a port of it.
    if tried == Err(Errno::AFNOSUPPORT) { Ok(()) } else { tried }
}

/// The program that has a socket at this port, as far as /proc tells.
fn program_at(port: u16, protocol: Protocol) -> String {
    let own = || Path::new("/proc/thread-self/net").to_owned();
    let tables = if rootless::is_inside() { rootless::outpost::sockets_of_the_host() } else { None };
    let tables = tables.unwrap_or_else(own);
    let inodes: HashSet<String> = ["", "6"]
        .iter()
        .filter_map(|family| fs::read_to_string(tables.join(format!("{protocol}{family}"))).ok())
        .flat_map(|table| {
            table.lines().filter_map(|line| socket_inode(line, port, protocol)).collect::<Vec<_>>()
        })
        .collect();
    names_in(Path::new("/proc"))
        .unwrap_or_default()
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .find(|pid| has_socket(pid, &inodes))
        .map_or_else(
            || "another program".to_owned(),
            |pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("another program (pid {pid} {})", name.trim())
            },
        )
}

/// The inode in a line of /proc/net/tcp and the like, when the line is a server at this port (proc(5)).
fn socket_inode(line: &str, port: u16, protocol: Protocol) -> Option<String> {
    let mut fields = line.split_whitespace();
    let (_, found) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let serves = protocol != Protocol::Tcp || state == LISTENING;
    (serves && u16::from_str_radix(found, 16).ok()? == port).then(|| fields.nth(5).map(str::to_owned))?
}

fn has_socket(pid: &str, inodes: &HashSet<String>) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| {
            let text = target.to_string_lossy();
            text.strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|inode| inodes.contains(inode))
        })
    })
}

fn ephemeral_ports() -> (u16, u16) {
    let parse = |text: String| {
        let mut numbers = text.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(parse)
        .filter(|(first, last)| first <= last)
        .unwrap_or(COMMON_EPHEMERAL_PORTS)
}

/// Whether it is in the name of this container.
pub(crate) fn is_of(forward: &Forward, container: &ContainerId) -> bool {
    forward.owner.split(' ').next() == Some(container.short())
}

/// A client that keeps sending keeps its UDP flow, and with it the place the flow led to before. That is not so for
/// a new connection, so only UDP needs this. It is a courtesy: without it the flow ends by itself.
fn forget_flows(forwards: &[Forward]) {
    let ports: HashSet<u16> = forwards
        .iter()
        .filter(|forward| forward.protocol == Protocol::Udp)
        .map(|forward| forward.host_port)
        .collect();
    if !ports.is_empty() {
        let _: io::Result<()> = conntrack::forget_udp(&ports);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(host_ip: Option<&str>, host_port: Option<(u16, u16)>) -> PortBinding {
        PortBinding {
            host_ip: host_ip.map(|text| text.parse().unwrap()),
            host_port,
            container: ContainerPort { port: 80, protocol: Protocol::Tcp },
        }
    }

    fn only_v4() -> Reach {
        let ipv4 = Some("172.18.0.2".parse().unwrap());
        Reach { ipv4, ipv6: None, host_binding: None, carried: false }
    }

    #[test]
    fn a_binding_is_published_in_the_families_the_container_has() {
        let hosts = |binding, reach| {
            wishes(&[binding], reach)
                .map(|wishes| wishes.into_iter().flat_map(|wish| wish.hosts).count())
                .map_err(|error| error.to_string())
        };
        assert_eq!(hosts(binding(None, None), only_v4()), Ok(1));
        let both = Reach { ipv6: Some("fd00::2".parse().unwrap()), ..only_v4() };
        assert_eq!(hosts(binding(None, None), both), Ok(2));
        assert_eq!(
            hosts(binding(Some("::1"), None), only_v4()).unwrap_err(),
            "port 80/tcp cannot be published on ::1: the container has no address of that family"
        );
        assert_eq!(hosts(binding(None, None), Reach { ipv4: None, ..only_v4() }), Ok(0));
    }

    #[test]
    fn any_port_tries_every_port_once() {
        let ports: HashSet<u16> = Candidates::Any(100, 120).ports().collect();
        assert_eq!(ports.len(), 21);
        assert_eq!(Candidates::Asked(5, 7).ports().collect::<Vec<_>>(), [5, 6, 7]);
    }

    #[test]
    fn a_server_is_found_in_the_tables_of_sockets() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        assert_eq!(socket_inode(line, 8080, Protocol::Tcp).as_deref(), Some("4711"));
        assert_eq!(socket_inode(line, 80, Protocol::Tcp), None);
        assert_eq!(socket_inode(&line.replace(" 0A ", " 01 "), 8080, Protocol::Tcp), None);
        assert_eq!(socket_inode("sl local_address", 8080, Protocol::Tcp), None);
    }
}
