//! Images: how they come, what they are called, and how they go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::registry::Registry;
use crate::world::{BOX, Running, World};

#[test]
fn an_imported_tar_is_an_image_with_the_configuration_it_is_given() {
    let world = World::new();
    world.rengine(["images", "--format", "{{.Repository}}:{{.Tag}}"]).succeeds().prints("box:latest\n");
    assert_eq!(world.inspect(BOX, "{{.Os}}"), "linux");
    world.rengine(["history", "-q", BOX]).succeeds();
}

#[test]
fn an_image_has_as_many_names_as_it_is_given() {
    let world = World::new();
    world.rengine(["tag", BOX, "example.com:5000/team/box:1.0"]).succeeds();
    assert_eq!(world.inspect(BOX, "{{.Id}}"), world.inspect("example.com:5000/team/box:1.0", "{{.Id}}"));
    world.rengine(["rmi", BOX]).succeeds().shows("Untagged: box:latest");
    world.rengine(["run", "--rm", "--network", "none", "example.com:5000/team/box:1.0", "true"]).succeeds();
    world.rengine(["rmi", "example.com:5000/team/box:1.0"]).succeeds().shows("Deleted: sha256:");
    world.rengine(["images", "-q"]).succeeds().prints("");
}

#[test]
fn an_image_in_use_stays() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    let image = world.inspect(BOX, "{{.Id}}");
    world.rengine(["rmi", BOX]).exits(1).complains("it");
    world.rengine(["rmi", "-f", &image]).exits(1);
    // By force it loses its name, as in docker, and nothing else.
    world.rengine(["rmi", "-f", BOX]).succeeds().prints("Untagged: box:latest\n");
    world.rengine(["exec", "it", "true"]).succeeds();
    world.rengine(["rm", "-f", "it"]).succeeds();
    world.rengine(["rmi", &image]).succeeds().shows("Deleted: sha256:");
    world.rengine(["rmi", &image]).exits(1).complains("no such image");
    world.rengine(["rmi", "-f", &image]).succeeds().complains("no such image");
}

#[test]
fn what_is_saved_loads_as_the_same_image_elsewhere() {
    let world = World::new();
    let archive = world.path("box.tar");
    world.rengine(["save", "-o", archive.to_str().unwrap(), BOX]).succeeds();
    let id = world.inspect(BOX, "{{.Id}}");
    let other = World::empty();
    other.rengine(["load", "-i", archive.to_str().unwrap()]).succeeds().shows("Loaded image: box:latest");
    assert_eq!(other.inspect(BOX, "{{.Id}}"), id);
    other.run("--network none", "echo here").succeeds().prints("here\n");
}

#[test]
fn archives_of_others_load() {
    let world = World::new();
    let archive = world.path("box.tar");
    world.rengine(["save", "-o", archive.to_str().unwrap(), BOX]).succeeds();
    // skopeo reads what was saved, and writes both forms that there are.
    for (kind, name) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let to = world.path(name);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--insecure-policy", "-q"]).arg(format!("docker-archive:{}", archive.display()));
        Running::start(skopeo.arg(format!("{kind}:{}:other:1", to.display()))).ends().succeeds();
        let other = World::empty();
        other.rengine(["load", "-i", to.to_str().unwrap()]).succeeds();
        let loaded = other.rengine(["images", "-q"]).succeeds().line();
        other.rengine(["run", "--rm", "--network", "none", &loaded, "echo", "hi"]).succeeds().prints("hi\n");
    }
}

#[test]
fn a_registry_takes_images_and_gives_them_back() {
    let registry = Registry::start();
    let world = World::new();
    let name = format!("127.0.0.1:{}/team/box:1", registry.port);
    world.rengine(["tag", BOX, &name]).succeeds();
    world.rengine(["push", &name]).succeeds();
    let id = world.inspect(BOX, "{{.Id}}");
    let other = World::empty();
    other.rengine(["pull", "-q", &name]).succeeds();
    assert_eq!(other.inspect(&name, "{{.Id}}"), id);
    other.rengine(["run", "--rm", "--network", "none", &name, "echo", "hi"]).succeeds().prints("hi\n");
    let missing = format!("127.0.0.1:{}/team/nosuch:1", registry.port);
    other.rengine(["pull", &missing]).exits(1).complains("nosuch");
    // A missing image is fetched when it is run.
    let third = World::empty();
    third.rengine(["run", "--rm", "--network", "none", &name, "echo", "hi"]).succeeds().prints("hi\n");
}

