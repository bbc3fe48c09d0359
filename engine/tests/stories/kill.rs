//! Every step of a command is its last one, once: the command, the monitor or the container's first process is
//! killed on entering its n-th system call of a kind. Afterwards one `rengine system check` and the next ordinary
//! command find a whole world, and nothing is left in the kernel or on the disk.
//!
//! `strace` does the killing, so no line of the engine is there for these tests. A process only changes what others
//! see by a system call, so killing it before each call that changes something is killing it everywhere.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use engine::container::cgroup::Cgroup;

use crate::world::{Running, World};

mod container;
mod image;

/// The system calls that change what other processes, or the next command, see.
const CHANGES: &str = "chmod,clone,clone3,execve,fchdir,fchmod,fchown,flock,fsconfig,fsmount,fsopen,fsync,ftruncate,\
    keyctl,listen,mkdir,mkdirat,mknodat,mount,mount_setattr,move_mount,open_tree,pivot_root,rename,rmdir,seccomp,sendmsg,\
    sendto,setresuid,setsid,symlink,umount2,unlink,unlinkat,unshare,write";

/// What a message over netlink orders, rather than asks.
const ORDERS: [&str; 5] = ["NEWLINK", "DELLINK", "NEWADDR", "NEWROUTE", "BATCH_BEGIN"];

/// The n-th call of a kind that one process makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    call: String,
    number: usize,
}

/// A process as a trace saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    process: u32,
    /// It executes `rengine`, or the shell that does.
    is_command: bool,
    changes: bool,
    point: Point,
}

// === impl Point ===

impl Point {
    /// What makes strace kill a process there.
    fn flags(&self) -> [String; 4] {
        let Self { call, number } = self;
        [
            "-e".to_owned(),
            format!("trace={call}"),
            "-e".to_owned(),
            format!("inject={call}:signal=SIGKILL:when={number}"),
        ]
    }
}

/// The calls of a trace in their order. With `followed`, each line begins with the number of its process.
fn steps(trace: &str, followed: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in trace.lines() {
        let (process, rest) = if followed { line.split_once(' ').unwrap() } else { ("0", line) };
        let Some((call, _)) = rest
            .trim_start()
            .split_once('(')
            .filter(|(call, _)| CHANGES.split(',').any(|known| known == *call))
        else {
            continue;
        };
        let process = process.parse().unwrap();
        let changes = call != "sendto" || ORDERS.iter().any(|order| rest.contains(order));
        let before = |step: &&Step| step.process == process && step.point.call == call;
        let number = 1 + steps.iter().filter(before).count();
        let is_command = call == "execve" && rest.contains(concat!(env!("CARGO_BIN_EXE_rengine"), "\""));
        steps.push(Step { process, is_command, changes, point: Point { call: call.to_owned(), number } });
    }
    steps
}

/// As many of them as wanted, spread evenly, the first of each run of the same call rather than a later one.
fn spread(points: Vec<Point>, most: usize) -> Vec<Point> {
    let mut firsts: Vec<Point> = Vec::new();
    for point in points {
        let follows = |last: &&Point| last.call == point.call && last.number + 1 == point.number;
        if firsts.last().filter(follows).is_none() || point.number % 8 == 0 {
            firsts.push(point);
        }
    }
    let count = firsts.len();
    let chosen: BTreeSet<usize> = (0..most.min(count)).map(|turn| turn * count / most.min(count)).collect();
    firsts.into_iter().enumerate().filter(|(at, _)| chosen.contains(at)).map(|(_, point)| point).collect()
}

/// A command, the state it meets, and what has to be possible after it was interrupted.
struct Interrupted<'a> {
    world: World,
    prepare: &'a dyn Fn(&World),
    command: &'a [&'a str],
    next: &'a dyn Fn(&World),
}

