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
