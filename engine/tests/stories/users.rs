//! Containers whose users are other users on the host.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::world::{BOX, World};

/// A range that is nobody's, for what is asked for by number.
const RANGE: &str = "--userns map:0:1500000000:65536";
const FIRST: u32 = 1_500_000_000;

fn ids(pid: &str, file: &str) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn root_in_the_container_is_not_root_on_the_host() {
    let world = World::new();
    let script = "id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /made; chown 5:6 /made; stat -c %u:%g /made /bin /dev/null";
    let line = "0 1500000000 65536";
    let shown: Vec<String> = world
        .run(&format!("--network none {RANGE}"), script)
        .succeeds()
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(shown, ["0", line, line, "5:6", "0:0", "0:0"]);
    let id = world.background(&format!("--network none {RANGE} --name it"), "touch /made; sleep 1000");
    world.await_file("it", "/made");
    let pid = world.inspect("it", "{{.State.Pid}}");
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), FIRST);
    assert_eq!(ids(&pid, "uid_map"), [0, FIRST, 65536]);
    // CVE-2021-21284: nothing on the host's disk belongs to the range, so nobody who gets out of the container owns
    // anything of the engine's. What the container wrote is kept with its own ids.
    let upper = world.root().container(&id.parse().unwrap()).join("upper");
    assert_eq!(fs::metadata(upper.join("made")).unwrap().uid(), 0);
    let theirs = walk(world.root().state()).into_iter().filter(|(_, uid)| *uid >= FIRST).collect::<Vec<_>>();
    assert_eq!(theirs, []);
}

fn walk(top: &std::path::Path) -> Vec<(std::path::PathBuf, u32)> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let metadata = entry.metadata().unwrap();
            found.push((entry.path(), metadata.uid()));
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn every_container_has_a_range_of_its_own() {
    let world = World::new();
    let firsts: Vec<u32> = ["one", "two"]
        .iter()
        .map(|name| {
            world.background(&format!("--network none --userns auto:size=4096 --name {name}"), "sleep 1000");
            let map = ids(&world.inspect(name, "{{.State.Pid}}"), "uid_map");
            assert_eq!((map[0], map[2]), (0, 4096));
            map[1]
        })
        .collect();
    assert!(firsts[0].abs_diff(firsts[1]) >= 4096, "{firsts:?}");
    assert_eq!(world.inspect("one", "{{.HostConfig.UsernsMode}}"), "auto:size=4096");
    world.run("--network none --userns auto:size=4096 -u 5000", "true").fails().complains("user 5000");
    // A range is free again once its container is removed.
    world.rengine(["rm", "-f", "one"]).succeeds();
    world.background("--network none --userns auto:size=4096 --name three", "sleep 1000");
    assert_eq!(ids(&world.inspect("three", "{{.State.Pid}}"), "uid_map")[1], firsts[0]);
}

#[test]
fn a_volume_is_shared_by_containers_with_different_ranges() {
    let world = World::new();
    let bound = world.path("bound");
    fs::create_dir(&bound).unwrap();
    let binds = format!("-v shared:/data -v {}:/bound", bound.display());
    world
        .run(
            &format!("--network none --userns auto {binds}"),
            "echo x > /data/file; chown 1000:1001 /data/file; touch /bound/root",
        )
        .succeeds();
    for users in ["auto:size=2000", "host"] {
        world
            .run(
                &format!("--network none --userns {users} {binds}"),
                "stat -c %u:%g /data/file /bound/root; echo y >> /data/file && rm /bound/root && touch /bound/root",
            )
            .succeeds()
            .prints("1000:1001\n0:0\n");
    }
    assert_eq!(fs::metadata(bound.join("root")).unwrap().uid(), 0);
}

#[test]
fn what_is_done_with_a_container_is_done_as_its_users() {
    let world = World::new();
    world.background(
        &format!(
            "{RANGE} --name it --tmpfs /fast --health-cmd true --health-interval 1s --shm-size 1m -m 64m"
        ),
        "echo said; touch /ready; sleep 1000",
    );
    world.await_file("it", "/ready");
    let exec = |flags: &[&str], script: &str| {
        let args: Vec<&str> = [&["exec"], flags, &["it", "sh", "-c", script]].concat();
        world.rengine(args)
    };
    exec(&[], "id -u; stat -c %u /proc/$$ /fast /dev/shm /dev/mqueue").succeeds().prints("0\n0\n0\n0\n0\n");
    exec(&["-u", "33:34"], "id -u; id -g; echo seen > /dev/stdout").succeeds().prints("33\n34\nseen\n");
    exec(&["-t"], "test -t 0 && stat -c %u:%g $(tty)").succeeds();
    let sent = world.write("sent", "text");
    world.rengine(["cp", sent.to_str().unwrap(), "it:/sent"]).succeeds();
    exec(&[], "cat /sent; stat -c %u /sent; chown 7 /sent").succeeds().prints("text0\n");
    let back = world.path("back");
    world.rengine(["cp", "-a", "it:/sent", back.to_str().unwrap()]).succeeds();
    assert_eq!(fs::metadata(&back).unwrap().uid(), 7);
    assert!(world.rengine(["diff", "it"]).succeeds().stdout.contains("A /sent"));
    world.await_log("it", "said");
    world.rengine(["stats", "--no-stream", "it"]).succeeds();
    world.rengine(["top", "it"]).succeeds();
    world.rengine(["commit", "it", "kept"]).succeeds();
    world.rengine(["run", "--rm", "--network", "none", "kept", "stat", "-c", "%u", "/sent"]).prints("7\n");
    world.rengine(["stop", "-t", "0", "it"]).succeeds();
    world.rengine(["cp", "it:/sent", "-"]).succeeds();
    world.rengine(["start", "it"]).succeeds();
    exec(&[], "stat -c %u /sent").prints("7\n");
}

