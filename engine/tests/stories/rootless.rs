//! An engine of an ordinary user: nothing of it takes root but the two programs that hand out ids.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::world::{BOX, Outcome, Running, box_archive, free_port};

/// A user of this machine for the length of a test.
struct Person {
    directory: tempfile::TempDir,
    uid: u32,
    /// Its line in /etc/subuid and /etc/subgid.
    range: &'static str,
    /// The control group that it has been given, in which its commands run.
    group: Option<PathBuf>,
    /// Whether its commands run elsewhere all the same.
    elsewhere: bool,
}

/// What a person cannot do to the machine is done in a mount namespace of one command: the files that know users, and a
/// /dev/net/tun that everybody may open.
const AS_PERSON: &str = r#"
set -e
for file in passwd group subuid subgid; do mount --bind "$1/$file" /etc/$file; done
mkdir -p /dev/net; mount -t tmpfs -o mode=755 tun /dev/net; mknod -m 666 /dev/net/tun c 10 200
mount --bind "$2" "$1/rengine"
export PATH="/usr/sbin:/usr/bin:/sbin:/bin"
if [ -n "$4" ]; then
	echo $$ 2>/dev/null >"$4/rengine-commands/cgroup.procs" || echo $$ >"$4/cgroup.procs"
fi
uid=$3; home=$1/home; program=$1/rengine; run=$1/run; shift 4
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups env -i PATH="$PATH" HOME="$home" XDG_RUNTIME_DIR="$run" "$program" "$@"
"#;

static NEXT: AtomicU32 = AtomicU32::new(0);

// === impl Person ===

impl Person {
    fn new() -> Self {
        Self::with_range("300000:65536")
    }

