//! Leaving a host for good: when nobody has anything in the engine there any more, what was brought goes, too.

use std::fs;
use std::io;
use std::path::Path;

use engine::Engine;
use engine::error::{Error, Result};
use engine::paths::MACHINE_LOCK;
use engine::store::{self, Lock};

use super::places::Places;
use super::setup;

/// Takes the engine away from the host, and says whether it did: not where somebody else put it there, and not while
/// anything of anybody is in it. Whoever calls holds the lock of the project that has just gone.
pub(crate) fn leave(engine: &Engine, project: &str) -> Result<bool> {
    let state = engine.root().state();
    let program = std::env::current_exe().map_err(|error| Error::failed("find this executable", error))?;
    if !program.starts_with(state) || !is_empty(engine)? {
        return Ok(false);
    }
    // Whoever begins with another project meanwhile has its lock, or waits for it and then finds no engine.
    let Some(_locks) = other_projects(engine, project)? else { return Ok(false) };
    let failed = |error| Error::failed(format!("remove {}", state.display()), error);
    setup::take_back(engine, &program)?;
    engine.down()?;
    for entry in fs::read_dir(state).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let removed = if path.is_dir() { store::remove_tree(&path) } else { store::remove_file(&path) };
        removed.map_err(failed)?;
    }
    // The directory itself may be where a disk is mounted.
    match fs::remove_dir(state) {
        Err(error) if error.kind() != io::ErrorKind::ResourceBusy => Err(failed(error)),
        _ => forget_machine(),
    }
    .map(|()| true)
}

fn is_empty(engine: &Engine) -> Result<bool> {
    Ok(engine.containers()?.is_empty()
        && engine.images().list()?.is_empty()
        && engine.volumes().list()?.is_empty()
        && engine.networks().list()?.iter().all(|network| network.is_builtin()))
}

/// The locks of all other projects; `None` when one of them is there, or about to be.
fn other_projects(engine: &Engine, project: &str) -> Result<Option<Vec<Lock>>> {
    let failed = |error| Error::failed("look for other projects", error);
    let mut locks = Vec::new();
    for entry in fs::read_dir(engine.root().deployments()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let places = Places::of(engine.root(), &entry.file_name().to_string_lossy());
        let left = fs::read_dir(places.state()).map_err(failed)?.flatten();
        if left.map(|entry| entry.path()).any(|path| path != places.lock()) {
            return Ok(None);
        }
        if entry.file_name() != project {
            let Some(lock) = Lock::try_exclusive(&places.lock()).map_err(failed)? else { return Ok(None) };
            locks.push(lock);
        }
    }
    Ok(Some(locks))
}

/// The lock of all engines of the machine goes with the last of them.
fn forget_machine() -> Result<()> {
    let lock = Path::new(MACHINE_LOCK);
    let failed = |error| Error::failed(format!("remove {}", lock.display()), error);
    let name = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let (Some(directory), Some(prefix)) = (lock.parent(), name(lock)) else { return Ok(()) };
    let is_engine = |entry: &fs::DirEntry| {
        entry.path() != lock && entry.file_name().to_string_lossy().starts_with(&prefix)
    };
    if fs::read_dir(directory).map_err(failed)?.flatten().any(|entry| is_engine(&entry)) {
        return Ok(());
    }
    store::remove_file(lock).map_err(failed)
}