impl Interrupted<'_> {
    /// Kills the command itself.
    fn command_at(&self, most: usize) {
        let points = firsts(&self.traced(&[], &[env!("CARGO_BIN_EXE_rengine")]), |_| true);
        for point in spread(points, most) {
            self.at(&format!("the command, {point:?}"), || {
                let mut strace = self.strace(&[]);
                strace.args(point.flags()).arg(env!("CARGO_BIN_EXE_rengine")).args(self.command);
                Running::start(&mut strace).ends().fails();
            });
        }
    }

    /// Kills whatever comes to a point first: a thread of the command, or what it starts.
    fn anything_at(&self, most: usize) {
        let follow = ["-f"];
        let program = [env!("CARGO_BIN_EXE_rengine")];
        let points = spread(firsts(&self.traced(&follow, &program), |_| true), most);
        let failures = Cell::new(0);
        for point in &points {
            self.at(&format!("whatever it is, {point:?}"), || {
                let mut strace = self.strace(&follow);
                strace.args(point.flags()).args(program).args(self.command);
                let failed = !Running::start(&mut strace).ends().is_success();
                failures.set(failures.get() + usize::from(failed));
            });
        }
        assert_eq!(points.len(), most, "there are fewer points than wanted");
        // Threads are not scheduled the same way each time, so not every point is met.
        assert!(failures.get() * 2 > points.len(), "{} of {} met", failures.get(), points.len());
    }

    /// Kills what the command starts: the monitor, and the first process of the container.
    fn children_at(&self, most: usize) {
        let follow = ["-f"];
        let steps = self.traced(&follow, &UNDONE);
        let commands: BTreeSet<u32> =
            steps.iter().filter(|step| step.is_command).map(|step| step.process).collect();
        let points = spread(firsts(&steps, |process| !commands.contains(&process)), most);
        let failures = Cell::new(0);
        for point in &points {
            self.at(&format!("what it starts, {point:?}"), || {
                let mut strace = self.strace(&follow);
                strace.args(point.flags()).args(UNDONE).args(self.command);
                let failed = !Running::start(&mut strace).ends().is_success();
                failures.set(failures.get() + usize::from(failed));
            });
        }
        // Not every point is met each time, and not every death is the command's failure.
        assert!(failures.get() * 2 > points.len(), "{} of {} met", failures.get(), points.len());
    }

    /// Kills the monitor that the command speaks to.
    fn monitor_at(&self, most: usize) {
        for point in spread(firsts(&self.traced_monitor(), |_| true), most) {
            let mut attached = None;
            self.at(&format!("the monitor, {point:?}"), || {
                let monitor = attached.insert(self.attach(&point.flags()));
                monitor.await_line("attached");
                self.world.rengine(self.command);
            });
        }
    }

    #[expect(clippy::print_stderr, reason = "a failure is looked for at the last point that was told")]
    fn at(&self, point: &str, interrupt: impl FnOnce()) {
        eprintln!("{} killed: {point}", self.command.join(" "));
        (self.prepare)(&self.world);
        interrupt();
        self.world.rengine(["system", "check"]).succeeds();
        (self.next)(&self.world);
        remove_all(&self.world);
        assert_nothing_left(&self.world);
    }

    /// The calls of the command, when nobody interrupts it.
    fn traced(&self, flags: &[&str], program: &[&str]) -> Vec<Step> {
        (self.prepare)(&self.world);
        let file = self.world.path("trace");
        let mut strace = self.strace(flags);
        strace.arg("-o").arg(&file).arg("-e").arg(format!("trace={CHANGES}"));
        strace.args(program).args(self.command);
        Running::start(&mut strace).ends().succeeds();
        remove_all(&self.world);
        assert_nothing_left(&self.world);
        steps(&fs::read_to_string(file).unwrap(), !flags.is_empty())
    }

    /// The calls of the monitor while it does what the command asks for.
    fn traced_monitor(&self) -> Vec<Step> {
        (self.prepare)(&self.world);
        let file = self.world.path("trace");
        let flags = ["-o", file.to_str().unwrap(), "-e", &format!("trace={CHANGES}")];
        let mut attached = self.attach(&flags.map(str::to_owned));
        attached.await_line("attached");
        self.world.rengine(self.command).succeeds();
        remove_all(&self.world);
        attached.ends();
        assert_nothing_left(&self.world);
        steps(&fs::read_to_string(file).unwrap(), true)
    }

    fn strace(&self, flags: &[&str]) -> Command {
        let mut command = Command::new("strace");
        command.args(flags).env("RENGINE_ROOT", self.world.root().state()).stdin(Stdio::null());
        command
    }

    /// Follows the monitor of the container `it`.
    fn attach(&self, flags: &[String]) -> Running {
        let mut strace = self.strace(&["-f"]);
        strace.arg("-p").arg(self.world.monitor("it").as_raw_pid().to_string()).args(flags);
        Running::start(&mut strace)
    }
}

