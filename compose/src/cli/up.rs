//! `up`, `create`, `scale` and `plan`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use engine::error::Error;

use super::attached::Attached;
use super::failure::CliError;
use super::flags;
use super::session::{Opened, Session, Wanted};
use super::settings::is_true;
use super::update;
use crate::desired::{Changes, ImagePolicy};
use crate::model::Project;
use crate::observe::{Life, Observed};
use crate::operation::Operation;
use crate::output;
use crate::plan::images::{Building, decisive};
use crate::plan::up::{self, Orphans, Recreate, UpOptions};
use crate::plan::{Plan, Step, provisions};
use crate::runtime::Flags;

/// What `up` and `create` have in common.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Common {
    /// Build images before starting containers
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Do not build an image, even if it is missing
    #[arg(long)]
    no_build: bool,
    /// When images are pulled: always, missing, never or policy
    #[arg(long, value_name = "POLICY")]
    pull: Option<String>,
    /// Pull without showing progress
    #[arg(long)]
    quiet_pull: bool,
    /// Build without showing the steps
    #[arg(long)]
    quiet_build: bool,
    /// Recreate containers even if nothing changed
    #[arg(long, conflicts_with = "no_recreate")]
    force_recreate: bool,
    /// Leave containers that exist as they are
    #[arg(long)]
    no_recreate: bool,
    /// Recreate the services these depend on too
    #[arg(long, conflicts_with = "no_recreate")]
    always_recreate_deps: bool,
    /// Number of containers of a service, whatever the file says
    #[arg(long, value_name = "SERVICE=NUMBER")]
    scale: Vec<String>,
    /// Start with new anonymous volumes
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Remove containers of services that are in no file
    #[arg(long)]
    remove_orphans: bool,
    /// Answer yes to every question
    #[arg(short = 'y', long)]
    yes: bool,
}

/// The flags of `up`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    common: Common,
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Leave the services these depend on alone
    #[arg(long)]
    no_deps: bool,
    /// Create containers without starting them
    #[arg(long)]
    no_start: bool,
    /// Wait until services run, or are healthy; runs in the background
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// Stop everything when any container ends
    #[arg(long)]
    pub(super) abort_on_container_exit: bool,
    /// Stop everything when any container fails
    #[arg(long)]
    pub(super) abort_on_container_failure: bool,
    /// Return the exit code of this service's container; stops everything when any container ends
    #[arg(long, value_name = "SERVICE")]
    pub(super) exit_code_from: Option<String>,
    /// Show the output of this service alone; may be given several times
    #[arg(long, value_name = "SERVICE")]
    pub(super) attach: Vec<String>,
    /// Do not show the output of this service; may be given several times
    #[arg(long, value_name = "SERVICE")]
    pub(super) no_attach: Vec<String>,
    /// Show the output of the services these depend on too
    #[arg(long)]
    pub(super) attach_dependencies: bool,
    /// Seconds a container may take to end
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Show times
    #[arg(long)]
    pub(super) timestamps: bool,
    /// No colours
    #[arg(long)]
    pub(super) no_color: bool,
    /// No names in front of lines
    #[arg(long)]
    pub(super) no_log_prefix: bool,
    /// Bring files that change on the host to the containers
    #[arg(short, long)]
    pub(super) watch: bool,
    /// Obey single keys while attached at a terminal; also COMPOSE_MENU
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) menu: Option<bool>,
    /// The services; all when none is named
    pub(super) services: Vec<String>,
}

/// The flags of `create`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    common: Common,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `scale`.
#[derive(Debug, Clone, Args)]
pub(super) struct ScaleArgs {
    /// Leave the services these depend on alone
    #[arg(long)]
    no_deps: bool,
    /// How many containers of which services
    #[arg(required = true, value_name = "SERVICE=NUMBER")]
    scale: Vec<String>,
}

/// The flags of `plan`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    common: Common,
    /// An object a step, as JSON
    #[arg(long)]
    json: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

impl UpArgs {
    /// What brings these services up before their files are watched.
    pub(super) fn before_watch(services: &[String], quiet_build: bool) -> Self {
        let common = Common { quiet_build, ..Common::default() };
        Self { common, services: services.to_vec(), detach: true, ..Self::default() }
    }
}

