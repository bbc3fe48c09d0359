//! The monitor's door: commands that connect, what they ask, and what they get to see.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::container::monitor::{Monitor, Phase, Stopping};
use crate::container::plan::TerminalSize;
use crate::container::protocol::{Arrival, ExitNews, Frame, Refusal, Reply, Request, StopReason, Wire};
use crate::container::ready::Ready;
use crate::container::record::{ContainerRecord, Purpose};
use crate::container::spec::Grace;
use crate::container::state::{Event, HealthStatus, State};
use crate::container::stdio::{Stream, Streams};
use crate::error::Error;
use crate::quantity::Span;
use crate::signal::Signal;

/// A connected command.
pub(super) struct Client {
    pub(super) number: u64,
    wire: Wire,
    attached: Option<Streams>,
    /// Waits for an end: any, or only the last one.
    waits: Vec<WaitFor>,
    watches_health: bool,
    /// Asked for the end, and is answered after it.
    stops: u32,
    progress: Instant,
    gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitFor {
    AnyEnd,
    LastEnd,
}

/// A command this far behind slows the container down…
const BEHIND: usize = 256 << 10;
/// …but only as long as it reads at all: one that took nothing for this long sees no more.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a container may take to end when nobody says otherwise.
const GRACE: Duration = Duration::from_secs(10);

// === impl Client ===

impl Client {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.wire.socket()
    }

    /// What to wait for. Who types faster than the container reads is not listened to until it has read.
    pub(super) fn interest(&self, hold_input: bool) -> PollFlags {
        let types = self.attached.is_some_and(|streams| streams.stdin);
        let hearing = if hold_input && types { PollFlags::empty() } else { PollFlags::IN };
        hearing | self.wire.sending()
    }

    pub(super) fn tell(&mut self, reply: &Reply) {
        self.note_progress();
        // Only a message that cannot be written as JSON fails, and there is none.
        let _ = self.wire.send(reply);
    }

    pub(super) fn tell_with(&mut self, reply: &Reply, descriptors: Vec<OwnedFd>) {
        self.note_progress();
        let _ = self.wire.send_with(reply, descriptors);
    }

    /// The descriptors that came with an exec.
    pub(super) fn take_streams(&mut self) -> Option<[OwnedFd; 3]> {
        self.wire.take_descriptors()
    }

    pub(super) fn refuse(&mut self, error: &Error) {
        self.tell(&Reply::Refused(Refusal::from(error)));
    }

    fn is_behind(&self) -> bool {
        self.attached.is_some() && self.wire.backlog() > BEHIND
    }

    /// Patience is counted from when something began to wait.
    fn note_progress(&mut self) {
        if self.wire.backlog() == 0 {
            self.progress = Instant::now();
        }
    }

    fn flush(&mut self, now: Instant) {
        let before = self.wire.backlog();
        if self.wire.flush().is_err() {
            self.gone = true;
        }
        if self.wire.backlog() < before {
            self.progress = now;
        }
    }
}

// === impl Monitor ===

impl Monitor {
    pub(super) fn admit(&mut self, socket: OwnedFd) {
        self.clients.push(Client {
            number: self.next_client,
            wire: Wire::new(socket),
            attached: None,
            waits: Vec::new(),
            watches_health: false,
            stops: 0,
            progress: Instant::now(),
            gone: false,
        });
        self.next_client += 1;
    }

