//! Whether everything that is kept of images still is what its digest says.

use std::collections::BTreeSet;
use std::io;

use crate::id::{DiffId, Digest, Hash};
use crate::image::record::ImageRecord;
use crate::image::{ImageError, Images, failure};
use crate::store::content::ContentError;

// === impl Images ===

impl Images {
    /// Reads every blob and every layer, and says in words what is not as it was when it was taken in. While it reads,
    /// nothing is removed.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn verify(&self) -> Result<Vec<String>, ImageError> {
        let _hold = self.layers().hold()?;
        let records = self.records()?;
        let mut damages = Vec::new();
        let mut wrong = BTreeSet::new();
        for digest in self.content().list()? {
            if self.is_another(&digest)? {
                damages.push(damage(&records, &format!("the blob {digest} has another content"), |record| {
                    let own = [record.manifest.as_ref(), record.attestation.as_ref()];
                    record.id == digest || own.contains(&Some(&digest))
                }));
                wrong.insert(digest);
            }
        }
        let layers = self.layers();
        for diff in layers.list()? {
            let has = |record: &ImageRecord| record.layers.contains(&diff);
            // One that a power cut made doubtful is as good as not here.
            let Ok(record) = layers.record(&diff) else { continue };
            if let Some(blob) = record.blob.filter(|blob| wrong.contains(&blob.digest)) {
                damages.push(damage(
                    &records,
                    &format!("the layer {diff} was packed in {}", blob.digest),
                    has,
                ));
            } else if let Some(reason) = layers.verify(&diff)? {
                damages.push(damage(&records, &format!("the layer {diff}: {reason}"), has));
            }
        }
        damages.extend(self.incomplete(&records));
        Ok(damages)
    }

    /// Images of which something is not here, and names that mean none.
    fn incomplete(&self, records: &[ImageRecord]) -> Vec<String> {
        let (content, layers) = (self.content(), self.layers());
        let mut damages = Vec::new();
        for record in records {
            let lost = |diff: &&DiffId| !layers.contains(diff);
            let lost_layer =
                record.layers.iter().find(lost).map(|diff| format!("the layer {diff} is not here"));
            let mut blobs = [Some(&record.id), record.manifest.as_ref()].into_iter().flatten();
            let lost_blob = blobs.find(|digest| content.size(digest).is_none());
            let lost_blob = lost_blob.map(|digest| format!("the blob {digest} is not here"));
            let only = |other: &ImageRecord| other.id == record.id;
            damages.extend(lost_layer.or(lost_blob).map(|reason| damage(records, &reason, only)));
        }
        damages
    }

    fn is_another(&self, digest: &Digest) -> Result<bool, ImageError> {
        let mut file = match self.content().open(digest) {
            // It was removed meanwhile.
            Err(ContentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(false);
            }
            other => other?,
        };
        let mut hash = Hash::like(Some(digest));
        io::copy(&mut file, &mut hash).map_err(failure("read a blob of", digest.as_str()))?;
        Ok(hash.finish() != *digest)
    }
}

/// What is said of a damage, with the images that have it and what to do about them.
fn damage(records: &[ImageRecord], what: &str, has: impl Fn(&ImageRecord) -> bool) -> String {
    let ids: Vec<String> =
        records.iter().filter(|record| has(record)).map(|record| record.id.hex()[..12].to_owned()).collect();
    match ids.as_slice() {
        [] => format!("{what}; no image has it: rengine builder prune -af && rengine image prune -f"),
        ids => format!(
            "{what}; remove the images that have it, and pull or build them again: rengine rmi -f {}",
            ids.join(" ")
        ),
    }
}
