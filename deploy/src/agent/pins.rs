//! What the names of images meant when a release was rolled out: a registry may give `web:latest` another meaning any day.
//! Each image keeps a name that means it alone, and going back to a release gives names their meaning of then.

use std::collections::BTreeMap;

use compose::observe::Observed;
use engine::Engine;
use engine::error::{Error, Result};
use engine::image::Reference;

use super::brought;
use super::places::Places;
use crate::release::{SENT_TAG, SentImage};

/// What names mean, by the name as a release's model has it.
pub(crate) type Pins = BTreeMap<String, SentImage>;

/// Keeps the images of these names that are here under names of their own.
pub(crate) fn keep(engine: &Engine, places: &Places, observed: &Observed) -> Result<Pins> {
    let mut pins = Pins::new();
    for (name, id) in &observed.images {
        let reference = named(name)?;
        let says_what = reference.tag().is_some_and(|tag| tag.starts_with(SENT_TAG));
        // A digest never means anything else.
        if says_what || reference.digest().is_some() {
            continue;
        }
        let own = reference.with_tag(&format!("{SENT_TAG}{}", &id.hex()[..12])).map_err(Error::from)?;
        if engine.images().find(&own.canonical())?.is_none_or(|image| image.id != *id) {
            brought::expect(engine, places, [own.clone()])?;
            engine.images().tag(id.as_str(), &own)?;
        }
        pins.insert(name.clone(), SentImage { name: own.to_string(), id: id.to_string() });
    }
    Ok(pins)
}

/// Lets names mean what they meant. An image that is not here any more is nothing that a name can mean.
pub(crate) fn give_back(engine: &Engine, meanings: &BTreeMap<String, String>) -> Result<()> {
    for (name, id) in meanings {
        let now = engine.images().find(name)?;
        if now.is_none_or(|image| image.id.as_str() != id) && engine.images().find(id)?.is_some() {
            engine.images().tag(id, &named(name)?)?;
        }
    }
    Ok(())
}

fn named(name: &str) -> Result<Reference> {
    name.parse().map_err(|error| Error::invalid(format!("image {name:?}")).with_source(error))
}
