//! The flags of `run` and `create`, and what they mean.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::{mount, publish};
use crate::container::merge::{expand_exposed, probe_command};
use crate::container::spec::{
    ContainerSpec, Device, DnsSpec, Grace, HealthCheck, LogSpec, NamespaceMode, NetworkAttachment,
    NetworkMode, ProcessSpec, Resources, RestartPolicy, Seccomp, Security, Ulimit,
};
use crate::error::{Error, Result};
use crate::id::{ContainerId, ContainerName};
use crate::quantity::{ByteSize, Span};
use crate::signal::Signal;

/// What `run` and `create` share: docker's flags under docker's names.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct CreateArgs {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Name of the container
    #[arg(long)]
    name: Option<ContainerName>,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Attach to stdin, stdout or stderr
    #[arg(short, long, value_name = "STREAM")]
    pub attach: Vec<String>,
    /// Remove the container, with its anonymous volumes, when it ends
    #[arg(long)]
    pub rm: bool,
    /// Write the container's id to this file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Pull the image before it is used
    #[arg(long, value_enum, default_value = "missing")]
    pub pull: PullPolicy,
    /// Say nothing while pulling
    #[arg(short, long)]
    pub quiet: bool,
    /// Platform of the image, os/arch
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    privilege: PrivilegeArgs,
    #[command(flatten)]
    life: LifeArgs,
    /// The image, by name or id
    image: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// When an image is pulled before a container is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Even if it is here.
    Always,
    /// If it is not here.
    Missing,
    /// Not at all.
    Never,
}

#[derive(Debug, Args)]
struct ProcessArgs {
    /// Set an environment variable; without a value it is taken from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User name or id, with an optional group: `user[:group]`
    #[arg(short, long)]
    user: Option<String>,
    /// Further groups
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Program instead of the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Host name inside
    #[arg(short, long)]
    hostname: Option<String>,
    /// NIS domain name inside
    #[arg(long)]
    domainname: Option<String>,
    /// Run an init as process 1 that forwards signals and reaps children
    #[arg(long)]
    init: bool,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set an OCI annotation
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

#[derive(Debug, Args)]
struct NetworkArgs {
    /// bridge, host, none, container:NAME, or a network's name
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Further name on the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// IPv4 address on the network
    #[arg(long)]
    ip: Option<IpAddr>,
    /// IPv6 address on the network
    #[arg(long)]
    ip6: Option<IpAddr>,
    /// Hardware address of the link
    #[arg(long)]
    mac_address: Option<String>,
    /// Publish a port: `[address:][host:]container[/protocol]`
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish every exposed port on a free port
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Say that the program listens on a port
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Name server
    #[arg(long)]
    dns: Vec<IpAddr>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Resolver option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Line of /etc/hosts: name:address
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
}

#[derive(Debug, Args)]
struct StorageArgs {
    /// Mount a volume or a path: `[source:]target[:options]`
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// Mount in long form: type=bind|volume|tmpfs,source=…,target=…
    #[arg(long)]
    mount: Vec<String>,
    /// Mount a file system in memory: `path[:options]`
    #[arg(long, value_name = "PATH")]
    tmpfs: Vec<String>,
    /// Mount what another container mounts
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<ByteSize>,
    /// Give a device: `host[:container[:rwm]]`
    #[arg(long)]
    device: Vec<String>,
}

#[derive(Debug, Args)]
struct LimitArgs {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<ByteSize>,
    /// Limit of memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory kept under pressure
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<ByteSize>,
    /// Number of processors
    #[arg(long)]
    cpus: Option<f64>,
    /// Relative weight, 2 to 262144
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// Microseconds of processor time per period
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// The period in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Processors it may run on: 0-2,4
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Limit of processes and threads; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Resource limit of a process: `name=soft[:hard]`
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Keep the out-of-memory killer away
    #[arg(long)]
    oom_kill_disable: bool,
    /// What the out-of-memory killer adds to the score
    #[arg(long, allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Kernel parameter: name=value
    #[arg(long)]
    sysctl: Vec<String>,
}

#[derive(Debug, Args)]
struct PrivilegeArgs {
    /// Everything the engine may do
    #[arg(long)]
    privileged: bool,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=FILE|unconfined, no-new-privileges, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// PID namespace: host or container:NAME
    #[arg(long)]
    pid: Option<String>,
    /// IPC namespace: private, shareable, host, none or container:NAME
    #[arg(long)]
    ipc: Option<String>,
    /// UTS namespace: host
    #[arg(long)]
    uts: Option<String>,
    /// Cgroup namespace: private or host
    #[arg(long)]
    cgroupns: Option<String>,
}

#[derive(Debug, Args)]
struct LifeArgs {
    /// no, always, unless-stopped or `on-failure[:N]`
    #[arg(long, default_value = "no")]
    restart: String,
    /// Signal that asks it to end
    #[arg(long)]
    stop_signal: Option<Signal>,
    /// Seconds it may take to end; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Command that finds out its health
    #[arg(long)]
    health_cmd: Option<String>,
    /// Time between two probes
    #[arg(long)]
    health_interval: Option<Span>,
    /// How long one may take
    #[arg(long)]
    health_timeout: Option<Span>,
    /// How many in a row must fail
    #[arg(long)]
    health_retries: Option<u32>,
    /// How long failures do not count
    #[arg(long)]
    health_start_period: Option<Span>,
    /// Time between two probes in the start period
    #[arg(long)]
    health_start_interval: Option<Span>,
    /// Switch off the image's health check
    #[arg(long, conflicts_with = "health_cmd")]
    no_healthcheck: bool,
    /// Where output goes: json-file, local or none
    #[arg(long)]
    log_driver: Option<String>,
    /// Option of the log driver: max-size=10m
    #[arg(long)]
    log_opt: Vec<String>,
}

/// Finds the container that a `container:NAME` names.
pub type FindContainer<'a> = &'a dyn Fn(&str) -> Result<ContainerId>;

// === impl CreateArgs ===

impl CreateArgs {
    /// What was asked, with paths resolved against this directory.
    pub fn into_spec(self, directory: &Path, find: FindContainer<'_>) -> Result<ContainerSpec> {
        let mut spec = ContainerSpec {
            name: self.name,
            image: self.image,
            platform: self.platform,
            auto_remove: self.rm,
            ..ContainerSpec::default()
        };
        spec.process = ProcessSpec {
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive,
            command: (!self.command.is_empty()).then_some(self.command),
            ..ProcessSpec::default()
        };
        self.process.apply(&mut spec)?;
        self.network.apply(&mut spec, find)?;
        self.storage.apply(&mut spec, directory)?;
        self.limits.apply(&mut spec)?;
        self.privilege.apply(&mut spec, directory, find)?;
        self.life.apply(&mut spec)?;
        Ok(spec)
    }

