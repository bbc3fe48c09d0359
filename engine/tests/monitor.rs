//! Stories of containers and their monitors, with real processes. They need root and busybox.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use engine::container::cgroup::Cgroup;
use engine::container::client::{self, Connection, ExecIo, HealthVerdict, StopReason};
use engine::container::exec::ExecSpec;
use engine::container::logs::{self, LogLine, LogOptions};
use engine::container::monitor::Ahead;
use engine::container::record::{ContainerRecord, Purpose};
use engine::container::spec::{ContainerSpec, Grace, HealthCheck, NetworkMode, RestartPolicy};
use engine::container::state::State;
use engine::container::stdio::{Stream, Streams};
use engine::id::{ContainerId, ImageId};
use engine::quantity::Span;
use engine::signal::Signal;
use engine::{Kind, Root};

const APPLETS: [&str; 20] = [
    "sh", "echo", "cat", "sleep", "true", "false", "kill", "seq", "dd", "yes", "head", "ls", "id", "touch",
    "test", "printf", "wc", "tty", "stty", "rm",
];

/// An engine root with one layer, gone with everything that runs in it.
struct World {
    root: Root,
    directory: tempfile::TempDir,
    containers: RefCell<Vec<ContainerId>>,
}

impl World {
    fn new() -> Self {
        client::monitor_program(Path::new(env!("CARGO_BIN_EXE_rengine")));
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(&directory.path().join("root"));
        let layer = directory.path().join("layer");
        for folder in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(layer.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        fs::write(layer.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        for folder in [root.containers(), root.container_names(), root.container_runs()] {
            fs::create_dir_all(folder).unwrap();
        }
        Self { root, directory, containers: RefCell::default() }
    }

    /// A container that was made and not started.
    fn made(&self, argv: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> ContainerId {
        let mut spec = ContainerSpec { network: NetworkMode::Host, ..ContainerSpec::default() };
        spec.process.env = vec!["PATH=/bin".to_owned()];
        change(&mut spec);
        let id = ContainerId::random();
        let record = ContainerRecord {
            version: ContainerRecord::VERSION,
            id: id.clone(),
            name: format!("c-{}", id.short()).parse().unwrap(),
            created: jiff::Timestamp::now(),
            image: ImageId::of(b"image"),
            spec,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            lower: vec![self.directory.path().join("layer")],
            purpose: Purpose::Service,
            users: None,
        };
        for part in ["upper", "work"] {
            fs::create_dir_all(self.root.container(&id).join(part)).unwrap();
        }
        State::Created.write(&self.root, &record).unwrap();
        record.write(&self.root).unwrap();
        self.containers.borrow_mut().push(id.clone());
        id
    }

    /// A container that runs this shell script.
    fn shell(&self, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> ContainerId {
        self.made(&["sh", "-c", script], change)
    }

    fn start(&self, id: &ContainerId) -> Connection {
        let mut connection = client::spawn_monitor(&self.root, id).unwrap();
        connection.started().unwrap();
        connection
    }

    fn connect(&self, id: &ContainerId) -> Connection {
        client::connect(&self.root, id).unwrap().expect("a living monitor")
    }

    fn state(&self, id: &ContainerId) -> State {
        State::read(&self.root, id).unwrap().unwrap()
    }

    fn logs(&self, id: &ContainerId, options: &LogOptions) -> String {
        let mut text = String::new();
        let keep = &mut |line: &LogLine| {
            text.push_str(&line.log);
            ControlFlow::Continue(())
        };
        logs::read(&self.root, id, options, keep, &mut |_| {}).unwrap();
        text
    }

    /// Waits until the container has written this line.
    fn await_line(&self, id: &ContainerId, wanted: &str) {
        let (root, id) = (self.root.clone(), id.clone());
        let (sender, lines) = mpsc::channel();
        // Ends with the container.
        std::thread::spawn(move || {
            let options = LogOptions { follow: true, ..LogOptions::default() };
            let send = &mut |line: &LogLine| match sender.send(line.log.clone()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            let _ = logs::read(&root, &id, &options, send, &mut |_| {});
        });
        let wait = || lines.recv_timeout(Duration::from_secs(60)).unwrap();
        while wait().trim_end() != wanted {}
    }

    /// Runs to the end and says what was written and with what code it ended.
    fn run(&self, id: &ContainerId) -> (String, i32) {
        let mut connection = client::spawn_monitor(&self.root, id).unwrap();
        connection.subscribe(Streams::OUTPUT).unwrap();
        connection.started().unwrap();
        let mut text = String::new();
        let code = connection.follow(&mut |_, bytes| text.push_str(&String::from_utf8_lossy(bytes))).unwrap();
        (text, code)
    }

    fn monitor_pid(&self, id: &ContainerId) -> i32 {
        let State::Running(running) = self.state(id) else { panic!("not running") };
        parent_of(running.pid)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for id in self.containers.borrow().iter() {
            if let Ok(Some(mut connection)) = client::connect(&self.root, id) {
                let _ = connection.stop(Some(Signal::KILL), None, StopReason::ByHand);
            }
            if let Ok(cgroup) = Cgroup::open(&self.root, id) {
                let _ = cgroup.kill();
                let _ = cgroup.remove();
            }
        }
        let _ = Cgroup::sweep(&self.root);
        let _ = fs::remove_dir_all(self.root.run());
    }
}

fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn exec(words: &[&str]) -> ExecSpec {
    ExecSpec { argv: words.iter().map(|word| (*word).to_owned()).collect(), ..ExecSpec::default() }
}

fn pipe() -> (fs::File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write)
}

fn check(test: &[&str], interval: u64, retries: u32) -> HealthCheck {
    HealthCheck {
        test: Some(test.iter().map(|word| (*word).to_owned()).collect()),
        interval: Span(Duration::from_millis(interval)),
        timeout: Span::seconds(5),
        retries,
        start_period: Span::default(),
        start_interval: Span::default(),
    }
}

#[test]
fn output_arrives_whole_and_the_exit_code_with_it() {
    let world = World::new();
    let id = world.shell("echo out; echo err >&2; exit 7", |_| {});
    let (text, code) = world.run(&id);
    assert_eq!(code, 7);
    assert!(text.contains("out\n") && text.contains("err\n"), "{text:?}");
    let State::Exited(exit) = world.state(&id) else { panic!("not exited") };
    assert_eq!((exit.code, exit.oom_killed, exit.stopped_by_hand), (7, false, false));
    let mut lines = Vec::new();
    let keep = &mut |line: &LogLine| {
        lines.push((line.stream, line.log.clone()));
        ControlFlow::Continue(())
    };
    logs::read(&world.root, &id, &LogOptions::default(), keep, &mut |_| {}).unwrap();
    lines.sort();
    assert_eq!(lines, [(Stream::Stdout, "out\n".to_owned()), (Stream::Stderr, "err\n".to_owned())]);
    assert!(client::connect(&world.root, &id).unwrap().is_none());
}

#[test]
fn a_container_starts_again_after_it_ended() {
    let world = World::new();
    let id = world.shell("echo again; test -e /tmp/mark || { touch /tmp/mark; exit 3; }", |_| {});
    assert_eq!(world.run(&id), ("again\n".to_owned(), 3));
    assert_eq!(world.run(&id), ("again\n".to_owned(), 0));
    assert_eq!(world.logs(&id, &LogOptions::default()), "again\nagain\n");
}

#[test]
fn what_cannot_be_executed_is_told_apart() {
    let world = World::new();
    for (program, kind, code) in [
        ("/bin/nothing", Kind::CommandNotFound, 127),
        ("nothing", Kind::CommandNotFound, 127),
        ("/etc/passwd", Kind::NotExecutable, 126),
    ] {
        let id = world.made(&[program], |_| {});
        let error = client::spawn_monitor(&world.root, &id).unwrap().started().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let State::Exited(exit) = world.state(&id) else { panic!("not exited") };
        assert_eq!(exit.code, code);
        assert!(exit.error.unwrap().contains("exec"));
    }
}

#[test]
fn a_large_output_is_neither_lost_nor_mixed_up() {
    let world = World::new();
    let id = world.shell("seq 1 200000", |_| {});
    let (text, code) = world.run(&id);
    assert_eq!(code, 0);
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(text == expected, "{} bytes instead of {}", text.len(), expected.len());
    assert!(world.logs(&id, &LogOptions::default()) == expected);
    assert_eq!(world.logs(&id, &LogOptions { tail: Some(2), ..LogOptions::default() }), "199999\n200000\n");
}

#[test]
fn stop_asks_and_a_deaf_container_is_killed_after_the_grace() {
    let world = World::new();
    let polite =
        world.shell("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done", |_| {});
    let mut connection = client::spawn_monitor(&world.root, &polite).unwrap();
    connection.subscribe(Streams::OUTPUT).unwrap();
    connection.started().unwrap();
    let mut text = String::new();
    let code = connection
        .follow(&mut |_, bytes| {
            text.push_str(std::str::from_utf8(bytes).unwrap());
            if text == "ready\n" {
                world.connect(&polite).kill(Signal::TERM).unwrap();
            }
        })
        .unwrap();
    assert_eq!((text.as_str(), code), ("ready\nbye\n", 5));

    let deaf = world.made(&["sleep", "600"], |_| {});
    world.start(&deaf);
    let before = Instant::now();
    let grace = Grace::Limited(Span(Duration::from_millis(300)));
    world.connect(&deaf).stop(None, Some(grace), StopReason::ByHand).unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert!(before.elapsed() < Duration::from_secs(5));
    let State::Exited(exit) = world.state(&deaf) else { panic!("not exited") };
    assert_eq!((exit.code, exit.stopped_by_hand), (137, true));
}

#[test]
fn a_failing_container_is_started_again_until_the_policy_gives_up() {
    let world = World::new();
    let id = world.shell("echo try; exit 4", |spec| spec.restart = RestartPolicy::OnFailure(2));
    let before = Instant::now();
    let mut connection = client::spawn_monitor(&world.root, &id).unwrap();
    connection.started().unwrap();
    assert_eq!(connection.wait_last_exit().unwrap(), 4);
    // 100 ms and 200 ms of back-off.
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert_eq!(world.logs(&id, &LogOptions::default()), "try\ntry\ntry\n");
    let State::Exited(exit) = world.state(&id) else { panic!("not exited") };
    assert_eq!(exit.restarts, 2);
}

#[test]
fn stop_ends_a_back_off() {
    let world = World::new();
    let id = world.shell("exit 1", |spec| spec.restart = RestartPolicy::Always);
    let mut connection = world.start(&id);
    connection.wait_exit().unwrap();
    world.connect(&id).stop(None, None, StopReason::ByHand).unwrap();
    assert!(matches!(world.state(&id), State::Exited(exit) if exit.stopped_by_hand));
}

#[test]
fn exec_runs_beside_the_container_with_our_pipes() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |spec| spec.process.env.push("COLOUR=blue".to_owned()));
    world.start(&id);
    let (mut out, write) = pipe();
    let mut spec = exec(&["sh", "-c", "echo $COLOUR $SIZE; cat; exit 9"]);
    spec.env.push("SIZE=big".to_owned());
    spec.interactive = true;
    let (stdin, feed) = pipe();
    fs::File::from(feed).write_all(b"typed\n").unwrap();
    let io = ExecIo { stdin: Some(stdin.into()), stdout: Some(write), ..ExecIo::default() };
    assert_eq!(world.connect(&id).exec_with(&spec, io).unwrap(), Some(9));
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "blue big\ntyped\n");
}

#[test]
fn exec_copies_what_must_not_get_inside() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |_| {});
    world.start(&id);
    let input = world.directory.path().join("input");
    let output = world.directory.path().join("output");
    fs::write(&input, "from a file\n").unwrap();
    let io = ExecIo {
        stdin: Some(fs::File::open(&input).unwrap().into()),
        stdout: Some(fs::File::create(&output).unwrap().into()),
        ..ExecIo::default()
    };
    let mut spec = exec(&["sh", "-c", "cat; ls -l /proc/self/fd/ | wc -l"]);
    spec.interactive = true;
    assert_eq!(world.connect(&id).exec_with(&spec, io).unwrap(), Some(0));
    let text = fs::read_to_string(&output).unwrap();
    // The listing itself: a heading, three streams and the directory that is listed.
    assert_eq!(text, "from a file\n5\n");
}

