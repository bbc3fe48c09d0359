//! What an attempt to connect needs: files, a command line, and an environment without secrets.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::askpass::ASK;
use super::failure::SshError;
use super::host_key::{HostKey, KnownHosts};
use super::kept::Kept;
use super::key::ReadyKey;
use super::{Address, Login};

/// What is to be connected to, and how.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) address: &'a Address,
    pub(super) login: &'a Login,
    pub(super) connect_timeout: Duration,
    pub(super) deadline: Instant,
    pub(super) executable: &'a Path,
    /// Where the connection stays when it is to outlive this process.
    pub(super) keep: Option<&'a Kept>,
}

/// What an attempt needs on this machine besides ssh.
pub(super) struct Materials {
    pub(super) directory: Directory,
    pub(super) key: Option<ReadyKey>,
    known: Option<PathBuf>,
}

/// A directory of this process's own, which is locked as long as this lives and gone afterwards.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: tempfile::TempDir,
    _hold: fs::File,
}

/// How the command begins that goes over another connection of ours.
pub(super) const OUR_WAY: &str = "ssh -F /dev/null -o BatchMode=yes -S ";

/// How such a directory's name begins.
const PREFIX: &str = "rdeploy-";

// === impl Materials ===

impl Materials {
    pub(super) fn gather(login: &Login) -> Result<Self, SshError> {
        let make = || -> io::Result<(tempfile::TempDir, fs::File, Option<PathBuf>)> {
            // The path of a socket has room for 107 bytes only, and ssh adds 17 to it for a while.
            let place = short_directory();
            sweep(&place);
            let directory = tempfile::Builder::new()
                .prefix(PREFIX)
                // Without this it is the umask that says who may enter.
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir_in(place)?;
            let hold = fs::File::open(directory.path())?;
            rustix::fs::flock(&hold, FlockOperation::LockExclusive)?;
            let known = match &login.host_key {
                HostKey::KnownIn(KnownHosts::File(path)) => Some(std::path::absolute(path)?),
                HostKey::KnownIn(KnownHosts::Text(text)) => {
                    let path = directory.path().join("known_hosts");
                    fs::write(&path, text.replace("\r\n", "\n") + "\n")?;
                    Some(path)
                }
                _ => None,
            };
            Ok((directory, hold, known))
        };
        let (directory, hold, known) = make().map_err(local("make a directory for the connection"))?;
        let key = login.key.as_ref().map(|key| key.ready(login.passphrase.is_some())).transpose()?;
        Ok(Self { directory: Directory { path: directory, _hold: hold }, key, known })
    }

    /// Where the connection will take commands.
    pub(super) fn control(&self) -> PathBuf {
        self.directory.path.path().join("control")
    }
}

/// The user's run-time directory, or the machine's place for temporary files.
pub(super) fn short_directory() -> PathBuf {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // ssh takes a `%` in it for the beginning of something else, and a shell a space.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.+".contains(byte);
    let usable = |path: &PathBuf| {
        let bytes = path.as_os_str().as_encoded_bytes();
        path.is_absolute() && bytes.len() < 60 && bytes.iter().all(is_plain) && path.is_dir()
    };
    let temporary = std::env::temp_dir();
    run.filter(usable).or_else(|| Some(temporary).filter(usable)).unwrap_or_else(|| "/tmp".into())
}

/// Takes away what processes that were killed have left. A directory is locked before the socket for questions is in it,
/// so one with a socket and no lock is nobody's any more.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = |metadata: &fs::Metadata| {
            metadata.is_dir()
                && metadata.uid() == rustix::process::getuid().as_raw()
                && metadata.mode() & 0o077 == 0
        };
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|metadata| is_ours(&metadata))
            && path.join(ASK).exists()
            && let Ok(hold) = fs::File::open(&path)
            && rustix::fs::flock(&hold, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            // What cannot be taken away now may be the next time.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn local(step: &'static str) -> impl Fn(io::Error) -> SshError {
    move |source| SshError::Local { step, source }
}

/// The command line of ssh; `way` is where the connection on the way takes commands. Pure.
pub(super) fn arguments(
    attempt: &Attempt<'_>,
    materials: &Materials,
    way: Option<&Path>,
    refused: &[String],
) -> Vec<OsString> {
    let mut options: Vec<OsString> = [
        // What older versions do not know, they can do without. The first word on it counts, so that it also has to be
        // that of users whose configuration is for several systems (`IgnoreUnknown UseKeychain`).
        "IgnoreUnknown=*",
        "LogLevel=DEBUG1",
        "BatchMode=no",
        "NumberOfPasswordPrompts=1",
        "ConnectionAttempts=1",
        // A connection that is cut is known to be after 20 s.
        "ServerAliveInterval=5",
        "ServerAliveCountMax=3",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        "PermitLocalCommand=no",
        "RemoteCommand=none",
        "RequestTTY=no",
        "AddKeysToAgent=no",
        "UpdateHostKeys=no",
        "Tunnel=no",
    ]
    .map(OsString::from)
    .to_vec();
    options.push(format!("ConnectTimeout={}", attempt.connect_timeout.as_secs().max(1)).into());
    options.extend(attempt.login.host_key.options(materials.known.as_ref(), refused));
    options.extend(login_options(attempt.login, materials.key.as_ref()));
    if let Some(way) = way {
        let mut proxy = OsString::from(format!("ProxyCommand={OUR_WAY}"));
        proxy.push(way);
        // A dead master must not turn into a new connection, hence a port where nothing is.
        proxy.push(" -W [%h]:%p -p 9 none");
        options.push(proxy);
    }
    let mut arguments: Vec<OsString> = ["-M", "-N", "-T"].map(OsString::from).to_vec();
    if let Some(keep) = attempt.keep {
        options.push(format!("ControlPersist={}", keep.seconds()).into());
        arguments.extend(["-f".into(), "-S".into(), keep.control().into()]);
    } else {
        options.push("ControlPersist=no".into());
        arguments.extend(["-S".into(), materials.control().into()]);
    }
    for option in options {
        arguments.extend(["-o".into(), option]);
    }
    if let Some(user) = &attempt.address.user {
        arguments.extend(["-l".into(), user.into()]);
    }
    if let Some(port) = attempt.address.port {
        arguments.extend(["-p".into(), port.to_string().into()]);
    }
    arguments.extend(["--".into(), OsString::from(&attempt.address.host)]);
    arguments
}

