//! Disks that are full or cannot be written, records that make no sense, and things that have run out.

use std::fs;
use std::path::Path;
use std::process::Command;

use engine::container::cgroup::Cgroup;

use crate::world::{BOX, Running, World, free_port};

/// The container has two companions, and this file of it is overwritten with something that is no record.
fn damaged(file: &str) -> (World, String) {
    let world = World::new();
    let id = world.background("--name it -p 80", "exec sleep 1000");
    world.background("--name other", "exec sleep 1000");
    fs::write(world.root().containers().join(&id).join(file), "{\"version\":1,\"na").unwrap();
    (world, id)
}

fn is_alone_with_it(world: &World, id: &str) {
    let short = &id[..12];
    let complaint = format!("container {short} is damaged");
    world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().prints("other\n").complains(&complaint);
    world.run("", "true").succeeds();
    world.rengine(["exec", "other", "true"]).succeeds();
    world.rengine(["inspect", "it"]).fails();
    world.rengine(["rm", "it"]).exits(1);
    let checked = world.rengine(["system", "check"]).exits(1).complains(&complaint);
    assert_eq!(checked.stdout, "");
    world.rengine(["rm", "-f", "it"]).succeeds();
    world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().prints("other\n");
    world.rengine(["system", "check"]).succeeds().prints("nothing was left behind\n");
    assert_eq!(Cgroup::list(world.root()).unwrap().len(), 1);
    world.rengine(["run", "-d", "--name", "it", BOX, "true"]).succeeds();
}

#[test]
fn a_container_with_a_damaged_record_is_alone_with_it() {
    let (world, id) = damaged("config.json");
    is_alone_with_it(&world, &id);
}

#[test]
fn a_container_with_a_damaged_state_is_alone_with_it() {
    let (world, id) = damaged("state.json");
    is_alone_with_it(&world, &id);
}

#[test]
fn what_a_power_cut_leaves_of_a_container_that_removes_itself_is_swept_away() {
    let world = World::new();
    let id = world.rengine(["create", "--rm", "--name", "it", BOX, "true"]).succeeds().stdout;
    fs::write(world.root().containers().join(id.trim()).join("config.json"), "").unwrap();
    world.rengine(["ps", "-aq"]).succeeds().prints("");
    let checked = world.rengine(["system", "check"]).succeeds();
    checked.shows("removed what was left of container").shows("freed the name it");
    world.rengine(["run", "--rm", "--name", "it", BOX, "true"]).succeeds();
    world.rengine(["system", "check"]).succeeds().prints("nothing was left behind\n");
}

