//! How a host is reached: not at all, by something else, or by way of others.

use std::io::Write;
use std::net::TcpListener;

use deploy::ssh::{Access, HostKey, Jump, Login, SshError};

use super::world::World;
use super::{Case, Expected};
use crate::server::{PASSWORD, access};

pub(super) fn cases(world: &mut World) -> Vec<Case> {
    let host = world.network.host();
    let mut listen = |answer: fn(&mut std::net::TcpStream)| {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        world.listeners.push(listener.try_clone().unwrap());
        std::thread::spawn(move || {
            // They stay open as long as the test runs, when the answer does not end them.
            let mut kept = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                answer(&mut stream);
                kept.push(stream);
            }
        });
        format!("root@{host}:{port}")
    };
    let web = listen(|stream| {
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\nServer: x\r\n\r\n");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let silent = listen(|_| ());
    let closing = listen(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
    let ip = world.main.ip();
    let to = |name, address: &str, expected| Case {
        address: world.at(address),
        ..world.case(name, "root", world.login(), expected)
    };
    let hop = |user| world.jump(user, world.login());
    let far_jump = |login| Jump { address: world.far.as_user("root"), login };
    let mut cases = vec![
        to("closed port", &format!("root@{ip}:9"), fails!(SshError::Refused { .. })),
        to("black hole", &format!("root@{ip}:2300"), fails!(SshError::TimedOut { .. })),
        to("no such host", "root@no-such-host.invalid", fails!(SshError::UnknownHost { .. })),
        to("no ssh server", &web, fails!(SshError::NotSsh { .. })),
        to("silent server", &silent, fails!(SshError::TimedOut { .. })),
        to("server that hangs up", &closing, fails!(SshError::Closed { .. })),
        to("no way there", "root@255.255.255.255", fails!(SshError::Unreachable { .. })),
        world.far("jump", vec![hop("me")], Expected::In("root")),
        Case {
            address: world.at(&format!("root@[{}]:22", world.far.ip6())),
            access: Access {
                jump: vec![hop("me")],
                ..access(world.with_host_key(HostKey::Pinned(vec![world.far.fingerprint("ed25519")])))
            },
            ..world.far("jump to ipv6", Vec::new(), Expected::In("root"))
        },
        world.far("jump by password", vec![world.jump("words", world.with_password(PASSWORD))], Expected::In("root")),
        world.far("jump by keyboard", vec![world.jump("board", world.with_password(PASSWORD))], Expected::In("root")),
        world.far("two jumps", vec![hop("me"), far_jump(world.far.access().login)], Expected::In("root")),
        world.far(
            "jump with the wrong password",
            vec![world.jump("words", world.with_password("no"))],
            fails!(SshError::Jump { hop, source } if hop.starts_with("words@") && matches!(**source, SshError::PasswordWrong { .. })),
        ),
        world.far(
            "unknown jump host",
            vec![world.jump("me", world.known(String::new()))],
            fails!(SshError::Jump { source, .. } if matches!(**source, SshError::HostKeyUnknown { .. })),
        ),
        world.far(
            "second jump refuses the key",
            vec![hop("me"), far_jump(Login { host_key: world.far.known_hosts(), ..world.with_key_file("stranger") })],
            fails!(SshError::Jump { source, .. } if matches!(**source, SshError::KeyNotAccepted { .. })),
        ),
        world.far("no forwarding", vec![hop("closed")], fails!(SshError::ForwardingDisabled { .. })),
        Case {
            address: world.at(&format!("root@{}:9", world.far.ip())),
            ..world.far("closed port behind a jump", vec![hop("me")], fails!(SshError::Refused { .. }))
        },
    ];
    cases.push(Case {
        access: Access { jump: vec![hop("me")], ..access(world.login()) },
        ..world.far("stranger behind a jump", Vec::new(), fails!(SshError::HostKeyUnknown { .. }))
    });
    cases
}
