//! Images go round between this engine and the tools of others: skopeo and umoci read what is saved, and what
//! they write is loaded.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use engine::Root;
use engine::image::config::RunConfig;
use engine::image::{ImageConfig, Images, Reference, Users};

struct World {
    directory: tempfile::TempDir,
    images: Images,
}

/// A command that was executed on the root leaves a run directory.
impl Drop for World {
    fn drop(&mut self) {
        let _ = engine::store::remove_tree(Root::at(&self.directory.path().join("state")).run());
    }
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = Images::at(&Root::at(&directory.path().join("state")));
        Self { directory, images }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An image of two layers made here: busybox, and something that hides part of it.
    fn busybox(&self, tags: &[&str]) -> engine::image::Image {
        let upper = self.path("state/upper");
        fs::create_dir_all(upper.join("bin")).unwrap();
        fs::create_dir_all(upper.join("etc/old")).unwrap();
        fs::copy("/bin/busybox", upper.join("bin/busybox")).unwrap();
        for name in ["sh", "ls", "cat"] {
            symlink("busybox", upper.join("bin").join(name)).unwrap();
        }
        fs::hard_link(upper.join("bin/busybox"), upper.join("bin/twin")).unwrap();
        fs::write(upper.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(upper.join("etc/old/file"), "hidden later").unwrap();
        let base = self.images.layers().adopt(&upper).unwrap();
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::write(upper.join("etc/motd"), "hello\n").unwrap();
        std::os::unix::fs::chown(upper.join("etc/motd"), Some(1000), Some(1001)).unwrap();
        fs::set_permissions(upper.join("etc/motd"), fs::Permissions::from_mode(0o4640)).unwrap();
        let whiteout = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, upper.join("etc/old"), whiteout, rustix::fs::Mode::empty(), 0)
            .unwrap();
        let top = self.images.layers().adopt(&upper).unwrap();
        let mut config =
            ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..Default::default() };
        config.created = Some("2026-01-02T03:04:05Z".into());
        config.config.cmd = Some(vec!["sh".into()]);
        config.config.env = vec!["PATH=/bin".into()];
        config.rootfs.diff_ids = vec![base, top];
        let tags: Vec<Reference> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        self.images.commit(&config, &tags).unwrap()
    }

    fn save(&self, names: &[&str]) -> PathBuf {
        let path = self.path("saved.tar");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.images.save(&names, &mut File::create(&path).unwrap()).unwrap();
        path
    }

    /// Loads an archive into an engine of its own.
    fn load_elsewhere(&self, archive: &Path) -> (World, Vec<String>) {
        let other = World::new();
        let loaded = other
            .images
            .load(&mut File::open(archive).unwrap())
            .unwrap_or_else(|error| panic!("{}", engine::error::chain(&engine::Error::from(error))));
        let names = loaded
            .iter()
            .map(|loaded| {
                loaded.reference.as_ref().map_or_else(|| loaded.image.id.to_string(), ToString::to_string)
            })
            .collect();
        (other, names)
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_saved_is_loaded_as_the_same_image() {
    let world = World::new();
    let image = world.busybox(&["box:1", "box:2", "ghcr.io/me/box"]);
    let saved = world.save(&["box:1", "ghcr.io/me/box"]);
    let (other, names) = world.load_elsewhere(&saved);
    assert_eq!(names, ["box:1", "ghcr.io/me/box:latest"]);
    let loaded = other.images.get("box:1").unwrap();
    assert_eq!((&loaded.id, loaded.size), (&image.id, image.size));
    let motd = fs::metadata(other.images.lower_dirs(&loaded)[0].join("etc/motd")).unwrap();
    assert_eq!((motd.uid(), motd.gid(), motd.mode() & 0o7777), (1000, 1001, 0o4640));
    // Saved again from there, it is the same file.
    let again = other.save(&["box:1", "ghcr.io/me/box"]);
    assert!(fs::read(&saved).unwrap() == fs::read(again).unwrap());
    // A repository stands for all its tags, an id for none.
    let (_, names) = world.load_elsewhere(&world.save(&["box"]));
    assert_eq!(names, ["box:1", "box:2"]);
    let (_, names) = world.load_elsewhere(&world.save(&[image.id.as_str()]));
    assert_eq!(names, [image.id.to_string()]);
}

#[test]
fn stacked_layers_are_what_overlayfs_makes_of_them() {
    let world = World::new();
    world.busybox(&["box:1"]);
    let (other, _) = world.load_elsewhere(&world.save(&["box:1"]));
    let image = other.images.get("box:1").unwrap();
    let lower: Vec<String> =
        other.images.lower_dirs(&image).iter().map(|path| path.display().to_string()).collect();
    let target = other.path("merged");
    fs::create_dir(&target).unwrap();
    // In a mount namespace of its own, which takes the mount away again.
    let script = format!(
        "mount -t overlay overlay -o ro,lowerdir={} {target} && cd {target} && cat etc/motd && ls etc bin",
        lower.join(":"),
        target = target.display()
    );
    let listed = run("unshare", &["-m", "sh", "-c", &script]);
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(words, ["hello", "bin:", "busybox", "cat", "ls", "sh", "twin", "etc:", "motd", "passwd"]);
}

#[test]
fn a_killed_import_leaves_nothing_visible_and_the_next_collection_finds_its_rest() {
    let world = World::new();
    let source = world.path("rootfs");
    fs::create_dir(&source).unwrap();
    for n in 0..40 {
        fs::write(source.join(format!("file{n}")), vec![n; 100_000]).unwrap();
    }
    let archive = world.path("rootfs.tar");
    run("tar", &["-cf", archive.to_str().unwrap(), "-C", source.to_str().unwrap(), "."]);
    let bytes = fs::read(archive).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rengine"))
        .arg("--root")
        .arg(world.path("state"))
        .args(["import", "-", "killed:1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // A pipe holds little: when most of this is written, most of it has been read.
    child.stdin.as_mut().unwrap().write_all(&bytes[..3_000_000]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let left = || fs::read_dir(world.path("state/tmp")).unwrap().count();
    assert!(left() > 0);
    assert!(world.images.list().unwrap().is_empty());
    assert!(!world.path("state/layers").read_dir().unwrap().any(|entry| entry.unwrap().path().is_dir()));
    world.images.prune(false, &Users::new(), &|_| true).unwrap();
    assert_eq!(left(), 0);
}

#[test]
fn skopeo_reads_what_is_saved_in_both_worlds_and_umoci_unpacks_it() {
    let world = World::new();
    let image = world.busybox(&["box:1"]);
    let saved = world.save(&["box:1"]);
    for transport in ["docker-archive", "oci-archive"] {
        let layout = world.path(transport);
        let source = format!("{transport}:{}", saved.display());
        let target = format!("oci:{}:it", layout.display());
        run("skopeo", &["copy", &source, &target]);
        let config = run("skopeo", &["inspect", "--config", &target]);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][1], image.config.rootfs.diff_ids[1].as_str());
        let bundle = world.path(&format!("{transport}-bundle"));
        let layout = format!("{}:it", layout.display());
        run("umoci", &["unpack", "--image", &layout, bundle.to_str().unwrap()]);
        let rootfs = bundle.join("rootfs");
        assert!(!rootfs.join("etc/old").exists() && rootfs.join("etc/passwd").exists());
        let motd = fs::metadata(rootfs.join("etc/motd")).unwrap();
        assert_eq!((motd.uid(), motd.mode() & 0o7777), (1000, 0o4640));
        assert_eq!(
            fs::metadata(rootfs.join("bin/twin")).unwrap().ino(),
            fs::metadata(rootfs.join("bin/busybox")).unwrap().ino()
        );
    }
}

#[test]
fn archives_of_skopeo_and_umoci_are_loaded() {
    let world = World::new();
    let image = world.busybox(&["box:1"]);
    let saved = format!("oci-archive:{}", world.save(&["box:1"]).display());
    let docker = world.path("docker.tar");
    let docker_target = format!("docker-archive:{}:other/name:v2", docker.display());
    run("skopeo", &["copy", &saved, &docker_target]);
    let (other, names) = world.load_elsewhere(&docker);
    assert_eq!(names, ["other/name:v2"]);
    assert_eq!(other.images.get("other/name:v2").unwrap().config.rootfs, image.config.rootfs);

    let oci = world.path("oci.tar");
    run("skopeo", &["copy", &saved, &format!("oci-archive:{}:there/it:v3", oci.display())]);
    let (_, names) = world.load_elsewhere(&oci);
    assert_eq!(names, ["there/it:v3"]);

    let layout = world.path("layout");
    run("skopeo", &["copy", &saved, &format!("oci:{}:plain", layout.display())]);
    let bundle = world.path("bundle");
    let tagged = format!("{}:plain", layout.display());
    run("umoci", &["unpack", "--image", &tagged, bundle.to_str().unwrap()]);
    fs::write(bundle.join("rootfs/added"), "by umoci").unwrap();
    fs::remove_file(bundle.join("rootfs/bin/cat")).unwrap();
    run("umoci", &["repack", "--image", &tagged, bundle.to_str().unwrap()]);
    let other = World::new();
    let loaded = other.images.load_directory(&layout).unwrap().remove(0).image;
    assert_eq!(loaded.config.rootfs.diff_ids.len(), 3);
    let top = &other.images.lower_dirs(&loaded)[0];
    assert_eq!(fs::read_to_string(top.join("added")).unwrap(), "by umoci");
    assert_eq!(fs::symlink_metadata(top.join("bin/cat")).unwrap().rdev(), 0);
}

#[test]
fn a_compressed_archive_and_the_form_of_old_dockers_are_loaded() {
    let world = World::new();
    let image = world.busybox(&["box:1"]);
    let saved = world.save(&["box:1"]);
    let saved = saved.to_str().unwrap();
    run("gzip", &["-k", saved]);
    let (_, names) = world.load_elsewhere(&world.path("saved.tar.gz"));
    assert_eq!(names, ["box:1"]);

    // <id>/layer.tar, one of them a link to another's.
    let unpacked = world.path("unpacked");
    fs::create_dir_all(&unpacked).unwrap();
    run("tar", &["-xf", saved, "-C", unpacked.to_str().unwrap()]);
    let old = world.path("old");
    fs::create_dir_all(old.join("one")).unwrap();
    fs::create_dir_all(old.join("two")).unwrap();
    fs::create_dir_all(old.join("three")).unwrap();
    let blob = |digest: &engine::id::Digest| unpacked.join("blobs/sha256").join(digest.hex());
    let [base, top] = &image.config.rootfs.diff_ids[..] else { panic!() };
    fs::copy(blob(base), old.join("one/layer.tar")).unwrap();
    fs::copy(blob(top), old.join("two/layer.tar")).unwrap();
    symlink("../one/layer.tar", old.join("three/layer.tar")).unwrap();
    fs::copy(blob(&image.id), old.join("config.json")).unwrap();
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["old:1"],"Layers":["three/layer.tar","two/layer.tar"]}]"#;
    fs::write(old.join("manifest.json"), manifest).unwrap();
    let archive = world.path("old.tar");
    run("tar", &["-cf", archive.to_str().unwrap(), "-C", old.to_str().unwrap(), "."]);
    let (other, names) = world.load_elsewhere(&archive);
    assert_eq!(names, ["old:1"]);
    assert_eq!(other.images.get("old:1").unwrap().id, image.id);
}