#[test]
fn a_run_directory_that_was_removed_ends_its_containers_and_no_more() {
    let world = World::new();
    let port = free_port();
    world.background(&format!("--name it -p {port}:80"), "exec sleep 1000");
    world.background("--name again --network none --restart always", "exec sleep 1000");
    fs::remove_dir_all(world.root().run()).unwrap();
    world.rengine(["ps", "-a"]).succeeds();
    assert_eq!(world.inspect("it", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    assert_eq!(world.inspect("again", "{{.State.Status}}"), "running");
    world.rengine(["system", "check"]).succeeds();
    world.rengine(["start", "it"]).succeeds();
    world.rengine(["rm", "-f", "it", "again"]).succeeds();
    world.rengine(["system", "check"]).succeeds().prints("nothing was left behind\n");
}

#[test]
fn times_that_are_yet_to_come_are_shown_all_the_same() {
    let world = World::new();
    let id = world.background("--network none --name it", "exec sleep 1000");
    let config = world.root().containers().join(id).join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let (head, tail) = text.split_once("\"created\":\"20").unwrap();
    fs::write(&config, format!("{head}\"created\":\"21{}", tail)).unwrap();
    world.rengine(["ps", "--format", "{{.Names}} {{.RunningFor}}"]).succeeds().shows("it ");
    world.rengine(["stop", "-t", "0", "it"]).succeeds();
}

/// A tmpfs of this many megabytes under an engine's root, gone with the value.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn under(world: &'a World, megabytes: u32) -> Self {
        let root = world.root().state();
        fs::create_dir_all(root).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "small", root.to_str().unwrap()]);
        Self(root)
    }

    /// Leaves no room at all, until the file is removed.
    fn fill(&self) {
        let filler = self.0.join("filler");
        let status = Command::new("dd")
            .args(["if=/dev/zero", &format!("of={}", filler.display()), "bs=4k"])
            .stderr(std::process::Stdio::null())
            .status();
        assert!(!status.unwrap().success(), "the disk is full");
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // The world is taken down first when a test fails; whatever still holds the disk loses it later.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

#[test]
fn a_full_disk_is_named_and_containers_outlive_it() {
    let world = World::empty();
    let disk = SmallDisk::under(&world, 24);
    world.import_box();
    world.background("--network none --name it", "while read line; do echo $line; done; exec sleep 1000");
    world.background("--network none --name spare", "exec sleep 1000");
    disk.fill();
    let full = "No space left on device";
    world.rengine(["create", "--name", "new", "-v", "/data", BOX, "true"]).exits(1).complains(full);
    world.rengine(["network", "create", "lan"]).exits(1).complains(full);
    world.rengine(["volume", "create", "things"]).exits(1).complains(full);
    world.rengine(["ps", "--format", "{{.Names}}"]).succeeds().shows("it").shows("spare");
    world.rengine(["exec", "it", "true"]).succeeds();
    world.rengine(["stop", "-t", "0", "it"]).succeeds();
    world.rengine(["ps", "-a"]).succeeds();
    // Removing is what makes room.
    world.rengine(["rm", "-f", "spare"]).succeeds();
    disk.make_room();
    world.rengine(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).succeeds().prints("it exited\n");
    world.rengine(["system", "check"]).succeeds().prints("nothing was left behind\n");
    world.rengine(["start", "it"]).succeeds();
    world.rengine(["rm", "-f", "it"]).succeeds();
    assert_eq!(fs::read_dir(world.root().container_names()).unwrap().count(), 1);
}

#[test]
fn a_disk_that_cannot_be_written_is_named() {
    let world = World::empty();
    let disk = SmallDisk::under(&world, 24);
    world.import_box();
    world.rengine(["create", "--network", "none", "--name", "it", BOX, "sleep", "1000"]).succeeds();
    let root = disk.0.to_str().unwrap();
    run("mount", &["-o", "remount,ro", root]);
    let refused = "Read-only file system";
    world.rengine(["create", BOX, "true"]).exits(1).complains(refused);
    world.rengine(["network", "create", "lan"]).exits(1).complains(refused);
    world.rengine(["volume", "create", "things"]).exits(1).complains(refused);
    world.rengine(["rename", "it", "that"]).exits(1).complains(refused);
    world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().prints("it\n");
    world.rengine(["inspect", "it"]).succeeds();
    world.rengine(["start", "it"]).exits(1).complains(refused);
    run("mount", &["-o", "remount,rw", root]);
    world.rengine(["rm", "-f", "it"]).succeeds();
    world.rengine(["system", "check"]).succeeds().prints("nothing was left behind\n");
}

#[test]
fn a_network_without_a_free_address_says_so() {
    let world = World::new();
    world.rengine(["network", "create", "--subnet", "10.213.77.0/30", "tiny"]).succeeds();
    world.background("--network tiny --name it", "exec sleep 1000");
    let refused =
        world.rengine(["run", "--rm", "--network", "tiny", "--name", "two", BOX, "true"]).exits(125);
    refused.complains("no address is left in the subnet 10.213.77.0/30 of the network tiny");
    world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().prints("it\n");
    world.rengine(["rm", "-f", "it"]).succeeds();
    world.run("--network tiny", "true").succeeds();
    world.rengine(["system", "check"]).succeeds().prints("nothing was left behind\n");
}

#[test]
fn without_a_free_process_a_start_says_so_and_leaves_nothing() {
    let world = World::new();
    let group = Path::new("/sys/fs/cgroup/pids").join(format!("{}-test", world.root().tag()));
    if !group.parent().unwrap().join("cgroup.procs").exists() {
        // Here the controller is part of the unified hierarchy, whose root cannot limit a part of itself by hand.
        return;
    }
    fs::create_dir(&group).unwrap();
    let mut refusals = 0;
    for most in 1..=4 {
        fs::write(group.join("pids.max"), most.to_string()).unwrap();
        let script = format!("echo $$ > {}/cgroup.procs; exec \"$0\" run --rm box true", group.display());
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_rengine")])
            .env("RENGINE_ROOT", world.root().state());
        let outcome = Running::start(&mut command).ends();
        if !outcome.is_success() {
            outcome.exits(125).complains("Resource temporarily unavailable");
            refusals += 1;
        }
        world.await_monitors_end();
        world.rengine(["ps", "-aq"]).succeeds().prints("");
        assert_eq!(Cgroup::list(world.root()).unwrap(), []);
    }
    fs::remove_dir(&group).unwrap();
    assert!(refusals > 0);
    world.run("", "true").succeeds();
}

#[test]
fn a_byte_that_the_disk_lost_is_found_when_asked_for() {
    let world = World::new();
    let context = world.path("context");
    world.write("context/Dockerfile", "FROM box\nCOPY file /file\n");
    world.write("context/file", "as it was");
    world.rengine(["build", "-q", "-t", "app", context.to_str().unwrap()]).succeeds();
    world.rengine(["system", "check", "--verify"]).succeeds().prints("nothing was left behind\n");
    let short = &world.inspect("app", "{{.Id}}")["sha256:".len()..][..12];
    let layer = world.inspect("app", "{{index .RootFS.Layers 1}}");
    let file = world.root().layers().join(layer.trim_start_matches("sha256:")).join("fs/file");
    fs::write(&file, "as it is.").unwrap();
    let checked = world.rengine(["system", "check", "--verify"]).exits(1);
    checked.complains(&format!("/file is not as it was made; remove the images that have it, and pull or build them again: rengine rmi -f {short}\n"));
    // Without being asked nobody reads all of it.
    world.rengine(["system", "check"]).succeeds();
    fs::write(&file, "as it was").unwrap();
    world.rengine(["system", "check", "--verify"]).succeeds();
    let archive = world.path("app.tar");
    world.rengine(["save", "-o", archive.to_str().unwrap(), "app"]).succeeds();
    let other = World::empty();
    other.rengine(["load", "-i", archive.to_str().unwrap()]).succeeds();
    other.rengine(["system", "check", "--verify"]).succeeds();
    let blob = other.root().content().join("blobs/sha256").join(layer.trim_start_matches("sha256:"));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[600] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    other.rengine(["system", "check", "--verify"]).exits(1).complains("has another content").complains(short);
}

#[test]
fn an_image_that_cannot_be_read_is_alone_with_it() {
    let world = World::new();
    let id = |name: &str| world.inspect(name, "{{.Id}}").trim_start_matches("sha256:").to_owned();
    let blob = |id: &str| world.root().content().join("blobs/sha256").join(id);
    let record = |id: &str| world.root().images().join(format!("{id}.json"));
    let kept = world.path("kept");
    let cut = ("cut", &record as &dyn Fn(&str) -> _);
    for (kind, path) in [("empty", &blob as _), ("cut", &blob as _), cut, ("empty", &record as _)] {
        world.write("context/Dockerfile", "FROM box\nRUN echo broken > /broken\n");
        let context = world.path("context");
        world.rengine(["build", "-q", "-t", "broken", context.to_str().unwrap()]).succeeds();
        world.rengine(["create", "--name", "it", "broken", "true"]).succeeds();
        let broken = id("broken");
        fs::copy(path(&broken), &kept).unwrap();
        let left = if kind == "empty" { "" } else { "{\"architecture\":\"am" };
        fs::write(path(&broken), left).unwrap();
        let complaint = format!("image {} (broken:latest) is damaged", &broken[..12]);
        let listed = world.rengine(["images", "--format", "{{.Repository}}"]).succeeds();
        listed.prints("box\n").complains(&complaint).complains("rengine system check");
        world.rengine(["system", "df"]).succeeds().complains(&complaint);
        world.rengine(["image", "prune", "-f"]).succeeds().complains(&complaint);
        world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().prints("it\n");
        world.rengine(["ps", "-aq", "--filter", "ancestor=broken"]).succeeds();
        world.rengine(["system", "check"]).exits(1).complains(&complaint);
        world.run("--network none", "true").succeeds();
        // Nothing of it is taken for garbage meanwhile.
        fs::copy(&kept, path(&broken)).unwrap();
        world.rengine(["rm", "it"]).succeeds();
        world
            .rengine(["run", "--rm", "--network", "none", "broken", "cat", "/broken"])
            .succeeds()
            .prints("broken\n");
        fs::write(path(&broken), left).unwrap();
        world.rengine(["rmi", "-f", &broken[..12]]).succeeds();
        world.rengine(["images", "--format", "{{.Repository}}"]).succeeds().prints("box\n");
        world.rengine(["builder", "prune", "-af"]).succeeds();
        world.rengine(["image", "prune", "-f"]).succeeds();
        world.rengine(["system", "check", "--verify"]).succeeds();
    }
}
