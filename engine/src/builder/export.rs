//! The files of a built image outside of it: as a directory, or as one tar.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::context::{Selected, Tree, attributes};
use super::copy::{Changes, Owner, Writer};
use super::ignore::Ignore;
use super::stack::{Entry, Stack};
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::image::{Image, Images};
use crate::paths::Root;

/// Writes an image's files into a directory, beside and over what is there, as files of whoever asks.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_directory(root: &Root, image: &Image, directory: &Path, epoch: Option<i64>) -> Result<()> {
    let failed = |error: io::Error| Error::failed(format!("write to {}", directory.display()), error);
    let source = files(root, image)?;
    let write = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let owner =
            Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let changes = Changes { owner: Some(owner), replace_directories: true, ..Changes::default() };
        let now = Timespec { tv_sec: epoch.unwrap_or(0), tv_nsec: 0 };
        let mut writer = Writer::new(directory, &Stack::of(Vec::new()), changes, now)?;
        writer.copy(&source, Path::new("/"), true)?;
        writer.finish()?;
        if let Some(epoch) = epoch {
            for node in source.nodes.iter().rev() {
                set_time(&directory.join(&node.path), epoch)?;
            }
        }
        Ok(())
    };
    write().map_err(failed)
}

/// The digests of all files of a stack, by their paths.
pub(super) fn digests(stack: &Stack) -> Result<Vec<(String, Digest)>> {
    let failed = |error: io::Error| Error::failed("read the image's files", error);
    let mut digests = Vec::new();
    let mut open: Vec<(PathBuf, Entry)> =
        stack.root().map_err(failed)?.into_iter().map(|root| (PathBuf::new(), root)).collect();
    while let Some((path, entry)) = open.pop() {
        if entry.metadata.is_file() {
            let mut hash = Sha256::new();
            File::open(&entry.host).and_then(|mut file| io::copy(&mut file, &mut hash)).map_err(failed)?;
            digests.push((path.display().to_string(), Digest::from_sha256(&hash.finalize())));
        } else if entry.metadata.is_dir() {
            let children = entry.children().map_err(failed)?;
            open.extend(children.into_iter().rev().map(|(name, child)| (path.join(name), child)));
        }
    }
    Ok(digests)
}

/// An image's files and where they go, and further files beside them.
pub struct Part<'a> {
    /// Whose files.
    pub image: &'a Image,
    /// Below which directory.
    pub below: PathBuf,
    /// What is attested of them, by the names of the files.
    pub statements: Vec<(&'static str, Vec<u8>)>,
}

/// Writes images' files as one tar, each below its directory there, whiteouts applied.
///
/// # Errors
/// When a file cannot be read or the tar not written.
pub fn write_tar(root: &Root, parts: &[Part<'_>], writer: &mut dyn Write, epoch: Option<i64>) -> Result<()> {
    let failed = |error: io::Error| Error::failed("write the image's files", error);
    let mut builder = tar::Builder::new(writer);
    for Part { image, below, statements } in parts {
        write_below(&mut builder, &files(root, image)?, below, epoch).map_err(failed)?;
        for (name, bytes) in statements {
            let mut header = Header::new_ustar();
            header.set_mode(0o644);
            header.set_mtime(epoch.unwrap_or(0).max(0).cast_unsigned());
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, below.join(name), bytes.as_slice()).map_err(failed)?;
        }
    }
    builder.finish().map_err(failed)
}

fn write_below(
    builder: &mut tar::Builder<&mut dyn Write>,
    source: &Selected,
    below: &Path,
    epoch: Option<i64>,
) -> io::Result<()> {
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for node in &source.nodes {
        let path = below.join(&node.path);
        let metadata = &node.entry.metadata;
        if metadata.file_type().is_socket() {
            continue;
        }
        let mut header = header(metadata, epoch);
        let identity = (metadata.dev(), metadata.ino());
        if metadata.is_file() && metadata.nlink() > 1 {
            if let Some(first) = links.get(&identity) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                builder.append_link(&mut header, &path, first)?;
                continue;
            }
            links.insert(identity, path.clone());
        }
        append(builder, header, &path, &node.entry.host)?;
    }
    Ok(())
}

fn append(
    builder: &mut tar::Builder<&mut dyn Write>,
    mut header: Header,
    path: &Path,
    host: &Path,
) -> io::Result<()> {
    let attributes: Vec<(String, Vec<u8>)> =
        attributes(host)?.into_iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value)).collect();
    if !attributes.is_empty() {
        builder.append_pax_extensions(
            attributes.iter().map(|(name, value)| (name.as_str(), value.as_slice())),
        )?;
    }
    match header.entry_type() {
        EntryType::Symlink => builder.append_link(&mut header, path, fs::read_link(host)?),
        EntryType::Regular => builder.append_data(&mut header, path, File::open(host)?),
        _ => builder.append_data(&mut header, path, io::empty()),
    }
}

fn header(metadata: &fs::Metadata, epoch: Option<i64>) -> Header {
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    // What is older than 1970 is no older than that in a tar.
    header.set_mtime(u64::try_from(epoch.unwrap_or(metadata.mtime())).unwrap_or(0));
    header.set_size(if kind.is_file() { metadata.len() } else { 0 });
    header.set_entry_type(match kind {
        kind if kind.is_dir() => EntryType::Directory,
        kind if kind.is_symlink() => EntryType::Symlink,
        kind if kind.is_fifo() => EntryType::Fifo,
        kind if kind.is_char_device() => EntryType::Char,
        kind if kind.is_block_device() => EntryType::Block,
        _ => EntryType::Regular,
    });
    if kind.is_char_device() || kind.is_block_device() {
        let device = metadata.rdev();
        // A header in GNU's form has room for both numbers.
        let _ = header.set_device_major(rustix::fs::major(device));
        let _ = header.set_device_minor(rustix::fs::minor(device));
    }
    header
}

fn set_time(path: &Path, epoch: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: epoch, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Everything in an image, from its root on.
fn files(root: &Root, image: &Image) -> Result<Selected> {
    let stack = Stack::of(Images::at(root).lower_dirs(image));
    let tree = Tree { stack, ignore: Ignore::default(), keeps_owners: true };
    let selected = tree.select("/", &Ignore::default(), false);
    let selected = selected.map_err(|error| Error::failed("read the image's files", error))?;
    selected.into_iter().next().ok_or_else(|| Error::not_found("the image has no files"))
}
