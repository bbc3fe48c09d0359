//! The command line of `rdeploy`.

mod action;
mod alias;
mod connect;
mod export;
mod image;
mod lock;
mod output;
mod rollout;
mod show;
mod turn;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use engine::Error;
use engine::cli::lazy::{Lazy, help_as_flag};
use engine::image::Login;

use crate::message::{Turn, confused};
use crate::secrets;

/// From a commit to running on the servers
///
/// Takes the compose file as it is: builds its images here, sends each host what it lacks, has the new containers ready
/// beside the old ones, and lets them take over on all hosts at once, so that nobody who connects is refused.
#[derive(Debug, Parser)]
#[command(
    name = "rdeploy",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    args_override_self = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  rdeploy up --host deploy@web1.example.org        build, send, take over
  rdeploy plan --host deploy@web1.example.org      what that would do
  rdeploy rollback --host deploy@web1.example.org  the release before
  rdeploy logs --follow web --host …               what a service writes
  rdeploy exec --host … web sh                     a shell in it
Ends with 0 when it is done, 1 when something failed (and `drift` found something), 2 when the command line is wrong;
exec and run end as the program does.
Hosts and more can be in rdeploy.yaml beside the compose file, or under x-rdeploy in it.";

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
struct Globals {
    /// Compose file; may be given several times
    #[arg(short, long, global = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Where relative paths start
    #[arg(long, global = true, value_name = "DIRECTORY")]
    project_directory: Option<PathBuf>,
    /// The project's name
    #[arg(short, long, global = true, value_name = "NAME")]
    project_name: Option<String>,
    /// A file of variables instead of `.env`; may be given several times
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A profile that is active; may be given several times
    #[arg(long, global = true, value_name = "PROFILE")]
    profile: Vec<String>,
    /// Where the project goes, when it goes to several places: compose.NAME.yaml is merged over the compose file,
    /// .env.NAME over .env, rdeploy.NAME.yaml taken for the settings, and the project called PROJECT-NAME
    #[arg(short, long, global = true, value_name = "NAME", env = "RDEPLOY_DESTINATION")]
    destination: Option<String>,
    /// The settings: hosts, roles, ssh, executables, builder, transfer, drain, canary, keep, strategy, hooks, aliases [default:
    /// rdeploy.yaml beside the compose file, or `x-rdeploy` in it]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A host, `[user@]host[:port]`, or `local[:ROOT]` for this machine; may be given several times
    #[arg(
        short = 'H',
        long,
        global = true,
        value_name = "HOST",
        env = "RDEPLOY_HOST",
        value_delimiter = ','
    )]
    host: Vec<String>,
    /// Where the engine on the hosts keeps itself
    #[arg(long, global = true, value_name = "DIRECTORY", env = "RDEPLOY_REMOTE_ROOT", value_parser = absolute)]
    remote_root: Option<String>,
    /// Where the engine of this machine keeps itself
    #[arg(long, global = true, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// Print JSON, an object a line, instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    ssh: connect::SshFlags,
    /// Who asks the registry that images go by way of; the password comes by RDEPLOY_REGISTRY_PASSWORD
    #[arg(long, global = true, value_name = "NAME", env = "RDEPLOY_REGISTRY_USERNAME")]
    registry_username: Option<String>,
    /// The registry that this name and password are for
    #[arg(long, global = true, value_name = "HOST", env = "RDEPLOY_REGISTRY", default_value = "docker.io")]
    registry: String,
    /// What a workflow says of images.
    #[arg(skip)]
    image: image::ImageInputs,
    /// Of which services it says that.
    #[arg(skip)]
    image_services: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make hosts ready: the three names on their path, and units that start containers after a reboot
    ///
    /// `up` needs none of this: it brings what a host lacks by itself. What is done is said, and done again says the same.
    Setup,
    /// Show what `up` would do, and change no host
    ///
    /// Images that this machine builds are built for it; hooks do not run.
    Plan(Lazy<rollout::PlanArgs>),
    /// Build, send and let the new version take over
    ///
    /// Each service that changed gets its new container beside the old one. When that is healthy, new connections go to it,
    /// on all hosts at once; the old one stops when its connections have ended or --drain is over. When anything fails
    /// before, every host stays as it was; when a container fails while others take over, all go back.
    Up(Lazy<rollout::UpArgs>),
    /// Let a release that is kept on the hosts serve again
    ///
    /// Nothing is built or sent. `rdeploy history` lists the releases; `keep:` in the settings says how many stay.
    Rollback(Lazy<rollout::RollbackArgs>),
    /// Put right what deployments that were cut off left on the hosts
    ///
    /// Hosts do so by themselves within seconds; this waits for it, and shows what became of it.
    Resume,
    /// Show what runs
    Status,
    /// Show what is not as the release says; ends with 1 when something is
    Drift,
    /// Show the releases and what became of them
    History,
    /// Show who did what to the project, when and from where
    ///
    /// Deployments and the ways back from them, stop, start, restart, exec, run, lock and prune, as each host has put them
    /// down before they began. What came of deployments is in `history`; looking leaves no trace.
    Audit(Lazy<show::AuditArgs>),
    /// Show what services write
    Logs(Lazy<show::LogsArgs>),
    /// Run a program in a container of a service, on the first host that has it, or on all of them
    Exec(Lazy<show::ExecArgs>),
    /// Run a program in a new container of a service, on the first host that has it
    Run(Lazy<show::RunArgs>),
    /// Stop containers of services where they run; the next `start` or `up` starts them again
    Stop(Lazy<turn::TurnArgs>),
    /// Start containers of services that do not run, and wait until they are ready
    Start(Lazy<turn::TurnArgs>),
    /// Stop and start containers of services as they are, and wait until they are ready
    ///
    /// Who connects meanwhile is refused. A change of the project or its settings comes with `up`, with nobody refused.
    Restart(Lazy<turn::TurnArgs>),
    /// Deploy again whenever a file of the project changes, until interrupted
    Watch(Lazy<rollout::UpArgs>),
    /// Take the project away from the hosts: containers, networks, releases and their images
    ///
    /// Volumes stay unless --volumes is given. When nothing of anybody is left in the engine of a host, that goes, too, with
    /// its program, links, units and rules of the firewall.
    Uninstall(Lazy<rollout::UninstallArgs>),
    /// Keep everybody from changing the project for a while, or show who does
    Lock(Lazy<lock::LockArgs>),
    /// Remove what only releases before the one that serves need
    ///
    /// Their images and files, and earlier versions of this program that nobody runs. There is nothing to roll back to
    /// then.
    Prune,
    /// Write the project for another orchestrator: as Kubernetes manifests, or as a stack of a swarm
    Export(Lazy<export::ExportArgs>),
    /// Deploy as the GitHub Action's inputs say; what `action/action.yml` calls
    #[command(hide = true)]
    Action,
    /// Answer a client on standard input and output; what this program does on hosts
    #[command(hide = true)]
    Agent(AgentArgs),
    /// Show the version
    Version,
    /// What `aliases:` of the settings has a name for.
    #[command(external_subcommand)]
    Alias(Vec<OsString>),
}