#[test]
fn a_forged_archive_is_refused_and_leaves_no_image() {
    let world = World::new();
    let image = world.busybox(&["box:1"]);
    let unpacked = world.path("unpacked");
    let saved = world.save(&["box:1"]);
    let forged = world.path("forged.tar");
    let repack = || run("tar", &["-cf", forged.to_str().unwrap(), "-C", unpacked.to_str().unwrap(), "."]);
    let refuse = |what: &str| {
        let other = World::new();
        let error = other.images.load(&mut File::open(&forged).unwrap()).unwrap_err();
        let message = engine::error::chain(&engine::Error::from(error));
        assert!(other.images.list().unwrap().is_empty());
        assert!(message.contains(what), "{message}");
        other.images.prune(true, &Users::new(), &|_| true).unwrap();
        let left = fs::read_dir(other.path("state/content/blobs/sha256")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "blobs stayed");
    };
    let unpack = || {
        let _ = fs::remove_dir_all(&unpacked);
        fs::create_dir(&unpacked).unwrap();
        run("tar", &["-xf", saved.to_str().unwrap(), "-C", unpacked.to_str().unwrap()]);
    };
    let layer = unpacked.join("blobs/sha256").join(image.config.rootfs.diff_ids[1].hex());

    unpack();
    let mut bytes = fs::read(&layer).unwrap();
    let last = bytes.len() / 2;
    bytes[last] ^= 1;
    fs::write(&layer, bytes).unwrap();
    repack();
    refuse("digest");

    unpack();
    fs::remove_file(&layer).unwrap();
    repack();
    refuse("the archive has no");

    // Another layer under a path that promises nothing: the configuration does.
    unpack();
    fs::remove_file(unpacked.join("index.json")).unwrap();
    fs::create_dir(unpacked.join("l")).unwrap();
    run("tar", &["-cf", unpacked.join("l/layer.tar").to_str().unwrap(), "-C", "/etc", "hostname"]);
    let manifest = fs::read_to_string(unpacked.join("manifest.json")).unwrap();
    let layer_path = format!("blobs/sha256/{}", image.config.rootfs.diff_ids[1].hex());
    fs::write(unpacked.join("manifest.json"), manifest.replace(&layer_path, "l/layer.tar")).unwrap();
    repack();
    refuse("the image's configuration says");

    unpack();
    let _ = fs::remove_dir_all(unpacked.join("blobs"));
    fs::write(unpacked.join("manifest.json"), r#"[{"Config":"../../../../etc/passwd","Layers":[]}]"#)
        .unwrap();
    fs::remove_file(unpacked.join("index.json")).unwrap();
    repack();
    refuse("leads out of the archive");

    fs::write(&forged, "no tar at all").unwrap();
    refuse("read the archive");
}

#[test]
fn a_root_file_systems_tar_becomes_an_image() {
    let world = World::new();
    let source = world.path("rootfs");
    fs::create_dir_all(source.join("bin")).unwrap();
    fs::copy("/bin/busybox", source.join("bin/sh")).unwrap();
    let archive = world.path("rootfs.tar.gz");
    run("tar", &["-czf", archive.to_str().unwrap(), "-C", source.to_str().unwrap(), "."]);
    let tag: Reference = "imported:1".parse().unwrap();
    let mut config = RunConfig::default();
    engine::builder::change(&mut config, &["CMD [\"sh\"]".to_owned(), "ENV A=b".to_owned()]).unwrap();
    let mut reader = File::open(&archive).unwrap();
    let image = world.images.import(&mut reader, config, Some("by hand"), Some(&tag)).unwrap();
    assert_eq!(world.images.get("imported:1").unwrap().id, image.id);
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(image.config.history[0].comment.as_deref(), Some("by hand"));
    assert!(world.images.lower_dirs(&image)[0].join("bin/sh").exists());
    let (other, _) = world.load_elsewhere(&world.save(&["imported:1"]));
    assert_eq!(other.images.get("imported:1").unwrap().id, image.id);
}
