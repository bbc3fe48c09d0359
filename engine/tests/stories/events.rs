//! What happens is told, in docker's words, as it happens and afterwards.

use std::io::{BufRead, BufReader};

use crate::world::{BOX, World};

#[test]
fn a_kill_is_no_stop() {
    let world = World::new();
    world.rengine(["run", "-d", "--name", "it", "--network", "none", BOX, "sleep", "1000"]).succeeds();
    world.rengine(["kill", "it"]).succeeds();
    let told =
        ["events", "--since", "1h", "--until", "0s", "--filter", "container=it", "--format", "{{.Action}}"];
    world.rengine(told).succeeds().prints("create\nstart\nkill\ndie\n");
    world.rengine(["start", "it"]).succeeds();
    world.rengine(["rm", "-f", "it"]).succeeds();
    world.rengine(told).succeeds().prints("create\nstart\nkill\ndie\nstart\nkill\ndie\ndestroy\n");
}

#[test]
fn a_life_is_told_in_its_order() {
    let world = World::new();
    world.rengine(["network", "create", "front"]).succeeds();
    world
        .rengine([
            "create",
            "--name",
            "it",
            "--network",
            "front",
            "-v",
            "data:/data",
            "-l",
            "tier=web",
            BOX,
            "sleep",
            "1000",
        ])
        .succeeds();
    world.rengine(["start", "it"]).succeeds();
    world.rengine(["exec", "it", "true"]).succeeds();
    world.rengine(["pause", "it"]).succeeds();
    world.rengine(["unpause", "it"]).succeeds();
    world.rengine(["rename", "it", "other"]).succeeds();
    world.rengine(["stop", "-t", "0", "other"]).succeeds();
    world.rengine(["rm", "other"]).succeeds();
    world.rengine(["volume", "rm", "data"]).succeeds();
    world.rengine(["network", "rm", "front"]).succeeds();
    let format = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
    world.rengine(format).succeeds().prints(
        "image tag\nimage import\nnetwork create\nvolume create\ncontainer create\nnetwork connect\nvolume mount\ncontainer start\n\
         container exec_create: true\ncontainer exec_start: true\ncontainer exec_die\ncontainer pause\ncontainer unpause\n\
         container rename\ncontainer kill\ncontainer kill\ncontainer die\nnetwork disconnect\nvolume unmount\ncontainer stop\n\
         container destroy\nvolume destroy\nnetwork destroy\n",
    );
    let filtered = |filters: &[&str]| {
        let mut args =
            vec!["events", "--since", "1h", "--until", "0s", "--format", "{{.Actor.Attributes.name}}"];
        filters.iter().for_each(|filter| args.extend(["-f", filter]));
        world.rengine(args).succeeds().stdout
    };
    assert_eq!(filtered(&["event=die", "event=create", "label=tier=web"]), "it\nother\n");
    assert_eq!(filtered(&["type=network", "event=connect"]), "front\n");
    world.rengine(["events", "-f", "node=x", "--until", "0s"]).exits(1).complains("invalid filter 'node'");
}

#[test]
fn what_comes_later_is_told_at_once() {
    let world = World::new();
    world.background("--network none --name before", "sleep 1000");
    let mut following = world.follow(["events", "-f", "type=container", "--format", "json"]);
    let mut lines = BufReader::new(following.output());
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    };
    // Nothing tells when it listens, so something is done until it tells of it.
    let nudge = world.nudge("before");
    let first = next();
    drop(nudge);
    assert!(first.contains(r#""Action":"rename""#), "{first}");
    world.run("--network none --name now --stop-signal INT", "exit 3").exits(3);
    loop {
        let line = next();
        if line.contains(r#""Action":"die""#) {
            assert!(line.contains(r#""exitCode":"3""#) && line.contains(r#""name":"now""#), "{line}");
            assert!(line.contains(r#""from":"box""#), "{line}");
            break;
        }
    }
    assert!(next().contains(r#""Action":"destroy""#));
}

#[test]
fn images_are_told_of_too() {
    let world = World::new();
    let archive = world.path("box.tar");
    world.rengine(["save", "-o", archive.to_str().unwrap(), BOX]).succeeds();
    world.rengine(["tag", BOX, "other:1"]).succeeds();
    world.rengine(["rmi", BOX, "other:1"]).succeeds();
    world.rengine(["load", "-i", archive.to_str().unwrap()]).succeeds();
    let format = "{{.Action}} {{.Actor.Attributes.name}}";
    let told =
        world.rengine(["events", "--since", "1h", "--until", "0s", "-f", "type=image", "--format", format]);
    let told = told.succeeds().stdout;
    let id = world.inspect(BOX, "{{.Id}}");
    assert_eq!(
        told,
        format!(
            "tag box:latest\nimport box:latest\nsave box:latest\ntag other:1\nuntag box:latest\nuntag other:1\ndelete {id}\nload box:latest\n"
        )
    );
}

#[test]
fn what_gives_an_image_a_name_is_told() {
    let world = World::new();
    world.write("context/Dockerfile", &format!("FROM {BOX}\nLABEL tier=web\n"));
    let context = world.path("context").display().to_string();
    world.rengine(["build", "-q", "-t", "built:1", "-t", "built:2", &context]).succeeds();
    world.rengine(["create", "--name", "it", "--network", "none", "built:1", "true"]).succeeds();
    world.rengine(["commit", "it", "copy:1"]).succeeds();
    world.rengine(["rm", "it"]).succeeds();
    world.rengine(["save", "-o", &world.path("saved.tar").display().to_string(), "copy:1"]).succeeds();
    world.rengine(["rmi", "copy:1"]).succeeds();
    let told = ["events", "--since", "1h", "--until", "0s", "-f", "label=tier=web", "--format"];
    let told = told.into_iter().chain(["{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]);
    world.rengine(told).succeeds().prints(
        "image tag built:1\nimage tag built:2\ncontainer create it\nimage tag copy:1\ncontainer commit it\n\
         container destroy it\nimage save copy:1\nimage untag copy:1\n",
    );
}
