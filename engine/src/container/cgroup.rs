//! A container's control groups: where they are, what they limit and what they have counted.
//!
//! One [`Cgroup`] stands for all nodes of one container, whichever hierarchies this kernel has: every controller is
//! looked for by itself, so that pure v1, pure v2 and every mixture follow one path. Where a cgroup2 hierarchy is
//! mounted at all, even without controllers, the container has a node in it too: that gives atomic kill, freezing
//! with an event, and a descriptor to clone the first process into.
//!
//! Nothing outside `<root's tag>/` is ever made, changed or removed, with one exception that v2 forces on everybody:
//! a controller that the root has not handed down yet is handed down.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Pid;

use crate::id::ContainerId;
use crate::paths::Root;
use crate::rootless;
use crate::store;

use super::launch::Enclosure;
use super::spec::Resources;

mod block;
pub mod detail;
pub mod detect;
pub mod devices;
mod hugepages;
mod v1;
mod v2;

pub use detect::{Controller, Layout};
pub use devices::{Access, DeviceKind, DeviceRule, Devices};

/// Where a systemd slice lies, by its name without `.slice`. It lies in those that its name begins with: `a-b.slice` in
/// `a.slice`, and `-.slice` is the top (systemd.slice(5)).
pub(crate) fn slice_place(name: &str) -> PathBuf {
    if name == "-" {
        return PathBuf::new();
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.map(|end| format!("{}.slice", &name[..end])).collect()
}

/// All control groups of one container.
#[derive(Debug)]
pub struct Cgroup {
    v1: v1::Nodes,
    unified: Option<v2::Node>,
}

/// A limit that was asked for and does not hold, because this kernel cannot keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The limit, in the user's words.
    pub limit: &'static str,
    /// What is missing.
    pub reason: String,
}

/// What a container uses now and may use at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of memory, without the page cache that could be dropped at once.
    pub memory: u64,
    /// Most bytes of memory it may use.
    pub memory_limit: Option<u64>,
    /// Processor time used since it was started.
    pub cpu: Duration,
    /// Processes and threads.
    pub pids: u64,
    /// Most processes and threads it may have.
    pub pids_limit: Option<u64>,
    /// Processes that the out-of-memory killer ended.
    pub oom_kills: u64,
}

