//! containerd's own containers on this runtime, through its shim.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::shelf::{Shelf, by_name};
use crate::world::{Outcome, Running};

/// A containerd that nobody else sees.
struct Containerd {
    shelf: Shelf,
    daemon: Child,
}

impl Containerd {
    fn start() -> Self {
        let shelf = Shelf::new(&["true"]);
        let path = |name: &str| shelf.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            path("data"),
            path("state"),
            path("socket")
        );
        fs::write(shelf.path("config.toml"), config).unwrap();
        let log = fs::File::create(shelf.path("log")).unwrap();
        let mut command = Command::new("/usr/bin/containerd");
        command.arg("-c").arg(shelf.path("config.toml")).stdin(Stdio::null());
        let daemon = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let containerd = Self { shelf, daemon };
        let deadline = Instant::now() + Duration::from_secs(60);
        // It tells nobody when it listens.
        while !containerd.ctr(["version"]).is_success() {
            assert!(
                Instant::now() < deadline,
                "{}",
                fs::read_to_string(containerd.shelf.path("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        containerd
    }

    fn ctr<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Outcome {
        let mut command = Command::new("/usr/bin/ctr");
        command.arg("-a").arg(self.shelf.path("socket")).args(args);
        Running::start(command.stdin(Stdio::null())).ends()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let id = self.shelf.id.as_str();
        let _ = self.ctr(["task", "rm", "-f", id]);
        let _ = self.ctr(["container", "rm", id]);
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.daemon),
            rustix::process::Signal::TERM,
        );
        let _ = self.daemon.wait();
    }
}

#[test]
fn containerd_runs_its_containers_on_it() {
    let containerd = Containerd::start();
    let shelf = &containerd.shelf;
    let (runtime, rootfs) = (by_name(shelf, "rengine-oci"), shelf.bundle().join("rootfs"));
    let (id, rootfs) = (shelf.id.as_str(), rootfs.to_str().unwrap());
    let run = ["run", "--runc-binary", runtime.to_str().unwrap(), "--cgroup", id, "--rootfs"];
    let start = |flags: &[&'static str], script: &'static str| {
        let (verb, rest) = run.split_first().unwrap();
        let line = [&[*verb], flags, rest, &[rootfs, id, "/bin/sh", "-c", script]].concat();
        containerd.ctr(line)
    };
    start(&["--rm"], "echo hello; exit 3").exits(3).prints("hello\n");
    start(&["--detach"], "exec sleep 1000 >/dev/null 2>&1 </dev/null").succeeds();
    let exec = |script| containerd.ctr(["task", "exec", "--exec-id", "one", id, "/bin/sh", "-c", script]);
    exec("id -u; exit 4").exits(4).prints("0\n");
    containerd.ctr(["task", "pause", id]).succeeds();
    containerd.ctr(["task", "ls"]).succeeds().shows("PAUSED");
    containerd.ctr(["task", "resume", id]).succeeds();
    containerd.ctr(["task", "ls"]).succeeds().shows("RUNNING");
    containerd.ctr(["task", "metrics", id]).succeeds().shows("pids.current");
    containerd.ctr(["task", "rm", "-f", id]).exits(0);
    containerd.ctr(["container", "rm", id]).succeeds();
    containerd.ctr(["task", "ls", "-q"]).succeeds().prints("");
}
