//! What arrives is what was sent, or nothing.

use std::fs;
use std::os::unix::net::UnixStream;
use std::thread;

use deploy::protocol::Channel;
use deploy::transfer::{self, FailureKind, TransferError};

use crate::world::{World, names, noise};

#[test]
fn an_image_arrives_with_its_name_and_a_second_time_costs_nothing() {
    let world = World::new();
    let base = world.layer(|upper| fs::write(upper.join("base"), noise(1, 3 << 20)).unwrap());
    let top = world.layer(|upper| fs::write(upper.join("top"), "top").unwrap());
    let image = world.image(&[base.clone(), top.clone()], "app:1");
    let sent = world.send(&image);
    assert!(sent.bytes() > 3 << 20);
    assert_eq!((sent.images[0].layers_sent, sent.images[0].layers_reused), (2, 0));
    assert!(sent.images[0].whole > 3 << 20);
    assert_eq!(fs::read(world.arrived(&base).join("base")).unwrap(), noise(1, 3 << 20));
    assert_eq!(fs::read(world.arrived(&top).join("top")).unwrap(), b"top");

    let sent = world.send(&image);
    assert!(sent.bytes() < 2000, "{sent:?}");
    assert_eq!((sent.images[0].layers_sent, sent.images[0].layers_reused), (0, 2));
}

#[test]
fn several_images_go_over_one_channel_and_shared_layers_once() {
    let world = World::new();
    let base = world.layer(|upper| fs::write(upper.join("base"), noise(1, 1 << 20)).unwrap());
    let top = world.layer(|upper| fs::write(upper.join("top"), "top").unwrap());
    let images = [world.image(&[base.clone(), top], "one"), world.image(&[base], "two")];
    let outcome = world.transfer(&images, u64::MAX);
    let sent = outcome.sent.unwrap();
    assert!(sent.bytes() < (1 << 20) + 50_000, "{sent:?}");
    for image in &images {
        let name = image.references[0].to_string();
        assert_eq!(world.there.images().get(&name).unwrap().id, image.id);
    }
}

#[test]
fn an_image_that_is_not_here_is_named_to_both() {
    let world = World::new();
    let image = world.image_of("app", |upper| fs::write(upper.join("a"), "a").unwrap());
    world.here.images().remove("app", true, &Default::default()).unwrap();
    let outcome = world.transfer(&[image], u64::MAX);
    let error = outcome.sent.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::NotHere), "{error:?}");
    assert!(
        matches!(&outcome.received, Err(TransferError::There(failure)) if failure.kind == FailureKind::NotHere)
    );
    world.expect_nothing_seen_there();
}

#[test]
fn a_layer_that_the_sender_lost_is_told_to_both_and_the_channel_serves_on() {
    let world = World::new();
    let good = world.image_of("good", |upper| fs::write(upper.join("a"), "good").unwrap());
    let bad = world.image_of("bad", |upper| fs::write(upper.join("a"), noise(1, 1 << 20)).unwrap());
    // What somebody has changed behind the engine's back no longer has the digest that its image says.
    fs::write(world.here.layers().dir(&bad.config.rootfs.diff_ids[0]).join("a"), noise(2, 1 << 20)).unwrap();

    let (near, far) = UnixStream::pair().unwrap();
    let there = world.there.clone();
    let receiving = thread::spawn(move || {
        let mut channel = Channel::new(far.try_clone().unwrap(), far);
        [transfer::receive(&mut channel, &there), transfer::receive(&mut channel, &there)]
    });
    let mut channel = Channel::new(near.try_clone().unwrap(), near);
    let mut send = |image: &engine::image::Image| {
        let ids = [image.id.clone()];
        transfer::send(&mut channel, &world.here, &ids, &names(std::slice::from_ref(image)), &|_| {})
    };
    let error = send(&bad).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::WrongDigest), "{error:?}");
    send(&good).unwrap();
    let [first, second] = receiving.join().unwrap();
    let first = first.unwrap_err();
    assert_eq!(first.kind(), Some(FailureKind::WrongDigest), "{first:?}");
    assert_eq!(second.unwrap(), [good.id]);
    assert!(world.there.images().find("bad").unwrap().is_none());
}

#[test]
fn a_connection_that_ends_leaves_nothing_to_see() {
    let world = World::new();
    let image = world.image_of("app", |upper| fs::write(upper.join("a"), noise(1, 1 << 20)).unwrap());
    for limit in [0, 3, 200, 1000, 100_000, 500_000] {
        let outcome = world.transfer(std::slice::from_ref(&image), limit);
        let error = outcome.sent.unwrap_err();
        assert!(error.is_lost_connection(), "{limit}: {error:?}");
        assert!(matches!(outcome.received, Err(TransferError::Channel(_))), "{limit}");
        world.expect_nothing_seen_there();
    }
    world.send(&image);
}
