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
fn the_owner_that_somebody_chose_for_a_volume_stays() {
    let world = World::new();
    let run = |flags: &[&str], script: &str| {
        let args = [&["run", "--rm", "--network", "none"][..], flags, &[BOX, "sh", "-c", script]].concat();
        world.rengine(args).succeeds().stdout
    };
    run(&["-v", "data:/made/here"], "chown 1000:1000 /made/here");
    assert_eq!(
        run(&["-v", "data:/made/here", "-u", "1000"], "touch /made/here/file && ls /made/here"),
        "file\n"
    );
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=uid=7"];
    world.rengine([&["volume", "create"][..], &options, &["memory"]].concat()).succeeds();
    assert_eq!(run(&["-v", "memory:/made/here"], "stat -c %u /made/here"), "7\n");
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

#[test]
fn data_travels_in_an_archive_by_way_of_a_second_container() {
    let world = World::new();
    let backup = world.path("backup");
    fs::create_dir(&backup).unwrap();
    let bind = format!("{}:/backup", backup.display());
    let tar = |from: &str, script: &str| {
        let flags = format!("--network none --volumes-from {from} -v {bind}");
        world.run(&flags, script).succeeds()
    };
    world.rengine(["create", "--name", "store", "-v", "/data", BOX, "true"]).succeeds();
    tar("store", "echo precious > /data/file; chown 1000:50 /data/file; chmod 640 /data/file");
    tar("store", "tar cf /backup/data.tar -C /data .");
    world.rengine(["rm", "-v", "store"]).succeeds();
    world.rengine(["volume", "ls", "-q"]).prints("");
    world.rengine(["create", "--name", "again", "-v", "/data", BOX, "true"]).succeeds();
    tar("again", "tar xf /backup/data.tar -C /data");
    tar("again", "cat /data/file; stat -c '%u:%g %a' /data/file").prints("precious\n1000:50 640\n");
}

#[test]
fn anonymous_volumes_go_with_their_container_when_asked_to() {
    let world = World::new();
    let volumes = || world.rengine(["volume", "ls", "-q"]).succeeds().stdout.lines().count();
    world.run("--network none -v /data -v kept:/kept", "true").succeeds();
    assert_eq!(volumes(), 1);
    for (name, flags) in [("one", &["-f"][..]), ("two", &["-f", "-v"])] {
        world.background(&format!("--network none --name {name} -v /data -v kept:/kept"), "sleep 1000");
        world.rengine(["rm"].iter().chain(flags).chain([&name])).succeeds();
        assert_eq!(volumes(), 2, "{name}");
    }
    // Named ones are only pruned when that is said.
    let pruned = world.rengine(["volume", "prune", "-f"]).succeeds().stdout;
    assert!(!pruned.contains("kept"), "{pruned}");
    world.rengine(["volume", "ls", "-q"]).prints("kept\n");
}

#[test]
fn volumes_are_listed_and_pruned_by_what_they_are() {
    let world = World::new();
    world.rengine(["volume", "create", "--label", "stage=test", "test-data"]).succeeds();
    world.rengine(["volume", "create", "--label", "stage=live", "--name", "live-data"]).succeeds();
    let list = |filter: &str| world.rengine(["volume", "ls", "-q", "--filter", filter]);
    list("label=stage=live").prints("live-data\n");
    list("name=test").prints("test-data\n");
    list("dangling=false").prints("");
    list("colour=blue").exits(1).complains("colour");
    let prune = |filter: &str| world.rengine(["volume", "prune", "-f", "-a", "--filter", filter]).succeeds();
    prune("label!=stage").shows("reclaimed");
    prune("label!=stage=live").shows("test-data");
    world.rengine(["volume", "ls", "-q"]).prints("live-data\n");
    let options = "{{.Name}} {{.Driver}} {{.Scope}} {{.Labels.stage}}";
    world.rengine(["volume", "inspect", "-f", options, "live-data"]).prints("live-data local local live\n");
}

#[test]
fn a_volume_in_memory_is_shared_while_it_is_used() {
    let world = World::new();
    let create =
        ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,noexec", "fast"];
    world.rengine(create).succeeds();
    world.background(
        "--network none --name one -v fast:/one",
        "echo shared > /one/file; echo ready; sleep 1000",
    );
    world.await_log("one", "ready");
    let script = "cat /two/file; stat -f -c %T /two; dd if=/dev/zero of=/two/x bs=1k count=2000 2>&1";
    world.run("--network none -v fast:/two", script).shows("shared\ntmpfs\n").shows("No space left");
    world.rengine(["exec", "one", "ls", "/one"]).succeeds().prints("file\nx\n");
    world.rengine(["rm", "-f", "one"]).succeeds();
    world.run("--network none -v fast:/two", "ls /two").succeeds().prints("");
}

#[test]
fn a_volume_of_another_kind_is_mounted_as_its_options_say() {
    let world = World::new();
    let create = |name: &str, options: &[&str]| {
        let options = options.iter().flat_map(|option| ["-o", option]);
        world.rengine(["volume", "create"].into_iter().chain(options).chain([name]))
    };
    create("wrong", &["size=1m"]).exits(1).complains("size");
    create("wrong", &["type=nfs", "o=addr=192.0.2.1"]).exits(1).complains("device");
    create("share", &["type=nfs", "o=addr=192.0.2.1,ro", "device=:/srv"]).succeeds();
    world.rengine(["volume", "inspect", "-f", "{{.Options.o}}", "share"]).prints("addr=192.0.2.1,ro\n");
    create("odd", &["type=nosuchfs", "device=thing"]).succeeds();
    let run = world.run("--network none -v odd:/data", "true");
    run.exits(125).complains("nosuchfs").complains("thing");
    let shared = world.path("shared");
    fs::create_dir(&shared).unwrap();
    create("bound", &["type=none", "o=bind", &format!("device={}", shared.display())]).succeeds();
    world.run("--network none -v bound:/data", "echo here > /data/file").succeeds();
    assert_eq!(fs::read_to_string(shared.join("file")).unwrap(), "here\n");
}

#[test]
fn a_part_of_a_volume_never_leads_out_of_it() {
    let world = World::new();
    let script = "mkdir -p /data/sub/deep; echo deep > /data/sub/deep/file; ln -s /etc /data/out; \
                  ln -s sub/deep /data/in; ln -s ../../../../etc /data/up";
    world.run("--network none -v things:/data", script).succeeds();
    let part = |subpath: &str| {
        let mount = format!("type=volume,src=things,dst=/part,volume-subpath={subpath}");
        world.rengine(["run", "--rm", "--network", "none", "--mount", &mount, BOX, "cat", "/part/file"])
    };
    part("sub/deep").succeeds().prints("deep\n");
    part("in").succeeds().prints("deep\n");
    for outside in ["out", "up", "../../..", "/etc"] {
        part(outside).exits(125).complains("leads out of its volume");
    }
    part("nosuch").exits(125).complains("nosuch");
}

#[test]
fn nothing_below_a_read_only_mount_can_be_written() {
    let world = World::new();
    let outer = world.path("outer");
    fs::create_dir_all(outer.join("inner")).unwrap();
    let rengine = env!("CARGO_BIN_EXE_rengine");
    let run = |options: &str| {
        let outer = outer.display();
        // A mount of the host below the one that is shared, in a mount namespace of the test's own.
        let script = format!(
            "mount -t tmpfs none {outer}/inner && touch {outer}/inner/file && exec {rengine} run --rm --network none \
             --mount type=bind,src={outer},dst=/shared{options} {BOX} sh -c 'ls /shared/inner; touch /shared/inner/x'"
        );
        let output = std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .env("RENGINE_ROOT", world.root().state())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(""), (true, "file\n".to_owned(), String::new()));
    let (succeeded, seen, complaint) = run(",readonly");
    assert!(!succeeded && complaint.contains("Read-only file system"), "{complaint}");
    assert_eq!(seen, "file\n");
    assert_eq!(run(",bind-recursive=disabled").1, "");
    assert_eq!(run(",readonly,bind-recursive=writable"), (true, "file\n".to_owned(), String::new()));
}