/// Which step on the control groups failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The kernel's list of mounts.
    #[error("read the list of mounted control groups")]
    Detect(#[source] io::Error),
    /// Making a node.
    #[error("make the control group {}", path.display())]
    Make {
        /// The node.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A limit the kernel knows and refuses.
    #[error("set the {limit} limit to {value}")]
    Limit {
        /// The limit, in the user's words.
        limit: &'static str,
        /// What was written.
        value: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A limit on swap says nothing without one on memory.
    #[error("a swap limit needs a memory limit that is not above it")]
    SwapWithoutMemory,
    /// A limit at something that is not a block device.
    #[error("find the block device {}", path.display())]
    BlockDevice {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Where the nodes of a container lie.
    #[error("record the cgroup parent {}", parent.display())]
    Parent {
        /// The parent.
        parent: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A rule about devices that the kernel would take and not keep.
    #[error("cgroup v1 cannot take {:?} out of what another rule says", .0.to_v1())]
    DeviceHole(DeviceRule),
    /// A file of the unified hierarchy on a machine that has none.
    #[error("there is no unified control group hierarchy here that could have a {0}")]
    NotUnified(String),
    /// The device filter.
    #[error("restrict the devices")]
    Devices(#[source] io::Error),
    /// Nothing can stop processes.
    #[error("it takes the freezer controller or cgroup2, which this engine has not been given")]
    NoFreezer,
    /// Moving a process in.
    #[error("put process {pid} into the control group {}", path.display())]
    Place {
        /// The process.
        pid: i32,
        /// The node.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Moving the own process in.
    #[error("enter the control group {}", path.display())]
    Enter {
        /// The node.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Reading, killing, freezing or removing a node.
    #[error("{verb} the control group {}", path.display())]
    Node {
        /// The step, as a verb.
        verb: &'static str,
        /// The node.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// How long processes that were killed may take to be gone.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

// === impl Cgroup ===

impl Cgroup {
    /// Says that the nodes of a container lie below this one of every hierarchy instead of the engine's own, before
    /// they are made. It holds as long as the container's run directory is there.
    pub fn place_below(root: &Root, id: &ContainerId, parent: &Path) -> Result<(), CgroupError> {
        let failed = |source| CgroupError::Parent { parent: parent.to_owned(), source };
        let text = parent.to_str().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        store::write_atomic(&root.cgroup_parent(id), text.as_bytes(), 0o600, store::Durability::Rename)
            .map_err(failed)
    }

    /// Makes the control groups of a container and sets its limits, before it has any process.
    pub fn create(
        root: &Root,
        id: &ContainerId,
        resources: &Resources,
        devices: &Devices,
    ) -> Result<(Self, Vec<Warning>), CgroupError> {
        let layout = host()?;
        let beyond = |mount: &detect::UnifiedMount| !rootless::delegation::is_in_reach(&mount.path);
        if rootless::is_inside() && layout.unified().is_some_and(beyond) {
            // A process that is started from here cannot get there.
            return Self::create_in(&Layout::default(), &place_of(root, id), resources, devices);
        }
        Self::create_in(layout, &place_of(root, id), resources, devices)
    }

    /// The same in hierarchies that are not the host's own, at this path below each of them.
    pub fn create_in(
        layout: &Layout,
        place: &Path,
        resources: &Resources,
        devices: &Devices,
    ) -> Result<(Self, Vec<Warning>), CgroupError> {
        if resources.memory_swap.is_some_and(|swap| swap > 0) {
            let memory = resources.memory.ok_or(CgroupError::SwapWithoutMemory)?;
            if resources.memory_swap.is_some_and(|swap| (swap as u64) < memory.0) {
                return Err(CgroupError::SwapWithoutMemory);
            }
        }
        let mut warnings = Vec::new();
        if layout.unified().is_none()
            && let Some(file) = resources.unified.keys().next()
        {
            return Err(CgroupError::NotUnified(file.clone()));
        }
        let unified = layout.unified().map(|mount| v2::Node::create(mount, place)).transpose()?;
        let wanted = wanted_controllers(resources, unified.is_some());
        let v1 = v1::Nodes::create(layout, place, &wanted)?;
        let cgroup = Self { v1, unified };
        let outcome = cgroup.set_up(layout, resources, devices, &mut warnings);
        if let Err(error) = outcome {
            // The limit's own failure is what matters; empty nodes are left for the sweep if even this fails.
            let _ = cgroup.remove();
            return Err(error);
        }
        Ok((cgroup, warnings))
    }

    /// How many processes are there already at this path of each hierarchy, or below it.
    pub fn occupants(layout: &Layout, place: &Path) -> usize {
        layout.mounts().map(|mount| count_below(&mount.join(place))).max().unwrap_or(0)
    }

    /// The control groups of a container that has been started, as far as they are there.
    pub fn open(root: &Root, id: &ContainerId) -> Result<Self, CgroupError> {
        Self::open_in(host()?, &place_of(root, id))
    }

    /// The same in hierarchies that are not the host's own.
    pub fn open_in(layout: &Layout, place: &Path) -> Result<Self, CgroupError> {
        let unified = layout.unified().map(|mount| v2::Node::open(mount, place)).transpose()?.flatten();
        Ok(Self { v1: v1::Nodes::open(layout, place), unified })
    }

    /// Whether anything is counted of a container at all.
    pub fn counts() -> bool {
        host().is_ok_and(|layout| layout.mounts().next().is_some())
    }

    /// Removes this root's own parent nodes once the last container has left them: `rengine-…/` itself. Nodes still
    /// in use stay.
    pub fn sweep(root: &Root) -> Result<(), CgroupError> {
        let layout = host()?;
        let parents = layout.mounts().map(|mount| mount.join(root.tag()));
        for parent in parents {
            if let Err(error) = fs::remove_dir(&parent)
                && !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBUSY | libc::ENOTEMPTY))
            {
                return Err(CgroupError::Node { verb: "remove", path: parent, source: error });
            }
        }
        Ok(())
    }

    /// The ids of all containers of a root that have a control group, alive or left over.
    pub fn list(root: &Root) -> Result<Vec<ContainerId>, CgroupError> {
        let mut ids = Vec::new();
        for mount in host()?.mounts() {
            let Ok(entries) = fs::read_dir(mount.join(root.tag())) else { continue };
            ids.extend(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()));
        }
        if let Ok(runs) = fs::read_dir(root.container_runs()) {
            let placed = runs.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            // One that lies elsewhere counts as long as something of it is there.
            ids.extend(placed.filter(|id: &ContainerId| {
                root.cgroup_parent(id).exists()
                    && host().is_ok_and(|layout| {
                        layout.mounts().any(|mount| mount.join(place_of(root, id)).is_dir())
                    })
            }));
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// What `clone3` takes with `CLONE_INTO_CGROUP`. A cgroup namespace made by the same call would still be rooted
    /// at the caller's node, so it has to be unshared afterwards, by the child.
    pub fn dirfd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(v2::Node::dirfd)
    }

    /// Moves a process into every node: for one that was not cloned into [`Self::dirfd`].
    pub fn adopt(&self, pid: Pid) -> Result<(), CgroupError> {
        if let Some(unified) = &self.unified {
            unified.place(pid)?;
        }
        self.v1.place(pid)
    }

    /// The processes inside.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        match &self.unified {
            Some(unified) => unified.processes(),
            None => self.v1.processes(),
        }
    }

    /// Kills every process inside. They are gone a moment later: [`Self::remove`] waits for that.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match &self.unified {
            Some(unified) => unified.kill(),
            None => self.v1.kill(),
        }
    }

    /// Stops every process inside until [`Self::thaw`]; returns when all of them stand still.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        match &self.unified {
            Some(unified) => unified.freeze(),
            None if !self.v1.has(Controller::Freezer) => Err(CgroupError::NoFreezer),
            None => self.v1.freeze(),
        }
    }

    /// Lets them run on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match &self.unified {
            Some(unified) => unified.thaw(),
            None => self.v1.thaw(),
        }
    }

    /// Whether what is inside stands still because of [`Self::freeze`].
    pub fn is_frozen(&self) -> bool {
        match &self.unified {
            Some(unified) => unified.is_frozen() || self.v1.is_frozen(),
            None => self.v1.is_frozen(),
        }
    }

    /// Whether the out-of-memory killer has ended a process inside.
    pub fn oom_killed(&self) -> bool {
        self.oom_kills() > 0
    }

    /// What it uses.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        if let Some(unified) = &self.unified {
            unified.read_stats(&mut stats);
        }
        self.v1.read_stats(&mut stats);
        stats
    }

    /// Changes the limits that are `Some`, leaving the others as they are. Processes move into a node that only these
    /// limits need.
    pub fn update(&mut self, resources: &Resources) -> Result<Vec<Warning>, CgroupError> {
        let mut warnings = Vec::new();
        let missing = wanted_controllers(resources, self.unified.is_some());
        let processes = self.processes()?;
        self.v1.extend(host()?, &missing, &processes)?;
        self.v1.limit(resources, v1::Moment::Running, &mut warnings)?;
        if let Some(unified) = &self.unified {
            unified.limit(resources, &mut warnings)?;
        }
        warn_of_ownerless(resources, |controller| self.owns(controller), &mut warnings);
        Ok(warnings)
    }

    /// Removes the nodes, and those that the container made below them. Waits for killed processes to be gone.
    pub fn remove(self) -> Result<(), CgroupError> {
        if let Some(unified) = &self.unified {
            unified.remove(EMPTY_WITHIN)?;
        }
        self.v1.remove(EMPTY_WITHIN)
    }

    fn set_up(
        &self,
        layout: &Layout,
        resources: &Resources,
        devices: &Devices,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), CgroupError> {
        self.v1.limit(resources, v1::Moment::Empty, warnings)?;
        if let Some(unified) = &self.unified {
            unified.limit(resources, warnings)?;
        }
        warn_of_ownerless(resources, |controller| self.owns(controller), warnings);
        if self.unified.is_none() && !resources.unified.is_empty() {
            warnings.push(Warning { limit: "unified", reason: "no cgroup2 is mounted".to_owned() });
        }
        if *devices == Devices::All {
            return Ok(());
        }
        if layout.v1_mount(Controller::Devices).is_some() {
            return self.v1.restrict_devices(devices);
        }
        match &self.unified {
            // What is not shown to it a container of an ordinary user cannot make either.
            _ if rootless::is_inside() => Ok(()),
            Some(unified) => unified.restrict_devices(devices),
            None => {
                warnings.push(Warning {
                    limit: "devices",
                    reason: "no devices controller and no cgroup2 are mounted".to_owned(),
                });
                Ok(())
            }
        }
    }

    fn owns(&self, controller: Controller) -> bool {
        self.v1.has(controller) || self.unified.as_ref().is_some_and(|node| node.has(controller))
    }

    fn oom_kills(&self) -> u64 {
        self.unified.as_ref().map_or(0, v2::Node::oom_kills) + self.v1.oom_kills()
    }
}

