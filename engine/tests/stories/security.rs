//! What a container cannot do.

use crate::world::{BOX, World};

#[test]
fn the_default_capabilities_are_dockers() {
    let world = World::new();
    world
        .run(
            "--network none",
            "grep -E '^(CapInh|CapEff|CapBnd|CapAmb|Seccomp|NoNewPrivs):' /proc/self/status",
        )
        .succeeds()
        .prints(
            "CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
             CapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n",
        );
    world
        .run(
            "--network none -u guest --cap-add SYS_TIME --security-opt no-new-privileges",
            "grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/self/status",
        )
        .prints("CapEff:\t0000000000000000\nCapBnd:\t00000000aa0425fb\nNoNewPrivs:\t1\n");
}

#[test]
fn the_system_call_filter_refuses_what_dockers_refuses() {
    let world = World::new();
    world.run("--network none", "unshare -m true").fails().complains("not permitted");
    world.run("--network none", "mount -t tmpfs x /tmp").fails();
    world
        .run("--network none --cap-add SYS_ADMIN", "mount -t tmpfs x /tmp && echo mounted")
        .prints("mounted\n");
    let profile = world.write("profile.json", r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#);
    let option = format!("seccomp={}", profile.display());
    world
        .rengine(["run", "--rm", "--network", "none", "--security-opt", &option, BOX, "mkdir", "/x"])
        .fails();
    world
        .run("--network none --security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status")
        .prints("Seccomp:\t0\n");
}

#[test]
fn paths_of_the_kernel_are_hidden_or_read_only() {
    let world = World::new();
    world
        .run("--network none", "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l")
        .succeeds()
        .prints("0\n0\n");
    world.run("--network none", "echo x > /proc/sysrq-trigger").fails();
    world.run("--network none", "echo x > /proc/sys/kernel/hostname").fails();
    world.run("--network none", "mkdir /sys/fs/cgroup/x").fails();
}

#[test]
fn no_descriptor_of_the_engine_leaks_in() {
    let world = World::new();
    world.run("--network none", "ls /proc/self/fd | sort -n | tr '\\n' ' '").succeeds().prints("0 1 2 3 ");
    world.background("--network none --name it", "sleep 1000");
    world.rengine(["exec", "it", "sh", "-c", "ls /proc/self/fd | sort -n | tr '\\n' ' '"]).prints("0 1 2 3 ");
    world.rengine(["exec", "it", "sh", "-c", "ls /proc/1/fd | sort -n | tr '\\n' ' '"]).prints("0 1 2 ");
}

#[test]
fn the_engines_own_executable_cannot_be_written_from_inside() {
    let world = World::new();
    // CVE-2019-5736: whatever of ours a container can see as somebody's executable, it must not be able to open
    // for writing.
    let script = "for exe in /proc/[0-9]*/exe; do (: >> $exe) 2>/dev/null && echo wrote $exe $(readlink $exe); done; true";
    let before = std::fs::read(env!("CARGO_BIN_EXE_rengine")).unwrap();
    world.background("--network none --name it", "sleep 1000");
    world.rengine(["exec", "it", "sh", "-c", script]).succeeds();
    assert!(before == std::fs::read(env!("CARGO_BIN_EXE_rengine")).unwrap());
}

#[test]
fn links_inside_an_image_never_lead_to_the_host() {
    let world = World::new();
    let outside = world.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let dockerfile =
        format!("FROM box\nRUN ln -s {} /trap && ln -s /etc/../../../.. /up\n", outside.display());
    let context = world.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    world.rengine(["build", "-q", "-t", "trap", context.to_str().unwrap()]).succeeds();
    world.rengine(["run", "--rm", "--network", "none", "-w", "/trap/made", "trap", "true"]);
    world.rengine([
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        "things:/trap/volume",
        "trap",
        "touch",
        "/trap/volume/x",
    ]);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_privileged_container_has_what_the_engine_has() {
    let world = World::new();
    world
        .run("--network none --privileged", "mount -t tmpfs x /tmp && grep Seccomp: /proc/self/status")
        .prints("Seccomp:\t0\n");
}
