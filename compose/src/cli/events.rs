//! `events`: what happens to the containers of the project.

use clap::Args;
use engine::container::logs::parse_moment;
use engine::event::{Event, Journal};
use serde_json::json;

use super::failure::CliError;
use super::session::Session;
use crate::labels;
use crate::output;

/// The flags of `events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// A JSON object a line
    #[arg(long)]
    json: bool,
    /// From this moment on: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this moment
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The services; all when none is named
    services: Vec<String>,
}

/// `events`.
pub(super) fn events(session: &Session, args: &EventsArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.services)?;
    let moment = |text: &Option<String>| {
        let parsed = text.as_deref().map(parse_moment).transpose();
        parsed.map_err(|error| CliError::Invalid(error.to_string()))
    };
    let (since, until) = (moment(&args.since)?, moment(&args.until)?);
    let failed = |error| engine::Error::failed("read the journal of events", error);
    let engine = session.engine()?;
    let mut reader = Journal::of(engine.root()).follow(since).map_err(failed)?;
    while let Some(event) = reader.next(until).map_err(failed)? {
        let service = labels::value(&event.attributes, labels::SERVICE);
        let asked = args.services.is_empty() || args.services.iter().any(|name| name == service);
        if event.kind.word() == "container" && labels::belongs_to(&event.attributes, &project.name) && asked {
            let text = if args.json { json_line(&event, service) } else { line(&event) };
            if !output::offer(format!("{text}\n").as_bytes()) {
                break;
            }
        }
    }
    Ok(0)
}

/// `2026-01-31 12:00:00.000000 container start 4f2… (image=busybox, name=web)`.
fn line(event: &Event) -> String {
    let attributes: Vec<String> =
        own_attributes(event).map(|(key, value)| format!("{key}={value}")).collect();
    format!(
        "{} container {} {} ({})",
        format!("{:.6}", event.time).replace('T', " ").trim_end_matches('Z'),
        event.action,
        event.id,
        attributes.join(", ")
    )
}

fn json_line(event: &Event, service: &str) -> String {
    let attributes: std::collections::BTreeMap<&String, &String> = own_attributes(event).collect();
    json!({
        "time": event.time.to_string(),
        "type": "container",
        "service": service,
        "id": event.id,
        "action": event.action,
        "attributes": attributes,
    })
    .to_string()
}

/// Without the labels by which the project is known.
fn own_attributes(event: &Event) -> impl Iterator<Item = (&String, &String)> {
    event
        .attributes
        .iter()
        .filter(|(key, _)| !key.starts_with("com.docker.compose.") && *key != labels::CONTENTS)
}