/// A path that means the same wherever somebody stands.
fn absolute(path: &str) -> Result<String, String> {
    if path.starts_with('/') { Ok(path.to_owned()) } else { Err("it has to begin with /".to_owned()) }
}

/// The flags of `agent`.
#[derive(Debug, Args)]
struct AgentArgs {
    /// Say first what digest this executable has
    #[arg(long)]
    digest: bool,
    #[command(subcommand)]
    task: Option<AgentTask>,
}

#[derive(Debug, Subcommand)]
enum AgentTask {
    /// Wait for the end of an agent and put right what it left
    Guard {
        /// The project
        project: String,
    },
    /// Put right what deployments that were cut off left
    Recover,
    /// Do what a command of `rcompose` does, for who has called `rdeploy`
    Compose {
        /// The command with its options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

/// Runs `rdeploy` with this command line, name first.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let cli = match parsed(help_as_flag(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is data and success; anything else is the user's mistake.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let json = cli.globals.json;
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::failure(&error, json);
            ExitCode::FAILURE
        }
    }
}

/// The command line, with what a name of the project's own stands for in its place. What that begins with is a command.
fn parsed(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(&arguments)?;
    let Command::Alias(behind) = &cli.command else { return Ok(cli) };
    let cli = Cli::try_parse_from(alias::expanded(&cli.globals, arguments, behind)?)?;
    match &cli.command {
        Command::Alias(behind) => {
            let name = behind.first().map(|name| name.to_string_lossy()).unwrap_or_default();
            Err(alias::unknown(&name, &BTreeMap::new()))
        }
        _ => Ok(cli),
    }
}

