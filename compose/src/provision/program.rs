//! Programs that provide something: where they are found, and how they are run.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the docker command looks for programs that extend it, after the user's own (docker's cli-plugins/manager).
const PLUGINS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// The program that extends docker by `name`: `docker-<name>` in one of its directories, or on the PATH.
pub(crate) fn plugin(name: &str) -> Option<PathBuf> {
    let file = format!("docker-{name}");
    let own = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let own = own.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    let directories = own.map(|own| own.join("cli-plugins")).into_iter().chain(PLUGINS.map(PathBuf::from));
    directories
        .map(|directory| directory.join(&file))
        .find(|path| is_program(path))
        .or_else(|| on_path(&file))
}

/// A program by its name on the PATH, or by its own path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| is_program(path))
}

/// The command that runs a program with the variables of a project and without a terminal.
pub(crate) fn command(program: &Path, environment: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(program);
    command.envs(environment).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
