//! ADD's archives: recognised by what is in them, never by their names, and unpacked into a layer as tar does.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Timespec};
use tar::EntryType;

use super::copy::{Meta, Owner, Writer};
use super::digests::open_regular;
use crate::layer::members::{Content, Member, Members};
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
    let mut members = Members::new(BufReader::with_capacity(1 << 16, archive));
    while let Some(member) = members.next().map_err(io::Error::other)? {
        let placed = inside(Path::new(OsStr::from_bytes(&member.path)));
        if placed.as_os_str().is_empty() {
            continue;
        }
        unpack_member(&member, &mut members, &placed, writer, &base, owner).map_err(|error| {
            let shown = String::from_utf8_lossy(&member.path);
            io::Error::new(error.kind(), format!("{shown}: {error}"))
        })?;
    }
    Ok(())
}

fn unpack_member<R: BufRead>(
    member: &Member,
    members: &mut Members<R>,
    name: &Path,
    writer: &mut Writer,
    base: &Path,
    owner: Option<Owner>,
) -> io::Result<()> {
    let own = Owner { uid: member.uid, gid: member.gid };
    let mtime = Timespec { tv_sec: member.seconds, tv_nsec: member.nanoseconds.into() };
    let meta = Meta { mode: member.mode, owner: owner.unwrap_or(own), mtime };
    let device = rustix::fs::makedev(member.device.0, member.device.1);
    let target = Path::new(OsStr::from_bytes(&member.link));
    // Links in the parent part lead where they lead inside the image; the last part is what is written.
    let parent = base.join(name.parent().unwrap_or(Path::new("")));
    let parent = writer.make_directories(&parent)?;
    let path = parent.join(name.file_name().unwrap_or_default());
    match member.kind {
        EntryType::Directory => writer.write_directory(&path, &meta)?,
        EntryType::Symlink => writer.write_link(&path, target, &meta)?,
        EntryType::Link => {
            let target = writer.resolve(&base.join(inside(target)), false)?.path;
            return writer.write_hardlink(&path, &target);
        }
        EntryType::Char => writer.write_node(&path, FileType::CharacterDevice, device, &meta)?,
        EntryType::Block => writer.write_node(&path, FileType::BlockDevice, device, &meta)?,
        EntryType::Fifo => writer.write_node(&path, FileType::Fifo, 0, &meta)?,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mut content = Content::of(members, member.sparse.as_ref(), member.size);
            writer.write_file(&path, &mut content, &meta)?;
        }
        _ => return Ok(()),
    }
    let named =
        member.xattrs.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)));
    let is_kept = |name: &str| name == "security.capability" || name.starts_with("user.");
    let kept: Vec<_> = named
        .filter(|(name, _)| is_kept(name))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    writer.set_attributes(&path, &kept)
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
