//! Commands around a container's start.

use std::fs;

use crate::world::World;

#[test]
fn what_comes_before_the_start_runs_to_its_end_once_or_for_each_container() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    environment: {FROM: service}
    scale: 2
    volumes: [data:/data]
    pre_start:
      - command: [sh, -c, "echo once $$FROM $$MINE >>/data/log"]
        environment: {MINE: hook}
      - command: [sh, -c, "echo each >>/data/log"]
        per_replica: true
volumes: {data: {}}
"#,
    );
    world.rcompose(["up", "-d"]).succeeds();
    let log = world.inside("web", "sort /data/log");
    assert_eq!(log, "each\neach\nonce service hook\n");
    assert_eq!(world.names(), ["p-web-1", "p-web-2"], "the hooks' containers are gone");
}

#[test]
fn a_container_whose_pre_start_fails_is_not_started() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    pre_start: [{command: [sh, -c, "echo no schema; exit 3"]}]
"#,
    );
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1);
    assert!(up.stderr.contains("service web") && up.stderr.contains("ended with code 3"), "{}", up.stderr);
    assert!(up.stderr.contains("| no schema"), "{}", up.stderr);
    assert_eq!(world.running(), [] as [String; 0]);
}

#[test]
fn a_hook_that_fails_is_told_with_what_it_wrote() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    post_start: [{command: [sh, -c, "sleep 1000 & echo no such table >&2; exit 3"]}]
"#,
    );
    let up = world.rcompose(["up", "-d"]);
    assert_eq!((up.code, up.stdout.as_str()), (1, ""), "{}", up.stderr);
    assert!(up.stderr.contains("ended with code 3\n  | no such table\n"), "{}", up.stderr);
}

#[test]
fn run_runs_what_comes_after_the_start_too() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    volumes: ["./out:/out"]
    post_start: [{command: [sh, -c, "echo seen; echo after >/out/after; echo done >&2"]}]
"#,
    );
    fs::create_dir(world.project().join("out")).unwrap();
    let until = "until [ -s /out/after ]; do usleep 1000; done; cat /out/after";
    let run = world.rcompose(["run", "--rm", "-T", "web", "sh", "-c", until]).succeeds();
    assert_eq!(run.stdout, "after\n", "what the hook writes is not what the command writes");
    assert!(run.stderr.contains(" ->  | seen\n") && run.stderr.contains(" ->  | done\n"), "{}", run.stderr);
}

#[test]
fn what_cannot_run_before_the_stop_keeps_nothing_from_stopping() {
    let world = World::new(
        r#"
services:
  crashes:
    image: box
    command: [sh, -c, "exit 3"]
    restart: always
    pre_stop: [{command: [sh, -c, "exit 0"]}]
  still:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    pre_stop: [{command: [sh, -c, "exit 0"]}]
  fails:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    pre_stop: [{command: [sh, -c, "echo not yet; exit 4"]}]
"#,
    );
    world.rcompose(["up", "-d"]).succeeds();
    world.rcompose(["pause", "still"]).succeeds();
    let stop = world.rcompose(["stop"]);
    assert_eq!(stop.code, 1, "{}", stop.stderr);
    assert!(stop.stderr.contains("p-fails-1: its pre_stop failed: the command"), "{}", stop.stderr);
    assert!(stop.stderr.contains("ended with code 4\n  | not yet\n"), "{}", stop.stderr);
    assert_eq!(world.running(), ["p-fails-1"]);
}
