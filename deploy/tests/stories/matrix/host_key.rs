//! Who the host is: known, pinned, new, changed or revoked.

use std::fs;

use deploy::ssh::{HostKey, KnownHosts, SshError};

use super::world::World;
use super::{Case, Expected};

pub(super) fn cases(world: &World) -> Vec<Case> {
    let (ip, six) = (world.main.ip(), world.main.ip6());
    let pinned = |kind: &str| world.with_host_key(HostKey::Pinned(vec![world.main.fingerprint(kind)]));
    let public = |kind: &str| world.main.run(&format!("cat /etc/ssh/ssh_host_{kind}_key.pub"));
    let other = world.network.public("stranger");
    let file = world.network.path("known_hosts");
    fs::write(&file, format!("{ip} {}\n", public("ecdsa"))).unwrap();
    let at_2222 = |host_key: HostKey, name, expected| Case {
        address: world.at(&format!("root@{ip}:2222")),
        ..world.case(name, "root", world.with_host_key(host_key), expected)
    };
    let known = |text: String| HostKey::KnownIn(KnownHosts::Text(text));
    let first = |name: &str| world.with_host_key(HostKey::FirstUse(Some(world.network.path(name))));
    fs::write(world.network.path("changed"), format!("{ip} {other}\n")).unwrap();
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
        at_2222(
            known(format!("[{ip}]:2222 {}", public("ed25519"))),
            "known by its port",
            Expected::In("root"),
        ),
        at_2222(
            known(format!("[{ip}]:22222 {}", public("ed25519"))),
            "known by another port",
            fails!(SshError::HostKeyUnknown { .. }),
        ),
        world.case("first use", "root", first("fresh"), Expected::In("root")),
        world.case("no first use", "root", first("changed"), fails!(SshError::HostKeyChanged { .. })),
        Case {
            address: world.at(&format!("root@{six}")),
            ..world.case(
                "ipv6",
                "root",
                world.known(format!("{six} {}", public("ed25519"))),
                Expected::In("root"),
            )
        },
        Case {
            address: world.at(&format!("root@[{six}]:2222")),
            ..world.case(
                "ipv6 with a port",
                "root",
                world.known(format!("[{six}]:2222 {}", public("ed25519"))),
                Expected::In("root"),
            )
        },
    ]
}
