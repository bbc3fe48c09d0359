//! What a client asks an agent for, and what it is told.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use engine::error::{Error, Kind};
use engine::image::Reference;
use engine::network::Draw;
use engine::quantity::Percent;
use serde::{Deserialize, Serialize};

use crate::deed::Deed;
use crate::freeze::Freeze;
use crate::release::{Entry, Release, ReleaseId, SentImage};

/// What an agent says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of this protocol it speaks.
    pub protocol: u32,
    /// The digest of its executable, when it was asked for.
    pub executable: Option<String>,
    /// What it is called among machines.
    pub hostname: String,
    /// Its architecture, as Rust names it: `x86_64`.
    pub architecture: String,
    /// The kernel's release.
    pub kernel: String,
}

/// What an agent is asked for. Each is answered by any number of [`Answer::Event`]s and one other answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Keep others from changing a project, as long as this connection lasts.
    Lock {
        /// The project.
        project: String,
        /// Who asks: shown to others.
        author: String,
        /// How long to wait for it, in milliseconds.
        wait_ms: u64,
    },
    /// Leave a project that this connection has locked alone from now on, whoever else wants to change it.
    Freeze {
        /// The project.
        project: String,
        /// Who wants that, and until when.
        freeze: Freeze,
    },
    /// Let a project be changed again.
    Thaw {
        /// The project.
        project: String,
        /// Who wants that.
        author: String,
    },
    /// Put down that something is done to a project beside this connection.
    Note {
        /// The project.
        project: String,
        /// Who does it.
        author: String,
        /// What: the command.
        what: String,
    },
    /// Who did what to a project.
    Audit {
        /// The project.
        project: String,
    },
    /// Take images over; a conversation of [`crate::transfer`] follows, and only then the answer.
    ReceiveImages {
        /// What they will be called.
        names: Vec<Reference>,
    },
    /// Build images from contexts that were taken over.
    Build(Box<BuildOrder>),
    /// Send images; a conversation of [`crate::transfer`] follows, and only then the answer.
    SendImages {
        /// The images.
        images: Vec<SentImage>,
    },
    /// Keep files that containers mount.
    KeepFiles {
        /// The project.
        project: String,
        /// The files; the bytes of each follow in this order as data.
        files: Vec<KeptFile>,
    },
    /// What a rollout would do.
    Plan(Box<Rollout>),
    /// Make everything ready.
    Prepare(Box<Rollout>),
    /// Let new containers have a part of the new connections.
    Share {
        /// How many of a hundred.
        percent: Percent,
        /// Which ones.
        draw: Draw,
    },
    /// See how those do that have a part of the connections.
    Watch {
        /// For how long, in milliseconds.
        time_ms: u64,
    },
    /// Change who answers.
    Commit,
    /// Take the old away and put the rollout on record.
    Finish,
    /// Leave everything as it was before.
    BackOut {
        /// Why, for the history; nothing is put on record when `None`.
        reason: Option<String>,
    },
    /// What was rolled out and what came of it, the newest last.
    History {
        /// The project.
        project: String,
    },
    /// The names of the releases that are kept.
    Kept {
        /// The project.
        project: String,
    },
    /// A release that is kept.
    Release {
        /// The project.
        project: String,
        /// Its name.
        id: ReleaseId,
    },
    /// What runs.
    Status {
        /// The project.
        project: String,
    },
    /// Stop or start containers of the release that serves, as they are.
    Turn {
        /// The project.
        project: String,
        /// The services; all when empty.
        services: Vec<String>,
        /// What is done to them.
        turn: Turn,
    },
    /// Take away what no kept release needs.
    Prune {
        /// The project.
        project: String,
    },
    /// Take a project away. What its services wrote stays unless `volumes` says otherwise.
    Remove {
        /// The project.
        project: String,
        /// Whether its volumes go too.
        volumes: bool,
    },
    /// Make the host ready: the three names, and units that put things right after a reboot.
    Setup,
}

/// A release to roll out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The release.
    pub release: Release,
    /// Whether it goes back to a release that was kept.
    pub rollback: bool,
    /// Who rolls it out.
    pub author: String,
    /// The services it is about; all when empty.
    pub services: Vec<String>,
    /// Where registries want to be told who asks, by registry.
    pub credentials: BTreeMap<String, RegistryLogin>,
}

