//! One snapshot of what exists for a project. It is taken once; decisions look at nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use engine::Engine;
use engine::container::spec::{ContainerSpec, MountSource, NamespaceMode, NetworkMode};
use engine::container::state::{HealthStatus, State};
use engine::engine::Container;
use engine::id::{ContainerId, Digest, ImageId, NetworkId, VolumeName};
use engine::network::Network;
use engine::volume::Volume;
use jiff::Timestamp;

use crate::desired::Desired;
use crate::home;
use crate::labels;
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
    /// The volumes that nobody named: each belongs to a container.
    pub anonymous: BTreeSet<VolumeName>,
    /// The local images among those the services name.
    pub images: BTreeMap<String, ImageId>,
    /// How long ago those images were fetched, built or named.
    pub image_ages: BTreeMap<String, Duration>,
    /// What providers and models have told each service, as digests by what it is about.
    pub told: BTreeMap<String, BTreeMap<String, Digest>>,
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
    /// When its program ended well, by itself and not because somebody stopped it.
    pub ended_well: Option<Timestamp>,
    /// What its probes say, when it runs and has some.
    pub health: Option<HealthStatus>,
    /// The hash of the definition it was made from.
    pub config_hash: String,
    /// What its label says of the secrets and configurations it was given.
    pub contents: String,
    /// The image it was made from.
    pub image: ImageId,
    /// The networks it is attached to, by name.
    pub networks: BTreeSet<String>,
    /// The containers whose namespaces it shares.
    pub parents: BTreeSet<ContainerId>,
    /// The named volumes mounted in it.
    pub volumes: BTreeSet<VolumeName>,
    /// Whether its name, ports and DNS names wait to be handed over to it.
    pub held: bool,
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

/// Looks at what exists for the project.
pub fn observe(engine: &Engine, desired: &Desired) -> engine::Result<Observed> {
    let containers = containers(engine, &desired.project, desired.home.as_deref())?;
    let mut observed = Observed { containers, ..Observed::default() };
    let is_ours = |all: &BTreeMap<String, String>| labels::belongs_to(all, &desired.project);
    let wanted: BTreeSet<&str> = desired.networks.values().map(|network| network.name.as_str()).collect();
    let networks = engine.networks().list()?;
    let volumes = engine.volumes().list()?;
    if let Some(home) = &desired.home {
        check_home(home, desired, &networks, &volumes)?;
    }
    for network in networks {
        let all = &network.spec.labels;
        if is_ours(all) || wanted.contains(network.spec.name.as_str()) {
            let seen = SeenNetwork {
                id: network.id.clone(),
                project: all.get(labels::PROJECT).cloned(),
                key: labels::value(all, labels::NETWORK).to_owned(),
                config_hash: labels::value(all, labels::CONFIG_HASH).to_owned(),
            };
            observed.networks.insert(network.spec.name.to_string(), seen);
        }
    }
    let wanted: BTreeSet<&str> = desired.volumes.values().map(|volume| volume.name.as_str()).collect();
    for volume in volumes {
        if volume.anonymous {
            observed.anonymous.insert(volume.name.clone());
        }
        let all = &volume.labels;
        if is_ours(all) || wanted.contains(volume.name.as_str()) {
            let seen = SeenVolume {
                project: all.get(labels::PROJECT).cloned(),
                key: labels::value(all, labels::VOLUME).to_owned(),
                config_hash: labels::value(all, labels::CONFIG_HASH).to_owned(),
            };
            observed.volumes.insert(volume.name.to_string(), seen);
        }
    }
    let images: BTreeSet<&str> =
        desired.services.values().map(|service| service.image.name.as_str()).collect();
    for name in images.into_iter().filter(|name| !name.is_empty()) {
        if let Some(image) = engine.images().find(name)? {
            observed.images.insert(name.to_owned(), image.id);
            if let Some(age) = image_age(engine, name)? {
                observed.image_ages.insert(name.to_owned(), age);
            }
        }
    }
    Ok(observed)
}

