//! When a container is probed and what the probes amount to. Pure: it is told the time and what a probe said.
//!
//! With nobody waiting, the schedule is docker's. While somebody waits for the verdict, the first probe runs at once
//! and the next ones after 10 ms, 20 ms, … up to the configured interval. Good news comes early that way. Bad news does not:
//! a failure counts against the retries once per configured interval only.

use std::time::{Duration, Instant};

use crate::container::spec::HealthCheck;
use crate::container::state::{Health, HealthStatus, Probe};
use crate::quantity::Span;

/// The probing of one container, from its start to its end.
#[derive(Debug, Clone)]
pub struct Checkup {
    check: HealthCheck,
    started: Instant,
    health: Health,
    next: Option<Instant>,
    regular: Instant,
    eager: Option<Duration>,
    watched: bool,
}

/// Whether a probe changed the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Changed,
    /// It did not.
    Same,
}

/// How many bytes of a probe's output are kept.
pub const OUTPUT_KEPT: usize = 4096;
const PROBES_KEPT: usize = 5;
const FIRST_EAGER: Duration = Duration::from_millis(10);

// === impl Checkup ===

impl Checkup {
    /// The probing of a container that started now. Zeroes in the check mean docker's defaults.
    pub fn new(check: &HealthCheck, now: Instant) -> Self {
        let or = |span: Span, seconds| if span.0.is_zero() { Span::seconds(seconds) } else { span };
        let check = HealthCheck {
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 30),
            start_interval: or(check.start_interval, 5),
            retries: if check.retries == 0 { 3 } else { check.retries },
            ..check.clone()
        };
        let health = Health { status: HealthStatus::Starting, failing_streak: 0, log: Vec::new() };
        let mut checkup =
            Self { check, started: now, health, next: None, regular: now, eager: None, watched: false };
        checkup.regular = now + checkup.interval(now);
        checkup.next = Some(checkup.regular);
        checkup
    }

    /// What the probes amount to so far.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// How long one probe may take.
    pub fn timeout(&self) -> Duration {
        self.check.timeout.0
    }

    /// When the next probe is due; `None` while one runs.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Somebody waits for the verdict from now on, or nobody does any more.
    pub fn watch(&mut self, watched: bool, now: Instant) {
        if watched == self.watched {
            return;
        }
        self.watched = watched;
        if watched && self.health.status != HealthStatus::Healthy {
            self.eager = Some(FIRST_EAGER);
            self.next = self.next.map(|_| now);
        } else if !watched {
            self.eager = None;
            self.next = self.next.map(|_| self.regular.max(now));
        }
    }

    /// A probe begins.
    pub fn begin(&mut self) {
        self.next = None;
    }

    /// A probe that was begun could not be finished, and says nothing.
    pub fn abandon(&mut self, now: Instant) {
        self.plan(now);
    }

    /// A probe said this.
    pub fn probed(&mut self, probe: Probe, now: Instant) -> Verdict {
        let before = self.health.status;
        let succeeded = probe.exit_code == 0;
        self.health.log.push(probe);
        let surplus = self.health.log.len().saturating_sub(PROBES_KEPT);
        self.health.log.drain(..surplus);
        let regular = now >= self.regular;
        if succeeded {
            self.health.failing_streak = 0;
            self.health.status = HealthStatus::Healthy;
            self.eager = None;
        } else if regular && !self.forgiven(now) {
            self.health.failing_streak += 1;
            if self.health.failing_streak >= self.check.retries {
                self.health.status = HealthStatus::Unhealthy;
            }
        }
        if regular || succeeded {
            self.regular = now + self.interval(now);
        }
        self.plan(now);
        if before == self.health.status { Verdict::Same } else { Verdict::Changed }
    }

    /// Puts the next probe where the schedule wants it.
    fn plan(&mut self, now: Instant) {
        self.regular = self.regular.max(now);
        self.next = Some(match self.eager {
            Some(step) => {
                self.eager = Some((step * 2).min(self.check.interval.0));
                self.regular.min(now + step)
            }
            None => self.regular,
        });
    }

    /// The time between two probes. The start period has its own until the first success.
    fn interval(&self, now: Instant) -> Duration {
        if self.forgiven(now) { self.check.start_interval.0 } else { self.check.interval.0 }
    }

    /// Whether failures do not count yet.
    fn forgiven(&self, now: Instant) -> bool {
        self.health.status == HealthStatus::Starting
            && now.duration_since(self.started) < self.check.start_period.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn check(interval: u64, start_period: u64, retries: u32) -> HealthCheck {
        HealthCheck {
            test: Some(vec!["true".to_owned()]),
            interval: Span(Duration::from_millis(interval)),
            timeout: Span::seconds(5),
            retries,
            start_period: Span(Duration::from_millis(start_period)),
            start_interval: Span(Duration::from_millis(interval / 4)),
        }
    }

    fn probe(exit_code: i32) -> Probe {
        let at = Timestamp::UNIX_EPOCH;
        Probe { start: at, end: at, exit_code, output: String::new() }
    }

    /// Runs probes that take no time with these exit codes and says when each ran and what was known after it.
    fn story(checkup: &mut Checkup, start: Instant, codes: &[i32]) -> Vec<(u64, String)> {
        codes
            .iter()
            .map(|code| {
                let now = checkup.next().unwrap();
                checkup.begin();
                assert_eq!(checkup.next(), None);
                checkup.probed(probe(*code), now);
                let millis = (now - start).as_millis() as u64;
                (millis, format!("{} {}", checkup.health().status, checkup.health().failing_streak))
            })
            .collect()
    }

    fn rows(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
        rows.iter().map(|(at, text)| (*at, (*text).to_owned())).collect()
    }

    #[test]
    fn with_nobody_waiting_the_schedule_is_dockers() {
        let start = Instant::now();
        let mut checkup = Checkup::new(&check(1000, 0, 2), start);
        assert_eq!(
            story(&mut checkup, start, &[0, 1, 1, 1, 0]),
            rows(&[
                (1000, "healthy 0"),
                (2000, "healthy 1"),
                (3000, "unhealthy 2"),
                (4000, "unhealthy 3"),
                (5000, "healthy 0"),
            ])
        );
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let start = Instant::now();
        let mut checkup = Checkup::new(&check(1000, 600, 1), start);
        assert_eq!(
            story(&mut checkup, start, &[1, 1, 1]),
            rows(&[(250, "starting 0"), (500, "starting 0"), (750, "unhealthy 1")])
        );
        let mut checkup = Checkup::new(&check(1000, 60_000, 1), start);
        assert_eq!(
            story(&mut checkup, start, &[1, 0, 1]),
            rows(&[(250, "starting 0"), (500, "healthy 0"), (1500, "unhealthy 1")])
        );
    }

    #[test]
    fn somebody_waiting_hears_good_news_early() {
        let start = Instant::now();
        let mut checkup = Checkup::new(&check(1000, 0, 2), start);
        checkup.watch(true, start);
        assert_eq!(
            story(&mut checkup, start, &[1, 1, 1, 0, 0]),
            rows(&[
                (0, "starting 0"),
                (10, "starting 0"),
                (30, "starting 0"),
                (70, "healthy 0"),
                (1070, "healthy 0"),
            ])
        );
    }

    #[test]
    fn somebody_waiting_does_not_hear_bad_news_early() {
        let start = Instant::now();
        let mut checkup = Checkup::new(&check(100, 0, 2), start);
        checkup.watch(true, start);
        let story = story(&mut checkup, start, &[1; 7]);
        let unhealthy = story.iter().find(|(_, text)| text.starts_with("unhealthy")).unwrap();
        assert_eq!(*unhealthy, (200, "unhealthy 2".to_owned()));
    }

    #[test]
    fn the_configured_schedule_returns_when_nobody_waits_any_more() {
        let start = Instant::now();
        let mut checkup = Checkup::new(&check(1000, 0, 2), start);
        checkup.watch(true, start);
        story(&mut checkup, start, &[1, 1]);
        checkup.watch(false, start + Duration::from_millis(11));
        assert_eq!(story(&mut checkup, start, &[1]), rows(&[(1000, "starting 1")]));
    }

    #[test]
    fn five_probes_are_remembered() {
        let start = Instant::now();
        let mut checkup = Checkup::new(&check(10, 0, 2), start);
        story(&mut checkup, start, &[1; 9]);
        assert_eq!(checkup.health().log.len(), 5);
    }
}
