//! Dockerfiles become images.

use std::fs;
use std::path::PathBuf;

use crate::world::{Outcome, World};

/// Builds a Dockerfile with these files beside it.
fn build(world: &World, dockerfile: &str, files: &[(&str, &str)], flags: &[&str]) -> Outcome {
    let context = context(world, dockerfile, files);
    let mut args = vec!["build", "-t", "built"];
    args.extend(flags);
    args.push(context.to_str().unwrap());
    world.rengine(args)
}

fn context(world: &World, dockerfile: &str, files: &[(&str, &str)]) -> PathBuf {
    let context = world.path("context");
    if context.exists() {
        fs::remove_dir_all(&context).unwrap();
    }
    fs::create_dir(&context).unwrap();
    world.write("context/Dockerfile", dockerfile);
    for (name, content) in files {
        world.write(&format!("context/{name}"), content);
    }
    context
}

fn run(world: &World, args: &[&str]) -> Outcome {
    world.rengine(["run", "--rm", "--network", "none", "built"].iter().chain(args))
}

#[test]
fn every_instruction_leaves_its_mark() {
    let world = World::new();
    let dockerfile = "\
FROM box AS first
ARG GREETING=hello
ENV WORD=$GREETING
WORKDIR /work
COPY a.txt sub/ ./
RUN echo \"$WORD from $(cat a.txt)\" > made && chown guest made
RUN [\"/bin/sh\", \"-c\", \"echo exec >> made\"]
LABEL kind=test
USER guest
VOLUME /data
EXPOSE 8080/tcp
STOPSIGNAL SIGINT
HEALTHCHECK --interval=3s CMD true
ENTRYPOINT [\"cat\"]
CMD [\"made\"]
";
    let files = [("a.txt", "a file"), ("sub/b.txt", "b")];
    build(&world, dockerfile, &files, &["--build-arg", "GREETING=good day"]).succeeds();
    run(&world, &[]).succeeds().prints("good day from a file\nexec\n");
    run(&world, &["b.txt"]).succeeds().prints("b");
    let config = "{{.Config.User}} {{.Config.WorkingDir}} {{json .Config.Labels}} {{json .Config.ExposedPorts}} {{.Config.StopSignal}}";
    assert_eq!(world.inspect("built", config), "guest /work {\"kind\":\"test\"} {\"8080/tcp\":{}} SIGINT");
}

#[test]
fn a_later_stage_takes_from_an_earlier_one() {
    let world = World::new();
    let dockerfile = "\
FROM box AS tools
RUN mkdir /out && echo made > /out/file && ln -s file /out/link
FROM box AS unused
RUN exit 1
FROM scratch
COPY --from=tools /out/ /
COPY --from=tools /bin/busybox /cat
ENTRYPOINT [\"/cat\", \"/link\"]
";
    build(&world, dockerfile, &[], &[]).succeeds();
    run(&world, &[]).succeeds().prints("made\n");
    build(&world, dockerfile, &[], &["--target", "unused"]).fails();
}

#[test]
fn nothing_is_done_twice() {
    let world = World::new();
    // Two runs of the same command would write two different numbers.
    let dockerfile = "FROM box\nCOPY a.txt /\nRUN cat /proc/sys/kernel/random/uuid > /once\nCMD [\"cat\", \"/once\", \"/a.txt\"]\n";
    build(&world, dockerfile, &[("a.txt", "one")], &[]).succeeds();
    let first = run(&world, &[]).succeeds().stdout;
    build(&world, dockerfile, &[("a.txt", "one")], &[]).succeeds();
    assert_eq!(run(&world, &[]).succeeds().stdout, first);
    build(&world, dockerfile, &[("a.txt", "two")], &[]).succeeds();
    let changed = run(&world, &[]).succeeds().stdout;
    assert!(changed != first && changed.ends_with("two"));
    build(&world, dockerfile, &[("a.txt", "two")], &["--no-cache"]).succeeds();
    assert_ne!(run(&world, &[]).succeeds().stdout, changed);
}

#[test]
fn ignored_files_are_not_in_the_context() {
    let world = World::new();
    let files = [
        (".dockerignore", "*.log\n!keep.log\nsecret\n"),
        ("a.log", ""),
        ("keep.log", ""),
        ("secret/key", ""),
        ("b", ""),
    ];
    build(&world, "FROM box\nCOPY . /all/\nCMD [\"ls\", \"/all\"]\n", &files, &[]).succeeds();
    run(&world, &[]).succeeds().prints("Dockerfile\nb\nkeep.log\n");
}

#[test]
fn an_archive_is_added_as_its_content() {
    let world = World::new();
    let context = context(
        &world,
        "FROM box\nADD files.tar /into/\nCMD [\"cat\", \"/into/inner\"]\n",
        &[("inner", "inside\n")],
    );
    let tar =
        std::process::Command::new("tar").current_dir(&context).args(["-cf", "files.tar", "inner"]).status();
    assert!(tar.unwrap().success());
    world.rengine(["build", "-q", "-t", "built", context.to_str().unwrap()]).succeeds();
    run(&world, &[]).succeeds().prints("inside\n");
}

#[test]
fn a_mistake_is_shown_with_its_line() {
    let world = World::new();
    build(&world, "FROM box\nRUN true\nCOPPY a b\n", &[], &[])
        .fails()
        .complains("Dockerfile:3")
        .complains("COPPY");
    build(&world, "FROM box\nCOPY nosuch /\n", &[], &[])
        .fails()
        .complains("nosuch")
        .complains("Dockerfile:2");
    build(&world, "FROM box\nRUN exit 3\n", &[], &[]).fails().complains("Dockerfile:2").complains("3");
    world.rengine(["ps", "-aq"]).succeeds().prints("");
    world.rengine(["images", "--format", "{{.Repository}}"]).succeeds().prints("box\n");
}

#[test]
fn a_copy_cannot_leave_the_context() {
    let world = World::new();
    world.write("outside", "not for images");
    build(&world, "FROM box\nCOPY ../outside /\n", &[], &[]).fails();
    let context = context(&world, "FROM box\nCOPY link /got\nCMD [\"cat\", \"/got\"]\n", &[]);
    std::os::unix::fs::symlink("../outside", context.join("link")).unwrap();
    let outcome = world.rengine(["build", "-q", "-t", "built", context.to_str().unwrap()]);
    assert!(!outcome.stdout.contains("not for images"));
    assert!(!run(&world, &[]).stdout.contains("not for images"));
}

#[test]
fn steps_that_change_the_same_stack_up() {
    let world = World::new();
    let dockerfile = "\
FROM box
RUN true
RUN echo a > /file
RUN rm /file
RUN true
RUN echo a > /file
WORKDIR /tmp
RUN cat /file > /seen
CMD [\"cat\", \"/seen\"]
";
    build(&world, dockerfile, &[], &[]).succeeds();
    run(&world, &[]).succeeds().prints("a\n");
}

#[test]
fn a_context_named_from_here_can_be_mounted() {
    let world = World::new();
    let dockerfile =
        "FROM box\nRUN --mount=type=bind,target=/context cp /context/a /b\nCMD [\"cat\", \"/b\"]\n";
    let context = context(&world, dockerfile, &[("a", "mounted")]);
    let here = std::env::current_dir().unwrap();
    let relative = "../".repeat(here.components().count() - 1) + context.to_str().unwrap();
    world.rengine(["build", "-t", "built", &relative]).succeeds();
    run(&world, &[]).succeeds().prints("mounted");
}

#[test]
fn programs_run_from_a_file_system_in_memory() {
    let world = World::new();
    let dockerfile =
        "FROM box\nRUN --mount=type=tmpfs,target=/made cp /bin/busybox /made/echo && /made/echo ran\n";
    build(&world, dockerfile, &[], &[]).succeeds();
}

#[test]
fn a_platform_that_is_none_is_refused() {
    let world = World::new();
    build(&world, "FROM --platform=foo box\n", &[], &[]).fails().complains("Dockerfile:1").complains("foo");
}

#[test]
fn programs_for_another_processor_need_an_emulator() {
    let world = World::new();
    let dockerfile = "FROM scratch\nCOPY Dockerfile /\nRUN [\"/Dockerfile\"]\n";
    build(&world, dockerfile, &[], &["--platform", "linux/mips64le"])
        .fails()
        .complains("Dockerfile:3")
        .complains("linux/mips64le");
    build(&world, "FROM --platform=linux/mips64le box\n", &[], &[]).fails().complains("hint");
}
