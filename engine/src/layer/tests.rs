//! Stories about layers, on a real file system: these run as root.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use rustix::fs::{FileType, Mode, XattrFlags};
use tar::{EntryType, Header};

use super::*;

struct World {
    directory: tempfile::TempDir,
    layers: Layers,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layers = Layers::at(&Root::at(&directory.path().join("state")));
        Self { directory, layers }
    }

    fn unpack(&self, tar: &[u8]) -> PathBuf {
        let diff = self.layers.unpack(tar).unwrap_or_else(|error| panic!("{}", crate::error::chain(&error)));
        assert_eq!(diff, Digest::of(tar));
        self.layers.dir(&diff)
    }

    fn refuses(&self, tar: &[u8]) -> String {
        let error = self.layers.unpack(tar).unwrap_err();
        assert_eq!(fs::read_dir(self.directory.path().join("state/tmp")).unwrap().count(), 0);
        assert!(self.layers.list().unwrap().is_empty(), "something became visible");
        crate::error::chain(&error)
    }

    /// A directory on the root's file system that is like an overlay's upper one.
    fn upper(&self) -> PathBuf {
        let upper = self.directory.path().join("state/upper");
        fs::create_dir_all(&upper).unwrap();
        upper
    }
}

/// A tar, member by member.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn member(mut self, name: &str, kind: EntryType, edit: impl Fn(&mut Header), content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        edit(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length =
                (1..).map(|digits| rest + digits).find(|length| rest + length.to_string().len() == *length);
            bytes.extend_from_slice(format!("{} {key}=", length.unwrap()).as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.member("pax", EntryType::XHeader, |_| {}, &bytes)
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.member(name, EntryType::Regular, |_| {}, content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.member(name, EntryType::Directory, |header| header.set_mode(0o755), b"")
    }

    fn link(self, name: &str, kind: EntryType, target: &str) -> Self {
        let edit = |header: &mut Header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        };
        self.member(name, kind, edit, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.link(name, EntryType::Symlink, target)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = [0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

fn is_hidden(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// setcap cap_net_raw+ep (linux/capability.h, `vfs_cap_data` revision 2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn members_keep_their_attributes() {
    let world = World::new();
    let own = |header: &mut Header| {
        header.set_uid(1000);
        header.set_gid(2000);
        header.set_mode(0o4711);
    };
    let numbers = |header: &mut Header| {
        header.set_mode(0o660);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    };
    let tar = Tar::default()
        .member("dir/", EntryType::Directory, |header| header.set_mode(0o2770), b"")
        .member("dir/su", EntryType::Regular, own, b"program")
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY), ("uid", b"3000000"), ("mtime", b"-5.5")])
        .file("dir/capable", "x")
        .link("dir/again", EntryType::Link, "dir/su")
        .symlink("dir/soft", "../../../etc/passwd")
        .member("null", EntryType::Char, numbers, b"")
        .member("pipe", EntryType::Fifo, |_| {}, b"")
        .end();
    let fs_dir = world.unpack(&tar);
    let su = fs::metadata(fs_dir.join("dir/su")).unwrap();
    assert_eq!((su.uid(), su.gid(), su.mode() & 0o7777, su.nlink()), (1000, 2000, 0o4711, 2));
    assert_eq!(su.ino(), fs::metadata(fs_dir.join("dir/again")).unwrap().ino());
    assert_eq!(su.mtime(), 1_000_000_000);
    let capable = fs_dir.join("dir/capable");
    assert_eq!(xattr(&capable, "security.capability").as_deref(), Some(CAPABILITY));
    let capable = fs::metadata(capable).unwrap();
    assert_eq!((capable.uid(), capable.gid()), (3_000_000, 0));
    assert_eq!((capable.mtime(), capable.mtime_nsec()), (-6, 500_000_000));
    let dir = fs::metadata(fs_dir.join("dir")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o2770, 1_000_000_000));
    assert_eq!(fs::read_link(fs_dir.join("dir/soft")).unwrap(), Path::new("../../../etc/passwd"));
    let null = fs::metadata(fs_dir.join("null")).unwrap();
    assert_eq!((null.rdev(), null.mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o660));
    assert!(fs::metadata(fs_dir.join("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn whiteouts_become_overlayfs_marks_in_any_order() {
    let world = World::new();
    let fs_dir = world.unpack(
        &Tar::default()
            .file(".wh.gone", "")
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/new", "")
            .file(".wh.replaced", "")
            .dir("replaced/")
            .dir("late/")
            .file("late/x", "")
            .file(".wh.late", "")
            .file(".wh.deep", "")
            .file("deep/inside/file", "")
            .file("own", "kept")
            .file(".wh.own", "")
            .file(".wh..wh.plnk", "")
            .end(),
    );
    assert!(is_hidden(&fs_dir.join("gone")));
    for opaque in ["opaque", "replaced", "late", "deep"] {
        assert_eq!(xattr(&fs_dir.join(opaque), OPAQUE).as_deref(), Some(&b"y"[..]), "{opaque}");
    }
    assert!(fs_dir.join("late/x").exists() && fs_dir.join("deep/inside/file").exists());
    assert_eq!(fs::read_to_string(fs_dir.join("own")).unwrap(), "kept");
}

const OPAQUE: &str = "trusted.overlay.opaque";

#[test]
fn a_later_member_replaces_an_earlier_one() {
    let world = World::new();
    let fs_dir = world.unpack(
        &Tar::default()
            .dir("a/")
            .file("a/b/c", "old")
            .file("a", "file")
            .file("d", "file")
            .dir("d/")
            .file("d/e", "x")
            .file("f", "1")
            .link("g", EntryType::Link, "f")
            .file("f", "2")
            .link("f", EntryType::Link, "f")
            .symlink("h", "f")
            .file("h", "no longer a link")
            .end(),
    );
    assert_eq!(fs::read_to_string(fs_dir.join("a")).unwrap(), "file");
    assert_eq!(fs::read_to_string(fs_dir.join("d/e")).unwrap(), "x");
    assert_eq!(fs::read_to_string(fs_dir.join("f")).unwrap(), "2");
    assert_eq!(fs::read_to_string(fs_dir.join("g")).unwrap(), "1");
    assert_eq!(fs::read_to_string(fs_dir.join("h")).unwrap(), "no longer a link");
}

#[test]
fn nothing_is_written_outside_whatever_the_names_say() {
    let world = World::new();
    let outside = world.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let target = outside.to_str().unwrap();
    let up = format!("../../../../../../../../../..{target}");
    for tar in [
        Tar::default().file("../escaped", "x"),
        Tar::default().file("a/../../escaped", "x"),
        Tar::default().symlink("in", "x").link("steal", EntryType::Link, "../../outside/victim"),
        Tar::default().link("steal", EntryType::Link, &format!("{target}/victim")),
        Tar::default().symlink("out", target).link("steal", EntryType::Link, "out/victim"),
        Tar::default().file(".wh.", ""),
        Tar::default().file(".wh...", ""),
        Tar::default().file("a/.wh...", ""),
        Tar::default().symlink("loop", "loop").file("loop/x", ""),
        Tar::default().dir("d").link("e", EntryType::Link, "d"),
    ] {
        let message = world.refuses(&tar.end());
        assert!(message.starts_with("unpack the layer: "), "{message}");
    }
    // What a link leads to is inside the layer, as it will be inside the container.
    let fs_dir = world.unpack(
        &Tar::default()
            .symlink("absolute", target)
            .file("absolute/victim", "inside")
            .symlink("relative", &up)
            .file("relative/victim2", "inside")
            .file(&format!("{target}/victim3"), "inside")
            .symlink("file", &format!("{target}/victim"))
            .file("file", "a new file")
            .symlink("magic", "/proc/self/root")
            .file("magic/victim4", "inside")
            .end(),
    );
    let inside = fs_dir.join(target.trim_start_matches('/'));
    for name in ["victim", "victim2", "victim3"] {
        assert_eq!(fs::read_to_string(inside.join(name)).unwrap(), "inside");
    }
    assert!(fs_dir.join("proc/self/root/victim4").exists());
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn attributes_that_would_redirect_overlayfs_are_dropped() {
    let world = World::new();
    let fs_dir = world.unpack(
        &Tar::default()
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.user.kept", b"yes"),
            ])
            .dir("d/")
            .end(),
    );
    let d = fs_dir.join("d");
    assert_eq!(xattr(&d, "user.kept").as_deref(), Some(&b"yes"[..]));
    assert_eq!(xattr(&d, "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&d, OPAQUE), None);
}

#[test]
fn compression_is_recognised_by_content() {
    let world = World::new();
    let tar = Tar::default().file("a", &"content ".repeat(100_000)).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&tar).unwrap();
    let bzip2 = bzip2.finish().unwrap();
    for (bytes, compression) in [
        (&gzip, Compression::Gzip),
        (&zstd, Compression::Zstd),
        (&bzip2, Compression::Bzip2),
        (&tar, Compression::None),
    ] {
        let world = World::new();
        let record = world.layers.receive(bytes.as_slice(), &Announced::default()).unwrap();
        assert_eq!(record.diff, Digest::of(&tar));
        let blob = record.blob.unwrap();
        assert_eq!((blob.digest, blob.size), (Digest::of(bytes), bytes.len() as u64));
        assert_eq!(blob.compression, compression);
        let mut packed = Vec::new();
        world.layers.pack(&record.diff, &mut packed).unwrap();
        assert!(packed == tar);
    }
    for cut in [1, 10, gzip.len() / 2, gzip.len() - 1] {
        world.refuses(&gzip[..cut]);
    }
    world.refuses(b"BZh91AY&SY");
    world.refuses(b"\xfd7zXZ\0");
}

#[test]
fn what_is_not_as_announced_never_becomes_visible() {
    let world = World::new();
    let tar = Tar::default().file("a", "b").end();
    let (digest, size) = (Digest::of(&tar), tar.len() as u64);
    for announced in [
        Announced { blob: Some((Digest::of(b"other"), size)), diff: None, is_kept: false },
        Announced { blob: Some((digest.clone(), size - 1)), diff: None, is_kept: false },
        Announced { blob: None, diff: Some(Digest::of(b"other")), is_kept: false },
    ] {
        assert!(world.layers.receive(tar.as_slice(), &announced).is_err());
        assert!(world.layers.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(world.directory.path().join("state/tmp")).unwrap().count(), 0);
    }
    let announced =
        Announced { blob: Some((digest.clone(), size)), diff: Some(digest.clone()), is_kept: false };
    assert_eq!(world.layers.receive(tar.as_slice(), &announced).unwrap().diff, digest);
    assert_eq!(world.layers.receive(tar.as_slice(), &announced).unwrap().diff, digest);
}

#[test]
fn a_layer_from_before_a_power_cut_is_only_trusted_when_it_was_synced() {
    let world = World::new();
    let tar = Tar::default().file("a", "b").end();
    let diff = world.layers.unpack(tar.as_slice()).unwrap();
    let record = world.layers.root.layer(&diff).join(RECORD);
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    json["boot"] = "an earlier boot".into();
    fs::write(&record, json.to_string()).unwrap();
    fs::write(world.layers.dir(&diff).join("a"), "").unwrap();
    assert!(!world.layers.contains(&diff));
    world.unpack(&tar);
    assert_eq!(fs::read_to_string(world.layers.dir(&diff).join("a")).unwrap(), "b");
    fs::write(&record, json.to_string()).unwrap();
    world.layers.mark_synced(std::slice::from_ref(&diff)).unwrap();
    assert!(world.layers.contains(&diff));
}

#[test]
fn an_upper_directory_becomes_a_layer_whose_tar_is_always_the_same() {
    let fill = |upper: &Path| {
        fs::create_dir(upper.join("b")).unwrap();
        fs::write(upper.join("b/file"), "x".repeat(70_000)).unwrap();
        fs::hard_link(upper.join("b/file"), upper.join("a-link")).unwrap();
        symlink("b/file", upper.join("soft")).unwrap();
        let long = "n".repeat(150);
        fs::write(upper.join(&long), "long").unwrap();
        symlink("t".repeat(180), upper.join("long-target")).unwrap();
        std::os::unix::fs::chown(upper.join(&long), Some(3_000_000), Some(7)).unwrap();
        fs::set_permissions(upper.join("b"), fs::Permissions::from_mode(0o1777)).unwrap();
        let node = |name: &str| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                upper.join(name),
                FileType::CharacterDevice,
                Mode::empty(),
                0,
            )
            .unwrap();
        };
        node("gone");
        node("b/gone");
        drop(std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap());
        let set = |path: &str, name: &str, value: &[u8]| {
            rustix::fs::lsetxattr(upper.join(path), name, value, XattrFlags::empty()).unwrap();
        };
        set("b", OPAQUE, b"y");
        set("b", "trusted.overlay.impure", b"y");
        set("soft", "trusted.overlay.origin", b"\0");
        set("b/file", "trusted.overlay.origin", b"\0");
        set("b/file", "security.capability", CAPABILITY);
        for path in ["b/file", "soft", long.as_str(), "long-target", "b"] {
            let time = rustix::fs::Timespec { tv_sec: 1_600_000_000, tv_nsec: 123 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, upper.join(path), &times, flags).unwrap();
        }
    };
    let (one, two) = (World::new(), World::new());
    let mut diffs = Vec::new();
    for world in [&one, &two] {
        let upper = world.upper();
        fill(&upper);
        diffs.push(world.layers.adopt(&upper).unwrap());
        assert!(!upper.exists());
    }
    assert_eq!(diffs[0], diffs[1]);
    let mut tar = Vec::new();
    one.layers.pack(&diffs[0], &mut tar).unwrap();
    assert_eq!(Digest::of(&tar), diffs[0]);
    let fs_dir = one.layers.dir(&diffs[0]);
    assert!(!fs_dir.join("socket").exists());
    assert_eq!(xattr(&fs_dir.join("soft"), "trusted.overlay.origin"), None);
    assert_eq!(xattr(&fs_dir.join("b"), "trusted.overlay.impure"), None);

    // What was packed, unpacked, is the same layer again.
    let three = World::new();
    let again = three.layers.dir(&three.layers.unpack(tar.as_slice()).unwrap());
    assert_eq!(tree(&fs_dir), tree(&again));
    let names: Vec<String> = tar::Archive::new(tar.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let long = "n".repeat(150);
    assert_eq!(
        names,
        [".wh.gone", "a-link", "b/", "b/.wh..wh..opq", "b/.wh.gone", "b/file", "long-target", &long, "soft"]
    );
}

#[test]
fn an_untouched_upper_directory_is_the_empty_layer() {
    let world = World::new();
    assert_eq!(world.layers.adopt(&world.upper()).unwrap(), Layers::empty());
    assert_eq!(world.layers.adopt(&world.upper()).unwrap(), Layers::empty());
    assert!(world.layers.contains(&Layers::empty()));
}

#[test]
fn an_overlay_that_points_elsewhere_is_not_adopted() {
    let world = World::new();
    let upper = world.upper();
    fs::create_dir(upper.join("moved")).unwrap();
    rustix::fs::setxattr(upper.join("moved"), "trusted.overlay.redirect", b"/old", XattrFlags::empty())
        .unwrap();
    let error = world.layers.adopt(&upper).unwrap_err();
    assert!(crate::error::chain(&error).contains("redirect_dir"), "{}", crate::error::chain(&error));
}

/// Everything about a directory's content that a layer keeps, by path.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    fn visit(root: &Path, directory: &Path, all: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let target = fs::read_link(&path).ok();
            let content = if metadata.is_file() {
                Digest::of(&fs::read(&path).unwrap()).to_string()
            } else {
                String::new()
            };
            let is_mark = metadata.file_type().is_char_device();
            let line = format!(
                "{:o} {}:{} {} {} {:?} {content} {:?} {:?}",
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.rdev(),
                if is_mark { 0 } else { metadata.mtime() },
                target,
                xattr(&path, OPAQUE),
                xattr(&path, "security.capability"),
            );
            all.insert(path.strip_prefix(root).unwrap().to_owned(), line);
            if metadata.is_dir() {
                visit(root, &path, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    visit(root, root, &mut all);
    all
}
