//! What a launch needs, complete: every name, path and default resolved beforehand. Pure data.

use std::path::PathBuf;

use crate::container::capabilities::CapabilitySet;
use crate::container::cgroup::Devices;
use crate::container::idmap::UserMap;
use crate::container::privileges::LIMIT_NAMES;
use crate::container::spec::Propagation;
use crate::volume::FileSystem;

mod devices;
mod resolve;

pub(crate) use devices::{node_of, rule_for};
pub use resolve::foreign_sysctls;
pub(crate) use resolve::{is_namespaced, system_paths};

/// How one container is launched.
#[derive(Debug, Clone)]
pub struct LaunchPlan {
    /// Its first process.
    pub process: ProcessPlan,
    /// Whose namespaces it lives in.
    pub namespaces: Namespaces,
    /// What it sees as `/`.
    pub rootfs: RootfsPlan,
    /// The name inside its UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name inside its UTS namespace.
    pub domainname: Option<String>,
    /// Kernel parameters of its own namespaces, by dotted name.
    pub sysctls: Vec<(String, String)>,
    /// Whether an init of ours is process 1 and the program its child.
    pub init: bool,
    /// What its cgroup lets it do with devices.
    pub device_rules: Devices,
    /// What is not as asked, but no reason to fail.
    pub warnings: Vec<String>,
}

/// How a process of a container is executed, be it the first one or one that joins later.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// `KEY=value`; `HOME` is added from the user's entry when missing.
    pub env: Vec<String>,
    /// The working directory, made when missing.
    pub cwd: PathBuf,
    /// `user[:group]`, names or numbers, looked up inside the container; root when empty.
    pub user: String,
    /// Further groups, names or numbers, looked up inside the container.
    pub groups: Vec<String>,
    /// Whether it gets a terminal of the container's own devpts.
    pub terminal: Option<TerminalSize>,
    /// What it and its children may ever do; already cut to what the engine itself may do.
    pub capabilities: CapabilitySet,
    /// Whether setuid programs give no privileges.
    pub no_new_privileges: bool,
    /// The system call filter, compiled; `None` is unconfined.
    pub seccomp: Option<Vec<libc::sock_filter>>,
    /// Resource limits per process.
    pub limits: Vec<Limit>,
    /// What the out-of-memory killer adds to the score.
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile it is executed under; the engine's own when `None`.
    pub apparmor: Option<String>,
    /// Its user ids as ids of the host: its namespaces belong to a user namespace of its own then. The host's ids when
    /// `None`.
    pub users: Option<UserMap>,
    /// Who it is and what it may do, given exactly: nothing is looked up or derived from the user then.
    pub exact: Option<ExactIdentity>,
    /// `SECCOMP_FILTER_FLAG_…` of seccomp(2) for the filter.
    pub seccomp_flags: u32,
    /// The execution domain (personality(2)); the engine's own when `None`.
    pub personality: Option<u32>,
    /// Whether it is killed when the process that launched it ends.
    pub dies_with_parent: bool,
    /// Whether it gets a session keyring of its own.
    pub own_keyring: bool,
    /// How many of the launching process's descriptors it has besides its standard streams: 3 and the following.
    pub kept_descriptors: u32,
}

/// Who a process is and what it may do, all in numbers (runtime-spec, config.md, "User" and "capabilities").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExactIdentity {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The mask of new files; 022 when `None`.
    pub umask: Option<u32>,
    /// What counts now.
    pub effective: CapabilitySet,
    /// What it may take.
    pub permitted: CapabilitySet,
    /// What executed files may inherit.
    pub inheritable: CapabilitySet,
    /// What programs without capabilities of their own keep.
    pub ambient: CapabilitySet,
}

/// The limits per process that there are, by docker's names (getrlimit(2), without `RLIMIT_`).
pub fn limit_names() -> impl Iterator<Item = &'static str> {
    LIMIT_NAMES.iter().map(|(name, _)| *name)
}

impl Limit {
    /// The limit of this name; `None` when there is none.
    pub fn named(name: &str, soft: Option<u64>, hard: Option<u64>) -> Option<Self> {
        let (_, resource) = LIMIT_NAMES.iter().find(|(known, _)| *known == name)?;
        Some(Self { resource: *resource, soft, hard })
    }
}

/// What a program with a terminal is told of it, unless somebody says otherwise.
pub const PLAIN_TERMINAL: &str = "TERM=xterm";

/// A terminal's size; 0 by 0 leaves it to the first resize.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// One limit per process; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is limited.
    pub resource: rustix::process::Resource,
    /// What holds.
    pub soft: Option<u64>,
    /// How far the process may raise it itself.
    pub hard: Option<u64>,
}

/// Whose namespaces a container lives in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Whose,
    /// Network.
    pub net: Whose,
    /// System V and POSIX message queues.
    pub ipc: Whose,
    /// Host and domain name.
    pub uts: Whose,
    /// The view of the cgroup tree.
    pub cgroup: Whose,
}

/// Whose namespace it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Whose {
    /// A new one.
    #[default]
    Own,
    /// The host's.
    Host,
    /// The one of this process.
    Of(i32),
    /// The one that this file stands for: `/proc/<pid>/ns/…` or a mount of one.
    At(PathBuf),
}

