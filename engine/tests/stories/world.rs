//! A world for one test: an engine root of its own, with everything in it gone at the end, also after a panic.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::Root;
use engine::container::cgroup::Cgroup;
use engine::network::Networks;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One engine that nobody else sees.
pub(crate) struct World {
    root: Root,
    directory: tempfile::TempDir,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    command: String,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A program that runs; killed when dropped.
pub(crate) struct Running {
    command: String,
    child: Child,
}

/// After this long a command counts as hanging. Nothing here takes a tenth of it on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The name of the process that takes in IPv6 for what has IPv4 alone.
const RELAY: &[u8] = b"rengine-relay";

/// The image of every story that needs no other: busybox under all its names, and little else.
pub(crate) const BOX: &str = "box";

// === impl World ===

impl World {
    /// An engine without images.
    pub(crate) fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("world-").tempdir().unwrap();
        let root = Root::at(&directory.path().join("root"));
        Self { root, directory }
    }

    /// An engine with the image `box`.
    pub(crate) fn new() -> Self {
        let world = Self::empty();
        world.import_box();
        world
    }

    /// An engine whose image `box` has these symbolic links in it, and nothing else but busybox.
    pub(crate) fn with_links(links: &[(&str, &str)]) -> Self {
        let world = Self::empty();
        let path = world.path("links.tar");
        let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
        append_busybox(&mut archive);
        for (name, target) in links {
            append_link(&mut archive, name, target);
        }
        archive.finish().unwrap();
        world.rengine(["import", path.to_str().unwrap(), BOX]).succeeds();
        world
    }

    /// Gives an engine the image `box`.
    pub(crate) fn import_box(&self) {
        self.rengine(["import", box_archive().to_str().unwrap(), BOX]).succeeds();
    }

