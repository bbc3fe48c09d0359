//! ADD's archives: recognised by what is in them, never by their names, and unpacked into a layer as tar does.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Timespec};
use tar::EntryType;

use super::copy::{Meta, Owner, Writer};
use super::digests::open_regular;
use crate::layer::stream;

/// The archive in this file, uncompressed; `None` when it is none.
pub(crate) fn open(path: &Path) -> io::Result<Option<Box<dyn Read>>> {
    let mut file = open_regular(path)?;
    // Compressed bytes that are no tar inside are a file like any other.
    if !is_tar(&mut decompress(file.try_clone()?)?) {
        return Ok(None);
    }
    file.rewind()?;
    decompress(file).map(Some)
}

/// Unpacks an archive at the destination, which is a directory afterwards.
pub(crate) fn unpack(
    archive: Box<dyn Read>,
    writer: &mut Writer,
    destination: &Path,
    owner: Option<Owner>,
) -> io::Result<()> {
    let base = writer.make_directories(destination)?;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let placed = inside(Path::new(OsStr::from_bytes(&name)));
        if placed.as_os_str().is_empty() {
            continue;
        }
        unpack_entry(&mut entry, &placed, writer, &base, owner)
            .map_err(|error| io::Error::new(error.kind(), format!("{shown}: {error}")))?;
    }
    Ok(())
}

fn unpack_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    name: &Path,
    writer: &mut Writer,
    base: &Path,
    owner: Option<Owner>,
) -> io::Result<()> {
    let header = entry.header();
    let kind = header.entry_type();
    let mut mtime = Timespec { tv_sec: i64::try_from(header.mtime()?).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mode = header.mode()?;
    let mut found = Owner {
        uid: u32::try_from(header.uid()?).unwrap_or(0),
        gid: u32::try_from(header.gid()?).unwrap_or(0),
    };
    // The device fields of other entries need not be numbers.
    let device = match kind {
        EntryType::Char | EntryType::Block => {
            let part = |number: Option<u32>| number.unwrap_or(0);
            rustix::fs::makedev(part(header.device_major()?), part(header.device_minor()?))
        }
        _ => 0,
    };
    let mut attributes = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let key = extension.key().unwrap_or_default();
            let value = extension.value().unwrap_or_default();
            match key {
                "uid" => found.uid = value.parse().unwrap_or(found.uid),
                "gid" => found.gid = value.parse().unwrap_or(found.gid),
                "mtime" => mtime = pax_time(value).unwrap_or(mtime),
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.")
                        && (name == "security.capability" || name.starts_with("user."))
                    {
                        attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
                    }
                }
            }
        }
    }
    let meta = Meta { mode, owner: owner.unwrap_or(found), mtime };
    // Links in the parent part lead where they lead inside the image; the last part is what is written.
    let parent = base.join(name.parent().unwrap_or(Path::new("")));
    let parent = writer.make_directories(&parent)?;
    let path = parent.join(name.file_name().unwrap_or_default());
    match kind {
        EntryType::Directory => writer.write_directory(&path, &meta)?,
        EntryType::Symlink => writer.write_link(&path, &link_of(entry)?, &meta)?,
        EntryType::Link => {
            let target = base.join(inside(&link_of(entry)?));
            let target = writer.resolve(&target, false)?.path;
            return writer.write_hardlink(&path, &target);
        }
        EntryType::Char => writer.write_node(&path, FileType::CharacterDevice, device, &meta)?,
        EntryType::Block => writer.write_node(&path, FileType::BlockDevice, device, &meta)?,
        EntryType::Fifo => writer.write_node(&path, FileType::Fifo, 0, &meta)?,
        kind if kind.is_file() || kind == EntryType::GNUSparse => {
            writer.write_file(&path, entry, &meta)?;
        }
        _ => return Ok(()),
    }
    writer.set_attributes(&path, &attributes)
}

fn link_of<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<PathBuf> {
    let bytes = entry.link_name_bytes().ok_or_else(|| io::Error::other("a link without a target"))?;
    Ok(PathBuf::from(OsStr::from_bytes(&bytes)))
}

/// A name from an archive as a path below the destination: `/` and `..` lead nowhere else.
fn inside(name: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => _ = path.pop(),
            _ => {}
        }
    }
    path
}

fn pax_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(Timespec { tv_sec: seconds.parse().ok()?, tv_nsec: nanos.parse().ok()? })
}

fn decompress(file: File) -> io::Result<Box<dyn Read>> {
    let reader = BufReader::with_capacity(1 << 16, file);
    Ok(stream::decompress(reader)?.1)
}

/// Whether the bytes begin with a tar header whose checksum is right; POSIX, GNU and the old form.
fn is_tar(reader: &mut dyn Read) -> bool {
    let mut block = [0u8; 512];
    if !matches!(read_up_to(reader, &mut block), Ok(512)) {
        return false;
    }
    let Some(recorded) = tar::Header::from_byte_slice(&block).cksum().ok() else { return false };
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    sum == recorded && block[0] != 0
}

fn read_up_to(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
