//! Every way into a server, and everything that can be in the way: each with a name, and none longer than 20 s.

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use deploy::ssh::{
    Access, Address, HostKey, Jump, KeyError, KeySource, KnownHosts, Login, PATIENCE, Secret, Session,
    SshError, Sudo,
};

use crate::server::{Kind, Network, PASSWORD, Server, access};

/// One way in, and what comes of it.
struct Case {
    name: &'static str,
    address: Address,
    access: Access,
    expected: Expected,
}

enum Expected {
    /// The session opens, and commands run as this user.
    In(&'static str),
    /// Commands run as root, with their input untouched.
    Root,
    /// The session does not open, for this reason.
    Fails(fn(&SshError) -> bool, &'static str),
    /// The session opens, and no command runs as root, for this reason.
    RootFails(fn(&SshError) -> bool, &'static str),
    /// The session opens, and this is so.
    So(fn(&Session) -> bool),
}

macro_rules! fails {
    ($($pattern:tt)+) => { Expected::Fails(|error| matches!(error, $($pattern)+), stringify!($($pattern)+)) };
}

macro_rules! root_fails {
    ($($pattern:tt)+) => { Expected::RootFails(|error| matches!(error, $($pattern)+), stringify!($($pattern)+)) };
}

/// The servers of the matrix, and what is at hand to get in.
struct World {
    network: Arc<Network>,
    /// The one with all the users.
    main: Server,
    /// One that is reached by way of others; without sudo.
    far: Server,
    agent: Agent,
    listeners: Vec<TcpListener>,
}

/// An ssh-agent that ends with the test.
struct Agent {
    child: Child,
    socket: PathBuf,
    empty: PathBuf,
    _empty: Child,
}

// === impl World ===

impl World {
    fn new() -> Self {
        let network = Network::new();
        for (name, kind, passphrase) in [
            ("rsa", "rsa", ""),
            ("ecdsa", "ecdsa", ""),
            ("locked", "ed25519", PASSWORD),
            ("stranger", "ed25519", ""),
            ("stranger2", "ed25519", ""),
            ("stranger3", "ed25519", ""),
            ("ca", "ed25519", ""),
            ("signed", "ed25519", ""),
            ("open", "ed25519", ""),
        ] {
            network.new_key(name, kind, passphrase);
        }
        keygen(&[
            "-q",
            "-t",
            "rsa",
            "-m",
            "PEM",
            "-N",
            PASSWORD,
            "-f",
            network.path("pem").to_str().unwrap(),
        ]);
        sign(&network, "ca", "signed", "root");
        fs::copy(network.path("signed-cert.pub"), network.path("by-ca.pub")).unwrap();
        sign(&network, "stranger", "signed", "root");
        fs::copy(network.path("signed-cert.pub"), network.path("by-stranger.pub")).unwrap();
        fs::remove_file(network.path("signed-cert.pub")).unwrap();
        fs::set_permissions(network.path("open"), fs::Permissions::from_mode(0o644)).unwrap();
        let main = Server::of(&network, main_server(&network));
        let far = Server::of(&network, far_server());
        let agent = Agent::start(&network);
        Self { network, main, far, agent, listeners: Vec::new() }
    }

    /// At the main server, as this user, with this login.
    fn case(&self, name: &'static str, user: &str, login: Login, expected: Expected) -> Case {
        Case { name, address: self.main.as_user(user), access: access(login), expected }
    }

    fn at(&self, text: &str) -> Address {
        text.parse().unwrap()
    }

    /// With the network's key, and the main server known.
    fn login(&self) -> Login {
        self.main.access().login
    }

    fn with_key(&self, key: KeySource) -> Login {
        Login { key: Some(key), ..self.login() }
    }

    fn with_key_file(&self, name: &str) -> Login {
        self.with_key(KeySource::File(self.network.path(name)))
    }

    fn with_key_text(&self, change: impl Fn(String) -> String) -> Login {
        let text = fs::read_to_string(self.network.key()).unwrap();
        self.with_key(KeySource::Text(Secret::new(change(text))))
    }

    fn with_password(&self, password: &str) -> Login {
        Login { key: None, password: Some(Secret::new(password)), ..self.login() }
    }

    fn with_host_key(&self, host_key: HostKey) -> Login {
        Login { host_key, ..self.login() }
    }

    fn known(&self, lines: String) -> Login {
        self.with_host_key(HostKey::KnownIn(KnownHosts::Text(lines)))
    }

    fn jump(&self, user: &str, login: Login) -> Jump {
        Jump { address: self.main.as_user(user), login }
    }

    /// To the far server by way of these.
    fn far(&self, name: &'static str, jump: Vec<Jump>, expected: Expected) -> Case {
        Case {
            name,
            address: self.far.as_user("root"),
            access: Access { jump, ..self.far.access() },
            expected,
        }
    }

    fn sudo(&self, name: &'static str, user: &str, sudo: Sudo, expected: Expected) -> Case {
        let case = self.case(name, user, self.login(), expected);
        Case { access: Access { sudo, ..case.access }, ..case }
    }
}

fn main_server(network: &Network) -> Kind {
    let keys = ["rsa", "ecdsa", "locked", "pem", "open"].map(|name| network.public(name)).join("\n");
    Kind::default()
        .root_password()
        .sshd("UsePAM yes\nPort 22\nPort 2222\nTrustedUserCAKeys /etc/ssh/ca.pub")
        .sshd("HostKey /etc/ssh/ssh_host_rsa_key\nHostKey /etc/ssh/ssh_host_ecdsa_key")
        .script("for kind in rsa ecdsa; do [ -e /etc/ssh/ssh_host_${kind}_key ] || ssh-keygen -q -t $kind -N '' -f /etc/ssh/ssh_host_${kind}_key; done")
        .script(&format!("echo '{keys}' >> /root/.ssh/authorized_keys; echo '{}' > /etc/ssh/ca.pub", network.public("ca")))
        .script("nft 'add table ip hole; add chain ip hole in { type filter hook input priority 0; }; add rule ip hole in tcp dport 2300 drop'")
        .script("mount -t tmpfs -o size=64k tmpfs /media; mount -t tmpfs -o noexec,mode=1777 tmpfs /srv")
        .script("echo WELCOME > /etc/motd; echo 'AUTHORISED USE ONLY debug1: Entering' > /etc/banner")
        .user("me", "/bin/sh").sudoers("me ALL=(ALL) ALL")
        .user("ops", "/bin/bash").sudoers("ops ALL=(ALL) NOPASSWD: ALL")
        .user("teletype", "/bin/sh").sudoers("Defaults:teletype requiretty").sudoers("teletype ALL=(ALL) NOPASSWD: ALL")
        .user("bob", "/bin/sh")
        .user("noisy", "/bin/bash").script("echo 'echo HELLO from bashrc; printf half' > /home/noisy/.bashrc")
        .user("falsy", "/bin/false")
        .user("nologin", "/usr/sbin/nologin")
        .user("homeless", "/bin/sh").script("mkdir -p /etc/ssh/keys; cp /root/.ssh/authorized_keys /etc/ssh/keys/; rm -rf /home/homeless")
        .sshd("AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/keys/authorized_keys")
        .user("forced", "/bin/sh").sshd_for("forced", "ForceCommand echo no more than this")
        .user("single", "/bin/sh").sshd_for("single", "MaxSessions 1")
        .user("closed", "/bin/sh").sshd_for("closed", "AllowTcpForwarding no")
        .user("keys", "/bin/sh").sshd_for("keys", "PasswordAuthentication no")
        .user("words", "/bin/sh").sshd_for("words", "PubkeyAuthentication no")
        .user("board", "/bin/sh")
        .sshd_for("board", "PubkeyAuthentication no\nPasswordAuthentication no\nKbdInteractiveAuthentication yes")
        .user("both", "/bin/sh").sshd_for("both", "AuthenticationMethods publickey,password")
        .user("strict", "/bin/sh").sshd_for("strict", "MaxAuthTries 2")
        .user("banner", "/bin/sh").sshd_for("banner", "Banner /etc/banner")
        .user("stale", "/bin/sh").script("chage -d 0 stale")
        .sshd_for("stale", "PubkeyAuthentication no\nPasswordAuthentication no\nKbdInteractiveAuthentication yes")
}

fn far_server() -> Kind {
    Kind::default().user("me", "/bin/sh").script("rm -f /usr/bin/sudo")
}

// === impl Agent ===

impl Agent {
    fn start(network: &Network) -> Self {
        let (socket, empty) = (network.path("agent"), network.path("empty-agent"));
        let start = |socket: &PathBuf| {
            // It says where it is as soon as it listens.
            let mut child = Command::new("ssh-agent")
                .args(["-D", "-a"])
                .arg(socket)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = [0];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
            child
        };
        let (child, _empty) = (start(&socket), start(&empty));
        for (socket, names) in [(&socket, &["id"][..]), (&empty, &["stranger", "stranger2", "stranger3"])] {
            let keys = names.iter().map(|name| network.path(name));
            let status = Command::new("ssh-add").arg("-q").args(keys).env("SSH_AUTH_SOCK", socket).status();
            assert!(status.unwrap().success());
        }
        Self { child, socket, empty, _empty }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for child in [&mut self.child, &mut self._empty] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn keygen(args: &[&str]) {
    assert!(Command::new("ssh-keygen").args(args).stdin(Stdio::null()).status().unwrap().success());
}

fn sign(network: &Network, authority: &str, key: &str, principal: &str) {
    let (authority, key) = (network.path(authority), network.path(&format!("{key}.pub")));
    keygen(&["-q", "-s", authority.to_str().unwrap(), "-I", "story", "-n", principal, key.to_str().unwrap()]);
}

fn authentication(world: &World) -> Vec<Case> {
    let locked = |passphrase: Option<&str>, name: &str| Login {
        passphrase: passphrase.map(Secret::new),
        ..world.with_key_file(name)
    };
    let by_agent = |socket: &PathBuf| Login { key: None, agent: Some(socket.clone()), ..world.login() };
    let certified =
        |name: &str| Login { certificate: Some(world.network.path(name)), ..world.with_key_file("signed") };
    let text = |text: &str| world.with_key(KeySource::Text(Secret::new(text)));
    let public = world.network.public("id");
    vec![
        world.case("key file", "root", world.login(), Expected::In("root")),
        world.case("rsa key file", "root", world.with_key_file("rsa"), Expected::In("root")),
        world.case("ecdsa key file", "root", world.with_key_file("ecdsa"), Expected::In("root")),
        world.case("key as text", "me", world.with_key_text(|key| key), Expected::In("me")),
        world.case(
            "key with CRLF",
            "me",
            world.with_key_text(|key| key.replace('\n', "\r\n")),
            Expected::In("me"),
        ),
        world.case(
            "key without end of line",
            "me",
            world.with_key_text(|key| key.trim().into()),
            Expected::In("me"),
        ),
        world.case(
            "key on one line",
            "me",
            world.with_key_text(|key| key.replace('\n', " ")),
            Expected::In("me"),
        ),
        world.case(
            "key in base64",
            "me",
            world.with_key_text(|key| base64::engine::general_purpose::STANDARD.encode(key)),
            Expected::In("me"),
        ),
        world.case("encrypted key", "root", locked(Some(PASSWORD), "locked"), Expected::In("root")),
        world.case("encrypted pem key", "root", locked(Some(PASSWORD), "pem"), Expected::In("root")),
        world.case(
            "wrong passphrase",
            "root",
            locked(Some("no"), "locked"),
            fails!(SshError::WrongPassphrase { .. }),
        ),
        world.case(
            "wrong pem passphrase",
            "root",
            locked(Some("no"), "pem"),
            fails!(SshError::WrongPassphrase { .. }),
        ),
        world.case(
            "no passphrase",
            "root",
            locked(None, "locked"),
            fails!(SshError::Key(KeyError::PassphraseNeeded(_)) | SshError::PassphraseNeeded { .. }),
        ),
        world.case(
            "stranger's key",
            "root",
            world.with_key_file("stranger"),
            fails!(SshError::KeyNotAccepted { offered, .. } if offered.contains(&"publickey".to_owned())),
        ),
        world.case("public key", "root", text(&public), fails!(SshError::Key(KeyError::Public(_)))),
        world.case(
            "putty key",
            "root",
            text("PuTTY-User-Key-File-2: ssh-rsa"),
            fails!(SshError::Key(KeyError::Putty(_))),
        ),
        world.case(
            "truncated key",
            "root",
            world.with_key_text(|key| key[..150].into()),
            fails!(SshError::Key(KeyError::Damaged(_))),
        ),
        world.case(
            "key for all to read",
            "root",
            world.with_key_file("open"),
            fails!(SshError::Key(KeyError::Open(..))),
        ),
        world.case(
            "no such key file",
            "root",
            world.with_key_file("nothing"),
            fails!(SshError::Key(KeyError::Unreadable { .. })),
        ),
        world.case("password", "root", world.with_password(PASSWORD), Expected::In("root")),
        world.case(
            "wrong password",
            "words",
            world.with_password("no"),
            fails!(SshError::PasswordWrong { .. }),
        ),
        world.case(
            "no such user",
            "nobody-here",
            world.with_password(PASSWORD),
            fails!(SshError::PasswordWrong { .. }),
        ),
        world.case("keyboard-interactive", "board", world.with_password(PASSWORD), Expected::In("board")),
        world.case(
            "wrong at the keyboard",
            "board",
            world.with_password("no"),
            fails!(SshError::PasswordWrong { .. }),
        ),
        world.case(
            "expired password",
            "stale",
            world.with_password(PASSWORD),
            fails!(SshError::PasswordExpired { .. }),
        ),
        world.case(
            "password where keys count",
            "keys",
            world.with_password(PASSWORD),
            fails!(SshError::NoMethodLeft { offered, .. } if *offered == ["publickey"]),
        ),
        world.case(
            "key where passwords count",
            "words",
            world.login(),
            fails!(SshError::NoMethodLeft { offered, .. } if *offered == ["password"]),
        ),
        world.case(
            "key and password",
            "both",
            Login { password: Some(Secret::new(PASSWORD)), ..world.login() },
            Expected::In("both"),
        ),
        world.case("key without the password", "both", world.login(), fails!(SshError::NoMethodLeft { .. })),
        world.case("agent", "me", by_agent(&world.agent.socket), Expected::In("me")),
        world.case(
            "agent of strangers",
            "me",
            by_agent(&world.agent.empty),
            fails!(SshError::NoMethodLeft { .. }),
        ),
        world.case(
            "too many keys",
            "strict",
            by_agent(&world.agent.empty),
            fails!(SshError::TooManyFailures { .. }),
        ),
        world.case("certificate", "root", certified("by-ca.pub"), Expected::In("root")),
        world.case(
            "certificate of a stranger",
            "root",
            certified("by-stranger.pub"),
            fails!(SshError::KeyNotAccepted { .. }),
        ),
        world.case(
            "certificate for another user",
            "me",
            certified("by-ca.pub"),
            fails!(SshError::KeyNotAccepted { .. }),
        ),
    ]
}

fn host_keys(world: &World) -> Vec<Case> {
    let ip = world.main.ip();
    let pinned = |kind: &str| world.with_host_key(HostKey::Pinned(vec![world.main.fingerprint(kind)]));
    let public = |kind: &str| world.main.run(&format!("cat /etc/ssh/ssh_host_{kind}_key.pub"));
    let other = world.network.public("stranger");
    let file = world.network.path("known_hosts");
    fs::write(&file, format!("{ip} {}\n", public("ecdsa"))).unwrap();
    let at_2222 = |host_key: HostKey, name, expected| Case {
        address: world.at(&format!("root@{ip}:2222")),
        ..world.case(name, "root", world.with_host_key(host_key), expected)
    };
    let known = |text: String| HostKey::KnownIn(KnownHosts::Text(text));
    let first = |name: &str| world.with_host_key(HostKey::FirstUse(Some(world.network.path(name))));
    fs::write(world.network.path("changed"), format!("{ip} {other}\n")).unwrap();
    vec![
        world.case("pinned ed25519", "root", pinned("ed25519"), Expected::In("root")),
        world.case("pinned rsa", "root", pinned("rsa"), Expected::In("root")),
        world.case("pinned ecdsa", "root", pinned("ecdsa"), Expected::In("root")),
        world.case(
            "one of two pins",
            "root",
            world.with_host_key(HostKey::Pinned(vec![
                world.far.fingerprint("ed25519"),
                world.main.fingerprint("ecdsa"),
            ])),
            Expected::In("root"),
        ),
        world.case(
            "wrong pin",
            "root",
            world.with_host_key(HostKey::Pinned(vec![world.far.fingerprint("ed25519")])),
            fails!(SshError::PinMismatch { pinned, shown, .. } if pinned.len() == 1 && shown.len() == 3),
        ),
        world.case(
            "known in a file",
            "root",
            world.with_host_key(HostKey::KnownIn(KnownHosts::File(file))),
            Expected::In("root"),
        ),
        world.case(
            "known by rsa only",
            "root",
            world.known(format!("{ip} {}", public("rsa"))),
            Expected::In("root"),
        ),
        world.case(
            "known with CRLF",
            "root",
            world.known(format!("{ip} {}\r\n", public("ed25519"))),
            Expected::In("root"),
        ),
        world.case(
            "unknown",
            "root",
            world.known(String::new()),
            fails!(SshError::HostKeyUnknown { fingerprint, .. } if fingerprint.contains("SHA256:")),
        ),
        world.case(
            "changed",
            "root",
            world.known(format!("{ip} {other}")),
            fails!(SshError::HostKeyChanged { known_in, .. } if known_in.ends_with("known_hosts:1")),
        ),
        world.case(
            "revoked",
            "root",
            world.known(format!("@revoked {ip} {}", public("ed25519"))),
            fails!(SshError::HostKeyRevoked { .. }),
        ),
        at_2222(
            known(format!("[{ip}]:2222 {}", public("ed25519"))),
            "known by its port",
            Expected::In("root"),
        ),
        at_2222(
            known(format!("[{ip}]:22222 {}", public("ed25519"))),
            "known by another port",
            fails!(SshError::HostKeyUnknown { .. }),
        ),
        world.case("first use", "root", first("fresh"), Expected::In("root")),
        world.case("no first use", "root", first("changed"), fails!(SshError::HostKeyChanged { .. })),
    ]
}

fn ways(world: &mut World) -> Vec<Case> {
    let host = world.network.host();
    let mut listen = |answer: fn(&mut std::net::TcpStream)| {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        world.listeners.push(listener.try_clone().unwrap());
        std::thread::spawn(move || {
            // They stay open as long as the test runs, when the answer does not end them.
            let mut kept = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                answer(&mut stream);
                kept.push(stream);
            }
        });
        format!("root@{host}:{port}")
    };
    let web = listen(|stream| {
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\nServer: x\r\n\r\n");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let silent = listen(|_| ());
    let closing = listen(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
    let ip = world.main.ip();
    let to = |name, address: &str, expected| Case {
        address: world.at(address),
        ..world.case(name, "root", world.login(), expected)
    };
    let hop = |user| world.jump(user, world.login());
    let far_jump = |login| Jump { address: world.far.as_user("root"), login };
    let mut cases = vec![
        to("closed port", &format!("root@{ip}:9"), fails!(SshError::Refused { .. })),
        to("black hole", &format!("root@{ip}:2300"), fails!(SshError::TimedOut { .. })),
        to("no such host", "root@no-such-host.invalid", fails!(SshError::UnknownHost { .. })),
        to("no ssh server", &web, fails!(SshError::NotSsh { .. })),
        to("silent server", &silent, fails!(SshError::TimedOut { .. })),
        to("server that hangs up", &closing, fails!(SshError::Closed { .. })),
        to("no way there", "root@255.255.255.255", fails!(SshError::Unreachable { .. })),
        world.far("jump", vec![hop("me")], Expected::In("root")),
        world.far("jump by password", vec![world.jump("words", world.with_password(PASSWORD))], Expected::In("root")),
        world.far("jump by keyboard", vec![world.jump("board", world.with_password(PASSWORD))], Expected::In("root")),
        world.far("two jumps", vec![hop("me"), far_jump(world.far.access().login)], Expected::In("root")),
        world.far(
            "jump with the wrong password",
            vec![world.jump("words", world.with_password("no"))],
            fails!(SshError::Jump { hop, source } if hop.starts_with("words@") && matches!(**source, SshError::PasswordWrong { .. })),
        ),
        world.far(
            "unknown jump host",
            vec![world.jump("me", world.known(String::new()))],
            fails!(SshError::Jump { source, .. } if matches!(**source, SshError::HostKeyUnknown { .. })),
        ),
        world.far(
            "second jump refuses the key",
            vec![hop("me"), far_jump(Login { host_key: world.far.known_hosts(), ..world.with_key_file("stranger") })],
            fails!(SshError::Jump { source, .. } if matches!(**source, SshError::KeyNotAccepted { .. })),
        ),
        world.far("no forwarding", vec![hop("closed")], fails!(SshError::ForwardingDisabled { .. })),
        Case {
            address: world.at(&format!("root@{}:9", world.far.ip())),
            ..world.far("closed port behind a jump", vec![hop("me")], fails!(SshError::Refused { .. }))
        },
    ];
    cases.push(Case {
        access: Access { jump: vec![hop("me")], ..access(world.login()) },
        ..world.far("stranger behind a jump", Vec::new(), fails!(SshError::HostKeyUnknown { .. }))
    });
    cases
}

fn sudo(world: &World) -> Vec<Case> {
    let password = |text: &str| Sudo::Password(Secret::new(text));
    vec![
        world.sudo("root", "root", Sudo::Never, Expected::Root),
        world.sudo("sudo without password", "ops", Sudo::Auto, Expected::Root),
        world.sudo("sudo with a password not asked for", "ops", password(PASSWORD), Expected::Root),
        world.sudo("sudo with password", "me", password(PASSWORD), Expected::Root),
        world.sudo(
            "sudo with the wrong password",
            "me",
            password("no"),
            root_fails!(SshError::SudoPasswordWrong { .. }),
        ),
        world.sudo(
            "sudo that wants a password",
            "me",
            Sudo::Auto,
            root_fails!(SshError::SudoWantsPassword { user, .. } if user == "me"),
        ),
        world.sudo("no sudoer", "bob", password(PASSWORD), root_fails!(SshError::NotInSudoers { .. })),
        world.sudo("no sudo wanted", "ops", Sudo::Never, root_fails!(SshError::NotRoot { .. })),
        world.sudo("requiretty", "teletype", Sudo::Auto, root_fails!(SshError::SudoNeedsTerminal { .. })),
        Case {
            address: world.far.as_user("me"),
            access: world.far.access(),
            ..world.sudo("no sudo there", "me", Sudo::Auto, root_fails!(SshError::SudoMissing { .. }))
        },
    ]
}

fn oddities(world: &World) -> Vec<Case> {
    let as_user = |name, user, expected| world.case(name, user, world.login(), expected);
    vec![
        as_user("banner", "banner", Expected::In("banner")),
        as_user("noisy start files", "noisy", Expected::In("noisy")),
        as_user("no home directory", "homeless", Expected::In("homeless")),
        as_user(
            "forced command",
            "forced",
            fails!(SshError::NoShell { said, .. } if said.contains("no more than this")),
        ),
        as_user("no shell", "falsy", fails!(SshError::NoShell { .. })),
        as_user(
            "nologin",
            "nologin",
            fails!(SshError::NoShell { said, .. } if said.contains("not available")),
        ),
        as_user("one session at a time", "single", Expected::In("single")),
        as_user(
            "one session at most",
            "single",
            Expected::So(|session| {
                let running = session.pipes("cat", false);
                running.is_ok()
                    && matches!(session.pipes("true", false), Err(SshError::SessionRefused { .. }))
            }),
        ),
        as_user(
            "more at once than a server allows",
            "me",
            Expected::So(|session| {
                std::thread::scope(|scope| {
                    let runs: Vec<_> = (0..24).map(|_| scope.spawn(|| session.run("cat", b"x"))).collect();
                    runs.into_iter().all(|run| run.join().unwrap().is_ok_and(|output| output.stdout == b"x"))
                })
            }),
        ),
        as_user(
            "full disk",
            "root",
            Expected::So(|session| {
                let output = session.upload(&mut &vec![7; 1 << 20][..], "cat > /media/big").unwrap();
                matches!(output.expect_success("h", "upload"), Err(SshError::NoSpace { .. }))
            }),
        ),
        as_user(
            "noexec",
            "me",
            Expected::So(|session| {
                let output = session.run("cp /bin/true /srv/t-$$ && exec /srv/t-$$", b"").unwrap();
                matches!(output.expect_success("h", "run"), Err(SshError::NotExecutable { .. }))
            }),
        ),
        as_user(
            "a command that is not there",
            "me",
            Expected::So(|session| session.run("exec no-such-command", b"").unwrap().code == Some(127)),
        ),
        as_user(
            "a command that is killed",
            "me",
            Expected::So(|session| {
                session.run("kill -9 $$", b"").is_ok_and(|output| matches!(output.code, None | Some(137)))
            }),
        ),
        as_user(
            "words that a shell would take apart",
            "ops",
            Expected::So(|session| {
                session.run_as_root("printf %s \"it's \\$HOME\"; cat", b"\xff\0").unwrap().stdout
                    == b"it's $HOME\xff\0"
            }),
        ),
    ]
}

// === impl Case ===

impl Case {
    /// What is wrong, or nothing.
    fn wrong(&self) -> Option<String> {
        let begin = Instant::now();
        let session = Session::open(&self.address, &self.access);
        let took = begin.elapsed();
        let wrong = match (&self.expected, &session) {
            (Expected::Fails(is, what), Err(error)) => {
                (!is(error) || shows_secret(error)).then(|| format!("{error} ({error:?}) is not {what}"))
            }
            (Expected::Fails(_, what), Ok(_)) => Some(format!("got in; expected {what}")),
            (_, Err(error)) => Some(format!("{error} ({error:?})")),
            (Expected::In(user), Ok(session)) => {
                let output = session.run("id -un; cat", b"fed");
                let good = format!("{user}\nfed");
                let is_good = output.as_ref().is_ok_and(|output| output.stdout == good.as_bytes());
                (!is_good).then(|| format!("{output:?}"))
            }
            (Expected::Root, Ok(session)) => match session.run_as_root("id -u; cat", b"fed") {
                Ok(output) => (output.stdout != b"0\nfed").then(|| format!("{output:?}")),
                Err(error) => Some(format!("{error} ({error:?})")),
            },
            (Expected::RootFails(is, what), Ok(session)) => match session.run_as_root("id -u", b"") {
                Err(error) => (!is(&error)).then(|| format!("{error} ({error:?}) is not {what}")),
                Ok(output) => Some(format!("got root: {output:?}")),
            },
            (Expected::So(is), Ok(session)) => (!is(session)).then(|| "not so".to_owned()),
        };
        // The time it takes to clean up is on top, on a busy machine.
        let late = (took > PATIENCE + Duration::from_secs(5)).then(|| format!("took {took:?}"));
        wrong.or(late).map(|wrong| format!("{}: {wrong}", self.name))
    }
}

fn shows_secret(error: &SshError) -> bool {
    [error.to_string(), format!("{error:?}")].iter().any(|text| text.contains(PASSWORD))
}

#[test]
fn every_way_in_works_or_fails_by_name() {
    let mut world = World::new();
    let mut cases = ways(&mut world);
    cases.extend(authentication(&world));
    cases.extend(host_keys(&world));
    cases.extend(sudo(&world));
    cases.extend(oddities(&world));
    assert!(cases.len() >= 40);
    let wanted = std::env::var("CASE").ok();
    let chosen = |case: &Case| wanted.as_ref().is_none_or(|name| case.name == *name);
    let queue: Mutex<VecDeque<_>> = Mutex::new(cases.into_iter().filter(chosen).collect());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(case) = { queue.lock().unwrap().pop_front() } {
                    let found = case.wrong();
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(fs::read_to_string(world.network.path("fresh")).is_ok_and(|kept| !kept.is_empty()));
}
