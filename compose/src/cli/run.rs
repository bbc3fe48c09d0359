//! `run`: a command in a container of its own.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use engine::cli::invocation::{Invocation, OfService};
use engine::cli::mount::parse_volume;
use engine::cli::publish::parse_publish;
use engine::container::client::AttachOptions;
use engine::container::spec::{
    ContainerSpec, MountSource, MountSpec, NetworkMode, PortBinding, RestartPolicy,
};
use engine::engine::RemoveOptions;
use engine::error::{self, Result as EngineResult};
use engine::id::ContainerId;

use super::exec::code;
use super::failure::CliError;
use super::flags;
use super::session::{Opened, Session, Wanted};
use super::up::prepare;
use crate::names;
use crate::output;
use crate::plan::images::Building;
use crate::plan::up::{Orphans, UpOptions};
use crate::runtime::{Flags, OneOff};

/// The flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Set a variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Set the variables in this file
    #[arg(long, value_name = "FILE")]
    env_from_file: Vec<PathBuf>,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Another entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Run as this user
    #[arg(short, long)]
    user: Option<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Mount a volume
    #[arg(short, long, value_name = "SOURCE:TARGET")]
    volume: Vec<String>,
    /// Publish a port
    #[arg(short, long, value_name = "HOST:CONTAINER")]
    publish: Vec<String>,
    /// Publish the service's own ports
    #[arg(short = 'P', long, conflicts_with = "publish")]
    service_ports: bool,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Add a capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Do not start the services it depends on
    #[arg(long)]
    no_deps: bool,
    /// Answer to the service's names on its networks
    #[arg(long)]
    use_aliases: bool,
    /// Give it no terminal
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    no_tty: bool,
    /// Connect standard input; --interactive=false leaves it out
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    interactive: bool,
    /// Accepted for docker's sake: there is a terminal where there can be one, unless -T says no
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Build the image first
    #[arg(long)]
    build: bool,
    /// When images are pulled: always, missing or never
    #[arg(long, value_name = "POLICY")]
    pull: Option<String>,
    /// Pull without showing progress
    #[arg(long)]
    quiet_pull: bool,
    /// Build without showing the steps
    #[arg(long)]
    quiet_build: bool,
    /// Show nothing but the command's own output
    #[arg(short, long)]
    quiet: bool,
    /// Remove containers of services that are in no file
    #[arg(long)]
    remove_orphans: bool,
    #[command(flatten)]
    invocation: Invocation<OfService>,
}

/// What the command line says of the container and may be wrong: it is understood before anything is done.
struct Overrides {
    entrypoint: Option<Vec<String>>,
    labels: BTreeMap<String, String>,
    ports: Vec<PortBinding>,
    mounts: Vec<MountSpec>,
}

// === impl Overrides ===

impl Overrides {
    fn of(args: &RunArgs) -> Result<Self, CliError> {
        let entrypoint = args.entrypoint.as_deref().map(|text| flags::command_line("--entrypoint", text));
        let directory = std::env::current_dir().unwrap_or_default();
        let mut ports = Vec::new();
        for port in &args.publish {
            ports.extend(parse_publish(port)?);
        }
        let mounts = args.volume.iter().map(|text| parse_volume(text, &directory));
        Ok(Self {
            entrypoint: entrypoint.transpose()?,
            labels: flags::labels(&args.label)?,
            ports,
            mounts: mounts.collect::<EngineResult<_>>()?,
        })
    }

    /// A volume that the project has is meant where one is named as in its file.
    fn find_volumes(&mut self, opened: &Opened) -> Result<(), CliError> {
        for mount in &mut self.mounts {
            if let MountSource::Volume { name: Some(name), .. } = &mut mount.source
                && let Some(own) = opened.runtime.volume(name.as_str())?
            {
                *name = own;
            }
        }
        Ok(())
    }
}

/// `run`.
pub(super) fn run(session: &Session, args: &RunArgs) -> Result<u8, CliError> {
    let images = match args.pull.as_deref() {
        None => None,
        Some(text) => Some(text.parse().map_err(CliError::Invalid)?),
    };
    let mut overrides = Overrides::of(args)?;
    let mut wanted = Wanted {
        services: vec![args.invocation.place.clone()],
        writes: true,
        makes: true,
        all_resources: true,
        ..Wanted::default()
    };
    wanted.changes.images = images;
    wanted.flags = Flags { quiet_pull: args.quiet_pull || args.quiet, ..Flags::default() };
    wanted.flags.build.quiet = args.quiet || args.quiet_build;
    let mut opened = session.open(wanted)?;
    ready(&opened, args)?;
    let terminals = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let tty = terminals && !args.no_tty;
    if opened.is_dry_run() {
        return Ok(0);
    }
    overrides.find_volumes(&opened)?;
    let slug = ContainerId::random().as_str().to_owned();
    let separator = session.separator();
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| names::one_off(separator, &opened.project().name, &args.invocation.place, &slug));
    let id = opened
        .runtime
        .create_one_off(&args.invocation.place, &OneOff { name, slug }, |spec| {
            change(spec, args, overrides, tty)
        })
        .map_err(CliError::Program)?;
    // The command may run for long, and others may change the project meanwhile.
    opened.lock = None;
    run_container(&opened, args, &id, tty)
}

