//! What somebody removes of a running container's networks comes back by itself, and an event says so.

use std::io::{BufRead, BufReader};
use std::process::Command;

use crate::network::{SERVE, ask, serve};
use crate::world::{Running, World, free_port};

/// A server with a published port and a client on one network.
fn server_and_client(world: &World) -> u16 {
    world.rengine(["network", "create", "lan"]).succeeds();
    let port = free_port();
    serve(world, &format!("--network lan -p {port}:80"), "server", SERVE);
    world.background("--network lan --name client", "sleep 1000");
    port
}

fn host(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The link of the host that has this number.
fn link_of_number(number: &str) -> String {
    let prefix = format!("{number}: ");
    let links = host("ip", "-o link");
    let line = links.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
    line.split(['@', ':']).next().unwrap().to_owned()
}

fn host_end_of(world: &World, container: &str) -> String {
    let number = world.rengine(["exec", container, "cat", "/sys/class/net/eth0/iflink"]).succeeds().line();
    link_of_number(&number)
}

/// Waits for the next repairs until each of these has been told of.
fn await_repairs(events: &mut Running, wanted: &[&str]) {
    let mut wanted = wanted.to_vec();
    let mut lines = BufReader::new(events.output());
    while !wanted.is_empty() {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "no event of {wanted:?}");
        if let Some(at) = wanted.iter().position(|text| line.contains(text)) {
            wanted.remove(at);
        }
    }
}

fn repairs(world: &World) -> Running {
    let format = "{{.Actor.Attributes.name}} {{.Actor.Attributes.repair}}";
    world.follow(["events", "--since", "1h", "-f", "event=repair", "--format", format])
}

fn all_is_well(world: &World, port: u16) {
    world.rengine(["exec", "client", "nc", "-w", "5", "server", "80"]).succeeds().prints("server\n");
    assert_eq!(ask("127.0.0.1", port).unwrap(), "server\n");
}

#[test]
fn a_bridge_that_somebody_deletes_comes_back_with_everybody_on_it() {
    let world = World::new();
    let port = server_and_client(&world);
    let (server, client) = (host_end_of(&world, "server"), host_end_of(&world, "client"));
    let path = host("ip", &format!("-o link show {server}"));
    let bridge = path.split(" master ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let mut events = repairs(&world);
    host("ip", &format!("link del {bridge}"));
    await_repairs(
        &mut events,
        &[
            &format!("lan made the bridge {bridge} of network lan again"),
            &format!("lan plugged {server} into the bridge {bridge} again"),
            &format!("lan plugged {client} into the bridge {bridge} again"),
        ],
    );
    all_is_well(&world, port);
    // Who is watched over after that is watched over again.
    let mut events = repairs(&world);
    host("ip", &format!("addr flush dev {bridge}"));
    await_repairs(
        &mut events,
        &[&format!("lan gave the bridge {bridge} of network lan its addresses again")],
    );
    all_is_well(&world, port);
    world.rengine(["system", "check"]).succeeds();
}

#[test]
fn a_link_that_somebody_deletes_comes_back_as_it_was() {
    let world = World::new();
    let port = server_and_client(&world);
    let looks = || {
        let script = "ip -o addr show eth0 | sed 's/^[0-9]*: //'; ip route; cat /sys/class/net/eth0/address";
        world.rengine(["exec", "server", "sh", "-c", script]).succeeds().stdout
    };
    let before = looks();
    let end = host_end_of(&world, "server");
    let mut events = repairs(&world);
    host("ip", &format!("link del {end}"));
    await_repairs(&mut events, &["lan made the link eth0 of container server again"]);
    assert_eq!(looks(), before);
    assert_eq!(host_end_of(&world, "server"), end);
    all_is_well(&world, port);
    // What is taken away on purpose stays away.
    world.rengine(["network", "disconnect", "lan", "server"]).succeeds();
    world.rengine(["exec", "server", "ls", "/sys/class/net"]).succeeds().prints("lo\n");
    let told = ["events", "--since", "1h", "--until", "0s", "-f", "event=repair", "--format", "{{.Action}}"];
    world.rengine(told).succeeds().prints("repair\n");
}

#[test]
fn a_firewall_that_somebody_flushes_comes_back_by_itself() {
    let world = World::new();
    let port = server_and_client(&world);
    let table = world.root().tag();
    let rules = || host("nft", &format!("list table inet {table}"));
    let before = rules();
    let told = format!("lan made the firewall table {table} again");
    for (how, wanted) in [("flush", vec![told.as_str()]), ("delete", vec![told.as_str(); 2])] {
        host("nft", &format!("{how} table inet {table}"));
        await_repairs(&mut repairs(&world), &wanted);
        assert_eq!(rules(), before, "{how}");
        assert_eq!(ask("127.0.0.1", port).unwrap(), "server\n");
    }
}
