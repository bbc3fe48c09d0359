//! `status`, `drift`, `history`, `logs`, `exec` and `run`.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use engine::cli::invocation::{InService, Invocation, OfService};
use engine::error::{Error, Result};
use serde_json::{Value, json};

use super::connect::{self, Loaded, Words};
use super::{Globals, output};
use crate::fleet::{Failures, Fleet};
use crate::message::{Outcome, Request, Status, confused};
use crate::pipeline::Task;
use crate::release::{self, Entry};
use crate::ssh::{Output, quoted};

/// The flags of `logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Show what comes later too
    #[arg(long)]
    follow: bool,
    /// So many lines of each container from the end; all when none is given, or `all`
    #[arg(short = 'n', long, value_name = "LINES", value_parser = lines)]
    tail: Option<String>,
    /// Nothing before this time: a date, or a duration as in 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// How many lines, as `docker logs` takes it.
fn lines(text: &str) -> Result<String, String> {
    match text.parse::<usize>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if text == "all" || text == "-1" => Ok("all".to_owned()),
        Err(_) => Err("a number or all is needed".to_owned()),
    }
}

/// The flags of `audit`.
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// So many of each host from the end
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 50)]
    last: usize,
}

/// The flags of `exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// The user that it runs as in the container
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The directory in the container that it starts in
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// A variable that it has; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// On every host that has the service, at once and without input; each line begins with the host
    #[arg(long)]
    all_hosts: bool,
    #[command(flatten)]
    invocation: Invocation<InService>,
}

/// The flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    invocation: Invocation<OfService>,
}

