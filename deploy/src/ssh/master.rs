//! One `ssh -M` that stays connected to one host, from its options to its end.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::askpass::{Answers, Desk, Refused};
use super::diagnosis::{self, Facts};
use super::failure::SshError;
use super::host_key::{HostKey, KnownHosts, algorithms};
use super::key::ReadyKey;
use super::log::Log;
use super::{Address, Login, keeper};

/// A connection that is up. Dropped, it goes down, and what was made for it goes away.
#[derive(Debug)]
pub(super) struct Master {
    control: PathBuf,
    process: OwnedFd,
    log: Log,
    attendant: Option<JoinHandle<()>>,
    /// What it goes over; last to go, so that this one can say goodbye.
    _carrier: Option<Box<Master>>,
    _directory: tempfile::TempDir,
}

/// What is to be connected to, and how.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) address: &'a Address,
    pub(super) login: &'a Login,
    pub(super) connect_timeout: Duration,
    pub(super) deadline: Instant,
    pub(super) executable: &'a Path,
}

/// What an attempt needs on this machine besides ssh.
struct Materials {
    directory: tempfile::TempDir,
    key: Option<ReadyKey>,
    known: Option<PathBuf>,
}

/// An ssh that connects, as seen from whoever waits for it.
struct Connecting<'a> {
    process: &'a OwnedFd,
    stderr: ChildStderr,
    desk: Desk,
    log: Log,
    deadline: Instant,
}

/// What ssh says when everything is agreed and it has nothing to do but to wait for us.
const READY: &str = "Entering interactive session.";

/// After this long it is told again.
const NUDGE: Duration = Duration::from_millis(20);

/// How long an ssh that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);

// === impl Master ===

impl Master {
    /// Connects, over another connection when there is one on the way.
    pub(super) fn open(attempt: &Attempt<'_>, way: Option<(String, Master)>) -> Result<Self, SshError> {
        let (by_way_of, way) = way.map_or((None, None), |(hop, way)| (Some(hop), Some(way)));
        let mut facts = facts(attempt, by_way_of);
        // A host may show a key that is not the pinned one and have that, too: then the next kind is asked for.
        let mut refused = Vec::new();
        loop {
            let materials = Materials::gather(attempt.login)?;
            facts.key = materials.key.as_ref().map(|key| key.name.clone());
            let arguments = arguments(attempt, &materials, way.as_ref(), &refused);
            match connect(attempt, materials, &arguments) {
                Ok(mut master) => {
                    master._carrier = way.map(Box::new);
                    return Ok(master);
                }
                Err(Failed::Early(error)) => return Err(error),
                Err(Failed::Ended { log, questions, gave_passphrase, timed_out }) => {
                    if let Some(kind) = other_pinned_kind(&questions, &refused, &facts, timed_out) {
                        facts.shown.push(kind.1);
                        refused.push(kind.0);
                        continue;
                    }
                    facts.refused = questions;
                    facts.gave_passphrase = gave_passphrase;
                    facts.timed_out = timed_out;
                    let whole = way.as_ref().map_or(String::new(), |way| way.log.text()) + &log;
                    return Err(diagnosis::of_log(
                        if facts.by_way_of.is_some() { &whole } else { &log },
                        &facts,
                    ));
                }
            }
        }
    }

    /// Where commands are taken.
    pub(super) fn control(&self) -> &Path {
        &self.control
    }

    /// What ssh said last that is for a person to read.
    pub(super) fn last_words(&self) -> String {
        let text = self.log.text();
        let is_new = |line: &&str| !line.starts_with("debug") && !line.starts_with("Authenticated to");
        text.lines()
            .skip_while(|line| !line.contains(READY))
            .filter(is_new)
            .last()
            .unwrap_or_default()
            .to_owned()
    }

    /// The process, which becomes readable when it ends.
    pub(super) fn process(&self) -> &OwnedFd {
        &self.process
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let deadline = Instant::now() + GRACE;
        // ssh overlooks a signal that comes just before it begins to wait for something else.
        while pidfd_send_signal(&self.process, Signal::TERM).is_ok() && !ready(&self.process, NUDGE) {
            if Instant::now() > deadline {
                let _ = pidfd_send_signal(&self.process, Signal::KILL);
                break;
            }
        }
        if let Some(attendant) = self.attendant.take() {
            let _ = attendant.join();
        }
    }
}

/// Why an attempt came to nothing.
enum Failed {
    /// Something on this machine.
    Early(SshError),
    /// ssh ended, or was made to.
    Ended { log: String, questions: Vec<Refused>, gave_passphrase: bool, timed_out: bool },
}

