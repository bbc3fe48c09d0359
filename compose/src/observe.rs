//! One snapshot of what exists for a project. It is taken once; decisions look at nothing else.

use std::collections::{BTreeMap, BTreeSet};

use engine::container::state::HealthStatus;
use engine::id::{ContainerId, ImageId, NetworkId, VolumeName};

use crate::operation::Existing;

/// What exists for one project.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Its containers, orphans and one-offs included.
    pub containers: Vec<SeenContainer>,
    /// Networks by name: the project's own, and those it names.
    pub networks: BTreeMap<String, SeenNetwork>,
    /// Volumes by name: the project's own, and those it names.
    pub volumes: BTreeMap<String, SeenVolume>,
    /// The local images among those the services name.
    pub images: BTreeMap<String, ImageId>,
}

/// A container of the project.
#[derive(Debug, Clone)]
pub struct SeenContainer {
    /// Its identity.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Which of the service's containers it is; 0 for a one-off.
    pub number: u32,
    /// Whether `run` made it.
    pub one_off: bool,
    /// How far it is in its life.
    pub life: Life,
    /// What its probes say, when it runs and has some.
    pub health: Option<HealthStatus>,
    /// The hash of the definition it was made from.
    pub config_hash: String,
    /// The image it was made from.
    pub image: ImageId,
    /// The networks it is attached to, by name.
    pub networks: BTreeSet<String>,
    /// The named volumes mounted in it.
    pub volumes: BTreeSet<VolumeName>,
    /// When it was made, in seconds of the epoch: tells which of two claimants of a number is the newer one.
    pub created: i64,
}

/// How far a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Never started.
    Created,
    /// Alive.
    Running,
    /// Frozen.
    Paused,
    /// Between an end and the next start.
    Restarting,
    /// Ended with this code.
    Exited(i32),
    /// On its way out.
    Removing,
}

/// A network.
#[derive(Debug, Clone)]
pub struct SeenNetwork {
    /// Its identity.
    pub id: NetworkId,
    /// The project whose label it carries.
    pub project: Option<String>,
    /// Its key in that project.
    pub key: String,
    /// The hash of the definition it was made from; empty when nobody recorded one.
    pub config_hash: String,
}

/// A volume.
#[derive(Debug, Clone)]
pub struct SeenVolume {
    /// The project whose label it carries.
    pub project: Option<String>,
    /// Its key in that project.
    pub key: String,
    /// The hash of the definition it was made from; empty when nobody recorded one.
    pub config_hash: String,
}

// === impls ===

impl Observed {
    /// The containers `up` answers for, one-offs left out, in order of service and number.
    pub fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a SeenContainer> {
        self.containers.iter().filter(move |container| container.service == service && !container.one_off)
    }
}

impl SeenContainer {
    /// As operations name it.
    pub fn existing(&self) -> Existing {
        Existing { id: self.id.clone(), name: self.name.clone(), service: self.service.clone() }
    }
}

impl Life {
    /// Whether its first process is, or is about to be, alive.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}
