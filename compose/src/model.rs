//! What a compose file means: canonical and complete, with nothing of the YAML left.
//!
//! The order of the fields is the reference implementation's: its JSON form is the contract of `config` and of
//! the configuration hash, and serde writes fields in the order they stand here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine::container::spec::{Protocol, RestartPolicy};
use engine::id::Digest;
use engine::quantity::{ByteSize, Span};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize};

use self::form::is_default;

/// A loaded application: what is to run, and what it needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Project {
    /// The project's name, valid as `[a-z0-9][a-z0-9_-]*`.
    pub name: String,
    /// The directory relative paths start from.
    #[serde(skip)]
    pub working_dir: PathBuf,
    /// The files it was loaded from, in order; `-` is standard input.
    #[serde(skip)]
    pub files: Vec<PathBuf>,
    /// The environment it was interpolated with: the caller's over the `.env` files'.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
    /// The services that run, by name.
    pub services: BTreeMap<String, Service>,
    /// The services that no active profile asks for.
    #[serde(skip)]
    pub disabled_services: BTreeMap<String, Service>,
    /// Networks, by key.
    pub networks: BTreeMap<String, Network>,
    /// Volumes, by key.
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets, by key.
    pub secrets: BTreeMap<String, FileObject>,
    /// Configurations, by key.
    pub configs: BTreeMap<String, FileObject>,
    /// Language models, by key.
    pub models: BTreeMap<String, Model>,
    /// Top-level `x-…` keys.
    #[serde(skip)]
    pub extensions: BTreeMap<String, serde_json::Value>,
}

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

/// How an image is built.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// The context: an absolute directory, a URL, or `-`.
    #[serde(skip_serializing_if = "is_default")]
    pub context: Option<String>,
    /// The Dockerfile, relative to the context.
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile: Option<String>,
    /// The Dockerfile's text.
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile_inline: Option<String>,
    /// Extra privileges of the build.
    #[serde(skip_serializing_if = "is_default")]
    pub entitlements: Vec<String>,
    /// Build arguments; `None` means not given.
    #[serde(skip_serializing_if = "is_default")]
    pub args: BTreeMap<String, Option<String>>,
    /// Provenance attestation.
    #[serde(skip_serializing_if = "is_default")]
    pub provenance: Option<String>,
    /// Bill of materials.
    #[serde(skip_serializing_if = "is_default")]
    pub sbom: Option<String>,
    /// SSH agents or keys, by id; the path is empty for the default agent.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::ssh")]
    pub ssh: BTreeMap<String, String>,
    /// Labels of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Where cached layers are looked for.
    #[serde(skip_serializing_if = "is_default")]
    pub cache_from: Vec<String>,
    /// Where cached layers are put.
    #[serde(skip_serializing_if = "is_default")]
    pub cache_to: Vec<String>,
    /// Whether nothing is taken from the cache.
    #[serde(skip_serializing_if = "is_default")]
    pub no_cache: bool,
    /// Stages that are not taken from the cache.
    #[serde(skip_serializing_if = "is_default")]
    pub no_cache_filter: Vec<String>,
    /// Further contexts, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub additional_contexts: BTreeMap<String, String>,
    /// Whether base images are always pulled.
    #[serde(skip_serializing_if = "is_default")]
    pub pull: bool,
    /// Lines of /etc/hosts for RUN, `name=address`.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<String>,
    /// Isolation technology.
    #[serde(skip_serializing_if = "is_default")]
    pub isolation: Option<String>,
    /// The network of RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<String>,
    /// The stage to build.
    #[serde(skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// Secrets of RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<FileReference>,
    /// Size of /dev/shm for RUN.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub shm_size: ByteSize,
    /// Further names of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Limits per process for RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Platforms to build for.
    #[serde(skip_serializing_if = "is_default")]
    pub platforms: Vec<String>,
    /// Everything the engine may do, for RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
}

/// One service another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// What is waited for.
    #[serde(default)]
    pub condition: Condition,
    /// Whether the dependent is restarted after the dependency was.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: bool,
    /// Whether it is an error when the dependency is missing or fails.
    #[serde(default = "form::yes")]
    pub required: bool,
}

