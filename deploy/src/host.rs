//! A host as a client sees it: an agent at the other end of a connection.

mod shell;

use std::cell::OnceCell;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use engine::error::{Error, Result};
use engine::paths::DEFAULT_STATE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::agent;
use crate::commit;
use crate::executable::{self, Begun, Executable, Executables, begun};
use crate::message::{Answer, Event, Hello, Outcome, PROTOCOL, Request, confused};
use crate::protocol::{Channel, ChannelError, Heart};
use crate::release::{self, Entry};
use crate::ssh::{self, Access, Address, Door, Ending, Pipes, Session, SshError};

/// A host with an agent that listens.
pub struct Host {
    place: Place,
    channel: Channel,
    hello: Hello,
    heart: Option<Heart>,
    line: Line,
}

/// Where a host is, and how it is reached. It holds the secrets that this takes; only a process that is to reach the
/// host is told, over a pipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Place {
    name: String,
    root: Option<String>,
    way: Way,
}

/// How a host is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Way {
    Local,
    Ssh(Address, Box<Access>, Executables),
}

/// What carries the connection and ends with it.
enum Line {
    /// An agent over SSH.
    Ssh {
        /// The connection, for further commands.
        session: Arc<Session>,
        /// Where the executable is there.
        program: String,
        /// The end of the agent.
        parting: Parting,
    },
    /// An agent that is a child of this process.
    Local(Parting),
}

/// The end of an agent that nobody talks to any more. Dropped, it is waited for: the agent then gives up what it
/// holds, and whoever comes after this process finds the project free.
enum Parting {
    Ssh(Option<Box<Ending>>),
    Local(Child),
}

/// A socket of this machine that a host reaches.
#[derive(Debug)]
pub struct Lent {
    there: String,
    _door: Option<Door>,
}

/// How long an agent that was let go may take to end before nobody waits for it.
const PARTING: Duration = Duration::from_secs(2);

/// The address that means this machine: `local`, or `local:DIRECTORY` for an engine with another root.
pub const LOCAL: &str = "local";

