//! Connecting running and stopped containers to networks, and disconnecting them.

use crate::network::{SERVE, ask, serve};
use crate::world::{BOX, World, free_port};

/// A world with these networks.
fn with_networks(names: &[&str]) -> World {
    let world = World::new();
    for name in names {
        world.rengine(["network", "create", name]).succeeds();
    }
    world
}

fn addresses(world: &World, container: &str) -> usize {
    let shown = world.rengine(["exec", container, "ip", "-4", "-o", "addr", "show"]).succeeds().stdout;
    shown.lines().filter(|line| !line.contains("127.0.0.1")).count()
}

#[test]
fn a_running_container_joins_a_network_and_is_found_there() {
    let world = with_networks(&["lan"]);
    serve(&world, "", "server", SERVE);
    world.rengine(["network", "connect", "--alias", "db", "lan", "server"]).succeeds().prints("");
    for name in ["server", "db"] {
        world.run("--network lan", &format!("nc -w 5 {name} 80")).succeeds().prints("server\n");
    }
    // It had no name server before, and now finds others as well.
    world.background("--network lan --name other", "sleep 1000");
    let outcome = world.rengine(["exec", "server", "nslookup", "other"]);
    outcome.succeeds().shows("127.0.0.11").shows("Name:\tother");
    let hosts = world.rengine(["exec", "server", "cat", "/etc/hosts"]).succeeds().stdout;
    let address = world.inspect("server", "{{.NetworkSettings.Networks.lan.IPAddress}}");
    assert!(hosts.contains(&format!("{address}\tserver")), "{hosts}");
    assert_eq!(addresses(&world, "server"), 2);
    world.rengine(["network", "connect", "lan", "server"]).exits(1).complains("attached already");
}

#[test]
fn a_disconnected_container_is_not_found_any_more() {
    let world = with_networks(&["left", "right"]);
    serve(&world, "--network left --network right", "server", SERVE);
    world.rengine(["network", "rm", "right"]).exits(1).complains("server");
    world.rengine(["network", "disconnect", "right", "server"]).succeeds();
    assert_eq!(addresses(&world, "server"), 1);
    world.run("--network right", "nslookup server 127.0.0.11").fails();
    world.run("--network left", "nc -w 5 server 80").succeeds().prints("server\n");
    world.rengine(["network", "disconnect", "right", "server"]).exits(1).complains("not attached");
    world.rengine(["network", "rm", "right"]).succeeds();
}

#[test]
fn published_ports_stay_when_the_network_behind_them_goes() {
    let world = with_networks(&["lan"]);
    let port = free_port();
    serve(&world, &format!("-p {port}:80 -p 81"), "server", SERVE);
    let ports = || world.rengine(["port", "server"]).succeeds().stdout;
    let before = ports();
    world.rengine(["network", "connect", "lan", "server"]).succeeds();
    assert_eq!(ports(), before);
    assert_eq!(ask("127.0.0.1", port).unwrap(), "server\n");
    world.rengine(["network", "disconnect", "bridge", "server"]).succeeds();
    assert_eq!(ports(), before);
    assert_eq!(ask("127.0.0.1", port).unwrap(), "server\n");
    // The way out goes over what is left.
    world.rengine(["exec", "server", "ip", "route"]).succeeds().shows("default via").shows("dev eth1");
    world.rengine(["network", "disconnect", "lan", "server"]).succeeds();
    assert_eq!(ports(), "");
    assert!(ask("127.0.0.1", port).is_err());
    world.rengine(["network", "connect", "lan", "server"]).succeeds();
    assert_eq!(ask("127.0.0.1", port).unwrap(), "server\n");
}

#[test]
fn the_network_with_the_highest_priority_leads_outside() {
    let world = with_networks(&["slow", "fast"]);
    world.background("--network slow --name it", "sleep 1000");
    world.rengine(["network", "connect", "--gw-priority", "1", "fast", "it"]).succeeds();
    world.rengine(["exec", "it", "ip", "route", "show", "default"]).succeeds().shows("dev eth1");
    world.rengine(["network", "disconnect", "fast", "it"]).succeeds();
    world.rengine(["exec", "it", "ip", "route", "show", "default"]).succeeds().shows("dev eth0");
}

#[test]
fn what_was_connected_stays_so_over_a_restart_and_a_stop() {
    let world = with_networks(&["left", "right"]);
    world.background("--network left --name it", "sleep 1000");
    world.rengine(["network", "connect", "--alias", "also", "right", "it"]).succeeds();
    world.rengine(["restart", "-t", "0", "it"]).succeeds();
    world.run("--network right", "nslookup -type=a also 127.0.0.11").succeeds().shows("Name:\talso");
    world.rengine(["stop", "-t", "0", "it"]).succeeds();
    world.rengine(["network", "disconnect", "left", "it"]).succeeds();
    world.rengine(["network", "connect", "bridge", "it"]).succeeds();
    world.rengine(["start", "it"]).succeeds();
    let names = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    assert_eq!(world.inspect("it", names), "bridge right");
}

#[test]
fn what_cannot_be_connected_is_refused_and_changes_nothing() {
    let world = with_networks(&["lan"]);
    world.background("--network host --name at-host", "sleep 1000");
    world.background("--name it", "sleep 1000");
    world.background("--network container:it --name inside", "sleep 1000");
    for (container, why) in [("at-host", "the host"), ("inside", "another container")] {
        world.rengine(["network", "connect", "lan", container]).exits(1).complains(why);
    }
    world.rengine(["network", "connect", "host", "it"]).exits(1).complains("host");
    world.rengine(["network", "connect", "nosuch", "it"]).exits(1).complains("nosuch");
    world.rengine(["network", "connect", "lan", "nosuch"]).exits(1).complains("nosuch");
    world.rengine(["network", "connect", "--ip", "192.0.2.7", "lan", "it"]).exits(1).complains("192.0.2.7");
    assert_eq!(addresses(&world, "it"), 1);
    // On the default network nobody would ever find the name.
    world.rengine(["run", "--rm", "--network-alias", "also", BOX, "true"]).exits(125).complains("alias");
}

#[test]
fn a_renamed_container_is_found_under_its_new_name() {
    let world = with_networks(&["lan"]);
    world.background("--network lan --name before", "sleep 1000");
    world.rengine(["rename", "before", "after"]).succeeds();
    world.run("--network lan", "nslookup -type=a after 127.0.0.11").succeeds().shows("Name:\tafter");
    world.run("--network lan", "nslookup before 127.0.0.11").fails();
    // As `inspect` shows names.
    world.rengine(["rename", "/after", "/later"]).succeeds();
    world.rengine(["inspect", "-f", "{{.Name}}", "/later"]).succeeds().prints("/later\n");
}

#[test]
fn what_somebody_wrote_into_hosts_stays() {
    let world = with_networks(&["lan"]);
    world.background("--name it", "echo 192.0.2.1 mine >> /etc/hosts; echo ready; sleep 1000");
    world.await_log("it", "ready");
    world.rengine(["network", "connect", "lan", "it"]).succeeds();
    world.rengine(["network", "disconnect", "bridge", "it"]).succeeds();
    let hosts = world.rengine(["exec", "it", "cat", "/etc/hosts"]).succeeds().stdout;
    assert!(hosts.contains("192.0.2.1 mine") && hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    assert_eq!(hosts.lines().count(), 3, "{hosts}");
}