/// What is waited for in a dependency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Its containers run.
    #[default]
    #[serde(rename = "service_started")]
    Started,
    /// Its containers are healthy.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// Its containers ended with exit code 0.
    #[serde(rename = "service_completed_successfully")]
    CompletedSuccessfully,
}

/// How health is found out. What is unset is the image's, then docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// `NONE`, `CMD` with a program, or `CMD-SHELL` with a line for the shell; the image's when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub test: Vec<String>,
    /// How long one probe may take.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub timeout: Option<Span>,
    /// Time between two probes.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub interval: Option<Span>,
    /// How many in a row must fail.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: Option<u32>,
    /// How long failures do not count after the start.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub start_period: Option<Span>,
    /// Time between two probes in the start period.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub start_interval: Option<Span>,
    /// Whether there is no check, not even the image's.
    #[serde(skip_serializing_if = "is_default")]
    pub disable: bool,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// A free name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Option<String>,
    /// `ingress` or `host`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Option<String>,
    /// The address of the host; every one when `None`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_ip: Option<String>,
    /// The port in the container.
    pub target: u16,
    /// The port of the host, or a range of which one is taken; any free one when `None`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub published: Option<String>,
    /// Its protocol.
    #[serde(default = "form::tcp")]
    pub protocol: Protocol,
    /// The protocol spoken on it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub app_protocol: Option<String>,
}

/// Something mounted into a service's containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServiceVolume {
    /// A file or directory of the host.
    Bind {
        /// Its absolute path on the host.
        #[serde(default)]
        source: String,
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
        /// Consistency wanted (ignored on Linux).
        #[serde(default, skip_serializing_if = "is_default")]
        consistency: Option<String>,
        /// Details; the host directory is made when it is missing unless they say otherwise.
        #[serde(default, skip_serializing_if = "is_default")]
        bind: Option<BindOptions>,
    },
    /// A volume: a key under `volumes`, or a new anonymous one.
    Volume {
        /// The key; anonymous when `None`.
        #[serde(default, skip_serializing_if = "is_default")]
        source: Option<String>,
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
        /// Consistency wanted (ignored on Linux).
        #[serde(default, skip_serializing_if = "is_default")]
        consistency: Option<String>,
        /// Details of the mount itself: SELinux relabelling and propagation.
        #[serde(default, skip_serializing_if = "is_default")]
        bind: Option<BindOptions>,
        /// Details.
        #[serde(default, skip_serializing_if = "is_default")]
        volume: Option<VolumeOptions>,
    },
    /// A file system in memory.
    Tmpfs {
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
        /// Consistency wanted (ignored on Linux).
        #[serde(default, skip_serializing_if = "is_default")]
        consistency: Option<String>,
        /// Details.
        #[serde(default, skip_serializing_if = "is_default")]
        tmpfs: Option<TmpfsOptions>,
    },
    /// The content of an image.
    Image {
        /// The image.
        #[serde(default)]
        source: String,
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
        /// Details.
        #[serde(default, skip_serializing_if = "is_default")]
        image: Option<ImageOptions>,
    },
    /// A named pipe (Windows).
    Npipe {
        /// Its path on the host.
        #[serde(default)]
        source: String,
        /// Where it appears.
        target: String,
    },
    /// A volume of a swarm.
    Cluster {
        /// The volume.
        #[serde(default)]
        source: String,
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
    },
}

/// Details of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindOptions {
    /// SELinux relabelling, `z` or `Z`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selinux: Option<String>,
    /// `rprivate`, `private`, `rshared`, `shared`, `rslave` or `slave`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub propagation: Option<String>,
    /// Whether a missing host directory is made; see [`BindOptions::creates_host_path`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub create_host_path: Option<bool>,
    /// `enabled`, `disabled`, `writable` or `readonly`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recursive: Option<String>,
}

/// Details of a volume mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    /// Labels of an anonymous volume.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Whether an empty volume is left empty instead of being filled from the image.
    #[serde(skip_serializing_if = "is_default")]
    pub nocopy: bool,
    /// A path inside the volume that is shown instead of its root.
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: Option<String>,
}

