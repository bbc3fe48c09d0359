//! A container's files from outside: copied in and out, compared with the image, exported, made an image of.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use crate::world::{BOX, World};

#[test]
fn files_go_in_and_come_out_by_dockers_rules() {
    let world = World::new();
    world.background("--network none --name it -v data:/data --tmpfs /mem", "sleep 1000");
    let file = world.write("tree/sub/file", "content");
    symlink("sub/file", world.path("tree/link")).unwrap();
    let (file, tree) = (file.to_str().unwrap(), world.path("tree"));
    let tree = tree.to_str().unwrap();
    world.rengine(["cp", file, "it:/tmp"]).succeeds();
    world.rengine(["cp", file, "it:tmp/renamed"]).succeeds();
    world.rengine(["cp", tree, "it:/data"]).succeeds();
    world.rengine(["cp", &format!("{tree}/."), "it:/mem"]).succeeds();
    world
        .rengine(["exec", "it", "cat", "/tmp/file", "/tmp/renamed", "/data/tree/link", "/mem/sub/file"])
        .succeeds()
        .prints("contentcontentcontentcontent");
    world.rengine(["cp", file, "it:/nosuch/"]).exits(1).complains("no such directory");
    world.rengine(["cp", tree, "it:/tmp/file"]).exits(1).complains("cannot copy a directory onto the file");
    world.rengine(["cp", "it:/nosuch", "."]).exits(1).complains("could not find the file /nosuch");
    world.rengine(["cp", "it:", "."]).exits(1).complains("names no path in the container");
    world.rengine(["cp", "it:/tmp", "it:/x"]).exits(1).complains("between containers");
    world.rengine(["cp", file, tree]).exits(1).complains("at least one container");

    let out = world.path("out");
    world.rengine(["cp", "it:/data/tree", out.to_str().unwrap()]).succeeds();
    assert_eq!(fs::read_to_string(out.join("sub/file")).unwrap(), "content");
    assert_eq!(fs::read_link(out.join("link")).unwrap().to_str().unwrap(), "sub/file");
    world.rengine(["cp", "-L", "it:/data/tree/link", out.to_str().unwrap()]).exits(0);
    assert!(fs::symlink_metadata(out.join("link")).unwrap().is_file());
}

#[test]
fn a_container_at_rest_and_an_image_without_tar_are_no_obstacle() {
    let world = World::new();
    let image = world.write("Dockerfile", "FROM scratch\nCOPY hello /hello\nCMD [\"/hello\"]\n");
    world.write("hello", "hi");
    let context = image.parent().unwrap().to_str().unwrap();
    world.rengine(["build", "-q", "-t", "bare", context]).succeeds();
    world.rengine(["create", "--network", "none", "--name", "it", "-v", "data:/data", "bare"]).succeeds();
    let file = world.path("hello");
    world.rengine(["cp", file.to_str().unwrap(), "it:/data/there"]).succeeds();
    let back = world.path("back");
    world.rengine(["cp", "it:/data/there", back.to_str().unwrap()]).succeeds();
    assert_eq!(fs::read_to_string(back).unwrap(), "hi");
    world.run("--network none -v data:/data", "cat /data/there").succeeds().prints("hi");
}

#[test]
fn an_archive_streams_both_ways() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_uid(1000);
    header.set_gid(50);
    header.set_size(3);
    archive.append_data(&mut header, "deep/file", &b"abc"[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    world.feed(["cp", "-a", "-", "it:/tmp"], &archive).succeeds();
    let stat = world.rengine(["exec", "it", "stat", "-c", "%a %u %g", "/tmp/deep/file"]);
    stat.succeeds().prints("640 1000 50\n");
    world.feed(["cp", "-", "it:/var"], &archive).succeeds();
    world.rengine(["exec", "it", "stat", "-c", "%u %g", "/var/deep/file"]).succeeds().prints("1000 50\n");
    world.feed(["cp", "-", "it:/nosuch"], &archive).exits(1).complains("must be a directory");
    let tar = world.rengine(["cp", "it:/tmp/deep", "-"]).succeeds().stdout;
    assert!(tar.starts_with("deep/\0") && tar.contains("abc"), "{tar:?}");
}

#[test]
fn owners_are_kept_when_asked_and_no_link_leads_out() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    let file = world.write("secret", "mine");
    chown(&file, Some(1000), Some(50)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4710)).unwrap();
    world.rengine(["cp", "-a", file.to_str().unwrap(), "it:/kept"]).succeeds();
    world.rengine(["exec", "it", "stat", "-c", "%a %u %g", "/kept"]).succeeds().prints("4710 1000 50\n");
    let back = world.path("back");
    world.rengine(["cp", "-a", "it:/kept", back.to_str().unwrap()]).succeeds();
    assert_eq!((fs::metadata(&back).unwrap().uid(), fs::metadata(&back).unwrap().gid()), (1000, 50));

    world.rengine(["cp", "it:/kept", world.path("ours").to_str().unwrap()]).succeeds();
    assert_eq!(fs::metadata(world.path("ours")).unwrap().uid(), rustix::process::getuid().as_raw());

    // The host's path means nothing inside, whatever links the container makes.
    let target = file.to_str().unwrap();
    let script = format!("ln -s {target} /etc/out; ln -s {} /up; mkdir -p /d; ln -s / /d/root", "../../..");
    world.rengine(["exec", "it", "sh", "-c", &script]).succeeds();
    world.rengine(["cp", "-L", "it:/etc/out", back.to_str().unwrap()]).exits(1).complains("could not find");
    world.rengine(["cp", "it:/up/etc/passwd", back.to_str().unwrap()]).succeeds();
    assert!(fs::read_to_string(&back).unwrap().contains("guest"));
    // A link of the host in the place of a directory is not walked through.
    let (into, elsewhere) = (world.path("into"), world.path("elsewhere"));
    fs::create_dir_all(&into).unwrap();
    fs::create_dir_all(&elsewhere).unwrap();
    symlink(&elsewhere, into.join("etc")).unwrap();
    world.rengine(["cp", "it:/etc", into.to_str().unwrap()]).exits(1).complains("cannot overwrite");
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
}

