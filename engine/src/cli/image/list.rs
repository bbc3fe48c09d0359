//! `images` and `image prune`.

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::filter::{Filters, matches};
use super::tree;
use crate::cli::list::ago;
use crate::cli::output;
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{Image, Reference, Removed};
use crate::quantity::ByteSize;

/// The flags of `images`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Of names with images for several platforms, all of them
    #[arg(short, long)]
    all: bool,
    /// Print ids alone
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Print ids whole
    #[arg(long)]
    pub(super) no_trunc: bool,
    /// Digests too
    #[arg(long)]
    pub(super) digests: bool,
    /// The images for each platform below their names, with what they take; U: a container was made of it
    #[arg(long)]
    tree: bool,
    /// Only those that match: dangling, label, reference, before, since, until
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template
    #[arg(long)]
    pub(super) format: Option<String>,
    /// Only names like this one
    pattern: Option<String>,
}

/// The flags of `image prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Every image that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match: until, label
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl ListArgs {
    /// Whether a name is one of those asked for.
    fn takes(&self, reference: &Reference) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| matches(reference, pattern))
    }
}

const COLUMNS: [(&str, &str); 5] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

/// Lists images.
pub(crate) fn list(engine: &Engine, args: &ListArgs) -> Result<u8> {
    warn_of_damage(engine)?;
    let filters = Filters::parse(engine, &args.filter)?;
    let images = engine.images().list()?;
    if args.tree {
        let images: Vec<Image> = images.into_iter().filter(|image| filters.takes(image)).collect();
        let is_meant = |name: &Reference| args.takes(name) && filters.takes_name(name);
        // Who names images means none without a name, and others see those when they ask for all.
        let shows_untagged = args.pattern.is_none() && (args.all || filters.wants_dangling());
        return tree::list(engine, args, &images, &is_meant, shows_untagged);
    }
    let rows: Vec<Value> = images
        .iter()
        .filter(|image| filters.takes(image))
        .flat_map(|image| image_rows(image, args, &filters))
        .collect();
    if args.quiet {
        let mut seen = BTreeSet::new();
        rows.iter().filter_map(|row| row["ID"].as_str()).filter(|id| seen.insert(*id)).for_each(output::line);
        return Ok(0);
    }
    let mut columns = COLUMNS.to_vec();
    if args.digests {
        columns.insert(2, ("DIGEST", "Digest"));
    }
    if args.all && images.iter().any(|image| !image.part_of.is_empty()) {
        columns.insert(columns.len() - 2, ("PLATFORM", "Platform"));
    }
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(0)
}

fn image_rows(image: &Image, args: &ListArgs, filters: &Filters) -> Vec<Value> {
    let row = |repository: &str, tag: &str, digest: &str| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "ID": if args.no_trunc { image.id.as_str() } else { image.id.short() },
            "CreatedSince": image.created().map_or_else(|| "N/A".to_owned(), |at| format!("{} ago", ago(at))),
            "CreatedAt": image.created().map_or_else(|| "N/A".to_owned(), written),
            "Size": ByteSize(image.size).to_string(),
            "VirtualSize": ByteSize(image.size).to_string(),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "Containers": "N/A",
            "Platform": image.platform().to_string(),
        })
    };
    let digest = |name: &str| {
        image
            .digests
            .iter()
            .find(|known| known.familiar_name() == name)
            .and_then(|known| known.digest())
            .map_or("<none>".to_owned(), ToString::to_string)
    };
    let is_meant =
        |reference: &&crate::image::Reference| args.takes(reference) && filters.takes_name(reference);
    let is_meant_elsewhere = |name: &&crate::image::Reference| !image.references.contains(name);
    let others: Vec<_> =
        (image.part_of.iter()).filter(is_meant_elsewhere).filter(|name| name.tag().is_some()).collect();
    if image.references.is_empty() && !others.is_empty() && !args.all {
        return Vec::new();
    }
    if image.references.is_empty() && others.is_empty() {
        // Pulled by digest: it has a repository, and no tag.
        let named = image.digests.iter().filter(is_meant).map(|known| {
            let repository = known.familiar_name();
            row(&repository, "<none>", &digest(&repository))
        });
        let rows: Vec<Value> = named.collect();
        if rows.is_empty() && image.digests.is_empty() && args.pattern.is_none() {
            return vec![row("<none>", "<none>", "<none>")];
        }
        return rows;
    }
    let others = others.into_iter().filter(|_| args.all);
    let named = image.references.iter().chain(others).filter(is_meant);
    let shown = |reference: &crate::image::Reference| {
        let repository = reference.familiar_name();
        row(&repository, reference.tag().unwrap_or("<none>"), &digest(&repository))
    };
    named.map(shown).collect()
}

/// A date as docker's templates print it.
fn written(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// Says which images cannot be read; the others are as they are.
pub(crate) fn warn_of_damage(engine: &Engine) -> Result<()> {
    engine.images().damaged()?.iter().for_each(|finding| output::warning(finding));
    Ok(())
}

/// Removes images that nothing uses.
pub(crate) fn prune(engine: &Engine, args: &PruneArgs) -> Result<u8> {
    warn_of_damage(engine)?;
    let filters = Filters::parse(engine, &args.filter)?;
    let which = if args.all { "all images without a container" } else { "all dangling images" };
    if !args.force && !output::confirm(&format!("This will remove {which}. Continue?")) {
        return Ok(0);
    }
    let (removed, bytes) = engine.prune_images(args.all, &|image| filters.takes(image))?;
    if !removed.is_empty() {
        output::line("Deleted Images:");
        for removed in &removed {
            // In lower case, other than `rmi` has it, because docker's does so.
            output::line(&match removed {
                Removed::Untagged(reference) => format!("untagged: {reference}"),
                Removed::Deleted(digest) => format!("deleted: {digest}"),
            });
        }
        output::line("");
    }
    output::line(&format!("Total reclaimed space: {}", ByteSize(bytes)));
    Ok(0)
}
