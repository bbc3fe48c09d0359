//! `cp`: files between a container and the host.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use clap::Args;

use crate::cli::output;
use crate::container::files::{Owner, PathKind, extract_host, pack_host};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;

/// The flags of `cp`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// Keep owners and groups when copying to the host; into a container they are always kept, by number
    #[arg(short, long)]
    pub archive: bool,
    /// Copy what a symbolic link at the source points to
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    pub quiet: bool,
    /// CONTAINER:PATH, a path, or - for a tar on standard input
    pub source: OsString,
    /// CONTAINER:PATH, a path, or - for a tar on standard output
    pub destination: OsString,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// A tar on standard input or output.
    Stream,
    Host(PathBuf),
    Container(String, PathBuf),
}

/// What is copied, as far as it decides where to.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    path: &'a Path,
    is_directory: bool,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    path: PathBuf,
    /// Whether there is something, and whether that is a directory.
    existing: Option<bool>,
}

/// The directory an archive is unpacked into, and what its top is called there.
#[derive(Debug, PartialEq, Eq)]
struct Placement {
    directory: PathBuf,
    name: OsString,
}

/// Symbolic links followed from one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Copies between a container and the host.
///
/// # Errors
/// When neither or both ends are in a container, or something cannot be read or written.
pub fn copy(engine: &Engine, args: &CopyArgs) -> Result<u8> {
    match (End::parse(&args.source), End::parse(&args.destination)) {
        (End::Container(name, path), _) | (_, End::Container(name, path)) if path.as_os_str().is_empty() => {
            Err(Error::invalid(format!("{name}: names no path in the container"))
                .with_hint(format!("write {name}:/ for all of it, ./{name}: for a file of the host")))
        }
        (End::Container(..), End::Container(..)) => {
            Err(Error::new(crate::error::Kind::Unsupported, "copying between containers is not supported")
                .with_hint("copy to the host first, or pipe one cp into another: cp a:/x - | cp - b:/"))
        }
        (End::Container(name, path), to) => {
            let id = engine.find_id(&name)?;
            copy_out(engine, args, &id, &name, &path, to)
        }
        (from, End::Container(name, path)) => {
            let id = engine.find_id(&name)?;
            copy_in(engine, args, &id, &name, from, &path)
        }
        _ => Err(Error::invalid("must specify at least one container source")
            .with_hint("write a path of a container as CONTAINER:PATH")),
    }
}

fn copy_out(
    engine: &Engine,
    args: &CopyArgs,
    id: &ContainerId,
    name: &str,
    path: &Path,
    to: End,
) -> Result<u8> {
    let missing = |path: &Path| {
        Error::not_found(format!("could not find the file {} in container {name}", path.display()))
    };
    let mut real = absolute(path);
    let mut stat = engine.stat_path(id, &real)?.ok_or_else(|| missing(&real))?;
    let typed = real.clone();
    let mut links = 0;
    while let (true, PathKind::Link(target)) = (args.follow_link, &stat.kind) {
        links += 1;
        real = beside(&real, target);
        stat = engine.stat_path(id, &real)?.filter(|_| links <= MOST_LINKS).ok_or_else(|| missing(&real))?;
    }
    let source = Source { path: &typed, is_directory: stat.kind == PathKind::Directory };
    let destination = match to {
        End::Host(path) => host_destination(path)?,
        _ => {
            let mut stdout = io::stdout().lock();
            if rustix::termios::isatty(&stdout) {
                return Err(Error::invalid("an archive is not written to a terminal")
                    .with_hint("redirect standard output"));
            }
            return engine
                .read_archive(id, &real, base(&typed), &mut |tar| {
                    pour(tar, &mut stdout).map_err(|error| Error::failed("write the archive", error))
                })
                .map(|()| 0);
        }
    };
    let placement = place(source, &destination)?;
    let directory = open_host_directory(&placement.directory)?;
    let owner = if args.archive { Owner::Archived } else { Owner::Ours };
    let mut directory = Some(directory);
    let mut bytes = 0;
    engine.read_archive(id, &real, &placement.name, &mut |tar| {
        if let Some(directory) = directory.take() {
            bytes = extract_host(directory, owner, tar)?;
        }
        Ok(())
    })?;
    tell(args, bytes, &destination.path.display().to_string());
    Ok(0)
}

