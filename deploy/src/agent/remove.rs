//! Taking a project away from a host.

use std::fs;
use std::io;

use compose::labels;
use engine::error::{Error, Kind, Result};
use engine::store;
use engine::{Engine, RemoveOptions};

use super::places::Places;
use super::{Tell, brought, history, prune};
use crate::context;
use crate::message::Event;

/// Takes everything of a project away; its volumes and what services wrote into directories of the project only when
/// asked. Begun again, it goes on where it was.
pub(crate) fn remove(
    engine: &Engine,
    places: &Places,
    project: &str,
    volumes: bool,
    tell: &Tell,
) -> Result<()> {
    let told = |object: String| tell(Event::Step { object, word: "Removed".to_owned(), took_ms: Some(0) });
    for container in engine.containers()? {
        if labels::belongs_to(&container.record.spec.labels, project) {
            gone_is_fine(engine.remove(container.id(), &RemoveOptions { force: true, volumes }))?;
            told(format!("Container {}", container.name()));
        }
    }
    for network in engine.networks().list()? {
        if labels::belongs_to(&network.spec.labels, project) {
            gone_is_fine(engine.remove_network(network.spec.name.as_str()))?;
            told(format!("Network {}", network.spec.name));
        }
    }
    if volumes {
        for volume in engine.volumes().list()? {
            if labels::belongs_to(&volume.labels, project) {
                gone_is_fine(engine.remove_volume(volume.name.as_str()))?;
                told(format!("Volume {}", volume.name));
            }
        }
    }
    let mut images = brought::all(places)?;
    for id in history::kept(places)? {
        images.extend(prune::own(&history::find(places, &id)?));
    }
    brought::take_away(engine, places, images, &prune::needed(engine, Some(places))?)?;
    context::forget_all(engine, project)?;
    forget(places, volumes)
}

/// What is written down of the project goes last. The lock stays: this process holds it.
fn forget(places: &Places, volumes: bool) -> Result<()> {
    let failed = |error: io::Error| Error::failed(format!("remove {}", places.state().display()), error);
    store::remove_tree(places.run()).map_err(failed)?;
    for entry in fs::read_dir(places.state()).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path == places.lock() || (!volumes && path == places.data("")) {
            continue;
        }
        let removed = if path.is_dir() { store::remove_tree(&path) } else { store::remove_file(&path) };
        removed.map_err(failed)?;
    }
    Ok(())
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        // Another project uses it.
        Err(error) if error.kind() == Kind::Conflict => Ok(()),
        other => other,
    }
}
