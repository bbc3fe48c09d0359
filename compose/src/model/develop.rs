//! What `watch` does.

use serde::{Deserialize, Serialize};

use super::Hook;
use super::form::is_default;

/// What `watch` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Develop {
    /// Its rules.
    #[serde(skip_serializing_if = "is_default")]
    pub watch: Vec<WatchRule>,
}

/// What happens when files change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRule {
    /// What is watched, an absolute path.
    pub path: String,
    /// What happens.
    pub action: WatchAction,
    /// Where the files go in the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// What is run after the files went.
    #[serde(default)]
    pub exec: Hook,
    /// Only files that match, when given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub include: Vec<String>,
    /// Not the files that match.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignore: Vec<String>,
    /// Whether everything is copied before watching begins.
    #[serde(default, skip_serializing_if = "is_default")]
    pub initial_sync: bool,
}

/// What happens when files change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchAction {
    /// The image is built and the containers recreated.
    #[serde(rename = "rebuild")]
    Rebuild,
    /// The files are copied.
    #[serde(rename = "sync")]
    Sync,
    /// The containers are restarted.
    #[serde(rename = "restart")]
    Restart,
    /// The files are copied and the containers restarted.
    #[serde(rename = "sync+restart")]
    SyncRestart,
    /// The files are copied and a command is run.
    #[serde(rename = "sync+exec")]
    SyncExec,
}
