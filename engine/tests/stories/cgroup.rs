//! Control groups on the hierarchies this machine really has. `uml.rs` runs these same stories on pure v2.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use engine::Root;
use engine::container::cgroup::{Cgroup, Devices, Warning};
use engine::container::spec::Resources;
use engine::id::ContainerId;
use engine::quantity::ByteSize;
use rustix::process::Pid;

/// A container's control groups on this very machine, with whatever hierarchies it has.
struct Real {
    root: Root,
    id: ContainerId,
    _state: tempfile::TempDir,
}

impl Real {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        Self { root: Root::at(state.path()), id: ContainerId::random(), _state: state }
    }

    fn create(&self, resources: &Resources, devices: &Devices) -> (Cgroup, Vec<Warning>) {
        Cgroup::create(&self.root, &self.id, resources, devices).unwrap()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if let Ok(cgroup) = Cgroup::open(&self.root, &self.id) {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
        }
        let _ = Cgroup::sweep(&self.root);
    }
}

/// A shell that waits for a line before it does what it is told, so that it can be moved first.
fn told(script: &str) -> Child {
    let script = format!("read go; {script}");
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn go(child: &mut Child) {
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[test]
fn a_process_is_counted_killed_and_its_nodes_go() {
    let real = Real::new();
    let resources = Resources { memory: Some(ByteSize(64 << 20)), pids: Some(20), ..Resources::default() };
    let (cgroup, warnings) = real.create(&resources, &Devices::standard());
    assert_eq!(warnings, []);
    let mut child = told("sleep 1000");
    cgroup.adopt(pid_of(&child)).unwrap();
    let stats = cgroup.stats();
    assert_eq!((stats.pids, stats.pids_limit, stats.memory_limit), (1, Some(20), Some(64 << 20)));
    assert_eq!(cgroup.processes().unwrap(), [pid_of(&child)]);
    assert_eq!(Cgroup::list(&real.root).unwrap(), std::slice::from_ref(&real.id));
    Cgroup::open(&real.root, &real.id).unwrap().kill().unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
    assert_eq!(Cgroup::list(&real.root).unwrap(), []);
}

#[test]
fn a_frozen_process_goes_on_where_it_stood() {
    let real = Real::new();
    let (cgroup, _) = real.create(&Resources::default(), &Devices::All);
    let mut child = told("exit 7");
    cgroup.adopt(pid_of(&child)).unwrap();
    cgroup.freeze().unwrap();
    go(&mut child);
    assert_eq!(child.try_wait().unwrap(), None);
    cgroup.thaw().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn a_process_that_eats_too_much_is_killed_and_that_is_known() {
    let real = Real::new();
    let resources =
        Resources { memory: Some(ByteSize(8 << 20)), memory_swap: Some(8 << 20), ..Resources::default() };
    let (cgroup, _) = real.create(&resources, &Devices::All);
    assert!(!cgroup.oom_killed());
    let mut child = told("x=x; while :; do x=$x$x; done");
    cgroup.adopt(pid_of(&child)).unwrap();
    go(&mut child);
    assert!(!child.wait().unwrap().success());
    assert!(cgroup.oom_killed());
}

#[test]
fn limits_change_in_both_directions_while_it_runs() {
    let real = Real::new();
    let memory = |mib: u64| Resources { memory: Some(ByteSize(mib << 20)), ..Resources::default() };
    let (mut cgroup, _) = real.create(&memory(64), &Devices::All);
    for mib in [256, 32, 128] {
        cgroup.update(&memory(mib)).unwrap();
        assert_eq!(cgroup.stats().memory_limit, Some(mib << 20));
    }
}

#[test]
fn a_fork_beyond_the_limit_fails() {
    let real = Real::new();
    let resources = Resources { pids: Some(1), ..Resources::default() };
    let (cgroup, _) = real.create(&resources, &Devices::All);
    let mut child = told("(exit 0) || exit 1; (exit 0) && exit 0");
    cgroup.adopt(pid_of(&child)).unwrap();
    go(&mut child);
    assert!(!child.wait().unwrap().success());
}

/// Opening /dev/null and /dev/kmsg, whichever kernel mechanism refuses the second.
const OPENS: &str = "true </dev/null || exit 1; true </dev/full || exit 2; true </dev/kmsg && exit 3; exit 0";

#[test]
fn only_listed_devices_open() {
    let real = Real::new();
    let (cgroup, _) = real.create(&Resources::default(), &Devices::standard());
    let mut child = told(OPENS);
    cgroup.adopt(pid_of(&child)).unwrap();
    go(&mut child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
