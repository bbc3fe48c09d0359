//! The releases that a host keeps, and what happened to them.

use std::io;

use engine::error::{Error, Result};
use engine::store::{self, Durability};

use super::places::Places;
use super::{form, ledger};
use crate::release::{self, Entry, Outcome, Release, ReleaseId};

/// Keeps a release.
pub(crate) fn keep(places: &Places, release: &Release) -> Result<()> {
    store::private_directory(&places.releases())
        .and_then(|()| store::write_json(&places.release(&release.id), release, Durability::Sync))
        .map_err(|error| Error::failed(format!("keep the release {}", release.id), error))
}

/// A release that is kept.
pub(crate) fn find(places: &Places, id: &ReleaseId) -> Result<Release> {
    let found: Option<Release> =
        form::read(&places.release(id), &format!("the release {id}"), release::VERSION)?;
    if let Some(release) = found {
        return Ok(release);
    }
    let kept: Vec<String> = kept(places)?.iter().map(ToString::to_string).collect();
    let hint = match kept.as_slice() {
        [] => "no release is: the first one is for `rdeploy up`".to_owned(),
        kept => format!("kept are {}; `keep:` in rdeploy.yaml says how many", kept.join(", ")),
    };
    Err(Error::not_found(format!("the release {id} is not kept here")).with_hint(hint))
}

/// Forgets a release.
pub(crate) fn forget(places: &Places, id: &ReleaseId) -> Result<()> {
    store::remove_file(&places.release(id))
        .map_err(|error| Error::failed(format!("forget the release {id}"), error))
}

/// The names of all releases that are kept, the one that has served least recently first. What a release is called comes
/// from its client's clock, which may be off; the order in which they served does not.
pub(crate) fn kept(places: &Places) -> Result<Vec<ReleaseId>> {
    let files = match std::fs::read_dir(places.releases()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| Error::failed("list the releases", error))?,
    };
    let mut all: Vec<ReleaseId> = files
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
        .collect();
    let history = entries(places)?;
    let last = |id: &ReleaseId| history.iter().rposition(|entry| entry.release == *id);
    // One that is in no history yet is about to serve.
    all.sort_by_cached_key(|id| (last(id).unwrap_or(usize::MAX), id.clone()));
    Ok(all)
}

/// Puts what happened on record.
pub(crate) fn record(places: &Places, entry: &Entry) -> Result<()> {
    ledger::append(&places.history(), entry)
        .and_then(|file| file.sync_data())
        .map_err(|error| Error::failed("write the history", error))
}

/// What happened, the oldest first.
pub(crate) fn entries(places: &Places) -> Result<Vec<Entry>> {
    ledger::read(&places.history()).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => form::later("the history"),
        _ => Error::failed("read the history", error),
    })
}

/// The release that serves: the last one that was rolled out to the end.
pub(crate) fn serving(places: &Places) -> Result<Option<ReleaseId>> {
    Ok(entries(places)?
        .into_iter()
        .rev()
        .find(|entry| entry.outcome == Outcome::Served)
        .map(|entry| entry.release))
}

#[cfg(test)]
mod tests {
    use engine::Root;

    use super::*;

    #[test]
    fn releases_are_as_old_as_when_they_served_whatever_their_clients_clocks_said() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places::of(&Root::at(directory.path()), "p");
        std::fs::create_dir_all(places.releases()).unwrap();
        let late = "20300101T000000-0000";
        let early = "20200101T000000-0000";
        for id in [early, late, "20250101T000000-0000"] {
            std::fs::write(places.release(&id.parse().unwrap()), "{}").unwrap();
        }
        for id in [late, early] {
            let entry = format!(
                r#"{{"release": "{id}", "previous": null, "commit": null, "author": "me", "began": "2026-01-01T00:00:00Z",
                 "outcome": "served", "prepare_ms": 1, "commit_ms": 1, "downtime_ms": null, "images": {{}}, "rollback": false}}"#
            );
            record(&places, &serde_json::from_str(&entry).unwrap()).unwrap();
        }
        let kept: Vec<String> = kept(&places).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(kept, [late, early, "20250101T000000-0000"]);
    }
}
