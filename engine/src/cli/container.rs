//! The verbs on containers.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::Purpose;
use crate::cli::changes::{self, CommitArgs, ExportArgs};
use crate::cli::copy::{self, CopyArgs};
use crate::cli::invocation::{InContainer, Invocation, OfProcesses};
use crate::cli::lazy::Lazy;
use crate::cli::list;
use crate::cli::output;
use crate::cli::refusal::refuse;
use crate::cli::run::{CreateArgs, PullPolicy, grace_of_seconds};
use crate::cli::stats::{self, StatsArgs};
use crate::cli::top;
use crate::cli::update::{self, UpdateArgs};
use crate::container::client::{AttachEnd, AttachOptions, DetachKeys};
use crate::container::exec::ExecSpec;
use crate::container::logs::{LogOptions, parse_moment};
use crate::container::spec::ContainerSpec;
use crate::engine::{Anticipated, Container, Created, Engine, RemoveOptions, StopOptions};
use crate::error::{Error, Kind, Result};
use crate::id::ContainerName;
use crate::image::{Platform, PullOptions, Reference};
use crate::signal::Signal;

/// A verb on containers.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a container and run it
    Run(Lazy<RunArgs>),
    /// Make a container without starting it
    Create(Lazy<CreateArgs>),
    /// Run a command in a running container
    Exec(Lazy<ExecArgs>),
    /// Start stopped containers
    Start(Lazy<StartArgs>),
    /// Stop running containers
    Stop(Lazy<StopArgs>),
    /// Stop and start containers
    Restart(Lazy<StopArgs>),
    /// Send a signal to running containers
    Kill(Lazy<KillArgs>),
    /// Freeze all processes of containers
    Pause(Names),
    /// Thaw all processes of containers
    Unpause(Names),
    /// Wait until containers end, and print their exit codes
    Wait(Names),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(Lazy<RmArgs>),
    /// Give a container another name
    Rename {
        /// The container
        container: String,
        /// Its new name
        #[arg(value_parser = ContainerName::given)]
        name: ContainerName,
    },
    /// Connect to a container's standard streams
    Attach(Lazy<AttachArgs>),
    /// Show a container's output
    Logs(Lazy<LogsArgs>),
    /// Show a container's processes
    Top(Lazy<Invocation<OfProcesses>>),
    /// Show what containers use
    Stats(Lazy<StatsArgs>),
    /// Change the limits and the restart policy of containers
    Update(Lazy<UpdateArgs>),
    /// Copy files between a container and the host
    Cp(Lazy<CopyArgs>),
    /// Show what a container changed of its image
    Diff {
        /// The container
        container: String,
    },
    /// Write a container's root file system to an archive
    Export(Lazy<ExportArgs>),
    /// Make an image of a container
    Commit(Lazy<CommitArgs>),
    /// Show a container's published ports
    Port {
        /// The container
        container: String,
        /// One port of the container: 80 or 80/tcp
        port: Option<String>,
    },
}

/// Containers by name or id.
#[derive(Debug, Args)]
pub(super) struct Names {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

/// The flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Run in the background and print the id
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the container running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Pass signals on to the program
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sig_proxy: bool,
    #[command(flatten)]
    create: CreateArgs,
}

/// The flags of `exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User name or id, with an optional group
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// With all of the engine's privileges
    #[arg(long)]
    privileged: bool,
    /// Keys that leave the command running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    #[command(flatten)]
    invocation: Invocation<InContainer>,
}

/// The flags of `start`.
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// Attach to its output and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach to its input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Where a checkpoint is that it goes on from
    #[arg(long, hide = true)]
    checkpoint: Option<String>,
    /// Where checkpoints are
    #[arg(long, hide = true)]
    checkpoint_dir: Option<String>,
    #[command(flatten)]
    containers: Names,
}

