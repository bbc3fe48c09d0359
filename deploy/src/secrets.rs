//! Secrets that come by environment variables, taken out of the environment before anything else starts: what a
//! process was executed with is shown in `/proc/<pid>/environ`, and every child would inherit it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;

use engine::error::{Error, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::ssh::Secret;

/// The private key itself.
pub const SSH_KEY: &str = "RDEPLOY_SSH_KEY";
/// What the private key is encrypted with.
pub const SSH_PASSPHRASE: &str = "RDEPLOY_SSH_PASSPHRASE";
/// The password of the user on the hosts.
pub const SSH_PASSWORD: &str = "RDEPLOY_SSH_PASSWORD";
/// The password for `sudo` there.
pub const SUDO_PASSWORD: &str = "RDEPLOY_SUDO_PASSWORD";
/// The password of the host to go through.
pub const JUMP_PASSWORD: &str = "RDEPLOY_JUMP_PASSWORD";
/// The private key for the host to go through.
pub const JUMP_KEY: &str = "RDEPLOY_JUMP_KEY";
/// The password or token for a registry.
pub const REGISTRY_PASSWORD: &str = "RDEPLOY_REGISTRY_PASSWORD";

/// All of them.
pub const NAMES: [&str; 7] =
    [SSH_KEY, SSH_PASSPHRASE, SSH_PASSWORD, SUDO_PASSWORD, JUMP_PASSWORD, JUMP_KEY, REGISTRY_PASSWORD];

/// Where the executable that follows finds them.
const HANDED_OVER: &str = "RDEPLOY_SECRETS_FD";

static TAKEN: OnceLock<BTreeMap<String, String>> = OnceLock::new();

/// Executes this program once more without the secrets in its environment, if there are any. To be called while the
/// process has one thread.
///
/// # Errors
/// When the system refuses a step.
pub fn hide() -> Result<()> {
    let failed = |error: io::Error| Error::failed("take the secrets out of the environment", error);
    if let Some(number) = std::env::var_os(HANDED_OVER) {
        return take(&number).map_err(failed);
    }
    let found: BTreeMap<&str, String> = NAMES
        .into_iter()
        .filter_map(|name| Some((name, std::env::var(name).ok().filter(|value| !value.is_empty())?)))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let memory = memfd_create("secrets", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut memory = File::from(memory);
    let text = serde_json::to_vec(&found).map_err(|error| failed(error.into()))?;
    memory.write_all(&text).and_then(|()| memory.rewind()).map_err(failed)?;
    fcntl_setfd(&memory, FdFlags::empty()).map_err(|error| failed(error.into()))?;
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    again.arg0(arguments.next().unwrap_or_default()).args(arguments);
    for name in NAMES {
        again.env_remove(name);
    }
    again.env(HANDED_OVER, memory.as_raw_fd().to_string());
    Err(failed(again.exec()))
}

/// A secret that was given.
pub fn get(name: &str) -> Option<Secret> {
    TAKEN.get()?.get(name).map(Secret::new)
}

fn take(number: &OsString) -> io::Result<()> {
    let number = number.to_str().and_then(|text| text.parse().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    // Closed when it has been read: no child finds it.
    let mut memory = File::from(engine::inherited_descriptor(number)?);
    let mut text = String::new();
    memory.read_to_string(&mut text)?;
    let all: BTreeMap<String, String> = serde_json::from_str(&text)?;
    // Once is enough; a second time there is nothing to take.
    let _ = TAKEN.set(all);
    Ok(())
}
