//! Images: built, pulled, pushed, loaded and pruned, and killed on the way. A hundred points in all.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::id::Digest;

use super::{Interrupted, names_in};
use crate::registry::Registry;
use crate::world::World;

/// The image that everything here is about: a copy, two commands, a cache mount, a secret, and something taken away.
const DOCKERFILE: &str = "\
FROM box
COPY tree /tree
RUN --mount=type=cache,target=/kept --mount=type=secret,id=word,required \\
    echo kept > /kept/file && cat /tree/number > /made
WORKDIR /work
RUN rm -r /tree/below && echo more > more
CMD [\"sh\", \"-c\", \"cat /made /work/more; ls /tree\"]
";

/// Writes the context, with this in a file of it.
fn context(world: &World, number: u32) -> PathBuf {
    world.write("context/Dockerfile", DOCKERFILE);
    world.write("context/tree/below/file", "is taken away");
    world.write("context/tree/number", &format!("{number}\n"));
    world.path("context")
}

/// What `--secret` says of a secret that is in a file.
fn secret(world: &World) -> String {
    format!("id=word,src={}", world.write("word", "quiet").display())
}

fn build<'a>(name: &'a str, secret: &'a str, context: &'a str) -> [&'a str; 7] {
    ["build", "-q", "--secret", secret, "-t", name, context]
}

fn built(world: &World, number: u32, name: &str) {
    let context = context(world, number);
    world.rengine(build(name, &secret(world), context.to_str().unwrap())).succeeds();
}

/// Takes everything away but `box`.
fn emptied(world: &World, name: &str) {
    world.rengine(["rmi", "-f", name]);
    world.rengine(["builder", "prune", "-a", "-f"]).succeeds();
    world.rengine(["image", "prune", "-f"]).succeeds();
}

/// The image runs, and all that is kept of it and others is what its name says.
fn works(world: &World, name: &str, number: u32) {
    let expected = format!("{number}\nmore\nnumber\n");
    world.rengine(["run", "--rm", "--network", "none", name]).succeeds().prints(&expected);
    is_whole(world);
}

/// Every blob has its digest, every record can be read, and every layer's files are as its digest says.
fn is_whole(world: &World) {
    let blobs = world.root().content().join("blobs/sha256");
    for name in names_in(&blobs) {
        assert_eq!(Digest::of(&fs::read(blobs.join(&name)).unwrap()).hex(), name);
    }
    let records = names_in(&world.root().images()).into_iter().map(|name| world.root().images().join(name));
    let layers = names_in(&world.root().layers()).into_iter().filter(|name| name != "lock");
    let layers = layers.map(|name| world.root().layers().join(name).join("layer.json"));
    for record in records.filter(|path| path.extension().is_some_and(|ending| ending == "json")).chain(layers)
    {
        let text = fs::read(&record).unwrap();
        let read = serde_json::from_slice::<serde_json::Value>(&text);
        assert!(read.is_ok(), "{} is no record: {read:?}", record.display());
    }
    world.rengine(["system", "check", "--verify"]).succeeds().prints("nothing was left behind\n");
}

#[test]
fn while_an_image_is_built() {
    let world = World::new();
    let (context, secret) = (context(&world, 1), secret(&world));
    let command = build("app", &secret, context.to_str().unwrap());
    let prepare = |world: &World| emptied(world, "app");
    let next = |world: &World| {
        built(world, 1, "app");
        works(world, "app", 1);
    };
    Interrupted { world, prepare: &prepare, command: &command, next: &next }.anything_at(40);
}

#[test]
fn while_an_image_is_pulled() {
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.address());
    let world = World::new();
    built(&world, 1, &name);
    world.rengine(["push", "-q", &name]).succeeds();
    let prepare = |world: &World| emptied(world, &name);
    let next = |world: &World| {
        world.rengine(["pull", "-q", &name]).succeeds();
        works(world, &name, 1);
    };
    let command = ["pull", "-q", &name];
    Interrupted { world, prepare: &prepare, command: &command, next: &next }.anything_at(20);
}

#[test]
fn while_an_image_is_pushed() {
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.address());
    let turn = AtomicU32::new(0);
    // Each time another image, so that the registry has nothing of it.
    let prepare = |world: &World| {
        emptied(world, &name);
        built(world, 1 + turn.fetch_add(1, Ordering::Relaxed), &name);
    };
    let next = |world: &World| {
        world.rengine(["push", "-q", &name]).succeeds();
        emptied(world, &name);
        world.rengine(["pull", "-q", &name]).succeeds();
        works(world, &name, turn.load(Ordering::Relaxed));
    };
    let command = ["push", "-q", &name];
    Interrupted { world: World::new(), prepare: &prepare, command: &command, next: &next }.anything_at(16);
}

/// An archive of the image.
fn archived(world: &World) -> String {
    built(world, 1, "app");
    let archive = world.path("app.tar").to_str().unwrap().to_owned();
    world.rengine(["save", "-o", &archive, "app"]).succeeds();
    archive
}

#[test]
fn while_an_image_is_loaded() {
    let world = World::new();
    let archive = archived(&world);
    let prepare = |world: &World| emptied(world, "app");
    let next = |world: &World| {
        world.rengine(["load", "-q", "-i", &archive]).succeeds();
        works(world, "app", 1);
    };
    let command = ["load", "-q", "-i", &archive];
    Interrupted { world, prepare: &prepare, command: &command, next: &next }.anything_at(16);
}

#[test]
fn while_images_are_pruned() {
    let world = World::new();
    let archive = archived(&world);
    let load = |world: &World| drop(world.rengine(["load", "-q", "-i", &archive]).succeeds());
    let next = |world: &World| {
        is_whole(world);
        world.rengine(["image", "prune", "-a", "-f"]).succeeds();
        world.rengine(["images", "-q"]).succeeds().prints("");
        load(world);
        works(world, "app", 1);
    };
    let command = ["image", "prune", "-a", "-f"];
    Interrupted { world, prepare: &load, command: &command, next: &next }.anything_at(12);
}

#[test]
fn while_the_build_cache_is_pruned() {
    let prepare = |world: &World| built(world, 1, "app");
    let next = |world: &World| {
        works(world, "app", 1);
        built(world, 1, "app");
        works(world, "app", 1);
    };
    let command = ["builder", "prune", "-a", "-f"];
    Interrupted { world: World::new(), prepare: &prepare, command: &command, next: &next }.anything_at(10);
}
