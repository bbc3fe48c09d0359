//! The command line of `rengine`: docker's verbs, flags and exit codes.

mod build;
mod builder;
mod cache;
pub mod changes;
mod client;
mod container;
pub mod copy;
mod disk;
mod events;
mod filter;
mod form;
mod image;
mod inspect;
pub mod invocation;
pub mod lazy;
pub mod list;
pub mod mount;
mod network;
mod oci;
#[cfg(test)]
mod options;
pub mod output;
pub mod publish;
mod refusal;
pub mod run;
mod sink;
pub mod stats;
mod swarm;
mod system;
pub mod template;
mod top;
mod update;
pub mod volume;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::client::ClientArgs;
use self::lazy::{Below, Lazy, help_as_flag};
use crate::engine::{Anticipated, Engine};
use crate::error::{Error, Kind, Result};

/// Where the help lists what every verb takes.
const EVERYWHERE: &str = "Options of every verb";

const EXAMPLES: &str = "\
Examples:
  rengine run --rm -it debian bash
  rengine run -d --name web -p 8080:80 nginx
  rengine logs -f web
  rengine build -t shop/web .

`rengine VERB --help` tells more of a verb.";

/// A container engine without a daemon
#[derive(Debug, Parser)]
#[command(name = "rengine", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(max_term_width = 110, after_help = EXAMPLES, args_override_self = true, disable_version_flag = true)]
struct Cli {
    /// Directory that holds everything the engine keeps; /var/lib/rengine when none is given
    #[arg(long, global = true, env = "RENGINE_ROOT", value_name = "DIR", help_heading = EVERYWHERE)]
    root: Option<PathBuf>,
    /// Say what is being done, on standard error
    #[arg(short = 'D', long, global = true, help_heading = EVERYWHERE)]
    debug: bool,
    /// Show the version
    #[arg(short = 'v', visible_short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Container(container::Verb),
    #[command(flatten)]
    Image(image::Verb),
    /// List containers
    Ps(Lazy<list::PsArgs>),
    /// List images
    Images(image::ListArgs),
    /// Remove images
    Rmi(image::RemoveArgs),
    /// Show everything known of containers, images, networks or volumes
    Inspect(inspect::AnyArgs),
    /// Containers
    #[command(name = "container")]
    ContainerGroup(Lazy<Below<ContainerCommand>>),
    /// Images
    #[command(name = "image")]
    ImageGroup(Lazy<Below<ImageCommand>>),
    /// Networks
    Network(Lazy<Below<network::Verb>>),
    /// Manifests at registries
    Manifest(Lazy<Below<image::ManifestVerb>>),
    /// Volumes
    Volume(Lazy<Below<volume::Verb>>),
    /// The builder, as docker's plugin has it
    #[command(
        visible_alias = "buildx",
        after_help = "`rengine buildx bake` builds what docker-bake.hcl, docker-bake.json or a compose file says."
    )]
    Builder(Lazy<Below<BuilderCommand>>),
    /// The engine itself
    System(Lazy<Below<system::Verb>>),
    /// Show the engine's version
    Version(system::VersionArgs),
    /// Show facts of the engine and the machine
    Info(system::InfoArgs),
    /// Tell what happens, as it happens
    Events(Lazy<events::EventsArgs>),
    /// Containers by the OCI runtime interface, as runc does
    #[command(disable_help_flag = true)]
    Oci {
        /// Verb, flags and arguments of runc
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Write a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    #[command(flatten)]
    Verb(container::Verb),
    /// List containers
    #[command(visible_aliases = ["ps", "list"])]
    Ls(list::PsArgs),
    /// Show everything known of containers
    Inspect(inspect::ContainersArgs),
    /// Remove all containers that do not run
    Prune(container::PruneArgs),
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    #[command(flatten)]
    Verb(image::Verb),
    /// List images
    #[command(visible_alias = "list")]
    Ls(image::ListArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(image::RemoveArgs),
    /// Show everything known of images
    Inspect(inspect::ImagesArgs),
    /// Remove images that nothing uses
    Prune(image::PruneArgs),
    /// Show why two images are not the same
    Diff(image::DifferenceArgs),
}

#[derive(Debug, Subcommand)]
enum BuilderCommand {
    /// Build an image from a Dockerfile
    Build(Lazy<build::BuildArgs>),
    /// Remove what the builder keeps
    Prune(cache::PruneArgs),
    /// Show what the builder keeps
    Du(cache::UsageArgs),
    /// Images at registries, shown and put together there
    #[command(subcommand)]
    Imagetools(image::ToolsVerb),
    /// Show the builder
    Inspect(builder::NamedArgs),
    /// List the builder
    Ls(builder::ListArgs),
    /// Accepted for docker's sake: there is one builder, and it is always there
    Create(builder::CreateArgs),
    /// Accepted for docker's sake
    #[command(hide = true)]
    Use(builder::NamedArgs),
    /// Accepted for docker's sake
    #[command(hide = true)]
    Stop(builder::NamedArgs),
    /// Accepted for docker's sake
    #[command(hide = true)]
    Rm(builder::NamedArgs),
    /// Show the engine's version
    Version(system::VersionArgs),
}

/// Docker's exit code for a failure of the engine rather than of the container.
const ENGINE_FAILED: u8 = 125;

/// Runs `rengine` with this command line, name first.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    if oci::is_meant(&arguments) {
        return oci::main(&arguments);
    }
    let anticipated = run::anticipate(&arguments);
    // It serves once, and to take it apart afterwards takes longer than many a verb.
    let command: &mut clap::Command = Box::leak(Box::new(Cli::command()));
    let mut matches = match command.try_get_matches_from_mut(help_as_flag(arguments)) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let cli = match Cli::from_arg_matches_mut(&mut matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    trace(if cli.debug { Some("debug") } else { cli.client.log_filter() });
    let purpose = cli.command.purpose();
    let run = |engine: Engine| {
        heal(&engine, &cli.command);
        dispatch(&engine, cli.command, anticipated)
    };
    match cli.client.apply().and_then(|()| Engine::open(cli.root.as_deref())).and_then(run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::failure(&error);
            ExitCode::from(failure_code(&error, purpose))
        }
    }
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::Container(verb) => verb.purpose(),
            Self::ContainerGroup(group) => match &group.verb {
                ContainerCommand::Verb(verb) => verb.purpose(),
                _ => Purpose::Manage,
            },
            _ => Purpose::Manage,
        }
    }
}

