//! Services of datagrams: who sends to them is answered by the release that serves, and waits for one that stops first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::world::World;

/// Answers each datagram with the page and what was in it. busybox has no such server.
const SERVER: &str = r#"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    char page[64] = "", in[512], out[640];
    FILE *file = fopen("/www/page", "r");
    if (!file || fscanf(file, "%63s", page) != 1) return 1;
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons(53)}, peer;
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&here, sizeof here)) return 1;
    for (;;) {
        socklen_t size = sizeof peer;
        ssize_t length = recvfrom(fd, in, sizeof in - 1, 0, (struct sockaddr *)&peer, &size);
        if (length < 0) continue;
        in[length] = 0;
        sendto(fd, out, snprintf(out, sizeof out, "%s %s", page, in), 0, (struct sockaddr *)&peer, size);
    }
}
"#;

/// A project whose service takes a second to listen. `more` goes into the service.
fn world(more: &str) -> World {
    let world = World::new(
        1,
        &format!(
            "services:
  talk:
    build: .
    command: [sh, -c, 'sleep 1; exec /server']
    ports: ['53/udp']
    stop_grace_period: 0s
    healthcheck: {{test: [CMD, grep, -q, ':0035', /proc/net/udp6], interval: 100ms, retries: 100}}
{more}"
        ),
    );
    world.write("server.c", SERVER);
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-o", "server", "server.c"]).current_dir(world.project());
    assert!(gcc.status().expect("gcc is installed").success());
    let dockerfile = std::fs::read_to_string(world.project().join("Dockerfile")).unwrap();
    world.write("Dockerfile", &dockerfile.replace("COPY page", "COPY server /server\nCOPY page"));
    world
}

/// Sends a datagram every few milliseconds from one port while something goes on. How many were sent, and the answers.
fn talk(to: SocketAddr, work: impl FnOnce()) -> (usize, Vec<String>) {
    let over = AtomicBool::new(false);
    let socket = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::]:0" }).unwrap();
    // Answers from elsewhere are not heard.
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let (mut sent, mut answers, mut buffer) = (0, Vec::new(), [0; 1024]);
            let mut quiet: Option<Instant> = None;
            while quiet.is_none_or(|since| since.elapsed() < Duration::from_secs(1)) {
                if !over.load(Ordering::SeqCst) {
                    sent += usize::from(socket.send(sent.to_string().as_bytes()).is_ok());
                } else if quiet.is_none() {
                    quiet = Some(Instant::now());
                }
                while let Ok(length) = socket.recv(&mut buffer) {
                    answers.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                }
            }
            (sent, answers)
        });
        work();
        over.store(true, Ordering::SeqCst);
        talking.join().unwrap()
    })
}

#[test]
fn a_flow_of_datagrams_follows_a_release_that_takes_over() {
    let world = world("");
    world.rdeploy(["up"]).succeeds();
    let port = world.port(0, "talk");
    world.page("two");
    let (sent, answers) =
        talk((Ipv4Addr::LOCALHOST, port).into(), || drop(world.rdeploy(["up", "--drain", "0s"]).succeeds()));
    assert_eq!(world.port(0, "talk"), port);
    assert!(answers.first().unwrap().starts_with("one ") && answers.last().unwrap().starts_with("two "));
    // One that is on its way in the very moment may be lost.
    assert!(answers.len() + 3 >= sent, "{} of {sent} were answered", answers.len());
}

#[test]
fn datagrams_wait_for_a_service_that_stops_first() {
    let world = world("    volumes: ['data:/data']\nvolumes: {data: {}}\n");
    world.rdeploy(["up"]).succeeds();
    let port = world.port(0, "talk");
    world.page("two");
    let (sent, answers) =
        talk((Ipv4Addr::LOCALHOST, port).into(), || drop(world.rdeploy(["up", "--drain", "0s"]).succeeds()));
    assert_eq!(world.port(0, "talk"), port, "the port has moved");
    assert!(answers.first().unwrap().starts_with("one ") && answers.last().unwrap().starts_with("two "));
    assert!(answers.len() + 3 >= sent, "{} of {sent} were answered", answers.len());
}

#[test]
fn datagrams_by_ipv6_wait_too() {
    let more = "    volumes: ['data:/data']\nvolumes: {data: {}}\nnetworks: {default: {enable_ipv6: true}}\n";
    let world = world(more);
    world.rdeploy(["up"]).succeeds();
    let container = world.engine(0).container("p-talk-1").unwrap();
    let mut gateways = container.endpoints[0].addresses.iter().filter_map(|entry| entry.gateway);
    let gateway = gateways.find(IpAddr::is_ipv6).unwrap();
    let port = container.ports.iter().find(|port| port.host_ip.is_ipv6()).unwrap().host_port;
    world.page("two");
    let up = || drop(world.rdeploy(["up", "--drain", "0s"]).succeeds());
    let (sent, answers) = talk((gateway, port).into(), up);
    assert!(answers.first().unwrap().starts_with("one ") && answers.last().unwrap().starts_with("two "));
    assert!(answers.len() + 3 >= sent, "{} of {sent} were answered", answers.len());
}
