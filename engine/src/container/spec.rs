//! What was asked of a container: complete, validated, serialised. Nothing below this room sees a flag.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::container::cgroup::DeviceRule;
use crate::container::idmap::UserMode;
pub use crate::container::restart::RestartPace;
use crate::id::{ContainerId, ContainerName, NetworkName, VolumeName};
use crate::network::LinkOptions;
use crate::quantity::{ByteSize, Span};
use crate::signal::Signal;

/// A container as asked for, before the image's own configuration is merged into it.
///
/// `None` and empty mean "as the image says". `Engine::create` merges and keeps the result in the
/// container's record, so that a later change of the image changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The name; a random one when `None`.
    pub name: Option<ContainerName>,
    /// The image as the user wrote it: reference, id or id prefix.
    pub image: String,
    /// What runs, as whom and where.
    pub process: ProcessSpec,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// The name inside the UTS namespace; the short id when `None`.
    pub hostname: Option<String>,
    /// NIS domain name inside the UTS namespace.
    pub domainname: Option<String>,
    /// How it is attached to networks.
    pub network: NetworkMode,
    /// Ports reachable from outside.
    pub ports: Vec<PortBinding>,
    /// Whether every exposed port, the image's too, is published on a free port.
    pub publish_all: bool,
    /// Whether its ports and names are held back until they are handed over to it, because another container has them.
    #[serde(alias = "ports_held")]
    pub held: bool,
    /// Ports the program says it listens on: `8080/tcp`.
    pub expose: Vec<ContainerPort>,
    /// Name servers, search domains, options and static names.
    pub dns: DnsSpec,
    /// What is mounted into it.
    pub mounts: Vec<MountSpec>,
    /// Containers whose mounts are taken over, with an optional mode (`ro` or `rw`).
    pub volumes_from: Vec<VolumesFrom>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Whether an init of ours is process 1.
    pub init: bool,
    /// The PID namespace.
    pub pid: NamespaceMode,
    /// The IPC namespace.
    pub ipc: NamespaceMode,
    /// The UTS namespace.
    pub uts: NamespaceMode,
    /// The cgroup namespace.
    pub cgroupns: NamespaceMode,
    /// The user namespace.
    pub userns: UserMode,
    /// Capabilities, seccomp and the like.
    pub security: Security,
    /// Devices made available.
    pub devices: Vec<Device>,
    /// Devices by their qualified names in the container device interface: `vendor.com/class=name`.
    pub cdi_devices: Vec<String>,
    /// What may be done with devices besides, whether or not there are nodes of them.
    pub device_rules: Vec<DeviceRule>,
    /// Kernel parameters of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits per process (getrlimit(2)), by name without `RLIMIT_`, lower case.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Size of /dev/shm.
    pub shm_size: Option<ByteSize>,
    /// What the out-of-memory killer adds to the score.
    pub oom_score_adj: Option<i32>,
    /// Limits of the cgroup.
    pub resources: Resources,
    /// The cgroup that the container's own lies in; the engine's when `None`. Relative to each hierarchy's top.
    pub cgroup_parent: Option<PathBuf>,
    /// When it is started again by itself.
    pub restart: RestartPolicy,
    /// How restarts follow each other.
    pub restart_pace: RestartPace,
    /// Whether it removes itself, with its anonymous volumes, once it has ended.
    pub auto_remove: bool,
    /// What asks the program to end; the image's, then SIGTERM, when `None`.
    pub stop_signal: Option<Signal>,
    /// How long it may take to end; ten seconds when `None`.
    pub stop_timeout: Option<Grace>,
    /// How its health is found out; the image's when `None`.
    pub healthcheck: Option<HealthCheck>,
    /// What is changed of the health check, whichever it is.
    pub health_timing: HealthTiming,
    /// Where its output goes.
    pub log: LogSpec,
    /// `os/arch[/variant]` wanted of the image.
    pub platform: Option<String>,
}

/// What runs, as whom and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// `Some` replaces the image's entrypoint and drops the image's command; `Some([])` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// `Some` replaces the image's command.
    pub command: Option<Vec<String>>,
    /// `KEY=value`, in order; a later one wins over an earlier one and over the image's.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Supplementary groups, names or numbers.
    pub group_add: Vec<String>,
    /// The working directory.
    pub working_dir: Option<PathBuf>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub open_stdin: bool,
    /// Whether standard input closes when the first attached client leaves.
    pub stdin_once: bool,
}

/// How a container meets the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// Attached to these bridge networks, the first one giving the default route; `[]` is the network `bridge`.
    Bridge(Vec<NetworkAttachment>),
    /// The host's own.
    Host,
    /// Loopback alone.
    None,
    /// The one of another container.
    Container(ContainerId),
}

