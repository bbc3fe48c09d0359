//! What a project wants to exist, in the planner's terms: names, hashes, numbers and edges. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use engine::id::Digest;
use engine::quantity::Span;
use serde::Serialize;

use crate::canonical::config_hash;
use crate::contents::Contents;
use crate::model::{self, Condition, Project, PullPolicy, ServiceVolume};
use crate::names::{self, Separator};
use crate::operation::Milestone;

/// What should exist.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The project.
    pub project: String,
    /// The directory that gave it its name, when nobody named it.
    pub home: Option<PathBuf>,
    /// How names are joined.
    pub separator: Separator,
    /// The services, by name.
    pub services: BTreeMap<String, DesiredService>,
    /// Services that exist in the files and that no profile enables: their containers are no orphans.
    pub disabled: BTreeSet<String>,
    /// The networks, by key.
    pub networks: BTreeMap<String, DesiredNetwork>,
    /// The volumes, by key.
    pub volumes: BTreeMap<String, DesiredVolume>,
}

/// A service that should run.
#[derive(Debug, Clone)]
pub struct DesiredService {
    /// How many containers.
    pub scale: u32,
    /// The name of its only container, when the file gives one.
    pub container_name: Option<String>,
    /// The hash of its definition.
    pub config_hash: String,
    /// What its secrets and configurations hold.
    pub contents: Contents,
    /// Its image.
    pub image: DesiredImage,
    /// The services it waits for.
    pub depends_on: BTreeMap<String, Needs>,
    /// The services whose namespaces or volumes it shares.
    pub shares: BTreeSet<String>,
    /// The networks it is on, by key.
    pub networks: BTreeSet<String>,
    /// The named volumes it mounts, by key.
    pub volumes: BTreeSet<String>,
    /// The services whose images its build starts from.
    pub builds_from: BTreeSet<String>,
    /// The program that provides it instead of containers.
    pub provider: Option<String>,
    /// The language models it uses, by key.
    pub models: BTreeSet<String>,
    /// How its containers are replaced; all at once when `None`.
    pub update: Option<Update>,
    /// How the old ones come back when that fails and they are to (`deploy.rollback_config`).
    pub rollback: Update,
}

/// How the containers of a service are replaced (`deploy.update_config`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Update {
    /// Whether the new one is ready before the old one stops.
    pub start_first: bool,
    /// How many at a time; all when 0.
    pub parallelism: usize,
    /// How long after one group is ready the next one may begin.
    pub delay: Option<Span>,
    /// How long a new one that is ready must not fail.
    pub monitor: Option<Span>,
    /// What follows when more fail than are borne.
    pub on_failure: OnFailure,
    /// What share of them may fail.
    pub max_failure_ratio: f64,
}

/// What follows when an update fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The rest stay as they are.
    #[default]
    Pause,
    /// It goes on.
    Continue,
    /// Those that were replaced come back.
    Rollback,
}

/// Where a service's image comes from.
#[derive(Debug, Clone)]
pub struct DesiredImage {
    /// Its name.
    pub name: String,
    /// Whether the file names it (`image`), so that a registry may have it.
    pub named: bool,
    /// Whether the file says how to build it.
    pub buildable: bool,
    /// When it is fetched or built.
    pub policy: ImagePolicy,
}

/// When an image is fetched or built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImagePolicy {
    /// Fetched, or else built, when it is not there.
    #[default]
    Missing,
    /// Fetched each time.
    Always,
    /// Never fetched.
    Never,
    /// Built each time.
    Build,
    /// Fetched when that was last done longer ago than this.
    After(Span),
}

/// What a service needs of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// How far the other one has to be.
    pub milestone: Milestone,
    /// Whether this one starts again when the other one is made anew.
    pub restart: bool,
    /// Whether it cannot do without.
    pub required: bool,
}

/// A network that should exist.
#[derive(Debug, Clone)]
pub struct DesiredNetwork {
    /// Its name.
    pub name: String,
    /// Whether somebody else makes it.
    pub external: bool,
    /// The hash of its definition.
    pub config_hash: String,
}

