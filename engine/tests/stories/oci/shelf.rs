//! Bundles for one test, and the containers made of them under either runtime; gone at the end.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::world::{Outcome, Running, box_archive};

/// A runtime that bundles are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runtime {
    Ours,
    Runc,
}

/// One bundle and the containers made of it.
pub(super) struct Shelf {
    directory: tempfile::TempDir,
    /// What containers here are called: nobody else's are.
    pub(super) id: String,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

// === impl Shelf ===

impl Shelf {
    /// A bundle whose root is busybox, with the description that `spec` writes, no terminal, and this program.
    pub(super) fn new(args: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("shelf-").tempdir().unwrap();
        let rootfs = directory.path().join("bundle/rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        tar::Archive::new(File::open(box_archive()).unwrap()).unpack(&rootfs).unwrap();
        let id = format!("oci-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let shelf = Self { directory, id };
        shelf.ours(["spec", "--bundle", shelf.bundle().to_str().unwrap()]).succeeds();
        shelf.change(|config| {
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(args);
            config["linux"]["cgroupsPath"] = json!(format!("/{}", shelf.id));
        });
        shelf
    }

    /// The same with a shell script as its program.
    pub(super) fn script(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    /// Changes the bundle's description.
    pub(super) fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// A command of a runtime that is not started yet.
    pub(super) fn command<'a>(&self, runtime: Runtime, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = match runtime {
            Runtime::Ours => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_rengine"));
                command.arg("oci");
                command
            }
            Runtime::Runc => Command::new("/usr/sbin/runc"),
        };
        command.arg("--root").arg(self.path(if runtime == Runtime::Ours { "ours" } else { "runc" }));
        command.args(args).current_dir(self.bundle()).stdin(Stdio::null());
        command
    }

    pub(super) fn ours<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Outcome {
        self.under(Runtime::Ours, args)
    }

    pub(super) fn under<'a>(&self, runtime: Runtime, args: impl IntoIterator<Item = &'a str>) -> Outcome {
        Running::start(&mut self.command(runtime, args)).ends()
    }

    /// A verb of ours upon the one container of this shelf.
    pub(super) fn verb(&self, verb: &str) -> Outcome {
        self.ours([verb, self.id.as_str()])
    }

    /// Creates the container of this shelf; what it writes goes to the file `output`.
    pub(super) fn create(&self, flags: &[&str]) {
        self.launch(Runtime::Ours, "create", flags);
    }

    /// Starts the container of this shelf in the background.
    pub(super) fn detach(&self, runtime: Runtime, flags: &[&str]) {
        self.launch(runtime, "run", &[&["--detach"], flags].concat());
    }

    fn launch(&self, runtime: Runtime, verb: &str, flags: &[&str]) {
        let output = File::create(self.path("output")).unwrap();
        let args = [&[verb], flags, &[self.id.as_str()]].concat();
        let errors = File::create(self.path("errors")).unwrap();
        let mut command = self.command(runtime, args);
        let status = command.stdout(output).stderr(errors).status().unwrap();
        assert!(status.success(), "{verb}: {}", fs::read_to_string(self.path("errors")).unwrap());
    }

    pub(super) fn output(&self) -> String {
        fs::read_to_string(self.path("output")).unwrap()
    }

    /// What is known of the container of this shelf.
    pub(super) fn state(&self, runtime: Runtime) -> Value {
        let text = self.under(runtime, ["state", &self.id]).succeeds().stdout;
        serde_json::from_str(&text).unwrap()
    }

    pub(super) fn status(&self) -> String {
        self.state(Runtime::Ours)["status"].as_str().unwrap().to_owned()
    }

    /// Kills the container of this shelf and waits until it has ended.
    pub(super) fn kill(&self) {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pid = self.state(Runtime::Ours)["pid"].as_i64().unwrap();
        let process = pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap();
        self.ours(["kill", &self.id, "KILL"]).succeeds();
        rustix::event::poll(&mut [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)], None)
            .unwrap();
    }

    /// Whether some control group of the container has this file with this value.
    pub(super) fn has_limit(&self, file: &str, value: &str) -> bool {
        let layout = engine::container::cgroup::Layout::detect().unwrap();
        let mut texts =
            layout.mounts().filter_map(|mount| fs::read_to_string(mount.join(&self.id).join(file)).ok());
        texts.any(|text| text.trim() == value)
    }

    /// A file of the container's control group, wherever its controller is mounted.
    pub(super) fn limit(&self, file: &str) -> String {
        let layout = engine::container::cgroup::Layout::detect().unwrap();
        let found =
            layout.mounts().find_map(|mount| fs::read_to_string(mount.join(&self.id).join(file)).ok());
        found.unwrap_or_else(|| panic!("no {file}")).trim().to_owned()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        for runtime in [Runtime::Ours, Runtime::Runc] {
            let listed = Running::start(&mut self.command(runtime, ["list", "-q"])).ends().stdout;
            for id in listed.split_whitespace() {
                let _ = Running::start(&mut self.command(runtime, ["delete", "-f", id])).ends();
            }
        }
    }
}

/// A program on the host that hooks can be: a shell script.
pub(super) fn program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A name that our program answers to.
pub(super) fn by_name(shelf: &Shelf, name: &str) -> PathBuf {
    let path = shelf.path(name);
    symlink(env!("CARGO_BIN_EXE_rengine"), &path).unwrap();
    path
}
