//! An open way into a server: commands with their input and output, as many at once as a server allows.

use std::io::{self, IsTerminal as _, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::diagnosis;
use super::failure::SshError;
use super::log::Log;
use super::master::{Attempt, Master, ready};
use super::sudo::{self, Climb};
use super::{Access, Address, PATIENCE, Secret, Sudo};

/// A server that is connected. Commands can be given from several threads; dropped, it hangs up.
#[derive(Debug)]
pub struct Session {
    at: String,
    user: String,
    is_root: bool,
    sudo: Sudo,
    marker: String,
    line: Arc<Line>,
}

/// What a command that has ended left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error; the end of it when it was much.
    pub stderr: Vec<u8>,
}

/// A command that runs.
#[derive(Debug)]
pub struct Pipes {
    /// What the command writes.
    pub reader: PipeReader,
    /// What the command reads; dropped, the command is at the end of its input.
    pub writer: PipeWriter,
    /// How it ends.
    pub ending: Ending,
}

/// How a command ends.
#[derive(Debug)]
pub struct Ending {
    child: openssh::Child<Arc<openssh::Session>>,
    stderr: Log,
    listener: Option<JoinHandle<()>>,
    gave_password: Arc<OnceLock<()>>,
    at: String,
    _slot: Slot,
}

/// The connection, shared by the session and by the commands that still run.
#[derive(Debug)]
struct Line {
    remote: Arc<openssh::Session>,
    master: Master,
    slots: Arc<Slots>,
}

/// How many commands run.
#[derive(Debug, Default)]
struct Slots {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// The right to run one command. It keeps the connection up.
#[derive(Debug)]
struct Slot(Arc<Line>);

/// A little less than sshd's MaxSessions, which is 10.
const AT_ONCE: usize = 8;

/// How long a server may take to clean up after a command.
const CLEANUP: Duration = Duration::from_secs(2);

/// The most that a server may say before the first word of a command, in bytes.
const NOISE: usize = 64 << 10;

// === impl Session ===

impl Session {
    /// Connects and logs in, over every host on the way. Blocks; not to be called from asynchronous code.
    ///
    /// # Errors
    /// When any of the hosts is not reached, is not the one meant, or does not let us in; within [`PATIENCE`].
    pub fn open(address: &Address, access: &Access) -> Result<Self, SshError> {
        let deadline = Instant::now() + PATIENCE;
        let attempt = |address, login| Attempt {
            address,
            login,
            connect_timeout: access.connect_timeout.min(PATIENCE),
            deadline,
            executable: &access.executable,
        };
        let mut way = None;
        for jump in &access.jump {
            let hop = jump.address.to_string();
            let failed = |source| SshError::Jump { hop: hop.clone(), source: Box::new(source) };
            let master = Master::open(&attempt(&jump.address, &jump.login), way).map_err(failed)?;
            way = Some((hop, master));
        }
        let master = Master::open(&attempt(address, &access.login), way)?;
        let remote = openssh::Session::resume_mux(master.control().into(), None);
        let line = Arc::new(Line { remote: Arc::new(remote), master, slots: Arc::default() });
        let mut session = Self {
            at: address.to_string(),
            user: String::new(),
            is_root: false,
            sudo: access.sudo.clone(),
            marker: format!("rdeploy-{}", random().map_err(local("draw a random number"))?),
            line,
        };
        session.introduce()?;
        Ok(session)
    }

    /// Where this is connected to, as the user wrote it.
    pub fn address(&self) -> &str {
        &self.at
    }

    /// Who we are there.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether that is root.
    pub fn is_root(&self) -> bool {
        self.is_root
    }

    /// Runs a line of shell with this input, to its end.
    ///
    /// # Errors
    /// When it does not start or the connection is lost; a command that fails is no error here.
    pub fn run(&self, command: &str, input: &[u8]) -> Result<Output, SshError> {
        self.pipes(command, false)?.finish(&mut &*input)
    }

    /// As [`Session::run`], as root.
    ///
    /// # Errors
    /// As there, and when the user may not become root.
    pub fn run_as_root(&self, command: &str, input: &[u8]) -> Result<Output, SshError> {
        self.pipes(command, true)?.finish(&mut &*input)
    }

