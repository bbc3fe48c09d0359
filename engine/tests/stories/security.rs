//! What a container cannot do.

use engine::container::cgroup::Cgroup;

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

/// Everything that is put somewhere inside an image, aimed below this directory of it.
fn run_with_everything_at(world: &World, place: &str) {
    let host = world.write("host/file", "content").display().to_string();
    let at = |name: &str| format!("{place}/{name}");
    world
        .rengine([
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            &format!("{host}:{}", at("bind")),
            "-v",
            &format!("things:{}", at("volume")),
            "--tmpfs",
            &at("tmpfs"),
            "--mount",
            &format!("type=image,src={BOX},dst={}", at("image")),
            "--device",
            &format!("/dev/null:{}", at("device")),
            "-w",
            &at("work"),
            BOX,
            "sh",
            "-c",
            &format!("touch {} && cd /", at("touched")),
        ])
        .succeeds();
}

#[test]
fn no_mount_leads_out_over_a_link_of_the_image() {
    // CVE-2021-30465, CVE-2024-45310, CVE-2026-42306 and their like.
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    let up = format!("../../../../../../../..{path}");
    let world = World::with_links(&[("away", path), ("up", &up), ("etc", path), ("chain", "away")]);
    for place in ["/away", "/up", "/chain", "/away/deep"] {
        run_with_everything_at(&world, place);
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn an_image_cannot_choose_where_the_kernels_file_systems_go() {
    // CVE-2019-19921, CVE-2026-41579, CVE-2026-47766.
    let outside = tempfile::tempdir().unwrap();
    for name in ["proc", "sys", "dev"] {
        let world = World::with_links(&[(name, outside.path().to_str().unwrap())]);
        world.run("--network none", "true").exits(125).complains(&format!("/{name}"));
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    // One level down: what is below /dev comes with a file system of the engine's own, whatever the image has there.
    let world =
        World::with_links(&[("dev/shm", "/escaped"), ("dev/pts", "/escaped"), ("dev/null", "/escaped")]);
    world.run("--network none", "echo x > /dev/null; echo y > /dev/shm/z; ls -a /escaped").fails();
}

#[test]
fn nothing_is_mounted_inside_proc_not_even_over_a_link() {
    // CVE-2019-16884, CVE-2023-27561: whoever covers a part of /proc redirects what is written there.
    let world = World::with_links(&[("innocent", "/proc"), ("self", "/proc/self")]);
    for target in ["/proc", "/proc/self/attr", "/innocent/sys", "/self/attr"] {
        for kind in ["--tmpfs", "-v"] {
            world.rengine(["run", "--rm", "--network", "none", kind, target, BOX, "true"]).exits(125);
        }
    }
}

#[test]
fn no_descriptor_of_the_host_becomes_the_working_directory() {
    // CVE-2024-21626.
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    for directory in ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/8", "/proc/1/root"] {
        world.rengine(["run", "--rm", "--network", "none", "-w", directory, BOX, "pwd"]).fails().prints("");
        world.rengine(["exec", "-w", directory, "it", "pwd"]).fails().prints("");
    }
}

#[test]
fn a_pipe_for_a_file_of_users_keeps_nobody_waiting() {
    // CVE-2024-9676.
    let world = World::new();
    let file = world.write("Dockerfile", "FROM box\nRUN rm /etc/passwd && mkfifo /etc/passwd\n");
    let context = file.parent().unwrap().to_str().unwrap();
    world.rengine(["build", "-q", "-t", "piped", context]).succeeds();
    world
        .rengine(["run", "--rm", "--network", "none", "-u", "guest", "piped", "true"])
        .exits(125)
        .complains("no regular file");
}

#[test]
fn ids_beyond_what_the_kernel_has_are_refused() {
    // CVE-2024-40635, CVE-2026-47262: a user that overflows would be root.
    let world = World::new();
    for user in ["2147483648", "4294967295", "4294967296", "-1", "0:4294967295", "0:-1"] {
        world
            .rengine(["run", "--rm", "--network", "none", &format!("--user={user}"), BOX, "id"])
            .exits(125)
            .complains("range from 0 to 2147483647");
    }
    world.run("--network none -u 2147483647:2147483647", "id -u; id -g").prints("2147483647\n2147483647\n");
}

#[test]
fn what_a_group_may_not_do_its_members_may_not() {
    // CVE-2022-36109, CVE-2023-25173: the primary group must be among the groups, or its denials do not count.
    let world = World::new();
    let file = world.write("denied", "secret\n");
    std::os::unix::fs::chown(&file, Some(0), Some(1000)).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    let bind = format!("{}:/denied:ro", file.display());
    let cat = |user: &str| {
        world.rengine(["run", "--rm", "--network", "none", "-v", &bind, "-u", user, BOX, "cat", "/denied"])
    };
    cat("guest").fails().prints("");
    cat("7:1000").fails().prints("");
    cat("7:7").prints("secret\n");
    world.run("--network none -u guest", "grep ^Groups: /proc/self/status").prints("Groups:\t50 1000 \n");
}

#[test]
fn a_fork_bomb_stays_in_its_container() {
    let world = World::new();
    world.background(
        "--network none --name it --pids-limit 30",
        "exec 2>&1; bomb() { bomb | bomb & }; bomb; exec sleep 1000",
    );
    world.await_log("it", "fork");
    let id = world.inspect("it", "{{.Id}}").parse().unwrap();
    let stats = Cgroup::open(world.root(), &id).unwrap().stats();
    assert_eq!(stats.pids_limit, Some(30));
    assert!(stats.pids <= 30, "{stats:?}");
    world.rengine(["rm", "-f", "it"]).succeeds();
    assert_eq!(Cgroup::list(world.root()).unwrap(), []);
}

#[test]
fn what_tells_of_the_host_is_hidden() {
    // GHSA-6fw5-f8r9-fgfm, GHSA-jq35-85cj-fj4p and docker's older list. What this kernel lacks needs no hiding.
    let world = World::new();
    let script = "for f in acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats; do \
                  [ ! -e /proc/$f ] || ([ -d /proc/$f ] && ls /proc/$f || cat /proc/$f) | head -c 1; done; \
                  ls /sys/firmware /sys/devices/virtual/powercap /sys/devices/system/cpu/cpu*/thermal_throttle 2>/dev/null \
                  | grep -v -e : -e '^$'; for d in bus fs irq sys sysrq-trigger; do \
                  [ ! -e /proc/$d ] || grep -q \" /proc/$d ro,\" /proc/self/mountinfo || echo $d; done; true";
    world.run("--network none", script).succeeds().prints("");
    world
        .run("--network none --security-opt systempaths=unconfined", "head -c 4 /proc/interrupts | wc -c")
        .prints("4\n");
}

#[test]
fn no_program_of_the_host_can_be_named_in_a_control_group() {
    // CVE-2022-0492: whoever writes a release_agent has the host run it.
    let world = World::new();
    let script = "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs); do \
                  (echo 1 > $f) 2>/dev/null && echo $f; done; (mkdir /sys/fs/cgroup/*/x) 2>/dev/null && echo made; true";
    world.run("--network none", script).succeeds().prints("");
    world.run("--network none --cgroupns host", script).succeeds().prints("");
}

#[test]
fn a_program_of_a_user_has_no_capability_to_pass_on() {
    // CVE-2022-24769, CVE-2022-29162: neither for the first program nor for those that join.
    let world = World::new();
    let status = "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f2 | sort -u";
    world.run("--network none -u guest --cap-add SYS_ADMIN", status).prints("0000000000000000\n");
    world.background("--network none --name it --cap-add SYS_ADMIN", "sleep 1000");
    world.rengine(["exec", "-u", "guest", "it", "sh", "-c", status]).prints("0000000000000000\n");
    world
        .rengine(["exec", "it", "sh", "-c", "grep -E '^Cap(Inh|Amb)' /proc/self/status | cut -f2 | sort -u"])
        .prints("0000000000000000\n");
}