/// Says why nothing could be begun.
pub fn fail(error: &engine::Error) -> ExitCode {
    output::failure(error, false);
    ExitCode::FAILURE
}

/// Hands the login of a registry to the engine, in memory.
fn give_login(globals: &Globals) -> engine::Result<()> {
    let registry = if globals.registry.is_empty() { "docker.io" } else { &globals.registry };
    let username = globals.registry_username.clone().filter(|name| !name.is_empty());
    match (username, secrets::get(secrets::REGISTRY_PASSWORD)) {
        (Some(username), Some(password)) => {
            let password = password.expose().to_owned();
            engine::image::give(vec![Login { registry: registry.to_owned(), username, password }]);
            Ok(())
        }
        (None, Some(_)) => Err(Error::invalid(format!("the password for {registry} is there, and no name"))
            .with_hint("give it by --registry-username, or registry-username of the action")),
        (Some(name), None) => Err(Error::invalid(format!("{name:?} has no password for {registry}"))
            .with_hint(
                "give it by the variable RDEPLOY_REGISTRY_PASSWORD, or registry-password of the action",
            )),
        (None, None) => Ok(()),
    }
}

fn run(cli: Cli) -> engine::Result<ExitCode> {
    let globals = &cli.globals;
    // The action tells of what is wrong with it in its own way, and an agent asks in its client's name.
    if !matches!(cli.command, Command::Action | Command::Agent(_) | Command::Version) {
        give_login(globals)?;
    }
    match cli.command {
        Command::Setup => rollout::setup(globals),
        Command::Plan(args) => rollout::plan(globals, &args),
        Command::Up(args) => rollout::up(globals, &args),
        Command::Rollback(args) => rollout::rollback(globals, &args),
        Command::Resume => rollout::resume(globals),
        Command::Status => show::status(globals),
        Command::Drift => show::drift(globals),
        Command::History => show::history(globals),
        Command::Audit(args) => show::audit(globals, &args),
        Command::Logs(args) => show::logs(globals, &args),
        Command::Exec(args) => show::exec(globals, &args),
        Command::Run(args) => show::run(globals, &args),
        Command::Stop(args) => turn::turn(globals, &args, Turn::Stop),
        Command::Start(args) => turn::turn(globals, &args, Turn::Start),
        Command::Restart(args) => turn::turn(globals, &args, Turn::Restart),
        Command::Watch(args) => rollout::watch(globals, &args),
        Command::Uninstall(args) => rollout::uninstall(globals, &args),
        Command::Lock(args) => lock::lock(globals, *args.0),
        Command::Prune => rollout::prune(globals),
        Command::Export(args) => export::export(globals, &args),
        Command::Action => action::action(globals),
        Command::Agent(args) => agent(globals.root.as_deref(), args),
        // It has become another command before.
        Command::Alias(_) => Err(confused()),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            if globals.json {
                output::json(&serde_json::json!({ "version": version }));
            } else {
                output::line(&format!("rdeploy version {version}"));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What this program does on hosts.
fn agent(root: Option<&Path>, args: AgentArgs) -> engine::Result<ExitCode> {
    match args.task {
        None => crate::agent::serve(root, args.digest),
        Some(AgentTask::Guard { project }) => {
            crate::agent::guard::stand(&engine::Engine::open(root)?, &project)
        }
        Some(AgentTask::Recover) => {
            let recovered = crate::agent::guard::recover_all(&engine::Engine::open(root)?)?;
            recovered.iter().for_each(|name| output::line(name));
            Ok(ExitCode::SUCCESS)
        }
        Some(AgentTask::Compose { mut words }) => {
            compose::output::speak_as("rdeploy");
            words.insert(0, "rdeploy".into());
            Ok(compose::cli::main(words))
        }
    }
}
