//! Calls that a container's filter hands to somebody else: who that is gets the filter's listener with the process's
//! state (runtime-spec, config-linux.md, "The Container Process State").

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::Pid;
use serde_json::{Value, json};

use super::console;
use super::state::{Record, Status, VERSION};
use crate::container::capabilities::CapabilitySet;
use crate::container::launch::Links;
use crate::container::seccomp;
use crate::error::{Error, Result};
use crate::sys::process::NEW_LISTENER;

/// Whoever answers calls, and what it is told besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    socket: PathBuf,
    metadata: String,
}

/// A second process of a container, whose filter may have a listener, too.
pub(super) struct ExecListener<'a> {
    pub(super) record: &'a Record,
    pub(super) status: Status,
}

/// The filter of a profile, and the flag that it needs when it asks somebody.
pub(super) fn compile(profile: &Value, capabilities: CapabilitySet) -> Result<(Vec<libc::sock_filter>, u32)> {
    let text = profile.to_string();
    if Listener::of(profile).is_none() {
        let kept = crate::container::spec::Seccomp::Profile(text);
        return Ok((seccomp::compile(&kept, capabilities)?.unwrap_or_default(), 0));
    }
    let (program, asks) = seccomp::compile_for_listener(&text, capabilities)?;
    Ok((program, if asks { NEW_LISTENER } else { 0 }))
}

/// Hands the listener of a process of this container over to whoever its profile names.
pub(super) fn hand_over(record: &Record, status: Status, pid: i32, listener: &OwnedFd) -> Result<()> {
    let profile = record.config.pointer("/linux/seccomp").unwrap_or(&Value::Null);
    let Some(Listener { socket, metadata }) = Listener::of(profile) else {
        return Err(Error::invalid("linux.seccomp.listenerPath is missing"));
    };
    let message = json!({
        "ociVersion": VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": metadata,
        "state": record.for_hook(status),
    });
    console::send_descriptor(&socket, listener.as_fd(), message.to_string().as_bytes()).map_err(|error| {
        Error::failed(format!("send the listener to {}", socket.display()), io::Error::from(error))
    })
}

// === impl Listener ===

impl Listener {
    fn of(profile: &Value) -> Option<Self> {
        let text = |key: &str| profile.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let socket = Some(text("listenerPath")).filter(|path| !path.is_empty())?;
        Some(Self { socket: socket.into(), metadata: text("listenerMetadata") })
    }
}

// === impl Links ===

impl Links for ExecListener<'_> {
    fn outside(&mut self, _pid: Pid) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn inside(&self, _message: &[u8]) -> Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn listen(&mut self, pid: Pid, listener: OwnedFd) -> Result<()> {
        hand_over(self.record, self.status, pid.as_raw_nonzero().get(), &listener)
    }
}
