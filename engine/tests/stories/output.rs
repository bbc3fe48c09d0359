//! What becomes of a build: files, archives, reports, and a Dockerfile that is only looked at.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use engine::container::cgroup::Layout;

use crate::world::{Outcome, World};

/// Builds a Dockerfile with these flags.
fn build(world: &World, dockerfile: &str, flags: &[&str]) -> Outcome {
    world.write("context/Dockerfile", dockerfile);
    let context = world.path("context");
    world.rengine(["build"].iter().chain(flags).copied().chain([context.to_str().unwrap()]))
}

const FILES: &str = "FROM box AS made\nRUN mkdir -p /out/sub && echo one > /out/a && ln -s a /out/link && \
                     ln /out/a /out/hard && rm -f /out/none\nFROM scratch\nCOPY --from=made /out /\n";

#[test]
fn the_files_of_an_image_go_into_a_directory_or_a_tar() {
    let world = World::new();
    let out = world.path("out");
    build(&world, FILES, &["-o", out.to_str().unwrap()]).succeeds();
    assert_eq!(fs::read_to_string(out.join("link")).unwrap(), "one\n");
    assert!(out.join("sub").is_dir());
    // Again, over what is there.
    build(&world, FILES, &["--output", &format!("type=local,dest={}", out.display())]).succeeds();
    let tar = world.path("out.tar");
    build(&world, FILES, &["-o", &format!("type=tar,dest={}", tar.display())]).succeeds();
    let listed = Command::new("tar").args(["-tvf", tar.to_str().unwrap()]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("link -> a") && listed.contains(" link to "), "{listed}");
    // Nobody asked for an image.
    world.rengine(["images", "-aq"]).succeeds();
    let images = world.rengine(["images", "-a", "--format", "{{.Repository}}"]).succeeds().stdout;
    assert_eq!(images, "box\n");
    build(&world, FILES, &["-o", "type=what"]).fails().complains("what");
}

#[test]
fn others_read_the_archive_of_an_image() {
    let world = World::new();
    let archive = world.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    build(&world, "FROM box\nRUN echo two > /b\nCMD [\"cat\", \"/b\"]\n", &["-t", "made:1", "-o", &output])
        .succeeds();
    let layout = world.path("layout");
    let copied = Command::new("skopeo")
        .args(["copy", &format!("oci-archive:{}", archive.display()), &format!("oci:{}:1", layout.display())])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let other = World::empty();
    other.rengine(["load", "-i", archive.to_str().unwrap()]).succeeds();
    other.rengine(["run", "--rm", "--network", "none", "made:1"]).succeeds().prints("two\n");
}

