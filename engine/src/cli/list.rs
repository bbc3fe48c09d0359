//! `ps`: containers as rows.

mod filter;
mod ports;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::output;
use crate::container::spec::{MountSource, MountSpec};
use crate::container::state::{HealthStatus, State};
use crate::engine::{Container, Engine};
use crate::error::Result;
use crate::quantity::ByteSize;

pub(super) use filter::Filters;
pub use ports::{host_side, ports_text};

/// The flags of `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Print values whole
    #[arg(long)]
    no_trunc: bool,
    /// Only those that match: ancestor, before, exited, expose, health, id, label, name, network, publish, since, status, volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
    /// The newest N, whatever their state; those that run when it is negative
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<isize>,
    /// The newest one, whatever its state
    #[arg(short, long)]
    latest: bool,
    /// Sizes too
    #[arg(short, long)]
    size: bool,
}

const COLUMNS: [(&str, &str); 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

impl PsArgs {
    /// A template that shows them asks for them; nobody else waits until they are counted.
    fn wants_sizes(&self) -> bool {
        self.size || self.format.as_ref().is_some_and(|format| format.contains(".Size"))
    }
}

/// Lists containers.
pub fn ps(engine: &Engine, args: &PsArgs) -> Result<u8> {
    engine.damaged()?.iter().for_each(|finding| output::warning(finding));
    let filters = Filters::of_listing(engine, &args.filter)?;
    let last = args.last.and_then(|count| usize::try_from(count).ok()).or(args.latest.then_some(1));
    let everything = args.all || last.is_some() || filters.names_a_state();
    let containers: Vec<Container> = engine
        .containers()?
        .into_iter()
        .filter(|container| everything || container.state.is_running())
        .take(last.unwrap_or(usize::MAX))
        .filter(|container| filters.match_all(container))
        .collect();
    if args.quiet {
        for container in &containers {
            output::line(if args.no_trunc { container.id().as_str() } else { container.id().short() });
        }
        return Ok(0);
    }
    let rows: Vec<Value> = containers.iter().map(|container| row(engine, container, args)).collect();
    let mut columns = COLUMNS.to_vec();
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(0)
}

fn row(engine: &Engine, container: &Container, args: &PsArgs) -> Value {
    let record = &container.record;
    let command = record.command_line();
    let shown = if args.no_trunc { command } else { truncated(&command, 20) };
    let id = if args.no_trunc { container.id().as_str() } else { container.id().short() };
    let size = args.wants_sizes().then(|| size_text(engine, container));
    let labels: Vec<String> =
        record.spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mounts: Vec<String> = record
        .spec
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Bind { path, .. } => Some(path.display().to_string()),
            MountSource::Volume { name, .. } => name.as_ref().map(ToString::to_string),
            _ => None,
        })
        .collect();
    let is_volume = |mount: &&MountSpec| matches!(mount.source, MountSource::Volume { .. });
    let local_volumes = record.spec.mounts.iter().filter(is_volume).count();
    json!({
        "Command": format!("{shown:?}"),
        "CreatedAt": record.created.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        "ID": id,
        "Image": record.spec.image,
        "Labels": labels.join(","),
        "LocalVolumes": local_volumes.to_string(),
        "Mounts": mounts.join(","),
        "Names": container.name().as_str(),
        "Networks": record.spec.network.names().join(","),
        "Ports": ports_text(container),
        "RunningFor": format!("{} ago", ago(record.created)),
        "Size": size.unwrap_or_else(|| "0B".to_owned()),
        "State": container.state.word(),
        "Status": status_text(&container.state),
        // What `{{.Label "key"}}` looks into.
        output::METHODS: { "Label": record.spec.labels },
    })
}

/// What a container wrote, and all it sees: `12B (virtual 1.98MB)`.
fn size_text(engine: &Engine, container: &Container) -> String {
    let own = engine.writable_size(container);
    let image = engine.images().get(container.image().as_str()).map_or(0, |image| image.size);
    format!("{} (virtual {})", ByteSize(own), ByteSize(own + image))
}

/// As much of a text as a column of this width shows.
pub fn truncated(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}

/// Docker's words for a state: `Up 2 minutes (healthy)`, `Exited (0) 3 seconds ago`.
pub fn status_text(state: &State) -> String {
    match state {
        State::Created => "Created".to_owned(),
        State::Running(running) => {
            let health = match running.health.as_ref().map(|health| health.status) {
                None => "",
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
            };
            let paused = if running.paused { " (Paused)" } else { health };
            format!("Up {}{paused}", ago(running.started))
        }
        State::Restarting(exit) => format!("Restarting ({}) {} ago", exit.code, ago(exit.finished)),
        State::Exited(exit) if exit.started.is_none() => "Created".to_owned(),
        State::Exited(exit) => format!("Exited ({}) {} ago", exit.code, ago(exit.finished)),
        State::Removing => "Removal In Progress".to_owned(),
    }
}

/// Docker's words for a length of time: `Less than a second`, `5 minutes`, `About an hour`.
pub fn ago(since: Timestamp) -> String {
    let seconds = (Timestamp::now().as_second() - since.as_second()).max(0);
    let several = |count: i64, unit: &str| format!("{count} {unit}");
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => several(seconds, "seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => several(seconds / 60, "minutes"),
        3600..5400 => "About an hour".to_owned(),
        5400..172_800 => several((seconds + 1800) / 3600, "hours"),
        172_800..1_209_600 => several(seconds / 86_400, "days"),
        1_209_600..5_184_000 => several(seconds / 604_800, "weeks"),
        5_184_000..63_072_000 => several(seconds / 2_592_000, "months"),
        _ => several(seconds / 31_536_000, "years"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_words() {
        let before = |seconds: i64| {
            Timestamp::from_second(Timestamp::now().as_second() - seconds).map(ago).unwrap_or_default()
        };
        assert_eq!(before(30), "30 seconds");
        assert_eq!(before(90), "About a minute");
        assert_eq!(before(3700), "About an hour");
        assert_eq!(before(3 * 86_400), "3 days");
    }

    #[test]
    fn long_commands_are_cut() {
        assert_eq!(truncated("short", 20), "short");
        assert_eq!(truncated("a command that goes on", 20), "a command that goes…");
    }
}
