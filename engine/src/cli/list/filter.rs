//! `--filter` on containers: all keys must match, any value of a key may.

use std::mem::discriminant;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::container::logs::parse_moment;
use crate::container::spec::{ContainerPort, MountSource};
use crate::container::state::State;
use crate::engine::{Container, Engine};
use crate::error::{Error, Result};
use crate::id::ImageId;

/// What is wanted of a container.
#[derive(Debug)]
pub(in crate::cli) struct Filters(Vec<Filter>);

#[derive(Debug)]
enum Filter {
    Name(Pattern),
    Id(String),
    Label(String, Option<String>),
    NoLabel(String, Option<String>),
    Status(String),
    Ancestor(Ancestor),
    Volume(String),
    Network(String),
    Health(String),
    Exited(i32),
    Publish(Ports),
    Expose(Ports),
    Before(Timestamp),
    Since(Timestamp),
    Until(Timestamp),
}

/// A part of a name, with its ends where `^` and `$` say so.
#[derive(Debug)]
struct Pattern {
    starts: bool,
    text: String,
    ends: bool,
}

/// An image and those made of it.
#[derive(Debug)]
struct Ancestor {
    text: String,
    image: Option<(ImageId, Vec<PathBuf>)>,
}

/// Ports from the first to the last, of any protocol or of one.
#[derive(Debug)]
struct Ports {
    first: u16,
    last: u16,
    protocol: Option<String>,
}

const LISTING: &str =
    "ancestor, before, exited, expose, health, id, label, name, network, publish, since, status, volume";
const PRUNING: &str = "until, label and label!";
const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

// === impl Filters ===

impl Filters {
    /// The filters of `ps`.
    pub(in crate::cli) fn of_listing(engine: &Engine, texts: &[String]) -> Result<Self> {
        texts.iter().map(|text| listing(engine, text)).collect::<Result<_>>().map(Self)
    }

    /// The filters of `container prune`.
    pub(in crate::cli) fn of_pruning(texts: &[String]) -> Result<Self> {
        texts.iter().map(|text| pruning(text)).collect::<Result<_>>().map(Self)
    }

    /// Whether containers that do not run are asked for.
    pub(super) fn names_a_state(&self) -> bool {
        self.0.iter().any(|filter| matches!(filter, Filter::Status(_) | Filter::Exited(_)))
    }

    /// Whether a container is wanted.
    pub(in crate::cli) fn match_all(&self, container: &Container) -> bool {
        self.0.iter().all(|filter| match filter {
            // Labels must all be there; of any other key one value is enough.
            Filter::Label(..) | Filter::NoLabel(..) => filter.matches(container),
            _ => {
                let same = |other: &&Filter| discriminant(*other) == discriminant(filter);
                self.0.iter().filter(same).any(|filter| filter.matches(container))
            }
        })
    }
}

fn pair(text: &str) -> Result<(&str, &str)> {
    text.split_once('=')
        .ok_or_else(|| Error::invalid(format!("invalid filter {text:?}: key=value is needed")))
}

fn listing(engine: &Engine, text: &str) -> Result<Filter> {
    let (key, value) = pair(text)?;
    let owned = value.to_owned();
    let one_of = |known: &[&str]| {
        if known.contains(&value) {
            return Ok(value.to_owned());
        }
        Err(Error::invalid(format!("invalid filter '{text}'"))
            .with_hint(format!("{key} is one of {}", known.join(", "))))
    };
    Ok(match key {
        "name" => Filter::Name(Pattern::parse(value)),
        "id" => Filter::Id(owned),
        "label" => label(value),
        "status" => Filter::Status(one_of(&STATES)?),
        "health" => Filter::Health(one_of(&HEALTH)?),
        "ancestor" => Filter::Ancestor(Ancestor::find(engine, value)?),
        "volume" => Filter::Volume(owned),
        "network" => Filter::Network(owned),
        "exited" => Filter::Exited(
            value
                .parse()
                .map_err(|_| Error::invalid(format!("invalid filter '{text}': a number is needed")))?,
        ),
        "publish" => Filter::Publish(Ports::parse(value)?),
        "expose" => Filter::Expose(Ports::parse(value)?),
        "before" => Filter::Before(engine.container(value)?.created()),
        "since" => Filter::Since(engine.container(value)?.created()),
        _ => return Err(unknown(key, LISTING)),
    })
}

fn pruning(text: &str) -> Result<Filter> {
    Ok(match pair(text)? {
        ("until", value) => Filter::Until(parse_moment(value)?),
        ("label", value) => label(value),
        ("label!", value) => match label(value) {
            Filter::Label(key, value) => Filter::NoLabel(key, value),
            other => other,
        },
        (key, _) => return Err(unknown(key, PRUNING)),
    })
}

fn unknown(key: &str, known: &str) -> Error {
    Error::invalid(format!("invalid filter '{key}'")).with_hint(format!("known filters are {known}"))
}

fn label(text: &str) -> Filter {
    match text.split_once('=') {
        Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
        None => Filter::Label(text.to_owned(), None),
    }
}

// === impl Filter ===

