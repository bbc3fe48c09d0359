//! The verbs of the runtime interface: their arguments, and what they print.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::log::Log;
use crate::cli::invocation::{Invocation, OfProcess, OfProcesses};
use crate::cli::{output, top};
use crate::error::{Error, Kind, Result};
use crate::oci::{self, Extras, NewContainer, NewProcess, Runtime};
use crate::quantity::ByteSize;
use crate::signal::Signal;

#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The container's name
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// Directory with config.json
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    bundle: PathBuf,
    /// Socket that gets the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// File that the process's number is written to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Move the root over / instead of pivoting to it: needed on an initramfs
    #[arg(long)]
    no_pivot: bool,
    /// Leave the session keyring the caller's
    #[arg(long)]
    no_new_keyring: bool,
    /// Pass this many descriptors on besides the standard streams
    #[arg(long, default_value_t = 0, value_name = "N")]
    preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    create: CreateArgs,
    /// Leave the container running and end
    #[arg(short, long)]
    detach: bool,
    /// Do not remove the container when it ends
    #[arg(long)]
    keep: bool,
    /// Do not adopt what the container leaves behind
    #[arg(long)]
    no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// The container
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// The signal, by name or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The container
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// Kill it if it still runs
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    invocation: Invocation<OfProcess>,
    /// Socket that gets the process's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User, and group, by their numbers
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// A further group, by its number
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// File that describes the process as config.json does
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Leave the process running and end
    #[arg(short, long)]
    detach: bool,
    /// File that the process's number is written to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Not supported: SELinux
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Give setuid programs no privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Pass this many descriptors on besides the standard streams
    #[arg(long, default_value_t = 0, value_name = "N")]
    preserve_fds: u32,
    /// Put the process into a control group below the container's
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Join a paused container, too
    #[arg(long)]
    ignore_paused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    format: Form,
    #[command(flatten)]
    invocation: Invocation<OfProcesses>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    format: Form,
    /// Show names alone
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// The container
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// Time between two looks, as in 5s
    #[arg(long, default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Show what is used now, and end
    #[arg(long)]
    stats: bool,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// The container
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// File with linux.resources as JSON; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight at block devices, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Microseconds of a period
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Microseconds of processor time in a period
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Weight against other groups
    #[arg(long)]
    cpu_share: Option<u64>,
    /// Microseconds of a period of real-time scheduling
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Microseconds of real-time scheduling in a period
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// Processors it may use
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Bytes of memory; -1 lifts the limit
    #[arg(long, allow_hyphen_values = true)]
    memory: Option<String>,
    /// Bytes of memory kept under pressure
    #[arg(long, allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Bytes of memory and swap; -1 lifts the limit
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Processes; -1 lifts the limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// Directory that gets config.json
    #[arg(short, long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Not supported: a description for a user without privileges
    #[arg(long)]
    rootless: bool,
}

// === the verbs ===

pub(super) fn create(runtime: &Runtime, args: &CreateArgs, log: &Log) -> Result<u8> {
    tell(log, &runtime.create(&args.container())?);
    Ok(0)
}

pub(super) fn start(runtime: &Runtime, args: &OneArgs, log: &Log) -> Result<u8> {
    tell(log, &runtime.start(&args.id)?);
    Ok(0)
}

pub(super) fn run(runtime: &Runtime, args: &RunArgs, log: &Log) -> Result<u8> {
    let new = args.create.container();
    if args.detach {
        tell(log, &runtime.run_detached(&new)?);
        return Ok(0);
    }
    oci::adopt_orphans(!args.no_subreaper)?;
    runtime.run(&new, args.keep, &|text| log.warning(text))
}

pub(super) fn state(runtime: &Runtime, args: &OneArgs) -> Result<u8> {
    output::raw(pretty(&oci::state(&runtime.root, &args.id)?.json()).as_bytes());
    Ok(0)
}