impl Enclosure for Cgroup {
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.dirfd()
    }

    fn enter(&self) -> crate::Result<()> {
        Ok(self.v1.enter()?)
    }
}

// === impl Warning ===

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the {} limit does not hold: {}", self.limit, self.reason)
    }
}

// === impl CgroupError ===

impl From<CgroupError> for crate::Error {
    fn from(error: CgroupError) -> Self {
        match &error {
            CgroupError::SwapWithoutMemory | CgroupError::DeviceHole(_) | CgroupError::NotUnified(_) => {
                Self::invalid(error.to_string())
            }
            CgroupError::NoFreezer => Self::new(crate::Kind::Unsupported, "pause the container")
                .with_source(error)
                .with_hint("`commit --no-pause` does without"),
            CgroupError::BlockDevice { .. } => Self::invalid("limit a block device").with_source(error),
            CgroupError::Limit { limit, .. } => {
                let hint = match *limit {
                    "cpuset" => {
                        "the kernel refused it: `nproc` tells how many processors there are, from 0 on"
                            .to_owned()
                    }
                    limit => format!("the kernel refused this {limit} limit; a larger one may be needed"),
                };
                Self::failed("limit the container", error).with_hint(hint)
            }
            _ => Self::failed("set up the control groups", error),
        }
    }
}

