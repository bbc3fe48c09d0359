//! Options of `run`: each does what it says, or says that it does not.

use std::fs;

use engine::container::cgroup::Layout;

use crate::world::{BOX, Running, World};

/// Runs `box` without a network with these flags, which may have spaces in them.
fn run(world: &World, flags: &[&str], script: &str) -> crate::world::Outcome {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(flags);
    args.extend([BOX, "sh", "-c", script]);
    world.rengine(args)
}

#[test]
fn what_could_not_be_had_is_said_when_it_starts() {
    let world = World::new();
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if let Some(own) = own {
        let wanted = format!("nofile=100:{}", own + 1);
        // Whether more can be had than one has is a right that root may lack.
        let outcome = run(&world, &["--ulimit", &wanted], "ulimit -n; ulimit -Hn").succeeds();
        let cut = outcome.stdout == format!("100\n{own}\n");
        assert_eq!(cut, outcome.stderr.contains("nofile"), "{}{}", outcome.stdout, outcome.stderr);
    }
    let warned = run(&world, &["--security-opt", "label=type:x", "--oom-kill-disable"], "true").succeeds();
    warned.complains("label=type:x").complains("out-of-memory");
}

#[test]
fn the_proxies_of_dockers_configuration_are_variables_unless_others_are_asked_for() {
    let world = World::new();
    let proxies = r#"{"proxies": {"default": {"httpProxy": "http://here:1", "noProxy": "a,b"}}}"#;
    world.write("docker/config.json", proxies);
    let seen = |flags: &[&str]| {
        let script = "env | grep -i proxy | sort";
        let args = [&["run", "--rm", "--network", "none"], flags, &[BOX, "sh", "-c", script]].concat();
        let mut command = world.command(args);
        Running::start(command.env("DOCKER_CONFIG", world.path("docker"))).ends().succeeds().stdout
    };
    let all = "HTTP_PROXY=http://here:1\nNO_PROXY=a,b\nhttp_proxy=http://here:1\nno_proxy=a,b\n";
    assert_eq!(seen(&[]), all);
    assert_eq!(seen(&["-e", "HTTP_PROXY=other"]), all.replacen("http://here:1", "other", 1));
    assert_eq!(seen(&["-e", "http_proxy="]), all.replace("http_proxy=http://here:1", "http_proxy="));
}

#[test]
fn a_limit_of_few_files_is_the_programs_and_not_the_launchs() {
    let world = World::new();
    for flags in [&["--ulimit", "nofile=4:5"][..], &["--ulimit", "nofile=4:5", "--userns", "auto"]] {
        let outcome = run(&world, flags, "ulimit -n; ulimit -Hn").succeeds();
        assert_eq!(outcome.stdout, "4\n5\n");
    }
    world.rengine(["run", "-d", "--name", "few", "--ulimit", "nofile=4:5", BOX, "sleep", "600"]).succeeds();
    let outcome = world.rengine(["exec", "few", "sh", "-c", "ulimit -n"]).succeeds();
    assert_eq!(outcome.stdout, "4\n");
}

#[test]
fn the_working_directory_is_made_below_a_read_only_root_too() {
    let world = World::new();
    let outcome = run(&world, &["--read-only", "-w", "/not/there", "--tmpfs", "/t"], "pwd").succeeds();
    assert_eq!(outcome.stdout, "/not/there\n");
    let outcome = run(&world, &["--read-only", "-w", "/t/deep", "--tmpfs", "/t"], "pwd").succeeds();
    assert_eq!(outcome.stdout, "/t/deep\n");
}

#[test]
fn a_mistake_is_told_before_an_image_is_looked_for() {
    let world = World::new();
    // Nobody listens there: whoever asks fails, and says so.
    let image = "127.0.0.1:1/nobody/has";
    for (flag, value, said) in [
        ("--userns", "automatic", "invalid --userns"),
        ("--memory", "1m", "below 6 MiB"),
        ("--cpuset-cpus", "x", "no list like 0-2,4"),
    ] {
        let outcome = world.rengine(["run", flag, value, image]).exits(125).complains(said);
        assert!(!outcome.stderr.contains("127.0.0.1:1"), "{}", outcome.stderr);
    }
    world
        .rengine(["run", image])
        .exits(125)
        .complains("reach the registry 127.0.0.1:1")
        .complains("hint: check");
}

