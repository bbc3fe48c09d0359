//! A server that allows one session at a time on a connection.

use crate::deploy::{Project, get, succeeds};
use crate::server::{Kind, Network, Server};

#[test]
fn one_session_at_a_time_is_enough_for_every_command() {
    let server = Server::of(&Network::new(), Kind::default().sshd("MaxSessions 1"));
    let project = Project::new();
    let rdeploy = |words: &[&str]| succeeds(&project.rdeploy(&[&server], words));
    rdeploy(&["up"]);
    assert_eq!(get(server.ip()).unwrap(), "one");
    assert_eq!(rdeploy(&["exec", "web", "cat", "/www/page"]), "one\n");
    assert!(rdeploy(&["run", "--json", "web", "echo", "here"]).contains("here\\n"));
    assert!(rdeploy(&["status"]).contains("running"));
    rdeploy(&["logs"]);
    rdeploy(&["uninstall"]);
}