fn login_options(login: &Login, key: Option<&ReadyKey>) -> Vec<OsString> {
    let mut options = Vec::new();
    let mut file = |name: &str, path: &Path| {
        let mut option = OsString::from(name);
        option.push(in_quotes(path.as_os_str()));
        options.push(option);
    };
    if let Some(key) = key {
        file("IdentityFile=", &key.path);
    }
    if let Some(agent) = &login.agent {
        file("IdentityAgent=", agent);
    }
    if let Some(certificate) = &login.certificate {
        file("CertificateFile=", certificate);
    }
    if key.is_some() {
        options.push("IdentitiesOnly=yes".into());
    }
    options.extend(
        match (
            key.is_some() || login.agent.is_some() || login.certificate.is_some(),
            login.password.is_some(),
        ) {
            // Keys of the user's own would use up the attempts that the server allows.
            (false, true) => {
                &["PubkeyAuthentication=no", "PreferredAuthentications=password,keyboard-interactive"][..]
            }
            (true, true) => &["PreferredAuthentications=publickey,password,keyboard-interactive"],
            (_, false) => &["PasswordAuthentication=no", "KbdInteractiveAuthentication=no"],
        }
        .iter()
        .map(OsString::from),
    );
    options
}

/// A path as a value in ssh's configuration: a `%` begins an expansion there, and a quote ends a word.
pub(super) fn in_quotes(path: &OsStr) -> OsString {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("\"{text}\"").into()
}

/// The variables of an environment that hold a secret of this login. ssh and whatever it starts can do without.
pub(super) fn secret_variables(
    login: &Login,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<OsString> {
    let gives_away = |value: &str| {
        let words = [&login.password, &login.passphrase].into_iter().flatten();
        words.into_iter().any(|secret| secret.is_in(value))
            || login.key.as_ref().is_some_and(|key| key.is_in(value))
    };
    environment.filter(|(_, value)| gives_away(&value.to_string_lossy())).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt as _;

    use super::super::{KeySource, Secret};
    use super::*;

    #[test]
    fn a_secret_from_the_environment_is_not_passed_on() {
        let login = Login {
            password: Some(Secret::new("hunter2")),
            key: Some(KeySource::Text(Secret::new("-----BEGIN\nkey\n"))),
            ..Login::default()
        };
        let environment =
            [("A", "hunter2"), ("B", "url://me:hunter2@h"), ("C", "-----BEGIN\nkey"), ("HOME", "/root")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(secret_variables(&login, environment.into_iter()), ["A", "B", "C"]);
        assert!(secret_variables(&Login::default(), std::env::vars_os()).is_empty());
    }

    #[test]
    fn no_secret_is_on_the_command_line() {
        let login = Login {
            password: Some(Secret::new("hunter2")),
            passphrase: Some(Secret::new("hunter2")),
            ..Login::default()
        };
        let attempt = Attempt {
            address: &"me@h:2222".parse().unwrap(),
            login: &login,
            connect_timeout: Duration::from_secs(10),
            deadline: Instant::now(),
            executable: Path::new("/x"),
            keep: None,
        };
        let line = arguments(&attempt, &Materials::gather(&login).unwrap(), None, &[]);
        let line: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
        assert!(line.ends_with(&[
            "-l".into(),
            "me".into(),
            "-p".into(),
            "2222".into(),
            "--".into(),
            "h".into()
        ]));
        assert!(!line.iter().any(|word| word.contains("hunter2")));
    }

    #[test]
    fn nobody_else_may_enter_the_directory_of_a_connection() {
        let materials = Materials::gather(&Login::default()).unwrap();
        assert_eq!(materials.directory.path.path().metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_a_killed_process_left_is_taken_away_and_what_is_in_use_is_not() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = place.path().join(name);
            fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
            fs::write(path.join(ASK), "").unwrap();
            path
        };
        let (left, used, other) = (make("rdeploy-left"), make("rdeploy-used"), make("other"));
        let hold = fs::File::open(&used).unwrap();
        rustix::fs::flock(&hold, FlockOperation::LockExclusive).unwrap();
        sweep(place.path());
        assert!(!left.exists() && used.exists() && other.exists());
    }

    #[test]
    fn a_path_is_one_value_in_the_configuration() {
        assert_eq!(in_quotes(OsStr::new("/a b/100%\"x")), "\"/a b/100%%\\\"x\"");
    }
}
