//! One run of the container, from its launch to its end, and the processes beside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use jiff::Timestamp;
use rustix::event::PollFlags;

use crate::container::cgroup::{Cgroup, CgroupError, Warning};
use crate::container::end::reap;
use crate::container::exec::{self, ExecSpec};
use crate::container::health::Checkup;
use crate::container::launch::{self, Child, Stdio};
use crate::container::monitor::network::Upkeep;
use crate::container::monitor::output::{Input, Outputs};
use crate::container::monitor::probe::RunningProbe;
use crate::container::monitor::{Monitor, Phase, Source};
use crate::container::plan::{ProcessPlan, TerminalSize};
use crate::container::protocol::{ExitNews, Reply, StopReason};
use crate::container::ready::Ready;
use crate::container::record::ContainerRecord;
use crate::container::restart::{self, Verdict};
use crate::container::spec::{MountSource, Resources};
use crate::container::state::{Event, Exited, State};
use crate::error::Error;
use crate::event::{Event as Told, EventKind, Journal};
use crate::id::ContainerId;
use crate::network::Resolver;
use crate::signal::Signal;
use crate::store;

/// A container that runs.
pub(super) struct Run {
    child: Child,
    process: ProcessPlan,
    cgroup: Cgroup,
    pub(super) outputs: Outputs,
    pub(super) input: Input,
    resolver: Option<Resolver>,
    pub(super) upkeep: Upkeep,
    pub(super) checkup: Option<Checkup>,
    pub(super) probe: Option<RunningProbe>,
    started: Instant,
}

/// A process that a command runs beside the container's own.
pub(super) struct Exec {
    child: Child,
    client: u64,
    /// What events call it.
    id: String,
}

// === impl Run ===

impl Run {
    pub(super) fn new(
        child: Child,
        process: ProcessPlan,
        cgroup: Cgroup,
        outputs: Outputs,
        input: Input,
        resolver: Option<Resolver>,
        checkup: Option<Checkup>,
    ) -> Self {
        let started = Instant::now();
        let upkeep = Upkeep::default();
        Self { child, process, cgroup, outputs, input, resolver, upkeep, checkup, probe: None, started }
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.pid.as_raw_nonzero().get()
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    pub(super) fn process(&self) -> &ProcessPlan {
        &self.process
    }

    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Sets other limits; what does not hold on this kernel.
    pub(super) fn update_limits(&mut self, resources: &Resources) -> Result<Vec<Warning>, CgroupError> {
        self.cgroup.update(resources)
    }

    /// Everything of it that is waited for. When somebody who is attached is far behind, its output has to wait.
    pub(super) fn add_to<'a>(&'a self, ready: &mut Ready<'a, Source>, hold_output: bool) {
        // Its streams first: what it wrote before it ended is served before its end.
        if !hold_output {
            self.outputs.add_to(ready);
        }
        self.input.add_to(ready);
        ready.add(Source::Init, self.pidfd(), PollFlags::IN);
        if let Some(probe) = &self.probe {
            probe.add_to(ready);
        }
        if let Some(resolver) = &self.resolver {
            ready.add(Source::Resolver, resolver.as_fd(), PollFlags::IN);
        }
        for descriptor in self.upkeep.descriptors() {
            ready.add(Source::Networks, descriptor, PollFlags::IN);
        }
    }

    pub(super) fn next_deadline(&self, paused: bool) -> Option<Instant> {
        let health = match &self.probe {
            Some(probe) => probe.deadline(),
            None if paused => None,
            None => self.checkup.as_ref().and_then(Checkup::next),
        };
        [health, self.upkeep.due()].into_iter().flatten().min()
    }

    pub(super) fn answer_names(&mut self) {
        if let Some(resolver) = &mut self.resolver {
            resolver.ready();
        }
    }

    pub(super) fn has_resolver(&self) -> bool {
        self.resolver.is_some()
    }

    /// From now on it has a name server of its own.
    pub(super) fn resolve_with(&mut self, resolver: Resolver) {
        self.resolver = Some(resolver);
    }

    /// Sends its first process a signal. One that has ended meanwhile does not mind.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match crate::sys::pidfd::send_signal(self.pidfd(), signal.number()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }
}

