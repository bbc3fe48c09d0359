//! A second process in a running container.

use crate::world::World;

#[test]
fn it_joins_the_same_namespaces_files_and_limits() {
    let world = World::new();
    world.background(
        "--network none --name it --hostname there",
        "echo secret > /tmp/file; echo ready; exec sleep 1000",
    );
    world.await_log("it", "ready");
    world
        .rengine(["exec", "it", "sh", "-c", "hostname; cat /tmp/file; cat /proc/1/comm"])
        .prints("there\nsecret\nsleep\n");
    let namespaces = "for name in mnt net pid uts ipc cgroup; do readlink /proc/self/ns/$name; done";
    let joined = world.rengine(["exec", "it", "sh", "-c", namespaces]).succeeds().stdout;
    let first = world.rengine(["exec", "it", "sh", "-c", &namespaces.replace("self", "1")]).succeeds().stdout;
    assert_eq!(joined, first);
}

#[test]
fn its_exit_code_is_its_own_and_127_and_126_mean_what_they_do() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    world.rengine(["exec", "it", "sh", "-c", "exit 5"]).exits(5);
    world.rengine(["exec", "it", "nosuch"]).exits(127);
    world.rengine(["exec", "it", "/etc/passwd"]).exits(126);
    world.rengine(["exec", "-w", "/nosuch", "it", "true"]).exits(126).complains("working directory /nosuch");
    world.rengine(["exec", "it", "sh", "-c", "[ ! -e /nosuch ]"]).succeeds();
    assert_eq!(world.inspect("it", "{{.State.Running}}"), "true");
}

#[test]
fn only_a_terminal_has_a_kind() {
    let world = World::new();
    world.background("--network none --name it -t", "sleep 1000");
    world.rengine(["exec", "it", "sh", "-c", "echo ${TERM-none}"]).prints("none\n");
    world.rengine(["exec", "it", "sh", "-c", "tr '\\0' '\\n' < /proc/1/environ"]).shows("TERM=xterm");
    assert!(!world.inspect("it", "{{json .Config.Env}}").contains("TERM"));
}

#[test]
fn user_directory_and_environment_are_given_per_call() {
    let world = World::new();
    world.background("--network none --name it -e A=container", "sleep 1000");
    world
        .rengine([
            "exec",
            "-u",
            "guest",
            "-w",
            "/etc",
            "-e",
            "B=call",
            "it",
            "sh",
            "-c",
            "id -un; pwd; echo $A $B",
        ])
        .succeeds()
        .prints("guest\n/etc\ncontainer call\n");
}

#[test]
fn standard_input_reaches_it() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    world.feed(["exec", "-i", "it", "cat"], b"through\n").succeeds().prints("through\n");
}

#[test]
fn it_has_no_more_rights_than_the_container() {
    let world = World::new();
    world.background("--network none --name it --cap-drop ALL", "sleep 1000");
    let status =
        world.rengine(["exec", "it", "grep", "-E", "^(CapEff|CapBnd|Seccomp):", "/proc/self/status"]);
    status.succeeds().prints("CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nSeccomp:\t2\n");
}

#[test]
fn it_ends_with_the_container() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    let mut running = world.spawn(["exec", "it", "sh", "-c", "echo started >&2; sleep 1000"]);
    running.await_line("started");
    world.rengine(["kill", "it"]).succeeds();
    running.ends().exits(137);
}

#[test]
fn nothing_is_executed_in_a_container_that_does_not_run() {
    let world = World::new();
    world.background("--network none --name it", "true");
    world.rengine(["wait", "it"]).succeeds();
    world.rengine(["exec", "it", "true"]).exits(1).complains("not running");
}

#[test]
fn a_pipe_with_a_name_stays_its_owners() {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    let path = world.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    // Open for both, so that neither end waits for the other.
    let mut pipe = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut exec =
        world.command(["exec", "-u", "1000", "it", "sh", "-c", "echo said; chmod 666 /dev/stdout"]);
    exec.stdout(pipe.try_clone().unwrap()).status().unwrap();
    let mut said = [0; 5];
    pipe.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"said\n");
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o600));
}

#[test]
fn what_cannot_be_executed_ends_as_with_docker() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    world.rengine(["exec", "it", "nosuch"]).exits(127).complains("executable file not found in $PATH");
    world.rengine(["exec", "it", "/etc"]).exits(126);
    world
        .rengine(["exec", "-u", "nobody-here", "it", "true"])
        .exits(126)
        .complains("unable to find user nobody-here");
    world.rengine(["exec", "-w", "/nope", "it", "true"]).exits(126).complains("/nope");
    world.rengine(["exec", "nosuch", "true"]).exits(1);
}
