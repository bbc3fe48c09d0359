//! Attaching containers to networks. An address is claimed by a symbolic link in the
//! network's run directory, named after the address and leading to the container's id: making one is atomic, and
//! what a killed process leaves behind says whose it was.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::container::spec::NetworkAttachment;
use crate::id::{ContainerId, ContainerName, NetworkId};
use crate::network::endpoint::{Endpoint, EndpointAddress, Party};
use crate::network::{
    DEFAULT_NETWORK, LinkOptions, Network, NetworkError, Networks, Subnet, file_error, ipam, link,
};
use crate::store::{self, Durability};

/// The form of an endpoint's record.
const VERSION: u32 = 1;

impl Networks {
    /// Who is attached to a network now.
    ///
    /// # Errors
    /// When an endpoint's record cannot be read.
    pub fn members(&self, id: &NetworkId) -> Result<Vec<Endpoint>, NetworkError> {
        read_members(&self.root.network_run(id))
    }

    /// What the attached container is called now whose id begins like this.
    pub(super) fn name_of(&self, short: &str) -> Result<Option<String>, NetworkError> {
        for network in self.live_networks()? {
            let found = self.members(&network)?.into_iter().find(|it| it.party.container.short() == short);
            if let Some(endpoint) = found {
                return Ok(Some(endpoint.party.name.to_string()));
            }
        }
        Ok(None)
    }

    /// Where a container is attached now, in the order `eth0`, `eth1`, ….
    ///
    /// # Errors
    /// When an endpoint's record cannot be read.
    pub fn endpoints(&self, container: &ContainerId) -> Result<Vec<Endpoint>, NetworkError> {
        let mut endpoints = Vec::new();
        for network in self.live_networks()? {
            endpoints.extend(self.endpoint(&network, container)?);
        }
        endpoints.sort_by_key(Endpoint::number);
        Ok(endpoints)
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
        let only_default = [NetworkAttachment {
            network: DEFAULT_NETWORK.to_owned(),
            aliases: Vec::new(),
            addresses: Vec::new(),
            mac_address: None,
            gateway_priority: 0,
            link_local: Vec::new(),
            link: LinkOptions::default(),
        }];
        let attachments = if attachments.is_empty() { &only_default } else { attachments };
        let attached = self.attach_all(party, attachments);
        if attached.is_err() {
            // The first failure is the one to tell; what is left then, the next sweep finds.
            let _ = self.release(&party.container);
        }
        attached
    }

    /// The network of an attachment, which makes sense as far as that can be told before it is tried.
    ///
    /// # Errors
    /// When the network does not exist or nobody can be attached to it, or does not have what the attachment wants.
    pub fn check(&self, attachment: &NetworkAttachment) -> Result<Network, NetworkError> {
        let network = self.find(&attachment.network)?;
        let name = &network.spec.name;
        if !network.can_be_joined() {
            return Err(NetworkError::Invalid(format!("the network {name} cannot be combined with others")));
        }
        // As with docker, names are resolved on every network but this one.
        if name.as_str() == DEFAULT_NETWORK && !attachment.aliases.is_empty() {
            return Err(NetworkError::Invalid(format!(
                "the network {name} knows no names, so a container can have no alias there: use a network that was \
                 made with `rengine network create`"
            )));
        }
        if let Some(text) = attachment.mac_address.as_deref().filter(|text| link::parse_mac(text).is_none()) {
            return Err(NetworkError::Invalid(format!("invalid hardware address {text:?}")));
        }
        // The subnets of the default network are not known before its first use.
        if !network.spec.subnets.is_empty() {
            check_addresses(&network, &attachment.addresses)?;
        }
        Ok(network)
    }

