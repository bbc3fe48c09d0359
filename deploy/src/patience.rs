//! How long somebody waits for what takes its time: never no time at all.

use std::str::FromStr;
use std::time::Duration;

use engine::quantity::Span;
use serde::Deserialize;

/// How long a new container may take until it is ready: `30s`, `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Patience(Duration);

// === impl Patience ===

impl Patience {
    /// The time.
    pub fn time(self) -> Duration {
        self.0
    }
}

impl FromStr for Patience {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Span(time) =
            text.parse().map_err(|error: engine::quantity::ParseQuantityError| error.to_string())?;
        if time.is_zero() {
            Err("nothing is ready in no time: 30s is usual".to_owned())
        } else {
            Ok(Self(time))
        }
    }
}

impl TryFrom<String> for Patience {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
