//! A world for one test: a project in a directory of its own, on an engine of its own, gone at the end, also after
//! a panic.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::engine::{Container, Engine, RemoveOptions};

/// The project `p` on an engine that nobody else sees.
pub(crate) struct World {
    directory: tempfile::TempDir,
    engine: Engine,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

// === impl World ===

impl World {
    /// A project with this file, on an engine with the image `box`: busybox under all its names.
    pub(crate) fn new(file: &str) -> Self {
        let world = Self::empty();
        world.import(box_archive(), "box");
        world.write("compose.yaml", file);
        world
    }

    /// A copy of one of the repository's examples, published wherever there is room, on an engine without images.
    pub(crate) fn example(name: &str) -> Self {
        let world = Self::empty();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let copied = Command::new("cp").arg("-rT").arg(example).arg(world.project()).status().unwrap();
        assert!(copied.success());
        world.write(".env", "PORT=0\n");
        world
    }

    fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("compose-").tempdir().unwrap();
        let engine = Engine::open(Some(&directory.path().join("root"))).unwrap();
        Self { directory, engine }
    }

    /// Makes an image of a root file system in a tar.
    pub(crate) fn import(&self, tar: &Path, name: &str) {
        let mut archive = fs::File::open(tar).unwrap();
        self.engine
            .images()
            .import(&mut archive, Default::default(), None, Some(&name.parse().unwrap()))
            .unwrap();
    }