#[test]
fn exec_says_what_it_cannot_execute_and_when_nothing_runs() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |_| {});
    let mut starter = world.start(&id);
    let error = world.connect(&id).exec_with(&exec(&["nothing"]), ExecIo::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::CommandNotFound, "{error}");
    let error = world.connect(&id).exec_with(&exec(&["/etc/passwd"]), ExecIo::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotExecutable, "{error}");
    starter.pause().unwrap();
    let error = world.connect(&id).exec_with(&exec(&["true"]), ExecIo::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
}

#[test]
fn exec_has_a_terminal_of_the_container() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |_| {});
    world.start(&id);
    let (mut out, write) = pipe();
    let spec = ExecSpec { tty: true, ..exec(&["sh", "-c", "tty; exit 3"]) };
    let io = ExecIo { stdout: Some(write), ..ExecIo::default() };
    assert_eq!(world.connect(&id).exec_with(&spec, io).unwrap(), Some(3));
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("/dev/pts/"), "{text:?}");
}

#[test]
fn an_exec_does_not_keep_a_container_alive() {
    let world = World::new();
    let id = world.shell("cat; exit 0", |spec| spec.process.open_stdin = true);
    world.start(&id);
    let (mut out, write) = pipe();
    let mut beside = world.connect(&id);
    let ended = std::thread::spawn(move || {
        let io = ExecIo { stdout: Some(write), ..ExecIo::default() };
        beside.exec_with(&exec(&["sh", "-c", "echo x; sleep 600"]), io).unwrap()
    });
    out.read_exact(&mut [0; 2]).unwrap();
    world.connect(&id).kill(Signal::KILL).unwrap();
    assert_eq!(ended.join().unwrap(), Some(137));
    assert!(matches!(world.state(&id), State::Exited(_)));
}

