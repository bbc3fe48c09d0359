//! `save`: images become one tar, an OCI layout that docker reads too.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::Serialize;
use tar::{EntryType, Header};

use super::{ArchiveError, BLOBS, DockerEntry, NAME_ANNOTATION, TAG_ANNOTATION};
use crate::id::Digest;
use crate::image::attestation::Attestation;
use crate::image::index::fitting;
use crate::image::manifest::{Descriptor, Document, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::image::{Image, ImageError, Images, Platform, Reference};

/// What is saved, in the order that it was asked for: an image, or those of several platforms, and the tags it is saved
/// under.
type Chosen = Vec<(Vec<Image>, BTreeSet<Reference>)>;

/// A tar being written, every file once.
struct Archive<'a> {
    writer: &'a mut dyn Write,
    written: BTreeSet<String>,
}

/// Lets exactly as much through as the header said.
struct Counted<'a> {
    writer: &'a mut dyn Write,
    left: u64,
}

// === impl Images ===

impl Images {
    /// Writes images as one tar: an OCI layout that also has docker's `manifest.json` and `repositories`.
    ///
    /// A name without a tag stands for all tags of its repository, an id for the image without any.
    pub fn save(&self, names: &[String], writer: &mut dyn Write) -> Result<(), ImageError> {
        self.save_for(names, &[], writer)
    }

    /// The same of the images for these platforms alone.
    ///
    /// # Errors
    /// When an image is not here, or not for one of the platforms, or the archive cannot be written.
    pub fn save_for(
        &self,
        names: &[String],
        platforms: &[Platform],
        writer: &mut dyn Write,
    ) -> Result<(), ImageError> {
        let _hold = self.layers().hold()?;
        let mut chosen = Chosen::new();
        for name in names {
            for (image, tags) in self.chosen(name)? {
                if tags.is_empty() {
                    add(&mut chosen, fitting(&[image], platforms)?, None);
                    continue;
                }
                for tag in tags {
                    add(&mut chosen, fitting(&self.members(&tag)?, platforms)?, Some(tag));
                }
            }
        }
        self.write_archive(&chosen, writer)?;
        for (image, tags) in chosen.iter().filter_map(|(images, tags)| Some((images.first()?, tags))) {
            let name = tags.first().map_or_else(|| image.id.to_string(), ToString::to_string);
            self.announce("save", &image.id, &name);
        }
        Ok(())
    }

    /// Writes an image, or one for each of several platforms, as `save` does, under names that it need not have
    /// here.
    pub fn save_as(
        &self,
        images: &[Image],
        tags: &[Reference],
        writer: &mut dyn Write,
    ) -> Result<(), ImageError> {
        let _hold = self.layers().hold()?;
        let mut chosen = Chosen::new();
        add(&mut chosen, images.to_vec(), None);
        tags.iter().for_each(|tag| add(&mut chosen, images.to_vec(), Some(tag.local())));
        self.write_archive(&chosen, writer)
    }

    fn write_archive(&self, chosen: &Chosen, writer: &mut dyn Write) -> Result<(), ImageError> {
        let mut archive = Archive { writer, written: BTreeSet::new() };
        archive.directory("blobs/")?;
        archive.directory(BLOBS)?;
        let mut index = Vec::new();
        let mut docker = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (images, tags) in chosen {
            // Docker's list knows no platforms: it has the image that is meant where none is asked for.
            let Some(image) = images.first() else { continue };
            let manifests = self.portable_manifests(images)?;
            let Some((manifest, _)) = manifests.first() else { continue };
            let descriptor = self.write_images(&mut archive, images, &manifests)?;
            index.extend(index_entries(&descriptor, tags));
            let path = |descriptor: &Descriptor| format!("{BLOBS}{}", descriptor.digest.hex());
            docker.push(DockerEntry {
                config: path(&manifest.config),
                repo_tags: tags.iter().map(ToString::to_string).collect(),
                layers: manifest.layers.iter().map(path).collect(),
            });
            let top = image.config.rootfs.diff_ids.last().map_or_else(|| image.id.hex(), |diff| diff.hex());
            for tag in tags {
                let tags = repositories.entry(tag.familiar_name()).or_default();
                tags.insert(tag.tag().unwrap_or_default().to_owned(), top.to_owned());
            }
        }
        archive.json("index.json", &Index::oci(index))?;
        archive.json("manifest.json", &docker)?;
        archive.json("repositories", &repositories)?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.end()
    }

