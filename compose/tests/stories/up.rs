//! Projects that come up, change and go down.

use crate::world::World;

/// Serves the container's own files.
const SERVE: &str = r#"["httpd", "-f", "-p", "8080", "-h", "/"]"#;

#[test]
fn the_first_up_makes_everything_and_the_second_does_nothing() {
    let world = World::new(&format!(
        r#"
services:
  db:
    image: box
    command: {SERVE}
    healthcheck: {{test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/etc/hello"], interval: 30s}}
    volumes: [data:/data]
  web:
    image: box
    command: {SERVE}
    depends_on: {{db: {{condition: service_healthy}}}}
volumes:
  data:
"#
    ));
    let up = world.rcompose(["up", "-d"]).succeeds();
    for line in ["Network p_default  Created", "Volume p_data  Created", "Container p-web-1  Started"] {
        assert!(up.stderr.contains(line), "{line} is missing in\n{}", up.stderr);
    }
    assert_eq!(up.stdout, "", "progress is not data");
    let first = world.ids();
    let again = world.rcompose(["up", "-d"]).succeeds();
    assert!(again.stderr.contains("Container p-db-1  Running"), "{}", again.stderr);
    assert!(!again.stderr.contains("Started"), "{}", again.stderr);
    assert_eq!(world.ids(), first);
    assert_eq!(world.rcompose(["plan"]).succeeds().stdout, "nothing to do\n");
    // The services find each other by name.
    let hello = world.rcompose(["exec", "-T", "web", "wget", "-qO-", "http://db:8080/etc/hello"]).succeeds();
    assert_eq!(hello.stdout, "hello\n");
    world.rcompose(["down", "-t", "1"]).succeeds();
    assert_eq!(world.ids(), [] as [String; 0]);
    let gone = world.rcompose(["down"]).succeeds();
    assert!(gone.stderr.contains("no resource found to remove"), "{}", gone.stderr);
}

#[test]
fn a_changed_service_alone_is_recreated() {
    let file = |value: &str| {
        format!(
            r#"
services:
  db: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s}}
  web: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, environment: {{VALUE: {value}}}}}
"#
        )
    };
    let world = World::new(&file("one"));
    world.rcompose(["up", "-d"]).succeeds();
    let before = world.ids_of("db");
    let web = world.ids_of("web");
    world.write("compose.yaml", &file("two"));
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.ids_of("db"), before);
    assert_ne!(world.ids_of("web"), web);
    assert_eq!(world.names(), ["p-db-1", "p-web-1"]);
    let value = world.rcompose(["exec", "-T", "web", "sh", "-c", "echo $VALUE"]).succeeds();
    assert_eq!(value.stdout, "two\n");
    // Forced, it is made anew although nothing changed; the other one is left alone.
    let web = world.ids_of("web");
    world.rcompose(["up", "-d", "--force-recreate", "web"]).succeeds();
    assert_ne!(world.ids_of("web"), web);
    assert_eq!(world.ids_of("db"), before);
}

#[test]
fn what_a_named_volume_holds_outlives_down_and_goes_with_v() {
    let world = World::new(
        r#"
services:
  db: {image: box, command: [sleep, "1000"], stop_grace_period: 0s, volumes: ["data:/data"]}
volumes: {data: {}}
"#,
    );
    world.rcompose(["up", "-d"]).succeeds();
    world.rcompose(["exec", "-T", "db", "sh", "-c", "echo kept > /data/file"]).succeeds();
    world.rcompose(["down"]).succeeds();
    world.rcompose(["up", "-d"]).succeeds();
    let read = || world.rcompose(["exec", "-T", "db", "cat", "/data/file"]);
    assert_eq!(read().succeeds().stdout, "kept\n");
    world.rcompose(["down", "-v"]).succeeds();
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(read().code, 1);
}

#[test]
fn an_anonymous_volume_goes_on_in_the_successor() {
    let world = World::new(
        r#"
services:
  db: {image: box, command: [sleep, "1000"], stop_grace_period: 0s, volumes: ["/data"]}
"#,
    );
    world.rcompose(["up", "-d"]).succeeds();
    world.rcompose(["exec", "-T", "db", "sh", "-c", "echo kept > /data/file"]).succeeds();
    world.rcompose(["up", "-d", "--force-recreate"]).succeeds();
    let read = || world.rcompose(["exec", "-T", "db", "cat", "/data/file"]);
    assert_eq!(read().succeeds().stdout, "kept\n");
    world.rcompose(["up", "-d", "-V"]).succeeds();
    assert_eq!(read().code, 1);
}