/// The flags of `stop` and `restart`.
#[derive(Debug, Args)]
pub(super) struct StopArgs {
    /// Signal that asks it to end
    #[arg(short, long)]
    signal: Option<Signal>,
    /// Seconds it may take before it is killed; -1 for no limit
    #[arg(short, long, visible_alias = "timeout")]
    time: Option<i64>,
    #[command(flatten)]
    containers: Names,
}

/// The flags of `kill`.
#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// The signal
    #[arg(short, long, default_value = "KILL")]
    signal: Signal,
    #[command(flatten)]
    containers: Names,
}

/// The flags of `rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Kill running ones first
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Remove a link of docker's old kind
    #[arg(short, long, hide = true)]
    link: bool,
    #[command(flatten)]
    containers: Names,
}

/// The flags of `attach`.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// Do not attach to its input
    #[arg(long)]
    no_stdin: bool,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Pass signals on to the program
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sig_proxy: bool,
    /// The container
    container: String,
}

/// The flags of `logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Go on with what is written later
    #[arg(short, long)]
    follow: bool,
    /// Lines from the end, or all
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// From this moment on: a time, or how long ago
    #[arg(long)]
    since: Option<String>,
    /// Up to this moment: a time, or how long ago
    #[arg(long)]
    until: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show the tag, labels and variables that are kept with each line
    #[arg(long)]
    details: bool,
    /// The container
    container: String,
}

/// The flags of `container prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match: until=24h, label=key, label!=key
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

// === impl Verb ===

impl Verb {
    /// What it is for, which decides its exit codes.
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Run(_) => Purpose::Run,
            Self::Exec(_) => Purpose::Exec,
            _ => Purpose::Manage,
        }
    }
}

/// Carries a verb out; the result is the exit code.
pub(super) fn run(engine: &Engine, verb: Verb, anticipated: Option<Anticipated>) -> Result<u8> {
    match verb {
        Verb::Run(args) => run_container(engine, *args.0, anticipated),
        Verb::Create(args) => {
            let created = create(engine, *args.0, |spec| engine.create(spec))?;
            output::line(created.id.as_str());
            Ok(0)
        }
        Verb::Exec(args) => exec(engine, *args.0),
        Verb::Start(args) => start(engine, &args),
        Verb::Stop(args) => {
            let options = args.options();
            each_at_once(&args.containers, |name| engine.stop(&engine.find_id(name)?, &options))
        }
        Verb::Restart(args) => {
            let options = args.options();
            each(&args.containers, |name| engine.restart(&engine.find_id(name)?, &options))
        }
        Verb::Kill(args) => {
            each_at_once(&args.containers, |name| engine.kill(&engine.find_id(name)?, args.signal))
        }
        Verb::Pause(names) => each_at_once(&names, |name| engine.pause(&engine.find_id(name)?)),
        Verb::Unpause(names) => each_at_once(&names, |name| engine.unpause(&engine.find_id(name)?)),
        Verb::Wait(names) => wait(engine, &names),
        Verb::Rm(args) => {
            refuse(&[(args.link, "link", "what a container is linked to is part of it")])?;
            let options = RemoveOptions { force: args.force, volumes: args.volumes };
            let is_forgiven = |error: &Error| args.force && error.kind() == Kind::NotFound;
            each_at_once_unless(&args.containers, is_forgiven, |name| {
                engine.remove(&engine.find_id(name)?, &options)
            })
        }
        Verb::Rename { container, name } => engine.rename(&engine.find_id(&container)?, &name).map(|()| 0),
        Verb::Attach(args) => attach(engine, &args),
        Verb::Logs(args) => logs(engine, &args),
        Verb::Top(args) => top::top(engine, &args.place, &args.command),
        Verb::Stats(args) => stats::stats(engine, &args),
        Verb::Update(args) => update::update(engine, *args.0),
        Verb::Cp(args) => copy::copy(engine, &args),
        Verb::Diff { container } => changes::diff(engine, &container),
        Verb::Export(args) => changes::export(engine, &args),
        Verb::Commit(args) => changes::commit(engine, *args.0),
        Verb::Port { container, port } => port_of(engine, &container, port.as_deref()),
    }
}