    /// Runs a line of shell with all that a reader gives as its input.
    ///
    /// # Errors
    /// As [`Session::run`], and when the reader fails.
    pub fn upload(&self, from: &mut dyn Read, command: &str) -> Result<Output, SshError> {
        self.pipes(command, false)?.finish(from)
    }

    /// The `ssh` that runs a line of shell as root over this connection with this process's own input, output and
    /// terminal.
    ///
    /// # Errors
    /// When root's password would have to be given to sudo, which has no terminal of ours to ask on.
    pub fn terminal(&self, command: &str) -> Result<std::process::Command, SshError> {
        let climb = self.sudo.climb(&self.at, &self.user, self.is_root, "")?;
        let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let script = quoted(command);
        let script = match climb {
            None => format!("exec /bin/sh -c {script}"),
            // The person at the terminal is asked.
            Some(Climb { password: Some(_), .. }) if has_terminal => {
                format!("exec sudo -- /bin/sh -c {script}")
            }
            Some(Climb { password: Some(_), .. }) => {
                return Err(SshError::SudoWantsPassword { at: self.at.clone(), user: self.user.clone() });
            }
            Some(Climb { prefix, .. }) => format!("exec {prefix} /bin/sh -c {script}"),
        };
        let mut ssh = std::process::Command::new("ssh");
        ssh.arg("-S").arg(self.line.master.control());
        // The connection decides where this goes; the port is one that nobody answers at when it is lost.
        ssh.args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-p", "9"]);
        ssh.arg(if has_terminal { "-t" } else { "-T" });
        ssh.args(["none", &script]);
        Ok(ssh)
    }

    /// Starts a line of shell, as root when asked, and leaves its two ends to the caller. When this returns, the command
    /// runs, and what the server's start files wrote before it is gone.
    ///
    /// # Errors
    /// When it does not start.
    pub fn pipes(&self, command: &str, as_root: bool) -> Result<Pipes, SshError> {
        let token = random().map_err(local("draw a random number"))?;
        let climb = if as_root { self.sudo.climb(&self.at, &self.user, self.is_root, &token)? } else { None };
        let script = quoted(&format!("echo {}; {command}", self.marker));
        let script = match &climb {
            None => format!("/bin/sh -c {script}"),
            // sh says by exit code 127 that there is no sudo, and every login shell has sh.
            Some(Climb { prefix, .. }) => {
                format!("/bin/sh -c {}", quoted(&format!("exec {prefix} /bin/sh -c {script}")))
            }
        };
        let Starting { mut reader, writer, ending } = self.start(&script, climb.as_ref())?;
        let begun = self.await_marker(&reader)?;
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (begun, writer) {
            (Begun::Yes, Some(writer)) => Ok(Pipes { reader, writer, ending }),
            (Begun::Yes, None) => Err(SshError::Lost { at: self.at.clone(), said: String::new() }),
            (Begun::Not(mut noise), writer) => {
                drop(writer);
                let _ = reader.read_to_end(&mut noise);
                let gave_password = ending.gave_password.get().is_some();
                let ended = Output { stdout: noise, ..ending.wait()? };
                Err(match climb {
                    Some(_) => sudo::failure(&self.at, &self.user, gave_password, &ended),
                    None => no_shell(&self.at, &ended),
                })
            }
        }
    }

    /// Finds out who we are there, and that commands do what they say.
    fn introduce(&mut self) -> Result<(), SshError> {
        let output = self.run("id -u; id -un", b"")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = said.lines();
        let (Some(Ok(number)), user) =
            (lines.next().map(str::parse::<u32>), lines.next().unwrap_or("the user"))
        else {
            return Err(no_shell(&self.at, &output));
        };
        self.is_root = number == 0;
        user.clone_into(&mut self.user);
        Ok(())
    }

