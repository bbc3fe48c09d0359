//! `ls`, `images`, `volumes`, `top`, `port` and `version`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use engine::cli::list::{ago, host_side, ports_text};
use engine::container::spec::Protocol;
use engine::engine::Container;
use engine::image::Image;
use engine::quantity::ByteSize;
use jiff::Timestamp;
use regex::Regex;
use serde_json::{Value as Json, json};

use super::exec::not_running;
use super::failure::CliError;
use super::session::{Session, Wanted};
use crate::labels;
use crate::model::{Project, ServiceVolume};
use crate::observe::{Life, of_project};
use crate::output;

/// The flags of `ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
    /// Only those whose name matches a regular expression: name=REGEX; one of several is enough
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table or json
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// The flags of `images`.
#[derive(Debug, Args)]
pub(super) struct ImagesArgs {
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// table or json
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
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
    /// table, json, or a template
    #[arg(long, default_value = "table")]
    format: String,
    /// Those that these services mount; all when none is named
    services: Vec<String>,
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

/// `ls`.
pub(super) fn ls(session: &Session, args: &LsArgs) -> Result<u8, CliError> {
    let mut projects: BTreeMap<String, (BTreeMap<&'static str, usize>, String)> = BTreeMap::new();
    let mut all = session.engine()?.containers()?;
    all.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    for container in &all {
        let name = of(container, labels::PROJECT);
        if name.is_empty() || of(container, labels::ONE_OFF) == "True" {
            continue;
        }
        if !args.all && !Life::of(&container.state).is_up() {
            continue;
        }
        let files = of(container, labels::CONFIG_FILES).to_owned();
        let (states, known) = projects.entry(name.to_owned()).or_default();
        *states.entry(container.state.word()).or_default() += 1;
        *known = files;
    }
    let patterns = args.filter.iter().map(|filter| pattern(filter)).collect::<Result<Vec<_>, _>>()?;
    let named = |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| pattern.is_match(name));
    projects.retain(|name, _| named(name));
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
        output::table(output::WIDE, &["NAME", "STATUS", "CONFIG FILES"], &rows);
    }
    Ok(0)
}

/// The regular expression of a filter for names.
fn pattern(filter: &str) -> Result<Regex, CliError> {
    let invalid = |why: &str| CliError::Invalid(format!("invalid filter {filter:?}: {why}"));
    let text = filter.strip_prefix("name=").ok_or_else(|| invalid("name=REGEX is needed"))?;
    Regex::new(text).map_err(|error| invalid(&error.to_string()))
}

/// `images`.
pub(super) fn images(session: &Session, args: &ImagesArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.services)?;
    let engine = session.engine()?;
    let mut rows = Vec::new();
    for container in containers(session, &project)? {
        let service = of(&container, labels::SERVICE);
        if !args.services.is_empty() && !args.services.iter().any(|name| name == service) {
            continue;
        }
        let image = engine.images().get(container.image().as_str()).map_err(engine::Error::from)?;
        let reference = container.record.spec.image.parse::<engine::image::Reference>().ok();
        let repository = reference.as_ref().map(engine::image::Reference::familiar_name).unwrap_or_default();
        let tag = reference.as_ref().and_then(|reference| reference.tag()).unwrap_or("latest").to_owned();
        let tagged = match &reference {
            Some(reference) => engine.images().named_at(reference).map_err(engine::Error::from)?,
            None => None,
        };
        rows.push(Used { container: container.name().to_string(), repository, tag, tagged, image });
    }
    if args.quiet {
        let ids: BTreeSet<&str> = rows.iter().map(|used| used.image.id.hex()).collect();
        ids.iter().for_each(|id| output::line(id));
    } else if args.format == "json" {
        output::line(&rows.iter().map(Used::json).collect::<Json>().to_string());
    } else {
        let rows: Vec<Vec<String>> = rows.into_iter().map(Used::row).collect();
        output::table(
            output::WIDE,
            &["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"],
            &rows,
        );
    }
    Ok(0)
}

/// The image of a container.
struct Used {
    container: String,
    repository: String,
    tag: String,
    /// When the name was last given to the image.
    tagged: Option<Timestamp>,
    image: Image,
}

// === impl Used ===

impl Used {
    fn platform(&self) -> String {
        format!("{}/{}", self.image.config.os, self.image.config.architecture)
    }

