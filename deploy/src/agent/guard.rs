//! A second process that waits for the end of an agent and puts right what it left. It waits for the lock that the
//! agent holds, which the kernel gives up with the agent, however that ends.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use engine::Engine;
use engine::error::{Error, Result};
use engine::store::Lock;

use super::places::Places;
use super::undo;

/// The word a guard is executed with.
pub(crate) const GUARD: &str = "guard";

/// Posts a guard for a project whose lock this process holds.
pub(crate) fn post(engine: &Engine, places: &Places, project: &str) -> Result<()> {
    let failed = |error| Error::failed("post a guard for the rollout", error);
    let log = places.run().join("guard.log");
    let log = std::fs::File::create(log).map_err(failed)?;
    // Not its path: the file there may be another one by now.
    let mut guard = Command::new("/proc/self/exe")
        .arg0("rdeploy")
        .args(["rdeploy", "agent", "--root"])
        .arg(engine.root().state())
        .args([GUARD, project])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    // Whoever collects its end: it mostly outlives this process, and otherwise has nothing to say.
    std::thread::spawn(move || drop(guard.wait()));
    Ok(())
}

/// Is the guard: waits for the lock, then puts right what is left.
pub(crate) fn stand(engine: &Engine, project: &str) -> Result<ExitCode> {
    // It must outlive the session of the client it was started for; a leader of a session already is one.
    let _ = rustix::process::setsid();
    let places = Places::of(engine.root(), project);
    let failed = |error| Error::failed(format!("wait for the end of the rollout of {project}"), error);
    let _lock = Lock::exclusive(&places.lock()).map_err(failed)?;
    undo::recover(engine, &places)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts right what rollouts of any project left, as after a reboot. Projects that somebody works on are passed over.
pub(crate) fn recover_all(engine: &Engine) -> Result<Vec<String>> {
    let mut recovered = Vec::new();
    let Ok(projects) = std::fs::read_dir(engine.root().deployments()) else { return Ok(recovered) };
    for project in projects.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let places = Places::of(engine.root(), &project);
        let lock = Lock::try_exclusive(&places.lock())
            .map_err(|error| Error::failed(format!("lock the project {project}"), error))?;
        if lock.is_some() && undo::recover(engine, &places)? {
            recovered.push(project);
        }
    }
    Ok(recovered)
}
