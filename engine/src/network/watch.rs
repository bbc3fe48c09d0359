//! Hearing from the kernel that something of a running container's networks was removed, and putting it back.
//!
//! Whoever watches over a container asks for three kinds of news, and sleeps through everything else:
//! - in the container's network namespace: a link was removed, as its end is when the host's end is;
//! - on the host: an address of one of its bridges was removed, as it is with the bridge. News of links would tell
//!   the same, but there are a dozen of them for each container that starts, and every watch would be asked whether
//!   it wants them;
//! - on the host: something of this root's firewall table was removed that the engine itself never removes alone.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::Pid;

use crate::network::firewall::Table;
use crate::network::link::{self, HostEnd};
use crate::network::options::Driver;
use crate::network::{Endpoint, Network, NetworkError, Networks, configure_inside, inside_links, visit};
use crate::sys::filter::{Filter, Wanted};
use crate::sys::netlink::Ear;

/// Watches over the links and bridges of one running container.
#[derive(Debug)]
pub struct Watch {
    plugs: Vec<Plug>,
    ears: [Ear; 2],
}

/// Watches over the firewall's table of this root. Who has one keeps it: to close it takes as long as to destroy what
/// transactions of anybody have removed, which is several RCU grace periods.
#[derive(Debug)]
pub struct FirewallWatch(Ear);

/// The host's end of one attachment, as it was seen last.
#[derive(Debug)]
struct Plug {
    endpoint: Endpoint,
    end: HostEnd,
}

/// Groups of rtnetlink(7) as bits.
const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ADDRESS: u32 = 1 << 4;
const GROUP_IPV6_ADDRESS: u32 = 1 << 8;
const LINK_REMOVED: u16 = 17;
const ADDRESS_REMOVED: u16 = 21;
/// Where messages have what is looked at: the type in the netlink header, behind which `ifinfomsg` begins with its
/// family, and `ifaddrmsg` has its link's number.
const TYPE: u32 = 4;
const FAMILY: u32 = 16;
const ADDRESS_LINK: u32 = 20;

// === impl Watch ===

impl Watch {
    /// Begins to watch over these attachments of a running container; `None` when none of them is of our making.
    ///
    /// # Errors
    /// When the container has ended, or the kernel has no socket to listen with.
    pub fn begin(endpoints: &[Endpoint], process: impl AsFd) -> Result<Option<Self>, NetworkError> {
        let bridged: Vec<&Endpoint> =
            endpoints.iter().filter(|endpoint| endpoint.driver == Driver::Bridge).collect();
        if bridged.is_empty() {
            return Ok(None);
        }
        let names: Vec<&str> = bridged.iter().map(|endpoint| endpoint.interface.as_str()).collect();
        let (inside, ends) = visit(process, || Ok((hear_of_links()?, link::other_ends(&names)?)))?;
        let mut plugs = Vec::new();
        for (endpoint, index) in bridged.into_iter().zip(ends) {
            // A link that its container has renamed or given away is its own affair.
            let Some(end) = index.map(link::host_end).transpose()?.flatten() else { continue };
            plugs.push(Plug { endpoint: endpoint.clone(), end });
        }
        let bridges: Vec<u32> = plugs.iter().filter_map(|plug| plug.end.bridge).collect();
        let ears = [inside, hear_of_addresses(&bridges)?];
        Ok(Some(Self { plugs, ears }))
    }

    /// What becomes readable when something was removed.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ears.iter().map(Ear::as_fd)
    }

    /// Whether there was news since the last look.
    pub fn heard(&self) -> bool {
        // Every one is listened to, or it would wake the next wait.
        self.ears.iter().filter(|ear| ear.heard()).count() > 0
    }
}

// === impl FirewallWatch ===

impl FirewallWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the kernel has no socket to listen with.
    pub fn begin(networks: &Networks) -> Result<Self, NetworkError> {
        Table::named(networks.root.tag()).listen().map(Self)
    }

    /// Whether something was removed since the last look.
    pub fn heard(&self) -> bool {
        self.0.heard()
    }
}

