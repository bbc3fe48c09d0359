//! Whatever `up`, a recreation or `down` was doing when it was killed: one more `up` brings everything about, and
//! nothing is left over.
//!
//! `strace` kills the whole program when one of its threads enters its n-th system call of a kind. A program changes what
//! others see by system calls alone, so killing it before each that changes something is killing it everywhere. The
//! monitors that it starts are not followed: that they can be killed the engine's own stories show.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use engine::container::cgroup::Cgroup;

use crate::world::World;

/// The system calls that change what other processes, or the next command, see.
const CHANGES: &str = "chmod,clone,clone3,execve,fchdir,fchmod,fchown,flock,fsync,ftruncate,keyctl,mkdir,mkdirat,mknodat,\
    mount,rename,rmdir,sendmsg,sendto,symlink,unlink,unlinkat,vfork,write";

/// The n-th call of a kind that one thread makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    call: String,
    number: usize,
}

/// A project with all that can be left over: two services one of which restarts with the other, a port, a named and an
/// anonymous volume, a network, a secret.
fn project(value: &str) -> String {
    format!(
        r#"
services:
  db:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    environment: {{VALUE: {value}}}
    volumes: ["data:/data", /anonymous]
  web:
    image: box
    command: [httpd, -f, -p, "8080", -h, /etc]
    ports: ["8080"]
    stop_grace_period: 0s
    environment: {{VALUE: {value}}}
    secrets: [token]
    depends_on: {{db: {{condition: service_started, restart: true}}}}
    deploy: {{update_config: {{order: start-first}}}}
volumes: {{data: {{}}}}
secrets: {{token: {{environment: TOKEN}}}}
"#
    )
}

fn world() -> World {
    let world = World::new(&project("one"));
    world.write(".env", "TOKEN=secret\n");
    world
}

/// The points that a command comes to.
fn points(world: &World, command: &[&str]) -> Vec<Point> {
    let file = world.project().join("trace");
    let mut strace =
        strace(world, &["-o", file.to_str().unwrap(), "-e", &format!("trace={CHANGES}")], command);
    assert!(strace.status().unwrap().success());
    let trace = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let mut met: Vec<(u32, Point)> = Vec::new();
    let mut first: Vec<Point> = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if !CHANGES.split(',').any(|known| known == call) {
            continue;
        }
        let thread: u32 = thread.parse().unwrap();
        let number = 1 + met.iter().filter(|(other, point)| *other == thread && point.call == call).count();
        let point = Point { call: call.to_owned(), number };
        // The program has to be there before it can be killed.
        if met.iter().all(|(_, other)| *other != point) && !(call == "execve" && met.is_empty()) {
            first.push(point.clone());
        }
        met.push((thread, point));
    }
    // As many as one likes of them are spread evenly.
    let mut spread: Vec<(usize, Point)> = first.into_iter().enumerate().collect();
    spread.sort_by_key(|(at, _)| (at * 618) % 1000);
    spread.into_iter().map(|(_, point)| point).collect()
}

/// Runs a command that is killed at a point. Whether it came there.
fn killed_at(world: &World, point: &Point, command: &[&str]) -> bool {
    let Point { call, number } = point;
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=SIGKILL:when={number}");
    let mut strace = strace(world, &["-o", "/dev/null", "-e", &trace, "-e", &inject], command);
    strace.status().unwrap().signal() == Some(9)
}

/// `rcompose` with all its threads, and nothing that it executes.
fn strace(world: &World, flags: &[&str], command: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-b", "execve"]).args(flags).arg(env!("CARGO_BIN_EXE_rcompose")).args(["-p", "p"]);
    strace.args(command).current_dir(world.project()).env("RENGINE_ROOT", world.engine().root().state());
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    strace
}

/// Everything is as the file says, and there is nothing beside it.
fn assert_whole(world: &World, at: &str) {
    let plan = world.rcompose(["plan"]).succeeds().stdout;
    assert_eq!(plan, "nothing to do\n", "{at}");
    assert_eq!(world.names(), ["p-db-1", "p-web-1"], "{at}");
    assert_eq!(world.running(), ["p-db-1", "p-web-1"], "{at}");
    let ports = world.container("p-web-1").record.spec.ports.len();
    let published = world.engine().networks().published(world.container("p-web-1").id()).unwrap();
    // By IPv4 and by IPv6 it is one port.
    let published: BTreeSet<u16> = published.iter().map(|port| port.host_port).collect();
    assert_eq!(published.len(), ports, "{at}");
    assert_eq!(kept(world), [2, 2, 2, 2, 1, 1, 2], "{at}");
}

/// How much there is of each kind of thing that a crash can leave.
fn kept(world: &World) -> [usize; 7] {
    let root = world.engine().root();
    for directory in [root.state(), root.run()] {
        assert_eq!(temporary_files(directory), Vec::<String>::new());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root.state().to_str().unwrap()), "a mount is left: {mounts}");
    let rooms = [
        root.containers(),
        root.container_names(),
        root.container_runs(),
        root.volumes(),
        root.networks(),
        root.port_runs(),
    ];
    let [containers, names, runs, volumes, networks, ports] = rooms.map(|room| entries(&room));
    [containers, names, runs, volumes, networks, ports, Cgroup::list(root).unwrap().len()]
}

/// Files that begin with a dot belong to the room, not to what it holds.
fn entries(directory: &Path) -> usize {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    names.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

fn temporary_files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && !path.is_symlink() && name != "layers" {
            found.extend(temporary_files(&path));
        } else if name.to_string_lossy().ends_with(".tmp") {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Kills a command at so many of its points, each time from the same state, and lets `up` go on.
fn interrupt(world: &World, command: &[&str], wanted: usize, prepare: impl Fn(usize)) {
    prepare(0);
    let points = points(world, command);
    let (mut met, mut turn) = (0, 0);
    // Which thread does what differs from run to run: not every point is met.
    while met < wanted {
        let point = &points[turn % points.len()];
        turn += 1;
        assert!(turn < wanted * 3, "{met} of {turn} were met");
        let at = format!("{} killed at {point:?}", command.join(" "));
        prepare(turn);
        met += usize::from(killed_at(world, point, command));
        let up = world.rcompose(["up", "-d"]);
        assert_eq!(up.code, 0, "{at}\n{}", up.stderr);
        assert_whole(world, &at);
    }
    world.rcompose(["down", "-v"]).succeeds();
    assert_eq!(kept(world), [0; 7]);
}

#[test]
fn up_that_is_killed_anywhere_goes_on() {
    let world = world();
    interrupt(&world, &["up", "-d"], 36, |_| {
        world.rcompose(["down", "-v"]).succeeds();
    });
}

#[test]
fn a_recreation_that_is_killed_anywhere_goes_on() {
    let world = world();
    world.rcompose(["up", "-d"]).succeeds();
    interrupt(&world, &["up", "-d"], 40, |turn| world.write("compose.yaml", &project(&turn.to_string())));
}

#[test]
fn down_that_is_killed_anywhere_is_taken_back_by_up() {
    let world = world();
    interrupt(&world, &["down", "-v"], 24, |_| {
        world.rcompose(["up", "-d"]).succeeds();
    });
}
