//! Where a container is in its life: an enum that owns its data, and one transition function.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A container's state, as `state.json` keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    /// Made and never started.
    Created,
    /// Its first process is alive.
    Running(Running),
    /// It ended and will be started again when its back-off is over.
    Restarting(Exited),
    /// It ended and stays so.
    Exited(Exited),
    /// It is being taken away; what is left is finished by the next command.
    Removing,
}

/// A live container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Process 1, as the host numbers it.
    pub pid: i32,
    /// When it started.
    pub started: Timestamp,
    /// What its probes say.
    pub health: Option<Health>,
    /// Whether it is frozen.
    #[serde(default)]
    pub paused: bool,
    /// How often its policy started it again.
    #[serde(default)]
    pub restarts: u32,
}

/// A container that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// The exit code; 128 and the signal when it was killed.
    pub code: i32,
    /// When it started; `None` when it never came to that.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
    /// Whether the kernel killed it for its memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// Why it could not be started.
    #[serde(default)]
    pub error: Option<String>,
    /// Whether a person stopped it (`unless-stopped` remembers).
    #[serde(default)]
    pub stopped_by_hand: bool,
    /// How often its policy started it again.
    #[serde(default)]
    pub restarts: u32,
}

/// What a container's probes say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five probes.
    #[serde(default)]
    pub log: Vec<Probe>,
}

/// The verdict of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No verdict yet.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// As many failed in a row as the check allows.
    Unhealthy,
}

/// One run of a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its exit code; -1 when it was killed at its timeout.
    pub exit_code: i32,
    /// The first 4096 bytes it wrote.
    pub output: String,
}

/// What can happen to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its first process was executed.
    Started {
        /// As the host numbers it.
        pid: i32,
        /// When.
        at: Timestamp,
        /// The verdict to begin with, when it has a health check.
        health: Option<Health>,
    },
    /// Its first process ended, or could not be started.
    Ended {
        /// How it ended.
        exit: Exited,
        /// Whether its policy starts it again.
        again: bool,
    },
    /// A probe gave a verdict.
    Probed(Health),
    /// It was frozen.
    Paused,
    /// It was thawed.
    Resumed,
    /// A person asked for its removal.
    Remove,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {state} cannot {event}")]
pub struct IllegalMove {
    state: &'static str,
    event: &'static str,
}

// === impl Probe ===

impl Probe {
    /// Whether it came to the same, at another time.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.exit_code, &self.output) == (other.exit_code, &other.output)
    }
}

// === impl State ===

impl State {
    /// The state after this event.
    pub fn on(self, event: Event) -> Result<Self, IllegalMove> {
        let state = self.word();
        match (self, event) {
            (Self::Created, Event::Started { pid, at, health }) => {
                Ok(Self::Running(Running { pid, started: at, health, paused: false, restarts: 0 }))
            }
            (Self::Exited(_), Event::Started { pid, at, health }) => {
                Ok(Self::Running(Running { pid, started: at, health, paused: false, restarts: 0 }))
            }
            (Self::Restarting(last), Event::Started { pid, at, health }) => Ok(Self::Running(Running {
                pid,
                started: at,
                health,
                paused: false,
                restarts: last.restarts + 1,
            })),
            (
                Self::Created | Self::Running(_) | Self::Restarting(_) | Self::Exited(_),
                Event::Ended { exit, again },
            ) => Ok(if again { Self::Restarting(exit) } else { Self::Exited(exit) }),
            (Self::Running(running), Event::Probed(health)) => {
                Ok(Self::Running(Running { health: Some(health), ..running }))
            }
            (Self::Running(running), Event::Paused) if !running.paused => {
                Ok(Self::Running(Running { paused: true, ..running }))
            }
            (Self::Running(running), Event::Resumed) if running.paused => {
                Ok(Self::Running(Running { paused: false, ..running }))
            }
            (Self::Created | Self::Exited(_) | Self::Removing, Event::Remove) => Ok(Self::Removing),
            (_, event) => Err(IllegalMove { state, event: event.word() }),
        }
    }

    /// Docker's word for it: `created`, `running`, `paused`, `restarting`, `exited`, `removing`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running(Running { paused: true, .. }) => "paused",
            Self::Running(_) => "running",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
            Self::Removing => "removing",
        }
    }

    /// Whether its first process is alive.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// When the program ended well, by itself and not because somebody stopped it.
    pub fn ended_well(&self) -> Option<Timestamp> {
        match self {
            Self::Exited(exited) if exited.code == 0 && !exited.stopped_by_hand => Some(exited.finished),
            _ => None,
        }
    }
}

impl Event {
    fn word(&self) -> &'static str {
        match self {
            Self::Started { .. } => "start",
            Self::Ended { .. } => "end",
            Self::Probed(_) => "be probed",
            Self::Paused => "be paused",
            Self::Resumed => "be unpaused",
            Self::Remove => "be removed",
        }
    }
}

impl std::fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exited {
        Exited {
            code,
            started: None,
            finished: Timestamp::UNIX_EPOCH,
            oom_killed: false,
            error: None,
            stopped_by_hand: false,
            restarts: 0,
        }
    }

    fn started() -> Event {
        Event::Started { pid: 7, at: Timestamp::UNIX_EPOCH, health: None }
    }

    #[test]
    fn a_life_from_creation_to_removal() {
        let running = State::Created.on(started()).unwrap();
        let again = running.on(Event::Ended { exit: exit(1), again: true }).unwrap();
        assert_eq!(again.word(), "restarting");
        let State::Running(second) = again.on(started()).unwrap() else { panic!("not running") };
        assert_eq!(second.restarts, 1);
        let ended = State::Running(second).on(Event::Ended { exit: exit(0), again: false }).unwrap();
        assert_eq!(ended.on(Event::Remove), Ok(State::Removing));
    }

    #[test]
    fn what_cannot_happen_is_refused_by_name() {
        let running = State::Created.on(started()).unwrap();
        for (state, event, text) in [
            (running.clone(), Event::Remove, "a container that is running cannot be removed"),
            (running, started(), "a container that is running cannot start"),
            (State::Created, Event::Paused, "a container that is created cannot be paused"),
            (State::Exited(exit(0)), Event::Resumed, "a container that is exited cannot be unpaused"),
        ] {
            assert_eq!(state.on(event).unwrap_err().to_string(), text);
        }
    }
}
