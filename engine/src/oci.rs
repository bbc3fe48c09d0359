//! Containers by the runtime interface of the Open Container Initiative: a bundle on the disk, and verbs upon it. The
//! same launch as `rengine run`, entered by another door.

mod config;
mod console;
mod exec;
mod features;
mod hooks;
mod keys;
mod life;
mod limits;
mod listener;
mod mounts;
mod plan;
mod state;
mod stats;
mod template;

pub use config::Process;
pub use exec::NewProcess;
pub use features::features;
pub use life::{NewContainer, Runtime};
pub use plan::Extras;
pub use state::{Status, VERSION, View, list, state};
pub use stats::stats;
pub use template::template;

use std::ffi::OsString;

use crate::error::{Error, Result};
use crate::sys::self_exec;

/// Whether processes that lose their parent in a container without a PID namespace of its own become this one's.
///
/// # Errors
/// When the kernel refuses.
pub fn adopt_orphans(adopt: bool) -> Result<()> {
    let own = adopt.then(rustix::process::getpid);
    let done = rustix::process::set_child_subreaper(own);
    done.map_err(|error| Error::failed("become the reaper", std::io::Error::from(error)))
}

/// Goes on as this same program behind a read-only mount, with the same arguments: nothing inside a container can
/// open it for writing then (CVE-2019-5736). Returns at once when it is so already.
///
/// # Errors
/// When the program cannot be executed again.
pub fn go_behind_read_only_mount(arguments: &[OsString]) -> Result<()> {
    self_exec::again_read_only(arguments).map_err(|error| Error::failed("execute this program again", error))
}
