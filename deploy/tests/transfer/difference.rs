//! Of a layer that has changed a little, little is sent.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::world::{World, noise};

/// Many files of some kilobytes that compress by half, all of one time.
fn many(upper: &Path, files: u64, changed: Option<u64>, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    for number in 0..files {
        let directory = upper.join(format!("usr/lib/package{}/module{}", number / 400, number / 40));
        if number % 40 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        let mut content = noise(number, 500 + usize::try_from(number % 1500).unwrap());
        content.iter_mut().step_by(2).for_each(|byte| *byte = b'x');
        if changed == Some(number) {
            content.extend_from_slice(b"one more line\n");
        }
        let path = directory.join(format!("file{number}.py"));
        fs::write(&path, content).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }
    let mut directories = vec![upper.to_owned()];
    while let Some(directory) = directories.pop() {
        let inside = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap());
        directories
            .extend(inside.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()));
        File::open(&directory).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn one_changed_line_among_thousands_of_files_costs_kilobytes_and_the_rest_is_shared() {
    let world = World::new();
    let old = world.image_of("app:1", |upper| many(upper, 8000, None, 1_700_000_000));
    let new = world.image_of("app:2", |upper| many(upper, 8000, Some(4321), 1_700_000_000));
    let first = world.send(&old);
    assert!(first.bytes() > 3 << 20, "{first:?}");
    let second = world.send(&new);
    assert!(second.bytes() < 25_000, "{second:?}");

    let file = |image: &engine::image::Image, number: u64| {
        let path = format!("usr/lib/package{}/module{}/file{number}.py", number / 400, number / 40);
        world.arrived(&image.config.rootfs.diff_ids[0]).join(path)
    };
    assert!(fs::read(file(&new, 4321)).unwrap().ends_with(b"one more line\n"));
    assert!(!fs::read(file(&old, 4321)).unwrap().ends_with(b"one more line\n"));
    let inode = |image, number| fs::metadata(file(image, number)).unwrap().ino();
    assert_eq!(inode(&old, 1), inode(&new, 1));
    assert_ne!(inode(&old, 4321), inode(&new, 4321));

    // A layer that shares files leaves them to the other when it goes.
    world.there.images().remove("app:1", true, &Default::default()).unwrap();
    assert_eq!(fs::read(file(&new, 1)).unwrap().len(), 501);
    let mut tar = Vec::new();
    world.there.layers().pack(&new.config.rootfs.diff_ids[0], &mut tar).unwrap();
    assert_eq!(engine::id::Digest::of(&tar), new.config.rootfs.diff_ids[0]);
}

#[test]
fn new_times_of_all_files_cost_little_and_are_kept() {
    let world = World::new();
    let old = world.image_of("app:1", |upper| many(upper, 2000, None, 1_700_000_000));
    let new = world.image_of("app:2", |upper| many(upper, 2000, None, 1_700_009_999));
    world.send(&old);
    let sent = world.send(&new);
    assert!(sent.bytes() < 15_000, "{sent:?}");
    let file = world.arrived(&new.config.rootfs.diff_ids[0]).join("usr/lib/package0/module0/file0.py");
    assert_eq!(fs::metadata(file).unwrap().mtime(), 1_700_009_999);
    let file = world.arrived(&old.config.rootfs.diff_ids[0]).join("usr/lib/package0/module0/file0.py");
    assert_eq!(fs::metadata(file).unwrap().mtime(), 1_700_000_000);
}

/// Something like a program: instructions that refer to each other by distance, so that an insertion changes a byte
/// in each of them that reaches across.
fn program(inserted: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let random = noise(7, 3 << 20);
    for (at, word) in random.chunks_exact(60).enumerate() {
        let at = u32::try_from(at).unwrap();
        if inserted && at == 1000 {
            bytes.extend_from_slice(&[0x90; 40]);
        }
        bytes.extend_from_slice(word);
        let target = u32::from_le_bytes([word[0], word[1], word[2], 0]) % (3 << 20);
        let shift = if inserted && target > 12_000 { 40 } else { 0 };
        bytes.extend_from_slice(&(target + shift).to_le_bytes());
    }
    bytes
}

#[test]
fn a_program_built_again_is_sent_as_a_difference_where_both_have_the_old_one() {
    let world = World::new();
    let old = world.image_of("app:1", |upper| fs::write(upper.join("app"), program(false)).unwrap());
    let new = world.image_of("app:2", |upper| fs::write(upper.join("app"), program(true)).unwrap());
    let whole = world.send(&old);
    let sent = world.send(&new);
    assert!(sent.bytes() * 3 < whole.bytes(), "{sent:?} {whole:?}");
    let arrived = world.arrived(&new.config.rootfs.diff_ids[0]).join("app");
    assert!(fs::read(arrived).unwrap() == program(true));
}

#[test]
fn an_old_version_that_is_damaged_on_either_side_is_not_built_upon() {
    for damaged_here in [true, false] {
        let world = World::new();
        let old = world.image_of("app:1", |upper| fs::write(upper.join("app"), program(false)).unwrap());
        let new = world.image_of("app:2", |upper| fs::write(upper.join("app"), program(true)).unwrap());
        world.send(&old);
        let engine = if damaged_here { &world.here } else { &world.there };
        let damaged = engine.layers().dir(&old.config.rootfs.diff_ids[0]).join("app");
        fs::write(damaged, noise(1, 3 << 20)).unwrap();
        world.send(&new);
        let arrived = world.arrived(&new.config.rootfs.diff_ids[0]).join("app");
        assert!(fs::read(arrived).unwrap() == program(true));
    }
}

