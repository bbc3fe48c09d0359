//! The servers of the matrix, with a user for every oddity, and what is at hand to get in.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use deploy::ssh::{Access, Address, HostKey, Jump, KeySource, KnownHosts, Login, Secret, Sudo};

use super::{Case, Expected};
use crate::server::{Kind, Network, PASSWORD, Server, access};

/// The servers of the matrix, and what is at hand to get in.
pub(super) struct World {
    pub(super) network: Arc<Network>,
    /// The one with all the users.
    pub(super) main: Server,
    /// One that is reached by way of others; without sudo.
    pub(super) far: Server,
    pub(super) agent: Agent,
    pub(super) listeners: Vec<TcpListener>,
}

/// An ssh-agent that ends with the test.
pub(super) struct Agent {
    child: Child,
    pub(super) socket: PathBuf,
    pub(super) empty: PathBuf,
    strangers: Child,
}

// === impl World ===

impl World {
    pub(super) fn new() -> Self {
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
    pub(super) fn case(&self, name: &'static str, user: &str, login: Login, expected: Expected) -> Case {
        Case { name, address: self.main.as_user(user), access: access(login), expected }
    }

    pub(super) fn at(&self, text: &str) -> Address {
        text.parse().unwrap()
    }

    /// With the network's key, and the main server known.
    pub(super) fn login(&self) -> Login {
        self.main.access().login
    }

    pub(super) fn with_key(&self, key: KeySource) -> Login {
        Login { key: Some(key), ..self.login() }
    }

    pub(super) fn with_key_file(&self, name: &str) -> Login {
        self.with_key(KeySource::File(self.network.path(name)))
    }

    pub(super) fn with_key_text(&self, change: impl Fn(String) -> String) -> Login {
        let text = fs::read_to_string(self.network.key()).unwrap();
        self.with_key(KeySource::Text(Secret::new(change(text))))
    }

    pub(super) fn with_password(&self, password: &str) -> Login {
        Login { key: None, password: Some(Secret::new(password)), ..self.login() }
    }

    pub(super) fn with_host_key(&self, host_key: HostKey) -> Login {
        Login { host_key, ..self.login() }
    }

    pub(super) fn known(&self, lines: String) -> Login {
        self.with_host_key(HostKey::KnownIn(KnownHosts::Text(lines)))
    }

    pub(super) fn jump(&self, user: &str, login: Login) -> Jump {
        Jump { address: self.main.as_user(user), login }
    }

    /// To the far server by way of these.
    pub(super) fn far(&self, name: &'static str, jump: Vec<Jump>, expected: Expected) -> Case {
        Case {
            name,
            address: self.far.as_user("root"),
            access: Access { jump, ..self.far.access() },
            expected,
        }
    }

    pub(super) fn sudo(&self, name: &'static str, user: &str, sudo: Sudo, expected: Expected) -> Case {
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
        .user("endless", "/bin/sh").sshd_for("endless", "ForceCommand yes no more than this")
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
            // It says where it is as soon as it listens, and ends with the shell's input, however this test does.
            let script = "ssh-agent -D -a \"$1\" & read -r _; kill $!";
            let mut child = Command::new("sh")
                .args(["-c", script, "agent"])
                .arg(socket)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = [0];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
            child
        };
        let (child, strangers) = (start(&socket), start(&empty));
        for (socket, names) in [(&socket, &["id"][..]), (&empty, &["stranger", "stranger2", "stranger3"])] {
            let keys = names.iter().map(|name| network.path(name));
            let status = Command::new("ssh-add").arg("-q").args(keys).env("SSH_AUTH_SOCK", socket).status();
            assert!(status.unwrap().success());
        }
        Self { child, socket, empty, strangers }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for child in [&mut self.child, &mut self.strangers] {
            drop(child.stdin.take());
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