/// Puts the networks right before a verb that shows or uses them: a firewall that was reloaded has lost our table.
fn heal(engine: &Engine, command: &Command) {
    let uses_networks = matches!(
        command,
        Command::Container(_)
            | Command::ContainerGroup(_)
            | Command::Ps(_)
            | Command::Inspect(_)
            | Command::Network(_)
    );
    if uses_networks {
        match engine.heal_networks() {
            Ok(healed) => healed.iter().for_each(|text| output::note(&format!("rengine: {text}"))),
            // The verb itself says what it cannot do without them.
            Err(error) => tracing::debug!("heal the networks: {}", crate::error::chain(&error)),
        }
    }
}

/// What a verb is for, as far as its exit codes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Runs a program in a new container: whatever else fails has a code of its own.
    Run,
    /// Runs a program in a container that is there.
    Exec,
    /// Runs nothing of the user's in the foreground.
    Manage,
}

/// The exit code of a failure, as docker has it for a verb of this purpose.
fn failure_code(error: &Error, purpose: Purpose) -> u8 {
    match (error.kind(), purpose) {
        (_, Purpose::Manage) => 1,
        (Kind::CommandNotFound, _) => 127,
        (Kind::NotExecutable, _) => 126,
        (_, Purpose::Run) => ENGINE_FAILED,
        (_, Purpose::Exec) => 1,
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    if let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(refused) = refusal::foreign(verb)
    {
        output::failure(&refused);
        return ExitCode::FAILURE;
    }
    // Help and version are data and success; anything else is the user's mistake.
    match miscounted(error) {
        Some(text) => output::note(&text),
        None => drop(error.print()),
    }
    ExitCode::from(usage_code(error))
}

/// What docker says of a verb with too few or too many arguments; `None` for other mistakes.
fn miscounted(error: &clap::Error) -> Option<String> {
    match (error.kind(), error.get(ContextKind::InvalidArg)?) {
        (ErrorKind::MissingRequiredArgument, ContextValue::Strings(missing))
            if missing.iter().all(|name| name.starts_with('<')) => {}
        (ErrorKind::UnknownArgument, ContextValue::String(word)) if !word.starts_with('-') => {}
        _ => return None,
    }
    let ContextValue::StyledStr(usage) = error.get(ContextKind::Usage)? else { return None };
    let usage = usage.to_string();
    let is_verb = |word: &&str| !word.starts_with(['-', '<', '[', '{']);
    let words: Vec<&str> =
        usage.trim_start_matches("Usage:").split_whitespace().take_while(is_verb).collect();
    // The arguments of verbs are defined when they are needed, which is now.
    let mut all = Cli::command();
    all.build();
    let verb = words.get(1..)?.iter().try_fold(&all, |verb, word| verb.find_subcommand(word))?;
    let needed = verb.get_positionals().filter(|argument| argument.is_required_set()).count();
    let takes_more = verb.get_positionals().any(|argument| {
        !argument.is_required_set() || argument.get_num_args().is_some_and(|range| range.max_values() > 1)
    });
    let plural = if needed == 1 { "" } else { "s" };
    let count = match (needed, takes_more) {
        (0, false) => "accepts no arguments".to_owned(),
        (_, true) if error.kind() == ErrorKind::UnknownArgument => return None,
        (_, true) => format!("requires at least {needed} argument{plural}"),
        (_, false) => format!("requires {needed} argument{plural}"),
    };
    let name = words.join(" ");
    let usage = verb.clone().render_usage();
    Some(format!("rengine: '{name}' {count}\n\n{usage}\n\nRun '{name} --help' for more information"))
}

/// Docker's exit code for a command line that cannot be understood: a wrong flag is a failure of the engine, a
/// wrong verb and a missing or superfluous argument are not.
fn usage_code(error: &clap::Error) -> u8 {
    let about = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => "",
    };
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 0,
        ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand | ErrorKind::MissingRequiredArgument => 1,
        _ if about.starts_with('-') => ENGINE_FAILED,
        _ => 1,
    }
}

