//! Networks: names, addresses and ports.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::world::{BOX, World, free_port, wait_readable};

/// A program that answers every connection with its host name.
pub(crate) const SERVE: &str = "hostname > /tmp/name; nc -ll -p 80 -e cat /tmp/name & ";

/// Says so once something listens on port 80, and goes on for as long as it does.
const READY: &str = "until netstat -ltn | grep -q :80; do usleep 5000; done; echo ready; wait";

/// Starts a server of these words in the background and waits until it listens.
pub(crate) fn serve(world: &World, flags: &str, name: &str, program: &str) {
    world.background(&format!("{flags} --name {name} -h {name}"), &format!("{program}{READY}"));
    world.await_log(name, "ready");
}

pub(crate) fn ask(address: &str, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Does something in the network of a running container, for what busybox has no program for.
fn inside<T: Send + 'static>(world: &World, container: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let pid = world.inspect(container, "{{.State.Pid}}");
    let network = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        act()
    });
    thread.join().unwrap()
}

#[test]
fn containers_of_one_network_find_each_other_by_name() {
    let world = World::new();
    world.rengine(["network", "create", "lan"]).succeeds();
    serve(&world, "--network lan --network-alias also", "server", SERVE);
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
        world.background(&format!("--network lan --name {name} --network-alias web"), "sleep 1000");
    }
    let script =
        "for turn in 1 2 3 4 5 6; do nslookup -type=a web 127.0.0.11 | grep '^Address: '; echo; done";
    let answers = world.run("--network lan", script).succeeds().stdout;
    let answers: Vec<Vec<&str>> =
        answers.trim().split("\n\n").map(|answer| answer.lines().collect()).collect();
    assert!(answers.iter().all(|answer| answer.len() == 3), "{answers:?}");
    let firsts: BTreeSet<&str> = answers.iter().map(|answer| answer[0]).collect();
    assert_eq!(firsts.len(), 3, "{answers:?}");
}

