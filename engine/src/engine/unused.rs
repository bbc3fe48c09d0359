//! Removing what nothing uses: networks, volumes and images that a container still needs are refused.

use std::collections::BTreeSet;

use crate::container::cgroup::Cgroup;
use crate::container::state::State;
use crate::engine::{Engine, RemoveOptions};
use crate::error::{Error, Result};
use crate::id::{ContainerId, NetworkName};
use crate::image::{Removed, User, Users};

impl Engine {
    /// Removes a network.
    ///
    /// # Errors
    /// When a container is attached to it.
    pub fn remove_network(&self, name: &str) -> Result<()> {
        let network = self.networks().find(name)?;
        Ok(self.networks().remove(&network.id)?)
    }

    /// Removes the networks that no container, running or not, is attached to.
    pub fn prune_networks(&self) -> Result<Vec<NetworkName>> {
        let used: BTreeSet<String> =
            self.containers()?.iter().flat_map(|container| container.record.spec.network.names()).collect();
        let keep = |network: &crate::network::Network| {
            used.contains(network.spec.name.as_str()) || used.contains(network.id.as_str())
        };
        let removed = self.networks().prune(&keep)?;
        Ok(removed.into_iter().map(|network| network.spec.name).collect())
    }

    /// Removes a volume.
    ///
    /// # Errors
    /// When a container, running or not, mounts it.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let volume = self.volumes().get(name)?;
        let users = self.volume_users(&volume.name)?;
        if !users.is_empty() {
            let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
            return Err(Error::conflict(format!("volume {name} is in use by {}", users.join(", ")))
                .with_hint("remove those containers first"));
        }
        Ok(self.volumes().remove(&volume.name)?)
    }

    /// Removes a name of an image, and the image with its last one.
    ///
    /// # Errors
    /// When a container was made from it.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>> {
        Ok(self.images().remove(name, force, &self.images_in_use()?)?)
    }

    /// Removes images without a name (`all`: every one) that no container was made from. Returns what went and
    /// the bytes won.
    pub fn prune_images(&self, all: bool) -> Result<(Vec<Removed>, u64)> {
        Ok(self.images().prune(all, &self.images_in_use()?)?)
    }

    /// Finds what crashes left behind, removes it, and says what it was.
    pub fn check(&self) -> Result<Vec<String>> {
        let mut repaired = Vec::new();
        let mut live: Vec<ContainerId> = Vec::new();
        for container in self.containers()? {
            match container.state {
                State::Running(_) | State::Restarting(_) => live.push(container.record.id),
                State::Removing => {
                    self.remove(container.id(), &RemoveOptions { force: true, volumes: false })?;
                    repaired.push(format!("finished the removal of container {}", container.name()));
                }
                _ => {}
            }
        }
        for id in self.networks().sweep(&live)? {
            repaired.push(format!("gave back the addresses and ports of container {}", id.short()));
        }
        let groups = Cgroup::list(self.root()).map_err(|error| Error::failed("list the cgroups", error))?;
        for id in groups.into_iter().filter(|id| !live.contains(id)) {
            let failed =
                |error| Error::failed(format!("remove the cgroup of container {}", id.short()), error);
            // A container that is starting right now holds its lock and is left alone.
            if let Some(_lock) = self.try_monitor_lock(&id)? {
                let cgroup = Cgroup::open(self.root(), &id).map_err(failed)?;
                cgroup.kill().and_then(|()| cgroup.remove()).map_err(failed)?;
                repaired.push(format!("removed the cgroup of container {}", id.short()));
            }
        }
        Ok(repaired)
    }

    fn images_in_use(&self) -> Result<Users> {
        let mut users = Users::new();
        for container in self.containers()? {
            let running = matches!(container.state, State::Running(_) | State::Restarting(_));
            let user = User { container: container.name().to_string(), running };
            let known = users.entry(container.record.image).or_insert_with(|| user.clone());
            if running {
                *known = user;
            }
        }
        Ok(users)
    }
}
