//! The names of the containers that one container shares networks with, read from the endpoints' files.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::id::{ContainerId, NetworkId};
use crate::network::attachment::{names_in, read_members};
use crate::network::cidr::Cidr;
use crate::network::endpoint::Endpoint;

/// A file system notes changes with the clock's tick; a directory that changed within this time before it was read
/// may have changed once more without its time changing.
const TICK: Duration = Duration::from_millis(20);

/// What a container may know of its networks.
#[derive(Debug)]
pub(super) struct Names {
    runs: PathBuf,
    container: ContainerId,
    /// Names that only this container has for others, in lower case.
    links: Vec<(String, ContainerId)>,
    seen: HashMap<NetworkId, Seen>,
    turn: usize,
}

#[derive(Debug)]
struct Seen {
    changed: SystemTime,
    settled: bool,
    /// The number of the container's own link there.
    link: Option<u32>,
    /// Whether the container gets outside by way of it.
    leads_outside: bool,
    members: Vec<Endpoint>,
}

/// What there is to say about a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// This.
    Here(Vec<T>),
    /// Nothing; somebody outside may know it.
    AskOutside,
    /// Nothing, and there is no outside.
    Nowhere,
}

// === impl Names ===

impl Names {
    /// The names that this container may know, below the run directory of all networks.
    pub(super) fn new(runs: PathBuf, container: ContainerId, links: &[(String, ContainerId)]) -> Self {
        let links = links.iter().map(|(name, id)| (name.to_ascii_lowercase(), id.clone())).collect();
        Self { runs, container, links, seen: HashMap::new(), turn: 0 }
    }

    /// The addresses of a name in lower case; the first one is another one each time.
    pub(super) fn addresses(&mut self, name: &str, ipv4: bool, ipv6: bool) -> Found<IpAddr> {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        let links = self.links.iter().filter(|(alias, _)| alias == name);
        let linked: Vec<ContainerId> = links.map(|(_, id)| id.clone()).collect();
        let mut outside = false;
        for seen in self.refresh() {
            outside |= seen.leads_outside;
            let mut named: Vec<&Endpoint> = seen
                .known_members()
                .filter(|member| answers_to(member, name) || linked.contains(&member.party.container))
                .collect();
            if named.is_empty() {
                continue;
            }
            let count = named.len();
            named.rotate_left(turn % count);
            let wanted = |address: &IpAddr| if address.is_ipv4() { ipv4 } else { ipv6 };
            return Found::Here(
                named
                    .iter()
                    .flat_map(|member| member.addresses.iter().map(|entry| entry.address))
                    .filter(wanted)
                    .collect(),
            );
        }
        if outside { Found::AskOutside } else { Found::Nowhere }
    }

    /// The name of an address.
    pub(super) fn names(&mut self, address: IpAddr) -> Found<String> {
        let mut outside = false;
        for seen in self.refresh() {
            outside |= seen.leads_outside;
            let has = |member: &&Endpoint| member.addresses.iter().any(|entry| entry.address == address);
            if let Some(member) = seen.known_members().find(has) {
                return Found::Here(vec![format!("{}.{}", member.party.name, member.network_name)]);
            }
            // Nobody outside knows who has an address of this network, nor need they know who is asked for.
            if seen.known_members().any(|member| shares_subnet(member, address)) {
                return Found::Nowhere;
            }
        }
        if outside { Found::AskOutside } else { Found::Nowhere }
    }

    /// The networks the container is in now, in the order of its links, with their members known.
    fn refresh(&mut self) -> Vec<&Seen> {
        let mut own: Vec<(u32, NetworkId)> = Vec::new();
        for id in names_in(&self.runs).unwrap_or_default().iter().filter_map(|name| name.parse().ok()) {
            let directory = self.runs.join(AsRef::<Path>::as_ref(NetworkId::as_str(&id)));
            if !directory.join(self.container.as_str()).exists() {
                self.seen.remove(&id);
                continue;
            }
            let seen = self.seen.remove(&id).filter(|seen| !seen.is_stale(&directory));
            let Some(seen) = seen.or_else(|| Seen::read(&directory, &self.container)) else { continue };
            own.extend(seen.link.map(|number| (number, id.clone())));
            self.seen.insert(id, seen);
        }
        own.sort();
        own.iter().filter_map(|(_, id)| self.seen.get(id)).collect()
    }
}

impl Seen {
    fn read(directory: &Path, container: &ContainerId) -> Option<Self> {
        let changed = changed(directory)?;
        let members = read_members(directory).ok()?;
        let settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK);
        let own = members.iter().find(|member| member.party.container == *container);
        let (link, leads_outside) = (own.map(Endpoint::number), own.is_some_and(|own| !own.internal));
        Some(Self { changed, settled, link, leads_outside, members })
    }

    fn is_stale(&self, directory: &Path) -> bool {
        !self.settled || changed(directory) != Some(self.changed)
    }

    /// Its members that are found by name, if it is a network on which names are resolved.
    fn known_members(&self) -> impl Iterator<Item = &Endpoint> {
        self.members.iter().filter(|member| member.resolves && !member.party.held)
    }
}

fn shares_subnet(member: &Endpoint, address: IpAddr) -> bool {
    let mut subnets = member.addresses.iter().filter_map(|entry| Cidr::around(entry.address, entry.prefix));
    subnets.any(|subnet| subnet.contains(address))
}

fn changed(directory: &Path) -> Option<SystemTime> {
    fs::metadata(directory).ok()?.modified().ok()
}

fn answers_to(member: &Endpoint, name: &str) -> bool {
    let in_network = name
        .strip_suffix(&member.network_name.as_str().to_ascii_lowercase())
        .and_then(|rest| rest.strip_suffix('.'));
    member.names().any(|own| {
        own.eq_ignore_ascii_case(name) || in_network.is_some_and(|name| own.eq_ignore_ascii_case(name))
    })
}