#[test]
fn a_changed_file_is_sent_in_chunks_where_the_sender_has_no_old_one() {
    let world = World::new();
    let old_content = noise(3, 4 << 20);
    let new_content = [&old_content[..1 << 20], b"inserted", &old_content[1 << 20..]].concat();
    let old = world.image_of("app:1", |upper| fs::write(upper.join("data"), &old_content).unwrap());
    world.send(&old);
    world.here.images().remove("app:1", true, &Default::default()).unwrap();
    let new = world.image_of("app:2", |upper| fs::write(upper.join("data"), &new_content).unwrap());
    let sent = world.send(&new);
    assert!(sent.bytes() < 100_000, "{sent:?}");
    let arrived = world.arrived(&new.config.rootfs.diff_ids[0]).join("data");
    assert!(fs::read(arrived).unwrap() == new_content);
}

#[test]
fn what_moved_to_another_place_or_layer_is_not_sent() {
    let world = World::new();
    let old = world.image_of("app:1", |upper| fs::write(upper.join("a"), noise(5, 1 << 20)).unwrap());
    let base = world.layer(|upper| fs::write(upper.join("small"), "small").unwrap());
    let top = world.layer(|upper| {
        fs::create_dir(upper.join("deep")).unwrap();
        fs::write(upper.join("deep/b"), noise(5, 1 << 20)).unwrap();
        fs::write(upper.join("deep/c"), noise(5, 1 << 20)).unwrap();
    });
    let new = world.image(&[base, top.clone()], "app:2");
    world.send(&old);
    let sent = world.send(&new);
    assert!(sent.bytes() < 10_000, "{sent:?}");
    assert!(fs::read(world.arrived(&top).join("deep/c")).unwrap() == noise(5, 1 << 20));
}

#[test]
fn a_damaged_file_of_the_receiver_is_sent_again() {
    let world = World::new();
    let old = world.image_of("app:1", |upper| {
        fs::write(upper.join("a"), noise(1, 300_000)).unwrap();
        fs::write(upper.join("b"), noise(2, 300_000)).unwrap();
    });
    let new = world.image_of("app:2", |upper| {
        fs::write(upper.join("a"), noise(1, 300_000)).unwrap();
        fs::write(upper.join("b"), noise(2, 300_000)).unwrap();
        fs::write(upper.join("c"), "c").unwrap();
    });
    world.send(&old);
    fs::write(world.arrived(&old.config.rootfs.diff_ids[0]).join("a"), noise(9, 300_000)).unwrap();
    world.send(&new);
    assert!(fs::read(world.arrived(&new.config.rootfs.diff_ids[0]).join("a")).unwrap() == noise(1, 300_000));
}

#[test]
fn what_counts_links_finds_one_and_what_is_shared_is_won_back_with_the_last() {
    let world = World::new();
    let fill = |upper: &Path, version: &str| {
        let write = |path: &str| {
            fs::create_dir_all(upper.join(path).parent().unwrap()).unwrap();
            fs::write(upper.join(path), noise(1, 50_000)).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            File::options().append(true).open(upper.join(path)).unwrap().set_modified(time).unwrap();
        };
        ["etc/cron.d/file", "var/log/file", "opt/app/file", "opt/app/twin"].into_iter().for_each(write);
        fs::hard_link(upper.join("opt/app/file"), upper.join("opt/app/link")).unwrap();
        if version == "one" {
            fs::hard_link(upper.join("opt/app/file"), upper.join("opt/app/once a link")).unwrap();
        } else {
            write("opt/app/once a link");
        }
        fs::write(upper.join("version"), version).unwrap();
    };
    let old = world.image_of("app:1", |upper| fill(upper, "one"));
    let new = world.image_of("app:2", |upper| fill(upper, "two"));
    world.send(&old);
    world.send(&new);
    let found = |image: &engine::image::Image, path: &str| {
        fs::metadata(world.arrived(&image.config.rootfs.diff_ids[0]).join(path)).unwrap()
    };
    let is_shared = |path| found(&old, path).ino() == found(&new, path).ino();
    for path in ["etc/cron.d/file", "var/log/file", "version", "opt/app/once a link"] {
        assert!(!is_shared(path), "{path}");
        assert_eq!(found(&new, path).nlink(), 1, "{path}");
    }
    assert!(is_shared("opt/app/file") && is_shared("opt/app/link") && is_shared("opt/app/twin"));
    assert_ne!(found(&new, "opt/app/file").ino(), found(&new, "opt/app/twin").ino());

    // Four files in the old one, and three of the new one that are not shared.
    assert!((350_000..351_000).contains(&world.there.disk_usage().unwrap().layers));

    let prune = |name: &str| {
        let id = world.there.images().get(name).unwrap().id;
        world.there.images().prune(true, &Default::default(), &move |image| image.id == id).unwrap().1
    };
    let first = prune("app:1");
    assert!((100_000..110_000).contains(&first), "{first}");
    let last = prune("app:2");
    assert!((250_000..260_000).contains(&last), "{last}");
}