    /// Attaches a container that is attached elsewhere already, or nowhere.
    ///
    /// # Errors
    /// Like [`Networks::attach`], and when it is attached to this network already.
    pub fn connect(&self, party: &Party, attachment: &NetworkAttachment) -> Result<Endpoint, NetworkError> {
        let mut network = self.check(attachment)?;
        if network.spec.subnets.is_empty() {
            network = self.ensure_default()?;
        }
        let _lock = self.lock()?;
        // Somebody may have removed it since it was found.
        if !self.root.network(&network.id).exists() {
            return Err(NetworkError::NotFound(attachment.network.clone()));
        }
        if self.endpoint(&network.id, &party.container)?.is_some() {
            let name = &network.spec.name;
            return Err(NetworkError::Conflict(format!(
                "container {} is attached to the network {name} already",
                party.name
            )));
        }
        let others = self.endpoints(&party.container)?;
        let is_free = |number: &u32| others.iter().all(|other| other.number() != *number);
        let number = (0..).find(is_free).unwrap_or(0);
        self.bring_up(&network)?;
        let endpoint = self.attach_one(party, &network, attachment, number);
        let endpoint = endpoint.and_then(|endpoint| refuse_taken_name(&others, &endpoint).map(|()| endpoint));
        if endpoint.is_err() {
            // The first failure is the one to tell; a claim that stays is swept later.
            let _ = self.detach(&network.id, &party.container);
        }
        endpoint
    }

    /// Takes back what a container had of one network: addresses and names. Doing it twice is fine.
    ///
    /// # Errors
    /// When a record cannot be removed.
    pub fn disconnect(&self, network: &NetworkId, container: &ContainerId) -> Result<(), NetworkError> {
        let _lock = self.lock()?;
        self.detach(network, container)
    }

    /// Gives an attached container another name.
    ///
    /// # Errors
    /// When an endpoint's record cannot be written.
    pub fn rename(&self, container: &ContainerId, name: &ContainerName) -> Result<(), NetworkError> {
        let _lock = self.lock()?;
        for mut endpoint in self.endpoints(container)? {
            endpoint.party.name = name.clone();
            self.write_endpoint(&endpoint)?;
        }
        Ok(())
    }

    /// Lets an attached container be found by its names, or not any more.
    ///
    /// # Errors
    /// When an endpoint's record cannot be written.
    pub fn hold_names(&self, container: &ContainerId, held: bool) -> Result<(), NetworkError> {
        let _lock = self.lock()?;
        for mut endpoint in self.endpoints(container)? {
            endpoint.party.held = held;
            self.write_endpoint(&endpoint)?;
        }
        Ok(())
    }

    fn attach_all(
        &self,
        party: &Party,
        attachments: &[NetworkAttachment],
    ) -> Result<Vec<Endpoint>, NetworkError> {
        let mut networks = Vec::new();
        for attachment in attachments {
            let network = self.check(attachment)?;
            if networks.iter().any(|other: &Network| other.id == network.id) {
                let name = network.spec.name;
                return Err(NetworkError::Invalid(format!("the network {name} is named twice")));
            }
            networks.push(if network.spec.subnets.is_empty() { self.ensure_default()? } else { network });
        }
        let _lock = self.lock()?;
        let mut endpoints = Vec::new();
        for (number, (network, attachment)) in networks.iter().zip(attachments).enumerate() {
            // Somebody may have removed it since it was found.
            if !self.root.network(&network.id).exists() {
                return Err(NetworkError::NotFound(attachment.network.clone()));
            }
            self.bring_up(network)?;
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let endpoint = self.attach_one(party, network, attachment, number)?;
            refuse_taken_name(&endpoints, &endpoint)?;
            endpoints.push(endpoint);
        }
        Ok(endpoints)
    }