#[test]
fn reports_say_what_was_built() {
    let world = World::new();
    let (id, metadata) = (world.path("id"), world.path("metadata"));
    let flags = ["--iidfile", id.to_str().unwrap(), "--metadata-file", metadata.to_str().unwrap()];
    let quiet = ["-q", "-t", "a:1", "-t", "b:2", "--label", "who=me"];
    let outcome = build(&world, "FROM box\nCMD echo\n", &[&flags[..], &quiet].concat()).succeeds();
    let id = fs::read_to_string(id).unwrap();
    assert_eq!(outcome.line(), id);
    let metadata: serde_json::Value = serde_json::from_str(&fs::read_to_string(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id);
    assert_eq!(metadata["image.name"], "docker.io/library/a:1,docker.io/library/b:2");
    assert_eq!(metadata["buildx.build.warnings"][0]["rule"], "JSONArgsRecommended");
    assert!(metadata["containerimage.digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(world.inspect("b:2", "{{.Config.Labels.who}}"), "me");
}

#[test]
fn a_dockerfile_is_checked_without_building_it() {
    let world = World::new();
    let dockerfile = "FROM box AS A\nRUN echo $UNSET\nENV X=$UNSET\nCMD echo\n";
    let checked = build(&world, dockerfile, &["--check"]).fails().stdout;
    for wanted in
        ["StageNameCasing", "rule/stage-name-casing/", "UndefinedVar", "Dockerfile:3", ">>> ENV X=$UNSET"]
    {
        assert!(checked.contains(wanted), "{wanted}: {checked}");
    }
    assert!(checked.ends_with("Check complete, 3 warnings have been found!\n"), "{checked}");
    build(&world, "FROM box\nRUN exit 1\n", &["--check"])
        .succeeds()
        .prints("Check complete, no warnings found.\n");
    let strict = "# check=error=true\nFROM box\nCMD echo\n";
    build(&world, strict, &[]).fails().complains("JSONArgsRecommended").complains("Dockerfile:3");
    build(&world, "FROM box AS one\nFROM box\n", &["--call", "targets"])
        .succeeds()
        .prints("TARGET\none\n1 (default)\n");
    let said = build(&world, "FROM box AS one\nCMD echo\n", &["--call", "check,format=json"]).exits(1).stdout;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["warnings"][0]["ruleName"], "JSONArgsRecommended");
    assert_eq!(said["warnings"][0]["location"]["ranges"][0]["start"]["line"], 2);
    let said = build(&world, "FROM box AS one\n", &["--call", "targets,format=json"]).succeeds().stdout;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said, serde_json::json!({ "targets": [{ "name": "one", "default": true }] }));
    world.rengine(["buildx", "bake"]).exits(1).complains("bake is not supported").complains("rcompose build");
    assert_eq!(world.rengine(["images", "--format", "{{.Repository}}"]).succeeds().stdout, "box\n");
}

#[test]
fn a_warning_shows_its_place() {
    let world = World::new();
    build(&world, "FROM box\nCMD echo\n", &[])
        .succeeds()
        .complains("JSONArgsRecommended")
        .complains("Dockerfile:2")
        .complains(">>> CMD echo");
}

#[test]
fn what_has_changed_is_explained() {
    let world = World::new();
    world.write("context/a.txt", "1");
    let dockerfile = "FROM box\nARG V=1\nCOPY . /all/\nRUN echo $V > /v\n";
    build(&world, dockerfile, &["--explain"]).succeeds().complains("built for the first time");
    world.write("context/a.txt", "2");
    build(&world, dockerfile, &["--explain"])
        .succeeds()
        .complains("not cached: a.txt changed")
        .complains("not cached: the layers below changed");
    build(&world, dockerfile, &["--explain", "--build-arg", "V=2"])
        .succeeds()
        .complains("not cached: $V changed");
}

#[test]
fn the_same_files_make_the_same_image_again() {
    let world = World::new();
    let dockerfile = "FROM box\nRUN mkdir /new && echo x > /new/file && ln -s file /new/link && touch -d 200101010000.00 /old\n\
         WORKDIR /made/here\nCOPY Dockerfile /\nENV A=1\n";
    let epoch = "SOURCE_DATE_EPOCH=1700000000";
    let flags = ["-q", "--reproducible", "--no-cache", "--build-arg", epoch, "-t", "built"];
    let once = build(&world, dockerfile, &flags).succeeds().line();
    let again = build(&world, dockerfile, &flags).succeeds().line();
    assert_eq!(once, again);
    let stat = ["stat", "-c", "%Y", "/new/file", "/new", "/made", "/Dockerfile"];
    let times = world.rengine(["run", "--rm", "--network", "none", "built"].iter().chain(&stat)).succeeds();
    times.prints(&"1700000000\n".repeat(4));
    assert_eq!(world.inspect("built", "{{.Created}}"), "2023-11-14T22:13:20Z");
}

#[test]
fn the_cache_is_shown_and_removed() {
    let world = World::new();
    let dockerfile = "FROM box\nRUN --mount=type=cache,target=/c echo kept > /c/file && echo big > /big\n";
    build(&world, dockerfile, &["-t", "built"]).succeeds();
    let usage = world.rengine(["builder", "du"]).succeeds().stdout;
    assert!(usage.contains("exec.cachemount") && usage.contains("RUN --mount"), "{usage}");
    world.rengine(["builder", "prune", "-f", "--filter", "until=1h"]).succeeds().prints("Total:\t0B\n");
    world.rengine(["builder", "prune", "-f", "--filter", "type=exec.cachemount"]).succeeds();
    let layers = || fs::read_dir(world.root().layers()).unwrap().count();
    let before = layers();
    world.rengine(["rmi", "built"]).succeeds();
    assert_eq!(layers(), before, "the cache keeps its layers");
    world.rengine(["builder", "prune", "-f"]).succeeds();
    assert_eq!(layers(), before - 1);
    let usage = world.rengine(["builder", "du", "--format", "{{.ID}}"]).succeeds().stdout;
    assert_eq!(usage, "");
}

#[test]
fn progress_comes_in_every_form() {
    let world = World::new();
    let dockerfile = "FROM box\nRUN echo said\n";
    build(&world, dockerfile, &["--progress", "plain"]).succeeds().complains("said").complains("#4 ");
    let json = build(&world, dockerfile, &["--progress", "rawjson", "--no-cache"]).succeeds().stderr;
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["logs"][0]["data"] == "c2FpZAo="), "{json}");
    assert_eq!(build(&world, dockerfile, &["--progress", "quiet"]).succeeds().stderr, "");
    build(&world, dockerfile, &["--progress", "tty"]).fails().complains("terminal");
    let script = format!(
        "RENGINE_ROOT={} {} build --progress tty --no-cache {}",
        world.root().state().display(),
        env!("CARGO_BIN_EXE_rengine"),
        world.path("context").display()
    );
    let typescript: PathBuf = world.path("typescript");
    let shown =
        Command::new("script").args(["-qec", &script, typescript.to_str().unwrap()]).output().unwrap();
    assert!(shown.status.success());
    let shown = fs::read_to_string(typescript).unwrap();
    assert!(shown.contains("[+] Building") && shown.contains("FINISHED"), "{shown}");
    assert!(shown.contains(" => [2/2] RUN echo said"), "{shown}");
}

