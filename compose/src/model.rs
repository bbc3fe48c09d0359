//! What a compose file means: canonical and complete, with nothing of the YAML left.
//!
//! The order of the fields is the reference implementation's: its JSON form is the contract of `config` and of
//! the configuration hash, and serde writes fields in the order they stand here.

mod build;
mod dependency;
mod deploy;
mod develop;
mod env_file;
mod file;
mod form;
mod health;
mod hook;
mod language_model;
mod network;
mod resources;
mod service;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::build::Build;
pub use self::dependency::{Condition, Dependency};
pub use self::deploy::{Deploy, DeployRestart, Placement, PlacementPreference, UpdateConfig};
pub use self::develop::{Develop, WatchAction, WatchRule};
pub use self::env_file::EnvFile;
pub use self::file::{FileObject, FileReference};
pub use self::health::HealthCheck;
pub use self::hook::{Hook, PreStart};
pub use self::language_model::{Model, ServiceModel};
pub use self::network::{Ipam, IpamPool, Network, Port, ServiceNetwork};
pub use self::resources::{
    BlkioConfig, Device, DeviceRequest, DiscreteResource, GenericResource, Resource, Resources,
    ThrottleDevice, Ulimit, WeightDevice,
};
pub use self::service::{CredentialSpec, Logging, Provider, PullPolicy, Service};
pub use self::volume::{BindOptions, ImageOptions, ServiceVolume, TmpfsOptions, Volume, VolumeOptions};

/// A loaded application: what is to run, and what it needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Project {
    /// The project's name, valid as `[a-z0-9][a-z0-9_-]*`.
    pub name: String,
    /// The directory relative paths start from.
    #[serde(skip)]
    pub working_dir: PathBuf,
    /// The directory that gave the project its name, when nobody named it: another one may well be called the same.
    #[serde(skip)]
    pub home: Option<PathBuf>,
    /// The files it was loaded from, in order; `-` is standard input.
    #[serde(skip)]
    pub files: Vec<PathBuf>,
    /// The environment it was interpolated with: the caller's over the `.env` files'.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
    /// The services that run, by name.
    pub services: BTreeMap<String, Service>,
    /// The services that no active profile asks for.
    #[serde(skip)]
    pub disabled_services: BTreeMap<String, Service>,
    /// Networks, by key.
    pub networks: BTreeMap<String, Network>,
    /// Volumes, by key.
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets, by key.
    pub secrets: BTreeMap<String, FileObject>,
    /// Configurations, by key.
    pub configs: BTreeMap<String, FileObject>,
    /// Language models, by key.
    pub models: BTreeMap<String, Model>,
    /// Top-level `x-…` keys.
    #[serde(skip)]
    pub extensions: BTreeMap<String, serde_json::Value>,
    /// `x-…` keys inside the parts of services, networks and so on, with the steps that lead to them.
    #[serde(skip)]
    pub inner_extensions: Vec<(Vec<String>, serde_json::Value)>,
}

// === impl Project ===

impl Project {
    /// The services that others wait for until they have done their work, by name.
    pub fn jobs(&self) -> BTreeSet<&str> {
        self.services
            .values()
            .flat_map(|service| &service.depends_on)
            .filter(|(_, dependency)| dependency.condition == Condition::CompletedSuccessfully)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The platform that a service's image is of: the one it names, or `DOCKER_DEFAULT_PLATFORM`.
    pub fn platform<'a>(&'a self, service: &'a Service) -> Option<&'a String> {
        let default =
            || self.environment.get("DOCKER_DEFAULT_PLATFORM").filter(|platform| !platform.is_empty());
        service.platform.as_ref().or_else(default)
    }
}