#[test]
fn only_the_streams_named_are_attached() {
    let world = World::new();
    let script = "echo out; echo err >&2";
    let outcome = run(&world, &["-a", "stdout"], script).succeeds().prints("out\n");
    assert_eq!(outcome.stderr, "");
    run(&world, &["-a", "STDERR"], script).succeeds().prints("").complains("err");
    let args = ["run", "--rm", "-i", "-a", "stdin", "-a", "stdout", "--network", "none", BOX, "cat"];
    world.feed(args, b"in\n").succeeds().prints("in\n");
    // Whom nobody listens to is named.
    let id = run(&world, &["-a", "stdin"], script).succeeds().line();
    assert_eq!(id.len(), 64);
    run(&world, &["-d", "-a", "stdout"], script).exits(125).complains("conflicting");
}

#[test]
fn devices_are_given_by_rule_by_directory_and_by_name() {
    let world = World::new();
    let open = "mknod /t c 10 200; (: <>/t) 2>/dev/null && echo opened; true";
    run(&world, &[], open).prints("");
    run(&world, &["--device-cgroup-rule", "c 10:200 rwm"], open).prints("opened\n");
    run(&world, &["--device", "/dev/net:/dev/tunnels:rw"], "(: <>/dev/tunnels/tun) && echo opened")
        .prints("opened\n");
    run(&world, &["--device", "/nosuch"], "true").exits(125).complains("/nosuch");

    let missing = run(&world, &["--gpus", "all"], "true").exits(125).complains("nvidia.com/gpu=all");
    assert!(missing.stderr.contains("/etc/cdi"));
    fs::create_dir_all(world.root().cdi()).unwrap();
    let description = r#"{"cdiVersion": "0.6.0", "kind": "acme.com/pad",
        "containerEdits": {"env": ["WHOLE=1"]},
        "devices": [{"name": "one", "containerEdits": {
            "env": ["PAD=one"],
            "deviceNodes": [{"path": "/dev/pad", "hostPath": "/dev/net/tun", "permissions": "rw"}],
            "mounts": [{"hostPath": "/bin", "containerPath": "/pad", "options": ["ro", "nosuid", "rbind"]}],
            "hooks": [{"hookName": "createContainer", "path": "/nosuch/hook"}],
            "additionalGids": [77]}}]}"#;
    fs::write(world.root().cdi().join("acme.json"), description).unwrap();
    let script = "echo $PAD $WHOLE; id -G; (: <>/dev/pad) && grep -o '/pad ro,nosuid' /proc/self/mountinfo";
    run(&world, &["--device", "acme.com/pad=one"], script)
        .succeeds()
        .prints("one 1\n0 77\n/pad ro,nosuid\n")
        .complains("/nosuch/hook");
    run(&world, &["--device", "acme.com/pad=two"], "true").exits(125).complains("acme.com/pad=two");
    // The same for a command of a build, which asks for it by the class or by name.
    let build = |wish: &str, flags: &[&str]| {
        let script = "test \"$PAD-$WHOLE-$(id -G)\" = \"one-1-0 77\" && : <>/dev/pad";
        let file = world.write("build/Dockerfile", &format!("FROM box\nRUN --device={wish} {script}\n"));
        let context = file.parent().unwrap().to_str().unwrap().to_owned();
        let flags = ["build", "--no-cache", "--progress", "plain"].into_iter().chain(flags.iter().copied());
        world.rengine(flags.chain([context.as_str()]))
    };
    build("acme.com/pad", &["--allow", "device"]).succeeds();
    build("acme.com/pad=one,required", &["--allow", "device=acme.com/pad"]).succeeds();
    build("acme.com/pad=*", &[]).fails().complains("needs --allow device=acme.com/pad=one");
    build("acme.com/pad=two,required", &["--allow", "device"])
        .fails()
        .complains("no such device: acme.com/pad=two");
    // One that is not there and not required does not keep the command from running.
    build("acme.com/pad=two", &["--allow", "device"]).fails().complains("exit code: 1");
}

