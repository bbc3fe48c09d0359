//! Secrets that come by environment variables, taken out of the environment before anything else starts: what a
//! process was executed with is shown in `/proc/<pid>/environ`, and every child would inherit it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
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
/// What the private key for the host to go through is encrypted with.
pub const JUMP_PASSPHRASE: &str = "RDEPLOY_JUMP_PASSPHRASE";
/// The password or token for a registry.
pub const REGISTRY_PASSWORD: &str = "RDEPLOY_REGISTRY_PASSWORD";

/// All of them.
pub const NAMES: [&str; 8] = [
    SSH_KEY,
    SSH_PASSPHRASE,
    SSH_PASSWORD,
    SUDO_PASSWORD,
    JUMP_PASSWORD,
    JUMP_KEY,
    JUMP_PASSPHRASE,
    REGISTRY_PASSWORD,
];

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
    if let Some(number) = std::env::var(HANDED_OVER).ok().as_deref().and_then(meant_for_us) {
        return take(number).map_err(failed);
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
    // Executing anew keeps the process; what that one starts inherits the variable and is somebody else.
    again.env(HANDED_OVER, format!("{} {}", memory.as_raw_fd(), std::process::id()));
    Err(failed(again.exec()))
}

/// A secret that was given.
pub fn get(name: &str) -> Option<Secret> {
    TAKEN.get()?.get(name).map(Secret::new)
}

/// The number of the descriptor that was handed over to this very process.
fn meant_for_us(text: &str) -> Option<RawFd> {
    let (number, process) = text.split_once(' ')?;
    (process.parse() == Ok(std::process::id())).then(|| number.parse().ok())?
}

fn take(number: RawFd) -> io::Result<()> {
    // Closed when it has been read: no child finds it.
    let mut memory = File::from(engine::inherited_descriptor(number)?);
    let mut text = String::new();
    memory.read_to_string(&mut text)?;
    let all: BTreeMap<String, String> = serde_json::from_str(&text)?;
    // Once is enough; a second time there is nothing to take.
    let _ = TAKEN.set(all);
    Ok(())
}