/// A volume that should exist.
#[derive(Debug, Clone)]
pub struct DesiredVolume {
    /// Its name.
    pub name: String,
    /// Whether somebody else makes it.
    pub external: bool,
    /// The hash of its definition.
    pub config_hash: String,
}

/// What the command line changes about a project.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// How many containers a service has (`--scale`).
    pub scale: BTreeMap<String, u32>,
    /// When images are fetched (`--pull`).
    pub images: Option<ImagePolicy>,
    /// How names are joined.
    pub separator: Separator,
}

// === impls ===

impl Desired {
    /// What the project wants.
    pub fn of(project: &Project, changes: &Changes) -> Self {
        let services = project
            .services
            .iter()
            .map(|(name, service)| (name.clone(), DesiredService::of(project, service, changes)))
            .collect();
        let networks = project.networks.iter().map(|(key, network)| {
            let desired = DesiredNetwork {
                name: network.name.clone(),
                external: network.external,
                config_hash: hash(network),
            };
            (key.clone(), desired)
        });
        let volumes = project.volumes.iter().map(|(key, volume)| {
            let desired = DesiredVolume {
                name: volume.name.clone(),
                external: volume.external,
                config_hash: hash(volume),
            };
            (key.clone(), desired)
        });
        Self {
            project: project.name.clone(),
            home: project.home.clone(),
            separator: changes.separator,
            services,
            disabled: project.disabled_services.keys().cloned().collect(),
            networks: networks.collect(),
            volumes: volumes.collect(),
        }
    }

    /// The name of a service's n-th container.
    pub fn container_name(&self, service: &str, number: u32) -> String {
        match self.services.get(service).and_then(|service| service.container_name.clone()) {
            Some(name) => name,
            None => names::container(self.separator, &self.project, service, number),
        }
    }
}

impl DesiredService {
    fn of(project: &Project, service: &model::Service, changes: &Changes) -> Self {
        let on_networks = service.network_mode.as_deref().is_none_or(str::is_empty);
        let volumes = service.volumes.iter().filter_map(|volume| match volume {
            ServiceVolume::Volume { source: Some(key), .. } => Some(key.clone()),
            _ => None,
        });
        let shares = crate::translate::parents(service)
            .into_iter()
            .filter_map(|parent| parent.strip_prefix("service:").map(str::to_owned));
        let scale = changes.scale.get(&service.name).copied().unwrap_or_else(|| service.replicas());
        let contexts = service.build.iter().flat_map(|build| build.additional_contexts.values());
        Self {
            scale: if service.provider.is_some() { 0 } else { scale },
            container_name: service.container_name.clone(),
            config_hash: config_hash(service),
            contents: Contents::of(project, service),
            image: DesiredImage::of(project, service, changes),
            depends_on: service
                .depends_on
                .iter()
                .filter(|(name, dependency)| dependency.required || project.services.contains_key(*name))
                .map(|(name, dependency)| (name.clone(), Needs::from(dependency)))
                .collect(),
            shares: shares.collect(),
            networks: if on_networks { service.networks.keys().cloned().collect() } else { BTreeSet::new() },
            volumes: volumes.filter(|key| !key.is_empty()).collect(),
            builds_from: contexts
                .filter_map(|context| context.strip_prefix("service:").map(str::to_owned))
                .collect(),
            provider: service.provider.as_ref().map(|provider| provider.kind.clone()),
            models: service.models.keys().cloned().collect(),
            update: Update::of(service),
            rollback: Update::back(service),
        }
    }
}

impl Update {
    fn of(service: &model::Service) -> Option<Self> {
        let config = service.deploy.as_ref()?.update_config.as_ref()?;
        Some(Self::new(config, service))
    }

    /// The way back. Where nothing is said of it, those who are served are served no worse than on the way there.
    fn back(service: &model::Service) -> Self {
        let deploy = service.deploy.as_ref();
        match deploy.and_then(|deploy| deploy.rollback_config.as_ref()) {
            Some(config) => Self::new(config, service),
            None => Self {
                start_first: Self::of(service).is_some_and(|update| update.start_first),
                parallelism: 1,
                ..Self::default()
            },
        }
    }

