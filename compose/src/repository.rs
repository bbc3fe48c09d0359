//! A project's files in a git repository, as docker compose reads them: `REPOSITORY[#REF[:PATH]]` in `-f`,
//! `COMPOSE_FILE`, `include` and `extends.file`.

use std::io;
use std::path::{Path, PathBuf};

use engine::builder::{Fetched, NamedBy, fetch_repository, is_repository, shown};
use engine::error::{Error, Kind, Result};
use engine::quantity::truth;

use crate::discover::NAMES;

/// The variable that forbids it.
const ALLOWED: &str = "COMPOSE_EXPERIMENTAL_GIT_REMOTE";

/// Whether a file is to come from somewhere else by git.
///
/// # Errors
/// When it is an address of something that is no repository, or git is forbidden.
pub fn is_remote(file: &str) -> Result<bool> {
    let is_http = file.starts_with("https://") || file.starts_with("http://");
    if !is_repository(file) {
        let refused = Error::new(Kind::Unsupported, format!("{} is no git repository", shown(file)))
            .with_hint("the path of one ends with .git: https://example.com/shop.git#main:deploy");
        return if is_http { Err(refused) } else { Ok(false) };
    }
    // A file of such a name is a file.
    if !file.contains("://") && Path::new(file).exists() {
        return Ok(false);
    }
    allowed("git", ALLOWED).map(|()| true)
}

/// Refuses a kind of remote file that a variable forbids.
pub(crate) fn allowed(kind: &str, variable: &str) -> Result<()> {
    let said = std::env::var(variable).unwrap_or_default();
    if said.is_empty() || truth(&said) == Some(true) {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, format!("{kind} remote resource is disabled by {variable:?}")))
}

/// Fetches the files and gives the one to load. A project that names itself nowhere is called after the directory that
/// was asked for, or else after the repository.
///
/// # Errors
/// When they cannot be had, or there is no compose file among them.
pub fn fetch(address: &str, cache: &Path, by: NamedBy) -> Result<PathBuf> {
    let fetched = fetch_repository(cache, address, by)?;
    let failed = |error| Error::failed(format!("keep the files of {}", shown(address)), error);
    let named = under_its_name(&fetched).map_err(failed)?;
    let inner = fetched.wanted.strip_prefix(&fetched.top).unwrap_or(Path::new(""));
    let wanted = if inner.as_os_str().is_empty() { named } else { named.join(inner) };
    if !wanted.is_dir() {
        return Ok(wanted);
    }
    let there = NAMES.map(|name| wanted.join(name));
    // A link of the repository must not lead out of it.
    let is_inside = |file: &PathBuf| {
        file.is_file() && file.canonicalize().is_ok_and(|file| file.starts_with(&fetched.top))
    };
    there.into_iter().find(is_inside).ok_or_else(|| {
        Error::not_found(format!("{} has no compose file", shown(address))).with_hint(format!(
            "looked for {}; the directory is named behind the reference: #main:deploy",
            NAMES.join(", ")
        ))
    })
}

/// The directory of a commit under the name of its repository, as the kept one is called after the commit.
fn under_its_name(fetched: &Fetched) -> io::Result<PathBuf> {
    let Some((commit, room)) = fetched.top.file_name().zip(fetched.top.parent().and_then(Path::parent))
    else {
        return Ok(fetched.top.clone());
    };
    let directory = room.join("named").join(commit);
    std::fs::create_dir_all(&directory)?;
    let link = directory.join(&fetched.name);
    match std::os::unix::fs::symlink(&fetched.top, &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(link),
    }
}
