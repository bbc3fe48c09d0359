//! The registry of the distribution project, on a port of its own.

use std::fs;
use std::process::Command;

use crate::world::{Running, free_port};

/// A real registry on loopback; gone when dropped.
pub(crate) struct Registry {
    pub(crate) port: u16,
    _process: Running,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// One that keeps what it is given, and asks nobody who they are.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let storage = directory.path().join("storage");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            storage.display()
        );
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        let mut process = Running::start(command.arg("serve").arg(&path));
        // It must not block on a full pipe.
        let mut log = process.output();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        process.await_line("listening on");
        Self { port, _process: process, _directory: directory }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
