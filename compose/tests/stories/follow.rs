//! Staying with containers: `logs -f` and `up` in the foreground, until they end or somebody wants them to.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

const PROJECT: &str = r#"
services:
  web:
    image: box
    command: [sh, -c, "echo in $$HOSTNAME; exec sleep 1000"]
    hostname: ${NAME:-one}
    stop_grace_period: 0s
    depends_on: [db]
  db: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
"#;

/// A command whose output is read as it comes.
struct Spectator {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Spectator {
    fn of(world: &World, arguments: &[&str]) -> Self {
        let mut child = world.spawn(arguments);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads on until this line comes.
    #[track_caller]
    fn sees(&mut self, expected: &str) {
        let mut seen = Vec::new();
        for line in self.lines.by_ref().map_while(Result::ok) {
            let found = line == expected;
            seen.push(line);
            if found {
                return;
            }
        }
        panic!("{expected:?} did not come, but {seen:?}");
    }

    /// Sends a signal and waits for the end: the exit code, and what it said on standard error.
    fn ends_on(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        // Whoever writes must not wait for a reader.
        while self.lines.next().is_some() {}
        self.waits_for_the_end()
    }

    fn waits_for_the_end(mut self) -> (Option<i32>, String) {
        let said = std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

#[test]
fn logs_go_on_with_what_takes_a_containers_place_and_what_is_added() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d"]).succeeds();
    let mut logs = Spectator::of(&world, &["logs", "-f", "web"]);
    logs.sees("web-1  | in one");
    world.write(".env", "NAME=two\n");
    world.rcompose(["up", "-d"]).succeeds();
    logs.sees("web-1  | in two");
    world.rcompose(["up", "-d", "--scale", "web=2"]).succeeds();
    logs.sees("web-2  | in two");
    world.rcompose(["kill", "web"]).succeeds();
    let (code, said) = logs.waits_for_the_end();
    assert_eq!(code, Some(0), "none is left: {said}");
    assert!(said.contains("web-1 has been recreated\n"), "{said}");
    assert!(said.contains("web-2 exited with code 137\n"), "{said}");
}

#[test]
fn logs_of_what_has_ended_are_told_once_and_nothing_else() {
    let world = World::new("services: {web: {image: box, command: [echo, once]}}\n");
    world.rcompose(["up"]).succeeds();
    let logs = world.rcompose(["logs", "-f"]).succeeds();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("web-1  | once\n", ""));
}

#[test]
fn logs_end_without_a_word_when_somebody_has_seen_enough() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d"]).succeeds();
    for signal in [Signal::INT, Signal::TERM] {
        let mut logs = Spectator::of(&world, &["logs", "-f", "web"]);
        logs.sees("web-1  | in one");
        assert_eq!(logs.ends_on(signal), (Some(130), String::new()));
    }
    assert_eq!(world.running(), ["p-db-1", "p-web-1"]);
}

#[test]
fn an_up_that_is_told_to_end_stops_what_it_was_asked_for() {
    let world = World::new(PROJECT);
    let mut up = Spectator::of(&world, &["up", "web"]);
    up.sees("web-1  | in one");
    let (code, said) = up.ends_on(Signal::INT);
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(world.running(), ["p-db-1"], "others may use what web depends on");
    // As a service manager does it.
    let mut up = Spectator::of(&world, &["up"]);
    up.sees("web-1  | in one");
    let (code, said) = up.ends_on(Signal::TERM);
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(world.running(), [] as [String; 0]);
}

#[test]
fn an_up_stays_with_a_service_that_others_recreate() {
    let world = World::new(PROJECT);
    let mut up = Spectator::of(&world, &["up", "--abort-on-container-exit"]);
    up.sees("web-1  | in one");
    world.write(".env", "NAME=two\n");
    world.rcompose(["up", "-d"]).succeeds();
    up.sees("web-1  | in two");
    let (code, said) = up.ends_on(Signal::INT);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("web-1 has been recreated\n"), "{said}");
    assert!(!said.contains("Aborting"), "{said}");
}

#[test]
fn each_end_of_a_container_is_told_behind_what_it_wrote() {
    let world = World::new(
        r#"
services:
  job:
    image: box
    command: [sh, -c, "echo try; until [ -e /go/on ]; do usleep 1000; done; exit 3"]
    restart: on-failure:2
    volumes: ["./go:/go"]
  web: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
"#,
    );
    let mut up = Spectator::of(&world, &["up"]);
    up.sees("job-1  | try");
    world.write("go/on", "");
    up.sees("job-1  | try");
    up.sees("job-1  | try");
    world.rcompose(["wait", "job"]);
    // What takes the container away leaves nothing to look its exit code up in.
    world.rcompose(["down"]).succeeds();
    let (code, said) = up.waits_for_the_end();
    assert_eq!(code, Some(0), "{said}");
    let ends: Vec<&str> = said.lines().filter(|line| line.contains(" exited with ")).collect();
    let (last, again) = ends.split_last().unwrap();
    assert_eq!(*last, "web-1 exited with code 137", "{said}");
    assert_eq!(again.first(), Some(&"job-1 exited with code 3 (restarting)"), "{said}");
    assert_eq!(again.last(), Some(&"job-1 exited with code 3"), "{said}");
}

#[test]
fn who_follows_ends_when_nobody_reads_any_more() {
    let world = World::new(
        "services: {web: {image: box, command: [sh, -c, 'while echo tick; do usleep 10000; done'], stop_grace_period: 0s}}\n",
    );
    world.rcompose(["up", "-d"]).succeeds();
    for (arguments, first) in [(vec!["logs", "-f"], "web-1  | tick"), (vec!["up"], "web-1  | tick")] {
        let mut spectator = Spectator::of(&world, &arguments);
        spectator.sees(first);
        drop(spectator.lines);
        assert_eq!(spectator.child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
    assert_eq!(world.running(), ["p-web-1"], "containers do not end with who looks at them");
    let mut events = Spectator::of(&world, &["events"]);
    world.rcompose(["restart"]).succeeds();
    assert!(events.lines.next().is_some());
    drop(events.lines);
    world.rcompose(["restart"]).succeeds();
    assert_eq!(events.child.wait().unwrap().code(), Some(0));
}
