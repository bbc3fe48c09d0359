//! A first lesson on containers, command by command, as a person with `alias docker=rengine` types it.

use std::fs;

use crate::world::{BOX, World, free_port};

#[test]
fn images_have_names_a_history_and_an_end() {
    let world = World::new();
    world.rengine(["images"]).succeeds().shows("REPOSITORY   TAG       IMAGE ID");
    world.rengine(["tag", BOX, "mybox:latest"]).succeeds();
    world.rengine(["image", "ls", "--format", "{{.Repository}}"]).succeeds().shows("mybox\n");
    world.rengine(["image", "inspect", "-f", "{{.Architecture}}", "mybox"]).succeeds();
    world.rengine(["history", "mybox"]).succeeds().shows("CREATED BY");
    world.rengine(["run", "-d", "--network", "none", "--name", "edited", BOX, "touch", "/test"]).succeeds();
    world.rengine(["wait", "edited"]).succeeds().prints("0\n");
    world.rengine(["commit", "-m", "Added a new file", "-a", "A Newbie", "edited", "test:0.1"]).succeeds();
    world
        .rengine(["run", "--rm", "--network", "none", "test:0.1", "ls", "/test"])
        .succeeds()
        .prints("/test\n");
    let archive = world.path("test.tar");
    world.rengine(["save", "-o", archive.to_str().unwrap(), "test:0.1"]).succeeds();
    world.rengine(["rm", "edited"]).succeeds();
    world.rengine(["rmi", "test:0.1"]).succeeds().shows("Untagged: test:0.1");
    world.rengine(["load", "-i", archive.to_str().unwrap()]).succeeds().shows("Loaded image: test:0.1");
    world.rengine(["image", "prune", "-f"]).succeeds().shows("Total reclaimed space:");
    world.rengine(["image", "rm", "mybox"]).succeeds().prints("Untagged: mybox:latest\n");
}

#[test]
fn containers_are_made_watched_and_taken_away() {
    let world = World::new();
    world.rengine(["create", "-it", "--network", "none", "--name", "made", BOX, "sh"]).succeeds();
    world.rengine(["start", "made"]).succeeds().prints("made\n");
    world.rengine(["ps"]).succeeds().shows("Up ").shows("made");
    let id = world.background(
        "--network none --name said",
        "echo hello world; trap 'exit 0' TERM; while :; do usleep 10000; done",
    );
    world.await_log(&id, "hello world");
    world.rengine(["pause", "said"]).succeeds();
    world
        .rengine(["ps", "--filter", "status=paused", "--format", "{{.Names}} {{.Status}}"])
        .succeeds()
        .shows("(Paused)");
    world.rengine(["unpause", "said"]).succeeds();
    world.rengine(["stop", "said"]).succeeds().prints("said\n");
    assert_eq!(world.inspect("said", "{{.State.ExitCode}}"), "0");
    world.rengine(["container", "prune", "-f"]).succeeds().shows("Deleted Containers:");
    world.rengine(["exec", "made", "echo", "inside"]).succeeds().prints("inside\n");
    world.rengine(["top", "made"]).succeeds().shows("PID").shows("sh");
    world.rengine(["stats", "--no-stream", "made"]).succeeds().shows("MEM USAGE / LIMIT");
    world.rengine(["rm", "made"]).exits(1).complains("running");
    world.rengine(["rm", "-f", "made"]).succeeds();
}

#[test]
fn files_ports_and_limits_of_a_running_one() {
    let world = World::new();
    let port = free_port();
    world.background(&format!("--name web -p 127.0.0.1:{port}:80"), "httpd -f -h /etc");
    world.rengine(["container", "port", "web"]).succeeds().prints(&format!("80/tcp -> 127.0.0.1:{port}\n"));
    let page = world.write("page", "a page");
    world.rengine(["cp", page.to_str().unwrap(), "web:/tmp/"]).succeeds();
    world.rengine(["container", "diff", "web"]).succeeds().prints("C /tmp\nA /tmp/page\n");
    world.rengine(["update", "web"]).exits(1).complains("nothing to update");
    world.rengine(["update", "--cpu-quota", "100000", "web"]).succeeds().prints("web\n");
    world.rengine(["update", "--cpu-period", "50000", "web"]).succeeds();
    let archive = world.path("web.tar");
    world.rengine(["export", "-o", archive.to_str().unwrap(), "web"]).succeeds();
    world.rengine(["import", archive.to_str().unwrap(), "test/web:v1.0"]).succeeds();
    world
        .rengine(["run", "--rm", "--network", "none", "test/web:v1.0", "cat", "/tmp/page"])
        .succeeds()
        .prints("a page");
    world
        .rengine(["container", "inspect", "-f", "{{.HostConfig.CpuQuota}} {{.HostConfig.CpuPeriod}}", "web"])
        .succeeds()
        .prints("100000 50000\n");
}

#[test]
fn data_outlives_its_containers_and_moves() {
    let world = World::new();
    world.rengine(["volume", "create", "-d", "local", "test"]).succeeds().prints("test\n");
    world.rengine(["volume", "inspect", "-f", "{{.Driver}}", "test"]).succeeds().prints("local\n");
    let source = world.write("webapp/page", "bound");
    let source = source.parent().unwrap().to_str().unwrap();
    let mount = format!("type=bind,source={source},destination=/opt/webapp");
    world
        .rengine(["run", "--rm", "--network", "none", "--mount", &mount, BOX, "cat", "/opt/webapp/page"])
        .succeeds()
        .prints("bound");
    let read_only = format!("{source}:/opt/webapp:ro");
    world
        .rengine(["run", "--rm", "--network", "none", "-v", &read_only, BOX, "touch", "/opt/webapp/x"])
        .exits(1);
    // A container whose only purpose is its volume, and a backup of that volume.
    world
        .rengine([
            "run",
            "--network",
            "none",
            "-v",
            "/dbdata",
            "--name",
            "dbdata",
            BOX,
            "sh",
            "-c",
            "echo kept >/dbdata/file",
        ])
        .succeeds();
    let backup = format!("{}:/backup", world.path("webapp").display());
    let tar = ["tar", "cf", "/backup/backup.tar", "-C", "/", "dbdata"];
    let worker = [
        "run",
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        "dbdata",
        "-v",
        &backup,
        "--name",
        "worker",
        BOX,
    ];
    world.rengine(worker.into_iter().chain(tar)).succeeds();
    assert!(fs::read(world.path("webapp/backup.tar")).unwrap().starts_with(b"dbdata/"));
    world.rengine(["run", "--network", "none", "-v", "/dbdata", "--name", "dbdata2", BOX, "true"]).succeeds();
    let restore = ["tar", "xf", "/backup/backup.tar", "-C", "/"];
    let worker = ["run", "--rm", "--network", "none", "--volumes-from", "dbdata2", "-v", &backup, BOX];
    world.rengine(worker.into_iter().chain(restore)).succeeds();
    let look = ["run", "--rm", "--network", "none", "--volumes-from", "dbdata2", BOX, "cat", "/dbdata/file"];
    world.rengine(look).succeeds().prints("kept\n");
    world.rengine(["rm", "-v", "dbdata", "dbdata2"]).succeeds();
    world.rengine(["volume", "ls", "-q"]).succeeds().prints("test\n");
}
