//! One service, with what belongs to it alone.

use std::collections::BTreeMap;

use engine::container::spec::RestartPolicy;
use engine::quantity::{ByteSize, Span};
use serde::{Deserialize, Serialize};

use super::form;
use super::form::is_default;
use super::{
    BlkioConfig, Build, Dependency, Deploy, Develop, Device, DeviceRequest, EnvFile, FileReference,
    HealthCheck, Hook, Port, PreStart, ServiceModel, ServiceNetwork, ServiceVolume, Ulimit,
};

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its key under `services`.
    #[serde(skip)]
    pub name: String,
    /// The profiles that switch it on; always on when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub profiles: Vec<String>,
    /// OCI annotations.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Whether `up` shows its output; yes when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub attach: Option<bool>,
    /// How its image is built.
    #[serde(skip_serializing_if = "is_default")]
    pub build: Option<Build>,
    /// What `watch` does.
    #[serde(skip_serializing_if = "is_default")]
    pub develop: Option<Develop>,
    /// Block device limits.
    #[serde(skip_serializing_if = "is_default")]
    pub blkio_config: Option<BlkioConfig>,
    /// Capabilities added.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_drop: Vec<String>,
    /// The parent of its cgroup.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_parent: Option<String>,
    /// The cgroup namespace: `host`, `private` or `service:…`.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup: Option<String>,
    /// Processors that may be used (Windows).
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_count: i64,
    /// Share of the processors in percent (Windows).
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::number")]
    pub cpu_percent: f64,
    /// Microseconds of one scheduling period.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_period: i64,
    /// Microseconds of processor time in one period.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_quota: i64,
    /// Microseconds of one real-time period.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_period: i64,
    /// Microseconds of real-time scheduling in one period.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_runtime: i64,
    /// Processors, in fractions; 0 is no limit.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::number")]
    pub cpus: f64,
    /// The processors it may run on: `0-3,5`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset: Option<String>,
    /// Relative weight.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_shares: i64,
    /// The command; the image's when `None`, none at all when empty.
    pub command: Option<Vec<String>>,
    /// Configurations it sees.
    #[serde(skip_serializing_if = "is_default")]
    pub configs: Vec<FileReference>,
    /// The exact name of its only container.
    #[serde(skip_serializing_if = "is_default")]
    pub container_name: Option<String>,
    /// Windows credentials.
    #[serde(skip_serializing_if = "is_default")]
    pub credential_spec: Option<CredentialSpec>,
    /// The services it waits for, by name; implicit ones are among them, and all of them are in the project.
    #[serde(skip_serializing_if = "is_default")]
    pub depends_on: BTreeMap<String, Dependency>,
    /// Replicas, resources and how updates roll.
    #[serde(skip_serializing_if = "is_default")]
    pub deploy: Option<Deploy>,
    /// Rules of the device cgroup.
    #[serde(skip_serializing_if = "is_default")]
    pub device_cgroup_rules: Vec<String>,
    /// Devices of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<Device>,
    /// Name servers.
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Vec<String>,
    /// Options of resolv.conf.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_opt: Vec<String>,
    /// Search domains.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    /// NIS domain name.
    #[serde(skip_serializing_if = "is_default")]
    pub domainname: Option<String>,
    /// The entrypoint; the image's when `None`, none at all when empty.
    pub entrypoint: Option<Vec<String>>,
    /// The program that manages it instead of containers.
    #[serde(skip_serializing_if = "is_default")]
    pub provider: Option<Provider>,
    /// Environment variables, those of `env_file` included. `None` means not set at all, not even from the image.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: BTreeMap<String, Option<String>>,
    /// Files that environment variables were read from; empty once they are in `environment`.
    #[serde(skip_serializing_if = "is_default")]
    pub env_file: Vec<EnvFile>,
    /// Ports it listens on, `port[/protocol]` or a range.
    #[serde(skip_serializing_if = "is_default")]
    pub expose: Vec<String>,
    /// Links to containers outside of the project, `container[:alias]`.
    #[serde(skip_serializing_if = "is_default")]
    pub external_links: Vec<String>,
    /// Lines of /etc/hosts, `name=address`.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<String>,
    /// Supplementary groups, names or numbers.
    #[serde(skip_serializing_if = "is_default")]
    pub group_add: Vec<String>,
    /// Graphics processors.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: Vec<DeviceRequest>,
    /// The name inside its UTS namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: Option<String>,
    /// How its health is found out; what is unset is the image's.
    #[serde(skip_serializing_if = "is_default")]
    pub healthcheck: Option<HealthCheck>,
    /// The image as written; `None` with a build means `<project>-<service>`.
    #[serde(skip_serializing_if = "is_default")]
    pub image: Option<String>,
    /// Whether an init is process 1.
    #[serde(skip_serializing_if = "is_default")]
    pub init: Option<bool>,
    /// The IPC namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: Option<String>,
    /// Isolation technology (Windows).
    #[serde(skip_serializing_if = "is_default")]
    pub isolation: Option<String>,
    /// Labels of its containers.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Files that labels were read from; empty once they are in `labels`.
    #[serde(skip_serializing_if = "is_default")]
    pub label_file: Vec<String>,
    /// Links, `service[:alias]`.
    #[serde(skip_serializing_if = "is_default")]
    pub links: Vec<String>,
    /// Where its output goes.
    #[serde(skip_serializing_if = "is_default")]
    pub logging: Option<Logging>,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub mem_limit: ByteSize,
    /// Bytes of memory it keeps under pressure.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub mem_reservation: ByteSize,
    /// Bytes of memory and swap together; `-1` is unlimited.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::signed_bytes")]
    pub memswap_limit: i64,
    /// How eagerly its memory is swapped out, 0 to 100.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::signed_bytes")]
    pub mem_swappiness: i64,
    /// The hardware address on the network with the highest priority.
    #[serde(skip_serializing_if = "is_default")]
    pub mac_address: Option<String>,
    /// Language models it uses.
    #[serde(skip_serializing_if = "is_default")]
    pub models: BTreeMap<String, Option<ServiceModel>>,
    /// `none`, `host`, `bridge`, `service:…` or `container:…`.
    #[serde(skip_serializing_if = "is_default")]
    pub network_mode: Option<String>,
    /// The networks it is attached to, by key.
    #[serde(skip_serializing_if = "is_default")]
    pub networks: BTreeMap<String, Option<ServiceNetwork>>,
    /// Whether the out-of-memory killer leaves it alone.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kill_disable: bool,
    /// What the out-of-memory killer adds to its score.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: i64,
    /// The PID namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: Option<String>,
    /// Processes and threads; `-1` is unlimited.
    #[serde(skip_serializing_if = "is_default")]
    pub pids_limit: i64,
    /// `os/arch[/variant]` of its image.
    #[serde(skip_serializing_if = "is_default")]
    pub platform: Option<String>,
    /// Published ports.
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
    /// Everything the engine may do.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// When its image is pulled, as written; see [`Service::pull`].
    #[serde(skip_serializing_if = "is_default")]
    pub pull_policy: Option<String>,
    /// Whether the root file system is read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// When it is started again by itself; never when `None`, unless `deploy.restart_policy` says so.
    #[serde(skip_serializing_if = "is_default", with = "form::restart")]
    pub restart: Option<RestartPolicy>,
    /// The OCI runtime.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: Option<String>,
    /// How many containers; see [`Service::replicas`].
    #[serde(skip_serializing_if = "is_default")]
    pub scale: Option<u32>,
    /// Secrets it sees.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<FileReference>,
    /// Security options.
    #[serde(skip_serializing_if = "is_default")]
    pub security_opt: Vec<String>,
    /// Size of /dev/shm.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub shm_size: ByteSize,
    /// Whether standard input stays open.
    #[serde(skip_serializing_if = "is_default")]
    pub stdin_open: bool,
    /// How long it may take to end.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub stop_grace_period: Option<Span>,
    /// What asks it to end; a valid [`engine::signal::Signal`].
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: Option<String>,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "is_default")]
    pub storage_opt: BTreeMap<String, String>,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    /// File systems in memory, `path[:options]`.
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs: Vec<String>,
    /// Whether it has a terminal.
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Limits per process.
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Whether the engine's socket is mounted.
    #[serde(skip_serializing_if = "is_default")]
    pub use_api_socket: bool,
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// The user namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub userns_mode: Option<String>,
    /// The UTS namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub uts: Option<String>,
    /// What is mounted.
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: Vec<ServiceVolume>,
    /// Services (or `container:…`) whose mounts are taken over, with an optional `:ro` or `:rw`.
    #[serde(skip_serializing_if = "is_default")]
    pub volumes_from: Vec<String>,
    /// The working directory.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// Commands after each start.
    #[serde(skip_serializing_if = "is_default")]
    pub post_start: Vec<Hook>,
    /// Commands before each stop.
    #[serde(skip_serializing_if = "is_default")]
    pub pre_stop: Vec<Hook>,
    /// Init containers between create and start.
    #[serde(skip_serializing_if = "is_default")]
    pub pre_start: Vec<PreStart>,
    /// `x-…` keys.
    #[serde(skip)]
    pub extensions: BTreeMap<String, serde_json::Value>,
}

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// The driver; `json-file` when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