/// The host's own hierarchies, looked for once: mounts of control groups do not come and go under a program that
/// lives as long as one command or one container.
fn host() -> Result<&'static Layout, CgroupError> {
    static HOST: OnceLock<Layout> = OnceLock::new();
    if let Some(layout) = HOST.get() {
        return Ok(layout);
    }
    let layout = Layout::detect().map_err(CgroupError::Detect)?;
    Ok(HOST.get_or_init(|| layout))
}

fn place_of(root: &Root, id: &ContainerId) -> PathBuf {
    match fs::read_to_string(root.cgroup_parent(id)) {
        Ok(parent) => Path::new(parent.trim_start_matches('/')).join(id.as_str()),
        Err(_) => Path::new(root.tag()).join(id.as_str()),
    }
}

/// Every node costs a directory and a move on the way to the first instruction, so a controller that neither limits
/// nor counts anything here has none.
fn wanted_controllers(resources: &Resources, has_unified: bool) -> Vec<Controller> {
    use Controller::{Cpu, Cpuacct, Cpuset, Devices, Freezer, Hugetlb, Io, Memory, Pids};
    let mut wanted = vec![Memory, Cpu, Cpuacct, Devices, Pids];
    if resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some() {
        wanted.push(Cpuset);
    }
    if !has_unified {
        wanted.push(Freezer);
    }
    if limits_block_devices(resources) {
        wanted.push(Io);
    }
    if !resources.hugepages.is_empty() {
        wanted.push(Hugetlb);
    }
    wanted
}