    /// The image as typed.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The platform as typed.
    pub fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }
}

impl ProcessArgs {
    fn apply(self, spec: &mut ContainerSpec) -> Result<()> {
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(read_pairs_file(file)?);
        }
        env.extend(self.env);
        spec.process.env = env.into_iter().map(import_variable).collect();
        spec.process.user = self.user;
        spec.process.group_add = self.group_add;
        spec.process.working_dir = self.workdir;
        spec.process.entrypoint =
            self.entrypoint.map(|program| if program.is_empty() { Vec::new() } else { vec![program] });
        spec.hostname = self.hostname;
        spec.domainname = self.domainname;
        spec.init = self.init;
        let mut labels = Vec::new();
        for file in &self.label_file {
            labels.extend(read_pairs_file(file)?);
        }
        labels.extend(self.label);
        spec.labels = pairs(labels);
        spec.annotations = pairs(self.annotation);
        Ok(())
    }
}

impl NetworkArgs {
    fn apply(self, spec: &mut ContainerSpec, find: FindContainer<'_>) -> Result<()> {
        let addresses: Vec<IpAddr> = self.ip.into_iter().chain(self.ip6).collect();
        spec.network = match self.network.as_slice() {
            [one] if one == "host" => NetworkMode::Host,
            [one] if one == "none" => NetworkMode::None,
            [one] if one.starts_with("container:") => {
                NetworkMode::Container(find(&one["container:".len()..])?)
            }
            [one] if one == "default" || one == "bridge" => self.bridge(&[], addresses)?,
            several => self.bridge(several, addresses)?,
        };
        spec.publish_all = self.publish_all;
        for text in &self.publish {
            spec.ports.extend(publish::parse_publish(text)?);
        }
        for text in &self.expose {
            spec.expose.extend(expand_exposed(text)?);
        }
        spec.dns = DnsSpec {
            servers: self.dns,
            search: self.dns_search,
            options: self.dns_option,
            extra_hosts: self.add_host.iter().map(|text| parse_host(text)).collect::<Result<_>>()?,
        };
        Ok(())
    }

