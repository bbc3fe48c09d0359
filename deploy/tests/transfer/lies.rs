//! What is garbled or false has a name, and nothing of it can be seen.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use deploy::protocol::Channel;
use deploy::transfer::{self, FailureKind, TransferError};

use engine::id::Digest;
use engine::image::Image;

use crate::world::{World, names, noise};

/// A way in on which one byte is changed.
struct Garbled<R> {
    reader: R,
    at: u64,
    passed: u64,
    was_changed: Arc<AtomicBool>,
}

impl<R: Read> Read for Garbled<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(bytes)?;
        if let Some(at) = self.at.checked_sub(self.passed)
            && at < length as u64
        {
            bytes[usize::try_from(at).unwrap()] ^= 0x5a;
            self.was_changed.store(true, Ordering::Relaxed);
        }
        self.passed += length as u64;
        Ok(length)
    }
}

/// Expects that the image is there whole, or that nothing of it is; and takes it away.
fn expect_all_or_nothing(world: &World, image: &Image) {
    let Some(arrived) = world.there.images().find(image.id.as_str()).unwrap() else {
        return world.expect_nothing_seen_there();
    };
    let mut tar = Vec::new();
    let layer = &arrived.config.rootfs.diff_ids[0];
    world.there.layers().pack(layer, &mut tar).unwrap();
    assert_eq!(&Digest::of(&tar), layer);
    world.there.images().remove(image.id.as_str(), true, &Default::default()).unwrap();
}

#[test]
fn a_changed_byte_on_the_way_is_an_error_with_a_name_and_nothing_to_see() {
    let world = World::new();
    let image = world.image_of("app", |upper| std::fs::write(upper.join("a"), noise(1, 40_000)).unwrap());
    let whole = world.transfer(std::slice::from_ref(&image), u64::MAX);
    whole.sent.unwrap();
    expect_all_or_nothing(&world, &image);
    let mut at = 0;
    let mut refused = 0;
    while at < whole.bytes {
        let (near, far) = UnixStream::pair().unwrap();
        let reader = Garbled { reader: far.try_clone().unwrap(), at, passed: 0, was_changed: Arc::default() };
        let there = world.there.clone();
        let receiving = thread::spawn(move || transfer::receive(&mut Channel::new(reader, far), &there));
        // A receiver that waits for bytes of a length that was garbled waits until the sender goes away.
        near.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let images = std::slice::from_ref(&image);
        let sent = {
            let mut channel = Channel::new(near.try_clone().unwrap(), near.try_clone().unwrap());
            let ids = std::slice::from_ref(&image.id);
            transfer::send(&mut channel, &world.here, ids, &names(images), &|_| {})
        };
        near.shutdown(Shutdown::Both).unwrap();
        let received = receiving.join().unwrap();
        refused += u64::from(received.is_err());
        assert!(sent.is_err() || received.is_ok(), "{at}: {sent:?} {received:?}");
        // A byte may mean nothing, as one in the header of a compressed frame.
        expect_all_or_nothing(&world, &image);
        at += if at < 1500 { 13 } else { 1999 };
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_table_that_lies_about_a_content_is_refused_by_name() {
    let world = World::new();
    let image = world.image_of("app", |upper| std::fs::write(upper.join("a"), noise(1, 40_000)).unwrap());
    let layer = &image.config.rootfs.diff_ids[0];
    // Made now, so that what is changed afterwards differs from it.
    world.here.layers().table(layer).unwrap();
    std::fs::write(world.here.layers().dir(layer).join("a"), noise(2, 40_000)).unwrap();
    let outcome = world.transfer(std::slice::from_ref(&image), u64::MAX);
    for error in [outcome.sent.unwrap_err(), outcome.received.unwrap_err()] {
        assert_eq!(error.kind(), Some(FailureKind::WrongDigest), "{error:?}");
        assert!(engine::error::chain(&error).contains("\"a\""), "{error:?}");
        assert!(matches!(error, TransferError::Here { .. } | TransferError::There(_)));
    }
    world.expect_nothing_seen_there();
}

#[test]
fn a_layer_that_was_not_offered_is_not_given_away() {
    let world = World::new();
    let image = world.image_of("app", |upper| std::fs::write(upper.join("a"), noise(1, 100)).unwrap());
    let other = world.image_of("other", |upper| std::fs::write(upper.join("a"), noise(2, 100)).unwrap());
    let (near, far) = UnixStream::pair().unwrap();
    let asking = thread::spawn(move || {
        let mut channel = Channel::new(far.try_clone().unwrap(), far);
        channel.receive_data().unwrap();
        channel.receive::<serde_json::Value>().unwrap();
        let layer = &other.config.rootfs.diff_ids[0];
        let lacking = serde_json::json!({ "lacks": [{ "diff": layer, "has_table": false }] });
        channel.send(&lacking).unwrap();
        // The reason, and nothing after it.
        assert_eq!(channel.receive_data().unwrap().first(), Some(&b'f'));
    });
    let ids = std::slice::from_ref(&image.id);
    let mut channel = Channel::new(near.try_clone().unwrap(), near);
    let images = std::slice::from_ref(&image);
    let error = transfer::send(&mut channel, &world.here, ids, &names(images), &|_| {}).unwrap_err();
    asking.join().unwrap();
    assert_eq!(error.kind(), Some(FailureKind::Refused), "{error:?}");
}

#[test]
fn a_garbled_answer_ends_the_transfer_on_both_sides() {
    let world = World::new();
    let image = world.image_of("app", |upper| std::fs::write(upper.join("a"), noise(1, 40_000)).unwrap());
    let mut changed = 0;
    for at in (0..230).step_by(7) {
        let (near, far) = UnixStream::pair().unwrap();
        let there = world.there.clone();
        let receiving = thread::spawn(move || {
            transfer::receive(&mut Channel::new(far.try_clone().unwrap(), far), &there)
        });
        let was_changed = Arc::new(AtomicBool::new(false));
        near.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let reader =
            Garbled { reader: near.try_clone().unwrap(), at, passed: 0, was_changed: was_changed.clone() };
        let images = std::slice::from_ref(&image);
        let ids = std::slice::from_ref(&image.id);
        let sent = {
            let mut channel = Channel::new(reader, near.try_clone().unwrap());
            transfer::send(&mut channel, &world.here, ids, &names(images), &|_| {})
        };
        near.shutdown(Shutdown::Both).unwrap();
        let received = receiving.join().unwrap();
        changed += u64::from(was_changed.load(Ordering::Relaxed));
        // Once all was there the answer only says so.
        assert!(sent.is_err() || received.is_ok(), "{at}: {sent:?} {received:?}");
        expect_all_or_nothing(&world, &image);
    }
    assert!(changed > 10, "{changed}");
}
