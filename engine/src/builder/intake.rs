//! Contexts that are not directories yet: a Dockerfile or an archive on standard input, or at an address.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::agent::Agent;
use super::copy::{Changes, Writer};
use super::git::{Access, GitAddress, check_out};
use super::stack::Stack;
use super::{DockerfileSource, Secret, archive, remote};
use crate::error::{Error, Result};
use crate::paths::Root;
use crate::store::scratch::Scratch;

/// A context as the builder reads it.
#[derive(Debug)]
pub struct Intake {
    /// The directory.
    pub directory: PathBuf,
    /// The Dockerfile, if there is nothing else to the context.
    pub dockerfile: DockerfileSource,
    /// What ends with the build.
    _held: Option<Scratch>,
}

/// What opens git repositories that are not everybody's, and what is kept of them.
#[derive(Debug, Default, Clone, Copy)]
pub struct Opening<'a> {
    /// GIT_AUTH_TOKEN and GIT_AUTH_HEADER are for servers of http.
    pub secrets: &'a [Secret],
    /// The socket of an SSH agent, or the file of a key.
    pub agent: Option<&'a Path>,
    /// Whether `.git` is part of the context.
    pub keeps_git: bool,
}

// === impl Intake ===

impl Intake {
    /// The context that a word of the command line names: a directory, `-`, or an address.
    ///
    /// # Errors
    /// When there is no such directory, or the address or repository cannot be fetched.
    pub fn take(root: &Root, source: &str, stdin: &mut dyn Read, opening: &Opening<'_>) -> Result<Self> {
        if source == "-" {
            let room = room(root)?;
            let file = room.path().join("input");
            let mut copy = || File::create(&file).and_then(|mut file| io::copy(stdin, &mut file));
            copy().map_err(|error| Error::failed("read the context from standard input", error))?;
            return Self::of_file(room, &file, "standard input");
        }
        let directory = Path::new(source);
        if directory.is_dir() {
            let (directory, dockerfile) = (directory.to_owned(), DockerfileSource::Default);
            return Ok(Self { directory, dockerfile, _held: None });
        }
        if remote::is_git(source) {
            let address = GitAddress::parse(source)?.with(opening.keeps_git.then_some(true), None)?;
            // A key needs an agent of its own. A socket is taken as it is: the one that the environment names may be gone,
            // which is no trouble to servers of http.
            let key = opening.agent.filter(|path| path.is_file());
            let own = key.map(|path| {
                let failed = |error| Error::failed(format!("use the key {}", path.display()), error);
                Agent::at(root.run(), path).map_err(failed)
            });
            let own = own.transpose()?;
            let agent = own.as_ref().map(Agent::socket).or(opening.agent);
            let access = Access { secrets: opening.secrets, agent };
            let directory = check_out(&root.build_cache(), &address, &access)?;
            return Ok(Self { directory, dockerfile: DockerfileSource::Default, _held: None });
        }
        if remote::is_http(source) {
            let cache = root.build_cache();
            let fetched = remote::fetch(&cache, source, None, None)?;
            let file = fetched.directory.join(&fetched.name);
            return Self::of_file(room(root)?, &file, &remote::shown(source));
        }
        let is_file = directory.is_file();
        let hint = if is_file {
            format!("an archive is read from standard input: `rengine build - < {source}`")
        } else {
            "the last argument is the directory that COPY reads, often a dot".to_owned()
        };
        let what = if is_file { "is not a directory" } else { "does not exist" };
        Err(Error::invalid(format!("the build context {source:?} {what}")).with_hint(hint))
    }

    /// Without any file: only the Dockerfile counts.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn empty(root: &Root) -> Result<Self> {
        let room = room(root)?;
        let directory = make(room.path())?;
        Ok(Self { directory, dockerfile: DockerfileSource::Default, _held: Some(room) })
    }

    fn of_file(room: Scratch, file: &Path, shown: &str) -> Result<Self> {
        let failed = |error: io::Error| Error::failed(format!("unpack the context from {shown}"), error);
        let directory = make(room.path())?;
        let Some(packed) = archive::open(file).map_err(failed)? else {
            let text = std::fs::read(file).map_err(failed)?;
            let dockerfile = DockerfileSource::Inline(String::from_utf8_lossy(&text).into_owned());
            return Ok(Self { directory, dockerfile, _held: Some(room) });
        };
        let unpack = || -> io::Result<()> {
            let changes = Changes { keep_owners: true, replace_directories: true, ..Changes::default() };
            let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut writer = Writer::new(&directory, &Stack::of(Vec::new()), changes, now)?;
            archive::unpack(packed, &mut writer, Path::new("/"), None)?;
            writer.finish().map(drop)
        };
        unpack().map_err(failed)?;
        Ok(Self { directory, dockerfile: DockerfileSource::Default, _held: Some(room) })
    }
}

fn room(root: &Root) -> Result<Scratch> {
    Scratch::directory(root).map_err(|error| Error::failed("make room for the build context", error))
}

fn make(room: &Path) -> Result<PathBuf> {
    let directory = room.join("files");
    let made = std::fs::create_dir(&directory);
    made.map_err(|error| Error::failed("make room for the build context", error))?;
    Ok(directory)
}
