//! From a project to servers over SSH, with the program as its users run it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::server::{Kind, Network, PASSWORD, Server};

/// A project that is served at port 8080.
pub(crate) struct Project {
    directory: tempfile::TempDir,
}

const DOCKERFILE: &str = include_str!("../page.Dockerfile");

const WEB: &str = "
services:
  web: {build: ., container_name: web, ports: ['8080:80'], stop_grace_period: 0s}
";

impl Project {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("project-").tempdir().unwrap();
        let project = Self { directory };
        fs::create_dir(project.path()).unwrap();
        project_files(&project.path());
        project
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("p")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    pub(crate) fn command(&self, servers: &[&Server], words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdeploy"));
        command.arg("--root").arg(self.directory.path().join("engine"));
        for server in servers {
            command.args(["--host", &server.as_user("root").to_string()]);
            command.args(["--fingerprint", &server.fingerprint("ed25519").to_string()]);
        }
        if let Some(server) = servers.first() {
            command.arg("-i").arg(server.key());
        }
        command.args(words).current_dir(self.path()).env("HOME", self.directory.path());
        // What a client that is killed leaves goes with the next one, or with this directory.
        command.env("XDG_RUNTIME_DIR", self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn rdeploy(&self, servers: &[&Server], words: &[&str]) -> Output {
        self.command(servers, words).output().unwrap()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        take_down(&self.directory.path().join("engine"));
    }
}

/// The engine that built leaves a run directory and what the kernel has of it.
pub(crate) fn take_down(root: &Path) {
    let _ = engine::Engine::open(Some(root)).and_then(|engine| engine.down());
}

#[track_caller]
pub(crate) fn succeeds(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[track_caller]
pub(crate) fn fails(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

/// The files of the project that all stories deploy.
pub(crate) fn project_files(directory: &Path) {
    fs::copy("/bin/busybox", directory.join("busybox")).unwrap();
    for (name, text) in [("Dockerfile", DOCKERFILE), ("compose.yaml", WEB), ("page", "one\n")] {
        fs::write(directory.join(name), text).unwrap();
    }
}

pub(crate) fn get(address: Ipv4Addr) -> std::io::Result<String> {
    get_at((address, 8080).into())
}

/// The page that is served at an address.
pub(crate) fn get_at(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    body.ok_or_else(|| std::io::Error::other("cut off"))
}

#[test]
fn bare_servers_serve_after_one_command_and_change_over_together() {
    let network = Network::new();
    let servers = [Server::of(&network, Kind::default()), Server::of(&network, Kind::default())];
    let all = [&servers[0], &servers[1]];
    let project = Project::new();
    succeeds(&project.rdeploy(&all, &["up"]));
    for server in &servers {
        assert_eq!(get(server.ip()).unwrap(), "one");
    }
    project.write("page", "two\n");
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = servers
        .iter()
        .map(|server| {
            let (address, over) = (server.ip(), over.clone());
            std::thread::spawn(move || {
                let mut pages = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    pages.push(get(address).unwrap_or_else(|error| format!("FAILED: {error}")));
                }
                pages
            })
        })
        .collect();
    let report = succeeds(&project.rdeploy(&all, &["--json", "up"]));
    over.store(true, Ordering::SeqCst);
    for client in clients {
        let pages = client.join().unwrap();
        let moved = pages.iter().position(|page| page != "one").unwrap_or(pages.len());
        assert!(pages[moved..].iter().all(|page| page == "two"), "{pages:?}");
    }
    let report: serde_json::Value = serde_json::from_str(report.trim()).unwrap();
    for host in report["hosts"].as_array().unwrap() {
        assert_eq!(host["downtime_ms"], 0, "{report}");
        assert!(host["bytes_sent"].as_u64().unwrap() < 20_000, "{report}");
    }
    for server in &servers {
        assert_eq!(get(server.ip()).unwrap(), "two");
    }
    succeeds(&project.rdeploy(&all, &["rollback"]));
    for server in &servers {
        assert_eq!(get(server.ip()).unwrap(), "one");
    }
    let said = succeeds(&project.rdeploy(&all[..1], &["exec", "web", "cat", "/www/page"]));
    assert_eq!(said, "one\n");
    let script = "echo out; echo err >&2; exit 3";
    let output = project.rdeploy(&all[..1], &["exec", "--json", "web", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(3));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&said["code"], &said["stdout"], &said["stderr"]),
        (&3.into(), &"out\n".into(), &"err\n".into())
    );
    succeeds(&project.rdeploy(&all[..1], &["exec", "web", "sh", "-c", "echo logged >/proc/1/fd/1"]));
    let said = succeeds(&project.rdeploy(&all[..1], &["logs", "--json", "-n", "1"]));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["container"], &said["line"]), (&"web".into(), &"logged".into()), "{said}");
    // Hosts that are followed are all heard at once.
    let mut follow = project.command(&all, &["logs", "--follow", "-n", "0"]).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map_while(Result::ok);
    let write = "while sleep 0.1; do echo again >/proc/1/fd/1; done";
    let mut writers: Vec<_> = (0..2)
        .map(|number| {
            project.command(&all[number..=number], &["exec", "web", "sh", "-c", write]).spawn().unwrap()
        })
        .collect();
    for server in &servers {
        let host = server.as_user("root").to_string();
        assert!(lines.any(|line| line.starts_with(&host) && line.ends_with("again")), "{host} is not heard");
    }
    for child in writers.iter_mut().chain([&mut follow]) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(said["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{said}");
}

#[test]
fn a_user_with_a_password_and_sudo_is_enough() {
    let kind = Kind::default()
        .user("deploy", "/bin/bash")
        .sudoers("deploy ALL=(ALL) ALL")
        .sshd("PasswordAuthentication yes");
    let server = Server::of(&Network::new(), kind);
    let project = Project::new();
    let rdeploy = |words: &[&str], sudo: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdeploy"));
        command.arg("--root").arg(project.directory.path().join("engine"));
        command.args(["--host", &server.as_user("deploy").to_string()]);
        command.args(["--fingerprint", &server.fingerprint("ed25519").to_string()]);
        command.args(words).current_dir(project.path()).env("HOME", project.directory.path());
        command.env("RDEPLOY_SSH_PASSWORD", PASSWORD).env("RDEPLOY_SUDO_PASSWORD", sudo);
        command.output().unwrap()
    };
    succeeds(&rdeploy(&["up"], PASSWORD));
    assert_eq!(get(server.ip()).unwrap(), "one");
    // sudo has cleared the environment that says who called, and from where.
    let audit = succeeds(&rdeploy(&["--json", "audit"], PASSWORD));
    let audit: serde_json::Value = serde_json::from_str(audit.trim()).unwrap();
    let here = server.network_host().to_string();
    assert_eq!(audit["deed"]["from"], serde_json::json!({ "user": "deploy", "address": here }));
    let wrong = fails(&rdeploy(&["status"], "wrong"));
    assert!(wrong.contains("did not accept the password of deploy"), "{wrong}");
    assert!(wrong.contains("hint: check RDEPLOY_SUDO_PASSWORD"), "{wrong}");
}

