//! Published ports of one container of which another container gets a part of the new connections.

use crate::id::ContainerId;
use crate::network::firewall::share::{Draw, Share, ShareTable};
use crate::network::ports::is_of;
use crate::network::{NetworkError, Networks, PublishedPort};
use crate::quantity::Percent;

impl Networks {
    /// Leads so many of a hundred new connections to each published port of one container to another one, which listens
    /// on the same ports of its own; `draw` says which ones. What it had of it before is replaced; established
    /// connections stay where they are. It ends with the other container, or when the ports move to it. The ports.
    ///
    /// # Errors
    /// When the other container is not attached to any network with a way in.
    pub fn share_ports(
        &self,
        from: &ContainerId,
        to: &ContainerId,
        percent: Percent,
        draw: Draw,
    ) -> Result<Vec<PublishedPort>, NetworkError> {
        let successor = self.successor(to)?;
        let owner = &successor.owner;
        let _machine = self.machine_lock()?;
        let _lock = self.lock()?;
        let shared = successor.take(self.published(from)?)?;
        self.mark_shared(to, owner, true)?;
        for table in ShareTable::beside(self.root.tag()) {
            let mut shares = others(&table, to)?;
            if table.draw() == draw {
                shares.extend(
                    shared.iter().map(|port| Share { forward: port.forward(owner, &self.root), percent }),
                );
            }
            table.set(&shares)?;
        }
        Ok(shared)
    }

    /// Leads no new connections to what others publish to a container any more. Established ones stay.
    ///
    /// # Errors
    /// When the table cannot be changed.
    pub fn unshare_ports(&self, container: &ContainerId) -> Result<(), NetworkError> {
        let _machine = self.machine_lock()?;
        let _lock = self.lock()?;
        self.end_shares(container)
    }

    /// Leads no connections to what others publish to a container any more. The caller holds the locks.
    pub(crate) fn end_shares(&self, container: &ContainerId) -> Result<(), NetworkError> {
        for table in ShareTable::beside(self.root.tag()) {
            let others = others(&table, container)?;
            table.set(&others)?;
        }
        self.mark_shared(container, "", false)
    }
}

fn others(table: &ShareTable, container: &ContainerId) -> Result<Vec<Share>, NetworkError> {
    let shares = table.shares()?.into_iter();
    Ok(shares.filter(|share| !is_of(&share.forward, container)).collect())
}
