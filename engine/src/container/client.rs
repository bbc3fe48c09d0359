//! The other end of a monitor: what every command uses to start, watch and command a container.
//!
//! Calls block. Whoever waits for several containers, or wants to stop waiting, keeps a [`Canceller`].

mod exec;
mod pump;
mod spawn;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::container::plan::TerminalSize;
use crate::container::protocol::{Arrival, Frame, Reply, Request, Wire};
use crate::container::ready::Ready;
use crate::container::spec::{Grace, NetworkAttachment};
use crate::container::state::{HealthStatus, State};
use crate::container::stdio::{Stream, Streams};
use crate::error::{Error, Kind, Result};
use crate::id::ContainerId;
use crate::paths::Root;
use crate::signal::Signal;

pub use crate::container::protocol::{ExitNews, StopReason};
pub use crate::container::terminal::DetachKeys;
pub use exec::ExecIo;
pub use pump::{AttachEnd, AttachOptions};
pub(crate) use spawn::program;
pub use spawn::{connect, kill_monitor, monitor_program, spawn_monitor, spawn_monitor_ahead};

/// A conversation with the monitor of one container.
#[derive(Debug)]
pub struct Connection {
    root: Root,
    id: ContainerId,
    wire: Wire,
    inbox: VecDeque<News>,
    asked_to_start: bool,
    /// Somebody else's monitor, which may be about to end.
    joined: bool,
    ended: bool,
    subscribed: Option<Streams>,
    warnings: Vec<String>,
}

/// Ends a wait from elsewhere: the waiting call returns with an error.
#[derive(Debug)]
pub struct Canceller(OwnedFd);

/// What waiting for health came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthVerdict {
    /// A probe succeeded.
    Healthy,
    /// As many probes failed in a row as the check allows.
    Unhealthy,
    /// It has no health check.
    Unchecked,
    /// It ended.
    Exited(i32),
    /// The time was over.
    TimedOut,
}

/// What arrived.
#[derive(Debug)]
enum News {
    Reply(Reply),
    Output(Stream, Vec<u8>),
}

// === impl Connection ===

impl Connection {
    fn new(root: &Root, id: &ContainerId, socket: OwnedFd) -> Self {
        Self {
            root: root.clone(),
            id: id.clone(),
            wire: Wire::new(socket),
            inbox: VecDeque::new(),
            asked_to_start: false,
            joined: false,
            ended: false,
            subscribed: None,
            warnings: Vec::new(),
        }
    }

