//! From a service of the model to the specification of one of its containers. Pure: files to be written and
//! containers to be found are handed in or back.

mod devices;
mod files;
mod limits;
mod mounts;
mod network;
mod security;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use engine::container::merge::{expand_exposed, probe_command};
use engine::container::spec::{
    ContainerPort, ContainerSpec, DnsSpec, Grace, HealthCheck, LogSpec, NamespaceMode, ProcessSpec,
    RestartPace, RestartPolicy,
};
use engine::id::{ContainerId, ContainerName, ImageId, VolumeName};
use engine::image::config::RunConfig;
use engine::quantity::Span;

pub use files::ContentFile;
pub use mounts::anonymous;

use crate::model::{self, Condition, Project, Service};
use crate::{home, labels};

/// What a container's specification is made from besides its service.
#[derive(Debug, Clone)]
pub struct Circumstances<'a> {
    /// The container's name.
    pub name: &'a str,
    /// Which of the service's containers it is.
    pub number: u32,
    /// The image's name.
    pub image: &'a str,
    /// The image.
    pub image_id: &'a ImageId,
    /// The image's configuration.
    pub image_config: &'a RunConfig,
    /// The hash of the service's definition.
    pub config_hash: &'a str,
    /// The label that tells what its secrets and configurations held.
    pub contents_label: &'a str,
    /// What tells a container made by `run` apart; `None` for all others.
    pub slug: Option<&'a str>,
    /// The container it takes the place of.
    pub replaces: Option<&'a str>,
    /// The containers that `service:…` and `container:…` mean, by that text.
    pub parents: &'a BTreeMap<String, ContainerId>,
    /// The anonymous volumes it takes over, by where they were mounted.
    pub inherited: &'a BTreeMap<PathBuf, VolumeName>,
    /// Where contents that no file of the user's holds are written, on tmpfs.
    pub contents: &'a Path,
}

/// A specification and what has to be there before a container can be made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// The specification.
    pub spec: ContainerSpec,
    /// Files to write first.
    pub files: Vec<ContentFile>,
}

/// A value of a service that no container can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service {service}: {key}: {problem}")]
pub struct TranslateError {
    /// The service.
    pub service: String,
    /// The key.
    pub key: &'static str,
    /// What is wrong with its value.
    pub problem: String,
}

/// The names by which other containers are meant: `service:db` and the like, in all keys that have them.
pub fn parents(service: &Service) -> Vec<String> {
    let modes = [&service.network_mode, &service.pid, &service.ipc, &service.uts, &service.cgroup];
    let mut names: Vec<String> = modes
        .into_iter()
        .flatten()
        .filter(|mode| mode.starts_with("service:") || mode.starts_with("container:"))
        .cloned()
        .collect();
    names.extend(service.volumes_from.iter().map(|from| mounts::volumes_from_parent(from)));
    let linked = service.external_links.iter().map(|link| external_link(link).0);
    names.extend(linked.map(|container| format!("container:{container}")));
    names.sort();
    names.dedup();
    names
}

/// The specification of one container of the service.
///
/// # Errors
/// When a value makes no sense to the engine, or a variable that holds a secret is not set.
pub fn container(
    project: &Project,
    service: &Service,
    around: &Circumstances<'_>,
) -> Result<Translated, TranslateError> {
    let of = Of { service };
    let (file_mounts, files) = files::mounts(project, &of, around)?;
    let mut spec = ContainerSpec {
        name: Some(around.name.parse::<ContainerName>().map_err(|error| of.wrong("container_name", &error))?),
        image: around.image.to_owned(),
        process: process(service, around.image_config),
        labels: container_labels(project, service, around),
        annotations: service.annotations.clone(),
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        network: network::mode(project, &of, around)?,
        ports: network::ports(&of)?,
        expose: expose(&of)?,
        dns: dns(&of, around)?,
        mounts: mounts::mounts(project, &of, around)?,
        volumes_from: mounts::volumes_from(&of, around)?,
        read_only: service.read_only,
        init: service.init.unwrap_or_default(),
        pid: namespace(&of, "pid", service.pid.as_deref(), around)?,
        ipc: namespace(&of, "ipc", service.ipc.as_deref(), around)?,
        uts: namespace(&of, "uts", service.uts.as_deref(), around)?,
        cgroupns: namespace(&of, "cgroup", service.cgroup.as_deref(), around)?,
        userns: security::users(&of)?,
        security: security::security(&of)?,
        sysctls: service.sysctls.clone(),
        ulimits: limits::ulimits(service),
        shm_size: Some(service.shm_size).filter(|size| size.0 > 0),
        oom_score_adj: Some(service.oom_score_adj as i32).filter(|adjustment| *adjustment != 0),
        resources: limits::resources(service),
        cgroup_parent: service.cgroup_parent.as_ref().map(PathBuf::from),
        restart: restart(service),
        restart_pace: restart_pace(service),
        stop_signal: match &service.stop_signal {
            Some(signal) => Some(signal.parse().map_err(|error| of.wrong("stop_signal", &error))?),
            None => None,
        },
        stop_timeout: service.stop_grace_period.map(Grace::Limited),
        healthcheck: healthcheck(service, around.image_config),
        log: log(service),
        platform: project.platform(service).cloned(),
        ..ContainerSpec::default()
    };
    devices::give(&of, &mut spec)?;
    spec.mounts.extend(file_mounts);
    Ok(Translated { spec, files })
}

