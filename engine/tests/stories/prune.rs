//! `system prune`, and options that are refused by name.

use crate::world::{BOX, World};

#[test]
fn only_what_matches_and_is_used_by_nothing_is_pruned() {
    let world = World::new();
    for stage in ["test", "live"] {
        let label = format!("stage={stage}");
        world
            .rengine(["create", "--network", "none", "--label", &label, "--name", stage, BOX, "true"])
            .succeeds();
        world.rengine(["network", "create", "--label", &label, stage]).succeeds();
    }
    world.rengine(["system", "prune", "-f", "--filter", "until=1h"]).succeeds().shows("reclaimed space: 0B");
    let names = || world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().stdout;
    assert_eq!(names().lines().count(), 2);
    let pruned = world.rengine(["system", "prune", "-f", "--filter", "label=stage=test"]).succeeds();
    pruned.shows("Deleted: container test\n").shows("Deleted: network test\n");
    assert_eq!(names(), "live\n");
    world.rengine(["network", "ls", "--filter", "label=stage", "--format", "{{.Name}}"]).prints("live\n");
    world.rengine(["system", "prune", "-f", "--filter", "label!=stage=live"]).succeeds();
    assert_eq!(names(), "live\n");
    world.rengine(["system", "prune", "-f", "--volumes", "--filter", "until=1h"]).exits(1).complains("until");
    world.rengine(["system", "prune", "-f", "--filter", "until=soon"]).exits(1).complains("until=soon");
    world.rengine(["system", "prune", "-f"]).succeeds();
    assert_eq!(names(), "");
    // As docker: whoever wants it gone by force has what they wanted.
    world.rengine(["rm", "-f", "live"]).succeeds().complains("no such container: live");
    world.rengine(["rm", "live"]).exits(1).complains("no such container: live");
}

#[test]
fn what_the_builder_keeps_is_pruned_too() {
    let world = World::new();
    let context = world.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {BOX}\nRUN echo built >/built\n")).unwrap();
    world.rengine(["build", "-q", "-t", "one", context.to_str().unwrap()]).succeeds();
    let kept = || world.rengine(["builder", "du", "--format", "{{.ID}}"]).succeeds().stdout;
    assert_ne!(kept(), "");
    let notes = || std::fs::read_dir(world.path("root/build/last")).unwrap().count();
    assert_ne!(notes(), 0);
    world.rengine(["builder", "prune", "-f", "--filter", "until=1h"]).succeeds();
    assert_ne!(notes(), 0);
    world.rengine(["system", "prune", "-f", "--filter", "label=x"]).succeeds();
    assert_ne!(kept(), "", "what has no labels was taken for labelled");
    world.rengine(["system", "prune", "-f"]).succeeds();
    assert_eq!(kept(), "");
    assert_eq!(notes(), 0);
    world.rengine(["run", "--rm", "--network", "none", "one", "cat", "/built"]).prints("built\n");
}

#[test]
fn what_only_a_swarm_or_docker_s_past_knows_is_refused_by_name() {
    let world = World::new();
    for (command, flag) in [
        ("network create --scope swarm lan", "--scope"),
        ("network create --ingress lan", "--ingress"),
        ("network create --config-only lan", "--config-only"),
        ("network create --ipam-opt a=b lan", "--ipam-opt"),
        ("network connect --link other bridge it", "--link"),
        ("volume create --type block data", "--type"),
        ("volume create --limit-bytes 1G data", "--limit-bytes"),
        ("rm --link it", "--link"),
        ("start --checkpoint before it", "--checkpoint"),
    ] {
        let refused = world.rengine(command.split(' ')).exits(1);
        refused.complains(&format!("{flag} is not supported"));
    }
    world.rengine(["network", "ls", "-q", "--filter", "name=lan"]).prints("");
    world.rengine(["network", "create", "--scope", "local", "--ipv4", "lan"]).succeeds();
    world.rengine(["network", "inspect", "--verbose", "-f", "{{.Scope}}", "lan"]).prints("local\n");
    world.rengine(["network", "create", "--ipv4=false", "--ipv6", "six"]).succeeds();
    let families = "{{.EnableIPv4}} {{.EnableIPv6}}";
    world.rengine(["network", "inspect", "-f", families, "six"]).prints("false true\n");
}
