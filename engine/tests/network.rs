//! Networks on a real kernel. Each story plays on a host of its own: a fresh network namespace, which takes every
//! bridge, table and route with it when the story is over, however it ends.
#![expect(unsafe_code, reason = "entering a network namespace of a story's own")]
#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use engine::Root;
use engine::container::spec::{ContainerPort, DnsSpec, NetworkAttachment, PortBinding, Protocol};
use engine::id::ContainerId;
use engine::network::{
    self, DnsSockets, Endpoint, InsideLink, Network, NetworkSpec, Networks, Party, Resolver, Subnet,
    configure_inside, open_dns_sockets,
};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for a packet that would come, short enough for one that must not.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// A host with an engine on it.
struct Host {
    networks: Networks,
    root: Root,
    _state: tempfile::TempDir,
}

/// A network namespace with a process in it.
struct Place {
    process: Child,
}

/// A container, as far as its network goes.
struct Guest {
    place: Place,
    id: ContainerId,
    endpoints: Vec<Endpoint>,
}

/// Runs the story on a host of its own.
fn on_a_host(story: impl FnOnce(&Host) + Send) {
    thread::scope(|scope| {
        let play = scope.spawn(|| {
            // SAFETY: only this thread changes its namespace, and it holds nothing of the old one.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            ip("link set lo up");
            story(&Host::new());
        });
        if let Err(panic) = play.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn port(host_ip: Option<&str>, host_port: u16, container: u16, protocol: Protocol) -> PortBinding {
    PortBinding {
        host_ip: host_ip.map(|text| text.parse().unwrap()),
        host_port: (host_port != 0).then_some((host_port, host_port)),
        container: ContainerPort { port: container, protocol },
    }
}

fn on(network: &str) -> NetworkAttachment {
    NetworkAttachment {
        network: network.to_owned(),
        aliases: Vec::new(),
        addresses: Vec::new(),
        mac_address: None,
        gateway_priority: 0,
    }
}

/// Nobody has the same link-local address, so there is no need to wait a second for a duplicate of it.
fn trust_the_wire() {
    std::fs::write("/proc/sys/net/ipv6/conf/wire0/accept_dad", "0").unwrap();
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Host {
    /// Releases every container, and says how many there were.
    fn sweep(&self) -> usize {
        let holders = self.networks.holders().unwrap();
        holders.iter().for_each(|holder| self.networks.sweep(holder).unwrap());
        holders.len()
    }

    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let root = Root::at(state.path());
        Self { networks: Networks::at(&root), root, _state: state }
    }

    fn network(&self, name: &str) -> Network {
        self.networks.create(NetworkSpec::new(name.parse().unwrap())).unwrap()
    }

    fn internal(&self, name: &str) -> Network {
        let spec = NetworkSpec { internal: true, ..NetworkSpec::new(name.parse().unwrap()) };
        self.networks.create(spec).unwrap()
    }

    fn guest(&self, name: &str, attachments: &[NetworkAttachment]) -> Guest {
        let place = Place::new();
        let id = ContainerId::random();
        let party = Party { container: id.clone(), name: name.parse().unwrap(), hostname: None };
        let endpoints = self.networks.attach(&party, attachments).unwrap();
        let links = network::plug(&endpoints, place.pid()).unwrap();
        // As it travels from the monitor to the child.
        let message = serde_json::to_vec(&links).unwrap();
        place.enter(move || {
            let links: Vec<InsideLink> = serde_json::from_slice(&message).unwrap();
            configure_inside(&links).unwrap();
        });
        Guest { place, id, endpoints }
    }

    fn publish(&self, guest: &Guest, bindings: &[PortBinding]) -> Result<Vec<String>, String> {
        self.networks
            .publish(&guest.id, bindings, &guest.endpoints)
            .map(|ports| ports.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    /// Another machine on a wire to this host, whose address there is 198.51.100.1.
    fn neighbour(&self) -> Place {
        let place = Place::new();
        let pid = place.pid().as_raw_pid();
        ip(&format!("link add wire0 type veth peer name wire0 netns {pid}"));
        trust_the_wire();
        ip("addr add 198.51.100.1/24 dev wire0");
        ip("addr add 2001:db8::1/64 dev wire0 nodad");
        ip("link set wire0 up");
        place.enter(|| {
            ip("link set lo up");
            trust_the_wire();
            ip("addr add 198.51.100.9/24 dev wire0");
            ip("addr add 2001:db8::9/64 dev wire0 nodad");
            ip("link set wire0 up");
        });
        place
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.root.run());
    }
}

impl Place {
    fn new() -> Self {
        let mut process = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Runs this inside. Sockets that it returns stay inside.
    fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.process.id())).unwrap();
        thread::scope(|scope| {
            let visit = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                act()
            });
            visit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Serves TCP connections for ever: each is told the client's address and closed.
    fn serve_tcp(&self, at: &str, greeting: &'static str) {
        let listener = self.enter(|| TcpListener::bind(at).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = write!(stream, "{greeting} {}", stream.peer_addr().unwrap().ip());
            }
        });
    }

    fn serve_udp(&self, at: &str, greeting: &'static str) {
        let socket = self.enter(|| UdpSocket::bind(at).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{greeting} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    fn call(&self, to: &str) -> Option<String> {
        self.enter(|| call(to))
    }

    fn misses(&self, to: &str) -> bool {
        self.enter(|| is_silent(to))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Guest {
    fn ip(&self) -> IpAddr {
        self.endpoints[0].ipv4().unwrap()
    }

    fn at(&self, port: u16) -> String {
        SocketAddr::new(self.ip(), port).to_string()
    }

    fn call(&self, to: &str) -> Option<String> {
        self.place.call(to)
    }

    fn misses(&self, to: &str) -> bool {
        self.place.misses(to)
    }
}

/// What a TCP server there says, from the network namespace of this thread; `None` when nobody answers.
fn call(to: &str) -> Option<String> {
    // The first packet may well be lost: the kernel needs its moment to notice that a new link is up.
    call_within(to, PATIENCE)
}

/// Whether nobody there answers a call.
fn is_silent(to: &str) -> bool {
    call_within(to, IMPATIENCE).is_none()
}

fn call_within(to: &str, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), patience).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn call_udp(to: &str) -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(IMPATIENCE)).unwrap();
    let mut buffer = [0; 64];
    let asked = std::iter::repeat_with(|| socket.send(b"hello"));
    let length = asked.take(5).find_map(|sent| sent.and_then(|_| socket.recv(&mut buffer)).ok())?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn two_containers_of_a_network_reach_each_other() {
    on_a_host(|host| {
        host.network("back");
        let one = host.guest("one", &[on("back")]);
        let two = host.guest("two", &[on("back")]);
        assert_ne!(one.ip(), two.ip());
        one.place.serve_tcp(&one.at(80), "hello");
        assert_eq!(two.call(&one.at(80)), Some(format!("hello {}", two.ip())));
        // The host itself reaches them too.
        assert!(call(&one.at(80)).unwrap().starts_with("hello "));
        let links = two.place.enter(|| run("ip", "-o addr show dev eth0"));
        assert!(links.contains(&format!("inet {}/16", two.ip())), "{links}");
        assert!(!links.contains("inet6"), "{links}");
    });
}

#[test]
fn the_default_network_is_made_when_it_is_needed() {
    on_a_host(|host| {
        let names = || {
            let list = host.networks.list().unwrap();
            list.iter().map(|network| network.spec.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["bridge", "host", "none"]);
        let before = host.networks.find("bridge").unwrap();
        assert!(before.spec.subnets.is_empty());
        let guest = host.guest("one", &[]);
        let after = host.networks.find(&before.id.as_str()[..8]).unwrap();
        assert_eq!(after.id, before.id);
        assert!(after.spec.subnets[0].cidr.contains(guest.ip()));
        assert_eq!(names(), ["bridge", "host", "none"]);
        assert!(host.networks.remove(&after.id).unwrap_err().to_string().contains("built in"));
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere_it_should_be() {
    for bridge_filter in ["0", "1"] {
        on_a_host(|host| {
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridge_filter);
            let neighbour = host.neighbour();
            host.network("back");
            host.network("other");
            let web = host.guest("web", &[on("back")]);
            let peer = host.guest("peer", &[on("back")]);
            let stranger = host.guest("stranger", &[on("other")]);
            web.place.serve_tcp("0.0.0.0:80", "web");
            web.place.serve_udp("0.0.0.0:53", "dns");
            let ports = [port(None, 8080, 80, Protocol::Tcp), port(None, 5353, 53, Protocol::Udp)];
            assert_eq!(host.publish(&web, &ports).unwrap(), ["0.0.0.0:8080->80/tcp", "0.0.0.0:5353->53/udp"]);
            // From another machine, with its own address.
            assert_eq!(neighbour.call("198.51.100.1:8080").as_deref(), Some("web 198.51.100.9"));
            let answer = neighbour.enter(|| call_udp("198.51.100.1:5353"));
            assert_eq!(answer.as_deref(), Some("dns 198.51.100.9"));
            // From the host, by its own address and by the loopback one.
            assert!(call("198.51.100.1:8080").is_some(), "own address");
            assert!(call("127.0.0.1:8080").is_some(), "loopback");
            assert!(call_udp("127.0.0.1:5353").is_some(), "loopback udp");
            // From containers: a member, itself, and one of another network.
            assert!(peer.call("198.51.100.1:8080").is_some(), "member, filter {bridge_filter}");
            assert!(web.call("198.51.100.1:8080").is_some(), "itself, filter {bridge_filter}");
            assert!(stranger.call("198.51.100.1:8080").is_some(), "other network");
            assert!(peer.place.enter(|| call_udp("198.51.100.1:5353")).is_some(), "member udp");
            // Nothing else is.
            neighbour.enter(|| ip(&format!("route add {} via 198.51.100.1", web.ip())));
            assert!(neighbour.misses(&web.at(80)), "the container's own address from outside");
            assert!(stranger.misses(&web.at(80)), "the container's own address from another network");
            assert!(neighbour.misses("198.51.100.1:80"));
        });
    }
}

#[test]
fn a_port_published_on_loopback_stays_there() {
    on_a_host(|host| {
        let neighbour = host.neighbour();
        host.network("back");
        let web = host.guest("web", &[on("back")]);
        let peer = host.guest("peer", &[on("back")]);
        web.place.serve_tcp("0.0.0.0:80", "web");
        host.publish(&web, &[port(Some("127.0.0.1"), 8080, 80, Protocol::Tcp)]).unwrap();
        assert!(call("127.0.0.1:8080").is_some());
        assert!(neighbour.misses("198.51.100.1:8080"));
        let reach_for_loopback = |link: &str, gateway: &str| {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"), "1").unwrap();
            ip("addr del 127.0.0.1/8 dev lo");
            ip(&format!("route add 127.0.0.1 via {gateway}"));
        };
        neighbour.enter(|| reach_for_loopback("wire0", "198.51.100.1"));
        assert!(neighbour.misses("127.0.0.1:8080"));
        // Nor do containers reach what the host keeps to itself.
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        listener.set_nonblocking(true).unwrap();
        let gateway = peer.endpoints[0].addresses[0].gateway.unwrap().to_string();
        peer.place.enter(|| reach_for_loopback("eth0", &gateway));
        for target in ["127.0.0.1:9000", "127.0.0.1:8080"] {
            assert!(peer.misses(target), "{target}");
        }
        assert!(listener.accept().is_err());
    });
}

#[test]
fn a_container_reaches_the_outside_with_the_hosts_address() {
    on_a_host(|host| {
        let neighbour = host.neighbour();
        host.network("back");
        host.internal("closed");
        let guest = host.guest("one", &[on("back")]);
        let shut_in = host.guest("two", &[on("closed")]);
        neighbour.serve_tcp("0.0.0.0:7", "outside");
        assert_eq!(guest.call("198.51.100.9:7").as_deref(), Some("outside 198.51.100.1"));
        assert!(shut_in.misses("198.51.100.9:7"));
        // Not even when it helps itself to a route.
        let gateway = shut_in.ip().to_string().rsplit_once('.').unwrap().0.to_owned() + ".1";
        shut_in.place.enter(|| ip(&format!("route add default via {gateway}")));
        assert!(shut_in.misses("198.51.100.9:7"));
    });
}

#[test]
fn networks_are_kept_apart() {
    on_a_host(|host| {
        host.network("front");
        host.network("back");
        let web = host.guest("web", &[on("front")]);
        let db = host.guest("db", &[on("back")]);
        let app = host.guest("app", &[on("front"), NetworkAttachment { gateway_priority: 1, ..on("back") }]);
        db.place.serve_tcp("0.0.0.0:5432", "db");
        assert!(web.misses(&db.at(5432)));
        assert!(app.call(&db.at(5432)).is_some());
        let route = app.place.enter(|| run("ip", "route show default"));
        assert!(route.contains("dev eth1"), "{route}");
        // A second engine on the same machine is another network as well.
        let other = Host::new();
        other.network("front");
        let foreign = other.guest("web", &[on("front")]);
        assert!(foreign.misses(&db.at(5432)));
    });
}

#[test]
fn members_of_an_isolated_network_do_not_meet() {
    on_a_host(|host| {
        let mut spec = NetworkSpec::new("apart".parse().unwrap());
        spec.options.insert("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned());
        host.networks.create(spec).unwrap();
        let one = host.guest("one", &[on("apart")]);
        let two = host.guest("two", &[on("apart")]);
        one.place.serve_tcp("0.0.0.0:80", "one");
        assert!(two.misses(&one.at(80)));
        assert!(call(&one.at(80)).is_some());
    });
}

#[test]
fn a_taken_port_names_who_has_it() {
    on_a_host(|host| {
        host.network("back");
        let web = host.guest("web", &[on("back")]);
        let late = host.guest("late", &[on("back")]);
        let tcp = |host_ip, host_port| port(host_ip, host_port, 80, Protocol::Tcp);
        host.publish(&web, &[tcp(None, 8080)]).unwrap();
        let refused = |binding| host.publish(&late, &[binding]).unwrap_err();
        assert_eq!(refused(tcp(None, 8080)), "port 0.0.0.0:8080/tcp is in use by container web");
        assert_eq!(
            refused(tcp(Some("127.0.0.1"), 8080)),
            "port 127.0.0.1:8080/tcp is in use by container web"
        );
        assert_eq!(
            refused(tcp(Some("203.0.113.77"), 81)),
            "port 203.0.113.77:81/tcp cannot be published: 203.0.113.77 is no address of this host"
        );
        let _server = TcpListener::bind("127.0.0.1:9000").unwrap();
        let text = refused(tcp(None, 9000));
        let pid = std::process::id();
        let expected = format!("port 0.0.0.0:9000/tcp is in use by another program (pid {pid} ");
        assert!(text.starts_with(&expected), "{text}");
        // The other protocol, and the other address, are other ports.
        let others = [tcp(Some("127.0.0.2"), 9000), port(None, 8080, 80, Protocol::Udp)];
        host.publish(&late, &others).unwrap();
        // An engine of another root is asked as well.
        let other = Host::new();
        other.network("back");
        let foreign = other.guest("foreign", &[on("back")]);
        assert_eq!(
            other.publish(&foreign, &[tcp(None, 8080)]).unwrap_err(),
            format!("port 0.0.0.0:8080/tcp is in use by container web of the engine {}", host.root.tag())
        );
        // All or nothing: the free one of the two was not taken.
        assert!(host.publish(&late, &[tcp(None, 8181), tcp(None, 8080)]).is_err());
        host.publish(&web, &[tcp(None, 8080), tcp(None, 8181)]).unwrap();
        // A range gives the first free one; no port at all gives any.
        let range = PortBinding { host_port: Some((8080, 8090)), ..tcp(None, 0) };
        let ports = host.publish(&late, &[range, port(None, 0, 81, Protocol::Tcp)]).unwrap();
        assert_eq!(ports[0], "0.0.0.0:8081->80/tcp");
        assert!(ports[1].ends_with("->81/tcp"));
        // And a port that was let go is free.
        host.networks.release(&web.id).unwrap();
        host.networks.release(&web.id).unwrap();
        other.publish(&foreign, &[tcp(None, 8080)]).unwrap();
    });
}

#[test]
fn ports_move_to_another_container_at_once() {
    on_a_host(|host| {
        host.network("back");
        let old = host.guest("web-1", &[on("back")]);
        let new = host.guest("web-2", &[on("back")]);
        new.place.serve_tcp("0.0.0.0:80", "new");
        new.place.serve_udp("0.0.0.0:53", "new");
        old.place.serve_udp("0.0.0.0:53", "old");
        let listener = old.place.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
        let ports = [port(None, 8080, 80, Protocol::Tcp), port(None, 5353, 53, Protocol::Udp)];
        host.publish(&old, &ports).unwrap();
        // A connection that is open stays with the old container.
        let mut client = TcpStream::connect("127.0.0.1:8080").unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert!(call_udp("127.0.0.1:5353").unwrap().starts_with("old"));
        let moved = host.networks.move_ports(&old.id, &new.id).unwrap();
        assert_eq!(moved.len(), 2);
        assert!(call("127.0.0.1:8080").unwrap().starts_with("new"));
        assert!(call_udp("127.0.0.1:5353").unwrap().starts_with("new"));
        server.write_all(b"still here").unwrap();
        let mut buffer = [0; 10];
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"still here");
        assert_eq!(host.networks.published(&old.id).unwrap(), []);
        assert_eq!(host.networks.published(&new.id).unwrap(), moved);
        host.networks.release(&old.id).unwrap();
        assert!(call("127.0.0.1:8080").unwrap().starts_with("new"));
    });
}

#[test]
fn what_is_flushed_comes_back_with_the_next_container() {
    on_a_host(|host| {
        let back = host.network("back");
        let web = host.guest("web", &[on("back")]);
        web.place.serve_tcp("0.0.0.0:80", "web");
        host.publish(&web, &[port(None, 8080, 80, Protocol::Tcp)]).unwrap();
        let before = run("nft", "list ruleset");
        assert!(before.contains(&format!("table inet {}", host.root.tag())), "{before}");
        assert!(before.contains(&back.bridge), "{before}");
        assert!(before.contains(&format!("comment \"{} web\"", web.id.short())), "{before}");
        run("nft", "flush ruleset");
        assert!(is_silent("127.0.0.1:8080"));
        host.guest("two", &[on("back")]);
        assert!(call("127.0.0.1:8080").is_some());
        assert_eq!(run("nft", "list ruleset"), before);
    });
}

#[test]
fn nothing_is_left_when_all_is_removed() {
    on_a_host(|host| {
        let back = host.network("back");
        let closed = host.internal("closed");
        let guest = host.guest("web", &[on("back"), on("closed")]);
        host.guest("other", &[]);
        host.publish(&guest, &[port(None, 8080, 80, Protocol::Tcp)]).unwrap();
        let text = host.networks.remove(&back.id).unwrap_err().to_string();
        assert_eq!(text, "the network back is in use by container web");
        assert_eq!(host.sweep(), 2);
        host.networks.remove(&back.id).unwrap();
        assert_eq!(host.networks.prune(&|_| false).unwrap().len(), 1);
        assert!(host.networks.find(closed.id.as_str()).is_err());
        let elements = run("nft", "list ruleset");
        for left in [back.bridge.as_str(), closed.bridge.as_str(), "8080"] {
            assert!(!elements.contains(left), "{elements}");
        }
        host.networks.teardown().unwrap();
        host.networks.teardown().unwrap();
        assert_eq!(run("nft", "list ruleset"), "");
        let links = run("ip", "-br link");
        assert!(!links.contains(host.root.short_tag()), "{links}");
        // The next container has it all again.
        let again = host.guest("again", &[]);
        again.place.serve_tcp("0.0.0.0:80", "again");
        assert!(call(&again.at(80)).is_some());
    });
}

#[test]
fn fifty_containers_attach_at_once_with_addresses_of_their_own() {
    on_a_host(|host| {
        host.network("back");
        let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let attach = |number: usize| {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).unwrap();
            let guest = host.guest(&format!("many-{number}"), &[on("back")]);
            let binding = port(None, 0, 80, Protocol::Tcp);
            assert_eq!(host.publish(&guest, &[binding]).unwrap().len(), 1);
            guest.ip()
        };
        let mut addresses: Vec<IpAddr> = thread::scope(|scope| {
            let attach = &attach;
            let attaching: Vec<_> = (0..50).map(|number| scope.spawn(move || attach(number))).collect();
            attaching.into_iter().map(|one| one.join().unwrap()).collect()
        });
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 50);
        assert_eq!(host.sweep(), 50);
    });
}

#[test]
fn addresses_are_given_as_asked() {
    on_a_host(|host| {
        let subnet = |cidr: &str| Subnet {
            cidr: cidr.parse().unwrap(),
            gateway: None,
            ip_range: None,
            aux_addresses: [].into(),
        };
        let mut spec = NetworkSpec::new("fixed".parse().unwrap());
        spec.subnets = vec![Subnet {
            gateway: Some(address("10.77.0.254")),
            ip_range: Some("10.77.0.128/25".parse().unwrap()),
            aux_addresses: [("router".to_owned(), address("10.77.0.128"))].into(),
            ..subnet("10.77.0.0/24")
        }];
        host.networks.create(spec).unwrap();
        let wanted = |text: &str| NetworkAttachment { addresses: vec![address(text)], ..on("fixed") };
        assert_eq!(host.guest("first", &[on("fixed")]).ip(), address("10.77.0.129"));
        let fixed = host.guest("fixed", &[wanted("10.77.0.5")]);
        assert_eq!(fixed.ip(), address("10.77.0.5"));
        let refused = |text: &str| {
            let container = ContainerId::random();
            let party = Party { container, name: "late".parse().unwrap(), hostname: None };
            host.networks.attach(&party, &[wanted(text)]).unwrap_err().to_string()
        };
        assert_eq!(
            refused("10.77.0.5"),
            "the address 10.77.0.5 of the network fixed is in use by container fixed"
        );
        assert_eq!(refused("10.78.0.5"), "the address 10.78.0.5 lies in no subnet of the network fixed");
        assert!(refused("10.77.0.254").contains("the gateway's"));
        // An address that was let go is not given again at once.
        host.networks.release(&fixed.id).unwrap();
        assert_eq!(host.guest("third", &[on("fixed")]).ip(), address("10.77.0.130"));
        // A second network with the same addresses cannot be.
        let mut twin = NetworkSpec::new("twin".parse().unwrap());
        twin.subnets = vec![subnet("10.77.0.0/16")];
        assert_eq!(
            host.networks.create(twin).unwrap_err().to_string(),
            "the subnet 10.77.0.0/16 overlaps with the network fixed"
        );
    });
}

#[test]
fn a_network_with_both_families_works_in_both() {
    on_a_host(|host| {
        let neighbour = host.neighbour();
        let spec = NetworkSpec { ipv6: true, ..NetworkSpec::new("dual".parse().unwrap()) };
        host.networks.create(spec).unwrap();
        let web = host.guest("web", &[on("dual")]);
        let peer = host.guest("peer", &[on("dual")]);
        let six = web.endpoints[0].ipv6().unwrap();
        web.place.serve_tcp("[::]:80", "web");
        assert!(peer.call(&format!("[{six}]:80")).is_some());
        let ports = host.publish(&web, &[port(None, 8080, 80, Protocol::Tcp)]).unwrap();
        assert_eq!(ports, ["0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp"]);
        assert_eq!(neighbour.call("[2001:db8::1]:8080").as_deref(), Some("web 2001:db8::9"));
        assert!(neighbour.call("198.51.100.1:8080").is_some());
        assert!(peer.call("[2001:db8::1]:8080").is_some());
        neighbour.serve_tcp("[::]:7", "outside");
        assert_eq!(web.call("[2001:db8::9]:7").as_deref(), Some("outside 2001:db8::1"));
        neighbour.enter(|| ip(&format!("route add {six} via 2001:db8::1")));
        assert!(neighbour.misses(&format!("[{six}]:80")));
    });
}

/// A name server of the outside: it answers every question with this address, after as many refusals as asked for, and
/// counts what it was asked. It serves UDP and TCP at the same port.
struct Outside {
    at: SocketAddr,
    asked: std::sync::Arc<AtomicUsize>,
}

impl Outside {
    fn answering(address: [u8; 4], refusing: bool) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(at).unwrap();
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = udp.send_to(&Self::reply(&buffer[..length], address, refusing), peer);
            }
        });
        let count = asked.clone();
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let reply = Self::reply(&question, address, refusing);
                stream.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&reply).unwrap();
            }
        });
        Self { at, asked }
    }

    fn reply(question: &[u8], address: [u8; 4], refusing: bool) -> Vec<u8> {
        // Everything behind the question itself, such as EDNS, is left out.
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut reply = question[..end].to_vec();
        reply[2] |= 0x80;
        reply[3] = if refusing { 0x85 } else { 0x80 };
        reply[6..12].copy_from_slice(&[0, u8::from(!refusing), 0, 0, 0, 0]);
        if !refusing {
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            reply.extend_from_slice(&address);
        }
        reply
    }

    fn times_asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Runs the story while a resolver serves the guest, as its monitor would: from the host's namespace, in a poll loop.