/// What is done to containers that stay what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Turn {
    /// They are stopped, dependents first.
    Stop,
    /// Those that do not run are started, and it is waited until they are ready.
    Start,
    /// Both.
    Restart,
}

/// Images to build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildOrder {
    /// The project.
    pub project: String,
    /// The services with how they are built, as a compose file in JSON.
    pub model: String,
    /// The images that hold the services' contexts, by service.
    pub contexts: BTreeMap<String, String>,
    /// The images that hold the services' further contexts, by service and name.
    pub named: BTreeMap<String, BTreeMap<String, String>>,
    /// The secrets that builds read, and how long each is; the bytes of each follow in this order as data.
    pub secrets: Vec<(String, u64)>,
    /// Where registries want to be told who asks, by registry.
    pub credentials: BTreeMap<String, RegistryLogin>,
}

/// Who asks a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogin {
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: String,
}

/// A file that containers mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// The name it has in the release, see [`crate::parcel`].
    pub name: String,
    /// Its permissions.
    pub mode: u32,
    /// Whether it is a tar of a directory.
    pub directory: bool,
    /// Whether it must be in memory only.
    pub secret: bool,
    /// How many bytes it has.
    pub size: u64,
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// How far it is. More answers follow.
    Event(Event),
    /// It is done.
    Done(Outcome),
    /// It cannot be done.
    Failed(Failure),
}

/// How far an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Something happens to an object, or has happened.
    Step {
        /// `Container shop-web-1`.
        object: String,
        /// `Starting`, `Started`.
        word: String,
        /// How long it took, in milliseconds, once it is done.
        took_ms: Option<u64>,
    },
    /// A line for the person.
    Remark(String),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Nothing to tell.
    Nothing,
    /// Lines for the person.
    Remarks(Vec<String>),
    /// The images that were built, by service.
    Built(BTreeMap<String, SentImage>),
    /// What a rollout does, a line a step.
    Plan(Planned),
    /// The services whose new containers have a part of the connections.
    Shared(Vec<String>),
    /// What has changed.
    Committed(Measured),
    /// What happened so far.
    History(Vec<Entry>),
    /// The releases that are kept, the one that has served least recently first.
    Kept(Vec<ReleaseId>),
    /// Who did what so far.
    Audit(Vec<Deed>),
    /// A release.
    Release(Box<Release>),
    /// What runs.
    Status(Status),
    /// The freeze that there was.
    Thawed(Option<Freeze>),
    /// How many releases, images and files went.
    Pruned(usize),
    /// The project has gone.
    Removed {
        /// Whether the engine went with it, as nobody has anything there any more.
        left: bool,
    },
}

/// What a rollout does on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The steps that come before anything changes.
    pub prepare: Vec<String>,
    /// The steps that change who answers.
    pub commit: Vec<String>,
    /// The steps that take the old away.
    pub retire: Vec<String>,
    /// The services whose containers change.
    pub changed: Vec<String>,
    /// The release that serves.
    pub previous: Option<ReleaseId>,
}

/// What a change of who answers came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The longest time within which no connection was accepted, in milliseconds; `None` when nothing is published.
    pub downtime_ms: Option<u64>,
}

/// What runs of a project on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The release that serves.
    pub release: Option<ReleaseId>,
    /// The containers.
    pub containers: Vec<ContainerStatus>,
    /// What is not as the release says: one line each.
    pub drift: Vec<String>,
    /// Who changes the project at the moment.
    pub locked_by: Option<String>,
    /// Who wants the project left alone.
    pub frozen: Option<Freeze>,
}

/// A container of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// `running`, `running (healthy)`, `exited (1)`.
    pub state: String,
    /// Its image.
    pub image: String,
    /// Its published ports: `0.0.0.0:8080->80/tcp`.
    pub ports: Vec<String>,
}

/// Why something cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence with its causes.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The version of this protocol. An agent is the very executable that its client is, unless `executables:` of the settings
/// names one of another version.
pub const PROTOCOL: u32 = 2;

/// A time as it is sent and kept.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is to be said when an agent reports another outcome than the one that its request has.
pub(crate) fn confused() -> Error {
    Error::conflict("the agent answered something else than it was asked")
}

// === impls ===

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { message: engine::error::chain(error), hint: error.hint().map(str::to_owned) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(Kind::Failed, failure.message).with_hint_if(failure.hint)
    }
}

/// Never shows the password.
impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryLogin").field("username", &self.username).finish_non_exhaustive()
    }
}
