//! Published ports.

use crate::host::*;
use engine::container::spec::{PortBinding, Protocol};
use engine::network::{Draw, NetworkSpec};
use engine::quantity::Percent;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

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

/// A container whose ports are published, and one that may have a part of what comes by them.
fn old_and_new(host: &Host) -> (Guest, Guest) {
    let spec = NetworkSpec { ipv6: true, ..NetworkSpec::new("back".parse().unwrap()) };
    host.networks.create(spec).unwrap();
    let (old, new) = (host.guest("web-1", &[on("back")]), host.guest("web-2", &[on("back")]));
    old.place.serve_tcp("[::]:80", "old");
    new.place.serve_tcp("[::]:80", "new");
    let bound = port(Some("127.0.0.1"), 8081, 80, Protocol::Tcp);
    host.publish(&old, &[port(None, 8080, 80, Protocol::Tcp), bound]).unwrap();
    (old, new)
}

#[test]
fn a_part_of_the_connections_goes_to_another_container() {
    on_a_host(|host| {
        let (old, new) = old_and_new(host);
        let new_of_200 =
            |at: &str| (0..200).filter(|_| call(at).expect("nobody is refused").starts_with("new")).count();
        assert_eq!(new_of_200("127.0.0.1:8080"), 0);
        host.networks.share_ports(&old.id, &new.id, Percent::new(10).unwrap(), Draw::Connection).unwrap();
        host.networks.share_ports(&old.id, &new.id, Percent::new(30).unwrap(), Draw::Connection).unwrap();
        let gateways = old.endpoints[0].addresses.iter().filter_map(|entry| entry.gateway);
        let gateway = gateways.into_iter().find(std::net::IpAddr::is_ipv6).unwrap();
        for at in ["127.0.0.1:8080", "127.0.0.1:8081", &format!("[{gateway}]:8080")] {
            // 60, give or take four and a half standard deviations.
            assert!((30..90).contains(&new_of_200(at)), "{at}");
        }
        let tables = || run("nft", "list tables");
        assert!(tables().contains("-shares"), "{}", tables());
        host.networks.release(&new.id).unwrap();
        assert_eq!(new_of_200("127.0.0.1:8080"), 0);
        assert!(!tables().contains("-shares"), "{}", tables());

        let next = host.guest("web-3", &[on("back")]);
        next.place.serve_tcp("[::]:80", "new");
        host.networks.share_ports(&old.id, &next.id, Percent::new(50).unwrap(), Draw::Connection).unwrap();
        host.networks.move_ports(&old.id, &next.id).unwrap();
        assert_eq!(new_of_200("127.0.0.1:8080"), 200);
        assert!(!tables().contains("-shares"), "{}", tables());
        assert_eq!(host.networks.published(&next.id).unwrap().len(), 3);
    });
}

#[test]
fn a_part_by_the_sender_is_the_same_for_the_same_sender() {
    on_a_host(|host| {
        let (old, new) = old_and_new(host);
        call("127.0.0.1:8080").expect("the bridge is up");
        let is_new = |answer: &str| answer.starts_with("new");
        // Which of 60 senders get the new one, at either port and each time they ask.
        let who = || -> Vec<bool> {
            let ask = |sender: u8| {
                let ask = |at| is_new(&call_from([127, 0, 1, sender], at));
                let first = ask(8080);
                assert!([8080, 8081, 8080].into_iter().all(|at| ask(at) == first), "127.0.1.{sender}");
                first
            };
            (1..=60).map(ask).collect()
        };
        let share = |percent| {
            host.networks
                .share_ports(&old.id, &new.id, Percent::new(percent).unwrap(), Draw::Sender)
                .unwrap();
        };
        share(30);
        let few = who();
        assert!((5..35).contains(&few.iter().filter(|new| **new).count()), "{few:?}");
        share(80);
        let many = who();
        assert!((35..60).contains(&many.iter().filter(|new| **new).count()), "{many:?}");
        assert!(few.iter().zip(&many).all(|(few, many)| !few || *many), "who had it keeps it");
        let gateways = old.endpoints[0].addresses.iter().filter_map(|entry| entry.gateway);
        let gateway = gateways.into_iter().find(std::net::IpAddr::is_ipv6).unwrap();
        let by_ipv6: Vec<_> = (0..20).map(|_| is_new(&call(&format!("[{gateway}]:8080")).unwrap())).collect();
        assert!(by_ipv6.iter().all(|new| *new == by_ipv6[0]), "{by_ipv6:?}");
        host.networks.unshare_ports(&new.id).unwrap();
        assert!(who().iter().all(|new| !new));
        let tables = run("nft", "list tables");
        assert!(!tables.contains("-shares"), "{tables}");
    });
}

