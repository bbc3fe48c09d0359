//! Indexes as they came, from a registry or an archive: kept for the names that mean their images, so that what all of
//! is here leaves as it came, with what is attested of it, and its digest stays.

use std::collections::BTreeSet;

use crate::id::Digest;
use crate::image::attestation::{self, Attestation};
use crate::image::manifest::{self, Descriptor, MOST_JSON, OCI_INDEX};
use crate::image::registry::Repository;
use crate::image::transfer::{arrivals, fetch_blob};
use crate::image::{ImageError, Images, Reference, failure};
use crate::store::content::{Content, ContentError};

/// The index that a name came with.
pub(super) struct Kept {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    /// As it came.
    pub(super) raw: Vec<u8>,
    /// What it says that is attested of the images that are meant, as far as that is here.
    pub(super) attestations: Vec<Attestation>,
    /// Whether all that it lists is meant, and here.
    pub(super) is_whole: bool,
}

// === impl Images ===

impl Images {
    /// Lets names remember the index that they came with, which is among the blobs.
    ///
    /// # Errors
    /// When the names cannot be read or written.
    pub(super) fn keep_index(&self, references: &[Reference], index: &Digest) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let before = self.names()?;
        let mut names = before.clone();
        references.iter().for_each(|name| names.set_index(name, index));
        if names != before {
            names.write(&self.root).map_err(failure("name", index.as_str()))?;
        }
        Ok(())
    }

    /// The digest of the index that a name came with.
    pub(super) fn index_of(&self, name: &Reference) -> Result<Option<Digest>, ImageError> {
        Ok(self.names()?.index_of(name).cloned())
    }

    /// An index that was kept, for images that leave with these manifests. One that the disk has damaged is none.
    pub(super) fn kept(&self, index: &Digest, manifests: &[Digest]) -> Option<Kept> {
        let content = self.content();
        let raw = content.read(index, MOST_JSON).ok()?;
        let listing = manifest::listing(&raw).ok()??;
        let mut is_whole = true;
        let mut attestations = Vec::new();
        for entry in listing.entries {
            if !entry.is_attestation() {
                is_whole &= manifests.contains(&entry.digest);
            } else if let Some(attestation) = Attestation::kept(&content, &entry) {
                let is_meant = entry.subject().is_none_or(|subject| manifests.contains(&subject));
                attestations.extend(is_meant.then_some(attestation));
            } else {
                is_whole = false;
            }
        }
        let media_type = listing.media_type.unwrap_or_else(|| OCI_INDEX.to_owned());
        Some(Kept { digest: index.clone(), media_type, raw, attestations, is_whole })
    }

    /// Fetches what an index says is attested of one of its images.
    pub(super) async fn fetch_attestations(
        &self,
        repository: &Repository,
        index: &[u8],
        subject: &Digest,
    ) -> Result<(), ImageError> {
        let Some(listing) = manifest::listing(index)? else { return Ok(()) };
        let content = self.content();
        for entry in listing.entries.iter().filter(|entry| entry.subject().as_ref() == Some(subject)) {
            if Attestation::kept(&content, entry).is_some() {
                continue;
            }
            let fetched = repository.manifest(entry.digest.as_str()).await?;
            for blob in manifest::parts(&fetched.bytes)? {
                fetch_into(&content, repository, &blob).await?;
            }
            content.put(&fetched.bytes)?;
        }
        Ok(())
    }
}

// === impl Attestation ===

impl Attestation {
    /// What an entry of an index says, if all of it is here.
    fn kept(content: &Content, entry: &Descriptor) -> Option<Self> {
        let raw = content.read(&entry.digest, MOST_JSON).ok()?;
        let blobs = manifest::parts(&raw).ok()?;
        let is_here = |blob: &Descriptor| content.size(&blob.digest) == Some(blob.size);
        blobs.iter().all(is_here).then(|| Self { entry: entry.clone(), raw, blobs })
    }
}

/// The blobs that have to stay for an index that was kept.
pub(super) fn live(content: &Content, index: &Digest) -> BTreeSet<Digest> {
    let mut live = BTreeSet::from([index.clone()]);
    let listing = content.read(index, MOST_JSON).ok().and_then(|raw| manifest::listing(&raw).ok()?);
    let entries = listing.into_iter().flat_map(|listing| listing.entries);
    for entry in entries.filter(Descriptor::is_attestation) {
        if let Ok(raw) = content.read(&entry.digest, MOST_JSON) {
            live.extend(attestation::blobs(&raw));
            live.insert(entry.digest);
        }
    }
    live
}

/// Fetches a blob to those that are here, unless it is.
async fn fetch_into(content: &Content, repository: &Repository, blob: &Descriptor) -> Result<(), ImageError> {
    if content.size(&blob.digest) == Some(blob.size) {
        return Ok(());
    }
    let (sender, mut reader) = arrivals();
    let received = {
        let (content, blob) = (content.clone(), blob.clone());
        tokio::task::spawn_blocking(move || {
            let mut ingest = content.ingest()?;
            std::io::copy(&mut reader, &mut ingest).map_err(|source| ContentError::Io {
                step: "receive",
                object: blob.digest.to_string(),
                source,
            })?;
            ingest.commit(Some(&blob.digest), Some(blob.size)).map(drop)
        })
    };
    let fetched = fetch_blob(repository, blob, sender, &|_| ()).await;
    let received = received
        .await
        .map_err(|error| failure("receive", blob.digest.as_str())(std::io::Error::other(error)))?;
    match fetched {
        Err(Some(error)) => Err(error.into()),
        _ => Ok(received?),
    }
}
