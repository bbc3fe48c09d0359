//! `convert`: the project as another orchestrator takes it; without `--to`, what docker compose calls by that name.

use clap::Args;

use super::config::{self, ConfigArgs};
use super::failure::CliError;
use super::session::Session;
use crate::convert::{ConvertOptions, Target, convert};
use crate::load::load;
use crate::output;

/// The flags of `convert`.
#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// Whose files to write: Kubernetes manifests, or a file for docker stack deploy
    #[arg(long, value_enum, value_name = "kubernetes|swarm")]
    to: Option<Target>,
    /// Fail when anything of the files is lost
    #[arg(long, requires = "to")]
    strict: bool,
    /// What each volume asks a cluster for
    #[arg(long, requires = "to", value_name = "SIZE", default_value = "1Gi")]
    volume_size: String,
    /// Image of the containers that wait for another service in a cluster
    #[arg(long, requires = "to", value_name = "IMAGE", default_value = "busybox:1.36")]
    wait_image: String,
    #[command(flatten)]
    config: ConfigArgs,
}

/// `convert`.
pub(super) fn convert_project(session: &Session, args: &ConvertArgs) -> Result<u8, CliError> {
    let Some(target) = args.to else { return config::config(session, &args.config) };
    let mut options = session.load_options(&args.config.names)?;
    options.all_resources = false;
    let wishes =
        ConvertOptions { volume_size: args.volume_size.clone(), wait_image: args.wait_image.clone() };
    let loaded = load(&options)?;
    let conversion = convert(&loaded, target, &wishes)?;
    for loss in &conversion.losses {
        output::note(loss.to_string().trim_end());
    }
    if args.strict {
        conversion.refuse_losses()?;
    }
    match args.config.output.as_deref() {
        Some(place) => conversion.write(place)?,
        None => output::raw(&conversion.whole()?.bytes),
    }
    Ok(0)
}
