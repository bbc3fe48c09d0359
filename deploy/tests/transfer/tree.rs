//! Whatever a layer can hold arrives as it is.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use engine::id::Digest;
use rustix::fs::{FileType, Mode, XattrFlags};

use crate::world::{World, noise};

/// Numbers that only look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A tree of all that there is.
fn grow(root: &Path, dice: &mut Dice) {
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for number in 0..120 {
        let parent = directories[usize::try_from(dice.roll(directories.len() as u64)).unwrap()].clone();
        let name = match dice.roll(6) {
            0 => format!("{number}-{}", "long".repeat(40)),
            1 => format!("{number}-\u{fc}ml\u{e4}ut and space"),
            _ => format!("{number}"),
        };
        let path = parent.join(name);
        match dice.roll(14) {
            0 | 1 => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(
                    &path,
                    Permissions::from_mode(0o700 | u32::try_from(dice.roll(64)).unwrap()),
                )
                .unwrap();
                if dice.roll(4) == 0 {
                    rustix::fs::lsetxattr(&path, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                        .unwrap();
                }
                directories.push(path);
            }
            2 if !files.is_empty() => {
                let target = &files[usize::try_from(dice.roll(files.len() as u64)).unwrap()];
                fs::hard_link(target, &path).unwrap();
            }
            3 => symlink("target/".repeat(1 + usize::try_from(dice.roll(30)).unwrap()), &path).unwrap(),
            4 => node(&path, FileType::CharacterDevice, 0, 0),
            5 => node(&path, FileType::BlockDevice, rustix::fs::makedev(7, 200), 0o640),
            6 => node(&path, FileType::Fifo, 0, 0o622),
            7 => {
                let sparse = File::create(&path).unwrap();
                sparse.write_all_at(b"end", 300_000 + dice.roll(100_000)).unwrap();
                files.push(path);
            }
            _ => {
                let length = [0, 1, 511, 512, 513, 4096, 70_000][usize::try_from(dice.roll(7)).unwrap()];
                fs::write(&path, noise(dice.roll(8), length)).unwrap();
                if dice.roll(3) == 0 {
                    chown(&path, Some(1000), Some(3_000_000)).unwrap();
                }
                let mode = [0o644, 0o600, 0o4755, 0o2711, 0o1777][usize::try_from(dice.roll(5)).unwrap()];
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                if dice.roll(4) == 0 {
                    let value = noise(dice.roll(3), 200);
                    rustix::fs::lsetxattr(&path, "user.note", &value, XattrFlags::empty()).unwrap();
                }
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(dice.roll(1 << 31));
                File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
                files.push(path);
            }
        }
    }
    let link = root.join("owned");
    symlink("somewhere", &link).unwrap();
    lchown(&link, Some(5), Some(6)).unwrap();
}

fn node(path: &Path, kind: FileType, device: u64, mode: u32) {
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(mode), device).unwrap();
}

/// Everything that can be seen of a tree, by path.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut first_names: HashMap<u64, PathBuf> = HashMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            let mut inside: Vec<_> =
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            inside.sort();
            todo.extend(inside);
        }
        let content = match () {
            () if found.is_file() => Digest::of(&fs::read(&path).unwrap()).to_string(),
            () if found.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            () => String::new(),
        };
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let same_as = first_names.entry(found.ino()).or_insert_with(|| relative.clone()).clone();
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, names.as_mut_slice()).unwrap();
        let mut attributes: Vec<_> = names[..length]
            .split(|byte| *byte == 0)
            .filter(|name| name.starts_with(b"user.") || name.starts_with(b"trusted."))
            .map(|name| {
                let mut value = vec![0; 4096];
                let length =
                    rustix::fs::lgetxattr(&path, OsStr::from_bytes(name), value.as_mut_slice()).unwrap();
                (String::from_utf8_lossy(name).into_owned(), value[..length].to_vec())
            })
            .collect();
        attributes.sort();
        let size = if found.is_dir() { 0 } else { found.len() };
        // A whiteout says that something is gone; when, nobody asks.
        let is_whiteout = found.file_type().is_char_device() && found.rdev() == 0;
        let time = if is_whiteout { 0 } else { found.mtime() };
        let (mode, uid, gid, device) = (found.mode(), found.uid(), found.gid(), found.rdev());
        let about =
            format!("{mode:o} {uid} {gid} {device} {size} {time} {same_as:?} {content} {attributes:?}");
        // The layer's own top directory has no member in its tar.
        if path != root {
            seen.insert(relative, about);
        }
    }
    seen
}

#[test]
fn any_tree_arrives_as_it_is_and_so_does_its_next_version() {
    for seed in 0..4 {
        let world = World::new();
        let mut last = None;
        for version in 0..3 {
            let image = world.image_of(&format!("app:{version}"), |upper| {
                // The same dice as before for most of the tree, then others.
                grow(upper, &mut Dice(seed));
                fs::create_dir(upper.join("more")).unwrap();
                grow(&upper.join("more"), &mut Dice(seed * 100 + version));
            });
            world.send(&image);
            let layer = &image.config.rootfs.diff_ids[0];
            let (here, there) = (seen(&world.here.layers().dir(layer)), seen(&world.arrived(layer)));
            for (path, about) in &here {
                assert_eq!(Some(about), there.get(path), "seed {seed}, version {version}: {path:?}");
            }
            assert_eq!(here.len(), there.len());
            let mut tar = Vec::new();
            world.there.layers().pack(layer, &mut tar).unwrap();
            assert_eq!(&Digest::of(&tar), layer, "packed again on the other side");
            assert_ne!(last.replace(layer.clone()), Some(layer.clone()));
        }
    }
}

/// A tar as nobody here would write it: a path twice, a hard link to it, bytes after the end.
fn strange_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8], time: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(time);
        header.set_username("somebody").unwrap();
        builder.append_data(&mut header, name, content).unwrap();
    };
    add("twice", &noise(1, 100_000), 1);
    add("once", &noise(2, 100_000), 2);
    add("twice", &noise(3, 100_000), 3);
    add(&format!("{}/long", "directory".repeat(20)), b"long", 4);
    let mut bytes = builder.into_inner().unwrap();
    bytes.resize(bytes.len() + 20 * 512, 0);
    bytes
}

#[test]
fn a_layer_that_others_have_packed_keeps_its_digest_there_and_back() {
    for with_replaced in [true, false] {
        let world = World::new();
        let mut bytes = strange_tar();
        if !with_replaced {
            bytes.drain(..(512 + 100_000usize).next_multiple_of(512));
        }
        let image = {
            let _hold = world.here.layers().hold().unwrap();
            let layer = world.here.layers().unpack(&bytes[..]).unwrap();
            world.image(&[layer], "strange")
        };
        world.send(&image);
        let layer = &image.config.rootfs.diff_ids[0];
        assert!(fs::read(world.arrived(layer).join("twice")).unwrap() == noise(3, 100_000));
        let mut tar = Vec::new();
        world.there.layers().pack(layer, &mut tar).unwrap();
        assert!(tar == bytes);
        let blob = world.there.layers().record(layer).unwrap().blob;
        assert_eq!(blob.is_some(), with_replaced, "only what files cannot give again is kept as a tar");

        // And onwards to a third engine.
        let mut onward = World::new();
        std::mem::replace(&mut onward.here, world.there.clone()).down().unwrap();
        onward.send(&image);
    }
}