/// The program that manages a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provider {
    /// Its name.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: String,
    /// Its options.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, Vec<String>>,
}

/// Windows credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CredentialSpec {
    /// A configuration.
    #[serde(skip_serializing_if = "is_default")]
    pub config: Option<String>,
    /// A file.
    #[serde(skip_serializing_if = "is_default")]
    pub file: Option<String>,
    /// A key of the registry.
    #[serde(skip_serializing_if = "is_default")]
    pub registry: Option<String>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// Not at all.
    Never,
    /// When it is not there.
    Missing,
    /// It is built instead.
    Build,
    /// When the last pull is longer ago than this.
    After(Span),
}

// === impl Service ===

impl Service {
    /// How many containers it has: `scale`, then `deploy.replicas`, then one.
    pub fn replicas(&self) -> u32 {
        self.scale.or(self.deploy.as_ref().and_then(|deploy| deploy.replicas)).unwrap_or(1)
    }

    /// When its image is pulled; `None` leaves it to the command.
    pub fn pull(&self) -> Option<PullPolicy> {
        let policy = match self.pull_policy.as_deref()? {
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            "build" => PullPolicy::Build,
            "daily" => PullPolicy::After(Span::seconds(86_400)),
            "weekly" => PullPolicy::After(Span::seconds(7 * 86_400)),
            other => other
                .strip_prefix("every_")
                .and_then(|span| span.parse().ok())
                .map_or(PullPolicy::Missing, PullPolicy::After),
        };
        Some(policy)
    }

    /// Whether it mounts the volume with this key.
    pub fn uses_volume(&self, key: &str) -> bool {
        self.volumes.iter().any(
            |volume| matches!(volume, ServiceVolume::Volume { source: Some(source), .. } if source == key),
        )
    }

    /// Its networks in the order they are attached: by descending priority, then by key.
    pub fn networks_by_priority(&self) -> Vec<(&str, Option<&ServiceNetwork>)> {
        let mut networks: Vec<_> =
            self.networks.iter().map(|(key, network)| (key.as_str(), network.as_ref())).collect();
        networks.sort_by_key(|(_, network)| -i64::from(network.map_or(0, |network| network.priority)));
        networks
    }
}
