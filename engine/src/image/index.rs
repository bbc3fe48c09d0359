//! Names that mean one image for each of several platforms: OCI's image index (image-spec, image-index.md).
//!
//! An index is no object of its own here. The name knows its images, and the index is written of their manifests
//! whenever it leaves, unless all of the one that they came with is here ([`super::kept`]).

use std::collections::BTreeSet;

use futures_util::StreamExt;

use crate::id::{Digest, ImageId};
use crate::image::attestation::Attestation;
use crate::image::credentials::Credentials;
use crate::image::kept::Kept;
use crate::image::manifest::{Descriptor, Index, Manifest, ManifestError, OCI_INDEX};
use crate::image::record::Names;
use crate::image::registry::Repository;
use crate::image::transfer::Tell;
use crate::image::{
    Image, ImageError, Images, Notes, Platform, PushOptions, Pushed, Reference, Removed, Users, failure,
};

// === impl Images ===

impl Images {
    /// The image a name means for a platform; `None` when none that is here serves it.
    ///
    /// # Errors
    /// When the store cannot be read, or the text is neither a name nor an id.
    pub fn find_for(&self, name: &str, platform: Option<&Platform>) -> Result<Option<Image>, ImageError> {
        let Some(wanted) = platform else { return self.find(name) };
        let names = self.names()?;
        let Some(found) = self.resolve(&names, name)? else { return Ok(None) };
        let ids = found.by.as_ref().map_or_else(|| vec![found.id.clone()], |by| names.members(by));
        let mut best: Option<(u32, Image)> = None;
        for id in &ids {
            let Some(image) = self.image(&names, id)? else { continue };
            if let Some(rank) = wanted.rank(&image.platform())
                && best.as_ref().is_none_or(|(known, _)| rank > *known)
            {
                best = Some((rank, image));
            }
        }
        Ok(best.map(|(_, image)| image))
    }

    /// The image by reference, id or a prefix of its id, for the platform asked for if one is.
    ///
    /// # Errors
    /// When there is none, or none for this platform.
    pub fn get_for(&self, name: &str, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let Some(wanted) = platform else { return self.get(name) };
        let meant = self.meant(name)?;
        fitting(&meant, std::slice::from_ref(wanted))?
            .into_iter()
            .next()
            .ok_or_else(|| ImageError::NotFound(name.to_owned()))
    }

    /// Every image that a reference or an id means.
    fn meant(&self, name: &str) -> Result<Vec<Image>, ImageError> {
        let names = self.names()?;
        let found = self.resolve(&names, name)?.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        let ids = found.by.as_ref().map_or_else(|| vec![found.id.clone()], |by| names.members(by));
        ids.iter().filter_map(|id| self.image(&names, id).transpose()).collect()
    }

    /// Removes the images for these platforms from a name that means several, and what nobody else names of them. With
    /// the last one goes the name.
    ///
    /// # Errors
    /// When there is none for a platform, or a container needs it.
    pub fn remove_platforms(
        &self,
        name: &str,
        platforms: &[Platform],
        force: bool,
        in_use: &Users,
    ) -> Result<Vec<Removed>, ImageError> {
        let all = self.meant(name)?;
        let going = fitting(&all, platforms)?;
        if going.len() == all.len() {
            return self.remove(name, force, in_use);
        }
        if let Some(user) = going.iter().find_map(|image| in_use.get(&image.id)).filter(|_| !force) {
            return Err(ImageError::InUse { name: name.to_owned(), user: user.clone() });
        }
        let _lock = self.lock()?;
        let mut names = self.names()?;
        let Some(by) = self.resolve(&names, name)?.and_then(|found| found.by) else {
            return Err(ImageError::NotFound(name.to_owned()));
        };
        let staying: Vec<ImageId> =
            (names.members(&by).into_iter()).filter(|id| going.iter().all(|image| image.id != *id)).collect();
        let twins = twins(&names, &by, &going);
        names.set_several(&by, &staying);
        twins.iter().for_each(|twin| names.set_several(twin, &staying));
        names.write(&self.root).map_err(failure("untag", name))?;
        let mut removed = Vec::new();
        for image in going {
            if names.is_nameless(&image.id) && !in_use.contains_key(&image.id) {
                self.delete(&image.id)?;
                removed.push(Removed::Deleted(image.id));
            }
        }
        removed.extend(self.collect(false)?.0.into_iter().map(Removed::Deleted));
        Ok(removed)
    }

