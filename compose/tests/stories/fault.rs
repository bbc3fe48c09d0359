//! What is killed half-way leaves a state from which the next `up` goes on, and no byte of a volume is lost.

use std::fs;

use engine::container::state::State;

use crate::world::World;

/// Two services on a network of their own, with a named and an anonymous volume.
fn project(value: &str) -> String {
    format!(
        r#"
services:
  db:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    environment: {{VALUE: {value}}}
    volumes: ["data:/data", "/scratch"]
    healthcheck: {{test: ["CMD", "true"], interval: 30s}}
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    environment: {{VALUE: {value}}}
    depends_on: {{db: {{condition: service_healthy}}}}
volumes: {{data: {{}}}}
"#
    )
}

/// It is as `up` is meant to leave it, and holds what was written.
#[track_caller]
fn is_whole(world: &World, value: &str) {
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(world.running(), ["p-db-1", "p-web-1"]);
    assert_eq!(world.names(), ["p-db-1", "p-web-1"]);
    assert_eq!(world.inside("db", "echo $VALUE"), format!("{value}\n"));
    assert_eq!(world.rcompose(["plan"]).succeeds().stdout, "nothing to do\n");
    assert_eq!(world.engine().check().unwrap().damaged, [] as [String; 0]);
}

#[test]
fn an_up_that_is_killed_anywhere_is_taken_up_by_the_next_one() {
    let world = World::new(&project("one"));
    world.rcompose(["up", "-d"]).succeeds();
    world.inside("db", "echo kept > /data/file; sync");
    for point in [
        "Network p_default  Created",
        "Container p-db-1  Created",
        "Container p-web-1  Created",
        "Container p-db-1  Started",
        "Service db  Healthy",
        "Container p-web-1  Started",
    ] {
        world.rcompose(["down"]).succeeds();
        world.kill_at(point, ["up", "-d"]);
        is_whole(&world, "one");
        assert_eq!(world.inside("db", "cat /data/file"), "kept\n", "killed at {point}");
    }
}

#[test]
fn a_recreation_that_is_killed_anywhere_is_taken_up_by_the_next_one() {
    let world = World::new(&project("zero"));
    world.rcompose(["up", "-d"]).succeeds();
    world.inside("db", "echo kept > /data/file; echo kept > /scratch/file; sync");
    let points = [
        "Container p-db-1  Recreated",
        "Container p-web-1  Recreated",
        "Container p-db-1  Stopped",
        "Container p-db-1  Started",
        "Container p-db-1  Removed",
        "Container p-web-1  Started",
    ];
    for (number, point) in points.into_iter().enumerate() {
        let value = format!("after{number}");
        world.write("compose.yaml", &project(&value));
        world.kill_at(point, ["up", "-d"]);
        is_whole(&world, &value);
        assert_eq!(world.inside("db", "cat /data/file /scratch/file"), "kept\nkept\n", "killed at {point}");
    }
}

#[test]
fn a_down_that_is_killed_is_ended_by_the_next_one() {
    let world = World::new(&project("one"));
    for point in ["Container p-web-1  Stopped", "Container p-web-1  Removed", "Container p-db-1  Removed"] {
        world.rcompose(["up", "-d"]).succeeds();
        world.kill_at(point, ["down", "-v"]);
        world.rcompose(["down", "-v"]).succeeds();
        assert_eq!(world.names(), [] as [String; 0]);
        assert!(world.engine().networks().find("p_default").is_err());
        assert!(world.engine().volumes().get("p_data").is_err());
        assert_eq!(world.engine().check().unwrap().damaged, [] as [String; 0]);
    }
}

#[test]
fn a_container_whose_monitor_is_killed_is_started_again_with_all_it_had() {
    let world = World::new(&project("one"));
    world.rcompose(["up", "-d"]).succeeds();
    let ids = world.ids();
    world.inside("db", "echo kept > /data/file; echo kept > /scratch/file; echo kept > /file; sync");
    kill_monitor(&world, "p-db-1");
    is_whole(&world, "one");
    assert_eq!(world.ids(), ids, "it is the same container");
    assert_eq!(world.inside("db", "cat /data/file /scratch/file /file"), "kept\nkept\nkept\n");
}

/// Kills the process that watches over a container, and waits until the kernel has taken the container with it.
fn kill_monitor(world: &World, name: &str) {
    let State::Running(running) = world.container(name).state else { panic!("{name} does not run") };
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
    let monitor: i32 = parent.parse().unwrap();
    assert!(monitor > 1);
    let id = world.container(name).id().clone();
    std::process::Command::new("kill").args(["-9", parent]).status().unwrap();
    // Another end than by its monitor's hand is seen by whoever looks; waiting returns then.
    assert_eq!(world.engine().wait(&id).unwrap(), 137);
}