    fn attach_one(
        &self,
        party: &Party,
        network: &Network,
        attachment: &NetworkAttachment,
        number: u32,
    ) -> Result<Endpoint, NetworkError> {
        let directory = self.root.network_run(&network.id);
        store::private_directory(&directory).map_err(|source| file_error("make", &directory, source))?;
        self.stay(&party.container)?;
        let before = self.endpoint(&network.id, &party.container)?;
        let addresses = match before.filter(|before| keeps_to(before, attachment)) {
            Some(before) => before.addresses,
            None => claim_addresses(&directory, party, network, attachment)?,
        };
        let mac = match &attachment.mac_address {
            Some(text) => link::parse_mac(text)
                .ok_or_else(|| NetworkError::Invalid(format!("invalid hardware address {text:?}")))?,
            None => addresses.first().map_or([2, 0, 0, 0, 0, 1], |entry| link::mac_for(entry.address)),
        };
        let options = network.driver_options();
        let own_name = attachment.link.interface.clone();
        let interface = own_name.clone().unwrap_or_else(|| format!("{}{number}", options.interface_prefix));
        let endpoint = Endpoint {
            version: VERSION,
            network: network.id.clone(),
            network_name: network.spec.name.clone(),
            party: party.clone(),
            aliases: attachment.aliases.clone(),
            place: own_name.map(|_| number),
            sysctls: attachment.link.sysctl_paths(&interface),
            interface,
            mac_address: link::render_mac(mac),
            addresses,
            link_local: attachment.link_local.clone(),
            gateway_priority: attachment.gateway_priority,
            internal: network.spec.internal,
            isolated: options.isolated,
            resolves: network.spec.name.as_str() != DEFAULT_NETWORK,
            bridge: network.bridge.clone(),
            driver: options.driver,
            host_binding: options.host_binding,
            mtu: options.mtu,
        };
        self.write_endpoint(&endpoint)?;
        Ok(endpoint)
    }

    fn endpoint(
        &self,
        network: &NetworkId,
        container: &ContainerId,
    ) -> Result<Option<Endpoint>, NetworkError> {
        let path = self.endpoint_path(network, container);
        store::read_json(&path).map_err(|source| file_error("read", &path, source))
    }

    fn write_endpoint(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let path = self.endpoint_path(&endpoint.network, &endpoint.party.container);
        store::write_json(&path, endpoint, Durability::Rename)
            .map_err(|source| file_error("write", &path, source))
    }

    pub(super) fn endpoint_path(&self, network: &NetworkId, container: &ContainerId) -> PathBuf {
        self.root.network_run(network).join(container.as_str())
    }

    /// Takes back what a container had of one network. The caller holds the lock.
    pub(super) fn detach(&self, network: &NetworkId, container: &ContainerId) -> Result<(), NetworkError> {
        let path = self.endpoint_path(network, container);
        // A record that cannot be read must not keep its container from being released.
        if let Ok(Some(endpoint)) = store::read_json::<Endpoint>(&path) {
            for entry in &endpoint.addresses {
                drop_claim(&self.root.network_run(network), entry.address, container)?;
            }
        }
        store::remove_file(&path).map_err(|source| file_error("remove", &path, source))
    }