    /// Attachments to these networks; aliases and addresses belong to the first one, as in docker.
    fn bridge(&self, networks: &[String], addresses: Vec<IpAddr>) -> Result<NetworkMode> {
        let bare = addresses.is_empty() && self.network_alias.is_empty() && self.mac_address.is_none();
        if networks.is_empty() && bare {
            return Ok(NetworkMode::Bridge(Vec::new()));
        }
        let default = ["bridge".to_owned()];
        let names = if networks.is_empty() { &default[..] } else { networks };
        let mut attachments = Vec::new();
        for name in names {
            attachments.push(parse_attachment(name)?);
        }
        if let Some(first) = attachments.first_mut() {
            first.aliases.extend(self.network_alias.iter().cloned());
            first.addresses.extend(addresses);
            first.mac_address = self.mac_address.clone().or(first.mac_address.take());
        }
        Ok(NetworkMode::Bridge(attachments))
    }
}

impl StorageArgs {
    fn apply(self, spec: &mut ContainerSpec, directory: &Path) -> Result<()> {
        for text in &self.volume {
            spec.mounts.push(mount::parse_volume(text, directory)?);
        }
        for text in &self.mount {
            spec.mounts.push(mount::parse_mount(text, directory)?);
        }
        for text in &self.tmpfs {
            spec.mounts.push(mount::parse_tmpfs(text)?);
        }
        for text in &self.volumes_from {
            spec.volumes_from.push(mount::parse_volumes_from(text)?);
        }
        spec.read_only = self.read_only;
        spec.shm_size = self.shm_size;
        spec.devices = self.device.iter().map(|text| parse_device(text)).collect();
        Ok(())
    }
}

impl LimitArgs {
    fn apply(self, spec: &mut ContainerSpec) -> Result<()> {
        let memory_swap = match self.memory_swap.as_deref() {
            None => None,
            Some("-1") => Some(-1),
            Some(text) => {
                let size: ByteSize =
                    text.parse().map_err(|error| Error::invalid("--memory-swap").with_source(error))?;
                Some(i64::try_from(size.0).unwrap_or(i64::MAX))
            }
        };
        spec.resources = Resources {
            memory: self.memory,
            memory_swap,
            memory_reservation: self.memory_reservation,
            nano_cpus: self.cpus.map(|cpus| (cpus * 1e9).round() as u64).filter(|nano| *nano > 0),
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            pids: self.pids_limit,
            oom_kill_disable: self.oom_kill_disable,
        };
        spec.oom_score_adj = self.oom_score_adj;
        for text in &self.ulimit {
            let (name, limit) = parse_ulimit(text)?;
            spec.ulimits.insert(name, limit);
        }
        spec.sysctls = pairs(self.sysctl);
        Ok(())
    }
}

impl PrivilegeArgs {
    fn apply(self, spec: &mut ContainerSpec, directory: &Path, find: FindContainer<'_>) -> Result<()> {
        let bare = |names: Vec<String>| names.iter().map(|name| bare_capability(name)).collect();
        spec.security = Security {
            privileged: self.privileged,
            cap_add: bare(self.cap_add),
            cap_drop: bare(self.cap_drop),
            ..Security::default()
        };
        for option in &self.security_opt {
            apply_security_option(&mut spec.security, option, directory)?;
        }
        let mode = |text: Option<String>, flag| {
            text.map_or(Ok(NamespaceMode::Private), |text| parse_namespace(&text, flag, find))
        };
        spec.pid = mode(self.pid, "--pid")?;
        spec.ipc = mode(self.ipc, "--ipc")?;
        spec.uts = mode(self.uts, "--uts")?;
        spec.cgroupns = mode(self.cgroupns, "--cgroupns")?;
        Ok(())
    }
}

impl LifeArgs {
    fn apply(self, spec: &mut ContainerSpec) -> Result<()> {
        spec.restart = parse_restart(&self.restart)?;
        if spec.auto_remove && spec.restart != RestartPolicy::No {
            return Err(Error::invalid("conflicting options: --restart and --rm"));
        }
        spec.stop_signal = self.stop_signal;
        spec.stop_timeout = self.stop_timeout.map(grace_of_seconds);
        spec.healthcheck = self.healthcheck();
        spec.log = LogSpec {
            driver: self.log_driver.unwrap_or_else(|| LogSpec::default().driver),
            options: pairs(self.log_opt),
        };
        if !matches!(spec.log.driver.as_str(), "json-file" | "local" | "none") {
            return Err(Error::new(
                crate::error::Kind::Unsupported,
                format!("log driver {:?} does not exist: json-file, local or none", spec.log.driver),
            ));
        }
        Ok(())
    }