fn facts(attempt: &Attempt<'_>, by_way_of: Option<String>) -> Facts {
    let pins = match &attempt.login.host_key {
        HostKey::Pinned(pins) => pins.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    Facts {
        at: attempt.address.to_string(),
        host: attempt.address.host.clone(),
        by_way_of,
        has_password: attempt.login.password.is_some(),
        pins,
        ..Facts::default()
    }
}

/// The kind of key that was shown and not the pinned one, and what was shown of it, when there may be another.
fn other_pinned_kind(
    questions: &[Refused],
    refused: &[String],
    facts: &Facts,
    timed_out: bool,
) -> Option<(String, String)> {
    match questions.last()? {
        Refused::HostKey { kind, fingerprint }
            if !facts.pins.is_empty()
                && !timed_out
                && !refused.contains(kind)
                && algorithms(kind).is_some() =>
        {
            Some((kind.clone(), format!("{fingerprint} ({kind})")))
        }
        _ => None,
    }
}

// === impl Materials ===

impl Materials {
    fn gather(login: &Login) -> Result<Self, SshError> {
        let make = || -> io::Result<(tempfile::TempDir, Option<PathBuf>)> {
            // The path of a socket has room for 107 bytes only, and ssh adds 17 to it for a while.
            let directory = tempfile::Builder::new().prefix("rdeploy-").tempdir_in(short_directory())?;
            let known = match &login.host_key {
                HostKey::KnownIn(KnownHosts::File(path)) => Some(std::path::absolute(path)?),
                HostKey::KnownIn(KnownHosts::Text(text)) => {
                    let path = directory.path().join("known_hosts");
                    std::fs::write(&path, text.replace("\r\n", "\n") + "\n")?;
                    Some(path)
                }
                _ => None,
            };
            Ok((directory, known))
        };
        let (directory, known) = make().map_err(local("make a directory for the connection"))?;
        let key = login.key.as_ref().map(|key| key.ready(login.passphrase.is_some())).transpose()?;
        Ok(Self { directory, key, known })
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }
}

/// The user's run-time directory, or the machine's place for temporary files.
fn short_directory() -> PathBuf {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usable = |path: &PathBuf| path.is_absolute() && path.is_dir() && path.as_os_str().len() < 60;
    let temporary = std::env::temp_dir();
    run.filter(usable).or_else(|| Some(temporary).filter(usable)).unwrap_or_else(|| "/tmp".into())
}

fn local(step: &'static str) -> impl Fn(io::Error) -> SshError {
    move |source| SshError::Local { step, source }
}

/// The command line of ssh. Pure.
fn arguments(
    attempt: &Attempt<'_>,
    materials: &Materials,
    way: Option<&Master>,
    refused: &[String],
) -> Vec<OsString> {
    let mut options: Vec<OsString> = [
        // What older versions do not know, they can do without.
        "IgnoreUnknown=KnownHostsCommand,UpdateHostKeys,RemoteCommand,KbdInteractiveAuthentication",
        "ControlPersist=no",
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
        let mut proxy = OsString::from("ProxyCommand=ssh -F /dev/null -o BatchMode=yes -S ");
        proxy.push(way.control());
        // A dead master must not turn into a new connection, hence a port where nothing is.
        proxy.push(" -W [%h]:%p -p 9 none");
        options.push(proxy);
    }
    let mut arguments: Vec<OsString> = ["-M", "-N", "-T", "-S"].map(OsString::from).to_vec();
    arguments.push(materials.control().into());
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

/// Starts ssh and waits until it is connected, or has given up.
fn connect(attempt: &Attempt<'_>, materials: Materials, arguments: &[OsString]) -> Result<Master, Failed> {
    let early = |step| move |source| Failed::Early(SshError::Local { step, source });
    let desk =
        Desk::open(materials.directory.path()).map_err(early("open the socket for ssh's questions"))?;
    let mut command = keeper::command(attempt.executable);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for name in secret_variables(attempt.login, std::env::vars_os()) {
        command.env_remove(name);
    }
    desk.announce(&mut command, attempt.executable);

    // ssh dies with the thread that starts it: one of its own, which stays until ssh ends.
    let log = Log::default();
    let (started, starting) = sync_channel(1);
    let (connected, connecting) = sync_channel(1);
    let attendant = std::thread::Builder::new().name("ssh".into()).spawn({
        let log = log.clone();
        move || attend(command, &started, &connecting, &log)
    });
    let attendant = attendant.map_err(early("start a thread for ssh"))?;
    let child: io::Result<(OwnedFd, ChildStderr)> =
        starting.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
    let (process, stderr) = child.map_err(early("start ssh"))?;

    let mut answers = Answers::from(attempt.login);
    let waiting =
        Connecting { process: &process, stderr, desk, log: log.clone(), deadline: attempt.deadline };
    let (outcome, stderr) = waiting.wait(&mut answers);
    // The thread reads on from here, or finds that there is nothing more to read.
    let _ = connected.send(stderr);
    let control = materials.control();
    let master = Master {
        control,
        process,
        log,
        attendant: Some(attendant),
        _carrier: None,
        _directory: materials.directory,
    };
    if matches!(outcome, Outcome::Connected) {
        return Ok(master);
    }
    let log = master.log.clone();
    drop(master);
    let timed_out = matches!(outcome, Outcome::TimedOut);
    let gave_passphrase = !answers.given_passphrase.is_empty();
    Err(Failed::Ended { log: log.text(), questions: answers.refused, gave_passphrase, timed_out })
}

/// The variables of an environment that hold a secret of this login. ssh and whatever it starts can do without.
fn secret_variables(login: &Login, environment: impl Iterator<Item = (OsString, OsString)>) -> Vec<OsString> {
    let gives_away = |value: &str| {
        let words = [&login.password, &login.passphrase].into_iter().flatten();
        words.into_iter().any(|secret| secret.is_in(value))
            || login.key.as_ref().is_some_and(|key| key.is_in(value))
    };
    environment.filter(|(_, value)| gives_away(&value.to_string_lossy())).map(|(name, _)| name).collect()
}

/// Starts ssh, hands it over to be waited for, takes it back, listens to it until it ends, and reaps it.
fn attend(
    mut command: std::process::Command,
    started: &SyncSender<io::Result<(OwnedFd, ChildStderr)>>,
    connecting: &Receiver<ChildStderr>,
    log: &Log,
) {
    let mut start = || -> io::Result<(Child, OwnedFd, OwnedFd, ChildStderr)> {
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        Ok((child, process.try_clone()?, process, stderr))
    };
    let (mut child, process) = match start() {
        Ok((child, process, theirs, stderr)) => {
            let _ = started.send(Ok((theirs, stderr)));
            (child, process)
        }
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    if let Ok(mut stderr) = connecting.recv() {
        // Not to the end of file: something that ssh left behind may hold the other end for ever.
        loop {
            let [said, ended] = readable([stderr.as_fd(), process.as_fd()], Duration::from_secs(3600));
            if said && !log.read_from(&mut stderr) || ended && !said {
                break;
            }
        }
    }
    let _ = child.wait();
}

enum Outcome {
    Connected,
    Ended,
    TimedOut,
}

// === impl Connecting ===

impl Connecting<'_> {
    /// Listens to ssh and answers its questions until it is connected, has ended, or is late.
    fn wait(mut self, answers: &mut Answers<'_>) -> (Outcome, ChildStderr) {
        let outcome = loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let [said, asked, ended] =
                readable([self.stderr.as_fd(), self.desk.listener().as_fd(), self.process.as_fd()], left);
            if said && self.log.read_from(&mut self.stderr) && self.log.text().contains(READY) {
                break Outcome::Connected;
            }
            if asked {
                // A question that breaks off is one without an answer, which ssh deals with.
                let _ = self.desk.serve(answers);
                if answers.refused.last().is_some_and(Refused::is_final) {
                    self.hear_out();
                    break Outcome::Ended;
                }
            }
            if ended {
                self.hear_out();
                break Outcome::Ended;
            }
            if !said && !asked {
                break Outcome::TimedOut;
            }
        };
        (outcome, self.stderr)
    }

    /// Reads what there is, and waits for no more: something that ssh left behind may hold the other end.
    fn hear_out(&mut self) {
        while readable([self.stderr.as_fd()], Duration::ZERO)[0] && self.log.read_from(&mut self.stderr) {}
    }
}

/// Which of these can be read, within a time.
fn readable<const N: usize>(descriptors: [std::os::fd::BorrowedFd<'_>; N], within: Duration) -> [bool; N] {
    let mut polled = descriptors.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut polled, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return [false; N],
            Ok(_) => return polled.map(|descriptor| !descriptor.revents().is_empty()),
        }
    }
}

/// Whether this becomes readable within a time.
pub(super) fn ready(descriptor: &impl AsFd, within: Duration) -> bool {
    readable([descriptor.as_fd()], within)[0]
}

#[cfg(test)]
mod tests {
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
    fn a_path_is_one_value_in_the_configuration() {
        assert_eq!(in_quotes(OsStr::new("/a b/100%\"x")), "\"/a b/100%%\\\"x\"");
    }
}
