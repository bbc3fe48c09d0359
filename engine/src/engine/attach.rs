//! Connecting containers to networks and disconnecting them, whether they run or not.

use crate::container::client;
use crate::container::monitor;
use crate::container::record::ContainerRecord;
use crate::container::spec::{NetworkAttachment, NetworkMode};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::id::ContainerId;
use crate::network::Network;
use crate::store::Lock;

impl Engine {
    /// Attaches a container to one more network. A running one has the new interface, its address and its names at
    /// once; its published ports and all it had before stay.
    ///
    /// # Errors
    /// When the network or the container does not exist, they are connected already, or the network does not have
    /// what is asked for. Everything is as before then.
    pub fn connect(&self, id: &ContainerId, attachment: &NetworkAttachment) -> Result<()> {
        let network = self.networks().check(attachment)?;
        let _one_at_a_time = self.lock_records()?;
        if let Some(mut monitor) = self.live_monitor(id)? {
            return monitor.connect_network(attachment.clone());
        }
        self.change_networks(id, &network, "connect", |mode| {
            mode.with(attachment, |name| self.means(name, &network))
        })
    }

    /// Detaches a container from a network. The interface of a running one goes; ports that were published by way of
    /// that network lead to another one of the container's, if it has one.
    ///
    /// # Errors
    /// When the network or the container does not exist, or they are not connected.
    pub fn disconnect(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let network = self.networks().find(network)?;
        let id = match self.container(container) {
            Ok(found) => found.record.id,
            // Somebody may have removed the container's files by hand.
            Err(error) if force && error.kind() == Kind::NotFound => {
                return self.disconnect_stray(&network, container);
            }
            Err(error) => return Err(error),
        };
        let _one_at_a_time = self.lock_records()?;
        if let Some(mut monitor) = self.live_monitor(&id)? {
            return monitor.disconnect_network(network.id.as_str());
        }
        self.change_networks(&id, &network, "disconnect", |mode| {
            mode.without(|name| self.means(name, &network))
        })
    }

    fn disconnect_stray(&self, network: &Network, container: &str) -> Result<()> {
        let members = self.networks().members(&network.id)?;
        let stray = members.iter().find(|member| {
            member.party.name.as_str() == container || member.party.container.as_str() == container
        });
        let stray = stray.ok_or_else(|| {
            Error::not_found(format!("no container {container} on the network {}", network.spec.name))
        })?;
        Ok(self.networks().disconnect(&network.id, &stray.party.container)?)
    }

    /// Changes the record of a container that does not run. Its monitor's lock is held, so none starts meanwhile.
    fn change_networks(
        &self,
        id: &ContainerId,
        network: &Network,
        verb: &str,
        change: impl FnOnce(&NetworkMode) -> std::result::Result<NetworkMode, crate::container::spec::AttachError>,
    ) -> Result<()> {
        let _no_monitor = self.monitor_lock(id)?;
        let failed = |error| Error::failed(format!("{verb} container {}", id.short()), error);
        let missing = || Error::not_found(format!("no such container: {}", id.short()));
        let mut record = ContainerRecord::read(self.root(), id).map_err(failed)?.ok_or_else(missing)?;
        record.spec.network =
            change(&record.spec.network).map_err(|error| monitor::refused(verb, &record, network, &error))?;
        record.write(self.root()).map_err(failed)
    }

    /// A connection to the monitor of a container that is alive, also while it waits for its next start.
    fn live_monitor(&self, id: &ContainerId) -> Result<Option<client::Connection>> {
        client::connect(self.root(), id)
    }

    fn lock_records(&self) -> Result<Lock> {
        Lock::exclusive(&self.root().container_names().join(".lock"))
            .map_err(|error| Error::failed("lock the containers' records", error))
    }

    fn means(&self, name: &str, network: &Network) -> bool {
        self.networks().find(name).is_ok_and(|found| found.id == network.id)
    }
}