pub(super) fn kill(runtime: &Runtime, args: &KillArgs) -> Result<u8> {
    let signal: Signal =
        args.signal.parse().map_err(|_| Error::invalid(format!("unknown signal {:?}", args.signal)))?;
    runtime.kill(&args.id, signal, args.all)?;
    Ok(0)
}

pub(super) fn delete(runtime: &Runtime, args: &DeleteArgs, log: &Log) -> Result<u8> {
    tell(log, &runtime.delete(&args.id, args.force)?);
    Ok(0)
}

pub(super) fn exec(runtime: &Runtime, args: &ExecArgs, log: &Log) -> Result<u8> {
    if args.process_label.is_some() {
        return Err(Error::new(Kind::Unsupported, "--process-label is not supported: SELinux"));
    }
    let described = args.process.as_deref().map(read_json).transpose()?;
    if described.is_none() && args.invocation.command.is_empty() {
        return Err(Error::invalid("process args cannot be empty"));
    }
    let new = NewProcess {
        id: args.invocation.place.clone(),
        described,
        args: args.invocation.command.clone(),
        cwd: args.cwd.clone(),
        env: args.env.clone(),
        tty: args.tty,
        user: args.user.as_deref().map(user).transpose()?,
        additional_gids: args.additional_gids.clone(),
        apparmor: args.apparmor.clone(),
        no_new_privileges: args.no_new_privs,
        capabilities: args.cap.clone(),
        cgroup: args.cgroup.clone(),
        ignore_paused: args.ignore_paused,
        detach: args.detach,
        pid_file: args.pid_file.clone(),
        console_socket: args.console_socket.clone(),
        preserve_fds: args.preserve_fds,
    };
    runtime.exec(&new, &|text| log.warning(text))
}

pub(super) fn ps(runtime: &Runtime, args: &PsArgs) -> Result<u8> {
    let pids = runtime.processes(&args.invocation.place)?;
    if args.format == Form::Json {
        output::line(&json!(pids).to_string());
    } else {
        top::show(&crate::engine::processes(&pids), &args.invocation.command)?;
    }
    Ok(0)
}

pub(super) fn list(runtime: &Runtime, args: &ListArgs) -> Result<u8> {
    let views = oci::list(&runtime.root)?;
    if args.quiet {
        views.iter().for_each(|view| output::line(&view.id));
    } else if args.format == Form::Json {
        let all: Vec<Value> = views.iter().map(oci::View::listed).collect();
        output::line(&if all.is_empty() { "null".to_owned() } else { json!(all).to_string() });
    } else {
        let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
        let rows = views.iter().map(|view| {
            let bundle = view.bundle.display().to_string();
            [
                view.id.clone(),
                view.pid.to_string(),
                view.status.word().to_owned(),
                bundle,
                view.created.to_string(),
                view.owner_name(),
            ]
        });
        output::raw(columns(std::iter::once(head).chain(rows)).as_bytes());
    }
    Ok(0)
}

pub(super) fn events(runtime: &Runtime, args: &EventsArgs) -> Result<u8> {
    let mut kills: Option<u64> = None;
    loop {
        let (stats, killed) = match oci::stats(runtime, &args.id) {
            // Its end is the end of its events.
            Err(error) if kills.is_some() && error.kind() == Kind::Conflict => return Ok(0),
            other => other?,
        };
        if kills.is_some_and(|before| killed > before)
            && !output::flushed_line(&json!({"type": "oom", "id": args.id}).to_string())
        {
            return Ok(0);
        }
        kills = Some(killed);
        if !output::flushed_line(&stats.to_string()) || args.stats {
            return Ok(0);
        }
        std::thread::sleep(args.interval);
    }
}

pub(super) fn update(runtime: &Runtime, args: &UpdateArgs, log: &Log) -> Result<u8> {
    let resources = match &args.resources {
        Some(path) => read_json(path)?,
        None => args.resources()?,
    };
    tell(log, &runtime.update(&args.id, &resources)?);
    Ok(0)
}