/// Whether a host is this machine: `local`, or `local:ROOT`.
pub fn is_local(host: &str) -> bool {
    host.strip_prefix(LOCAL).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

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
        // A host has logins of its own, this one too.
        command.env_remove("DOCKER_CONFIG");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::conflict("the agent has no pipes"));
        };
        let place = Place { name: name.to_owned(), root: root.map(str::to_owned), way: Way::Local };
        Self::greet(place, Channel::new(stdout, stdin), Line::Local(Parting::Local(child)))
    }

    /// An agent at the other end of an SSH connection. What is not there yet is brought there: the executable
    /// for its kind of machine, under the digest of its contents.
    ///
    /// # Errors
    /// When the host is not reached or the agent cannot be started there.
    pub fn over_ssh(
        address: &Address,
        access: &Access,
        root: Option<&str>,
        executables: &Executables,
    ) -> Result<Self> {
        let name = address.to_string();
        let state = root.unwrap_or(DEFAULT_STATE);
        // They are large, and are read while the connection is made.
        let reading = thread::Builder::new().name("digest".into()).spawn(agent::executable_digest);
        drop(reading.map_err(|error| Error::failed("start to read this executable", error))?);
        let read = OnceCell::new();
        let start = || {
            let all = executables.on(state).map_err(executable::unreadable)?;
            Ok(executables.start(read.get_or_init(|| all), state, false))
        };
        let late = || SshError::TimedOut { at: name.clone(), step: "start the agent" }.on(&name);
        let (session, mut pipes) =
            Session::open_as_root(address, access, &start).map_err(|error| error.on(&name))?;
        let all = read.into_inner().unwrap_or_default();
        let (place, is_new) = match begun(&pipes.reader).ok_or_else(late)? {
            Begun::Here(place) => (place, false),
            Begun::Absent(machine) => {
                let place = executables.place_for(&machine, &name)?;
                let executable = all.get(place).ok_or_else(confused)?;
                executable.bring(&session, &name)?;
                let start = executables.start(&all, state, true);
                pipes = session.pipes(&start, true).map_err(|error| error.on(&name))?;
                if !matches!(begun(&pipes.reader).ok_or_else(late)?, Begun::Here(_)) {
                    return Err(not_executed(&name, &executable.there, &pipes.ending.said()));
                }
                (place, true)
            }
        };
        let executable = all.get(place).ok_or_else(confused)?;
        let Pipes { reader, writer, ending } = pipes;
        let program = executable.there.clone();
        let line =
            Line::Ssh { session: Arc::new(session), program, parting: Parting::Ssh(Some(Box::new(ending))) };
        let way = Way::Ssh(address.clone(), Box::new(access.clone()), executables.clone());
        let place = Place { name, root: root.map(str::to_owned), way };
        let host = Self::greet(place, Channel::new(reader, writer), line)?;
        if is_new {
            host.expect_whole(executable)?;
        }
        Ok(host)
    }

    /// Checks what was brought against what was sent.
    fn expect_whole(&self, executable: &Executable) -> Result<()> {
        if self.hello.executable.as_ref() == Some(&executable.digest) {
            return Ok(());
        }
        if let Line::Ssh { session, program, .. } = &self.line {
            // Whether or not it can be taken away, it is not used.
            let _ = session.run_as_root(&format!("rm -f {}", ssh::quoted(program)), b"");
        }
        Err(Error::conflict(format!(
            "host {}: the agent that arrived is not the one that was sent",
            self.name()
        ))
        .with_hint("try again; the network or the disk of the host may be at fault"))
    }

    fn greet(place: Place, mut channel: Channel, line: Line) -> Result<Self> {
        let name = &place.name;
        let hello: Hello = channel.receive().map_err(|error| lost(name, error))?;
        if hello.protocol != PROTOCOL {
            return Err(Error::conflict(format!(
                "host {name}: the agent there speaks protocol {}, and this program {PROTOCOL}",
                hello.protocol
            ))
            .with_hint("`executables:` names a program of another version for this host: name the one of this version"));
        }
        let heart = channel.heart().map_err(|error| Error::failed("keep the connection alive", error))?;
        Ok(Self { place, channel, hello, heart: Some(heart), line })
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// As it was named.
    pub fn name(&self) -> &str {
        &self.place.name
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

    /// Lets the agent go, which gives up what it holds. It is not there for anything any more.
    pub fn hang_up(&mut self) {
        self.heart = None;
        self.channel = Channel::new(io::empty(), io::sink());
    }

    /// Lets the host reach a socket of this machine, as long as the result lives.
    ///
    /// # Errors
    /// When its SSH server does not allow it.
    pub fn lend(&self, socket: &Path) -> Result<Lent> {
        if !socket.exists() {
            return Err(Error::not_found(format!("there is no SSH agent at {}", socket.display())));
        }
        match &self.line {
            Line::Local(_) => Ok(Lent { there: socket.to_string_lossy().into_owned(), _door: None }),
            Line::Ssh { session, .. } => {
                let door = Door::open(session.clone(), socket).map_err(|error| error.on(self.name()))?;
                Ok(Lent { there: door.there().to_owned(), _door: Some(door) })
            }
        }
    }

    /// Expects that a release of a project serves there.
    ///
    /// # Errors
    /// When none does, or the host cannot tell.
    pub fn expect_served(&mut self, project: &str) -> Result<()> {
        let request = Request::History { project: project.to_owned() };
        let Outcome::History(entries) = self.ask(&request, &|_| {})? else { return Err(confused()) };
        self.expect_some(project, &entries)
    }

    fn expect_some(&self, project: &str, entries: &[Entry]) -> Result<()> {
        if release::before(entries, 0).is_some() {
            return Ok(());
        }
        Err(Error::not_found(format!(
            "host {}: nothing of the project {project} is deployed there",
            self.name()
        ))
        .with_hint("`rdeploy up` deploys it; another project is meant by --project-name"))
    }

    /// As [`Host::expect_served`], for who is about to do something to the project beside this connection: that is put down
    /// there, in the same round trip.
    ///
    /// # Errors
    /// As [`Host::expect_served`].
    pub fn expect_served_for(&mut self, project: &str, what: &str, told: &dyn Fn(Event)) -> Result<()> {
        let (project, author) = (project.to_owned(), commit::author());
        self.say(&Request::Note { project: project.clone(), author, what: what.to_owned() })?;
        self.say(&Request::History { project: project.clone() })?;
        self.answer(told)?;
        let Outcome::History(entries) = self.answer(told)? else { return Err(confused()) };
        self.expect_some(&project, &entries)
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
        self.channel.send(request).map_err(|error| lost(self.name(), error))
    }

    /// The answer to what was said.
    ///
    /// # Errors
    /// When the host says why not, or the connection is lost.
    pub fn answer(&mut self, told: &dyn Fn(Event)) -> Result<Outcome> {
        loop {
            match self.channel.receive::<Answer>().map_err(|error| lost(self.name(), error))? {
                Answer::Event(event) => told(event),
                Answer::Done(outcome) => return Ok(outcome),
                Answer::Failed(failure) => return Err(failure.into()),
            }
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.place.name).finish_non_exhaustive()
    }
}

// === impl Parting ===

impl Drop for Parting {
    fn drop(&mut self) {
        match self {
            Self::Ssh(ending) => {
                if let Some(ending) = ending.take() {
                    ending.wait_within(PARTING);
                }
            }
            Self::Local(child) => wait_within(child, PARTING),
        }
    }
}

/// Whatever happens to it, there is nobody to tell.
fn wait_within(child: &mut Child, limit: Duration) {
    let Some(pid) = Pid::from_raw(child.id().cast_signed()) else { return };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    let Ok(limit) = Timespec::try_from(limit) else { return };
    if let Ok(1) = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
        let _ = child.wait();
    }
}

// === impl Lent ===

impl Lent {
    /// Where it is on the host.
    pub fn there(&self) -> &str {
        &self.there
    }
}

// === impl Place ===

impl Place {
    /// The host as it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A new connection to the host.
    ///
    /// # Errors
    /// When it is not reached.
    pub fn reach(&self) -> Result<Host> {
        match &self.way {
            Way::Local => Host::local(&self.name, self.root.as_deref()),
            Way::Ssh(address, access, executables) => {
                Host::over_ssh(address, access, self.root.as_deref(), executables)
            }
        }
    }
}

fn not_executed(name: &str, there: &str, said: &str) -> Error {
    let said = Some(said.trim()).filter(|said| !said.is_empty());
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    Error::conflict(format!("host {name}: the agent cannot be executed at {there}{said}"))
        .with_hint("is that file system mounted with noexec? --remote-root chooses another place")
}

fn lost(name: &str, error: ChannelError) -> Error {
    Error::failed(format!("host {name}: the connection to the agent was lost"), error)
        .with_hint("what was not finished goes back by itself there within seconds")
}