#[test]
fn rules_are_switched_off_for_a_file_or_for_one_instruction() {
    let world = World::new();
    let check = |dockerfile: &str| build(&world, dockerfile, &["--check"]);
    check("FROM box\n# check=skip=MaintainerDeprecated\nMAINTAINER me\n").succeeds().shows("no warnings");
    check("FROM box\n# check=skip=MaintainerDeprecated\n\nMAINTAINER me\n").fails();
    check("FROM box\n# check=skip=MaintainerDeprecated\nMAINTAINER me\nMAINTAINER you\n")
        .fails()
        .shows("1 warning has been found!");
    // Rules that only a build can tell of are no exception.
    check("# check=skip=UndefinedVar,WorkdirRelativePath\nFROM box\nENV A=$B\nWORKDIR x\n").succeeds();
    let strict = "# check=error=true\nFROM box\nENV A=$B\n";
    build(&world, strict, &["-t", "strict"])
        .exits(1)
        .complains("lint violation found for rules: UndefinedVar");
    world.rengine(["image", "inspect", "strict"]).fails();
}

#[test]
fn an_outline_tells_what_a_target_can_be_given() {
    let world = World::new();
    let dockerfile = "\
# VERSION of the tools
ARG VERSION=1
ARG OTHER=2
FROM box AS tools
RUN --mount=type=secret,id=token,required=true --mount=type=ssh true
FROM box AS unneeded
ARG UNNEEDED
# app what is run in the end
FROM box:$VERSION AS app
ARG VERSION
# MODE fast or small
ARG MODE=fast
COPY --from=tools /bin /tools
RUN --mount=type=cache,target=/root/.cache true
";
    let outline =
        build(&world, dockerfile, &["--call", "outline", "--build-arg", "MODE=small"]).succeeds().stdout;
    let lines: Vec<&str> = outline.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "TARGET:      app",
            "DESCRIPTION: what is run in the end",
            "",
            "BUILD ARG   VALUE     DESCRIPTION",
            "VERSION     1         of the tools",
            "MODE        small     fast or small",
            "",
            "SECRET    REQUIRED",
            "token     true",
            "",
            "SSH       REQUIRED",
            "default",
            "",
            "CACHE TARGET",
            "/root/.cache",
            ""
        ]
    );
    build(&world, dockerfile, &["--call", "outline", "--target", "none"]).fails();
}

#[test]
fn flags_of_the_older_builder_are_honoured_or_refused() {
    let world = World::new();
    let parent = format!("rengine-build-{}", std::process::id());
    let limits = ["--memory", "64m", "--memory-swap", "64m", "--isolation", "default"];
    let groups = "FROM box\nRUN true\n";
    build(&world, groups, &[["--cgroup-parent", &parent].as_slice(), &limits].concat()).succeeds();
    // It is its owner's and stays: here it is the test's.
    let made: Vec<_> =
        Layout::detect().unwrap().mounts().map(|mount| fs::remove_dir(mount.join(&parent))).collect();
    assert!(made.iter().any(Result::is_ok), "{made:?}");
    build(&world, groups, &["--isolation", "hyperv"]).exits(1).complains("for Windows");
    build(&world, groups, &["--security-opt", "label=x"]).exits(1).complains("--security-opt label=x");
    build(&world, groups, &["--build-arg", "BUILDKIT_SYNTAX=some/frontend"])
        .exits(1)
        .complains("some/frontend");
    build(&world, groups, &["--build-arg", "BUILDKIT_SYNTAX=dockerfile.v0"]).succeeds();
}
