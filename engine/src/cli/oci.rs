//! `oci`: the runtime interface with runc's verbs, flags, output and exit codes, also by the names `rengine-oci` and
//! `runc`.

mod log;
mod verbs;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::error::{Error, Kind, Result};
use crate::oci::{self, Runtime};
use crate::paths::{DEFAULT_RUNTIME, RuntimeRoot};
use log::Log;

/// Containers by the OCI runtime interface: bundles in, processes out, as runc does
#[derive(Debug, Parser)]
#[command(name = "rengine oci", version, disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    /// Directory that the state of containers is kept in
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUNTIME)]
    root: PathBuf,
    /// File that messages are written to; standard error when none is given
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Form of the messages
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// cgroupsPath is `slice:prefix:name`; the control group lies where systemd would make it
    #[arg(long)]
    systemd_cgroup: bool,
    /// Tell more in the messages
    #[arg(long)]
    debug: bool,
    /// Whether missing permissions on control groups are ignored: they never are
    #[arg(long, value_enum, default_value = "auto")]
    rootless: Rootless,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rootless {
    Auto,
    True,
    False,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a container, whose program waits for the start
    Create(verbs::CreateArgs),
    /// Start the program of a container that was created
    Start(verbs::OneArgs),
    /// Create a container and start its program
    Run(verbs::RunArgs),
    /// Show the state of a container
    State(verbs::OneArgs),
    /// Send a signal to a container
    Kill(verbs::KillArgs),
    /// Remove a container that has stopped
    Delete(verbs::DeleteArgs),
    /// Run a further process in a container
    Exec(Box<verbs::ExecArgs>),
    /// Show the processes of a container
    Ps(verbs::PsArgs),
    /// List containers
    List(verbs::ListArgs),
    /// Show what a container uses, again and again
    Events(verbs::EventsArgs),
    /// Let everything in a container stand still
    Pause(verbs::OneArgs),
    /// Let everything in a container go on
    Resume(verbs::OneArgs),
    /// Change the limits of a container
    Update(Box<verbs::UpdateArgs>),
    /// Write a bundle's description to begin with
    Spec(verbs::SpecArgs),
    /// Show what this runtime can do
    Features,
}

/// Whether a command line, name first, is one of the runtime interface: by the name this program was called by, or by
/// its first argument.
pub(super) fn is_meant(arguments: &[OsString]) -> bool {
    called_by_name(arguments) || arguments.get(1).is_some_and(|verb| verb == "oci")
}

fn called_by_name(arguments: &[OsString]) -> bool {
    let name = arguments.first().and_then(|path| Path::new(path).file_name());
    name.is_some_and(|name| name == "rengine-oci" || name == "runc")
}

/// Runs the runtime interface with this command line, name first.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let own =
        if called_by_name(arguments) { &arguments[1..] } else { arguments.get(2..).unwrap_or_default() };
    let line = std::iter::once(OsString::from("rengine oci")).chain(own.iter().cloned());
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data and success; anything else is the caller's mistake.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let log = Log::open(cli.log.clone(), cli.log_format == LogFormat::Json, cli.debug);
    let is_exec = matches!(cli.verb, Verb::Exec(_));
    match run(cli, arguments, &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.failure(&if is_exec { Error::failed("exec failed", error) } else { error });
            ExitCode::from(if is_exec { 255 } else { 1 })
        }
    }
}

fn run(cli: Cli, arguments: &[OsString], log: &Log) -> Result<u8> {
    if cli.rootless == Rootless::True {
        return Err(Error::new(
            Kind::Unsupported,
            "--rootless=true is not supported: the runtime needs root",
        ));
    }
    if matches!(cli.verb, Verb::Create(_) | Verb::Run(_) | Verb::Exec(_)) {
        oci::go_behind_read_only_mount(arguments)?;
    }
    let runtime = Runtime { root: RuntimeRoot::at(&cli.root), systemd_cgroup: cli.systemd_cgroup };
    log.debug(&format!("the state is in {}", cli.root.display()));
    match cli.verb {
        Verb::Create(args) => verbs::create(&runtime, &args, log),
        Verb::Start(args) => verbs::start(&runtime, &args, log),
        Verb::Run(args) => verbs::run(&runtime, &args, log),
        Verb::State(args) => verbs::state(&runtime, &args),
        Verb::Kill(args) => verbs::kill(&runtime, &args),
        Verb::Delete(args) => verbs::delete(&runtime, &args, log),
        Verb::Exec(args) => verbs::exec(&runtime, &args, log),
        Verb::Ps(args) => verbs::ps(&runtime, &args),
        Verb::List(args) => verbs::list(&runtime, &args),
        Verb::Events(args) => verbs::events(&runtime, &args),
        Verb::Pause(args) => runtime.pause(&args.id).map(|()| 0),
        Verb::Resume(args) => runtime.resume(&args.id).map(|()| 0),
        Verb::Update(args) => verbs::update(&runtime, &args, log),
        Verb::Spec(args) => verbs::spec(&args),
        Verb::Features => {
            super::output::json(&oci::features());
            Ok(0)
        }
    }
}
