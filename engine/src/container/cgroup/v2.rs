//! A container's node in the cgroup2 hierarchy, with or without controllers.

use std::fs;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::detect::UnifiedMount;
use super::devices::{self, Devices};
use super::{
    CgroupError, Controller, Stats, Warning, block, hugepages, make, read, read_field, read_number,
    read_processes, remove_nodes, write,
};
use crate::container::spec::Resources;
use crate::sys::bpf;

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    path: PathBuf,
    directory: OwnedFd,
    controllers: Vec<Controller>,
}

/// One file to write, and the limit it stands for.
#[derive(Debug, PartialEq, Eq)]
struct Write {
    limit: &'static str,
    controller: Controller,
    file: &'static str,
    value: String,
}

// === impl Node ===

impl Node {
    pub(super) fn create(mount: &UnifiedMount, place: &Path) -> Result<Self, CgroupError> {
        hand_down(mount, place)?;
        let path = mount.path.join(place);
        make(&path)?;
        Self::at(mount, path.clone()).map_err(|source| CgroupError::Make { path, source })
    }

    pub(super) fn open(mount: &UnifiedMount, place: &Path) -> Result<Option<Self>, CgroupError> {
        let path = mount.path.join(place);
        match Self::at(mount, path.clone()) {
            Ok(node) => Ok(Some(node)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CgroupError::Node { verb: "open", path, source }),
        }
    }