    /// A directory of the test's own, on the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where this engine keeps itself.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// A file of the test's own, on the host.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Runs `rengine` to its end.
    pub(crate) fn rengine<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.spawn(args).ends()
    }

    /// Runs `rengine` to its end with this on its standard input.
    pub(crate) fn feed<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Outcome {
        let mut running = self.spawn_with(args, Stdio::piped());
        let mut stdin = running.child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            // A program that does not read its input to the end is the test's business, not the writer's.
            let _ = stdin.write_all(&input);
        });
        let outcome = running.ends();
        writer.join().unwrap();
        outcome
    }

    /// Starts `rengine` and does not wait for it.
    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        self.spawn_with(args, Stdio::null())
    }

    /// Starts a container of `box` in the background with these flags and this shell script; says its id.
    pub(crate) fn background(&self, flags: &str, script: &str) -> String {
        let mut args = vec!["run", "-d"];
        args.extend(flags.split_whitespace());
        args.extend([BOX, "sh", "-c", script]);
        self.rengine(args).succeeds().line()
    }

    /// Runs a container of `box` with these flags and this shell script, to its end.
    pub(crate) fn run(&self, flags: &str, script: &str) -> Outcome {
        let mut args = vec!["run", "--rm"];
        args.extend(flags.split_whitespace());
        args.extend([BOX, "sh", "-c", script]);
        self.rengine(args)
    }

    /// One value of `inspect`, by a format in docker's notation.
    pub(crate) fn inspect(&self, what: &str, format: &str) -> String {
        self.rengine(["inspect", "--format", format, what]).succeeds().line()
    }

    /// Waits until a container's log has this text; logs are followed, so this is an event.
    pub(crate) fn await_log(&self, container: &str, text: &str) {
        let mut running = self.spawn(["logs", "-f", container]);
        let mut output = running.child.stdout.take().unwrap();
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&seen).contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                wait_readable(&output, left),
                "no {text:?} in the log: {}",
                String::from_utf8_lossy(&seen)
            );
            let mut chunk = [0; 4096];
            let count = output.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the log ended without {text:?}: {}", String::from_utf8_lossy(&seen));
            seen.extend(&chunk[..count]);
        }
    }

    /// Starts `rengine` for what it writes as long as it runs.
    pub(crate) fn follow<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        self.spawn(args)
    }

    /// Renames a container to and fro until dropped: something that happens, for those who wait to hear of it.
    pub(crate) fn nudge(&self, container: &str) -> Nudge {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (root, seen, name) = (self.root.clone(), stop.clone(), container.to_owned());
        let thread = std::thread::spawn(move || {
            let other = format!("{name}-again");
            for (from, to) in [(&name, &other), (&other, &name)].into_iter().cycle() {
                if from == &name && seen.load(Ordering::SeqCst) {
                    return;
                }
                let mut command = Command::new(env!("CARGO_BIN_EXE_rengine"));
                command.args(["rename", from, to]).env("RENGINE_ROOT", root.state());
                Running::start(&mut command).ends().succeeds();
            }
        });
        Nudge { stop, thread: Some(thread) }
    }

    /// Waits until a file is there in a container.
    pub(crate) fn await_file(&self, container: &str, path: &str) {
        let script = format!("until [ -e {path} ]; do usleep 10000; done");
        self.rengine(["exec", container, "sh", "-c", &script]).succeeds();
    }

    /// The monitor of a container that runs: the parent of its first process.
    pub(crate) fn monitor(&self, container: &str) -> Pid {
        let pid = self.inspect(container, "{{.State.Pid}}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
        Pid::from_raw(parent.trim().parse().unwrap()).unwrap()
    }

    /// Kills the monitor of a container, and waits until it is dead.
    pub(crate) fn kill_monitor(&self, container: &str) {
        let monitor = pidfd_open(self.monitor(container), PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&monitor, Signal::KILL).unwrap();
        assert!(wait_readable(&monitor, PATIENCE), "the monitor does not die");
    }

    /// The process that takes in IPv6 for what has IPv4 alone.
    pub(crate) fn relay(&self) -> Option<OwnedFd> {
        processes_with(self.root.state(), |name| name == RELAY).pop()
    }

    /// Waits until no monitor of this world is alive.
    pub(crate) fn await_monitors_end(&self) {
        for monitor in processes_with(self.root.state(), |name| name != RELAY) {
            assert!(wait_readable(&monitor, Duration::from_secs(10)), "a monitor is left");
        }
    }

    /// Waits until nothing is plugged into any bridge of this world: the kernel takes links away a moment after
    /// the last process of their network namespace has ended, and tells nobody.
    pub(crate) fn await_bridges_empty(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let plugged = self.plugged();
            if plugged.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "links are left: {plugged:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The links that are plugged into the bridges of this world.
    pub(crate) fn plugged(&self) -> Vec<String> {
        let links = fs::read_dir("/sys/class/net").unwrap().flatten();
        let bridges =
            links.filter(|link| link.file_name().to_str().unwrap().starts_with(self.root.short_tag()));
        let ports = bridges.filter_map(|bridge| fs::read_dir(bridge.path().join("brif")).ok());
        ports.flatten().flatten().map(|port| port.file_name().into_string().unwrap()).collect()
    }

    /// A command of `rengine` that is not started yet.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rengine"));
        command.args(args).env("RENGINE_ROOT", self.root.state()).env_remove("RENGINE_LOG");
        command
    }

    fn spawn_with<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, stdin: Stdio) -> Running {
        Running::start(self.command(args).stdin(stdin))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // First as a user would, then by force: nothing may be left even when the engine is what is broken.
        let ids = self.rengine(["ps", "-aq"]).stdout;
        let ids: Vec<_> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            let _ = self.rengine(["rm", "-f", "-v"].into_iter().chain(ids));
        }
        for monitor in processes_with(self.root.state(), |_| true) {
            let _ = pidfd_send_signal(&monitor, Signal::KILL);
        }
        for id in Cgroup::list(&self.root).unwrap_or_default() {
            if let Ok(cgroup) = Cgroup::open(&self.root, &id) {
                let _ = cgroup.kill();
                let _ = cgroup.remove();
            }
        }
        let _ = Cgroup::sweep(&self.root);
        let _ = Networks::at(&self.root).teardown();
        let _ = fs::remove_dir_all(self.root.run());
    }
}

/// Something that happens again and again until it is dropped.
pub(crate) struct Nudge {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Nudge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Running ===

impl Running {
    /// Starts a program with both outputs piped.
    pub(crate) fn start(command: &mut Command) -> Self {
        let text = format!("{command:?}");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(&text);
        Self { command: text, child }
    }