#[test]
fn networks_are_apart() {
    let world = World::new();
    for network in ["left", "right"] {
        world.rengine(["network", "create", network]).succeeds();
    }
    serve(&world, "--network left", "server", SERVE);
    let address = world.inspect("server", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    world.run("--network right", "nslookup server 127.0.0.11").fails();
    world.run("--network right", &format!("nc -w 2 {address} 80")).fails();
    world.run("--network left", &format!("nc -w 5 {address} 80")).succeeds().prints("server\n");
}

#[test]
fn a_published_port_answers_from_everywhere() {
    let world = World::new();
    let port = free_port();
    serve(&world, &format!("-p {port}:80"), "server", SERVE);
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
fn who_comes_by_ipv6_reaches_what_has_ipv4_alone() {
    let world = World::new();
    let (port, narrow, six) = (free_port(), free_port(), free_port());
    let flags = format!("-p {port}:80 -p 127.0.0.1:{narrow}:80 -p [::1]:{six}:80");
    serve(&world, &flags, "server", SERVE);
    assert_eq!(ask("::1", port).unwrap(), "server\n");
    assert_eq!(ask("::1", six).unwrap(), "server\n");
    assert!(ask("::1", narrow).is_err());
    assert!(ask("127.0.0.1", six).is_err());
    let shown = world.rengine(["port", "server", "80"]).succeeds();
    for place in [format!("0.0.0.0:{port}"), format!("[::]:{port}"), format!("[::1]:{six}")] {
        assert!(shown.stdout.lines().any(|line| line == place), "{place} in {}", shown.stdout);
    }
    // Another container with the port is in the way by either family.
    world.rengine(["create", "-p", &format!("[::1]:{port}:80"), "--name", "other", BOX, "true"]).succeeds();
    world.rengine(["start", "other"]).exits(1).complains("in use by container server");
    world.rengine(["rm", "-f", "server"]).succeeds();
    assert!(ask("::1", port).is_err());
}

#[test]
fn the_relay_comes_back_when_it_is_killed_and_goes_when_nobody_needs_it() {
    let world = World::new();
    let port = free_port();
    serve(&world, &format!("-p {port}:80"), "server", SERVE);
    let killed = world.relay().unwrap();
    pidfd_send_signal(&killed, Signal::KILL).unwrap();
    assert!(wait_readable(&killed, Duration::from_secs(10)), "the relay does not die");
    world.rengine(["ps"]).succeeds().complains("started the relay of published ports again");
    assert_eq!(ask("::1", port).unwrap(), "server\n");
    let relay = world.relay().unwrap();
    world.rengine(["rm", "-f", "server"]).succeeds();
    assert!(wait_readable(&relay, Duration::from_secs(20)), "the relay stays");
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap();
    let tag = u32::from_str_radix(world.root().short_tag(), 16).unwrap();
    assert!(!addresses.contains(&format!("fd2e72656e6700020000000{tag:09x}")), "{addresses}");
}

#[test]
fn a_port_on_one_address_answers_there_alone() {
    let world = World::new();
    let port = free_port();
    serve(&world, &format!("-p 127.0.0.2:{port}:80"), "server", SERVE);
    assert_eq!(ask("127.0.0.2", port).unwrap(), "server\n");
    assert!(ask("127.0.0.1", port).is_err());
}

#[test]
fn datagrams_are_published_too() {
    let world = World::new();
    let port = free_port();
    world.background(&format!("-p {port}:90/udp --name server"), "sleep 1000");
    let server = inside(&world, "server", || UdpSocket::bind("0.0.0.0:90").unwrap());
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 16];
        let (count, client) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..count], client).unwrap();
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(b"hello", ("127.0.0.1", port)).unwrap();
    let mut buffer = [0; 16];
    let count = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"hello");
    echo.join().unwrap();
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
        serve(&world, &format!("--rm -p {port}:80"), turn, SERVE);
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
    let asked = format!(r#"{{"IPv4Address":"{address}"}}"#);
    assert_eq!(world.inspect("it", "{{json .NetworkSettings.Networks.lan.IPAMConfig}}"), asked);
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
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let theirs = world.run("--network host", "readlink /proc/self/ns/net").succeeds().line();
    assert_eq!(theirs, own.to_str().unwrap());
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
    serve(&world, &format!("-p {port}:80"), "server", "nc -ll -p 80 -e cat & ");
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

#[test]
fn a_link_has_the_name_and_the_kernel_parameters_that_are_asked_for() {
    const NAME: &str = "driver-opt=com.docker.network.endpoint.ifname";
    const SYSCTLS: &str = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    let world = World::new();
    for name in ["front", "back", "late"] {
        world.rengine(["network", "create", name]).succeeds();
    }
    let front = format!("name=front,{NAME}=outer,driver-opt={SYSCTLS}");
    let run = ["run", "-d", "--name", "it", "--network", &front, "--network", "back", BOX, "sleep", "1000"];
    world.rengine(run).succeeds();
    world.rengine(["network", "connect", "--driver-opt", SYSCTLS, "late", "it"]).succeeds();
    let show = "cd /sys/class/net; for name in *; do echo $name $(cat /proc/sys/net/ipv4/conf/$name/log_martians); done";
    let shown = world.rengine(["exec", "it", "sh", "-c", show]).succeeds().stdout;
    assert_eq!(shown, "eth1 0\neth2 1\nlo 0\nouter 1\n");
    let twice = format!("name=back,{NAME}=outer");
    let taken = world.rengine(["run", "--rm", "--network", &front, "--network", &twice, BOX, "true"]).fails();
    taken.complains("front and back would both be called outer");
    let unknown = "name=back,driver-opt=com.example.colour=red";
    world.rengine(["run", "--rm", "--network", unknown, BOX, "true"]).fails().complains("com.example.colour");
}
