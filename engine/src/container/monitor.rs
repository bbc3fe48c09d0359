//! The process that watches over one container: its parent, its log writer, its door, from start to end.
//!
//! One thread, one loop, no polling: it sleeps until a descriptor is ready or a deadline has passed, and serves what
//! happened. Launching needs a process with one thread; so do a few kilobytes of memory per container.

mod door;
mod launch;
mod network;
mod output;
mod probe;
mod run;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use rustix::event::PollFlags;

use crate::container::idmap::UserMode;
use crate::container::logs::{self, LogWriter};
use crate::container::mounted::Mounted;
use crate::container::namespaces;
use crate::container::plan::TerminalSize;
use crate::container::protocol::{ExitNews, Refusal, Reply, StopReason, Wire};
use crate::container::ready::Ready;
use crate::container::record::ContainerRecord;
use crate::container::restart::Backoff;
use crate::container::spec::{ContainerSpec, NetworkMode};
use crate::container::state::State;
use crate::error::Error;
use crate::id::ContainerId;
use crate::network::{FirewallWatch, Networks};
use crate::paths::Root;
use crate::signal::Signal;
use crate::sys::self_exec::inherited;
use door::Client;
pub(crate) use network::refused;
use run::{Exec, Run};

/// How a monitor knows that it is one.
pub(crate) const ARGV0: &str = "rengine-monitor";

/// One container's monitor.
struct Monitor {
    root: Root,
    id: ContainerId,
    record: ContainerRecord,
    discard: Discard,
    networks: Networks,
    /// From the first run that has networks of this engine on.
    firewall: Option<FirewallWatch>,
    state: State,
    phase: Phase,
    log: LogWriter,
    backoff: Backoff,
    /// Held by being open.
    lock: Option<OwnedFd>,
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    next_client: u64,
    execs: Vec<Exec>,
    size: Option<TerminalSize>,
    stopping: Option<Stopping>,
    /// Whether it is started again when this monitor is gone.
    comes_back: bool,
    /// The root of the container, until everybody knows of its end.
    mounted: Option<Mounted>,
    /// For the first run, made before anybody asked for it.
    network_namespace: Option<OwnedFd>,
    /// The mount that this program was executed through. Whoever closes it last waits for its end, and nobody waits for
    /// a monitor that has said everything.
    _program: OwnedFd,
}

/// What a monitor makes before its container is there. A container that turns out not to need it starts without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// The container's network namespace.
    Network,
}

/// Where the monitor is with its container.
enum Phase {
    /// Nobody has asked for the start yet.
    Idle,
    /// It runs.
    Running(Box<Run>),
    /// It is started again at this moment.
    Waiting(Instant),
    /// It has ended for good, or could not be started.
    Over(Option<ExitNews>),
}

/// Somebody asked for the end.
#[derive(Debug, Clone, Copy)]
struct Stopping {
    /// When it is killed; never when `None`.
    deadline: Option<Instant>,
    /// What for.
    reason: StopReason,
}

/// What the monitor waits for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Client(u64),
    Init,
    Output(usize),
    Input,
    Exec(i32),
    Probe,
    Resolver,
    /// The kernel tells that something of its networks was removed.
    Networks,
}

/// Gives back what others could want of a container, its record last: the engine's part, which knows volumes and names.
pub type Discard = fn(&Root, &ContainerRecord) -> crate::Result<()>;

/// Becomes a container's monitor when this process was executed as one. Every program on this crate calls it first
/// thing in `main`, before it makes a thread.
pub fn enter_if_asked(discard: Discard) -> Option<ExitCode> {
    let mut args = std::env::args_os();
    (args.next()? == ARGV0).then(|| match Monitor::born(&args.collect::<Vec<_>>(), discard) {
        Ok(monitor) => {
            // Executed through a descriptor, it would be listed by that one's number; one that is, works as well.
            let _ = rustix::thread::set_name(c"rengine-monitor");
            monitor.live()
        }
        Err((connection, error)) => {
            // Without a connection nobody can be told.
            if let Some(connection) = connection {
                refuse(connection, error);
            }
            ExitCode::FAILURE
        }
    })
}

/// The last and only word of a monitor that could not begin, to the command that started it.
fn refuse(connection: OwnedFd, error: io::Error) {
    let error = Error::failed("open the container's record and log", error);
    let mut wire = Wire::new(connection);
    // A command that is gone does not want to know.
    let _ = wire.send(&Reply::Refused(Refusal::from(&error))).and_then(|()| wire.flush());
}

/// The container may still be in the making; whoever makes it says when it is there, or is gone.
fn wait_for_word(connection: &OwnedFd) -> io::Result<()> {
    let mut ready = Ready::new();
    ready.add((), connection.as_fd(), PollFlags::IN);
    ready.wait(None).map(|_| ())
}

fn descriptor(arg: &OsString) -> io::Result<OwnedFd> {
    let number = arg.to_str().and_then(|text| text.parse::<RawFd>().ok());
    inherited(number.ok_or(io::ErrorKind::InvalidInput)?)
}

// === impl Ahead ===

impl Ahead {
    /// What is worth making ahead for a container of this specification.
    pub fn of(spec: &ContainerSpec) -> Option<Self> {
        let has_network = matches!(spec.network, NetworkMode::Bridge(_) | NetworkMode::None);
        (has_network && spec.userns == UserMode::Host).then_some(Self::Network)
    }

    /// How it is said in the arguments of a monitor.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
        }
    }
}

// === impl Monitor ===

