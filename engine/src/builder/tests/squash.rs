//! Layers above the base that become one.

use super::*;

#[test]
fn layers_above_the_base_become_one_that_changes_the_same() {
    let mut world = World::new().file("app/a", "a").file("app/b/c", "c").file("app/other/d", "d");
    let base = world.build("FROM scratch\nCOPY app /app\nLABEL base=1\n");
    Images::at(&world.root).tag(base.id.as_str(), &"base".parse().unwrap()).unwrap();
    let dockerfile = "\
FROM base AS below
RUN put app/b/new new; put gone/x x; put app/a again
RUN drop app/b; drop gone; drop app/other/d
FROM below
ENV A=1
RUN put app/b/last last; put app/other/e e; put app/kept/f f
COPY --chown=5:6 app/a /app/kept/g
";
    let plain = world.build(dockerfile);
    let request = BuildRequest { squash: true, ..world.request(dockerfile) };
    let image = world.build_with(&request).unwrap();
    assert_eq!(world.files(&image), world.files(&plain));
    assert_eq!(image.config.config, plain.config.config);
    let diffs = &image.config.rootfs.diff_ids;
    assert_eq!((diffs.len(), &diffs[0]), (2, &base.config.rootfs.diff_ids[0]));
    // Of what came and went there is nothing left, and what the base had is hidden.
    let names = names_in(&Layers::at(&world.root).dir(&diffs[1]));
    assert_eq!(
        names,
        [
            "app",
            "app/a",
            "app/b",
            "app/b/last",
            "app/kept",
            "app/kept/f",
            "app/kept/g",
            "app/other",
            "app/other/d",
            "app/other/e"
        ]
    );
    let last = image.config.history.last().unwrap();
    assert_eq!(last.comment, Some(format!("merge {} to {}", plain.id, base.id)));
    assert_eq!(image.config.history.iter().filter(|entry| !entry.empty_layer).count(), 2);
    assert_eq!(world.build_with(&request).unwrap().id, image.id);
    let alone = BuildRequest { squash: true, ..world.request("FROM scratch\nCOPY app /\nCOPY app /x\n") };
    let alone = world.build_with(&alone).unwrap();
    assert_eq!(alone.config.rootfs.diff_ids.len(), 1);
    assert_eq!(world.text(&alone, "x/b/c"), "c");
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            names.push(path.strip_prefix(directory).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path);
            }
        }
    }
    names.sort();
    names
}
