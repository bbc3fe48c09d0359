//! `stats`: what the containers of a project use.

use clap::Args;
use engine::cli::stats::{Shown, show};
use engine::engine::Container;

use super::failure::CliError;
use super::list::of;
use super::session::Session;
use crate::labels;

/// The flags of `stats`.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    shown: Shown,
    /// The services; all when none is named
    names: Vec<String>,
}

/// `stats`.
pub(super) fn stats(session: &Session, args: &StatsArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.names)?;
    let wanted = |container: &Container| {
        let service = of(container, labels::SERVICE);
        labels::belongs_to(&container.record.spec.labels, &project.name)
            && (args.names.is_empty() || args.names.iter().any(|name| name == service))
            && (args.shown.shows_all() || container.state.is_running())
    };
    Ok(show(&session.engine()?, &args.shown, &wanted)?)
}
