//! Ways into servers, and everything that can be in the way.

use std::time::{Duration, Instant};

use deploy::ssh::{Session, SshError};

use crate::server::{Kind, Network, Server};

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