/// What a container sees as `/`. All paths of the host are absolute.
#[derive(Debug, Clone, Default)]
pub struct RootfsPlan {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// The overlay's own scratch directory, beside the writable layer.
    pub work: PathBuf,
    /// Whether the writable layer need not survive a power cut.
    pub volatile: bool,
    /// Whether old programs find what is mounted (`/etc/mtab`).
    pub mtab: bool,
    /// Whether `/` can only be read.
    pub read_only: bool,
    /// What is mounted into it, shallow targets first unless everything is listed.
    pub mounts: Vec<ResolvedMount>,
    /// Whether the list of mounts is complete: the engine adds no file system of its own and keeps their order. Of
    /// /dev there are only the nodes and links that every container has.
    pub listed: bool,
    /// How mounts travel between `/` and where it comes from; not at all when `None`.
    pub propagation: Option<Propagation>,
    /// Whether the root is moved over `/` instead of being pivoted to: what a root on an initramfs needs.
    pub moves_root: bool,
    /// Devices of the host made available.
    pub devices: Vec<DeviceNode>,
    /// Bytes of /dev/shm; `None` leaves it out.
    pub shm_size: Option<u64>,
    /// Whether there is a /dev/mqueue: its own IPC namespace is needed for one.
    pub mqueue: bool,
    /// Whether /sys, /proc and the cgroups can be written as far as capabilities go.
    pub privileged: bool,
    /// Whether the cgroups can be written although the rest cannot.
    pub writable_cgroups: bool,
    /// Paths hidden behind nothing.
    pub masked: Vec<PathBuf>,
    /// Paths of /proc that can only be read.
    pub readonly: Vec<PathBuf>,
}

/// Something mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedMount {
    /// Where it appears.
    pub target: PathBuf,
    /// What appears there.
    pub source: ResolvedSource,
    /// Whether it can only be read.
    pub read_only: bool,
    /// Whether what is mounted below it can be written even then.
    pub writable_below: bool,
    /// Further attributes of the mount and of those below it: `MOUNT_ATTR_…` of mount_setattr(2).
    pub attributes: u64,
    /// Attributes that are said of the mount one by one.
    pub stated: StatedAttributes,
    /// As whose files are shown; as on the host, or as the container's users see them, when `None`.
    pub owners: Option<MappedOwners>,
}

/// The owners of files are shown as other ones, as a user namespace with these maps would have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedOwners {
    /// Ids in the file system as ids of the host.
    pub users: UserMap,
    /// Whether mounts below are mapped, too.
    pub recursive: bool,
}

/// Attributes of a mount that were said one by one: `MOUNT_ATTR_…` of mount_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatedAttributes {
    /// Set for the mount itself.
    pub set: u64,
    /// Cleared of the mount itself.
    pub clear: u64,
    /// Set for it and everything below it.
    pub set_below: u64,
    /// Cleared of it and of everything below it.
    pub clear_below: u64,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedSource {
    /// A file or directory of the host.
    Bind {
        /// Its path.
        path: PathBuf,
        /// How later mounts travel between the two sides.
        propagation: Propagation,
        /// Whether mounts below it come along.
        recursive: bool,
        /// A path inside it that is shown instead of it. It must not lead out of it, at no time: others may write
        /// there.
        subpath: Option<PathBuf>,
        /// Whether it is a volume that, being empty, is filled from what the image has at its place.
        seed: bool,
    },
    /// A file system of its own, mounted in the host's network and nowhere else.
    FileSystem {
        /// What is mounted.
        system: FileSystem,
        /// A container that shows it already, by its process, and where. What is in memory is taken over from there.
        shown: Option<(i32, PathBuf)>,
        /// Whether it is filled, being empty, from what the image has at its place.
        seed: bool,
    },
    /// A file system of this kind, mounted in the container's own namespaces: `proc`, `sysfs`, `mqueue`, ….
    Kind {
        /// The kernel's name for it.
        kind: String,
        /// What it calls its device.
        device: String,
        /// Its own options; a flag has an empty value.
        options: Vec<(String, String)>,
        /// Whether it is filled, being empty, from what the root has at its place.
        seed: bool,
    },
    /// The container's own part of every cgroup hierarchy.
    Cgroups,
    /// A file system in memory.
    Tmpfs {
        /// Options of tmpfs(5): `size`, `mode`, `uid`, …
        options: Vec<(String, String)>,
        /// Whether programs on it can be executed.
        exec: bool,
        /// Whether setuid bits count there.
        suid: bool,
        /// Whether device nodes work there.
        dev: bool,
    },
    /// Layers of an image, which can only be read.
    Layers {
        /// Topmost first.
        lower: Vec<PathBuf>,
        /// A path inside that is shown instead of their root.
        subpath: Option<PathBuf>,
    },
    /// A copy of a file of the host, in memory.
    Content {
        /// Its path.
        file: PathBuf,
        /// Permission bits of the copy.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// A device node of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Its path in the container.
    pub path: PathBuf,
    /// The kernel's number of the device.
    pub rdev: u64,
    /// What kind of node it is.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A kind of node in /dev.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}
