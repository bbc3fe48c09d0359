//! `down`, `start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `rm` and `wait`.

use std::time::Duration;

use clap::Args;
use engine::signal::Signal;

use super::failure::CliError;
use super::flags;
use super::session::{Opened, Session, Wanted};
use crate::operation::{Instance, Operation};
use crate::output;
use crate::plan::Plan;
use crate::plan::down::{self, DownOptions, Images};
use crate::plan::verbs::{self, Verb};

/// The flags of `down`.
#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// Remove named and anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Remove images too: local ones without a name in the file, or all
    #[arg(long, value_name = "local|all", value_parser = ["local", "all"])]
    rmi: Option<String>,
    /// Remove containers of services that are in no file
    #[arg(long)]
    remove_orphans: bool,
    /// Seconds a container may take to end
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// The services; the whole project when none is named
    services: Vec<String>,
}

/// The services a command is about.
#[derive(Debug, Args)]
pub(super) struct ServicesArgs {
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `start`.
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// Wait until services run, or are healthy
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `stop`.
#[derive(Debug, Args)]
pub(super) struct StopArgs {
    /// Seconds a container may take to end
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `restart`.
#[derive(Debug, Args)]
pub(super) struct RestartArgs {
    /// Seconds a container may take to end
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Leave services alone that restart with these
    #[arg(long)]
    no_deps: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `kill`.
#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// The signal
    #[arg(short, long, default_value = "SIGKILL")]
    signal: Signal,
    /// Remove containers of services that are in no file
    #[arg(long)]
    remove_orphans: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Stop containers first
    #[arg(short, long)]
    stop: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Has no effect: containers of `run` always go, too
    #[arg(short, long, hide = true)]
    all: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `wait`.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// Take the project down when they have ended
    #[arg(long)]
    down_project: bool,
    /// The services
    #[arg(required = true)]
    services: Vec<String>,
}

pub(super) fn down(session: &Session, args: DownArgs) -> Result<u8, CliError> {
    let options = DownOptions {
        volumes: args.volumes,
        images: args.rmi.as_deref().map(|which| if which == "all" { Images::All } else { Images::Local }),
        remove_orphans: args.remove_orphans || session.settings().says_yes("COMPOSE_REMOVE_ORPHANS"),
        grace: flags::grace(args.timeout),
        services: args.services,
    };
    // Without a file there is no service to be an orphan of: all that carries the project's name goes.
    let project = session.load_or_name(&[])?;
    let has_services = !project.services.is_empty() || !project.disabled_services.is_empty();
    let options = DownOptions { remove_orphans: options.remove_orphans || !has_services, ..options };
    let opened = session.open_project(project, Wanted { writes: true, ..Wanted::default() })?;
    take_down(&opened, &options)
}

fn take_down(opened: &Opened, options: &DownOptions) -> Result<u8, CliError> {
    let plan = down::down(opened.desired(), &opened.observe()?, options)?;
    if plan.is_empty() && !opened.is_dry_run() {
        opened
            .progress
            .remark(&format!("WARNING: no resource found to remove for project {:?}", opened.project().name));
        return Ok(0);
    }
    opened.execute(plan)?;
    if options.services.is_empty() && !opened.is_dry_run() {
        let contents = opened.engine().root().project(&opened.project().name).join(crate::runtime::CONTENTS);
        engine::store::remove_tree(&contents).map_err(|error| {
            engine::Error::failed("remove the contents of secrets and configurations", error)
        })?;
    }
    Ok(0)
}

pub(super) fn start(session: &Session, args: &StartArgs) -> Result<u8, CliError> {
    let wait = args.wait_timeout.map(Duration::from_secs);
    apply(session, &args.services, Verb::Start { wait: args.wait }, wait)
}

pub(super) fn stop(session: &Session, args: &StopArgs) -> Result<u8, CliError> {
    apply(session, &args.services, Verb::Stop { grace: flags::grace(args.timeout) }, None)
}

pub(super) fn restart(session: &Session, args: &RestartArgs) -> Result<u8, CliError> {
    let verb = Verb::Restart { grace: flags::grace(args.timeout), no_dependents: args.no_deps };
    let opened = session.open(wanted(&args.services))?;
    let plan = verbs::apply(opened.desired(), &opened.observe()?, &args.services, verb)?;
    opened.execute_with(plan, None, &|operation| {
        if let Operation::StartContainer { instance: Instance::Existing(container) } = operation {
            opened.engine().announce_restart(&container.id);
        }
    })?;
    Ok(0)
}

pub(super) fn kill(session: &Session, args: &KillArgs) -> Result<u8, CliError> {
    let opened = session.open(wanted(&args.services))?;
    let verb = Verb::Kill { signal: args.signal };
    let plan = verbs::apply(opened.desired(), &opened.observe()?, &args.services, verb)?;
    let is_idle = plan.is_empty();
    opened.execute(plan)?;
    let mut services: Vec<String> = Vec::new();
    if args.remove_orphans {
        let seen = opened.observe()?;
        let known = |service: &String| {
            opened.desired().services.contains_key(service) || opened.desired().disabled.contains(service)
        };
        services.extend(
            seen.containers
                .iter()
                .map(|container| container.service.clone())
                .filter(|service| !known(service)),
        );
    }
    if !services.is_empty() {
        // Who kills does not wait.
        let options = DownOptions {
            services,
            remove_orphans: true,
            grace: flags::grace(Some(0)),
            ..DownOptions::default()
        };
        take_down(&opened, &options)?;
    } else if is_idle {
        output::note("no container to kill");
    }
    Ok(0)
}

pub(super) fn pause(session: &Session, args: &ServicesArgs) -> Result<u8, CliError> {
    apply(session, &args.services, Verb::Pause, None)
}

pub(super) fn unpause(session: &Session, args: &ServicesArgs) -> Result<u8, CliError> {
    apply(session, &args.services, Verb::Unpause, None)
}

pub(super) fn rm(session: &Session, args: &RmArgs) -> Result<u8, CliError> {
    if args.all {
        output::warning("--all has no effect: containers of `run` go anyway");
    }
    let opened = session.open(wanted(&args.services))?;
    let verb = Verb::Remove { stop: args.stop, volumes: args.volumes };
    let plan = verbs::apply(opened.desired(), &opened.observe()?, &args.services, verb)?;
    if plan.is_empty() {
        output::note("No stopped containers");
        return Ok(0);
    }
    let doomed = format!("Going to remove {}", removed(&plan).join(", "));
    if args.force || opened.is_dry_run() {
        output::line(&doomed);
    } else if !output::confirm(&doomed) {
        output::note("nothing was removed; --force does not ask");
        return Ok(0);
    }
    opened.execute(plan)?;
    Ok(0)
}

/// The names of the containers that a plan removes, sorted.
fn removed(plan: &Plan) -> Vec<&str> {
    let steps = plan.steps().iter();
    let mut names: Vec<&str> = steps
        .filter_map(|step| match &step.operation {
            Operation::RemoveContainer { container, .. } => Some(container.name.as_str()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names
}

pub(super) fn wait(session: &Session, args: &WaitArgs) -> Result<u8, CliError> {
    let opened = session.open(Wanted { services: args.services.clone(), ..Wanted::default() })?;
    let seen = opened.observe()?;
    let (sender, ends) = std::sync::mpsc::channel();
    for container in seen.containers.iter().filter(|container| args.services.contains(&container.service)) {
        let (engine, id, sender) = (opened.engine().clone(), container.id.clone(), sender.clone());
        std::thread::spawn(move || {
            let code = engine.wait(&id);
            // Nobody listens any more when one of the others could not be waited for.
            let _ = sender.send((id, code));
        });
    }
    drop(sender);
    let mut last = None;
    for (id, code) in ends {
        let code = code?;
        output::line(&format!("container {:?} exited with status code {code}", id.as_str()));
        last = Some(code);
    }
    let Some(code) = last else {
        return Err(CliError::Invalid(format!("no containers for {}", args.services.join(", "))));
    };
    if args.down_project {
        let wanted = Wanted { writes: true, ..Wanted::default() };
        let opened = session.open_project(opened.project().clone(), wanted)?;
        take_down(&opened, &DownOptions::default())?;
    }
    Ok(code as u8)
}

fn wanted(services: &[String]) -> Wanted {
    Wanted { services: services.to_vec(), writes: true, ..Wanted::default() }
}

fn apply(
    session: &Session,
    services: &[String],
    verb: Verb,
    timeout: Option<Duration>,
) -> Result<u8, CliError> {
    let opened = session.open(wanted(services))?;
    let plan = verbs::apply(opened.desired(), &opened.observe()?, services, verb)?;
    opened.execute_with(plan, timeout, &|_| {})?;
    Ok(0)
}
