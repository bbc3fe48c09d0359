//! Credentials: where they are kept, and what becomes of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::registry::Registry;
use crate::world::{BOX, Outcome, World};

/// A credential helper that keeps one secret in a file beside it, as `docker-credential-shelf`.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
case $1 in
store) cat >secret ;;
get) test -e secret && exec cat secret; echo "credentials not found in native keychain"; exit 1 ;;
erase) rm secret ;;
esac
"#;

/// Runs `rengine` with credentials of the world's own.
fn rengine(world: &World, args: &[&str]) -> Outcome {
    let mut command = world.command(args);
    let path = format!("{}:{}", world.path("helpers").display(), std::env::var("PATH").unwrap());
    command.env("DOCKER_CONFIG", configuration(world).parent().unwrap()).env("PATH", path);
    command.env_remove("REGISTRY_AUTH_FILE").stdin(std::process::Stdio::null());
    crate::world::Running::start(&mut command).ends()
}

fn configuration(world: &World) -> PathBuf {
    world.path("docker/config.json")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn credentials_are_kept_when_the_registry_takes_them() {
    let world = World::new();
    let registry = Registry::start_private();
    let address = registry.address();
    let image = format!("{address}/app:1");
    world.rengine(["tag", BOX, &image]).succeeds();
    rengine(&world, &["push", &image]).exits(1).complains("denies access to app");
    rengine(&world, &["login", &address]).exits(1).complains("a user name is needed");
    let refused = rengine(&world, &["login", "-u", "user", "-p", "wrong", &address]).exits(1);
    refused.complains("does not take this user name and password: authentication required");
    assert!(!configuration(&world).exists());
    rengine(&world, &["login", "-u", "user", "-p", "secret", &address])
        .succeeds()
        .complains("kept unencrypted in")
        .prints("Login Succeeded\n");
    let kept = format!(
        "{{\n\t\"auths\": {{\n\t\t\"{address}\": {{\n\t\t\t\"auth\": \"dXNlcjpzZWNyZXQ=\"\n\t\t}}\n\t}}\n}}"
    );
    assert_eq!(read(&configuration(&world)), kept);
    rengine(&world, &["push", &image]).succeeds();
    rengine(&world, &["login", &address])
        .succeeds()
        .prints("Authenticating with existing credentials...\nLogin Succeeded\n");
    rengine(&world, &["logout", &address]).succeeds();
    rengine(&world, &["login", &address]).exits(1).complains("a user name is needed");
    rengine(&world, &["login", "--password-stdin", "-p", "x", "-u", "user", &address])
        .exits(1)
        .complains("mutually exclusive");
}

#[test]
fn a_credential_helper_keeps_what_the_file_does_not() {
    let world = World::new();
    let registry = Registry::start_private();
    let address = registry.address();
    let helper = world.write("helpers/docker-credential-shelf", HELPER);
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    world.write("docker/config.json", r#"{"credsStore": "shelf"}"#);
    let login = rengine(&world, &["login", "-u", "user", "-p", "secret", &address]).succeeds();
    assert!(!login.stderr.contains("unencrypted"), "{}", login.stderr);
    let secret = world.path("helpers/secret");
    assert!(read(&secret).contains("secret"));
    assert!(!read(&configuration(&world)).contains("\"auth\":"));
    let image = format!("{address}/app:1");
    world.rengine(["tag", BOX, &image]).succeeds();
    rengine(&world, &["push", &image]).succeeds();
    rengine(&world, &["logout", &address]).succeeds();
    assert!(!secret.exists());
    rengine(&world, &["push", &image]).exits(1);
}
