//! A step that is made again: what is still the same is the last layer's file.

use super::*;
use crate::id::DiffId;

const DOCKERFILE: &str = "FROM scratch\nCOPY app /app\nCOPY app /etc/app\n";

/// A context whose files are old enough for their digests to be remembered.
fn world() -> World {
    let world = World::new().file("app/a", "first").file("app/b", "second").file("app/sub/c", "third");
    rest(&world);
    world
}

/// Waits until the clock of the file system has moved on since the last change.
pub(super) fn rest(world: &World) {
    let marker = world.root.state().join("marker");
    fs::write(&marker, "").unwrap();
    let metadata = fs::metadata(marker).unwrap();
    while super::digests::Stamp::of(&metadata).is_racy() {
        std::thread::yield_now();
    }
}

fn inodes(world: &World, image: &Image, paths: &[&str]) -> Vec<u64> {
    paths.iter().map(|path| world.metadata(image, path).ino()).collect()
}

/// The first layer as it is made in a root that knows nothing of an earlier one. The second one has a directory that is
/// made for it, at whatever second that happens.
fn fresh(world: &World) -> DiffId {
    let root = Root::at(&world.root.state().with_file_name("fresh"));
    fs::create_dir_all(root.scratch()).unwrap();
    let images = build(&root, &world.runner, &world.request(DOCKERFILE), &mut |_| ()).unwrap();
    images[0].config.rootfs.diff_ids[0].clone()
}

#[test]
fn an_edited_file_is_written_and_the_others_are_linked() {
    let mut world = world();
    let before = world.build(DOCKERFILE);
    let shared = ["app/b", "app/sub/c"];
    let file = world.context.join("app/a");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    // As long as before and with the same time: nothing but the content tells.
    fs::write(&file, "again").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    rest(&world);
    let after = world.build(DOCKERFILE);
    assert_eq!((world.text(&before, "app/a"), world.text(&after, "app/a")), ("first".into(), "again".into()));
    assert_eq!(inodes(&world, &before, &shared), inodes(&world, &after, &shared));
    assert_ne!(inodes(&world, &before, &["app/a"]), inodes(&world, &after, &["app/a"]));
    // Programs that look at these mind a second name.
    assert!(["etc/app/a", "etc/app/b"].iter().all(|path| world.metadata(&after, path).nlink() == 1));
    assert_eq!(fresh(&world), after.config.rootfs.diff_ids[0]);
    let layers = Layers::at(&world.root);
    assert_eq!(layers.record(&after.config.rootfs.diff_ids[0]).unwrap().shared, 11);
    // What both have counts once, where it was wanted last.
    let sizes: Vec<u64> = kept(&world.root).unwrap().iter().map(|kept| kept.size).collect();
    assert_eq!(sizes.iter().sum::<u64>(), 16 + 5 + 16 + 16);
}

#[test]
fn a_file_that_would_be_written_otherwise_is_written() {
    let mut world = world();
    let before = world.build(DOCKERFILE);
    let set = |name: &str, mode| {
        fs::set_permissions(world.context.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("app/a", 0o600);
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(world.context.join("app/b")).unwrap().set_modified(time).unwrap();
    let after = world.build(DOCKERFILE);
    for path in ["app/a", "app/b"] {
        assert_ne!(inodes(&world, &before, &[path]), inodes(&world, &after, &[path]), "{path}");
        assert_eq!(world.text(&before, path), world.text(&after, path));
    }
    assert_eq!(world.metadata(&before, "app/a").mode() & 0o777, 0o644);
    assert_eq!(world.metadata(&after, "app/a").mode() & 0o777, 0o600);
    assert_eq!(world.metadata(&after, "app/b").mtime(), 1_000_000_000);
    let owned = world.build("FROM scratch\nCOPY --chown=7:8 app /app\n");
    assert_eq!(world.metadata(&owned, "app/sub/c").uid(), 7);
    assert_eq!(world.metadata(&before, "app/sub/c").uid(), 0);
}

#[test]
fn one_file_that_became_two_stays_two() {
    let mut world = world();
    let name = |world: &World, name: &str| world.context.join(name);
    fs::hard_link(name(&world, "app/a"), name(&world, "app/twin")).unwrap();
    rest(&world);
    let before = world.build(DOCKERFILE);
    assert_eq!(inodes(&world, &before, &["app/a"]), inodes(&world, &before, &["app/twin"]));
    let time = fs::metadata(name(&world, "app/a")).unwrap().modified().unwrap();
    fs::remove_file(name(&world, "app/twin")).unwrap();
    fs::write(name(&world, "app/twin"), "first").unwrap();
    let twin = fs::File::options().write(true).open(name(&world, "app/twin")).unwrap();
    twin.set_modified(time).unwrap();
    fs::write(name(&world, "app/b"), "another").unwrap();
    rest(&world);
    let after = world.build(DOCKERFILE);
    assert_ne!(inodes(&world, &after, &["app/a"]), inodes(&world, &after, &["app/twin"]));
    assert_eq!(fresh(&world), after.config.rootfs.diff_ids[0]);
    // And two that became one are one.
    fs::remove_file(name(&world, "app/twin")).unwrap();
    fs::hard_link(name(&world, "app/a"), name(&world, "app/twin")).unwrap();
    fs::write(name(&world, "app/b"), "something else").unwrap();
    rest(&world);
    let last = world.build(DOCKERFILE);
    assert_eq!(inodes(&world, &last, &["app/a"]), inodes(&world, &last, &["app/twin"]));
}

#[test]
fn times_that_are_cut_off_change_no_earlier_layer() {
    let mut world = world();
    let plain = world.build(DOCKERFILE);
    let time = |world: &World, image: &Image| {
        let metadata = world.metadata(image, "app/b");
        (metadata.mtime(), metadata.mtime_nsec())
    };
    let was = time(&world, &plain);
    let clamped = |world: &mut World| {
        let mut request = world.request(DOCKERFILE);
        request.args.insert("SOURCE_DATE_EPOCH".to_owned(), "1000000000".to_owned());
        request.clamp_times = true;
        world.build_with(&request).unwrap()
    };
    let first = clamped(&mut world);
    assert_eq!((time(&world, &plain), time(&world, &first)), (was, (1_000_000_000, 0)));
    fs::write(world.context.join("app/a"), "again").unwrap();
    rest(&world);
    let second = clamped(&mut world);
    assert_eq!(inodes(&world, &first, &["app/b"]), inodes(&world, &second, &["app/b"]));
    assert_ne!(inodes(&world, &first, &["app/b"]), inodes(&world, &plain, &["app/b"]));
}
