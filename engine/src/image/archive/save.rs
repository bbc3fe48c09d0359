//! `save`: images become one tar, an OCI layout that docker reads too.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;
use tar::{EntryType, Header};

use super::name_of;
use super::{ArchiveError, BLOBS, DockerEntry, NAME_ANNOTATION, TAG_ANNOTATION};
use crate::id::Digest;
use crate::image::index::{Leaving, fitting};
use crate::image::kept::Kept;
use crate::image::manifest;
use crate::image::manifest::{Descriptor, Document, Index, Manifest, OCI_CONFIG};
use crate::image::{Image, ImageError, Images, Notes, Platform, Reference};

/// What is saved under one manifest or index: an image, or those of several platforms.
struct Group {
    images: Vec<Image>,
    tags: BTreeSet<Reference>,
    /// The index that the images came with by these names.
    index: Option<Digest>,
}

/// What is saved, in the order that it was asked for.
#[derive(Default)]
struct Chosen(Vec<Group>);

/// A layout being written, every file once.
struct Archive<'a> {
    place: Place<'a>,
    written: BTreeSet<String>,
}

/// Where a layout is written.
enum Place<'a> {
    Tar(&'a mut dyn Write),
    Directory(&'a Path),
}

/// Lets exactly as much through as the header said.
struct Counted<'a> {
    writer: &'a mut dyn Write,
    left: u64,
}