fn trace(asked: Option<&str>) {
    let Some(filter) = std::env::var("RENGINE_LOG").ok().or(asked.map(str::to_owned)) else { return };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn dispatch(engine: &Engine, command: Command, anticipated: Option<Anticipated>) -> Result<u8> {
    match command {
        Command::Container(verb) => container::run(engine, verb, anticipated),
        Command::ContainerGroup(group) => match group.0.verb {
            ContainerCommand::Verb(verb) => container::run(engine, verb, anticipated),
            ContainerCommand::Ls(args) => list::ps(engine, &args),
            ContainerCommand::Prune(args) => container::prune(engine, &args),
            ContainerCommand::Inspect(args) => inspect::containers(engine, &args),
        },
        Command::Ps(args) => list::ps(engine, &args),
        Command::Image(verb) => image::run(engine, verb),
        Command::ImageGroup(group) => match group.0.verb {
            ImageCommand::Verb(verb) => image::run(engine, verb),
            ImageCommand::Ls(args) => image::list(engine, &args),
            ImageCommand::Rm(args) => image::remove(engine, &args),
            ImageCommand::Prune(args) => image::prune(engine, &args),
            ImageCommand::Inspect(args) => inspect::images(engine, &args),
            ImageCommand::Diff(args) => image::difference(engine, &args),
        },
        Command::Images(args) => image::list(engine, &args),
        Command::Rmi(args) => image::remove(engine, &args),
        Command::Inspect(args) => inspect::any(engine, &args),
        Command::Network(group) => network::run(engine, group.0.verb),
        Command::Manifest(group) => image::manifest(engine, &group.verb),
        Command::Volume(group) => volume::run(engine, group.0.verb),
        Command::Builder(group) => match group.0.verb {
            BuilderCommand::Build(args) => build::run(engine, &args),
            BuilderCommand::Prune(args) => cache::prune(engine, &args),
            BuilderCommand::Du(args) => cache::usage(engine, &args),
            BuilderCommand::Imagetools(verb) => image::tools(engine, &verb),
            BuilderCommand::Inspect(args) => Ok(builder::inspect(&args)),
            BuilderCommand::Ls(args) => builder::list(&args),
            BuilderCommand::Create(args) => builder::create(&args),
            BuilderCommand::Use(_) | BuilderCommand::Stop(_) => Ok(0),
            BuilderCommand::Rm(args) => Ok(builder::remove(&args)),
            BuilderCommand::Version(args) => system::version(&args),
        },
        Command::System(group) => system::run(engine, &group.verb),
        Command::Version(args) => system::version(&args),
        Command::Info(args) => system::info(engine, &args),
        Command::Events(args) => events::events(engine, &args),
        Command::Oci { .. } => Err(Error::invalid("oci is the first word of its command line")
            .with_hint("its state has a directory of its own: rengine oci --root DIR …")),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rengine", &mut script);
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

    #[test]
    fn a_wrong_command_line_has_dockers_exit_codes() {
        let code = |line: &str| {
            let error = Cli::command().try_get_matches_from(line.split(' ')).unwrap_err();
            usage_code(&error)
        };
        assert_eq!(code("rengine run --help"), 0);
        assert_eq!(code("rengine"), 0);
        assert_eq!(code("rengine rnu"), 1);
        assert_eq!(code("rengine pull"), 1);
        assert_eq!(code("rengine pull NOT-LOWER-CASE"), 1);
        assert_eq!(code("rengine ps superfluous"), 1);
        assert_eq!(code("rengine ps --nope"), 125);
        assert_eq!(code("rengine run --memory 1x debian"), 125);
        assert_eq!(code("rengine logs --since"), 125);
    }

    #[test]
    fn arguments_are_counted_as_docker_counts_them() {
        let said = |line: &str| {
            let error = Cli::command().try_get_matches_from(line.split(' ')).unwrap_err();
            miscounted(&error).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(said("rengine build -t x"), "rengine: 'rengine build' requires 1 argument");
        assert_eq!(said("rengine builder build"), "rengine: 'rengine builder build' requires 1 argument");
        assert_eq!(said("rengine tag a"), "rengine: 'rengine tag' requires 2 arguments");
        assert_eq!(said("rengine tag a b c"), "rengine: 'rengine tag' requires 2 arguments");
        assert_eq!(said("rengine rm"), "rengine: 'rengine rm' requires at least 1 argument");
        assert_eq!(said("rengine ps superfluous"), "rengine: 'rengine ps' accepts no arguments");
        assert_eq!(said("rengine ps --nope"), "");
    }

    #[test]
    fn a_flag_takes_the_next_word_whatever_it_begins_with_and_the_last_one_counts() {
        let parse = |line: &str| Cli::command().try_get_matches_from(line.split(' ')).map(drop);
        parse("rengine run --rm --rm --env -x=1 --stop-timeout -1 --name aa --name bb box -c").unwrap();
        parse("rengine logs --tail -1 web").unwrap();
        parse("rengine ps --last -1").unwrap();
        assert!(parse("rengine logs --tail").is_err());
    }

    #[test]
    fn a_missing_program_has_its_own_exit_codes_only_where_one_runs() {
        let error = Error::new(Kind::CommandNotFound, "x");
        assert_eq!(failure_code(&error, Purpose::Run), 127);
        assert_eq!(failure_code(&error, Purpose::Exec), 127);
        assert_eq!(failure_code(&error, Purpose::Manage), 1);
        assert_eq!(failure_code(&Error::invalid("x"), Purpose::Run), 125);
        assert_eq!(failure_code(&Error::invalid("x"), Purpose::Exec), 1);
    }
}