pub(super) fn spec(args: &SpecArgs) -> Result<u8> {
    if args.rootless {
        return Err(Error::new(Kind::Unsupported, "--rootless is not supported: the runtime needs root"));
    }
    let path = args.bundle.as_deref().unwrap_or(Path::new(".")).join("config.json");
    let mut text = serde_json::to_vec_pretty(&oci::template())
        .map_err(|error| Error::failed("write the description", error))?;
    text.push(b'\n');
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    match file.and_then(|mut file| std::io::Write::write_all(&mut file, &text)) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::conflict("File config.json exists. Remove it first"))
        }
        Err(error) => Err(Error::failed(format!("write {}", path.display()), error)),
        Ok(()) => Ok(0),
    }
}

fn tell(log: &Log, warnings: &[String]) {
    warnings.iter().for_each(|text| log.warning(text));
}

/// Columns at least twelve wide with three spaces between, as runc's.
fn columns(rows: impl Iterator<Item = [String; 6]>) -> String {
    let rows: Vec<[String; 6]> = rows.collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn read_json(path: &Path) -> Result<Value> {
    let failed = |error: std::io::Error| Error::failed(format!("read {}", path.display()), error);
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map_err(failed)?;
    } else {
        text = fs::read(path).map_err(failed)?;
    }
    serde_json::from_slice(&text)
        .map_err(|error| Error::failed(format!("understand {}", path.display()), error))
}

fn user(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |word: &str| {
        word.parse().map_err(|error| Error::failed(format!("parsing {word:?} as int for uid failed"), error))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

fn interval(text: &str) -> std::result::Result<Duration, String> {
    let span: crate::quantity::Span = text.parse().map_err(|error| format!("{error}"))?;
    let duration = span.0;
    if duration.is_zero() { Err("the interval must be greater than 0".to_owned()) } else { Ok(duration) }
}

// === impl CreateArgs, UpdateArgs ===

impl CreateArgs {
    fn container(&self) -> NewContainer {
        NewContainer {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            pid_file: self.pid_file.clone(),
            console_socket: self.console_socket.clone(),
            extras: Extras {
                no_pivot: self.no_pivot,
                no_new_keyring: self.no_new_keyring,
                preserve_fds: self.preserve_fds,
            },
        }
    }
}

impl UpdateArgs {
    /// The flags in the form of `linux.resources`.
    fn resources(&self) -> Result<Value> {
        let bytes = |text: &Option<String>| match text.as_deref() {
            None => Ok::<_, Error>(None),
            Some("-1") => Ok(Some(json!(-1))),
            Some(text) => {
                let size: ByteSize =
                    text.parse().map_err(|_| Error::invalid(format!("invalid value {text:?} of a size")))?;
                Ok(Some(json!(size.0)))
            }
        };
        let group = |entries: Vec<(&str, Option<Value>)>| {
            let said = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
            Value::Object(said.collect::<Map<_, _>>())
        };
        Ok(json!({
            "memory": group(vec![
                ("limit", bytes(&self.memory)?),
                ("reservation", bytes(&self.memory_reservation)?),
                ("swap", bytes(&self.memory_swap)?),
            ]),
            "cpu": group(vec![
                ("shares", self.cpu_share.map(Value::from)),
                ("quota", self.cpu_quota.map(Value::from)),
                ("period", self.cpu_period.map(Value::from)),
                ("realtimeRuntime", self.cpu_rt_runtime.map(Value::from)),
                ("realtimePeriod", self.cpu_rt_period.map(Value::from)),
                ("cpus", self.cpuset_cpus.clone().map(Value::from)),
                ("mems", self.cpuset_mems.clone().map(Value::from)),
            ]),
            "pids": group(vec![("limit", self.pids_limit.map(Value::from))]),
            "blockIO": group(vec![("weight", self.blkio_weight.map(Value::from))]),
        }))
    }
}
