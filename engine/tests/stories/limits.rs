//! Limits as users set them. These need no network: `uml.rs` runs them on pure cgroup2 too.

use crate::world::World;

#[test]
fn a_container_that_eats_too_much_memory_is_killed_and_says_so() {
    let world = World::new();
    world.background("--network none --name it -m 16m --memory-swap 16m", "x=x; while :; do x=$x$x; done");
    world.rengine(["wait", "it"]).succeeds().prints("137\n");
    assert_eq!(world.inspect("it", "{{.State.OOMKilled}}"), "true");
}

#[test]
fn it_sees_no_more_processes_than_it_may_have() {
    let world = World::new();
    let script = "for n in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait";
    let outcome = world.run("--network none --pids-limit 4", script);
    outcome.complains("fork");
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let world = World::new();
    world.background("--network none --name it", "echo ready; sleep 1000");
    world.await_log("it", "ready");
    world.rengine(["pause", "it"]).succeeds();
    assert_eq!(world.inspect("it", "{{.State.Status}}"), "paused");
    world.rengine(["exec", "it", "true"]).exits(1).complains("paused");
    world.rengine(["unpause", "it"]).succeeds();
    world.rengine(["exec", "it", "true"]).succeeds();
    world.rengine(["pause", "it"]).succeeds();
    world.rengine(["rm", "-f", "it"]).succeeds();
}

#[test]
fn processor_time_is_rationed() {
    let world = World::new();
    world.background("--network none --name it --cpus 0.5 --cpu-shares 512", "sleep 1000");
    assert_eq!(world.inspect("it", "{{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}}"), "500000000 512");
}

#[test]
fn a_device_that_was_not_given_cannot_be_opened() {
    let world = World::new();
    // Making the node is allowed, as in docker; opening it is what the control group refuses.
    world.run("--network none", "mknod /mem c 1 1 && cat /mem").fails().complains("not permitted");
    world
        .run("--network none", "echo x > /dev/null && head -c 4 /dev/urandom | wc -c")
        .succeeds()
        .prints("4\n");
    world.run("--network none --privileged", "mknod /kmsg c 1 11 && head -c 0 /kmsg").succeeds();
}

#[test]
fn no_control_group_is_left() {
    let world = World::new();
    world.run("--network none -m 64m", "true").succeeds();
    assert_eq!(engine::container::cgroup::Cgroup::list(world.root()).unwrap(), []);
}
