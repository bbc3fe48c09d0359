//! An engine of an ordinary user: nothing of it takes root but the two programs that hand out ids.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

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

/// What can lead out of a user's engine.
const UPLINKS: [&str; 2] = ["pasta", "slirp4netns"];

/// What a person cannot do to the machine is done in a mount namespace of one command: the files that know users, and a
/// /dev/net/tun that everybody may open.
const AS_PERSON: &str = r#"
set -e
for file in passwd group subuid subgid resolv.conf; do mount --bind "$1/$file" /etc/$file; done
mkdir -p /dev/net; mount -t tmpfs -o mode=755 tun /dev/net; mknod -m 666 /dev/net/tun c 10 200
mount --bind "$2" "$1/rengine"
export PATH="/usr/sbin:/usr/bin:/sbin:/bin"
if [ -n "$4" ]; then
	echo $$ 2>/dev/null >"$4/rengine-commands/cgroup.procs" || echo $$ >"$4/cgroup.procs"
fi
uid=$3; home=$1/home; program=$1/rengine; run=$1/run; shift 4
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups env -i RENGINE_UPLINK="$RENGINE_UPLINK" PATH="$home/../bin" HOME="$home" XDG_RUNTIME_DIR="$run" "$program" "$@"
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
            ("resolv.conf", fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
            ("rengine", String::new()),
        ] {
            fs::write(top.join(file), text).unwrap();
        }
        for directory in ["home", "run"] {
            fs::create_dir(top.join(directory)).unwrap();
            chown(top.join(directory), Some(uid), Some(uid)).unwrap();
        }
        fs::create_dir(top.join("bin")).unwrap();
        for program in ["newuidmap", "newgidmap"] {
            person.install(program);
        }
        UPLINKS.iter().for_each(|program| person.install(program));
        person
    }

    /// One who has no other way out.
    fn with_uplink(program: &str) -> Self {
        let person = Self::new();
        for other in UPLINKS.iter().filter(|other| **other != program) {
            fs::remove_file(person.path("bin").join(other)).unwrap();
        }
        person.import_box();
        person
    }

    fn install(&self, program: &str) {
        let directories = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];
        let found = directories.iter().map(|at| PathBuf::from(at).join(program)).find(|path| path.exists());
        let found = found.unwrap_or_else(|| panic!("{program} is not installed"));
        std::os::unix::fs::symlink(found, self.path("bin").join(program)).unwrap();
    }

    /// The process of this name that belongs to this person's engine.
    fn process(&self, name: &str) -> Option<rustix::process::Pid> {
        let directory = self.path("run/rengine").into_os_string().into_string().unwrap();
        let is_it = |pid: &str| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.starts_with(&format!("{name}\0")) && line.split('\0').any(|word| word == directory)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
        pids.find(|pid| is_it(pid))?.parse().ok().and_then(rustix::process::Pid::from_raw)
    }

    /// Kills it, and waits until the kernel has taken away what it held.
    fn kill(&self, pid: rustix::process::Pid) {
        let held = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let mut fds = [rustix::event::PollFd::new(&held, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
    }

    /// What leads out now, and its process.
    fn uplink(&self) -> (String, rustix::process::Pid) {
        let record = fs::read_to_string(self.path("run/rengine/uplink.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let pid = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
        (record["program"].as_str().unwrap().to_owned(), rustix::process::Pid::from_raw(pid).unwrap())
    }

    /// Starts a container that serves this script on its port 80 to each who connects.
    fn serve(&self, name: &str, publish: &str, script: &str) {
        let listen = "exec nc -ll -p 80 -e sh -c \"$0\"";
        let run = ["run", "-d", "--name", name, "-p", publish, BOX, "sh", "-c", listen, script];
        self.rengine(&run).succeeds();
        self.rengine(&["exec", name, "sh", "-c", "until netstat -ltn | grep -q :80; do usleep 20000; done"])
            .succeeds();
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
        if self.keeper().is_none() {
            return;
        }
        let listed = self.command(&["ps", "-aq"]).output().unwrap().stdout;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let ids: Vec<&str> = listed.split_whitespace().collect();
        if !ids.is_empty() {
            let _ = self.command(&[&["rm", "-f"], &ids[..]].concat()).output();
        }
        // Those commands have started another one where a test has ended the first.
        let keeper = self.keeper().unwrap_or_default();
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

/// What the server at the other end says to somebody who says this and no more.
fn answer(mut stream: TcpStream, said: &str) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(said.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map(|_| answer)
}

#[test]
fn an_ordinary_users_containers_have_names_and_ports() {
    let person = Person::new();
    person.import_box();
    person.rengine(&["network", "create", "net"]).succeeds();
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let serve = "mkdir /www; echo hello > /www/index.html; httpd -f -p 80 -h /www";
    let run = ["run", "-d", "--name", "server", "--network", "net", "-p", &publish, BOX, "sh", "-c", serve];
    person.rengine(&run).succeeds();
    person
        .run("--network net", "until wget -q -O - http://server/; do usleep 50000; done")
        .succeeds()
        .prints("hello\n");
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(answer(stream, "GET / HTTP/1.0\r\n\r\n").unwrap().ends_with("hello\n"));
    // It is that address alone, and nobody else's meanwhile.
    let error = TcpStream::connect(("127.0.0.2", port)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    person.run(&format!("-p {publish}"), "true").fails().complains("in use by container server");
    person.serve("other", &format!("127.0.0.2:{port}:80"), "echo other");
    let stream = TcpStream::connect(("127.0.0.2", port)).unwrap();
    assert_eq!(answer(stream, "").unwrap(), "other\n");
    // A port that a program of the host has is not published, and one that was is given back.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let publish = taken.local_addr().unwrap().to_string() + ":80";
    person
        .run(&format!("-p {publish}"), "true")
        .fails()
        .complains(&format!("port {}/tcp is in use by another program", taken.local_addr().unwrap()));
    person.run("-p 80:80", "true").fails().complains("ip_unprivileged_port_start");
    person.run("-p 192.0.2.254:8080:80", "true").fails().complains("is no address of this host");
    person.run("-p 127.0.0.1:8080:80/sctp", "true").fails().complains("for TCP and UDP alone");
    person.rengine(&["rm", "-f", "server"]).succeeds();
    std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn an_ordinary_users_connections_end_as_they_would_without_anything_between() {
    let person = Person::new();
    person.import_box();
    let ports = [free_port(), free_port()];
    person.serve("echo", &format!("127.0.0.1:{}:80", ports[0]), "cat; echo done");
    let echo = || TcpStream::connect(("127.0.0.1", ports[0])).unwrap();
    // More than any buffer on the way has room for, so that each side has to wait for the other.
    let text = "0123456789abcdef".repeat(1 << 18);
    let mut stream = echo();
    let mut back = stream.try_clone().unwrap();
    let writer = std::thread::spawn({
        let text = text.clone();
        move || {
            stream.write_all(text.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    let mut answered = String::new();
    back.read_to_string(&mut answered).unwrap();
    writer.join().unwrap();
    assert!(answered == text + "done\n", "{} bytes came back", answered.len());
    // One container that does not go on is no other one's affair.
    person.serve("frozen", &format!("127.0.0.1:{}:80", ports[1]), "cat");
    let pid = person.rengine(&["inspect", "-f", "{{.State.Pid}}", "frozen"]).succeeds().line();
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let waiting: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(("127.0.0.1", ports[1])).unwrap()).collect();
    assert_eq!(answer(echo(), "text\n").unwrap(), "text\ndone\n");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    // More came than its queue holds, and those beyond may try again, as without anything between.
    let mut waiting = waiting.into_iter();
    assert_eq!(answer(waiting.next().unwrap(), "late").unwrap(), "late");
    drop(waiting);
    assert_eq!(answer(TcpStream::connect(("127.0.0.1", ports[1])).unwrap(), "later").unwrap(), "later");
    // Where nobody listens any more, nobody is let wait.
    person.rengine(&["exec", "-d", "echo", "sh", "-c", "kill -9 1; kill -9 $(pidof nc)"]).succeeds();
    let run =
        ["run", "-d", "--name", "deaf", "-p", &format!("127.0.0.1:{}:81", free_port()), BOX, "sleep", "1000"];
    person.rengine(&run).succeeds();
    let place = person.rengine(&["port", "deaf", "81"]).succeeds().line();
    let ended = answer(TcpStream::connect(place).unwrap(), "").unwrap_err().kind();
    // The reset may come before this side has said that it says no more.
    let resets = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::NotConnected];
    assert!(resets.contains(&ended), "{ended}");
}

#[test]
fn an_ordinary_users_containers_are_reached_by_datagrams_and_by_ipv6() {
    let person = Person::new();
    person.import_box();
    person.rengine(&["network", "create", "--ipv6", "six"]).succeeds();
    let port = free_port();
    let (any, six) = (format!("0.0.0.0:{port}:53/udp"), format!("[::1]:{port}:80"));
    let server = ["--name", "server", BOX, "nc", "-ll", "-p", "80", "-e", "echo", "six"];
    let run = ["run", "-d", "--network", "six", "-p", &any, "-p", &six];
    person.rengine(&[&run[..], &server].concat()).succeeds();
    let ready = "until netstat -ltn | grep -q :80; do usleep 20000; done";
    person.rengine(&["exec", "server", "sh", "-c", ready]).succeeds();
    let pid = person.rengine(&["inspect", "-f", "{{.State.Pid}}", "server"]).succeeds().line();
    let socket = bound_inside(&pid, ("0.0.0.0", 53));
    std::thread::spawn(move || name_server(&socket));
    for _ in 0..2 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.send(&query("host.example", 1)).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..length].ends_with(&[192, 0, 2, 77]), "{:?}", &buffer[..length]);
    }
    let stream = TcpStream::connect(("::1", port)).unwrap();
    assert_eq!(answer(stream, "").unwrap(), "six\n");
    person.rengine(&["rm", "-f", "server"]).succeeds();
    UdpSocket::bind(("0.0.0.0", port)).unwrap();
}

/// A question to a name server (RFC 1035).
fn query(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind, 0, 1]);
    bytes
}

/// A socket in the network namespace of this process: busybox has no server of datagrams.
fn bound_inside(pid: &str, place: (&'static str, u16)) -> UdpSocket {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let bind = move || {
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
        UdpSocket::bind(place).unwrap()
    };
    std::thread::spawn(bind).join().unwrap()
}

/// Answers each question for an address of IPv4 with 192.0.2.77.
fn name_server(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let mut bytes = buffer[..length].to_vec();
        let end = 12 + bytes[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        bytes.truncate(end);
        let is_ipv4 = bytes[end - 3] == 1;
        bytes[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
        if is_ipv4 {
            bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
        }
        let _ = socket.send_to(&bytes, from);
    }
}

/// The address by which this machine would reach others.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

fn an_ordinary_users_containers_reach_the_world_through(uplink: &str) {
    let person = Person::with_uplink(uplink);
    assert_eq!(person.uplink().0, uplink);
    reaches_the_host(&person);
    // What listens on the host's loopback is not meant for containers.
    let near = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = near.local_addr().unwrap().port();
    person.run("", &format!("nc -w 2 10.0.2.2 {port} </dev/null")).fails();
    near.set_nonblocking(true).unwrap();
    assert_eq!(near.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // A resolver of the host's own is asked all the same, also one that comes later.
    let socket = UdpSocket::bind((format!("127.54.{}.53", person.uid % 250), 53)).unwrap();
    fs::write(person.path("resolv.conf"), format!("nameserver {}\n", socket.local_addr().unwrap().ip()))
        .unwrap();
    std::thread::spawn(move || name_server(&socket));
    if uplink == "pasta" {
        // It asks the server that it knew when it began.
        person.kill(person.process("rengine-keeper").unwrap());
    }
    person.run("", "nslookup some.example").succeeds().shows("192.0.2.77");
    // What came to the host before goes on when it ends, and it begins again by itself.
    let port = free_port();
    person.serve("server", &format!("127.0.0.1:{port}:80"), "cat");
    let (_, pid) = person.uplink();
    person.kill(pid);
    assert_eq!(answer(TcpStream::connect(("127.0.0.1", port)).unwrap(), "text").unwrap(), "text");
    let told = format!("started {uplink} again, the way out");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(person.path("run/rengine/repairs")).is_ok_and(|text| text.contains(&told)) {
        assert!(Instant::now() < deadline, "nobody starts it again");
        std::thread::sleep(Duration::from_millis(20));
    }
    person.rengine(&["system", "check"]).succeeds().shows(&told);
    person.rengine(&["events", "--since", "1h", "--until", "0s", "--filter", "event=repair"]).shows(&told);
    assert_ne!(person.uplink().1, pid);
    reaches_the_host(&person);
}

/// A container of this person's is answered by a server that is not on the loopback of the host.
fn reaches_the_host(person: &Person) {
    let server = TcpListener::bind((own_address(), 0)).unwrap();
    let place = server.local_addr().unwrap();
    let serve = move || {
        let mut stream = server.accept().unwrap().0;
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.extend(byte);
        }
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\noutside\n").unwrap();
    };
    let server = std::thread::spawn(serve);
    person.run("", &format!("wget -q -O - http://{place}/")).succeeds().prints("outside\n");
    server.join().unwrap();
}

#[test]
fn an_ordinary_users_containers_reach_the_world_through_pasta() {
    an_ordinary_users_containers_reach_the_world_through("pasta");
}

#[test]
fn an_ordinary_users_containers_reach_the_world_through_slirp4netns() {
    an_ordinary_users_containers_reach_the_world_through("slirp4netns");
}

#[test]
fn an_ordinary_user_without_a_way_out_has_an_engine_that_says_so() {
    let person = Person::with_uplink("none");
    person.run("--network none", "echo fine").succeeds().prints("fine\n");
    let lacks = "no slirp4netns and no pasta is there (install the package slirp4netns or passt)";
    person.run("", "echo fine").succeeds().prints("fine\n").complains(lacks);
    person.rengine(&["pull", "192.0.2.1:5000/some/image"]).fails().complains(lacks);
    // Ports of the host need none.
    let port = free_port();
    person.serve("server", &format!("127.0.0.1:{port}:80"), "cat");
    assert_eq!(answer(TcpStream::connect(("127.0.0.1", port)).unwrap(), "text").unwrap(), "text");
    // Whoever installs one has it with the next command, unless another one is asked for.
    person.install("pasta");
    let mut chosen = person.command(&["run", "--rm", BOX, "echo", "fine"]);
    let chosen = Running::start(chosen.env("RENGINE_UPLINK", "slirp4netns").stdin(Stdio::null())).ends();
    chosen.succeeds().complains("RENGINE_UPLINK asks for slirp4netns alone");
    let done = person.run("", "echo fine").succeeds().prints("fine\n");
    assert!(!done.stderr.contains("no way out"), "{}", done.stderr);
    assert_eq!(person.uplink().0, "pasta");
}

#[test]
fn a_process_of_an_ordinary_users_engine_that_is_gone_is_replaced() {
    let person = Person::new();
    person.import_box();
    let port = free_port();
    person.serve("server", &format!("127.0.0.1:{port}:80"), "cat");
    let connect = || TcpStream::connect(("127.0.0.1", port));
    // Who is served already is served on without an outpost.
    let (_, uplink) = person.uplink();
    let served = connect().unwrap();
    person.kill(person.process("rengine-outpost").unwrap());
    assert_eq!(answer(served, "text").unwrap(), "text");
    assert_eq!(answer(connect().unwrap(), "text").unwrap(), "text");
    person.rengine(&["system", "check"]).succeeds().shows("started the outpost of the user's engine again");
    assert_eq!(person.uplink().1, uplink);
    person.kill(person.process("rengine-porter").unwrap());
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    person.rengine(&["system", "check"]).succeeds().shows("opened the published ports of the host again");
    assert_eq!(answer(connect().unwrap(), "text").unwrap(), "text");
    person.rengine(&["system", "check"]).succeeds().prints("nothing was left behind\n");
    // Nobody stays without the keeper.
    let others = ["rengine-outpost", "rengine-porter"].map(|name| person.process(name).unwrap());
    let held =
        others.map(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap());
    let program = rustix::process::pidfd_open(uplink, rustix::process::PidfdFlags::empty()).unwrap();
    person.rengine(&["rm", "-f", "server"]).succeeds();
    person.kill(person.process("rengine-keeper").unwrap());
    for held in held.iter().chain([&program]) {
        let mut fds = [rustix::event::PollFd::new(held, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
    }
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
