//! Records that another version of this program may have written. Each has the number of its form in `version`; whoever
//! reads a form that came later than it says so, and touches nothing.

use std::io;
use std::path::Path;

use engine::error::{Error, Result};
use engine::store;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What every form has.
#[derive(Deserialize)]
struct Head {
    /// The first one had no number.
    #[serde(default = "first")]
    version: u32,
}

fn first() -> u32 {
    1
}

/// Reads a record of this form or an earlier one; `None` when there is none. `what` it is called in errors.
///
/// # Errors
/// When it cannot be read, or is of a later form.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, what: &str, known: u32) -> Result<Option<T>> {
    let failed = |error: io::Error| Error::failed(format!("read {what}"), error);
    let Some(record) = store::read_json::<Value>(path).map_err(failed)? else { return Ok(None) };
    let head = Head::deserialize(&record).map_err(|error| failed(error.into()))?;
    if head.version > known {
        return Err(later(what));
    }
    T::deserialize(record).map(Some).map_err(|error| failed(error.into()))
}

/// What is to be said of a record that a later version of this program wrote.
pub(crate) fn later(what: &str) -> Error {
    Error::conflict(format!("{what} was written by a later version of rdeploy, which this one does not understand"))
        .with_hint("use the version that deployed last, or a later one: `rdeploy history` and `rdeploy audit` say who did")
}