#[test]
fn a_read_only_root_stays_as_it_is() {
    let world = World::new();
    let file = world.write("file", "x");
    world.background("--network none --name it --read-only -v data:/data", "sleep 1000");
    world.rengine(["cp", file.to_str().unwrap(), "it:/etc/file"]).exits(1).complains("read-only");
    world.rengine(["cp", file.to_str().unwrap(), "it:/data/file"]).succeeds();
    world.rengine(["stop", "-t", "0", "it"]).succeeds();
    world.rengine(["cp", file.to_str().unwrap(), "it:/etc/file"]).exits(1).complains("read-only");
}

#[test]
fn what_it_changed_is_told_and_the_engines_own_files_are_not() {
    let world = World::new();
    world.background("--network none --name idle", "sleep 1000");
    world.rengine(["diff", "idle"]).succeeds().prints("");
    world.run("--network none", "true").succeeds();
    let changes =
        "rm /etc/group; echo x >>/etc/passwd; mkdir /new; echo y >/new/file; rm -r /home; mkdir /home";
    world.rengine(["run", "--network", "none", "--name", "it", BOX, "sh", "-c", changes]).succeeds();
    world
        .rengine(["diff", "it"])
        .succeeds()
        .prints("C /etc\nD /etc/group\nC /etc/passwd\nC /home\nA /new\nA /new/file\n");
}

#[test]
fn its_root_is_exported_without_what_is_mounted() {
    let world = World::new();
    world.background(
        "--network none --name it -v data:/data",
        "echo in >/data/volume; echo x >/file; sleep 1000",
    );
    world.await_file("it", "/file");
    let archive = world.path("it.tar");
    world.rengine(["export", "-o", archive.to_str().unwrap(), "it"]).succeeds();
    let mut names = Vec::new();
    for entry in tar::Archive::new(fs::File::open(&archive).unwrap()).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    assert!(names.contains(&"file".to_owned()) && names.contains(&"data/".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("volume") || name.starts_with("proc/1")), "{names:?}");
    world.rengine(["import", archive.to_str().unwrap(), "again"]).succeeds();
    world.rengine(["run", "--rm", "--network", "none", "again", "cat", "/file"]).succeeds().prints("x\n");
}

#[test]
fn an_image_is_made_of_a_container() {
    let world = World::new();
    world.background(
        "--network none --name it -e A=1 -l who=me -v data:/data",
        "echo x >/file; rm /etc/group; sleep 1000",
    );
    world.await_file("it", "/file");
    let args = [
        "commit",
        "-m",
        "why",
        "-a",
        "me",
        "-c",
        "CMD [\"cat\", \"/file\"]",
        "-c",
        "ENV B=2",
        "it",
        "made:1",
    ];
    let id = world.rengine(args).succeeds().line();
    assert_eq!(world.inspect("made:1", "{{.Id}} {{.Author}} {{.Comment}}"), format!("{id} me why"));
    assert_eq!(world.inspect("made:1", "{{index .Config.Labels \"who\"}}"), "me");
    assert_eq!(world.inspect("it", "{{.State.Status}}"), "running");
    world.rengine(["run", "--rm", "--network", "none", "made:1"]).succeeds().prints("x\n");
    world
        .rengine(["run", "--rm", "--network", "none", "made:1", "sh", "-c", "echo $A $B; ls /etc/group"])
        .exits(1)
        .prints("1 2\n");
    world.rengine(["commit", "-c", "RUN true", "it"]).exits(1).complains("invalid change");
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    let world = World::empty();
    world.write("context/Dockerfile", "FROM scratch\nENV A=1\n");
    world.rengine(["build", "-q", "-t", "empty", world.path("context").to_str().unwrap()]).succeeds();
    world.rengine(["create", "--name", "it", "--network", "none", "empty", "x"]).succeeds();
    let file = world.write("file", "content");
    world.rengine(["cp", file.to_str().unwrap(), "it:/copied"]).succeeds();
    world.rengine(["export", "it"]).succeeds().shows("copied");
    world.rengine(["commit", "it", "made"]).succeeds();
    assert_eq!(world.inspect("made", "{{len .RootFS.Layers}}"), "1");
}
