//! A host as a client sees it: an agent at the other end of a connection.

use std::process::{Child, Command, Stdio};

use engine::error::{Error, Result};
use engine::paths::DEFAULT_STATE;

use crate::message::{Answer, Event, Hello, Outcome, PROTOCOL, Request};
use crate::protocol::{Channel, ChannelError, Heart};

/// A host with an agent that listens.
pub struct Host {
    name: String,
    channel: Channel,
    hello: Hello,
    root: Option<String>,
    _heart: Heart,
    line: Line,
}

/// What carries the connection and ends with it.
pub(crate) enum Line {
    /// An agent that is a child of this process. It ends when its standard input does.
    Local(#[expect(dead_code, reason = "it lives as long as this does")] Child),
}

/// The address that means this machine: `local`, or `local:DIRECTORY` for an engine with another root.
pub const LOCAL: &str = "local";

// === impl Host ===

impl Host {
    /// An agent on this very machine, without SSH.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn local(name: &str, root: Option<&str>) -> Result<Self> {
        let failed = |error| Error::failed("start an agent on this machine", error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["rdeploy", "agent"]);
        command.args(root.iter().flat_map(|root| ["--root", root]));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::conflict("the agent has no pipes"));
        };
        Self::greet(name.to_owned(), root, Channel::new(stdout, stdin), Line::Local(child))
    }

    fn greet(name: String, root: Option<&str>, mut channel: Channel, line: Line) -> Result<Self> {
        let hello: Hello = channel.receive().map_err(|error| lost(&name, error))?;
        if hello.protocol != PROTOCOL {
            return Err(Error::conflict(format!(
                "host {name}: the agent there speaks protocol {}, and this program {PROTOCOL}",
                hello.protocol
            )));
        }
        let heart = channel.heart().map_err(|error| Error::failed("keep the connection alive", error))?;
        Ok(Self { name, channel, hello, root: root.map(str::to_owned), _heart: heart, line })
    }

    /// As it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its agent said first.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Bytes sent to it so far.
    pub fn sent(&self) -> u64 {
        self.channel.sent()
    }

    /// The channel, for a conversation of another kind. Whoever takes it puts it back as it was: at rest.
    pub fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// Runs `rcompose` on the host for a project whose release serves there, with this process's own input and output.
    /// The code it ends with.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn compose(&self, project: &str, words: &[String]) -> Result<u8> {
        let root = self.root.clone().unwrap_or_else(|| DEFAULT_STATE.to_owned());
        let model = format!("{root}/deploy/{project}/compose.json");
        let mut all: Vec<String> =
            ["rcompose", "--root", &root, "-p", project, "-f", &model].map(str::to_owned).to_vec();
        all.extend(words.iter().cloned());
        let failed = |error| Error::failed(format!("host {}: run rcompose", self.name), error);
        let mut command = match &self.line {
            Line::Local(_) => {
                let mut command = Command::new(std::env::current_exe().map_err(failed)?);
                command.args(&all);
                command
            }
        };
        let status = command.status().map_err(failed)?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }

    /// Asks for something and waits until it is done.
    ///
    /// # Errors
    /// When the host says why not, or the connection is lost.
    pub fn ask(&mut self, request: &Request, told: &dyn Fn(Event)) -> Result<Outcome> {
        self.say(request)?;
        self.answer(told)
    }

    /// Asks for something that goes on before it is answered.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn say(&mut self, request: &Request) -> Result<()> {
        self.channel.send(request).map_err(|error| lost(&self.name, error))
    }

    /// The answer to what was said.
    ///
    /// # Errors
    /// When the host says why not, or the connection is lost.
    pub fn answer(&mut self, told: &dyn Fn(Event)) -> Result<Outcome> {
        loop {
            match self.channel.receive::<Answer>().map_err(|error| lost(&self.name, error))? {
                Answer::Event(event) => told(event),
                Answer::Done(outcome) => return Ok(outcome),
                Answer::Failed(failure) => return Err(failure.into()),
            }
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}

fn lost(name: &str, error: ChannelError) -> Error {
    Error::failed(format!("host {name}: the connection to the agent was lost"), error)
        .with_hint("what was not finished goes back by itself there within seconds")
}