/// The service whose value is at fault.
struct Of<'a> {
    service: &'a Service,
}

impl Of<'_> {
    fn wrong(&self, key: &'static str, problem: &dyn Display) -> TranslateError {
        TranslateError { service: self.service.name.clone(), key, problem: problem.to_string() }
    }
}

fn process(service: &Service, image: &RunConfig) -> ProcessSpec {
    let empties_command = service.command.as_ref().is_some_and(Vec::is_empty);
    ProcessSpec {
        // An entrypoint of one's own is what drops the image's command.
        entrypoint: match &service.entrypoint {
            None if empties_command => image.entrypoint.clone(),
            other => other.clone(),
        },
        command: service.command.clone(),
        env: service
            .environment
            .iter()
            .map(|(key, value)| match value {
                Some(value) => format!("{key}={value}"),
                None => key.clone(),
            })
            .collect(),
        user: service.user.clone(),
        group_add: service.group_add.clone(),
        working_dir: service.working_dir.as_ref().map(PathBuf::from),
        tty: service.tty,
        open_stdin: service.stdin_open,
        stdin_once: false,
    }
}

fn container_labels(
    project: &Project,
    service: &Service,
    around: &Circumstances<'_>,
) -> BTreeMap<String, String> {
    let dependencies: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, dependency)| {
            let condition = match dependency.condition {
                Condition::Started => "service_started",
                Condition::Healthy => "service_healthy",
                Condition::CompletedSuccessfully => "service_completed_successfully",
            };
            format!("{name}:{condition}:{}", dependency.restart)
        })
        .collect();
    let one_off = if around.slug.is_some() { "True" } else { "False" };
    let mut all = service.labels.clone();
    let ours = [
        (labels::PROJECT, project.name.clone()),
        (labels::SERVICE, service.name.clone()),
        (labels::ONE_OFF, one_off.to_owned()),
        (labels::CONFIG_HASH, around.config_hash.to_owned()),
        (labels::IMAGE, around.image_id.to_string()),
        (labels::DEPENDS_ON, dependencies.join(",")),
        (labels::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    all.extend(
        ours.into_iter().chain(home::labels_of(project)).map(|(label, value)| (label.to_owned(), value)),
    );
    if !around.contents_label.is_empty() {
        all.insert(labels::CONTENTS.to_owned(), around.contents_label.to_owned());
    }
    match around.slug {
        Some(slug) => all.insert(labels::SLUG.to_owned(), slug.to_owned()),
        None => all.insert(labels::NUMBER.to_owned(), around.number.to_string()),
    };
    if let Some(replaced) = around.replaces {
        all.insert(labels::REPLACE.to_owned(), replaced.to_owned());
    }
    all
}

fn expose(of: &Of<'_>) -> Result<Vec<ContainerPort>, TranslateError> {
    let mut ports = Vec::new();
    for text in &of.service.expose {
        ports.extend(expand_exposed(text).map_err(|error| of.wrong("expose", &error))?);
    }
    Ok(ports)
}

fn dns(of: &Of<'_>, around: &Circumstances<'_>) -> Result<DnsSpec, TranslateError> {
    let service = of.service;
    let mut spec = DnsSpec {
        servers: Vec::new(),
        search: service.dns_search.clone(),
        options: service.dns_opt.clone(),
        extra_hosts: Vec::new(),
        links: Vec::new(),
    };
    for server in &service.dns {
        spec.servers.push(server.parse().map_err(|_| of.wrong("dns", &format!("{server:?} is no address")))?);
    }
    for line in &service.extra_hosts {
        let (name, address) = line
            .split_once('=')
            .or_else(|| line.split_once(':'))
            .ok_or_else(|| of.wrong("extra_hosts", &format!("{line:?} is not name=address")))?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        spec.extra_hosts.push((name.to_owned(), address.to_owned()));
    }
    for link in &service.external_links {
        let (container, alias) = external_link(link);
        let id = around.parents.get(&format!("container:{container}"));
        let id = id.ok_or_else(|| of.wrong("external_links", &format!("no container {container:?}")))?;
        spec.links.push((alias.to_owned(), id.clone()));
    }
    Ok(spec)
}

/// A container outside of the project, and the name this one knows it by: `container[:alias]`.
fn external_link(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, text))
}

