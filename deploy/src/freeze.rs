//! A project that somebody wants left alone for a while.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Who wants nobody to change a project, and until when. It outlives connections and reboots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Who wants it.
    pub author: String,
    /// Why.
    pub message: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

// === impl Freeze ===

impl Freeze {
    /// Whether it still holds at this time.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The same from another time on. The clock of who asks for it may be off; that of who keeps it is what counts.
    pub fn beginning(self, now: Timestamp) -> Self {
        let length = |until: Timestamp| until.duration_since(self.since);
        // A time beyond the calendar is none.
        let until = self.until.and_then(|until| now.checked_add(length(until)).ok());
        Self { since: now, until, ..self }
    }
}

/// `me@laptop since 2026-01-02 03:04:05 UTC, until 2026-01-02 04:04:05 UTC: the database moves`.
impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FORMAT: &str = "%Y-%m-%d %H:%M:%S UTC";
        write!(f, "{} since {}", self.author, self.since.strftime(FORMAT))?;
        if let Some(until) = self.until {
            write!(f, ", until {}", until.strftime(FORMAT))?;
        }
        self.message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_says_who_why_and_until_when() {
        let mut freeze =
            Freeze { author: "me".to_owned(), message: None, since: Timestamp::UNIX_EPOCH, until: None };
        assert_eq!(freeze.to_string(), "me since 1970-01-01 00:00:00 UTC");
        assert!(freeze.holds_at(Timestamp::MAX));
        freeze.until = Some(Timestamp::from_second(60).unwrap());
        freeze.message = Some("the database moves".to_owned());
        assert!(freeze.to_string().ends_with("until 1970-01-01 00:01:00 UTC: the database moves"));
        assert!(!freeze.holds_at(Timestamp::from_second(60).unwrap()));
        let there = freeze.beginning(Timestamp::from_second(3600).unwrap());
        assert!(there.to_string().contains("since 1970-01-01 01:00:00 UTC, until 1970-01-01 01:01:00 UTC"));
    }
}
