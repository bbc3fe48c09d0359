//! `ps`: containers as rows.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::output;
use crate::container::spec::{ContainerPort, MountSource};
use crate::container::state::{HealthStatus, State};
use crate::engine::{Container, Engine};
use crate::error::{Error, Result};
use crate::network::ports::PublishedPort;
use crate::quantity::ByteSize;
use crate::store;

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
    /// Only those that match: name, id, label, status, ancestor, volume, network, health, exited, publish
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
    /// The newest N, whatever their state
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
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

/// Lists containers.
pub fn ps(engine: &Engine, args: &PsArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter)?;
    let last = args.last.or(args.latest.then_some(1));
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
    let command = record.argv.join(" ");
    let shown = if args.no_trunc { command } else { truncated(&command, 20) };
    let id = if args.no_trunc { container.id().as_str() } else { container.id().short() };
    let size =
        args.size.then(|| ByteSize(store::tree_size(&container.directory(engine.root()).join("upper"))));
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
    json!({
        "Command": format!("{shown:?}"),
        "CreatedAt": record.created.to_string(),
        "ID": id,
        "Image": record.spec.image,
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "Names": container.name().as_str(),
        "Networks": record.spec.network.names().join(","),
        "Ports": ports_text(container),
        "RunningFor": format!("{} ago", ago(record.created)),
        "Size": size.map_or_else(|| "0B".to_owned(), |size| size.to_string()),
        "State": container.state.word(),
        "Status": status_text(&container.state),
    })
}

fn truncated(text: &str, length: usize) -> String {
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

/// The ports of a container as `ps` prints them: published ones, then those only exposed.
pub fn ports_text(container: &Container) -> String {
    if !container.state.is_running() {
        return String::new();
    }
    let mut published: BTreeMap<ContainerPort, Vec<String>> = BTreeMap::new();
    for port in &container.ports {
        published.entry(port.container).or_default().push(format!("{}->{}", host_side(port), port.container));
    }
    for port in &container.record.spec.expose {
        published.entry(*port).or_insert_with(|| vec![port.to_string()]);
    }
    published.into_values().flatten().collect::<Vec<_>>().join(", ")
}

/// `0.0.0.0:8080` or `[::]:8080`.
pub fn host_side(port: &PublishedPort) -> String {
    std::net::SocketAddr::new(port.host_ip, port.host_port).to_string()
}

/// What `--filter` asks for: all keys must match, any value of a key may.
struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    const KEYS: [&str; 11] = [
        "name", "id", "label", "status", "ancestor", "volume", "network", "health", "exited", "publish",
        "expose",
    ];

    fn parse(texts: &[String]) -> Result<Self> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in texts {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Error::invalid(format!("invalid filter {text:?}: key=value is needed")))?;
            if !Self::KEYS.contains(&key) {
                return Err(Error::invalid(format!("invalid filter '{key}'"))
                    .with_hint(format!("known filters are {}", Self::KEYS.join(", "))));
            }
            filters.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        Ok(Self(filters))
    }

    fn names_a_state(&self) -> bool {
        self.0.contains_key("status") || self.0.contains_key("exited")
    }

    fn match_all(&self, container: &Container) -> bool {
        self.0.iter().all(|(key, values)| match key.as_str() {
            // Labels must all be there; of any other key one value is enough.
            "label" => values.iter().all(|value| matches(container, key, value)),
            _ => values.iter().any(|value| matches(container, key, value)),
        })
    }
}

fn matches(container: &Container, key: &str, value: &str) -> bool {
    let spec = &container.record.spec;
    let named = |port: &ContainerPort| port.to_string() == value || port.port.to_string() == value;
    match key {
        "name" => {
            container.name().as_str().contains(value.trim_start_matches(['/', '^']).trim_end_matches('$'))
        }
        "id" => container.id().as_str().starts_with(value),
        "label" => match value.split_once('=') {
            Some((key, wanted)) => spec.labels.get(key).is_some_and(|value| value == wanted),
            None => spec.labels.contains_key(value),
        },
        "status" => container.state.word() == value,
        "ancestor" => {
            spec.image == value || container.image().hex().starts_with(value.trim_start_matches("sha256:"))
        }
        "volume" => spec.mounts.iter().any(|mount| match &mount.source {
            MountSource::Volume { name: Some(name), .. } if name.as_str() == value => true,
            _ => mount.target == Path::new(value),
        }),
        "network" => spec.network.names().iter().any(|name| name == value),
        "health" => match &container.state {
            State::Running(running) => {
                running.health.as_ref().map_or("none".to_owned(), |health| health.status.to_string()) == value
            }
            _ => value == "none",
        },
        "exited" => matches!(&container.state, State::Exited(exit) if exit.code.to_string() == value),
        "publish" => container.ports.iter().any(|port| named(&port.container)),
        "expose" => spec.expose.iter().any(named),
        _ => false,
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
