//! `export`: the project for another orchestrator, by compose's own converter.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use compose::convert::{Conversion, ConvertOptions, Document, Target, convert};
use engine::Error;
use engine::error::Result;
use serde_json::{Value, json};

use super::{Globals, connect, output};

/// The flags of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Who is to take the project: manifests for kubectl apply, or a file for docker stack deploy
    #[arg(long, value_enum)]
    to: Target,
    /// Fail when anything of the files is lost
    #[arg(long)]
    strict: bool,
    /// Write to this file, or into this directory (DIR/)
    #[arg(short, long, value_name = "FILE|DIR/")]
    output: Option<PathBuf>,
}

/// `export`.
pub(super) fn export(globals: &Globals, args: &ExportArgs) -> Result<ExitCode> {
    let loaded = connect::load_files(globals)?;
    let conversion = convert(&loaded, args.to, &ConvertOptions::default())
        .map_err(|diagnostics| Error::invalid(diagnostics.to_string().trim_end().to_owned()))?;
    conversion.losses.iter().for_each(|loss| output::note(loss.to_string().trim_end()));
    if args.strict {
        conversion.refuse_losses()?;
    }
    if globals.json {
        tell(&conversion, args.output.as_deref())?;
    } else {
        deliver(&conversion, args.output.as_deref())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is lost, and the files: by name when they were written, else with what is in them.
fn tell(conversion: &Conversion, place: Option<&std::path::Path>) -> Result<()> {
    let files: Vec<Value> = match place {
        Some(place) => {
            conversion.write(place)?;
            conversion.documents.iter().map(|document| json!({ "file": document.file })).collect()
        }
        None => {
            let content = |document: &Document| String::from_utf8_lossy(&document.bytes).into_owned();
            let described =
                |document: &Document| json!({ "file": document.file, "content": content(document) });
            conversion.documents.iter().map(described).collect()
        }
    };
    output::json(&json!({ "losses": conversion.losses, "files": files }));
    Ok(())
}

fn deliver(conversion: &Conversion, place: Option<&std::path::Path>) -> Result<()> {
    match place {
        Some(place) => conversion.write(place),
        None => {
            output::raw(&conversion.whole()?.bytes);
            Ok(())
        }
    }
}
