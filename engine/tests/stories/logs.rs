//! What containers have said.

use crate::world::World;

#[test]
fn both_streams_are_kept_apart_and_in_order() {
    let world = World::new();
    let id = world.background("--network none", "echo one; echo two >&2; echo three");
    world.rengine(["wait", &id]).succeeds();
    world.rengine(["logs", &id]).succeeds().prints("one\nthree\n").complains("two");
}

#[test]
fn the_tail_and_the_time_can_be_asked_for() {
    let world = World::new();
    let id = world.background("--network none", "for n in 1 2 3 4 5; do echo $n; done");
    world.rengine(["wait", &id]).succeeds();
    world.rengine(["logs", "--tail", "2", &id]).succeeds().prints("4\n5\n");
    world.rengine(["logs", "-n", "0", &id]).succeeds().prints("");
    let stamped = world.rengine(["logs", "-t", "--tail", "1", &id]).succeeds().line();
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    assert_eq!(text, "5");
    world.rengine(["logs", "--until", "2001-01-01T00:00:00Z", &id]).succeeds().prints("");
}

#[test]
fn following_ends_with_the_container() {
    let world = World::new();
    let id = world.background("--network none", "echo first; sleep 1; echo last");
    let follower = world.spawn(["logs", "-f", &id]);
    follower.ends().succeeds().prints("first\nlast\n");
}

#[test]
fn they_rotate_and_can_be_switched_off() {
    let world = World::new();
    let flags = "--network none --log-opt max-size=10k --log-opt max-file=2";
    let id =
        world.background(flags, "n=0; while [ $n -lt 2000 ]; do n=$((n + 1)); echo line number $n; done");
    world.rengine(["wait", &id]).succeeds();
    let kept = world.rengine(["logs", &id]).succeeds().stdout;
    assert!(kept.ends_with("line number 2000\n") && !kept.contains("line number 1\n"), "{}", kept.len());
    assert!(kept.len() < 20_000);
    let quiet = world.background("--network none --log-driver none", "echo unheard");
    world.rengine(["wait", &quiet]).succeeds();
    world.rengine(["logs", &quiet]).exits(1).complains("none");
}

#[test]
fn a_last_line_without_an_end_is_kept() {
    let world = World::new();
    let id = world.background("--network none", "printf unfinished");
    world.rengine(["wait", &id]).succeeds();
    world.rengine(["logs", &id]).succeeds().prints("unfinished");
}
