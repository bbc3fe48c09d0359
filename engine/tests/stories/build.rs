//! Dockerfiles become images.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::world::{Outcome, Running, World};

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
fn flags_that_make_no_sense_are_refused_before_anything_is_done() {
    let world = World::new();
    for (flag, value, complaint) in [
        ("--add-host", "far", "name:address is needed"),
        ("--add-host", "far:away", "\"away\" is not an IP address"),
        ("--add-host", ":192.0.2.1", "invalid host"),
        ("--ulimit", "nosuch=1", "unknown ulimit"),
        ("--ulimit", "nofile=20:10", "above the hard limit"),
        ("--allow", "network.hots", "network.host"),
    ] {
        build(&world, "FROM scratch\n", &[], &[flag, value]).exits(125).complains(complaint);
    }
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

#[test]
fn with_a_fixed_time_two_machines_make_the_same_archive() {
    let (here, there) = (World::new(), World::empty());
    let base = here.path("box.tar");
    here.rengine(["save", "-o", base.to_str().unwrap(), "box"]).succeeds();
    there.rengine(["load", "-i", base.to_str().unwrap()]).succeeds();
    let dockerfile = "\
FROM box
RUN echo new > /new && mkdir /made && touch -d '1999-01-01 00:00:00' /ancient && rm /bin/cat
COPY file dir/
COPY --link file /linked/
WORKDIR /work
";
    let build = |world: &World, age: u64, output: &str| {
        let context = context(world, dockerfile, &[("file", "x")]);
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        fs::File::options().write(true).open(context.join("file")).unwrap().set_modified(time).unwrap();
        let path = world.path("app.tar");
        let output = format!("{output},dest={},rewrite-timestamp=true", path.display());
        let mut command = world.command(["build", "-q", "-o", &output, context.to_str().unwrap()]);
        Running::start(command.env("SOURCE_DATE_EPOCH", "1500000000")).ends().succeeds();
        fs::read(path).unwrap()
    };
    for kind in ["type=oci", "type=tar"] {
        assert_eq!(build(&here, 0, kind), build(&there, 1000, kind), "{kind}");
    }
    let archive = build(&here, 0, "type=tar");
    let mut archive = tar::Archive::new(archive.as_slice());
    let times = archive.entries().unwrap().map(|entry| entry.unwrap().header().mtime().unwrap());
    assert!(times.into_iter().all(|time| time <= 1_500_000_000));
    // Layers of the base stay what they are, and what is older than the time is.
    build(&here, 0, "type=oci");
    let archive = here.path("app.tar");
    there.rengine(["load", "-q", "-i", archive.to_str().unwrap()]).succeeds();
    let loaded = there.rengine(["images", "-q", "-f", "dangling=true"]).succeeds().line();
    let layers = |world: &World, name: &str| {
        let layers = world.inspect(name, "{{json .RootFS.Layers}}");
        serde_json::from_str::<Vec<String>>(&layers).unwrap()
    };
    assert_eq!(layers(&there, &loaded)[0], layers(&here, "box")[0]);
    let script = "stat -c %Y /new /made /ancient /dir/file /linked/file /linked /work /bin/sh";
    let times = there.rengine(["run", "--rm", "--network", "none", &loaded, "sh", "-c", script]).succeeds();
    let times: Vec<u64> = times.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(times[..2], [1_500_000_000; 2]);
    assert_eq!(times[2], 915_148_800);
    assert_eq!(times[3..7], [1_500_000_000; 4]);
    let context = context(&here, dockerfile, &[("file", "x")]);
    let output = format!("type=oci,dest={},rewrite-timestamp=true", archive.display());
    let context = context.to_str().unwrap();
    here.rengine(["build", "-o", &output, context]).exits(1).complains("SOURCE_DATE_EPOCH");
    here.rengine(["build", "--build-arg", "SOURCE_DATE_EPOCH=soon", context])
        .exits(1)
        .complains("is no time");
}

/// Whoever has the context here: in a build it is root's, and a stage of many layers is one directory.
#[test]
fn mounted_files_are_roots_and_those_of_a_stage_are_there_together() {
    let world = World::new();
    let dockerfile = "\
FROM box AS tools
RUN mkdir /tools && echo one > /tools/1
RUN echo two > /tools/2
FROM box
RUN --mount=target=/ctx --mount=from=tools,source=/tools,target=/t stat -c %u:%g /ctx/a /ctx > /seen && cat /t/1 /t/2 >> /seen && ! touch /ctx/b /t/3
CMD [\"cat\", \"/seen\"]
";
    let context = context(&world, dockerfile, &[("a", "")]);
    for path in [context.clone(), context.join("a")] {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
    }
    world.rengine(["build", "-t", "built", context.to_str().unwrap()]).succeeds();
    run(&world, &[]).succeeds().prints("0:0\n0:0\none\ntwo\n");
}

#[test]
fn commands_have_the_proxies_of_dockers_configuration() {
    let world = World::new();
    let proxies = r#"{"proxies": {"default": {"httpProxy": "http://here:1", "noProxy": "a,b"}}}"#;
    world.write("docker/config.json", proxies);
    let dockerfile = "FROM box\nRUN env | grep -i proxy | sort > /seen\nCMD [\"cat\", \"/seen\"]\n";
    let context = context(&world, dockerfile, &[]);
    let build = |flags: &[&str]| {
        let args = [&["build", "--no-cache", "-t", "built"], flags, &[context.to_str().unwrap()]].concat();
        Running::start(world.command(args).env("DOCKER_CONFIG", world.path("docker"))).ends().succeeds();
        run(&world, &[]).succeeds().stdout
    };
    let all = "HTTP_PROXY=http://here:1\nNO_PROXY=a,b\nhttp_proxy=http://here:1\nno_proxy=a,b\n";
    assert_eq!(build(&[]), all);
    assert_eq!(build(&["--build-arg", "http_proxy=http://there"]), all.replace("here:1", "there"));
}

#[test]
fn a_stage_that_fails_ends_those_beside_it() {
    let world = World::new();
    let dockerfile = "\
FROM box AS bad
RUN --mount=type=cache,target=/met for n in $(seq 600); do test -e /met/slow && break; sleep 0.05; done; exit 7
FROM box AS slow
RUN --mount=type=cache,target=/met touch /met/slow && sleep 1000
RUN echo never
FROM box
COPY --from=bad / /bad
COPY --from=slow / /slow
";
    let outcome = build(&world, dockerfile, &[], &["--progress", "plain"]).fails().complains("exit code: 7");
    let outcome = outcome.complains("CANCELED");
    assert!(!outcome.stderr.contains("echo never"), "{}", outcome.stderr);
}

#[test]
fn what_may_be_behind_a_command_that_fails_is_said() {
    let world = World::new();
    let files =
        [("dos", "#!/bin/sh\r\necho hi\r\n"), ("other", "#!/bin/bash\n"), ("mode", "#!/bin/sh\necho hi\n")];
    for (dockerfile, hint) in [
        ("FROM box\nCOPY --chmod=755 . /a/\nWORKDIR /a\nRUN ./dos\n", "end as Windows has it"),
        ("FROM box\nCOPY --chmod=755 . /a/\nRUN /a/other\n", "#!/bin/bash, which the image does not have"),
        ("FROM box\nCOPY . /a/\nRUN /a/mode\n", "COPY --chmod=755"),
        ("FROM box\nCOPY . /a/\nRUN [\"/a/mode\"]\n", "COPY --chmod=755"),
        ("FROM box\nCOPY --chmod=755 . /a/\nRUN [\"/a/other\"]\n", "which the image does not have"),
        ("FROM box\nRUN ['ls', '/']\n", "no JSON"),
        ("FROM scratch\nCOPY . /\nRUN ls\n", "the image has no /bin/sh"),
        ("FROM box\nUSER nobody-here\nRUN true\n", "/etc/passwd"),
        ("FROM box\nRUN true && \\\n  true\n\n  curl\n", "needs a \\ at the end"),
        ("ARG WHAT=1\nFROM box\nENV A=$WHAT\nRUN false\n", "`ARG WHAT` in this stage"),
    ] {
        build(&world, dockerfile, &files, &[]).exits(1).complains(hint);
    }
}

#[test]
fn a_command_ends_with_the_build_that_runs_it() {
    let world = World::new();
    let context = context(&world, "FROM box\nRUN echo begun && sleep 1000\n", &[]);
    for signal in [Signal::INT, Signal::KILL] {
        let args = ["build", "--progress", "plain", context.to_str().unwrap()];
        let mut building = world.spawn(args);
        // What it prints, and not the line that names the step.
        building.await_line("begun\n");
        building.signal(signal);
        building.ends().fails();
        // Nobody is left to be told by.
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::read_dir(world.root().containers()).unwrap().count() > 0 {
            assert!(Instant::now() < deadline, "the step runs on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
