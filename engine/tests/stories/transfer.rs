//! Pull and push, and what they tell.

use crate::registry::Registry;
use crate::world::{BOX, World};

#[test]
fn what_is_told_of_a_transfer_is_data() {
    let world = World::new();
    let registry = Registry::start();
    let name = format!("{}/app", registry.address());
    world.rengine(["tag", BOX, &name]).succeeds();
    let pushed = world.rengine(["push", &name]).succeeds();
    pushed.shows(&format!("Using default tag: latest\nThe push refers to repository [{name}]\n"));
    world.rengine(["push", &name]).succeeds().shows(": Layer already exists\nlatest: digest: sha256:");
    world.rengine(["rmi", &name, BOX]).succeeds();
    let pulled = world.rengine(["pull", &name]).succeeds();
    let pulled =
        pulled.shows("Using default tag: latest\nlatest: Pulling from app\n").shows("\nDigest: sha256:");
    pulled.shows(&format!("\nStatus: Downloaded newer image for {name}:latest\n{name}:latest\n"));
    let again = world.rengine(["pull", &format!("{name}:latest")]).succeeds();
    assert!(again.stdout.starts_with("latest: Pulling from app\n"), "{}", again.stdout);
    again.shows(&format!("\nStatus: Image is up to date for {name}:latest\n"));
    world.rengine(["pull", "-q", &name]).succeeds().prints(&format!("{name}:latest\n"));
    // The output of `run` is the program's alone.
    world.rengine(["rmi", &name]).succeeds();
    let ran = world.rengine(["run", "--rm", "--network", "none", &name, "echo", "here"]).succeeds();
    ran.prints("here\n").complains("Status: Downloaded newer image");
}

#[test]
fn a_name_that_cannot_be_meant_is_refused() {
    let world = World::new();
    let registry = Registry::start();
    let name = format!("{}/app", registry.address());
    let tagged = format!("{name}:1");
    world.rengine(["tag", BOX, &tagged]).succeeds();
    for verb in ["pull", "push"] {
        world.rengine([verb, "-a", &tagged]).exits(1).complains("tag can't be used with --all-tags/-a");
    }
    world.rengine(["push", "-a", &name]).succeeds().shows("1: digest: sha256:");
    let missing = world.rengine(["pull", &format!("{name}:2")]).exits(1);
    missing.complains(&format!("{name}:2 is not in the registry: manifest unknown"));
    world.rengine(["pull", "scratch"]).exits(1).complains("'scratch' is a reserved name");
    world.rengine(["search", "--limit", "101", "x"]).exits(1).complains("range of 1 to 100");
    world.rengine(["search", "--filter", "colour=red", "x"]).exits(1).complains("colour=red");
}