#[test]
fn a_job_that_fails_keeps_its_dependents_from_starting() {
    let file = |code: u8| {
        format!(
            r#"
services:
  job: {{image: box, command: [sh, -c, "exit {code}"]}}
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    depends_on: {{job: {{condition: service_completed_successfully}}}}
"#
        )
    };
    let world = World::new(&file(3));
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1);
    assert!(
        up.stderr
            .contains("service job: container p-job-1 did not complete successfully: it ended with code 3"),
        "{}",
        up.stderr
    );
    assert_eq!(world.running(), [] as [String; 0]);
    world.write("compose.yaml", &file(0));
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p-web-1"]);
    // A job that is done stays done while those that waited for it run.
    assert_eq!(world.rcompose(["plan"]).succeeds().stdout, "nothing to do\n");
}

#[test]
fn a_command_that_is_not_there_is_one_clear_error_and_the_next_up_goes_on() {
    let file = |command: &str| {
        format!(
            r#"
services:
  db: {{image: box, command: [{command}, "1000"], stop_grace_period: 0s}}
  web: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, depends_on: [db]}}
"#
        )
    };
    let world = World::new(&file("nothing-like-this"));
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1);
    let errors: Vec<&str> = up.stderr.lines().filter(|line| line.starts_with("rcompose:")).collect();
    assert_eq!(errors.len(), 1, "{}", up.stderr);
    assert!(errors[0].contains("service db") && errors[0].contains("nothing-like-this"), "{}", errors[0]);
    assert_eq!(world.running(), [] as [String; 0]);
    world.write("compose.yaml", &file("sleep"));
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p-db-1", "p-web-1"]);
    assert_eq!(world.names(), ["p-db-1", "p-web-1"]);
}

#[test]
fn services_scale_up_and_down_and_orphans_go_when_asked() {
    let world = World::new(
        r#"
services:
  web: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
"#,
    );
    world.rcompose(["up", "-d", "--scale", "web=3"]).succeeds();
    assert_eq!(world.running(), ["p-web-1", "p-web-2", "p-web-3"]);
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p-web-1"]);
    world.write(
        "compose.yaml",
        r#"
services:
  other: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
"#,
    );
    let up = world.rcompose(["up", "-d"]).succeeds();
    assert!(up.stderr.contains("found orphan containers (p-web-1)"), "{}", up.stderr);
    world.write("off.yaml", "services: {spare: {image: box, profiles: [spare]}}\n");
    world.rcompose(["-f", "off.yaml", "down"]).succeeds();
    assert_eq!(
        world.running(),
        ["p-other-1", "p-web-1"],
        "they are orphans, too, where all services are off"
    );
    world.rcompose(["up", "-d", "--remove-orphans"]).succeeds();
    assert_eq!(world.names(), ["p-other-1"]);
    world.write("compose.yaml", "services: {third: {image: box, command: [sleep, '1000']}}\n");
    world.rcompose(["kill", "--remove-orphans"]).succeeds();
    assert_eq!(world.names(), [] as [String; 0]);
}

#[test]
fn exit_codes_and_output_of_commands_come_through() {
    let world = World::new(
        r#"
services:
  db: {image: box, command: [sh, -c, "echo from db; exec sleep 1000"], stop_grace_period: 0s}
  web: {image: box, command: [sh, -c, "echo from web; exec sleep 1000"], stop_grace_period: 0s, depends_on: [db]}
"#,
    );
    let run = world.rcompose(["run", "--rm", "-T", "web", "sh", "-c", "echo run; exit 7"]);
    assert_eq!((run.code, run.stdout.as_str()), (7, "run\n"), "{}", run.stderr);
    assert_eq!(world.names(), ["p-db-1"], "the dependency runs and the one-off is gone");
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.rcompose(["exec", "-T", "web", "sh", "-c", "exit 5"]).code, 5);
    assert_eq!(world.rcompose(["exec", "-T", "web", "nothing-like-this"]).code, 127);
    assert_eq!(world.rcompose(["exec", "-T", "nobody", "true"]).code, 1);
    let logs = world.rcompose(["logs", "--no-color"]).succeeds().stdout;
    assert!(logs.contains("db-1   | from db\n") && logs.contains("web-1  | from web\n"), "{logs}");
    assert_eq!(world.rcompose(["logs", "--no-log-prefix", "web"]).succeeds().stdout, "from web\n");
    world.rcompose(["stop"]).succeeds();
    assert_eq!(world.running(), [] as [String; 0]);
    world.rcompose(["start"]).succeeds();
    assert_eq!(world.running(), ["p-db-1", "p-web-1"]);
    let before = world.ids();
    world.rcompose(["restart", "web"]).succeeds();
    assert_eq!(world.ids(), before);
    world.rcompose(["kill", "web"]).succeeds();
    assert_eq!(world.running(), ["p-db-1"]);
    world.rcompose(["rm", "-f"]).succeeds();
    assert_eq!(world.names(), ["p-db-1"]);
}

