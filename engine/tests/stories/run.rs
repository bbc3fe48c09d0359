//! Running containers: what the program sees, how it ends, and what is left.

use rustix::process::Signal;

use crate::world::{BOX, World};

#[test]
fn the_output_and_the_exit_code_are_the_programs() {
    let world = World::new();
    world.run("--network none", "echo out; echo err >&2; exit 7").exits(7).prints("out\n").complains("err");
}

#[test]
fn a_signal_that_ends_the_program_is_128_and_its_number() {
    let world = World::new();
    world.run("--network none", "sh -c 'kill -9 $$'; exit $?").exits(137);
    let id = world.background("--network none", "sleep 1000");
    world.rengine(["kill", &id]).succeeds();
    world.rengine(["wait", &id]).succeeds().prints("137\n");
}

#[test]
fn a_missing_program_is_127_and_one_that_cannot_run_126() {
    let world = World::new();
    world.rengine(["run", "--rm", "--network", "none", BOX, "nosuch"]).exits(127).complains("nosuch");
    world.rengine(["run", "--rm", "--network", "none", BOX, "/etc/passwd"]).exits(126);
    world.rengine(["run", "--rm", "--network", "none", "--nosuch", BOX, "true"]).exits(125);
    world.rengine(["ps", "-aq"]).succeeds().prints("");
}

#[test]
fn process_1_sees_a_machine_of_its_own() {
    let world = World::new();
    let script = "echo $$; hostname; ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; ls -d /sys/class/net/*";
    let outcome = world.run("--network none --hostname there", script).succeeds();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines[..2], ["1", "there"]);
    assert!(lines[2].parse::<u32>().unwrap() < 5, "{lines:?}");
    assert_eq!(lines[3..], ["sh", "/sys/class/net/lo"]);
}

