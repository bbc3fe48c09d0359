//! `build`, `pull` and `push`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use engine::builder::{ProvenanceRequest, wants_bill};
use engine::error::Kind;
use engine::image::{PushOptions, Reference};

use super::failure::CliError;
use super::flags;
use super::session::{Opened, Session, Wanted};
use crate::bake::bake;
use crate::build::BuildFlags;
use crate::desired::{Changes, Desired};
use crate::graph;
use crate::model::Project;
use crate::operation::Operation;
use crate::output::{self, ProgressMode};
use crate::plan::images;
use crate::runtime::{Failure, Flags};

/// The flags of `build`.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// Build argument; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    build_arg: Vec<String>,
    /// Use no cached layer
    #[arg(long)]
    no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Send the images to their registries
    #[arg(long, conflicts_with = "check")]
    push: bool,
    /// Check the Dockerfiles, and build nothing
    #[arg(long)]
    check: bool,
    /// Print the builds as a file of docker buildx bake, and build nothing
    #[arg(long)]
    print: bool,
    /// Attest how each image was made, whatever its service says: true, false or mode=max
    #[arg(long, value_name = "ATTRIBUTES")]
    provenance: Option<String>,
    /// Attest what is in each image, whatever its service says: true or false
    #[arg(long, value_name = "ATTRIBUTES")]
    sbom: Option<String>,
    /// SSH agent for all builds: default, or an id with the path of its socket
    #[arg(long, value_name = "ID[=SOCKET]")]
    ssh: Vec<String>,
    /// Has no effect: the engine has one builder
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
    /// Has no effect, as with BuildKit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Has no effect: no context is sent anywhere
    #[arg(long, hide = true)]
    compress: bool,
    /// Has no effect: steps leave no containers
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Has no effect: steps leave no containers
    #[arg(long, hide = true)]
    no_rm: bool,
    /// Has no effect: all builds are one graph
    #[arg(long, hide = true)]
    parallel: bool,
    /// Build the services these depend on too
    #[arg(long)]
    with_dependencies: bool,
    /// How progress is shown; the same option in front of build is the better place
    #[arg(long, value_enum, value_name = "MODE", hide = true)]
    pub(super) progress: Option<ProgressMode>,
    /// Do not show the steps
    #[arg(short, long)]
    quiet: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `pull`.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Leave images out that can be built
    #[arg(long)]
    ignore_buildable: bool,
    /// Go on when an image cannot be pulled
    #[arg(long)]
    ignore_pull_failures: bool,
    /// Pull for the services these depend on too
    #[arg(long)]
    include_deps: bool,
    /// Has no effect: `--parallel N` in front of pull says how many
    #[arg(long, hide = true)]
    parallel: bool,
    /// Has no effect: `--parallel N` in front of pull says how many
    #[arg(long, hide = true)]
    no_parallel: bool,
    /// Which images: all, or those that are missing
    #[arg(long, value_parser = ["always", "missing"], default_value = "always")]
    policy: String,
    /// Pull without showing progress
    #[arg(short, long)]
    quiet: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `push`.
#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// Push for the services these depend on too
    #[arg(long)]
    include_deps: bool,
    /// Go on when an image cannot be pushed
    #[arg(long)]
    ignore_push_failures: bool,
    /// Push without showing progress
    #[arg(short, long)]
    quiet: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// `build`.
pub(super) fn build(session: &Session, args: BuildArgs) -> Result<u8, CliError> {
    let idle = [
        ("--builder", args.builder.is_some(), "the engine has one builder"),
        ("--compress", args.compress, "no context is sent anywhere"),
        ("--force-rm", args.force_rm, "steps leave no containers"),
        ("--no-rm", args.no_rm, "steps leave no containers"),
        ("--parallel", args.parallel, "all builds are one graph"),
        ("--memory", args.memory.is_some(), "a step of a build has what the machine has, as with BuildKit"),
    ];
    for (flag, _, why) in idle.into_iter().filter(|(_, is_given, _)| *is_given) {
        output::warning(&format!("{flag} has no effect: {why}"));
    }
    let flags = BuildFlags {
        no_cache: args.no_cache,
        pull: args.pull,
        args: flags::pairs(&args.build_arg),
        quiet: args.quiet,
        check: args.check,
        ssh: args.ssh.clone(),
    };
    let flags = Flags { build: flags, ..Flags::default() };
    let builds = !args.print;
    let wanted = Wanted { services: args.services.clone(), flags, builds, ..Wanted::default() };
    check_attestations(&args)?;
    let mut project = session.load(&wanted)?;
    attest(&mut project, &args);
    if args.print {
        output::line(&bake_file(session, &project, &args, &wanted.flags.build)?);
        return Ok(0);
    }
    let opened = session.open_project(project, wanted)?;
    let services = if args.with_dependencies && !args.services.is_empty() {
        graph::with_dependencies(opened.desired(), &args.services).into_iter().collect()
    } else {
        args.services.clone()
    };
    let plan = images::build(opened.desired(), &services)?;
    if plan.is_empty() {
        output::warning("no service to build");
        return Ok(0);
    }
    opened.execute(plan)?;
    if args.push {
        let push = PushArgs {
            include_deps: args.with_dependencies,
            ignore_push_failures: false,
            quiet: args.quiet,
            services: args.services,
        };
        return self::push(session, &push);
    }
    Ok(0)
}