    /// Its standard output.
    pub(crate) fn output(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// The host's number for it.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until a line with this text appears on its standard error; what comes later is thrown away.
    pub(crate) fn await_line(&mut self, text: &str) {
        let mut lines = BufReader::new(self.child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "{} ended without {text:?}", self.command);
        }
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end; one that does not come fails the test.
    pub(crate) fn ends(mut self) -> Outcome {
        let stdout = self.child.stdout.take().map(drain);
        let stderr = self.child.stderr.take().map(drain);
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let in_time = wait_readable(&pidfd, PATIENCE);
        if !in_time {
            self.child.kill().unwrap();
        }
        let status = self.child.wait().unwrap();
        let text = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| {
            let bytes = reader.map(|reader| reader.join().unwrap()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        let command = std::mem::take(&mut self.command);
        assert!(in_time, "{command} hangs\nstdout: {stdout}\nstderr: {stderr}");
        Outcome { command, status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Outcome ===

impl Outcome {
    /// It must have ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        let Self { command, status, stdout, stderr } = &self;
        assert_eq!(status.code(), Some(code), "{command}\nstdout: {stdout}\nstderr: {stderr}");
        self
    }

    /// It must have ended with code 0.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// The code it ended with.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether it ended with code 0.
    pub(crate) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// It must have ended with another code than 0.
    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        assert!(!self.status.success(), "{} succeeded\nstdout: {}", self.command, self.stdout);
        self
    }

    /// Its standard output must be exactly this.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert_eq!(self.stdout, text, "{}\nstderr: {}", self.command, self.stderr);
        self
    }

    /// Its standard output must have this in it.
    #[track_caller]
    pub(crate) fn shows(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{} does not show {text:?}: {}", self.command, self.stdout);
        self
    }

    /// Its standard error must have this in it.
    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{} does not say {text:?}: {}", self.command, self.stderr);
        self
    }

    /// Its standard output, which must be one line.
    #[track_caller]
    pub(crate) fn line(self) -> String {
        let line = self.stdout.trim_end().to_owned();
        assert!(!line.contains('\n'), "{} prints more than a line: {}", self.command, self.stdout);
        line
    }
}

/// A port of the host that was free a moment ago, from below the range that the kernel hands out by itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed) + u64::from(std::process::id());
        let port = 20_000 + (turn % 10_000) as u16;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// The tar of `box`, made once a test run, in the place of the last run's.
pub(crate) fn box_archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = tempfile::NamedTempFile::new_in(made).unwrap();
        let mut archive = tar::Builder::new(file.as_file());
        for name in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(if name == "tmp" { 0o1777 } else { 0o755 });
            header.set_size(0);
            archive.append_data(&mut header, name, std::io::empty()).unwrap();
        }
        let users = "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home:/bin/sh\n";
        let groups = "root:x:0:\nguest:x:1000:\nstaff:x:50:guest\n";
        for (name, content) in [("etc/passwd", users), ("etc/group", groups)] {
            append_file(&mut archive, name, content.as_bytes(), 0o644);
        }
        append_busybox(&mut archive);
        archive.finish().unwrap();
        drop(archive);
        let archive = made.join("engine-box.tar");
        file.persist(&archive).unwrap();
        archive
    })
}

fn append_busybox<W: Write>(archive: &mut tar::Builder<W>) {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    append_file(archive, "bin/busybox", &busybox, 0o755);
    let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|&applet| applet != "busybox") {
        append_link(archive, &format!("bin/{applet}"), "busybox");
    }
}

fn append_link<W: Write>(archive: &mut tar::Builder<W>, name: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, name, target).unwrap();
}

fn append_file<W: Write>(archive: &mut tar::Builder<W>, name: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content).unwrap();
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

pub(crate) fn wait_readable(fd: &impl std::os::fd::AsFd, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Processes of such a name with this path in their arguments: the monitors of a world, and its relay.
fn processes_with(path: &Path, is_one: impl Fn(&[u8]) -> bool) -> Vec<OwnedFd> {
    let needle = path.as_os_str().as_encoded_bytes();
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|&name| name != own).and_then(|name| name.parse().ok()) else {
            continue;
        };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = arguments.split(|&byte| byte == 0);
        if words.next().is_some_and(&is_one)
            && words.any(|argument| argument == needle)
            && let Some(pid) = Pid::from_raw(pid)
            && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        {
            found.push(pidfd);
        }
    }
    found
}