/// The longest name that fits a tar's header; all but those of a sha512 do.
const LONGEST_PATH: usize = 100;

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
        let mut chosen = Chosen::default();
        for name in names {
            for (image, tags) in self.chosen(name)? {
                if tags.is_empty() {
                    chosen.add(fitting(&[image], platforms)?, None, None);
                    continue;
                }
                for tag in tags {
                    let index = if platforms.is_empty() { self.index_of(&tag)? } else { None };
                    chosen.add(fitting(&self.members(&tag)?, platforms)?, Some(tag), index);
                }
            }
        }
        self.write_archive(&chosen, writer)?;
        for (image, tags) in chosen.0.iter().filter_map(|group| Some((group.images.first()?, &group.tags))) {
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
        self.write_archive(&Chosen::of(images, tags), writer)
    }

    /// The same as an OCI layout in a directory, beside what it has under other names.
    ///
    /// # Errors
    /// When the directory has something else, or cannot be written.
    pub fn save_into(
        &self,
        images: &[Image],
        tags: &[Reference],
        directory: &Path,
    ) -> Result<(), ImageError> {
        let _hold = self.layers().hold()?;
        let mut archive = Archive { place: Place::Directory(directory), written: BTreeSet::new() };
        archive.directory("blobs/")?;
        archive.directory(BLOBS)?;
        let mut entries = Vec::new();
        for group in &Chosen::of(images, tags).0 {
            let manifests = self.portable_manifests(&group.images)?;
            let descriptor = self.write_group(&mut archive, group, &manifests)?;
            entries.extend(index_entries(&descriptor, &group.tags));
        }
        let path = directory.join("index.json");
        let index = match std::fs::read(&path) {
            Ok(raw) => raw,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(write_error(error)),
        };
        let known = if index.is_empty() { None } else { manifest::listing(&index)? };
        let mut all: Vec<Descriptor> = known.map(|listing| listing.entries).unwrap_or_default();
        all.retain(|known| entries.iter().all(|new| name_of(new) != name_of(known)));
        all.extend(entries);
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.json("index.json", &Index::oci(all))
    }

    fn write_archive(&self, chosen: &Chosen, writer: &mut dyn Write) -> Result<(), ImageError> {
        let mut archive = Archive { place: Place::Tar(writer), written: BTreeSet::new() };
        archive.directory("blobs/")?;
        archive.directory(BLOBS)?;
        let mut index = Vec::new();
        let mut docker = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for group in &chosen.0 {
            // Docker's list knows no platforms: it has the image that is meant where none is asked for.
            let Some(image) = group.images.first() else { continue };
            let manifests = self.portable_manifests(&group.images)?;
            let Some((manifest, _)) = manifests.first() else { continue };
            let descriptor = self.write_group(&mut archive, group, &manifests)?;
            index.extend(index_entries(&descriptor, &group.tags));
            let path = |descriptor: &Descriptor| descriptor.digest.in_layout();
            docker.push(DockerEntry {
                config: path(&manifest.config),
                repo_tags: group.tags.iter().map(ToString::to_string).collect(),
                layers: manifest.layers.iter().map(path).collect(),
            });
            let top = image.config.rootfs.diff_ids.last().map_or_else(|| image.id.hex(), |diff| diff.hex());
            for tag in &group.tags {
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

    /// A manifest of the image over blobs that are here: the one it came with where possible, so that its
    /// digest stays. Layers that were never compressed go as plain tars.
    pub(crate) fn portable_manifest(&self, image: &Image) -> Result<(Manifest, Vec<u8>), ImageError> {
        let content = self.content();
        let is_here = |blob: &Descriptor| content.size(&blob.digest) == Some(blob.size);
        if let Some(raw) = self.manifest(&image.id)?
            && let Ok(Document::Manifest(manifest)) = Document::parse(&raw, None)
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
    fn write_group(
        &self,
        archive: &mut Archive<'_>,
        group: &Group,
        manifests: &[(Manifest, Vec<u8>)],
    ) -> Result<Descriptor, ImageError> {
        for (image, (manifest, raw)) in group.images.iter().zip(manifests) {
            self.write_blobs(archive, image, manifest, raw)?;
        }
        let kept = group.index.as_ref().and_then(|index| self.kept_for(index, manifests));
        let (leaving, descriptor) = self.portable(&group.images, manifests, kept)?;
        for attestation in &leaving.attestations {
            archive.file(&attestation.entry.digest.in_layout(), &attestation.raw)?;
            for blob in &attestation.blobs {
                let file = self.content().open(&blob.digest)?;
                archive.stream(&blob.digest.in_layout(), blob.size, |writer| {
                    io::copy(&mut &file, writer).map(drop).map_err(write_error)
                })?;
            }
        }
        archive.file(&leaving.digest.in_layout(), &leaving.raw)?;
        Ok(descriptor)
    }

    /// The descriptor of an image's manifest, or of several platforms' index, as `save` writes it.
    pub(crate) fn portable_descriptor(&self, images: &[Image]) -> Result<Descriptor, ImageError> {
        Ok(self.portable(images, &self.portable_manifests(images)?, None)?.1)
    }

    /// What leaves of these images, and its entry in a layout.
    fn portable(
        &self,
        images: &[Image],
        manifests: &[(Manifest, Vec<u8>)],
        kept: Option<Kept>,
    ) -> Result<(Leaving, Descriptor), ImageError> {
        let notes = self.notes(images)?;
        let leaving = Leaving::plan(images, manifests, &notes, self.attestations(images)?, kept)?;
        let mut all = Notes::default();
        notes.iter().for_each(|notes| all.extend(notes));
        let noted = if leaving.is_index { all.index_descriptor } else { all.manifest_descriptor };
        let mut entry =
            Descriptor::new(&leaving.media_type, leaving.digest.clone(), leaving.raw.len() as u64);
        entry.annotations = Some(noted).filter(|notes| !notes.is_empty());
        Ok((leaving, entry))
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
            let path = layer.digest.in_layout();
            archive.stream(&path, layer.size, |writer| match content.open(&layer.digest) {
                Ok(mut blob) => io::copy(&mut blob, writer).map(drop).map_err(write_error),
                Err(_) => Ok(layers.pack(diff, writer)?),
            })?;
        }
        let config = self.raw_config(&image.id)?;
        archive.file(&manifest.config.digest.in_layout(), &config)?;
        archive.file(&image.id.in_layout(), &config)?;
        archive.file(&Digest::of(raw).in_layout(), raw)
    }
}

// === impl Chosen ===

impl Chosen {
    /// The same images under each of these names.
    fn of(images: &[Image], tags: &[Reference]) -> Self {
        let mut chosen = Self::default();
        chosen.add(images.to_vec(), None, None);
        tags.iter().for_each(|tag| chosen.add(images.to_vec(), Some(tag.local()), None));
        chosen
    }

    fn add(&mut self, images: Vec<Image>, tag: Option<Reference>, index: Option<Digest>) {
        let ids = |images: &[Image]| images.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
        let is_same = |known: &&mut Group| ids(&known.images) == ids(&images) && known.index == index;
        match self.0.iter_mut().find(is_same) {
            Some(known) => known.tags.extend(tag),
            None => self.0.push(Group { images, tags: tag.into_iter().collect(), index }),
        }
    }
}

// === impl Archive ===

impl Archive<'_> {
    fn directory(&mut self, path: &str) -> Result<(), ImageError> {
        match &mut self.place {
            Place::Tar(writer) => header(*writer, path, EntryType::Directory, 0o755, 0),
            Place::Directory(directory) => std::fs::create_dir_all(directory.join(path)).map_err(write_error),
        }
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
        match &mut self.place {
            Place::Tar(writer) => {
                header(*writer, path, EntryType::Regular, 0o644, size)?;
                write_counted(*writer, path, size, write)?;
                let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
                writer.write_all(&[0; 512][..padding]).map_err(write_error)
            }
            Place::Directory(directory) => {
                let target = directory.join(path);
                let beside = target.parent().unwrap_or(directory);
                std::fs::create_dir_all(beside).map_err(write_error)?;
                let mut file = tempfile::NamedTempFile::new_in(beside).map_err(write_error)?;
                write_counted(&mut file, path, size, write)?;
                let readable = std::fs::Permissions::from_mode(0o644);
                file.as_file().set_permissions(readable).map_err(write_error)?;
                file.persist(&target).map(drop).map_err(|error| write_error(error.error))
            }
        }
    }

    fn end(self) -> Result<(), ImageError> {
        match self.place {
            Place::Tar(writer) => {
                writer.write_all(&[0; 1024]).and_then(|()| writer.flush()).map_err(write_error)
            }
            Place::Directory(_) => Ok(()),
        }
    }
}

/// Writes exactly as many bytes as were announced.
fn write_counted(
    writer: &mut dyn Write,
    path: &str,
    size: u64,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut counted = Counted { writer, left: size };
    write(&mut counted)?;
    if counted.left != 0 {
        return Err(write_error(io::Error::other(format!("{path} is shorter than expected"))));
    }
    Ok(())
}

fn header(
    writer: &mut dyn Write,
    path: &str,
    kind: EntryType,
    mode: u32,
    size: u64,
) -> Result<(), ImageError> {
    // GNU's form, because a layer may be larger than ustar's eight gigabytes.
    let mut header = Header::new_gnu();
    let shown = &path[..path.len().min(LONGEST_PATH)];
    if shown != path {
        // The name comes in a member of its own, and ends with a zero.
        let mut long = Header::new_gnu();
        long.set_path("././@LongLink").map_err(write_error)?;
        long.set_entry_type(EntryType::GNULongName);
        long.set_mode(0);
        long.set_uid(0);
        long.set_gid(0);
        long.set_mtime(0);
        long.set_size(path.len() as u64 + 1);
        long.set_cksum();
        let mut name = path.as_bytes().to_vec();
        name.resize((name.len() + 1).next_multiple_of(512), 0);
        writer.write_all(long.as_bytes()).and_then(|()| writer.write_all(&name)).map_err(write_error)?;
    }
    header.set_path(shown).map_err(write_error)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    writer.write_all(header.as_bytes()).map_err(write_error)
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

fn index_entries(descriptor: &Descriptor, tags: &BTreeSet<Reference>) -> Vec<Descriptor> {
    if tags.is_empty() {
        return vec![descriptor.clone()];
    }
    let entry = |tag: &Reference| {
        let mut entry = descriptor.clone();
        entry.annotations.get_or_insert_default().extend([
            (NAME_ANNOTATION.to_owned(), tag.canonical()),
            (TAG_ANNOTATION.to_owned(), tag.tag().unwrap_or_default().to_owned()),
        ]);
        entry
    };
    tags.iter().map(entry).collect()
}

fn write_error(error: io::Error) -> ImageError {
    ArchiveError::Write(error).into()
}
