//! Where secrets are while ssh uses them: nowhere that another process could read.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deploy::ssh::{Access, Jump, KeySource, Login, Secret, Session, Sudo};

use crate::server::{Kind, Network, Server, access};

/// Secrets in every form that they could be written in.
struct Traces(Vec<String>);

/// What has been looked at.
#[derive(Default)]
struct Seen {
    processes: AtomicUsize,
    files: AtomicUsize,
}

// === impl Traces ===

impl Traces {
    fn of(secrets: &[&str]) -> Self {
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let url = |text: &str| {
            let escaped = |byte: u8| match byte {
                byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            };
            text.bytes().map(escaped).collect::<String>()
        };
        Self(
            secrets
                .iter()
                .flat_map(|text| [(*text).to_owned(), STANDARD.encode(text), hex(text), url(text)])
                .collect(),
        )
    }

    fn find(&self, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        self.0.iter().any(|trace| text.contains(trace))
    }

    /// The command lines and environments of all processes that give something away.
    fn in_processes(&self, seen: &Seen) -> Vec<String> {
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let files = processes.flat_map(|process| ["cmdline", "environ"].map(|name| process.join(name)));
        let read = files.filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes)));
        read.inspect(|(_, bytes)| {
            if String::from_utf8_lossy(bytes).contains("RDEPLOY_ASK_SOCKET") {
                seen.processes.fetch_add(1, Ordering::SeqCst);
            }
        })
        .filter(|(_, bytes)| self.find(bytes))
        .map(|(path, bytes)| format!("{}: {}", path.display(), String::from_utf8_lossy(&bytes)))
        .collect()
    }

    /// The files below a directory that give something away, when they are on a disk.
    fn in_files(&self, directory: &Path, seen: &Seen) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => found.extend(self.in_files(&path, seen)),
                Ok(kind) if kind.is_file() => {
                    seen.files.fetch_add(1, Ordering::SeqCst);
                    found.extend(fs::read(&path).is_ok_and(|bytes| self.find(&bytes)).then_some(path));
                }
                _ => {}
            }
        }
        found
    }

    /// Where ssh and this program keep things while they are connected.
    fn in_places(&self, seen: &Seen) -> Vec<PathBuf> {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap()).join(".ssh");
        let temporary = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        let ours = temporary.filter(|entry| entry.file_name().to_string_lossy().starts_with("rdeploy-"));
        ours.map(|entry| entry.path()).chain([home]).flat_map(|place| self.in_files(&place, seen)).collect()
    }
}

fn unique() -> String {
    // With characters that have to be escaped in a URL, and others that a shell would mind.
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    format!("$'{}\"/+", uuid.trim())
}

fn hash(password: &str) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["passwd", "-6", "-stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = openssl.spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn no_secret_is_seen_in_any_process_or_file_while_ssh_uses_it() {
    let network = Network::new();
    let password = unique();
    let kind = || {
        Kind::default()
            .user("me", "/bin/sh")
            .sudoers("me ALL=(ALL) ALL")
            .script(&format!("usermod -p '{}' me", hash(&password)))
            .sshd("PasswordAuthentication yes")
    };
    let (hop, server) = (Server::of(&network, kind()), Server::of(&network, kind()));

    // The key is encrypted, and by then only in the secret.
    let passphrase = unique();
    let file = network.key();
    let args = ["-q", "-p", "-P", "", "-N", &passphrase, "-f"];
    assert!(
        Command::new("ssh-keygen").args(args).arg(&file).stdout(Stdio::null()).status().unwrap().success()
    );
    let key = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();

    let by_key = Login {
        key: Some(KeySource::Text(Secret::new(key.replace('\n', "\r\n")))),
        passphrase: Some(Secret::new(&passphrase)),
        host_key: server.known_hosts(),
        ..Login::default()
    };
    let by_password =
        Login { password: Some(Secret::new(&password)), host_key: hop.known_hosts(), ..Login::default() };
    let access = Access {
        jump: vec![Jump { address: hop.as_user("me"), login: by_password }],
        sudo: Sudo::Password(Secret::new(&password)),
        ..access(by_key)
    };

    let lines: Vec<_> = key.lines().filter(|line| !line.starts_with("--")).collect();
    let mut secrets = vec![password.as_str(), &passphrase];
    secrets.extend(&lines);
    let traces = Traces::of(&secrets);
    let (seen, over) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut found = Vec::new();
            while !over.load(Ordering::SeqCst) {
                found.extend(traces.in_processes(&seen));
                found.extend(traces.in_places(&seen).iter().map(|path| path.display().to_string()));
            }
            found
        });
        let used = Session::open(&server.as_user("me"), &access)
            .and_then(|session| Ok((session.run_as_root("id -u; cat", b"fed")?, session)));
        let looked = (traces.in_processes(&seen), traces.in_places(&seen));
        over.store(true, Ordering::SeqCst);
        let found = looking.join().unwrap();
        assert_eq!(used.unwrap().0.stdout, b"0\nfed");
        assert!(found.is_empty() && looked.0.is_empty() && looked.1.is_empty(), "{found:?} {looked:?}");
    });
    assert!(seen.processes.load(Ordering::SeqCst) > 0, "ssh was not looked at");
    assert!(seen.files.load(Ordering::SeqCst) > 0, "no file was looked at");
}