fn while_resolving(host: &Host, guest: &Guest, servers: &[SocketAddr], story: impl FnOnce()) {
    let sockets = guest.place.enter(|| open_dns_sockets().unwrap());
    // As they travel from the child to the monitor.
    let sockets = DnsSockets::from_descriptors(sockets.into_descriptors()).unwrap();
    let mut resolver = Resolver::new(sockets, &host.networks, &guest.id, &DnsSpec::default())
        .unwrap()
        .asking(servers.to_vec());
    let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let (end, told) = rustix::pipe::pipe().unwrap();
    let wakes = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).unwrap();
            loop {
                use rustix::event::{PollFd, PollFlags, poll};
                let mut fds = [PollFd::new(&resolver, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
                poll(&mut fds, None).unwrap();
                if done.load(Ordering::Relaxed) {
                    return;
                }
                wakes.fetch_add(1, Ordering::Relaxed);
                resolver.ready();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        done.store(true, Ordering::Relaxed);
        drop(told);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    // A resolver that spins would be woken millions of times.
    assert!(wakes.load(Ordering::Relaxed) < 10_000);
}

/// What dig(1) prints inside, line by line.
fn dig(guest: &Guest, arguments: &str) -> Vec<String> {
    let text = guest.place.enter(|| run("dig", &format!("@127.0.0.11 +tries=1 +time=3 {arguments}")));
    text.lines().map(str::to_owned).collect()
}

fn short(guest: &Guest, arguments: &str) -> Vec<String> {
    dig(guest, &format!("+short {arguments}"))
}

#[test]
fn containers_find_each_other_by_name() {
    on_a_host(|host| {
        host.network("back");
        host.network("front");
        let outside = Outside::answering([192, 0, 2, 77], false);
        let web = host.guest("web", &[on("front"), on("back")]);
        let db = host.guest("My_db.1", &[NetworkAttachment { aliases: vec!["db".to_owned()], ..on("back") }]);
        let hidden = host.guest("hidden", &[]);
        while_resolving(host, &web, &[outside.at], || {
            let address = db.ip().to_string();
            for name in ["My_db.1", "db", "DB", "db.", "dB.back", db.id.short(), "my_db.1.back"] {
                assert_eq!(short(&web, name), [address.as_str()], "{name}");
                assert_eq!(short(&web, &format!("+tcp {name}")), [address.as_str()], "{name} over TCP");
            }
            assert_eq!(short(&web, &format!("-x {address}")), ["My_db.1.back."]);
            // A name that is known has no other records, and nobody else is asked for them.
            let empty = dig(&web, "db AAAA").join("\n");
            assert!(empty.contains("status: NOERROR") && empty.contains("ANSWER: 0"), "{empty}");
            assert!(dig(&web, "db MX").join("").contains("status: NOERROR"));
            assert_eq!(outside.times_asked(), 0);
            // Names that are not known are asked outside, those of other networks among them.
            assert_eq!(short(&web, "example.org"), ["192.0.2.77"]);
            assert_eq!(short(&web, "+tcp example.org"), ["192.0.2.77"]);
            assert_eq!(short(&web, "hidden"), ["192.0.2.77"]);
            assert_eq!(outside.times_asked(), 3);
            // The names of a container come and go with it.
            let late = host.guest("late", &[on("back")]);
            assert_eq!(short(&web, "late"), [late.ip().to_string()]);
            host.networks.rename(&late.id, &"later".parse().unwrap()).unwrap();
            assert_eq!(short(&web, "later"), [late.ip().to_string()]);
            host.networks.release(&late.id).unwrap();
            assert_eq!(short(&web, "later"), ["192.0.2.77"]);
            // A server of the container's own on port 53 is not in the way.
            web.place.serve_udp("0.0.0.0:53", "own");
            assert!(web.place.enter(|| call_udp(&web.at(53))).unwrap().starts_with("own"));
            assert_eq!(short(&web, "db"), [address.as_str()]);
        });
        drop(hidden);
    });
}

#[test]
fn a_shared_alias_is_answered_by_all_who_have_it_in_turn() {
    on_a_host(|host| {
        host.network("back");
        let shared = || NetworkAttachment { aliases: vec!["app".to_owned()], ..on("back") };
        let guests: Vec<Guest> =
            (1..=60).map(|number| host.guest(&format!("app-{number}"), &[shared()])).collect();
        while_resolving(host, &guests[0], &[], || {
            let first: Vec<String> = (0..4).map(|_| short(&guests[0], "+tcp app")[0].clone()).collect();
            assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "{first:?}");
            // Sixty addresses do not fit into 512 bytes: the client is told to come by TCP, and does.
            assert_eq!(short(&guests[0], "+noedns app").len(), 60);
            assert!(dig(&guests[0], "+noedns +ignore app").iter().any(|line| line.contains("flags: qr tc")));
            // With EDNS they fit.
            assert_eq!(short(&guests[0], "+bufsize=4096 +ignore app").len(), 60);
        });
    });
}

#[test]
fn servers_outside_are_asked_one_after_the_other() {
    on_a_host(|host| {
        host.network("back");
        host.internal("closed");
        let guest = host.guest("one", &[on("back")]);
        let refusing = Outside::answering([0; 4], true);
        let answering = Outside::answering([192, 0, 2, 78], false);
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        while_resolving(host, &guest, &[nobody, refusing.at, answering.at], || {
            for arguments in ["example.org", "+tcp example.org"] {
                assert_eq!(short(&guest, arguments), ["192.0.2.78"], "{arguments}");
            }
            // Many at once, of which each gets its own answer.
            let names: Vec<String> = (0..40).map(|number| format!("n{number}.example.org")).collect();
            assert_eq!(short(&guest, &names.join(" ")).len(), 40);
        });
        while_resolving(host, &guest, &[nobody, refusing.at], || {
            assert!(dig(&guest, "example.org").join("").contains("status: REFUSED"));
        });
        while_resolving(host, &guest, &[], || {
            assert!(dig(&guest, "example.org").join("").contains("status: SERVFAIL"));
        });
        let before = answering.times_asked();
        let shut_in = host.guest("two", &[on("closed")]);
        while_resolving(host, &shut_in, &[answering.at], || {
            assert_eq!(short(&shut_in, "two"), [shut_in.ip().to_string()]);
            assert!(dig(&shut_in, "example.org").join("").contains("status: NXDOMAIN"));
        });
        assert_eq!(answering.times_asked(), before);
    });
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    on_a_host(|host| {
        host.network("back");
        let guest = host.guest("one", &[on("back")]);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let answering = Outside::answering([192, 0, 2, 79], false);
        while_resolving(host, &guest, &[silent.local_addr().unwrap(), answering.at], || {
            let begun = std::time::Instant::now();
            assert_eq!(short(&guest, "+time=8 example.org"), ["192.0.2.79"]);
            let waited = begun.elapsed();
            assert!((3..6).contains(&waited.as_secs()), "{waited:?}");
            assert_eq!(short(&guest, "one"), [guest.ip().to_string()]);
        });
    });
}

#[test]
fn nonsense_on_the_wire_harms_no_resolver() {
    on_a_host(|host| {
        host.network("back");
        let guest = host.guest("one", &[on("back")]);
        while_resolving(host, &guest, &[], || {
            guest.place.enter(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mut seed = 7u32;
                for length in 0..300 {
                    let bytes: Vec<u8> = (0..length)
                        .map(|_| {
                            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            u8::try_from(seed >> 24).unwrap()
                        })
                        .collect();
                    socket.send_to(&bytes, "127.0.0.11:53").unwrap();
                }
                // Half a message, and then nothing; and one that is all length.
                let mut half = TcpStream::connect("127.0.0.11:53").unwrap();
                half.write_all(&[0, 40, 1, 2, 3]).unwrap();
                let mut empty = TcpStream::connect("127.0.0.11:53").unwrap();
                empty.write_all(&[0; 400]).unwrap();
                // More clients than are served at once.
                let crowd: Vec<TcpStream> =
                    (0..100).filter_map(|_| TcpStream::connect("127.0.0.11:53").ok()).collect();
                drop((crowd, half, empty));
            });
            assert_eq!(short(&guest, "one"), [guest.ip().to_string()]);
            assert_eq!(short(&guest, "+tcp one"), [guest.ip().to_string()]);
        });
    });
}
