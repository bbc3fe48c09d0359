//! Files of layers that are here, taken over into one that is being unpacked.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::layer::members::Member;
use crate::layer::pack::{Xattrs, listed, sized};
use crate::layer::rebuild::open_plain;
use crate::layer::unpack::is_layer_xattr;
use crate::layer::unpack::overlay_xattrs;

/// Files of other layers with contents that are wanted here, by their path in both: the layer's directory, and whether
/// one file may be in both layers.
#[derive(Default)]
pub(crate) struct Donors {
    files: HashMap<Vec<u8>, (Rc<OwnedFd>, bool)>,
    /// Those that are in this layer already: two files of it stay two, whatever they are elsewhere.
    linked: HashSet<u64>,
    /// Whether the file system has been found to share no blocks (ioctl_ficlone(2)).
    cannot_clone: bool,
}

/// A file of another layer.
pub(crate) struct Donor {
    pub(crate) layer: Rc<OwnedFd>,
    file: OwnedFd,
    stat: rustix::fs::Stat,
    /// Whether the same file may be in both layers.
    pub(crate) may_share: bool,
}

// === impl Donors ===

impl Donors {
    pub(crate) fn new(files: HashMap<Vec<u8>, (Rc<OwnedFd>, bool)>) -> Self {
        Self { files, ..Self::default() }
    }

    /// The file that has this member's content.
    pub(crate) fn open(&self, path: &[u8], member: &Member) -> Option<Donor> {
        let (layer, may_share) = self.files.get(path)?;
        let file: OwnedFd = open_plain(layer, path).ok()?.into();
        let stat = rustix::fs::fstat(&file).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let is_one = is_file && stat.st_size.cast_unsigned() == member.size && member.sparse.is_none();
        is_one.then(|| Donor { layer: layer.clone(), file, stat, may_share: *may_share })
    }

    /// Notes that a file becomes one of this layer; false when it is one already.
    pub(crate) fn take(&mut self, donor: &Donor) -> bool {
        self.linked.insert(donor.stat.st_ino)
    }

    /// Lets an empty file have the donor's content without copying it, where the file system can.
    pub(crate) fn clone_to(&mut self, donor: &Donor, file: &OwnedFd) -> bool {
        if self.cannot_clone {
            return false;
        }
        let cloned = rustix::fs::ioctl_ficlone(file, &donor.file);
        self.cannot_clone =
            matches!(cloned, Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::INVAL));
        cloned.is_ok()
    }
}

// === impl Donor ===

impl Donor {
    /// Whether its attributes are the member's.
    pub(crate) fn is_like(&self, member: &Member) -> bool {
        let stat = &self.stat;
        let like = stat.st_mode & 0o7777 == member.mode
            && (stat.st_uid, stat.st_gid) == (member.uid, member.gid)
            && stat.st_mtime == member.seconds
            && u64::from(member.nanoseconds) == stat.st_mtime_nsec;
        like && self.xattrs().is_ok_and(|xattrs| {
            let mut wanted: Vec<_> =
                member.xattrs.iter().filter(|(name, _)| is_layer_xattr(name)).cloned().collect();
            wanted.sort_unstable();
            xattrs == Some(wanted)
        })
    }

    /// Its attributes that belong to a layer, sorted; `None` when it has some of overlayfs' own.
    fn xattrs(&self) -> Result<Option<Xattrs>, Errno> {
        let mut xattrs = Vec::new();
        for name in listed(|buffer| rustix::fs::flistxattr(&self.file, buffer))? {
            if name.starts_with(overlay_xattrs()) {
                return Ok(None);
            }
            if is_layer_xattr(&name) {
                let value = sized(|buffer| rustix::fs::fgetxattr(&self.file, name.as_slice(), buffer))?;
                xattrs.push((name, value));
            }
        }
        xattrs.sort_unstable();
        Ok(Some(xattrs))
    }
}
