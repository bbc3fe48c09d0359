//! Manifest lists: put together here of images that a registry has, and pushed.

use serde_json::Value;

use crate::registry::Registry;
use crate::world::{BOX, World, box_archive};

/// A registry with `app:1` for this machine and `other:1` for arm64, in repositories of their own.
fn stocked() -> (World, Registry, impl Fn(&str) -> String) {
    let world = World::new();
    let registry = Registry::start();
    let address = registry.address();
    let name = move |name: &str| format!("{address}/{name}");
    world.rengine(["tag", BOX, &name("app:1")]).succeeds();
    let archive = box_archive();
    let import = ["import", "--platform", "linux/arm64", archive.to_str().unwrap(), &name("other:1")];
    world.rengine(import).succeeds();
    for image in ["app:1", "other:1"] {
        world.rengine(["push", "-q", &name(image)]).succeeds();
    }
    (world, registry, name)
}

fn platforms(world: &World, image: &str) -> Vec<String> {
    let text = world.rengine(["manifest", "inspect", image]).succeeds().stdout;
    let index: Value = serde_json::from_str(&text).unwrap();
    let platform = |entry: &Value| {
        let part = |key: &str| entry["platform"][key].as_str().unwrap_or("-").to_owned();
        format!("{}/{}/{}", part("os"), part("architecture"), part("variant"))
    };
    index["manifests"].as_array().unwrap().iter().map(platform).collect()
}

#[test]
fn images_of_two_repositories_become_one_name_for_two_platforms() {
    let (world, _registry, name) = stocked();
    let (app, other, both) = (name("app:1"), name("other:1"), name("both:1"));
    world
        .rengine(["manifest", "create", &both, &app])
        .succeeds()
        .prints(&format!("Created manifest list {both}\n"));
    world.rengine(["manifest", "create", &both, &other]).exits(1).complains("--amend");
    world.rengine(["manifest", "create", "--amend", &both, &other, &app]).succeeds();
    world.rengine(["manifest", "annotate", "--variant", "v8", &both, &other]).succeeds();
    assert_eq!(platforms(&world, &both), ["linux/arm64/v8", "linux/amd64/-"]);
    let pushed = world.rengine(["manifest", "push", "--purge", &both]).succeeds();
    assert_eq!(pushed.stdout.matches("Pushed ref ").count(), 2, "{}", pushed.stdout);
    let digest = pushed.stdout.lines().last().unwrap().to_owned();
    // Forgotten here, so what is shown is the registry's.
    world.rengine(["manifest", "rm", &both]).exits(1).complains("no such manifest list");
    assert_eq!(platforms(&world, &both), ["linux/arm64/v8", "linux/amd64/-"]);
    let there = World::empty();
    for (platform, architecture) in [("linux/arm64", "arm64"), ("linux/amd64", "amd64")] {
        let pulled = there.rengine(["pull", "--platform", platform, &both]).succeeds();
        pulled.shows(&format!("Digest: {digest}"));
        let shown =
            there.rengine(["image", "inspect", "--platform", platform, "-f", "{{.Architecture}}", &both]);
        assert_eq!(shown.succeeds().line(), architecture);
    }
}

#[test]
fn a_list_has_only_what_can_be_in_it() {
    let (world, _registry, name) = stocked();
    let (app, both) = (name("app:1"), name("both:1"));
    let missing = world.rengine(["manifest", "create", &both, &name("app:2")]).exits(1);
    missing.complains("app:2 is not in the registry");
    world.rengine(["manifest", "push", &both]).exits(1).complains("no such manifest list");
    world.rengine(["manifest", "create", &both, &app]).succeeds();
    let annotate = |flag: &str, value: &str, image: &str| {
        world.rengine(["manifest", "annotate", flag, value, &both, image])
    };
    annotate("--arch", "amd46", &app).exits(1).complains("there are no images for linux/amd46");
    annotate("--arch", "arm64", &name("other:1")).exits(1).complains("is not in the manifest list");
    annotate("--os-version", "10.0.1", &app).succeeds();
    world.rengine(["manifest", "inspect", &both]).succeeds().shows("\"os.version\": \"10.0.1\"");
    world.rengine(["manifest", "rm", &both]).succeeds();
    let detailed = world.rengine(["manifest", "inspect", "-v", &app]).succeeds().stdout;
    let detailed: Value = serde_json::from_str(&detailed).unwrap();
    assert_eq!(detailed["Descriptor"]["platform"]["architecture"], "amd64");
    assert_eq!(detailed["OCIManifest"]["schemaVersion"], 2);
}

#[test]
fn imagetools_put_images_together_with_what_is_attested_of_them() {
    let (world, _registry, name) = stocked();
    let elsewhere = Registry::start();
    let (both, copy) = (name("both:1"), format!("{}/copy:1", elsewhere.address()));
    world.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let (attested, context) = (name("attested:1"), world.path("context"));
    let context = context.to_str().unwrap();
    world.rengine(["build", "-q", "--provenance=true", "--push", "-t", &attested, context]).succeeds();
    let tools =
        |words: &[&str]| world.rengine(["buildx", "imagetools"].into_iter().chain(words.iter().copied()));
    tools(&["create", "-t", &both, "-t", &copy, &attested, &name("other:1")]).succeeds();
    let digest =
        |image: &str| tools(&["inspect", "--format", "{{.Manifest.Digest}}", image]).succeeds().line();
    // At another registry, with its blobs, it is the same.
    assert_eq!(digest(&both), digest(&copy));
    World::empty().rengine(["pull", "-q", "--platform", "linux/arm64", &copy]).succeeds();
    let kind = "{{(index .Provenance \"linux/amd64\").SLSA.buildDefinition.buildType}}";
    tools(&["inspect", "--format", kind, &copy]).succeeds().shows("buildkit");
    tools(&["inspect", &copy])
        .succeeds()
        .shows("Platform:    unknown/unknown\n  Annotations: \n    vnd.docker.reference.digest: sha256:");
    // What is one index already stays it.
    tools(&["create", "-t", &name("again:1"), &copy]).succeeds();
    assert_eq!(digest(&name("again:1")), digest(&copy));
    tools(&["create", "-t", &name("none:1"), &name("none:2")]).exits(1).complains("not in the registry");
    tools(&["create", &copy]).exits(1).complains("needs a name");
}