/// Details of a tmpfs mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Its size; half of the memory when 0.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub size: ByteSize,
    /// Permission bits; 1777 when 0.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
}

/// Details of an image mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    /// A path inside the image that is shown instead of its root.
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: Option<String>,
}

/// How a service is attached to one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceNetwork {
    /// Further names it answers to there.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// The attachment with the highest one gives the default route.
    #[serde(skip_serializing_if = "is_default")]
    pub gw_priority: i32,
    /// The name of the interface.
    #[serde(skip_serializing_if = "is_default")]
    pub interface_name: Option<String>,
    /// The address wanted.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv4_address: Option<String>,
    /// The address wanted.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6_address: Option<String>,
    /// Link-local addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub link_local_ips: Vec<String>,
    /// The hardware address.
    #[serde(skip_serializing_if = "is_default")]
    pub mac_address: Option<String>,
    /// Networks are attached in descending order of it.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its real name, `<project>_<key>` unless given.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Its driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// Its addresses.
    pub ipam: Ipam,
    /// Whether it must exist already.
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    /// Whether nothing outside can be reached from it.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// Whether single containers may join it.
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    /// Its labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Whether it has IPv4; yes when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_ipv4: Option<bool>,
    /// Whether it has IPv6; no when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_ipv6: Option<bool>,
}

/// The addresses of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// Who hands them out.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// From which pools.
    #[serde(skip_serializing_if = "is_default")]
    pub config: Vec<IpamPool>,
    /// Options of the driver.
    #[serde(skip_serializing)]
    pub options: BTreeMap<String, String>,
}

/// A pool of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpamPool {
    /// `address/prefix`.
    #[serde(skip_serializing_if = "is_default")]
    pub subnet: Option<String>,
    /// The bridge's own address.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: Option<String>,
    /// The part containers get addresses from.
    #[serde(skip_serializing_if = "is_default")]
    pub ip_range: Option<String>,
    /// Addresses that are taken, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its real name, `<project>_<key>` unless given.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Its driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// Whether it must exist already.
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    /// Its labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
}

/// A secret or a configuration: one source of bytes. Exactly one of `file`, `environment`, `content` and
/// `external` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileObject {
    /// Its real name, `<project>_<key>` unless given.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// The file with the bytes, an absolute path.
    #[serde(skip_serializing_if = "is_default")]
    pub file: Option<String>,
    /// The variable of the project's environment with the bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: Option<String>,
    /// The bytes themselves (configurations only).
    #[serde(skip_serializing_if = "is_default")]
    pub content: Option<String>,
    /// Whether it must exist already.
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    /// Its labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Its driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// The driver of templates in it.
    #[serde(skip_serializing_if = "is_default")]
    pub template_driver: Option<String>,
    /// The bytes of the variable `environment` names, if it was set when the project was loaded. Never written out.
    #[serde(skip)]
    pub value: Option<String>,
    /// The digest of what it holds, when that can be read.
    #[serde(skip)]
    pub digest: Option<Digest>,
}

/// A secret or configuration as one service sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileReference {
    /// Its key under `secrets` or `configs`.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// Where it appears; a secret's relative target is under /run/secrets, a configuration's default is `/<source>`.
    #[serde(skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// Its owner; 0 when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub uid: Option<String>,
    /// Its group; 0 when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub gid: Option<String>,
    /// Its permission bits; 0444 when `None`.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::mode")]
    pub mode: Option<u32>,
}

/// Replicas, resources and how updates roll.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deploy {
    /// `replicated`, `global`, …
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<String>,
    /// How many containers; see [`Service::replicas`].
    #[serde(skip_serializing_if = "is_default")]
    pub replicas: Option<u32>,
    /// Labels of the service, not of its containers.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// How an update rolls.
    #[serde(skip_serializing_if = "is_default")]
    pub update_config: Option<UpdateConfig>,
    /// How a step back rolls.
    #[serde(skip_serializing_if = "is_default")]
    pub rollback_config: Option<UpdateConfig>,
    /// Limits and reservations.
    pub resources: Resources,
    /// When its containers are started again by themselves.
    #[serde(skip_serializing_if = "is_default")]
    pub restart_policy: Option<DeployRestart>,
    /// Where it may run.
    pub placement: Placement,
    /// `vip` or `dnsrr`.
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_mode: Option<String>,
}

