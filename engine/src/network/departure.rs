//! Letting go of containers. The kernel takes a grace period of some milliseconds for every removal from the firewall,
//! with its lock held, so those that end at the same time leave together: each says that it goes, and the first one to
//! get the lock takes along all who have said so.

use std::fs;
use std::net::IpAddr;

use crate::id::ContainerId;
use crate::network::attachment::{drop_claim, names_in};
use crate::network::{NetworkError, Networks, file_error};
use crate::store;

impl Networks {
    /// Takes back everything a container had: ports, addresses, names. Its links vanish with its network
    /// namespace. Doing it twice is fine.
    ///
    /// # Errors
    /// When a record cannot be removed.
    pub fn release(&self, container: &ContainerId) -> Result<(), NetworkError> {
        if !self.holds_something(container)? {
            return Ok(());
        }
        let word = self.root.departure(container);
        store::private_directory(&self.root.departures())
            .and_then(|()| fs::write(&word, []))
            .map_err(|source| file_error("write", &word, source))?;
        let _lock = self.lock()?;
        if !word.exists() {
            // Another one that left took it along.
            return Ok(());
        }
        let all: Vec<ContainerId> =
            names_in(&self.root.departures())?.iter().filter_map(|name| name.parse().ok()).collect();
        // What is wrong with another one is for that one to tell.
        self.let_go(&all).or_else(|_| self.let_go(std::slice::from_ref(container)))
    }

    /// Takes back everything of a container that a crash left, down to addresses that were claimed and never given.
    ///
    /// # Errors
    /// When a record cannot be removed.
    pub fn sweep(&self, container: &ContainerId) -> Result<(), NetworkError> {
        self.release(container)?;
        self.drop_stray_claims(container)
    }

    /// A container that is attached does not leave, whatever a process that was killed has said. The caller holds the
    /// lock.
    pub(super) fn stay(&self, container: &ContainerId) -> Result<(), NetworkError> {
        let word = self.root.departure(container);
        store::remove_file(&word).map_err(|source| file_error("remove", &word, source))
    }

    /// Only who starts or removes the container, one at a time, changes the answer.
    fn holds_something(&self, container: &ContainerId) -> Result<bool, NetworkError> {
        let is_on = |network| self.endpoint_path(network, container).exists();
        Ok(self.root.port_run(container).exists() || self.live_networks()?.iter().any(is_on))
    }

    fn let_go(&self, containers: &[ContainerId]) -> Result<(), NetworkError> {
        self.withdraw(containers)?;
        for network in self.live_networks()? {
            containers.iter().try_for_each(|container| self.detach(&network, container))?;
        }
        containers.iter().try_for_each(|container| self.stay(container))
    }

    /// A process that is killed between claiming an address and writing the endpoint leaves a claim alone.
    fn drop_stray_claims(&self, container: &ContainerId) -> Result<(), NetworkError> {
        let _lock = self.lock()?;
        for network in self.live_networks()? {
            let directory = self.root.network_run(&network);
            for address in names_in(&directory)?.iter().filter_map(|name| name.parse::<IpAddr>().ok()) {
                drop_claim(&directory, address, container)?;
            }
        }
        Ok(())
    }
}
