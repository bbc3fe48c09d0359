//! A connection that outlives the command it was made for, so that the next one need not log in again.
//!
//! ssh itself stays behind, as `ControlPersist` has it (ssh_config(5)), and ends when nothing has used it for a while.
//! Only its user can come to its socket, and only who would log in the same way finds it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sha2::{Digest as _, Sha256};

use super::attempt::short_directory;
use super::host_key::HostKey;
use super::{Access, Address, KeySource, KnownHosts};

/// Where the connection to one host, by one login, is kept.
#[derive(Debug)]
pub(super) struct Kept {
    control: PathBuf,
    time: Duration,
    /// Two who make the same connection at once would be in each other's way.
    _making: fs::File,
}

/// How long an ssh may take to say that it is there.
const PROMPTLY: Duration = Duration::from_secs(1);

/// The part of the protocol of ssh's control sockets that is spoken here (PROTOCOL.mux in OpenSSH's source).
mod wire {
    pub(super) const HELLO: u32 = 0x0000_0001;
    pub(super) const VERSION: u32 = 4;
    pub(super) const ALIVE_CHECK: u32 = 0x1000_0004;
    pub(super) const ALIVE: u32 = 0x8000_0005;
    /// The longest message that is read, in bytes.
    pub(super) const LONGEST: u32 = 1024;
}

// === impl Kept ===

impl Kept {
    /// The place for a connection like this; `None` when it is not to be kept, cannot be, or somebody else is about to
    /// make it. What takes a secret to log in is never kept, nor what goes over a connection of ours on the way.
    pub(super) fn of(address: &Address, access: &Access) -> Option<Self> {
        Self::below(&short_directory(), address, access)
    }

    fn below(place: &Path, address: &Address, access: &Access) -> Option<Self> {
        let login = &access.login;
        let takes_secret = login.password.is_some()
            || login.passphrase.is_some()
            || matches!(login.key, Some(KeySource::Text(_)))
            || matches!(login.host_key, HostKey::KnownIn(KnownHosts::Text(_)));
        if access.keep < Duration::from_secs(1) || takes_secret || !access.jump.is_empty() {
            return None;
        }
        let directory = own_directory(place).ok()?;
        let name = name(address, access)?;
        let making = fs::File::create(directory.join(format!("{name}.lock"))).ok()?;
        rustix::fs::flock(&making, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self { control: directory.join(name), time: access.keep, _making: making })
    }

    /// Where it takes commands.
    pub(super) fn control(&self) -> &Path {
        &self.control
    }

    /// How long it stays when nothing uses it, in whole seconds.
    pub(super) fn seconds(&self) -> u64 {
        self.time.as_secs()
    }

    /// The process that is connected, if there is one. What a dead one left is taken away.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        let found = alive(&self.control).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        if found.is_err() {
            self.forget();
        }
        found.ok()
    }

    /// Lets nobody find it any more: it does not answer. It ends by itself.
    pub(super) fn forget(&self) {
        // Most often there is nothing.
        let _ = fs::remove_file(&self.control);
    }
}