fn limits_block_devices(resources: &Resources) -> bool {
    resources.blkio_weight.is_some_and(|weight| weight != 0) || !resources.blkio_devices.is_empty()
}

fn warn_of_ownerless(resources: &Resources, owned: impl Fn(Controller) -> bool, warnings: &mut Vec<Warning>) {
    let cpu = resources.nano_cpus.is_some()
        || resources.cpu_quota.is_some()
        || resources.cpu_period.is_some()
        || resources.cpu_rt_runtime.is_some()
        || resources.cpu_rt_period.is_some()
        || resources.cpu_shares.is_some();
    let memory = resources.memory.is_some()
        || resources.memory_reservation.is_some()
        || resources.memory_swappiness.is_some();
    let cpuset = resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some();
    for (asked, controller, limit) in [
        (memory, Controller::Memory, "memory"),
        (cpu, Controller::Cpu, "cpu"),
        (cpuset, Controller::Cpuset, "cpuset"),
        (resources.pids.is_some(), Controller::Pids, "pids"),
        (limits_block_devices(resources), Controller::Io, "block device"),
        (!resources.hugepages.is_empty(), Controller::Hugetlb, "huge pages"),
    ] {
        if asked && !owned(controller) {
            let name = controller.name();
            let reason = if rootless::is_inside() {
                format!("this user has not been given the {name} controller")
            } else {
                format!("this kernel has no {name} controller for it")
            };
            warnings.push(Warning { limit, reason });
        }
    }
}

/// Writes a value to a file of a node, in one call as the kernel wants it.
fn write(node: &Path, file: &str, value: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(node.join(file))?.write_all(value.as_bytes())
}

fn read(node: &Path, file: &str) -> io::Result<String> {
    fs::read_to_string(node.join(file)).map(|text| text.trim_end().to_owned())
}

fn read_number(node: &Path, file: &str) -> Option<u64> {
    read(node, file).ok()?.parse().ok()
}

/// The number after this word in a file of `word number` lines.
fn read_field(node: &Path, file: &str, field: &str) -> Option<u64> {
    let text = read(node, file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' ')?.parse().ok())
}

fn read_processes(node: &Path) -> Result<Vec<Pid>, CgroupError> {
    let text = match read(node, "cgroup.procs") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| CgroupError::Node { verb: "read", path: node.to_owned(), source })?,
    };
    Ok(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect())
}

/// The processes of a node and of those below it; none where there is no node.
fn count_below(node: &Path) -> usize {
    let own = read(node, "cgroup.procs").map_or(0, |text| text.lines().count());
    let Ok(entries) = fs::read_dir(node) else { return own };
    let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    own + below.map(|entry| count_below(&entry.path())).sum::<usize>()
}

/// Makes a node, and its parent when this is the first container.
fn make(path: &Path) -> Result<(), CgroupError> {
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    made.map_err(|source| CgroupError::Make { path: path.to_owned(), source })
}

/// Removes the nodes below this one and itself, deepest first. A plain `remove_dir_all` would try to unlink the
/// kernel's files.
fn remove_nodes(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_nodes(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::ByteSize;

    #[test]
    fn what_no_hierarchy_can_limit_is_said() {
        let resources = Resources {
            memory: Some(ByteSize(64 << 20)),
            nano_cpus: Some(1_000_000_000),
            pids: Some(1),
            ..Resources::default()
        };
        let (_, warnings) =
            Cgroup::create_in(&Layout::default(), Path::new("t/c"), &resources, &Devices::standard())
                .unwrap();
        let limits: Vec<_> = warnings.iter().map(|warning| warning.limit).collect();
        assert_eq!(limits, ["memory", "cpu", "pids", "devices"]);
    }

    #[test]
    fn swap_needs_memory() {
        let resources = Resources { memory_swap: Some(1 << 30), ..Resources::default() };
        let outcome = Cgroup::create_in(&Layout::default(), Path::new("t/c"), &resources, &Devices::All);
        assert!(matches!(outcome, Err(CgroupError::SwapWithoutMemory)));
    }
}