#[test]
fn the_environment_is_the_images_and_the_flags() {
    let world = World::new();
    world
        .run("--network none -e A=1 -e B=two -w /tmp -h box", "echo $A $B $PWD $HOME $HOSTNAME; echo $PATH")
        .succeeds()
        .prints("1 two /tmp /root box\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
}

#[test]
fn a_user_is_found_inside_the_image_with_all_its_groups() {
    let world = World::new();
    world
        .run("--network none -u guest", "id; echo $HOME")
        .succeeds()
        .shows("uid=1000(guest) gid=1000(guest)");
    world.run("--network none -u guest", "id -G").succeeds().prints("1000 50\n");
    world.run("--network none -u 123:45 --group-add staff", "id -u; id -G").succeeds().prints("123\n45 50\n");
    world.rengine(["run", "--rm", "--network", "none", "-u", "nobodyhere", BOX, "true"]).fails();
}

#[test]
fn flags_after_the_image_or_the_container_are_the_commands_own() {
    let world = World::new();
    world
        .rengine([
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "echo",
            BOX,
            "-c",
            "a=1",
            "--help",
            "-v",
        ])
        .prints("-c a=1 --help -v\n");
    world.background("--network none --name it", "sleep 1000");
    world.rengine(["exec", "it", "echo", "-e", "x", "--user"]).prints("x --user\n");
    world.rengine(["exec", "it", "--user", "0"]).exits(127).complains("--user");
    world.rengine(["top", "it", "-o", "pid,comm"]).succeeds().shows("sleep");
    world.rengine(["run", "--nosuch", BOX]).exits(125).complains("--nosuch");
}

#[test]
fn what_it_writes_stays_its_own_and_a_read_only_root_refuses() {
    let world = World::new();
    world.run("--network none", "echo x > /file && cat /file").succeeds().prints("x\n");
    world.run("--network none", "cat /file").fails();
    world.run("--network none --read-only", "echo x > /file").fails().complains("Read-only");
    world.run("--network none --read-only", "echo x > /etc/hosts").fails().complains("Read-only");
    world.run("--network none --read-only --tmpfs /tmp", "echo x > /tmp/file && cat /tmp/file").prints("x\n");
}

#[test]
fn standard_input_arrives_and_ends() {
    let world = World::new();
    world
        .feed(["run", "--rm", "-i", "--network", "none", BOX, "cat"], b"a line\n")
        .succeeds()
        .prints("a line\n");
    world.feed(["run", "--rm", "--network", "none", BOX, "cat"], b"a line\n").succeeds().prints("");
    let much = vec![b'x'; 1 << 20];
    world
        .feed(["run", "--rm", "-i", "--network", "none", BOX, "wc", "-c"], &much)
        .succeeds()
        .prints("1048576\n");
}

#[test]
fn a_container_is_started_stopped_and_started_again_with_its_files() {
    let world = World::new();
    let id = world.background("--network none --name it", "echo run >> /runs; cat /runs; exec sleep 1000");
    world.await_log("it", "run");
    assert_eq!(world.inspect("it", "{{.State.Status}} {{.State.Running}}"), "running true");
    world.rengine(["stop", "-t", "1", "it"]).succeeds().prints("it\n");
    assert_eq!(world.inspect("it", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    world.rengine(["start", "it"]).succeeds();
    world.await_log("it", "run\nrun");
    assert_eq!(world.inspect("it", "{{.Id}}"), id);
    world.rengine(["rm", "it"]).fails();
    world.rengine(["rm", "-f", "it"]).succeeds();
    world.rengine(["inspect", "it"]).exits(1);
}

#[test]
fn a_program_that_hears_its_stop_signal_ends_by_itself() {
    let world = World::new();
    let script = "trap 'echo bye; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
    world.background("--network none --name it --stop-signal USR1", script);
    world.await_log("it", "ready");
    world.rengine(["stop", "it"]).succeeds();
    assert_eq!(world.inspect("it", "{{.State.ExitCode}}"), "3");
    world.rengine(["logs", "it"]).succeeds().shows("bye");
}

#[test]
fn an_init_passes_signals_on_and_takes_orphans_in() {
    let world = World::new();
    // Without an init the shell would be process 1 and SIGTERM would be ignored.
    world.background("--network none --name it --init", "echo ready; exec sleep 1000");
    world.await_log("it", "ready");
    world.rengine(["stop", "-t", "60", "it"]).succeeds();
    assert_eq!(world.inspect("it", "{{.State.ExitCode}}"), "143");
}

#[test]
fn an_interrupt_of_the_client_reaches_the_program() {
    let world = World::new();
    let script = "trap 'exit 9' INT; echo ready >&2; while :; do sleep 0.1; done";
    let mut client =
        world.spawn(["run", "--rm", "--network", "none", "--name", "it", BOX, "sh", "-c", script]);
    // What the client passes on, it also catches signals for.
    client.await_line("ready");
    client.signal(Signal::INT);
    client.ends().exits(9);
}

#[test]
fn removing_itself_leaves_nothing() {
    let world = World::new();
    world.run("--network none -v /anonymous", "true").succeeds();
    world.rengine(["ps", "-aq"]).succeeds().prints("");
    world.rengine(["volume", "ls", "-q"]).succeeds().prints("");
}

#[test]
fn names_are_claimed_once_and_freed() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    world.rengine(["run", "-d", "--network", "none", "--name", "it", BOX, "true"]).exits(125).complains("it");
    world.rengine(["rename", "it", "that"]).succeeds();
    world.background("--network none --name it", "sleep 1000");
    world.rengine(["ps", "--format", "{{.Names}}"]).succeeds().shows("that").shows("it");
}

#[test]
fn a_policy_starts_it_again_until_a_person_stops_it() {
    let world = World::new();
    world.background("--network none --name it --restart on-failure:2", "echo try; exit 1");
    // Waiting ends with each end, as in docker, also when a policy starts it again.
    world.await_log("it", "try\ntry\ntry\n");
    world.rengine(["wait", "it"]).succeeds().prints("1\n");
    assert_eq!(world.inspect("it", "{{.State.Status}} {{.RestartCount}}"), "exited 2");
    world.rengine(["logs", "it"]).succeeds().prints("try\ntry\ntry\n");

    world.background("--network none --name other --restart always", "echo up; sleep 0.2");
    world.await_log("other", "up\nup");
    world.rengine(["stop", "-t", "0", "other"]).succeeds();
    assert_eq!(world.inspect("other", "{{.State.Running}}"), "false");
}

#[test]
fn a_container_that_removes_itself_stays_over_a_restart() {
    let world = World::new();
    world.rengine(["create", "--rm", "--network", "none", "--name", "it", BOX, "sleep", "1000"]).succeeds();
    // Its files are written while it rests, while it runs, and stay.
    let page = world.write("page", "one\n");
    world.rengine(["cp", page.to_str().unwrap(), "it:/page"]).succeeds();
    world.rengine(["start", "it"]).succeeds();
    world.rengine(["exec", "it", "sh", "-c", "echo two >> /page"]).succeeds();
    world.rengine(["restart", "-t", "0", "it"]).succeeds();
    world.rengine(["exec", "it", "cat", "/page"]).succeeds().prints("one\ntwo\n");
    world.rengine(["stop", "-t", "0", "it"]).succeeds();
    world.rengine(["ps", "-aq"]).succeeds().prints("");
}

#[test]
fn what_no_power_cut_would_leave_is_not_written_to_the_disk_for_one() {
    let world = World::new();
    let mounted = ["cat", "/proc/mounts"];
    for (options, is_volatile) in [(vec!["--rm"], true), (vec![], false)] {
        let command = ["run", "--network", "none"].into_iter().chain(options).chain([BOX]).chain(mounted);
        let shown = world.rengine(command).succeeds().stdout;
        let root = shown.lines().find(|line| line.contains(" / overlay ")).unwrap();
        assert_eq!(root.contains("volatile"), is_volatile, "{root}");
    }
}

#[test]
fn what_programs_look_for_in_a_container_is_there_and_no_change_of_it() {
    let world = World::new();
    let script = "test -f /.dockerenv && readlink /etc/mtab && head -n 1 /etc/hosts && \
        grep -E ' (/dev|/dev/shm|/proc|/t) ' /proc/mounts | cut -d ' ' -f 1,2 | sort";
    world
        .rengine(["run", "--network", "none", "--name", "it", "--tmpfs", "/t", BOX, "sh", "-c", script])
        .succeeds()
        .prints("/proc/mounts\n127.0.0.1\tlocalhost\nproc /proc\nshm /dev/shm\ntmpfs /dev\ntmpfs /t\n");
    let told = world.rengine(["diff", "it"]).succeeds().stdout;
    assert!(!told.contains("dockerenv") && !told.contains("mtab"), "{told}");
    world.rengine(["commit", "it", "made"]).succeeds();
    let files =
        world.rengine(["run", "--rm", "--network", "none", "made", "ls", "-a", "/"]).succeeds().stdout;
    assert_eq!(files.lines().filter(|name| *name == ".dockerenv").count(), 1);
}

#[test]
fn an_init_shows_nothing_of_the_host() {
    let world = World::new();
    let script = "tr '\\0' ' ' < /proc/1/cmdline";
    let shown = world.run("--init --network none", script).succeeds().stdout;
    assert_eq!(shown.trim_end(), "init");
}

#[test]
fn names_that_are_made_up_at_the_same_time_differ() {
    let world = World::new();
    // There are 1,024 short ones, and every birth of so many at once would meet some that are taken.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..40 {
                    world.rengine(["create", "--network", "none", BOX, "true"]).succeeds();
                }
            });
        }
    });
    let names = world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().stdout;
    let different: std::collections::BTreeSet<&str> = names.lines().collect();
    assert_eq!(different.len(), 160);
}

