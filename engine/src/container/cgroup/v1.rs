//! A container's nodes in the v1 hierarchies: one for every controller it needs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::devices::{self, Devices};
use super::{
    CgroupError, Controller, Layout, Stats, Warning, block, hugepages, make, read, read_field, read_number,
    read_processes, remove_nodes, write,
};
use crate::container::spec::Resources;

/// The nodes of one container, each in a hierarchy of its own.
#[derive(Debug)]
pub(super) struct Nodes(Vec<Node>);

#[derive(Debug)]
struct Node {
    path: PathBuf,
    controllers: Vec<Controller>,
}

/// When limits are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before the first process: nothing is limited yet.
    Empty,
    /// While the container runs under earlier limits.
    Running,
}

/// One file to write, and the limit it stands for.
#[derive(Debug, PartialEq, Eq)]
struct Write {
    limit: &'static str,
    controller: Controller,
    file: &'static str,
    value: String,
    /// Whether a kernel without this file deserves a word.
    optional: bool,
}

/// The period that a quota belongs to unless one is given, in microseconds.
const PERIOD: u64 = 100_000;
/// What v1 prints for "unlimited": the largest page-aligned number.
const UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

// === impl Nodes ===

impl Nodes {
    pub(super) fn create(layout: &Layout, place: &Path, wanted: &[Controller]) -> Result<Self, CgroupError> {
        let mut nodes = Self(Vec::with_capacity(wanted.len()));
        for &controller in wanted {
            if nodes.has(controller) {
                continue;
            }
            let Some(mount) = layout.v1_mount(controller) else { continue };
            let path = mount.path.join(place);
            make(&path)?;
            if mount.controllers.contains(&Controller::Cpuset) {
                inherit_cpuset(&mount.path, place)
                    .map_err(|source| CgroupError::Make { path: path.clone(), source })?;
            }
            nodes.0.push(Node { path, controllers: mount.controllers.clone() });
        }
        Ok(nodes)
    }