impl AsFd for FirewallWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

// === impl Networks ===

impl Networks {
    /// Puts back what a running container's networks have lost: bridges, the firewall, its links. Its process is
    /// named twice: the number is what links are given to, the descriptor makes sure that it is still the same. Tells
    /// whether the watch has to begin anew.
    ///
    /// # Errors
    /// When the kernel refuses; what was put back by then stays.
    pub fn put_back(
        &self,
        watch: &Watch,
        endpoints: &[Endpoint],
        pid: Pid,
        process: impl AsFd,
    ) -> Result<bool, NetworkError> {
        self.put_back_table(watch)?;
        let mut changed = false;
        for Plug { endpoint, end } in &watch.plugs {
            // It may have been taken off this network meanwhile, or it is another attachment.
            if !endpoints.contains(endpoint) {
                continue;
            }
            let Some(network) = self.known(&endpoint.network)? else { continue };
            changed |= self.put_back_link(&network, endpoint, end, endpoints, pid, process.as_fd())?;
        }
        Ok(changed)
    }

    /// The first one that comes makes the table for all.
    fn put_back_table(&self, watch: &Watch) -> Result<(), NetworkError> {
        let _lock = self.lock()?;
        if Table::named(self.root.tag()).is_whole()? {
            return Ok(());
        }
        self.make_table()?;
        let text = format!("made the firewall table {} again", self.root.tag());
        for plug in &watch.plugs {
            if let Some(network) = self.known(&plug.endpoint.network)? {
                self.announce_repair(&network, &text, None);
            }
        }
        Ok(())
    }

    fn put_back_link(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        end: &HostEnd,
        all: &[Endpoint],
        pid: Pid,
        process: BorrowedFd<'_>,
    ) -> Result<bool, NetworkError> {
        // Nobody makes or removes the bridge between the look and the change.
        let _lock = self.lock()?;
        self.heal_bridge(network)?;
        let bridge = link::number(&network.bridge)?;
        let text = match link::host_end(end.index)? {
            Some(now) if now.bridge == bridge => return Ok(end.bridge != bridge),
            Some(now) => {
                link::put_back(endpoint, &now)?;
                format!("plugged {} into the bridge {} again", now.name, network.bridge)
            }
            None => {
                link::plug_again(endpoint, end, pid)?;
                let mut links = inside_links(all);
                links.retain(|link| link.interface == endpoint.interface);
                visit(process, || configure_inside(&links))?;
                format!("made the link {} of container {} again", endpoint.interface, endpoint.party.name)
            }
        };
        self.announce_repair(network, &text, Some(&endpoint.party.container));
        Ok(true)
    }
}

fn hear_of_links() -> Result<Ear, NetworkError> {
    // Bridges tell of their ports with the same message and a family of their own.
    let any_family = Wanted::Bytes(FAMILY, vec![0]);
    let filter = Filter { every: vec![Wanted::Half(TYPE, LINK_REMOVED), any_family], any: Vec::new() };
    Ear::route(GROUP_LINK, &filter).map_err(|source| deaf("links", source))
}

fn hear_of_addresses(links: &[u32]) -> Result<Ear, NetworkError> {
    let filter = Filter {
        every: vec![Wanted::Half(TYPE, ADDRESS_REMOVED)],
        // No link has the number zero: without bridges there is nothing to hear of.
        any: links.iter().chain([&0]).map(|index| Wanted::Word(ADDRESS_LINK, *index)).collect(),
    };
    Ear::route(GROUP_IPV4_ADDRESS | GROUP_IPV6_ADDRESS, &filter).map_err(|source| deaf("addresses", source))
}

fn deaf(what: &str, source: std::io::Error) -> NetworkError {
    NetworkError::Link { step: "listen to changes of", object: what.to_owned(), source }
}
