//! What a runner reads of a step: files that it names by variables, and text that is safe within its commands.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;

use engine::error::{Error, Result};

pub(super) fn write_output(name: &str, value: &str) -> Result<()> {
    let delimiter = format!("rdeploy-{}", output_token());
    append("GITHUB_OUTPUT", &format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"))
}

pub(super) fn summarize(text: &str) -> Result<()> {
    append("GITHUB_STEP_SUMMARY", text)
}

/// Appends to one of the runner's files; outside of a runner there is none.
fn append(variable: &str, text: &str) -> Result<()> {
    let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) else { return Ok(()) };
    let failed = |error| Error::failed(format!("write {variable}"), error);
    let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// A text that nobody can have written before.
pub(super) fn output_token() -> String {
    engine::id::ContainerId::random().to_string()
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

pub(super) fn escaped_property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}
