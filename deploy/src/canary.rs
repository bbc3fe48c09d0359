//! A part of the new connections for the new release, for a while, before it gets all of them.

use std::fmt;
use std::str::FromStr;

use engine::network::Draw;
use engine::quantity::{ParseQuantityError, Percent, Span};
use serde::{Deserialize, Deserializer, de};

/// So many of a hundred new connections, for so long: `10%,5m`; by who connects: `10%,5m,sticky`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanaryStep {
    /// How many of a hundred new connections to published ports go to the new containers.
    pub percent: Percent,
    /// Which ones these are.
    pub draw: Draw,
    /// How long they have to do well.
    pub time: Span,
}

/// Why a text is no step of a canary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCanaryError {
    /// There is no comma.
    #[error("{0:?} is no canary: a percentage and a time are needed, as in 10%,5m")]
    Form(String),
    /// There is a second comma, and something else behind it.
    #[error("{0:?} in a canary: what may follow the time is sticky, as in 10%,5m,sticky")]
    Draw(String),
    /// One of the two is wrong.
    #[error(transparent)]
    Quantity(#[from] ParseQuantityError),
}

/// What makes the same caller get the same release.
const STICKY: &str = "sticky";

// === impl CanaryStep ===

impl FromStr for CanaryStep {
    type Err = ParseCanaryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (percent, rest) = text.split_once(',').ok_or_else(|| ParseCanaryError::Form(text.to_owned()))?;
        let (time, draw) = match rest.split_once(',') {
            None => (rest, Draw::Connection),
            Some((time, STICKY)) => (time, Draw::Sender),
            Some((_, other)) => return Err(ParseCanaryError::Draw(other.to_owned())),
        };
        Ok(Self { percent: percent.parse()?, draw, time: time.parse()? })
    }
}

impl fmt::Display for CanaryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = match self.draw {
            Draw::Connection => "the new connections",
            Draw::Sender => "the addresses that connect",
        };
        write!(f, "{} of {whole} for {}", self.percent, self.time)
    }
}

impl<'de> Deserialize<'de> for CanaryStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_percentage_and_a_time() {
        let step: CanaryStep = "10%,5m".parse().unwrap();
        assert_eq!(step.to_string(), "10% of the new connections for 5m0s");
        let step: CanaryStep = "10%,5m,sticky".parse().unwrap();
        assert_eq!(step.to_string(), "10% of the addresses that connect for 5m0s");
        for (text, part) in [
            ("10%", "10%,5m"),
            ("10,5m", "percentage"),
            ("0%,5m", "percentage"),
            ("10%,5", "duration"),
            ("10%,5m,sticki", "10%,5m,sticky"),
        ] {
            let error = text.parse::<CanaryStep>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
