//! The canonical form of a project, as `config` prints it and as the configuration hash is taken of it.

use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::model::{Project, Service};

/// The project as the reference's `config --format json` prints it.
pub fn to_json(project: &Project) -> Json {
    serde_json::to_value(project).unwrap_or_default()
}

/// What tells whether a container still is as its service asks for: sha256, in hex, of the service's JSON without
/// what does not change a container.
pub fn config_hash(service: &Service) -> String {
    let mut bare = service.clone();
    bare.build = None;
    bare.pull_policy = None;
    bare.scale = None;
    bare.depends_on.clear();
    bare.profiles.clear();
    if let Some(deploy) = &mut bare.deploy {
        deploy.replicas = None;
    }
    let text = serde_json::to_string(&bare).unwrap_or_default();
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