    /// Puts a program of this workspace into the project.
    pub(crate) fn place_program(&self, program: &str, name: &str) {
        let built = Path::new(env!("CARGO_BIN_EXE_rcompose")).with_file_name(program);
        fs::copy(&built, self.project().join(name)).unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo build --workspace` makes it", built.display());
        });
    }

    /// A file next to the project's own.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.project().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Saves a file as editors do: under another name first, so that there is one moment at which it changes.
    pub(crate) fn save(&self, name: &str, content: &str) {
        let path = self.project().join(name);
        let draft = path.with_file_name(format!(".{}.swp", path.file_name().unwrap().to_str().unwrap()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&draft, content).unwrap();
        fs::rename(&draft, &path).unwrap();
    }

    /// Runs `rcompose` to its end.
    pub(crate) fn rcompose<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::of(&mut self.command(args))
    }

    /// Starts `rcompose` and does not wait for it.
    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// `rcompose`, ready to be started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command_in("");
        command.args(["-p", "p"]).args(args);
        command
    }

    /// `rcompose` in a directory below the project's.
    fn command_in(&self, directory: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rcompose"));
        command.current_dir(self.project().join(directory));
        command.env("RENGINE_ROOT", self.engine.root().state());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `rcompose` to its end in a directory below the project's, which may be a project that nobody named.
    pub(crate) fn rcompose_in<S: AsRef<OsStr>>(
        &self,
        directory: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Outcome {
        Outcome::of(self.command_in(directory).args(args))
    }

    /// Runs `rcompose` until it says this on standard error, and kills it on the spot.
    pub(crate) fn kill_at<S: AsRef<OsStr>>(&self, line: &str, args: impl IntoIterator<Item = S>) {
        let mut child = self.spawn(args);
        let mut said = Vec::new();
        for text in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
            let found = text.contains(line);
            said.push(text);
            if found {
                child.kill().unwrap();
                child.wait().unwrap();
                return;
            }
        }
        child.wait().unwrap();
        panic!("it never said {line:?} but\n{}", said.join("\n"));
    }

    /// The port of the host that leads to a port of a service.
    pub(crate) fn port(&self, service: &str, port: u16) -> u16 {
        let shown = self.rcompose(["port", service, &port.to_string()]).succeeds().stdout;
        shown.trim().rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address with a port")
    }

    /// The engine below.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The one container of this name.
    pub(crate) fn container(&self, name: &str) -> Container {
        self.engine.container(name).unwrap()
    }

    /// What a shell in a service's container prints.
    pub(crate) fn inside(&self, service: &str, command: &str) -> String {
        self.rcompose(["exec", "-T", service, "sh", "-c", command]).succeeds().stdout
    }

    /// The names of all containers.
    pub(crate) fn names(&self) -> Vec<String> {
        self.containers().iter().map(|container| container.name().to_string()).collect()
    }

    /// The names of the containers that run.
    pub(crate) fn running(&self) -> Vec<String> {
        self.containers()
            .iter()
            .filter(|container| container.state.is_running())
            .map(|container| container.name().to_string())
            .collect()
    }

    /// The ids of all containers, by name.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.containers().iter().map(|container| container.id().to_string()).collect()
    }

    /// The ids of the containers of one service, by name.
    pub(crate) fn ids_of(&self, service: &str) -> Vec<String> {
        self.containers()
            .iter()
            .filter(|container| container.record.spec.labels[compose::labels::SERVICE] == service)
            .map(|container| container.id().to_string())
            .collect()
    }

    /// Waits until a container of this name exists: the engine links its name into a directory.
    pub(crate) fn wait_for_container(&self, name: &str) {
        let link = self.engine.root().container_names().join(name);
        while fs::symlink_metadata(&link).is_err() {
            std::thread::yield_now();
        }
    }

    /// Whether any file the engine keeps on the disk has this text in it.
    pub(crate) fn state_contains(&self, text: &str) -> bool {
        let found = Command::new("grep")
            .args(["-rqF", text])
            .arg(self.engine.root().state().join("containers"))
            .status()
            .unwrap();
        found.success()
    }

    fn containers(&self) -> Vec<Container> {
        let mut all = self.engine.containers().unwrap();
        all.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
        all
    }

    /// The project's directory.
    pub(crate) fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // First as a user would, then by force: nothing may be left even when compose is what is broken.
        let _ = self.rcompose(["down", "-v", "-t", "0", "--remove-orphans"]);
        for container in self.engine.containers().unwrap_or_default() {
            let _ = self.engine.remove(container.id(), &RemoveOptions { force: true, volumes: true });
        }
        let _ = self.engine.down();
    }
}

/// A real registry on loopback, gone at the end.
pub(crate) struct Registry {
    pub(crate) address: String,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// Starts it and waits until it listens.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = directory.path().join("storage").display().to_string();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n"
        );
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        let command = command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("docker-registry is installed");
        let lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut lines = lines.skip_while(|line| !line.contains("listening on "));
        let line = lines.next().expect("it listens");
        let address = line.split("listening on ").nth(1).unwrap();
        let address = address.split(['"', ' ']).next().unwrap().to_owned();
        // It goes on talking, and would stand still with nobody to listen.
        std::thread::spawn(move || lines.for_each(drop));
        Self { address, process, _directory: directory }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One request over HTTP to this machine: the status and the body.
pub(crate) fn http(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    (status, body.to_owned())
}

/// Waits until somebody listens at a port of this machine. Nobody tells.
pub(crate) fn await_listener(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens at {port}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Gets a page of this machine.
pub(crate) fn get(port: u16, path: &str) -> (u16, String) {
    http(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

/// What somebody is answered who asks over and over while something is done, and what comes of that.
pub(crate) fn while_asked<T>(
    mut ask: impl FnMut() -> Option<String> + Send,
    work: impl FnOnce() -> T,
) -> (T, Vec<String>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answers = Vec::new();
            while !over.load(Ordering::SeqCst) {
                answers.extend(ask());
            }
            answers
        });
        // Whoever asks ends, also when the work panics: the scope waits for it.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::SeqCst);
        let answers = client.join().expect("nobody is refused");
        (done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), answers)
    })
}

// === impl Outcome ===

impl Outcome {
    /// Runs a program to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It must have ended with code 0.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// The tar of `box`, made once a test run, in the place of the last run's.
fn box_archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(root.path().join("etc/group"), "root:x:0:\n").unwrap();
        fs::write(root.path().join("etc/hello"), "hello\n").unwrap();
        fs::copy("/bin/busybox", root.path().join("bin/busybox")).expect("busybox-static is installed");
        let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|&applet| applet != "busybox") {
            std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).unwrap();
        }
        let tar = Command::new("tar").arg("-C").arg(root.path()).args(["-cf", "-", "."]).output().unwrap();
        assert!(tar.status.success());
        let made = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let mut file = tempfile::NamedTempFile::new_in(made).unwrap();
        file.write_all(&tar.stdout).unwrap();
        let archive = made.join("compose-box.tar");
        file.persist(&archive).unwrap();
        archive
    })
}
