//! An open way into a server: commands with their input and output, as many at once as a server allows.

use std::io::{self, IsTerminal as _, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::attempt::Attempt;
use super::failure::SshError;
use super::kept::Kept;
use super::line::{Line, Slot, runtime};
use super::log::Log;
use super::master::{Master, ready};
use super::pipes::{Asked, Ending, Output, Pipes, Starting, listen, local};
use super::sudo::{self, Climb};
use super::{Access, Address, PATIENCE, Sudo};

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

/// How long a server may take to clean up after a command.
const CLEANUP: Duration = Duration::from_secs(2);

/// How soon a connection that was kept has to be of use.
const PROMPTLY: Duration = Duration::from_secs(5);

/// The most that a server may say before the first word of a command, in bytes.
const NOISE: usize = 64 << 10;

/// The longest first line of a command that is read, in bytes.
const LONGEST_LINE: usize = 200;

// === impl Session ===

impl Session {
    /// Connects and logs in, over every host on the way. Blocks; not to be called from asynchronous code.
    ///
    /// # Errors
    /// When any of the hosts is not reached, is not the one meant, or does not let us in; within [`PATIENCE`].
    pub fn open(address: &Address, access: &Access) -> Result<Self, SshError> {
        let (session, pipes) = Self::begin(address, access, &|| Ok("exit".to_owned()))?;
        pipes.finish(&mut io::empty())?;
        Ok(session)
    }

    /// As [`Session::open`], and starts a line of shell as root at once: to a root user the server says who they are and
    /// runs it in one command, and every command costs a login shell with its start files. The line is not asked for
    /// before the connection is up.
    ///
    /// # Errors
    /// As there, and when the command does not start.
    pub fn open_as_root(
        address: &Address,
        access: &Access,
        command: &dyn Fn() -> Result<String, SshError>,
    ) -> Result<(Self, Pipes), SshError> {
        match Self::begin_as_root(address, access, command) {
            // One that stays for a short time only may end before the first command, when that takes its time.
            Err(SshError::Lost { .. }) if !access.keep.is_zero() => {
                let access = Access { keep: Duration::ZERO, ..access.clone() };
                Self::begin_as_root(address, &access, command)
            }
            begun => begun,
        }
    }

    fn begin_as_root(
        address: &Address,
        access: &Access,
        command: &dyn Fn() -> Result<String, SshError>,
    ) -> Result<(Self, Pipes), SshError> {
        let as_root = || Ok(format!("[ \"$(id -u)\" = 0 ] || exit 0; {}", command()?));
        let (session, pipes) = Self::begin(address, access, &as_root)?;
        if session.is_root {
            return Ok((session, pipes));
        }
        pipes.finish(&mut io::empty())?;
        let pipes = session.pipes(&command()?, true)?;
        Ok((session, pipes))
    }

    /// Connects, or takes the connection that was kept, and has the server say who we are and go on with this.
    fn begin(
        address: &Address,
        access: &Access,
        then: &dyn Fn() -> Result<String, SshError>,
    ) -> Result<(Self, Pipes), SshError> {
        let kept = Kept::of(address, access);
        if let Some(kept) = &kept
            && let Some(master) = Master::kept(kept)
        {
            let mut session = Self::over(address, access, master)?;
            if let Ok(pipes) = session.introduce(&then()?, PROMPTLY) {
                return Ok((session, pipes));
            }
            // Whatever became of it meanwhile, a new one tells more about the server.
            kept.forget();
        }
        let mut session = Self::connect(address, access, kept.as_ref())?;
        let pipes = session.introduce(&then()?, PATIENCE)?;
        Ok((session, pipes))
    }

    fn connect(address: &Address, access: &Access, keep: Option<&Kept>) -> Result<Self, SshError> {
        let deadline = Instant::now() + PATIENCE;
        let attempt = |address, login, keep| Attempt {
            address,
            login,
            keep,
            connect_timeout: access.connect_timeout.min(PATIENCE),
            deadline,
            executable: &access.executable,
        };
        let mut way = None;
        for jump in &access.jump {
            let hop = jump.address.to_string();
            let failed = |source| SshError::Jump { hop: hop.clone(), source: Box::new(source) };
            let master = Master::open(&attempt(&jump.address, &jump.login, None), way).map_err(failed)?;
            way = Some((hop, master));
        }
        let master = Master::open(&attempt(address, &access.login, keep), way)?;
        Self::over(address, access, master)
    }

    fn over(address: &Address, access: &Access, master: Master) -> Result<Self, SshError> {
        let line = Line::over(master);
        Ok(Self {
            at: address.to_string(),
            user: String::new(),
            is_root: false,
            sudo: access.sudo.clone(),
            marker: format!("rdeploy-{}", random().map_err(local("draw a random number"))?),
            line,
        })
    }

    /// Where this is connected to, as the user wrote it.
    pub fn address(&self) -> &str {
        &self.at
    }

    /// Who we are there.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The connection.
    pub(super) fn line(&self) -> &Line {
        &self.line
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
    /// When sudo may want a password and there is no terminal to ask for it on.
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
        // The connection decides where this goes, and not what the user's configuration has for every host; the port is
        // one that nobody answers at when it is lost.
        ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-p", "9"]);
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
        self.pipes_within(command, as_root, PATIENCE)
    }

    fn pipes_within(&self, command: &str, as_root: bool, patience: Duration) -> Result<Pipes, SshError> {
        let token = random().map_err(local("draw a random number"))?;
        let climb = if as_root { self.sudo.climb(&self.at, &self.user, self.is_root, &token)? } else { None };
        let script = quoted(&format!("echo {}; {command}", self.marker));
        let script = match &climb {
            // In place of the login shell, which would have its own opinion of how the command ended.
            None => format!("exec /bin/sh -c {script}"),
            // sh says by exit code 127 that there is no sudo, and every login shell has sh.
            Some(Climb { prefix, .. }) => {
                format!("exec /bin/sh -c {}", quoted(&format!("exec {prefix} /bin/sh -c {script}")))
            }
        };
        let Starting { mut reader, writer, ending } = self.start(&script, climb.as_ref())?;
        let begun = self.await_marker(&reader, patience)?;
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

    /// Finds out who we are there, and that commands do what they say. What follows in the same shell goes on.
    fn introduce(&mut self, then: &str, patience: Duration) -> Result<Pipes, SshError> {
        let who = format!("echo \"$(id -u) $(id -un)\"; {then}");
        let pipes = self.pipes_within(&who, false, patience)?;
        let late = || SshError::TimedOut { at: self.at.clone(), step: "say who we are there" };
        let who = first_line(&pipes.reader).ok_or_else(late)?;
        let (number, user) = who.split_once(' ').unwrap_or((&who, ""));
        let Ok(number) = number.parse::<u32>() else {
            let ended = pipes.finish(&mut io::empty())?;
            let stdout = [who.as_bytes(), &ended.stdout].concat();
            return Err(no_shell(&self.at, &Output { stdout, ..ended }));
        };
        self.is_root = number == 0;
        if user.is_empty() { "the user" } else { user }.clone_into(&mut self.user);
        Ok(pipes)
    }

    fn start(&self, script: &str, climb: Option<&Climb<'_>>) -> Result<Starting, SshError> {
        let slot = Slot::take(&self.line);
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
        let ending = Ending { child, stderr: log, listener, gave_password, at: self.at.clone(), slot };
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
    fn await_marker(&self, mut reader: &PipeReader, patience: Duration) -> Result<Begun, SshError> {
        let deadline = Instant::now() + patience;
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
        // It may go on like this for ever.
        Err(no_shell(&self.at, &Output { code: None, stdout: noise, stderr: Vec::new() }))
    }
}

/// Reads one line and no further: what follows is for somebody else. Without a line end it is what there is; `None` when
/// it does not come in time.
pub fn first_line(mut reader: &PipeReader) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LONGEST_LINE {
        if !ready(reader, deadline.saturating_duration_since(Instant::now())) {
            return None;
        }
        if !matches!(reader.read(&mut byte), Ok(1)) || byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&line).into_owned())
}

enum Begun {
    Yes,
    Not(Vec<u8>),
}

fn no_shell(at: &str, ended: &Output) -> SshError {
    let said =
        [&ended.stdout[..], &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let lines = said.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.is_empty());
    let said = lines.take(3).collect::<Vec<_>>().join("; ");
    SshError::NoShell { at: at.to_owned(), said: said.chars().take(300).collect() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_one_word_of_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