/// A directory that is its user's alone, whoever else may write beside it.
fn own_directory(place: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let path = place.join(format!("rdeploy-kept-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(&path)?;
    let is_own = metadata.is_dir() && metadata.uid() == user && metadata.mode() & 0o077 == 0;
    if is_own { Ok(path) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// What tells this way in from every other, shortened to the name of a socket.
fn name(address: &Address, access: &Access) -> Option<String> {
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(&(address, &access.login)).ok()?);
    if let Some(KeySource::File(path)) = &access.login.key {
        let file = fs::metadata(path).ok()?;
        digest.update(format!("{:?}", (file.dev(), file.ino(), file.mtime(), file.mtime_nsec())));
    }
    digest.update(format!("{:?}", std::env::var_os("SSH_AUTH_SOCK")));
    // Whoever changes the configuration, such as the address behind a name, means it from the next command on.
    digest.update(configuration(address).ok()?);
    Some(digest.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect())
}

/// What ssh's configuration says of a host.
fn configuration(address: &Address) -> io::Result<Vec<u8>> {
    let mut ssh = Command::new("ssh");
    ssh.args(["-G", "-o", "IgnoreUnknown=*"]);
    if let Some(user) = &address.user {
        ssh.args(["-l", user]);
    }
    if let Some(port) = address.port {
        ssh.args(["-p", &port.to_string()]);
    }
    let output = ssh.args(["--", &address.host]).stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    Ok(output.stdout)
}

/// Asks an ssh that it says that it is there; its process id.
fn alive(control: &Path) -> io::Result<Pid> {
    let mut stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(PROMPTLY))?;
    stream.set_write_timeout(Some(PROMPTLY))?;
    let request = 1;
    send(&mut stream, &[wire::HELLO, wire::VERSION])?;
    send(&mut stream, &[wire::ALIVE_CHECK, request])?;
    loop {
        let message = receive(&mut stream)?;
        match message.first() {
            Some(&wire::HELLO) => {}
            Some(&wire::ALIVE) if message.get(1) == Some(&request) => {
                let pid = message.get(2).and_then(|pid| i32::try_from(*pid).ok()).and_then(Pid::from_raw);
                return pid.ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn send(stream: &mut UnixStream, words: &[u32]) -> io::Result<()> {
    let length = u32::try_from(words.len() * 4).map_err(io::Error::other)?;
    let bytes: Vec<u8> = [length].iter().chain(words).flat_map(|word| word.to_be_bytes()).collect();
    stream.write_all(&bytes)
}

/// The whole words of one message.
fn receive(stream: &mut UnixStream) -> io::Result<Vec<u32>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > wire::LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    let (words, _) = bytes.as_chunks::<4>();
    Ok(words.iter().map(|word| u32::from_be_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{Login, Secret};
    use super::*;

    fn kept(access: &Access) -> Option<String> {
        let place = tempfile::tempdir().unwrap();
        let address = "me@h".parse().unwrap();
        let kept = Kept::below(place.path(), &address, access)?;
        Some(kept.control().file_name().unwrap().to_string_lossy().into_owned())
    }

    #[test]
    fn what_takes_a_secret_is_not_kept_nor_what_nobody_asked_for() {
        let keep = Duration::from_secs(5);
        let by = |login| Access { keep, ..Access::by(login) };
        let password = Login { password: Some(Secret::new("hunter2")), ..Login::default() };
        let key = Login { key: Some(KeySource::Text(Secret::new("a key"))), ..Login::default() };
        assert_eq!([kept(&by(password)), kept(&by(key))], [None, None]);
        assert_eq!(kept(&Access::by(Login::default())), None);
        assert!(kept(&by(Login::default())).is_some());
    }

    #[test]
    fn another_login_finds_another_connection() {
        let keep = Duration::from_secs(5);
        let pin = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".parse().unwrap();
        let one =
            Access { keep, ..Access::by(Login { host_key: HostKey::Pinned(vec![pin]), ..Login::default() }) };
        let file = tempfile::NamedTempFile::new().unwrap();
        let key = Some(KeySource::File(file.path().into()));
        let two = Access { keep, ..Access::by(Login { key, ..one.login.clone() }) };
        let (first, second) = (kept(&one).unwrap(), kept(&two).unwrap());
        assert_ne!(first, second);
        assert_eq!(kept(&one).unwrap(), first);
        file.as_file().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_ne!(kept(&two).unwrap(), second, "the key is another one now");
    }

    #[test]
    fn a_directory_that_others_can_enter_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let path = own_directory(place.path()).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        own_directory(place.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        own_directory(place.path()).unwrap_err();
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/tmp", &path).unwrap();
        own_directory(place.path()).unwrap_err();
    }
}
