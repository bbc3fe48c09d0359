//! A layer directory becomes a tar, always the same one: sorted, PAX records only where ustar cannot say it, times
//! in whole seconds, no user names, hard links kept, whiteouts as OCI writes them (image-spec, layer.md).

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use crate::layer::table::Sum;
use crate::layer::unpack::{
    Contents, OPAQUE_NAME, WHITEOUT_PREFIX, is_layer_xattr, is_whiteout, join, names, opaque_xattr,
    overlay_xattrs,
};

/// Why a directory was not packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("{step} {path:?}")]
    Step { step: &'static str, path: String, source: io::Error },
    #[error("write the layer's tar")]
    Write(#[source] io::Error),
    #[error("{path:?} has changed while it was packed")]
    Changed { path: String },
    #[error(
        "{path:?} refers to another layer ({xattr}): the overlay was mounted with redirect_dir or metacopy"
    )]
    Redirected { path: String, xattr: String },
}

/// What happens to the directory on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It is a layer: nothing.
    Read,
    /// It was an overlay's upper directory: what only that overlay needed goes, and so do sockets.
    Adopt,
    /// It is no layer but files as a program sees them: overlayfs' marks have no meaning.
    Plain,
}

/// Writes the tar of a layer directory.
pub(crate) fn pack(
    root: &OwnedFd,
    writer: &mut dyn Write,
    treatment: Treatment,
) -> Result<Contents, PackError> {
    pack_without(root, writer, treatment, &BTreeSet::new())
}

/// Writes the tar of a layer directory, but for these paths and what is below them.
pub(crate) fn pack_without(
    root: &OwnedFd,
    writer: &mut dyn Write,
    treatment: Treatment,
    without: &BTreeSet<Vec<u8>>,
) -> Result<Contents, PackError> {
    let mut sink = TarSink(writer);
    let mut packer = Packer::new(&mut sink, treatment, without);
    packer.own_attributes(root, b"")?;
    packer.children(root, b"")?;
    packer.finish()
}

/// Writes the tar of the file or tree that has this name in a directory (`.` is the directory itself), as if it had
/// another name.
pub(crate) fn pack_tree(
    parent: &OwnedFd,
    name: &[u8],
    shown: &[u8],
    writer: &mut dyn Write,
) -> Result<Contents, PackError> {
    let nothing = BTreeSet::new();
    let mut sink = TarSink(writer);
    let mut packer = Packer::new(&mut sink, Treatment::Plain, &nothing);
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(step("look at", shown))?;
    packer.member(parent, shown, name, &stat)?;
    packer.finish()
}

/// Gives a layer directory's tar to a sink, part by part.
pub(crate) fn pack_into(
    root: &OwnedFd,
    sink: &mut dyn Sink,
    treatment: Treatment,
) -> Result<Contents, PackError> {
    pack_known_into(root, sink, treatment, &Known::new())
}

/// The same with the digests of contents that are known.
pub(crate) fn pack_known_into(
    root: &OwnedFd,
    sink: &mut dyn Sink,
    treatment: Treatment,
    known: &Known,
) -> Result<Contents, PackError> {
    let nothing = BTreeSet::new();
    let mut packer = Packer::new(sink, treatment, &nothing);
    packer.known = Some(known);
    packer.own_attributes(root, b"")?;
    packer.children(root, b"")?;
    packer.finish()
}

/// Takes a tar part by part.
pub(crate) trait Sink {
    /// Headers, extensions and padding.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// A part of a file's content.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The content is over. It had so many bytes, and at least one.
    fn end_content(&mut self, size: u64);
    /// A content begins whose digest is known.
    fn known_content(&mut self, _: Sum) {}
}

/// The digests of contents that are known, by inode.
pub(crate) type Known = HashMap<u64, Sum>;

/// A tar as it is.
struct TarSink<'a>(&'a mut dyn Write);

/// Names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A file with several names.
struct Named {
    first: Vec<u8>,
    /// Names that there are, and that were not found yet: as many bits as the kernel has for it on this machine.
    missing: libc::nlink_t,
    size: u64,
}