#[test]
fn a_broken_archive_is_refused_and_leaves_nothing() {
    let world = World::new();
    let archive = world.path("box.tar");
    world.rengine(["save", "-o", archive.to_str().unwrap(), BOX]).succeeds();
    let bytes = fs::read(&archive).unwrap();
    let half = world.path("half.tar");
    fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let other = World::empty();
    other.rengine(["load", "-i", half.to_str().unwrap()]).exits(1);
    other.rengine(["images", "-aq"]).succeeds().prints("");
    let layers = fs::read_dir(other.root().layers()).unwrap().flatten();
    assert_eq!(layers.filter(|entry| entry.path().is_dir()).count(), 0);
}

#[test]
fn a_mirror_is_asked_before_docker_hub() {
    let registry = Registry::start();
    let world = World::new();
    let name = format!("127.0.0.1:{}/library/mirrored:1", registry.port);
    world.rengine(["tag", BOX, &name]).succeeds();
    world.rengine(["push", "-q", &name]).succeeds();
    let said =
        format!("{{\"registry-mirrors\": [\"http://127.0.0.1:1\", \"http://127.0.0.1:{}\"]}}", registry.port);
    let file = world.write("daemon.json", &said);
    let other = World::empty();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rengine"));
    command.env("RENGINE_ROOT", other.root().state()).env("RENGINE_DAEMON_JSON", file);
    Running::start(command.args(["pull", "mirrored:1"])).ends().succeeds();
    assert_eq!(other.inspect("mirrored:1", "{{.Id}}"), world.inspect(BOX, "{{.Id}}"));
}

#[test]
fn a_registry_is_looked_through() {
    let registry = Registry::start();
    let world = World::new();
    let host = format!("127.0.0.1:{}", registry.port);
    for tag in ["1", "2"] {
        world.rengine(["tag", BOX, &format!("{host}/team/box:{tag}")]).succeeds();
    }
    world.rengine(["push", "-q", "-a", &format!("{host}/team/box")]).succeeds();
    let found = world.rengine(["search", "--format", "{{.Name}}", &format!("{host}/box")]).succeeds().line();
    assert_eq!(found, format!("{host}/team/box"));
    let manifest = world.rengine(["manifest", "inspect", &format!("{host}/team/box:1")]).succeeds().stdout;
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["config"]["digest"], world.inspect(BOX, "{{.Id}}"));
    let other = World::empty();
    other.rengine(["pull", "-q", "-a", &format!("{host}/team/box")]).succeeds();
    let tags = other.rengine(["images", "--format", "{{.Tag}}"]).succeeds().stdout;
    assert_eq!(tags.split_whitespace().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn images_are_found_by_what_is_known_of_them() {
    let world = World::new();
    let import = |change: &str, name: &str| {
        let archive = world.path("empty.tar");
        fs::write(&archive, [0; 1024]).unwrap();
        world.rengine(["import", "-c", change, archive.to_str().unwrap(), name]).succeeds();
    };
    import("LABEL kind=one", "one:1");
    import("LABEL kind=two", "two:2");
    let names = |filters: &[&str]| {
        let mut args = vec!["images", "--format", "{{.Repository}}"];
        filters.iter().for_each(|filter| args.extend(["--filter", filter]));
        let mut names: Vec<String> =
            world.rengine(args).succeeds().stdout.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&["label=kind"]), ["one", "two"]);
    assert_eq!(names(&["label=kind=two"]), ["two"]);
    assert_eq!(names(&["label!=kind"]), [BOX]);
    assert_eq!(names(&["since=one:1"]), ["two"]);
    assert_eq!(names(&["before=one:1"]), [BOX]);
    assert_eq!(names(&["reference=t*", "reference=o*"]), ["one", "two"]);
    assert_eq!(names(&["until=1h"]), Vec::<String>::new());
    world.rengine(["images", "--filter", "colour=red"]).fails().complains("colour");
    let pruned = world.rengine(["image", "prune", "-af", "--filter", "label=kind=one"]).succeeds();
    pruned.shows("Deleted Images:\nuntagged: one:1\ndeleted: sha256:");
    assert_eq!(names(&[]), [BOX, "two"]);
}

#[test]
fn archives_are_loaded_however_they_are_compressed() {
    let world = World::new();
    let archive = world.path("box.tar");
    world.rengine(["save", "-o", archive.to_str().unwrap(), BOX]).succeeds();
    for (program, ending) in [("gzip", "gz"), ("xz", "xz"), ("bzip2", "bz2")] {
        let mut command = Command::new(program);
        Running::start(command.args(["-k", archive.to_str().unwrap()])).ends().succeeds();
        let other = World::empty();
        let packed = format!("{}.{ending}", archive.display());
        other.rengine(["load", "-i", &packed]).succeeds().prints("Loaded image: box:latest\n");
    }
}

