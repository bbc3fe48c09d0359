//! Moments as `--since` and `--until` take them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::error::Error;
use crate::quantity::Span;

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid time {0:?}: write 2026-01-31T12:00:00Z, seconds since 1970, or how long ago as in 10m")]
pub struct ParseMomentError(String);

/// The moment a text names: RFC 3339 with or without time and zone (UTC then), seconds since 1970 with an optional
/// fraction, or a duration before now.
///
/// # Errors
/// When it is none of these.
pub fn parse_moment(text: &str) -> Result<Timestamp, ParseMomentError> {
    moment(text, Timestamp::now()).ok_or_else(|| ParseMomentError(text.to_owned()))
}

fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    if let Some(timestamp) = since_epoch(text) {
        return Some(timestamp);
    }
    if let Ok(span) = text.parse::<Span>() {
        return now.checked_sub(span.0).ok();
    }
    Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()
}

fn since_epoch(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::from_second(seconds.parse().ok()?)
        .ok()?
        .checked_add(Duration::from_nanos(u64::from(nanos)))
        .ok()
}

impl From<ParseMomentError> for Error {
    fn from(error: ParseMomentError) -> Self {
        Self::invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_many_ways() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
            ("2026-01-31T10:00:00.5+02:00", "2026-01-31T08:00:00.5Z"),
            ("2026-01-31T10:00:00", "2026-01-31T10:00:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("1769853600", "2026-01-31T10:00:00Z"),
            ("1769853600.25", "2026-01-31T10:00:00.25Z"),
            ("10m", "2026-01-31T11:50:00Z"),
            ("1h30m", "2026-01-31T10:30:00Z"),
        ] {
            assert_eq!(moment(text, now).unwrap().to_string(), expected, "{text}");
        }
        for wrong in ["", "yesterday", "1.", "-5", "2026-13-01"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }
}
