//! Containers and networks: made, started, stopped, removed, and killed on the way.

use super::Interrupted;
use crate::world::{BOX, World, free_port};

/// The container `it` is there or not; afterwards it is, and runs.
fn can_run(world: &World) {
    if world.rengine(["ps", "-aq", "--filter", "name=it"]).succeeds().stdout.is_empty() {
        world.rengine(["run", "-d", "--name", "it", BOX, "sleep", "1000"]).succeeds();
    } else {
        world.rengine(["start", "it"]).succeeds();
    }
    assert_eq!(world.inspect("it", "{{.State.Status}}"), "running");
}

fn is_gone(world: &World) {
    world.rengine(["rm", "-f", "-v", "it"]);
    world.rengine(["inspect", "it"]).fails();
    world.rengine(["run", "-d", "--name", "it", BOX, "sleep", "1000"]).succeeds();
}

#[test]
fn while_a_container_is_made() {
    let world = World::new();
    let command = ["create", "--name", "it", "-v", "/data", "-v", "/more", BOX, "sleep", "1000"];
    Interrupted { world, prepare: &|_| {}, command: &command, next: &can_run }.command_at(18);
}

fn made(world: &World) {
    let port = format!("{}:80", free_port());
    world.rengine(["create", "--name", "it", "-p", &port, "-v", "/data", BOX, "sleep", "1000"]).succeeds();
}

fn started(world: &World) {
    made(world);
    world.rengine(["start", "it"]).succeeds();
}

#[test]
fn while_a_container_starts() {
    let story =
        Interrupted { world: World::new(), prepare: &made, command: &["start", "it"], next: &can_run };
    story.command_at(12);
    story.children_at(28);
}

#[test]
fn while_a_container_stops() {
    let command = ["stop", "-t", "0", "it"];
    let story = Interrupted { world: World::new(), prepare: &started, command: &command, next: &can_run };
    story.command_at(6);
    story.monitor_at(14);
}

#[test]
fn while_a_container_is_removed() {
    let command = ["rm", "-f", "-v", "it"];
    let story = Interrupted { world: World::new(), prepare: &started, command: &command, next: &is_gone };
    story.command_at(16);
    story.monitor_at(8);
}

#[test]
fn while_a_command_runs_in_a_container() {
    let command = ["exec", "it", "true"];
    let story = Interrupted { world: World::new(), prepare: &started, command: &command, next: &can_run };
    story.command_at(6);
    story.monitor_at(16);
}

#[test]
fn while_a_container_runs_and_removes_itself() {
    let command = ["run", "--rm", "--name", "it", "-v", "/data", BOX, "true"];
    let story = Interrupted { world: World::new(), prepare: &|_| {}, command: &command, next: &is_gone };
    story.command_at(16);
    story.children_at(18);
}

#[test]
fn while_a_network_is_made_and_removed() {
    let nothing = |_: &World| {};
    let command = ["network", "create", "lan"];
    let next = |world: &World| {
        if world.rengine(["network", "inspect", "lan"]).is_success() {
            world.rengine(["run", "--rm", "--network", "lan", BOX, "true"]).succeeds();
            world.rengine(["network", "rm", "lan"]).succeeds();
        }
        world.rengine(["network", "create", "lan"]).succeeds();
        world.rengine(["network", "rm", "lan"]).succeeds();
    };
    let story = Interrupted { world: World::new(), prepare: &nothing, command: &command, next: &next };
    let cleaned = |world: &World| drop(world.rengine(["network", "rm", "lan"]));
    Interrupted { prepare: &cleaned, ..story }.command_at(14);
    let made = |world: &World| drop(world.rengine(["network", "create", "lan"]));
    let command = ["network", "rm", "lan"];
    Interrupted { world: World::new(), prepare: &made, command: &command, next: &next }.command_at(8);
}