/// One network a container is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// The network, by name or id.
    pub network: String,
    /// Further names it answers to there.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Addresses wanted; given by the pool when empty. One per family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The link's hardware address, `02:42:ac:11:00:02`.
    #[serde(default)]
    pub mac_address: Option<String>,
    /// The attachment with the highest one gives the default route.
    #[serde(default)]
    pub gateway_priority: i32,
    /// Further addresses of the link that are good on it alone (RFC 3927, RFC 4291).
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// What is asked of the link itself.
    #[serde(default)]
    pub link: LinkOptions,
}

/// A transport protocol that ports belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission control protocol.
    Tcp,
    /// User datagram protocol.
    Udp,
    /// Stream control transmission protocol.
    Sctp,
}

/// A port inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerPort {
    /// 1 to 65535.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A port of the host that leads to a port of the container. Ranges are expanded before they get here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// The address of the host it is published on; every one, v4 and v6, when `None`.
    pub host_ip: Option<IpAddr>,
    /// Candidate ports of the host, first and last: one free port of them is taken; any free one when `None`.
    pub host_port: Option<(u16, u16)>,
    /// The port of the container.
    pub container: ContainerPort,
}

/// Name resolution inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsSpec {
    /// Upstream servers instead of the host's.
    pub servers: Vec<IpAddr>,
    /// Search domains instead of the host's.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
    /// Lines of /etc/hosts: name and address, or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// Names of other containers that only this one knows (`--link`).
    pub links: Vec<(String, ContainerId)>,
}

/// Something mounted into the container at an absolute path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Where it appears.
    pub target: PathBuf,
    /// What appears there.
    pub source: MountSource,
    /// Whether it can only be read.
    #[serde(default)]
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Its absolute path on the host.
        path: PathBuf,
        /// Whether a missing directory is made (`-v`) or refused (`--mount`).
        create: bool,
        /// How later mounts travel between the two sides.
        propagation: Propagation,
        /// Whether mounts below it come along.
        recursive: bool,
        /// Whether mounts below it can be written even when it can only be read itself.
        #[serde(default)]
        writable_below: bool,
    },
    /// A named volume, or a new anonymous one when the name is `None`.
    Volume {
        /// The volume.
        name: Option<VolumeName>,
        /// Whether an empty volume is left empty instead of being filled from the image.
        no_copy: bool,
        /// A path inside the volume that is shown instead of its root.
        subpath: Option<PathBuf>,
        /// How it is made when it does not exist yet.
        #[serde(default)]
        making: VolumeMaking,
    },
    /// The files of an image.
    Image {
        /// The image as the user wrote it; its id once the container is made.
        image: String,
        /// Its unpacked layers, topmost first; known once the container is made.
        lower: Vec<PathBuf>,
        /// A path inside the image that is shown instead of its root.
        subpath: Option<PathBuf>,
    },
    /// A file system in memory.
    Tmpfs {
        /// Its size; half of the memory when `None`.
        size: Option<ByteSize>,
        /// Permission bits of its root; 1777 when `None`.
        mode: Option<u32>,
        /// Further mount options (`exec`, `uid=…`).
        options: Vec<String>,
    },
    /// A file with this content, on tmpfs only: how secrets and configurations arrive.
    Content {
        /// The bytes, kept in the run directory and never in the state directory.
        file: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// What a volume gets that is made for a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMaking {
    /// `type`, `o` and `device` of the local driver.
    pub options: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// How mounts travel between a bind mount and its source (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Not at all, recursively.
    #[default]
    Rprivate,
    /// Not at all.
    Private,
    /// Both ways, recursively.
    Rshared,
    /// Both ways.
    Shared,
    /// From the host only, recursively.
    Rslave,
    /// From the host only.
    Slave,
}

/// A container whose mounts are taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// The container, by name or id.
    pub container: String,
    /// Whether they can only be read; as in the other container when `None`.
    pub read_only: Option<bool>,
}

/// Whose namespace a container lives in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// One of its own.
    #[default]
    Private,
    /// One of its own that others may join.
    Shareable,
    /// The host's.
    Host,
    /// Another container's.
    Container(ContainerId),
    /// None at all (`--ipc none`: a namespace of its own without /dev/shm).
    None,
}

/// Privileges given or taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Everything the engine itself may do.
    pub privileged: bool,
    /// Capabilities added to docker's default set, without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities dropped from it first, without `CAP_`, or `ALL`.
    pub cap_drop: Vec<String>,
    /// Whether setuid programs give no privileges.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Whether /proc and /sys are shown without masks.
    pub unmask_system_paths: bool,
    /// Whether its own part of a unified cgroup tree can be written.
    pub writable_cgroups: bool,
    /// The AppArmor profile it runs under; the engine's own when `None`.
    pub apparmor: Option<String>,
}

