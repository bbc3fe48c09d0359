//! Connections that stay for the next command.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::deploy::{Project, get, succeeds};
use crate::server::Server;

/// A user at a terminal, with a directory for what lasts as long as they are logged in. What they left ends with this.
struct User {
    runtime: tempfile::TempDir,
    project: Project,
    server: Server,
}

impl User {
    fn new() -> Self {
        let runtime = tempfile::Builder::new().prefix("user-").tempdir().unwrap();
        Self { runtime, project: Project::new(), server: Server::start() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.project.command(&[&self.server], words);
        command.env("XDG_RUNTIME_DIR", self.runtime.path());
        command
    }

    fn rdeploy(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn logins(&self) -> usize {
        self.server.said().matches("Accepted publickey").count()
    }

    /// The sockets of connections that stay.
    fn sockets(&self) -> Vec<PathBuf> {
        let place = fs::read_dir(self.runtime.path()).unwrap().flatten();
        let kept = place.filter(|entry| entry.file_name().to_string_lossy().starts_with("rdeploy-kept-"));
        let all = kept.flat_map(|entry| fs::read_dir(entry.path()).unwrap().flatten());
        all.map(|entry| entry.path()).filter(|path| path.extension().is_none()).collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for socket in self.sockets() {
            let _ = Command::new("ssh").arg("-S").arg(socket).args(["-O", "exit", "none"]).output();
        }
    }
}

#[test]
fn a_connection_that_stays_saves_the_login_and_a_lease_still_dies_with_its_holder() {
    let user = User::new();
    succeeds(&user.rdeploy(&["--ssh-persist", "1m", "up"]));
    let logins = user.logins();
    user.project.write("page", "two\n");
    let hook = "hooks:\n  before-commit: ['touch waiting; while [ -e waiting ]; do sleep 0.02; done']\n";
    user.project.write("rdeploy.yaml", hook);
    let mut holder = user.command(&["--ssh-persist", "1m", "up"]).spawn().unwrap();
    let waiting = user.project.path().join("waiting");
    while !waiting.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        user.rdeploy(&["--ssh-persist", "1m", "up"]).status.code(),
        Some(1),
        "the project is not locked"
    );
    // Its ssh stays; what it held must not.
    holder.kill().unwrap();
    holder.wait().unwrap();
    fs::remove_file(&waiting).unwrap();
    fs::remove_file(user.project.path().join("rdeploy.yaml")).unwrap();
    succeeds(&user.rdeploy(&["--ssh-persist", "1m", "up", "--lock-wait", "30s"]));
    assert_eq!(get(user.server.ip()).unwrap(), "two");
    assert_eq!(user.logins(), logins, "somebody has logged in again");
    assert_eq!(user.sockets().len(), 1);
}

#[test]
fn a_connection_that_nobody_uses_ends_and_none_stays_unless_somebody_wants_it() {
    let user = User::new();
    succeeds(&user.rdeploy(&["status"]));
    assert!(user.sockets().is_empty(), "nobody is at a terminal");
    succeeds(&user.rdeploy(&["--ssh-persist", "1s", "status"]));
    let began = Instant::now();
    while !user.sockets().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "it is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    succeeds(&user.rdeploy(&["--ssh-persist", "1s", "status"]));
}

#[test]
fn a_connection_that_died_meanwhile_is_made_again() {
    let mut user = User::new();
    succeeds(&user.rdeploy(&["--ssh-persist", "1m", "status"]));
    assert_eq!(user.sockets().len(), 1);
    user.server.reboot();
    succeeds(&user.rdeploy(&["--ssh-persist", "1m", "status"]));
}
