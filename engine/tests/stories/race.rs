//! Commands on one container that meet: each of them ends, and what is left is what one of the two orders leaves.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::world::{BOX, World};

/// What no command that has nothing to wait for may take.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_container_whose_start_is_killed_at_any_moment_can_be_removed_at_once() {
    let world = World::new();
    let create = |name: &str| world.rengine(["create", "--name", name, BOX, "sleep", "1000"]).succeeds();
    create("measure");
    let began = Instant::now();
    world.rengine(["start", "measure"]).succeeds();
    let whole = began.elapsed();
    world.rengine(["rm", "-f", "measure"]).succeeds();
    for moment in 0..40_u32 {
        let name = format!("c{moment}");
        create(&name);
        let start = world.spawn(["start", &name]);
        // The moment is what this is about.
        std::thread::sleep(whole * moment / 40);
        start.signal(Signal::KILL);
        let began = Instant::now();
        world.rengine(["rm", "-f", &name]).succeeds();
        assert!(began.elapsed() < SOON, "moment {moment}: {:?}", began.elapsed());
        start.ends();
    }
    assert_eq!(world.rengine(["ps", "-aq"]).succeeds().stdout, "");
    world.await_monitors_end();
}

#[test]
fn a_start_and_a_removal_that_meet_both_end() {
    let world = World::new();
    for round in 0..20 {
        let name = format!("c{round}");
        world.rengine(["create", "--name", &name, BOX, "sleep", "1000"]).succeeds();
        let (start, removal) = (world.spawn(["start", &name]), world.spawn(["rm", "-f", &name]));
        let began = Instant::now();
        // The start may come too late; the removal never fails.
        let started = start.ends();
        removal.ends().succeeds();
        assert!(began.elapsed() < SOON, "round {round}: {:?}", began.elapsed());
        if !started.is_success() {
            assert!(!started.stderr.is_empty());
        }
    }
    assert_eq!(world.rengine(["ps", "-aq"]).succeeds().stdout, "");
    world.await_monitors_end();
}

#[test]
fn a_renaming_that_is_killed_can_be_done_again_and_back() {
    let world = World::new();
    world.background("--name one", "sleep 1000");
    for round in 0..20_u64 {
        let (from, to) = if round % 2 == 0 { ("one", "two") } else { ("two", "one") };
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=symlink,rename,unlink"])
            .args(["-e", &format!("inject=symlink,rename,unlink:signal=SIGKILL:when={}", 1 + round / 2 % 5)])
            .arg(env!("CARGO_BIN_EXE_rengine"))
            .args(["rename", from, to])
            .env("RENGINE_ROOT", world.root().state())
            .status()
            .unwrap();
        if !strace.success() {
            // Cut off or not, whoever asks again gets what was asked for.
            let id = world.rengine(["ps", "-aq"]).succeeds().line();
            world.rengine(["rename", &id, to]);
        }
        assert_eq!(
            world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().line(),
            to,
            "round {round}"
        );
        // The name that was given up is free.
        world.rengine(["create", "--name", from, BOX, "true"]).succeeds();
        world.rengine(["rm", from]).succeeds();
    }
}