/// How a change of containers rolls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateConfig {
    /// How many at a time; all at once when 0.
    #[serde(skip_serializing_if = "is_default")]
    pub parallelism: Option<u64>,
    /// Time between two groups.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub delay: Option<Span>,
    /// `continue`, `pause` or `rollback`.
    #[serde(skip_serializing_if = "is_default")]
    pub failure_action: Option<String>,
    /// How long a new container is watched for failure.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub monitor: Option<Span>,
    /// What share of failures is borne.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::number")]
    pub max_failure_ratio: f64,
    /// `stop-first` or `start-first`.
    #[serde(skip_serializing_if = "is_default")]
    pub order: Option<String>,
}

/// Limits and reservations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What it may use at most.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Option<Resource>,
    /// What it is given in any case.
    #[serde(skip_serializing_if = "is_default")]
    pub reservations: Option<Resource>,
}

/// A limit or a reservation. Zero and empty mean none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Processors, in fractions.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::number")]
    pub cpus: f64,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub memory: ByteSize,
    /// Processes and threads.
    #[serde(skip_serializing_if = "is_default")]
    pub pids: i64,
    /// Devices.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceRequest>,
    /// Resources that are counted.
    #[serde(skip_serializing_if = "is_default")]
    pub generic_resources: Vec<GenericResource>,
}

/// Devices asked for by what they can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// What they must be able to do.
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: Vec<String>,
    /// Their driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// How many; all when `-1`.
    #[serde(skip_serializing_if = "is_default")]
    pub count: i64,
    /// Which ones.
    #[serde(skip_serializing_if = "is_default")]
    pub device_ids: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

/// A resource that is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenericResource {
    /// Its kind and number.
    #[serde(skip_serializing_if = "is_default")]
    pub discrete_resource_spec: Option<DiscreteResource>,
}

/// The kind and number of a counted resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiscreteResource {
    /// What it is.
    pub kind: String,
    /// How many.
    pub value: i64,
}

/// When containers are started again by themselves, as a cluster says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployRestart {
    /// `none`, `on-failure` or `any`.
    #[serde(skip_serializing_if = "is_default")]
    pub condition: Option<String>,
    /// Time before the next attempt.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub delay: Option<Span>,
    /// How often; without end when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub max_attempts: Option<u64>,
    /// How long it must run to count as started.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub window: Option<Span>,
}

/// Where a service may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// Conditions on the node.
    #[serde(skip_serializing_if = "is_default")]
    pub constraints: Vec<String>,
    /// Wishes about the node.
    #[serde(skip_serializing_if = "is_default")]
    pub preferences: Vec<PlacementPreference>,
    /// At most this many containers on one node.
    #[serde(skip_serializing_if = "is_default")]
    pub max_replicas_per_node: u64,
}

/// A wish about the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementPreference {
    /// Spread evenly over the values of this label.
    #[serde(skip_serializing_if = "is_default")]
    pub spread: Option<String>,
}

/// A limit per process. `-1` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ulimit {
    /// Soft and hard are the same.
    Single(i64),
    /// Soft and hard.
    Range {
        /// What holds.
        soft: i64,
        /// How far a process may raise it itself.
        hard: i64,
    },
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

/// A device node of the host, or a CDI name in `source` and `target`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its path on the host.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// Its path in the container; the same when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// Some of `r`, `w` and `m`; all when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub permissions: Option<String>,
}

/// A file environment variables are read from. The reference writes a required one as its path alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EnvFile {
    /// Its absolute path.
    pub path: String,
    /// Whether it must exist.
    #[serde(default = "form::yes")]
    pub required: bool,
    /// `raw`, or the grammar of `.env` files when `None`.
    #[serde(default)]
    pub format: Option<String>,
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

