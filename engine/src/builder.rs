//! Images from Dockerfiles: what is asked of a build, what it tells on its way, and the [`Runner`] that runs
//! its commands. This room starts no process and mounts nothing itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::container::spec::{MountSpec, NetworkMode, Resources, Ulimit};
use crate::image::{Image, Platform, Reference};
use crate::paths::Root;
use crate::quantity::ByteSize;

pub use crate::container::stdio::Stream;

mod expand;
mod fault;
mod glob;
mod ignore;
mod instruction;
mod lexer;
mod parser;
pub mod progress;

/// A build as asked for. `BuildRequest::of(context)` is the plain `build PATH`; the rest are its flags.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The directory that COPY and ADD read.
    pub context: PathBuf,
    /// Where the instructions come from.
    pub dockerfile: DockerfileSource,
    /// Further contexts by name (`--build-context`): they stand in for stages and images of that name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// The stage to stop at, the last one when `None`.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Names the image gets.
    pub tags: Vec<Reference>,
    /// Labels the image gets besides those of LABEL.
    pub labels: BTreeMap<String, String>,
    /// Which cached layers may be used.
    pub cache: CacheUse,
    /// Whether base images are asked for at their registry even when they are here.
    pub pull: bool,
    /// What to build for; the host when `None`.
    pub platform: Option<Platform>,
    /// How the commands of RUN run.
    pub run: RunOptions,
    /// Secrets that `RUN --mount=type=secret` may ask for.
    pub secrets: Vec<Secret>,
    /// What becomes of names in `--chown` that the image does not know.
    pub unknown_owners: UnknownOwners,
}

/// Where a build's instructions come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context.
    #[default]
    Default,
    /// This file, relative to the current directory as `-f` is.
    File(PathBuf),
    /// This text: `-f -` or compose's `dockerfile_inline`.
    Inline(String),
}

/// A further context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of the host.
    Directory(PathBuf),
    /// An image: `docker-image://REF`.
    Image(Reference),
}

/// Which cached layers may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CacheUse {
    /// Every one that fits.
    #[default]
    All,
    /// None: each instruction runs again.
    None,
    /// None in these stages.
    NotIn(Vec<String>),
}

/// What becomes of names in `--chown` that the image does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownOwners {
    /// The build fails, as the Dockerfile reference says.
    #[default]
    Fail,
    /// Root owns the files, as BuildKit does without a word.
    Root,
}

/// How the commands of RUN run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The network of instructions that name none.
    pub network: NetworkMode,
    /// Whether instructions may ask for the host's network.
    pub allow_host_network: bool,
    /// Whether instructions may ask for all privileges.
    pub allow_insecure: bool,
    /// Lines of /etc/hosts: name and address, or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of /dev/shm.
    pub shm_size: Option<ByteSize>,
    /// Resource limits per process.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Limits of the cgroup.
    pub resources: Resources,
}

/// A secret of a build. Its value reaches the commands that mount it and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// What instructions call it.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In this file.
    File(PathBuf),
    /// In this variable of our own environment.
    Variable(String),
}

/// One command to run on top of a stack of layers.
///
/// Everything written goes to `upper`, an overlay upper directory that the builder made and adopts as a layer
/// when the command ends with 0; `work` is on the same file system. The runner mounts, the builder does not.
#[derive(Debug, Clone)]
pub struct RunStep {
    /// The layers below, topmost first; empty on top of `scratch`.
    pub lower: Vec<PathBuf>,
    /// Receives what is written.
    pub upper: PathBuf,
    /// Overlay's own directory.
    pub work: PathBuf,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `KEY=value`. HOME comes from the image's passwd file when it is not among them.
    pub env: Vec<String>,
    /// The working directory; it exists in the layers or is made.
    pub cwd: PathBuf,
    /// `user[:group]`; root when `None`.
    pub user: Option<String>,
    /// The host name: `buildkitsandbox`.
    pub hostname: String,
    /// The network.
    pub network: NetworkMode,
    /// Whether it has all privileges.
    pub privileged: bool,
    /// Bind mounts, file systems in memory and secret files.
    pub mounts: Vec<MountSpec>,
    /// Lines of /etc/hosts.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of /dev/shm.
    pub shm_size: Option<ByteSize>,
    /// Resource limits per process.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Limits of the cgroup.
    pub resources: Resources,
}

/// Runs the commands of a build and fetches its base images: the engine, or a fake in tests.
pub trait Runner: Sync {
    /// Runs one command to its end and returns its exit code, 128 + n after signal n. `output` is called for
    /// every piece of output, in order. After an error the content of `step.upper` does not matter.
    fn run(&self, step: &RunStep, output: &mut dyn FnMut(Stream, &[u8])) -> crate::Result<i32>;

    /// Fetches an image into the store the build uses. Lines for people go to `progress`.
    fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(&str),
    ) -> crate::Result<()>;

    /// How many stages may run at once.
    fn parallelism(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// One line of a build's progress: `#7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vertex(pub u32);

/// What a build tells on its way, in the order things happen. `progress::Plain` turns it into text.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    /// How many vertices there will be, told again when it changes.
    Planned(usize),
    /// Work on something began.
    Started {
        /// What.
        vertex: Vertex,
        /// For people: `[build 2/4] RUN make`.
        name: String,
    },
    /// A line about the work that no command printed.
    Note {
        /// The work.
        vertex: Vertex,
        /// For people.
        text: String,
    },
    /// A command printed something.
    Output {
        /// The work.
        vertex: Vertex,
        /// Where it was printed.
        stream: Stream,
        /// What was printed; not cut at lines.
        bytes: Vec<u8>,
    },
    /// The result was there already.
    Cached(Vertex),
    /// The work is done.
    Done {
        /// The work.
        vertex: Vertex,
        /// How long it took.
        took: Duration,
    },
    /// The work failed.
    Failed {
        /// The work.
        vertex: Vertex,
        /// Why, in one line.
        message: String,
    },
    /// A rule for Dockerfiles was not kept.
    Warning(Warning),
    /// Where in the Dockerfile the build failed; the last event before the error is returned.
    Failure(Failure),
}

/// A rule for Dockerfiles that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule: `FromAsCasing`.
    pub rule: &'static str,
    /// What is wrong.
    pub message: String,
    /// The line, from 1.
    pub line: usize,
}

/// What people want to see after a failed build: the end of the output and the place in the Dockerfile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// The failed vertex by name.
    pub vertex: Option<String>,
    /// Its last lines of output, each with the time since it started.
    pub tail: Vec<(Duration, String)>,
    /// `Dockerfile:3` and the lines around, the failed ones marked by `>>>`.
    pub excerpt: Option<String>,
}

/// Builds an image in this root: its base images, its layers, its cache and the result are all there.
pub fn build(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<Image> {
    let _ = (root, runner, request, events);
    todo!()
}

// === impl BuildRequest ===

impl BuildRequest {
    /// A build of this directory with every option at its default.
    pub fn of(context: impl Into<PathBuf>) -> Self {
        Self {
            context: context.into(),
            dockerfile: DockerfileSource::Default,
            contexts: BTreeMap::new(),
            target: None,
            args: BTreeMap::new(),
            tags: Vec::new(),
            labels: BTreeMap::new(),
            cache: CacheUse::All,
            pull: false,
            platform: None,
            run: RunOptions::default(),
            secrets: Vec::new(),
            unknown_owners: UnknownOwners::Fail,
        }
    }
}

// === impl RunOptions ===

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            network: NetworkMode::Bridge(Vec::new()),
            allow_host_network: false,
            allow_insecure: false,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: BTreeMap::new(),
            resources: Resources::default(),
        }
    }
}
