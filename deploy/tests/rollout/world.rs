//! A project with hosts that are engines of their own on this machine, gone at the end, also after a panic.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::engine::{Engine, RemoveOptions};

/// A project and its hosts.
pub(crate) struct World {
    directory: tempfile::TempDir,
    hosts: usize,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A service that has to stop first.
pub(crate) const STORE: &str = "
services:
  store:
    build: .
    ports: ['80']
    volumes: [data:/data]
    stop_grace_period: 0s
volumes: {data: {}}
";

const DOCKERFILE: &str = include_str!("../page.Dockerfile");

// === impl World ===

impl World {
    /// A project whose services are built from one page, and so many hosts.
    pub(crate) fn new(hosts: usize, file: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("rollout-").tempdir().unwrap();
        let world = Self { directory, hosts };
        fs::create_dir(world.project()).unwrap();
        fs::copy("/bin/busybox", world.project().join("busybox")).expect("busybox-static is installed");
        world.write("Dockerfile", DOCKERFILE);
        world.write("compose.yaml", file);
        world.page("one");
        world
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.directory.path().join("p")
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.project().join(name), content).unwrap();
    }

    /// What the next release serves.
    pub(crate) fn page(&self, text: &str) {
        self.write("page", &format!("{text}\n"));
    }

    /// The root of the engine of a host.
    pub(crate) fn root(&self, host: usize) -> PathBuf {
        self.directory.path().join(format!("host{host}"))
    }

    /// A host as `--host` takes it.
    pub(crate) fn host(&self, host: usize) -> String {
        format!("local:{}", self.root(host).display())
    }

    pub(crate) fn engine(&self, host: usize) -> Engine {
        Engine::open(Some(&self.root(host))).unwrap()
    }

    /// `rdeploy` on this project and one of its hosts.
    pub(crate) fn on_one<'a>(&self, host: usize, words: impl IntoIterator<Item = &'a str>) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdeploy"));
        command.arg("--root").arg(self.directory.path().join("here")).args(["--host", &self.host(host)]);
        Outcome::of(&command.args(words).current_dir(self.project()).output().unwrap())
    }

    /// `rdeploy` on this project and all its hosts.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdeploy"));
        command.arg("--root").arg(self.directory.path().join("here"));
        for host in 0..self.hosts {
            command.arg("--host").arg(self.host(host));
        }
        command.args(words).current_dir(self.project());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Child {
        self.command(words).spawn().unwrap()
    }

    /// `rengine` on a host.
    pub(crate) fn rengine<'a>(&self, host: usize, words: impl IntoIterator<Item = &'a str>) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdeploy"));
        command.arg("rengine").arg("--root").arg(self.root(host)).args(words);
        Outcome::of(&command.output().unwrap())
    }

    /// `rengine` where images are built, in the project's directory.
    pub(crate) fn rengine_here<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdeploy"));
        command.arg("rengine").arg("--root").arg(self.directory.path().join("here"));
        Outcome::of(&command.args(words).current_dir(self.project()).output().unwrap())
    }

    pub(crate) fn rdeploy<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::of(&self.command(words).output().unwrap())
    }

    /// The port of this machine that leads to a service's port 80 on a host.
    pub(crate) fn port(&self, host: usize, service: &str) -> u16 {
        let engine = self.engine(host);
        let all = engine.containers().unwrap();
        let label = |name: &str| name.to_owned();
        let found = all.iter().find(|container| {
            let labels = &container.record.spec.labels;
            labels.get(&label("com.docker.compose.service")).is_some_and(|name| name == service)
                && !container.ports.is_empty()
        });
        found.expect("a container of the service is published").ports[0].host_port
    }

    /// The names of all containers on a host.
    pub(crate) fn names(&self, host: usize) -> Vec<String> {
        let mut names: Vec<String> = self
            .engine(host)
            .containers()
            .unwrap()
            .iter()
            .map(|container| container.name().to_string())
            .collect();
        names.sort();
        names
    }

    /// Waits until no rollout goes on on a host and nobody guards one: until its lock is free and its journal gone.
    pub(crate) fn settle(&self, host: usize) {
        let deployment = self.root(host).join("deploy/p");
        let began = Instant::now();
        loop {
            let lock = deployment.join("lock");
            let free = !lock.exists() || engine::store::Lock::try_exclusive(&lock).unwrap().is_some();
            if free && !deployment.join("journal.json").exists() {
                return;
            }
            if began.elapsed() > Duration::from_secs(30) {
                panic!("host {host} is still not of one version, lock free: {free}\n{}", self.account(host));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a host has written down of its rollouts, for whoever has to understand a failure.
    pub(crate) fn account(&self, host: usize) -> String {
        let guard = self.engine(host).root().deployment_runs().join("p/guard.log");
        let history = self.root(host).join("deploy/p/history.jsonl");
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
        let last: Vec<String> = read(&history).lines().rev().take(2).map(str::to_owned).collect();
        format!(
            "guard: {}\nhistory: {}\nps: {}",
            read(&guard),
            last.join("\n"),
            self.rengine(host, ["ps", "-a"]).stdout
        )
    }

    /// Asks for a page again and again while something goes on. Every answer, in order; a failure is one too.
    pub(crate) fn clients<T>(&self, ports: &[u16], work: impl FnOnce() -> T) -> (T, Vec<Vec<String>>) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asked: Vec<_> = ports
                .iter()
                .map(|port| {
                    let over = &over;
                    scope.spawn(move || {
                        let mut pages = Vec::new();
                        while !over.load(Ordering::SeqCst) {
                            pages.push(get(*port).unwrap_or_else(|error| format!("FAILED: {error}")));
                        }
                        pages
                    })
                })
                .collect();
            let done = work();
            over.store(true, Ordering::SeqCst);
            (done, asked.into_iter().map(|client| client.join().unwrap()).collect())
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let entries = std::fs::read_dir(self.directory.path()).unwrap().flatten();
        // Machines that only build are hosts by their directories, too.
        for host in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("host")) {
            let Ok(engine) = Engine::open(Some(&host.path())) else { continue };
            for container in engine.containers().unwrap_or_default() {
                let _ = engine.remove(container.id(), &RemoveOptions { force: true, volumes: true });
            }
            let _ = engine.down();
        }
        let here = Engine::open(Some(&self.directory.path().join("here"))).unwrap();
        let _ = here.down();
    }
}

// === impl Outcome ===

impl Outcome {
    pub(crate) fn of(output: &std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        assert_eq!(self.code, 1, "{}\n{}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// The page that is served at a port of this machine.
pub(crate) fn get(port: u16) -> std::io::Result<String> {
    get_at(([127, 0, 0, 1], port).into())
}

/// The page that is served at an address.
pub(crate) fn get_at(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("cut off"))?;
    if !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(head.to_owned()));
    }
    Ok(body.trim().to_owned())
}