// === impl Exec ===

impl Exec {
    pub(super) fn pid(&self) -> i32 {
        self.child.pid.as_raw_nonzero().get()
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }
}

// === impl Monitor ===

impl Monitor {
    /// The first process has ended, and with it the run.
    pub(super) fn run_ended(&mut self) {
        let Phase::Running(run) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let Run { child, cgroup, mut outputs, probe, started, .. } = *run;
        let code = reap(child.pidfd.as_fd());
        // Without a namespace of their own for process ids, others may have outlived it.
        let _ = cgroup.kill();
        if let Some(probe) = probe {
            drop(probe.finish(std::time::Duration::ZERO));
        }
        for exec in std::mem::take(&mut self.execs) {
            self.tell_exec_end(&exec);
        }
        self.drain_output(&mut outputs);
        let oom_killed = cgroup.oom_killed();
        let endpoints = self.networks.endpoints(&self.id).unwrap_or_default();
        self.release_network();
        // Nodes that cannot be removed now are swept later.
        let _ = cgroup.remove();
        let stopping = self.stopping.take();
        let by_hand = stopping.is_some_and(|stopping| stopping.reason != StopReason::Shutdown);
        self.comes_back = stopping.is_some_and(|stopping| stopping.reason == StopReason::Restart);
        let run = restart::Run { code, lasted: started.elapsed(), stopped: stopping.is_some() };
        let verdict = self.backoff.ended(run);
        let exit = self.exit(code, oom_killed, by_hand);
        if oom_killed {
            self.announce("oom", &[]);
        }
        let lasted = started.elapsed().as_secs().to_string();
        self.announce("die", &[("execDuration", lasted), ("exitCode", code.to_string())]);
        for endpoint in &endpoints {
            self.networks.announce_endpoint(endpoint, &self.id, "disconnect");
        }
        self.announce_mounts("unmount");
        if by_hand && stopping.is_none_or(|stopping| stopping.reason != StopReason::Kill) {
            self.announce("stop", &[]);
        }
        let again = verdict != Verdict::Stay;
        if let Ok(state) = self.state.clone().on(Event::Ended { exit: exit.clone(), again }) {
            self.state = state;
        }
        match verdict {
            Verdict::Again(delay) => {
                self.record_state();
                self.phase = Phase::Waiting(Instant::now() + delay);
                self.announce_exit(ExitNews { code, oom_killed, again: true });
                self.mounted = None;
            }
            Verdict::Stay => self.over(&exit),
        }
    }

    /// Tells of the volumes that came or went with this run.
    pub(super) fn announce_mounts(&self, action: &str) {
        let journal = Journal::of(&self.root);
        for mount in &self.record.spec.mounts {
            let MountSource::Volume { name: Some(name), .. } = &mount.source else { continue };
            let mut details = vec![("container", self.id.to_string()), ("driver", "local".to_owned())];
            if action == "mount" {
                details.push(("destination", mount.target.display().to_string()));
                details.push(("propagation", String::new()));
                details.push(("read/write", (!mount.read_only).to_string()));
            }
            journal.append(&Told::now(EventKind::Volume, action, name.as_str(), details));
        }
    }

    fn exit(&self, code: i32, oom_killed: bool, stopped_by_hand: bool) -> Exited {
        let (started, restarts) = match &self.state {
            State::Running(running) => (Some(running.started), running.restarts),
            _ => (None, 0),
        };
        Exited {
            code,
            started,
            finished: Timestamp::now(),
            oom_killed,
            error: None,
            stopped_by_hand,
            restarts,
        }
    }

    /// Somebody stopped it while it waited for its next start.
    pub(super) fn give_up_restarting(&mut self, by_hand: bool) {
        let State::Restarting(last) = &self.state else { return };
        let exit = Exited { stopped_by_hand: by_hand, ..last.clone() };
        self.state = State::Exited(exit.clone());
        self.over(&exit);
    }

    /// It has ended for good.
    pub(super) fn over(&mut self, exit: &Exited) {
        let news = ExitNews { code: exit.code, oom_killed: exit.oom_killed, again: false };
        self.phase = Phase::Over(Some(news));
    }

