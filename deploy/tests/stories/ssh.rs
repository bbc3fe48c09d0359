//! Ways into servers, and everything that can be in the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deploy::ssh::{Session, SshError};

use crate::server::{Kind, Network, PASSWORD, Server};

#[test]
fn a_server_is_reached_by_key_and_by_password() {
    let network = Network::new();
    let server = Server::of(&network, Kind::default().root_password());
    for access in [server.access(), server.access_by_password()] {
        let session = Session::open(&server.as_user("root"), &access).unwrap();
        assert!(session.is_root());
        let output = session.run("cat; echo err >&2; exit 37", b"fed").unwrap();
        assert_eq!((output.code, output.stdout, output.stderr), (Some(37), b"fed".into(), b"err\n".into()));
    }
}

#[test]
fn a_long_lived_command_talks_over_two_pipes_until_either_side_ends_it() {
    use std::io::{BufRead, BufReader, Write};
    let server = Server::start();
    let session = Session::open(&server.as_user("root"), &server.access()).unwrap();
    let mut pipes = session.pipes("while read -r line; do echo \"got $line\"; done; exit 3", true).unwrap();
    let mut reader = BufReader::new(pipes.reader);
    for word in ["one", "two"] {
        pipes.writer.write_all(format!("{word}\n").as_bytes()).unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, format!("got {word}\n"));
    }
    drop(pipes.writer);
    assert_eq!(pipes.ending.wait().unwrap().code, Some(3));
}

#[test]
fn a_server_that_goes_down_is_a_lost_connection() {
    let mut server = Server::start();
    let session = Session::open(&server.as_user("root"), &server.access()).unwrap();
    let pipes = session.pipes("sleep 600", false).unwrap();
    server.reboot();
    let lost = pipes.ending.wait();
    assert!(matches!(lost, Err(SshError::Lost { .. })), "{lost:?}");
    let again = Session::open(&server.as_user("root"), &server.access()).unwrap();
    assert_eq!(again.run("hostname", b"").unwrap().code, Some(0));
}

#[test]
fn a_cable_that_is_pulled_is_a_lost_connection_soon() {
    let server = Server::start();
    let session = Session::open(&server.as_user("root"), &server.access()).unwrap();
    let pipes = session.pipes("sleep 600", false).unwrap();
    let begin = Instant::now();
    server.cut();
    let lost = pipes.ending.wait();
    assert!(matches!(lost, Err(SshError::Lost { .. })), "{lost:?}");
    // 20 s, and what a busy machine adds.
    assert!(begin.elapsed() < Duration::from_secs(40));
}

/// A machine to deploy from, with the program at `/mnt/rdeploy` and a project in `/root`. Its user knows the server as
/// `prod`.
fn client_of(network: &Arc<Network>, server: &Server, user: &str) -> Server {
    let client = Server::of(network, Kind::default());
    client.give(env!("CARGO_BIN_EXE_rdeploy").as_ref());
    let key = client.give(&network.key());
    let configuration = format!(
        "Host prod\n HostName {}\n Port 2222\n User {user}\n IdentityFile ~/.ssh/deploy\n",
        server.ip()
    );
    let known = format!("[{}]:2222 {}", server.ip(), server.run("cat /etc/ssh/ssh_host_ed25519_key.pub"));
    client.run(&format!(
        "cd /root/.ssh; install -m 600 {key} deploy; echo '{configuration}' > config; echo '{known}' > known_hosts
         echo 'services: {{web: {{image: web}}}}' > /root/compose.yaml"
    ));
    client
}

#[test]
fn a_host_is_an_alias_in_the_users_own_configuration() {
    let network = Network::new();
    let kind =
        Kind::default().sshd("Port 2222").user("ops", "/bin/sh").sudoers("ops ALL=(ALL) NOPASSWD: ALL");
    let server = Server::of(&network, kind);
    let client = client_of(&network, &server, "ops");
    client.run("cd /root; /mnt/rdeploy --host prod setup");
    assert!(server.run("ls /var/lib/rengine").lines().count() > 0);
}

#[test]
fn the_password_of_a_server_is_not_told_to_a_host_on_the_way() {
    let network = Network::new();
    let kind = || Kind::default().root_password().sshd("Port 2222\nPubkeyAuthentication no");
    let (bastion, server) = (Server::of(&network, kind()), Server::of(&network, kind()));
    let client = client_of(&network, &server, "root");
    let known = format!("[{}]:2222 {}", bastion.ip(), bastion.run("cat /etc/ssh/ssh_host_ed25519_key.pub"));
    client.run(&format!(
        "cd /root/.ssh; echo ' ProxyJump root@{}:2222' >> config; echo '{known}' >> known_hosts",
        bastion.ip()
    ));
    let mut command = client.command("cd /root; /mnt/rdeploy --host prod setup");
    let output = command.env("RDEPLOY_SSH_PASSWORD", PASSWORD).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let question = format!("asks \"root@{}'s password:\"", bastion.ip());
    assert!(!output.status.success() && said.contains(&question), "{said}");
}

#[test]
fn a_client_that_is_killed_takes_its_ssh_with_it() {
    let network = Network::new();
    let kind = Kind::default().sshd("Port 2222").user("slow", "/bin/sh");
    let server = Server::of(&network, kind.sshd_for("slow", "ForceCommand touch /tmp/here; exec sleep 600"));
    let client = client_of(&network, &server, "slow");
    let mut rdeploy = client.command("cd /root; exec /mnt/rdeploy --host prod setup").spawn().unwrap();
    server.run("until [ -e /tmp/here ]; do sleep 0.02; done");
    let is_there = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q '[s]sh -M -N'";
    client.run(is_there);
    client.run("kill -9 $(pidof rdeploy)");
    client.run(&format!("timeout 20 sh -c \"while {is_there}; do sleep 0.02; done\""));
    assert!(!rdeploy.wait().unwrap().success());
}