    /// The container.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Asks for the container's output (and announces input). Before [`Self::started`] nothing is missed.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn subscribe(&mut self, streams: Streams) -> Result<()> {
        self.subscribed = Some(streams);
        if self.asked_to_start {
            return self.ask(&Request::Attach(streams));
        }
        self.asked_to_start = true;
        self.send(&Request::Start { attach: Some(streams) })
    }

    /// Waits until the container's program is being executed.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn started(&mut self) -> Result<()> {
        if !self.asked_to_start {
            self.asked_to_start = true;
            self.send(&Request::Start { attach: None })?;
        }
        let warnings = self.expect("start", |reply| match reply {
            Reply::Started { warnings, .. } => Some(std::mem::take(warnings)),
            _ => None,
        });
        let warnings = match warnings {
            Err(_) if self.joined && self.ended => return self.start_anew(),
            warnings => warnings?,
        };
        self.warnings = warnings;
        Ok(())
    }

    /// The monitor that another command had started ended before it heard us.
    fn start_anew(&mut self) -> Result<()> {
        let mut anew = spawn_monitor(&self.root, &self.id)?;
        if let Some(streams) = self.subscribed {
            anew.subscribe(streams)?;
        }
        *self = anew;
        self.started()
    }

    /// What was not as asked when it started, but no reason to fail.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Ends waits on this connection from elsewhere.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn canceller(&self) -> Result<Canceller> {
        let socket = self.wire.socket().try_clone_to_owned();
        socket.map(Canceller).map_err(|error| self.broken("duplicate the connection to", error))
    }

    /// Waits until the container ends, and says how. An end that its restart policy undoes counts.
    ///
    /// # Errors
    /// When its monitor was killed.
    pub fn wait_exit(&mut self) -> Result<i32> {
        self.wait(false).map(|exit| exit.code)
    }

    /// Waits until the container ends and will not start again by itself.
    ///
    /// # Errors
    /// When its monitor was killed.
    pub fn wait_last_exit(&mut self) -> Result<i32> {
        self.wait(true).map(|exit| exit.code)
    }

    /// Waits until the container is healthy; one without a health check is at once. Its probes run eagerly
    /// meanwhile.
    ///
    /// # Errors
    /// When it becomes unhealthy or ends, or its monitor was killed.
    pub fn wait_healthy(&mut self, limit: Option<Duration>) -> Result<()> {
        let id = self.id.short().to_owned();
        match self.health(limit)? {
            HealthVerdict::Healthy | HealthVerdict::Unchecked => Ok(()),
            HealthVerdict::Unhealthy => Err(Error::new(Kind::Failed, format!("container {id} is unhealthy"))
                .with_hint(format!(
                    "what its probes say: rengine inspect -f '{{{{json .State.Health}}}}' {id}"
                ))),
            HealthVerdict::Exited(code) => Err(Error::new(
                Kind::Failed,
                format!("container {id} exited with {code} before it was healthy"),
            )
            .with_hint(format!("what it said: rengine logs {id}"))),
            HealthVerdict::TimedOut => {
                Err(Error::new(Kind::Failed, format!("container {id} is not healthy yet")))
            }
        }
    }

    /// What the container's probes say, as soon as they say it: waits for a verdict as long as this. Its probes run
    /// eagerly meanwhile.
    ///
    /// # Errors
    /// When its monitor was killed.
    pub fn health(&mut self, limit: Option<Duration>) -> Result<HealthVerdict> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        self.send(&Request::WatchHealth)?;
        loop {
            let reply = match self.next_reply(deadline) {
                Ok(Some(reply)) => reply,
                Ok(None) => return Ok(HealthVerdict::TimedOut),
                Err(error) => return self.exit_on_record().map(HealthVerdict::Exited).ok_or(error),
            };
            match reply {
                Reply::Health(None) => return Ok(HealthVerdict::Unchecked),
                Reply::Health(Some(HealthStatus::Healthy)) => return Ok(HealthVerdict::Healthy),
                Reply::Health(Some(HealthStatus::Unhealthy)) => return Ok(HealthVerdict::Unhealthy),
                Reply::Exited(exit) if !exit.again => return Ok(HealthVerdict::Exited(exit.code)),
                Reply::Refused(refusal) => return Err(refusal.into()),
                _ => {}
            }
        }
    }

    /// Asks the container to end, kills it when the grace is over, and returns when it has ended. `None` is what
    /// the container itself says.
    ///
    /// # Errors
    /// When its monitor was killed.
    pub fn stop(&mut self, signal: Option<Signal>, grace: Option<Grace>, reason: StopReason) -> Result<()> {
        match self.ask(&Request::Stop { signal, grace, reason }) {
            // A monitor that ended meanwhile has written down that the container has, too.
            Err(error) if self.exit_on_record().is_none() => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends the container's first process a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self, signal: Signal) -> Result<()> {
        self.ask(&Request::Kill(signal))
    }

    /// Makes every process of the container stand still.
    ///
    /// # Errors
    /// When it is not running or stands still already.
    pub fn pause(&mut self) -> Result<()> {
        self.ask(&Request::Pause)
    }

    /// Lets the container go on.
    ///
    /// # Errors
    /// When it does not stand still.
    pub fn unpause(&mut self) -> Result<()> {
        self.ask(&Request::Resume)
    }

    /// Gives the container's terminal another size.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn resize(&mut self, size: TerminalSize) -> Result<()> {
        self.send(&Request::Resize(size.rows, size.columns))
    }

    /// Tells the monitor that the container's record was rewritten. Returns what does not hold on this kernel.
    ///
    /// # Errors
    /// When the new limits cannot be set.
    pub fn reload(&mut self) -> Result<Vec<String>> {
        self.send(&Request::Reload)?;
        self.expect("answer", |reply| match reply {
            Reply::Reloaded { warnings } => Some(std::mem::take(warnings)),
            _ => None,
        })
    }

    /// Attaches the container to one more network.
    ///
    /// # Errors
    /// When it is attached already, or the network does not have what is asked for. It is as before then.
    pub fn connect_network(&mut self, attachment: NetworkAttachment) -> Result<()> {
        self.ask(&Request::Connect(attachment))
    }

    /// Detaches the container from a network.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn disconnect_network(&mut self, network: &str) -> Result<()> {
        self.ask(&Request::Disconnect(network.to_owned()))
    }

    /// Asks to be told of every exit without waiting for one; [`Self::exits`] has those that came.
    pub(crate) fn ask_exits(&mut self) -> Result<()> {
        self.send(&Request::Wait { last: true })?;
        self.ask_next_exit()
    }

    /// The exits that came, and whether no more will: the last one came, or the monitor was killed. Never waits.
    pub(crate) fn exits(&mut self) -> (Vec<ExitNews>, bool) {
        let is_gone = self.take_in().is_err();
        let mut exits = Vec::new();
        loop {
            match self.arrived_news() {
                Ok(Some(News::Reply(Reply::Exited(exit)))) => exits.push(exit),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return (exits, true),
            }
        }
        let is_over = is_gone || exits.iter().any(|exit| !exit.again);
        // Each request has one answer.
        let is_deaf = !is_over && !exits.is_empty() && self.ask_next_exit().is_err();
        (exits, is_over || is_deaf)
    }

    fn ask_next_exit(&mut self) -> Result<()> {
        self.send(&Request::Wait { last: false })?;
        self.wire.flush().map_err(|error| self.broken("send a request to", error))
    }

    /// Readable when there is something to hear.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wire.socket()
    }

    /// Whether the monitor answers within this time. One that ends meanwhile does so in its own way.
    pub(crate) fn answers(&mut self, limit: Duration) -> Result<bool> {
        self.send(&Request::Ping)?;
        // A monitor from before there were pings refuses, which is an answer too.
        self.next_reply(Some(Instant::now() + limit)).map(|reply| reply.is_some())
    }

    fn wait(&mut self, last: bool) -> Result<ExitNews> {
        self.send(&Request::Wait { last })?;
        loop {
            match self.next_reply(None) {
                Ok(Some(Reply::Exited(exit))) if !last || !exit.again => return Ok(exit),
                Ok(Some(Reply::Refused(refusal))) => return Err(refusal.into()),
                Ok(_) => {}
                Err(error) => {
                    let recorded = |code| ExitNews { code, oom_killed: false, again: false };
                    return self.exit_on_record().map(recorded).ok_or(error);
                }
            }
        }
    }

    /// The exit code in the container's state, when it has ended for good.
    fn exit_on_record(&self) -> Option<i32> {
        match State::read(&self.root, &self.id) {
            Ok(Some(State::Exited(exit))) => Some(exit.code),
            _ => None,
        }
    }

    /// Sends a request and waits until it is done.
    fn ask(&mut self, request: &Request) -> Result<()> {
        self.send(request)?;
        self.expect("answer", |reply| matches!(reply, Reply::Done).then_some(()))
    }

    /// Waits for one reply and keeps all other news for later.
    fn expect<T>(&mut self, verb: &str, mut wanted: impl FnMut(&mut Reply) -> Option<T>) -> Result<T> {
        let mut kept = VecDeque::new();
        let found = loop {
            match self.next_news(None) {
                Ok(Some(News::Reply(Reply::Refused(refusal)))) => break Err(refusal.into()),
                Ok(Some(News::Reply(mut reply))) => match wanted(&mut reply) {
                    Some(found) => break Ok(found),
                    None => kept.push_back(News::Reply(reply)),
                },
                Ok(Some(output)) => kept.push_back(output),
                Ok(None) => break Err(self.broken(verb, io::ErrorKind::TimedOut.into())),
                Err(error) => break Err(error),
            }
        };
        kept.append(&mut self.inbox);
        self.inbox = kept;
        found
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        self.wire.send(request).map_err(|error| self.broken("send a request to", error))
    }

    /// The next reply; output before it is dropped. `None` when the deadline passed.
    fn next_reply(&mut self, deadline: Option<Instant>) -> Result<Option<Reply>> {
        loop {
            match self.next_news(deadline)? {
                Some(News::Reply(reply)) => return Ok(Some(reply)),
                Some(News::Output(..)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next thing that arrives. `None` when the deadline passed.
    fn next_news(&mut self, deadline: Option<Instant>) -> Result<Option<News>> {
        loop {
            if let Some(news) = self.arrived_news()? {
                return Ok(Some(news));
            }
            self.flush()?;
            let mut ready = Ready::new();
            ready.add((), self.wire.socket(), PollFlags::IN | self.wire.sending());
            let happened = ready.wait(deadline).map_err(|error| self.broken("wait for", error))?;
            if happened.is_empty() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(None);
            }
            self.take_in()?;
        }
    }

    /// News that is here already.
    fn arrived_news(&mut self) -> Result<Option<News>> {
        if let Some(news) = self.inbox.pop_front() {
            return Ok(Some(news));
        }
        loop {
            let frame = self.wire.next().map_err(|error| self.broken("understand", error))?;
            return match frame {
                None => Ok(None),
                Some(Frame::Message(bytes)) => {
                    let reply = Frame::parse(&bytes).map_err(|error| self.broken("understand", error))?;
                    Ok(Some(News::Reply(reply)))
                }
                Some(Frame::Output(stream, bytes)) => Ok(Some(News::Output(stream, bytes))),
                Some(Frame::Input(_)) => continue,
            };
        }
    }

    /// Sends what the monitor takes now. One that is gone takes nothing, but what it said last is still to be read.
    fn flush(&mut self) -> Result<()> {
        match self.wire.flush() {
            Err(error) if is_gone(&error) => Ok(()),
            result => result.map_err(|error| self.broken("send a request to", error)),
        }
    }

    fn take_in(&mut self) -> Result<()> {
        match self.wire.receive() {
            Ok(Arrival::End) => {
                self.ended = true;
                Err(self.lost())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.broken("hear", error)),
        }
    }

    fn broken(&self, verb: &str, error: io::Error) -> Error {
        if is_gone(&error) {
            return self.lost();
        }
        Error::failed(format!("{verb} the monitor of container {}", self.id.short()), error)
    }

    fn lost(&self) -> Error {
        Error::conflict(format!("the monitor of container {} has ended", self.id.short()))
            .with_hint("the next command finds out what became of the container: rengine ps -a")
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

// === impl Canceller ===

impl Canceller {
    /// Ends the wait.
    pub fn cancel(&self) {
        // A connection that is closed already waits for nothing.
        let _ = rustix::net::shutdown(self.0.as_fd(), rustix::net::Shutdown::Both);
    }
}