    /// The last acts: no more visitors, the record, the removal if it was asked for, the lock, the farewell to those who
    /// are still connected, and the files of a container that is gone.
    pub(super) fn close(mut self, exit: Option<ExitNews>) {
        self.accept();
        // Failing leaves a socket on which nobody listens, which every command understands.
        let _ = store::remove_file(&self.root.control_socket(&self.id));
        self.accept();
        self.listener = None;
        let nobody_needs_it = (self.record.spec.auto_remove && !self.comes_back) || self.is_abandoned();
        let removes_itself = exit.is_some() && nobody_needs_it;
        if removes_itself && let Ok(removing) = self.state.clone().on(Event::Remove) {
            self.state = removing;
        }
        if exit.is_some() {
            self.record_state();
        }
        // What cannot be removed now is left to the next command, which sees the state.
        let is_gone = removes_itself && (self.discard)(&self.root, &self.record).is_ok();
        let remains = is_gone.then(|| ContainerRecord::withdraw_remains(&self.root, &self.id));
        self.lock = None;
        if let Some(exit) = exit {
            self.announce_exit(exit);
        }
        self.say_farewell();
        self.mounted = None;
        // Nobody waits for this, and the next check goes on with what is left of it.
        drop(remains);
    }

    /// Ends everything in the container now.
    pub(super) fn kill_all(&mut self) {
        if let Phase::Running(run) = &self.phase {
            // One of the two reaches it; a kernel that refuses both has no way left.
            let _ = run.signal(Signal::KILL);
            let _ = run.cgroup.kill();
        }
        self.thaw();
    }

    pub(super) fn asked_to_exec(&mut self, number: u64, spec: &ExecSpec, size: (u16, u16)) {
        let started = self.start_exec(number, spec, TerminalSize { rows: size.0, columns: size.1 });
        match started {
            Ok(mut exec) => {
                let terminal = exec.child.terminal.take().into_iter().collect();
                let reply = Reply::ExecStarted { pid: exec.pid() };
                if let Some(client) = self.client(number) {
                    client.tell_with(&reply, terminal);
                }
                self.execs.push(exec);
            }
            Err(error) => self.refuse(number, &error),
        }
    }

    fn start_exec(&mut self, number: u64, spec: &ExecSpec, size: TerminalSize) -> Result<Exec, Error> {
        let streams = match self.client(number) {
            Some(client) if !spec.tty => client.take_streams(),
            _ => None,
        };
        if self.is_paused() {
            return Err(Error::conflict(format!("container {} is paused", self.record.name))
                .with_hint(format!("let it go on with: rengine unpause {}", self.record.name)));
        }
        let Phase::Running(run) = &self.phase else { return Err(self.not_running()) };
        let mut process = run.process.for_exec(spec);
        if let Some(terminal) = &mut process.terminal {
            *terminal = size;
        }
        let stdio = match &streams {
            Some([stdin, stdout, stderr]) => Stdio::Streams(launch::Streams::new(stdin, stdout, stderr)),
            None if spec.tty => Stdio::Terminal,
            None => return Err(Error::invalid("an exec without a terminal needs three descriptors")),
        };
        let child = exec::exec(run.pidfd(), &process, &run.cgroup, stdio)?;
        let id = ContainerId::random().as_str().to_owned();
        let command = spec.argv.join(" ");
        for step in ["exec_create", "exec_start"] {
            self.announce(&format!("{step}: {command}"), &[("execID", id.clone())]);
        }
        Ok(Exec { child, client: number, id })
    }

    pub(super) fn exec_ended(&mut self, pid: i32) {
        if let Some(at) = self.execs.iter().position(|exec| exec.pid() == pid) {
            let exec = self.execs.swap_remove(at);
            self.tell_exec_end(&exec);
        }
    }

    fn tell_exec_end(&mut self, exec: &Exec) {
        let code = reap(exec.pidfd());
        self.announce("exec_die", &[("execID", exec.id.clone()), ("exitCode", code.to_string())]);
        self.tell(exec.client, &Reply::ExecExited { code });
    }
}
