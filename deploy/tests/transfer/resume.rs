//! A transfer that is cut goes on where it was.

use std::fs;

use crate::world::{World, noise};

#[test]
fn fifty_cuts_cost_less_than_a_twentieth() {
    let fill = |upper: &std::path::Path| {
        fs::write(upper.join("large"), noise(1, 14 << 20)).unwrap();
        for number in 0..600 {
            fs::write(upper.join(format!("file{number}")), noise(1000 + number, 20_000)).unwrap();
        }
    };
    let once = World::new();
    let whole = once.transfer(&[once.image_of("app", fill)], u64::MAX).bytes;

    let world = World::new();
    let image = world.image_of("app", fill);
    let mut total = 0;
    let mut cuts = 0;
    let mut seed = 1u64;
    let outcome = loop {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // On average a sixty-fifth of the whole, and sometimes next to nothing.
        let limit = if cuts < 50 { (seed >> 33) % (whole / 33) } else { u64::MAX };
        let outcome = world.transfer(std::slice::from_ref(&image), limit);
        total += outcome.bytes;
        match &outcome.sent {
            Ok(_) => break outcome,
            Err(error) => assert!(error.is_lost_connection(), "{error:?}"),
        }
        world.expect_nothing_seen_there();
        cuts += 1;
    };
    assert_eq!(cuts, 50, "it arrived before");
    assert_eq!(outcome.received.unwrap(), std::slice::from_ref(&image.id));
    assert!(total * 100 <= whole * 105, "{total} bytes in {cuts} pieces, {whole} in one");
    let layer = world.arrived(&image.config.rootfs.diff_ids[0]);
    assert!(fs::read(layer.join("large")).unwrap() == noise(1, 14 << 20));
    let left = fs::read_dir(world.there.root().transfers()).unwrap().count();
    assert_eq!(left, 0, "what has become a layer is kept no longer");
}

#[test]
fn a_changed_file_in_chunks_goes_on_where_it_was() {
    let world = World::new();
    let old_content = noise(3, 4 << 20);
    let new_content = [&old_content[..1 << 20], &noise(4, 2 << 20), &old_content[1 << 20..]].concat();
    let old = world.image_of("app:1", |upper| fs::write(upper.join("data"), &old_content).unwrap());
    world.send(&old);
    world.here.images().remove("app:1", true, &Default::default()).unwrap();
    let new = world.image_of("app:2", |upper| fs::write(upper.join("data"), &new_content).unwrap());
    let mut total = 0;
    for limit in [400_000, 600_000, 900_000, u64::MAX] {
        let outcome = world.transfer(std::slice::from_ref(&new), limit);
        assert_eq!(outcome.sent.is_ok(), limit == u64::MAX, "{limit}: {:?}", outcome.sent);
        total += outcome.bytes;
    }
    assert!(total < (2 << 20) + 400_000, "{total}");
    let arrived = world.arrived(&new.config.rootfs.diff_ids[0]).join("data");
    assert!(fs::read(arrived).unwrap() == new_content);
}

#[test]
fn a_changed_file_as_a_long_difference_goes_on_where_it_was() {
    let world = World::new();
    let old = world.image_of("app:1", |upper| fs::write(upper.join("data"), noise(3, 3 << 20)).unwrap());
    world.send(&old);
    // Nothing of it is as it was, as in an archive that was compressed anew.
    let new_content = noise(4, 3 << 20);
    let new = world.image_of("app:2", |upper| fs::write(upper.join("data"), &new_content).unwrap());
    let mut total = 0;
    for limit in [100_000, 800_000, 30_000, 900_000, 700_000, u64::MAX] {
        let outcome = world.transfer(std::slice::from_ref(&new), limit);
        assert_eq!(outcome.sent.is_ok(), limit == u64::MAX, "{limit}: {:?}", outcome.sent);
        total += outcome.bytes;
    }
    // A cut costs what is in one frame at the most, and another beginning.
    assert!(total < (3 << 20) + 5 * 40_000, "{total}");
    let arrived = world.arrived(&new.config.rootfs.diff_ids[0]).join("data");
    assert!(fs::read(arrived).unwrap() == new_content);
}

#[test]
fn prune_forgets_what_has_arrived_of_a_layer_that_never_became_whole() {
    let world = World::new();
    let image = world.image_of("app", |upper| fs::write(upper.join("a"), noise(1, 1 << 20)).unwrap());
    world.transfer(std::slice::from_ref(&image), 500_000).sent.unwrap_err();
    assert!(world.there.root().transfers().exists());
    let (_, won) = world.there.images().prune(false, &Default::default(), &|_| true).unwrap();
    assert!(won > 300_000, "{won}");
    assert!(!world.there.root().transfers().exists());
    world.send(&image);
}

#[test]
fn two_senders_of_one_layer_at_once_send_it_once() {
    let world = World::new();
    let layer = world.layer(|upper| fs::write(upper.join("a"), noise(1, 8 << 20)).unwrap());
    let (one, two) = (world.image(std::slice::from_ref(&layer), "one"), world.image(&[layer], "two"));
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| world.send(&one));
        let second = scope.spawn(|| world.send(&two));
        (first.join().unwrap(), second.join().unwrap())
    });
    assert!(first.bytes() + second.bytes() < 9 << 20, "{first:?} {second:?}");
}
