//! Real containers of busybox, launched from a process with one thread: what they are, see and may do.
#![expect(clippy::print_stdout, reason = "its own test harness")]
#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use engine::Root;
use engine::container::capabilities::CapabilitySet;
use engine::container::cgroup::Cgroup;
use engine::container::exec::{ExecSpec, exec};
use engine::container::launch::{Child, LaunchError, Links, NoLinks, Stdio, Streams, Unenclosed, launch};
use engine::container::plan::LaunchPlan;
use engine::container::record::{ContainerRecord, Purpose};
use engine::container::spec::{
    ContainerSpec, Device, MountSource, MountSpec, NamespaceMode, NetworkMode, Propagation, Seccomp, Ulimit,
};
use engine::container::state::{Running, State};
use engine::id::{ContainerId, ImageId};
use jiff::Timestamp;
use rustix::process::{Signal, WaitId, WaitIdOptions};

/// A root of its own with one image: busybox under every name used here.
struct World {
    directory: tempfile::TempDir,
    root: Root,
}

/// A container and what is needed to end it.
struct Container {
    id: ContainerId,
    plan: LaunchPlan,
    cgroup: Option<Cgroup>,
    child: Option<Child>,
    output: Option<File>,
    input: Option<OwnedFd>,
}

/// How a program ended and what it wrote.
#[derive(Debug, PartialEq)]
struct Outcome {
    code: i32,
    output: String,
}

