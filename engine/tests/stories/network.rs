//! Networks: names, addresses and ports.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crate::world::{BOX, World, free_port};

/// A program that answers every connection with its host name.
const SERVE: &str = "hostname > /tmp/name; echo ready; exec nc -lk -p 80 -e cat /tmp/name";

fn ask(address: &str, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn containers_of_one_network_find_each_other_by_name() {
    let world = World::new();
    world.rengine(["network", "create", "lan"]).succeeds();
    world.background("--network lan --name server --network-alias also -h server", SERVE);
    world.await_log("server", "ready");
    for name in ["server", "also"] {
        world.run("--network lan", &format!("nc {name} 80")).succeeds().prints("server\n");
    }
    world.run("--network lan", "nslookup nosuch 127.0.0.11").fails();
}

#[test]
fn names_of_replicas_take_turns() {
    let world = World::new();
    world.rengine(["network", "create", "lan"]).succeeds();
    for name in ["one", "two", "three"] {
        world.background(&format!("--network lan --name {name} --network-alias web -h {name}"), SERVE);
        world.await_log(name, "ready");
    }
    let answers = world.run("--network lan", "nslookup web 127.0.0.11 | grep -c '^Address: [0-9]'").stdout;
    assert_eq!(answers.trim(), "3");
}

#[test]
fn networks_are_apart() {
    let world = World::new();
    for network in ["left", "right"] {
        world.rengine(["network", "create", network]).succeeds();
    }
    world.background("--network left --name server -h server", SERVE);
    world.await_log("server", "ready");
    let address = world.inspect("server", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    world.run("--network right", "nslookup server 127.0.0.11").fails();
    world.run("--network right", &format!("nc -w 2 {address} 80")).fails();
    world.run("--network left", &format!("nc -w 5 {address} 80")).succeeds().prints("server\n");
}

#[test]
fn a_published_port_answers_from_everywhere() {
    let world = World::new();
    let port = free_port();
    world.background(&format!("-p {port}:80 --name server -h server"), SERVE);
    world.await_log("server", "ready");
    assert_eq!(ask("127.0.0.1", port).unwrap(), "server\n");
    world.rengine(["port", "server"]).succeeds().shows(&format!("80/tcp -> 0.0.0.0:{port}"));
    // From another container and from itself, by an address of the host: the bridge's own.
    let gateway = world.inspect("server", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}");
    world.run("", &format!("nc -w 5 {gateway} {port}")).succeeds().prints("server\n");
    world.rengine(["exec", "server", "nc", "-w", "5", &gateway, &port.to_string()]).prints("server\n");
    world.rengine(["rm", "-f", "server"]).succeeds();
    assert!(ask("127.0.0.1", port).is_err());
}

#[test]
fn a_port_on_one_address_answers_there_alone() {
    let world = World::new();
    let port = free_port();
    world.background(&format!("-p 127.0.0.2:{port}:80 --name server -h server"), SERVE);
    world.await_log("server", "ready");
    assert_eq!(ask("127.0.0.2", port).unwrap(), "server\n");
    assert!(ask("127.0.0.1", port).is_err());
}

#[test]
fn datagrams_are_published_too() {
    let world = World::new();
    let port = free_port();
    world.background(&format!("-p {port}:90/udp --name server"), "echo ready; exec nc -u -l -p 90 -e cat");
    world.await_log("server", "ready");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(b"hello", ("127.0.0.1", port)).unwrap();
    let mut buffer = [0; 16];
    let count = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"hello");
}

#[test]
fn a_taken_port_is_refused_before_anything_starts() {
    let world = World::new();
    let port = free_port();
    let publish = format!("{port}:80");
    world.background(&format!("-p {publish} --name first"), "sleep 1000");
    let second = world.rengine(["run", "-d", "-p", &publish, "--name", "second", BOX, "sleep", "1000"]);
    second.exits(125).complains(&port.to_string()).complains("first");
    let listener = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let taken = listener.local_addr().unwrap().port();
    world.rengine(["run", "--rm", "-p", &format!("{taken}:80"), BOX, "true"]).exits(125);
}

#[test]
fn a_port_is_free_again_when_its_container_has_ended() {
    let world = World::new();
    let port = free_port();
    for turn in ["one", "two"] {
        world.background(&format!("--rm -p {port}:80 --name {turn} -h {turn}"), SERVE);
        world.await_log(turn, "ready");
        assert_eq!(ask("127.0.0.1", port).unwrap(), format!("{turn}\n"));
        world.rengine(["stop", "-t", "0", turn]).succeeds();
    }
}

#[test]
fn an_address_can_be_asked_for() {
    let world = World::new();
    let third = std::process::id() % 200;
    let subnet = format!("10.213.{third}.0/24");
    let address = format!("10.213.{third}.77");
    world.rengine(["network", "create", "--subnet", &subnet, "lan"]).succeeds();
    world.run(&format!("--network lan --ip {address}"), "ip -4 addr show eth0").succeeds().shows(&address);
    world.background(&format!("--network lan --ip {address} --name it"), "sleep 1000");
    world.rengine(["run", "--rm", "--network", "lan", "--ip", &address, BOX, "true"]).exits(125);
    world.rengine(["network", "rm", "lan"]).exits(1);
    world.rengine(["rm", "-f", "it"]).succeeds();
    world.rengine(["network", "rm", "lan"]).succeeds();
}

#[test]
fn an_internal_network_reaches_nothing_outside() {
    let world = World::new();
    world.rengine(["network", "create", "--internal", "inside"]).succeeds();
    world.run("--network inside", "ip route | grep -c default").prints("0\n");
}

#[test]
fn the_host_and_none_are_what_they_say() {
    let world = World::new();
    let links = world.run("--network host", "ls /sys/class/net | wc -l").succeeds().line();
    assert_eq!(links.parse(), Ok(std::fs::read_dir("/sys/class/net").unwrap().count()));
    world.run("--network none", "ls /sys/class/net").succeeds().prints("lo\n");
    world.background("--network none --name it", "sleep 1000");
    let theirs = world.rengine(["exec", "it", "readlink", "/proc/self/ns/net"]).succeeds().stdout;
    world.run("--network container:it", "readlink /proc/self/ns/net").succeeds().prints(&theirs);
}

#[test]
fn hosts_and_resolver_are_written_for_it() {
    let world = World::new();
    let outcome =
        world.run("--add-host far:192.0.2.1 -h here", "cat /etc/hosts /etc/resolv.conf; hostname -i");
    outcome.succeeds().shows("192.0.2.1\tfar").shows("here").shows("nameserver");
}

#[test]
fn bytes_go_both_ways_in_full() {
    let world = World::new();
    let port = free_port();
    world.background(&format!("-p {port}:80 --name server"), "echo ready; exec nc -lk -p 80 -e cat");
    world.await_log("server", "ready");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let sent = vec![7u8; 4 << 20];
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&bytes));
    let mut received = vec![0; sent.len()];
    stream.read_exact(&mut received).unwrap();
    writing.join().unwrap().unwrap();
    assert!(received == sent);
}
