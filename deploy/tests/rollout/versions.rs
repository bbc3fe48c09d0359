//! What another version of this program has left on a host.

use std::fs;
use std::path::PathBuf;

use crate::world::{World, get};

const WEB: &str = "services: {web: {build: ., ports: ['80'], stop_grace_period: 0s}}\n";

/// What is to be said of what this program cannot know.
const LATER: &str = "was written by a later version of rdeploy";

fn state(world: &World, name: &str) -> PathBuf {
    world.root(0).join("deploy/p").join(name)
}

/// Changes a text in a file, and gives back what was there.
fn change(path: &PathBuf, from: &str, to: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
    text
}

/// The records of all releases, in the order in which they served.
fn releases(world: &World) -> Vec<PathBuf> {
    let history = world.rdeploy(["--json", "history"]).succeeds().stdout;
    let release = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        state(world, &format!("releases/{}.json", line["entry"]["release"].as_str().unwrap()))
    };
    history.lines().map(release).collect()
}

#[test]
fn what_a_later_version_wrote_is_named_and_not_touched() {
    let world = World::new(1, WEB);
    world.rdeploy(["up"]).succeeds();
    world.page("two");
    world.rdeploy(["up", "--drain", "0s"]).succeeds();
    let port = world.port(0, "web");

    // A release that is kept: nobody goes back to what is only half understood.
    let first = releases(&world).remove(0);
    let text = change(&first, "\"version\":1", "\"version\":2,\"form\":\"unheard of\"");
    let said = world.rdeploy(["rollback"]).fails().stderr;
    assert!(said.contains(LATER) && said.contains("use the version that deployed last"), "{said}");
    world.page("three");
    let up = world.rdeploy(["up", "--drain", "0s"]).succeeds();
    assert!(up.stderr.contains("WARNING: the release") && up.stderr.contains(LATER), "{}", up.stderr);
    assert!(first.exists());
    fs::write(&first, text).unwrap();

    // The one that serves: what runs is shown all the same.
    let serving = releases(&world).pop().unwrap();
    let text = change(&serving, "\"version\":1", "\"version\":2");
    let status = world.rdeploy(["status"]).succeeds();
    assert!(status.stdout.contains("p-web-1"), "{}", status.stdout);
    assert!(world.rdeploy(["drift"]).fails().stdout.contains(LATER));
    fs::write(&serving, text).unwrap();
    world.rdeploy(["drift"]).succeeds();

    // A rollout that was cut off: whoever does not know all that was done does not go back from it.
    fs::write(state(&world, "journal.json"), r#"{"version": 2, "stage": "dreaming"}"#).unwrap();
    let said = world.rdeploy(["up"]).fails().stderr;
    assert!(said.contains("a rollout that was cut off") && said.contains(LATER), "{said}");
    assert!(state(&world, "journal.json").exists());
    assert_eq!((get(port).unwrap().as_str(), world.names(0)), ("three", vec!["p-web-1".to_owned()]));
    fs::remove_file(state(&world, "journal.json")).unwrap();

    // The history, of which half a line is no line.
    let history = state(&world, "history.jsonl");
    let text = fs::read_to_string(&history).unwrap();
    fs::write(&history, format!("{text}{}", &text[..40])).unwrap();
    world.page("four");
    world.rdeploy(["up", "--drain", "0s"]).succeeds();
    assert_eq!(world.rdeploy(["history"]).succeeds().stdout.lines().count(), 5);
    change(&history, "\"outcome\":\"served\"", "\"outcome\":\"remembered\"");
    assert!(world.rdeploy(["history"]).fails().stderr.contains(LATER));
}

#[test]
fn what_an_earlier_version_began_is_put_right() {
    let world = World::new(1, WEB);
    world.rdeploy(["up"]).succeeds();
    // The client is gone before all of it is undone, and its journal is from before it had a number.
    world.write("rdeploy.yaml", "hooks: {before-commit: ['cp \"$JOURNAL\" journal']}\n");
    world.page("two");
    let mut up = world.command(["up", "--drain", "0s"]);
    let up = up.env("JOURNAL", state(&world, "journal.json")).output().unwrap();
    assert!(up.status.success(), "{up:?}");
    let journal = fs::read_to_string(world.project().join("journal")).unwrap();
    assert!(journal.contains("\"version\":1,\"release\""), "{journal}");
    fs::write(state(&world, "journal.json"), journal.replacen("\"version\":1,", "", 1)).unwrap();
    world.rdeploy(["resume"]).succeeds();
    assert!(!state(&world, "journal.json").exists());
    let history = world.rdeploy(["history"]).succeeds().stdout;
    assert!(history.contains("it was cut off while it was prepared"), "{history}");
}