#[test]
fn an_image_can_be_mounted_whole_or_in_part() {
    let world = World::new();
    let file = world.write("Dockerfile", "FROM box\nRUN echo upper > /etc/upper\n");
    world.rengine(["build", "-q", "-t", "two", file.parent().unwrap().to_str().unwrap()]).succeeds();
    let whole = "cat /there/etc/upper; ls /there/bin/busybox; touch /there/x 2>/dev/null || echo refused";
    run(&world, &["--mount", "type=image,src=two,dst=/there"], whole)
        .succeeds()
        .prints("upper\n/there/bin/busybox\nrefused\n");
    let part = ["--mount", "type=image,source=two,target=/there,image-subpath=etc"];
    run(&world, &part, "cat /there/upper; ls /there").succeeds().shows("upper\n").shows("passwd");
    run(&world, &["--mount", "type=image,src=nosuch,dst=/there"], "true").exits(125).complains("nosuch");
    // What a container mounts is in use.
    world
        .rengine(["create", "--name", "it", "--mount", "type=image,src=two,dst=/there", BOX, "true"])
        .succeeds();
    world.rengine(["rmi", "two"]).fails();
}

#[test]
fn what_is_mounted_below_a_read_only_bind_can_be_left_writable() {
    // The host's own mounts are no place for a test, so that one container's devices are another one's host.
    let world = World::new();
    let script = |file: &str| format!("(echo x > {file}) 2>/dev/null && echo wrote; true");
    let bind = "type=bind,src=/dev,dst=/there,readonly";
    let write = script("/there/shm/rengine-options-test && rm /there/shm/rengine-options-test");
    run(&world, &["--mount", bind], &write).prints("");
    if fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /dev/shm ") {
        run(&world, &["--mount", &format!("{bind},bind-recursive=writable")], &write).prints("wrote\n");
        let alone = format!("{bind},bind-recursive=disabled");
        run(&world, &["--mount", &alone], "grep -c ' /there' /proc/self/mountinfo").prints("1\n");
    }
}

#[test]
fn propagation_that_the_host_does_not_allow_is_refused() {
    let world = World::new();
    let private = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/") && !line.contains(" shared:"));
    let bind = format!("{}:/there:rshared", world.path("").display());
    let outcome = run(&world, &["-v", &bind], "true");
    if private {
        outcome.exits(125).complains("private")
    } else {
        outcome.succeeds()
    };
}

#[test]
fn a_volume_is_made_with_the_labels_asked_for() {
    let world = World::new();
    let mount = "type=volume,src=things,dst=/there,volume-label=a=b,volume-nocopy";
    run(&world, &["--mount", mount], "echo x > /there/y").succeeds();
    world.rengine(["volume", "inspect", "-f", "{{.Labels.a}}", "things"]).prints("b\n");
    run(&world, &["--mount", "type=volume,src=things,dst=/there,volume-subpath=y"], "cat /there")
        .prints("x\n");
}

#[test]
fn linked_containers_are_known_by_the_names_given() {
    let world = World::new();
    world.background("--name web", "sleep 1000");
    let address = world.inspect("web", "{{.NetworkSettings.IPAddress}}");
    let hosts = ["run", "--rm", "--link", "web:alias", "--link", "web", BOX, "cat", "/etc/hosts"];
    world.rengine(hosts).succeeds().shows(&format!("{address}\talias\n")).shows(&format!("{address}\tweb\n"));
    world.rengine(["network", "create", "net"]).succeeds();
    world.background("--name db --network net", "sleep 1000");
    let ping = ["run", "--rm", "--network", "net", "--link", "db:store", BOX, "ping", "-c1", "-W5", "store"];
    world.rengine(ping).succeeds();
    world.rengine(["run", "--rm", "--link", "db", BOX, "true"]).exits(125).complains("link");
}