    fn json(&self) -> Json {
        json!({
            "ID": self.image.id.as_str(),
            "ContainerName": self.container,
            "Repository": self.repository,
            "Tag": self.tag,
            "Platform": self.platform(),
            "Size": self.image.size,
            "Created": self.image.config.created,
            "LastTagTime": self.tagged,
        })
    }

    fn row(self) -> Vec<String> {
        let platform = self.platform();
        let created = self.image.created().map_or_else(|| "N/A".to_owned(), |at| format!("{} ago", ago(at)));
        let (id, size) = (self.image.id.short().to_owned(), ByteSize(self.image.size).to_string());
        vec![self.container, self.repository, self.tag, platform, id, size, created]
    }
}

/// `volumes`.
pub(super) fn volumes(session: &Session, args: &VolumesArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.services)?;
    let mounted = mounted(&project, &args.services)?;
    let mut all = session.engine()?.volumes().list().map_err(engine::Error::from)?;
    all.retain(|volume| {
        labels::belongs_to(&volume.labels, &project.name)
            && mounted
                .as_ref()
                .is_none_or(|keys| keys.contains(labels::value(&volume.labels, labels::VOLUME)))
    });
    if args.quiet {
        all.iter().for_each(|volume| output::line(volume.name.as_str()));
    } else {
        let rows: Vec<Json> = all.iter().map(engine::cli::volume::row).collect();
        rows_as(&args.format, &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")], &rows)?;
    }
    Ok(0)
}

/// The volumes that some services mount; `None` when no service is named.
fn mounted<'a>(project: &'a Project, services: &[String]) -> Result<Option<BTreeSet<&'a str>>, CliError> {
    if services.is_empty() {
        return Ok(None);
    }
    let mut keys = BTreeSet::new();
    for name in services {
        let unknown = || CliError::Invalid(format!("no such service: {name}"));
        let service = project.services.get(name).ok_or_else(unknown)?;
        keys.extend(service.volumes.iter().filter_map(|volume| match volume {
            ServiceVolume::Volume { source: Some(key), .. } => Some(key.as_str()),
            _ => None,
        }));
    }
    Ok(Some(keys))
}

/// `top`.
pub(super) fn top(session: &Session, args: &TopArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.services)?;
    let engine = session.engine()?;
    let mut rows = Vec::new();
    for container in containers(session, &project)? {
        let service = of(&container, labels::SERVICE);
        let asked = args.services.is_empty() || args.services.iter().any(|name| name == service);
        if !asked || !container.state.is_running() {
            continue;
        }
        let number = of(&container, labels::NUMBER);
        rows.extend(engine.top(container.id())?.into_iter().map(|process| {
            vec![
                service.to_owned(),
                number.to_owned(),
                process.user,
                process.pid.to_string(),
                process.parent.to_string(),
                format!("{:.0}", process.cpu_percent),
                process.started,
                process.terminal,
                process.time,
                process.command,
            ]
        }));
    }
    if !rows.is_empty() {
        output::table(
            output::TIGHT,
            &["SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
            &rows,
        );
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
    let all = containers(session, opened.project())?;
    let index = args.index.map(|index| index.to_string());
    let container = all
        .iter()
        .filter(|container| of(container, labels::SERVICE) == args.service && container.state.is_running())
        .find(|container| index.as_deref().is_none_or(|index| of(container, labels::NUMBER) == index))
        .ok_or_else(|| not_running(&args.service, args.index))?;
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

/// The containers of a project, by name.
pub(super) fn containers(session: &Session, project: &Project) -> Result<Vec<Container>, CliError> {
    let mut all = of_project(&session.engine()?, &project.name, project.home.as_deref())?;
    all.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    Ok(all)
}

/// A label of a container; empty when it is missing.
pub(super) fn of<'a>(container: &'a Container, label: &str) -> &'a str {
    labels::value(&container.record.spec.labels, label)
}

/// `key=value` of labels, separated by commas.
pub(super) fn pairs(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Rows as `--format` asks for them.
pub(super) fn rows_as(format: &str, columns: &[(&str, &str)], rows: &[Json]) -> Result<(), CliError> {
    Ok(engine::cli::output::rows(Some(format), columns, rows)?)
}
