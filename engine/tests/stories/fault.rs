//! Things that die half-way, and what the next command finds.

use std::fs;

use rustix::process::Signal;

use crate::world::{World, free_port};

#[test]
fn a_container_whose_monitor_was_killed_is_found_dead() {
    let world = World::new();
    let port = free_port();
    world.background(
        &format!("--name it -p {port}:80 -v things:/data"),
        "echo kept > /data/file; echo ready; sleep 1000",
    );
    world.await_log("it", "ready");
    world.kill_monitor("it");
    world.rengine(["wait", "it"]).succeeds().prints("137\n");
    assert_eq!(world.inspect("it", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    // Its address, its port and its volume are free.
    world.run(&format!("-p {port}:80 -v things:/data"), "cat /data/file").succeeds().prints("kept\n");
    world.rengine(["start", "it"]).succeeds();
    world.rengine(["rm", "-f", "it"]).succeeds();
}

#[test]
fn a_restart_policy_holds_when_the_monitor_was_killed() {
    let world = World::new();
    world.background("--network none --name it --restart always", "echo up; sleep 1000");
    world.await_log("it", "up");
    world.kill_monitor("it");
    // Whatever command comes next puts it right.
    world.rengine(["ps", "-a"]).succeeds();
    world.await_log("it", "up\nup");
    assert_eq!(world.inspect("it", "{{.State.Running}}"), "true");
}

#[test]
fn a_client_that_is_killed_takes_nothing_with_it() {
    let world = World::new();
    let id = world.background("--network none --name it", "echo ready; sleep 1000");
    world.await_log("it", "ready");
    let attached = world.spawn(["attach", "--no-stdin", "it"]);
    attached.signal(Signal::KILL);
    attached.ends().fails();
    assert_eq!(world.inspect("it", "{{.Id}} {{.State.Running}}"), format!("{id} true"));
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let world = World::new();
    let port = free_port();
    world
        .rengine(["run", "--rm", "-p", &format!("{port}:80"), "-m", "32m", crate::world::BOX, "nosuch"])
        .exits(127);
    world.rengine(["ps", "-aq"]).succeeds().prints("");
    assert_eq!(engine::container::cgroup::Cgroup::list(world.root()).unwrap(), []);
    let links = fs::read_dir("/sys/class/net").unwrap().flatten();
    let left: Vec<_> = links
        .map(|link| link.file_name().into_string().unwrap())
        .filter(|name| name.contains(world.root().short_tag()) && name.starts_with("ve"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    world.run(&format!("-p {port}:80"), "true").succeeds();
}

#[test]
fn a_build_that_is_killed_leaves_a_world_that_builds() {
    let world = World::new();
    let context = world.path("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), "FROM box\nRUN echo started; sleep 1000\n").unwrap();
    let mut building =
        world.spawn(["build", "--progress", "plain", "-t", "built", context.to_str().unwrap()]);
    building.await_line("started");
    building.signal(Signal::KILL);
    building.ends().fails();
    fs::write(context.join("Dockerfile"), "FROM box\nRUN echo quick\n").unwrap();
    world.rengine(["build", "-t", "built", context.to_str().unwrap()]).succeeds();
}

#[test]
fn many_start_at_once() {
    let world = World::new();
    let names: Vec<_> = (0..20).map(|number| format!("many{number}")).collect();
    let starting: Vec<_> = names
        .iter()
        .map(|name| world.spawn(["run", "-d", "--name", name, crate::world::BOX, "sleep", "1000"]))
        .collect();
    for one in starting {
        one.ends().succeeds();
    }
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let mut addresses: Vec<_> = names.iter().map(|name| world.inspect(name, format)).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
    world.rengine(["rm", "-f"].into_iter().chain(names.iter().map(String::as_str))).succeeds();
    world.rengine(["ps", "-aq"]).succeeds().prints("");
}