    /// Makes the nodes of further controllers beside those that are there, and moves the processes into them.
    pub(super) fn extend(
        &mut self,
        layout: &Layout,
        wanted: &[Controller],
        processes: &[Pid],
    ) -> Result<(), CgroupError> {
        let place = self.0.iter().find_map(|node| {
            let below = |mount: &super::detect::V1Mount| node.path.strip_prefix(&mount.path).ok();
            layout.v1_mounts().iter().find_map(below).map(Path::to_owned)
        });
        let missing: Vec<Controller> =
            wanted.iter().copied().filter(|controller| !self.has(*controller)).collect();
        let Some(place) = place else { return Ok(()) };
        let further = Self::create(layout, &place, &missing)?;
        for pid in processes {
            match further.place(*pid) {
                // One that has ended meanwhile needs no place.
                Err(CgroupError::Place { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        self.0.extend(further.0);
        Ok(())
    }

    pub(super) fn open(layout: &Layout, place: &Path) -> Self {
        let mounts = layout.v1_mounts().iter();
        let nodes =
            mounts.map(|mount| Node { path: mount.path.join(place), controllers: mount.controllers.clone() });
        Self(nodes.filter(|node| node.path.is_dir()).collect())
    }

    pub(super) fn has(&self, controller: Controller) -> bool {
        self.node(controller).is_some()
    }

    pub(super) fn place(&self, pid: Pid) -> Result<(), CgroupError> {
        let raw = pid.as_raw_nonzero().get();
        let text = raw.to_string();
        for node in &self.0 {
            write(&node.path, "cgroup.procs", &text).map_err(|source| CgroupError::Place {
                pid: raw,
                path: node.path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Moves the calling process, which has one thread. A thread that moves itself waits for nothing, while moving
    /// another process takes a lock that every fork and exit of the machine reads: the first one in a while is
    /// held up by an RCU grace period, which is longer than all else that a container's start does.
    pub(super) fn enter(&self) -> Result<(), CgroupError> {
        for node in &self.0 {
            write(&node.path, "tasks", "0")
                .map_err(|source| CgroupError::Enter { path: node.path.clone(), source })?;
        }
        Ok(())
    }

    pub(super) fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        self.0.first().map_or(Ok(Vec::new()), |node| read_processes(&node.path))
    }

    /// Stops everything first where that is possible, so that no process forks away from the list being killed.
    pub(super) fn kill(&self) -> Result<(), CgroupError> {
        let frozen = self.freeze();
        for pid in self.processes()? {
            // A process that is gone meanwhile is what was wanted.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if frozen.is_ok() { self.thaw() } else { Ok(()) }
    }

    /// The v1 freezer reports its progress only when asked, so it is asked: at a growing distance, and once in a
    /// while with a short thaw for processes that could not stop where they were.
    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        let Some(node) = self.node(Controller::Freezer) else { return Ok(()) };
        let failed = |source| CgroupError::Node { verb: "freeze", path: node.path.clone(), source };
        for turn in 0..1000u32 {
            if turn % 50 == 49 {
                write(&node.path, "freezer.state", "THAWED").map_err(failed)?;
            }
            write(&node.path, "freezer.state", "FROZEN").map_err(failed)?;
            if read(&node.path, "freezer.state").map_err(failed)? == "FROZEN" {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(u64::from(turn.min(100)) * 100));
        }
        self.thaw()?;
        Err(failed(io::Error::new(io::ErrorKind::TimedOut, "its processes do not stand still")))
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        let Some(node) = self.node(Controller::Freezer) else { return Ok(()) };
        write(&node.path, "freezer.state", "THAWED").map_err(|source| CgroupError::Node {
            verb: "thaw",
            path: node.path.clone(),
            source,
        })
    }

    pub(super) fn is_frozen(&self) -> bool {
        let node = self.node(Controller::Freezer);
        node.is_some_and(|node| read(&node.path, "freezer.state").is_ok_and(|text| text != "THAWED"))
    }

    pub(super) fn oom_kills(&self) -> u64 {
        let node = self.node(Controller::Memory);
        node.and_then(|node| read_field(&node.path, "memory.oom_control", "oom_kill")).unwrap_or(0)
    }

    pub(super) fn read_stats(&self, stats: &mut Stats) {
        if let Some(node) = self.node(Controller::Memory) {
            let used = read_number(&node.path, "memory.usage_in_bytes").unwrap_or(0);
            let droppable = read_field(&node.path, "memory.stat", "total_inactive_file").unwrap_or(0);
            stats.memory = used.saturating_sub(droppable);
            let limit = read_number(&node.path, "memory.limit_in_bytes");
            stats.memory_limit = limit.filter(|&limit| limit < UNLIMITED);
            stats.oom_kills = self.oom_kills();
        }
        if let Some(nanos) =
            self.node(Controller::Cpuacct).and_then(|node| read_number(&node.path, "cpuacct.usage"))
        {
            stats.cpu = Duration::from_nanos(nanos);
        }
        if let Some(node) = self.node(Controller::Pids) {
            stats.pids = read_number(&node.path, "pids.current").unwrap_or(0);
            stats.pids_limit = read_number(&node.path, "pids.max");
        }
    }

    pub(super) fn limit(
        &self,
        resources: &Resources,
        moment: Moment,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), CgroupError> {
        let mut writes = writes(resources);
        if moment == Moment::Running {
            self.raise_swap_first(&mut writes);
        }
        self.make_room_for_real_time(resources);
        for Write { limit, controller, file, value, optional } in writes {
            let Some(node) = self.node(controller) else { continue };
            match write(&node.path, file, &value) {
                Ok(()) => {}
                Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {
                    warnings.push(Warning { limit, reason: format!("this kernel has no {file}") });
                }
                Err(source) => return Err(CgroupError::Limit { limit, value, source }),
            }
        }
        if let Some(node) = self.node(Controller::Io) {
            block::limit(&node.path, &block::V1, resources, warnings)?;
        }
        match self.node(Controller::Hugetlb) {
            Some(node) => hugepages::limit(&node.path, hugepages::V1, &resources.hugepages, warnings),
            None => Ok(()),
        }
    }

    /// A node's real-time share comes out of its parent's, which has none until somebody needs one.
    fn make_room_for_real_time(&self, resources: &Resources) {
        const FILE: &str = "cpu.rt_runtime_us";
        let wanted = resources.cpu_rt_runtime.and_then(|runtime| u64::try_from(runtime).ok());
        let (Some(wanted), Some(node)) = (wanted, self.node(Controller::Cpu)) else { return };
        let Some(parent) = node.path.parent() else { return };
        let Ok(entries) = std::fs::read_dir(parent) else { return };
        let others = entries.flatten().map(|entry| entry.path()).filter(|path| *path != node.path);
        let taken: u64 = others.filter_map(|path| read_number(&path, FILE)).sum();
        // What the parent cannot have shows as a refusal of the node's own share, which is told.
        let _ = write(parent, FILE, &(taken + wanted).to_string());
    }

    pub(super) fn restrict_devices(&self, wanted: &Devices) -> Result<(), CgroupError> {
        let Some(node) = self.node(Controller::Devices) else { return Ok(()) };
        let file = |allow: bool| if allow { "devices.allow" } else { "devices.deny" };
        let say =
            |allow: bool, what: &str| write(&node.path, file(allow), what).map_err(CgroupError::Devices);
        match wanted {
            Devices::All => Ok(()),
            Devices::Only(rules) => {
                say(false, "a")?;
                rules.iter().try_for_each(|rule| say(true, &rule.to_v1()))
            }
            Devices::Ordered { otherwise, rules } => {
                let exceptions = devices::exceptions(*otherwise, rules).map_err(CgroupError::DeviceHole)?;
                say(*otherwise, "a")?;
                exceptions.iter().try_for_each(|rule| say(!otherwise, &rule.to_v1()))
            }
        }
    }

    /// v1 has no event for the last process leaving; with a cgroup2 node beside it, that node has been waited for and
    /// the first attempt succeeds.
    pub(super) fn remove(&self, within: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + within;
        for node in &self.0 {
            let mut pause = Duration::from_micros(500);
            loop {
                match remove_nodes(&node.path) {
                    Ok(()) => break,
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(50));
                    }
                    Err(source) => {
                        let path = node.path.clone();
                        return Err(CgroupError::Node { verb: "remove", path, source });
                    }
                }
            }
        }
        Ok(())
    }

    /// Memory may never be above memory and swap together, so what grows is written from the outside in, and what
    /// shrinks from the inside out.
    fn raise_swap_first(&self, writes: &mut [Write]) {
        let Some(node) = self.node(Controller::Memory) else { return };
        let Some(now) = read_number(&node.path, "memory.memsw.limit_in_bytes") else { return };
        let Some(swap) = writes.iter().position(|write| write.limit == "swap") else { return };
        let wanted = writes[swap].value.parse::<i64>().unwrap_or(-1);
        if swap > 0 && (wanted < 0 || wanted as u64 > now) {
            writes.swap(swap, swap - 1);
        }
    }

    /// Where the node of this controller is.
    pub(super) fn path_of(&self, controller: Controller) -> Option<&Path> {
        self.node(controller).map(|node| node.path.as_path())
    }

    fn node(&self, controller: Controller) -> Option<&Node> {
        self.0.iter().find(|node| node.controllers.contains(&controller))
    }
}

/// The limits as files and values, in the order that the kernel accepts for a node without limits.
fn writes(resources: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut add = |limit, controller, file, value, optional| {
        writes.push(Write { limit, controller, file, value, optional });
    };
    if let Some(memory) = resources.memory {
        add("memory", Controller::Memory, "memory.limit_in_bytes", memory.0.to_string(), false);
        let both = match resources.memory_swap {
            Some(both) if both < 0 => "-1".to_owned(),
            Some(both) if both > 0 => both.to_string(),
            _ => memory.0.saturating_mul(2).to_string(),
        };
        add("swap", Controller::Memory, "memory.memsw.limit_in_bytes", both, true);
    }
    if let Some(reservation) = resources.memory_reservation {
        let value = reservation.0.to_string();
        add("memory reservation", Controller::Memory, "memory.soft_limit_in_bytes", value, true);
    }
    if resources.oom_kill_disable {
        add("oom-kill-disable", Controller::Memory, "memory.oom_control", "1".to_owned(), true);
    }
    if let Some(swappiness) = resources.memory_swappiness {
        add("swappiness", Controller::Memory, "memory.swappiness", swappiness.to_string(), true);
    }
    if let Some(period) = resources.cpu_rt_period.filter(|&period| period != 0) {
        add("real-time", Controller::Cpu, "cpu.rt_period_us", period.to_string(), true);
    }
    if let Some(runtime) = resources.cpu_rt_runtime.filter(|&runtime| runtime != 0) {
        add("real-time", Controller::Cpu, "cpu.rt_runtime_us", runtime.to_string(), true);
    }
    if let Some((quota, period)) = quota_and_period(resources) {
        add("cpu", Controller::Cpu, "cpu.cfs_period_us", period.to_string(), true);
        add("cpu", Controller::Cpu, "cpu.cfs_quota_us", quota.to_string(), true);
    }
    if let Some(shares) = resources.cpu_shares.filter(|&shares| shares != 0) {
        add("cpu shares", Controller::Cpu, "cpu.shares", shares.to_string(), true);
    }
    if let Some(cpus) = &resources.cpuset_cpus {
        add("cpuset", Controller::Cpuset, "cpuset.cpus", cpus.clone(), false);
    }
    if let Some(mems) = &resources.cpuset_mems {
        add("cpuset memory", Controller::Cpuset, "cpuset.mems", mems.clone(), false);
    }
    if let Some(pids) = resources.pids {
        let pids = if pids <= 0 { "max".to_owned() } else { pids.to_string() };
        add("pids", Controller::Pids, "pids.max", pids, false);
    }
    writes
}

/// Processor time as microseconds of a period, whichever way it was asked for. `--cpus` wins over a quota.
pub(super) fn quota_and_period(resources: &Resources) -> Option<(i64, u64)> {
    let period = resources.cpu_period.filter(|&period| period != 0).unwrap_or(PERIOD);
    if let Some(nanos) = resources.nano_cpus.filter(|&nanos| nanos != 0) {
        let quota = u128::from(nanos) * u128::from(period) / 1_000_000_000;
        return Some((i64::try_from(quota).unwrap_or(i64::MAX), period));
    }
    let quota = resources.cpu_quota.filter(|&quota| quota != 0);
    (quota.is_some() || resources.cpu_period.is_some()).then(|| (quota.unwrap_or(-1), period))
}

/// A new v1 cpuset has neither processors nor memory nodes, and refuses every process until it does.
fn inherit_cpuset(mount: &Path, place: &Path) -> io::Result<()> {
    let mut parent = mount.to_owned();
    for part in place {
        let child = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(&child, file)?.is_empty() {
                write(&child, file, &read(&parent, file)?)?;
            }
        }
        parent = child;
    }
    Ok(())
}
