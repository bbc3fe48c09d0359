//! The form in which an image leaves: how its layers are packed, of which family its manifest is, and what is noted on
//! it. An image that was given one leaves so, whoever pushes or saves it, until it is given another.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::id::DiffId;
use crate::image::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Document, Manifest, ManifestError, OCI_CONFIG,
};
use crate::image::transfer::Tell;
use crate::image::{Image, ImageError, Images, Platform, Progress, Step, failure};
use crate::layer::{Compression, LayerBlob, LayerError, Packing};

/// The form in which an image leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// How layers are packed that have no blob yet; gzip when `None`.
    pub packing: Option<Packing>,
    /// Whether layers that have another blob are packed anew.
    pub force: bool,
    /// Whether the manifest is of docker's family.
    pub docker_types: bool,
    /// Whether what is attested of the image has the shape from before OCI knew artifacts.
    pub legacy_attestation: bool,
    /// What is noted on it.
    pub notes: Notes,
    /// What is noted beside that on the image for one platform alone.
    pub notes_of: Vec<(Platform, Notes)>,
}

/// Annotations, by what they are noted on (buildx, `--annotation`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// On the manifest.
    #[serde(skip)]
    pub manifest: BTreeMap<String, String>,
    /// On the manifest's entry in an index.
    #[serde(default, rename = "descriptor_annotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub manifest_descriptor: BTreeMap<String, String>,
    /// On an index that the image is part of.
    #[serde(default, rename = "index_annotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub index: BTreeMap<String, String>,
    /// On that index's entry in a layout.
    #[serde(default, rename = "index_descriptor_annotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub index_descriptor: BTreeMap<String, String>,
}

// === impl Form ===

impl Form {
    /// The form in which the image for this platform leaves.
    fn on(&self, platform: &Platform) -> Self {
        let mut form = Self { notes_of: Vec::new(), ..self.clone() };
        for (_, notes) in self.notes_of.iter().filter(|(of, _)| of == platform) {
            form.notes.extend(notes);
        }
        form
    }
}

// === impl Notes ===

impl Notes {
    /// Adds others.
    pub(super) fn extend(&mut self, others: &Self) {
        for (notes, more) in [
            (&mut self.manifest, &others.manifest),
            (&mut self.manifest_descriptor, &others.manifest_descriptor),
            (&mut self.index, &others.index),
            (&mut self.index_descriptor, &others.index_descriptor),
        ] {
            notes.extend(more.clone());
        }
    }
}

// === impl Images ===

impl Images {
    /// Gives an image this form. The usual one takes back what another gave it.
    ///
    /// # Errors
    /// When a layer cannot be packed, or the record not be written.
    pub fn shape(
        &self,
        image: &Image,
        form: &Form,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), ImageError> {
        let _hold = self.layers().hold()?;
        let form = &form.on(&image.platform());
        let is_usual = *form == Form::default();
        let shaped = self.record(&image.id)?.is_some_and(|record| record.is_shaped);
        if is_usual && !shaped {
            return Ok(());
        }
        let manifest = if is_usual {
            None
        } else {
            let (_, raw) = self.formed(image, form, progress)?;
            Some(self.content().put(&raw)?)
        };
        let _lock = self.lock()?;
        self.sync()?;
        let record = self.record(&image.id)?;
        let mut record = record.ok_or_else(|| ImageError::NotFound(image.id.to_string()))?;
        record.manifest = manifest;
        record.is_shaped = !is_usual;
        record.attestation = None;
        record.notes = form.notes.clone();
        record.write(&self.root).map_err(failure("record", image.id.as_str()))
    }