/// Sees to the image, the networks and volumes of the service, and to the services it depends on.
fn ready(opened: &Opened, args: &RunArgs) -> Result<(), CliError> {
    let mut options = UpOptions {
        services: vec![args.invocation.place.clone()],
        no_dependencies: args.no_deps,
        one_off_of: Some(args.invocation.place.clone()),
        building: if args.build { Building::Always } else { Building::AsNeeded },
        orphans: if args.remove_orphans { Orphans::Remove } else { Orphans::Ignore },
        ..UpOptions::default()
    };
    let (_, plan) = prepare(opened, &mut options)?;
    opened.execute(plan)
}

fn run_container(opened: &Opened, args: &RunArgs, id: &ContainerId, tty: bool) -> Result<u8, CliError> {
    let engine = opened.engine();
    let forget = || {
        let options = RemoveOptions { force: true, volumes: true };
        engine.remove(id, &options)
    };
    let hooks = || opened.runtime.run_post_start(&args.invocation.place, id);
    if args.detach {
        engine.start(id).map_err(CliError::Program)?;
        hooks()?;
        output::line(id.as_str());
        return Ok(0);
    }
    let options = AttachOptions { stdin: args.interactive, tty, ..AttachOptions::default() };
    let (start, started) = std::sync::mpsc::channel();
    let attached = std::thread::scope(|scope| {
        scope.spawn(move || {
            // What cannot be started hangs up.
            if started.recv().is_ok() {
                // The command goes on; its user learns what went wrong beside it.
                let failed = hooks().err();
                failed.iter().for_each(|error| output::failure(&error::chain(error), error.hint()));
            }
        });
        // Whoever listened has gone: then nobody is left to be told.
        let tell = move || {
            let _ = start.send(());
        };
        engine.start_attached_then(id, &options, &mut engine::cli::output::warning, tell)
    });
    match attached {
        Ok(end) => {
            if args.rm {
                forget()?;
            }
            Ok(code(end))
        }
        Err(error) => {
            // What could not be started is of no use to anybody; the failure is what the user needs to see.
            let _ = forget();
            Err(CliError::Program(error))
        }
    }
}

/// What the command line changes about the service's container.
fn change(spec: &mut ContainerSpec, args: &RunArgs, overrides: Overrides, tty: bool) -> EngineResult<()> {
    if overrides.entrypoint.is_some() {
        spec.process.entrypoint = overrides.entrypoint;
        spec.process.command = None;
    }
    if !args.invocation.command.is_empty() {
        spec.process.command = Some(args.invocation.command.clone());
    }
    for file in &args.env_from_file {
        spec.process.env.extend(engine::cli::run::env_file(file)?);
    }
    spec.process.env.extend(flags::variables(&args.env));
    if args.user.is_some() {
        spec.process.user.clone_from(&args.user);
    }
    if args.workdir.is_some() {
        spec.process.working_dir.clone_from(&args.workdir);
    }
    spec.process.tty = tty;
    // In the background it waits for whoever attaches.
    spec.process.open_stdin = args.interactive;
    spec.process.stdin_once = args.interactive && !args.detach;
    spec.labels.extend(overrides.labels);
    spec.security.cap_add.extend(args.cap_add.iter().map(|name| engine::cli::run::bare_capability(name)));
    spec.security.cap_drop.extend(args.cap_drop.iter().map(|name| engine::cli::run::bare_capability(name)));
    if !args.service_ports {
        spec.ports.clear();
    }
    spec.ports.extend(overrides.ports);
    for mount in overrides.mounts {
        spec.mounts.retain(|other| other.target != mount.target);
        spec.mounts.push(mount);
    }
    if let (NetworkMode::Bridge(attachments), false) = (&mut spec.network, args.use_aliases) {
        for attachment in attachments {
            attachment.aliases.clear();
            attachment.addresses.clear();
        }
    }
    spec.restart = RestartPolicy::No;
    spec.auto_remove = args.rm && args.detach;
    Ok(())
}
