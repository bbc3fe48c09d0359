//! What makes no sense is refused with one clear message, and leaves nothing behind.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value as Json, json};

use crate::world::{Outcome, World};

/// One error, where it is, on standard error alone, with docker compose's exit code, and nothing made.
#[track_caller]
fn refuses(world: &World, file: &str, wanted: &[&str]) -> Outcome {
    world.write("compose.yaml", file);
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1, "{}", up.stderr);
    assert_eq!(up.stdout, "");
    for text in wanted {
        assert!(up.stderr.contains(text), "{text:?} is missing in\n{}", up.stderr);
    }
    let errors =
        up.stderr.lines().filter(|line| line.starts_with("error:") || line.starts_with("rcompose:")).count();
    assert_eq!(errors, 1, "one error is said once:\n{}", up.stderr);
    assert_eq!(world.running(), [] as [String; 0]);
    // What was made before the failure is the project's, and goes with it.
    world.write("compose.yaml", "services: {web: {image: box}}\n");
    world.rcompose(["down", "-v"]).succeeds();
    assert_eq!(world.names(), [] as [String; 0]);
    assert_eq!(world.engine().check().unwrap().damaged, [] as [String; 0]);
    up
}

#[test]
fn files_that_make_no_sense_are_refused_at_their_place() {
    let world = World::new("");
    let refuse = |file: &str, wanted: &[&str]| refuses(&world, file, wanted);
    refuse("services:\n  a:\n    image: box\n   b: {}\n", &["invalid YAML", "compose.yaml:4:"]);
    refuse("services:\n  a: {image: box, image: box}\n", &["\"image\" is there twice", "compose.yaml:2:19"]);
    refuse(
        "services:\n  a:\n    image: box\n    comand: x\n",
        &["compose.yaml:4:5", "comand", "did you mean \"command\"", "services.a.comand"],
    );
    refuse(
        "services:\n  a: {image: box, depends_on: [b]}\n  b: {image: box, depends_on: [c]}\n  c: {image: box, depends_on: [a]}\n",
        &["in a circle: a -> b -> c -> a", "compose.yaml:4:"],
    );
    refuse(
        "services:\n  a:\n    image: box\n    ports: [\"80:80:80:80\"]\n",
        &["compose.yaml:4:13", "80:80:80:80"],
    );
    refuse("services:\n  a:\n    image: box\n    volumes: [data:/data]\n", &["compose.yaml:4:15", "data"]);
    refuse("services:\n  a:\n    image: ${IMAGE:?say which}\n", &["compose.yaml:3:", "say which"]);
    refuse("services:\n  a:\n    image: box\n    env_file: none.env\n", &["compose.yaml:4:15", "none.env"]);
    refuse("services:\n  a:\n    image: box\n    restart: sometimes\n", &["compose.yaml:4:14", "sometimes"]);
    refuse(
        "services:\n  a: {image: box, secrets: [token]}\nsecrets:\n  token:\n    file: none.txt\n",
        &["compose.yaml:5:11", "secret \"token\"", "none.txt"],
    );
    for (key, at, said) in [
        ("working_dir: x", "4:18", "must be absolute"),
        ("cap_add: [SYS_ADMN]", "4:15", "did you mean \"SYS_ADMIN\"?"),
        ("ulimits: {nofiles: 5}", "4:15", "did you mean \"nofile\"?"),
        ("extra_hosts: ['a:b']", "4:19", "\"b\" is no address"),
        ("volumes: ['./x:rel']", "4:15", "must be absolute"),
        ("mem_limit: 1k", "4:16", "6 MiB"),
        ("dns: foo", "4:10", "\"foo\" is no address"),
        ("tmpfs: '/a:size=foo'", "4:12", "invalid size"),
        ("security_opt: [foo]", "4:", "unknown option \"foo\""),
        ("sysctls: {kernel.shmax: 5}", "4:29", "kernel.shmax does not belong to a namespace"),
        ("mac_address: '01:00:5e:00:00:01'", "4:18", "no hardware address"),
        ("logging: {options: {max-sise: 1m}}", "4:25", "no such option"),
        ("devices: [/dev/nowhere]", "4:15", "no device /dev/nowhere"),
        ("platform: foo", "4:15", "invalid platform \"foo\""),
        ("environment: {A:, B: 1}", "4:20", "a space after its colon"),
        ("pid: foo", "4:10", "no container for \"foo\""),
        ("ports: ['1.2.3.4:80']", "4:13", "as in 1.2.3.4:80:80"),
        ("healthcheck: {test: [curl]}", "4:25", "begins with CMD"),
    ] {
        refuse(
            &format!("services:\n  a:\n    image: box\n    {key}\n"),
            &[&format!("compose.yaml:{at}"), said],
        );
    }
    refuse("services:\n  a:\n    image: Box\n", &["compose.yaml:3:12", "must be lower case"]);
    refuse("services:\n  a:\n  image: box\n", &["compose.yaml:3:10", "indent it by more"]);
    refuse("services:\n  a:\n    image:box\n", &["compose.yaml:3:5", "a space is missing"]);
    refuse("services:\n  a:\n    image: box\n\tinit: true\n", &["compose.yaml:4:1", "instead of the tab"]);
    refuse(
        "services:\n  a:\n    image: box\n    args: {A: 1}\n",
        &["compose.yaml:4:5", "\"args\" is a key of `build`"],
    );
    refuse("a:\n  image: box\n", &["compose.yaml:1:1", "under the top-level key `services`"]);
    refuse(
        "services:\n  a:\n    image: box\n    environment:\n      - A: b\n",
        &["compose.yaml:5:9", "write \"A=b\", or leave out the dashes"],
    );
    refuse("services:\n  a: {}\n", &["neither an image nor a build", "compose.yaml:2:3"]);
}