impl Monitor {
    /// Takes over what the command passed: where the engine is, which container, four descriptors, and what is worth
    /// making ahead. On failure, the connection to the command comes back if there is one.
    fn born(args: &[OsString], discard: Discard) -> Result<Self, (Option<OwnedFd>, io::Error)> {
        let [state, id, connection, lock, listener, program, ahead @ ..] = args else {
            return Err((None, io::ErrorKind::InvalidInput.into()));
        };
        let connection = descriptor(connection).map_err(|error| (None, error))?;
        // Without it, one is made when the container is started, or it is said why not.
        let made = ahead.iter().any(|word| word == Ahead::Network.word()).then(namespaces::new_network);
        let prepared = wait_for_word(&connection)
            .and_then(|()| Ok([descriptor(lock)?, descriptor(listener)?, descriptor(program)?]))
            .and_then(|descriptors| Self::prepare(state, id, descriptors, discard));
        match prepared {
            Ok(mut monitor) => {
                monitor.network_namespace = made.and_then(Result::ok);
                monitor.admit(connection);
                Ok(monitor)
            }
            Err(error) => Err((Some(connection), error)),
        }
    }

    fn prepare(
        state: &OsString,
        id: &OsString,
        [lock, listener, program]: [OwnedFd; 3],
        discard: Discard,
    ) -> io::Result<Self> {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let root = Root::at(Path::new(state));
        let id: ContainerId = id
            .to_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let Some(record) = ContainerRecord::read(&root, &id)? else {
            // Whoever made the container was killed before it was one, or it was removed since.
            drop(ContainerRecord::withdraw_remains(&root, &id)?);
            return Err(io::ErrorKind::NotFound.into());
        };
        let state = State::read(&root, &id)?.unwrap_or(State::Created);
        let log = LogWriter::open(&root.container(&id).join("container.log"), &record.spec.log)?
            .with_attributes(&logs::attributes(&record));
        Ok(Self {
            networks: Networks::at(&root),
            firewall: None,
            backoff: Backoff::new(record.spec.restart, record.spec.restart_pace),
            root,
            id,
            record,
            discard,
            state,
            phase: Phase::Idle,
            log,
            lock: Some(lock),
            listener: Some(listener),
            clients: Vec::new(),
            next_client: 0,
            execs: Vec::new(),
            size: None,
            stopping: None,
            comes_back: false,
            mounted: None,
            network_namespace: None,
            _program: program,
        })
    }

    fn live(mut self) -> ExitCode {
        loop {
            let happened = match self.wait() {
                Ok(happened) => happened,
                // Without poll(2) there is nothing left that this process could do.
                Err(_) => return ExitCode::FAILURE,
            };
            for source in happened {
                self.serve(source);
            }
            self.keep_deadlines(Instant::now());
            self.flush_clients(Instant::now());
            // A command that was killed before it asked for anything leaves nothing to do.
            if matches!(self.phase, Phase::Idle) && self.clients.is_empty() {
                self.phase = Phase::Over(None);
            }
            if let Phase::Over(exit) = self.phase {
                self.close(exit);
                return ExitCode::SUCCESS;
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut ready = Ready::new();
        if let Some(listener) = &self.listener {
            ready.add(Source::Listener, listener.as_fd(), PollFlags::IN);
        }
        let hold_input = self.input_is_full();
        for client in &self.clients {
            ready.add(Source::Client(client.number), client.socket(), client.interest(hold_input));
        }
        if let Phase::Running(run) = &self.phase {
            run.add_to(&mut ready, self.somebody_is_behind());
            if let Some(firewall) = &self.firewall {
                ready.add(Source::Networks, firewall.as_fd(), PollFlags::IN);
            }
        }
        for exec in &self.execs {
            ready.add(Source::Exec(exec.pid()), exec.pidfd(), PollFlags::IN);
        }
        let happened = ready.wait(self.next_deadline())?;
        Ok(happened.into_iter().map(|(source, _)| source).collect())
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Client(number) => drop(self.hear(number)),
            Source::Init => self.run_ended(),
            Source::Output(at) => self.pass_output(at),
            Source::Input => self.pass_input(),
            Source::Exec(pid) => self.exec_ended(pid),
            Source::Probe => self.probe_ended(),
            Source::Resolver => self.answer_names(),
            Source::Networks => self.hear_of_networks(Instant::now()),
        }
    }

    /// The next moment at which something is due without any descriptor's help.
    fn next_deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Running(run) => run.next_deadline(self.is_paused()),
            Phase::Waiting(at) => Some(*at),
            Phase::Idle | Phase::Over(_) => None,
        };
        let stop = self.stopping.and_then(|stopping| stopping.deadline);
        [phase, stop, self.next_stall()].into_iter().flatten().min()
    }

    fn keep_deadlines(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Waiting(at) if at <= now) {
            self.start_again();
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.deadline.is_some_and(|deadline| deadline <= now)
        {
            stopping.deadline = None;
            self.announce("kill", &[("signal", Signal::KILL.number().to_string())]);
            self.kill_all();
        }
        self.keep_probing(now);
        self.keep_networks(now);
        self.give_up_on_stalled(now);
    }

    /// Tells everybody who listens to events.
    fn announce(&self, action: &str, details: &[(&str, String)]) {
        self.record.announce(&self.root, action, details);
    }

    fn is_paused(&self) -> bool {
        matches!(&self.state, State::Running(running) if running.paused)
    }

    fn answer_names(&mut self) {
        if let Phase::Running(run) = &mut self.phase {
            run.answer_names();
        }
    }

    /// Writes the state down. A disk that refuses must not end the container: the next write may succeed, and
    /// whoever asks this monitor hears the truth.
    fn record_state(&self) {
        let _ = self.state.write(&self.root, &self.record);
    }
}