    fn healthcheck(&self) -> Option<HealthCheck> {
        let test = self.health_cmd.as_ref().map(|line| vec!["CMD-SHELL".to_owned(), line.clone()]);
        if test.is_none() && !self.no_healthcheck {
            return None;
        }
        Some(HealthCheck {
            test: test.as_deref().and_then(probe_command),
            interval: self.health_interval.unwrap_or(Span::seconds(30)),
            timeout: self.health_timeout.unwrap_or(Span::seconds(30)),
            retries: self.health_retries.unwrap_or(3),
            start_period: self.health_start_period.unwrap_or_default(),
            start_interval: self.health_start_interval.unwrap_or(Span::seconds(5)),
        })
    }
}

/// A number of seconds, or for ever when negative.
pub fn grace_of_seconds(seconds: i64) -> Grace {
    u64::try_from(seconds).map_or(Grace::Unlimited, |seconds| Grace::Limited(Span::seconds(seconds)))
}

/// `no`, `always`, `unless-stopped` or `on-failure[:N]`.
pub fn parse_restart(text: &str) -> Result<RestartPolicy> {
    Ok(match text.split_once(':').unwrap_or((text, "")) {
        ("no" | "", "") => RestartPolicy::No,
        ("always", "") => RestartPolicy::Always,
        ("unless-stopped", "") => RestartPolicy::UnlessStopped,
        ("on-failure", "") => RestartPolicy::OnFailure(0),
        ("on-failure", count) => RestartPolicy::OnFailure(
            count.parse().map_err(|_| Error::invalid(format!("invalid restart count {count:?}")))?,
        ),
        _ => {
            return Err(Error::invalid(format!("invalid restart policy {text:?}"))
                .with_hint("write no, always, unless-stopped or `on-failure[:N]`"));
        }
    })
}

/// `name=soft[:hard]`, or `name=both`.
pub fn parse_ulimit(text: &str) -> Result<(String, Ulimit)> {
    let wrong = || {
        Error::invalid(format!("invalid ulimit {text:?}"))
            .with_hint("write name=soft[:hard], as in nofile=1024:2048")
    };
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number =
        |text: &str| if text == "unlimited" { Ok(-1) } else { text.parse::<i64>().map_err(|_| wrong()) };
    let (soft, hard) = (number(soft)?, number(hard)?);
    let soft_is_more = hard >= 0 && (soft > hard || soft < 0);
    if soft_is_more {
        return Err(Error::invalid(format!(
            "ulimit {name}: the soft limit {soft} is above the hard limit {hard}"
        )));
    }
    Ok((name.to_owned(), Ulimit { soft, hard }))
}

/// A capability's name without `CAP_`, in upper case.
pub fn bare_capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
}

/// `host[:container[:rwm]]`.
pub fn parse_device(text: &str) -> Device {
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default();
    let (second, third) = (parts.next(), parts.next());
    let is_mode = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (container, permissions) = match (second, third) {
        (Some(mode), None) if is_mode(mode) => (host, mode),
        (container, mode) => (container.unwrap_or(host), mode.unwrap_or("rwm")),
    };
    Device { host: host.into(), container: container.into(), permissions: permissions.to_owned() }
}

/// One of `--security-opt`.
pub fn apply_security_option(security: &mut Security, option: &str, directory: &Path) -> Result<()> {
    match option.split_once(['=', ':']).unwrap_or((option, "")) {
        ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
        ("no-new-privileges", "false") => security.no_new_privileges = false,
        ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
        ("seccomp", file) => {
            let profile = std::fs::read_to_string(directory.join(file))
                .map_err(|error| Error::invalid(format!("read seccomp profile {file}")).with_source(error))?;
            security.seccomp = Seccomp::Profile(profile);
        }
        ("systempaths", "unconfined") => security.unmask_system_paths = true,
        // There is nothing to confine it with on a kernel without these modules; asking for none of it is fine.
        ("apparmor", "unconfined") | ("label", "disable") => {}
        _ => {
            return Err(Error::new(
                crate::error::Kind::Unsupported,
                format!("security option {option:?} is not supported"),
            )
            .with_hint(
                "seccomp=FILE, seccomp=unconfined, no-new-privileges and systempaths=unconfined are",
            ));
        }
    }
    Ok(())
}

fn parse_namespace(text: &str, flag: &str, find: FindContainer<'_>) -> Result<NamespaceMode> {
    Ok(match text {
        "" | "private" => NamespaceMode::Private,
        "shareable" => NamespaceMode::Shareable,
        "host" => NamespaceMode::Host,
        "none" => NamespaceMode::None,
        other => match other.strip_prefix("container:") {
            Some(name) => NamespaceMode::Container(find(name)?),
            None => return Err(Error::invalid(format!("invalid {flag} {text:?}: host or container:NAME"))),
        },
    })
}

