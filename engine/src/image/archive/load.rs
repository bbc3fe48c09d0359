//! `load`: archives of docker and OCI layouts become images.
//!
//! Nothing of an archive is believed: blobs are verified against the digests they go by, layers against the
//! configuration, and paths are only keys of a table, never opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::Deserialize;
use tar::EntryType;

use super::{ArchiveError, DockerEntry, name_of};
use crate::id::{DiffId, Digest, ImageId};
use crate::image::manifest::{Descriptor, Document, MOST_JSON};
use crate::image::transfer::check_diffs;
use crate::image::{ImageConfig, ImageError, Images, Loaded, ManifestError, Platform, Reference};
use crate::layer::members::{Content as MemberContent, Members};
use crate::layer::{Announced, LayerError, stream};
use crate::store::content::Content;

/// The files of an archive, by their paths.
struct Files {
    content: Content,
    by_path: BTreeMap<String, Piece>,
    /// Bytes kept in memory so far.
    held: u64,
}

enum Piece {
    /// A small file outside `blobs`.
    Held(Vec<u8>),
    /// Anything else is in the content store.
    Blob(Digest, u64),
    /// Another name for another file.
    Link(String),
}

/// An image found in an archive: its configuration, its layers' blobs, and how it is called.
struct Found {
    config: Vec<u8>,
    layers: Vec<(Digest, u64)>,
    manifest: Option<Vec<u8>>,
    references: Vec<Reference>,
    /// The names that mean it among the images for other platforms.
    part_of: Vec<Reference>,
    /// The index that it is listed in.
    index: Option<Digest>,
}

/// What the small files of an archive may have together: far more than any, far less than memory.
const MOST_HELD: u64 = 64 << 20;

/// Links followed to one file; docker writes one.
const MOST_LINKS: usize = 8;

// === impl Images ===

impl Images {
    /// Reads an archive of docker or an OCI layout, plain or compressed with gzip or zstd.
    pub fn load(&self, reader: &mut (dyn Read + Send)) -> Result<Vec<Loaded>, ImageError> {
        self.load_for(reader, &[])
    }

    /// The same of the images for these platforms alone; all when there are none.
    ///
    /// # Errors
    /// When the archive makes no sense, or has no image for one of the platforms.
    pub fn load_for(
        &self,
        reader: &mut (dyn Read + Send),
        platforms: &[Platform],
    ) -> Result<Vec<Loaded>, ImageError> {
        let _hold = self.layers().hold()?;
        let mut files = Files::new(self.content());
        let buffered = BufReader::with_capacity(1 << 18, reader);
        let (_, tar) = stream::decompress(buffered).map_err(unreadable)?;
        files.read_tar(BufReader::with_capacity(1 << 18, tar))?;
        let loaded = self.load_files(&files, platforms)?;
        for Loaded { image, reference } in &loaded {
            let name = reference.as_ref().map_or_else(|| image.id.to_string(), ToString::to_string);
            self.announce("load", &image.id, &name);
        }
        Ok(loaded)
    }

    /// Reads an OCI layout, or an unpacked archive of docker, from a directory.
    pub fn load_directory(&self, directory: &Path) -> Result<Vec<Loaded>, ImageError> {
        let _hold = self.layers().hold()?;
        let mut files = Files::new(self.content());
        files.read_directory(directory, "")?;
        self.load_files(&files, &[])
    }

    fn load_files(&self, files: &Files, platforms: &[Platform]) -> Result<Vec<Loaded>, ImageError> {
        let mut loaded = Vec::new();
        let mut several: BTreeMap<Reference, Vec<ImageId>> = BTreeMap::new();
        let mut came: BTreeMap<Reference, Digest> = BTreeMap::new();
        for found in wanted(files.images()?, platforms)? {
            self.take_layers(&found)?;
            let image = self.install(&found.config, found.manifest.as_deref(), &found.references)?;
            for name in &found.part_of {
                several.entry(name.clone()).or_default().push(image.id.clone());
            }
            if let Some(index) = &found.index {
                let names = found.references.iter().chain(&found.part_of);
                came.extend(names.map(|name| (name.clone(), index.clone())));
            }
            if found.references.is_empty() && found.part_of.is_empty() {
                loaded.push(Loaded { image, reference: None });
                continue;
            }
            loaded.extend(
                found
                    .references
                    .into_iter()
                    .map(|reference| Loaded { image: image.clone(), reference: Some(reference) }),
            );
        }
        for (name, ids) in several {
            let images = self.name_several(std::slice::from_ref(&name), &ids)?;
            if loaded.iter().all(|known: &Loaded| known.reference.as_ref() != Some(&name)) {
                let image = images.into_iter().next();
                loaded.extend(image.map(|image| Loaded { image, reference: Some(name) }));
            }
        }
        if platforms.is_empty() {
            for (name, index) in came {
                self.keep_index(&[name], &index)?;
            }
        }
        Ok(loaded)
    }