    /// The networks that have a run directory.
    pub(crate) fn live_networks(&self) -> Result<Vec<NetworkId>, NetworkError> {
        Ok(names_in(&self.root.network_runs())?.into_iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// Reads every endpoint in the run directory of a network, by container name.
pub(crate) fn read_members(directory: &Path) -> Result<Vec<Endpoint>, NetworkError> {
    let mut members = Vec::new();
    for name in names_in(directory)?.iter().filter(|name| name.parse::<ContainerId>().is_ok()) {
        let path = directory.join(name);
        // One that vanished since is attached no more.
        members
            .extend(store::read_json::<Endpoint>(&path).map_err(|source| file_error("read", &path, source))?);
    }
    members.sort_by(|one, other| one.party.name.cmp(&other.party.name));
    Ok(members)
}

fn refuse_taken_name(others: &[Endpoint], endpoint: &Endpoint) -> Result<(), NetworkError> {
    let name = &endpoint.interface;
    match others.iter().find(|other| other.interface == *name) {
        Some(other) => Err(NetworkError::Invalid(format!(
            "the links on the networks {} and {} would both be called {name}",
            other.network_name, endpoint.network_name
        ))),
        None => Ok(()),
    }
}

fn keeps_to(before: &Endpoint, attachment: &NetworkAttachment) -> bool {
    attachment.addresses.iter().all(|wanted| before.addresses.iter().any(|entry| entry.address == *wanted))
}

fn check_addresses(network: &Network, wanted: &[IpAddr]) -> Result<(), NetworkError> {
    for address in wanted {
        let subnet = network.spec.subnets.iter().find(|subnet| subnet.cidr.contains(*address));
        let name = &network.spec.name;
        let stray = || {
            NetworkError::Invalid(format!("the address {address} lies in no subnet of the network {name}"))
        };
        ipam::check_address(subnet.ok_or_else(stray)?, *address)?;
    }
    Ok(())
}

fn claim_addresses(
    directory: &Path,
    party: &Party,
    network: &Network,
    attachment: &NetworkAttachment,
) -> Result<Vec<EndpointAddress>, NetworkError> {
    check_addresses(network, &attachment.addresses)?;
    let name = &network.spec.name;
    let mut addresses = Vec::new();
    for subnet in &network.spec.subnets {
        let wanted = attachment.addresses.iter().find(|wanted| subnet.cidr.contains(**wanted));
        let address = match wanted {
            Some(wanted) => *wanted,
            None => next_address(directory, subnet).ok_or_else(|| {
                NetworkError::Conflict(format!(
                    "no address is left in the subnet {} of the network {name}",
                    subnet.cidr
                ))
            })?,
        };
        claim(directory, address, party, network)?;
        addresses.push(EndpointAddress {
            address,
            prefix: subnet.cidr.prefix(),
            gateway: subnet.gateway.filter(|_| !network.spec.internal),
        });
    }
    Ok(addresses)
}

fn next_address(directory: &Path, subnet: &Subnet) -> Option<IpAddr> {
    let cursor = directory.join(if subnet.cidr.is_ipv4() { ".last4" } else { ".last6" });
    // Without a cursor, or with half of one, the search begins at the first address.
    let last = fs::read_to_string(&cursor).ok().and_then(|text| text.trim_end().parse().ok());
    let is_taken = |address: IpAddr| fs::symlink_metadata(directory.join(address.to_string())).is_ok();
    let address = ipam::next_address(subnet, last, &is_taken)?;
    let _ = remember(&cursor, address);
    Some(address)
}

/// Writes over what is there and never cuts it short: where a freed block is discarded at once (ext4 without a journal),
/// that waits for the disk.
fn remember(cursor: &Path, address: IpAddr) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(cursor)?;
    // The longest address of IPv6 has 39 characters.
    writeln!(file, "{:<39}", address.to_string())
}

fn claim(directory: &Path, address: IpAddr, party: &Party, network: &Network) -> Result<(), NetworkError> {
    let path = directory.join(address.to_string());
    match std::os::unix::fs::symlink(party.container.as_str(), &path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let owner = claimant(&path);
            if owner == party.container.as_str() {
                return Ok(());
            }
            let name = store::read_json::<Endpoint>(&directory.join(&owner))
                .ok()
                .flatten()
                .map_or(owner, |endpoint| endpoint.party.name.to_string());
            let network = &network.spec.name;
            Err(NetworkError::Conflict(format!(
                "the address {address} of the network {network} is in use by container {name}"
            )))
        }
        Err(source) => Err(file_error("claim", &path, source)),
    }
}

/// Takes back an address that a container claimed. The caller holds the lock.
pub(super) fn drop_claim(
    directory: &Path,
    address: IpAddr,
    container: &ContainerId,
) -> Result<(), NetworkError> {
    let path = directory.join(address.to_string());
    if claimant(&path) != container.as_str() {
        return Ok(());
    }
    store::remove_file(&path).map_err(|source| file_error("remove", &path, source))
}

/// Who claimed an address; nobody has the empty name.
pub(crate) fn claimant(path: &Path) -> String {
    fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The names in a directory; none when there is no directory.
pub(crate) fn names_in(directory: &Path) -> Result<Vec<String>, NetworkError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|source| file_error("read", directory, source))?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
