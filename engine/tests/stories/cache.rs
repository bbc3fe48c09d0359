//! Build caches that go from one machine to another.

use std::process::Command;

use crate::registry::Registry;
use crate::world::{Outcome, Running, World};

/// Two runs of the same command would write two different numbers.
pub(crate) const DOCKERFILE: &str = "\
FROM box AS first
RUN cat /proc/sys/kernel/random/uuid > /first
FROM box
COPY --from=first /first /first
RUN cat /proc/sys/kernel/random/uuid > /second
CMD [\"cat\", \"/first\", \"/second\"]
";

/// The same in one stage.
const ALONE: &str = "FROM box\nRUN cat /proc/sys/kernel/random/uuid > /first\nCMD [\"cat\", \"/first\"]\n";

fn build(world: &World, flags: &[&str]) -> Outcome {
    build_of(world, DOCKERFILE, flags)
}

fn build_of(world: &World, dockerfile: &str, flags: &[&str]) -> Outcome {
    Running::start(&mut command(world, dockerfile, flags)).ends()
}

/// Builds `built` from a Dockerfile.
pub(crate) fn command(world: &World, dockerfile: &str, flags: &[&str]) -> Command {
    world.write("context/Dockerfile", dockerfile);
    let context = world.path("context");
    let mut args = vec!["build", "--progress", "plain", "-t", "built"];
    args.extend(flags);
    args.push(context.to_str().unwrap());
    world.command(args)
}

fn printed(world: &World) -> String {
    world.rengine(["run", "--rm", "--network", "none", "built"]).succeeds().stdout
}

#[test]
fn a_directory_brings_a_build_to_another_machine() {
    let (here, there) = (World::new(), World::new());
    let cache = here.path("cache");
    let (to, from) = (
        format!("type=local,dest={},mode=max", cache.display()),
        format!("type=local,src={}", cache.display()),
    );
    build(&here, &["--cache-to", &to]).succeeds().complains("exporting cache");
    build(&there, &["--cache-from", &from]).succeeds();
    assert_eq!(printed(&there), printed(&here));
    here.rengine(["images", "--format", "{{.Repository}}"]).succeeds().prints("built\nbox\n");
    // A byte that is another one is not taken, and the step is run.
    let other = World::new();
    for blob in std::fs::read_dir(cache.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes[0] != b'{' {
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    }
    build(&other, &["--cache-from", &from]).succeeds();
    assert_ne!(printed(&other), printed(&here));
    // A cache that is not there is no reason not to build.
    build(&other, &["--cache-from", "type=local,src=/nowhere"])
        .succeeds()
        .complains("importing cache manifest");
    build(&other, &["--cache-to", "type=s3"]).fails().complains("s3 are not supported");
}

#[test]
fn a_registry_brings_a_build_to_another_machine() {
    let here = World::new();
    let registry = Registry::start();
    let image = format!("{}/app:1", registry.address());
    let cache = format!("type=registry,ref={}/app:cache", registry.address());
    let all = format!("type=registry,ref={}/app:all,mode=max", registry.address());
    build_of(&here, ALONE, &["--cache-to", &cache, "--cache-to", "type=inline"]).succeeds();
    here.rengine(["tag", "built", &image]).succeeds();
    here.rengine(["push", "-q", &image]).succeeds();
    let made = printed(&here);
    // From a cache of its own, and from the image that has it in itself.
    for from in [&cache, &image] {
        let there = World::new();
        build_of(&there, ALONE, &["--cache-from", from]).succeeds();
        assert_eq!(printed(&there), made, "{from}");
    }
    build(&here, &["--cache-to", &all]).succeeds();
    let there = World::new();
    build(&there, &["--cache-from", all.trim_end_matches(",mode=max")]).succeeds();
    assert_eq!(printed(&there), printed(&here));
}

/// Two stages with the same step, which waits until somebody opens the gate.
const TWICE: &str = "\
FROM box AS a
RUN --mount=type=cache,target=/c until [ -e /c/go ]; do usleep 10000; done; echo ran >>/c/runs; echo made >/made
FROM box AS b
RUN --mount=type=cache,target=/c until [ -e /c/go ]; do usleep 10000; done; echo ran >>/c/runs; echo made >/made
FROM box
COPY --from=a /made /a
COPY --from=b /made /b
";

#[test]
fn what_is_being_made_already_is_waited_for() {
    let world = World::new();
    world.write("context/Dockerfile", TWICE);
    let context = world.path("context");
    let mut builds =
        [(); 2].map(|()| world.spawn(["build", "--progress", "plain", context.to_str().unwrap()]));
    for build in &mut builds {
        build.await_line("[b 2/2] RUN");
    }
    let build = |dockerfile| {
        world.write("other/Dockerfile", dockerfile);
        world.rengine(["build", "-t", "built", world.path("other").to_str().unwrap()]).succeeds();
    };
    build("FROM box\nRUN --mount=type=cache,target=/c touch /c/go\n");
    for build in builds {
        build.ends().succeeds();
    }
    // Two stages of two builds.
    build("FROM box\nRUN --mount=type=cache,target=/c cat /c/runs >/runs\n");
    world.rengine(["run", "--rm", "--network", "none", "built", "cat", "/runs"]).succeeds().prints("ran\n");
}
