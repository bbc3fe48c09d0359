//! One name for several platforms.

use crate::world::{Outcome, World};

/// Cross-building: what runs is this machine's, what comes out is for each platform.
const DOCKERFILE: &str = "\
FROM --platform=$BUILDPLATFORM box AS compiler
ARG TARGETARCH
RUN echo for $TARGETARCH > /out
FROM scratch
COPY --from=compiler /bin/busybox /cat
COPY --from=compiler /out /out
ENTRYPOINT [\"/cat\", \"/out\"]
";

/// A platform that this machine is not.
const OTHER: &str = "s390x";

fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn build(world: &World, flags: &[&str]) -> Outcome {
    world.write("context/Dockerfile", DOCKERFILE);
    let (platforms, context) = (format!("linux/{OTHER},linux/{}", host()), world.path("context"));
    let mut args = vec!["build", "--progress", "plain", "--platform", &platforms];
    args.extend(flags);
    args.push(context.to_str().unwrap());
    world.rengine(args)
}

#[test]
fn one_build_makes_an_image_for_each_platform_under_one_name() {
    let world = World::new();
    build(&world, &["-t", "built"])
        .succeeds()
        .complains("[linux/s390x compiler 2/2]")
        .complains("naming to docker.io/library/built:latest done");
    world
        .rengine(["run", "--rm", "--network", "none", "built"])
        .succeeds()
        .prints(&format!("for {}\n", host()));
    assert_eq!(world.inspect("built", "{{.Architecture}} {{len .Manifests}}"), format!("{} 2", host()));
    let shown = ["images", "--format", "{{.Repository}} {{.Platform}}"];
    world.rengine(shown).succeeds().prints(&format!("built linux/{}\nbox linux/{}\n", host(), host()));
    let all = world.rengine(shown.iter().chain(&["-a"])).succeeds().stdout;
    assert!(all.contains("built linux/s390x"), "{all}");
    // Both are kept while the name is, whatever it is called, and both go with the last name.
    world.rengine(["tag", "built", "again"]).succeeds();
    world.rengine(["rmi", "built"]).succeeds();
    world.rengine(["image", "prune", "-f"]).succeeds();
    assert_eq!(world.inspect("again", "{{len .Manifests}}"), "2");
    world.rengine(["rmi", "again"]).succeeds();
    world.rengine(["images", "-a", "--format", "{{.Repository}}"]).succeeds().prints("box\n");
}

#[test]
fn an_archive_carries_all_platforms() {
    let world = World::new();
    let archive = world.path("saved.tar");
    let archive = archive.to_str().unwrap();
    build(&world, &["-t", "built", "-o", &format!("type=oci,dest={archive}")]).succeeds();
    // What only a file is wanted of is not kept.
    world.rengine(["images", "-a", "--format", "{{.Repository}}"]).succeeds().prints("box\n");
    world.rengine(["load", "-i", archive]).succeeds().prints("Loaded image: built:latest\n");
    let first = world.inspect("built", "{{json .Manifests}}");
    assert!(first.contains("s390x") && first.contains(host()), "{first}");
    world.rengine(["save", "-o", archive, "built"]).succeeds();
    world.rengine(["rmi", "built"]).succeeds();
    world.rengine(["load", "-i", archive]).succeeds().prints("Loaded image: built:latest\n");
    assert_eq!(world.inspect("built", "{{json .Manifests}}"), first);
}

#[test]
fn files_of_each_platform_go_to_a_directory_of_their_own() {
    let world = World::new();
    let directory = world.path("files");
    build(&world, &["-o", directory.to_str().unwrap()]).succeeds();
    for arch in [OTHER, host()] {
        let text = std::fs::read_to_string(directory.join(format!("linux_{arch}/out"))).unwrap();
        assert_eq!(text, format!("for {arch}\n"));
    }
    let together = world.path("together");
    build(&world, &["-o", &format!("type=local,dest={},platform-split=false", together.display())])
        .succeeds();
    assert!(together.join("out").is_file());
    let tar = world.path("files.tar");
    build(&world, &["-o", &format!("type=tar,dest={}", tar.display())]).succeeds();
    let mut archive = tar::Archive::new(std::fs::File::open(&tar).unwrap());
    let names: Vec<_> =
        archive.entries().unwrap().map(|it| it.unwrap().path().unwrap().into_owned()).collect();
    let name = std::path::PathBuf::from(format!("linux_{}/out", host()));
    assert!(names.contains(&name) && names.contains(&"linux_s390x/out".into()), "{names:?}");
}

#[test]
fn a_failed_platform_names_nothing() {
    let world = World::new();
    world.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\nRUN [\"/Dockerfile\"]\n");
    let context = world.path("context");
    let platforms = format!("linux/{},linux/mips64le", host());
    world.rengine(["build", "-t", "built", "--platform", &platforms, context.to_str().unwrap()]).fails();
    world.rengine(["images", "-a", "--format", "{{.Repository}}"]).succeeds().prints("box\n");
}

#[test]
fn one_of_several_platforms_is_looked_at_saved_loaded_and_removed() {
    let world = World::new();
    let archive = world.path("saved.tar");
    let archive = archive.to_str().unwrap();
    let other = format!("linux/{OTHER}");
    let architecture = |flags: &[&str]| {
        let mut args = vec!["image", "inspect", "-f", "{{.Architecture}}"];
        args.extend(flags);
        world.rengine(args)
    };
    build(&world, &["-t", "built"]).succeeds();
    architecture(&["--platform", &other, "built"]).succeeds().prints(&format!("{OTHER}\n"));
    architecture(&["--platform", "linux/mips64le", "built"])
        .exits(1)
        .complains(&format!("there is no image for linux/mips64le; there are linux/{}, {other}", host()));
    let history = ["history", "--no-trunc", "-q", "--platform", &other, "built"];
    let id = world.rengine(history).succeeds().stdout;
    let id = id.lines().next().unwrap().to_owned();
    assert_eq!(world.inspect(&id, "{{.Architecture}}"), OTHER);
    world.rengine(["history", "--platform", "linux/mips64le", "built"]).fails();

    world.rengine(["save", "-o", archive, "--platform", &other, "built"]).succeeds();
    world.rengine(["save", "-o", archive, "--platform", "linux/mips64le", "built"]).fails();
    world.rengine(["rmi", "built"]).succeeds();
    let mine = format!("linux/{}", host());
    world.rengine(["load", "-i", archive, "--platform", &mine]).fails().complains("there is no image for");
    world.rengine(["load", "-i", archive]).succeeds().prints("Loaded image: built:latest\n");
    architecture(&["built"]).succeeds().prints(&format!("{OTHER}\n"));

    build(&world, &["-t", "built"]).succeeds();
    world.rengine(["save", "-o", archive, "built"]).succeeds();
    world.rengine(["rmi", "built"]).succeeds();
    world.rengine(["load", "-i", archive, "--platform", &mine]).succeeds();
    architecture(&["built"]).succeeds().prints(&format!("{}\n", host()));
    assert_eq!(world.inspect("built", "{{len .Manifests}}"), "0");
    world
        .rengine(["images", "-a", "--format", "{{.Platform}}", "built"])
        .succeeds()
        .prints(&format!("{mine}\n"));

    build(&world, &["-t", "built"]).succeeds();
    world.rengine(["rmi", "--platform", &other, "built"]).succeeds().shows(&format!("Deleted: {id}"));
    architecture(&["built"]).succeeds().prints(&format!("{}\n", host()));
    world.rengine(["rmi", "--platform", &mine, "built"]).succeeds().shows("Untagged: built:latest");
    world.rengine(["image", "inspect", "built"]).fails();
}

#[test]
fn a_tree_shows_the_platforms_below_the_names() {
    let world = World::new();
    build(&world, &["-t", "built", "-t", "again:1"]).succeeds();
    world.rengine(["create", "--name", "it", "built"]).succeeds();
    let tree = world.rengine(["images", "--tree"]).succeeds().stdout;
    let lines: Vec<Vec<&str>> = tree.lines().map(|line| line.split_whitespace().collect()).collect();
    let id = |name: &str, flags: &[&str]| {
        let mut args = vec!["image", "inspect", "-f", "{{.Id}}"];
        args.extend(flags);
        args.push(name);
        world.rengine(args).succeeds().stdout["sha256:".len()..][..12].to_owned()
    };
    let (mine, other) = (id("built", &[]), id("built", &["--platform", "linux/s390x"]));
    assert_eq!(lines[0], ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]);
    assert_eq!(lines[1], ["again:1"]);
    assert_eq!((lines[2][0], lines[2][1], lines[2].last()), ("built:latest", mine.as_str(), Some(&"U")));
    let platform = format!("linux/{}", host());
    assert_eq!(lines[3][..3], ["├─", &platform, &mine]);
    assert_eq!(lines[4][..3], ["└─", "linux/s390x", &other]);
    assert_eq!(lines[4].last().map(|cell| cell.ends_with('B')), Some(true));
    assert_eq!((lines[5].len(), lines[6][0], lines[7][1]), (0, "box:latest", platform.as_str()));
    world.rengine(["images", "--tree", "-q"]).exits(1).complains("--quiet and --tree do not go together");
    assert_eq!(world.rengine(["images", "--tree", "bo*"]).succeeds().stdout.lines().count(), 3);
}