    pub(super) fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(std::os::unix::net::UnixListener::accept)
        {
            self.admit(stream.into());
        }
    }

    /// Takes in what a command sent and does it. Whether there may be more.
    pub(super) fn hear(&mut self, number: u64) -> bool {
        let Some(client) = self.client(number) else { return false };
        match client.wire.receive() {
            Ok(Arrival::Bytes) => {}
            Ok(Arrival::Nothing) => return false,
            Ok(Arrival::End) | Err(_) => {
                client.gone = true;
                self.left(number);
                return false;
            }
        }
        loop {
            let Some(client) = self.client(number) else { return false };
            match client.wire.next() {
                Ok(Some(frame)) => self.heard(number, frame),
                Ok(None) => return true,
                Err(_) => {
                    client.gone = true;
                    return false;
                }
            }
        }
    }

    fn heard(&mut self, number: u64, frame: Frame) {
        match frame {
            Frame::Message(bytes) => match Frame::parse::<Request>(&bytes) {
                Ok(request) => self.asked(number, request),
                Err(error) => {
                    self.refuse(number, &Error::invalid("a request makes no sense").with_source(error))
                }
            },
            Frame::Input(bytes) => {
                if bytes.is_empty() {
                    self.end_input();
                } else {
                    self.take_input(&bytes);
                }
            }
            Frame::Output(..) => {}
        }
    }

    fn asked(&mut self, number: u64, request: Request) {
        match request {
            Request::Start { attach } => self.asked_to_start(number, attach),
            Request::Attach(streams) => self.attach(number, streams),
            Request::Detach => {
                if let Some(client) = self.client(number) {
                    client.attached = None;
                }
                self.announce("detach", &[]);
            }
            Request::Stop { signal, grace, reason } => self.asked_to_stop(number, signal, grace, reason),
            Request::Ping => self.tell(number, &Reply::Done),
            Request::Kill(signal) => self.asked_to_kill(number, signal),
            Request::Exec { spec, size } => self.asked_to_exec(number, &spec, size),
            Request::Resize(rows, columns) => self.resize(TerminalSize { rows, columns }),
            Request::Pause => self.asked_to_pause(number, true),
            Request::Resume => self.asked_to_pause(number, false),
            Request::Wait { last } => {
                if let Some(client) = self.client(number) {
                    client.waits.push(if last { WaitFor::LastEnd } else { WaitFor::AnyEnd });
                }
            }
            Request::WatchHealth => self.asked_for_health(number),
            Request::Reload => self.asked_to_reload(number),
            Request::Connect(attachment) => {
                let outcome = self.connect(&attachment);
                self.tell_outcome(number, outcome);
            }
            Request::Disconnect(network) => {
                let outcome = self.disconnect(&network);
                self.tell_outcome(number, outcome);
            }
        }
    }

    fn asked_to_start(&mut self, number: u64, attach: Option<Streams>) {
        if let (Some(client), Some(streams)) = (self.client(number), attach) {
            client.attached = Some(streams);
            self.announce("attach", &[]);
        }
        let outcome = match &self.phase {
            Phase::Idle => self.start_first(),
            // Whoever does not want to wait for the back-off need not.
            Phase::Waiting(_) => self.start_now(),
            Phase::Running(run) => Ok((run.pid(), Vec::new())),
            Phase::Over(_) => Err(Error::conflict(format!("container {} is ending", self.record.name))),
        };
        match outcome {
            Ok((pid, warnings)) => self.tell(number, &Reply::Started { pid, warnings }),
            Err(error) => self.refuse(number, &error),
        }
    }

    fn attach(&mut self, number: u64, streams: Streams) {
        if let Some(client) = self.client(number) {
            client.attached = Some(streams);
            client.tell(&Reply::Done);
            self.announce("attach", &[]);
        }
    }

    fn asked_to_stop(
        &mut self,
        number: u64,
        signal: Option<Signal>,
        grace: Option<Grace>,
        reason: StopReason,
    ) {
        if let Some(client) = self.client(number) {
            client.stops += 1;
        }
        let signal = signal.or(self.record.spec.stop_signal).unwrap_or(Signal::TERM);
        let grace = grace.or(self.record.spec.stop_timeout);
        self.stop(signal, grace.unwrap_or(Grace::Limited(Span(GRACE))), reason);
    }

    fn stop(&mut self, signal: Signal, grace: Grace, reason: StopReason) {
        match &self.phase {
            Phase::Running(run) => {
                let sent = run.signal(signal);
                let limit = match grace {
                    Grace::Limited(span) => Instant::now().checked_add(span.0),
                    Grace::Unlimited => None,
                };
                let earlier = self.stopping.and_then(|stopping| stopping.deadline);
                let deadline = [limit, earlier].into_iter().flatten().min();
                // A signal that cannot be sent will not end it: it is killed at once.
                let deadline = if sent.is_err() { Some(Instant::now()) } else { deadline };
                let by_hand = self.stopping.is_some_and(|stopping| stopping.reason == StopReason::ByHand);
                let reason = if by_hand { StopReason::ByHand } else { reason };
                self.stopping = Some(Stopping { deadline, reason });
                self.announce("kill", &[("signal", signal.number().to_string())]);
                self.thaw();
            }
            Phase::Waiting(_) => self.give_up_restarting(reason != StopReason::Shutdown),
            Phase::Idle => self.phase = Phase::Over(None),
            Phase::Over(_) => {}
        }
    }

    fn asked_to_kill(&mut self, number: u64, signal: Signal) {
        let stop_signal = self.record.spec.stop_signal.unwrap_or(Signal::TERM);
        let Phase::Running(run) = &self.phase else {
            let error = self.not_running();
            return self.refuse(number, &error);
        };
        if let Err(error) = run.signal(signal) {
            let error = Error::failed(format!("send {signal} to container {}", self.record.name), error);
            return self.refuse(number, &error);
        }
        self.announce("kill", &[("signal", signal.number().to_string())]);
        if signal == Signal::KILL || signal == stop_signal {
            self.stopping.get_or_insert(Stopping { deadline: None, reason: StopReason::Kill });
        }
        if signal == Signal::KILL {
            self.thaw();
            if let Some(client) = self.client(number) {
                client.stops += 1;
            }
        } else {
            self.tell(number, &Reply::Done);
        }
    }

    fn asked_to_pause(&mut self, number: u64, pause: bool) {
        let event = if pause { Event::Paused } else { Event::Resumed };
        let outcome = match self.state.clone().on(event) {
            Ok(state) => self.freeze(pause).map(|()| {
                self.state = state;
                self.record_state();
            }),
            Err(error) => Err(Error::conflict(format!("container {}: {error}", self.record.name))),
        };
        match outcome {
            Ok(()) => {
                self.announce(if pause { "pause" } else { "unpause" }, &[]);
                self.tell(number, &Reply::Done);
            }
            Err(error) => self.refuse(number, &error),
        }
    }

    fn freeze(&self, pause: bool) -> Result<(), Error> {
        let Phase::Running(run) = &self.phase else { return Err(self.not_running()) };
        if pause {
            run.cgroup().freeze()?
        } else {
            run.cgroup().thaw()?
        }
        Ok(())
    }

    /// Lets a paused container go on: it cannot end while it stands still.
    pub(super) fn thaw(&mut self) {
        if self.is_paused()
            && self.freeze(false).is_ok()
            && let Ok(state) = self.state.clone().on(Event::Resumed)
        {
            self.state = state;
            self.record_state();
        }
    }

    fn asked_for_health(&mut self, number: u64) {
        let status = match (&self.record.spec.healthcheck, &self.state) {
            (None, _) => None,
            (Some(_), State::Running(running)) => {
                Some(running.health.as_ref().map_or(HealthStatus::Starting, |health| health.status))
            }
            (Some(_), _) => Some(HealthStatus::Starting),
        };
        if let Some(client) = self.client(number) {
            client.watches_health = true;
            client.tell(&Reply::Health(status));
        }
        self.update_watch();
    }

    fn asked_to_reload(&mut self, number: u64) {
        match self.reload() {
            Ok(warnings) => self.tell(number, &Reply::Reloaded { warnings }),
            Err(error) => self.refuse(number, &error),
        }
    }

    fn tell_outcome(&mut self, number: u64, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => self.tell(number, &Reply::Done),
            Err(error) => self.refuse(number, &error),
        }
    }

    fn reload(&mut self) -> Result<Vec<String>, Error> {
        let failed = |error: io::Error| Error::failed("read the container's record", error);
        if let Some(record) = ContainerRecord::read(&self.root, &self.id).map_err(failed)? {
            self.record = record;
        }
        self.backoff.set_policy(self.record.spec.restart, self.record.spec.restart_pace);
        let warnings = match &mut self.phase {
            Phase::Running(run) => run.update_limits(&self.record.spec.resources)?,
            _ => Vec::new(),
        };
        Ok(warnings.iter().map(ToString::to_string).collect())
    }

    pub(super) fn not_running(&self) -> Error {
        Error::conflict(format!("container {} is not running", self.record.name))
            .with_hint(format!("start it with: rengine start {}", self.record.name))
    }

    pub(super) fn client(&mut self, number: u64) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.number == number)
    }

    pub(super) fn tell(&mut self, number: u64, reply: &Reply) {
        if let Some(client) = self.client(number) {
            client.tell(reply);
        }
    }

    pub(super) fn refuse(&mut self, number: u64, error: &Error) {
        if let Some(client) = self.client(number) {
            client.refuse(error);
        }
    }

    /// Hands output to everybody who wants it.
    pub(super) fn show(&mut self, stream: Stream, bytes: &[u8]) {
        for client in &mut self.clients {
            if client.attached.is_some_and(|streams| streams.wants(stream)) {
                client.note_progress();
                client.wire.send_output(stream, bytes);
            }
        }
    }

    /// Tells of an end to everybody who wants to know.
    pub(super) fn announce_exit(&mut self, exit: ExitNews) {
        for client in &mut self.clients {
            let waits = client.waits.len();
            client.waits.retain(|wait| exit.again && *wait == WaitFor::LastEnd);
            let waited = client.waits.len() < waits;
            if waited || client.attached.is_some() || client.watches_health {
                client.tell(&Reply::Exited(exit));
            }
            for _ in 0..std::mem::take(&mut client.stops) {
                client.tell(&Reply::Done);
            }
        }
    }

    pub(super) fn announce_health(&mut self, status: HealthStatus) {
        for client in self.clients.iter_mut().filter(|client| client.watches_health) {
            client.tell(&Reply::Health(Some(status)));
        }
    }

    pub(super) fn somebody_watches(&self) -> bool {
        self.clients.iter().any(|client| client.watches_health)
    }

    pub(super) fn somebody_is_behind(&self) -> bool {
        self.clients.iter().any(Client::is_behind)
    }

    /// When the patience with a command that does not read ends.
    pub(super) fn next_stall(&self) -> Option<Instant> {
        let behind = self.clients.iter().filter(|client| client.is_behind());
        behind.map(|client| client.progress + PATIENCE).min()
    }

    pub(super) fn give_up_on_stalled(&mut self, now: Instant) {
        for client in self.clients.iter_mut().filter(|client| client.is_behind()) {
            if client.progress + PATIENCE <= now {
                client.attached = None;
                client.wire.forget_output();
                client.tell(&Reply::FellBehind);
            }
        }
    }

    pub(super) fn flush_clients(&mut self, now: Instant) {
        for client in &mut self.clients {
            client.flush(now);
        }
        let gone: Vec<u64> =
            self.clients.iter().filter(|client| client.gone).map(|client| client.number).collect();
        for number in gone {
            // That nobody reads any more is noticed before the last words are: whoever detached said so with these.
            while self.hear(number) {}
            self.left(number);
        }
    }

    /// A command has left, in order or not.
    fn left(&mut self, number: u64) {
        let Some(at) = self.clients.iter().position(|client| client.number == number) else { return };
        let client = self.clients.remove(at);
        if client.attached.is_some_and(|streams| streams.stdin) {
            self.end_input();
        }
        if client.watches_health {
            self.update_watch();
        }
        if self.is_abandoned() {
            self.kill_all();
        }
    }

    /// Whether it works for a build that is gone, and that nobody can take up again.
    pub(super) fn is_abandoned(&self) -> bool {
        self.record.purpose == Purpose::Build && self.clients.is_empty()
    }

    /// Sends what is still to be said, to those who listen.
    pub(super) fn say_farewell(&mut self) {
        loop {
            let now = Instant::now();
            self.clients.iter_mut().for_each(|client| client.flush(now));
            self.clients.retain(|client| {
                !client.gone && client.wire.backlog() > 0 && client.progress + PATIENCE > now
            });
            let mut ready = Ready::new();
            for client in &self.clients {
                ready.add((), client.socket(), PollFlags::OUT);
            }
            let deadline = self.clients.iter().map(|client| client.progress + PATIENCE).min();
            if deadline.is_none() || ready.wait(deadline).is_err() {
                return;
            }
        }
    }
}