fn check_attestations(args: &BuildArgs) -> Result<(), CliError> {
    if let Some(asked) = &args.provenance {
        ProvenanceRequest::parse(asked)?;
    }
    if let Some(asked) = &args.sbom {
        wants_bill(asked)?;
    }
    Ok(())
}

/// What the command line wants attested counts for every service.
fn attest(project: &mut Project, args: &BuildArgs) {
    for build in project.services.values_mut().filter_map(|service| service.build.as_mut()) {
        build.provenance = args.provenance.clone().or(build.provenance.take());
        build.sbom = args.sbom.clone().or(build.sbom.take());
    }
}

/// What would be built, for another builder. A build comes with those it starts from.
fn bake_file(
    session: &Session,
    project: &Project,
    args: &BuildArgs,
    flags: &BuildFlags,
) -> Result<String, CliError> {
    let changes = Changes { separator: session.separator(), ..Changes::default() };
    let desired = Desired::of(project, &changes);
    let mut services = if args.with_dependencies || args.services.is_empty() {
        graph::with_dependencies(&desired, &args.services)
    } else {
        args.services.iter().cloned().collect()
    };
    let mut open: Vec<String> = services.iter().cloned().collect();
    while let Some(name) = open.pop() {
        let bases = desired.services.get(&name).map(|service| &service.builds_from);
        open.extend(bases.into_iter().flatten().filter(|base| services.insert((*base).clone())).cloned());
    }
    let file = bake(project, &desired, &services, flags, args.push);
    serde_json::to_string_pretty(&file).map_err(|error| CliError::Invalid(format!("write the file: {error}")))
}

/// `pull`.
pub(super) fn pull(session: &Session, args: &PullArgs) -> Result<u8, CliError> {
    if args.parallel || args.no_parallel {
        output::warning("how many images are pulled at a time is said with `rcompose --parallel N pull`");
    }
    let flags = Flags { quiet_pull: args.quiet, ..Flags::default() };
    let opened = session.open(Wanted { services: args.services.clone(), flags, ..Wanted::default() })?;
    let services = if args.include_deps && !args.services.is_empty() {
        graph::with_dependencies(opened.desired(), &args.services).into_iter().collect()
    } else {
        args.services.clone()
    };
    let mut plan = images::pull(opened.desired(), &services, args.ignore_buildable)?;
    if args.policy == "missing" {
        let here = opened.observe()?.images;
        plan = plan.without(
            |operation| matches!(operation, Operation::PullImage { image, .. } if here.contains_key(image)),
        );
    }
    match opened.execute(plan) {
        Err(CliError::Steps(failures)) if args.ignore_pull_failures => {
            failures.iter().for_each(|failure| output::warning(&failure.to_string()));
            Ok(0)
        }
        other => other.map(|()| 0),
    }
}

/// Pushes the images of all services that have a build.
pub(super) fn push_all(session: &Session) -> Result<u8, CliError> {
    let args =
        PushArgs { include_deps: false, ignore_push_failures: false, quiet: true, services: Vec::new() };
    push(session, &args)
}

/// `push`.
pub(super) fn push(session: &Session, args: &PushArgs) -> Result<u8, CliError> {
    let opened = session.open(Wanted { services: args.services.clone(), ..Wanted::default() })?;
    let scope = if args.include_deps && !args.services.is_empty() {
        graph::with_dependencies(opened.desired(), &args.services)
    } else {
        args.services.iter().cloned().collect()
    };
    let mut images = BTreeSet::new();
    for (name, service) in &opened.desired().services {
        let is_asked = scope.is_empty() || scope.contains(name);
        if is_asked && service.image.buildable && service.image.named {
            images.insert(service.image.name.as_str());
        } else if is_asked && !args.quiet {
            opened.progress.stands(&format!("Service {name}"), "Skipped");
        }
    }
    let images: Vec<&str> = images.into_iter().collect();
    if opened.is_dry_run() {
        images.iter().for_each(|image| output::note(&format!("push {image}")));
        return Ok(0);
    }
    let failures = push_at_once(&opened, &images, args.quiet);
    opened.progress.finish();
    if args.ignore_push_failures {
        failures.iter().for_each(|failure| output::warning(&failure.to_string()));
        return Ok(0);
    }
    if failures.is_empty() { Ok(0) } else { Err(CliError::Steps(failures)) }
}

/// Pushes images, several at a time. What failed, in the order of the images.
fn push_at_once(opened: &Opened, images: &[&str], quiet: bool) -> Vec<Failure> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..opened.limit().min(images.len()) {
            scope.spawn(|| {
                while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = push_one(opened, image, quiet) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).insert(*image, error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failure = |(image, error)| Failure { service: None, object: format!("image {image}"), error };
    failed.into_iter().map(failure).collect()
}

fn push_one(opened: &Opened, image: &str, quiet: bool) -> engine::Result<()> {
    let reference: Reference = image
        .parse()
        .map_err(|error| engine::Error::invalid(format!("image {image:?}")).with_source(error))?;
    let shown = format!("Image {image}");
    if !quiet {
        opened.progress.begins(&shown, "Pushing");
    }
    let pushed = opened.engine().images().push(&reference, &PushOptions::default(), &|_| {});
    match pushed.map_err(engine::Error::from) {
        Ok(_) => {
            if !quiet {
                opened.progress.stands(&shown, "Pushed");
            }
            Ok(())
        }
        Err(error) => {
            if !quiet {
                opened.progress.fails(&shown);
            }
            Err(match error.kind() {
                Kind::NotFound => error.with_hint("`rcompose build` makes it"),
                _ => error,
            })
        }
    }
}