    fn with_range(range: &'static str) -> Self {
        let uid = 54_000 + NEXT.fetch_add(1, Ordering::Relaxed);
        let person =
            Self { directory: tempfile::tempdir().unwrap(), uid, range, group: None, elsewhere: false };
        let top = person.directory.path();
        fs::set_permissions(top, fs::Permissions::from_mode(0o755)).unwrap();
        for (file, text) in [
            ("passwd", format!("root:x:0:0::/root:/bin/sh\nperson:x:{uid}:{uid}::/:/bin/sh\n")),
            ("group", format!("root:x:0:\nperson:x:{uid}:\n")),
            ("subuid", format!("person:{}\n", person.range)),
            ("subgid", format!("person:{}\n", person.range)),
            ("rengine", String::new()),
        ] {
            fs::write(top.join(file), text).unwrap();
        }
        for directory in ["home", "run"] {
            fs::create_dir(top.join(directory)).unwrap();
            chown(top.join(directory), Some(uid), Some(uid)).unwrap();
        }
        person
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "slave", "sh", "-c", AS_PERSON, "sh"]);
        command.arg(self.directory.path()).arg(env!("CARGO_BIN_EXE_rengine")).arg(self.uid.to_string());
        command.arg(self.group.as_deref().filter(|_| !self.elsewhere).unwrap_or("".as_ref()));
        command.args(args).current_dir(self.path("home"));
        command
    }

    fn rengine(&self, args: &[&str]) -> Outcome {
        Running::start(self.command(args).stdin(Stdio::null())).ends()
    }

    fn run(&self, flags: &str, script: &str) -> Outcome {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        self.rengine(&[&["run", "--rm"], &flags[..], &[BOX, "sh", "-c", script]].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file of this person's.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("home").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn import_box(&self) {
        let archive = self.path("home/box.tar");
        fs::copy(box_archive(), &archive).unwrap();
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o644)).unwrap();
        self.rengine(&["import", archive.to_str().unwrap(), BOX]).succeeds();
    }

    /// Gives it a control group of its own, with what this machine can hand down; where that is.
    fn delegate(&mut self) -> PathBuf {
        let layout = engine::container::cgroup::Layout::detect().unwrap();
        let top = &layout.unified().unwrap().path;
        for controller in ["cpu", "memory", "pids"] {
            // One that v1 has cannot be handed down here.
            let _ = fs::write(top.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let group = top.join(format!("person-{}-{}", std::process::id(), self.uid));
        fs::create_dir(&group).unwrap();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(group.join(file), Some(self.uid), Some(self.uid)).unwrap();
        }
        self.group = Some(group.clone());
        group
    }

    fn keeper(&self) -> Option<String> {
        let record = fs::read_to_string(self.path("run/rengine/keeper.json")).ok()?;
        let record: serde_json::Value = serde_json::from_str(&record).ok()?;
        Some(record["pid"].to_string())
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let Some(keeper) = self.keeper() else { return };
        let listed = self.command(&["ps", "-aq"]).output().unwrap().stdout;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let ids: Vec<&str> = listed.split_whitespace().collect();
        if !ids.is_empty() {
            let _ = self.command(&[&["rm", "-f"], &ids[..]].concat()).output();
        }
        let is_keeper = fs::read(format!("/proc/{keeper}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"rengine-keeper\0"));
        if is_keeper && let Some(pid) = keeper.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if let Some(group) = &self.group {
            let _ = fs::write(group.join("cgroup.kill"), "1");
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while remove_groups(group).is_err() && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}

fn remove_groups(group: &std::path::Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_groups(&entry.path())?;
    }
    fs::remove_dir(group)
}

#[test]
fn an_ordinary_user_has_an_engine() {
    let person = Person::new();
    person.import_box();
    let uid = person.uid.to_string();
    let shown =
        person.run("", "id -u; cat /proc/self/uid_map; touch /x; chown 7:7 /x; stat -c %u /x").succeeds();
    let words: Vec<&str> = shown.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &uid, "1", "1", "300000", "65536", "7"]);
    // Everything is the user's or one of the user's further ids; nothing is root's.
    let state = person.path("home/.local/share/rengine");
    assert_eq!(fs::metadata(&state).unwrap().uid(), person.uid);
    person.rengine(&["run", "-d", "--name", "it", "-u", "1000", BOX, "sleep", "1000"]).succeeds();
    let pid = person.rengine(&["inspect", "-f", "{{.State.Pid}}", "it"]).succeeds().line();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 300_999);
    person.rengine(&["ps"]).succeeds().shows("it");
    person.rengine(&["exec", "it", "id", "-u"]).prints("1000\n");
    person
        .rengine(&["exec", "-u", "0", "-t", "it", "sh", "-c", "test -t 0 && echo tty"])
        .succeeds()
        .shows("tty");
    person.rengine(&["top", "it"]).succeeds().shows("sleep 1000");
    let file = person.write("file", "text");
    person.rengine(&["cp", file.to_str().unwrap(), "it:/tmp/file"]).succeeds();
    person.rengine(&["exec", "it", "cat", "/tmp/file"]).prints("text");
    person.rengine(&["diff", "it"]).succeeds().shows("/tmp/file");
    person.rengine(&["commit", "--no-pause", "it", "kept"]).succeeds();
    person.rengine(&["stop", "-t", "0", "it"]).succeeds();
    person.rengine(&["cp", "it:/tmp/file", "-"]).succeeds();
    person.rengine(&["rm", "it"]).succeeds();
    person.run("-v data:/data", "echo kept > /data/file").succeeds();
    person.run("-v data:/data", "cat /data/file").prints("kept\n");
    person.rengine(&["logs", "nobody"]).fails().complains("no such container");
}

#[test]
fn an_ordinary_user_builds_images() {
    let person = Person::new();
    person.import_box();
    let context = person.write("context/Dockerfile", "FROM box\nRUN rm -r /home && mkdir /home && echo new > /home/file\nRUN rm /etc/group\nCOPY Dockerfile /\n");
    let context = context.parent().unwrap();
    person.rengine(&["build", "-t", "built", context.to_str().unwrap()]).succeeds();
    person
        .rengine(&["run", "--rm", "built", "sh", "-c", "ls /home; ls /etc/group /Dockerfile"])
        .fails()
        .prints("file\n/Dockerfile\n");
    let archive = person.path("home/built.tar");
    person.rengine(&["save", "-o", archive.to_str().unwrap(), "built"]).succeeds();
    person.rengine(&["rmi", "built"]).succeeds();
    person.rengine(&["load", "-i", archive.to_str().unwrap()]).succeeds();
    person.rengine(&["run", "--rm", "built", "cat", "/home/file"]).prints("new\n");
}

