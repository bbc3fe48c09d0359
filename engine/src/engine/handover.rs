//! Handing published ports from one container to another one, so that nobody who connects is refused.

use crate::container::client;
use crate::container::record::ContainerRecord;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::store::Lock;

impl Engine {
    /// Publishes the ports of a running container that were held back. What another container publishes moves in one
    /// transaction: new connections go to `to` from then on, established ones stay with `from`, which publishes
    /// nothing any more.
    ///
    /// # Errors
    /// When a port is taken by a third, or `to` is on no network.
    pub fn hand_over_ports(&self, from: Option<&ContainerId>, to: &ContainerId) -> Result<()> {
        let wanted = self.container(to.as_str())?.record.spec.ports;
        let networks = self.networks();
        if let Some(from) = from {
            let had = self.container(from.as_str())?.record.spec.ports;
            if !networks.published(from)?.is_empty() {
                networks.move_ports(from, to)?;
            }
            if had != wanted {
                networks.publish(to, &wanted, &networks.endpoints(to)?)?;
            }
        } else {
            networks.publish(to, &wanted, &networks.endpoints(to)?)?;
        }
        // A crash before this leaves them marked as held back: whoever looks hands them over again.
        self.change_record(to, |record| record.spec.ports_held = false)?;
        match from {
            Some(from) => self.change_record(from, |record| record.spec.ports.clear()),
            None => Ok(()),
        }
    }

    fn change_record(&self, id: &ContainerId, change: impl FnOnce(&mut ContainerRecord)) -> Result<()> {
        let failed = |error| Error::failed(format!("rewrite the record of container {}", id.short()), error);
        // The same lock as for a new name: both rewrite the record.
        let names = self.root().container_names();
        let one_at_a_time = Lock::exclusive(&names.join(".lock")).map_err(failed)?;
        let Some(mut record) = ContainerRecord::read(self.root(), id).map_err(failed)? else { return Ok(()) };
        change(&mut record);
        record.write(self.root()).map_err(failed)?;
        drop(one_at_a_time);
        match client::connect(self.root(), id)? {
            Some(mut monitor) => monitor.reload().map(drop),
            None => Ok(()),
        }
    }
}
