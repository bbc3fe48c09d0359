//! Images that came to this host for releases of a project. What is not here yet is put down before it comes, so that it
//! goes again also when its release never served, nor even began to be rolled out. What was here before is somebody else's.

use std::collections::BTreeSet;

use engine::Engine;
use engine::error::{Error, Kind, Result};
use engine::image::Reference;
use engine::store::{self, Durability};

use super::places::Places;

/// Puts down those of these names that mean nothing here yet.
///
/// # Errors
/// When the images cannot be read, or it cannot be written.
pub(crate) fn expect(
    engine: &Engine,
    places: &Places,
    names: impl IntoIterator<Item = Reference>,
) -> Result<()> {
    let mut new = Vec::new();
    for name in names {
        if engine.images().find(&name.canonical())?.is_none() {
            new.push(name);
        }
    }
    let mut all = all(places)?;
    let known = all.len();
    all.extend(new);
    if all.len() == known { Ok(()) } else { write(places, &all) }
}

/// All that came and has not been taken away.
pub(crate) fn all(places: &Places) -> Result<BTreeSet<Reference>> {
    let names: Option<BTreeSet<Reference>> = store::read_json(&places.brought())
        .map_err(|error| Error::failed("read which images were brought here", error))?;
    Ok(names.unwrap_or_default())
}

/// Takes those of these images away that are not needed and that no container was made from. How many went.
pub(crate) fn take_away(
    engine: &Engine,
    places: &Places,
    names: BTreeSet<Reference>,
    needed: &BTreeSet<Reference>,
) -> Result<usize> {
    let (mut stay, go): (BTreeSet<_>, BTreeSet<_>) =
        names.into_iter().partition(|name| needed.contains(name));
    let mut count = 0;
    for name in go {
        match engine.remove_image(&name.canonical(), false) {
            Ok(removed) => count += removed.len(),
            // A container was made from it: it goes when that has gone.
            Err(error) if error.kind() == Kind::Conflict => drop(stay.insert(name)),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    write(places, &stay)?;
    Ok(count)
}

fn write(places: &Places, names: &BTreeSet<Reference>) -> Result<()> {
    store::write_json(&places.brought(), names, Durability::Rename)
        .map_err(|error| Error::failed("write down which images were brought here", error))
}
