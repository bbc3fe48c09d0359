//! Who we are: keys, passwords, agents and certificates, good and bad.

use std::path::PathBuf;

use base64::Engine as _;
use deploy::ssh::{KeyError, KeySource, Login, Secret, SshError};

use super::world::World;
use super::{Case, Expected};
use crate::server::PASSWORD;

pub(super) fn cases(world: &World) -> Vec<Case> {
    [keys(world), keys_that_are_none(world), passwords(world), others(world)].into_iter().flatten().collect()
}

fn keys(world: &World) -> Vec<Case> {
    let locked = |name: &str| Login { passphrase: Some(Secret::new(PASSWORD)), ..world.with_key_file(name) };
    vec![
        world.case("key file", "root", world.login(), Expected::In("root")),
        world.case("rsa key file", "root", world.with_key_file("rsa"), Expected::In("root")),
        world.case("ecdsa key file", "root", world.with_key_file("ecdsa"), Expected::In("root")),
        world.case("key as text", "me", world.with_key_text(|key| key), Expected::In("me")),
        world.case(
            "key with CRLF",
            "me",
            world.with_key_text(|key| key.replace('\n', "\r\n")),
            Expected::In("me"),
        ),
        world.case(
            "key without end of line",
            "me",
            world.with_key_text(|key| key.trim().into()),
            Expected::In("me"),
        ),
        world.case(
            "key on one line",
            "me",
            world.with_key_text(|key| key.replace('\n', " ")),
            Expected::In("me"),
        ),
        world.case(
            "key in base64",
            "me",
            world.with_key_text(|key| base64::engine::general_purpose::STANDARD.encode(key)),
            Expected::In("me"),
        ),
        world.case("encrypted key", "root", locked("locked"), Expected::In("root")),
        world.case("encrypted pem key", "root", locked("pem"), Expected::In("root")),
    ]
}

fn keys_that_are_none(world: &World) -> Vec<Case> {
    let locked = |passphrase: Option<&str>, name: &str| Login {
        passphrase: passphrase.map(Secret::new),
        ..world.with_key_file(name)
    };
    let text = |text: &str| world.with_key(KeySource::Text(Secret::new(text)));
    let public = world.network.public("id");
    vec![
        world.case(
            "wrong passphrase",
            "root",
            locked(Some("no"), "locked"),
            fails!(SshError::WrongPassphrase { .. }),
        ),
        world.case(
            "wrong pem passphrase",
            "root",
            locked(Some("no"), "pem"),
            fails!(SshError::WrongPassphrase { .. }),
        ),
        world.case(
            "no passphrase",
            "root",
            locked(None, "locked"),
            fails!(SshError::Key(KeyError::PassphraseNeeded(_)) | SshError::PassphraseNeeded { .. }),
        ),
        world.case(
            "stranger's key",
            "root",
            world.with_key_file("stranger"),
            fails!(SshError::KeyNotAccepted { offered, .. } if offered.contains(&"publickey".to_owned())),
        ),
        world.case("public key", "root", text(&public), fails!(SshError::Key(KeyError::Public(_)))),
        world.case(
            "putty key",
            "root",
            text("PuTTY-User-Key-File-2: ssh-rsa"),
            fails!(SshError::Key(KeyError::Putty(_))),
        ),
        world.case(
            "truncated key",
            "root",
            world.with_key_text(|key| key[..150].into()),
            fails!(SshError::Key(KeyError::Damaged(_))),
        ),
        world.case(
            "key for all to read",
            "root",
            world.with_key_file("open"),
            fails!(SshError::Key(KeyError::Open(..))),
        ),
        world.case(
            "no such key file",
            "root",
            world.with_key_file("nothing"),
            fails!(SshError::Key(KeyError::Unreadable { .. })),
        ),
    ]
}

fn passwords(world: &World) -> Vec<Case> {
    vec![
        world.case("password", "root", world.with_password(PASSWORD), Expected::In("root")),
        world.case(
            "wrong password",
            "words",
            world.with_password("no"),
            fails!(SshError::PasswordWrong { .. }),
        ),
        world.case(
            "no such user",
            "nobody-here",
            world.with_password(PASSWORD),
            fails!(SshError::PasswordWrong { .. }),
        ),
        world.case("keyboard-interactive", "board", world.with_password(PASSWORD), Expected::In("board")),
        world.case(
            "wrong at the keyboard",
            "board",
            world.with_password("no"),
            fails!(SshError::PasswordWrong { .. }),
        ),
        world.case(
            "expired password",
            "stale",
            world.with_password(PASSWORD),
            fails!(SshError::PasswordExpired { .. }),
        ),
        world.case(
            "password where keys count",
            "keys",
            world.with_password(PASSWORD),
            fails!(SshError::NoMethodLeft { offered, .. } if *offered == ["publickey"]),
        ),
        world.case(
            "key where passwords count",
            "words",
            world.login(),
            fails!(SshError::NoMethodLeft { offered, .. } if *offered == ["password"]),
        ),
        world.case(
            "key and password",
            "both",
            Login { password: Some(Secret::new(PASSWORD)), ..world.login() },
            Expected::In("both"),
        ),
        world.case("key without the password", "both", world.login(), fails!(SshError::NoMethodLeft { .. })),
    ]
}

fn others(world: &World) -> Vec<Case> {
    let by_agent = |socket: &PathBuf| Login { key: None, agent: Some(socket.clone()), ..world.login() };
    let certified =
        |name: &str| Login { certificate: Some(world.network.path(name)), ..world.with_key_file("signed") };
    vec![
        world.case("agent", "me", by_agent(&world.agent.socket), Expected::In("me")),
        world.case(
            "agent of strangers",
            "me",
            by_agent(&world.agent.empty),
            fails!(SshError::NoMethodLeft { .. }),
        ),
        world.case(
            "too many keys",
            "strict",
            by_agent(&world.agent.empty),
            fails!(SshError::TooManyFailures { .. }),
        ),
        world.case("certificate", "root", certified("by-ca.pub"), Expected::In("root")),
        world.case(
            "certificate of a stranger",
            "root",
            certified("by-stranger.pub"),
            fails!(SshError::KeyNotAccepted { .. }),
        ),
        world.case(
            "certificate for another user",
            "me",
            certified("by-ca.pub"),
            fails!(SshError::KeyNotAccepted { .. }),
        ),
    ]
}
