//! Servers for one test: each with its own address, sshd, users, files and process tree, and all of it gone at the end.
//!
//! A server's files are an overlay over this machine's own, so that it has the same programs, while what it writes stays
//! with it. Nothing of this machine is changed but for one bridge per network.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deploy::ssh::{Access, Address, Fingerprint, HostKey, KeySource, KnownHosts, Login, Secret};
use engine::Root;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A network that servers are on, with this machine at its first address.
#[derive(Debug)]
pub(crate) struct Network {
    bridge: String,
    number: u8,
    keys: tempfile::TempDir,
    servers: Mutex<u8>,
}

/// What a server is to be like. As it is: root with the network's key, an ed25519 host key, no other user.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kind {
    sshd: String,
    matches: String,
    script: String,
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    network: Arc<Network>,
    kind: Kind,
    link: String,
    address: Ipv4Addr,
    directory: tempfile::TempDir,
    /// Roots of engines beside the usual one, which is in the directory.
    roots: Mutex<Vec<Root>>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// The first process of the server, as this machine sees it.
    init: OwnedFd,
    init_pid: i32,
    /// As long as this is open the server runs: it goes even when the test is killed.
    lifeline: Option<ChildStdin>,
    log: Arc<Mutex<String>>,
}

/// How many servers this process has.
static ALIVE: Mutex<usize> = Mutex::new(0);

/// The password of every user that has one.
pub(crate) const PASSWORD: &str = "Zq81xK/tr0ub4dor+&=7";

/// Its hash: `openssl passwd -6 -salt abcdefgh`.
const HASH: &str =
    "$6$abcdefgh$0xG3QsOBMY7wa96/lUXRXks93Le77dLE.eEQRBjnwHUty/TW.CT3ak.vRpeEuqw0o7E1bVlOUXyNh.V16j2Q41";

/// After this long a server counts as not coming up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the first process of a server does: it gets itself a root of its own, waits for its network, and starts sshd.
/// `$1` is the server's directory, `$2` its address, `$3`
/// that of this machine, and `$4` its IPv6 address.
const INIT: &str = r#"
set -e
mount --make-rprivate /
here=$1
mount -t overlay overlay -o "lowerdir=/,upperdir=$here/upper,workdir=$here/work" "$here/root"
cd "$here/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# An overlay cannot be what another one is written to, and engines have their own.
mkdir -p var/lib/rengine var/lib/rdeploy
mount --bind "$here/rengine" var/lib/rengine
mount --bind "$here/rdeploy" var/lib/rdeploy
mkdir -p run/sshd .old
mount --bind "$here/data" mnt
# What this machine's root has in its start files is not a server's.
mount --bind "$here/home" root
pivot_root . .old
umount -l /.old
cd /
read -r _ <&3
ip link set lo up
ip link set eth0 up
ip address replace "$2/24" dev eth0
ip route replace default via "$3"
ip address replace "$4/64" nodad dev eth0
hostname "server-${2##*.}"
# sudo wants to know its own host, and there is nobody to ask.
echo "127.0.0.1 localhost server-${2##*.}" > /etc/hosts
echo 'hosts: files' > /etc/nsswitch.conf; printf 'passwd: files\ngroup: files\nshadow: files\n' >> /etc/nsswitch.conf
. /mnt/setup
[ ! -x /etc/rc.local ] || /etc/rc.local
/usr/sbin/sshd -D -e -f /etc/ssh/sshd_config 3<&- &
# Processes that lose their parent are reaped by the shell as long as it waits. The lifeline is what it waits for.
exec 4<&3 3<&-
cat <&4 >/dev/null
"#;

// === impl Network ===

