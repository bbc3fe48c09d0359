//! The command line of `rcompose`: docker compose's verbs, flags and exit codes.

mod alpha;
mod attached;
pub mod bake;
mod config;
mod convert;
mod events;
mod exec;
mod failure;
mod files;
mod flags;
mod follower;
mod images;
mod interrupts;
mod lifecycle;
mod list;
mod logs;
mod menu;
mod ps;
mod publish;
mod run;
mod session;
mod settings;
mod stats;
mod turn;
mod up;
mod update;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use engine::cli::lazy::{Lazy, as_docker_reads, help_as_flag};
use engine::error::{Error, Kind};

use self::failure::CliError;
use self::session::Session;
use crate::output::{self, Ansi, ProgressMode};

const EXAMPLES: &str = "\
Examples:
  rcompose up -d --wait          everything up, and back when it is healthy
  rcompose plan                  what up would do, and why
  rcompose logs -f web           the output of one service
  rcompose run --rm web sh       a shell in a container of its own
  rcompose down -v               everything gone, its data too

Environment, also in the project's .env:
  COMPOSE_FILE, COMPOSE_PATH_SEPARATOR   the files, and what stands between them (:)
  COMPOSE_PROJECT_NAME, COMPOSE_PROFILES name and profiles
  COMPOSE_REMOVE_ORPHANS, COMPOSE_IGNORE_ORPHANS
                                         remove containers of services that are gone, or say nothing of them
  COMPOSE_PARALLEL_LIMIT, COMPOSE_PROGRESS, COMPOSE_ANSI, COMPOSE_COMPATIBILITY, COMPOSE_MENU
                                         what the options of these names say
  COMPOSE_STATUS_STDOUT                  progress goes to standard output
  DOCKER_DEFAULT_PLATFORM                platform of services that name none
Environment alone:
  COMPOSE_ENV_FILES, COMPOSE_DISABLE_ENV_FILE
                                         files instead of .env (a,b), or none
  COMPOSE_EXPERIMENTAL_GIT_REMOTE, COMPOSE_EXPERIMENTAL_OCI_REMOTE
                                         0 forbids files at such addresses
  NO_COLOR                               no colours
Without effect: COMPOSE_BAKE and COMPOSE_EXPERIMENTAL_WATCH_TAR (all builds are one graph, and files travel as a tar,
anyway), COMPOSE_EXPERIMENTAL, COMPOSE_CONVERT_WINDOWS_PATHS.

`rcompose COMMAND --help` tells more of a command.";

/// Define and run multi-container applications
#[derive(Debug, Parser)]
#[command(name = "rcompose", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(max_term_width = 110, after_help = EXAMPLES, args_override_self = true, disable_version_flag = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    /// Show the version
    #[arg(short = 'v', visible_short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Globals {
    /// Compose file, git repository or oci:// address; may be given several times, - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Vec<String>,
    /// Name of the project
    #[arg(short, long, value_name = "NAME")]
    project_name: Option<String>,
    /// Profile to enable; may be given several times
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// File of variables instead of .env; may be given several times
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Directory that relative paths start from
    #[arg(long, value_name = "DIR", alias = "workdir")]
    project_directory: Option<String>,
    /// How many things are done at once; -1 leaves it to us
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    parallel: Option<i32>,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "MODE")]
    progress: Option<ProgressMode>,
    /// When control characters are written
    #[arg(long, value_enum, value_name = "WHEN")]
    ansi: Option<Ansi>,
    /// Show what would be done, and do nothing
    #[arg(long, global = true)]
    dry_run: bool,
    /// The name that `--ansi never` had
    #[arg(long, hide = true)]
    no_ansi: bool,
    /// Name containers as Compose v1 did
    #[arg(long)]
    compatibility: bool,
    /// Include networks and volumes that no service uses
    #[arg(long)]
    all_resources: bool,
    /// Directory that holds everything the engine keeps
    #[arg(long, env = "RENGINE_ROOT", value_name = "DIR")]
    root: Option<std::path::PathBuf>,
    /// Say what is being done, on standard error
    #[arg(short = 'D', long, alias = "verbose")]
    debug: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create and start containers
    Up(Lazy<up::UpArgs>),
    /// Stop and remove containers and networks
    Down(Lazy<lifecycle::DownArgs>),
    /// Create containers without starting them
    Create(Lazy<up::CreateArgs>),
    /// Start containers
    Start(Lazy<lifecycle::StartArgs>),
    /// Stop containers
    Stop(Lazy<lifecycle::StopArgs>),
    /// Restart containers
    Restart(Lazy<lifecycle::RestartArgs>),
    /// Send a signal to containers
    Kill(Lazy<lifecycle::KillArgs>),
    /// Pause containers
    Pause(Lazy<lifecycle::ServicesArgs>),
    /// Unpause containers
    Unpause(Lazy<lifecycle::ServicesArgs>),
    /// Remove containers that do not run
    Rm(Lazy<lifecycle::RmArgs>),
    /// Change how many containers services have
    Scale(Lazy<up::ScaleArgs>),
    /// Wait until all containers of some services have ended; the code is that of the last one
    Wait(Lazy<lifecycle::WaitArgs>),
    /// Bring files that change on the host to the containers
    Watch(Lazy<watch::WatchArgs>),
    /// Show what up would do
    Plan(Lazy<up::PlanArgs>),
    /// List containers
    Ps(Lazy<ps::PsArgs>),
    /// List projects
    Ls(Lazy<list::LsArgs>),
    /// List the images of containers
    Images(Lazy<list::ImagesArgs>),
    /// List the volumes of the project
    Volumes(Lazy<list::VolumesArgs>),
    /// Show the processes of containers
    Top(Lazy<list::TopArgs>),
    /// Show what containers use, again each second
    Stats(Lazy<stats::StatsArgs>),
    /// Copy files between a service's containers and the host
    Cp(Lazy<files::CpArgs>),
    /// Write the root file system of a service's container as a tar
    Export(Lazy<files::ServiceExportArgs>),
    /// Make an image of a service's container
    Commit(Lazy<files::ServiceCommitArgs>),
    /// Tell what happens to the containers
    Events(Lazy<events::EventsArgs>),
    /// Show where a port is published
    Port(Lazy<list::PortArgs>),
    /// Show the output of containers
    Logs(Lazy<logs::LogsArgs>),
    /// Run a command in a running container
    Exec(Lazy<exec::ExecArgs>),
    /// Connect to a running container
    Attach(Lazy<exec::AttachArgs>),
    /// Run a command in a container of its own
    Run(Lazy<run::RunArgs>),
    /// Build images
    Build(Lazy<images::BuildArgs>),
    /// Fetch images
    Pull(Lazy<images::PullArgs>),
    /// Send images to their registries
    Push(Lazy<images::PushArgs>),
    /// Send the project's files to a registry; -f oci://REPOSITORY reads them
    Publish(publish::PublishArgs),
    /// Show the project as it is understood
    Config(Lazy<config::ConfigArgs>),
    /// Write the project as Kubernetes manifests or as a stack of a swarm; without --to the same as config
    Convert(Lazy<convert::ConvertArgs>),
    /// What docker compose tries out: a graph of the services
    Alpha(Lazy<alpha::AlphaArgs>),
    /// Not supported: docker compose runs images for it
    #[command(hide = true)]
    Bridge {
        /// What was to be done.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _rest: Vec<String>,
    },
    /// Show the version
    Version(Lazy<list::VersionArgs>),
    /// Write a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs `rcompose` with this command line, name first.