/// Block device limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioConfig {
    /// Relative weight, 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: u16,
    /// Relative weight on single devices.
    #[serde(skip_serializing_if = "is_default")]
    pub weight_device: Vec<WeightDevice>,
    /// Bytes read in a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_bps: Vec<ThrottleDevice>,
    /// Reads in a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_iops: Vec<ThrottleDevice>,
    /// Bytes written in a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_bps: Vec<ThrottleDevice>,
    /// Writes in a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_iops: Vec<ThrottleDevice>,
}

/// The weight on one device. The reference writes these names in capitals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightDevice {
    /// The device.
    #[serde(rename(serialize = "Path"))]
    pub path: String,
    /// The weight.
    #[serde(rename(serialize = "Weight"))]
    pub weight: u16,
}

/// The rate on one device. The reference writes these names in capitals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    /// The device.
    #[serde(rename(serialize = "Path"))]
    pub path: String,
    /// The rate.
    #[serde(rename(serialize = "Rate"), serialize_with = "form::bytes")]
    pub rate: ByteSize,
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

/// What `watch` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Develop {
    /// Its rules.
    #[serde(skip_serializing_if = "is_default")]
    pub watch: Vec<WatchRule>,
}

/// What happens when files change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRule {
    /// What is watched, an absolute path.
    pub path: String,
    /// What happens.
    pub action: WatchAction,
    /// Where the files go in the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// What is run after the files went.
    #[serde(default)]
    pub exec: Hook,
    /// Only files that match, when given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub include: Vec<String>,
    /// Not the files that match.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignore: Vec<String>,
    /// Whether everything is copied before watching begins.
    #[serde(default, skip_serializing_if = "is_default")]
    pub initial_sync: bool,
}

/// What happens when files change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchAction {
    /// The image is built and the containers recreated.
    #[serde(rename = "rebuild")]
    Rebuild,
    /// The files are copied.
    #[serde(rename = "sync")]
    Sync,
    /// The containers are restarted.
    #[serde(rename = "restart")]
    Restart,
    /// The files are copied and the containers restarted.
    #[serde(rename = "sync+restart")]
    SyncRestart,
    /// The files are copied and a command is run.
    #[serde(rename = "sync+exec")]
    SyncExec,
}

/// A command run in a container at some moment of its life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// The program and its arguments.
    pub command: Option<Vec<String>>,
    /// As whom.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// Everything the engine may do.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Where.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// Further environment variables.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: BTreeMap<String, Option<String>>,
}

/// An init container: runs to its end between create and start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreStart {
    /// The program and its arguments; the image's when `None`.
    pub command: Option<Vec<String>>,
    /// The image; the service's when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub image: Option<String>,
    /// As whom.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// Everything the engine may do.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Where.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// Further environment variables.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: BTreeMap<String, Option<String>>,
    /// Whether it runs once for each container instead of once.
    #[serde(skip_serializing_if = "is_default")]
    pub per_replica: bool,
}

/// A language model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {
    /// Its real name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Which one.
    #[serde(skip_serializing_if = "is_default")]
    pub model: String,
    /// Tokens of context.
    #[serde(skip_serializing_if = "is_default")]
    pub context_size: i64,
    /// Flags of the program that runs it.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime_flags: Vec<String>,
}

/// How a service finds a language model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceModel {
    /// The variable with its address.
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_var: Option<String>,
    /// The variable with its name.
    #[serde(skip_serializing_if = "is_default")]
    pub model_var: Option<String>,
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

// === impl Dependency ===

impl Default for Dependency {
    fn default() -> Self {
        Self { condition: Condition::Started, restart: false, required: true }
    }
}

// === impl EnvFile ===

impl Serialize for EnvFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.required {
            return serializer.serialize_str(&self.path);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("required", &false)?;
        if let Some(format) = &self.format {
            map.serialize_entry("format", format)?;
        }
        map.end()
    }
}

// === impl Port ===

impl Port {
    /// The candidates on the host, first and last; any free port when `None`.
    pub fn published_range(&self) -> Option<(u16, u16)> {
        let text = self.published.as_deref().filter(|text| !text.is_empty())?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse().ok()?, last.parse().ok()?) {
            (0, 0) => None,
            range => Some(range),
        }
    }
}

