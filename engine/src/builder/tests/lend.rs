//! Caches that are written for other machines.

use super::*;

fn cached(world: &World) -> usize {
    world.events.iter().filter(|event| matches!(event, BuildEvent::Cached(_))).count()
}

/// A world with a file for each of two platforms, and a build for both.
fn of_two() -> (World, BuildRequest) {
    let world = World::new().file("amd64", "one").file("arm64", "two");
    let request = world.request("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n");
    let platforms = ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap()).to_vec();
    (world, BuildRequest { platforms, ..request })
}

#[test]
fn a_build_for_several_platforms_lends_one_cache_of_all() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("cache");
    for extent in [CacheExtent::Image, CacheExtent::Everything] {
        let (mut world, mut request) = of_two();
        let place = CachePlace::Local(directory.clone());
        request.cache_to.push(CacheTarget { place, extent, ..CacheTarget::INLINE });
        world.build_with(&request).unwrap();
        assert_eq!(cached(&world), 0);
        let (mut elsewhere, mut request) = of_two();
        request.cache_from.push(CacheSource::Local(directory.clone()));
        elsewhere.build_with(&request).unwrap();
        assert_eq!(cached(&elsewhere), 2);
        fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn a_cache_that_cannot_be_written_need_not_matter() {
    let mut world = World::new().file("f", "");
    let place = CachePlace::Local(world.context.join("f/no/directory"));
    let mut request = world.request("FROM scratch\nCOPY f /\n");
    request.cache_to.push(CacheTarget { place, ..CacheTarget::INLINE });
    assert!(world.build_with(&request).is_err());
    request.cache_to[0].may_fail = true;
    world.build_with(&request).unwrap();
    let is_told =
        |event: &BuildEvent| matches!(event, BuildEvent::Note { text, .. } if text.contains("no/directory"));
    assert!(world.events.iter().any(is_told));
}

#[test]
fn an_argument_asks_for_a_cache_in_the_image() {
    let mut world = World::new().file("f", "");
    let mut request = world.request("FROM scratch\nCOPY f /\n");
    assert!(world.build_with(&request).unwrap().config.build_cache.is_empty());
    request.args.insert("BUILDKIT_INLINE_CACHE".to_owned(), "1".to_owned());
    assert_eq!(world.build_with(&request).unwrap().config.build_cache.len(), 1);
}
