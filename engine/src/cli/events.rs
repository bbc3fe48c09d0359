//! `events`: what happens, as docker tells it.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::output;
use crate::cli::template::Template;
use crate::container::logs::parse_moment;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::{Event, Journal};

/// The flags of `events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Only those that match: container, event, image, label, network, scope, type, volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, or a template
    #[arg(long)]
    format: Option<String>,
    /// From this moment on: a time, or how long ago
    #[arg(long)]
    since: Option<String>,
    /// Up to this moment: a time, or how long ago
    #[arg(long)]
    until: Option<String>,
}

/// What is wanted: of each key any value.
struct Filters(Vec<(Key, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Container,
    Event,
    Image,
    Label,
    Network,
    Scope,
    Type,
    Volume,
}

/// How an event is written.
enum Form {
    Line,
    Json,
    Template(Template),
}

/// Tells what happens.
pub(super) fn events(engine: &Engine, args: &EventsArgs) -> Result<u8> {
    let moment = |text: &Option<String>| text.as_deref().map(parse_moment).transpose();
    let (since, until) = (moment(&args.since)?, moment(&args.until)?);
    let filters = Filters::parse(&args.filter)?;
    let form = match args.format.as_deref() {
        None | Some("") => Form::Line,
        Some("json" | "{{json .}}") => Form::Json,
        Some(text) => {
            Form::Template(Template::parse(text).map_err(|error| Error::invalid(error.to_string()))?)
        }
    };
    let failed = |error| Error::failed("read the journal of events", error);
    let mut reader = Journal::of(engine.root()).follow(since).map_err(failed)?;
    while let Some(event) = reader.next(until).map_err(failed)? {
        if filters.match_all(&event) && !output::flushed_line(&form.text(&event)?) {
            return Ok(0);
        }
    }
    Ok(0)
}

// === impl Form ===

impl Form {
    fn text(&self, event: &Event) -> Result<String> {
        Ok(match self {
            Self::Line => line(event),
            Self::Json => json_of(event).to_string(),
            Self::Template(template) => {
                template.render(&for_template(event)).map_err(|error| Error::invalid(error.to_string()))?
            }
        })
    }
}

/// `2026-01-31T12:00:00.000000000Z container start 4f2… (image=busybox, name=web)`.
fn line(event: &Event) -> String {
    let attributes: Vec<String> =
        event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut text = format!("{} {} {} {}", fixed(event.time), event.kind.word(), event.action, event.id);
    if !attributes.is_empty() {
        text.push_str(&format!(" ({})", attributes.join(", ")));
    }
    text
}

/// With nine digits of a second, whatever they are.
fn fixed(time: Timestamp) -> String {
    format!("{time:.9}")
}

fn json_of(event: &Event) -> Value {
    let nanos = i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX);
    let mut value = json!({
        "Type": event.kind.word(),
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local",
        "time": event.time.as_second(),
        "timeNano": nanos,
    });
    // Docker's first form of events, which it still writes for these two kinds.
    if matches!(event.kind.word(), "container" | "image") {
        value["status"] = event.action.clone().into();
        value["id"] = event.id.clone().into();
    }
    if let Some(image) = event.attributes.get("image").filter(|_| event.kind.word() == "container") {
        value["from"] = image.clone().into();
    }
    value
}

/// The same under the names of Go's fields, which templates use.
fn for_template(event: &Event) -> Value {
    let mut value = json_of(event);
    for (field, name) in [
        ("Status", "status"),
        ("ID", "id"),
        ("From", "from"),
        ("Scope", "scope"),
        ("Time", "time"),
        ("TimeNano", "timeNano"),
    ] {
        value[field] = value.get(name).cloned().unwrap_or_else(|| "".into());
    }
    value
}

// === impl Filters ===

impl Filters {
    fn parse(texts: &[String]) -> Result<Self> {
        texts.iter().map(|text| parse_filter(text)).collect::<Result<_>>().map(Self)
    }

    fn match_all(&self, event: &Event) -> bool {
        self.0.iter().all(|(key, wanted)| match key {
            // Labels must all be there; of any other key one value is enough.
            Key::Label => matches(event, *key, wanted),
            _ => self.0.iter().any(|(other, wanted)| other == key && matches(event, *key, wanted)),
        })
    }
}

fn parse_filter(text: &str) -> Result<(Key, String)> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("invalid filter {text:?}: key=value is needed")))?;
    let key = match key {
        "container" => Key::Container,
        "event" => Key::Event,
        "image" => Key::Image,
        "label" => Key::Label,
        "network" => Key::Network,
        "scope" => Key::Scope,
        "type" => Key::Type,
        "volume" => Key::Volume,
        _ => {
            return Err(Error::invalid(format!("invalid filter '{key}'")).with_hint(
                "known filters are container, event, image, label, network, scope, type and volume",
            ));
        }
    };
    Ok((key, value.to_owned()))
}

fn matches(event: &Event, key: Key, wanted: &str) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let of_kind = |kind: &str| {
        event.kind.word() == kind && (event.id.starts_with(wanted) || attribute("name") == Some(wanted))
    };
    match key {
        Key::Container => {
            of_kind("container") || attribute("container").is_some_and(|id| id.starts_with(wanted))
        }
        Key::Network => of_kind("network"),
        Key::Volume => of_kind("volume"),
        Key::Image => {
            let bare = |text: &str| text == wanted || text.split(':').next() == Some(wanted);
            of_kind("image")
                || (event.kind.word() == "image" && attribute("name").is_some_and(bare))
                || (event.kind.word() == "container" && attribute("image").is_some_and(bare))
        }
        Key::Label => match wanted.split_once('=') {
            Some((name, value)) => attribute(name) == Some(value),
            None => attribute(wanted).is_some(),
        },
        Key::Event => event.action == wanted || event.action.split(':').next() == Some(wanted),
        Key::Type => event.kind.word() == wanted,
        Key::Scope => wanted == "local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    fn event() -> Event {
        Event {
            time: "2026-01-31T12:00:00.5Z".parse().unwrap(),
            kind: EventKind::Container,
            action: "exec_start: ls -l".to_owned(),
            id: "4f2a".to_owned(),
            attributes: [("name", "web"), ("image", "box:1"), ("tier", "front")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[test]
    fn an_event_is_written_as_docker_writes_it() {
        assert_eq!(
            line(&event()),
            "2026-01-31T12:00:00.500000000Z container exec_start: ls -l 4f2a (image=box:1, name=web, tier=front)"
        );
        let json = json_of(&event());
        assert_eq!(json["Actor"]["Attributes"]["name"], "web");
        assert_eq!(
            (json["from"].as_str(), json["timeNano"].as_i64()),
            (Some("box:1"), Some(1_769_860_800_500_000_000))
        );
        assert_eq!(for_template(&event())["ID"], "4f2a");
    }

    #[test]
    fn filters_of_one_key_are_alternatives() {
        let kept = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Filters::parse(&texts).unwrap().match_all(&event())
        };
        for texts in [
            &["container=web"][..],
            &["container=4f2"],
            &["event=exec_start", "event=die"],
            &["image=box"],
            &["label=tier=front", "label=name"],
            &["type=container", "scope=local"],
            &[],
        ] {
            assert!(kept(texts), "{texts:?}");
        }
        for texts in
            [&["container=db"][..], &["event=die"], &["label=tier=front", "label=x"], &["type=image"]]
        {
            assert!(!kept(texts), "{texts:?}");
        }
        assert!(Filters::parse(&["node=x".to_owned()]).is_err());
    }
}
