//! `--filter` of `images` and `image prune`: docker's words for which images are meant.

use jiff::Timestamp;

use crate::builder::glob;
use crate::container::logs::parse_moment;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Image, Reference};

/// Which images are meant. Different keys must all hold; several patterns of names are alternatives.
#[derive(Debug, Default)]
pub(super) struct Filters {
    dangling: Option<bool>,
    /// Keys, the wanted value if any, and whether an image with it is wanted.
    labels: Vec<(String, Option<String>, bool)>,
    patterns: Vec<String>,
    /// Made before this.
    before: Option<Timestamp>,
    /// Made after this.
    since: Option<Timestamp>,
}

// === impl Filters ===

impl Filters {
    /// Reads filters for a listing.
    pub(super) fn parse(engine: &Engine, texts: &[String]) -> Result<Self> {
        let mut filters = Self::default();
        for text in texts {
            filters.add(engine, text)?;
        }
        Ok(filters)
    }

    fn add(&mut self, engine: &Engine, text: &str) -> Result<()> {
        let wrong = || {
            Error::invalid(format!("invalid filter {text:?}"))
                .with_hint("dangling, label, label!, reference, before, since and until are there")
        };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let created = || {
            let image = engine.images().get(value)?;
            image
                .created()
                .ok_or_else(|| Error::invalid(format!("the image {value} does not say when it was made")))
        };
        let earlier =
            |known: Option<Timestamp>, new| Some(known.map_or(new, |known: Timestamp| known.min(new)));
        match key {
            "dangling" => {
                self.dangling = Some(match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(wrong()),
                });
            }
            "label" | "label!" => {
                let (name, wanted) = match value.split_once('=') {
                    Some((name, wanted)) => (name, Some(wanted.to_owned())),
                    None => (value, None),
                };
                self.labels.push((name.to_owned(), wanted, key == "label"));
            }
            "reference" => self.patterns.push(value.to_owned()),
            "before" => self.before = earlier(self.before, created()?),
            "until" => {
                let moment = parse_moment(value).map_err(|error| wrong().with_source(error))?;
                self.before = earlier(self.before, moment);
            }
            "since" => self.since = Some(created()?),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// Whether an image is meant.
    pub(super) fn takes(&self, image: &Image) -> bool {
        let labels = &image.config.config.labels;
        let has = |name: &str, wanted: Option<&str>| {
            labels.get(name).is_some_and(|value| wanted.is_none_or(|wanted| wanted == value))
        };
        let created = image.created();
        self.dangling
            .is_none_or(|dangling| dangling == (image.references.is_empty() && image.part_of.is_empty()))
            && self.labels.iter().all(|(name, wanted, is_wanted)| has(name, wanted.as_deref()) == *is_wanted)
            && (self.patterns.is_empty()
                || image
                    .references
                    .iter()
                    .any(|reference| self.patterns.iter().any(|p| matches(reference, p))))
            && self.before.is_none_or(|before| created.is_some_and(|created| created < before))
            && self.since.is_none_or(|since| created.is_some_and(|created| created > since))
    }

    /// Whether those without a name are asked for.
    pub(super) fn wants_dangling(&self) -> bool {
        self.dangling == Some(true)
    }

    /// Whether a name is one of those asked for.
    pub(super) fn takes_name(&self, reference: &Reference) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches(reference, pattern))
    }
}

/// Whether a name is meant by a pattern, as Go's `path.Match` reads it: with its tag, or without when the pattern has
/// none. A pattern that cannot be read means no name.
pub(super) fn matches(reference: &Reference, pattern: &str) -> bool {
    [reference.to_string(), reference.familiar_name()]
        .iter()
        .any(|name| glob::matches(pattern, name).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_does_not_cross_a_slash() {
        let matches = |pattern: &str, name: &str| matches(&name.parse().unwrap(), pattern);
        assert!(matches("busy*", "busybox"));
        assert!(matches("*:1", "a:1"));
        assert!(!matches("*", "a/b"));
        assert!(matches("a/*", "a/b"));
        assert!(matches("b?x:[12]", "box:2"));
        assert!(!matches("b[", "b"));
    }
}
