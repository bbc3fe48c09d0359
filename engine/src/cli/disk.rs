//! `system df`: what takes space, and how much of it could be had back.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::image::warn_of_damage;
use crate::cli::list::{ago, status_text};
use crate::cli::output;
use crate::engine::{ContainerUsage, DiskUsage, Engine, ImageUsage, VolumeUsage};
use crate::error::Result;
use crate::quantity::ByteSize;

/// The flags of `system df`.
#[derive(Debug, Args)]
pub(super) struct DiskArgs {
    /// One by one
    #[arg(short, long)]
    verbose: bool,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
}

/// One kind of things.
struct Kind {
    name: &'static str,
    total: usize,
    active: usize,
    size: u64,
    idle: u64,
}

const COLUMNS: [(&str, &str); 5] = [
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

/// Shows what takes space.
pub(super) fn usage(engine: &Engine, args: &DiskArgs) -> Result<u8> {
    warn_of_damage(engine)?;
    let usage = engine.disk_usage()?;
    if args.verbose {
        return verbose(&usage, args.format.as_deref());
    }
    let rows: Vec<Value> = kinds(&usage).iter().map(Kind::row).collect();
    output::rows(args.format.as_deref(), &COLUMNS, &rows)?;
    Ok(0)
}

fn kinds(usage: &DiskUsage) -> [Kind; 4] {
    let running = |one: &&ContainerUsage| one.container.state.is_running();
    let containers = &usage.containers;
    let volumes = &usage.volumes;
    let cache = usage.cache.iter().map(|kept| kept.size).sum();
    [
        Kind {
            name: "Images",
            total: usage.images.len(),
            active: usage.images.iter().filter(|image| image.containers > 0).count(),
            size: usage.layers,
            idle: usage.layers_idle,
        },
        Kind {
            name: "Containers",
            total: containers.len(),
            active: containers.iter().filter(running).count(),
            size: containers.iter().map(ContainerUsage::size).sum(),
            idle: containers.iter().filter(|one| !running(one)).map(ContainerUsage::size).sum(),
        },
        Kind {
            name: "Local Volumes",
            total: volumes.len(),
            active: volumes.iter().filter(|volume| !volume.users.is_empty()).count(),
            size: volumes.iter().map(|volume| volume.size).sum(),
            idle: volumes.iter().filter(|volume| volume.users.is_empty()).map(|volume| volume.size).sum(),
        },
        Kind { name: "Build Cache", total: usage.cache.len(), active: 0, size: cache, idle: cache },
    ]
}

// === impl Kind ===

impl Kind {
    fn row(&self) -> Value {
        let share = (self.idle * 100).checked_div(self.size);
        let share = share.map(|percent| format!(" ({percent}%)")).unwrap_or_default();
        json!({
            "Active": self.active.to_string(),
            "Reclaimable": format!("{}{share}", ByteSize(self.idle).precise()),
            "Size": ByteSize(self.size).precise().to_string(),
            "TotalCount": self.total.to_string(),
            "Type": self.name,
        })
    }
}

fn verbose(usage: &DiskUsage, format: Option<&str>) -> Result<u8> {
    let images: Vec<Value> = usage.images.iter().map(image_row).collect();
    let containers: Vec<Value> = usage.containers.iter().map(container_row).collect();
    let volumes: Vec<Value> = usage.volumes.iter().map(volume_row).collect();
    let cache: Vec<Value> = usage
        .cache
        .iter()
        .map(|kept| json!({ "ID": kept.id, "Size": ByteSize(kept.size).to_string(), "Description": kept.description }))
        .collect();
    if let Some(format) = format.filter(|format| *format != "table") {
        let all =
            json!({ "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": cache });
        output::rows(Some(format), &[], &[all])?;
        return Ok(0);
    }
    let sections: [(&str, Columns, &[Value]); 4] = [
        ("Images space usage:", &IMAGES, &images),
        ("Containers space usage:", &CONTAINERS, &containers),
        ("Local Volumes space usage:", &VOLUMES, &volumes),
        ("Build cache usage:", &CACHE, &cache),
    ];
    for (number, (title, columns, rows)) in sections.into_iter().enumerate() {
        if number > 0 {
            output::line("");
        }
        output::line(&format!("{title}\n"));
        output::rows(None, columns, rows)?;
    }
    Ok(0)
}

/// Headings, and the fields below them.
type Columns = &'static [(&'static str, &'static str)];

const IMAGES: [(&str, &str); 8] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
];
const CONTAINERS: [(&str, &str); 8] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("SIZE", "Size"),
    ("LOGS", "LogSize"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
];
const VOLUMES: [(&str, &str); 3] = [("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")];
const CACHE: [(&str, &str); 3] = [("CACHE ID", "ID"), ("SIZE", "Size"), ("DESCRIPTION", "Description")];

fn image_row(usage: &ImageUsage) -> Value {
    let image = &usage.image;
    let first = image.references.first();
    let created: Option<jiff::Timestamp> = image.config.created.as_deref().and_then(|text| text.parse().ok());
    json!({
        "Repository": first.map_or_else(|| "<none>".to_owned(), crate::image::Reference::familiar_name),
        "Tag": first.and_then(crate::image::Reference::tag).unwrap_or("<none>"),
        "ID": image.id.short(),
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |at| format!("{} ago", ago(at))),
        "Size": ByteSize(usage.shared + usage.unique).to_string(),
        "SharedSize": ByteSize(usage.shared).to_string(),
        "UniqueSize": ByteSize(usage.unique).to_string(),
        "Containers": usage.containers.to_string(),
    })
}

fn container_row(usage: &ContainerUsage) -> Value {
    let container = &usage.container;
    json!({
        "ID": container.id().short(),
        "Image": container.record.spec.image,
        "Command": format!("{:?}", container.record.command_line()),
        "Size": ByteSize(usage.writable).to_string(),
        "LogSize": ByteSize(usage.logs).to_string(),
        "RunningFor": format!("{} ago", ago(container.created())),
        "Status": status_text(&container.state),
        "Names": container.name().as_str(),
    })
}

fn volume_row(usage: &VolumeUsage) -> Value {
    json!({
        "Name": usage.volume.name.as_str(),
        "Links": usage.users.len().to_string(),
        "Size": ByteSize(usage.size).to_string(),
    })
}
