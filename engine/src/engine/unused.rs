//! Removing what nothing uses: networks, volumes and images that a container still needs are refused.

use std::collections::BTreeSet;

use crate::container::spec::MountSource;
use crate::container::state::State;
use crate::engine::{Container, Engine, RemoveOptions};
use crate::error::{Error, Result};
use crate::event::{Event, EventKind, Journal};
use crate::id::{NetworkName, VolumeName};
use crate::image::{Image, Platform, Removed, User, Users};
use crate::network::Network;
use crate::store;
use crate::volume::Volume;

impl Engine {
    /// Removes the containers that are wanted to go and do not run. Their volumes stay, as docker's do, until they are
    /// pruned themselves. Returns what went and the bytes won.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn prune_containers(&self, wanted: &dyn Fn(&Container) -> bool) -> Result<(Vec<Container>, u64)> {
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for container in self.containers()? {
            if matches!(container.state, State::Created | State::Exited(_)) && wanted(&container) {
                bytes += store::tree_size(&container.directory(self.root()).join("upper"));
                self.remove(container.id(), &RemoveOptions::default())?;
                removed.push(container);
            }
        }
        self.tell_pruned(EventKind::Container, bytes);
        Ok((removed, bytes))
    }

    /// Removes the volumes that are wanted to go and that no container, running or not, mounts. Returns what went and
    /// the bytes won.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn prune_volumes(&self, wanted: &dyn Fn(&Volume) -> Result<bool>) -> Result<(Vec<VolumeName>, u64)> {
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for volume in self.volumes().list()? {
            if wanted(&volume)? && self.volume_users(&volume.name)?.is_empty() {
                bytes += store::tree_size(&volume.mountpoint);
                self.volumes().remove(&volume.name)?;
                removed.push(volume.name);
            }
        }
        self.tell_pruned(EventKind::Volume, bytes);
        Ok((removed, bytes))
    }

    /// Removes a network.
    ///
    /// # Errors
    /// When a container is attached to it.
    pub fn remove_network(&self, name: &str) -> Result<()> {
        let network = self.networks().find(name)?;
        Ok(self.networks().remove(&network.id)?)
    }

    /// Removes the networks that are wanted to go and that no container, running or not, is attached to.
    pub fn prune_networks(&self, wanted: &dyn Fn(&Network) -> bool) -> Result<Vec<NetworkName>> {
        let used: BTreeSet<String> =
            self.containers()?.iter().flat_map(|container| container.record.spec.network.names()).collect();
        let keep = |network: &Network| {
            !wanted(network)
                || used.contains(network.spec.name.as_str())
                || used.contains(network.id.as_str())
        };
        let removed = self.networks().prune(&keep)?;
        self.tell_pruned(EventKind::Network, 0);
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

    /// Removes the images for these platforms from a name that means several.
    ///
    /// # Errors
    /// When there is none for a platform, or a container was made from it.
    pub fn remove_image_for(&self, name: &str, platforms: &[Platform], force: bool) -> Result<Vec<Removed>> {
        Ok(self.images().remove_platforms(name, platforms, force, &self.images_in_use()?)?)
    }

    /// Removes images without a name (`all`: every one) that no container was made from, of those that `which`
    /// wants gone. Returns what went and the bytes won.
    pub fn prune_images(&self, all: bool, which: &dyn Fn(&Image) -> bool) -> Result<(Vec<Removed>, u64)> {
        let (removed, bytes) = self.images().prune(all, &self.images_in_use()?, which)?;
        self.tell_pruned(EventKind::Image, bytes);
        Ok((removed, bytes))
    }

    /// Docker tells of each pruning, also when nothing went.
    fn tell_pruned(&self, kind: EventKind, reclaimed: u64) {
        let attributes = [("reclaimed", reclaimed.to_string())];
        Journal::of(self.root()).append(&Event::now(kind, "prune", "", attributes));
    }

    fn images_in_use(&self) -> Result<Users> {
        let mut users = Users::new();
        for container in self.containers()? {
            let running = matches!(container.state, State::Running(_) | State::Restarting(_));
            let user = User { container: container.name().to_string(), running };
            let mounted = container.record.spec.mounts.iter().filter_map(|mount| match &mount.source {
                MountSource::Image { image, .. } => image.parse().ok(),
                _ => None,
            });
            for image in std::iter::once(container.record.image.clone()).chain(mounted) {
                let known = users.entry(image).or_insert_with(|| user.clone());
                if running {
                    *known = user.clone();
                }
            }
        }
        Ok(users)
    }
}
