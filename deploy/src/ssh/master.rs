//! One `ssh -M` that stays connected to one host, from its start to its end.

use std::ffi::OsString;
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
use super::attempt::{Attempt, Directory, Materials, arguments, secret_variables};
use super::diagnosis::{self, Facts};
use super::failure::SshError;
use super::host_key::{HostKey, algorithms};
use super::keeper;
use super::kept::Kept;
use super::log::Log;
use super::target::Target;

/// A connection that is up. Dropped, it goes down, unless it is kept, and what was made for it goes away.
#[derive(Debug)]
pub(super) struct Master {
    control: PathBuf,
    process: OwnedFd,
    log: Log,
    attendant: Option<JoinHandle<()>>,
    /// Whether it outlives this.
    is_kept: bool,
    /// What it goes over; last to go, so that this one can say goodbye.
    _carrier: Option<Box<Master>>,
    _directory: Option<Directory>,
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
        let mut looked_up_again = false;
        loop {
            let materials = Materials::gather(attempt.login)?;
            facts.key = materials.key.as_ref().map(|key| key.name.clone());
            let arguments = arguments(attempt, &materials, way.as_ref().map(Master::control), &refused);
            match connect(attempt, materials, &arguments) {
                Ok(mut master) => {
                    master._carrier = way.map(Box::new);
                    return Ok(master);
                }
                Err(Failed::Early(error)) => return Err(error),
                Err(Failed::Ended { log, questions, gave_passphrase, notice, timed_out }) => {
                    if let Some(kind) = other_pinned_kind(&questions, &refused, &facts, timed_out) {
                        facts.shown.push(kind.1);
                        refused.push(kind.0);
                        continue;
                    }
                    // A resolver that is busy answers the second time; most tools do not ask twice.
                    if log.contains("Temporary failure in name resolution") && !looked_up_again && !timed_out
                    {
                        looked_up_again = true;
                        continue;
                    }
                    facts.refused = questions;
                    facts.gave_passphrase = gave_passphrase;
                    facts.notice = notice;
                    facts.timed_out = timed_out;
                    let carried = way.as_ref().map_or(String::new(), |way| way.said_of(&log));
                    return Err(diagnosis::of_log(&(carried + &log), &facts));
                }
            }
        }
    }

    /// The connection that somebody has kept here, if there is one.
    pub(super) fn kept(kept: &Kept) -> Option<Self> {
        Some(Self {
            control: kept.control().to_owned(),
            process: kept.process()?,
            log: Log::default(),
            attendant: None,
            is_kept: true,
            _carrier: None,
            _directory: None,
        })
    }

    /// What this connection says about another one that went over it, and that failed with this log.
    fn said_of(&self, failed: &str) -> String {
        if !failed.contains("Stdio forwarding request failed") {
            return String::new();
        }
        // The reason comes on another pipe, and may be the later one.
        self.log.wait_for("open failed: ", GRACE);
        self.log.text()
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
        while !self.is_kept
            && pidfd_send_signal(&self.process, Signal::TERM).is_ok()
            && !ready(&self.process, NUDGE)
        {
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
    Ended {
        log: String,
        questions: Vec<Refused>,
        gave_passphrase: bool,
        notice: Option<String>,
        timed_out: bool,
    },
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

/// Starts ssh and waits until it is connected, or has given up.
fn connect(attempt: &Attempt<'_>, materials: Materials, arguments: &[OsString]) -> Result<Master, Failed> {
    let early = |step| move |source| Failed::Early(SshError::Local { step, source });
    let desk =
        Desk::open(materials.directory.path.path()).map_err(early("open the socket for ssh's questions"))?;
    let hidden = secret_variables(attempt.login, std::env::vars_os());
    let has_password = attempt.login.password.is_some();
    let target = if has_password { Target::resolve(arguments, &hidden) } else { Target::default() };
    let mut command = keeper::command(attempt.executable);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for name in &hidden {
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

    let mut answers = Answers::from(attempt.login, target);
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
        is_kept: false,
        _carrier: None,
        _directory: Some(materials.directory),
    };
    // One that is to stay leaves this process and goes on in another.
    if matches!(outcome, Outcome::Ended)
        && let Some(kept) = attempt.keep.and_then(Master::kept)
    {
        return Ok(kept);
    }
    if matches!(outcome, Outcome::Connected) {
        return Ok(master);
    }
    let log = master.log.clone();
    drop(master);
    let timed_out = matches!(outcome, Outcome::TimedOut);
    let gave_passphrase = !answers.given_passphrase.is_empty();
    let Answers { refused: questions, notice, .. } = answers;
    Err(Failed::Ended { log: log.text(), questions, gave_passphrase, notice, timed_out })
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
