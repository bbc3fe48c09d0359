//! Random Dockerfiles: what a container of the built image sees is what others unpack of it, and what is exported.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::dice::Dice;
use crate::world::World;

/// A path of one to three short names, so that they meet often.
fn path(dice: &mut Dice) -> String {
    let mut path = String::from("/t");
    for _ in 0..=dice.roll(3) {
        write!(path, "/{}", dice.one(&["a", "b", "c"])).unwrap();
    }
    path
}

fn instruction(dice: &mut Dice) -> String {
    let (one, other) = (path(dice), path(dice));
    match dice.roll(13) {
        0 => format!("RUN mkdir -p {one}"),
        1 => format!("RUN rm -rf {one}"),
        2 => format!("RUN rm -rf {one} && mkdir {one} && echo new > {one}/n"),
        3 => format!("RUN echo {} > {one}", dice.roll(9)),
        4 => format!("RUN ln -s {other} {one}"),
        5 => format!("RUN ln {other} {one}"),
        6 => format!("RUN chmod {}{}{} {one}", dice.roll(8), dice.roll(8), dice.roll(8)),
        7 => format!("RUN chown {}:{} {one}", dice.roll(3), dice.roll(3)),
        8 => format!("RUN mv {other} {one}"),
        9 => format!("COPY tree/ {one}/"),
        10 => format!("COPY tree/file {one}"),
        11 => format!("WORKDIR {one}"),
        _ => format!("COPY --link --chown={} tree/ {one}/", dice.roll(3)),
    }
}

/// Everything below `t` that an image has a word about. How many names a file has is not: a layer that takes one
/// away leaves the other as it was.
const LIST: &str = "cd t && find . | sort | while read -r path; do \
     if [ -L \"$path\" ]; then echo \"$path link $(readlink \"$path\") $(stat -c %u:%g \"$path\")\"; \
     elif [ -d \"$path\" ]; then stat -c '%n directory %a %u:%g' \"$path\"; \
     else echo \"$(stat -c '%n file %a %u:%g' \"$path\") $(cat \"$path\")\"; fi; done";

fn listed(root: &Path) -> String {
    let output = Command::new("/bin/busybox").args(["sh", "-c", LIST]).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

#[test]
fn others_unpack_what_a_container_sees() {
    let world = World::new();
    world.write("context/tree/file", "from the context");
    world.write("context/tree/a/b", "below");
    let mut dice = Dice::of(42);
    for round in 0..4 {
        let mut dockerfile = String::from("FROM box\nRUN mkdir /t\n");
        for _ in 0..12 {
            let instruction = instruction(&mut dice);
            // What makes no sense on this tree changes nothing; a copy onto something else is an error of the build.
            let instruction = match instruction.strip_prefix("RUN ") {
                Some(command) => format!("RUN {{ {command}; }} 2>/dev/null || true"),
                None => instruction,
            };
            let tried = format!("{dockerfile}{instruction}\n");
            world.write("context/Dockerfile", &tried);
            let context = world.path("context");
            let outcome = world.rengine(["build", "-q", "-t", "built", context.to_str().unwrap()]);
            if outcome.is_success() {
                dockerfile = tried;
            }
        }
        world.write("context/Dockerfile", &dockerfile);
        let context = world.path("context");
        let exported = world.path(&format!("exported-{round}"));
        let output = exported.to_str().unwrap();
        world.rengine(["build", "-q", "-t", "built", context.to_str().unwrap()]).succeeds();
        let seen = world
            .rengine(["run", "--rm", "--network", "none", "-w", "/", "built", "sh", "-c", LIST])
            .succeeds()
            .stdout;
        let archive = world.path(&format!("{round}.tar"));
        world.rengine(["save", "-o", archive.to_str().unwrap(), "built"]).succeeds();
        let layout = format!("{}:built", world.path(&format!("layout-{round}")).display());
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                "--insecure-policy",
                &format!("oci-archive:{}", archive.display()),
                &format!("oci:{layout}"),
            ],
        );
        let bundle = world.path(&format!("bundle-{round}"));
        run("umoci", &["unpack", "--image", &layout, bundle.to_str().unwrap()]);
        assert_eq!(listed(&bundle.join("rootfs")), seen, "umoci differs:\n{dockerfile}");
        let tar = format!("type=tar,dest={output}.tar");
        world.rengine(["build", "-q", "-o", &tar, context.to_str().unwrap()]).succeeds();
        fs::create_dir(&exported).unwrap();
        run("tar", &["-C", output, "-xpf", &format!("{output}.tar")]);
        assert_eq!(listed(&exported), seen, "the export differs:\n{dockerfile}");
    }
}