fn copy_in(
    engine: &Engine,
    args: &CopyArgs,
    id: &ContainerId,
    name: &str,
    from: End,
    path: &Path,
) -> Result<u8> {
    // Docker says that they become root's without -a, and keeps them all the same; programs rely on that.
    let owner = Owner::Archived;
    let destination = container_destination(engine, id, absolute(path))?;
    let End::Host(source) = from else {
        if destination.existing != Some(true) {
            return Err(Error::invalid(format!(
                "destination \"{name}:{}\" must be a directory",
                destination.path.display()
            )));
        }
        return engine
            .write_archive(id, &destination.path, owner, &mut |tar| {
                pour(&mut io::stdin().lock(), tar).map_err(|error| Error::failed("send the archive", error))
            })
            .map(|()| 0);
    };
    let failed = |error: io::Error| Error::failed(format!("look at {}", source.display()), error);
    let real = if args.follow_link { fs::canonicalize(&source).map_err(failed)? } else { source.clone() };
    let ends_in_slash = ends_in(&source, b"/") || ends_in(&source, b"/.");
    let metadata =
        if ends_in_slash { fs::metadata(&real) } else { fs::symlink_metadata(&real) }.map_err(failed)?;
    if ends_in_slash && !metadata.is_dir() {
        return Err(Error::invalid(format!("{} is not a directory", source.display())));
    }
    let placement = place(Source { path: &source, is_directory: metadata.is_dir() }, &destination)?;
    let (parent, last) = if ends_in_slash || real.file_name().is_none() {
        (real.as_path(), OsStr::new("."))
    } else {
        (parent_of(&real), real.file_name().unwrap_or(OsStr::new(".")))
    };
    let parent = open_host_directory(parent)?;
    let mut bytes = 0;
    engine.write_archive(id, &placement.directory, owner, &mut |tar| {
        let mut tar = io::BufWriter::with_capacity(1 << 18, tar);
        bytes = pack_host(&parent, last, &placement.name, &mut tar)?;
        tar.flush().map_err(|error| Error::failed("send the archive", error))
    })?;
    tell(args, bytes, &format!("{name}:{}", destination.path.display()));
    Ok(0)
}

/// Where the top of what is copied goes, by docker's rules: into a directory that is there, else under the name that
/// was asked for.
fn place(source: Source<'_>, destination: &Destination) -> Result<Placement> {
    let path = &destination.path;
    let shown = path.display();
    match (destination.existing, source.is_directory) {
        (Some(true), _) => Ok(Placement { directory: path.clone(), name: base(source.path).to_owned() }),
        (Some(false), true) => Err(Error::invalid(format!("cannot copy a directory onto the file {shown}"))),
        (Some(false), false) if asserts_directory(path) => {
            Err(Error::invalid(format!("{shown} is not a directory")))
        }
        (None, false) if asserts_directory(path) => {
            Err(Error::not_found(format!("no such directory: {shown}")))
        }
        _ => {
            let name = path.file_name().ok_or_else(|| Error::invalid(format!("{shown} has no name")))?;
            Ok(Placement { directory: parent_of(path).to_owned(), name: name.to_owned() })
        }
    }
}

fn host_destination(path: PathBuf) -> Result<Destination> {
    let mut real = path;
    for _ in 0..MOST_LINKS {
        let metadata =
            if asserts_directory(&real) { fs::metadata(&real) } else { fs::symlink_metadata(&real) };
        match metadata {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&real)
                    .map_err(|error| Error::failed(format!("read {}", real.display()), error))?;
                real = parent_of(&real).join(target);
            }
            Ok(metadata) => return Ok(Destination { path: real, existing: Some(metadata.is_dir()) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Destination { path: real, existing: None });
            }
            Err(error) => return Err(Error::failed(format!("look at {}", real.display()), error)),
        }
    }
    Err(Error::invalid(format!("too many symbolic links at {}", real.display())))
}

fn container_destination(engine: &Engine, id: &ContainerId, path: PathBuf) -> Result<Destination> {
    let mut real = path;
    for _ in 0..MOST_LINKS {
        let existing = match engine.stat_path(id, &real)?.map(|stat| stat.kind) {
            Some(PathKind::Link(target)) => {
                real = beside(&real, &target);
                continue;
            }
            Some(PathKind::Special) => {
                return Err(Error::invalid(format!("{} is a device, pipe or socket", real.display())));
            }
            kind => kind.map(|kind| kind == PathKind::Directory),
        };
        return Ok(Destination { path: real, existing });
    }
    Err(Error::invalid(format!("too many symbolic links at {}", real.display())))
}

