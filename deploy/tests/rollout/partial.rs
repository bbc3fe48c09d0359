//! A deployment of some services of a project.

use crate::world::{World, get};

/// Two services with images of their own, since each has a stage of its own.
fn file(more: &str) -> String {
    format!(
        "services:
  web: {{build: ., ports: ['80'], stop_grace_period: 0s{more}}}
  jobs: {{build: {{context: ., dockerfile: Dockerfile.jobs}}, stop_grace_period: 0s}}
"
    )
}

fn world(more: &str) -> World {
    let world = World::new(1, &file(more));
    world.write(
        "Dockerfile.jobs",
        "FROM scratch\nCOPY busybox /bin/busybox\nCMD [\"busybox\", \"sleep\", \"1000\"]\n",
    );
    world
}

#[test]
fn services_that_are_not_meant_stay_as_they_serve() {
    let world = world("");
    // The first time, one of two that are built.
    world.rdeploy(["up", "web"]).succeeds();
    assert_eq!(world.names(0), ["p-web-1"]);
    world.rdeploy(["drift"]).succeeds();
    world.rdeploy(["up"]).succeeds();
    assert_eq!(world.names(0), ["p-jobs-1", "p-web-1"]);
    let jobs = world.engine(0).container("p-jobs-1").unwrap().id().clone();

    // A machine that never built the other one, as a runner is that begins anew each time.
    world.rengine_here(["rmi", "-f", "p-jobs"]).succeeds();
    world.page("two");
    world.rdeploy(["up", "web"]).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "two");
    // What was built here meanwhile, and is not meant, does not go along.
    world.write(
        "Dockerfile.jobs",
        "FROM scratch\nCOPY busybox /bin/busybox\nCMD [\"busybox\", \"sleep\", \"999\"]\n",
    );
    world.rengine_here(["build", "-q", "-t", "p-jobs", "-f", "Dockerfile.jobs", "."]).succeeds();
    world.page("three");
    world.rdeploy(["up", "web"]).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "three");
    assert_eq!(*world.engine(0).container("p-jobs-1").unwrap().id(), jobs);
    let drift = world.rdeploy(["drift"]);
    assert_eq!(drift.code, 0, "{}", drift.stdout);
    world.rdeploy(["rollback"]).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "two");
}

#[test]
fn a_service_that_is_needed_and_was_never_built_is_named() {
    let world = world(", depends_on: [jobs]");
    let up = world.rdeploy(["up", "web"]).fails();
    assert!(up.stderr.contains("service jobs, which web needs, was never built"), "{}", up.stderr);
    assert!(up.stderr.contains("rdeploy up web jobs"), "{}", up.stderr);
    world.rdeploy(["up", "web", "jobs"]).succeeds();
    // It is there now, wherever it was built.
    world.rengine_here(["rmi", "-f", "p-jobs"]).succeeds();
    world.page("two");
    world.rdeploy(["up", "web"]).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "two");
}
