//! A second process in a running container: it joins every namespace and the cgroup, under the same filters.

use std::path::PathBuf;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::container::launch::{Child, Enclosure, LaunchError, Stdio};
use crate::container::plan::ProcessPlan;

/// What `exec` was asked to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `KEY=value` on top of the container's.
    pub env: Vec<String>,
    /// `user[:group]` instead of the container's.
    pub user: Option<String>,
    /// The working directory instead of the container's.
    pub working_dir: Option<PathBuf>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input is read.
    pub interactive: bool,
    /// Whether it may do everything the engine itself may do.
    pub privileged: bool,
}

/// Runs a process in the container whose process 1 is `init`. `process` is made by [`ProcessPlan::for_exec`].
///
/// # Errors
/// Names the step that failed.
pub fn exec(
    init: Pid,
    process: &ProcessPlan,
    enclosure: &dyn Enclosure,
    stdio: Stdio<'_>,
) -> Result<Child, LaunchError> {
    let _ = (init, process, enclosure, stdio);
    Err(LaunchError::Invalid("exec is not built yet".to_owned()))
}

impl ProcessPlan {
    /// The plan of a process that joins a container whose first process was launched by `self`.
    pub fn for_exec(&self, spec: &ExecSpec) -> Self {
        let _ = spec;
        self.clone()
    }
}