pub fn main(mut arguments: Vec<OsString>) -> ExitCode {
    // What comes by the environment is no argument, and without one there is help.
    if arguments.len() < 2 {
        arguments.push("--help".into());
    }
    let cli = match as_docker_reads(Cli::command())
        .try_get_matches_from(help_as_flag(arguments))
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data and success; anything else is the user's mistake.
            let _ = error.print();
            let is_mistake = error.use_stderr()
                && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            return if is_mistake { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    trace(cli.globals.debug);
    let (mut globals, command) = (cli.globals, cli.command);
    if let Command::Build(args) = &command {
        globals.progress = args.progress.or(globals.progress);
    }
    let session = Session::new(globals);
    let as_json = session.speaks_json() || matches!(&command, Command::Config(args) if args.format == "json");
    match dispatch(&session, command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error.print(as_json);
            ExitCode::from(error.code())
        }
    }
}

fn trace(debug: bool) {
    let filter = match (std::env::var("RENGINE_LOG"), debug) {
        (Ok(filter), _) => filter,
        (Err(_), true) => "debug".to_owned(),
        (Err(_), false) => return,
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn dispatch(session: &Session, command: Command) -> Result<u8, CliError> {
    match command {
        Command::Up(args) => up::up(session, &args),
        Command::Create(args) => up::create(session, *args.0),
        Command::Scale(args) => up::scale(session, *args.0),
        Command::Watch(args) => watch::watch(session, &args),
        Command::Plan(args) => up::plan(session, &args),
        Command::Down(args) => lifecycle::down(session, *args.0),
        Command::Start(args) => lifecycle::start(session, &args),
        Command::Stop(args) => lifecycle::stop(session, &args),
        Command::Restart(args) => lifecycle::restart(session, &args),
        Command::Kill(args) => lifecycle::kill(session, &args),
        Command::Pause(args) => lifecycle::pause(session, &args),
        Command::Unpause(args) => lifecycle::unpause(session, &args),
        Command::Rm(args) => lifecycle::rm(session, &args),
        Command::Wait(args) => lifecycle::wait(session, &args),
        Command::Ps(args) => ps::ps(session, &args),
        Command::Ls(args) => list::ls(session, &args),
        Command::Images(args) => list::images(session, &args),
        Command::Volumes(args) => list::volumes(session, &args),
        Command::Top(args) => list::top(session, &args),
        Command::Stats(args) => stats::stats(session, &args),
        Command::Cp(args) => files::cp(session, &args),
        Command::Export(args) => files::export(session, *args.0),
        Command::Commit(args) => files::commit(session, *args.0),
        Command::Events(args) => events::events(session, &args),
        Command::Port(args) => list::port(session, &args),
        Command::Logs(args) => logs::logs(session, &args),
        Command::Exec(args) => exec::exec(session, *args.0),
        Command::Attach(args) => exec::attach(session, &args),
        Command::Run(args) => run::run(session, &args),
        Command::Build(args) => images::build(session, *args.0),
        Command::Pull(args) => images::pull(session, &args),
        Command::Push(args) => images::push(session, &args),
        Command::Publish(args) => publish::publish(session, &args),
        Command::Config(args) => config::config(session, &args),
        Command::Convert(args) => convert::convert_project(session, &args),
        Command::Alpha(args) => alpha::alpha(session, &args),
        Command::Bridge { .. } => Err(CliError::Engine(
            Error::new(Kind::Unsupported, "bridge is not supported: it runs images that transform projects")
                .with_hint("`rcompose convert --to kubernetes` writes the manifests itself"),
        )),
        Command::Version(args) => list::version(&args),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rcompose", &mut script);
            output::raw(&script);
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }
}
