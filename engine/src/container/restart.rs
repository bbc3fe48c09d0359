//! Whether and when an ended container is started again. Pure: it is told what happened and reads no clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::spec::RestartPolicy;
use crate::quantity::Span;

/// How restarts follow each other, as a swarm has it; docker's own way where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPace {
    /// The time between an end and the next start, always the same.
    pub delay: Option<Span>,
    /// How many restarts in a row there are at most, whatever the policy; without end when 0.
    pub attempts: u32,
    /// A run this long was a success: attempts are counted anew.
    pub window: Option<Span>,
}

/// The memory of one container's restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    policy: RestartPolicy,
    pace: RestartPace,
    delay: Duration,
    restarts: u32,
}

/// How a container's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The exit code.
    pub code: i32,
    /// How long it lasted.
    pub lasted: Duration,
    /// Whether somebody stopped it.
    pub stopped: bool,
}

/// What becomes of an ended container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is started again after this long.
    Again(Duration),
    /// It stays as it is.
    Stay,
}

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run this long was a success: the next failure begins anew.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

// === impl Backoff ===

impl Backoff {
    /// The memory of a container that was just started by hand.
    pub fn new(policy: RestartPolicy, pace: RestartPace) -> Self {
        Self { policy, pace, delay: Duration::ZERO, restarts: 0 }
    }

    /// From now on this policy holds; what happened so far is not forgotten.
    pub fn set_policy(&mut self, policy: RestartPolicy, pace: RestartPace) {
        (self.policy, self.pace) = (policy, pace);
    }

    /// Decides after a run.
    pub fn ended(&mut self, run: Run) -> Verdict {
        if self.pace.window.is_some_and(|window| run.lasted >= window.0) {
            self.restarts = 0;
        }
        let wanted = match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(limit) => run.code != 0 && (limit == 0 || self.restarts < limit),
        };
        let exhausted = self.pace.attempts > 0 && self.restarts >= self.pace.attempts;
        if run.stopped || !wanted || exhausted {
            return Verdict::Stay;
        }
        let fresh = self.delay.is_zero() || run.lasted >= LONG_ENOUGH;
        self.delay = if fresh { FIRST_DELAY } else { (self.delay * 2).min(LONGEST_DELAY) };
        self.restarts += 1;
        Verdict::Again(self.pace.delay.map_or(self.delay, |delay| delay.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(code: i32, seconds: u64) -> Run {
        Run { code, lasted: Duration::from_secs(seconds), stopped: false }
    }

    fn again(millis: u64) -> Verdict {
        Verdict::Again(Duration::from_millis(millis))
    }

    #[test]
    fn each_policy_decides_as_docker_says() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        for (policy, code, stopped, expected) in [
            (No, 1, false, Verdict::Stay),
            (Always, 0, false, again(100)),
            (Always, 0, true, Verdict::Stay),
            (UnlessStopped, 1, false, again(100)),
            (UnlessStopped, 1, true, Verdict::Stay),
            (OnFailure(0), 0, false, Verdict::Stay),
            (OnFailure(0), 1, false, again(100)),
            (OnFailure(2), 137, false, again(100)),
            (OnFailure(2), 137, true, Verdict::Stay),
        ] {
            let verdict = Backoff::new(policy, RestartPace::default()).ended(Run {
                code,
                lasted: Duration::ZERO,
                stopped,
            });
            assert_eq!(verdict, expected, "{policy} after {code}, stopped: {stopped}");
        }
    }

    #[test]
    fn the_delay_doubles_to_a_minute_and_a_long_run_resets_it() {
        let mut backoff = Backoff::new(RestartPolicy::Always, RestartPace::default());
        for millis in [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000] {
            assert_eq!(backoff.ended(run(1, 9)), again(millis));
        }
        assert_eq!(backoff.ended(run(1, 10)), again(100));
        assert_eq!(backoff.ended(run(1, 0)), again(200));
    }

    #[test]
    fn on_failure_gives_up() {
        let mut backoff = Backoff::new(RestartPolicy::OnFailure(2), RestartPace::default());
        assert_eq!(backoff.ended(run(1, 0)), again(100));
        assert_eq!(backoff.ended(run(1, 0)), again(200));
        assert_eq!(backoff.ended(run(1, 0)), Verdict::Stay);
    }

    #[test]
    fn a_pace_says_how_long_after_an_end_and_how_often_in_a_row() {
        let seconds = |seconds| Some(Span(Duration::from_secs(seconds)));
        let pace = RestartPace { delay: seconds(3), attempts: 2, window: seconds(60) };
        let mut backoff = Backoff::new(RestartPolicy::Always, pace);
        assert_eq!(backoff.ended(run(0, 0)), again(3_000));
        assert_eq!(backoff.ended(run(1, 59)), again(3_000));
        assert_eq!(backoff.clone().ended(run(1, 59)), Verdict::Stay);
        assert_eq!(backoff.ended(run(1, 60)), again(3_000));
        assert_eq!(backoff.ended(run(1, 0)), again(3_000));
        assert_eq!(backoff.ended(run(1, 0)), Verdict::Stay);
    }
}