/// Runs what follows, and lets everything it started end when the killing did not come to pass.
const UNDONE: [&str; 4] =
    ["sh", "-c", "\"$0\" \"$@\" && { \"$0\" rm -f -v it; true; }", env!("CARGO_BIN_EXE_rengine")];

/// The points that these processes are the first to come to.
fn firsts(steps: &[Step], wanted: impl Fn(u32) -> bool) -> Vec<Point> {
    let mut seen = BTreeSet::new();
    let first: Vec<&Step> = steps.iter().filter(|step| seen.insert(step.point.clone())).collect();
    // A command cannot be killed before it is one.
    let first = first.into_iter().filter(|step| step.changes && !step.is_command && wanted(step.process));
    first.map(|step| step.point.clone()).collect()
}

fn remove_all(world: &World) {
    let ids = world.rengine(["ps", "-aq"]).succeeds().stdout;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    if !ids.is_empty() {
        world.rengine(["rm", "-f", "-v"].into_iter().chain(ids)).succeeds();
    }
}

/// Nothing of this world is anywhere but its images, its networks and the volumes people named.
fn assert_nothing_left(world: &World) {
    let root = world.root();
    world.await_monitors_end();
    assert_empty(&root.containers());
    assert_empty(&root.container_names());
    assert_empty(&root.container_runs());
    assert_empty(&root.scratch());
    assert_empty(&root.volumes());
    assert_empty(&root.port_runs());
    for network in names_in(&root.network_runs()) {
        assert_empty(&root.network_runs().join(network));
    }
    let in_memory = names_in(root.run()).into_iter().find(|name| name.starts_with("making-"));
    assert_eq!(in_memory, None, "a secret of a build is left");
    for directory in [root.state(), root.run()] {
        assert_eq!(temporary_files(directory), Vec::<String>::new());
    }
    for layer in names_in(&root.layers()).into_iter().filter(|name| name != "lock") {
        assert!(root.layers().join(&layer).join("layer.json").exists(), "half of layer {layer} is left");
    }
    assert_eq!(Cgroup::list(root).unwrap(), []);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = root.state().to_str().unwrap();
    assert!(!mounts.contains(below), "a mount is left: {mounts}");
    let table = Command::new("nft").args(["list", "table", "inet", root.tag()]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(!table.contains("comment"), "published ports are left: {table}");
    world.await_bridges_empty();
}

/// Files that begin with a dot belong to the room, not to what it holds.
fn assert_empty(directory: &Path) {
    let left: Vec<String> = names_in(directory).into_iter().filter(|name| !name.starts_with('.')).collect();
    assert!(left.is_empty(), "{} has {left:?}", directory.display());
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn temporary_files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names_in(directory) {
        let path = directory.join(&name);
        if path.is_dir() && !path.is_symlink() && name != "layers" {
            found.extend(temporary_files(&path));
        } else if name.ends_with(".tmp") {
            found.push(path.display().to_string());
        }
    }
    found
}
