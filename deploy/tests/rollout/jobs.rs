//! Programs that do their work and end: migrations come before who needs them, once for each release.

use crate::serve::assert_one_change;
use crate::world::{World, get};

/// A page that is only served, and data that are only changed, where the migration of its version has been.
fn file(migration: &str) -> String {
    let serve = "grep -qx $$(cat /www/page) /data/log && exec httpd -f -p 80 -h /www";
    let needs = "depends_on: {migrate: {condition: service_completed_successfully}}";
    format!(
        "
services:
  migrate:
    build: .
    command: [sh, -c, '{migration}']
    volumes: ['data:/data']
  alone:
    build: .
    command: [sh, -c, 'cat /www/page >> /data/alone']
    volumes: ['data:/data']
  web:
    build: .
    command: [sh, -c, '{serve}']
    ports: ['80']
    volumes: ['data:/data:ro']
    stop_grace_period: 0s
    {needs}
  store:
    build: .
    command: [sh, -c, '{serve}']
    volumes: ['data:/data', 'more:/more']
    stop_grace_period: 0s
    {needs}
volumes: {{data: {{}}, more: {{}}}}
"
    )
}

const MIGRATE: &str = "sleep 0.3; cat /www/page >> /data/log";

const NAMES: [&str; 4] = ["p-alone-1", "p-migrate-1", "p-store-1", "p-web-1"];

fn read(world: &World, file: &str) -> String {
    world.rdeploy(["exec", "web", "cat", file]).succeeds().stdout
}

#[test]
fn a_migration_is_done_once_before_anybody_is_led_to_who_needs_it() {
    let world = World::new(1, &file(MIGRATE));
    world.rdeploy(["up"]).succeeds();
    let port = world.port(0, "web");
    assert_eq!(world.names(0), NAMES);
    world.rdeploy(["drift"]).succeeds();
    world.page("two");
    let plan = world.rdeploy(["plan"]).succeeds().stdout;
    assert!(plan.contains("prepare  service migrate: wait until completed"), "{plan}");
    let (up, pages) =
        world.clients(&[port], || world.rdeploy(["up", "--canary", "50%,100ms", "--drain", "0s"]));
    let up = up.succeeds();
    assert!(!up.stderr.contains("there is no canary") && !up.stderr.contains("next_"), "{}", up.stderr);
    let ready = up.stderr.lines().filter(|line| line.starts_with("Container p-web-1  Ready"));
    assert_eq!(ready.count(), 1, "{}", up.stderr);
    assert!(pages[0].iter().all(|page| page == "one" || page == "two"), "{:?}", pages[0]);
    assert_eq!(get(port).unwrap(), "two");
    world.rdeploy(["rollback", "--drain", "0s"]).succeeds();
    // Who goes back runs the migration of the release that is gone back to.
    assert_eq!(read(&world, "/data/log"), "one\ntwo\none\n");
    assert_eq!(read(&world, "/data/alone"), "one\ntwo\none\n");
    assert_eq!(world.names(0), NAMES);
    world.rdeploy(["drift"]).succeeds();
}

#[test]
fn a_migration_that_fails_leaves_the_old_release_and_shows_what_it_said() {
    let world = World::new(2, &file(MIGRATE));
    world.rdeploy(["up"]).succeeds();
    let ports = [world.port(0, "web"), world.port(1, "web")];
    world.page("two");
    world.write("compose.yaml", &file("sleep 0.3; echo no such column; exit 7"));
    let (up, pages) = world.clients(&ports, || world.rdeploy(["up"]));
    let up = up.fails();
    let said = [
        "service migrate: container p-migrate-1 ended with code 7",
        "| no such column",
        "called off: every host is as it was before",
    ];
    assert!(said.iter().all(|part| up.stderr.contains(part)), "{}", up.stderr);
    assert!(pages.iter().flatten().all(|page| page == "one"), "{pages:?}");
    for host in [0, 1] {
        assert_eq!(world.names(host), NAMES);
    }
    world.rdeploy(["drift"]).succeeds();
    // One that was done goes back as well, when somebody else fails while others take over.
    world.write(
        "compose.yaml",
        &file(MIGRATE).replace("'more:/more']", "'more:/more']\n    entrypoint: ['false']"),
    );
    let up = world.rdeploy(["up"]).fails();
    assert!(up.stderr.contains("container p-store-1 ended with code 1"), "{}", up.stderr);
    assert_eq!(world.names(1), NAMES);
    world.rdeploy(["drift"]).succeeds();
    world.write("compose.yaml", &file(MIGRATE));
    let (up, pages) = world.clients(&ports, || world.rdeploy(["up", "--drain", "0s"]));
    up.succeeds();
    pages.iter().for_each(|pages| assert_one_change(pages, "one", "two"));
}