    fn start(&self, script: &str, climb: Option<&Climb<'_>>) -> Result<Starting, SshError> {
        let slot = Slots::take(&self.line);
        let pipe = || io::pipe().map_err(local("open a pipe"));
        let ((stdin, writer), (reader, stdout), (said, stderr)) = (pipe()?, pipe()?, pipe()?);
        let runtime = runtime().map_err(local("start the runtime of the ssh client"))?;
        let mut command = self.line.remote.clone().arc_raw_command(script);
        command.stdin(OwnedFd::from(stdin)).stdout(OwnedFd::from(stdout)).stderr(OwnedFd::from(stderr));
        let child = self.spawn(runtime, &mut command)?;
        // The ends that ssh has now must not stay open here, or nobody would ever read an end of file.
        drop(command);
        let log = Log::default();
        let writer = Arc::new(Mutex::new(Some(writer)));
        let gave_password = Arc::new(OnceLock::new());
        let asked = climb.and_then(|climb| climb.password.as_ref()).map(|(prompt, password)| Asked {
            prompt: prompt.clone(),
            password: (*password).clone(),
            writer: writer.clone(),
            gave: gave_password.clone(),
        });
        let listener = std::thread::Builder::new().name("ssh-stderr".into()).spawn({
            let log = log.clone();
            move || listen(said, &log, asked.as_ref())
        });
        let listener = Some(listener.map_err(local("start a thread"))?);
        let ending = Ending { child, stderr: log, listener, gave_password, at: self.at.clone(), _slot: slot };
        Ok(Starting { reader, writer, ending })
    }

    /// Starts a remote command. A server counts a command that has ended until it has cleaned up after it, and says to
    /// nobody when it has: it is asked again for a moment.
    fn spawn(
        &self,
        runtime: &tokio::runtime::Runtime,
        command: &mut openssh::OwningCommand<Arc<openssh::Session>>,
    ) -> Result<openssh::Child<Arc<openssh::Session>>, SshError> {
        let deadline = Instant::now() + CLEANUP;
        loop {
            match runtime.block_on(command.spawn()) {
                Ok(child) => return Ok(child),
                Err(error) => match self.line.failure(&self.at, &error) {
                    SshError::SessionRefused { .. } if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    failure => return Err(failure),
                },
            }
        }
    }

    /// Reads up to the line that says that the command begins, and no further.
    fn await_marker(&self, mut reader: &PipeReader) -> Result<Begun, SshError> {
        let deadline = Instant::now() + PATIENCE;
        let mut noise: Vec<u8> = Vec::new();
        let marker = format!("{}\n", self.marker);
        while noise.len() < NOISE {
            let left = deadline.saturating_duration_since(Instant::now());
            if !ready(reader, left) {
                return Err(SshError::TimedOut { at: self.at.clone(), step: "start a command" });
            }
            // One at a time: what follows is the command's.
            let mut byte = [0];
            match reader.read(&mut byte) {
                Ok(1) => noise.push(byte[0]),
                _ => return Ok(Begun::Not(noise)),
            }
            if noise.ends_with(marker.as_bytes()) {
                return Ok(Begun::Yes);
            }
        }
        Ok(Begun::Not(noise))
    }
}

enum Begun {
    Yes,
    Not(Vec<u8>),
}

fn no_shell(at: &str, ended: &Output) -> SshError {
    let said =
        [&ended.stdout[..], &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let said: String = said.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    SshError::NoShell { at: at.to_owned(), said: said.chars().take(300).collect() }
}

fn local(step: &'static str) -> impl Fn(io::Error) -> SshError {
    move |source| SshError::Local { step, source }
}

// === impl Pipes ===

impl Pipes {
    /// Gives the command all of this to read, and takes what it writes until it ends.
    ///
    /// # Errors
    /// When the input cannot be read or the connection is lost.
    pub fn finish(self, input: &mut dyn Read) -> Result<Output, SshError> {
        let Self { mut reader, mut writer, ending } = self;
        let listening = std::thread::Builder::new().name("ssh-stdout".into()).spawn(move || {
            let mut stdout = Vec::new();
            // What cannot be read any more shows in how the command ends.
            let _ = reader.read_to_end(&mut stdout);
            stdout
        });
        let listening = listening.map_err(local("start a thread"))?;
        let fed = feed(input, &mut writer);
        drop(writer);
        let stdout = listening.join().unwrap_or_default();
        let output = Output { stdout, ..ending.wait()? };
        fed.map_err(local("read what is to be sent"))?;
        Ok(output)
    }
}

/// Copies until either side is at its end. A command that does not read on says why by how it ends.
fn feed(input: &mut dyn Read, writer: &mut PipeWriter) -> io::Result<()> {
    let mut chunk = vec![0; 1 << 16];
    loop {
        let count = match input.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if writer.write_all(&chunk[..count]).is_err() {
            return Ok(());
        }
    }
}

// === impl Ending ===

impl Ending {
    /// What the command has written to standard error so far.
    pub fn said(&self) -> String {
        self.stderr.text()
    }

    /// Waits until the command has ended. What it writes must be read until then, or it may never.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn wait(mut self) -> Result<Output, SshError> {
        let runtime = runtime().map_err(local("start the runtime of the ssh client"))?;
        let ended = runtime.block_on(self.child.wait());
        let code = match ended {
            Ok(status) => ExitStatus::code(&status),
            // The client has a name of its own for this exit code.
            Err(openssh::Error::Remote(error)) if error.kind() == io::ErrorKind::NotFound => Some(127),
            Err(openssh::Error::RemoteProcessTerminated) if !self._slot.0.is_down() => None,
            Err(error) => return Err(self._slot.0.failure(&self.at, &error)),
        };
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        Ok(Output { code, stdout: Vec::new(), stderr: self.stderr.text().into_bytes() })
    }
}

// === impl Output ===

impl Output {
    /// Whether the command says that it went well.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// What the command wrote when it went well; else a name for what went wrong. `what` is for the message: `upload the
    /// agent`, say.
    ///
    /// # Errors
    /// When it did not go well.
    pub fn expect_success(self, at: &str, what: &str) -> Result<Vec<u8>, SshError> {
        if self.is_success() {
            return Ok(self.stdout);
        }
        let said = String::from_utf8_lossy(&self.stderr);
        Err(diagnosis::of_command(at, what, self.code.unwrap_or(-1), &said))
    }
}

// === impl Line ===

impl Line {
    /// Whether the connection has gone down.
    fn is_down(&self) -> bool {
        ready(self.master.process(), Duration::ZERO)
    }