/// What the server at a port of 127.0.0.1 says to this address of this host.
fn call_from(sender: [u8; 4], port: u16) -> String {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &std::net::SocketAddr::from((sender, 0))).unwrap();
    connect(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let mut answer = String::new();
    TcpStream::from(socket).read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_port_that_may_be_any_one_stays_when_its_way_changes() {
    on_a_host(|host| {
        host.network("back");
        host.network("front");
        let mut web = host.guest("web", &[on("back"), on("front")]);
        let any = [port(None, 0, 80, Protocol::Tcp), port(None, 0, 80, Protocol::Udp)];
        let before = host.publish(&web, &any).unwrap();
        web.endpoints.remove(0);
        assert_eq!(host.publish(&web, &any).unwrap(), before);
        web.place.serve_tcp("0.0.0.0:80", "web");
        let at = host.networks.published(&web.id).unwrap()[0].host_port;
        assert!(call(&format!("127.0.0.1:{at}")).is_some());
        web.endpoints.clear();
        assert_eq!(host.publish(&web, &any).unwrap(), [""; 0]);
        assert_eq!(host.networks.published(&web.id).unwrap(), []);
        assert!(is_silent(&format!("127.0.0.1:{at}")));
    });
}

#[test]
fn a_network_says_where_ports_without_an_address_are_published() {
    on_a_host(|host| {
        let neighbour = host.neighbour();
        let mut spec = NetworkSpec { ipv6: true, ..NetworkSpec::new("private".parse().unwrap()) };
        let key = "com.docker.network.bridge.host_binding_ipv4".to_owned();
        spec.options.insert(key, "127.0.0.1".to_owned());
        host.networks.create(spec).unwrap();
        let web = host.guest("web", &[on("private")]);
        web.place.serve_tcp("0.0.0.0:80", "web");
        let ports = [port(None, 8080, 80, Protocol::Tcp), port(Some("0.0.0.0"), 8081, 80, Protocol::Tcp)];
        let published = host.publish(&web, &ports).unwrap();
        assert_eq!(published, ["127.0.0.1:8080->80/tcp", "0.0.0.0:8081->80/tcp"]);
        assert!(neighbour.misses("198.51.100.1:8080"));
        assert!(neighbour.call("198.51.100.1:8081").is_some());
        assert!(call("127.0.0.1:8080").is_some());
    });
}

#[test]
fn sctp_is_led_like_the_others() {
    on_a_host(|host| {
        host.network("back");
        let web = host.guest("web", &[on("back")]);
        let published = host.publish(&web, &[port(None, 8080, 80, Protocol::Sctp)]).unwrap();
        assert_eq!(published, ["0.0.0.0:8080->80/sctp"]);
        let rules = run("nft", "list ruleset");
        assert!(
            rules.contains(&format!("sctp . 8080 comment \"{} web\" : {}", web.id.short(), web.ip())),
            "{rules}"
        );
    });
}

#[test]
fn what_is_published_stays_when_it_is_published_again_over_a_connection_of_the_host() {
    on_a_host(|host| {
        host.network("back");
        let guest = host.guest("web", &[on("back")]);
        for wanted in [port(None, 0, 80, Protocol::Tcp), port(None, 40000, 80, Protocol::Tcp)] {
            let first = host.publish(&guest, std::slice::from_ref(&wanted)).unwrap();
            let number: u16 = first[0].split(':').nth(1).unwrap().split('-').next().unwrap().parse().unwrap();
            // The kernel gives a connection any number that no socket has, and this one has none.
            let connection = TcpListener::bind(("0.0.0.0", number)).unwrap();
            assert_eq!(host.publish(&guest, std::slice::from_ref(&wanted)).unwrap(), first);
            drop(connection);
        }
    });
}
