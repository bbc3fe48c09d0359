//! What a project wants to exist, in the planner's terms: names, hashes, numbers and edges. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::{self, Separator};
use crate::operation::Milestone;

/// What should exist.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The project.
    pub project: String,
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

// === impls ===

impl Desired {
    /// The name of a service's n-th container.
    pub fn container_name(&self, service: &str, number: u32) -> String {
        match self.services.get(service).and_then(|service| service.container_name.clone()) {
            Some(name) => name,
            None => names::container(self.separator, &self.project, service, number),
        }
    }
}

impl Default for Needs {
    fn default() -> Self {
        Self { milestone: Milestone::Started, restart: false, required: true }
    }
}