#[test]
fn a_terminal_is_a_terminal() {
    let world = World::new();
    let id = world.background("-t --network none", "tty; stty size; sleep 1000");
    world.await_log(&id, "/dev/pts/0");
    world.run("--network none", "tty").exits(1).prints("not a tty\n");
}

#[test]
fn kernel_parameters_and_limits_of_its_own() {
    let world = World::new();
    world
        .run(
            "--network none --sysctl net.ipv4.ip_forward=1 --ulimit nofile=100:200",
            "cat /proc/sys/net/ipv4/ip_forward; ulimit -n; ulimit -Hn",
        )
        .succeeds()
        .prints("1\n100\n200\n");
    world.run("--network none --shm-size 8m", "df -k /dev/shm | tail -1").succeeds().shows("8192");
}

#[test]
fn several_are_stopped_at_once() {
    let world = World::new();
    // Each ends only when both were asked to.
    let script = "trap 'touch /both/$HOSTNAME; until [ -e /both/one ] && [ -e /both/two ]; do usleep 1000; done; exit 0' TERM; \
        echo ready; while :; do usleep 1000; done";
    for name in ["one", "two"] {
        world.background(&format!("--network none --name {name} -h {name} -v both:/both"), script);
        world.await_log(name, "ready");
    }
    world
        .rengine(["stop", "-t", "60", "one", "nosuch", "two"])
        .exits(1)
        .prints("one\ntwo\n")
        .complains("nosuch");
    assert_eq!(world.inspect("one", "{{.State.ExitCode}}"), "0");
    assert_eq!(world.inspect("two", "{{.State.ExitCode}}"), "0");
    world.rengine(["rm", "one", "two"]).succeeds().prints("one\ntwo\n");
}

#[test]
fn top_and_ps_show_what_runs() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    world.rengine(["top", "it"]).succeeds().shows("sleep 1000");
    world.rengine(["ps"]).succeeds().shows("it").shows("Up ");
    world.rengine(["stop", "-t", "0", "it"]).succeeds();
    world.rengine(["ps", "-q"]).succeeds().prints("");
    world.rengine(["ps", "-a"]).succeeds().shows("Exited (137)");
}

#[test]
fn a_missing_image_is_named_and_nothing_is_left() {
    let world = World::empty();
    world.rengine(["run", "--rm", "--pull", "never", "nosuch:1", "true"]).exits(125).complains("nosuch:1");
    world.rengine(["ps", "-aq"]).succeeds().prints("");
    assert_eq!(std::fs::read_dir(world.root().container_runs()).unwrap().count(), 0);
}

#[test]
fn a_command_line_with_a_mistake_leaves_nothing() {
    let world = World::empty();
    world.rengine(["run", "--rm", "--nope", BOX, "true"]).exits(125).complains("--nope");
    world.rengine(["run", "--rm", "-v", "/here:relative", BOX, "true"]).exits(125).complains("relative");
    assert_eq!(std::fs::read_dir(world.root().container_runs()).unwrap().count(), 0);
}

#[test]
fn a_detached_container_outlives_its_client_and_waits_for_nobody() {
    let world = World::new();
    let id = world.background("--network none", "read nothing; echo over");
    assert_eq!(id.len(), 64);
    world.rengine(["wait", &id]).succeeds().prints("0\n");
    world.rengine(["logs", &id]).succeeds().prints("over\n");
}
