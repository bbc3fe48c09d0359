//! What belongs in the kernel, and what is there: whoever flushed the firewall or removed a bridge is put right from
//! the records. The host stays in charge; it is only never left with half of a network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::id::ContainerId;
use crate::network::attachment::{claimant, names_in};
use crate::network::firewall::{Forward, Table};
use crate::network::{INTERFACE_NAME, Network, NetworkError, Networks, link, make_bridge, relay};

impl Networks {
    /// Whether everything that live endpoints need is in the kernel. A short look: a network without members needs
    /// nothing.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn is_whole(&self) -> Result<bool, NetworkError> {
        if relay::is_lost(&self.root) {
            return Ok(false);
        }
        let used = self.used()?;
        if used.is_empty() {
            return Ok(true);
        }
        for network in &used {
            if !link::exists(&network.bridge)? {
                return Ok(false);
            }
        }
        Table::named(self.root.tag()).is_current()
    }

    /// Makes the kernel agree with the records. Returns what was put right, in words, and tells it as events. The
    /// links of containers are put back by those who watch over them, who hear of it by themselves.
    ///
    /// # Errors
    /// When a record cannot be read, or the kernel refuses.
    pub fn heal(&self) -> Result<Vec<String>, NetworkError> {
        let mut healed = Vec::new();
        let _lock = self.lock()?;
        for bridge in self.stray_bridges()? {
            link::remove(&bridge)?;
            healed.push(format!("removed the bridge {bridge}, which belongs to no network"));
        }
        let used = self.used()?;
        for network in &used {
            healed.extend(self.heal_bridge(network)?);
        }
        if let Some(text) = self.heal_table()? {
            used.iter().for_each(|network| self.announce_repair(network, &text, None));
            healed.push(text);
        }
        if let Some(text) = self.heal_relay()? {
            used.iter().for_each(|network| self.announce_repair(network, &text, None));
            healed.push(text);
        }
        Ok(healed)
    }

    /// A relay that was killed is started again when there is something to carry.
    fn heal_relay(&self) -> Result<Option<String>, NetworkError> {
        if !relay::is_lost(&self.root) {
            return Ok(None);
        }
        if self.carried_ports()?.is_empty() {
            relay::clear_away(&self.root)?;
            return Ok(None);
        }
        relay::ensure(&self.root)?;
        Ok(Some("started the relay of published ports again, which takes in IPv6".to_owned()))
    }

    /// The containers that have an address or a published port, alive or not.
    pub fn holders(&self) -> Result<Vec<ContainerId>, NetworkError> {
        let mut holders: Vec<ContainerId> =
            names_in(&self.root.port_runs())?.iter().filter_map(|name| name.parse().ok()).collect();
        for network in self.live_networks()? {
            let directory = self.root.network_run(&network);
            for name in names_in(&directory)? {
                let owner =
                    if name.parse::<IpAddr>().is_ok() { claimant(&directory.join(&name)) } else { name };
                holders.extend(owner.parse::<ContainerId>().ok());
            }
        }
        holders.sort();
        holders.dedup();
        Ok(holders)
    }

    /// A bridge is made anew when it is missed, and given its addresses again when somebody took them.
    pub(crate) fn heal_bridge(&self, network: &Network) -> Result<Option<String>, NetworkError> {
        let (bridge, name) = (&network.bridge, &network.spec.name);
        let text = if !link::exists(bridge)? {
            self.bring_up(network)?;
            format!("made the bridge {bridge} of network {name} again")
        } else if !link::has_addresses(bridge, &network.gateways())? {
            make_bridge(network)?;
            format!("gave the bridge {bridge} of network {name} its addresses again")
        } else {
            return Ok(None);
        };
        self.announce_repair(network, &text, None);
        Ok(Some(text))
    }

    /// The table is made anew when it is missed, or holds something else than the records say.
    fn heal_table(&self) -> Result<Option<String>, NetworkError> {
        let table = Table::named(self.root.tag());
        let recorded = self.recorded()?;
        if !table.is_whole()? {
            if self.used()?.is_empty() {
                return Ok(None);
            }
            self.make_table()?;
            return Ok(Some(format!("made the firewall table {} again", self.root.tag())));
        }
        let forwards: BTreeSet<String> = keys(&self.recorded_forwards()?);
        let bridges: BTreeSet<String> = recorded.iter().map(|network| network.bridge.clone()).collect();
        let stray = table.bridges()?.into_iter().any(|bridge| !bridges.contains(&bridge));
        if stray || forwards != keys(&table.forwards()?) {
            self.make_table()?;
            return Ok(Some(format!("made the firewall table {} as the records say", self.root.tag())));
        }
        Ok(None)
    }

    /// The networks that somebody is attached to now, and that this engine has made something for.
    fn used(&self) -> Result<Vec<Network>, NetworkError> {
        let mut used = Vec::new();
        for network in self.recorded()?.into_iter().filter(Network::has_bridge) {
            let names = names_in(&self.root.network_run(&network.id))?;
            if names.iter().any(|name| name.parse::<ContainerId>().is_ok()) {
                used.push(network);
            }
        }
        Ok(used)
    }

    /// Bridges that are named as this root names its own, and have no record.
    fn stray_bridges(&self) -> Result<Vec<String>, NetworkError> {
        let recorded = self.recorded()?;
        let prefix = format!("{}b", self.root.short_tag());
        let is_ours = |name: &String| {
            let digits = name.strip_prefix(&prefix).filter(|_| name.len() == INTERFACE_NAME);
            digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                && recorded.iter().all(|network| network.bridge != *name)
        };
        Ok(link::names()?.into_iter().filter(is_ours).collect())
    }
}

/// Forwards without their order.
fn keys(forwards: &[Forward]) -> BTreeSet<String> {
    forwards.iter().map(|forward| format!("{forward:?}")).collect()
}