type Case = (&'static str, fn(&World));

const CASES: &[Case] = &[
    ("a_program_runs_in_namespaces_of_its_own", a_program_runs_in_namespaces_of_its_own),
    ("exit_codes_come_through", exit_codes_come_through),
    ("a_program_that_cannot_run_is_named", a_program_that_cannot_run_is_named),
    ("the_root_is_the_image_and_writes_go_to_the_upper_layer", the_root_is_the_image),
    ("dev_has_what_programs_expect", dev_has_what_programs_expect),
    ("dangerous_paths_are_hidden", dangerous_paths_are_hidden),
    ("capabilities_are_dockers", capabilities_are_dockers),
    ("the_filter_is_in_place_with_and_without_no_new_privs", the_filter_is_in_place),
    ("users_come_from_the_image", users_come_from_the_image),
    ("the_working_directory_is_made_and_inside", the_working_directory_is_made),
    ("a_read_only_root_stays_so", a_read_only_root_stays_so),
    ("mounts_appear_where_they_were_asked_for", mounts_appear),
    ("secrets_are_copies_in_memory", secrets_are_copies_in_memory),
    ("links_of_the_image_lead_nowhere_else", links_of_the_image_lead_nowhere_else),
    ("nothing_is_mounted_over_proc", nothing_is_mounted_over_proc),
    ("privileged_containers_see_the_hosts_devices", privileged_containers),
    ("a_device_is_usable_and_others_are_not", a_device_is_usable),
    ("kernel_parameters_are_set", kernel_parameters_are_set),
    ("limits_are_cut_to_what_the_engine_may_give", limits_are_cut),
    ("no_descriptor_of_the_engine_gets_in", no_descriptor_gets_in),
    ("an_init_reaps_and_passes_signals_and_codes_on", an_init_reaps),
    ("a_terminal_is_the_containers_own", a_terminal_is_the_containers_own),
    ("a_second_process_joins_everything", a_second_process_joins),
    ("a_second_process_can_have_a_terminal", a_second_process_with_terminal),
    ("namespaces_of_another_container_can_be_joined", namespaces_can_be_joined),
    ("signals_have_their_default_actions", signals_have_default_actions),
    ("links_are_configured_from_both_sides", links_are_configured_from_both_sides),
    ("a_failure_of_the_network_ends_the_launch", a_failure_of_the_network_ends_the_launch),
    ("a_container_ends_with_its_launcher", a_container_ends_with_its_launcher),
    ("mounts_travel_as_asked", mounts_travel_as_asked),
    ("a_pipe_for_a_file_of_users_is_refused", a_pipe_for_a_file_of_users),
    ("two_containers_share_nothing_by_chance", two_containers_share_nothing),
    ("many_layers_merge_in_order", many_layers_merge_in_order),
    ("nothing_is_left_on_the_host", nothing_is_left),
];

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os("LAUNCH_AND_DIE") {
        launch_and_die(&directory);
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = 0;
    for (name, case) in CASES {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let world = World::new();
        let passed = catch_unwind(AssertUnwindSafe(|| case(&world))).is_ok();
        failed += u32::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    println!("\ntest result: {failed} failed\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// === cases ===

fn a_program_runs_in_namespaces_of_its_own(world: &World) {
    let outcome =
        world.run("echo pid $$; hostname; cat /proc/1/comm; ls /proc/self/ns | wc -l; ip -o link | wc -l");
    let id = outcome.output.lines().nth(1).unwrap_or_default();
    assert_eq!(id.len(), 12, "{outcome:?}");
    let rest: Vec<_> = outcome.output.lines().filter(|line| *line != id).collect();
    assert_eq!((rest[0], rest[1]), ("pid 1", "sh"), "{outcome:?}");
    assert!(rest[3].parse::<u32>().unwrap() <= 1, "{outcome:?}");
    let own = |kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for kind in ["pid", "mnt", "net", "uts", "ipc", "cgroup"] {
        let inside = world.run(&format!("readlink /proc/self/ns/{kind}")).output;
        assert_ne!(inside.trim(), own(kind), "{kind}");
    }
    let hosts = world.run_as("for n in net uts pid; do readlink /proc/self/ns/$n; done", |spec| {
        spec.network = NetworkMode::Host;
        spec.uts = NamespaceMode::Host;
        spec.pid = NamespaceMode::Host;
    });
    assert_eq!(hosts.output.lines().collect::<Vec<_>>(), [own("net"), own("uts"), own("pid")]);
}

fn exit_codes_come_through(world: &World) {
    assert_eq!(world.run("exit 42").code, 42);
    assert_eq!(world.run("exit 0").code, 0);
    // Process 1 has no default actions but for SIGKILL, so a child of it is what dies here.
    assert_eq!(world.run("sh -c 'kill -KILL $$'; exit $?").code, 137);
    let mut container = world.container(&["sleep", "100"], |_| {});
    container.start(world).unwrap();
    container.signal(Signal::KILL);
    assert_eq!(container.finish().code, 137);
}

fn a_program_that_cannot_run_is_named(world: &World) {
    fs::write(world.lower().join("script"), "#!/no/interpreter\n").unwrap();
    fs::write(world.lower().join("text"), "text\n").unwrap();
    for name in ["script", "text"] {
        fs::set_permissions(world.lower().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (argv, code, message) in [
        ("nope", 127, r#"exec: "nope": executable file not found in $PATH"#),
        ("/nope", 127, r#"exec: "/nope": stat /nope: no such file or directory"#),
        ("/etc/passwd", 126, r#"exec: "/etc/passwd": permission denied"#),
        ("/etc", 126, r#"exec: "/etc": is a directory"#),
        ("/text", 126, r#"exec: "/text": exec format error"#),
        ("/script", 127, r#"exec: "/script": no such file or directory: its interpreter is missing"#),
    ] {
        for init in [false, true] {
            let mut container = world.container(&[argv], |spec| spec.init = init);
            let error = container.start(world).unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().as_str()), (code, message));
        }
    }
}

fn the_root_is_the_image(world: &World) {
    let mut container = world.container(&["sh", "-c", "echo new >/etc/new; rm /etc/group; ls /"], |_| {});
    container.start(world).unwrap();
    let outcome = container.finish();
    assert!(outcome.output.contains("bin\n"), "{outcome:?}");
    let upper = container.plan.rootfs.upper.clone();
    assert_eq!(fs::read_to_string(upper.join("etc/new")).unwrap(), "new\n");
    assert!(!world.lower().join("etc/new").exists());
    assert!(world.lower().join("etc/group").exists());
}

fn dev_has_what_programs_expect(world: &World) {
    let listing = world.run("cd /dev; for f in *; do echo $f $(stat -c %F,%a,%t:%T $f); done").output;
    for line in [
        "null character special file,666,1:3",
        "zero character special file,666,1:5",
        "full character special file,666,1:7",
        "random character special file,666,1:8",
        "urandom character special file,666,1:9",
        "tty character special file,666,5:0",
        "shm directory,1777,0:0",
        "mqueue directory,1777,0:0",
        "pts directory,755,0:0",
        "ptmx symbolic link,777,0:0",
        "fd symbolic link,777,0:0",
    ] {
        assert!(listing.lines().any(|found| found == line), "{line:?} is not in\n{listing}");
    }
    let outcome =
        world.run("echo x >/dev/null && head -c 3 /dev/urandom | wc -c && df -k /dev/shm | tail -1");
    assert!(outcome.output.starts_with("3\n"), "{outcome:?}");
    assert!(outcome.output.contains(" 65536 "), "{outcome:?}");
    assert_eq!(world.run("echo data >/dev/stdout; cat /dev/fd/0").output, "data\n");
}

fn dangerous_paths_are_hidden(world: &World) {
    let script = "wc -c </proc/keys; ls /sys/firmware | wc -l; \
        echo 1 >/proc/sys/kernel/hostname; mkdir /sys/fs/cgroup/x; \
        for d in /sys/fs/cgroup/*; do test -d $d && mkdir $d/x; done; ls /sys/fs/cgroup; \
        echo 1 > /sys/kernel/uevent_seqnum";
    let outcome = world.run_as(&format!("({script}) 2>&1"), |_| {});
    assert!(outcome.output.starts_with("0\n0\n"), "{outcome:?}");
    let refused = outcome.output.matches("Read-only file system").count();
    assert!(refused >= 5, "{refused} refusals in\n{}", outcome.output);
    assert!(!outcome.output.contains("created"), "{outcome:?}");
    let own = world.run("cat /proc/self/cgroup").output;
    assert!(own.lines().all(|line| line.ends_with(":/")), "the cgroup namespace shows {own}");
    let open = world.run_as("wc -c </proc/keys", |spec| spec.security.unmask_system_paths = true);
    assert_ne!(open.output.trim(), "0");
}

fn capabilities_are_dockers(world: &World) {
    let status = |change: fn(&mut ContainerSpec)| {
        let text = world.run_as("grep Cap /proc/self/status", change).output;
        let value = |line: &str| u64::from_str_radix(line.split_whitespace().last()?, 16).ok();
        text.lines().filter_map(value).collect::<Vec<_>>()
    };
    let default = 0xa804_25fb;
    // Inheritable, permitted, effective, bounding, ambient.
    assert_eq!(status(|_| {}), [0, default, default, default, 0]);
    assert_eq!(status(|spec| spec.process.user = Some("1000".to_owned())), [0, 0, 0, default, 0]);
    let none = status(|spec| spec.security.cap_drop = vec!["ALL".to_owned()]);
    assert_eq!(none, [0, 0, 0, 0, 0]);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    let bounding = u64::from_str_radix(bounding, 16).unwrap();
    assert_eq!(status(|spec| spec.security.privileged = true), [0, bounding, bounding, bounding, 0]);
    let all = status(|spec| spec.security.cap_add = vec!["ALL".to_owned()]);
    assert_eq!(all, [0, bounding, bounding, bounding, 0]);
    assert!(CapabilitySet::docker_default().has("CHOWN"));
}

fn the_filter_is_in_place(world: &World) {
    let status = |change: fn(&mut ContainerSpec)| {
        world.run_as("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr '\\t\\n' '  '", change).output
    };
    assert_eq!(status(|_| {}), "NoNewPrivs: 0 Seccomp: 2 ");
    assert_eq!(status(|spec| spec.security.no_new_privileges = true), "NoNewPrivs: 1 Seccomp: 2 ");
    assert_eq!(status(|spec| spec.process.user = Some("33".to_owned())), "NoNewPrivs: 0 Seccomp: 2 ");
    assert_eq!(status(|spec| spec.security.seccomp = Seccomp::Unconfined), "NoNewPrivs: 0 Seccomp: 0 ");
    assert_eq!(status(|spec| spec.security.privileged = true), "NoNewPrivs: 0 Seccomp: 0 ");
    assert_eq!(status(|spec| spec.init = true), "NoNewPrivs: 0 Seccomp: 2 ");
    assert_ne!(world.run("unshare -m true 2>/dev/null").code, 0);
}

fn users_come_from_the_image(world: &World) {
    for (user, groups, wanted) in [
        ("web", "", "uid=33(web) gid=33(web) groups=8(mail),33(web) /var/www"),
        ("33:mail", "", "uid=33(web) gid=8(mail) groups=8(mail) /var/www"),
        ("1000", "", "uid=1000 gid=0(root) groups=0(root) /"),
        ("1000:1001", "mail", "uid=1000 gid=1001 groups=8(mail),1001 /"),
        ("", "", "uid=0(root) gid=0(root) groups=0(root) /root"),
    ] {
        let outcome = world.run_as("echo $(id) $HOME", |spec| {
            spec.process.user = Some(user.to_owned());
            spec.process.group_add = groups.split_whitespace().map(str::to_owned).collect();
        });
        assert_eq!(outcome.output.trim(), wanted, "{user}");
    }
    let writes = world.run_as("echo out >/dev/stdout", |spec| spec.process.user = Some("web".to_owned()));
    assert_eq!(writes, Outcome { code: 0, output: "out\n".to_owned() });
    let mut unknown = world.container(&["true"], |spec| spec.process.user = Some("nobody".to_owned()));
    let error = unknown.start(world).unwrap_err();
    assert_eq!(error.to_string(), "unable to find user nobody: no matching entries in passwd file");
}

fn the_working_directory_is_made(world: &World) {
    let pwd = |cwd: &str| {
        world.run_as("pwd; stat -c %u:%g:%a .", |spec| spec.process.working_dir = Some(cwd.into()))
    };
    assert_eq!(pwd("/a/b/c").output, "/a/b/c\n0:0:755\n");
    symlink("/etc", world.lower().join("link")).unwrap();
    assert_eq!(pwd("/link").output.lines().next(), Some("/etc"));
    for wrong in ["relative", "/etc/passwd"] {
        let mut container = world.container(&["true"], |spec| spec.process.working_dir = Some(wrong.into()));
        assert!(container.start(world).is_err(), "{wrong}");
    }
    // CVE-2024-21626: descriptors of the engine are no way out.
    for fd in 0..20 {
        let path = format!("/proc/self/fd/{fd}");
        let mut container =
            world.container(&["pwd"], |spec| spec.process.working_dir = Some(path.clone().into()));
        if container.start(world).is_ok() {
            let outcome = container.finish();
            assert!(!outcome.output.contains("tmp"), "{fd}: {outcome:?}");
        }
    }
}

fn a_read_only_root_stays_so(world: &World) {
    let outcome =
        world.run_as("touch /x 2>&1; touch /etc/x 2>&1; touch /tmp/ok /dev/shm/ok && echo written", |spec| {
            spec.read_only = true;
            spec.mounts = vec![tmpfs("/tmp", &[])];
        });
    assert_eq!(outcome.output.matches("Read-only file system").count(), 2, "{outcome:?}");
    assert!(outcome.output.ends_with("written\n"), "{outcome:?}");
}

fn mounts_appear(world: &World) {
    let host = world.directory.path().join("host");
    fs::create_dir_all(host.join("deep")).unwrap();
    fs::write(host.join("file"), "from the host\n").unwrap();
    let mounts = vec![
        bind(&host.join("file"), "/data/inner/file", true),
        bind(&host, "/data", false),
        bind(&host.join("file"), "/etc/made/for/it", true),
        tmpfs("/cache", &["size=1m", "uid=7"]),
        tmpfs("/run", &["exec"]),
    ];
    let outcome = world.run_as(
        "cat /data/file /data/inner/file /etc/made/for/it; echo new >/data/new; (echo no >/etc/made/for/it) 2>/dev/null; \
         stat -c %u:%a /cache; grep -E ' /(cache|run) ' /proc/mounts | cut -d' ' -f2,4",
        |spec| spec.mounts = mounts.clone(),
    );
    let lines: Vec<_> = outcome.output.lines().collect();
    assert_eq!(lines[..3], ["from the host"; 3], "{outcome:?}");
    assert_eq!(lines[3], "7:1777");
    let cache = "/cache rw,nosuid,nodev,noexec";
    assert!(lines[4].starts_with(cache) && lines[4].contains("size=1024k"), "{outcome:?}");
    assert!(lines[5].starts_with("/run rw,nosuid,nodev,relatime"), "{outcome:?}");
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "new\n");
    let clash = vec![bind(&host.join("file"), "/etc", false)];
    let mut container = world.container(&["true"], |spec| spec.mounts = clash);
    let error = container.start(world).unwrap_err().to_string();
    assert_eq!(error, "cannot mount a file at /etc: there is a directory in the image");
}

fn secrets_are_copies_in_memory(world: &World) {
    let file = world.directory.path().join("secret");
    fs::write(&file, "hunter2").unwrap();
    let source = MountSource::Content { file, mode: 0o440, uid: 33, gid: 8 };
    let secret = |target: &str| MountSpec { target: target.into(), source: source.clone(), read_only: true };
    let outcome = world.run_as(
        "cat /run/secrets/one; stat -c ' %u:%g:%a' /run/secrets/two; grep -c ' /run/secrets/.* tmpfs' /proc/mounts; \
         (echo x >/run/secrets/one) 2>/dev/null",
        |spec| spec.mounts = vec![secret("/run/secrets/one"), secret("/run/secrets/two")],
    );
    assert_eq!(outcome.output, "hunter2 33:8:440\n2\n", "{outcome:?}");
    assert_ne!(outcome.code, 0);
}

fn links_of_the_image_lead_nowhere_else(world: &World) {
    let host = world.directory.path().join("outside");
    fs::create_dir(&host).unwrap();
    symlink(&host, world.lower().join("escape")).unwrap();
    let mounts = vec![tmpfs("/escape/in", &[])];
    assert_eq!(world.run_as("test -d /escape/in", |spec| spec.mounts = mounts).code, 0);
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
    fs::remove_dir(world.lower().join("proc")).ok();
    symlink("/etc", world.lower().join("proc")).unwrap();
    let mut container = world.container(&["true"], |_| {});
    assert!(container.start(world).is_err());
}

fn nothing_is_mounted_over_proc(world: &World) {
    symlink("/proc/self", world.lower().join("alias")).unwrap();
    for target in ["/proc/sys", "/proc", "/alias/attr"] {
        let mut container = world.container(&["true"], |spec| spec.mounts = vec![tmpfs(target, &[])]);
        assert!(container.start(world).is_err(), "{target}");
    }
}

fn privileged_containers(world: &World) {
    let outcome = world.run_as(
        "ls /dev | wc -l; mount -t tmpfs none /mnt && echo mounted; head -c1 /proc/kcore | wc -c",
        |spec| spec.security.privileged = true,
    );
    let lines: Vec<_> = outcome.output.lines().collect();
    assert!(lines[0].parse::<usize>().unwrap() > 20, "{outcome:?}");
    assert_eq!(lines[1], "mounted", "{outcome:?}");
}

fn a_device_is_usable(world: &World) {
    let device =
        Device { host: "/dev/fuse".into(), container: "/dev/given".into(), permissions: "rw".into() };
    let script = "mknod /tmp/made c 10 229; stat -c %t:%T /dev/given 2>&1; \
        (exec 3</dev/given) 2>&1 && echo open; (exec 3</tmp/made) 2>&1";
    let with = world.run_as(script, |spec| spec.devices = vec![device]);
    assert!(with.output.starts_with("a:e5\nopen\n"), "{with:?}");
    let without = world.run(script);
    assert!(!without.output.contains("open\n"), "{without:?}");
    assert!(without.output.contains("Operation not permitted"), "{without:?}");
}

fn kernel_parameters_are_set(world: &World) {
    let outcome = world.run_as(
        "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_unprivileged_port_start \
         /proc/sys/net/ipv4/ping_group_range; dnsdomainname; cat /proc/sys/kernel/domainname",
        |spec| {
            spec.sysctls = BTreeMap::from([("kernel.shmmni".to_owned(), "77".to_owned())]);
            spec.domainname = Some("example".to_owned());
        },
    );
    let lines: Vec<_> = outcome.output.lines().collect();
    assert_eq!((lines[0], lines[1], lines[2]), ("77", "0", "0\t2147483647"), "{outcome:?}");
    assert_eq!(lines.last(), Some(&"example"));
    for (name, network) in [("kernel.panic", NetworkMode::None), ("net.ipv4.ip_forward", NetworkMode::Host)] {
        let refused = world.try_plan(|spec| {
            spec.sysctls = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
            spec.network = network;
        });
        assert!(refused.unwrap_err().to_string().contains(name));
    }
}

fn limits_are_cut(world: &World) {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let mut container = world.container(&["sh", "-c", "ulimit -n; ulimit -Hc"], |spec| {
        spec.ulimits = BTreeMap::from([
            ("nofile".to_owned(), Ulimit { soft: 100, hard: 1 << 20 }),
            ("core".to_owned(), Ulimit { soft: 0, hard: 0 }),
        ]);
        spec.oom_score_adj = Some(500);
    });
    container.start(world).unwrap();
    let warnings = container.child.as_ref().unwrap().warnings.clone();
    assert_eq!(warnings.len(), usize::from(own.is_some_and(|own| own < 1 << 20)), "{warnings:?}");
    assert_eq!(container.finish().output, "100\n0\n");
}

fn no_descriptor_gets_in(world: &World) {
    let leak = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let listing = world.run("ls /proc/1/fd; readlink /proc/1/exe");
    drop(leak);
    assert_eq!(listing.output, "0\n1\n2\n/bin/busybox\n");
    let init = world.run_as("ls /proc/1/fd | wc -l; cat /proc/1/comm", |spec| spec.init = true);
    assert!(init.output.ends_with("init\n"), "{init:?}");
}

fn an_init_reaps(world: &World) {
    // The pipe ends with the orphan; the init takes it a moment later, and nobody else in there can.
    let orphan = "sh -c '(sleep 0.05; exit 3) & exit 0' | cat
        count() { ps | grep -c '[Zz]ombie\\|\\[sleep\\]\\|\\[sh\\]'; }
        left=$(count); turn=0
        while [ $left != 0 ] && [ $turn -lt 500 ]; do sleep 0.01; left=$(count); turn=$((turn + 1)); done
        echo $left";
    let outcome = world.run_as(orphan, |spec| spec.init = true);
    assert_eq!(outcome.output, "0\n");
    assert_eq!(world.run_as("exit 9", |spec| spec.init = true).code, 9);
    assert_eq!(world.run_as("echo $$; kill -KILL $$", |spec| spec.init = true).code, 137);
    let mut container = world.container(
        &["sh", "-c", "trap 'echo asked; exit 5' USR1; echo ready; while :; do sleep 0.01; done"],
        |spec| spec.init = true,
    );
    container.start(world).unwrap();
    container.read_until("ready\n");
    container.signal(Signal::USR1);
    assert_eq!(container.finish(), Outcome { code: 5, output: "asked\n".to_owned() });
}

fn a_terminal_is_the_containers_own(world: &World) {
    for init in [false, true] {
        let script = "tty; stat -c %F /dev/console; stty size; echo $TERM; ps -o pid,tty | grep -c 136,0; \
            echo x >/dev/tty; echo y >/dev/console";
        let mut container = world.container(&["sh", "-c", script], |spec| {
            spec.process.tty = true;
            spec.init = init;
            spec.process.env.push("TERM=xterm".to_owned());
        });
        container.plan.process.terminal =
            Some(engine::container::plan::TerminalSize { rows: 33, columns: 101 });
        container.start(world).unwrap();
        let outcome = container.finish();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let lines: Vec<_> = outcome.output.lines().collect();
        assert_eq!(lines[..4], ["/dev/pts/0", "character special file", "33 101", "xterm"], "{outcome:?}");
        assert!(lines.contains(&"x") && lines.contains(&"y"), "{outcome:?}");
    }
}

fn a_second_process_joins(world: &World) {
    let mut container = world.container(&["sh", "-c", "echo ready; sleep 100"], |spec| {
        spec.process.env.push("FROM=container".to_owned());
    });
    container.start(world).unwrap();
    container.read_until("ready\n");
    let inside = |spec: ExecSpec| container.exec(&spec);
    let shell = |script: &str| ExecSpec { argv: words(&["sh", "-c", script]), ..ExecSpec::default() };
    let status = "grep -E 'Cap(Eff|Bnd)|Seccomp:' /proc/self/status | tr '\\t\\n' '  '; cat /proc/self/cgroup | \
        grep -vc ':/$'; echo $FROM; hostname";
    let outcome = inside(shell(status)).unwrap();
    let id = container.id.short();
    let wanted = format!("CapEff: 00000000a80425fb CapBnd: 00000000a80425fb Seccomp: 2 0\ncontainer\n{id}\n");
    assert_eq!(outcome, Outcome { code: 0, output: wanted });
    for kind in ["pid", "mnt", "net", "uts", "ipc", "cgroup"] {
        let script = format!("(readlink /proc/self/ns/{kind}; readlink /proc/1/ns/{kind}) | uniq | wc -l");
        assert_eq!(inside(shell(&script)).unwrap().output, "1\n", "{kind}");
    }
    let other = ExecSpec {
        user: Some("web".to_owned()),
        working_dir: Some("/tmp".into()),
        env: words(&["FROM=exec", "MORE=1"]),
        ..shell("id -un; pwd; echo $FROM $MORE $HOME")
    };
    assert_eq!(inside(other).unwrap().output, "web\n/tmp\nexec 1 /var/www\n");
    let privileged = ExecSpec { privileged: true, ..shell("grep Seccomp: /proc/self/status | tr '\\t' ' '") };
    assert_eq!(inside(privileged).unwrap().output, "Seccomp: 0\n");
    let missing = inside(ExecSpec { argv: words(&["nope"]), ..ExecSpec::default() }).unwrap_err();
    assert_eq!(missing.exit_code(), 127);
    assert_eq!(inside(shell("exit 7")).unwrap().code, 7);
    assert_eq!(inside(shell("kill -9 $$")).unwrap().code, 137);
    container.signal(Signal::KILL);
    container.finish();
    assert!(container.exec(&shell("true")).is_err());
}

fn a_second_process_with_terminal(world: &World) {
    let mut container = world.container(&["sh", "-c", "echo ready; sleep 100"], |_| {});
    container.start(world).unwrap();
    container.read_until("ready\n");
    let spec = ExecSpec { argv: words(&["sh", "-c", "tty; echo $TERM"]), tty: true, ..ExecSpec::default() };
    assert_eq!(container.exec(&spec).unwrap().output, "/dev/pts/0\r\nxterm\r\n");
}

fn namespaces_can_be_joined(world: &World) {
    let mut first =
        world.container(&["sh", "-c", "echo shared >/dev/shm/file; echo ready; sleep 100"], |spec| {
            spec.ipc = NamespaceMode::Shareable;
        });
    first.start(world).unwrap();
    first.read_until("ready\n");
    first.publish_state(world);
    let peer = first.id.clone();
    let script = "for n in net pid ipc uts; do (readlink /proc/1/ns/$n; readlink /proc/self/ns/$n) | uniq | wc -l; done; \
        cat /dev/shm/file; ps | grep -c '[s]leep 100'";
    let mut second = world.container(&["sh", "-c", script], |_| {});
    let joined = |spec: &mut ContainerSpec| {
        spec.pid = NamespaceMode::Container(peer.clone());
        spec.ipc = NamespaceMode::Container(peer.clone());
        spec.uts = NamespaceMode::Container(peer.clone());
        spec.network = NetworkMode::Container(peer.clone());
    };
    second.replan(world, joined);
    second.start(world).unwrap();
    let outcome = second.finish();
    assert_eq!(outcome.output, "1\n1\n1\n1\nshared\n1\n");
    drop(first);
    let gone = world.try_plan(joined).unwrap_err();
    assert!(
        gone.to_string().contains("is not running") || gone.to_string().contains("find process"),
        "{gone}"
    );
}

fn signals_have_default_actions(world: &World) {
    let outcome =
        world.run("grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status | tr '\\t\\n' '  '; yes | head -1; umask");
    let zero = "0".repeat(16);
    let wanted = format!("SigBlk: {zero} SigIgn: {zero} SigCgt: {zero} y\n0022\n");
    assert_eq!(outcome.output, wanted);
}

/// Opens a socket inside and notes what it was told.
struct Recorder {
    pid: Option<rustix::process::Pid>,
    refuse: bool,
}

impl Links for Recorder {
    fn outside(&mut self, pid: rustix::process::Pid) -> engine::Result<Vec<u8>> {
        self.pid = Some(pid);
        if self.refuse { Err(engine::Error::conflict("no link for you")) } else { Ok(b"eth0".to_vec()) }
    }

    fn inside(&self, message: &[u8]) -> engine::Result<Vec<OwnedFd>> {
        assert_eq!(message, b"eth0");
        let bound = std::net::UdpSocket::bind("127.0.0.1:0");
        // The loopback interface is still down, but the address is already there.
        bound.map(|socket| vec![socket.into()]).map_err(|error| engine::Error::failed("bind", error))
    }
}

fn links_are_configured_from_both_sides(world: &World) {
    let mut container = world.container(&["sleep", "100"], |_| {});
    let mut links = Recorder { pid: None, refuse: false };
    container.start_with(world, &mut links).unwrap();
    let child = container.child.as_ref().unwrap();
    assert_eq!(links.pid, Some(child.pid));
    let socket = std::net::UdpSocket::from(child.sockets[0].try_clone().unwrap());
    assert!(socket.local_addr().unwrap().ip().is_loopback());
    // The socket lives in the container's namespace: the port is free in ours.
    std::net::UdpSocket::bind(socket.local_addr().unwrap()).unwrap();
}

fn a_failure_of_the_network_ends_the_launch(world: &World) {
    let mut container = world.container(&["sleep", "100"], |_| {});
    let error = container.start_with(world, &mut Recorder { pid: None, refuse: true }).unwrap_err();
    let error = engine::Error::from(error);
    assert_eq!(engine::error::chain(&error), "plug the network: no link for you");
    assert_eq!(container.cgroup.as_ref().unwrap().processes().unwrap(), []);
}

fn a_container_ends_with_its_launcher(world: &World) {
    for init in [false, true] {
        let container = world.container(&["sleep", "100"], |_| {});
        let plan = &container.plan;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut command = std::process::Command::new("/proc/self/exe");
        command.env("LAUNCH_AND_DIE", plan.rootfs.upper.parent().unwrap()).env("LOWER", world.lower());
        command.env("INIT", init.to_string()).stdout(writer);
        let mut launcher = command.spawn().unwrap();
        drop(command);
        // Standard output is inherited by the program, so its end is the end of both.
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "launched\n");
        assert!(launcher.wait().unwrap().success());
    }
}

/// The launcher of [`a_container_ends_with_its_launcher`], in a process of its own.
fn launch_and_die(directory: &std::ffi::OsStr) {
    let record =
        World::record_of(PathBuf::from(std::env::var_os("LOWER").unwrap()), &["sleep", "100"], |spec| {
            spec.init = std::env::var("INIT").is_ok_and(|init| init == "true")
        });
    let mut plan = LaunchPlan::for_container(&Root::at(Path::new("/nonexistent")), &record).unwrap();
    plan.rootfs.upper = Path::new(directory).join("upper");
    plan.rootfs.work = Path::new(directory).join("work");
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = Streams::new(&stdin, &stdout, &stderr);
    launch(&plan, &Unenclosed, Stdio::Streams(streams), &mut NoLinks).unwrap();
    println!("launched");
}

fn mounts_travel_as_asked(world: &World) {
    let host = world.directory.path().join("host");
    fs::create_dir(&host).unwrap();
    let propagation = |propagation| MountSpec {
        target: "/data".into(),
        source: MountSource::Bind {
            path: host.clone(),
            create: false,
            propagation,
            recursive: true,
            writable_below: false,
        },
        read_only: false,
    };
    for (asked, shown) in
        [(Propagation::Rprivate, "0"), (Propagation::Rshared, "1"), (Propagation::Shared, "1")]
    {
        let script = "grep ' /data ' /proc/self/mountinfo | grep -c shared:";
        let outcome = world.run_as(script, |spec| spec.mounts = vec![propagation(asked)]);
        assert_eq!(outcome.output.trim(), shown, "{asked:?}");
    }
}

fn a_pipe_for_a_file_of_users(world: &World) {
    fs::remove_file(world.lower().join("etc/passwd")).unwrap();
    let pipe = world.lower().join("etc/passwd");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    let mut container = world.container(&["true"], |_| {});
    let error = container.start(world).unwrap_err().to_string();
    assert_eq!(error, "/etc/passwd of the image is no regular file");
    // CVE-2024-9676's other half: a link out of the image leads to the image's own root again.
    fs::remove_file(&pipe).unwrap();
    symlink("/../../../../etc/shadow", &pipe).unwrap();
    assert_eq!(world.run("echo $HOME").output, "/\n");
}

fn two_containers_share_nothing(world: &World) {
    let mut first = world
        .container(&["sh", "-c", "echo mine >/dev/shm/x; echo mine >/tmp/x; echo ready; sleep 100"], |_| {});
    first.start(world).unwrap();
    first.read_until("ready\n");
    assert_eq!(world.run("ls /dev/shm /tmp; ps | grep -c '[s]leep'").output, "/dev/shm:\n\n/tmp:\n0\n");
}

fn many_layers_merge_in_order(world: &World) {
    let mut container = world.container(&["sh", "-c", "cat /layer; ls / | grep -c ^only-"], |_| {});
    for number in 0..100 {
        let layer = world.directory.path().join(format!("{}-{number}", "long-name-of-a-layer".repeat(5)));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("layer"), format!("{number}\n")).unwrap();
        fs::write(layer.join(format!("only-{number}")), "").unwrap();
        container.plan.rootfs.lower.insert(0, layer);
    }
    container.start(world).unwrap();
    assert_eq!(container.finish().output, "99\n100\n");
}

fn nothing_is_left(world: &World) {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let mounted = vec![tmpfs("/cache", &[])];
    world.run_as("true", |spec| spec.mounts = mounted);
    let mut failing = world.container(&["nope"], |_| {});
    assert!(failing.start(world).is_err());
    drop(failing);
    assert_eq!(before, mounts());
    let children = fs::read_to_string("/proc/self/task").is_err();
    assert!(children);
    let none = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert_eq!(none.unwrap_err(), rustix::io::Errno::CHILD);
}

// === World ===

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(&directory.path().join("state"));
        let world = Self { directory, root };
        let lower = world.lower();
        for name in ["bin", "etc", "tmp", "var/www", "root", "mnt"] {
            fs::create_dir_all(lower.join(name)).unwrap();
        }
        fs::set_permissions(lower.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::copy("/bin/busybox", lower.join("bin/busybox")).unwrap();
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", lower.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n";
        fs::write(lower.join("etc/passwd"), passwd).unwrap();
        fs::write(lower.join("etc/group"), "root:x:0:\nmail:x:8:web\nweb:x:33:\n").unwrap();
        world
    }

    fn lower(&self) -> PathBuf {
        self.directory.path().join("lower")
    }

    fn run(&self, script: &str) -> Outcome {
        self.run_as(script, |_| {})
    }

    fn run_as(&self, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> Outcome {
        let mut container = self.container(&["sh", "-c", script], change);
        container.start(self).unwrap_or_else(|error| panic!("{}", engine::error::chain(&error)));
        container.finish()
    }

    fn record(&self, argv: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> ContainerRecord {
        Self::record_of(self.lower(), argv, change)
    }

    fn record_of(lower: PathBuf, argv: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> ContainerRecord {
        let mut spec = ContainerSpec { network: NetworkMode::None, ..ContainerSpec::default() };
        spec.process.env.push("PATH=/usr/bin:/bin".to_owned());
        change(&mut spec);
        ContainerRecord {
            version: ContainerRecord::VERSION,
            id: ContainerId::random(),
            name: "box".parse().unwrap(),
            created: Timestamp::now(),
            image: ImageId::of(b"image"),
            spec,
            argv: words(argv),
            lower: vec![lower],
            purpose: Purpose::Service,
            users: None,
        }
    }

    fn container(&self, argv: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> Container {
        let record = self.record(argv, change);
        for name in ["upper", "work"] {
            fs::create_dir_all(self.root.container(&record.id).join(name)).unwrap();
        }
        let plan = LaunchPlan::for_container(&self.root, &record).unwrap();
        Container { id: record.id, plan, cgroup: None, child: None, output: None, input: None }
    }

    fn try_plan(&self, change: impl FnOnce(&mut ContainerSpec)) -> Result<LaunchPlan, LaunchError> {
        let plan = LaunchPlan::for_container(&self.root, &self.record(&["true"], change))?;
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let streams = Streams::new(&reader, &writer, &writer);
        launch(&plan, &Unenclosed, Stdio::Streams(streams), &mut NoLinks)?;
        Ok(plan)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Left-over nodes would show as entries of the next test's listing.
        let _ = Cgroup::sweep(&self.root);
    }
}

// === Container ===

impl Container {
    fn start(&mut self, world: &World) -> Result<(), LaunchError> {
        self.start_with(world, &mut NoLinks)
    }

    fn start_with(&mut self, world: &World, links: &mut dyn Links) -> Result<(), LaunchError> {
        let resources = engine::container::spec::Resources::default();
        let (cgroup, _) = Cgroup::create(&world.root, &self.id, &resources, &self.plan.device_rules).unwrap();
        let cgroup = self.cgroup.insert(cgroup);
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (stdin, input) = rustix::pipe::pipe_with(flags).unwrap();
        let (output, stdout) = rustix::pipe::pipe_with(flags).unwrap();
        let stdio = match self.plan.process.terminal {
            Some(_) => Stdio::Terminal,
            None => Stdio::Streams(Streams::new(&stdin, &stdout, &stdout)),
        };
        let mut child = launch(&self.plan, cgroup, stdio, links)?;
        self.output = Some(child.terminal.take().map_or_else(|| File::from(output), File::from));
        // The shell's own standard input ends at once, but for containers that read.
        self.input = self.plan.process.terminal.map(|_| input);
        self.child = Some(child);
        Ok(())
    }

    fn publish_state(&self, world: &World) {
        let pid = self.child.as_ref().unwrap().pid.as_raw_nonzero().get();
        let running = Running { pid, started: Timestamp::now(), health: None, paused: false, restarts: 0 };
        let record = ContainerRecord { id: self.id.clone(), ..world.record(&[], |_| {}) };
        State::Running(running).write(&world.root, &record).unwrap();
    }

    fn replan(&mut self, world: &World, change: impl FnOnce(&mut ContainerSpec)) {
        let argv: Vec<_> = self.plan.process.argv.iter().map(String::as_str).collect();
        let mut record = world.record(&argv, change);
        record.id = self.id.clone();
        self.plan = LaunchPlan::for_container(&world.root, &record).unwrap();
    }

    fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.child.as_ref().unwrap().pidfd, signal).unwrap();
    }

    fn read_until(&mut self, end: &str) {
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with(end) {
            assert_eq!(self.output.as_mut().unwrap().read(&mut byte).unwrap(), 1, "only {text:?} came");
            text.push(char::from(byte[0]));
        }
    }

    fn finish(&mut self) -> Outcome {
        let child = self.child.take().unwrap();
        collect(&child, self.output.take().unwrap())
    }

    fn exec(&self, spec: &ExecSpec) -> Result<Outcome, LaunchError> {
        let Some(target) = &self.child else { return Err(LaunchError::Vanished) };
        let process = self.plan.process.for_exec(spec);
        let (stdin, _input) = rustix::pipe::pipe().unwrap();
        let (output, stdout) = rustix::pipe::pipe().unwrap();
        let stdio = match process.terminal {
            Some(_) => Stdio::Terminal,
            None => Stdio::Streams(Streams::new(&stdin, &stdout, &stdout)),
        };
        let cgroup = self.cgroup.as_ref().unwrap();
        let mut child = exec(target.pidfd.as_fd(), &process, cgroup, stdio)?;
        drop(stdout);
        let output = child.terminal.take().unwrap_or(output);
        Ok(collect(&child, output.into()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
            let _ = rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        if let Some(cgroup) = self.cgroup.take() {
            let removed = cgroup.remove();
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
    }
}

fn collect(child: &Child, mut output: File) -> Outcome {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    // A terminal ends with an error once its last user has gone.
    while let Ok(count @ 1..) = output.read(&mut chunk) {
        bytes.write_all(&chunk[..count]).unwrap();
    }
    let ended = WaitIdOptions::EXITED;
    let status = rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), ended).unwrap().unwrap();
    let code = status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap());
    Outcome { code, output: String::from_utf8(bytes).unwrap() }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn bind(path: &Path, target: &str, read_only: bool) -> MountSpec {
    let source = MountSource::Bind {
        path: path.to_owned(),
        create: false,
        propagation: Propagation::Rprivate,
        recursive: true,
        writable_below: false,
    };
    MountSpec { target: target.into(), source, read_only }
}

fn tmpfs(target: &str, options: &[&str]) -> MountSpec {
    let source = MountSource::Tmpfs { size: None, mode: None, options: words(options) };
    MountSpec { target: target.into(), source, read_only: false }
}

const APPLETS: &str = "sh cat ls echo id stat readlink hostname wc grep head tail df mkdir rm touch mount mknod \
    sleep kill ps tr cut uniq test tty stty true false env ip unshare yes dnsdomainname ln umount chmod pwd";
