//! Images from Dockerfiles: what is asked of a build, what it tells on its way, and the [`Runner`] that runs
//! its commands. This room starts no process and mounts nothing itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::container::spec::{MountSpec, NetworkMode, Resources, Ulimit};
use crate::image::{Image, Platform, Reference};
use crate::paths::Root;
use crate::quantity::ByteSize;
use course::Purpose;
use joint::Joint;

pub use crate::container::stdio::Stream;

mod agent;
mod archive;
mod argument;
mod attest;
mod bases;
mod cache;
mod context;
mod copy;
mod course;
mod device;
mod digests;
mod dockerfile;
mod error;
mod exchange;
mod execute;
mod expand;
mod explain;
mod export;
mod fault;
mod files;
mod foreign;
mod garbage;
mod git;
pub(crate) mod glob;
mod graph;
pub mod ignore;
mod instruction;
mod intake;
mod joint;
mod lexer;
mod lint;
mod mount;
mod outline;
mod owner;
mod packages;
mod parser;
mod predecessor;
pub mod progress;
mod prompt;
mod provenance;
mod remote;
mod report;
mod run;
mod sbom;
mod setting;
mod several;
mod shown;
mod squash;
mod ssh;
mod stack;
mod stage;
mod suspicion;

pub use attest::{AttestRequest, Attested, statements, wants_bill};
pub use device::AllowedDevices;
pub use error::BuildError;
pub use exchange::{CacheExtent, CachePlace, CacheSource, CacheTarget};
pub use export::{Part, write_directory, write_tar};
pub use garbage::{Garbage, Kept, KeptKind};
pub(crate) use garbage::{kept, remove};
pub use git::{Fetched, NamedBy, fetch_repository, is_repository};
pub use intake::{Intake, Opening};
pub use lint::description;
pub use mount::fields;
pub use outline::{Outline, outline};
pub use provenance::{Facts, Material, ProvenanceRequest, is_no};
pub use remote::shown;
pub use setting::change;

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
    /// Caches of other machines that layers may come from.
    pub cache_from: Vec<CacheSource>,
    /// Caches that are written when the build is done.
    pub cache_to: Vec<CacheTarget>,
    /// Whether base images are asked for at their registry even when they are here.
    pub pull: bool,
    /// What to build for: the host when empty, an image for each and one name for all when there are several.
    pub platforms: Vec<Platform>,
    /// How the commands of RUN run.
    pub run: RunOptions,
    /// Secrets that `RUN --mount=type=secret` may ask for.
    pub secrets: Vec<Secret>,
    /// Sockets of SSH agents that `RUN --mount=type=ssh` may ask for, or files of keys, by their ids; the usual one is
    /// `default`.
    pub ssh: BTreeMap<String, PathBuf>,
    /// What becomes of names in `--chown` that the image does not know.
    pub unknown_owners: UnknownOwners,
    /// Whether no file of a new layer is younger than SOURCE_DATE_EPOCH.
    pub clamp_times: bool,
    /// Whether it is told what has changed for each step that is not cached.
    pub explain: bool,
    /// Whether all layers above the base become one.
    pub squash: bool,
}

/// Where a build's instructions come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context, else `dockerfile` or `Containerfile`.
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
    /// Which devices instructions may ask for.
    pub allow_devices: AllowedDevices,
    /// Lines of /etc/hosts: name and address, or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of /dev/shm.
    pub shm_size: Option<ByteSize>,
    /// Resource limits per process.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Limits of the cgroup.
    pub resources: Resources,
    /// The control group that those of the commands are in, from the top of each hierarchy.
    pub cgroup_parent: Option<PathBuf>,
    /// Whether a person gets a shell in the sandbox of the first command that fails, before the build ends.
    pub shell_on_failure: bool,
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
    /// The devices that it is given, by their qualified names.
    pub devices: Vec<String>,
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
    /// The control group that its own is in, from the top of each hierarchy.
    pub cgroup_parent: Option<PathBuf>,
}

