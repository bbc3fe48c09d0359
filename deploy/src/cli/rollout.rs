//! `up`, `plan`, `rollback`, `resume`, `setup` and `prune`.

use std::fmt::Display;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use engine::error::{Error, Result};
use engine::quantity::{ByteSize, Span};
use serde_json::{Value, json};

use super::connect::{self, Loaded};
use super::{Globals, output};
use crate::canary::CanaryStep;
use crate::commit;
use crate::fleet::Fleet;
use crate::interrupt;
use crate::message::{Event, Outcome, Request, confused, millis};
use crate::patience::Patience;
use crate::pipeline::{Deployment, HostReport, Report, Task};
use crate::release::ReleaseId;
use crate::settings::{HostSettings, Settings};
use crate::watch::Changes;

/// The flags of `up`.
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    waiting: Waiting,
    /// Give the new release so many of the new connections first, for so long: 10%,5m, or 10%,5m,sticky, where an
    /// address that connects gets the same release each time; may be given several times
    #[arg(long, value_name = "PERCENT,TIME")]
    canary: Vec<CanaryStep>,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `rollback`.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// How many releases to go back
    #[arg(default_value_t = 1, conflicts_with = "to")]
    back: usize,
    /// The release to go back to
    #[arg(long, value_name = "RELEASE")]
    to: Option<ReleaseId>,
    #[command(flatten)]
    waiting: Waiting,
}

/// The flags of `uninstall`.
#[derive(Debug, Args)]
pub(super) struct UninstallArgs {
    /// Remove its volumes, and what services wrote into directories of the project, too
    #[arg(long)]
    volumes: bool,
}

/// How long somebody waits.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Waiting {
    /// How long to wait for another deployment of the same project to end: 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "0s")]
    lock_wait: Span,
    /// How long connections to containers that were replaced may go on: 30s, 5m
    #[arg(long, value_name = "TIME")]
    drain: Option<Span>,
    /// How long a new container may take until it is ready, or the old ones serve on: 30s, 2m [default: by its health check, or
    /// 60s until its published ports accept connections]
    #[arg(long, value_name = "TIME")]
    deploy_timeout: Option<Patience>,
}

impl Waiting {
    /// As a workflow says it, by the inputs `lock-wait`, `drain` and `deploy-timeout`.
    pub(super) fn of(
        lock_wait: Option<String>,
        drain: Option<String>,
        deploy_timeout: Option<String>,
    ) -> Result<Self> {
        Ok(Self {
            lock_wait: given("lock-wait", lock_wait)?.unwrap_or(Span(Duration::ZERO)),
            drain: given("drain", drain)?,
            deploy_timeout: given("deploy-timeout", deploy_timeout)?,
        })
    }

    /// What the command line says counts more than the settings.
    fn overrule(self, settings: &mut Settings) {
        settings.drain = self.drain.or(settings.drain);
        settings.deploy_timeout = self.deploy_timeout.or(settings.deploy_timeout);
    }
}

fn given<T: FromStr<Err: Display>>(name: &str, text: Option<String>) -> Result<Option<T>> {
    let invalid = |text: &str, error: T::Err| Error::invalid(format!("{name}: {text:?}: {error}"));
    text.map(|text| text.parse().map_err(|error| invalid(&text, error))).transpose()
}

/// `up`.
pub(super) fn up(globals: &Globals, args: &UpArgs) -> Result<ExitCode> {
    show(globals, &rolled_out(globals, args)?);
    Ok(ExitCode::SUCCESS)
}

/// `up`, for who tells of it in another way.
pub(super) fn rolled_out(globals: &Globals, args: &UpArgs) -> Result<Report> {
    let mut loaded = connect::load_to_send(globals, &args.services)?;
    let _watched = interrupt::watch()?;
    args.waiting.overrule(&mut loaded.settings);
    let told = teller(globals);
    let tasks = connect::tasks(&loaded)?;
    connect::warn_of_roles(&loaded.settings);
    if !args.canary.is_empty() {
        loaded.settings.canary.clone_from(&args.canary);
    }
    deployment(globals, &loaded, &args.services, args.waiting.lock_wait.0, &told)
        .up(|| connect::reach(globals, &loaded, tasks))
}

impl UpArgs {
    /// As a workflow says it.
    pub(super) fn of(services: Vec<String>, waiting: Waiting, canary: &[String]) -> Result<Self> {
        let step = |text: &String| text.parse().map_err(|error| Error::invalid("canary").with_source(error));
        Ok(Self { waiting, canary: canary.iter().map(step).collect::<Result<_>>()?, services })
    }
}

