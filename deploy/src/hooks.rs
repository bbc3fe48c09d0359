//! Commands of the user's that run here at certain moments of a deployment.

use std::io;
use std::os::fd::AsFd as _;
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
    pub hosts: String,
    /// Why the deployment failed, once it has.
    pub failure: Option<&'a str>,
}

/// Runs the commands one after the other, in the project's directory. What they write goes to standard error: standard
/// output is for data.
///
/// # Errors
/// When one ends with another code than 0.
pub fn run(commands: &[String], directory: &Path, moment: &Moment<'_>) -> Result<()> {
    for command in commands {
        let failed = |error| Error::failed(format!("run the hook {} {command:?}", moment.name), error);
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(directory);
        shell.env("RDEPLOY_HOOK", moment.name).env("RDEPLOY_PROJECT", moment.project);
        shell.env("RDEPLOY_RELEASE", moment.release).env("RDEPLOY_HOSTS", &moment.hosts);
        shell.envs(moment.failure.map(|failure| ("RDEPLOY_ERROR", failure)));
        shell.stdout(io::stderr().as_fd().try_clone_to_owned().map_err(failed)?);
        let status = shell.status().map_err(failed)?;
        if !status.success() {
            return Err(Error::conflict(format!("the hook {} {command:?} ended with {status}", moment.name)));
        }
    }
    Ok(())
}