/// Runs the commands of a build and fetches its base images: the engine, or a fake in tests.
pub trait Runner: Sync {
    /// Runs one command to its end and returns its exit code, 128 + n after signal n. `output` is called for
    /// every piece of output, in order. After an error the content of `step.upper` does not matter.
    fn run(&self, step: &RunStep, output: &mut dyn FnMut(Stream, &[u8])) -> crate::Result<i32>;

    /// Lets the person at the terminal of this process use the command, a shell, until it ends. How it ends does not
    /// matter.
    fn prompt(&self, step: &RunStep) -> crate::Result<()>;

    /// Fetches an image into the store the build uses. Lines for people go to `progress`.
    fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(&str),
    ) -> crate::Result<()>;

    /// Ends the commands that run, and those that were about to: nobody wants them any more.
    fn stop(&self) {}

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
    /// The work was ended: something else has failed.
    CalledOff(Vertex),
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
    /// An image that files are taken from.
    Material(Material),
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
    /// `Dockerfile:3` and the lines around, the one meant marked by `>>>`.
    pub excerpt: String,
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
    /// Whether a shell in the command's sandbox follows.
    pub has_prompt: bool,
}

/// Builds an image in this root, or one for each platform, the host's first: base images, layers, cache and the
/// result are all there.
pub fn build(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<Vec<Image>> {
    if request.platforms.len() > 1 {
        return several::build(root, runner, request, events);
    }
    let purpose = (Purpose::Image, &Joint::default());
    course::build_one(root, runner, request, purpose, events).map(|(image, _)| vec![image])
}

/// Looks at a Dockerfile as a build would, and tells of every rule it does not keep. Nothing is run or written.
pub fn check(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<()> {
    course::carry_out(root, runner, request, (Purpose::Check, &Joint::default()), events).map(drop)
}

/// The stages of a Dockerfile that can be built, and which one is when none is asked for.
pub fn targets(request: &BuildRequest) -> crate::Result<Vec<(String, bool)>> {
    let (text, _) = dockerfile::read(request)?;
    let dockerfile = parser::parse(&text.text).map_err(|fault| BuildError::Dockerfile {
        place: text.place(&fault),
        message: fault.message.clone(),
    })?;
    let last = dockerfile.stages.len().saturating_sub(1);
    let name =
        |number: usize, stage: &instruction::Stage| stage.name.clone().unwrap_or_else(|| number.to_string());
    Ok(dockerfile.stages.iter().enumerate().map(|(at, stage)| (name(at, stage), at == last)).collect())
}

/// Fetches a file into the build cache, and says where it is there.
///
/// # Errors
/// When it cannot be had.
pub fn download(root: &Root, address: &str) -> crate::Result<PathBuf> {
    let fetched = remote::fetch(&root.build_cache(), address, None, None)?;
    Ok(fetched.directory.join(fetched.name))
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
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            pull: false,
            platforms: Vec::new(),
            run: RunOptions::default(),
            secrets: Vec::new(),
            ssh: BTreeMap::new(),
            unknown_owners: UnknownOwners::Fail,
            clamp_times: false,
            explain: false,
            squash: false,
        }
    }

    /// The platform of a build for one, if it names one.
    pub(crate) fn platform(&self) -> Option<&Platform> {
        self.platforms.first()
    }
}

// === impl Secret ===

impl Secret {
    /// Its value; `None` when its variable is not set.
    pub(crate) fn value(&self) -> std::io::Result<Option<Vec<u8>>> {
        match &self.source {
            SecretSource::File(path) => std::fs::read(path).map(Some),
            SecretSource::Variable(name) => {
                Ok(std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec))
            }
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
            allow_devices: AllowedDevices::None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: BTreeMap::new(),
            resources: Resources::default(),
            cgroup_parent: None,
            shell_on_failure: false,
        }
    }
}

#[cfg(test)]
mod tests;