/// `up`.
pub(super) fn up(session: &Session, args: &UpArgs) -> Result<u8, CliError> {
    check(args)?;
    let project = session.load(&wanted(&args.services, &args.common)?)?;
    up_project(session, project, args)
}

/// `up` of a project that has been loaded.
pub(super) fn up_project(session: &Session, project: Project, args: &UpArgs) -> Result<u8, CliError> {
    let detached = args.detach || args.wait || args.no_start;
    let mut opened = session.open_project(project, wanted(&args.services, &args.common)?)?;
    check_names(args, opened.project())?;
    if args.services.is_empty() && opened.project().services.is_empty() {
        let none = Error::invalid("no service selected");
        return Err(CliError::Engine(none.with_hint("--profile NAME enables the services of a profile")));
    }
    let mut options = options(session, &args.services, &args.common);
    options.no_dependencies = args.no_deps;
    options.start = !args.no_start;
    options.wait = args.wait;
    options.all_resources = session.all_resources();
    options.grace = flags::grace(args.timeout);
    let (observed, plan) = prepare(&opened, &mut options)?;
    if detached || opened.is_dry_run() {
        let timeout = args.wait_timeout.map(Duration::from_secs);
        show_standing(&opened, &observed, &options, &plan);
        update::walk(&opened, &observed, plan, timeout, &|_| {})?;
        return Ok(0);
    }
    let menu = args.menu.or_else(|| session.settings().get("COMPOSE_MENU").map(|value| is_true(&value)));
    Attached { args, options: &options, has_menu: menu.unwrap_or(true) }.run(&mut opened, &observed, plan)
}

/// Who is not there cannot be stayed with, and two reasons to end are one too many.
fn check(args: &UpArgs) -> Result<(), CliError> {
    let leaves =
        [("--detach", args.detach), ("--wait", args.wait)].into_iter().find(|(_, is_given)| *is_given);
    let stays = [
        ("--abort-on-container-exit", args.abort_on_container_exit),
        ("--abort-on-container-failure", args.abort_on_container_failure),
        ("--exit-code-from", args.exit_code_from.is_some()),
        ("--attach", !args.attach.is_empty()),
        ("--attach-dependencies", args.attach_dependencies),
        ("--watch", args.watch),
    ];
    let stays = stays.into_iter().find(|(_, is_given)| *is_given);
    if let (Some((leaves, _)), Some((stays, _))) = (leaves, stays) {
        return Err(CliError::Invalid(format!("{leaves} cannot be combined with {stays}")));
    }
    if args.abort_on_container_exit && args.abort_on_container_failure {
        let message = "--abort-on-container-failure cannot be combined with --abort-on-container-exit";
        return Err(CliError::Invalid(message.to_owned()));
    }
    Ok(())
}

/// Services that the output or the exit code is to be of.
fn check_names(args: &UpArgs, project: &Project) -> Result<(), CliError> {
    let unknown =
        args.attach.iter().chain(&args.exit_code_from).find(|name| !project.services.contains_key(*name));
    unknown.map_or(Ok(()), |name| Err(CliError::Invalid(format!("no such service: {name}"))))
}

/// `create`.
pub(super) fn create(session: &Session, args: CreateArgs) -> Result<u8, CliError> {
    let up_args =
        UpArgs { common: args.common, services: args.services, no_start: true, ..UpArgs::default() };
    up(session, &up_args)
}

/// `scale`.
pub(super) fn scale(session: &Session, args: ScaleArgs) -> Result<u8, CliError> {
    let services = flags::scale(&args.scale)?.into_keys().collect();
    let common = Common { scale: args.scale, ..Common::default() };
    up(session, &UpArgs { common, services, detach: true, no_deps: args.no_deps, ..UpArgs::default() })
}

