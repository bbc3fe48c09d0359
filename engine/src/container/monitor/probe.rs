//! Health probes: processes beside the container's own, whose exit code is the verdict.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use jiff::Timestamp;
use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::container::end::reap;
use crate::container::exec::{self, ExecSpec};
use crate::container::failure::LaunchError;
use crate::container::health::{OUTPUT_KEPT, Verdict};
use crate::container::launch::{self, Child, Stdio};
use crate::container::monitor::run::Run;
use crate::container::monitor::{Monitor, Phase, Source};
use crate::container::ready::Ready;
use crate::container::state::{Event, Probe};
use crate::container::stdio::{Pipe, never_block};
use crate::error;

/// A probe that runs.
pub(super) struct RunningProbe {
    child: Child,
    output: OwnedFd,
    kept: Vec<u8>,
    start: Timestamp,
    deadline: Instant,
    timed_out: bool,
}

// === impl RunningProbe ===

impl RunningProbe {
    fn begin(run: &Run, argv: &[String], deadline: Instant) -> Result<Self, LaunchError> {
        let spec = ExecSpec { argv: argv.to_vec(), ..ExecSpec::default() };
        let failed = |error: io::Error| LaunchError::Invalid(format!("open the probe's streams: {error}"));
        let pipe = Pipe::new().map_err(failed)?;
        never_block(&pipe.read).map_err(failed)?;
        let stdin = File::open("/dev/null").map_err(failed)?;
        let streams = launch::Streams::new(&stdin, &pipe.write, &pipe.write);
        let plan = run.process().for_exec(&spec);
        let start = Timestamp::now();
        let child = exec::exec(run.pidfd(), &plan, run.cgroup(), Stdio::Streams(streams))?;
        Ok(Self { child, output: pipe.read, kept: Vec::new(), start, deadline, timed_out: false })
    }

    pub(super) fn add_to<'a>(&'a self, ready: &mut Ready<'a, Source>) {
        ready.add(Source::Probe, self.child.pidfd.as_fd(), PollFlags::IN);
    }

    /// When it has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.timed_out).then_some(self.deadline)
    }

    /// Ends the probe with everything it started in its session.
    fn kill(&mut self) {
        self.timed_out = true;
        // One that has just ended needs no killing.
        let _ = rustix::process::kill_process_group(self.child.pid, rustix::process::Signal::KILL);
        let _ = rustix::process::pidfd_send_signal(&self.child.pidfd, rustix::process::Signal::KILL);
    }

    /// Takes its exit code and what it wrote.
    pub(super) fn finish(mut self, timeout: std::time::Duration) -> Probe {
        let code = reap(self.child.pidfd.as_fd());
        self.read();
        let (exit_code, output) = if self.timed_out {
            (-1, format!("Health check exceeded timeout ({})", crate::quantity::Span(timeout)))
        } else {
            (code, String::from_utf8_lossy(&self.kept).into_owned())
        };
        Probe { start: self.start, end: Timestamp::now(), exit_code, output }
    }

    fn read(&mut self) {
        let mut piece = [0; OUTPUT_KEPT];
        loop {
            match rustix::io::read(&self.output, &mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    let room = OUTPUT_KEPT - self.kept.len();
                    self.kept.extend_from_slice(&piece[..length.min(room)]);
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

// === impl Monitor ===

impl Monitor {
    /// Begins a probe that is due, and ends one that takes too long.
    pub(super) fn keep_probing(&mut self, now: Instant) {
        let paused = self.is_paused();
        let Phase::Running(run) = &mut self.phase else { return };
        if let Some(probe) = &mut run.probe {
            if probe.deadline().is_some_and(|deadline| deadline <= now) {
                probe.kill();
            }
            return;
        }
        let Some(checkup) = &mut run.checkup else { return };
        if paused || checkup.next().is_none_or(|next| next > now) {
            return;
        }
        checkup.begin();
        let deadline = now + checkup.timeout();
        let check = self.record.spec.healthcheck.as_ref();
        let argv = check.and_then(|check| check.test.clone()).unwrap_or_default();
        match RunningProbe::begin(run, &argv, deadline) {
            Ok(probe) => run.probe = Some(probe),
            Err(failure) => {
                let at = Timestamp::now();
                let output = error::chain(&failure);
                self.probed(Probe { start: at, end: at, exit_code: failure.exit_code(), output });
            }
        }
    }

    pub(super) fn probe_ended(&mut self) {
        let Phase::Running(run) = &mut self.phase else { return };
        let Some(probe) = run.probe.take() else { return };
        let timeout = run.checkup.as_ref().map(super::super::health::Checkup::timeout).unwrap_or_default();
        let probe = probe.finish(timeout);
        self.probed(probe);
    }

    fn probed(&mut self, probe: Probe) {
        let watched = self.somebody_watches();
        let Phase::Running(run) = &mut self.phase else { return };
        let Some(checkup) = &mut run.checkup else { return };
        let is_news = checkup.health().log.last().is_none_or(|last| !last.says_the_same(&probe));
        let verdict = checkup.probed(probe, Instant::now());
        let health = checkup.health().clone();
        let status = health.status;
        if let Ok(state) = self.state.clone().on(Event::Probed(health)) {
            self.state = state;
        }
        // Eager probes that say nothing new are not worth a write each; what does is wanted when the time is up.
        if verdict == Verdict::Changed || !watched || is_news {
            self.record_state();
        }
        if verdict == Verdict::Changed {
            self.announce_health(status);
            self.announce(&format!("health_status: {status}"), &[]);
        }
    }

    /// Somebody began or ceased to wait for the verdict.
    pub(super) fn update_watch(&mut self) {
        let watched = self.somebody_watches();
        if let Phase::Running(run) = &mut self.phase
            && let Some(checkup) = &mut run.checkup
        {
            checkup.watch(watched, Instant::now());
        }
    }
}
