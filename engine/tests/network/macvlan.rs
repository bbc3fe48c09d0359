//! Containers with a link of their own in a network of the host's.

use engine::container::spec::Protocol;
use engine::network::{NetworkSpec, Subnet};

use crate::host::*;

/// A macvlan network on the wire to the neighbour, whose addresses are that wire's.
fn spec(name: &str, parent: Option<&str>) -> NetworkSpec {
    let mut spec = NetworkSpec::new(name.parse().unwrap());
    "macvlan".clone_into(&mut spec.driver);
    spec.options.extend(parent.map(|parent| ("parent".to_owned(), parent.to_owned())));
    spec.subnets = vec![Subnet {
        cidr: "198.51.100.0/24".parse().unwrap(),
        gateway: Some(address("198.51.100.9")),
        ip_range: Some("198.51.100.128/25".parse().unwrap()),
        aux_addresses: [("host".to_owned(), address("198.51.100.1"))].into(),
    }];
    spec
}

#[test]
fn a_container_has_an_address_in_the_hosts_own_network() {
    on_a_host(|host| {
        let neighbour = host.neighbour();
        host.networks.create(spec("wire", Some("wire0"))).unwrap();
        let one = host.guest("one", &[on("wire")]);
        let two = host.guest("two", &[on("wire")]);
        assert_eq!(one.ip(), address("198.51.100.128"));
        one.place.serve_tcp("0.0.0.0:80", "one");
        // Nothing is translated on the way, in neither direction.
        assert_eq!(neighbour.call(&one.at(80)).as_deref(), Some("one 198.51.100.9"));
        assert_eq!(two.call(&one.at(80)), Some(format!("one {}", two.ip())));
        neighbour.serve_tcp("0.0.0.0:7", "outside");
        assert_eq!(one.call("198.51.100.9:7"), Some(format!("outside {}", one.ip())));
        let route = one.place.enter(|| run("ip", "route show default"));
        assert!(route.starts_with("default via 198.51.100.9 dev eth0"), "{route}");
        // The host has no way to it, so there is nothing to publish.
        assert_eq!(host.publish(&one, &[port(None, 8080, 80, Protocol::Tcp)]).unwrap(), [""; 0]);
    });
}

#[test]
fn the_link_below_is_left_alone_when_its_network_goes() {
    on_a_host(|host| {
        let _neighbour = host.neighbour();
        let network = host.networks.create(spec("wire", Some("wire0"))).unwrap();
        let guest = host.guest("one", &[on("wire"), on("bridge")]);
        assert!(host.networks.remove(&network.id).is_err());
        host.networks.release(&guest.id).unwrap();
        host.networks.remove(&network.id).unwrap();
        host.networks.teardown().unwrap();
        assert!(run("ip", "-br link").contains("wire0"));
    });
}

#[test]
fn a_network_on_a_link_that_is_not_there_is_refused() {
    on_a_host(|host| {
        for (parent, named) in [(None, "parent"), (Some("nosuch0"), "nosuch0")] {
            let text = host.networks.create(spec("wire", parent)).unwrap_err().to_string();
            assert!(text.contains(named), "{text}");
        }
    });
}