    /// The bytes of an image's configuration, manifest and packed layers that are kept here.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn content_size(&self, image: &Image) -> Result<u64, ImageError> {
        let content = self.content();
        let mut blobs = BTreeSet::from([image.id.clone()]);
        blobs.extend(self.record(&image.id)?.and_then(|record| record.manifest));
        for diff in &image.config.rootfs.diff_ids {
            // A layer that is not here takes no space.
            let blob = self.layers().record(diff).ok().and_then(|record| record.blob);
            blobs.extend(blob.map(|blob| blob.digest));
        }
        Ok(blobs.iter().filter_map(|blob| content.size(blob)).sum())
    }

    /// Every image a name means: one, or one for each of several platforms, the one for this machine first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn members(&self, reference: &Reference) -> Result<Vec<Image>, ImageError> {
        let names = self.names()?;
        let ids = names.members(reference);
        let images = ids.iter().filter_map(|id| self.image(&names, id).transpose());
        images.collect()
    }

    /// Lets names mean one image for each of several platforms. Of two for one platform the later counts.
    ///
    /// # Errors
    /// When one of the images is not here, or the names cannot be written.
    pub fn name_several(&self, references: &[Reference], ids: &[ImageId]) -> Result<Vec<Image>, ImageError> {
        let _lock = self.lock()?;
        let before = self.names()?;
        let mut names = before.clone();
        let mut images: Vec<Image> = Vec::new();
        for id in ids {
            let image = self.image(&names, id)?.ok_or_else(|| ImageError::NotFound(id.to_string()))?;
            images.retain(|known| known.platform() != image.platform());
            images.push(image);
        }
        let host = Platform::host();
        images.sort_by_key(|image| std::cmp::Reverse(host.rank(&image.platform())));
        let ids: Vec<ImageId> = images.iter().map(|image| image.id.clone()).collect();
        for reference in references {
            names.set_several(reference, &ids);
        }
        if names != before {
            names.write(&self.root).map_err(failure("name", "new"))?;
        }
        let named = ids.iter().filter_map(|id| self.image(&names, id).transpose());
        named.collect()
    }

    /// Lets names mean an image for each of several platforms, and tells of it.
    ///
    /// # Errors
    /// As [`Images::name_several`].
    pub fn tag_several(&self, references: &[Reference], ids: &[ImageId]) -> Result<Vec<Image>, ImageError> {
        let images = self.name_several(references, ids)?;
        if let Some(image) = images.first() {
            self.announce_tags(&image.id, references);
        }
        Ok(images)
    }

    /// Sends the images that a name means, what is attested of them, and then the index that names them all: the one that
    /// they came with where all of it is here.
    pub(super) async fn send(
        &self,
        images: &[Image],
        reference: &Reference,
        options: &PushOptions,
        credentials: Option<Credentials>,
        progress: Tell<'_>,
    ) -> Result<Pushed, ImageError> {
        let repository = Repository::open(reference, "pull,push", credentials, &options.insecure).await?;
        let repository = &repository;
        // One after the other: the layers of each already move several at once.
        let sent: Vec<Result<(Manifest, Vec<u8>), ImageError>> = futures_util::stream::iter(images)
            .then(async |image| self.send_image(repository, image, reference, progress).await)
            .collect()
            .await;
        let manifests = sent.into_iter().collect::<Result<Vec<_>, _>>()?;
        let leaving = self.leaving(images, &manifests, reference, options.platform.is_none())?;
        for ((manifest, raw), image) in manifests.iter().zip(images) {
            if leaving.is_index {
                repository.put_manifest(Digest::of(raw).as_str(), &manifest.media_type, raw).await?;
            }
            self.install(&self.raw_config(&image.id)?, Some(raw), &[])?;
        }
        for attestation in &leaving.attestations {
            for blob in &attestation.blobs {
                self.send_blob(repository, blob, None, &|_| {}).await?;
            }
            let (entry, raw) = (&attestation.entry, &attestation.raw);
            repository.put_manifest(entry.digest.as_str(), &entry.media_type, raw).await?;
        }
        let digest = leaving.digest;
        let name = if options.by_digest { digest.as_str() } else { reference.wanted() };
        repository.put_manifest(name, &leaving.media_type, &leaving.raw).await?;
        let ids: Vec<ImageId> = images.iter().map(|image| image.id.clone()).collect();
        let names = [reference.with_digest(&digest)];
        self.name_several(&names, &ids)?;
        if let Some(index) = leaving.came_as {
            self.keep_index(&names, &index)?;
        }
        let mut warnings: Vec<String> = repository.warnings().iter().cloned().collect();
        if let (Some(index), [image]) = (leaving.lacks, images) {
            warnings.push(format!(
                "of the index {index} only the image for {} is here: it went alone, without what is attested of it",
                image.platform()
            ));
        }
        Ok(Pushed { digest, size: leaving.raw.len() as u64, warnings })
    }

    /// What goes under the name of these images, when that is not to be a manifest alone.
    fn leaving(
        &self,
        images: &[Image],
        manifests: &[(Manifest, Vec<u8>)],
        reference: &Reference,
        may_be_index: bool,
    ) -> Result<Leaving, ImageError> {
        let index = if may_be_index { self.index_of(reference)? } else { None };
        let attested = if may_be_index { self.attestations(images)? } else { Vec::new() };
        let notes = self.notes(images)?;
        Leaving::plan(
            images,
            manifests,
            &notes,
            attested,
            index.and_then(|index| self.kept_for(&index, manifests)),
        )
    }

    /// The index that was kept, for images that leave with these manifests.
    pub(super) fn kept_for(&self, index: &Digest, manifests: &[(Manifest, Vec<u8>)]) -> Option<Kept> {
        let digests: Vec<Digest> = manifests.iter().map(|(_, raw)| Digest::of(raw)).collect();
        self.kept(index, &digests)
    }
}