// === impl BindOptions ===

impl BindOptions {
    /// Whether a missing host directory is made: yes unless said otherwise.
    pub fn creates_host_path(&self) -> bool {
        self.create_host_path.unwrap_or(true)
    }
}

// === impl ServiceVolume ===

impl ServiceVolume {
    /// Where it appears in the container.
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. }
            | Self::Volume { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::Image { target, .. }
            | Self::Npipe { target, .. }
            | Self::Cluster { target, .. } => target,
        }
    }

    /// Whether it can only be read.
    pub fn read_only(&self) -> bool {
        match self {
            Self::Bind { read_only, .. }
            | Self::Volume { read_only, .. }
            | Self::Tmpfs { read_only, .. }
            | Self::Image { read_only, .. }
            | Self::Cluster { read_only, .. } => *read_only,
            Self::Npipe { .. } => false,
        }
    }
}

// === impl Ulimit ===

impl Ulimit {
    /// What holds.
    pub fn soft(self) -> i64 {
        match self {
            Self::Single(limit) => limit,
            Self::Range { soft, .. } => soft,
        }
    }

    /// How far a process may raise it itself.
    pub fn hard(self) -> i64 {
        match self {
            Self::Single(limit) => limit,
            Self::Range { hard, .. } => hard,
        }
    }
}

/// How single values look in the reference's JSON.
mod form {
    use std::collections::BTreeMap;

    use engine::container::spec::Protocol;
    use engine::quantity::ByteSize;
    use serde::Serializer;
    use serde::ser::SerializeSeq as _;

    pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
        *value == T::default()
    }

    pub(super) fn yes() -> bool {
        true
    }

    pub(super) fn tcp() -> Protocol {
        Protocol::Tcp
    }

    /// Whole numbers have no decimal point in Go.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.fract() == 0.0 && value.abs() < 1e15 {
            serializer.serialize_i64(*value as i64)
        } else {
            serializer.serialize_f64(*value)
        }
    }

    pub(super) fn bytes<S: Serializer>(value: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.0.to_string())
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn signed_bytes<S: Serializer>(value: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn mode<S: Serializer>(value: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(mode) => serializer.serialize_str(&format!("0{mode:o}")),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn ssh<S: Serializer>(
        keys: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(keys.len()))?;
        for (id, path) in keys {
            let text = if path.is_empty() { id.clone() } else { format!("{id}={path}") };
            sequence.serialize_element(&text)?;
        }
        sequence.end()
    }

    /// Durations are Go's text, not nanoseconds.
    pub(super) mod span {
        use engine::quantity::Span;
        use serde::{Deserialize as _, Deserializer, Serializer, de};

        #[expect(clippy::ref_option, reason = "the signature is serde's")]
        pub(in super::super) fn serialize<S: Serializer>(
            value: &Option<Span>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(span) => serializer.collect_str(span),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Span>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
        }
    }

    /// Restart policies are `on-failure:3` and the like.
    pub(super) mod restart {
        use engine::container::spec::RestartPolicy;
        use serde::{Deserialize as _, Deserializer, Serializer, de};

        #[expect(clippy::ref_option, reason = "the signature is serde's")]
        pub(in super::super) fn serialize<S: Serializer>(
            value: &Option<RestartPolicy>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(policy) => serializer.collect_str(policy),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<RestartPolicy>, D::Error> {
            let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
            let policy = match text.split_once(':').unwrap_or((&text, "")) {
                ("", "") => return Ok(None),
                ("no", "") => RestartPolicy::No,
                ("always", "") => RestartPolicy::Always,
                ("unless-stopped", "") => RestartPolicy::UnlessStopped,
                ("on-failure", "") => RestartPolicy::OnFailure(0),
                ("on-failure", limit) => RestartPolicy::OnFailure(limit.parse().map_err(de::Error::custom)?),
                _ => return Err(de::Error::custom(format_args!("invalid restart policy {text:?}"))),
            };
            Ok(Some(policy))
        }
    }
}
