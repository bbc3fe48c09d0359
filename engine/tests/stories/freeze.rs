//! One container or its monitor stands still. Nothing else does.

use rustix::process::{Signal, kill_process};

use crate::world::{BOX, World};

#[test]
fn a_monitor_that_stands_still_holds_up_its_own_container_alone() {
    let world = World::new();
    for name in ["stuck", "other"] {
        world.background(&format!("--name {name} -p 80"), "exec sleep 1000");
    }
    let monitor = world.monitor("stuck");
    kill_process(monitor, Signal::STOP).unwrap();
    world.rengine(["ps", "--format", "{{.Names}}"]).succeeds().shows("stuck").shows("other");
    assert_eq!(world.inspect("stuck", "{{.State.Status}}"), "running");
    world.rengine(["exec", "other", "true"]).succeeds();
    world.rengine(["stop", "-t", "0", "other"]).succeeds();
    world.rengine(["rm", "other"]).succeeds();
    world.run("", "true").succeeds();
    let complaint = format!("(process {}) stands still", monitor.as_raw_pid());
    world.rengine(["stop", "stuck"]).exits(1).complains(&complaint).complains("kill -CONT");
    world.rengine(["exec", "stuck", "true"]).exits(1).complains(&complaint);
    world.rengine(["rm", "-f", "stuck"]).succeeds();
    world.rengine(["ps", "-aq"]).succeeds().prints("");
    world.rengine(["system", "check"]).succeeds().prints("nothing was left behind\n");
}

#[test]
fn a_monitor_that_goes_on_is_none_the_worse_for_it() {
    let world = World::new();
    world.background("--network none --name it", "trap 'exit 3' TERM; while :; do sleep 1000 & wait; done");
    let monitor = world.monitor("it");
    kill_process(monitor, Signal::STOP).unwrap();
    world.rengine(["kill", "it"]).exits(1).complains("stands still");
    kill_process(monitor, Signal::CONT).unwrap();
    world.rengine(["stop", "it"]).succeeds();
    assert_eq!(world.inspect("it", "{{.State.ExitCode}}"), "3");
}

#[test]
fn a_frozen_container_can_be_looked_at_stopped_and_removed() {
    let world = World::new();
    for name in ["one", "two"] {
        world.background(&format!("--network none --name {name}"), "exec sleep 1000");
        world.rengine(["pause", name]).succeeds();
    }
    world.rengine(["ps", "--format", "{{.Status}}"]).succeeds().shows("Paused");
    world.rengine(["exec", "one", "true"]).exits(1).complains("paused");
    world.rengine(["stop", "-t", "0", "one"]).succeeds();
    world.rengine(["rm", "-f", "two"]).succeeds();
    world.rengine(["run", "--rm", "--network", "none", BOX, "true"]).succeeds();
}
