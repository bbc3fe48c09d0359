//! Text that is never shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A password, a passphrase or a private key. It has no `Display`, and its `Debug` says nothing; it is written down only for
/// a process of ours that needs it, over a pipe.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(String);

// === impl Secret ===

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who has to be told.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this value gives the secret away.
    pub(super) fn is_in(&self, value: &str) -> bool {
        let secret = self.0.trim();
        !secret.is_empty() && value.contains(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(Secret(…))");
    }

    #[test]
    fn an_empty_secret_is_in_nothing() {
        assert!(!Secret::new("\n").is_in("a\nb") && Secret::new("ab").is_in("cabin"));
    }
}
