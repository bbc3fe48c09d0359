//! What no kept release and no container needs any more goes: images, files, secrets.

use std::collections::BTreeSet;
use std::path::Path;

use engine::Engine;
use engine::error::{Error, Result};
use engine::image::Reference;
use engine::store;

use super::journal::Journal;
use super::places::Places;
use super::{brought, history, setup};
use crate::parcel;
use crate::release::Release;

/// Forgets all but the newest releases, and removes what only they needed. The one that serves always stays. How many
/// releases, images and files went.
pub(crate) fn prune(engine: &Engine, places: &Places, keep: usize) -> Result<usize> {
    let serving = history::serving(places)?;
    let all = history::kept(places)?;
    let old = all.len().saturating_sub(keep.max(1));
    let (go, stay): (Vec<_>, Vec<_>) =
        all.into_iter().enumerate().partition(|(place, id)| *place < old && serving.as_ref() != Some(id));
    let mut images = brought::all(places)?;
    let mut count = 0;
    for (_, id) in &go {
        images.extend(own(&history::find(places, id)?));
        history::forget(places, id)?;
        count += 1;
    }
    let stay: Vec<Release> = stay.iter().map(|(_, id)| history::find(places, id)).collect::<Result<_>>()?;
    count += brought::take_away(engine, places, images, &needed(engine, None)?)?;
    let mounted = mounted(engine)?;
    let wanted = |path: &Path, name: &str| {
        stay.iter().any(|release| release.model.contains(name))
            || mounted.contains(&path.to_string_lossy().into_owned())
    };
    count += sweep(&places.kept(""), &|path, name| wanted(path, &format!("{}{name}", parcel::FILES)))?;
    count += sweep(&places.secret(""), &|path, name| {
        let below = |mounted: &String| Path::new(mounted).starts_with(path);
        stay.iter().any(|release| release.id.as_str() == name) || mounted.iter().any(below)
    })?;
    Ok(count)
}

/// The names that images have for a release alone.
pub(crate) fn own(release: &Release) -> impl Iterator<Item = Reference> {
    release.images.values().chain(release.pins.values()).filter_map(|image| image.name.parse().ok())
}

/// The images that kept releases have, and those that are rolled out, of all projects here but this one: two may have an
/// image in common.
pub(crate) fn needed(engine: &Engine, but: Option<&Places>) -> Result<BTreeSet<Reference>> {
    let failed = |error| Error::failed("look for the images of other projects", error);
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(engine.root().deployments()).map_err(failed)? {
        let project = entry.map_err(failed)?.file_name();
        let places = Places::of(engine.root(), &project.to_string_lossy());
        if but.is_some_and(|but| but.state() == places.state()) {
            continue;
        }
        for id in history::kept(&places)? {
            names.extend(history::find(&places, &id)?.images_there());
        }
        names.extend(Journal::read(&places)?.iter().flat_map(|journal| journal.release.images_there()));
    }
    Ok(names)
}

/// Removes executables that were brought here before the one that runs, which nobody runs or names any more: each new
/// version of this program is one. How many went.
pub(crate) fn prune_executables(engine: &Engine) -> Result<usize> {
    let failed = |error| Error::failed("look for executables that nobody runs", error);
    let program = std::env::current_exe().map_err(failed)?;
    // Somebody else put it there, and nothing was brought.
    let Some(bin) = program.ancestors().nth(2).filter(|bin| bin.starts_with(engine.root().state())) else {
        return Ok(0);
    };
    let mut wanted = setup::named(engine, &program).map_err(failed)?;
    wanted.push(program.clone());
    for process in std::fs::read_dir("/proc").map_err(failed)?.flatten() {
        // One that has ended meanwhile runs nothing.
        wanted.extend(std::fs::read_link(process.path().join("exe")));
    }
    sweep(bin, &|path, _| wanted.iter().any(|program| program.starts_with(path)))
}

/// The files of the host that containers mount.
fn mounted(engine: &Engine) -> Result<BTreeSet<String>> {
    use engine::container::spec::MountSource;
    let paths =
        engine.containers()?.into_iter().flat_map(|container| container.record.spec.mounts).filter_map(
            |mount| match mount.source {
                MountSource::Bind { path, .. } | MountSource::Content { file: path, .. } => {
                    Some(path.to_string_lossy().into_owned())
                }
                _ => None,
            },
        );
    Ok(paths.collect())
}

fn sweep(directory: &Path, wanted: &dyn Fn(&Path, &str) -> bool) -> Result<usize> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(0) };
    let mut count = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !wanted(&path, &name) {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory { store::remove_tree(&path) } else { store::remove_file(&path) };
            removed.map_err(|error| Error::failed(format!("remove {}", path.display()), error))?;
            count += 1;
        }
    }
    Ok(count)
}