    fn at(mount: &UnifiedMount, path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, directory, controllers: mount.controllers.clone() })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn dirfd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Whether the hierarchy has this controller, or does without one what v1 needs it for.
    pub(super) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
            || matches!(controller, Controller::Cpuacct | Controller::Devices | Controller::Freezer)
    }

    pub(super) fn place(&self, pid: Pid) -> Result<(), CgroupError> {
        let raw = pid.as_raw_nonzero().get();
        write(&self.path, "cgroup.procs", &raw.to_string()).map_err(|source| CgroupError::Place {
            pid: raw,
            path: self.path.clone(),
            source,
        })
    }

    pub(super) fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        read_processes(&self.path)
    }

    pub(super) fn kill(&self) -> Result<(), CgroupError> {
        match write(&self.path, "cgroup.kill", "1") {
            // Before Linux 5.14 there is no such file. Frozen processes cannot fork away from the list.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&self.path, "cgroup.freeze", "1").map_err(|source| self.failed("freeze", source))?;
                for pid in self.processes()? {
                    // A process that is gone meanwhile is what was wanted.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                self.thaw()
            }
            other => other.map_err(|source| self.failed("kill", source)),
        }
    }

    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        write(&self.path, "cgroup.freeze", "1").map_err(|source| self.failed("freeze", source))?;
        self.await_event("frozen 1", super::EMPTY_WITHIN).map_err(|source| self.failed("freeze", source))
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        write(&self.path, "cgroup.freeze", "0").map_err(|source| self.failed("thaw", source))
    }

    pub(super) fn is_frozen(&self) -> bool {
        read(&self.path, "cgroup.freeze").is_ok_and(|text| text == "1")
    }

    pub(super) fn oom_kills(&self) -> u64 {
        read_field(&self.path, "memory.events", "oom_kill").unwrap_or(0)
    }

    pub(super) fn read_stats(&self, stats: &mut Stats) {
        if self.controllers.contains(&Controller::Memory) {
            let used = read_number(&self.path, "memory.current").unwrap_or(0);
            let droppable = read_field(&self.path, "memory.stat", "inactive_file").unwrap_or(0);
            stats.memory = used.saturating_sub(droppable);
            stats.memory_limit = read_number(&self.path, "memory.max");
            stats.oom_kills = self.oom_kills();
        }
        if let Some(micros) = read_field(&self.path, "cpu.stat", "usage_usec") {
            stats.cpu = Duration::from_micros(micros);
        }
        if self.controllers.contains(&Controller::Pids) {
            stats.pids = read_number(&self.path, "pids.current").unwrap_or(0);
            stats.pids_limit = read_number(&self.path, "pids.max");
        }
    }

    pub(super) fn limit(
        &self,
        resources: &Resources,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), CgroupError> {
        for Write { limit, controller, file, value } in writes(resources) {
            if !self.controllers.contains(&controller) {
                continue;
            }
            match write(&self.path, file, &value) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    warnings.push(Warning { limit, reason: format!("this kernel has no {file}") });
                }
                Err(source) => return Err(CgroupError::Limit { limit, value, source }),
            }
        }
        if resources.oom_kill_disable && self.controllers.contains(&Controller::Memory) {
            let reason = "cgroup2 cannot switch the out-of-memory killer off".to_owned();
            warnings.push(Warning { limit: "oom-kill-disable", reason });
        }
        if resources.memory_swappiness.is_some() && self.controllers.contains(&Controller::Memory) {
            let reason = "cgroup2 has no swappiness of its own for a group".to_owned();
            warnings.push(Warning { limit: "swappiness", reason });
        }
        let real_time = resources.cpu_rt_runtime.is_some() || resources.cpu_rt_period.is_some();
        if real_time && self.controllers.contains(&Controller::Cpu) {
            let reason = "cgroup2 does not ration real-time scheduling".to_owned();
            warnings.push(Warning { limit: "real-time", reason });
        }
        if self.controllers.contains(&Controller::Io) {
            block::limit(&self.path, &block::V2, resources, warnings)?;
        }
        if !resources.hugepages.is_empty() && self.controllers.contains(&Controller::Hugetlb) {
            hugepages::hand_down(&self.path);
            hugepages::limit(&self.path, hugepages::V2, &resources.hugepages, warnings)?;
        }
        for (file, value) in &resources.unified {
            write(&self.path, file, value).map_err(|source| CgroupError::Limit {
                limit: "unified",
                value: format!("{file}={value}"),
                source,
            })?;
        }
        Ok(())
    }

    pub(super) fn restrict_devices(&self, devices: &Devices) -> Result<(), CgroupError> {
        let program = match devices {
            Devices::All => return Ok(()),
            Devices::Only(rules) => devices::program(rules),
            Devices::Ordered { otherwise, rules } => devices::ordered_program(*otherwise, rules),
        };
        let program = bpf::load_device_program(&program).map_err(CgroupError::Devices)?;
        bpf::attach_device_program(self.dirfd(), program.as_fd()).map_err(CgroupError::Devices)
    }

    pub(super) fn remove(&self, within: Duration) -> Result<(), CgroupError> {
        self.await_event("populated 0", within)
            .and_then(|()| remove_nodes(&self.path))
            .map_err(|source| self.failed("remove", source))
    }

    /// Waits until this line stands in `cgroup.events`; the kernel signals each change of the file.
    fn await_event(&self, line: &str, within: Duration) -> io::Result<()> {
        let mut events = match fs::File::open(self.path.join("cgroup.events")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let deadline = Instant::now() + within;
        let mut text = String::new();
        loop {
            text.clear();
            events.rewind()?;
            match events.read_to_string(&mut text) {
                // The node has been removed by somebody else meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
                other => other?,
            };
            if text.lines().any(|seen| seen == line) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no {line:?} in {within:?}")));
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn failed(&self, verb: &'static str, source: io::Error) -> CgroupError {
        CgroupError::Node { verb, path: self.path.clone(), source }
    }
}

/// Has every node above the container's hand its controllers down. One write for all of them would fail for all
/// when it fails for one.
fn hand_down(mount: &UnifiedMount, place: &Path) -> Result<(), CgroupError> {
    let mut parent = mount.path.clone();
    let above = place.parent().unwrap_or(Path::new(""));
    for part in std::iter::once(Path::new("")).chain(above.iter().map(Path::new)) {
        if part != Path::new("") {
            parent.push(part);
            make(&parent)?;
        }
        // Huge pages are hardly ever limited: that is left to the one who does.
        let usual = mount.controllers.iter().filter(|controller| **controller != Controller::Hugetlb);
        let usual: Vec<&str> = usual.map(|controller| controller.name()).collect();
        hand_down_at(&parent, &usual);
    }
    Ok(())
}

/// Has one node hand these controllers down. What cannot be handed down shows as a limit whose file is missing.
pub(super) fn hand_down_at(node: &Path, controllers: &[&str]) {
    let handed = read(node, "cgroup.subtree_control").unwrap_or_default();
    for controller in controllers {
        if !handed.split(' ').any(|name| name == *controller) {
            let _ = write(node, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
}

/// The limits as files and values, in the order that the kernel accepts.
fn writes(resources: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut add = |limit, controller, file, value| writes.push(Write { limit, controller, file, value });
    if let Some(memory) = resources.memory {
        add("memory", Controller::Memory, "memory.max", memory.0.to_string());
        let swap = match resources.memory_swap {
            Some(both) if both < 0 => "max".to_owned(),
            Some(both) if both > 0 => (both as u64).saturating_sub(memory.0).to_string(),
            _ => memory.0.to_string(),
        };
        add("swap", Controller::Memory, "memory.swap.max", swap);
    }
    if let Some(reservation) = resources.memory_reservation {
        add("memory reservation", Controller::Memory, "memory.low", reservation.0.to_string());
    }
    if let Some((quota, period)) = super::v1::quota_and_period(resources) {
        let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
        add("cpu", Controller::Cpu, "cpu.max", format!("{quota} {period}"));
    }
    if let Some(shares) = resources.cpu_shares.filter(|&shares| shares != 0) {
        add("cpu shares", Controller::Cpu, "cpu.weight", weight(shares).to_string());
    }
    if let Some(cpus) = &resources.cpuset_cpus {
        add("cpuset", Controller::Cpuset, "cpuset.cpus", cpus.clone());
    }
    if let Some(mems) = &resources.cpuset_mems {
        add("cpuset memory", Controller::Cpuset, "cpuset.mems", mems.clone());
    }
    if let Some(pids) = resources.pids {
        let pids = if pids <= 0 { "max".to_owned() } else { pids.to_string() };
        add("pids", Controller::Pids, "pids.max", pids);
    }
    writes
}

/// v2's weight (1 to 10000, normally 100) for v1's shares (2 to 262144, normally 1024): the curve through these three
/// pairs that the OCI runtimes agreed on, so that the normal value stays the normal value.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::ByteSize;

    fn written(resources: &Resources) -> Vec<(&'static str, String)> {
        writes(resources).into_iter().map(|write| (write.file, write.value)).collect()
    }

    #[test]
    fn shares_keep_their_ends_and_their_middle() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000), (512, 59), (2048, 174)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn swap_is_what_goes_beyond_memory() {
        let mut resources = Resources { memory: Some(ByteSize(64 << 20)), ..Resources::default() };
        assert_eq!(
            written(&resources),
            [("memory.max", "67108864".to_owned()), ("memory.swap.max", "67108864".to_owned())]
        );
        resources.memory_swap = Some(64 << 20);
        assert_eq!(written(&resources)[1].1, "0");
        resources.memory_swap = Some(-1);
        assert_eq!(written(&resources)[1].1, "max");
    }

    #[test]
    fn processor_time_is_a_quota_of_a_period() {
        let resources = Resources { nano_cpus: Some(1_500_000_000), ..Resources::default() };
        assert_eq!(written(&resources), [("cpu.max", "150000 100000".to_owned())]);
        let resources = Resources { cpu_quota: Some(-1), ..Resources::default() };
        assert_eq!(written(&resources), [("cpu.max", "max 100000".to_owned())]);
        let resources = Resources { pids: Some(-1), ..Resources::default() };
        assert_eq!(written(&resources), [("pids.max", "max".to_owned())]);
    }

    #[test]
    fn an_event_that_has_happened_is_not_waited_for() {
        let tree = tempfile::tempdir().unwrap();
        let mount = UnifiedMount { path: tree.path().to_owned(), controllers: Vec::new() };
        let node = Node::create(&mount, Path::new("rengine-test/one")).unwrap();
        fs::write(node.path.join("cgroup.events"), "populated 0\nfrozen 1\n").unwrap();
        node.await_event("frozen 1", Duration::from_secs(60)).unwrap();
        let error = node.await_event("frozen 0", Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_device_program_allows_what_is_listed_and_nothing_else() {
        use crate::container::cgroup::DeviceRule;

        let opens = "read go; true </dev/null || exit 1; true </dev/full || exit 2; true </dev/kmsg && exit 3; exit 0";
        assert_eq!(code_within("listed", &Devices::standard(), opens), Some(0));
        // The last rule that is about a device counts, for each kind of access by itself.
        let rule = |allow, text| (allow, DeviceRule::parse(text).unwrap()[0]);
        let rules = vec![rule(true, "c 1:* rwm"), rule(false, "c 1:7 w"), rule(false, "c 1:11 r")];
        let opens =
            "read go; true </dev/null || exit 1; true </dev/full || exit 2; (true >/dev/full) && exit 3
            (true </dev/kmsg) && exit 4; (true </dev/tty) 2>&1 | grep -q permitted || exit 5; exit 0";
        let ordered = |otherwise| Devices::Ordered { otherwise, rules: rules.clone() };
        assert_eq!(code_within("ordered", &ordered(false), opens), Some(0));
        assert_eq!(code_within("open", &ordered(true), opens), Some(5));
    }

    /// What a shell ends with that is subject to this.
    fn code_within(name: &str, devices: &Devices, opens: &str) -> Option<i32> {
        use crate::container::cgroup::Layout;
        use std::io::Write;
        use std::process::{Command, Stdio};

        let layout = Layout::detect().unwrap();
        let mount = layout.unified().expect("a cgroup2 hierarchy, which every machine for these tests has");
        let place = format!("rengine-test-{}-{name}/devices", std::process::id());
        let node = Node::create(mount, Path::new(&place)).unwrap();
        node.restrict_devices(devices).unwrap();
        let mut shell = Command::new("/bin/sh");
        let shell = shell.args(["-c", opens]).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = shell.spawn().unwrap();
        node.place(Pid::from_child(&child)).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let status = child.wait().unwrap();
        node.remove(Duration::from_secs(10)).unwrap();
        fs::remove_dir(node.path.parent().unwrap()).unwrap();
        status.code()
    }
}