impl Filter {
    fn matches(&self, container: &Container) -> bool {
        let spec = &container.record.spec;
        let has = |key: &String, value: &Option<String>| {
            spec.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        match self {
            Self::Name(pattern) => pattern.matches(container.name().as_str()),
            Self::Id(start) => container.id().as_str().starts_with(start.as_str()),
            Self::Label(key, value) => has(key, value),
            Self::NoLabel(key, value) => !has(key, value),
            Self::Status(word) => container.state.word() == word,
            Self::Ancestor(ancestor) => ancestor.is_of(container),
            Self::Volume(wanted) => spec.mounts.iter().any(|mount| {
                let source = match &mount.source {
                    MountSource::Volume { name: Some(name), .. } => name.as_str() == wanted,
                    MountSource::Bind { path, .. } => path == Path::new(wanted),
                    _ => false,
                };
                source || mount.target == Path::new(wanted)
            }),
            Self::Network(wanted) => {
                spec.network.names().contains(wanted)
                    || container.endpoints.iter().any(|endpoint| {
                        endpoint.network_name.as_str() == wanted
                            || endpoint.network.as_str().starts_with(wanted)
                    })
            }
            Self::Health(wanted) => {
                let health = match &container.state {
                    State::Running(running) => {
                        running.health.as_ref().map(|health| health.status.to_string())
                    }
                    _ => None,
                };
                health.as_deref().unwrap_or("none") == wanted
            }
            Self::Exited(code) => matches!(&container.state, State::Exited(exit) if exit.code == *code),
            Self::Publish(ports) => container.ports.iter().any(|port| ports.contain(&port.container)),
            Self::Expose(ports) => spec.expose.iter().any(|port| ports.contain(port)),
            Self::Before(time) | Self::Until(time) => container.created() < *time,
            Self::Since(time) => container.created() > *time,
        }
    }
}

// === impl Pattern, Ancestor, Ports ===

impl Pattern {
    fn parse(text: &str) -> Self {
        let (starts, text) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let (ends, text) = text.strip_suffix('$').map_or((false, text), |rest| (true, rest));
        // Docker's names begin with a slash that nobody sees.
        let (starts, text) = text.strip_prefix('/').map_or((starts, text), |rest| (true, rest));
        Self { starts, text: text.to_owned(), ends }
    }

    fn matches(&self, name: &str) -> bool {
        match (self.starts, self.ends) {
            (true, true) => name == self.text,
            (true, false) => name.starts_with(&self.text),
            (false, true) => name.ends_with(&self.text),
            (false, false) => name.contains(&self.text),
        }
    }
}

impl Ancestor {
    fn find(engine: &Engine, text: &str) -> Result<Self> {
        let images = engine.images();
        let found = match images.find(text) {
            // Its containers say themselves what they were made of.
            Err(error) if error.is_damage() => None,
            found => found?,
        };
        let image = found.map(|image| {
            let layers = images.lower_dirs(&image);
            (image.id, layers)
        });
        Ok(Self { text: text.to_owned(), image })
    }

    fn is_of(&self, container: &Container) -> bool {
        let made_of = |(id, layers): &(ImageId, Vec<PathBuf>)| {
            container.image() == id || container.record.lower.ends_with(layers)
        };
        container.record.spec.image == self.text || self.image.as_ref().is_some_and(made_of)
    }
}

impl Ports {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!("invalid port {text:?}")).with_hint("write 80, 80/tcp or 8000-8010/tcp")
        };
        let (ports, protocol) = text.split_once('/').map_or((text, None), |(p, kind)| (p, Some(kind)));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        Ok(Self {
            first: first.parse().map_err(|_| wrong())?,
            last: last.parse().map_err(|_| wrong())?,
            protocol: protocol.map(str::to_owned),
        })
    }

    fn contain(&self, port: &ContainerPort) -> bool {
        (self.first..=self.last).contains(&port.port)
            && self.protocol.as_ref().is_none_or(|wanted| *wanted == port.protocol.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_ends_where_it_says_so() {
        for (pattern, matching, other) in [
            ("web", "my-web-1", "we"),
            ("^web$", "web", "web-1"),
            ("/web", "web-1", "my-web"),
            ("1$", "web-1", "1-web"),
        ] {
            let pattern = Pattern::parse(pattern);
            assert!(pattern.matches(matching) && !pattern.matches(other), "{pattern:?}");
        }
    }

    #[test]
    fn ports_are_a_range_with_or_without_a_protocol() {
        let port = |text: &str| crate::container::merge::expand_exposed(text).unwrap()[0];
        assert!(Ports::parse("80").unwrap().contain(&port("80/udp")));
        assert!(!Ports::parse("80/tcp").unwrap().contain(&port("80/udp")));
        assert!(Ports::parse("70-90/udp").unwrap().contain(&port("80/udp")));
        assert!(Ports::parse("x").is_err());
    }

    #[test]
    fn filters_of_pruning_are_others_than_those_of_listing() {
        let parse = |texts: &[&str]| {
            Filters::of_pruning(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert!(parse(&["until=10m", "label=a", "label!=b=c"]).is_ok());
        assert!(parse(&["name=web"]).unwrap_err().hint().unwrap().contains("until"));
        assert!(parse(&["until"]).is_err());
    }
}
