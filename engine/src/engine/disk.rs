//! What takes space: images with shared layers counted once, containers with their logs, volumes, the build cache.

use std::collections::{BTreeMap, BTreeSet};

use crate::builder::Kept;
use crate::engine::{Container, Engine};
use crate::error::Result;
use crate::id::{ContainerName, DiffId, ImageId};
use crate::image::Image;
use crate::layer::LayerRecord;
use crate::store;
use crate::volume::Volume;

/// What takes space under one root.
#[derive(Debug)]
pub struct DiskUsage {
    /// The images.
    pub images: Vec<ImageUsage>,
    /// Bytes of all their layers, each counted once.
    pub layers: u64,
    /// Bytes of them that no container needs.
    pub layers_idle: u64,
    /// The containers.
    pub containers: Vec<ContainerUsage>,
    /// The volumes.
    pub volumes: Vec<VolumeUsage>,
    /// What the builder keeps.
    pub cache: Vec<Kept>,
}

/// What an image takes.
#[derive(Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// Bytes of layers that other images have too.
    pub shared: u64,
    /// Bytes of layers that it has alone.
    pub unique: u64,
    /// How many containers were made of it.
    pub containers: usize,
}

/// What a container takes.
#[derive(Debug)]
pub struct ContainerUsage {
    /// The container.
    pub container: Container,
    /// Bytes of its writable layer.
    pub writable: u64,
    /// Bytes of its logs.
    pub logs: u64,
}

/// What a volume takes.
#[derive(Debug)]
pub struct VolumeUsage {
    /// The volume.
    pub volume: Volume,
    /// Bytes of its files.
    pub size: u64,
    /// The containers that mount it.
    pub users: Vec<ContainerName>,
}

impl Engine {
    /// Measures what takes space.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let containers = self.containers()?;
        let mut made: BTreeMap<&ImageId, usize> = BTreeMap::new();
        containers.iter().for_each(|container| *made.entry(container.image()).or_default() += 1);
        let images = self.images().list()?;
        let layers = self.layer_sizes(&images)?;
        let mut owners: BTreeMap<&DiffId, usize> = BTreeMap::new();
        let unique = |image: &Image| image.config.rootfs.diff_ids.iter().cloned().collect::<BTreeSet<_>>();
        for image in &images {
            for diff in &image.config.rootfs.diff_ids.iter().collect::<BTreeSet<_>>() {
                *owners.entry(diff).or_default() += 1;
            }
        }
        let needed: BTreeSet<DiffId> =
            images.iter().filter(|image| made.contains_key(&image.id)).flat_map(unique).collect();
        let needed = needed.into_iter().filter(|diff| layers.contains_key(diff)).collect();
        let total = self.layers().room(&layers.keys().cloned().collect())?;
        let idle = total.saturating_sub(self.layers().room(&needed)?);
        let usage = |image: &Image| {
            let mut usage = ImageUsage {
                image: image.clone(),
                shared: 0,
                unique: 0,
                containers: made.get(&image.id).copied().unwrap_or(0),
            };
            for diff in unique(image) {
                let size = layers.get(&diff).copied().unwrap_or(0);
                let several = owners.get(&diff).is_some_and(|owners| *owners > 1);
                *(if several { &mut usage.shared } else { &mut usage.unique }) += size;
            }
            usage
        };
        let images = images.iter().map(usage).collect();
        let volumes = self.volume_sizes()?;
        let containers = containers.into_iter().map(|container| self.container_usage(container)).collect();
        Ok(DiskUsage {
            images,
            layers: total,
            layers_idle: idle,
            containers,
            volumes,
            cache: self.build_cache()?,
        })
    }

    /// Bytes of a container's writable layer.
    pub fn writable_size(&self, container: &Container) -> u64 {
        store::tree_size(&container.directory(self.root()).join("upper"))
    }

    /// The bytes of each layer of these images, with its compressed form where that is kept.
    fn layer_sizes(&self, images: &[Image]) -> Result<BTreeMap<DiffId, u64>> {
        let layers = self.layers();
        let mut sizes = BTreeMap::new();
        for diff in images.iter().flat_map(|image| &image.config.rootfs.diff_ids) {
            // A layer that is not here takes no space; that it should be, `system check --verify` says.
            if !sizes.contains_key(diff)
                && let Ok(LayerRecord { size, .. }) = layers.record(diff)
            {
                sizes.insert(diff.clone(), size);
            }
        }
        Ok(sizes)
    }

    fn container_usage(&self, container: Container) -> ContainerUsage {
        let entries = std::fs::read_dir(container.directory(self.root())).into_iter().flatten().flatten();
        let logs = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("container.log"))
            .filter_map(|entry| entry.metadata().ok())
            .map(|found| found.len())
            .sum();
        ContainerUsage { writable: self.writable_size(&container), logs, container }
    }

    fn volume_sizes(&self) -> Result<Vec<VolumeUsage>> {
        let mut found = Vec::new();
        for volume in self.volumes().list()? {
            let users = self.volume_users(&volume.name)?;
            found.push(VolumeUsage { size: store::tree_size(&volume.mountpoint), users, volume });
        }
        Ok(found)
    }
}

impl ContainerUsage {
    /// All its bytes.
    pub fn size(&self) -> u64 {
        self.writable + self.logs
    }
}
