//! What outlives a container, and what it shares with the host.

use std::fs;

use crate::world::{BOX, World};

#[test]
fn a_named_volume_outlives_its_containers() {
    let world = World::new();
    world.run("--network none -v things:/data", "echo kept > /data/file").succeeds();
    world.run("--network none -v things:/data", "cat /data/file").succeeds().prints("kept\n");
    world.rengine(["volume", "ls", "-q"]).succeeds().prints("things\n");
    world.rengine(["volume", "rm", "things"]).succeeds();
    world.run("--network none -v things:/data", "ls /data").succeeds().prints("");
}

#[test]
fn a_new_volume_starts_with_what_the_image_has_there() {
    let world = World::new();
    let context = world.path("context");
    fs::create_dir(&context).unwrap();
    let dockerfile =
        "FROM box\nRUN mkdir /data && echo first > /data/file && chown -R guest /data && chmod 750 /data\n";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    world.rengine(["build", "-q", "-t", "filled", context.to_str().unwrap()]).succeeds();
    let show = "cat /data/file; stat -c '%U %a' /data";
    let run = |script| {
        world.rengine(["run", "--rm", "--network", "none", "-v", "v1:/data", "filled", "sh", "-c", script])
    };
    run(show).succeeds().prints("first\nguest 750\n");
    run("echo second > /data/file").succeeds();
    // Only an empty volume is filled.
    run(show).succeeds().prints("second\nguest 750\n");
}

#[test]
fn a_volume_in_use_stays() {
    let world = World::new();
    world.background("--network none --name it -v things:/data", "sleep 1000");
    world.rengine(["volume", "rm", "things"]).exits(1).complains("in use");
    world.rengine(["volume", "prune", "-f", "-a"]).succeeds();
    world.rengine(["volume", "ls", "-q"]).succeeds().prints("things\n");
    world.rengine(["rm", "-f", "it"]).succeeds();
    world.rengine(["volume", "prune", "-f", "-a"]).succeeds();
    world.rengine(["volume", "ls", "-q"]).succeeds().prints("");
}

#[test]
fn a_bind_mount_is_the_hosts_own_directory() {
    let world = World::new();
    let shared = world.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("from-host"), "host\n").unwrap();
    let bind = format!("{}:/shared", shared.display());
    world
        .rengine([
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            &bind,
            BOX,
            "sh",
            "-c",
            "cat /shared/from-host; echo box > /shared/from-box",
        ])
        .succeeds()
        .prints("host\n");
    assert_eq!(fs::read_to_string(shared.join("from-box")).unwrap(), "box\n");
    let read_only = format!("{bind}:ro");
    world.rengine(["run", "--rm", "--network", "none", "-v", &read_only, BOX, "touch", "/shared/x"]).fails();
}

#[test]
fn a_missing_source_is_made_by_v_and_refused_by_mount() {
    let world = World::new();
    let missing = world.path("missing");
    let mount = format!("type=bind,source={},target=/there", missing.display());
    world.rengine(["run", "--rm", "--network", "none", "--mount", &mount, BOX, "true"]).exits(125);
    let bind = format!("{}:/there", missing.display());
    world.rengine(["run", "--rm", "--network", "none", "-v", &bind, BOX, "true"]).succeeds();
    assert!(missing.is_dir());
}

#[test]
fn memory_is_a_file_system_with_a_size() {
    let world = World::new();
    world
        .run(
            "--network none --tmpfs /fast:size=1m",
            "stat -f -c %T /fast; dd if=/dev/zero of=/fast/x bs=1k count=2000 2>&1",
        )
        .shows("tmpfs")
        .shows("No space left");
}

#[test]
fn volumes_of_another_container_are_taken_over() {
    let world = World::new();
    world.background(
        "--network none --name it -v things:/data",
        "echo theirs > /data/file; echo ready; sleep 1000",
    );
    world.await_log("it", "ready");
    world.run("--network none --volumes-from it", "cat /data/file").succeeds().prints("theirs\n");
    world.run("--network none --volumes-from it:ro", "touch /data/file").fails();
}

#[test]
fn nothing_is_mounted_on_the_host() {
    let world = World::new();
    world.background("--network none --name it -v things:/data --tmpfs /fast", "echo ready; sleep 1000");
    world.await_log("it", "ready");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = world.root().state().to_str().unwrap();
    assert!(!mounts.contains(root), "{mounts}");
}