fn tell(args: &CopyArgs, bytes: u64, to: &str) {
    if !args.quiet && rustix::termios::isatty(io::stdout()) {
        output::note(&format!("Successfully copied {} to {to}", crate::quantity::ByteSize(bytes)));
    }
}

/// Passes an archive on.
pub(super) fn pour(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    io::copy(from, to)?;
    to.flush()
}

fn open_host_directory(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
        Error::failed(format!("open the directory {}", path.display()), io::Error::from(error))
    })
}

/// A path of a container from its root on.
fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// Where a symbolic link at this path leads.
fn beside(link: &Path, target: &Path) -> PathBuf {
    parent_of(link).join(target)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// What the top of an archive of this path is called: its last name, or `.` when it ends in one or is a root.
fn base(path: &Path) -> &OsStr {
    if ends_in(path, b"/.") || path == Path::new(".") {
        return OsStr::new(".");
    }
    match path.components().next_back() {
        Some(Component::Normal(name)) => name,
        _ => OsStr::new("."),
    }
}

fn asserts_directory(path: &Path) -> bool {
    ends_in(path, b"/") || ends_in(path, b"/.")
}

fn ends_in(path: &Path, ending: &[u8]) -> bool {
    path.as_os_str().as_bytes().ends_with(ending)
}

// === impl End ===

impl End {
    /// What comes before the first colon is a container, unless it is the beginning of a path.
    fn parse(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Self::Stream;
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        match colon.map(|at| (std::str::from_utf8(&bytes[..at]), &bytes[at + 1..])) {
            Some((Ok(name), path)) if !bytes.starts_with(b"/") && !name.starts_with('.') => {
                Self::Container(name.to_owned(), PathBuf::from(OsStr::from_bytes(path)))
            }
            _ => Self::Host(PathBuf::from(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_container_unless_a_path_begins() {
        let end = |text: &str| End::parse(OsStr::new(text));
        assert_eq!(end("web:/etc"), End::Container("web".into(), "/etc".into()));
        assert_eq!(end("web:a:b"), End::Container("web".into(), "a:b".into()));
        assert_eq!(end("./web:/etc"), End::Host("./web:/etc".into()));
        assert_eq!(end("/web:/etc"), End::Host("/web:/etc".into()));
        assert_eq!(end("file"), End::Host("file".into()));
        assert_eq!(end("-"), End::Stream);
    }

    #[test]
    fn where_a_copy_goes_is_as_in_docker() {
        let placed = |source: &str, is_directory, destination: &str, existing| {
            let destination = Destination { path: destination.into(), existing };
            match place(Source { path: Path::new(source), is_directory }, &destination) {
                Ok(Placement { directory, name }) => {
                    format!("{} {}", directory.display(), name.display())
                }
                Err(error) => error.to_string(),
            }
        };
        for (source, is_directory, destination, existing, expected) in [
            ("/a/f", false, "/d", Some(true), "/d f"),
            ("/a/f", false, "/d", None, "/ d"),
            ("/a/f", false, "/d/", None, "no such directory: /d/"),
            ("/a/f", false, "/d", Some(false), "/ d"),
            ("/a/s", true, "/d", Some(true), "/d s"),
            ("/a/s/", true, "/d", Some(true), "/d s"),
            ("/a/s/.", true, "/d", Some(true), "/d ."),
            ("/a/s", true, "/d", None, "/ d"),
            ("/a/s", true, "/d/", None, "/ d"),
            ("/a/s/.", true, "/d", None, "/ d"),
            ("/a/s", true, "/d", Some(false), "cannot copy a directory onto the file /d"),
            ("/a/s/.", true, "/d", Some(false), "cannot copy a directory onto the file /d"),
            ("f", false, "d", None, ". d"),
            ("/", true, "d", Some(true), "d ."),
        ] {
            assert_eq!(
                placed(source, is_directory, destination, existing),
                expected,
                "{source} {destination}"
            );
        }
    }
}
