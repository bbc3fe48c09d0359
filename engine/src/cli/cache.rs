//! `builder prune` and `builder du`: what the builder keeps.

use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::builder::{Garbage, Kept, KeptKind};
use crate::cli::list::ago;
use crate::cli::output;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::quantity::{ByteSize, Span};

/// The flags of `builder prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Accepted for docker's sake: nothing is kept that only this flag would remove
    #[arg(short, long, hide = true)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match: until=24h, type=regular|exec.cachemount|source.http|source.git.checkout, id=ID
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// As much as this may stay
    #[arg(long, visible_aliases = ["keep-storage", "max-used-space"], value_name = "BYTES")]
    reserved_space: Option<ByteSize>,
    /// Print a row for each
    #[arg(long)]
    verbose: bool,
}

/// The flags of `builder du`.
#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// Only those that match: type=regular|exec.cachemount|source.http|source.git.checkout
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print the instructions whole
    #[arg(long)]
    verbose: bool,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
}

const COLUMNS: [(&str, &str); 5] = [
    ("ID", "ID"),
    ("TYPE", "Type"),
    ("SIZE", "Size"),
    ("LAST ACCESSED", "LastUsed"),
    ("DESCRIPTION", "Description"),
];

/// Removes what the builder keeps.
pub(super) fn prune(engine: &Engine, args: &PruneArgs) -> Result<u8> {
    let garbage = Garbage { keep: args.reserved_space, ..garbage(&args.filter)? };
    if !args.force && !output::confirm("This will remove the build cache. Continue?") {
        return Ok(0);
    }
    let removed = engine.prune_build_cache(&garbage)?;
    if args.verbose && !removed.is_empty() {
        output::rows(None, &COLUMNS, &rows(&removed, true))?;
    } else {
        removed.iter().for_each(|kept| output::line(short(&kept.id)));
    }
    output::line(&format!("Total:\t{}", total(&removed)));
    Ok(0)
}

/// Shows what the builder keeps.
pub(super) fn usage(engine: &Engine, args: &UsageArgs) -> Result<u8> {
    let wanted = garbage(&args.filter)?;
    let mut kept = engine.build_cache()?;
    kept.retain(|kept| wanted.kind.is_none_or(|kind| kind == kept.kind));
    kept.reverse();
    output::rows(args.format.as_deref(), &COLUMNS, &rows(&kept, args.verbose))?;
    if args.format.is_none() {
        output::line(&format!("Total:\t{}", total(&kept)));
    }
    Ok(0)
}

fn garbage(filters: &[String]) -> Result<Garbage> {
    let mut garbage = Garbage::default();
    for filter in filters {
        let wrong = || Error::invalid(format!("invalid filter {filter:?}"));
        match filter.split_once('=').ok_or_else(wrong)? {
            ("until" | "unused-for", text) => {
                let span: Span = text.parse().map_err(|error| wrong().with_source(error))?;
                garbage.until = Some(span.0);
            }
            ("type", text) => garbage.kind = Some(KeptKind::of(text).ok_or_else(wrong)?),
            ("id", text) => garbage.id = Some(text.to_owned()),
            _ => return Err(wrong().with_hint("until, type and id are there")),
        }
    }
    Ok(garbage)
}

fn rows(kept: &[Kept], is_whole: bool) -> Vec<Value> {
    let row = |kept: &Kept| {
        let mut description = kept.description.split_whitespace().collect::<Vec<_>>().join(" ");
        if !is_whole && description.chars().count() > 60 {
            description = description.chars().take(59).chain(['…']).collect();
        }
        json!({
            "ID": short(&kept.id),
            "Type": kept.kind.as_str(),
            "Size": ByteSize(kept.size).to_string(),
            "LastUsed": since(kept.used),
            "Description": description,
        })
    };
    kept.iter().map(row).collect()
}

fn since(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "N/A".to_owned(), |at| format!("{} ago", ago(at)))
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn total(kept: &[Kept]) -> ByteSize {
    ByteSize(kept.iter().map(|kept| kept.size).sum())
}