/// What goes under a name: an image's manifest, or an index.
pub(super) struct Leaving {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) raw: Vec<u8>,
    pub(super) is_index: bool,
    /// What is attested of the images, and listed.
    pub(super) attestations: Vec<Attestation>,
    /// The index that they came with, and leave with.
    pub(super) came_as: Option<Digest>,
    /// The index that the one image came with that is here of it.
    pub(super) lacks: Option<Digest>,
}

// === impl Leaving ===

impl Leaving {
    pub(super) fn plan(
        images: &[Image],
        manifests: &[(Manifest, Vec<u8>)],
        notes: &[Notes],
        mut attestations: Vec<Attestation>,
        kept: Option<Kept>,
    ) -> Result<Self, ImageError> {
        let lacks = match kept {
            Some(kept) if kept.is_whole && attestations.is_empty() => {
                return Ok(Self {
                    digest: kept.digest.clone(),
                    media_type: kept.media_type,
                    raw: kept.raw,
                    is_index: true,
                    attestations: kept.attestations,
                    came_as: Some(kept.digest),
                    lacks: None,
                });
            }
            // As docker does it, one image of several goes as what it is, and an index of it alone is none that
            // anybody has made.
            Some(kept) if images.len() < 2 => Some(kept.digest),
            Some(kept) => {
                attestations.extend(kept.attestations);
                None
            }
            None => None,
        };
        if let [(manifest, raw)] = manifests
            && attestations.is_empty()
        {
            return Ok(Self {
                digest: Digest::of(raw),
                media_type: manifest.media_type.clone(),
                raw: raw.clone(),
                is_index: false,
                attestations,
                came_as: None,
                lacks,
            });
        }
        let entry = |(((manifest, raw), image), notes): ((&(Manifest, Vec<u8>), &Image), &Notes)| {
            let entry = Descriptor::new(&manifest.media_type, Digest::of(raw), raw.len() as u64);
            Descriptor {
                annotations: Some(notes.manifest_descriptor.clone()).filter(|notes| !notes.is_empty()),
                ..entry.on(&image.platform())
            }
        };
        let entries = manifests.iter().zip(images).zip(notes).map(entry);
        let attested = attestations.iter().map(|attestation| attestation.entry.clone());
        let mut index = Index::oci(entries.chain(attested).collect());
        let mut all = Notes::default();
        notes.iter().for_each(|notes| all.extend(notes));
        index.annotations = Some(all.index).filter(|notes| !notes.is_empty());
        let raw = serde_json::to_vec(&index).map_err(ManifestError::Json)?;
        Ok(Self {
            digest: Digest::of(&raw),
            media_type: OCI_INDEX.to_owned(),
            raw,
            is_index: true,
            attestations,
            came_as: None,
            lacks: None,
        })
    }
}

/// Of these images the best for each of these platforms; all when no platform is asked for.
pub(super) fn fitting(images: &[Image], wanted: &[Platform]) -> Result<Vec<Image>, ManifestError> {
    if wanted.is_empty() {
        return Ok(images.to_vec());
    }
    let mut chosen: Vec<Image> = Vec::new();
    for wanted in wanted {
        let ranked = images.iter().filter_map(|image| Some((wanted.rank(&image.platform())?, image)));
        // The first of equals.
        let Some((_, best)) = ranked.rev().max_by_key(|(rank, _)| *rank) else {
            let offered: Vec<String> = images.iter().map(|image| image.platform().to_string()).collect();
            return Err(ManifestError::NoPlatform { wanted: wanted.clone(), offered: offered.join(", ") });
        };
        if chosen.iter().all(|known| known.id != best.id) {
            chosen.push(best.clone());
        }
    }
    Ok(chosen)
}

/// The digests by which the same images were fetched as this name means, unless another name of the repository means
/// them too.
fn twins(names: &Names, by: &Reference, going: &[Image]) -> Vec<Reference> {
    let meant = names.members(by);
    let of_one = going.first().map(|image| names.memberships(&image.id)).unwrap_or_default();
    let is_twin = |name: &Reference| {
        name != by && name.familiar_name() == by.familiar_name() && names.members(name) == meant
    };
    let twins: Vec<Reference> = of_one.into_iter().filter(is_twin).collect();
    if twins.iter().any(|name| name.tag().is_some()) { Vec::new() } else { twins }
}