#[test]
fn a_paused_container_can_be_stopped() {
    let world = World::new();
    let id = world.shell("trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done", |_| {});
    let mut connection = world.start(&id);
    world.await_line(&id, "ready");
    connection.pause().unwrap();
    assert_eq!(world.state(&id).word(), "paused");
    assert!(connection.pause().is_err());
    connection.stop(None, None, StopReason::ByHand).unwrap();
    assert!(matches!(world.state(&id), State::Exited(exit) if exit.code == 6));
}

#[test]
fn health_is_news_as_soon_as_somebody_waits() {
    let world = World::new();
    let id = world.shell("sleep 0.3; touch /tmp/up; sleep 600", |spec| {
        spec.healthcheck = Some(check(&["test", "-e", "/tmp/up"], 60_000, 1));
    });
    let mut connection = world.start(&id);
    let before = Instant::now();
    connection.wait_healthy(None).unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    let State::Running(running) = world.state(&id) else { panic!("not running") };
    assert_eq!(running.health.unwrap().status.to_string(), "healthy");
}

#[test]
fn failing_probes_make_a_container_unhealthy_and_say_why() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |spec| {
        spec.healthcheck = Some(check(&["sh", "-c", "echo broken; exit 3"], 100, 2));
    });
    let mut connection = world.start(&id);
    assert_eq!(connection.health(Some(Duration::from_secs(20))).unwrap(), HealthVerdict::Unhealthy);
    let State::Running(running) = world.state(&id) else { panic!("not running") };
    let health = running.health.unwrap();
    assert_eq!(health.failing_streak, 2);
    let last = health.log.last().unwrap();
    assert_eq!((last.exit_code, last.output.as_str()), (3, "broken\n"));
}

