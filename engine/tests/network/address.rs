//! Who gets which address.

use crate::host::*;
use engine::container::spec::{NetworkAttachment, Protocol};
use engine::id::ContainerId;
use engine::network::{NetworkSpec, Party, Subnet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread;

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
            let party = Party { container, name: "late".parse().unwrap(), hostname: None, held: false };
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
fn five_hundred_containers_fit_into_one_network() {
    on_a_host(|host| {
        host.network("large");
        let attach = |number: usize| {
            let party = Party {
                container: ContainerId::random(),
                name: format!("many-{number}").parse().unwrap(),
                hostname: None,
                held: false,
            };
            host.networks.attach(&party, &[on("large")]).unwrap()[0].ipv4().unwrap()
        };
        let mut addresses: Vec<IpAddr> = (0..500).map(attach).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 500);
        let network = host.networks.find("large").unwrap();
        assert_eq!(host.networks.members(&network.id).unwrap().len(), 500);
    });
}

#[test]
fn a_full_network_says_so() {
    on_a_host(|host| {
        let mut spec = NetworkSpec::new("small".parse().unwrap());
        spec.subnets = vec![Subnet {
            cidr: "10.79.0.0/30".parse().unwrap(),
            gateway: None,
            ip_range: None,
            aux_addresses: [].into(),
        }];
        host.networks.create(spec).unwrap();
        let only = host.guest("only", &[on("small")]);
        let party = |name: &str| Party {
            container: ContainerId::random(),
            name: name.parse().unwrap(),
            hostname: None,
            held: false,
        };
        let late = party("late");
        let text = host.networks.attach(&late, &[on("small")]).unwrap_err().to_string();
        assert_eq!(text, "no address is left in the subnet 10.79.0.0/30 of the network small");
        // Whoever failed left nothing behind.
        let network = host.networks.find("small").unwrap();
        assert_eq!(host.networks.members(&network.id).unwrap().len(), 1);
        host.networks.release(&only.id).unwrap();
        host.networks.attach(&late, &[on("small")]).unwrap();
    });
}

#[test]
fn a_subnet_of_the_hosts_own_is_not_taken() {
    on_a_host(|host| {
        let _neighbour = host.neighbour();
        ip("route add 172.16.0.0/14 via 198.51.100.9");
        let chosen = host.network("chosen").spec.subnets[0].cidr;
        assert_eq!(chosen.to_string(), "172.20.0.0/16");
        let mut spec = NetworkSpec::new("clash".parse().unwrap());
        spec.subnets = vec![Subnet {
            cidr: "198.51.100.0/25".parse().unwrap(),
            gateway: None,
            ip_range: None,
            aux_addresses: [].into(),
        }];
        let text = host.networks.create(spec).unwrap_err().to_string();
        assert!(text.contains("198.51.100.1 of wire0"), "{text}");
    });
}
