//! `diff`, `export` and `commit`: what a container made of its image.

use std::io;
use std::path::PathBuf;

use clap::Args;

use crate::cli::copy::pour;
use crate::cli::output;
use crate::cli::sink::Sink;
use crate::container::changes::ChangeKind;
use crate::engine::{CommitOptions, Engine};
use crate::error::{Error, Result};
use crate::image::Reference;

/// The flags of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The container
    pub container: String,
}

/// The flags of `commit`.
#[derive(Debug, Args)]
pub(super) struct CommitArgs {
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
    /// Do not let the container stand still
    #[arg(long, conflicts_with = "pause")]
    no_pause: bool,
    /// The container
    container: String,
    /// The image's name
    reference: Option<Reference>,
}

/// Shows what a container changed of its image.
pub(super) fn diff(engine: &Engine, container: &str) -> Result<u8> {
    for change in engine.changes(&engine.find_id(container)?)? {
        let letter = match change.kind {
            ChangeKind::Changed => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        };
        output::line(&format!("{letter} {}", change.path.display()));
    }
    Ok(0)
}

/// Writes a container's root file system to an archive.
///
/// # Errors
/// When it cannot be read or written.
pub fn export(engine: &Engine, args: &ExportArgs) -> Result<u8> {
    let id = engine.find_id(&args.container)?;
    let failed = |error: io::Error| Error::failed("write the archive", error);
    Sink::private(args.output.clone())
        .write(|file| engine.export(&id, &mut |tar| pour(tar, file).map_err(failed)))?;
    Ok(0)
}

/// Makes an image of a container.
pub(super) fn commit(engine: &Engine, args: CommitArgs) -> Result<u8> {
    let options = CommitOptions {
        message: args.message,
        author: args.author,
        changes: args.change,
        pause: args.pause && !args.no_pause,
        reference: args.reference,
    };
    let image = engine.commit(&engine.find_id(&args.container)?, &options)?;
    output::line(image.id.as_str());
    Ok(0)
}
