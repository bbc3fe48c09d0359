//! A remote command: what goes in and comes out, and how it ends.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::failure::SshError;
use super::line::{Slot, runtime};
use super::log::Log;
use super::{Secret, diagnosis};

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
    pub(super) child: openssh::Child<Arc<openssh::Session>>,
    pub(super) stderr: Log,
    pub(super) listener: Option<JoinHandle<()>>,
    pub(super) gave_password: Arc<OnceLock<()>>,
    pub(super) at: String,
    pub(super) slot: Slot,
}

/// A command that is about to run. While sudo may ask, the way in is shared with the one who answers.
pub(super) struct Starting {
    pub(super) reader: PipeReader,
    pub(super) writer: Arc<Mutex<Option<PipeWriter>>>,
    pub(super) ending: Ending,
}

/// What to do when sudo asks.
pub(super) struct Asked {
    pub(super) prompt: String,
    pub(super) password: Secret,
    pub(super) writer: Arc<Mutex<Option<PipeWriter>>>,
    pub(super) gave: Arc<OnceLock<()>>,
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
            Err(openssh::Error::RemoteProcessTerminated) if !self.slot.line().goes_down() => None,
            Err(error) => return Err(self.slot.line().failure(&self.at, &error)),
        };
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        Ok(Output { code, stdout: Vec::new(), stderr: self.stderr.text().into_bytes() })
    }

    /// Waits until the command has ended, but no longer than this, and whatever becomes of it.
    pub fn wait_within(self, limit: Duration) {
        if let Ok(runtime) = runtime() {
            let _ = runtime.block_on(async { tokio::time::timeout(limit, self.child.wait()).await });
        }
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

/// Reads what a command says until it says no more, and gives sudo the password when it asks for it.
pub(super) fn listen(mut said: PipeReader, log: &Log, asked: Option<&Asked>) {
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

pub(super) fn local(step: &'static str) -> impl Fn(io::Error) -> SshError {
    move |source| SshError::Local { step, source }
}