/// `rollback` by one release, for who tells of it in another way.
pub(super) fn rollback_quietly(globals: &Globals, waiting: Waiting) -> Result<Report> {
    rolled_back(globals, 1, None, waiting)
}

/// `plan`, for who tells of it in another way.
pub(super) fn plan_quietly(globals: &Globals, services: &[String]) -> Result<Report> {
    let report = planned(globals, services)?;
    print_plan(&report);
    Ok(report)
}

/// `plan`.
pub(super) fn plan(globals: &Globals, args: &PlanArgs) -> Result<ExitCode> {
    let report = planned(globals, &args.services)?;
    if globals.json {
        output::json(&described(&report));
    } else {
        print_plan(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn planned(globals: &Globals, services: &[String]) -> Result<Report> {
    let loaded = connect::load_to_send(globals, services)?;
    connect::warn_of_roles(&loaded.settings);
    let mut fleet = connect::fleet(globals, &loaded)?;
    let told = teller(globals);
    deployment(globals, &loaded, services, Duration::ZERO, &told).plan(&mut fleet)
}

fn print_plan(report: &Report) {
    for host in &report.hosts {
        output::line(&format!("host {}", host.host));
        let stages = [
            ("prepare", &host.planned.prepare),
            ("commit", &host.planned.commit),
            ("retire", &host.planned.retire),
        ];
        if stages.iter().all(|(_, steps)| steps.is_empty()) {
            output::line("  nothing to do");
        }
        for (stage, steps) in stages {
            steps.iter().for_each(|step| output::line(&format!("  {stage:<8} {step}")));
        }
    }
}

/// `rollback`.
pub(super) fn rollback(globals: &Globals, args: &RollbackArgs) -> Result<ExitCode> {
    show(globals, &rolled_back(globals, args.back, args.to.as_ref(), args.waiting)?);
    Ok(ExitCode::SUCCESS)
}

fn rolled_back(globals: &Globals, back: usize, to: Option<&ReleaseId>, waiting: Waiting) -> Result<Report> {
    let mut loaded = connect::load_project(globals)?;
    waiting.overrule(&mut loaded.settings);
    let _watched = interrupt::watch()?;
    let mut fleet = connect::fleet(globals, &loaded)?;
    let told = teller(globals);
    deployment(globals, &loaded, &[], waiting.lock_wait.0, &told).rollback(&mut fleet, back, to)
}

/// `watch`: one deployment now, and one after every change. A release that fails leaves the one before it.
pub(super) fn watch(globals: &Globals, args: &UpArgs) -> Result<ExitCode> {
    let directory = connect::load_project(globals)?.project.working_dir;
    let changes = Changes::of(&directory)?;
    loop {
        if let Err(error) = up(globals, args) {
            output::failure(&error, globals.json);
        }
        output::note(&format!("watching {}", directory.display()));
        let changed = changes.next()?;
        let first = changed.first().map(|path| path.display().to_string()).unwrap_or_default();
        let more = if changed.len() > 1 { format!(" and {} more", changed.len() - 1) } else { String::new() };
        output::note(&format!("changed: {first}{more}"));
    }
}

/// `uninstall`.
pub(super) fn uninstall(globals: &Globals, args: &UninstallArgs) -> Result<ExitCode> {
    for (name, left) in uninstalled(globals, args.volumes)? {
        if globals.json {
            output::json(&json!({ "host": name, "removed": true, "engine_removed": left }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `uninstall`, for who tells of it in another way.
pub(super) fn uninstalled(globals: &Globals, volumes: bool) -> Result<Vec<(String, bool)>> {
    let loaded = connect::load_project(globals)?;
    let mut fleet = connect::fleet(globals, &loaded)?;
    lock(&mut fleet, &loaded)?;
    let project = loaded.project.name.clone();
    let told = teller(globals);
    let gone = fleet.each(|host, _| {
        let name = host.name().to_owned();
        let request = Request::Remove { project: project.clone(), volumes };
        let outcome = host.ask(&request, &|event| told(&name, event))?;
        let Outcome::Removed { left } = outcome else { return Err(confused()) };
        Ok((name, left))
    })?;
    for (member, (_, left)) in std::mem::take(&mut fleet.members).into_iter().zip(&gone) {
        if *left {
            member.host.into_shell().forget()?;
        }
    }
    for (name, left) in &gone {
        let engine = if *left { ", and so is the engine, which had nothing else in it" } else { "" };
        output::note(&format!("{name}: {project} is gone{engine}"));
    }
    Ok(gone)
}

/// `resume`: taking the lock puts right what is left.
pub(super) fn resume(globals: &Globals) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    let mut fleet = connect::fleet(globals, &loaded)?;
    lock(&mut fleet, &loaded)?;
    super::show::print_history(globals, &mut fleet, &loaded, Some(1))
}

/// `setup`.
pub(super) fn setup(globals: &Globals) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    let mut fleet = connect::fleet(globals, &loaded)?;
    let done = fleet.each(|host, _| {
        let Outcome::Remarks(remarks) = host.ask(&Request::Setup, &|_| {})? else { return Err(confused()) };
        Ok(remarks)
    })?;
    for (name, remarks) in fleet.names().into_iter().zip(done) {
        remarks.iter().for_each(|remark| output::note(&format!("{name}: {remark}")));
    }
    for member in &fleet.members {
        let hello = member.host.hello();
        let name = member.host.name();
        if globals.json {
            output::json(
                &json!({ "host": name, "architecture": hello.architecture, "kernel": hello.kernel }),
            );
        } else {
            output::line(&format!("{name}: ready ({}, Linux {})", hello.architecture, hello.kernel));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `prune`.
pub(super) fn prune(globals: &Globals) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    let mut fleet = connect::fleet(globals, &loaded)?;
    lock(&mut fleet, &loaded)?;
    let project = loaded.project.name.clone();
    let pruned = fleet.each(|host, _| {
        let request = Request::Prune { project: project.clone() };
        let Outcome::Pruned(count) = host.ask(&request, &|_| {})? else { return Err(confused()) };
        Ok(count)
    })?;
    for (name, count) in fleet.names().iter().zip(pruned) {
        if globals.json {
            output::json(&json!({ "host": name, "removed": count }));
        } else {
            output::line(&format!(
                "{name}: {count} removed (releases, images, files and programs that nothing needs)"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps everybody else from changing the project as long as the hosts are connected.
pub(super) fn lock(fleet: &mut Fleet<Task>, loaded: &Loaded) -> Result<()> {
    fleet.lock(&loaded.project.name, &commit::author(), 0, &|_, _| {})
}

fn deployment<'a>(
    globals: &'a Globals,
    loaded: &'a Loaded,
    services: &[String],
    lock_wait: Duration,
    told: &'a (dyn Fn(&str, Event) + Sync),
) -> Deployment<'a> {
    Deployment {
        project: &loaded.project,
        settings: &loaded.settings,
        services: services.to_vec(),
        author: commit::author(),
        lock_wait,
        tells_ports: globals.json,
        root: globals.root.clone(),
        reach: Box::new(|address| connect::connect(globals, &loaded.settings, &HostSettings::at(address))),
        told,
    }
}

/// Prints what happens, with the host's name where there are several.
pub(super) fn teller(globals: &Globals) -> impl Fn(&str, Event) + Sync + use<> {
    let several = globals.host.len() != 1;
    move |host: &str, event: Event| output::event(if several { host } else { "" }, &event)
}

fn show(globals: &Globals, report: &Report) {
    if globals.json {
        output::json(&described(report));
        return;
    }
    if !report.changed {
        output::note(&format!("nothing changed ({})", output::seconds(millis(report.took))));
        return;
    }
    let rows: Vec<Vec<String>> = report.hosts.iter().map(|host| row(&report.release, host)).collect();
    output::table(&["HOST", "RELEASE", "BEFORE", "CHANGED", "SENT", "DOWN"], &rows);
    output::note(&format!("release {} serves ({})", report.release, output::seconds(millis(report.took))));

    fn row(release: &ReleaseId, host: &HostReport) -> Vec<String> {
        let planned = &host.planned;
        vec![
            host.host.clone(),
            release.to_string(),
            planned.previous.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
            if planned.changed.is_empty() { "nothing".to_owned() } else { planned.changed.join(",") },
            ByteSize(host.sent).to_string(),
            host.measured.downtime_ms.map_or_else(|| "-".to_owned(), output::seconds),
        ]
    }
}

/// A report as JSON; what `action` takes its outputs from.
pub(super) fn described(report: &Report) -> Value {
    let hosts: Vec<Value> = report
        .hosts
        .iter()
        .map(|host| {
            json!({
                "host": host.host,
                "previous": host.planned.previous,
                "changed": host.planned.changed,
                "prepare": host.planned.prepare,
                "commit": host.planned.commit,
                "retire": host.planned.retire,
                "commit_ms": host.measured.took_ms,
                "downtime_ms": host.measured.downtime_ms,
                "bytes_sent": host.sent,
                "ports": host.ports,
            })
        })
        .collect();
    json!({
        "release": report.release,
        "changed": report.changed,
        "took_ms": millis(report.took),
        "images": report.images,
        "hosts": hosts,
    })
}
