//! Images from Dockerfiles: what is asked of a build, what it tells on its way, and the [`Runner`] that runs
//! its commands. This room starts no process and mounts nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::fs::Timespec;

use crate::container::spec::{MountSpec, NetworkMode, Resources, Ulimit};
use crate::image::{Image, ImageConfig, Images, Platform, Reference};
use crate::layer::Layers;
use crate::paths::Root;
use crate::quantity::ByteSize;
use crate::store::private_directory;
use bases::Bases;
use cache::Cache;
use digests::Digests;
use error::Trouble;
use exchange::Exchange;
use execute::{Broken, Build, Message};
use fault::Source;
use instruction::Dockerfile;
use prompt::Remains;
use report::Reporter;

pub use crate::container::stdio::Stream;

mod agent;
mod archive;
mod attest;
mod bases;
mod cache;
mod context;
mod copy;
mod digests;
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
mod several;
mod shown;
mod squash;
mod ssh;
mod stack;
mod stage;

pub use attest::{AttestRequest, Attested, statements, wants_bill};
pub use error::BuildError;
pub use exchange::{CacheExtent, CachePlace, CacheSource, CacheTarget};
pub use export::{Part, write_directory, write_tar};
pub use garbage::{Garbage, Kept, KeptKind};
pub(crate) use garbage::{kept, remove};
pub use git::{Fetched, NamedBy, fetch_repository, is_repository};
pub use intake::{Intake, Opening};
pub use lint::description;
pub use outline::{Outline, outline};
pub use provenance::{Facts, Material, ProvenanceRequest, is_no};
pub use remote::shown;

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
    build_one(root, runner, request, Purpose::Image, events).map(|(image, _)| vec![image])
}

