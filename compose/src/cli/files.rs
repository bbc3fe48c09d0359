//! `cp`, `export` and `commit`: the files of a service's containers.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use clap::Args;
use engine::cli::changes::{self, ExportArgs};
use engine::cli::copy::{self, CopyArgs};
use engine::engine::CommitOptions;
use engine::error::Error;
use engine::image::Reference;

use super::failure::CliError;
use super::session::{Opened, Session, Wanted};
use crate::observe::SeenContainer;
use crate::output;

/// The flags of `cp`.
#[derive(Debug, Args)]
pub(super) struct CpArgs {
    /// Keep owners and groups
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link at the source points to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Which of the service's containers; into all of them, out of the first one, when none is named
    #[arg(long)]
    index: Option<u32>,
    /// Containers that run made are copied into too
    #[arg(long)]
    all: bool,
    /// SERVICE:PATH, a path, or - for a tar on standard input
    source: OsString,
    /// SERVICE:PATH, a path, or - for a tar on standard output
    destination: OsString,
}

/// The flags of `export`.
#[derive(Debug, Args)]
pub(super) struct ServiceExportArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which of the service's containers
    #[arg(long)]
    index: Option<u32>,
    /// The service
    service: String,
}

/// The flags of `commit`.
#[derive(Debug, Args)]
pub(super) struct ServiceCommitArgs {
    /// Who made it: Name <mail@example.com>
    #[arg(short, long)]
    author: Option<String>,
    /// Instruction applied to the image: CMD ["sh"]
    #[arg(short, long)]
    change: Vec<String>,
    /// Say why
    #[arg(short, long)]
    message: Option<String>,
    /// Let the container stand still meanwhile
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pause: bool,
    /// Which of the service's containers
    #[arg(long)]
    index: Option<u32>,
    /// The service
    service: String,
    /// The image's name
    reference: Option<Reference>,
}

/// `cp`.
pub(super) fn cp(session: &Session, args: &CpArgs) -> Result<u8, CliError> {
    let (service, into) = match (service_of(&args.source), service_of(&args.destination)) {
        (Some(_), Some(_)) => {
            return Err(CliError::Invalid("copying between services is not supported".to_owned()));
        }
        (Some(service), None) => (service, false),
        (None, Some(service)) => (service, true),
        (None, None) => {
            let hint = "a path in a container is written SERVICE:PATH";
            return Err(CliError::Invalid(format!("neither end of the copy is in a container: {hint}")));
        }
    };
    let opened = session.open(Wanted { services: vec![service.clone()], ..Wanted::default() })?;
    let mut containers = containers(&opened, &service, args.index, args.all)?;
    if !into {
        containers.truncate(1);
    }
    if into && containers.len() > 1 && args.source == *"-" {
        let number = containers.len();
        let message = format!("service {service:?} has {number} containers and standard input is there once");
        return Err(CliError::Engine(Error::invalid(message).with_hint("--index chooses one of them")));
    }
    for container in containers {
        let named = |end: &OsStr| match service_of(end) {
            Some(service) => in_container(end, &service, &container.name),
            None => end.to_owned(),
        };
        let copy = CopyArgs {
            archive: args.archive,
            follow_link: args.follow_link,
            quiet: false,
            source: named(&args.source),
            destination: named(&args.destination),
        };
        if opened.is_dry_run() {
            output::note(&format!("copy {} to {}", copy.source.display(), copy.destination.display()));
        } else {
            copy::copy(opened.engine(), &copy)?;
            let what = format!("copy {} to {}", copy.source.display(), copy.destination.display());
            opened.progress.stands(&format!("{} {what}", container.name), "Copied");
        }
    }
    Ok(0)
}

/// `export`.
pub(super) fn export(session: &Session, args: ServiceExportArgs) -> Result<u8, CliError> {
    let opened = session.open(Wanted { services: vec![args.service.clone()], ..Wanted::default() })?;
    let container = containers(&opened, &args.service, args.index, false)?.swap_remove(0);
    if opened.is_dry_run() {
        return Ok(0);
    }
    Ok(changes::export(opened.engine(), &ExportArgs { output: args.output, container: container.name })?)
}

/// `commit`.
pub(super) fn commit(session: &Session, args: ServiceCommitArgs) -> Result<u8, CliError> {
    let opened = session.open(Wanted { services: vec![args.service.clone()], ..Wanted::default() })?;
    let container = containers(&opened, &args.service, args.index, false)?.swap_remove(0);
    if opened.is_dry_run() {
        return Ok(0);
    }
    let options = CommitOptions {
        message: args.message,
        author: args.author,
        changes: args.change,
        pause: args.pause,
        reference: args.reference,
    };
    output::line(opened.engine().commit(&container.id, &options)?.id.as_str());
    Ok(0)
}

/// The service of `SERVICE:PATH`; a path of the host begins with `/` or `.`, and `-` is a stream.
fn service_of(end: &OsStr) -> Option<String> {
    let text = end.to_string_lossy();
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':').map(|(service, _)| service.to_owned())
}

fn in_container(end: &OsStr, service: &str, container: &str) -> OsString {
    let mut bytes = container.as_bytes().to_vec();
    bytes.extend(&end.as_bytes()[service.len()..]);
    OsString::from_vec(bytes)
}

/// The containers of a service: with this number, or all of them.
fn containers(
    opened: &Opened,
    service: &str,
    index: Option<u32>,
    one_offs: bool,
) -> Result<Vec<SeenContainer>, CliError> {
    let mut all = opened.containers()?;
    all.retain(|container| {
        container.service == service
            && (one_offs || !container.one_off)
            && index.is_none_or(|index| index == container.number)
    });
    if all.is_empty() {
        let number = index.map(|index| format!(" #{index}")).unwrap_or_default();
        return Err(CliError::Invalid(format!("no container{number} found for service {service:?}")));
    }
    Ok(all)
}
