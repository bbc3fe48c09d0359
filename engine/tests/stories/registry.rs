//! The registry of the distribution project, on a port of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::world::{Running, free_port};

/// A real registry on loopback; gone when dropped.
pub(crate) struct Registry {
    pub(crate) port: u16,
    log: Arc<Mutex<String>>,
    _process: Running,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// One that keeps what it is given, and asks nobody who they are.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// One that also has these keys in the `http` part of its configuration, each on a line of its own.
    pub(crate) fn start_with(keys: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), keys, "")
    }

    /// One that takes manifests whose layers are elsewhere.
    pub(crate) fn start_trusting() -> Self {
        let rest = "validation: {disabled: true}\n";
        Self::start_in(tempfile::tempdir().unwrap(), "", rest)
    }

    /// One that only lets `user` in, whose password is `secret`.
    pub(crate) fn start_private() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let users = directory.path().join("htpasswd");
        fs::write(&users, "user:$2b$05$.z1pcBpgFw3qfKkos4egq./Ner0eKVKVFc8GkgDT34bMaiH3Le.Le\n").unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: story, path: {}}}}}\n", users.display());
        Self::start_in(directory, "", &auth)
    }

    fn start_in(directory: tempfile::TempDir, keys: &str, rest: &str) -> Self {
        let port = free_port();
        let storage = directory.path().join("storage");
        let mut config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            storage.display()
        );
        keys.lines().for_each(|line| config.push_str(&format!("  {line}\n")));
        config.push_str(rest);
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        let mut process = Running::start(command.arg("serve").arg(&path));
        // It must not block on a full pipe.
        let (lines, log) = (BufReader::new(process.output()).lines(), Arc::new(Mutex::new(String::new())));
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        process.await_line("listening on");
        Self { port, log, _process: process, _directory: directory }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it was asked so far, a line each, in the web's combined format. It writes a line after it has answered.
    pub(crate) fn requests(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has written a line with this text.
    pub(crate) fn await_request(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.requests().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} among its requests: {}", self.requests());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