#[test]
fn secrets_and_configurations_arrive_with_owner_and_mode_and_are_never_on_the_disk() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    read_only: true
    command: [sleep, "1000"]
    stop_grace_period: 0s
    secrets: [plain, {source: token, target: the-token, uid: "103", gid: "104", mode: 0440}]
    configs: [{source: settings, target: /etc/settings}]
secrets:
  plain: {file: ./plain.txt}
  token: {environment: TOKEN_FOR_TEST}
configs:
  settings: {content: "value=1"}
"#,
    );
    world.write("plain.txt", "from a file");
    world.write(".env", "TOKEN_FOR_TEST=very-secret-value\n");
    world.rcompose(["up", "-d"]).succeeds();
    let inside = |command: &str| world.rcompose(["exec", "-T", "web", "sh", "-c", command]).succeeds().stdout;
    assert_eq!(inside("cat /run/secrets/plain"), "from a file");
    assert_eq!(inside("cat /run/secrets/the-token"), "very-secret-value");
    assert_eq!(inside("stat -c %u:%g:%a /run/secrets/the-token"), "103:104:440\n");
    assert_eq!(inside("cat /etc/settings"), "value=1");
    assert!(!world.state_contains("very-secret-value"), "a secret lies on the disk");
    world.rcompose(["down"]).succeeds();
}

#[test]
fn two_ups_at_once_take_turns() {
    let world = World::new(
        r#"
services:
  web: {image: box, command: [sleep, "1000"], stop_grace_period: 0s, scale: 2}
"#,
    );
    let both = [world.spawn(["up", "-d"]), world.spawn(["up", "-d"])];
    for child in both {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(world.names(), ["p-web-1", "p-web-2"]);
}

#[test]
fn a_cli_that_is_killed_leaves_what_the_next_up_goes_on_from() {
    let world = World::new(
        r#"
services:
  a: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
  b: {image: box, command: [sleep, "1000"], stop_grace_period: 0s, depends_on: [a]}
  c: {image: box, command: [sleep, "1000"], stop_grace_period: 0s, depends_on: [b]}
"#,
    );
    let mut child = world.spawn(["up", "-d"]);
    world.wait_for_container("p-a-1");
    child.kill().unwrap();
    child.wait().unwrap();
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p-a-1", "p-b-1", "p-c-1"]);
    assert_eq!(world.names(), ["p-a-1", "p-b-1", "p-c-1"]);
}

#[test]
fn in_the_foreground_lines_carry_names_and_the_code_of_the_service_comes_back() {
    let world = World::new(
        r#"
services:
  web: {image: box, command: [sh, -c, "echo working; exit 4"]}
  long: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
"#,
    );
    let up = world.rcompose(["up", "--no-color", "--exit-code-from", "web"]);
    assert_eq!(up.code, 4, "{}", up.stderr);
    assert!(up.stdout.contains("web-1   | working\n"), "{}", up.stdout);
    assert!(up.stderr.contains("web-1 exited with code 4"), "{}", up.stderr);
    assert_eq!(world.running(), [] as [String; 0]);
}

#[test]
fn a_network_shared_with_another_service_is_really_shared() {
    let world = World::new(&format!(
        r#"
services:
  owner: {{image: box, command: {SERVE}, stop_grace_period: 0s}}
  guest: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, network_mode: "service:owner"}}
"#
    ));
    world.rcompose(["up", "-d"]).succeeds();
    let ask = || world.rcompose(["exec", "-T", "guest", "wget", "-qO-", "http://127.0.0.1:8080/etc/hello"]);
    assert_eq!(ask().succeeds().stdout, "hello\n");
    world.rcompose(["up", "-d", "--force-recreate", "owner"]).succeeds();
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p-guest-1", "p-owner-1"]);
}