#[test]
fn a_cut_network_leaves_the_old_version_and_needs_nobody_to_put_it_right() {
    let network = Network::new();
    let servers = [Server::of(&network, Kind::default()), Server::of(&network, Kind::default())];
    let all = [&servers[0], &servers[1]];
    let project = Project::new();
    succeeds(&project.rdeploy(&all, &["up"]));
    project.write("page", "two\n");
    project.write(
        "rdeploy.yaml",
        "hooks:\n  before-commit: ['touch waiting; while [ -e waiting ]; do sleep 0.02; done']\n",
    );
    let client = project.command(&all, &["up"]).spawn().unwrap();
    let waiting = project.path().join("waiting");
    while !waiting.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    // All are ready, and one is out of reach when they are to change over.
    servers[1].cut();
    fs::remove_file(&waiting).unwrap();
    let failed = fails(&client.wait_with_output().unwrap());
    assert!(failed.contains(&servers[1].ip().to_string()), "{failed}");
    servers[1].heal();
    fs::remove_file(project.path().join("rdeploy.yaml")).unwrap();
    for server in &servers {
        let settled =
            || server.run("cat /var/lib/rengine/deploy/p/journal.json 2>/dev/null || true").is_empty();
        let began = std::time::Instant::now();
        while !settled() {
            assert!(began.elapsed() < Duration::from_secs(40), "{}", server.ip());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(get(server.ip()).unwrap(), "one");
    }
    succeeds(&project.rdeploy(&all, &["up"]));
    assert_eq!(servers.each_ref().map(|server| get(server.ip()).unwrap()), ["two", "two"]);
}

#[test]
fn a_host_that_reboots_half_way_is_of_the_old_version_when_it_is_up_again() {
    let network = Network::new();
    let mut server = Server::of(&network, Kind::default());
    let project = Project::new();
    project.write("compose.yaml", &WEB.replace("build: .,", "build: ., restart: always,"));
    succeeds(&project.rdeploy(&[&server], &["up"]));
    let setup = project.rdeploy(&[&server], &["setup"]);
    let remarks = String::from_utf8_lossy(&setup.stderr).into_owned();
    succeeds(&setup);
    // A server of these stories has no systemd; what to run instead it is told.
    let (_, boot) = remarks.split_once("no systemd here: run `").unwrap();
    let boot = boot.split_once('`').unwrap().0.to_owned();
    assert!(server.run("rcompose version").contains("rcompose"), "the names are not there");
    project.write("page", "two\n");
    project.write(
        "rdeploy.yaml",
        "hooks:\n  before-commit: ['touch waiting; while [ -e waiting ]; do sleep 0.02; done']\n",
    );
    let client = project.command(&[&server], &["up"]).spawn().unwrap();
    let waiting = project.path().join("waiting");
    while !waiting.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    server.reboot();
    fs::remove_file(&waiting).unwrap();
    fails(&client.wait_with_output().unwrap());
    server.run(&boot);
    assert_eq!(get(server.ip()).unwrap(), "one");
    assert_eq!(server.run("rengine ps --format '{{.Names}}'"), "web");
    fs::remove_file(project.path().join("rdeploy.yaml")).unwrap();
    succeeds(&project.rdeploy(&[&server], &["up"]));
    assert_eq!(get(server.ip()).unwrap(), "two");
}

#[test]
fn a_host_that_is_lost_when_all_finish_is_brought_to_the_release_again() {
    let network = Network::new();
    let servers = [Server::of(&network, Kind::default()), Server::of(&network, Kind::default())];
    let all = [&servers[0], &servers[1]];
    let project = Project::new();
    succeeds(&project.rdeploy(&all, &["up"]));
    // The old container of one host takes its time to end: that is when its agent is killed.
    project.write(
        "compose.yaml",
        &WEB.replace("stop_grace_period: 0s", "stop_grace_period: 3s, stop_signal: SIGUSR1"),
    );
    succeeds(&project.rdeploy(&all, &["up"]));
    project.write("page", "two\n");
    let client = project.command(&all, &["up", "--drain", "0s"]).spawn().unwrap();
    let began = std::time::Instant::now();
    while !servers[1]
        .run("cat /var/lib/rengine/deploy/p/journal.json 2>/dev/null || true")
        .contains("\"retiring\"")
    {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    servers[1].run("for pid in $(grep -lxz agent /proc/[0-9]*/cmdline | cut -d/ -f3); do kill -9 $pid 2>/dev/null || true; done");
    succeeds(&client.wait_with_output().unwrap());
    assert_eq!(servers.each_ref().map(|server| get(server.ip()).unwrap()), ["two", "two"]);
    for server in &servers {
        assert_eq!(server.run("rengine=$(ls /var/lib/rengine/bin/*/rdeploy | head -1); $rengine rengine ps --format '{{.Names}}'"), "web");
    }
}

/// The ssh of a client, which is all that there is between the two sides.
fn line_of(client: u32) -> Option<rustix::process::Pid> {
    let tasks = fs::read_dir(format!("/proc/{client}/task")).ok()?.flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<i32> = children
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .collect();
    let is_ssh =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "ssh");
    pids.into_iter().find(is_ssh).and_then(rustix::process::Pid::from_raw)
}

#[test]
fn twenty_cuts_of_the_line_and_always_one_version() {
    let server = Server::start();
    let project = Project::new();
    succeeds(&project.rdeploy(&[&server], &["up"]));
    project.write("page", "a\n");
    let began = std::time::Instant::now();
    succeeds(&project.rdeploy(&[&server], &["up", "--drain", "0s"]));
    let mut whole = began.elapsed();
    let mut serving = "a".to_owned();
    let mut cuts = 0;
    for cut in 0..20_u32 {
        let page = format!("page{cut}");
        project.write("page", &format!("{page}\n"));
        let mut client =
            project.command(&[&server], &["up", "--drain", "0s", "--lock-wait", "30s"]).spawn().unwrap();
        // Not a wait for something: the moment is what the test is about.
        std::thread::sleep(whole * cut / 20);
        if let Some(line) = line_of(client.id()) {
            cuts += u32::from(rustix::process::kill_process(line, rustix::process::Signal::KILL).is_ok());
        } else {
            // The machine was busier when it was measured.
            whole = whole * 3 / 4;
        }
        client.wait().unwrap();
        let began = std::time::Instant::now();
        let journal = "cat /var/lib/rengine/deploy/p/journal.json 2>/dev/null || true";
        while !server.run(journal).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "cut {cut}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let now = get(server.ip()).unwrap();
        assert!(now == serving || now == page, "cut {cut}: {now} after {serving}");
        serving = now;
    }
    assert!(cuts > 10, "only {cuts} were in time");
    project.write("page", "end\n");
    succeeds(&project.rdeploy(&[&server], &["up", "--drain", "0s", "--lock-wait", "30s"]));
    assert_eq!(get(server.ip()).unwrap(), "end");
}

#[test]
fn several_who_come_to_a_bare_server_at_once_all_get_their_turn() {
    let server = Server::start();
    let project = Project::new();
    // Built before, so that all of them bring the agent at the same time.
    succeeds(&project.rdeploy(&[&server], &["plan"]));
    server.run("rm -rf /var/lib/rengine/bin");
    let up = ["up", "--drain", "0s", "--lock-wait", "60s"];
    let all: Vec<_> = (0..3).map(|_| project.command(&[&server], &up).spawn().unwrap()).collect();
    for client in all {
        succeeds(&client.wait_with_output().unwrap());
    }
    assert_eq!(get(server.ip()).unwrap(), "one");
    assert_eq!(server.run("find /var/lib/rengine/bin /root/.cache -type f | wc -l"), "1");
}

#[test]
fn a_host_without_room_or_without_leave_to_execute_is_told_and_nothing_is_left_there() {
    let server = Server::start();
    let project = Project::new();
    server.mount_root("/small", "size=20m");
    server.mount_root("/still", "noexec");
    let said = fails(&project.rdeploy(&[&server], &["--remote-root", "/small", "up"]));
    assert!(said.contains("there is no space left at") && said.contains("hint: "), "{said}");
    assert_eq!(server.run("find /small /root/.cache -type f"), "", "pieces of the agent are still there");
    let said = fails(&project.rdeploy(&[&server], &["--remote-root", "/still", "up"]));
    assert!(said.contains("cannot be executed at /still/") && said.contains("noexec"), "{said}");
}

#[test]
fn a_release_that_a_host_has_no_room_for_leaves_the_room_that_there_was() {
    let server = Server::start();
    let project = Project::new();
    let size = fs::metadata(env!("CARGO_BIN_EXE_rdeploy")).unwrap().len() + (8 << 20);
    server.mount_root("/room", &format!("size={size}"));
    let up = || project.rdeploy(&[&server], &["--remote-root", "/room", "up", "--drain", "0s"]);
    succeeds(&up());
    let dockerfile = fs::read_to_string(project.path().join("Dockerfile")).unwrap();
    let noise: Vec<u8> =
        (0..4_u32 << 20).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(project.path().join("large"), noise).unwrap();
    project.write("Dockerfile", &dockerfile.replace("CMD", "COPY large /large\nCMD"));
    let said = fails(&up());
    assert!(said.contains("No space left on device") && said.contains("rdeploy prune"), "{said}");
    assert_eq!(server.run("find /room/transfers -type f"), "", "the disk is still full");
    assert_eq!(get(server.ip()).unwrap(), "one");
    project.write("Dockerfile", &dockerfile);
    project.write("page", "two\n");
    succeeds(&up());
    assert_eq!(get(server.ip()).unwrap(), "two");
    // Whatever it is that there is no room for: a host goes back from it, and by itself.
    for kilobytes in [0, 4, 24, 40, 48, 60, 100] {
        project.write("page", &format!("with {kilobytes} kB\n"));
        server.run(&format!(
            "rm -f /room/full; room=$(df --output=avail -B1k /room | tail -1); \
             head -c $((room - {kilobytes}))k /dev/zero > /room/full"
        ));
        let said = fails(&up());
        assert!(said.contains("No space left on device") && said.contains("hint: "), "{said}");
        assert_eq!(get(server.ip()).unwrap(), "two", "{said}");
    }
    server.run("rm /room/full");
    project.write("page", "three\n");
    succeeds(
        &project
            .rdeploy(&[&server], &["--remote-root", "/room", "up", "--lock-wait", "30s", "--drain", "0s"]),
    );
    assert_eq!(get(server.ip()).unwrap(), "three");
}
