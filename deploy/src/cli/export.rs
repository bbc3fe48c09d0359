//! `export`: the project for another orchestrator, by compose's own converter.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use compose::convert::{Conversion, ConvertOptions, Target, convert};
use engine::Error;
use engine::error::Result;

use super::{Globals, connect, output};

/// The flags of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Who is to take the project: manifests for kubectl apply, or a file for docker stack deploy
    #[arg(long, value_enum)]
    to: Orchestrator,
    /// Fail when anything of the files is lost
    #[arg(long)]
    strict: bool,
    /// Write to this file, or into this directory (DIR/)
    #[arg(short, long, value_name = "FILE|DIR/")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Orchestrator {
    Kubernetes,
    Swarm,
}

/// `export`.
pub(super) fn export(globals: &Globals, args: &ExportArgs) -> Result<ExitCode> {
    let loaded = connect::load_files(globals)?;
    let target = match args.to {
        Orchestrator::Kubernetes => Target::Kubernetes,
        Orchestrator::Swarm => Target::Swarm,
    };
    let conversion = convert(&loaded, target, &ConvertOptions::default())
        .map_err(|diagnostics| Error::invalid(diagnostics.to_string().trim_end().to_owned()))?;
    conversion.losses.iter().for_each(|loss| output::note(loss.to_string().trim_end()));
    if args.strict && !conversion.losses.is_empty() {
        let number = conversion.losses.len();
        return Err(Error::invalid(format!("{number} keys have no counterpart, and nothing is written")));
    }
    deliver(&conversion, args.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
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
