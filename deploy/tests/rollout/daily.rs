//! What is done from day to day beside deploying.

use crate::world::{World, get};

const FILE: &str = "
services:
  web: {build: ., ports: ['80'], depends_on: [db], stop_grace_period: 0s}
  db: {build: ., stop_grace_period: 0s}
";

/// When the container of a service was started.
fn started(world: &World, name: &str) -> String {
    world.rengine(0, ["inspect", "--format", "{{.State.StartedAt}}", name]).succeeds().stdout
}

#[test]
fn containers_are_stopped_and_started_as_they_are() {
    let world = World::new(1, FILE);
    let nothing = world.rdeploy(["stop"]).fails();
    assert!(nothing.stderr.contains("nothing of the project p is deployed"), "{}", nothing.stderr);
    let nothing = world.rdeploy(["drift"]).fails();
    assert!(nothing.stdout.contains("nothing of the project p is deployed"), "{}", nothing.stdout);
    world.rdeploy(["up"]).succeeds();
    let page = || get(world.port(0, "web")).unwrap();
    let port = world.port(0, "web");
    let names = world.names(0);
    let web = names.iter().find(|name| name.contains("web")).unwrap().clone();
    let db = names.iter().find(|name| name.contains("db")).unwrap().clone();
    let (web_began, db_began) = (started(&world, &web), started(&world, &db));

    let unknown = world.rdeploy(["restart", "wbe"]).fails();
    assert!(unknown.stderr.contains("no such service: wbe"), "{}", unknown.stderr);
    world.rdeploy(["stop", "web"]).succeeds();
    get(port).unwrap_err();
    let drift = world.rdeploy(["drift"]).fails();
    assert!(drift.stdout.contains("start"), "{}", drift.stdout);
    world.rdeploy(["start"]).succeeds();
    assert_eq!(page(), "one");
    assert_ne!(started(&world, &web), web_began);
    assert_eq!(started(&world, &db), db_began, "what runs is let alone");

    world.rdeploy(["restart", "db"]).succeeds();
    assert_ne!(started(&world, &db), db_began);
    assert_eq!(page(), "one");
    assert_eq!(world.names(0), names);
    world.rdeploy(["drift"]).succeeds();

    world.rdeploy(["lock", "acquire", "-m", "not now"]).succeeds();
    let locked = world.rdeploy(["stop"]).fails();
    assert!(locked.stderr.contains("not now"), "{}", locked.stderr);
    assert_eq!(page(), "one");
    world.rdeploy(["lock", "release"]).succeeds();
    world.rdeploy(["exec", "-e", "TOKEN=hidden", "web", "sh", "-c", "true\ntrue"]).succeeds();
    world.rdeploy(["run", "web", "true"]).succeeds();
    world.rdeploy(["status"]).succeeds();
    let said = world.rdeploy(["audit", "-n", "7"]).succeeds().stdout;
    let deeds: Vec<&str> =
        said.lines().skip(1).filter_map(|line| line.split("   ").last()).map(str::trim).collect();
    let expected = [
        "stop web",
        "start",
        "restart db",
        "lock acquire: not now",
        "lock release",
        r"exec web sh -c 'true\ntrue'",
        "run web true",
    ];
    assert_eq!(deeds, expected, "{said}");
    let first = world.rdeploy(["--json", "audit"]).succeeds().stdout;
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert!(first["deed"]["what"].as_str().unwrap().starts_with("up 2"), "{first}");
    assert!(first["deed"]["author"].as_str().unwrap().contains('@'), "{first}");
}

#[test]
fn a_command_line_has_a_name_of_the_projects_own() {
    let world = World::new(1, FILE);
    world.write("rdeploy.yaml", "aliases: {say: exec web echo 'good day', look: status}\n");
    world.rdeploy(["up"]).succeeds();
    assert_eq!(world.rdeploy(["say", "to", "you"]).succeeds().stdout, "good day to you\n");
    assert!(world.rdeploy(["--json", "look"]).succeeds().stdout.starts_with('{'));
    let unknown = world.rdeploy(["sya"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("did you mean \"say\"?"), "{}", unknown.stderr);
    world.write("rdeploy.yaml", "aliases: {loop: loop}\n");
    assert_eq!(world.rdeploy(["loop"]).code, 2);
    world.write("rdeploy.yaml", "aliases: {status: drift}\n");
    let taken = world.rdeploy(["status"]).fails();
    assert!(taken.stderr.contains("\"status\" is a command already"), "{}", taken.stderr);
}

#[test]
fn a_destination_is_a_project_of_its_own() {
    let world = World::new(1, FILE);
    world.write(".env", "STAGE=live\n");
    world.write(".env.staging", "STAGE=staging\n");
    world.write(
        "compose.staging.yaml",
        "services: {web: {environment: {STAGE: $STAGE}, healthcheck: {disable: true}}}\n",
    );
    world.write("rdeploy.yaml", "aliases: {stage: exec web sh -c 'echo nowhere'}\n");
    world.write("rdeploy.staging.yaml", "aliases: {stage: exec web sh -c 'echo $$STAGE'}\n");
    world.rdeploy(["up"]).succeeds();
    world.rdeploy(["-d", "staging", "up"]).succeeds();
    assert_eq!(world.rdeploy(["-d", "staging", "stage"]).succeeds().stdout, "staging\n");
    assert_eq!(world.rdeploy(["stage"]).succeeds().stdout, "nowhere\n");
    assert_eq!(world.names(0), ["p-db-1", "p-staging-db-1", "p-staging-web-1", "p-web-1"]);
    let unknown = world.rdeploy(["-d", "stagign", "up"]).fails();
    assert!(unknown.stderr.contains("did you mean \"staging\"?"), "{}", unknown.stderr);
    world.rdeploy(["-d", "staging", "uninstall"]).succeeds();
    assert_eq!(world.names(0), ["p-db-1", "p-web-1"]);
}
