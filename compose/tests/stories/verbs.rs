//! What the verbs say when there is nothing to do, and which of several containers they mean.

use crate::world::{Outcome, World};

const PROJECT: &str = r#"
services:
  web: {image: box, command: [sleep, "1000"], stop_grace_period: 0s, depends_on: [db]}
  db: {image: box, command: [sleep, "1000"], stop_grace_period: 0s, scale: 2}
"#;

fn says(outcome: &Outcome) -> (i32, String) {
    (outcome.code, outcome.stderr.trim().to_owned())
}

#[test]
fn a_verb_with_nothing_to_do_says_so() {
    let world = World::new(PROJECT);
    world.write("off.yaml", "services: {spare: {image: box, profiles: [spare]}}\n");
    let none =
        "rcompose: service \"db\" has no container to start\nhint: `rcompose up db` makes one".to_owned();
    assert_eq!(says(&world.rcompose(["start", "web"])), (1, none));
    assert_eq!(says(&world.rcompose(["kill"])), (0, "no container to kill".to_owned()));
    assert_eq!(says(&world.rcompose(["rm", "-f"])), (0, "No stopped containers".to_owned()));
    world.rcompose(["create"]).succeeds();
    assert_eq!(says(&world.rcompose(["kill", "web"])), (0, "no container to kill".to_owned()));
    world.rcompose(["start", "web"]).succeeds();
    assert_eq!(world.running(), ["p-db-1", "p-db-2", "p-web-1"], "web depends on db");
    let (code, said) = says(&world.rcompose(["-f", "off.yaml", "up", "-d"]));
    assert!(code == 1 && said.contains("no service selected"), "{said}");
    let removed = world.rcompose(["rm", "-fs", "db"]).succeeds().stdout;
    assert_eq!(removed, "Going to remove p-db-1, p-db-2\n");
}

#[test]
fn an_index_chooses_one_of_a_services_containers() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d"]).succeeds();
    for arguments in [
        &["exec", "-T", "--index", "3", "db", "true"][..],
        &["port", "--index", "3", "db", "80"],
        &["attach", "--index", "3", "db"],
    ] {
        let expected = "rcompose: service \"db\" has no running container #3".to_owned();
        assert_eq!(says(&world.rcompose(arguments)), (1, expected), "{arguments:?}");
    }
    for arguments in [&["cp", "--index", "3", "compose.yaml", "db:/"][..], &["logs", "--index", "3", "db"]] {
        let (code, said) = says(&world.rcompose(arguments));
        assert!(code == 1 && said.contains("#3"), "{arguments:?}: {said}");
    }
    for services in [&[][..], &["web", "db"]] {
        let logs = world.rcompose(["logs", "--index", "1"].iter().chain(services));
        assert!(logs.code == 1 && logs.stderr.contains("--index is for one service"), "{}", logs.stderr);
    }
}

#[test]
fn what_is_copied_is_told_and_a_stream_goes_to_one_container() {
    let world = World::new(PROJECT);
    world.rcompose(["create"]).succeeds();
    let told = world.rcompose(["cp", "compose.yaml", "db:/"]).succeeds().stderr;
    for name in ["p-db-1", "p-db-2"] {
        assert!(told.contains(&format!("{name} copy compose.yaml to {name}:/  Copied")), "{told}");
    }
    let archive = world.rcompose(["cp", "web:/etc/hello", "-"]).succeeds().stdout;
    assert!(archive.starts_with("hello\0"));
    let refused = world.rcompose(["cp", "-", "db:/tmp"]);
    assert!(refused.code == 1 && refused.stderr.contains("--index chooses one"), "{}", refused.stderr);
}

#[test]
fn what_run_is_given_is_read_as_a_shell_reads_it() {
    let world = World::new(PROJECT);
    let run = |arguments: &[&str]| world.rcompose(["run", "--rm", "--no-deps"].iter().chain(arguments));
    let said = run(&["-T", "--entrypoint", "sh -c 'echo \"a  b\"'", "db"]).succeeds().stdout;
    assert_eq!(said, "a  b\n");
    for (arguments, reason) in [
        (&["--entrypoint", "sh -c 'open", "db"][..], "a quote is not closed"),
        (&["--entrypoint", "echo a | cat", "db"], "\"| cat\" means something to a shell only"),
        (&["-l", "tier", "db"], "invalid label \"tier\": KEY=VALUE is needed"),
    ] {
        let refused = run(arguments);
        assert!(refused.code == 1 && refused.stderr.contains(reason), "{arguments:?}: {}", refused.stderr);
        assert_eq!(world.names(), [] as [String; 0], "{arguments:?}");
    }
}

#[test]
fn a_shell_in_the_background_waits_for_whoever_attaches() {
    let world = World::new(PROJECT);
    world.rcompose(["run", "-d", "--no-deps", "--name", "shell", "web", "sh"]).succeeds();
    assert_eq!(world.running(), ["shell"]);
    assert!(world.container("shell").record.spec.process.open_stdin);
}

#[test]
fn rm_asks_whoever_there_is_and_takes_no_answer_for_a_no() {
    let world = World::new(PROJECT);
    world.rcompose(["create"]).succeeds();
    let asked = world.rcompose(["rm"]).succeeds();
    assert!(asked.stderr.contains("nothing was removed; --force does not ask"), "{}", asked.stderr);
    assert_eq!(world.names(), ["p-db-1", "p-db-2", "p-web-1"]);
    world.write("yes", "y\n");
    let mut said_yes = world.command(["rm", "web"]);
    said_yes.stdin(std::fs::File::open(world.project().join("yes")).unwrap());
    Outcome::of(&mut said_yes).succeeds();
    assert_eq!(world.names(), ["p-db-1", "p-db-2"]);
}