#[test]
fn a_probe_that_takes_too_long_is_killed() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |spec| {
        let check = check(&["sh", "-c", "sleep 555; true"], 50, 1);
        spec.healthcheck = Some(HealthCheck { timeout: Span(Duration::from_millis(100)), ..check });
    });
    let mut connection = world.start(&id);
    assert_eq!(connection.health(None).unwrap(), HealthVerdict::Unhealthy);
    let State::Running(running) = world.state(&id) else { panic!("not running") };
    let health = running.health.unwrap();
    assert_eq!(health.log[0].exit_code, -1);
    assert_eq!(health.log[0].output, "Health check exceeded timeout (100ms)");
}

#[test]
fn no_health_check_is_no_reason_to_wait() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |_| {});
    assert_eq!(world.start(&id).health(None).unwrap(), HealthVerdict::Unchecked);
}

#[test]
fn a_killed_monitor_takes_its_container_along() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |_| {});
    let mut connection = world.start(&id);
    let State::Running(running) = world.state(&id) else { panic!("not running") };
    let init = rustix::process::Pid::from_raw(running.pid).unwrap();
    let pidfd = rustix::process::pidfd_open(init, rustix::process::PidfdFlags::empty()).unwrap();
    let monitor = rustix::process::Pid::from_raw(world.monitor_pid(&id)).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut ended, Some(&limit)).unwrap(), 1, "it outlived its monitor");
    let error = connection.wait_exit().unwrap_err();
    assert!(error.to_string().contains("the monitor of container"), "{error}");
    assert!(client::connect(&world.root, &id).unwrap().is_none());
    // The lock is free: the container can be started again.
    assert!(world.start(&id).kill(Signal::KILL).is_ok());
}

