//! `ps`, `ls`, `images`, `volumes`, `top`, `port` and `version`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use engine::cli::list::{ago, host_side, ports_text, status_text};
use engine::container::spec::{MountSource, Protocol};
use engine::container::state::State;
use engine::engine::Container;
use engine::quantity::ByteSize;
use serde_json::{Value as Json, json};

use super::failure::CliError;
use super::session::{Session, Wanted};
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
    /// table or json
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

/// The flags of `ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
    /// Only those whose name matches: name=TEXT
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
}

/// The flags of `images`.
#[derive(Debug, Args)]
pub(super) struct ImagesArgs {
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `volumes`.
#[derive(Debug, Args)]
pub(super) struct VolumesArgs {
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
}

/// The flags of `top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The services; all when none is named
    services: Vec<String>,
}

/// The flags of `port`.
#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// tcp or udp
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "udp", "sctp"])]
    protocol: String,
    /// Which of the service's containers
    #[arg(long)]
    index: Option<u32>,
    /// The service
    service: String,
    /// The port in the container
    port: u16,
}

/// The flags of `version`.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// The number alone
    #[arg(long)]
    short: bool,
    /// pretty or json
    #[arg(short, long, default_value = "pretty")]
    format: String,
}

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
    let mut containers = containers(session, Some(&project.name))?;
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
    } else if args.format == "json" {
        containers.iter().for_each(|container| output::line(&row(container).to_string()));
    } else {
        let rows: Vec<Vec<String>> =
            containers.iter().map(|container| cells(container, args.no_trunc)).collect();
        output::table(&["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"], &rows);
    }
    Ok(0)
}

fn cells(container: &Container, whole: bool) -> Vec<String> {
    let command = container.record.argv.join(" ");
    let command = if whole || command.chars().count() <= 20 {
        command
    } else {
        command.chars().take(19).chain(['…']).collect()
    };
    vec![
        container.name().to_string(),
        container.record.spec.image.clone(),
        format!("{command:?}"),
        of(container, labels::SERVICE).to_owned(),
        format!("{} ago", ago(container.created())),
        status_text(&container.state),
        ports_text(container),
    ]
}

fn row(container: &Container) -> Json {
    let record = &container.record;
    let (exit, health) = match &container.state {
        State::Exited(exit) | State::Restarting(exit) => (exit.code, String::new()),
        State::Running(running) => {
            (0, running.health.as_ref().map(|health| health.status.to_string()).unwrap_or_default())
        }
        _ => (0, String::new()),
    };
    let publishers: Vec<Json> = container
        .ports
        .iter()
        .map(|port| {
            json!({
                "URL": port.host_ip.to_string(),
                "TargetPort": port.container.port,
                "PublishedPort": port.host_port,
                "Protocol": port.container.protocol.to_string(),
            })
        })
        .collect();
    let labels: Vec<String> =
        record.spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
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
        "Command": format!("{:?}", record.argv.join(" ")),
        "CreatedAt": record.created.to_string(),
        "ExitCode": exit,
        "Health": health,
        "ID": container.id().short(),
        "Image": record.spec.image,
        "Labels": labels.join(","),
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
    })
}

/// `ls`.
pub(super) fn ls(session: &Session, args: &LsArgs) -> Result<u8, CliError> {
    let mut projects: BTreeMap<String, (BTreeMap<&'static str, usize>, String)> = BTreeMap::new();
    let all = containers(session, None)?;
    for container in &all {
        let name = of(container, labels::PROJECT);
        if name.is_empty() || of(container, labels::ONE_OFF) == "True" {
            continue;
        }
        let files = of(container, labels::CONFIG_FILES).to_owned();
        let (states, known) = projects.entry(name.to_owned()).or_default();
        *states.entry(container.state.word()).or_default() += 1;
        *known = files;
    }
    let named = |name: &str| {
        args.filter.iter().all(|filter| filter.strip_prefix("name=").is_none_or(|text| name.contains(text)))
    };
    projects.retain(|name, (states, _)| named(name) && (args.all || states.contains_key("running")));
    let status = |states: &BTreeMap<&str, usize>| {
        states.iter().map(|(state, count)| format!("{state}({count})")).collect::<Vec<_>>().join(", ")
    };
    if args.quiet {
        projects.keys().for_each(|name| output::line(name));
    } else if args.format == "json" {
        let rows: Vec<Json> = projects
            .iter()
            .map(|(name, (states, files))| {
                json!({ "Name": name, "Status": status(states), "ConfigFiles": files })
            })
            .collect();
        output::line(&Json::Array(rows).to_string());
    } else {
        let rows: Vec<Vec<String>> = projects
            .iter()
            .map(|(name, (states, files))| vec![name.clone(), status(states), files.clone()])
            .collect();
        output::table(&["NAME", "STATUS", "CONFIG FILES"], &rows);
    }
    Ok(0)
}

/// `images`.
pub(super) fn images(session: &Session, args: &ImagesArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.services)?;
    let engine = session.engine()?;
    let mut rows = Vec::new();
    for container in containers(session, Some(&project.name))? {
        let service = of(&container, labels::SERVICE);
        if !args.services.is_empty() && !args.services.iter().any(|name| name == service) {
            continue;
        }
        let image = engine.images().get(container.image().as_str()).map_err(engine::Error::from)?;
        let reference = container.record.spec.image.parse::<engine::image::Reference>().ok();
        let repository = reference.as_ref().map(engine::image::Reference::familiar_name).unwrap_or_default();
        let tag = reference.as_ref().and_then(|reference| reference.tag()).unwrap_or("latest").to_owned();
        rows.push((container.name().to_string(), repository, tag, image));
    }
    if args.quiet {
        let ids: BTreeSet<&str> = rows.iter().map(|(.., image)| image.id.hex()).collect();
        ids.iter().for_each(|id| output::line(id));
    } else if args.format == "json" {
        let rows: Vec<Json> = rows
            .iter()
            .map(|(name, repository, tag, image)| {
                json!({
                    "ID": image.id.as_str(),
                    "ContainerName": name,
                    "Repository": repository,
                    "Tag": tag,
                    "Platform": format!("{}/{}", image.config.os, image.config.architecture),
                    "Size": image.size,
                    "Created": image.config.created,
                })
            })
            .collect();
        output::line(&Json::Array(rows).to_string());
    } else {
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|(name, repository, tag, image)| {
                let platform = format!("{}/{}", image.config.os, image.config.architecture);
                vec![
                    name,
                    repository,
                    tag,
                    platform,
                    image.id.short().to_owned(),
                    ByteSize(image.size).to_string(),
                ]
            })
            .collect();
        output::table(&["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE"], &rows);
    }
    Ok(0)
}