/// The system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in docker's JSON form.
    Profile(String),
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its path on the host.
    pub host: PathBuf,
    /// Its path in the container.
    pub container: PathBuf,
    /// Some of `r`, `w` and `m`.
    pub permissions: String,
}

/// A limit per process; `-1` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What holds.
    pub soft: i64,
    /// How far the process may raise it itself.
    pub hard: i64,
}

/// Limits of the container's cgroup. `None` is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes of memory.
    pub memory: Option<ByteSize>,
    /// Bytes of memory and swap together; `-1` is unlimited; twice the memory when `None`.
    pub memory_swap: Option<i64>,
    /// Bytes of memory it keeps under pressure.
    pub memory_reservation: Option<ByteSize>,
    /// Billionths of a processor.
    pub nano_cpus: Option<u64>,
    /// Microseconds of processor time per period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Relative weight, 2 to 262144, 1024 being normal.
    pub cpu_shares: Option<u64>,
    /// Processors it may run on: `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; `-1` is unlimited.
    pub pids: Option<i64>,
    /// Whether the out-of-memory killer leaves it alone (v1 only).
    pub oom_kill_disable: bool,
    /// How readily its memory is swapped out, 0 to 100 (v1 only).
    pub memory_swappiness: Option<u8>,
    /// Microseconds of real-time scheduling per period (v1 only).
    pub cpu_rt_runtime: Option<i64>,
    /// The period of real-time scheduling in microseconds (v1 only).
    pub cpu_rt_period: Option<u64>,
    /// Relative weight at block devices, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Weights and rates at single block devices.
    pub blkio_devices: Vec<BlockLimit>,
    /// Bytes of huge pages, by their size.
    pub hugepages: Vec<HugepageLimit>,
    /// Files of the unified hierarchy and what is written to them.
    pub unified: BTreeMap<String, String>,
}

/// A limit on huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// The size in the kernel's words: `2MB`.
    pub size: String,
    /// What holds.
    pub limit: ByteSize,
}

/// A limit at one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockLimit {
    /// The device's path on the host, or its number: `8:0`.
    pub device: PathBuf,
    /// What is limited.
    pub kind: BlockLimitKind,
    /// The weight (10 to 1000), or bytes or operations a second.
    pub value: u64,
}

/// What is limited at a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockLimitKind {
    /// The relative weight.
    Weight,
    /// Bytes read a second.
    ReadBytes,
    /// Bytes written a second.
    WriteBytes,
    /// Reads a second.
    ReadOperations,
    /// Writes a second.
    WriteOperations,
}

/// When a container is started again by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Whenever it ended, and after a reboot.
    Always,
    /// As `Always`, unless a person stopped it.
    UnlessStopped,
    /// When it ended with a code other than 0, at most this often in a row; without end when 0.
    OnFailure(u32),
}

/// How long something may take to end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grace {
    /// This long, then it is killed.
    Limited(Span),
    /// For ever.
    Unlimited,
}

/// How a container's health is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The program, or `None` to switch off the image's check.
    pub test: Option<Vec<String>>,
    /// Time between two probes.
    pub interval: Span,
    /// How long one may take.
    pub timeout: Span,
    /// How many in a row must fail.
    pub retries: u32,
    /// How long failures do not count after the start.
    pub start_period: Span,
    /// Time between two probes in the start period.
    pub start_interval: Span,
}

/// What is changed of a health check that the image brings, or left out of one that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthTiming {
    /// Time between two probes.
    pub interval: Option<Span>,
    /// How long one may take.
    pub timeout: Option<Span>,
    /// How many in a row must fail.
    pub retries: Option<u32>,
    /// How long failures do not count after the start.
    pub start_period: Option<Span>,
    /// Time between two probes in the start period.
    pub start_interval: Option<Span>,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// `json-file`, `local` or `none`.
    pub driver: String,
    /// `max-size`, `max-file`, `tag`, …
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

// === impls ===

impl Default for ContainerSpec {
    fn default() -> Self {
        Self {
            name: None,
            image: String::new(),
            process: ProcessSpec::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            hostname: None,
            domainname: None,
            network: NetworkMode::Bridge(Vec::new()),
            ports: Vec::new(),
            publish_all: false,
            held: false,
            expose: Vec::new(),
            dns: DnsSpec::default(),
            mounts: Vec::new(),
            volumes_from: Vec::new(),
            read_only: false,
            init: false,
            pid: NamespaceMode::Private,
            ipc: NamespaceMode::Private,
            uts: NamespaceMode::Private,
            cgroupns: NamespaceMode::Private,
            userns: UserMode::Host,
            security: Security::default(),
            devices: Vec::new(),
            cdi_devices: Vec::new(),
            device_rules: Vec::new(),
            sysctls: BTreeMap::new(),
            ulimits: BTreeMap::new(),
            shm_size: None,
            oom_score_adj: None,
            resources: Resources::default(),
            cgroup_parent: None,
            restart: RestartPolicy::No,
            restart_pace: RestartPace::default(),
            auto_remove: false,
            stop_signal: None,
            stop_timeout: None,
            healthcheck: None,
            health_timing: HealthTiming::default(),
            log: LogSpec::default(),
            platform: None,
        }
    }
}