#[test]
fn an_ordinary_users_containers_have_names_and_ports() {
    let person = Person::new();
    person.import_box();
    person.rengine(&["network", "create", "net"]).succeeds();
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let serve = "mkdir /www; echo hello > /www/index.html; httpd -f -p 80 -h /www";
    person
        .rengine(&[
            "run",
            "-d",
            "--name",
            "server",
            "--network",
            "net",
            "-p",
            &publish,
            BOX,
            "sh",
            "-c",
            serve,
        ])
        .succeeds();
    person
        .run("--network net", "until wget -q -O - http://server/; do usleep 50000; done")
        .succeeds()
        .prints("hello\n");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.ends_with("hello\n"), "{answer}");
    // A port that somebody on the host has is not published, and one that was is given back.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let publish = taken.local_addr().unwrap().to_string() + ":80";
    person.run(&format!("-p {publish}"), "true").fails().complains("another program may listen there");
    person.run("-p 80:80", "true").fails().complains("ip_unprivileged_port_start");
    person.rengine(&["rm", "-f", "server"]).succeeds();
    std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn what_an_ordinary_user_cannot_have_is_named() {
    let person = Person::new();
    person.import_box();
    person
        .run("--network none -m 64m --cpus 1 --pids-limit 10", "true")
        .succeeds()
        .complains("the memory limit does not hold")
        .complains("the cpu limit does not hold")
        .complains("the pids limit does not hold");
    person.run("--userns auto", "true").fails().complains("users cannot be mapped again");
    person.rengine(&["run", "-d", "--network", "none", "--name", "it", BOX, "sleep", "1000"]).succeeds();
    person.rengine(&["pause", "it"]).fails().complains("freezer");
    person.rengine(&["stats", "--no-stream", "it"]).succeeds().complains("not counted");
    // CVE-2023-25809: the host's control groups cannot be written, nor can anything of root's.
    let script = "mkdir /sys/fs/cgroup/*/x /sys/fs/cgroup/x; echo 1 > /proc/sys/kernel/sysrq; mknod /null c 1 3; \
                  head -c 1 /dev/zero > /dev/null && echo fine";
    let done = person.run("--network none --cap-add ALL", script).succeeds().prints("fine\n");
    for step in ["/sys/fs/cgroup", "sysrq", "/null"] {
        assert!(done.stderr.contains(step), "{step} is not refused: {}", done.stderr);
    }
    let devices = "ls /dev | grep -c -E '^(null|zero|full|random|urandom|tty)$'";
    person.run("--network none --device /dev/full", devices).prints("6\n");
}

#[test]
fn a_control_group_that_an_ordinary_user_was_given_is_used() {
    let mut person = Person::new();
    let group = person.delegate();
    person.import_box();
    let run = ["run", "-d", "--network", "none", "-m", "64m", "--pids-limit", "20", "--name", "it", BOX];
    let started = person.rengine(&[&run[..], &["sleep", "1000"]].concat()).succeeds();
    let pid = person.rengine(&["inspect", "-f", "{{.State.Pid}}", "it"]).succeeds().line();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let node = group.parent().unwrap().join(own);
    assert!(node.starts_with(&group) && node != group, "{groups}");
    person.rengine(&["pause", "it"]).succeeds();
    assert_eq!(fs::read_to_string(node.join("cgroup.freeze")).unwrap(), "1\n");
    person.rengine(&["unpause", "it"]).succeeds();
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap();
    if controllers.contains("memory") && controllers.contains("pids") {
        assert_eq!(started.stderr, "");
        assert_eq!(fs::read_to_string(node.join("memory.max")).unwrap(), "67108864\n");
        assert_eq!(fs::read_to_string(node.join("pids.max")).unwrap(), "20\n");
        person.rengine(&["update", "--pids-limit", "30", "it"]).succeeds();
        assert_eq!(fs::read_to_string(node.join("pids.max")).unwrap(), "30\n");
        let format = ["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "it"];
        person.rengine(&format).succeeds().shows("1 ").shows("/ 64MiB");
    }
    // A command from elsewhere cannot start a process there, and says what does not hold.
    person.elsewhere = true;
    person.rengine(&["pause", "it"]).succeeds();
    person.rengine(&["unpause", "it"]).succeeds();
    person.run("--network none -m 64m", "true").succeeds().complains("the memory limit does not hold");
    person.rengine(&["rm", "-f", "it"]).succeeds();
    assert!(!node.exists());
}

#[test]
fn what_an_ordinary_users_engine_needs_is_named() {
    let person = Person::with_range("");
    person.rengine(&["ps"]).fails().complains("no range of further ids").complains("usermod");
    person.rengine(&["--help"]).succeeds();
    // Whoever could prepare the place would be let in.
    fs::write(person.path("subuid"), "person:300000:65536\n").unwrap();
    fs::write(person.path("subgid"), "person:300000:65536\n").unwrap();
    fs::set_permissions(person.path("run/rengine"), fs::Permissions::from_mode(0o777)).unwrap();
    person.rengine(&["ps"]).fails().complains("only you can look into");
}