fn namespace(
    of: &Of<'_>,
    key: &'static str,
    text: Option<&str>,
    around: &Circumstances<'_>,
) -> Result<NamespaceMode, TranslateError> {
    Ok(match text {
        None | Some("" | "private") => NamespaceMode::Private,
        Some("host") => NamespaceMode::Host,
        Some("shareable") => NamespaceMode::Shareable,
        Some("none") => NamespaceMode::None,
        Some(other) => match around.parents.get(other) {
            Some(parent) => NamespaceMode::Container(parent.clone()),
            None => return Err(of.wrong(key, &format!("no container for {other:?}"))),
        },
    })
}

fn restart(service: &Service) -> RestartPolicy {
    let deployed = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
    let Some(policy) = deployed else { return service.restart.unwrap_or_default() };
    match policy.condition.as_deref() {
        Some("none" | "no") => RestartPolicy::No,
        Some("on-failure") => RestartPolicy::OnFailure(policy.max_attempts.unwrap_or(0) as u32),
        Some("unless-stopped") => RestartPolicy::UnlessStopped,
        _ => RestartPolicy::Always,
    }
}

/// What a deployment says beside the condition. Without an end by itself, `max_attempts` of `any` is one too.
fn restart_pace(service: &Service) -> RestartPace {
    let deployed = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
    let Some(policy) = deployed else { return RestartPace::default() };
    let some = |span: Option<Span>| span.filter(|span| !span.0.is_zero());
    let counted = matches!(restart(service), RestartPolicy::Always | RestartPolicy::UnlessStopped);
    let attempts = if counted { policy.max_attempts.unwrap_or(0) as u32 } else { 0 };
    RestartPace { delay: some(policy.delay), attempts, window: some(policy.window) }
}

/// The check, with what the service leaves unset taken from the image and then from docker's defaults.
fn healthcheck(service: &Service, image: &RunConfig) -> Option<HealthCheck> {
    let check = service.healthcheck.as_ref()?;
    let below = image.healthcheck.clone().unwrap_or_default();
    let or = |own: Option<Span>, below: Span, seconds| match own {
        Some(span) if !span.0.is_zero() => span,
        _ if below.0.is_zero() => Span::seconds(seconds),
        _ => below,
    };
    let test = if check.test.is_empty() { &below.test } else { &check.test };
    let test = if check.disable { None } else { probe_command(test) };
    Some(HealthCheck {
        test,
        interval: or(check.interval, below.interval, 30),
        timeout: or(check.timeout, below.timeout, 30),
        retries: match (check.retries.unwrap_or(0), below.retries) {
            (0, 0) => 3,
            (0, below) => below,
            (own, _) => own,
        },
        start_period: or(check.start_period, below.start_period, 0),
        start_interval: or(check.start_interval, below.start_interval, 5),
    })
}

fn log(service: &Service) -> LogSpec {
    let Some(model::Logging { driver, options }) = &service.logging else { return LogSpec::default() };
    LogSpec { driver: driver.clone().unwrap_or_else(|| LogSpec::default().driver), options: options.clone() }
}