#[test]
fn names_and_ports_work_with_mapped_users() {
    let world = World::new();
    world.rengine(["network", "create", "net"]).succeeds();
    world.background(
        "--userns auto --network net --name server -p 127.0.0.1::80",
        "mkdir /www; echo hello > /www/index.html; httpd -f -p 80 -h /www",
    );
    world
        .run(
            "--userns auto --network net --cap-add NET_ADMIN",
            "until wget -q -O - http://server/; do usleep 50000; done; ip link set lo down && echo ours",
        )
        .succeeds();
    let port = world.rengine(["port", "server", "80/tcp"]).succeeds().line();
    let mut stream = std::net::TcpStream::connect(port).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.ends_with("hello\n"), "{answer}");
}

#[test]
fn a_container_with_mapped_users_has_no_rights_outside() {
    let world = World::new();
    let secret = world.write("secret", "host");
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&secret, Some(2_000_000), Some(2_000_000)).unwrap();
    let bind = format!("{}:/secret", secret.display());
    // Every capability there is, and yet only over what is its own.
    let script = "cat /secret; mknod /null c 1 3; mount -o remount,rw /sys && echo x > /sys/kernel/uevent_helper; \
                  echo 1 > /proc/sys/kernel/sysrq; echo x > /proc/sys/kernel/core_pattern; hostname mine && hostname";
    let done = world.rengine([
        "run",
        "--rm",
        "--network",
        "none",
        "--userns",
        "auto",
        "--cap-add",
        "ALL",
        "--security-opt",
        "systempaths=unconfined",
        "-v",
        &bind,
        BOX,
        "sh",
        "-c",
        script,
    ]);
    let done = done.prints("mine\n");
    for step in ["/secret", "/null", "sysrq", "core_pattern"] {
        assert!(done.stderr.contains(step), "{step} is not refused: {}", done.stderr);
    }
}

#[test]
fn what_mapped_users_cannot_have_is_refused_by_name() {
    let world = World::new();
    world.background("--network none --name other --ipc shareable", "sleep 1000");
    for (flags, why) in [
        ("--privileged", "privileged"),
        ("--network host", "network namespace"),
        ("--network container:other", "network namespace"),
        ("--pid host", "PID namespace"),
        ("--pid container:other", "PID namespace"),
        ("--ipc container:other", "IPC namespace"),
        ("--cgroupns host", "cgroup namespace"),
        ("-v /tmp:/x:rshared", "cannot travel"),
    ] {
        world.run(&format!("--userns auto {flags}"), "true").fails().complains(why);
    }
    world.run("--userns somebody", "true").fails().complains("--userns");
    // Those without a map may join those with one: they have every right there anyway.
    world.background(&format!("--network none {RANGE} --name mapped --ipc shareable"), "sleep 1000");
    world
        .run("--network container:mapped --ipc container:mapped --pid container:mapped", "id -u; ls /dev/shm")
        .succeeds()
        .prints("0\n");
}

#[test]
fn contents_devices_and_images_belong_to_the_containers_users() {
    let world = World::new();
    let script = "stat -c %u:%g /dev/full /image/bin; echo x > /dev/full; cat /image/bin/busybox | wc -c > /size; test -f /sub/passwd && cat /dev/special/full | head -c 1 | wc -c";
    world
        .rengine([
            "run",
            "--rm",
            "--network",
            "none",
            "--userns",
            "auto",
            "--device",
            "/dev/full:/dev/special/full",
            "--mount",
            &format!("type=image,source={BOX},target=/image"),
            "--mount",
            &format!("type=image,source={BOX},target=/sub,image-subpath=etc"),
            BOX,
            "sh",
            "-c",
            script,
        ])
        .succeeds()
        .complains("No space left")
        .prints("0:0\n0:0\n1\n");
    world
        .run("--network none --userns auto --device /dev/full:/elsewhere/full", "true")
        .fails()
        .complains("all devices lie in /dev");
}