#[test]
fn what_is_not_there_is_said_of_every_thing_that_is_not_there() {
    let world =
        World::new("services:\n  a: {image: box, env_file: [a.env, {path: b.env}]}\n  b: {build: ./c}\n");
    let up = world.rcompose(["up", "-d"]);
    let places = ["a.env not found\n --> compose.yaml:2:30", "b.env not found\n --> compose.yaml:2:44"];
    assert!(places.iter().all(|text| up.stderr.contains(text)), "{}", up.stderr);
    let build = world.rcompose(["build", "b"]);
    assert!(build.stderr.contains("c is no directory\n --> compose.yaml:3:14"), "{}", build.stderr);
    world.write("compose.yaml", "services: {b: {build: .}}\n");
    let build = world.rcompose(["up", "-d", "--build"]);
    assert!(build.stderr.contains("Dockerfile is not there\n --> compose.yaml:1:23"), "{}", build.stderr);
    fs::write(world.project().join("compose.yaml"), b"services:\n  a: {image: caf\xe9}\n").unwrap();
    let latin = world.rcompose(["config"]);
    assert!(latin.stderr.contains("the byte 0xe9 in line 2, column 17"), "{}", latin.stderr);
}

/// An object a line: what is wrong with the files, and what is not in them.
#[test]
fn programs_are_told_what_is_wrong_as_people_are() {
    let world = World::new("services:\n  a:\n    imag: box\n    ports: 5\n");
    for args in [&["config", "--format", "json"][..], &["--progress", "json", "up", "-d"]] {
        let told = world.rcompose(args);
        assert_eq!((told.code, told.stdout.as_str()), (1, ""));
        let lines: Vec<Json> = told.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let places: Vec<(&Json, &Json)> =
            lines.iter().map(|line| (&line["place"]["line"], &line["place"]["column"])).collect();
        assert_eq!(places, [(&json!(3), &json!(5)), (&json!(4), &json!(12))]);
        assert_eq!(lines[0]["help"], "did you mean \"image\"?");
    }
    world.write("compose.yaml", "services: {a: {image: nosuch, pull_policy: never}}\n");
    let failed = world.rcompose(["--progress", "json", "up", "-d"]);
    let last: Json = serde_json::from_str(failed.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["severity"], "error");
    assert!(last["message"].as_str().unwrap().contains("pull policy is never"), "{last}");
}

#[test]
fn an_alias_bomb_is_refused_at_once() {
    let mut file = "x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*x{}", level - 1); 10].join(", ");
        file += &format!("x-{level}: &x{level} [{below}]\n");
    }
    file = file.replacen("x0:", "x-0:", 1);
    file += "services: {a: {image: box}}\n";
    let world = World::new(&file);
    let config = world.rcompose(["config", "-q"]);
    assert_eq!(config.code, 1);
    assert!(config.stderr.contains("compose.yaml:"), "{}", config.stderr);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_service() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let world = World::new("");
    refuses(
        &world,
        &format!(
            "services:\n  web:\n    image: box\n    command: [sleep, \"1000\"]\n    ports: [\"127.0.0.1:{port}:80\"]\n"
        ),
        &["service web", &format!("{port}")],
    );
}

#[test]
fn an_image_that_is_nowhere_is_named_with_its_service() {
    let world = World::new("");
    refuses(
        &world,
        "services:\n  web:\n    image: 127.0.0.1:1/nobody/nothing:1\n",
        &["service web", "127.0.0.1:1/nobody/nothing:1"],
    );
    refuses(
        &world,
        "services:\n  web:\n    image: nothing-like-this\n    pull_policy: never\n",
        &["nothing-like-this", "web", "never"],
    );
}

#[test]
fn a_mistake_in_a_dockerfile_is_shown_where_it_is() {
    let world = World::new("");
    let file = "services:\n  web:\n    build: src\n";
    world.write("src/Dockerfile", "FROM box\nRUNN true\n");
    refuses(&world, file, &["service web", "Dockerfile:2"]);
    world.write("src/Dockerfile", "FROM box\nRUN exit 3\n");
    refuses(&world, file, &["service web", "Dockerfile:2", "3"]);
    world.write("src/Dockerfile", "FROM box\nCOPY nothing /\n");
    refuses(&world, file, &["service web", "Dockerfile:2", "nothing"]);
    world.write("compose.yaml", "services:\n  web:\n    build: nowhere\n");
    refuses(&world, "services:\n  web:\n    build: nowhere\n", &["service web", "nowhere"]);
}

#[test]
fn commands_that_make_no_sense_end_with_code_1_and_say_so() {
    let world = World::new("services: {web: {image: box}}\n");
    for (arguments, wanted) in [
        (&["nonsense"][..], "nonsense"),
        (&["up", "--nonsense"], "--nonsense"),
        (&["up", "nobody"], "no such service: nobody"),
        (&["-f", "nothere.yaml", "config"], "nothere.yaml"),
        (&["exec", "web", "true"], "is not running"),
        (&["run", "nobody"], "no such service: nobody"),
        (&["logs", "nobody"], "no such service: nobody"),
    ] {
        let outcome = world.rcompose(arguments.iter().copied());
        assert_eq!(outcome.code, 1, "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(wanted), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
}
