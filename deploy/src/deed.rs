//! What somebody did to a project on a host, as its audit trail has it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One line of a project's audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When it was begun, by the host's clock.
    pub at: Timestamp,
    /// Who did it, as the client says: `name@machine`.
    pub author: String,
    /// Where the client came from, as the host saw it; `None` on the host itself.
    pub from: Option<Caller>,
    /// What was done: the command with its services.
    pub what: String,
}

/// Who logged in to a host by SSH, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user of the host.
    pub user: String,
    /// The address that the SSH server saw.
    pub address: String,
}

// === impl Caller ===

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.address)
    }
}
