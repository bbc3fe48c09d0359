//! The labels by which a project's containers, networks and volumes are known again: docker compose's own.

use std::collections::BTreeMap;

/// The project something belongs to.
pub const PROJECT: &str = "com.docker.compose.project";
/// The service a container belongs to.
pub const SERVICE: &str = "com.docker.compose.service";
/// Which of the service's containers it is, from 1.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// `True` for a container that `run` made.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// The hash of the definition something was made from.
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// What tells whether the container's secrets and configurations hold what it was given. Ours: docker compose has
/// none.
pub const CONTENTS: &str = "rcompose.contents";
/// The id of the image a container was made from.
pub const IMAGE: &str = "com.docker.compose.image";
/// What the service depends on: `db:service_healthy:false,…`.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// The project's directory.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// The project's files, separated by commas.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// The environment files given, separated by commas.
pub const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";
/// Who wrote the labels.
pub const VERSION: &str = "com.docker.compose.version";
/// What tells containers made by `run` apart.
pub const SLUG: &str = "com.docker.compose.slug";
/// The container that this one took the place of.
pub const REPLACE: &str = "com.docker.compose.replace";
/// The hook that a container runs before another one starts.
pub const HOOK: &str = "com.docker.compose.hook";
/// A network's key in the file.
pub const NETWORK: &str = "com.docker.compose.network";
/// A volume's key in the file.
pub const VOLUME: &str = "com.docker.compose.volume";

/// The value of a label; empty when it is missing.
pub fn value<'a>(labels: &'a BTreeMap<String, String>, label: &str) -> &'a str {
    labels.get(label).map_or("", String::as_str)
}

/// Whether the labels say that something belongs to the project.
pub fn belongs_to(labels: &BTreeMap<String, String>, project: &str) -> bool {
    value(labels, PROJECT) == project
}
