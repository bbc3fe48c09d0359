//! `lock`: leave a project alone for a while.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use engine::error::Result;
use engine::quantity::Span;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::connect::{self, Loaded};
use super::{Globals, output};
use crate::commit;
use crate::fleet::Fleet;
use crate::freeze::Freeze;
use crate::message::{Outcome, Request, Status, millis};
use crate::pipeline::Task;

/// The flags of `lock`.
#[derive(Debug, Args)]
pub(super) struct LockArgs {
    #[command(subcommand)]
    task: Option<LockTask>,
}

#[derive(Debug, Subcommand)]
enum LockTask {
    /// Show who changes the project or has locked it
    Status,
    /// Let nobody change the project, until it is released
    Acquire(AcquireArgs),
    /// Let the project be changed again
    Release,
}

/// The flags of `lock acquire`.
#[derive(Debug, Args)]
struct AcquireArgs {
    /// Why: shown to whoever is refused
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// When it ends by itself: 30m, 2h
    #[arg(long = "for", value_name = "TIME")]
    length: Option<Span>,
    /// How long to wait for a deployment that goes on to end: 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "0s")]
    lock_wait: Span,
}

/// `lock`.
pub(super) fn lock(globals: &Globals, args: LockArgs) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    let mut fleet = connect::fleet(globals, &loaded)?;
    match args.task.unwrap_or(LockTask::Status) {
        LockTask::Status => status(globals, &loaded, &mut fleet),
        LockTask::Acquire(args) => acquire(globals, &loaded, &mut fleet, &args),
        LockTask::Release => release(globals, &loaded, &mut fleet),
    }
}

fn status(globals: &Globals, loaded: &Loaded, fleet: &mut Fleet<Task>) -> Result<ExitCode> {
    for (host, status) in super::show::statuses(loaded, fleet)? {
        show(globals, &host, &status);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(globals: &Globals, host: &str, status: &Status) {
    if globals.json {
        output::json(&json!({ "host": host, "frozen": status.frozen, "locked_by": status.locked_by }));
        return;
    }
    let freeze = status.frozen.as_ref().map(|freeze| format!("locked by {freeze}"));
    let change = || status.locked_by.as_ref().map(|who| format!("being changed by {who}"));
    output::line(&format!("{host}: {}", freeze.or_else(change).unwrap_or_else(|| "free".to_owned())));
}

/// All hosts or none.
fn acquire(
    globals: &Globals,
    loaded: &Loaded,
    fleet: &mut Fleet<Task>,
    args: &AcquireArgs,
) -> Result<ExitCode> {
    let since = Timestamp::now();
    let length = args.length.and_then(|Span(length)| SignedDuration::try_from(length).ok());
    let freeze = Freeze {
        author: commit::author(),
        message: args.message.clone(),
        since,
        // A time beyond the calendar is none.
        until: length.and_then(|length| since.checked_add(length).ok()),
    };
    fleet.lock(&loaded.project.name, &freeze.author, millis(args.lock_wait.0), &|_, _| {})?;
    let project = &loaded.project.name;
    let frozen = fleet.each(|host, _| {
        let request = Request::Freeze { project: project.clone(), freeze: freeze.clone() };
        host.ask(&request, &|_| {}).map(drop)
    });
    if let Err(failures) = frozen {
        // Whoever is reached is free again; the failure that led here is the one to tell.
        let _ = thaw(project, fleet);
        return Err(failures.into());
    }
    for name in fleet.names() {
        if globals.json {
            output::json(&json!({ "host": name, "frozen": freeze }));
        } else {
            output::line(&format!("{name}: locked by {freeze}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn release(globals: &Globals, loaded: &Loaded, fleet: &mut Fleet<Task>) -> Result<ExitCode> {
    for (name, freeze) in thaw(&loaded.project.name, fleet)? {
        match freeze {
            freeze if globals.json => output::json(&json!({ "host": name, "released": freeze })),
            Some(freeze) => output::line(&format!("{name}: was locked by {freeze}")),
            None => output::line(&format!("{name}: was not locked")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn thaw(project: &str, fleet: &mut Fleet<Task>) -> Result<Vec<(String, Option<Freeze>)>> {
    let thawed = fleet.each(|host, _| {
        let outcome =
            host.ask(&Request::Thaw { project: project.to_owned(), author: commit::author() }, &|_| {})?;
        let freeze = if let Outcome::Thawed(freeze) = outcome { freeze } else { None };
        Ok((host.name().to_owned(), freeze))
    })?;
    Ok(thawed)
}