/// A network's name, or `name=…,alias=…,ip=…,ip6=…,mac-address=…,gw-priority=…`.
fn parse_attachment(text: &str) -> Result<NetworkAttachment> {
    let mut attachment = NetworkAttachment {
        network: text.to_owned(),
        aliases: Vec::new(),
        addresses: Vec::new(),
        mac_address: None,
        gateway_priority: 0,
    };
    if !text.contains('=') {
        return Ok(attachment);
    }
    let wrong = |problem: &str| Error::invalid(format!("invalid network {text:?}: {problem}"));
    for field in text.split(',') {
        match field.split_once('=').ok_or_else(|| wrong("key=value is needed"))? {
            ("name", value) => value.clone_into(&mut attachment.network),
            ("alias", value) => attachment.aliases.push(value.to_owned()),
            ("ip" | "ip6", value) => {
                attachment.addresses.push(value.parse().map_err(|_| wrong("not an IP address"))?);
            }
            ("mac-address", value) => attachment.mac_address = Some(value.to_owned()),
            ("gw-priority", value) => {
                attachment.gateway_priority = value.parse().map_err(|_| wrong("gw-priority is a number"))?;
            }
            (key, _) => return Err(wrong(&format!("unknown key {key:?}"))),
        }
    }
    Ok(attachment)
}

fn parse_host(text: &str) -> Result<(String, String)> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| Error::invalid(format!("invalid host {text:?}: name:address is needed")))?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid host {text:?}: {address:?} is not an IP address")));
    }
    Ok((name.to_owned(), bare.to_owned()))
}

/// `KEY` alone is taken from here; unset here, it stays without a value, and so is removed.
pub fn import_variable(entry: String) -> String {
    if entry.contains('=') {
        return entry;
    }
    match std::env::var(&entry) {
        Ok(value) => format!("{entry}={value}"),
        Err(_) => entry,
    }
}

/// `KEY=VALUE` texts as a map; a key alone has the empty value.
pub fn pairs(texts: Vec<String>) -> BTreeMap<String, String> {
    texts
        .into_iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (text, String::new()),
        })
        .collect()
}

/// The lines of an environment or label file; comments and empty lines are not lines.
pub fn read_pairs_file(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::invalid(format!("read {}", path.display())).with_source(error))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.split('=').next().unwrap_or_default();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(Error::invalid(format!(
                "{}:{}: {key:?} is not a variable's name",
                path.display(),
                number + 1
            )));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    fn spec(line: &str) -> Result<ContainerSpec> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| Error::invalid(error.to_string()))?;
        line.args.into_spec(Path::new("/work"), &|_| Ok(ContainerId::random()))
    }

    #[test]
    fn what_follows_the_image_is_the_command() {
        let spec = spec("-it --rm --name web -e A=1 -h box busybox ls -l --color").unwrap();
        assert_eq!(spec.process.command.unwrap(), ["ls", "-l", "--color"]);
        assert_eq!(spec.image, "busybox");
        assert_eq!(spec.hostname.as_deref(), Some("box"));
        assert!(spec.process.tty && spec.process.open_stdin && spec.auto_remove);
    }

    #[test]
    fn limits_and_policies_are_values() {
        let spec =
            spec("-m 64m --cpus 1.5 --restart on-failure:3 --ulimit nofile=10:20 --cap-add cap_net_admin x")
                .unwrap();
        assert_eq!(spec.resources.memory, Some(ByteSize(64 << 20)));
        assert_eq!(spec.resources.nano_cpus, Some(1_500_000_000));
        assert_eq!(spec.restart, RestartPolicy::OnFailure(3));
        assert_eq!(spec.ulimits["nofile"], Ulimit { soft: 10, hard: 20 });
        assert_eq!(spec.security.cap_add, ["NET_ADMIN"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--restart sometimes x",
            "--rm --restart always x",
            "--ulimit nofile x",
            "--ulimit nofile=20:10 x",
            "--add-host name x",
            "--security-opt magic x",
            "--log-driver syslog x",
            "--pid somewhere x",
            "-p 80:x x",
            "",
        ] {
            assert!(spec(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_device_has_a_path_on_both_sides() {
        let device = |text| {
            let device = parse_device(text);
            format!("{} {} {}", device.host.display(), device.container.display(), device.permissions)
        };
        assert_eq!(device("/dev/fuse"), "/dev/fuse /dev/fuse rwm");
        assert_eq!(device("/dev/a:/dev/b"), "/dev/a /dev/b rwm");
        assert_eq!(device("/dev/a:r"), "/dev/a /dev/a r");
        assert_eq!(device("/dev/a:/dev/b:rw"), "/dev/a /dev/b rw");
    }
}
