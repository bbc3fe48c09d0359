//! Stories about images, with layers made on the spot.

use super::*;
use crate::image::config::History;

struct World {
    directory: tempfile::TempDir,
    images: Images,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = Images::at(&Root::at(&directory.path().join("state")));
        Self { directory, images }
    }

    /// A layer with one file.
    fn layer(&self, name: &str) -> DiffId {
        let upper = self.directory.path().join("state/upper");
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::write(upper.join(name), name).unwrap();
        self.images.layers().adopt(&upper).unwrap()
    }

    /// An image of these layers.
    fn image(&self, layers: &[DiffId], command: &str, tags: &[&str]) -> Image {
        let mut config =
            ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..Default::default() };
        config.config.cmd = Some(vec![command.to_owned()]);
        config.rootfs.diff_ids = layers.to_vec();
        config.history = vec![
            History { created_by: Some("COPY".into()), ..Default::default() },
            History { created_by: Some("CMD".into()), empty_layer: true, ..Default::default() },
        ];
        let tags: Vec<Reference> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        self.images.commit(&config, &tags).unwrap()
    }

    fn remove(&self, name: &str) -> Vec<String> {
        let removed = self.images.remove(name, false, &Users::new()).unwrap();
        removed.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn an_image_is_found_by_name_id_and_prefix() {
    let world = World::new();
    let image = world.image(&[world.layer("a")], "a", &["app:1", "ghcr.io/me/app"]);
    assert_eq!(image.size, 1);
    for name in [
        "app:1",
        "docker.io/library/app:1",
        "ghcr.io/me/app",
        image.id.as_str(),
        image.id.hex(),
        image.id.short(),
    ] {
        assert_eq!(world.images.get(name).unwrap().id, image.id, "{name}");
    }
    for name in ["app", "app:2", "ffff", "other"] {
        assert!(world.images.find(name).unwrap().is_none(), "{name}");
    }
    let error: crate::Error = world.images.get("Not A Name").unwrap_err().into();
    assert_eq!(error.kind(), crate::Kind::Invalid);
    let error: crate::Error = world.images.get("other").unwrap_err().into();
    assert_eq!(error.kind(), crate::Kind::NotFound);
}

#[test]
fn the_beginning_of_two_ids_is_no_id() {
    let world = World::new();
    let layer = world.layer("a");
    let ids: Vec<_> =
        (0..17).map(|n| world.image(std::slice::from_ref(&layer), &n.to_string(), &[]).id).collect();
    // Seventeen ids have sixteen first digits.
    let shared = ids
        .iter()
        .map(|id| &id.hex()[..1])
        .find(|first| ids.iter().filter(|id| id.hex().starts_with(first)).count() > 1);
    assert!(matches!(world.images.get(shared.unwrap()), Err(ImageError::Ambiguous(_))));
}

#[test]
fn a_tag_moves_and_leaves_a_nameless_image() {
    let world = World::new();
    let layer = world.layer("a");
    let old = world.image(std::slice::from_ref(&layer), "old", &["app"]);
    let new = world.image(&[layer], "new", &["app"]);
    assert_eq!(world.images.get("app").unwrap().id, new.id);
    assert!(world.images.get(old.id.as_str()).unwrap().references.is_empty());
    assert_eq!(world.images.list().unwrap().len(), 2);
    world.images.tag("app", &"app:kept".parse().unwrap()).unwrap();
    assert_eq!(world.images.get("app:kept").unwrap().references.len(), 2);
    let (removed, _) = world.images.prune(false, &Users::new(), &|_| true).unwrap();
    assert_eq!(removed, [Removed::Deleted(old.id)]);
}

#[test]
fn the_last_name_takes_the_image_and_its_own_layers_along() {
    let world = World::new();
    let (shared, own) = (world.layer("shared"), world.layer("own"));
    let base = world.image(std::slice::from_ref(&shared), "base", &["base"]);
    let app = world.image(&[shared.clone(), own.clone()], "app", &["app:1", "app:2"]);
    assert_eq!(world.remove("app:1"), ["Untagged: app:1"]);
    assert_eq!(
        world.remove("app:2"),
        ["Untagged: app:2".to_owned(), format!("Deleted: {}", app.id), format!("Deleted: {own}")]
    );
    assert!(world.images.layers().contains(&shared) && !world.images.layers().contains(&own));
    assert_eq!(world.images.list().unwrap().len(), 1);
    assert!(world.images.raw_config(&app.id).is_err());
    assert!(world.images.raw_config(&base.id).is_ok());
}

#[test]
fn what_containers_use_stays() {
    let world = World::new();
    let image = world.image(&[world.layer("a")], "a", &["one", "two"]);
    let user = User { container: "it".to_owned(), running: false };
    let in_use = Users::from([(image.id.clone(), user)]);
    world.images.remove("one", false, &in_use).unwrap();
    let error: crate::Error = world.images.remove("two", false, &in_use).unwrap_err().into();
    assert_eq!(error.kind(), crate::Kind::Conflict);
    let removed = world.images.remove("two", true, &in_use).unwrap();
    assert_eq!(removed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Untagged: two:latest"]);
    assert!(world.images.prune(true, &in_use, &|_| true).unwrap().0.is_empty());
    assert!(world.images.lower_dirs(&world.images.get(image.id.hex()).unwrap())[0].exists());
    let (removed, bytes) = world.images.prune(false, &Users::new(), &|_| true).unwrap();
    assert_eq!(removed.len(), 2);
    assert!(bytes > 0);
}

#[test]
fn an_id_with_names_in_two_repositories_needs_force() {
    let world = World::new();
    let image = world.image(&[world.layer("a")], "a", &["one", "two"]);
    let error = world.images.remove(image.id.short(), false, &Users::new()).unwrap_err();
    assert!(matches!(error, ImageError::SeveralNames(_)));
    assert_eq!(world.images.remove(image.id.short(), true, &Users::new()).unwrap().len(), 4);
}

#[test]
fn what_a_build_or_the_cache_holds_is_not_collected() {
    let world = World::new();
    let layers = world.images.layers();
    let (cached, unfinished) = (world.layer("cached"), world.layer("unfinished"));
    let image = world.image(std::slice::from_ref(&cached), "a", &["app"]);
    layers.pin(&cached).unwrap();
    world.remove("app");
    assert!(layers.contains(&cached) && layers.contains(&unfinished));
    let hold = layers.hold().unwrap();
    world.images.prune(true, &Users::new(), &|_| true).unwrap();
    assert!(layers.contains(&cached) && layers.contains(&unfinished));
    drop(hold);
    world.images.prune(true, &Users::new(), &|_| true).unwrap();
    assert!(layers.contains(&cached) && !layers.contains(&unfinished));
    layers.unpin(&cached).unwrap();
    world.images.prune(true, &Users::new(), &|_| true).unwrap();
    assert!(!layers.contains(&cached));
    assert!(world.images.find(image.id.as_str()).unwrap().is_none());
    assert!(world.images.content().list().unwrap().is_empty());
}

#[test]
fn an_image_without_its_layers_is_not_made() {
    let world = World::new();
    let mut config = ImageConfig::default();
    config.rootfs.diff_ids = vec![Digest::of(b"missing")];
    assert!(matches!(world.images.commit(&config, &[]), Err(ImageError::Layer(LayerError::Missing(_)))));
    assert!(world.images.list().unwrap().is_empty());
}

#[test]
fn lower_directories_are_unique_and_topmost_first() {
    let world = World::new();
    let (a, b) = (world.layer("a"), world.layer("b"));
    let upper = world.directory.path().join("state/upper");
    std::fs::create_dir(&upper).unwrap();
    let empty = world.images.layers().adopt(&upper).unwrap();
    let image = world.image(&[a.clone(), empty.clone(), b.clone(), a.clone(), empty.clone()], "x", &[]);
    let layers = world.images.layers();
    assert_eq!(world.images.lower_dirs(&image), [layers.dir(&a), layers.dir(&b)]);
    let image = world.image(std::slice::from_ref(&empty), "x", &[]);
    assert_eq!(world.images.lower_dirs(&image), [layers.dir(&empty)]);
}

#[test]
fn the_history_tells_which_step_made_which_layer() {
    let world = World::new();
    let image = world.image(&[world.layer("abc"), world.layer("untold")], "x", &[]);
    let rows = world.images.history(&image).unwrap();
    let told: Vec<_> = rows.iter().map(|row| (row.created_by.as_str(), row.size, row.id.is_some())).collect();
    assert_eq!(told, [("", 6, true), ("CMD", 0, false), ("COPY", 3, false)]);
}