/// `plan`.
pub(super) fn plan(session: &Session, args: &PlanArgs) -> Result<u8, CliError> {
    let mut wanted = wanted(&args.services, &args.common)?;
    wanted.writes = false;
    let opened = session.open(wanted)?;
    let mut options = options(session, &args.services, &args.common);
    options.all_resources = session.all_resources();
    let plan = up::up(opened.desired(), &opened.observe()?, &options)?;
    for warning in plan.warnings() {
        output::warning(warning);
    }
    if args.json {
        plan.steps().iter().enumerate().for_each(|(id, step)| output::line(&step_json(id, step).to_string()));
    } else {
        output::line(&plan.to_string());
    }
    Ok(0)
}

fn step_json(id: usize, step: &Step) -> serde_json::Value {
    let after: Vec<usize> = step.after.iter().map(|before| before + 1).collect();
    serde_json::json!({
        "step": id + 1,
        "operation": step.operation.to_string(),
        "cause": step.cause.to_string(),
        "after": after,
    })
}

fn wanted(services: &[String], common: &Common) -> Result<Wanted, CliError> {
    let images = match common.pull.as_deref() {
        None | Some("policy") => None,
        Some(text) => Some(text.parse::<ImagePolicy>().map_err(CliError::Invalid)?),
    };
    let mut flags = Flags { renew_volumes: common.renew_anon_volumes, ..Flags::default() };
    flags.quiet_pull = common.quiet_pull;
    flags.build.quiet = common.quiet_build;
    Ok(Wanted {
        services: services.to_vec(),
        changes: Changes { scale: flags::scale(&common.scale)?, images, ..Changes::default() },
        flags,
        writes: true,
        makes: true,
        builds: common.build,
        all_resources: false,
    })
}

fn options(session: &Session, services: &[String], common: &Common) -> UpOptions {
    let settings = session.settings();
    UpOptions {
        services: services.to_vec(),
        recreate: match (common.force_recreate || common.renew_anon_volumes, common.no_recreate) {
            (_, true) => Recreate::Never,
            // New volumes take new containers.
            (true, _) => Recreate::Always,
            _ => Recreate::Changed,
        },
        recreate_dependencies: common.always_recreate_deps,
        building: match (common.build, common.no_build) {
            (true, _) => Building::Always,
            (_, true) => Building::Never,
            _ => Building::AsNeeded,
        },
        renew_volumes: common.renew_anon_volumes,
        orphans: if common.remove_orphans || settings.says_yes("COMPOSE_REMOVE_ORPHANS") {
            Orphans::Remove
        } else if settings.says_yes("COMPOSE_IGNORE_ORPHANS") {
            Orphans::Ignore
        } else {
            Orphans::Warn
        },
        ..UpOptions::default()
    }
}

/// Sees to the images that decide what becomes of containers, then plans the rest.
pub(super) fn prepare(opened: &Opened, options: &mut UpOptions) -> Result<(Observed, Plan), CliError> {
    let desired = opened.desired();
    let mut observed = opened.observe()?;
    let scope = up::scope(desired, options)?;
    let mut first = decisive(desired, &observed, &scope, options.building)?;
    provisions::add_up(&mut first, desired, &scope)?;
    if !first.is_empty() && !opened.is_dry_run() {
        options.settled_images = first
            .steps()
            .iter()
            .filter_map(|step| match &step.operation {
                Operation::PullImage { image, .. } | Operation::BuildImage { image, .. } => {
                    Some(image.clone())
                }
                _ => None,
            })
            .collect();
        options.settled_provisions = true;
        opened.execute(first)?;
        observed = opened.observe()?;
    }
    let plan = up::up(desired, &observed, options)?;
    Ok((observed, plan))
}

/// Names the containers that are as they should be.
pub(super) fn show_standing(opened: &Opened, observed: &Observed, options: &UpOptions, plan: &Plan) {
    let Ok(scope) = up::scope(opened.desired(), options) else { return };
    let touched: BTreeSet<String> = plan.steps().iter().map(|step| step.operation.object()).collect();
    for container in &observed.containers {
        let object = format!("Container {}", container.name);
        let stands =
            container.life == Life::Running && !container.one_off && scope.contains(&container.service);
        if stands && !touched.contains(&object) {
            opened.progress.stands(&object, "Running");
        }
    }
}