impl Default for LogSpec {
    fn default() -> Self {
        Self { driver: "json-file".to_owned(), options: BTreeMap::new() }
    }
}

impl ContainerSpec {
    /// The named volumes it mounts.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &VolumeName> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => name.as_ref(),
            _ => None,
        })
    }
}

impl NetworkMode {
    /// What was asked for of each network.
    pub fn attachments(&self) -> &[NetworkAttachment] {
        match self {
            Self::Bridge(attachments) => attachments,
            Self::Host | Self::None | Self::Container(_) => &[],
        }
    }

    /// The networks by name, the default one included.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Host => vec!["host".to_owned()],
            Self::None => vec!["none".to_owned()],
            Self::Container(_) => Vec::new(),
            Self::Bridge(attachments) if attachments.is_empty() => vec!["bridge".to_owned()],
            Self::Bridge(attachments) => attachments.iter().map(|each| each.network.clone()).collect(),
        }
    }
}

impl NetworkMode {
    /// The same with one more network; `is_same` tells whether a name or id means that network.
    ///
    /// # Errors
    /// When it is attached to it already, or lives in somebody else's network.
    pub(crate) fn with(
        &self,
        attachment: &NetworkAttachment,
        is_same: impl Fn(&str) -> bool,
    ) -> Result<Self, AttachError> {
        let mut attachments = self.changeable()?;
        if attachments.iter().any(|known| is_same(&known.network)) {
            return Err(AttachError::Attached);
        }
        attachments.push(attachment.clone());
        Ok(Self::Bridge(attachments))
    }

    /// The same without a network; loopback alone is what is left without any.
    ///
    /// # Errors
    /// When it is not attached to it, or lives in somebody else's network.
    pub(crate) fn without(&self, is_same: impl Fn(&str) -> bool) -> Result<Self, AttachError> {
        let mut attachments = self.changeable()?;
        let before = attachments.len();
        attachments.retain(|known| !is_same(&known.network));
        match attachments.len() {
            left if left == before => Err(AttachError::NotAttached),
            0 => Ok(Self::None),
            _ => Ok(Self::Bridge(attachments)),
        }
    }

    /// Every attachment, the default one included.
    fn changeable(&self) -> Result<Vec<NetworkAttachment>, AttachError> {
        match self {
            Self::Bridge(attachments) if attachments.is_empty() => Ok(vec![NetworkAttachment {
                network: "bridge".to_owned(),
                aliases: Vec::new(),
                addresses: Vec::new(),
                mac_address: None,
                gateway_priority: 0,
                link_local: Vec::new(),
                link: LinkOptions::default(),
            }]),
            Self::Bridge(attachments) => Ok(attachments.clone()),
            Self::None => Ok(Vec::new()),
            Self::Host => Err(AttachError::Shared("the host")),
            Self::Container(_) => Err(AttachError::Shared("another container")),
        }
    }
}

/// Why a container's networks cannot be changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttachError {
    /// It has that network.
    #[error("it is attached already")]
    Attached,
    /// It does not have that network.
    #[error("it is not attached")]
    NotAttached,
    /// Its network is not its own.
    #[error("it lives in the network of {0}")]
    Shared(&'static str),
}

impl NetworkAttachment {
    /// An attachment to this network and nothing more.
    pub fn to(network: &NetworkName) -> Self {
        Self {
            network: network.to_string(),
            aliases: Vec::new(),
            addresses: Vec::new(),
            mac_address: None,
            gateway_priority: 0,
            link_local: Vec::new(),
            link: LinkOptions::default(),
        }
    }
}

impl Propagation {
    /// Each by its name, as options of mounts have it.
    pub const NAMES: [(&str, Self); 6] = [
        ("private", Self::Private),
        ("rprivate", Self::Rprivate),
        ("shared", Self::Shared),
        ("rshared", Self::Rshared),
        ("slave", Self::Slave),
        ("rslave", Self::Rslave),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl std::fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl std::fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
            Self::OnFailure(0) => f.write_str("on-failure"),
            Self::OnFailure(limit) => write!(f, "on-failure:{limit}"),
        }
    }
}
