//! The machine goes down, in order or not, and comes up again.

use std::fs;

use engine::container::cgroup::Cgroup;
use engine::network::Networks;

use crate::world::{BOX, World, free_port};

/// One container of each kind, by its policy and what was done to it before.
fn populate(world: &World) {
    for (name, policy) in [
        ("always", "always"),
        ("stopped-always", "always"),
        ("unless", "unless-stopped"),
        ("stopped-unless", "unless-stopped"),
        ("failing", "on-failure"),
        ("never", "no"),
    ] {
        world.background(&format!("--network none --name {name} --restart {policy}"), "exec sleep 1000");
    }
    world
        .rengine(["create", "--network", "none", "--name", "unborn", "--restart", "always", BOX, "true"])
        .succeeds();
    world.rengine(["stop", "-t", "0", "stopped-always", "stopped-unless"]).succeeds();
}

fn running(world: &World) -> Vec<String> {
    let format = ["ps", "--format", "{{.Names}}"];
    let mut names: Vec<String> = world.rengine(format).succeeds().stdout.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Nothing but the state directory is there afterwards.
fn power_cut(world: &World, names: &[&str]) {
    for name in names {
        world.kill_monitor(name);
    }
    for id in Cgroup::list(world.root()).unwrap() {
        let cgroup = Cgroup::open(world.root(), &id).unwrap();
        cgroup.kill().unwrap();
        cgroup.remove().unwrap();
    }
    Networks::at(world.root()).teardown().unwrap();
    fs::remove_dir_all(world.root().run()).unwrap();
}

#[test]
fn after_a_power_cut_those_return_that_want_to() {
    let world = World::new();
    populate(&world);
    let port = free_port();
    world.background(
        &format!("--name web --restart always -p {port}:80"),
        "echo ready; exec nc -ll -p 80 -e echo hello",
    );
    world.await_log("web", "ready");
    power_cut(&world, &["always", "unless", "failing", "never", "web"]);
    let mut started: Vec<String> =
        world.rengine(["system", "boot"]).succeeds().stdout.lines().map(str::to_owned).collect();
    started.sort();
    let expected = ["always", "failing", "stopped-always", "unless", "web"];
    assert_eq!(started, expected);
    assert_eq!(running(&world), expected);
    assert_eq!(world.inspect("never", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    assert_eq!(world.inspect("unborn", "{{.State.Status}}"), "created");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
    world.await_log("web", "ready\nready");
    let mut answer = String::new();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert_eq!(answer, "hello\n");
    // A second time nothing is left to do but to say so.
    world.rengine(["system", "check"]).succeeds().prints("nothing was left behind\n");
}

#[test]
fn a_machine_that_goes_down_in_order_stops_nothing_by_hand() {
    let world = World::new();
    populate(&world);
    world.rengine(["system", "down"]).succeeds();
    assert!(!world.root().run().exists());
    assert_eq!(Cgroup::list(world.root()).unwrap(), []);
    world.rengine(["system", "boot"]).succeeds();
    // The shell that failing runs was ended by a signal, which is a failure.
    assert_eq!(running(&world), ["always", "failing", "stopped-always", "unless"]);
}

#[test]
fn systemd_is_told_to_boot_this_engine() {
    let world = World::new();
    let units = world.path("units");
    let path =
        world.rengine(["system", "install-boot", "--directory", units.to_str().unwrap()]).succeeds().line();
    let text = fs::read_to_string(path).unwrap();
    let root = world.root().state().to_str().unwrap();
    let command = format!("ExecStart={} --root {root} system boot\n", env!("CARGO_BIN_EXE_rengine"));
    assert!(text.contains(&command), "{text}");
    assert_eq!(fs::read_dir(units.join("multi-user.target.wants")).unwrap().count(), 1);
}