/// Does something to each, names those it was done to, and goes on after a failure.
fn each(names: &Names, verb: impl Fn(&str) -> Result<()>) -> Result<u8> {
    let mut code = 0;
    for name in &names.names {
        match verb(name) {
            Ok(()) => output::line(name),
            Err(error) => {
                output::failure(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Does something to all at once, so that the slowest one alone is waited for; names them in their order.
fn each_at_once(names: &Names, verb: impl Fn(&str) -> Result<()> + Sync) -> Result<u8> {
    each_at_once_unless(names, |_| false, verb)
}

/// The same, where some failures are told and count as none.
fn each_at_once_unless(
    names: &Names,
    is_forgiven: impl Fn(&Error) -> bool,
    verb: impl Fn(&str) -> Result<()> + Sync,
) -> Result<u8> {
    let verb = &verb;
    std::thread::scope(|scope| {
        let begun: Vec<_> = names.names.iter().map(|name| (name, scope.spawn(move || verb(name)))).collect();
        let mut code = 0;
        for (name, thread) in begun {
            let outcome =
                thread.join().unwrap_or_else(|_| Err(Error::failed("do it", "its thread panicked")));
            match outcome {
                Ok(()) => output::line(name),
                Err(error) => {
                    output::failure(&error);
                    code = if is_forgiven(&error) { code } else { 1 };
                }
            }
        }
        Ok(code)
    })
}

/// Makes a container by `make`, and says what there is to say of it.
fn create<T: AsRef<Created>>(
    engine: &Engine,
    args: CreateArgs,
    make: impl FnOnce(ContainerSpec) -> Result<T>,
) -> Result<T> {
    let directory =
        std::env::current_dir().map_err(|error| Error::failed("find the working directory", error))?;
    if let Some(file) = args.cidfile.as_ref().filter(|file| file.exists()) {
        return Err(Error::conflict(format!("the id file {} exists already", file.display())));
    }
    let (cidfile, pull, quiet) = (args.cidfile.clone(), args.pull, args.quiet);
    // A mistake is told before anything is pulled for it.
    let asked = args.into_spec(&directory, &|name| engine.find_id(name))?;
    fetch(engine, &asked.spec.image, asked.spec.platform.as_deref(), pull, quiet)?;
    let made = make(asked.spec)?;
    let created = made.as_ref();
    asked.warnings.iter().chain(&created.warnings).for_each(|warning| output::warning(warning));
    if let Some(file) = cidfile {
        std::fs::write(&file, created.id.as_str())
            .map_err(|error| Error::failed(format!("write the id to {}", file.display()), error))?;
    }
    Ok(made)
}

/// Pulls an image as the policy asks.
fn fetch(
    engine: &Engine,
    image: &str,
    platform: Option<&str>,
    policy: PullPolicy,
    quiet: bool,
) -> Result<()> {
    let platform: Option<Platform> = platform
        .map(str::parse)
        .transpose()
        .map_err(|error| Error::invalid("--platform").with_source(error))?;
    let here = engine.images().find_for(image, platform.as_ref())?.is_some();
    if policy == PullPolicy::Never || (here && policy == PullPolicy::Missing) {
        return Ok(());
    }
    let reference: Reference =
        image.parse().map_err(|error| Error::invalid(format!("image {image:?}")).with_source(error))?;
    output::note(&format!("Unable to find image '{reference}' locally"));
    super::image::pull_with_progress(
        engine,
        &reference,
        &PullOptions { platform, ..PullOptions::default() },
        if quiet { None } else { Some(output::note) },
    )?;
    Ok(())
}

fn run_container(engine: &Engine, args: RunArgs, anticipated: Option<Anticipated>) -> Result<u8> {
    let RunArgs { detach, detach_keys, sig_proxy, create: create_args } = args;
    let streams = create_args.streams();
    if detach && create_args.names_streams() {
        return Err(Error::invalid("conflicting options: --attach and --detach"));
    }
    let tty = create_args.tty;
    if tty && streams.stdin && !detach {
        // Docker finds this out before it asks its engine for anything, and ends with 1.
        if let Err(error) = require_terminal() {
            output::failure(&error);
            return Ok(1);
        }
    }
    let poised = create(engine, create_args, |spec| engine.create_poised(anticipated, spec))?;
    let id = poised.created.id.clone();
    let undo = |error: Error| {
        // The container never ran, so nothing of it stays; what made it fail is what the user must hear.
        let _ = engine.remove(&id, &RemoveOptions { force: true, volumes: true });
        error
    };
    if detach {
        poised.start().map_err(undo)?.iter().for_each(|warning| output::warning(warning));
        output::line(id.as_str());
        return Ok(0);
    }
    if !streams.stdout && !streams.stderr {
        output::line(id.as_str());
    }
    let options = AttachOptions {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        tty,
        sig_proxy,
        detach_keys,
    };
    let end = poised.start_attached(&options, &mut output::warning).map_err(undo)?;
    Ok(end_code(end))
}

fn require_terminal() -> Result<()> {
    if rustix::termios::isatty(std::io::stdin()) {
        return Ok(());
    }
    Err(Error::invalid("the input device is not a TTY")
        .with_hint("leave out -t when the input is not a terminal"))
}

fn end_code(end: AttachEnd) -> u8 {
    match end {
        AttachEnd::Exited(code) => code_of(code),
        AttachEnd::Detached => 0,
    }
}

/// An exit code as a process can have one.
fn code_of(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

fn exec(engine: &Engine, args: ExecArgs) -> Result<u8> {
    if args.tty && args.interactive && !args.detach {
        require_terminal()?;
    }
    let mut env = Vec::new();
    for file in &args.env_file {
        env.extend(super::run::env_file(file)?);
    }
    env.extend(args.env.into_iter().map(super::run::import_variable));
    let spec = ExecSpec {
        argv: args.invocation.command,
        env: env.into_iter().filter(|entry| entry.contains('=')).collect(),
        user: args.user,
        working_dir: args.workdir,
        tty: args.tty,
        interactive: args.interactive,
        privileged: args.privileged,
    };
    let id = engine.find_id(&args.invocation.place)?;
    if args.detach {
        engine.exec_detached(&id, &spec).map_err(Error::of_execution)?;
        return Ok(0);
    }
    let options = AttachOptions {
        stdin: args.interactive,
        stdout: true,
        stderr: true,
        tty: args.tty,
        detach_keys: args.detach_keys,
        ..AttachOptions::default()
    };
    engine.exec(&id, &spec, &options).map(end_code).map_err(Error::of_execution)
}

fn start(engine: &Engine, args: &StartArgs) -> Result<u8> {
    const NO_CHECKPOINTS: &str = "this engine makes no checkpoints";
    refuse(&[
        (args.checkpoint.is_some(), "checkpoint", NO_CHECKPOINTS),
        (args.checkpoint_dir.is_some(), "checkpoint-dir", NO_CHECKPOINTS),
    ])?;
    if !args.attach && !args.interactive {
        return each(&args.containers, |name| {
            engine.start(&engine.find_id(name)?)?.iter().for_each(|warning| output::warning(warning));
            Ok(())
        });
    }
    let [name] = args.containers.names.as_slice() else {
        return Err(Error::invalid("only one container can be attached to at a time"));
    };
    let container = engine.container(name)?;
    let options = AttachOptions {
        sig_proxy: true,
        detach_keys: args.detach_keys.clone(),
        ..attachment(&container, args.interactive)?
    };
    engine.start_attached(container.id(), &options, &mut output::warning).map(end_code)
}

impl StopArgs {
    fn options(&self) -> StopOptions {
        StopOptions { signal: self.signal, grace: self.time.map(grace_of_seconds) }
    }
}

fn wait(engine: &Engine, names: &Names) -> Result<u8> {
    let mut code = 0;
    for name in &names.names {
        match engine.find_id(name).and_then(|id| engine.wait(&id)) {
            Ok(exit) => output::line(&exit.to_string()),
            Err(error) => {
                output::failure(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn attach(engine: &Engine, args: &AttachArgs) -> Result<u8> {
    let container = engine.container(&args.container)?;
    let options = AttachOptions {
        sig_proxy: args.sig_proxy,
        detach_keys: args.detach_keys.clone(),
        ..attachment(&container, !args.no_stdin)?
    };
    engine.attach(container.id(), &options).map(end_code)
}

/// Its output, and its input if that is wanted and open. A shell would take the end of a file for the end of its session:
/// a terminal is typed at from a terminal.
fn attachment(container: &Container, wants_input: bool) -> Result<AttachOptions> {
    let process = &container.record.spec.process;
    let stdin = wants_input && process.open_stdin;
    if stdin && process.tty && !rustix::termios::isatty(std::io::stdin()) {
        return Err(Error::invalid("the container has a terminal, and the input device is not a TTY")
            .with_hint("its output alone comes with attach --no-stdin, or start -a"));
    }
    Ok(AttachOptions { stdin, stdout: true, stderr: true, tty: process.tty, ..AttachOptions::default() })
}

fn logs(engine: &Engine, args: &LogsArgs) -> Result<u8> {
    let moment = |text: &Option<String>| {
        text.as_deref()
            .map(parse_moment)
            .transpose()
            .map_err(|error| Error::invalid("a moment in --since or --until").with_source(error))
    };
    let tail = match args.tail.as_str() {
        "all" => None,
        number => match number.parse::<i64>() {
            Ok(number) => usize::try_from(number).ok(),
            Err(_) => return Err(Error::invalid(format!("invalid --tail {number:?}: a number or all"))),
        },
    };
    let options =
        LogOptions { follow: args.follow, tail, since: moment(&args.since)?, until: moment(&args.until)? };
    engine.logs(&engine.find_id(&args.container)?, &options, &mut |line| {
        let time = if args.timestamps { format!("{} ", line.time) } else { String::new() };
        let details = if args.details { details(&line.attributes) } else { String::new() };
        let text = format!("{time}{details}{}", line.log);
        let is_read = match line.stream {
            crate::container::logs::Stream::Stdout => output::offer(text.as_bytes()),
            crate::container::logs::Stream::Stderr => output::offer_error(text.as_bytes()),
        };
        if is_read { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(0)
}

/// `key=value,key=value` and a space, as docker prints what is kept with a line.
fn details(attributes: &std::collections::BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{} ", pairs.join(","))
}

fn port_of(engine: &Engine, name: &str, wanted: Option<&str>) -> Result<u8> {
    let container = engine.container(name)?;
    let wanted = wanted.map(|text| if text.contains('/') { text.to_owned() } else { format!("{text}/tcp") });
    let mut found = false;
    for port in &container.ports {
        let inside = port.container.to_string();
        if wanted.as_ref().is_some_and(|wanted| *wanted != inside) {
            continue;
        }
        found = true;
        let outside = list::host_side(port);
        output::line(&if wanted.is_some() { outside } else { format!("{inside} -> {outside}") });
    }
    match wanted {
        Some(wanted) if !found => {
            Err(Error::not_found(format!("no public port '{wanted}' published for {name}")))
        }
        _ => Ok(0),
    }
}

/// Removes all containers that do not run.
pub(super) fn prune(engine: &Engine, args: &PruneArgs) -> Result<u8> {
    let filters = list::Filters::of_pruning(&args.filter)?;
    if !args.force && !output::confirm("This will remove all stopped containers. Continue?") {
        return Ok(0);
    }
    let (removed, bytes) = engine.prune_containers(&|container| filters.match_all(container))?;
    if !removed.is_empty() {
        output::line("Deleted Containers:");
        removed.iter().for_each(|container| output::line(container.id().as_str()));
        output::line("");
    }
    output::line(&format!("Total reclaimed space: {}", crate::quantity::ByteSize(bytes)));
    Ok(0)
}