#[test]
fn a_link_local_address_is_one_more_on_the_link() {
    let world = World::new();
    world
        .rengine(["run", "--rm", "--link-local-ip", "169.254.7.7", BOX, "ip", "-4", "addr", "show", "eth0"])
        .succeeds()
        .shows("inet 169.254.7.7/16");
}

#[test]
fn only_what_is_shareable_is_shared() {
    let world = World::new();
    world.background(
        "--network none --name open --ipc shareable -h there",
        "echo x > /dev/shm/y; echo done; exec sleep 1000",
    );
    world.background("--network none --name shut", "sleep 1000");
    world.await_log("open", "done");
    run(&world, &["--ipc", "container:open"], "cat /dev/shm/y").prints("x\n");
    run(&world, &["--ipc", "container:shut"], "true").exits(125).complains("shareable");
    run(&world, &["--pid", "container:open"], "cat /proc/1/comm").prints("sleep\n");
    run(&world, &["--ipc", "none"], "ls /dev/shm").fails();
    run(&world, &["--ipc", "none"], "test -d /dev/mqueue").succeeds();
    world.rengine(["run", "--rm", "--network", "container:open", BOX, "hostname"]).prints("there\n");
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    run(&world, &["--uts", "host", "--userns", "host"], "hostname").prints(&format!("{host}\n"));
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_hides() {
    let world = World::new();
    run(&world, &["--tmpfs", "/etc", "--tmpfs", "/new"], "stat -c %a /etc /new").prints("755\n1777\n");
    run(&world, &["--tmpfs", "/etc:mode=700"], "stat -c %a /etc").prints("700\n");
    let options =
        ["create", "--name", "it", "--network", "none", "--tmpfs", "/t:noexec,size=1m,mode=700", BOX, "true"];
    world.rengine(options).succeeds();
    world
        .rengine(["inspect", "-f", "{{json .HostConfig.Tmpfs}}", "it"])
        .succeeds()
        .prints("{\"/t\":\"size=1048576,mode=700,noexec\"}\n");
}

#[test]
fn in_the_hosts_network_it_has_the_hosts_names() {
    let world = World::new();
    let own = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    world
        .run("--network host", "cat /proc/sys/kernel/hostname /etc/hostname; echo $HOSTNAME")
        .prints(&format!("{own}\n{own}\n{own}\n"));
    let names = std::fs::read_to_string("/etc/hosts").unwrap();
    world.run("--network host", "cat /etc/hosts").prints(&names);
    world
        .run("--network host --add-host here:host-gateway", "cat /etc/hosts")
        .prints(&format!("{}\n127.0.0.1\there\n", names.trim_end_matches('\n')));
    world.run("--network host --hostname other", "hostname").prints("other\n");
}

#[test]
fn each_line_of_a_log_carries_what_was_asked_for() {
    let world = World::new();
    let flags = "--network none --name it -l tier=web -e ZONE=b --log-opt labels=tier --log-opt env=ZONE";
    let mut args = vec!["run", "-d"];
    args.extend(flags.split(' '));
    args.extend(["--log-opt", "tag={{.Name}}@{{.ImageName}}", BOX, "echo", "hello"]);
    world.rengine(args).succeeds();
    world.rengine(["wait", "it"]).succeeds();
    world.rengine(["logs", "--details", "it"]).prints("ZONE=b,tag=it@box,tier=web hello\n");
    world.rengine(["logs", "it"]).prints("hello\n");
}

#[test]
fn a_health_check_of_the_image_is_retimed() {
    let world = World::new();
    let file = world.write("Dockerfile", "FROM box\nHEALTHCHECK --interval=1h CMD test -e /fine\n");
    world.rengine(["build", "-q", "-t", "checked", file.parent().unwrap().to_str().unwrap()]).succeeds();
    let create = [
        "create",
        "--name",
        "it",
        "--network",
        "none",
        "--health-interval",
        "2s",
        "--health-retries",
        "9",
        "checked",
        "true",
    ];
    world.rengine(create).succeeds();
    let shown = world.inspect(
        "it",
        "{{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Retries}} {{.Config.Healthcheck.Test}}",
    );
    assert!(shown.starts_with("2000000000 9 ") && shown.contains("/fine"), "{shown}");
}

#[test]
fn an_image_for_another_platform_is_not_taken_for_the_one_asked_for() {
    let world = World::new();
    let other = if cfg!(target_arch = "x86_64") { "linux/arm64" } else { "linux/amd64" };
    run(&world, &["--pull", "never", "--platform", other], "true").exits(125).complains(other);
    let own = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" };
    run(&world, &["--pull", "never", "--platform", own], "true").succeeds();
}

#[test]
fn control_groups_lie_where_they_were_told_to() {
    let world = World::new();
    let parent = format!("rengine-story-{}", std::process::id());
    let cgroups =
        run(&world, &["--cgroup-parent", &parent, "--cgroupns", "host"], "cat /proc/self/cgroup").succeeds();
    assert!(cgroups.stdout.contains(&format!(":/{parent}/")), "{}", cgroups.stdout);
    assert_eq!(engine::container::cgroup::Cgroup::list(world.root()).unwrap(), []);
    // The parent is its owner's, as with docker: here the test's.
    for mount in Layout::detect().unwrap().mounts() {
        let _ = fs::remove_dir(mount.join(&parent));
    }
    run(&world, &["--cgroup-parent", "../x"], "true").exits(125);
}

#[test]
fn rates_are_for_block_devices() {
    let world = World::new();
    run(&world, &["--device-read-bps", "/dev/null:1mb"], "true").exits(125).complains("/dev/null");
    run(&world, &["--device-write-iops", "/dev/nosuch:10"], "true").exits(125).complains("/dev/nosuch");
    assert_eq!(engine::container::cgroup::Cgroup::list(world.root()).unwrap(), []);
}

#[test]
fn what_cannot_be_started_is_not_created() {
    let world = World::new();
    for flags in [
        &["--sysctl", "kernel.hostname=x"][..],
        &["--network", "host", "--sysctl", "net.ipv4.ip_forward=1"],
        &["--cap-add", "NOSUCH"],
        &["--tmpfs", "/t:nosuch"],
        &["--security-opt", "seccomp=/nosuch"],
        &["--mount", "type=bind,src=/nosuch,dst=/x"],
        &["--runtime", "runsc"],
        &["--storage-opt", "size=1g"],
        &["--kernel-memory", "64m"],
        &["--isolation", "hyperv"],
    ] {
        let mut args = vec!["create"];
        args.extend(flags);
        args.extend([BOX, "true"]);
        world.rengine(args).exits(1);
    }
    world.rengine(["ps", "-aq"]).succeeds().prints("");
}

#[test]
fn a_cidfile_is_written_once() {
    let world = World::new();
    let file = world.path("cid");
    let flag = ["--cidfile", file.to_str().unwrap()];
    run(&world, &flag, "true").succeeds();
    assert_eq!(fs::read_to_string(&file).unwrap().len(), 64);
    run(&world, &flag, "true").exits(125).complains("exists");
}

#[test]
fn an_environment_file_adds_what_it_names() {
    let world = World::new();
    let file = world.write("env", "# remark\nA=1\nQUOTED=\"two words\"\nSURELY_UNSET\n");
    let script = "echo \"$A $QUOTED ${SURELY_UNSET-unset}\"";
    run(&world, &["--env-file", file.to_str().unwrap(), "-e", "A=2"], script)
        .prints("2 \"two words\" unset\n");
}