    /// Why a command did not start or end.
    fn failure(&self, at: &str, error: &openssh::Error) -> SshError {
        let at = at.to_owned();
        let text = full(error);
        // The master may still be about to end.
        if self.is_down()
            || !text.contains("refused") && ready(self.master.process(), Duration::from_millis(500))
        {
            return SshError::Lost { at, said: self.master.last_words() };
        }
        if text.contains("refused") {
            SshError::SessionRefused { at }
        } else {
            SshError::Lost { at, said: text }
        }
    }
}

/// An error with all its causes.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

// === impl Slots ===

impl Slots {
    /// Waits until one more command may run.
    fn take(line: &Arc<Line>) -> Slot {
        let slots = &line.slots;
        let taken = slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken =
            slots.freed.wait_while(taken, |taken| *taken >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Slot(line.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.slots.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.slots.freed.notify_one();
    }
}

/// A command that is about to run. While sudo may ask, the way in is shared with the one who answers.
struct Starting {
    reader: PipeReader,
    writer: Arc<Mutex<Option<PipeWriter>>>,
    ending: Ending,
}

/// What to do when sudo asks.
struct Asked {
    prompt: String,
    password: Secret,
    writer: Arc<Mutex<Option<PipeWriter>>>,
    gave: Arc<OnceLock<()>>,
}

/// Reads what a command says until it says no more, and gives sudo the password when it asks for it.
fn listen(mut said: PipeReader, log: &Log, asked: Option<&Asked>) {
    while log.read_from(&mut said) {
        if let Some(asked) = asked
            && log.take_out(&asked.prompt)
        {
            asked.answer();
        }
    }
}

// === impl Asked ===

impl Asked {
    fn answer(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.gave.set(()).is_err() {
            // Asked again: it was the wrong one. The end of the input is the answer.
            *writer = None;
        } else if let Some(writer) = writer.as_mut() {
            // A sudo that is gone by now says why by how it ended.
            let _ = writer.write_all(format!("{}\n", self.password.expose()).as_bytes());
        }
    }
}

/// A line of shell as one word of shell. The only place where anything is quoted.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// 128 random bits, in hexadecimal.
pub(super) fn random() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the ssh client runs on: one small runtime for all sessions of the process.
fn runtime() -> io::Result<&'static tokio::runtime::Runtime> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    if RUNTIME.get().is_none() {
        let made = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        // Another thread may have been quicker.
        let _ = RUNTIME.set(made);
    }
    RUNTIME.get().ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_one_word_of_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