#[test]
fn what_is_there_is_started_and_the_last_network_goes_with_its_services() {
    let world = World::new(PROJECT);
    let networks = || world.rcompose(["config", "--networks"]).succeeds().stdout;
    world.rcompose(["create", "db"]).succeeds();
    world.rcompose(["start"]).succeeds();
    assert_eq!(world.running(), ["p-db-1", "p-db-2"]);
    world.rcompose(["up", "-d"]).succeeds();
    let down = world.rcompose(["down", "web"]).succeeds().stderr;
    assert!(!down.contains("Network"), "{} is in use: {down}", networks());
    let down = world.rcompose(["down", "db"]).succeeds().stderr;
    assert!(down.contains("Network p_default  Removed"), "{down}");
}

#[test]
fn what_crashes_at_once_has_not_come_up_and_its_last_words_are_told() {
    let world = World::new(
        "services:\n  a: {image: box, command: [sh, -c, 'echo boom >&2; exit 1']}\n  late: {image: box, restart: always, command: [sh, -c, '[ -e /tried ] && exec sleep 1000; : > /tried; exit 1']}\n",
    );
    let up = world.rcompose(["up", "-d", "--wait", "a"]);
    assert_eq!(up.code, 1, "{}", up.stderr);
    assert!(up.stderr.contains("container p-a-1 ended with code 1\n  | boom"), "{}", up.stderr);
    // What it needs may come up while its policy starts it again.
    world.rcompose(["up", "-d", "--wait", "late"]).succeeds();
    assert_eq!(world.running(), ["p-late-1"]);
}

#[test]
fn wait_waits_for_all_and_has_the_code_of_the_last() {
    let world = World::new(
        "services:\n  a: {image: box, command: [sh, -c, 'exit 3']}\n  b: {image: box, volumes: ['.:/here'], command: [sh, -c, 'while [ ! -e /here/go ]; do sleep 0.01; done; exit 4']}\n",
    );
    world.rcompose(["up", "-d"]).succeeds();
    let waiting = world.command(["wait", "a", "b"]).spawn().unwrap();
    world.rcompose(["wait", "a"]);
    world.write("go", "");
    let waited = waiting.wait_with_output().unwrap();
    let said = String::from_utf8(waited.stdout).unwrap();
    let codes: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!((waited.status.code(), codes), (Some(4), vec!["3", "4"]));
}

#[test]
fn up_keeps_the_two_streams_of_containers_apart() {
    let world =
        World::new("services: {a: {image: box, command: [sh, -c, 'echo out; echo err >&2; exit 2']}}\n");
    let up = world.rcompose(["up"]);
    assert_eq!(up.stdout, "a-1  | out\n");
    assert!(up.stderr.contains("a-1  | err\n"), "{}", up.stderr);
    let logs = world.rcompose(["logs", "--no-log-prefix"]).succeeds();
    assert_eq!((logs.stdout.lines().count(), logs.stderr.as_str()), (2, ""));
}

#[test]
fn config_of_some_services_is_of_what_they_need() {
    let world = World::new(
        "services:\n  a: {image: 'box:${TAG:-1}', depends_on: [b], networks: [x]}\n  b: {image: box, command: '${TAG}'}\n  c: {image: box, profiles: [p], volumes: ['data:/d']}\nnetworks: {x: }\nvolumes: {data: }\n",
    );
    let print = |arguments: &[&str]| world.rcompose(["config"].iter().chain(arguments)).succeeds().stdout;
    assert_eq!(print(&["--services", "c"]), "c\n");
    assert_eq!(print(&["--volumes", "c"]), "data\n");
    assert_eq!(print(&["--services", "a"]), "a\nb\n");
    assert_eq!(print(&["--networks", "b"]), "default\n");
    assert_eq!(print(&["-q", "--services"]), "");
    assert!(print(&["--variables"]).contains("TAG                 false               1"));
}

#[test]
fn what_exec_cannot_execute_has_a_code_of_its_own() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d", "db"]).succeeds();
    for (arguments, code) in [
        (&["db", "sh", "-c", "exit 42"][..], 42),
        (&["db", "nothing-like-this"], 127),
        (&["db", "/etc/passwd"], 126),
        (&["-u", "nobody-like-this", "db", "true"], 126),
        (&["-w", "/nowhere", "db", "true"], 126),
        (&["web", "true"], 1),
    ] {
        assert_eq!(world.rcompose(["exec", "-T"].iter().chain(arguments)).code, code, "{arguments:?}");
    }
}

#[test]
fn what_is_scaled_is_also_what_the_file_says_now() {
    let world = World::new("services: {db: {image: box, command: [sleep, '1000'], stop_grace_period: 0s}}\n");
    world.rcompose(["up", "-d"]).succeeds();
    let before = world.ids();
    world.rcompose(["scale", "db=2"]).succeeds();
    assert_eq!(world.ids()[0], before[0], "nothing else has changed");
    world.write(
        "compose.yaml",
        "services: {db: {image: box, command: [sleep, '2000'], stop_grace_period: 0s}}\n",
    );
    world.rcompose(["scale", "db=2"]).succeeds();
    let commands: Vec<String> =
        ["p-db-1", "p-db-2"].iter().map(|name| world.container(name).record.argv.join(" ")).collect();
    assert_eq!(commands, ["sleep 2000", "sleep 2000"]);
}
