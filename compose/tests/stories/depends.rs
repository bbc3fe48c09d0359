//! Services that lean on each other: hooks, jobs, restarts along with a dependency, shared namespaces and volumes.

use std::fs;

use engine::container::state::State;
use jiff::Timestamp;

use crate::world::World;

fn started(world: &World, name: &str) -> Timestamp {
    match world.container(name).state {
        State::Running(running) => running.started,
        other => panic!("{name} is {}", other.word()),
    }
}

#[test]
fn hooks_run_after_each_start_and_before_each_stop() {
    let file = |code: u8| {
        format!(
            r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    user: "1000"
    volumes: ["./out:/out"]
    post_start:
      - {{command: ["sh", "-c", "echo $$(id -u) $$PWD $$WHO started >> /out/log; exit {code}"], user: root, working_dir: /var, environment: [WHO=hook]}}
    pre_stop: [{{command: ["sh", "-c", "echo stopping >> /out/log"], user: root}}]
"#
        )
    };
    let world = World::new(&file(0));
    let log = || fs::read_to_string(world.project().join("out/log")).unwrap();
    let start = "0 /var hook started\n";
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(log(), start);
    world.rcompose(["restart"]).succeeds();
    assert_eq!(log(), format!("{start}stopping\n{start}"));
    world.rcompose(["down"]).succeeds();
    assert_eq!(log(), format!("{start}stopping\n{start}stopping\n"));
    world.write("compose.yaml", &file(9));
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1);
    assert!(up.stderr.contains("service web") && up.stderr.contains("ended with code 9"), "{}", up.stderr);
}

#[test]
fn a_service_restarts_with_what_it_depends_on_when_it_says_so() {
    let file = |value: &str| {
        format!(
            r#"
services:
  db: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, environment: {{VALUE: {value}}}}}
  follows: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, depends_on: {{db: {{condition: service_started, restart: true}}}}}}
  stays: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, depends_on: [db]}}
"#
        )
    };
    let world = World::new(&file("one"));
    world.rcompose(["up", "-d"]).succeeds();
    let (follows, stays) = (started(&world, "p-follows-1"), started(&world, "p-stays-1"));
    let ids = (world.ids_of("follows"), world.ids_of("stays"));
    world.write("compose.yaml", &file("two"));
    world.rcompose(["up", "-d"]).succeeds();
    assert!(started(&world, "p-follows-1") > started(&world, "p-db-1"));
    assert!(started(&world, "p-follows-1") > follows);
    assert_eq!(started(&world, "p-stays-1"), stays);
    assert_eq!((world.ids_of("follows"), world.ids_of("stays")), ids, "neither is made anew");
    let before = started(&world, "p-follows-1");
    world.rcompose(["restart", "db"]).succeeds();
    assert!(started(&world, "p-follows-1") > before);
    let before = started(&world, "p-follows-1");
    world.rcompose(["restart", "--no-deps", "db"]).succeeds();
    assert_eq!(started(&world, "p-follows-1"), before);
}

#[test]
fn a_job_is_done_when_it_ends_for_good_and_what_is_not_required_may_fail() {
    let world = World::new(
        r#"
services:
  retried:
    image: box
    command: ["sh", "-c", "test -e /out/tried && exit 0; touch /out/tried; exit 1"]
    restart: on-failure
    volumes: ["./out:/out"]
  optional: {image: box, command: ["false"]}
  unhealthy:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    healthcheck: {test: ["CMD", "false"], interval: 10ms, retries: 1}
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    depends_on:
      retried: {condition: service_completed_successfully}
      optional: {condition: service_completed_successfully, required: false}
      unhealthy: {condition: service_healthy, required: false}
"#,
    );
    let up = world.rcompose(["up", "-d"]).succeeds();
    assert!(world.running().contains(&"p-web-1".to_owned()));
    assert!(up.stderr.contains("WARNING: service optional"), "{}", up.stderr);
    assert!(up.stderr.contains("WARNING: service unhealthy"), "{}", up.stderr);
    // Required, the same failure is one.
    let file = fs::read_to_string(world.project().join("compose.yaml")).unwrap();
    world.rcompose(["down"]).succeeds();
    world.write("compose.yaml", &file.replace("service_healthy, required: false", "service_healthy"));
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1);
    assert!(up.stderr.contains("container p-unhealthy-1 is unhealthy"), "{}", up.stderr);
    assert!(!world.running().contains(&"p-web-1".to_owned()));
}

#[test]
fn a_migration_that_fails_fails_the_update_of_what_runs_already() {
    let file = |command: &str| {
        format!(
            r#"
services:
  migrate: {{image: box, command: ["sh", "-c", "{command}"]}}
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    depends_on: {{migrate: {{condition: service_completed_successfully}}}}
"#
        )
    };
    let world = World::new(&file("exit 0"));
    world.rcompose(["up", "-d"]).succeeds();
    world.write("compose.yaml", &file("sleep 0.2; echo no such column; exit 4"));
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1, "{}", up.stderr);
    assert!(up.stderr.contains("it ended with code 4"), "{}", up.stderr);
    assert!(up.stderr.contains("no such column"), "{}", up.stderr);
    assert_eq!(world.running(), ["p-web-1"]);
}

#[test]
fn what_shares_a_namespace_or_volumes_is_made_anew_with_their_owner() {
    let file = |value: &str| {
        format!(
            r#"
services:
  owner:
    image: box
    command: ["httpd", "-f", "-p", "8080", "-h", "/etc"]
    stop_grace_period: 0s
    healthcheck: {{test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/hello"], interval: 1s}}
    environment: {{VALUE: {value}}}
    volumes: [/shared]
  network: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, network_mode: "service:owner"}}
  processes: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, pid: "service:owner"}}
  files: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, volumes_from: [owner]}}
"#
        )
    };
    let world = World::new(&file("one"));
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    let works = |world: &World| {
        assert_eq!(world.inside("network", "wget -qO- http://127.0.0.1:8080/hello"), "hello\n");
        assert!(world.inside("processes", "ps").contains("httpd -f"));
        world.inside("owner", "echo $VALUE > /shared/value");
        world.inside("files", "cat /shared/value")
    };
    assert_eq!(works(&world), "one\n");
    world.write("compose.yaml", &file("two"));
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(works(&world), "two\n");
    // Forced on the owner alone, the others are not left in the dark either.
    world.rcompose(["up", "-d", "--force-recreate", "owner"]).succeeds();
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(works(&world), "two\n");
    assert_eq!(world.rcompose(["plan"]).succeeds().stdout, "nothing to do\n");
}