impl Network {
    /// A network that nobody else is on.
    pub(crate) fn new() -> Arc<Self> {
        // A bridge of that name exists once: whoever makes it has the number.
        let free = |number: &u8| {
            let mut add = Command::new("ip");
            add.args(["link", "add", &format!("rsv{number}"), "type", "bridge"]);
            add.stderr(Stdio::null()).status().unwrap().success()
        };
        let start = u8::try_from(std::process::id() % 200).unwrap();
        let number = (start..250).chain(1..start).find(free).unwrap();
        let network = Self {
            bridge: format!("rsv{number}"),
            number,
            keys: tempfile::Builder::new().prefix("servers-").tempdir().unwrap(),
            servers: Mutex::new(1),
        };
        run("ip", &["address", "add", &format!("{}/24", network.host()), "dev", &network.bridge]);
        let six = format!("fd00:213:{number}::1/64");
        run("ip", &["address", "add", &six, "nodad", "dev", &network.bridge]);
        run("ip", &["link", "set", &network.bridge, "up"]);
        network.new_key("id", "ed25519", "");
        Arc::new(network)
    }

    /// This machine's address here.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 1)
    }

    /// A file of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.keys.path().join(name)
    }

    /// Makes a key pair; says where the private one is.
    pub(crate) fn new_key(&self, name: &str, kind: &str, passphrase: &str) -> PathBuf {
        let path = self.path(name);
        let file = path.to_str().unwrap();
        run("ssh-keygen", &["-q", "-t", kind, "-N", passphrase, "-C", name, "-f", file]);
        path
    }

    /// The private key that root's door opens to, on every server here.
    pub(crate) fn key(&self) -> PathBuf {
        self.path("id")
    }

    /// The public half of a key made here.
    pub(crate) fn public(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).status();
    }
}

// === impl Kind ===

impl Kind {
    /// With these lines first in its `sshd_config`.
    pub(crate) fn sshd(mut self, lines: &str) -> Self {
        self.sshd.push_str(lines);
        self.sshd.push('\n');
        self
    }

    /// With these lines in its `sshd_config` for one user.
    pub(crate) fn sshd_for(mut self, user: &str, lines: &str) -> Self {
        self.matches.push_str(&format!("Match User {user}\n{lines}\n"));
        self
    }

    /// With this done on it, as root, each time before its sshd starts.
    pub(crate) fn script(mut self, script: &str) -> Self {
        self.script.push_str(script);
        self.script.push('\n');
        self
    }

    /// With a user who has the password of all users and the network's key.
    pub(crate) fn user(self, name: &str, shell: &str) -> Self {
        self.script(&format!(
            "useradd -m -s {shell} -p '{HASH}' {name} 2>/dev/null || :
mkdir -p /home/{name}/.ssh; cp /root/.ssh/authorized_keys /home/{name}/.ssh/; chown -R {name}: /home/{name}"
        ))
    }

    /// With this line in its sudoers.
    pub(crate) fn sudoers(self, line: &str) -> Self {
        self.script(&format!("echo '{line}' >> /etc/sudoers"))
    }

    /// With this password for root, and the way in open to it.
    pub(crate) fn root_password(self) -> Self {
        self.sshd("PermitRootLogin yes\nPasswordAuthentication yes")
            .script(&format!("usermod -p '{HASH}' root"))
    }
}

// === impl Server ===

impl Server {
    /// A server with nothing but an sshd, on a network of its own.
    pub(crate) fn start() -> Self {
        Self::of(&Network::new(), Kind::default())
    }

    /// A server of a kind, on this network.
    pub(crate) fn of(network: &Arc<Network>, kind: Kind) -> Self {
        let number = {
            let mut last = network.servers.lock().unwrap();
            *last += 1;
            *last
        };
        *ALIVE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let directory = tempfile::Builder::new().prefix("server-").tempdir().unwrap();
        for name in ["upper", "work", "root", "home", "rengine", "rdeploy", "data"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut server = Self {
            network: network.clone(),
            kind,
            link: format!("{}-{number}", network.bridge),
            address: Ipv4Addr::new(10, 213, network.number, number),
            directory,
            roots: Mutex::default(),
            running: None,
        };
        server.write_setup();
        server.boot();
        server
    }

    /// Mounts memory where an engine is to be, with these options.
    pub(crate) fn mount_root(&self, path: &str, options: &str) {
        self.roots.lock().unwrap().push(Root::at(Path::new(path)));
        self.run(&format!("mkdir {path}; mount -t tmpfs -o {options} tmpfs {path}"));
    }

    /// Its address.
    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.address
    }

    /// This machine's address, as it sees it.
    pub(crate) fn network_host(&self) -> Ipv4Addr {
        self.network.host()
    }

