//! What follows when containers fail in an update: `failure_action`, `max_failure_ratio` and `rollback_config`.

use crate::world::{World, await_listener, get, while_asked};

/// Three containers that run `command` and are updated one by one, with more said of `update_config` and `deploy`. They
/// are ready when they say so.
fn three(command: &str, update: &str, more: &str) -> String {
    format!(
        r#"
services:
  web:
    image: box
    command: ["sh", "-c", "{command}"]
    stop_grace_period: 0s
    volumes: ["./shared:/shared"]
    configs: [said]
    healthcheck: {{test: ["CMD", "test", "-e", "/tmp/ready"], interval: 1s}}
    deploy:
      replicas: 3
      update_config: {{parallelism: 1, {update}}}
      {more}
configs: {{said: {{content: "said {command}"}}}}
"#
    )
}

const RUN: &str = "touch /tmp/ready; exec sleep 1000";

/// The first container that gets here fails, the others run.
const FIRST_FAILS: &str = "mkdir /shared/failed && exit 3; touch /tmp/ready; exec sleep 1001";

fn numbers_that_run(world: &World, command: &str) -> Vec<String> {
    let runs =
        |name: &String| world.container(name).record.argv.iter().any(|argument| argument.contains(command));
    world.running().into_iter().filter(runs).map(|name| name.replace("p-web-", "")).collect()
}

#[test]
fn failures_are_borne_up_to_a_share_and_stop_an_update_beyond_it() {
    let world = World::new(&three(RUN, "max_failure_ratio: 0", ""));
    world.rcompose(["up", "-d"]).succeeds();
    world.write("compose.yaml", &three(FIRST_FAILS, "max_failure_ratio: 0.3", ""));
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1, "{}", up.stderr);
    assert!(up.stderr.contains("container p-web-1 ended with code 3"), "{}", up.stderr);
    assert!(up.stderr.contains("its update is paused"), "{}", up.stderr);
    assert_eq!(numbers_that_run(&world, "sleep 1000").len(), 2, "the others are as they were");
    // One of three is a third.
    std::fs::remove_dir(world.project().join("shared/failed")).unwrap();
    world.write("compose.yaml", &three(RUN, "max_failure_ratio: 0", ""));
    world.rcompose(["up", "-d"]).succeeds();
    world.write("compose.yaml", &three(FIRST_FAILS, "max_failure_ratio: 0.34", ""));
    let up = world.rcompose(["up", "-d"]).succeeds();
    assert!(up.stderr.contains("WARNING: service web: container p-web-1 ended with code 3"), "{}", up.stderr);
    assert_eq!(numbers_that_run(&world, "sleep 1001"), ["2", "3"]);
    assert_eq!(world.names(), ["p-web-1", "p-web-2", "p-web-3"]);
    // What goes on goes on whatever fails.
    world.write("compose.yaml", &three("exit 3", "failure_action: continue", ""));
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!((world.running().len(), world.names().len()), (0, 3));
}

#[test]
fn an_update_that_fails_is_rolled_back_to_the_containers_of_before() {
    let back = "rollback_config: {parallelism: 0, order: stop-first, monitor: 1ms}";
    let world = World::new(&three(RUN, "failure_action: rollback", back));
    world.rcompose(["up", "-d"]).succeeds();
    world.inside("web", "echo kept > /tmp/file");
    let before = world.ids();
    // The second one fails when the first one is replaced already; scaled down is only what succeeds.
    let second_fails = "mkdir /shared/first || exit 3; touch /tmp/ready; exec sleep 1001";
    let file = three(second_fails, "failure_action: rollback", back).replace("replicas: 3", "replicas: 2");
    world.write("compose.yaml", &file);
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1, "{}", up.stderr);
    assert!(up.stderr.contains("container p-web-2 ended with code 3"), "{}", up.stderr);
    assert!(up.stderr.contains("Service web: rolled back"), "{}", up.stderr);
    assert_eq!((world.ids(), world.running().len()), (before.clone(), 3));
    assert_eq!(world.names(), ["p-web-1", "p-web-2", "p-web-3"]);
    assert_eq!(world.inside("web", "cat /tmp/file"), "kept\n");
    assert_eq!(world.inside("web", "cat /said"), format!("said {RUN}"));
    world.write("compose.yaml", &three(RUN, "failure_action: rollback", back));
    assert_eq!(world.rcompose(["plan"]).succeeds().stdout, "nothing to do\n");
    // One that fails after it was ready fails too, as long as it is watched.
    let file = three("touch /tmp/ready; sleep 0.2; exit 3", "monitor: 10m, failure_action: rollback", back);
    world.write("compose.yaml", &file);
    let up = world.rcompose(["up", "-d"]);
    assert!(up.stderr.contains("Service web: rolled back"), "{}", up.stderr);
    assert_eq!((world.ids(), world.running().len()), (before, 3));
}

#[test]
fn a_network_that_an_update_changes_stays_changed_and_that_is_said() {
    let file = |command: &str, label: &str| {
        three(command, "failure_action: rollback", "")
            .replace("configs: [said]", "networks: [back]\n    configs: [said]")
            + &format!("networks: {{back: {{labels: {{is: {label}}}}}}}\n")
    };
    let world = World::new(&file(RUN, "old"));
    world.rcompose(["up", "-d"]).succeeds();
    let before = world.ids();
    world.write("compose.yaml", &file("exit 3", "new"));
    let up = world.rcompose(["up", "-d"]);
    let said = "network p_back is made anew, and stays as it is now if the update of web is rolled back";
    assert!(up.code == 1 && up.stderr.contains(said), "{}", up.stderr);
    assert!(up.stderr.contains("Service web: rolled back"), "{}", up.stderr);
    assert_eq!((world.ids(), world.running().len()), (before, 3));
    assert_eq!(world.inside("web", "ls /sys/class/net | grep -c eth"), "1\n", "it is on the network of now");
}

#[test]
fn a_rollback_that_starts_first_refuses_nobody() {
    let file = |page: &str, command: &str| {
        format!(
            r#"
services:
  web:
    image: box
    command: ["sh", "-c", "mkdir /www; echo {page} > /www/page; {command}exec httpd -f -p 8080 -h /www"]
    ports: ["8080"]
    stop_grace_period: 1s
    volumes: ["./shared:/shared"]
    deploy:
      replicas: 2
      update_config: {{order: start-first, failure_action: rollback}}
      rollback_config: {{order: start-first}}
"#
        )
    };
    let world = World::new(&file("one", ""));
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    let (before, port) = (world.ids(), world.port("web", 8080));
    await_listener(port);
    assert_eq!(get(port, "/page").1, "one\n");
    world.write("compose.yaml", &file("two", "mkdir /shared/first || exit 3; "));
    let (up, pages) = while_asked(|| Some(get(port, "/page").1), || world.rcompose(["up", "-d"]));
    assert_eq!(up.code, 1, "{}", up.stderr);
    assert!(pages.contains(&"two\n".to_owned()), "the new one served in between");
    assert_eq!(pages.last().map(String::as_str), Some("one\n"));
    assert_eq!((world.ids(), world.port("web", 8080)), (before, port));
    assert_eq!(world.names(), ["p-web-1", "p-web-2"]);
}
