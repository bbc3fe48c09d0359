//! The verbs on volumes.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::filter::{self, Filters};
use crate::cli::inspect::{self, InspectArgs};
use crate::cli::lazy::Lazy;
use crate::cli::output;
use crate::cli::run::pairs;
use crate::cli::swarm;
use crate::engine::Engine;
use crate::error::Result;
use crate::id::VolumeName;
use crate::quantity::ByteSize;
use crate::volume::{Volume, VolumeSpec};

/// A verb on volumes.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a volume
    Create(Lazy<CreateArgs>),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything known of volumes
    Inspect(InspectArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm {
        /// Names
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
        /// Say nothing of those that do not exist
        #[arg(short, long)]
        force: bool,
    },
    /// Remove anonymous volumes that no container uses
    Prune {
        /// Named ones too
        #[arg(short, long)]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// Only those that match: label, label!, all
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
}

/// The flags of `volume create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// local
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Option of the driver: type, o and device
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// The volume's name, as it was given once
    #[arg(long = "name", hide = true, value_name = "NAME", conflicts_with = "name")]
    name_flag: Option<VolumeName>,
    #[command(flatten)]
    of_swarm: swarm::VolumeArgs,
    /// The volume's name; a random one without it
    name: Option<VolumeName>,
}

/// The flags of `volume ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
    /// Only those that match: name, label, driver, dangling
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
}

/// Carries a verb out.
pub(super) fn run(engine: &Engine, verb: Verb) -> Result<u8> {
    match verb {
        Verb::Create(Lazy(args)) => {
            let args = *args;
            args.of_swarm.check()?;
            let volume = engine.volumes().create(VolumeSpec {
                name: args.name.or(args.name_flag),
                driver: args.driver,
                options: pairs(args.opt),
                labels: pairs(args.label),
            })?;
            output::line(volume.name.as_str());
            Ok(0)
        }
        Verb::Ls(args) => list(engine, &args),
        Verb::Inspect(args) => inspect::volumes(engine, &args),
        Verb::Rm { names, force } => {
            let mut code = 0;
            for name in &names {
                match engine.remove_volume(name) {
                    Ok(()) => output::line(name),
                    // Gone is what was wanted.
                    Err(error) if force && error.kind() == crate::error::Kind::NotFound => output::line(name),
                    Err(error) => {
                        output::failure(&error);
                        code = 1;
                    }
                }
            }
            Ok(code)
        }
        Verb::Prune { all, force, filter } => prune(engine, all, force, &filter),
    }
}

fn list(engine: &Engine, args: &LsArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["name", "label", "driver", "dangling"])?;
    let mut rows: Vec<Value> = Vec::new();
    for volume in engine.volumes().list()? {
        if filters.match_all(|key, value| matches(engine, &volume, key, value))? {
            rows.push(row(&volume));
        }
    }
    if args.quiet {
        rows.iter().filter_map(|row| row["Name"].as_str()).for_each(output::line);
        return Ok(0);
    }
    output::rows(args.format.as_deref(), &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")], &rows)?;
    Ok(0)
}

/// A volume as a template sees it, with docker's names. What only volumes of a swarm have, and what nobody has counted,
/// is not available.
pub fn row(volume: &Volume) -> Value {
    json!({
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": volume.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
        "Links": "N/A",
        "Mountpoint": volume.mountpoint,
        "Name": volume.name.as_str(),
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
        output::METHODS: { "Label": volume.labels },
    })
}

fn matches(engine: &Engine, volume: &Volume, key: &str, value: &str) -> Result<bool> {
    Ok(match key {
        "name" => volume.name.as_str().contains(value),
        "driver" => value == "local",
        "dangling" => engine.volume_users(&volume.name)?.is_empty() == filter::truth(key, value)?,
        "label" => filter::has_label(&volume.labels, value),
        _ => false,
    })
}

fn prune(engine: &Engine, all: bool, force: bool, filters: &[String]) -> Result<u8> {
    let filters = Filters::parse(filters, &["label", "label!", "all"])?;
    let all = all || filters.last("all").map_or(Ok(false), |value| filter::truth("all", value))?;
    let matches = |volume: &Volume| {
        filters.match_all(|key, value| {
            Ok(match key {
                "label" => filter::has_label(&volume.labels, value),
                "label!" => !filter::has_label(&volume.labels, value),
                _ => true,
            })
        })
    };
    let which = if all { "volumes" } else { "anonymous volumes" };
    if !force && !output::confirm(&format!("This will remove all {which} not used by a container. Continue?"))
    {
        return Ok(0);
    }
    let wanted = |volume: &Volume| Ok((all || volume.anonymous) && matches(volume)?);
    let (removed, reclaimed) = engine.prune_volumes(&wanted)?;
    if !removed.is_empty() {
        output::line("Deleted Volumes:");
        removed.iter().for_each(|name| output::line(name.as_str()));
        output::line("");
    }
    output::line(&format!("Total reclaimed space: {}", ByteSize(reclaimed)));
    Ok(0)
}
