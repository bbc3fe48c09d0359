//! Handing published ports and names from one container to another one, so that nobody who connects is refused.

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::container::client;
use crate::container::record::ContainerRecord;
use crate::container::state::State;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::network::{Draw, PublishedPort, parked};
use crate::quantity::Percent;
use crate::store::Lock;

impl Engine {
    /// Publishes the ports of a running container that were held back, and lets it be found by its names. What another
    /// container publishes moves in one transaction: new connections go to `to` from then on, established ones stay
    /// with `from`, which holds its own ports and names back from now on.
    ///
    /// # Errors
    /// When a port is taken by a third, or `to` is on no network.
    pub fn hand_over(&self, from: Option<&ContainerId>, to: &ContainerId) -> Result<()> {
        let wanted = self.container(to.as_str())?.record.spec.ports;
        let networks = self.networks();
        // Who has them now: the other one, or the place where they were parked for either of the two.
        let holders = from.into_iter().cloned().chain(from.map(parked)).chain([parked(to)]);
        for holder in holders {
            if !networks.published(&holder)?.is_empty() {
                networks.move_ports(&holder, to)?;
            }
        }
        // What is wanted may be more than what moved, and a crash may have left the kernel with less than was written.
        networks.publish(to, &wanted, &networks.endpoints(to)?)?;
        // Both answer to their names for a moment; the other way round nobody would.
        networks.hold_names(to, false)?;
        // A crash before this leaves them marked as held back: whoever looks hands them over again.
        self.change_record(to, |record| record.spec.held = false)?;
        match from {
            Some(from) => {
                networks.hold_names(from, true)?;
                self.change_record(from, |record| record.spec.held = true)
            }
            None => Ok(()),
        }
    }

    /// Keeps a container that does not run from publishing its ports and from being found by its names when it starts,
    /// until they are handed over to it.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub fn hold_back(&self, id: &ContainerId) -> Result<()> {
        self.change_record(id, |record| record.spec.held = true)
    }

    /// Takes [`Engine::hold_back`] back: a container that does not run publishes its ports and is found when it starts.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub fn hold_no_longer(&self, id: &ContainerId) -> Result<()> {
        self.change_record(id, |record| record.spec.held = false)
    }

    /// Leads so many of a hundred new connections to the published ports of `from` to `to`, which runs and holds its own
    /// back; `draw` says which ones. It ends when the ports are handed over or `to` stops. The ports.
    ///
    /// # Errors
    /// When `to` is on no network.
    pub fn share_ports(
        &self,
        from: &ContainerId,
        to: &ContainerId,
        percent: Percent,
        draw: Draw,
    ) -> Result<Vec<PublishedPort>> {
        Ok(self.networks().share_ports(from, to, percent, draw)?)
    }

    /// Leads no new connections to what others publish to a container any more; established ones stay.
    ///
    /// # Errors
    /// When the table cannot be changed.
    pub fn unshare_ports(&self, id: &ContainerId) -> Result<()> {
        Ok(self.networks().unshare_ports(id)?)
    }

    /// Leads the published ports of a container that is about to stop to listeners on the host, until they are handed
    /// over to the one that takes its place, or to itself. They are parked for `owner`, which mostly is `from`.
    ///
    /// # Errors
    /// When the ports cannot be moved.
    pub fn park_ports(
        &self,
        from: &ContainerId,
        owner: &ContainerId,
        listener: &dyn Fn(&PublishedPort) -> Option<SocketAddr>,
    ) -> Result<()> {
        Ok(self.networks().park_ports(from, owner, listener)?)
    }

    /// How many connections others have to what a container serves. It counts what the container's own network
    /// namespace knows (proc(5), `/proc/<pid>/net/tcp`), so connections from other containers count like those from
    /// outside; one that only waits for its last packets does not.
    ///
    /// # Errors
    /// When the container is not there.
    pub fn open_connections(&self, id: &ContainerId) -> Result<usize> {
        let State::Running(running) = self.container(id.as_str())?.state else { return Ok(0) };
        let mut count = 0;
        for table in ["tcp", "tcp6"] {
            let path = format!("/proc/{}/net/{table}", running.pid);
            // It may have ended meanwhile, or know no IPv6.
            count += std::fs::read_to_string(path).map_or(0, |text| served(&text));
        }
        Ok(count)
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

/// The live connections to ports that are listened on, in a table as the kernel shows it.
fn served(table: &str) -> usize {
    const LISTENING: &str = "0A";
    // Established, half open, and those of which one side has more to say (include/net/tcp_states.h).
    const ALIVE: [&str; 6] = ["01", "03", "04", "08", "09", "0B"];
    let rows: Vec<(&str, &str)> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (_, port) = fields.next()?.split_once(':')?;
            Some((port, fields.nth(1)?))
        })
        .collect();
    let listening: HashSet<&str> =
        rows.iter().filter(|(_, state)| *state == LISTENING).map(|(port, _)| *port).collect();
    rows.iter().filter(|(port, state)| ALIVE.contains(state) && listening.contains(port)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_counts_and_what_is_asked_of_others_does_not() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000
   1: 020011AC:1F90 010011AC:C350 01 00000000:00000000
   2: 020011AC:1F90 010011AC:C351 06 00000000:00000000
   3: 020011AC:1F90 010011AC:C352 08 00000000:00000000
   4: 020011AC:D000 030011AC:1538 01 00000000:00000000
";
        assert_eq!(served(table), 2);
        assert_eq!(served(""), 0);
    }
}
