//! Commands of the user's that run here at certain moments of a deployment.

use std::path::Path;
use std::process::Command;

use engine::error::{Error, Result};

/// What a hook learns by its environment.
#[derive(Debug, Clone)]
pub struct Moment<'a> {
    /// `before-commit`, as the settings name it.
    pub name: &'static str,
    /// The project.
    pub project: &'a str,
    /// The release.
    pub release: &'a str,
    /// The hosts.
    pub hosts: &'a str,
}

/// Runs the commands one after the other, in the project's directory.
///
/// # Errors
/// When one ends with another code than 0.
pub fn run(commands: &[String], directory: &Path, moment: &Moment<'_>) -> Result<()> {
    for command in commands {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(directory);
        shell.env("RDEPLOY_HOOK", moment.name).env("RDEPLOY_PROJECT", moment.project);
        shell.env("RDEPLOY_RELEASE", moment.release).env("RDEPLOY_HOSTS", moment.hosts);
        let status = shell
            .status()
            .map_err(|error| Error::failed(format!("run the hook {} {command:?}", moment.name), error))?;
        if !status.success() {
            return Err(Error::conflict(format!("the hook {} {command:?} ended with {status}", moment.name)));
        }
    }
    Ok(())
}