struct Packer<'a> {
    sink: &'a mut dyn Sink,
    treatment: Treatment,
    without: &'a BTreeSet<Vec<u8>>,
    /// Where a file with several names was written first, by device and inode: what a program sees may be of several
    /// file systems.
    links: HashMap<(u64, u64), Named>,
    contents: Contents,
    written: u64,
    buffer: Vec<u8>,
    known: Option<&'a Known>,
}

const BLOCK: usize = 512;
const BUFFER: usize = 1 << 18;

// === impl Sink ===

impl Sink for TarSink<'_> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn end_content(&mut self, _: u64) {}
}

// === impl Packer ===

impl<'a> Packer<'a> {
    fn new(sink: &'a mut dyn Sink, treatment: Treatment, without: &'a BTreeSet<Vec<u8>>) -> Self {
        Self {
            sink,
            treatment,
            without,
            links: HashMap::new(),
            contents: Contents::default(),
            written: 0,
            buffer: vec![0; BUFFER],
            known: None,
        }
    }

    fn finish(mut self) -> Result<Contents, PackError> {
        self.write(&[0; 2 * BLOCK])?;
        self.contents.tar_size = self.written;
        // What has a name outside of this directory as well is in another layer, too.
        let is_shared = |file: &&Named| file.missing > 0;
        self.contents.shared = self.links.values().filter(is_shared).map(|file| file.size).sum();
        Ok(self.contents)
    }

