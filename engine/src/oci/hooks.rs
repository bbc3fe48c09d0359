//! Programs of others that run at the turns of a container's life, with its state on their standard input
//! (runtime-spec, config.md, "POSIX-platform Hooks").

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};
use serde_json::Value;

use super::config::{Hook, Hooks};
use super::listener;
use super::state::{Record, Status, birth};
use crate::container::end::ended_within;
use crate::container::launch::Links;
use crate::error::{Error, Result};
use crate::network;
use crate::paths::RuntimeRoot;

/// The hooks of a launch, in the places where a container of the engine gets its network: outside, with the
/// namespaces there and everything mounted; inside, before the pivot; and right before the program.
pub(super) struct LaunchHooks<'a> {
    pub(super) root: &'a RuntimeRoot,
    pub(super) record: &'a mut Record,
    pub(super) hooks: &'a Hooks,
    /// Whether the network namespace is a new one, whose loopback is down.
    pub(super) own_network: bool,
    /// The state as the inside hears of it.
    pub(super) heard: RefCell<Value>,
}

// === impl LaunchHooks ===

impl Links for LaunchHooks<'_> {
    fn outside(&mut self, pid: Pid) -> Result<Vec<u8>> {
        let pid = pid.as_raw_nonzero().get();
        self.record.pid = pid;
        self.record.birth = birth(pid).unwrap_or(0);
        self.record.write(self.root)?;
        let state = self.record.for_hook(Status::Creating);
        run_all("prestart", &self.hooks.prestart, &state)?;
        run_all("createRuntime", &self.hooks.create_runtime, &state)?;
        serde_json::to_vec(&pid).map_err(|error| Error::failed("describe the process", error))
    }

    fn inside(&self, message: &[u8]) -> Result<Vec<OwnedFd>> {
        let pid: Value = serde_json::from_slice(message)
            .map_err(|error| Error::failed("understand the process's number", error))?;
        if self.own_network {
            network::configure_inside(&[])?;
        }
        let mut state = self.record.for_hook(Status::Creating);
        if let Some(state) = state.as_object_mut() {
            state.insert("pid".to_owned(), pid);
        }
        run_all("createContainer", &self.hooks.create_container, &state)?;
        *self.heard.borrow_mut() = state;
        Ok(Vec::new())
    }

    fn after_mounts(&self) -> bool {
        !self.hooks.prestart.is_empty() || !self.hooks.create_runtime.is_empty()
    }

    fn listen(&mut self, pid: Pid, listener: OwnedFd) -> Result<()> {
        listener::hand_over(self.record, Status::Creating, pid.as_raw_nonzero().get(), &listener)
    }

    fn before_program(&self) -> Result<()> {
        let mut state = self.heard.borrow_mut();
        if let Some(state) = state.as_object_mut() {
            state.insert("status".to_owned(), Value::String(Status::Created.word().to_owned()));
        }
        run_all("startContainer", &self.hooks.start_container, &state)
    }
}

/// Runs hooks in their order; the first one that fails ends it.
///
/// # Errors
/// Names the hook.
pub(super) fn run_all(kind: &str, hooks: &[Hook], state: &Value) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run(hook, state)
            .map_err(|error| Error::failed(format!("error running {kind} hook #{index}"), error))?;
    }
    Ok(())
}

/// Runs hooks that come too late to stop anything: what fails is said.
pub(super) fn run_regardless(kind: &str, hooks: &[Hook], state: &Value, warnings: &mut Vec<String>) {
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(error) = run(hook, state) {
            warnings.push(format!("error running {kind} hook #{index}: {}", crate::error::chain(&error)));
        }
    }
}

fn run(hook: &Hook, state: &Value) -> Result<()> {
    let path = hook.path.display();
    if !hook.path.is_absolute() {
        return Err(Error::invalid(format!("the path of the hook {path} is not absolute")));
    }
    let failed = |step: &str| {
        let step = format!("{step} the hook {path}");
        move |error: io::Error| Error::failed(step, error)
    };
    let mut input = file_in_memory().map_err(failed("prepare"))?;
    input.write_all(state.to_string().as_bytes()).and_then(|()| input.rewind()).map_err(failed("prepare"))?;
    let mut output = file_in_memory().map_err(failed("prepare"))?;
    let mut command = Command::new(&hook.path);
    let (name, arguments) =
        hook.args.split_first().map_or((None, &[][..]), |(name, rest)| (Some(name), rest));
    if let Some(name) = name {
        command.arg0(name);
    }
    command.args(arguments).env_clear();
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    let shared = || output.try_clone().map(Stdio::from);
    command
        .stdin(input)
        .stdout(shared().map_err(failed("prepare"))?)
        .stderr(shared().map_err(failed("prepare"))?);
    let mut child = command.spawn().map_err(failed("start"))?;
    let in_time = ended_in_time(&child, hook.timeout).map_err(failed("wait for"))?;
    if !in_time {
        // It may have ended in this very moment.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed("wait for"))?;
    if !in_time {
        let limit = hook.timeout.unwrap_or_default();
        return Err(Error::conflict(format!("the hook {path} did not end within {limit} s")));
    }
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    // Without its words its status is still known.
    let _ = output.rewind().and_then(|()| output.read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(Error::conflict(format!("the hook {path} ended with {status}: {said}")))
}

/// A file without a name, which holds whatever is written however late it is read.
fn file_in_memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC)?.into())
}

/// Waits for its end, unless there is no hurry; whether it came in time.
fn ended_in_time(child: &Child, seconds: Option<u64>) -> io::Result<bool> {
    let Some(seconds) = seconds else { return Ok(true) };
    let process = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    ended_within(process.as_fd(), Duration::from_secs(seconds))
}