    /// Its IPv6 address.
    pub(crate) fn ip6(&self) -> Ipv6Addr {
        let [.., network, host] = self.address.octets();
        format!("fd00:213:{network}::{host}").parse().unwrap()
    }

    /// Its address as one gives it to ssh.
    pub(crate) fn as_user(&self, user: &str) -> Address {
        format!("{user}@{}", self.address).parse().unwrap()
    }

    /// The fingerprint of its host key of a kind.
    pub(crate) fn fingerprint(&self, kind: &str) -> Fingerprint {
        self.run(&format!("ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub")).parse().unwrap()
    }

    /// Its host keys, as the lines of a `known_hosts` file.
    pub(crate) fn host_keys(&self) -> String {
        let keys = self.run("cat /etc/ssh/ssh_host_*_key.pub");
        let lines: Vec<_> = keys.lines().map(|key| format!("{} {key}", self.address)).collect();
        lines.join("\n")
    }

    /// Only these host keys are its own.
    pub(crate) fn known_hosts(&self) -> HostKey {
        HostKey::KnownIn(KnownHosts::Text(self.host_keys()))
    }

    /// The file with the network's key.
    pub(crate) fn key(&self) -> PathBuf {
        self.network.key()
    }

    /// The way in that always works: root, by the network's key.
    pub(crate) fn access(&self) -> Access {
        access(Login {
            key: Some(KeySource::File(self.network.key())),
            host_key: self.known_hosts(),
            ..Login::default()
        })
    }

    /// A way in by password.
    pub(crate) fn access_by_password(&self) -> Access {
        access(Login {
            password: Some(Secret::new(PASSWORD)),
            host_key: self.known_hosts(),
            ..Login::default()
        })
    }

    /// What its sshd has said since it was switched on.
    pub(crate) fn said(&self) -> String {
        self.running().log.lock().unwrap().clone()
    }

    /// Puts a file of this machine on it; says where it is there.
    pub(crate) fn give(&self, file: &std::path::Path) -> String {
        let name = file.file_name().unwrap();
        fs::copy(file, self.directory.path().join("data").join(name)).unwrap();
        format!("/mnt/{}", name.to_str().unwrap())
    }

    /// Runs a line of shell on it as root, not over ssh; says what it wrote.
    pub(crate) fn run(&self, script: &str) -> String {
        let output = self.command(script).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A command that runs a line of shell on it, not started yet.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.running().init_pid.to_string();
        command.args(["-t", &pid, "-m", "-u", "-i", "-n", "-p", "--wdns=/", "--", "/bin/sh", "-c", script]);
        command.stdin(Stdio::null());
        command
    }

    /// Pulls its cable.
    pub(crate) fn cut(&self) {
        run("ip", &["link", "set", &self.link, "nomaster"]);
    }

    /// Plugs it in again.
    pub(crate) fn heal(&self) {
        run("ip", &["link", "set", &self.link, "master", &self.network.bridge]);
    }

    /// Switches it off and on: every process dies, `/run` and `/tmp` are empty, the rest stays.
    pub(crate) fn reboot(&mut self) {
        self.halt();
        self.boot();
    }

    /// Switches it off.
    pub(crate) fn halt(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let _ = pidfd_send_signal(&running.init, Signal::KILL);
        running.lifeline = None;
        let _ = running.child.wait();
        // The kernel takes the link away a moment later; a new one needs the name.
        let _ = Command::new("ip").args(["link", "delete", &self.link]).stderr(Stdio::null()).status();
    }