/// `volumes`.
pub(super) fn volumes(session: &Session, args: &VolumesArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&[])?;
    let mut all = session.engine()?.volumes().list().map_err(engine::Error::from)?;
    all.retain(|volume| labels::belongs_to(&volume.labels, &project.name));
    if args.quiet {
        all.iter().for_each(|volume| output::line(volume.name.as_str()));
    } else if args.format == "json" {
        all.iter().for_each(|volume| {
            output::line(&json!({ "Driver": "local", "Name": volume.name.as_str() }).to_string());
        });
    } else {
        let rows: Vec<Vec<String>> =
            all.iter().map(|volume| vec!["local".to_owned(), volume.name.to_string()]).collect();
        output::table(&["DRIVER", "VOLUME NAME"], &rows);
    }
    Ok(0)
}

/// `top`.
pub(super) fn top(session: &Session, args: &TopArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.services)?;
    let engine = session.engine()?;
    for container in containers(session, Some(&project.name))? {
        let service = of(&container, labels::SERVICE);
        let asked = args.services.is_empty() || args.services.iter().any(|name| name == service);
        if !asked || !container.state.is_running() {
            continue;
        }
        output::line(container.name().as_str());
        let rows: Vec<Vec<String>> = engine
            .top(container.id())?
            .into_iter()
            .map(|process| {
                vec![
                    process.user,
                    process.pid.to_string(),
                    process.parent.to_string(),
                    process.started,
                    process.terminal,
                    process.time,
                    process.command,
                ]
            })
            .collect();
        output::table(&["UID", "PID", "PPID", "STIME", "TTY", "TIME", "CMD"], &rows);
        output::line("");
    }
    Ok(0)
}

/// `port`.
pub(super) fn port(session: &Session, args: &PortArgs) -> Result<u8, CliError> {
    let opened = session.open(Wanted { services: vec![args.service.clone()], ..Wanted::default() })?;
    let protocol = match args.protocol.as_str() {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let all = containers(session, Some(&opened.project().name))?;
    let index = args.index.map(|index| index.to_string());
    let container = all
        .iter()
        .filter(|container| of(container, labels::SERVICE) == args.service && container.state.is_running())
        .find(|container| index.as_deref().is_none_or(|index| of(container, labels::NUMBER) == index))
        .ok_or_else(|| CliError::Invalid(format!("service {:?} is not running", args.service)))?;
    let published = container
        .ports
        .iter()
        .find(|port| port.container.port == args.port && port.container.protocol == protocol);
    match published {
        Some(port) => output::line(&host_side(port)),
        None => {
            let known = ports_text(container);
            let known = if known.is_empty() { "none".to_owned() } else { known };
            return Err(CliError::Invalid(format!(
                "no port {}/{} for container {}: {known}",
                args.port,
                args.protocol,
                container.name()
            )));
        }
    }
    Ok(0)
}

/// `version`.
pub(super) fn version(args: &VersionArgs) -> Result<u8, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    match (args.short, args.format.as_str()) {
        (true, _) => output::line(version),
        (false, "json") => output::line(&json!({ "version": version }).to_string()),
        (false, _) => output::line(&format!("rcompose version {version}")),
    }
    Ok(0)
}

/// The containers of a project, of every one when none is named, by name.
fn containers(session: &Session, project: Option<&str>) -> Result<Vec<Container>, CliError> {
    let mut all = session.engine()?.containers()?;
    all.retain(|container| {
        project.is_none_or(|project| labels::belongs_to(&container.record.spec.labels, project))
    });
    all.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    Ok(all)
}

fn of<'a>(container: &'a Container, label: &str) -> &'a str {
    labels::value(&container.record.spec.labels, label)
}