/// `status`.
pub(super) fn status(globals: &Globals) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    let (mut fleet, lost) = connect::reachable(globals, &loaded)?;
    let all = statuses(&loaded, &mut fleet)?;
    if globals.json {
        all.iter().for_each(|(host, status)| output::json(&json!({ "host": host, "status": status })));
        return unless_lost(lost, ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for (host, status) in &all {
        for container in &status.containers {
            rows.push(vec![
                host.clone(),
                container.service.clone(),
                container.name.clone(),
                container.state.clone(),
                container.image.clone(),
                container.ports.join(", "),
            ]);
        }
    }
    output::table(&["HOST", "SERVICE", "NAME", "STATE", "IMAGE", "PORTS"], &rows);
    for (host, status) in &all {
        let release =
            status.release.as_ref().map_or_else(|| "no release".to_owned(), |id| format!("release {id}"));
        let held =
            status.locked_by.as_ref().map(|who| format!("; being changed by {who}")).unwrap_or_default();
        let frozen = status.frozen.as_ref().map(|freeze| format!("; locked by {freeze}")).unwrap_or_default();
        output::note(&format!("{host}: {release}{held}{frozen}"));
    }
    unless_lost(lost, ExitCode::SUCCESS)
}

/// Tells of hosts that are not reached, when the others have been shown.
fn unless_lost(lost: Failures, code: ExitCode) -> Result<ExitCode> {
    if lost.0.is_empty() { Ok(code) } else { Err(lost.into()) }
}

/// `drift`.
pub(super) fn drift(globals: &Globals) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    let (mut fleet, lost) = connect::reachable(globals, &loaded)?;
    let all = statuses(&loaded, &mut fleet)?;
    let mut drifted = false;
    for (host, status) in &all {
        drifted |= !status.drift.is_empty() || status.release.is_none();
        if globals.json {
            output::json(&json!({ "host": host, "release": status.release, "drift": status.drift }));
        } else if status.release.is_none() {
            output::line(&format!("{host}: nothing of the project {} is deployed", loaded.project.name));
        } else if status.drift.is_empty() {
            output::line(&format!("{host}: as the release says"));
        } else {
            status.drift.iter().for_each(|line| output::line(&format!("{host}: {line}")));
        }
    }
    unless_lost(lost, if drifted { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What runs on every host.
pub(super) fn statuses(loaded: &Loaded, fleet: &mut Fleet<Task>) -> Result<Vec<(String, Status)>> {
    let project = loaded.project.name.clone();
    let all = fleet.each(|host, _| {
        let outcome = host.ask(&Request::Status { project: project.clone() }, &|_| {})?;
        match outcome {
            Outcome::Status(status) => Ok((host.name().to_owned(), status)),
            _ => Err(confused()),
        }
    })?;
    Ok(all)
}

/// `history`.
pub(super) fn history(globals: &Globals) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    let (mut fleet, lost) = connect::reachable(globals, &loaded)?;
    unless_lost(lost, print_history(globals, &mut fleet, &loaded, None)?)
}

/// Prints the last entries of every host's history, the newest last.
pub(super) fn print_history(
    globals: &Globals,
    fleet: &mut Fleet<Task>,
    loaded: &Loaded,
    last: Option<usize>,
) -> Result<ExitCode> {
    let project = loaded.project.name.clone();
    let all = fleet.each(|host, _| {
        let request = Request::History { project: project.clone() };
        let Outcome::History(entries) = host.ask(&request, &|_| {})? else { return Err(confused()) };
        let request = Request::Kept { project: project.clone() };
        let Outcome::Kept(kept) = host.ask(&request, &|_| {})? else { return Err(confused()) };
        Ok((host.name().to_owned(), entries, kept))
    })?;
    let mut rows = Vec::new();
    for (host, entries, kept) in &all {
        let skipped = last.map_or(0, |last| entries.len().saturating_sub(last));
        for entry in &entries[skipped..] {
            let is_kept = kept.contains(&entry.release);
            if globals.json {
                output::json(&json!({ "host": host, "entry": entry, "kept": is_kept }));
            } else {
                rows.push(row(host, entry, is_kept));
            }
        }
    }
    if !globals.json {
        let head = ["HOST", "RELEASE", "COMMIT", "BY", "BEGAN (UTC)", "TOOK", "DOWN", "KEPT", "OUTCOME"];
        output::table(&head, &rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn row(host: &str, entry: &Entry, is_kept: bool) -> Vec<String> {
    let outcome = match &entry.outcome {
        release::Outcome::Served if entry.rollback => "served (rollback)".to_owned(),
        release::Outcome::Served => "served".to_owned(),
        release::Outcome::BackedOut(reason) => {
            format!("called off: {}", reason.lines().next().unwrap_or_default())
        }
    };
    vec![
        host.to_owned(),
        entry.release.to_string(),
        entry.commit.as_ref().map_or_else(|| "-".to_owned(), release::Commit::short),
        entry.author.clone(),
        entry.began.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        output::seconds(entry.prepare_ms + entry.commit_ms),
        entry.downtime_ms.map_or_else(|| "-".to_owned(), output::seconds),
        if is_kept { "yes" } else { "-" }.to_owned(),
        outcome,
    ]
}

/// `audit`: the newest last.
pub(super) fn audit(globals: &Globals, args: &AuditArgs) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    let (mut fleet, lost) = connect::reachable(globals, &loaded)?;
    let project = loaded.project.name.clone();
    let all = fleet.each(|host, _| {
        let request = Request::Audit { project: project.clone() };
        let Outcome::Audit(deeds) = host.ask(&request, &|_| {})? else { return Err(confused()) };
        Ok((host.name().to_owned(), deeds))
    })?;
    let mut rows = Vec::new();
    for (host, deeds) in &all {
        for deed in &deeds[deeds.len().saturating_sub(args.last)..] {
            if globals.json {
                output::json(&json!({ "host": host, "deed": deed }));
                continue;
            }
            rows.push(vec![
                host.clone(),
                deed.at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                deed.author.clone(),
                deed.from.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                // One line each, whatever was in the command.
                deed.what.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""),
            ]);
        }
    }
    if !globals.json {
        output::table(&["HOST", "WHEN (UTC)", "BY", "FROM", "WHAT"], &rows);
    }
    unless_lost(lost, ExitCode::SUCCESS)
}

/// `logs`.
pub(super) fn logs(globals: &Globals, args: &LogsArgs) -> Result<ExitCode> {
    let mut words = vec!["logs".to_owned(), "--no-color".to_owned()];
    words.extend(args.follow.then(|| "--follow".to_owned()));
    words.extend((args.timestamps || globals.json).then(|| "--timestamps".to_owned()));
    words.extend(args.tail.iter().flat_map(|tail| ["--tail".to_owned(), tail.clone()]));
    words.extend(args.since.iter().flat_map(|since| ["--since".to_owned(), since.clone()]));
    words.extend(args.services.iter().cloned());
    let words = Words { all: words, deed: None };
    let loaded = connect::load_project(globals)?;
    connect::expect_services(&loaded.project, &args.services)?;
    let (mut fleet, lost) = connect::reachable(globals, &loaded)?;
    if args.follow {
        // The end is too late.
        lost.0.iter().for_each(|(_, error)| output::note(&engine::error::chain(error)));
    }
    let project = &loaded.project.name;
    // Each host as it comes: one that is followed never ends, and the others write meanwhile.
    if globals.json || loaded.settings.hosts.len() > 1 {
        let ended = connect::compose_told(project, fleet, &words, &|host, line| match globals.json {
            true => output::json(&logged(host, line)),
            false => output::line(&format!("{host}  {line}")),
        })?;
        tell_stderr(&ended);
        return unless_lost(lost, worst(&ended));
    }
    let only = fleet.members.pop().ok_or_else(confused)?;
    connect::compose_on(project, only, &words)
}

/// A line of `rcompose logs --timestamps`: `web-1  | 2026-01-31T08:00:00.000000000Z listening`.
fn logged(host: &str, line: &str) -> Value {
    let (container, rest) = line.split_once(" | ").unwrap_or(("", line));
    let (time, text) = rest.split_once(' ').unwrap_or((rest, ""));
    json!({ "host": host, "container": container.trim(), "time": time, "line": text })
}

/// `exec`.
pub(super) fn exec(globals: &Globals, args: &ExecArgs) -> Result<ExitCode> {
    let mut words = vec!["exec".to_owned()];
    words.extend((globals.json || args.all_hosts).then(|| "-T".to_owned()));
    words.extend(args.user.iter().flat_map(|user| ["--user".to_owned(), user.clone()]));
    words.extend(args.workdir.iter().flat_map(|place| ["--workdir".to_owned(), place.clone()]));
    words.extend(args.env.iter().flat_map(|pair| ["--env".to_owned(), pair.clone()]));
    words.push(args.invocation.place.clone());
    words.extend(args.invocation.command.iter().cloned());
    let words =
        Words { all: words, deed: Some(deed("exec", &args.invocation.place, &args.invocation.command)) };
    if args.all_hosts {
        on_all(globals, &args.invocation.place, &words)
    } else {
        on_one(globals, &args.invocation.place, &words)
    }
}

/// `run`.
pub(super) fn run(globals: &Globals, args: &RunArgs) -> Result<ExitCode> {
    let mut words = vec!["run".to_owned(), "--rm".to_owned()];
    words.extend(globals.json.then(|| "-T".to_owned()));
    words.push(args.invocation.place.clone());
    words.extend(args.invocation.command.iter().cloned());
    let words =
        Words { all: words, deed: Some(deed("run", &args.invocation.place, &args.invocation.command)) };
    on_one(globals, &args.invocation.place, &words)
}

/// What an audit trail says of a command. Values of variables may be secrets and are not in it.
fn deed(verb: &str, service: &str, command: &[String]) -> String {
    let words = [verb, service].into_iter().map(str::to_owned);
    words.chain(command.iter().map(|word| shown(word))).collect::<Vec<_>>().join(" ")
}

/// A word as a shell would take it.
fn shown(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { quoted(word) }
}

/// The project with those of its hosts that have a service.
fn where_runs(globals: &Globals, service: &str) -> Result<Loaded> {
    let mut loaded = connect::load_project(globals)?;
    connect::expect_services(&loaded.project, &[service.to_owned()])?;
    let Loaded { project, settings } = &mut loaded;
    let mut here = Vec::new();
    for host in &settings.hosts {
        let services = settings.services_of(&host.roles, project.services.keys().map(String::as_str))?;
        if services.is_none_or(|services| services.iter().any(|name| name == service)) {
            here.push(host.clone());
        }
    }
    if here.is_empty() && !settings.hosts.is_empty() {
        return Err(Error::not_found(format!("no host has a role that service {service} is in")));
    }
    settings.hosts = here;
    Ok(loaded)
}

/// Runs `rcompose` on every host that has a service.
fn on_all(globals: &Globals, service: &str, words: &Words) -> Result<ExitCode> {
    let loaded = where_runs(globals, service)?;
    let fleet = connect::fleet(globals, &loaded)?;
    let ended =
        connect::compose_told(&loaded.project.name, fleet, words, &|host, line| match globals.json {
            true => output::json(&json!({ "host": host, "line": line })),
            false => output::line(&format!("{host}  {line}")),
        })?;
    tell_stderr(&ended);
    if globals.json {
        ended.iter().for_each(|(host, output)| output::json(&json!({ "host": host, "code": output.code })));
    }
    Ok(worst(&ended))
}

fn tell_stderr(ended: &[(String, Output)]) {
    for (host, output) in ended {
        let said = String::from_utf8_lossy(&output.stderr);
        said.lines().for_each(|line| output::note(&format!("{host}  {line}")));
    }
}

/// Runs `rcompose` on the first host that has a service: with this process's own input and output, or as JSON tells of it.
fn on_one(globals: &Globals, service: &str, words: &Words) -> Result<ExitCode> {
    let mut loaded = where_runs(globals, service)?;
    loaded.settings.hosts.truncate(1);
    let mut fleet = connect::fleet(globals, &loaded)?;
    let project = &loaded.project.name;
    if !globals.json {
        let first = fleet.members.pop().ok_or_else(confused)?;
        return connect::compose_on(project, first, words);
    }
    let stdout = Mutex::new(String::new());
    let ended = connect::compose_told(project, fleet, words, &|_, line| {
        let mut stdout = stdout.lock().unwrap_or_else(PoisonError::into_inner);
        stdout.push_str(line);
        stdout.push('\n');
    })?;
    let stdout = stdout.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (host, output) in &ended {
        let stderr = String::from_utf8_lossy(&output.stderr);
        output::json(&json!({ "host": host, "code": output.code, "stdout": stdout, "stderr": stderr }));
    }
    Ok(worst(&ended))
}

fn worst(ended: &[(String, Output)]) -> ExitCode {
    let mut codes =
        ended.iter().map(|(_, output)| output.code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
    ExitCode::from(codes.rfind(|code| *code != 0).unwrap_or(0))
}