#[test]
fn platforms_are_built_at_once_and_end_with_the_first_that_fails() {
    let world = World::new();
    let together = |end: &str| {
        format!(
            "FROM --platform=$BUILDPLATFORM box\nARG TARGETARCH\n\
             RUN --mount=type=cache,target=/met touch /met/$TARGETARCH && \
             for n in $(seq 600); do test -e /met/{OTHER} -a -e /met/{} && break; sleep 0.05; done && {end}\n",
            host()
        )
    };
    let build = |dockerfile: &str| {
        world.write("context/Dockerfile", dockerfile);
        let (platforms, context) = (format!("linux/{OTHER},linux/{}", host()), world.path("context"));
        let flags = ["--no-cache", "--progress", "plain", "--platform", &platforms, "-t", "built"];
        world.rengine(["build"].into_iter().chain(flags).chain([context.to_str().unwrap()]))
    };
    // Each sees what the other one left while it ran.
    build(&together(&format!("test -e /met/{OTHER} -a -e /met/{}", host()))).succeeds();
    world.rengine(["rmi", "built"]).succeeds();
    let outcome = build(&together(&format!("if [ $TARGETARCH = {OTHER} ]; then false; else sleep 1000; fi")));
    let outcome = outcome.fails().complains("CANCELED").complains("exit code: 1");
    assert_eq!(outcome.stderr.matches(">>>").count(), 1, "{}", outcome.stderr);
    world.rengine(["images", "-q", "built"]).succeeds().prints("");
}
