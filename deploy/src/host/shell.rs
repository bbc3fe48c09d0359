//! A host whose agent has gone: `rcompose` there, for a project whose release serves, and what is left to take away.

use std::io::{self, BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;

use engine::error::{Error, Result};
use engine::paths::DEFAULT_STATE;

use super::{Host, Line, Place};
use crate::ssh::{self, Output, Pipes, Session};

/// A host whose agent has gone, so that a server which allows one session at a time has room for another command.
#[derive(Debug)]
pub struct Shell {
    place: Place,
    line: ShellLine,
}

#[derive(Debug)]
enum ShellLine {
    Ssh { session: Arc<Session>, program: String },
    Local,
}

// === impl Host ===

impl Host {
    /// Lets the agent go.
    pub fn into_shell(self) -> Shell {
        let Self { place, channel, heart, line, .. } = self;
        drop((heart, channel));
        let line = match line {
            Line::Ssh { session, program, parting } => {
                drop(parting);
                ShellLine::Ssh { session, program }
            }
            Line::Local(parting) => {
                drop(parting);
                ShellLine::Local
            }
        };
        Shell { place, line }
    }
}

// === impl Shell ===

impl Shell {
    fn name(&self) -> &str {
        self.place.name()
    }

    /// Runs it with this process's own input and output. The code it ends with.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn compose(&self, project: &str, words: &[String]) -> Result<u8> {
        let all = self.line_of(project, words);
        let mut command = match &self.line {
            ShellLine::Ssh { session, program } => {
                session.terminal(&shell(program, &all)).map_err(|error| error.on(self.name()))?
            }
            ShellLine::Local => self.command(&all)?,
        };
        let status = command.status().map_err(|error| self.not_run(error))?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }

    /// Runs it without input. `take` gets the lines that it writes as they come; they are not in what is returned.
    ///
    /// # Errors
    /// When it cannot be started, or the connection is lost.
    pub fn compose_told(
        &self,
        project: &str,
        words: &[String],
        take: &mut dyn FnMut(&str),
    ) -> Result<Output> {
        let all = self.line_of(project, words);
        match &self.line {
            ShellLine::Ssh { session, program } => {
                let on = |error: ssh::SshError| error.on(self.name());
                let Pipes { reader, writer, ending } =
                    session.pipes(&shell(program, &all), true).map_err(on)?;
                drop(writer);
                read_lines(reader, take).map_err(|error| self.not_run(error))?;
                ending.wait().map_err(on)
            }
            ShellLine::Local => {
                let mut command = self.command(&all)?;
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let mut child = command.spawn().map_err(|error| self.not_run(error))?;
                let stderr = child.stderr.take().map(|mut stderr| {
                    std::thread::spawn(move || {
                        let mut bytes = Vec::new();
                        // What cannot be read any more shows in how the program ends.
                        let _ = stderr.read_to_end(&mut bytes);
                        bytes
                    })
                });
                if let Some(stdout) = child.stdout.take() {
                    read_lines(stdout, take).map_err(|error| self.not_run(error))?;
                }
                let status = child.wait().map_err(|error| self.not_run(error))?;
                let stderr = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
                Ok(Output { code: status.code(), stdout: Vec::new(), stderr })
            }
        }
    }

    /// Takes away what bringing the agent left in the user's own directory.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn forget(&self) -> Result<()> {
        let ShellLine::Ssh { session, .. } = &self.line else { return Ok(()) };
        // What else is in there is somebody else's.
        let command = "(cd && rmdir .cache/rdeploy && rmdir .cache) 2>/dev/null || :";
        session.run(command, b"").map_err(|error| error.on(self.name())).map(drop)
    }

    fn line_of(&self, project: &str, words: &[String]) -> Vec<String> {
        let root = self.place.root.clone().unwrap_or_else(|| DEFAULT_STATE.to_owned());
        let model = format!("{root}/deploy/{project}/compose.json");
        let mut all: Vec<String> =
            ["rdeploy", "agent", "compose", "--", "--root", &root, "-p", project, "-f", &model]
                .map(str::to_owned)
                .to_vec();
        all.extend(words.iter().cloned());
        all
    }

    fn command(&self, all: &[String]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().map_err(|error| self.not_run(error))?);
        command.args(all);
        Ok(command)
    }

    fn not_run(&self, error: io::Error) -> Error {
        Error::failed(format!("host {}: run rcompose", self.name()), error)
    }
}

fn shell(program: &String, all: &[String]) -> String {
    let words: Vec<String> = std::iter::once(program).chain(all).map(|word| ssh::quoted(word)).collect();
    words.join(" ")
}

fn read_lines(from: impl Read, take: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        take(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        line.clear();
    }
    Ok(())
}
