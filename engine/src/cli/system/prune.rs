//! `system prune`: removing everything that nothing uses.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use crate::builder::Garbage;
use crate::cli::filter::{self, Filters};
use crate::cli::output;
use crate::engine::{Container, Engine};
use crate::error::{Error, Kind, Result};
use crate::quantity::ByteSize;
use crate::volume::Volume;

/// The flags of `system prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    /// Every image that no container uses
    #[arg(short, long)]
    all: bool,
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what matches: label, label!, until
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Which of the things that nothing uses are wanted to go.
struct Wanted(Filters);

/// Removes what nothing uses, and says what it was.
pub(super) fn prune(engine: &Engine, args: &PruneArgs) -> Result<u8> {
    let wanted = Wanted::parse(args)?;
    let images = if args.all { "every image without a container" } else { "dangling images" };
    let question = format!(
        "This will remove stopped containers, unused networks, {images} and the build cache. Continue?"
    );
    if !args.force && !output::confirm(&question) {
        return Ok(0);
    }
    let of_container =
        |container: &Container| wanted.takes(&container.record.spec.labels, container.created());
    let (containers, mut bytes) = engine.prune_containers(&of_container)?;
    for container in containers {
        output::line(&format!("Deleted: container {}", container.name()));
    }
    let of_network = |network: &crate::network::Network| wanted.takes(&network.spec.labels, network.created);
    for network in engine.prune_networks(&of_network)? {
        output::line(&format!("Deleted: network {network}"));
    }
    if args.volumes {
        let of_volume = |volume: &Volume| Ok(volume.anonymous && wanted.takes_labelled(&volume.labels));
        let (volumes, won) = engine.prune_volumes(&of_volume)?;
        volumes.iter().for_each(|volume| output::line(&format!("Deleted: volume {volume}")));
        bytes += won;
    }
    let of_image = |image: &crate::image::Image| {
        // One that does not say when it was made is as old as can be.
        let created = image.created().unwrap_or(Timestamp::UNIX_EPOCH);
        wanted.takes(&image.config.config.labels, created)
    };
    bytes += engine.prune_images(args.all, &of_image)?.1;
    bytes += build_cache(engine, &wanted)?;
    output::line(&format!("Total reclaimed space: {}", ByteSize(bytes)));
    Ok(0)
}

/// Results of builds have no labels: with such a filter all of them stay.
fn build_cache(engine: &Engine, wanted: &Wanted) -> Result<u64> {
    if wanted.asks_for_labels() {
        return Ok(0);
    }
    match engine.prune_build_cache(&Garbage { until: wanted.age()?, ..Garbage::default() }) {
        Ok(removed) => Ok(removed.iter().map(|kept| kept.size).sum()),
        Err(error) if error.kind() == Kind::Conflict => {
            output::warning(&format!("the build cache stays: {error}"));
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

// === impl Wanted ===

impl Wanted {
    fn parse(args: &PruneArgs) -> Result<Self> {
        let filters = Filters::parse(&args.filter, &["label", "label!", "until"])?;
        if args.volumes && filters.last("until").is_some() {
            return Err(Error::invalid("the filter until says nothing of volumes")
                .with_hint("leave out --volumes, or filter by label"));
        }
        let wanted = Self(filters);
        wanted.age()?;
        Ok(wanted)
    }

    fn takes(&self, labels: &BTreeMap<String, String>, created: Timestamp) -> bool {
        let matched = self.0.match_all(|key, value| match key {
            "until" => filter::is_before(created, value),
            _ => Ok(filter::has_label(labels, value) != key.ends_with('!')),
        });
        // What was asked was understood when it was read.
        matched.unwrap_or(false)
    }

    fn takes_labelled(&self, labels: &BTreeMap<String, String>) -> bool {
        self.takes(labels, Timestamp::UNIX_EPOCH)
    }

    fn asks_for_labels(&self) -> bool {
        self.0.last("label").or_else(|| self.0.last("label!")).is_some()
    }

    /// For how long something must have been unused.
    fn age(&self) -> Result<Option<Duration>> {
        let Some(until) = self.0.last("until") else { return Ok(None) };
        let now = Timestamp::now();
        let since = now.duration_since(filter::moment(until)?);
        Ok(Some(Duration::try_from(since).unwrap_or_default()))
    }
}