#[test]
fn an_archive_is_its_owners_and_keeps_the_order_it_was_asked_for() {
    let world = World::new();
    let archive = world.path("images.tar");
    let archive = archive.to_str().unwrap();
    for (name, change) in [("aa", "CMD [\"a\"]"), ("bb", "CMD [\"b\"]"), ("cc", "CMD [\"c\"]")] {
        world.rengine(["create", "--name", name, "--network", "none", BOX, "true"]).succeeds();
        world.rengine(["commit", "-c", change, name, &format!("{name}:1")]).succeeds();
    }
    for names in [["cc:1", "aa:1", "bb:1"], ["bb:1", "cc:1", "aa:1"]] {
        world.rengine(["save", "-o", archive].iter().chain(&names)).succeeds();
        let loaded = names.map(|name| format!("Loaded image: {name}\n")).concat();
        World::empty().rengine(["load", "-q", "-i", archive]).succeeds().prints(&loaded);
    }
    assert_eq!(fs::metadata(archive).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_commit_is_what_a_dockerfile_would_have_made() {
    let world = World::new();
    world.rengine(["create", "--name", "it", "--network", "none", BOX, "sleep", "1"]).succeeds();
    world.rengine(["commit", "-c", "ENTRYPOINT [\"echo\"]", "it", "made"]).succeeds();
    assert_eq!(world.inspect("made", "{{json .Config.Entrypoint}} {{json .Config.Cmd}}"), "[\"echo\"] null");
    // Nothing has changed, so there is no layer.
    assert_eq!(world.inspect("made", "{{len .RootFS.Layers}}"), world.inspect(BOX, "{{len .RootFS.Layers}}"));
    assert_eq!(world.inspect("made", "[{{.Config.StopSignal}}]"), "[]");
    world.rengine(["history", "--format", "{{.Size}}", "made"]).succeeds().shows("0B\n");
}

#[test]
fn two_images_are_told_apart() {
    let world = World::empty();
    for (image, text, mode) in [("one", "first", 0o644), ("two", "other", 0o755)] {
        let file = world.write(&format!("{image}/app/file"), text);
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        world.write(&format!("{image}/app/{image}"), "");
        world
            .write(&format!("{image}/Dockerfile"), &format!("FROM scratch\nENV IT={image}\nCOPY app /app\n"));
        let context = world.path(image);
        world.rengine(["build", "-q", "-t", image, context.to_str().unwrap()]).succeeds();
    }
    let told = world.rengine(["image", "diff", "one", "two"]).exits(1);
    let told = told
        .shows("configuration config.Env[1]: IT=one → IT=two\n")
        .shows("layer 1 (COPY app /app # buildkit): ");
    let told = told.shows("\n  D app/one\n").shows("\n  A app/two\n");
    let file = told.stdout.lines().find(|line| line.starts_with("  C app/file: ")).unwrap();
    assert!(file.contains("mode 644 → 755") && file.ends_with(", content"), "{file}");
    assert!(!file.contains("size"), "{file}");
    world.rengine(["image", "diff", "one", "one"]).succeeds().prints("");
    world.rengine(["image", "diff", "one", "three"]).exits(1).complains("no such image: three");
}

#[test]
fn changes_of_a_commit_are_read_as_a_dockerfile_is() {
    let world = World::new();
    world.rengine(["create", "--name", "it", "--network", "none", "-e", "PATH=/bin", BOX, "true"]).succeeds();
    let changes = ["ENV PATH=$PATH:/opt", "EXPOSE 90-91", "HEALTHCHECK CMD true", "LABEL at=$PATH"];
    let flags = changes.iter().flat_map(|change| ["-c", change]);
    world.rengine(["commit"].into_iter().chain(flags).chain(["it", "changed"])).succeeds();
    let shown = "{{json .Config.Env}} {{json .Config.ExposedPorts}} {{json .Config.Healthcheck}} {{json .Config.Labels}}";
    assert_eq!(
        world.inspect("changed", shown),
        r#"["PATH=/bin:/opt"] {"90/tcp":{},"91/tcp":{}} {"Test":["CMD-SHELL","true"]} {"at":"/bin:/opt"}"#
    );
    world.rengine(["commit", "-c", "STOPSIGNAL what", "it", "wrong"]).fails().complains("invalid change");
    world
        .rengine(["save", "-o", "/nowhere/x.tar", BOX])
        .fails()
        .complains("there is no directory /nowhere\n");
}