    /// The images a name given to `save` stands for, with the tags they are saved under.
    fn chosen(&self, name: &str) -> Result<Vec<(Image, Vec<Reference>)>, ImageError> {
        let image = self.find(name)?;
        let Ok(reference) = name.parse::<Reference>() else {
            return Ok(vec![(self.get(name)?, Vec::new())]);
        };
        let has_tag =
            reference.digest().is_some() || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if !has_tag {
            let repository = reference.familiar_name();
            let mut tagged = Vec::new();
            for image in self.list()? {
                let mut tags = image.references.clone();
                tags.retain(|tag| tag.familiar_name() == repository);
                if !tags.is_empty() {
                    tagged.push((image, tags));
                }
            }
            if !tagged.is_empty() {
                return Ok(tagged);
            }
        }
        let image = image.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        let mut tags = image.references.clone();
        tags.retain(|tag| *tag == reference.local());
        Ok(vec![(image, tags)])
    }

    /// An OCI manifest of the image over blobs that are here: the one it came with where possible, so that its
    /// digest stays. Layers that were never compressed go as plain tars.
    pub(crate) fn portable_manifest(&self, image: &Image) -> Result<(Manifest, Vec<u8>), ImageError> {
        let content = self.content();
        let is_here = |blob: &Descriptor| content.size(&blob.digest) == Some(blob.size);
        if let Some(raw) = self.manifest(&image.id)?
            && let Ok(Document::Manifest(manifest)) = Document::parse(&raw, None)
            && manifest.media_type == OCI_MANIFEST
            && manifest.layers.iter().all(is_here)
        {
            return Ok((manifest, raw));
        }
        let layers = self.layers();
        let mut descriptors = Vec::new();
        for diff in &image.config.rootfs.diff_ids {
            let record = layers.record(diff)?;
            let blob = record.blob.filter(|blob| blob.compression.is_portable());
            let kept = blob.map(|blob| Descriptor::layer(blob.compression, blob.digest, blob.size));
            let plain = || Descriptor::layer(crate::layer::Compression::None, diff.clone(), record.tar_size);
            descriptors.push(kept.filter(is_here).unwrap_or_else(plain));
        }
        let size = content.size(&image.id).unwrap_or(0);
        let manifest = Manifest::oci(Descriptor::new(OCI_CONFIG, image.id.clone(), size), descriptors);
        let raw = serde_json::to_vec(&manifest).map_err(|error| ArchiveError::Write(error.into()))?;
        Ok((manifest, raw))
    }

    /// Writes an image and its manifest, or those of several platforms and their index. Returns the descriptor of
    /// the manifest or the index.
    fn write_images(
        &self,
        archive: &mut Archive<'_>,
        images: &[Image],
        manifests: &[(Manifest, Vec<u8>)],
    ) -> Result<Descriptor, ImageError> {
        for (image, (manifest, raw)) in images.iter().zip(manifests) {
            self.write_blobs(archive, image, manifest, raw)?;
        }
        let attestations = self.attestations(images)?;
        for attestation in &attestations {
            for blob in attestation.blobs.iter().chain([&attestation.raw]) {
                archive.file(&format!("{BLOBS}{}", Digest::of(blob).hex()), blob)?;
            }
        }
        let annotations = self.index_annotations(images)?;
        let (descriptor, index) = index_over(images, manifests, annotations, attestations)?;
        if let Some(index) = index {
            archive.file(&format!("{BLOBS}{}", descriptor.digest.hex()), &index)?;
        }
        Ok(descriptor)
    }

    /// The descriptor of an image's manifest, or of several platforms' index, and the index.
    pub(crate) fn portable_index(
        &self,
        images: &[Image],
    ) -> Result<(Descriptor, Option<Vec<u8>>), ImageError> {
        let (annotations, attestations) = (self.index_annotations(images)?, self.attestations(images)?);
        index_over(images, &self.portable_manifests(images)?, annotations, attestations)
    }

    fn portable_manifests(&self, images: &[Image]) -> Result<Vec<(Manifest, Vec<u8>)>, ImageError> {
        images.iter().map(|image| self.portable_manifest(image)).collect()
    }

