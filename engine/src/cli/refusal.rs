//! Options that are known so that they can be refused by name.

use crate::error::{Error, Kind, Result};

/// Refuses the first of the options that was asked for: whether it was, its name without the dashes, and why not.
pub(super) fn refuse(options: &[(bool, &str, &str)]) -> Result<()> {
    match options.iter().find(|(is_asked, ..)| *is_asked) {
        None => Ok(()),
        Some((_, flag, why)) => {
            Err(Error::new(Kind::Unsupported, format!("--{flag} is not supported: {why}")))
        }
    }
}