/// Refuses what a project of the same name has made in another directory, but for what is external: that is anybody's.
fn check_home(
    home: &Path,
    desired: &Desired,
    networks: &[Network],
    volumes: &[Volume],
) -> engine::Result<()> {
    let is_ours = |all: &&BTreeMap<String, String>| labels::belongs_to(all, &desired.project);
    let externals = desired.networks.values().filter(|network| network.external);
    let externals: BTreeSet<&str> = externals.map(|network| network.name.as_str()).collect();
    let own = networks.iter().filter(|network| !externals.contains(network.spec.name.as_str()));
    let labels_of_networks = own.map(|network| &network.spec.labels).filter(is_ours);
    home::check(home, &desired.project, "networks", labels_of_networks)?;
    let externals = desired.volumes.values().filter(|volume| volume.external);
    let externals: BTreeSet<&str> = externals.map(|volume| volume.name.as_str()).collect();
    let own = volumes.iter().filter(|volume| !externals.contains(volume.name.as_str()));
    home::check(home, &desired.project, "volumes", own.map(|volume| &volume.labels).filter(is_ours))
}

fn parents(spec: &ContainerSpec) -> BTreeSet<ContainerId> {
    let network = match &spec.network {
        NetworkMode::Container(id) => Some(id),
        _ => None,
    };
    let others =
        [&spec.pid, &spec.ipc, &spec.uts, &spec.cgroupns].into_iter().filter_map(|mode| match mode {
            NamespaceMode::Container(id) => Some(id),
            _ => None,
        });
    others.chain(network).cloned().collect()
}

fn image_age(engine: &Engine, name: &str) -> engine::Result<Option<Duration>> {
    let Ok(reference) = name.parse() else { return Ok(None) };
    let given = engine.images().named_at(&reference)?;
    Ok(given.and_then(|given| Timestamp::now().duration_since(given).try_into().ok()))
}

/// The containers of a project, by service and number. `home` is the directory it is named after, when nobody named it;
/// those of another directory are refused.
pub fn containers(engine: &Engine, project: &str, home: Option<&Path>) -> engine::Result<Vec<SeenContainer>> {
    let all = of_project(engine, project, home)?;
    let mut containers: Vec<SeenContainer> = all.iter().map(SeenContainer::of).collect();
    containers.sort_by(|a, b| (&a.service, a.number, &a.name).cmp(&(&b.service, b.number, &b.name)));
    Ok(containers)
}

/// The same as the engine knows them.
pub(crate) fn of_project(
    engine: &Engine,
    project: &str,
    home: Option<&Path>,
) -> engine::Result<Vec<Container>> {
    let mut all = engine.containers()?;
    all.retain(|container| labels::belongs_to(&container.record.spec.labels, project));
    if let Some(home) = home {
        let labels = all.iter().map(|container| &container.record.spec.labels);
        home::check(home, project, "containers", labels)?;
    }
    Ok(all)
}

// === impls ===

impl Observed {
    /// The containers `up` answers for, one-offs left out, in order of service and number.
    pub fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a SeenContainer> {
        self.containers.iter().filter(move |container| container.service == service && !container.one_off)
    }
}

impl SeenContainer {
    /// What the planner needs to know of a container.
    pub fn of(container: &Container) -> Self {
        let record = &container.record;
        let all = &record.spec.labels;
        let health = match &container.state {
            State::Running(running) => running.health.as_ref().map(|health| health.status),
            _ => None,
        };
        let volumes = record.spec.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => name.clone(),
            _ => None,
        });
        Self {
            id: record.id.clone(),
            name: record.name.to_string(),
            service: labels::value(all, labels::SERVICE).to_owned(),
            number: labels::value(all, labels::NUMBER).parse().unwrap_or(0),
            one_off: labels::value(all, labels::ONE_OFF) == "True",
            life: Life::of(&container.state),
            ended_well: container.state.ended_well(),
            health,
            config_hash: labels::value(all, labels::CONFIG_HASH).to_owned(),
            contents: labels::value(all, labels::CONTENTS).to_owned(),
            image: record.image.clone(),
            networks: record.spec.network.names().into_iter().collect(),
            parents: parents(&record.spec),
            volumes: volumes.collect(),
            held: record.spec.held,
            created: record.created.as_second(),
        }
    }

    /// As operations name it.
    pub fn existing(&self) -> Existing {
        Existing { id: self.id.clone(), name: self.name.clone(), service: self.service.clone() }
    }
}

impl Life {
    pub(crate) fn of(state: &State) -> Self {
        match state {
            State::Created => Self::Created,
            State::Running(running) if running.paused => Self::Paused,
            State::Running(_) => Self::Running,
            State::Restarting(_) => Self::Restarting,
            State::Exited(exited) => Self::Exited(exited.code),
            State::Removing => Self::Removing,
        }
    }

    /// Whether its first process is, or is about to be, alive.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}
