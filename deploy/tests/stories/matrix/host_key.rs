//! Who the host is: known, pinned, new, changed or revoked.

use std::fs;

use deploy::ssh::{HostKey, KnownHosts, SshError};

use super::world::World;
use super::{Case, Expected};

pub(super) fn cases(world: &World) -> Vec<Case> {
    [pins(world), known(world), places(world)].into_iter().flatten().collect()
}

fn public(world: &World, kind: &str) -> String {
    world.main.run(&format!("cat /etc/ssh/ssh_host_{kind}_key.pub"))
}

fn pins(world: &World) -> Vec<Case> {
    let pinned = |kind: &str| world.with_host_key(HostKey::Pinned(vec![world.main.fingerprint(kind)]));
    vec![
        world.case("pinned ed25519", "root", pinned("ed25519"), Expected::In("root")),
        world.case("pinned rsa", "root", pinned("rsa"), Expected::In("root")),
        world.case("pinned ecdsa", "root", pinned("ecdsa"), Expected::In("root")),
        world.case(
            "one of two pins",
            "root",
            world.with_host_key(HostKey::Pinned(vec![
                world.far.fingerprint("ed25519"),
                world.main.fingerprint("ecdsa"),
            ])),
            Expected::In("root"),
        ),
        world.case(
            "wrong pin",
            "root",
            world.with_host_key(HostKey::Pinned(vec![world.far.fingerprint("ed25519")])),
            fails!(SshError::PinMismatch { pinned, shown, .. } if pinned.len() == 1 && shown.len() == 3),
        ),
    ]
}

fn known(world: &World) -> Vec<Case> {
    let ip = world.main.ip();
    let public = |kind: &str| public(world, kind);
    let other = world.network.public("stranger");
    let file = world.network.path("known_hosts");
    fs::write(&file, format!("{ip} {}\n", public("ecdsa"))).unwrap();
    let first = |name: &str| world.with_host_key(HostKey::FirstUse(Some(world.network.path(name))));
    fs::write(world.network.path("changed"), format!("{ip} {other}\n")).unwrap();
    vec![
        world.case(
            "known in a file",
            "root",
            world.with_host_key(HostKey::KnownIn(KnownHosts::File(file))),
            Expected::In("root"),
        ),
        world.case(
            "known by rsa only",
            "root",
            world.known(format!("{ip} {}", public("rsa"))),
            Expected::In("root"),
        ),
        world.case(
            "known with CRLF",
            "root",
            world.known(format!("{ip} {}\r\n", public("ed25519"))),
            Expected::In("root"),
        ),
        world.case(
            "unknown",
            "root",
            world.known(String::new()),
            fails!(SshError::HostKeyUnknown { fingerprint, .. } if fingerprint.contains("SHA256:")),
        ),
        world.case(
            "changed",
            "root",
            world.known(format!("{ip} {other}")),
            fails!(SshError::HostKeyChanged { known_in, .. } if known_in.ends_with("known_hosts:1")),
        ),
        world.case(
            "revoked",
            "root",
            world.known(format!("@revoked {ip} {}", public("ed25519"))),
            fails!(SshError::HostKeyRevoked { .. }),
        ),
        world.case("first use", "root", first("fresh"), Expected::In("root")),
        world.case("no first use", "root", first("changed"), fails!(SshError::HostKeyChanged { .. })),
    ]
}

fn places(world: &World) -> Vec<Case> {
    let (ip, six) = (world.main.ip(), world.main.ip6());
    let key = public(world, "ed25519");
    let at = |address: String, name, known: String, expected| Case {
        address: world.at(&address),
        ..world.case(name, "root", world.known(format!("{known} {key}")), expected)
    };
    let port = format!("root@{ip}:2222");
    vec![
        at(port.clone(), "known by its port", format!("[{ip}]:2222"), Expected::In("root")),
        at(port, "known by another port", format!("[{ip}]:22222"), fails!(SshError::HostKeyUnknown { .. })),
        at(format!("root@{six}"), "ipv6", six.to_string(), Expected::In("root")),
        at(format!("root@[{six}]:2222"), "ipv6 with a port", format!("[{six}]:2222"), Expected::In("root")),
    ]
}
