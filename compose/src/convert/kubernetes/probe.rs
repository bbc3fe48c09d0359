//! A health check as probes.
//!
//! Docker marks a container unhealthy and leaves it; a cluster takes it out of its Service (readiness) and starts it
//! again (liveness). The start period is a startup probe of its own: failures count only when it is over.

use engine::quantity::Span;
use serde_json::{Value as Json, json};

use crate::convert::losses::Losses;
use crate::model::{HealthCheck, Service};

/// The probes of a service by their fields.
pub(super) fn probes(service: &Service, losses: &mut Losses<'_>) -> Vec<(&'static str, Json)> {
    let Some(check) = &service.healthcheck else { return Vec::new() };
    let Some(command) = command(check) else {
        if check.test.is_empty() && !check.disable {
            let why = "the check is the image's, which a cluster does not read: write `test` down";
            losses.of_service(&service.name, &["healthcheck"], why);
        }
        return Vec::new();
    };
    let times = [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start_period", check.start_period),
        ("start_interval", check.start_interval),
    ];
    for (key, time) in times {
        if time.is_some_and(|time| time.0.subsec_nanos() > 0) {
            let why = "a cluster counts whole seconds, and the time is rounded up";
            losses.of_service(&service.name, &["healthcheck", key], why);
        }
    }
    let probe = |period: i64, failures: i64| {
        json!({
            "exec": { "command": command },
            "periodSeconds": period,
            "timeoutSeconds": seconds(check.timeout, 30),
            "failureThreshold": failures,
        })
    };
    let retries = check.retries.filter(|retries| *retries > 0).map_or(3, i64::from);
    let usual = probe(seconds(check.interval, 30), retries);
    let mut all = vec![("livenessProbe", usual.clone()), ("readinessProbe", usual)];
    if let Some(period) = check.start_period.filter(|period| !period.0.is_zero()) {
        let interval = seconds(check.start_interval, 5);
        let tries = (seconds_up(period) + interval - 1) / interval;
        all.push(("startupProbe", probe(interval, tries + retries)));
    }
    all
}

fn command(check: &HealthCheck) -> Option<Vec<String>> {
    if check.disable {
        return None;
    }
    match check.test.split_first()? {
        (kind, words) if kind == "CMD" && !words.is_empty() => Some(words.to_vec()),
        (kind, [line, ..]) if kind == "CMD-SHELL" => {
            Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()])
        }
        _ => None,
    }
}

/// A time in whole seconds, at least one.
fn seconds(time: Option<Span>, default: i64) -> i64 {
    time.filter(|time| !time.0.is_zero()).map_or(default, |time| seconds_up(time).max(1))
}

/// A time in whole seconds, rounded up.
pub(super) fn seconds_up(time: Span) -> i64 {
    time.0.as_secs_f64().ceil() as i64
}
