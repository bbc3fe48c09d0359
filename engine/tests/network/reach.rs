//! Who reaches whom.

use crate::host::*;
use engine::container::spec::{NetworkAttachment, Protocol};
use engine::network::NetworkSpec;

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