/// Builds an image for one platform; with it comes what it used, for a cache.
fn build_one(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    purpose: Purpose,
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<(Image, Exchange)> {
    let built = carry_out(root, runner, request, purpose, events)?;
    built.ok_or_else(|| crate::Error::new(crate::Kind::Failed, "the build ended without an image"))
}

/// Looks at a Dockerfile as a build would, and tells of every rule it does not keep. Nothing is run or written.
pub fn check(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<()> {
    carry_out(root, runner, request, Purpose::Check, events).map(drop)
}

/// The stages of a Dockerfile that can be built, and which one is when none is asked for.
pub fn targets(request: &BuildRequest) -> crate::Result<Vec<(String, bool)>> {
    let (text, _) = read_dockerfile(request)?;
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

/// What a Dockerfile is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To build an image.
    Image,
    /// To build one platform's image of several.
    OneOfSeveral,
    /// To see what is wrong with it.
    Check,
}

fn carry_out(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    purpose: Purpose,
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<Option<(Image, Exchange)>> {
    refuse(request)?;
    let (text, file) = read_dockerfile(request)?;
    let (sender, receiver) = channel();
    let reporter: Reporter<Message> = Reporter::to(sender.clone(), text.clone());
    let dockerfile = parse_dockerfile(&text, request, &reporter, &receiver, events)?;
    let target = graph::target_of(&dockerfile, request.target.as_deref()).ok_or_else(|| {
        let known = dockerfile.stages.iter().filter_map(|stage| stage.name.clone()).collect();
        BuildError::Target { target: request.target.clone().unwrap_or_default(), known }
    })?;
    let context = execute::context_tree(&request.context, file.as_deref())?;
    prepare_directories(root)?;
    let layers = Layers::at(root);
    let _hold = layers.hold()?;
    let store = |step| move |source| BuildError::Store { step, source };
    let globals = globals(&dockerfile, request, target).map_err(|trouble| {
        fail(&text, Broken { lines: (1, 1), trouble, failure: Failure::default() }, events)
    })?;
    let mut build = Build {
        root,
        images: Images::at(root),
        layers,
        runner,
        request,
        escape: dockerfile.escape,
        globals,
        context,
        cache: Cache::at(root).map_err(store("open the build cache"))?,
        exchange: Exchange::default(),
        digests: Digests::open(digests_file(root, &request.context)),
        place: format!("{} {}", request.context.display(), text.name),
        is_check: purpose == Purpose::Check,
        epoch: epoch(request),
        now: now(request),
        reporter,
        made: HashMap::new(),
        remains: Remains::default(),
        renewed: Mutex::default(),
        agents: Mutex::default(),
    };
    if !build.is_check {
        build.exchange = Exchange::open(&build.images, request, &build.reporter);
    }
    // Who wants a Dockerfile looked at and names no stage means all of it.
    let target = (target, build.is_check && request.target.is_none());
    let mut bases = Bases::find(&build, &dockerfile, target, (&sender, &receiver), events);
    let mut find_image = |reference: &Reference, platform: Option<&Platform>| {
        let found = bases.take(reference, platform);
        let found = found.unwrap_or_else(|| find_image(&build, reference, platform));
        while let Ok(Message::Event(event)) = receiver.try_recv() {
            events(event);
        }
        if let Ok(image) = &found {
            events(BuildEvent::Material(material(reference, image)));
        }
        found
    };
    let plan = graph::plan(&dockerfile, request, &build.globals, target, &mut find_image);
    let mut plan = plan.map_err(|(lines, trouble)| {
        fail(&text, Broken { lines, trouble, failure: Failure::default() }, events)
    })?;
    if purpose == Purpose::OneOfSeveral
        && let Some(platform) = request.platform()
    {
        let stages = plan.stages.node_weights_mut();
        stages.for_each(|stage| stage.title = format!("{platform} {}", stage.title).trim_end().to_owned());
    }
    build.made = plan.stages.node_weights().map(|stage| (stage.number, OnceLock::new())).collect();
    let result = execute::run(&build, &plan, (sender, &receiver), events);
    // What was unpacked for this build alone is never seen again.
    if !request.context.starts_with(root.scratch()) {
        build.digests.save();
    }
    if let Err(mut broken) = result {
        broken.failure.has_prompt = build.remains.is_kept();
        let error = fail(&text, *broken, events);
        build.remains.enter(runner)?;
        return Err(error);
    }
    if let Err(fault) = build.reporter.verdict()
        && !build.is_check
    {
        let (lines, trouble) = (fault.lines, Trouble::Fault(fault));
        return Err(fail(&text, Broken { lines, trouble, failure: Failure::default() }, events));
    }
    if build.is_check {
        return Ok(None);
    }
    let image = export(&build, plan.stages[plan.target].number);
    while let Ok(Message::Event(event)) = receiver.try_recv() {
        events(event);
    }
    image.map(|image| Some((image, build.exchange)))
}

/// Arguments that mean something to the builder, and say what it cannot do.
fn refuse(request: &BuildRequest) -> crate::Result<()> {
    if let Some(text) = request.args.get(EPOCH)
        && epoch(request).is_none()
    {
        return Err(crate::Error::invalid(format!("{EPOCH}={text:?} is no time"))
            .with_hint("seconds since 1970, as of: git log -1 --format=%ct"));
    }
    if let Some(syntax) = request.args.get("BUILDKIT_SYNTAX")
        && !parser::is_spoken(syntax)
    {
        let message = format!("BUILDKIT_SYNTAX={syntax} {}", parser::NOT_SPOKEN);
        return Err(crate::Error::invalid(message));
    }
    if request.run.shell_on_failure && request.platforms.len() > 1 {
        return Err(crate::Error::invalid("a shell for a failed step is there for one platform at a time"));
    }
    Ok(())
}

/// The Dockerfile's text, and its path when it is a file.
fn read_dockerfile(request: &BuildRequest) -> Result<(Source, Option<PathBuf>), BuildError> {
    let path = match &request.dockerfile {
        DockerfileSource::Inline(text) => {
            return Ok((Source { name: "Dockerfile".to_owned(), text: text.clone() }, None));
        }
        DockerfileSource::File(path) => usual_dockerfile(path.clone()),
        DockerfileSource::Default => usual_dockerfile(request.context.join("Dockerfile")),
    };
    let bytes = std::fs::read(&path).map_err(|source| BuildError::Read { path: path.clone(), source })?;
    // People know it as they named it; below the context that is its path there.
    let name = path.strip_prefix(&request.context).unwrap_or(&path).display().to_string();
    Ok((Source { name, text: String::from_utf8_lossy(&bytes).into_owned() }, Some(path)))
}

/// The file that is meant by the usual name where there is none of it: spelled in lower case as docker takes it, or
/// as podman has it.
fn usual_dockerfile(path: PathBuf) -> PathBuf {
    if path.file_name().is_none_or(|name| name != "Dockerfile") || path.exists() {
        return path;
    }
    let others = ["dockerfile", "Containerfile"].map(|name| path.with_file_name(name));
    others.into_iter().find(|other| other.exists()).unwrap_or(path)
}

fn parse_dockerfile(
    text: &Source,
    request: &BuildRequest,
    reporter: &Reporter<Message>,
    receiver: &Receiver<Message>,
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<Dockerfile> {
    let work = reporter.start(format!("[internal] load build definition from {}", text.name));
    let parsed = parser::parse(&text.text);
    work.done();
    let parsed = parsed.and_then(|mut dockerfile| {
        if let Some(rules) = request.args.get("BUILDKIT_DOCKERFILE_CHECK") {
            dockerfile.check = Some(rules.clone());
        }
        lint::check(&dockerfile, reporter)?;
        Ok(dockerfile)
    });
    while let Ok(Message::Event(event)) = receiver.try_recv() {
        events(event);
    }
    parsed.map_err(|fault| {
        let lines = fault.lines;
        fail(text, Broken { lines, trouble: Trouble::Fault(fault), failure: Failure::default() }, events)
    })
}

/// Tells where a build failed, and turns it into the error that is returned.
fn fail(text: &Source, broken: Broken, events: &mut dyn FnMut(BuildEvent)) -> crate::Error {
    let Broken { lines, trouble, mut failure } = broken;
    failure.excerpt = Some(text.excerpt(lines.0, lines.1));
    events(BuildEvent::Failure(failure));
    let place = format!("{}:{}", text.name, lines.0);
    let error = match trouble {
        Trouble::Fault(fault) => BuildError::Dockerfile { place: text.place(&fault), message: fault.message },
        Trouble::Command { command, code } => BuildError::Command { place, command, code },
        Trouble::Step(source) => BuildError::Step { place, step: source.to_string(), source },
    };
    error.into()
}

/// The arguments that FROM sees, and that stages may take over by name.
fn globals(
    dockerfile: &Dockerfile,
    request: &BuildRequest,
    target: usize,
) -> Result<BTreeMap<String, String>, Trouble> {
    let mut globals = BTreeMap::new();
    let wanted = request.platform().cloned().unwrap_or_else(Platform::host);
    for (prefix, platform) in [("BUILD", Platform::host()), ("TARGET", wanted)] {
        globals.insert(format!("{prefix}PLATFORM"), platform.to_string());
        globals.insert(format!("{prefix}OS"), platform.os.clone());
        globals.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        globals.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    let stage = dockerfile.stages.get(target).and_then(|stage| stage.name.clone());
    globals.insert("TARGETSTAGE".to_owned(), stage.unwrap_or_else(|| "default".to_owned()));
    for step in &dockerfile.globals {
        let instruction::Instruction::Arg(definitions) = &step.instruction else { continue };
        for (name, default) in definitions {
            let lookup = |name: &str| globals.get(name).cloned();
            let default = default
                .as_ref()
                .map(|default| expand::Expander::new(dockerfile.escape).expand(default, &lookup))
                .transpose()
                .map_err(|message| fault::Fault::at(step.lines.0, message))?
                .map(|expanded| expanded.text);
            if let Some(value) = request.args.get(name).cloned().or(default) {
                globals.insert(name.clone(), value);
            }
        }
    }
    for (name, value) in &request.args {
        if globals.contains_key(name) {
            globals.insert(name.clone(), value.clone());
        }
    }
    Ok(globals)
}

fn material(reference: &Reference, image: &Image) -> Material {
    let known = image.digests.iter().chain(&image.part_of);
    let mut same = known.filter(|name| name.familiar_name() == reference.familiar_name());
    let digest = reference.digest().cloned().or_else(|| same.find_map(|name| name.digest().cloned()));
    Material { reference: reference.clone(), digest, platform: image.platform().to_string() }
}

/// A base image from here, or from its registry if it is missing or asked for anew.
fn find_image(
    build: &Build<'_>,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Image, Trouble> {
    let name = reference.to_string();
    let found = |images: &Images| match images.find_for(&name, platform)? {
        Some(image) => Ok(Some(image)),
        None => images.find(&name),
    };
    let work = build.reporter.start(format!("[internal] load metadata for {}", reference.canonical()));
    let fits = |image: &Image| platform.is_none_or(|wanted| wanted.rank(&image.platform()).is_some());
    let look = || -> crate::Result<Image> {
        let here = found(&build.images)?;
        if !build.request.pull
            && let Some(image) = here.as_ref().filter(|image| fits(image))
        {
            return Ok(image.clone());
        }
        let pulled = build.runner.pull(reference, platform, &mut |line| work.note(line));
        pulled.map_err(|error| match here.filter(|image| !fits(image)) {
            Some(other) => {
                error.with_hint(format!("the {reference} that is here is for {}", other.platform()))
            }
            None => error,
        })?;
        found(&build.images)?.ok_or_else(|| crate::Error::not_found(format!("image {reference} not found")))
    };
    match look() {
        Ok(image) => {
            work.done();
            Ok(image)
        }
        Err(error) => {
            work.failed(&crate::error::chain(&error));
            Err(Trouble::Step(error))
        }
    }
}

/// Makes an image of the target stage and names it.
fn export(build: &Build<'_>, target: usize) -> crate::Result<Image> {
    let made = build
        .result(target)
        .ok_or_else(|| crate::Error::new(crate::Kind::Failed, "the target stage ended without a result"))?;
    let work = build.reporter.start("exporting to image");
    let mut config = if build.request.squash {
        let squashed = squash::squashed(build, made);
        squashed.map_err(|trouble| match trouble {
            Trouble::Step(error) => error,
            other => crate::Error::new(crate::Kind::Failed, other.summary()),
        })?
    } else {
        made.config.clone()
    };
    config.config.labels.extend(build.request.labels.clone());
    if let Some(platform) = build.request.platform() {
        become_one_for(&mut config, platform);
    }
    if build.request.cache_to.iter().any(|target| !target.is_apart()) || asks(build.request, INLINE_CACHE) {
        config.build_cache = build.exchange.records(Some(&config.rootfs.diff_ids));
    }
    let image = build.images.commit(&config, &build.request.tags)?;
    work.note(format!("writing image {} done", image.id));
    for tag in &build.request.tags {
        work.note(format!("naming to {} done", tag.canonical()));
    }
    work.done();
    if build.request.cache_to.iter().any(CacheTarget::is_apart) {
        let (work, layers) = (build.reporter.start("exporting cache"), &image.config.rootfs.diff_ids);
        let note = &mut |text| work.note(text);
        build.exchange.lend(&build.images, layers, &build.request.cache_to, note)?;
        work.done();
    }
    Ok(image)
}

/// An image is for the platform that was asked for, whatever it was made on: `FROM --platform=$BUILDPLATFORM` may begin
/// the last stage, too, when what it holds runs anywhere or was compiled for there.
fn become_one_for(config: &mut ImageConfig, platform: &Platform) {
    let is_other = config.os != platform.os || config.architecture != platform.architecture;
    if is_other || platform.variant.is_some() {
        config.variant.clone_from(&platform.variant);
    }
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
}

fn prepare_directories(root: &Root) -> Result<(), BuildError> {
    for directory in [root.scratch(), root.build_cache(), root.build_cache().join("digests")] {
        private_directory(&directory)
            .map_err(|source| BuildError::Store { step: "make the build cache", source })?;
    }
    Ok(())
}

/// Where the digests of a context's files are remembered.
fn digests_file(root: &Root, context: &std::path::Path) -> PathBuf {
    let path = std::fs::canonicalize(context).unwrap_or_else(|_| context.to_owned());
    root.build_cache().join("digests").join(crate::id::Digest::of(path.as_os_str().as_encoded_bytes()).hex())
}

/// The argument that says of when everything is (reproducible-builds.org/specs/source-date-epoch).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The argument that wants a cache in the image, as docker before buildx had it.
const INLINE_CACHE: &str = "BUILDKIT_INLINE_CACHE";

/// Whether an argument that is for the builder is given and says yes.
fn asks(request: &BuildRequest, name: &str) -> bool {
    request
        .args
        .get(name)
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true"))
}

/// SOURCE_DATE_EPOCH, in seconds.
fn epoch(request: &BuildRequest) -> Option<i64> {
    request.args.get(EPOCH)?.parse().ok()
}

/// The time of new files and layers: SOURCE_DATE_EPOCH, or now.
fn now(request: &BuildRequest) -> Timespec {
    if let Some(seconds) = epoch(request) {
        return Timespec { tv_sec: seconds, tv_nsec: 0 };
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timespec { tv_sec: i64::try_from(now.as_secs()).unwrap_or(0), tv_nsec: i64::from(now.subsec_nanos()) }
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
