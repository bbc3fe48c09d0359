//! What docker's client takes before and instead of a verb.

use crate::world::World;

#[test]
fn help_and_version_are_where_docker_has_them() {
    let world = World::empty();
    let version = format!("rengine {}\n", env!("CARGO_PKG_VERSION"));
    world.rengine(["-v"]).prints(&version);
    world.rengine(["--version"]).prints(&version);
    let run = world.rengine(["run", "--help"]).succeeds().stdout;
    world.rengine(["help", "run"]).prints(&run);
    world.rengine(["help", "container", "ls"]).shows("rengine container ls [OPTIONS]");
    world.rengine(["help", "nosuch"]).exits(1).complains("nosuch");
}

#[test]
fn a_daemon_is_refused_by_name() {
    let world = World::empty();
    for flags in [["-H", "tcp://other:2375"], ["--context", "other"], ["--tlscacert", "ca.pem"]] {
        world.rengine(flags.into_iter().chain(["ps"])).exits(1).complains("there is no daemon");
    }
    world.rengine(["--context", "default", "ps"]).succeeds();
    let ps = |host: &str| crate::world::Running::start(world.command(["ps"]).env("DOCKER_HOST", host)).ends();
    ps("ssh://other").succeeds().complains("DOCKER_HOST=ssh://other has no effect");
    assert_eq!(ps("unix:///run/docker.sock").succeeds().stderr, "");
}

#[test]
fn verbs_of_a_swarm_say_what_there_is_instead() {
    let world = World::empty();
    world.rengine(["stack", "deploy", "-c", "x.yaml", "x"]).exits(1).complains("rcompose up");
    world.rengine(["context", "ls"]).exits(1).complains("rdeploy");
    world.rengine(["rn"]).exits(1).complains("rename");
}

#[test]
fn what_is_logged_is_asked_for() {
    let world = World::empty();
    assert_eq!(world.rengine(["ps"]).succeeds().stderr, "");
    assert_eq!(world.rengine(["--log-level", "fatal", "ps"]).succeeds().stderr, "");
    world.rengine(["--log-level", "nosuch", "ps"]).exits(125).complains("possible values");
}
