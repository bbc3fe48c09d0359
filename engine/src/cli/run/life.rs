//! How a container lives and ends: restarts, signals, health, logs.

use clap::Args;

use super::process::pairs;
use crate::container::logs;
use crate::container::merge::probe_command;
use crate::container::spec::{ContainerSpec, Grace, HealthCheck, HealthTiming, LogSpec, RestartPolicy};
use crate::error::{Error, Result};
use crate::quantity::Span;
use crate::signal::Signal;

#[derive(Debug, Args)]
pub(super) struct LifeArgs {
    /// no, always, unless-stopped or `on-failure[:N]`
    #[arg(long, default_value = "no")]
    restart: String,
    /// Signal that asks it to end
    #[arg(long)]
    stop_signal: Option<Signal>,
    /// Seconds it may take to end; -1 for no limit
    #[arg(long)]
    stop_timeout: Option<i64>,
    /// Command that finds out its health
    #[arg(long)]
    health_cmd: Option<String>,
    /// Time between two probes
    #[arg(long)]
    health_interval: Option<Span>,
    /// How long one may take
    #[arg(long)]
    health_timeout: Option<Span>,
    /// How many in a row must fail
    #[arg(long)]
    health_retries: Option<u32>,
    /// How long failures do not count
    #[arg(long)]
    health_start_period: Option<Span>,
    /// Time between two probes in the start period
    #[arg(long)]
    health_start_interval: Option<Span>,
    /// Switch off the image's health check
    #[arg(long, conflicts_with_all = [
        "health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period",
        "health_start_interval",
    ])]
    no_healthcheck: bool,
    /// Where output goes: json-file, local or none
    #[arg(long)]
    log_driver: Option<String>,
    /// Option of the log driver: max-size=10m
    #[arg(long)]
    log_opt: Vec<String>,
}

// === impl LifeArgs ===

impl LifeArgs {
    pub(super) fn apply(self, spec: &mut ContainerSpec, warnings: &mut Vec<String>) -> Result<()> {
        spec.restart = parse_restart(&self.restart)?;
        if spec.auto_remove && spec.restart != RestartPolicy::No {
            return Err(Error::invalid("conflicting options: --restart and --rm"));
        }
        spec.stop_signal = self.stop_signal;
        spec.stop_timeout = self.stop_timeout.map(grace_of_seconds);
        spec.health_timing = self.timing()?;
        spec.healthcheck = self.healthcheck();
        let driver = self.log_driver.filter(|driver| !driver.is_empty());
        spec.log = LogSpec {
            driver: driver.unwrap_or_else(|| LogSpec::default().driver),
            options: pairs(self.log_opt),
        };
        warnings.extend(logs::check(&spec.log)?);
        Ok(())
    }

    fn timing(&self) -> Result<HealthTiming> {
        let timing = HealthTiming {
            interval: self.health_interval.filter(is_some_time),
            timeout: self.health_timeout.filter(is_some_time),
            retries: self.health_retries.filter(|retries| *retries > 0),
            start_period: self.health_start_period.filter(is_some_time),
            start_interval: self.health_start_interval.filter(is_some_time),
        };
        for (flag, span) in [
            ("--health-interval", timing.interval),
            ("--health-timeout", timing.timeout),
            ("--health-start-period", timing.start_period),
            ("--health-start-interval", timing.start_interval),
        ] {
            if span.is_some_and(|span| span.0.as_micros() < 1000) {
                return Err(Error::invalid(format!("{flag} is below 1ms")));
            }
        }
        Ok(timing)
    }

    /// The check that was asked for. Without a command of its own it is the image's, with the timing asked for.
    fn healthcheck(&self) -> Option<HealthCheck> {
        let line = self.health_cmd.clone().filter(|line| !line.is_empty());
        let test = line.map(|line| vec!["CMD-SHELL".to_owned(), line]);
        if test.is_none() && !self.no_healthcheck {
            return None;
        }
        Some(HealthCheck {
            test: test.as_deref().and_then(probe_command),
            interval: Span::seconds(30),
            timeout: Span::seconds(30),
            retries: 3,
            start_period: Span::default(),
            start_interval: Span::seconds(5),
        })
    }
}

/// A time of 0 means docker's default.
fn is_some_time(span: &Span) -> bool {
    !span.0.is_zero()
}

/// A number of seconds, or for ever when negative.
pub fn grace_of_seconds(seconds: i64) -> Grace {
    u64::try_from(seconds).map_or(Grace::Unlimited, |seconds| Grace::Limited(Span::seconds(seconds)))
}

/// `no`, `always`, `unless-stopped` or `on-failure[:N]`.
///
/// # Errors
/// When it is none of them.
pub fn parse_restart(text: &str) -> Result<RestartPolicy> {
    Ok(match text.split_once(':').unwrap_or((text, "")) {
        ("no" | "", "") => RestartPolicy::No,
        ("always", "") => RestartPolicy::Always,
        ("unless-stopped", "") => RestartPolicy::UnlessStopped,
        ("on-failure", "") => RestartPolicy::OnFailure(0),
        ("on-failure", count) => RestartPolicy::OnFailure(
            count.parse().map_err(|_| Error::invalid(format!("invalid restart count {count:?}")))?,
        ),
        _ => {
            return Err(Error::invalid(format!("invalid restart policy {text:?}"))
                .with_hint("write no, always, unless-stopped or on-failure[:N]"));
        }
    })
}