    fn write_blobs(
        &self,
        archive: &mut Archive<'_>,
        image: &Image,
        manifest: &Manifest,
        raw: &[u8],
    ) -> Result<(), ImageError> {
        let content = self.content();
        let layers = self.layers();
        for (layer, diff) in manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
            let path = format!("{BLOBS}{}", layer.digest.hex());
            archive.stream(&path, layer.size, |writer| match content.open(&layer.digest) {
                Ok(mut blob) => io::copy(&mut blob, writer).map(drop).map_err(write_error),
                Err(_) => Ok(layers.pack(diff, writer)?),
            })?;
        }
        let config = self.raw_config(&image.id)?;
        archive.file(&format!("{BLOBS}{}", image.id.hex()), &config)?;
        archive.file(&format!("{BLOBS}{}", Digest::of(raw).hex()), raw)
    }
}

/// As [`Images::portable_index`], of manifests that are known.
fn index_over(
    images: &[Image],
    manifests: &[(Manifest, Vec<u8>)],
    annotations: BTreeMap<String, String>,
    attestations: Vec<Attestation>,
) -> Result<(Descriptor, Option<Vec<u8>>), ImageError> {
    let entry = |raw: &[u8]| Descriptor::new(OCI_MANIFEST, Digest::of(raw), raw.len() as u64);
    if let [(_, alone)] = manifests
        && attestations.is_empty()
    {
        return Ok((entry(alone), None));
    }
    let entries = manifests.iter().zip(images).map(|((_, raw), image)| entry(raw).on(&image.platform()));
    let attested = attestations.into_iter().map(|attestation| attestation.entry);
    let mut index = Index::oci(entries.chain(attested).collect());
    index.annotations = Some(annotations).filter(|notes| !notes.is_empty());
    let index = serde_json::to_vec(&index).map_err(|error| write_error(error.into()))?;
    Ok((Descriptor::new(OCI_INDEX, Digest::of(&index), index.len() as u64), Some(index)))
}

// === impl Archive ===

impl Archive<'_> {
    fn directory(&mut self, path: &str) -> Result<(), ImageError> {
        self.header(path, EntryType::Directory, 0o755, 0)
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), ImageError> {
        self.stream(path, bytes.len() as u64, |writer| writer.write_all(bytes).map_err(write_error))
    }

    fn json(&mut self, path: &str, value: &impl Serialize) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(value).map_err(|error| write_error(error.into()))?;
        self.file(path, &bytes)
    }

    fn stream(
        &mut self,
        path: &str,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        if !self.written.insert(path.to_owned()) {
            return Ok(());
        }
        self.header(path, EntryType::Regular, 0o644, size)?;
        let mut counted = Counted { writer: self.writer, left: size };
        write(&mut counted)?;
        if counted.left != 0 {
            return Err(write_error(io::Error::other(format!("{path} is shorter than expected"))));
        }
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
        self.writer.write_all(&[0; 512][..padding]).map_err(write_error)
    }

    fn end(self) -> Result<(), ImageError> {
        self.writer.write_all(&[0; 1024]).and_then(|()| self.writer.flush()).map_err(write_error)
    }

    fn header(&mut self, path: &str, kind: EntryType, mode: u32, size: u64) -> Result<(), ImageError> {
        // GNU's form, because a layer may be larger than ustar's eight gigabytes.
        let mut header = Header::new_gnu();
        header.set_path(path).map_err(write_error)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.writer.write_all(header.as_bytes()).map_err(write_error)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("a file is longer than expected"));
        }
        let written = self.writer.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn add(chosen: &mut Chosen, images: Vec<Image>, tag: Option<Reference>) {
    let is_same =
        |(known, _): &&mut (Vec<Image>, _)| known.iter().map(|it| &it.id).eq(images.iter().map(|it| &it.id));
    match chosen.iter_mut().find(is_same) {
        Some((_, tags)) => tags.extend(tag),
        None => chosen.push((images, tag.into_iter().collect())),
    }
}

fn index_entries(descriptor: &Descriptor, tags: &BTreeSet<Reference>) -> Vec<Descriptor> {
    if tags.is_empty() {
        return vec![descriptor.clone()];
    }
    let entry = |tag: &Reference| {
        let mut entry = descriptor.clone();
        entry.annotations = Some(BTreeMap::from([
            (NAME_ANNOTATION.to_owned(), tag.canonical()),
            (TAG_ANNOTATION.to_owned(), tag.tag().unwrap_or_default().to_owned()),
        ]));
        entry
    };
    tags.iter().map(entry).collect()
}

fn write_error(error: io::Error) -> ImageError {
    ArchiveError::Write(error).into()
}