    /// Unpacks the layers that are not here yet, several at once.
    fn take_layers(&self, found: &Found) -> Result<(), ImageError> {
        let id = Digest::of(&found.config);
        let config: ImageConfig = serde_json::from_slice(&found.config)
            .map_err(|source| ImageError::Config { id: id.clone(), source })?;
        if config.rootfs.diff_ids.len() != found.layers.len() {
            let path = format!("the configuration {id}");
            return Err(
                ArchiveError::Damaged { path, reason: "names more or fewer layers than there are" }.into()
            );
        }
        check_diffs(&config).map_err(ArchiveError::from)?;
        let jobs: Vec<_> = config.rootfs.diff_ids.iter().zip(&found.layers).collect();
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((diff, blob)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.take_layer(diff, blob) {
                            next.store(jobs.len(), Ordering::Relaxed);
                            failure
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner)
                                .get_or_insert(error);
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn take_layer(&self, diff: &DiffId, blob: &(Digest, u64)) -> Result<(), LayerError> {
        let layers = self.layers();
        if layers.record(diff).is_ok_and(|record| record.blob.is_some()) {
            return Ok(());
        }
        let announced = Announced { blob: Some(blob.clone()), diff: Some(diff.clone()), is_kept: true };
        let file = self.content().open(&blob.0)?;
        layers.receive(file, &announced).map(drop)
    }
}

// === impl Files ===

impl Files {
    fn new(content: Content) -> Self {
        Self { content, by_path: BTreeMap::new(), held: 0 }
    }

    fn read_tar(&mut self, tar: impl io::BufRead) -> Result<(), ImageError> {
        let mut members = Members::new(tar);
        while let Some(member) = members.next().map_err(unreadable)? {
            let path = plain_path(&String::from_utf8_lossy(&member.path))?;
            let link = String::from_utf8_lossy(&member.link).into_owned();
            match member.kind {
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    let piece = {
                        let size = member.sparse.as_ref().map_or(member.size, |sparse| sparse.size);
                        let mut content =
                            MemberContent::of(&mut members, member.sparse.as_ref(), member.size);
                        self.take(&path, size, &mut content)?
                    };
                    self.by_path.insert(path, piece);
                }
                // Relative to the link's own directory.
                EntryType::Symlink => {
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let target = resolve(parent, &link)?;
                    self.by_path.insert(path, Piece::Link(target));
                }
                EntryType::Link => {
                    self.by_path.insert(path, Piece::Link(plain_path(&link)?));
                }
                _ => {}
            }
        }
        members.drain().map_err(unreadable)
    }

    fn read_directory(&mut self, directory: &Path, prefix: &str) -> Result<(), ImageError> {
        let fail = |error: io::Error| ArchiveError::Tar(format!("{}: {error}", directory.display()).into());
        for entry in fs::read_dir(directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                self.read_directory(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() {
                let mut file = File::open(entry.path()).map_err(fail)?;
                let size = file.metadata().map_err(fail)?.len();
                let piece = self.take(&path, size, &mut file)?;
                self.by_path.insert(path, piece);
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &str, size: u64, reader: &mut dyn Read) -> Result<Piece, ImageError> {
        let is_small = size <= MOST_JSON && self.held + size <= MOST_HELD;
        if is_small && !path.starts_with("blobs/") && !path.ends_with("layer.tar") {
            let mut bytes = Vec::new();
            reader.take(size).read_to_end(&mut bytes).map_err(unreadable)?;
            self.held += size;
            return Ok(Piece::Held(bytes));
        }
        // What is called by its digest must have it.
        let claimed = Digest::of_layout(path);
        let mut ingest = self.content.ingest_as(claimed.as_ref())?;
        io::copy(reader, &mut ingest).map_err(unreadable)?;
        let (digest, size) = ingest.commit(claimed.as_ref(), None)?;
        Ok(Piece::Blob(digest, size))
    }

    fn find(&self, path: &str) -> Result<&Piece, ArchiveError> {
        let mut here = plain_path(path)?;
        for _ in 0..MOST_LINKS {
            match self.by_path.get(&here) {
                Some(Piece::Link(target)) => here.clone_from(target),
                Some(piece) => return Ok(piece),
                None => break,
            }
        }
        Err(ArchiveError::Missing(path.to_owned()))
    }

    fn small(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        match self.find(path)? {
            Piece::Held(bytes) => Ok(bytes.clone()),
            Piece::Blob(digest, _) => Ok(self.content.read(digest, MOST_JSON)?),
            Piece::Link(_) => Err(ArchiveError::Missing(path.to_owned()).into()),
        }
    }

    fn blob(&self, path: &str) -> Result<(Digest, u64), ImageError> {
        match self.find(path)? {
            Piece::Blob(digest, size) => Ok((digest.clone(), *size)),
            // A layer with little in it, in an archive that does not call it one.
            Piece::Held(bytes) => Ok((self.content.put(bytes)?, bytes.len() as u64)),
            Piece::Link(_) => Err(ArchiveError::Missing(path.to_owned()).into()),
        }
    }

    /// A blob by its descriptor, verified against it.
    fn described(&self, descriptor: &Descriptor) -> Result<(Digest, u64), ImageError> {
        let path = descriptor.digest.in_layout();
        let (digest, size) = self.blob(&path)?;
        if digest != descriptor.digest || size != descriptor.size {
            return Err(ArchiveError::Damaged { path, reason: "is not what its descriptor says" }.into());
        }
        Ok((digest, size))
    }

    /// All images. Docker's list decides on names and order; the layout adds the manifests they came with.
    fn images(&self) -> Result<Vec<Found>, ImageError> {
        let layout = if self.by_path.contains_key("index.json") { self.layout_images()? } else { Vec::new() };
        if !self.by_path.contains_key("manifest.json") {
            return if self.by_path.contains_key("index.json") {
                Ok(layout)
            } else {
                Err(ArchiveError::NoImages.into())
            };
        }
        let entries: Vec<DockerEntry> = json("manifest.json", &self.small("manifest.json")?)?;
        let mut images = Vec::new();
        for entry in entries {
            let config = self.small(&entry.config)?;
            let layers = entry.layers.iter().map(|path| self.blob(path)).collect::<Result<Vec<_>, _>>()?;
            let references = entry.repo_tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<_>, _>>()?;
            let twin = layout.iter().find(|found| found.config == config && found.layers == layers);
            let manifest = twin.and_then(|found| found.manifest.clone());
            let part_of = twin.map(|found| found.part_of.clone()).unwrap_or_default();
            let index = twin.and_then(|found| found.index.clone());
            images.push(Found { config, layers, manifest, references, part_of, index });
        }
        // Docker's list has one image of several platforms' at most.
        let is_new = |found: &Found| {
            !found.part_of.is_empty() && images.iter().all(|known: &Found| known.config != found.config)
        };
        let further: Vec<Found> = layout.into_iter().filter(is_new).collect();
        images.extend(further);
        Ok(images)
    }

    fn layout_images(&self) -> Result<Vec<Found>, ImageError> {
        let raw = self.small("index.json")?;
        let Document::Index(index) = Document::parse(&raw, None).map_err(ArchiveError::from)? else {
            let path = "index.json".to_owned();
            return Err(ArchiveError::Damaged { path, reason: "is not an index" }.into());
        };
        let mut images: Vec<Found> = Vec::new();
        for entry in &index.manifests {
            for found in self.entry_images(entry, 0)? {
                // One image under several names has as many entries.
                match images.iter_mut().find(|known| known.manifest == found.manifest) {
                    Some(known) => {
                        known.references.extend(found.references);
                        known.part_of.extend(found.part_of);
                    }
                    None => images.push(found),
                }
            }
        }
        Ok(images)
    }

    /// The image of an entry, or those of an index that are in the archive.
    fn entry_images(&self, entry: &Descriptor, depth: usize) -> Result<Vec<Found>, ImageError> {
        let (digest, _) = self.described(entry)?;
        let raw = self.content.read(&digest, MOST_JSON)?;
        let sent_type = (!entry.media_type.is_empty()).then_some(entry.media_type.as_str());
        match Document::parse(&raw, sent_type).map_err(ArchiveError::from)? {
            Document::Index(index) if depth < 2 => {
                let is_here = |entry: &&Descriptor| self.described(entry).is_ok();
                let here: Vec<&Descriptor> = index.manifests.iter().filter(is_here).collect();
                if here.is_empty() {
                    let chosen = index.choose(&Platform::host()).map_err(ArchiveError::from)?;
                    let path = chosen.digest.in_layout();
                    return Err(ArchiveError::Missing(path).into());
                }
                let mut images = Vec::new();
                for entry in here {
                    images.extend(self.entry_images(entry, depth + 1)?);
                }
                let (mut references, mut part_of) = (name_of(entry).into_iter().collect(), Vec::new());
                if images.len() > 1 {
                    std::mem::swap(&mut references, &mut part_of);
                }
                for found in &mut images {
                    found.references.clone_from(&references);
                    found.part_of.clone_from(&part_of);
                    found.index = Some(digest.clone());
                }
                Ok(images)
            }
            Document::Index(_) => {
                let path = digest.in_layout();
                Err(ArchiveError::Damaged { path, reason: "is an index of an index of an index" }.into())
            }
            Document::Manifest(manifest) => {
                let (config, _) = self.described(&manifest.config)?;
                Ok(vec![Found {
                    config: self.content.read(&config, MOST_JSON)?,
                    layers: manifest
                        .layers
                        .iter()
                        .map(|layer| self.described(layer))
                        .collect::<Result<_, _>>()?,
                    manifest: Some(raw),
                    references: name_of(entry).into_iter().collect(),
                    part_of: Vec::new(),
                    index: None,
                }])
            }
        }
    }
}

/// Those of the images that are for one of these platforms: of several with one name the best for each.
fn wanted(images: Vec<Found>, platforms: &[Platform]) -> Result<Vec<Found>, ImageError> {
    if platforms.is_empty() {
        return Ok(images);
    }
    let offered: Vec<Platform> = images.iter().map(Found::platform).collect::<Result<_, _>>()?;
    let mut taken = BTreeSet::new();
    for platform in platforms {
        let mut best: BTreeMap<&[Reference], (u32, usize)> = BTreeMap::new();
        for (at, found) in images.iter().enumerate() {
            let Some(rank) = platform.rank(&offered[at]) else { continue };
            let names = if found.part_of.is_empty() { &found.references } else { &found.part_of };
            let known = best.entry(names).or_insert((rank, at));
            // Images without a name are each for themselves.
            if names.is_empty() {
                taken.insert(at);
            } else if rank > known.0 {
                *known = (rank, at);
            }
        }
        if best.is_empty() {
            let mut offered: Vec<String> = offered.iter().map(ToString::to_string).collect();
            offered.dedup();
            let offered = offered.join(", ");
            return Err(ManifestError::NoPlatform { wanted: platform.clone(), offered }.into());
        }
        taken.extend(best.into_values().map(|(_, at)| at));
    }
    let numbered = images.into_iter().enumerate();
    Ok(numbered.filter(|(at, _)| taken.contains(at)).map(|(_, found)| found).collect())
}

// === impl Found ===

impl Found {
    fn platform(&self) -> Result<Platform, ImageError> {
        let config: ImageConfig = serde_json::from_slice(&self.config)
            .map_err(|source| ImageError::Config { id: Digest::of(&self.config), source })?;
        Ok(Platform::new(&config.os, &config.architecture, config.variant.as_deref()))
    }
}

/// A path without `.` and empty components. One with `..` is refused: no archive needs it.
fn plain_path(path: &str) -> Result<String, ArchiveError> {
    resolve("", path)
}

/// A path relative to a directory of the archive, staying in it.
fn resolve(directory: &str, path: &str) -> Result<String, ArchiveError> {
    let outside = || ArchiveError::Damaged { path: path.to_owned(), reason: "leads out of the archive" };
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            _ => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn json<T: for<'de> Deserialize<'de>>(path: &str, bytes: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|source| ArchiveError::Json { path: path.to_owned(), source })
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImageError {
    ArchiveError::Tar(error.into()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_archive() {
        assert_eq!(plain_path("./a//b/./c").unwrap(), "a/b/c");
        assert_eq!(resolve("a/b", "../c/layer.tar").unwrap(), "a/c/layer.tar");
        for path in ["..", "a/../../b", "../../etc/passwd"] {
            assert!(plain_path(path).is_err(), "{path}");
        }
    }
}