    fn children(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<(), PackError> {
        let mut whiteouts = Vec::new();
        let mut others = Vec::new();
        for name in names(directory).map_err(step("list", path))? {
            let shown = join(path, &name);
            if self.without.contains(&shown) {
                continue;
            }
            let stat = match rustix::fs::statat(directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                // Programs at work remove files.
                Err(Errno::NOENT) if self.treatment == Treatment::Plain => continue,
                other => other.map_err(step("look at", &shown))?,
            };
            if is_whiteout(&stat) && self.treatment != Treatment::Plain {
                whiteouts.push(name)
            } else {
                others.push((name, stat))
            }
        }
        // Before their siblings, as readers that apply members in order want them.
        for name in whiteouts {
            self.marker(&join(path, &[WHITEOUT_PREFIX, &name].concat()))?;
        }
        for (name, stat) in others {
            self.member(directory, &join(path, &name), &name, &stat)?;
        }
        Ok(())
    }

    fn member(&mut self, parent: &OwnedFd, path: &[u8], name: &[u8], stat: &Stat) -> Result<(), PackError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            // A tar has no sockets; one that stayed would make this machine's image differ from all others.
            return match self.treatment {
                Treatment::Read | Treatment::Plain => Ok(()),
                Treatment::Adopt => rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .map_err(step("remove the socket", path)),
            };
        }
        if kind == FileType::Directory {
            return self.directory(parent, path, name, stat);
        }
        if stat.st_nlink > 1
            && let Some(named) = self.links.get_mut(&(stat.st_dev, stat.st_ino))
        {
            named.missing = named.missing.saturating_sub(1);
            let first = named.first.clone();
            let mut header = header(stat, EntryType::Link, 0);
            header.set_mode(stat.st_mode & 0o7777);
            return self.header(header, path, &first, stat, &[]);
        }
        if stat.st_nlink > 1 {
            let (missing, is_file) = (stat.st_nlink - 1, kind == FileType::RegularFile);
            let size = if is_file { stat.st_size.cast_unsigned() } else { 0 };
            self.links.insert((stat.st_dev, stat.st_ino), Named { first: path.to_vec(), missing, size });
        }
        match kind {
            FileType::RegularFile => self.file(parent, path, name, stat),
            FileType::Symlink => {
                self.unopened_attributes(parent, path, name)?;
                let target =
                    rustix::fs::readlinkat(parent, name, Vec::new()).map_err(step("read the link", path))?;
                self.header(header(stat, EntryType::Symlink, 0), path, target.as_bytes(), stat, &[])
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                self.unopened_attributes(parent, path, name)?;
                self.node(path, kind, stat)
            }
            _ => Ok(()),
        }
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        name: &[u8],
        stat: &Stat,
    ) -> Result<(), PackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(step("open", path))?;
        let (xattrs, opaque) = self.own_attributes(&directory, path)?;
        let mut name_with_slash = path.to_vec();
        name_with_slash.push(b'/');
        self.header(header(stat, EntryType::Directory, 0), &name_with_slash, b"", stat, &xattrs)?;
        if opaque && self.treatment != Treatment::Plain {
            self.marker(&join(path, OPAQUE_NAME))?;
        }
        self.children(&directory, path)
    }

    fn file(&mut self, parent: &OwnedFd, path: &[u8], name: &[u8], stat: &Stat) -> Result<(), PackError> {
        // Without blocking, should a pipe have taken its place a moment ago.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |flags| rustix::fs::openat(parent, name, flags, Mode::empty());
        let file = match open(flags | OFlags::NOATIME) {
            // Only its owner may read it without a trace, and an ordinary user's engine is root to its own users alone.
            Err(Errno::PERM) => open(flags),
            other => other,
        };
        let file = file.map_err(step("open", path))?;
        let (xattrs, _) = self.own_attributes(&file, path)?;
        let size = stat.st_size.cast_unsigned();
        self.header(header(stat, EntryType::Regular, size), path, b"", stat, &xattrs)?;
        self.contents.size += size;
        if let Some(sum) = self.known.and_then(|known| known.get(&stat.st_ino)) {
            self.sink.known_content(*sum);
        }
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
            let read = match rustix::io::read(&file, &mut self.buffer[..most]) {
                Ok(0) => return Err(PackError::Changed { path: lossy(path) }),
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(step("read", path)(error)),
            };
            self.sink.content(&self.buffer[..read]).map_err(PackError::Write)?;
            self.written += read as u64;
            left -= read as u64;
        }
        if size > 0 {
            self.sink.end_content(size);
        }
        self.pad(size)
    }

    fn node(&mut self, path: &[u8], kind: FileType, stat: &Stat) -> Result<(), PackError> {
        let entry = match kind {
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => EntryType::Fifo,
        };
        let mut header = header(stat, entry, 0);
        if entry != EntryType::Fifo {
            let numbers = header
                .set_device_major(rustix::fs::major(stat.st_rdev))
                .and_then(|()| header.set_device_minor(rustix::fs::minor(stat.st_rdev)));
            numbers.map_err(PackError::Write)?;
        }
        self.header(header, path, b"", stat, &[])
    }

    /// An empty file whose name is the message; nothing about it depends on where it was made.
    fn marker(&mut self, path: &[u8]) -> Result<(), PackError> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        let mut records = Vec::new();
        set_name(&mut header, path, &mut records);
        self.emit(header, &records)
    }

    fn header(
        &mut self,
        mut header: Header,
        path: &[u8],
        link: &[u8],
        stat: &Stat,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), PackError> {
        let mut records = Vec::new();
        set_name(&mut header, path, &mut records);
        if !link.is_empty() {
            let old = header.as_old_mut();
            let fits = link.len().min(old.linkname.len());
            old.linkname[..fits].copy_from_slice(&link[..fits]);
            if fits < link.len() {
                record(&mut records, b"linkpath", link);
            }
        }
        // Eleven octal digits for sizes and times, seven for owners: what is larger goes into a record.
        if header.entry_type() == EntryType::Regular && stat.st_size >= 1 << 33 {
            header.set_size(0);
            record(&mut records, b"size", stat.st_size.to_string().as_bytes());
        }
        if !(0..1 << 33).contains(&stat.st_mtime) {
            header.set_mtime(0);
            record(&mut records, b"mtime", stat.st_mtime.to_string().as_bytes());
        }
        if stat.st_uid >= 1 << 21 {
            header.set_uid(0);
            record(&mut records, b"uid", stat.st_uid.to_string().as_bytes());
        }
        if stat.st_gid >= 1 << 21 {
            header.set_gid(0);
            record(&mut records, b"gid", stat.st_gid.to_string().as_bytes());
        }
        for (name, value) in xattrs {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        self.emit(header, &records)
    }

    fn emit(&mut self, mut header: Header, records: &[u8]) -> Result<(), PackError> {
        self.contents.members += 1;
        if !records.is_empty() {
            let mut extension = Header::new_ustar();
            extension.set_entry_type(EntryType::XHeader);
            extension.set_mode(0);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(records.len() as u64);
            extension.as_old_mut().name[..PAX_NAME.len()].copy_from_slice(PAX_NAME);
            extension.set_cksum();
            self.write(extension.as_bytes())?;
            self.write(records)?;
            self.pad(records.len() as u64)?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), PackError> {
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let padding = usize::try_from(padding).unwrap_or(0);
        self.write(&[0; BLOCK][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.written += bytes.len() as u64;
        self.sink.raw(bytes).map_err(PackError::Write)
    }

    /// The attributes that go into the tar, sorted, and whether the directory is opaque. Takes overlayfs' own away
    /// when the directory is adopted.
    fn own_attributes(&self, file: &OwnedFd, path: &[u8]) -> Result<(Xattrs, bool), PackError> {
        let fail = step("read the attributes of", path);
        let mut xattrs = Vec::new();
        let mut opaque = false;
        for name in listed(|buffer| rustix::fs::flistxattr(file, buffer)).map_err(&fail)? {
            if name == opaque_xattr().as_bytes() {
                opaque = true;
            } else if name.starts_with(overlay_xattrs()) {
                self.refuse_redirection(&name, path)?;
                if self.treatment == Treatment::Adopt {
                    rustix::fs::fremovexattr(file, name.as_slice()).map_err(&fail)?;
                }
            } else if is_layer_xattr(&name) {
                let value =
                    sized(|buffer| rustix::fs::fgetxattr(file, name.as_slice(), buffer)).map_err(&fail)?;
                xattrs.push((name, value));
            }
        }
        xattrs.sort_unstable();
        Ok((xattrs, opaque))
    }

    /// Takes overlayfs' own attributes from what cannot be opened: a link or a device.
    fn unopened_attributes(&self, parent: &OwnedFd, path: &[u8], name: &[u8]) -> Result<(), PackError> {
        if self.treatment != Treatment::Adopt {
            return Ok(());
        }
        let fail = step("read the attributes of", path);
        let place = [format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).as_bytes(), name].concat();
        for name in listed(|buffer| rustix::fs::llistxattr(place.as_slice(), buffer)).map_err(&fail)? {
            if name.starts_with(overlay_xattrs()) {
                self.refuse_redirection(&name, path)?;
                rustix::fs::lremovexattr(place.as_slice(), name.as_slice()).map_err(&fail)?;
            }
        }
        Ok(())
    }

    fn refuse_redirection(&self, xattr: &[u8], path: &[u8]) -> Result<(), PackError> {
        let redirects = matches!(&xattr[overlay_xattrs().len()..], b"redirect" | b"metacopy");
        if redirects && self.treatment == Treatment::Adopt {
            return Err(PackError::Redirected { path: lossy(path), xattr: lossy(xattr) });
        }
        Ok(())
    }
}

/// The name that extensions have themselves; readers never show it.
const PAX_NAME: &[u8] = b"PaxHeaders.0/pax";

fn header(stat: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(stat.st_mtime.max(0).cast_unsigned());
    header.set_size(size);
    header
}

/// The name where it fits, in a record where it does not.
fn set_name(header: &mut Header, path: &[u8], records: &mut Vec<u8>) {
    let name = &mut header.as_old_mut().name;
    let fits = path.len().min(name.len());
    name[..fits].copy_from_slice(&path[..fits]);
    if fits < path.len() {
        record(records, b"path", path);
    }
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

pub(crate) fn listed(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<Vec<u8>>, Errno> {
    let list = match sized(call) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Calls with a small buffer, then with the largest there can be (xattr(7): 64 KiB).
pub(crate) fn sized(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; 64 << 10];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn step(step: &'static str, path: &[u8]) -> impl Fn(Errno) -> PackError {
    move |error| PackError::Step { step, path: lossy(path), source: error.into() }
}
