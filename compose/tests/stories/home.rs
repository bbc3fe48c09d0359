//! Directories that are called the same are not the same project, unless somebody says so.

use crate::world::World;

const FILE: &str = "services: {web: {image: box, command: [sleep, '1000'], stop_grace_period: 0s}}\n";

#[test]
fn a_directory_does_not_touch_the_containers_of_another_one_of_the_same_name() {
    let world = World::new(FILE);
    world.write("a/app/compose.yaml", FILE);
    world.write("b/app/compose.yaml", FILE);
    world.rcompose_in("a/app", ["up", "-d"]).succeeds();
    let ids = world.ids();
    for command in [
        &["up", "-d"][..],
        &["down"],
        &["ps"],
        &["logs"],
        &["exec", "-T", "web", "true"],
        &["rm", "-fs"],
        &["kill"],
        &["plan"],
    ] {
        let refused = world.rcompose_in("b/app", command);
        assert_eq!(refused.code, 1, "{command:?}: {}", refused.stderr);
        let other = world.project().join("a/app");
        let said = format!("project app is that of {}", other.display());
        assert!(refused.stderr.contains(&said), "{command:?}: {}", refused.stderr);
    }
    assert_eq!((world.ids(), world.running().len()), (ids.clone(), 1));
    // Whoever names the project means it.
    assert!(world.rcompose_in("b/app", ["-p", "app", "ps", "-q"]).succeeds().stdout.contains(&ids[0]));
    world.rcompose_in("b/app", ["-p", "other", "up", "-d"]).succeeds();
    assert_eq!(world.running(), ["app-web-1", "other-web-1"]);
}

#[test]
fn volumes_are_of_the_directory_that_made_them_when_no_container_is_left() {
    let file = "services: {web: {image: box, command: [sh, -c, 'echo kept > /data/file; sleep 1000'], \
                stop_grace_period: 0s, volumes: ['data:/data']}}\nvolumes: {data: }\n";
    let world = World::new(file);
    world.write("a/app/compose.yaml", file);
    world.write("b/app/compose.yaml", file);
    world.rcompose_in("a/app", ["up", "-d"]).succeeds();
    world.rcompose_in("a/app", ["down"]).succeeds();
    for command in [&["down", "-v"][..], &["up", "-d"], &["run", "--rm", "web", "true"], &["plan"]] {
        let refused = world.rcompose_in("b/app", command);
        assert_eq!(refused.code, 1, "{command:?}: {}", refused.stderr);
        let said =
            format!("project app is that of {}, and its volumes", world.project().join("a/app").display());
        assert!(refused.stderr.contains(&said), "{command:?}: {}", refused.stderr);
    }
    assert_eq!(world.rcompose_in("a/app", ["volumes", "-q"]).succeeds().stdout, "app_data\n");
    // When that directory is gone, its volumes are those of the next one of the name; and whoever names it means it.
    world.rcompose_in("b/app", ["-p", "app", "up", "-d"]).succeeds();
    world.rcompose_in("b/app", ["-p", "app", "down"]).succeeds();
    std::fs::remove_dir_all(world.project().join("a")).unwrap();
    world.rcompose_in("b/app", ["down", "-v"]).succeeds();
    assert_eq!(world.rcompose_in("b/app", ["volumes", "-q"]).succeeds().stdout, "");
}

#[test]
fn what_is_external_may_be_made_by_a_directory_of_the_same_name() {
    let world = World::new(FILE);
    world.write("a/app/compose.yaml", FILE);
    let external = "networks: {default: {external: true, name: app_default}}\n";
    world.write("b/app/compose.yaml", &format!("{FILE}{external}"));
    world.rcompose_in("a/app", ["up", "-d"]).succeeds();
    world.rcompose_in("a/app", ["rm", "-fs"]).succeeds();
    world.rcompose_in("b/app", ["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["app-web-1"]);
    world.rcompose_in("b/app", ["down"]).succeeds();
    // What it did not make stays.
    world.rcompose_in("a/app", ["up", "-d"]).succeeds();
}

#[test]
fn a_directory_by_another_way_and_one_that_has_moved_are_the_same() {
    let world = World::new(FILE);
    world.write("a/app/compose.yaml", FILE);
    world.rcompose_in("a/app", ["up", "-d"]).succeeds();
    std::os::unix::fs::symlink("a", world.project().join("link")).unwrap();
    let by_link = ["--project-directory", "../link/app", "ps", "-q"];
    assert_eq!(world.rcompose_in("a", by_link).succeeds().stdout.trim(), world.ids()[0]);
    std::fs::rename(world.project().join("a"), world.project().join("b")).unwrap();
    world.rcompose_in("b/app", ["down"]).succeeds();
    assert_eq!(world.names(), [""; 0]);
}
