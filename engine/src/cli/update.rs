//! `update`: other limits and another restart policy for containers that are there.

use clap::Args;

use crate::cli::output;
use crate::cli::run::parse_restart;
use crate::cli::run::tunable::TunableArgs;
use crate::engine::{Engine, UpdateOptions};
use crate::error::{Error, Result};

/// The flags of `update`.
#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    tunable: TunableArgs,
    /// no, always, unless-stopped, on-failure or on-failure:N
    #[arg(long)]
    restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

/// Changes containers.
pub(super) fn update(engine: &Engine, args: UpdateArgs) -> Result<u8> {
    let names = args.names.clone();
    let options = args.options()?;
    if options == UpdateOptions::default() {
        return Err(Error::invalid("nothing to update: give one or more limits, or --restart"));
    }
    let mut code = 0;
    for name in &names {
        match engine.find_id(name).and_then(|id| engine.update(&id, &options)) {
            Ok(warnings) => {
                output::line(name);
                warnings.iter().for_each(|warning| output::warning(warning));
            }
            Err(error) => {
                output::failure(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

// === impl UpdateArgs ===

impl UpdateArgs {
    fn options(self) -> Result<UpdateOptions> {
        let resources = self.tunable.resources()?;
        Ok(UpdateOptions { resources, restart: self.restart.as_deref().map(parse_restart).transpose()? })
    }
}