    /// A manifest over blobs that are here and that others know: the one the image came with or was given, where
    /// possible. Layers that were built here are compressed now, and stay so for the next time.
    pub(super) fn compressed_manifest(
        &self,
        image: &Image,
        progress: Tell<'_>,
    ) -> Result<(Manifest, Vec<u8>), ImageError> {
        let content = self.content();
        if let Some(raw) = self.manifest(&image.id)?
            && let Ok(Document::Manifest(manifest)) = Document::parse(&raw, None)
            && manifest.layers.iter().all(|blob| content.size(&blob.digest) == Some(blob.size))
        {
            return Ok((manifest, raw));
        }
        self.formed(image, &Form::default(), progress)
    }

    /// What is noted on each of these images beside its manifest.
    pub(super) fn notes(&self, images: &[Image]) -> Result<Vec<Notes>, ImageError> {
        let notes =
            |image: &Image| Ok(self.record(&image.id)?.map(|record| record.notes).unwrap_or_default());
        images.iter().map(notes).collect()
    }

    fn formed(
        &self,
        image: &Image,
        form: &Form,
        progress: Tell<'_>,
    ) -> Result<(Manifest, Vec<u8>), ImageError> {
        let blobs = self.packed(&image.config.rootfs.diff_ids, form, progress)?;
        let size = self.content().size(&image.id).unwrap_or(0);
        let layer = |blob: LayerBlob| {
            let mut layer = Descriptor::layer(blob.compression, blob.digest, blob.size);
            if form.docker_types {
                layer.media_type = docker_type(blob.compression).to_owned();
            }
            layer
        };
        let layers = blobs.into_iter().map(layer).collect();
        let config = if form.docker_types { DOCKER_CONFIG } else { OCI_CONFIG };
        let mut manifest = Manifest::oci(Descriptor::new(config, image.id.clone(), size), layers);
        if form.docker_types {
            manifest.media_type = DOCKER_MANIFEST.to_owned();
        }
        manifest.annotations = Some(form.notes.manifest.clone()).filter(|notes| !notes.is_empty());
        let raw = serde_json::to_vec(&manifest).map_err(ManifestError::Json)?;
        Ok((manifest, raw))
    }

    /// A blob for each layer, several packed at once.
    fn packed(
        &self,
        diffs: &[DiffId],
        form: &Form,
        progress: Tell<'_>,
    ) -> Result<Vec<LayerBlob>, ImageError> {
        let packed: Vec<Mutex<Option<Result<LayerBlob, LayerError>>>> =
            diffs.iter().map(|_| Mutex::default()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((diff, slot)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                diffs.get(at).zip(packed.get(at))
            } {
                let done = self.blob_of(diff, form, progress);
                *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(done);
            }
        };
        std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            (0..threads.min(diffs.len())).for_each(|_| drop(scope.spawn(work)));
        });
        let missing = |diff: &DiffId| Err(LayerError::Missing(diff.clone()));
        let results = packed.into_iter().zip(diffs).map(|(slot, diff)| {
            slot.into_inner()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .unwrap_or_else(|| missing(diff))
        });
        Ok(results.collect::<Result<_, _>>()?)
    }

    fn blob_of(&self, diff: &DiffId, form: &Form, progress: Tell<'_>) -> Result<LayerBlob, LayerError> {
        let layers = self.layers();
        let packing = form.packing.unwrap_or_default();
        let fits = |blob: &LayerBlob| {
            let is_here = self.content().size(&blob.digest) == Some(blob.size);
            let is_plain = blob.compression == Compression::None;
            let suits = if form.force {
                blob.compression == packing.compression && packing.level.is_none()
            } else {
                // A plain tar was never meant to travel, unless it is asked for.
                blob.compression.is_portable() && (!is_plain || packing.compression == Compression::None)
            };
            is_here && suits
        };
        match layers.record(diff)?.blob.filter(fits) {
            Some(blob) => Ok(blob),
            None => {
                progress(Progress { layer: diff.clone(), step: Step::Compressing });
                layers.compress(diff, packing)
            }
        }
    }
}

/// What docker calls a layer that is packed so.
fn docker_type(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        Compression::Zstd => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        _ => "application/vnd.docker.image.rootfs.diff.tar",
    }
}
