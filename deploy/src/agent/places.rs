//! Where an agent keeps what it knows of a project: the only place that joins these paths.

use std::path::{Path, PathBuf};

use engine::Root;

use crate::release::ReleaseId;

/// The files of one project's deployments.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    state: PathBuf,
    run: PathBuf,
}

impl Places {
    /// Those of a project, whose name is a plain word.
    pub(crate) fn of(root: &Root, project: &str) -> Self {
        Self { state: root.deployments().join(project), run: root.deployment_runs().join(project) }
    }

    /// All of the project's files that survive a reboot. Relative paths of its services start here.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// All of the project's files that do not survive a reboot.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// Held by whoever changes the project.
    pub(crate) fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// Who holds the lock, for people.
    pub(crate) fn holder(&self) -> PathBuf {
        self.run.join("holder")
    }

    /// Who wants the project left alone.
    pub(crate) fn freeze(&self) -> PathBuf {
        self.state.join("freeze.json")
    }

    /// The rollout that goes on.
    pub(crate) fn journal(&self) -> PathBuf {
        self.state.join("journal.json")
    }

    /// Room for what a rollout has to write down in the end.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.state.join("reserve")
    }

    /// What happened, an object a line.
    pub(crate) fn history(&self) -> PathBuf {
        self.state.join("history.jsonl")
    }

    /// Which images came for its releases.
    pub(crate) fn brought(&self) -> PathBuf {
        self.state.join("brought.json")
    }

    /// Who did what, an object a line.
    pub(crate) fn audit(&self) -> PathBuf {
        self.state.join("audit.jsonl")
    }

    /// Who did what before that.
    pub(crate) fn audit_before(&self) -> PathBuf {
        self.state.join("audit.before.jsonl")
    }

    /// The model of the release that serves, for `rcompose` on the host.
    pub(crate) fn model(&self) -> PathBuf {
        self.state.join("compose.json")
    }

    /// All releases.
    pub(crate) fn releases(&self) -> PathBuf {
        self.state.join("releases")
    }

    /// One release.
    pub(crate) fn release(&self, id: &ReleaseId) -> PathBuf {
        self.releases().join(format!("{id}.json"))
    }

    /// A file or directory that containers mount.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        self.state.join("files").join(name)
    }

    /// A directory that services write to.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.state.join("data").join(name)
    }

    /// A secret that containers mount.
    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.run.join("secrets").join(name)
    }
}