#[test]
fn a_command_that_dies_changes_nothing() {
    let world = World::new();
    let id = world.shell("sleep 0.2; echo on; sleep 600", |_| {});
    let mut connection = client::spawn_monitor(&world.root, &id).unwrap();
    connection.subscribe(Streams { stdin: true, ..Streams::OUTPUT }).unwrap();
    connection.started().unwrap();
    drop(connection);
    let mut other = world.connect(&id);
    other.subscribe(Streams::OUTPUT).unwrap();
    let follower = std::thread::spawn(move || {
        let mut text = String::new();
        let code = other.follow(&mut |_, bytes| text.push_str(&String::from_utf8_lossy(bytes)));
        (text, code.unwrap())
    });
    let root = world.root.clone();
    let mut shown = String::new();
    // Follows until the line is there, then ends what it follows.
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let mut ends = Vec::new();
    let see = &mut |line: &LogLine| {
        shown.push_str(&line.log);
        client::connect(&root, &id).unwrap().unwrap().kill(Signal::KILL).unwrap();
        ControlFlow::Continue(())
    };
    logs::read(&root, &id, &follow, see, &mut |exit| ends.push((exit.code, exit.again))).unwrap();
    assert_eq!(ends, [(137, false)]);
    assert_eq!(shown, "on\n");
    let (text, code) = follower.join().unwrap();
    assert_eq!((text.as_str(), code), ("on\n", 137));
}

#[test]
fn two_starts_at_once_are_one_start() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |_| {});
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let (root, id) = (world.root.clone(), id.clone());
            std::thread::spawn(move || client::spawn_monitor(&root, &id).unwrap().started())
        })
        .collect();
    for start in starts {
        start.join().unwrap().unwrap();
    }
    assert!(world.state(&id).is_running());
}

#[test]
fn a_network_that_was_made_ahead_is_the_containers_and_the_monitor_stays_out_of_it() {
    let world = World::new();
    let id = world.made(&["sleep", "600"], |spec| spec.network = NetworkMode::None);
    client::spawn_monitor_ahead(&world.root, &id, Some(Ahead::Network)).unwrap().started().unwrap();
    let State::Running(running) = world.state(&id) else { panic!("not running") };
    let network = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(network(world.monitor_pid(&id)), ours);
    assert_ne!(network(running.pid), ours);
    // With nothing beside its own `lo`.
    let table = fs::read_to_string(format!("/proc/{}/net/dev", running.pid)).unwrap();
    assert_eq!(
        table.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).count(),
        0,
        "{table}"
    );
}

#[test]
fn a_reader_that_sleeps_does_not_hold_the_container() {
    let world = World::new();
    let id = world.shell("dd if=/dev/zero bs=65536 count=64 2>/dev/null; echo; echo done", |_| {});
    let mut sleeper = client::spawn_monitor(&world.root, &id).unwrap();
    sleeper.subscribe(Streams::OUTPUT).unwrap();
    sleeper.started().unwrap();
    // Nobody reads from the sleeper; the container ends all the same.
    assert_eq!(world.connect(&id).wait_exit().unwrap(), 0);
    let text = world.logs(&id, &LogOptions { tail: Some(1), ..LogOptions::default() });
    assert_eq!(text, "done\n");
}

#[test]
fn a_monitor_is_small() {
    let world = World::new();
    let id = world.shell("seq 1 100000; sleep 600", |spec| {
        spec.healthcheck = Some(check(&["true"], 50, 1));
    });
    world.start(&id).wait_healthy(None).unwrap();
    let rollup = PathBuf::from(format!("/proc/{}/smaps_rollup", world.monitor_pid(&id)));
    let text = fs::read_to_string(rollup).unwrap();
    let kilobytes: u64 = text
        .lines()
        .filter(|line| line.starts_with("Private_Dirty:"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(kilobytes <= 2048, "{kilobytes} kB\n{text}");
}
