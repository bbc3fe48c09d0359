//! `ps`: the containers of a project.

use std::collections::BTreeSet;

use clap::Args;
use engine::cli::list::{ago, ports_text, status_text, truncated};
use engine::cli::output::METHODS;
use engine::container::record::ContainerRecord;
use engine::container::spec::MountSource;
use engine::container::state::State;
use engine::engine::Container;
use serde_json::{Value as Json, json};

use super::failure::CliError;
use super::list::{containers, of, pairs, rows_as};
use super::session::Session;
use crate::labels;
use crate::output;

/// The flags of `ps`.
#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Print the names of the services
    #[arg(long)]
    services: bool,
    /// Only those in this state; may be given several times
    #[arg(long, value_name = "STATE")]
    status: Vec<String>,
    /// Only those that match: status=STATE
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template
    #[arg(long, default_value = "table")]
    format: String,
    /// Print values whole
    #[arg(long)]
    no_trunc: bool,
    /// Leave out containers of services that are in no file
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    orphans: bool,
    /// The services; all when none is named
    names: Vec<String>,
}

const COLUMNS: [(&str, &str); 7] = [
    ("NAME", "Name"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("SERVICE", "Service"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
];

/// What a container can be.
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// `ps`.
pub(super) fn ps(session: &Session, args: &PsArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.names)?;
    if let Some(unknown) = args.names.iter().find(|name| !project.services.contains_key(*name)) {
        return Err(CliError::Invalid(format!("no such service: {unknown}")));
    }
    let mut states = args.status.clone();
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("status", state)) => states.push(state.to_owned()),
            _ => return Err(CliError::Invalid(format!("invalid filter {filter:?}: status=STATE is needed"))),
        }
    }
    if let Some(unknown) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
        return Err(CliError::Invalid(format!(
            "no container is {unknown:?}: the states are {}",
            STATES.join(", ")
        )));
    }
    let mut containers = containers(session, &project)?;
    containers.retain(|container| {
        let service = of(container, labels::SERVICE);
        let asked = args.names.is_empty() || args.names.iter().any(|name| name == service);
        let known = args.orphans || project.services.contains_key(service);
        let alive = matches!(container.state, State::Running(_) | State::Restarting(_));
        let shown = if states.is_empty() {
            args.all || alive
        } else {
            states.iter().any(|state| state == container.state.word())
        };
        asked && known && shown
    });
    if args.quiet {
        containers.iter().for_each(|container| output::line(container.id().as_str()));
    } else if args.services {
        let services: BTreeSet<&str> =
            containers.iter().map(|container| of(container, labels::SERVICE)).collect();
        services.iter().for_each(|service| output::line(service));
    } else {
        let rows: Vec<Json> = containers.iter().map(|container| row(container, args.no_trunc)).collect();
        rows_as(&args.format, &COLUMNS, &rows)?;
    }
    Ok(0)
}

/// A container as a template sees it, with docker's names.
fn row(container: &Container, whole: bool) -> Json {
    let record = &container.record;
    let (exit, health) = match &container.state {
        State::Exited(exit) | State::Restarting(exit) => (exit.code, String::new()),
        State::Running(running) => {
            (0, running.health.as_ref().map(|health| health.status.to_string()).unwrap_or_default())
        }
        _ => (0, String::new()),
    };
    let mut ports: Vec<_> = container.ports.iter().collect();
    ports.sort_by_key(|port| (port.container.port, port.container.protocol.to_string(), port.host_ip));
    let publishers: Vec<Json> = ports
        .into_iter()
        .map(|port| {
            json!({
                "URL": port.host_ip.to_string(),
                "TargetPort": port.container.port,
                "PublishedPort": port.host_port,
                "Protocol": port.container.protocol.to_string(),
            })
        })
        .collect();
    let (mut mounts, mut volumes) = (Vec::new(), 0);
    for mount in &record.spec.mounts {
        match &mount.source {
            MountSource::Bind { path, .. } => mounts.push(path.display().to_string()),
            MountSource::Volume { name: Some(name), .. } => {
                volumes += 1;
                mounts.push(name.to_string());
            }
            _ => {}
        }
    }
    json!({
        "Command": format!("{:?}", command(record, whole)),
        "CreatedAt": record.created.to_string(),
        "ExitCode": exit,
        "Health": health,
        "ID": if whole { container.id().as_str() } else { container.id().short() },
        "Image": record.spec.image,
        "Labels": pairs(&record.spec.labels),
        "LocalVolumes": volumes.to_string(),
        "Mounts": mounts.join(","),
        "Name": container.name().as_str(),
        "Names": container.name().as_str(),
        "Networks": record.spec.network.names().join(","),
        "Ports": ports_text(container),
        "Project": of(container, labels::PROJECT),
        "Publishers": publishers,
        "RunningFor": format!("{} ago", ago(record.created)),
        "Service": of(container, labels::SERVICE),
        "Size": "0B",
        "State": container.state.word(),
        "Status": status_text(&container.state),
        METHODS: { "Label": record.spec.labels },
    })
}

/// A command line, cut after twenty characters unless it is to be shown whole.
fn command(record: &ContainerRecord, whole: bool) -> String {
    let command = record.command_line();
    if whole { command } else { truncated(&command, 20) }
}