    fn new(config: &model::UpdateConfig, service: &model::Service) -> Self {
        Self {
            start_first: config.order.as_deref() == Some("start-first") && can_stand_beside(service),
            parallelism: config.parallelism.unwrap_or(1) as usize,
            delay: config.delay.filter(|delay| !delay.0.is_zero()),
            monitor: config.monitor.filter(|monitor| !monitor.0.is_zero()),
            on_failure: match config.failure_action.as_deref() {
                Some("continue") => OnFailure::Continue,
                Some("rollback") => OnFailure::Rollback,
                _ => OnFailure::Pause,
            },
            max_failure_ratio: config.max_failure_ratio,
        }
    }

    /// Whether a new container waits for the place of the old one until it is ready. Where a failure is borne and the
    /// old one has stopped, it has that place whatever becomes of it.
    pub fn holds_back(&self) -> bool {
        let bears = self.on_failure == OnFailure::Continue || self.max_failure_ratio > 0.0;
        self.start_first || !bears
    }

    /// How many of so many containers may fail.
    pub fn borne(&self, of: usize) -> usize {
        if self.on_failure == OnFailure::Continue {
            return of;
        }
        (0..=of).rev().find(|failed| *failed as f64 <= self.max_failure_ratio * of as f64).unwrap_or(0)
    }

    /// What is left of the time between two groups when the first one has been watched.
    pub fn rest(&self) -> Option<Span> {
        let watched = self.monitor.map_or(Duration::ZERO, |monitor| monitor.0);
        self.delay.map(|delay| delay.0.saturating_sub(watched)).filter(|left| !left.is_zero()).map(Span)
    }
}

/// Whether two containers of the service can run at once: what is the host's or has a fixed address is there once.
pub fn can_stand_beside(service: &model::Service) -> bool {
    let fixed = service.networks.values().flatten().any(|network| {
        network.ipv4_address.is_some() || network.ipv6_address.is_some() || network.mac_address.is_some()
    });
    service.network_mode.is_none() && service.mac_address.is_none() && !fixed
}

impl DesiredImage {
    fn of(project: &Project, service: &model::Service, changes: &Changes) -> Self {
        let named = service.image.as_ref().filter(|image| !image.is_empty());
        let buildable = service.build.is_some();
        let name = match named {
            Some(image) => image.clone(),
            None if buildable => names::image(changes.separator, &project.name, &service.name),
            None => String::new(),
        };
        let own = service.pull().map(|policy| match policy {
            PullPolicy::Always => ImagePolicy::Always,
            PullPolicy::Never => ImagePolicy::Never,
            PullPolicy::Build => ImagePolicy::Build,
            PullPolicy::Missing => ImagePolicy::Missing,
            PullPolicy::After(age) => ImagePolicy::After(age),
        });
        Self { name, named: named.is_some(), buildable, policy: changes.images.or(own).unwrap_or_default() }
    }
}

impl From<&model::Dependency> for Needs {
    fn from(dependency: &model::Dependency) -> Self {
        let milestone = match dependency.condition {
            Condition::Started => Milestone::Started,
            Condition::Healthy => Milestone::Healthy,
            Condition::CompletedSuccessfully => Milestone::Completed,
        };
        Self { milestone, restart: dependency.restart, required: dependency.required }
    }
}

impl std::str::FromStr for ImagePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "always" => Ok(Self::Always),
            "missing" | "if_not_present" | "policy" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            "build" => Ok(Self::Build),
            _ => Err(format!("invalid pull policy {text:?}: always, missing, never or build is needed")),
        }
    }
}

/// The hash of a definition's canonical JSON.
fn hash(definition: &impl Serialize) -> String {
    Digest::of(&serde_json::to_vec(definition).unwrap_or_default()).hex().to_owned()
}

impl Default for Needs {
    fn default() -> Self {
        Self { milestone: Milestone::Started, restart: false, required: true }
    }
}