    /// Switches it on, and waits until its sshd listens.
    pub(crate) fn boot(&mut self) {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "bash", "-c"]);
        command.args([&format!("exec 3<&0 </dev/null\n{INIT}"), "init"]);
        command.arg(self.directory.path()).args([self.address.to_string(), self.network.host().to_string()]);
        command.arg(self.ip6().to_string());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (log, listening) = follow(child.stderr.take().unwrap());
        let mut lifeline = child.stdin.take().unwrap();
        let init_pid = first_child(&child);
        let init = pidfd_open(Pid::from_raw(init_pid).unwrap(), PidfdFlags::empty()).unwrap();
        let netns = init_pid.to_string();
        run("ip", &["link", "add", &self.link, "type", "veth", "peer", "name", "eth0", "netns", &netns]);
        self.heal();
        run("ip", &["link", "set", &self.link, "up"]);
        lifeline.write_all(b"go\n").unwrap();
        let up = listening.recv_timeout(PATIENCE);
        assert!(up.is_ok(), "the server does not come up: {}", log.lock().unwrap());
        self.running = Some(Running { child, init, init_pid, lifeline: Some(lifeline), log });
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Writes what the server does before its sshd starts.
    fn write_setup(&self) {
        let sshd = format!(
            "{}\nHostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nPrintMotd no\nUseDNS no\nMaxStartups 100\n{}",
            self.kind.sshd, self.kind.matches
        );
        let setup = format!(
            "rm -rf /root/.ssh; mkdir -p -m 700 /root/.ssh; cp /mnt/authorized_keys /root/.ssh/; cp /mnt/sshd_config /etc/ssh/
[ -e /etc/ssh/.own ] || {{ rm -f /etc/ssh/ssh_host_*; rm -rf /etc/ssh/sshd_config.d /etc/rc.local; \
             ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; touch /etc/ssh/.own; }}
{}",
            self.kind.script
        );
        let data = self.directory.path().join("data");
        fs::write(data.join("sshd_config"), sshd).unwrap();
        fs::write(data.join("setup"), setup).unwrap();
        fs::write(data.join("authorized_keys"), self.network.public("id") + "\n").unwrap();
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "a test that fails shows what the other side said")]
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(running) = &self.running
        {
            let log = running.log.lock().unwrap();
            let end: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("sshd at {}, last first: {end:#?}", self.address);
        }
        self.halt();
        self.remove_cgroups();
        // The one that all servers share goes with the last of them; nobody makes one below it meanwhile.
        let mut alive = ALIVE.lock().unwrap_or_else(PoisonError::into_inner);
        *alive -= 1;
        if *alive == 0 {
            for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
                let _ = fs::remove_dir(controller.path().join("rengine"));
            }
        }
    }
}

impl Server {
    /// The cgroups are this machine's own: what containers had there does not go with the server.
    fn remove_cgroups(&self) {
        let containers = fs::read_dir(self.directory.path().join("rengine/containers"));
        let ids: Vec<_> = containers.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for id in &ids {
                remove_cgroup(&controller.path().join("rengine").join(id));
            }
            // No other server has one of these.
            roots.iter().for_each(|root| remove_cgroup(&controller.path().join(root.tag())));
        }
    }
}

/// A cgroup goes after those below it.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// Access with this login, by way of the program under test.
pub(crate) fn access(login: Login) -> Access {
    Access { executable: env!("CARGO_BIN_EXE_rdeploy").into(), ..Access::by(login) }
}

/// Collects what a server says, and tells when its sshd listens.
fn follow(stderr: std::process::ChildStderr) -> (Arc<Mutex<String>>, Receiver<()>) {
    let log = Arc::new(Mutex::new(String::new()));
    let (tell, listening) = channel();
    let collected = log.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines() {
            let Ok(line) = line else { return };
            let up = line.starts_with("Server listening on 0.0.0.0");
            let mut text = collected.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
            drop(text);
            if up {
                let _ = tell.send(());
            }
        }
    });
    (log, listening)
}

/// The process that `unshare` forks, as soon as there is one.
fn first_child(unshare: &Child) -> i32 {
    let path = format!("/proc/{0}/task/{0}/children", unshare.id());
    let exit = pidfd_open(Pid::from_child(unshare), PidfdFlags::empty()).unwrap();
    loop {
        if let Some(pid) = fs::read_to_string(&path).unwrap().split_whitespace().next() {
            return pid.parse().unwrap();
        }
        // Nobody tells when a process forks; that it ended instead would be told.
        let timeout = Timespec::try_from(Duration::from_millis(1)).unwrap();
        let mut polled = [PollFd::from_borrowed_fd(std::os::fd::AsFd::as_fd(&exit), PollFlags::IN)];
        assert_eq!(poll(&mut polled, Some(&timeout)).unwrap(), 0, "unshare has ended");
    }
}

/// Runs a program that has to succeed.
fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
