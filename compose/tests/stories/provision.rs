//! Services and language models that programs of others provide: real programs, as small as can be, that speak as docker
//! compose's do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::world::{Outcome, World};

/// Puts a program beside the project, as a plugin of docker's.
fn plugin(world: &World, name: &str, script: &str) {
    let path = format!("docker/cli-plugins/{name}");
    world.write(&path, &format!("#!/bin/sh\n{script}"));
    let path = world.project().join(path);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn rcompose<const N: usize>(world: &World, args: [&str; N]) -> Outcome {
    Outcome::of(world.command(args).env("DOCKER_CONFIG", world.project().join("docker")))
}

/// What the program was called with, since the last time.
fn calls(world: &World) -> Vec<String> {
    let path: PathBuf = world.project().join("calls");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text.lines().map(str::to_owned).collect()
}

const CLOUD: &str = r#"
[ "$2" = metadata ] && exec cat metadata
echo "$*" >> calls
[ "$3" = up ] || exit 0
echo '{"type": "info", "message": "preparing"} {"type": "debug", "message": "hidden"}'
echo '{"type": "get-service-config"}'
read config; echo "$config" > config
. ./script
"#;

const METADATA: &str = r#"{
  "description": "a cloud",
  "up": {"parameters": [{"name": "size", "required": true}, {"name": "tag"}]},
  "down": {"parameters": [{"name": "tag"}]},
  "stop": {"parameters": []}
}"#;

const PROJECT: &str = r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    environment: {REGION: south, OWN: "yes"}
    depends_on: [my-db]
  other: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
  my-db:
    provider: {type: cloud, options: {size: 2, tag: [a, b], colour: red}}
"#;

fn tells(url: &str) -> String {
    format!(
        r#"
echo '{{"type": "setenv", "message": "URL={url}"}}'
echo '{{"type": "rawsetenv", "message": "REGION=north"}}'
"#
    )
}

#[test]
fn a_provider_makes_a_service_available_and_tells_its_dependents_where() {
    let world = World::new(PROJECT);
    plugin(&world, "docker-cloud", CLOUD);
    world.write("metadata", METADATA);
    world.write("script", &tells("one=1"));
    let up = rcompose(&world, ["up", "-d"]).succeeds();
    assert!(up.stderr.contains("Service my-db  preparing") && !up.stderr.contains("hidden"), "{}", up.stderr);
    let warning = r#"provider "my-db" overrides environment variable "REGION" in service "web""#;
    assert!(up.stderr.contains(warning), "{}", up.stderr);
    assert_eq!(calls(&world), ["compose --project-name=p up --size=2 --tag=a --tag=b my-db"]);
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(world.project().join("config")).unwrap()).unwrap();
    assert_eq!(config["provider"]["type"], "cloud");
    assert_eq!(rcompose(&world, ["config", "--images"]).succeeds().stdout, "box\nbox\n");
    assert_eq!(world.inside("web", "echo $REGION $OWN"), "north yes\n");
    // No shell hands on a variable with a dash in its name.
    let variables = "tr '\\0' '\\n' < /proc/1/environ";
    assert!(world.inside("web", variables).contains("MY-DB_URL=one=1\n"));
    assert_eq!(world.inside("other", "echo ${REGION-unset}"), "unset\n");
    assert_eq!(world.names(), ["p-other-1", "p-web-1"]);
    // Asked each time, it says the same: nothing happens.
    let before = world.ids();
    rcompose(&world, ["up", "-d"]).succeeds();
    assert_eq!(world.ids(), before);
    // It says something else: who depends on it is made anew.
    world.write("script", &tells("two"));
    rcompose(&world, ["up", "-d"]).succeeds();
    assert!(world.inside("web", variables).contains("MY-DB_URL=two\n"));
    let run = rcompose(&world, ["run", "--rm", "-T", "web", "env"]).succeeds();
    assert!(run.stdout.contains("MY-DB_URL=two\n"), "{}", run.stdout);
    calls(&world);
    let plan = rcompose(&world, ["plan"]).succeeds().stdout;
    assert_eq!(plan, "1 service my-db: up by cloud (asked)\n");
    rcompose(&world, ["stop"]).succeeds();
    rcompose(&world, ["down"]).succeeds();
    let stop = "compose --project-name=p stop my-db";
    assert_eq!(calls(&world), [stop, "compose --project-name=p down --tag=a --tag=b my-db"]);
}

#[test]
fn a_provider_that_fails_or_is_not_there_keeps_its_dependents_from_being_made() {
    let world = World::new(PROJECT);
    let missing = rcompose(&world, ["up", "-d"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.contains(r#"service my-db: the provider "cloud" is not there"#),
        "{}",
        missing.stderr
    );
    plugin(&world, "docker-cloud", CLOUD);
    world.write("metadata", &METADATA.replace("size", "shape"));
    let cases = [
        (
            "",
            METADATA.replace("size", "shape"),
            r#"required parameter "shape" is missing from provider "cloud""#,
        ),
        (
            "echo '{\"type\": \"error\", \"message\": \"no money\"}'; read forever",
            String::new(),
            "my-db: no money",
        ),
        ("echo so it is", String::new(), "invalid response from the provider cloud"),
        ("echo '{\"type\": \"setenv\", \"message\": \"URL\"}'", String::new(), "\"URL\" is not KEY=VALUE"),
        ("echo what went wrong >&2; exit 3", String::new(), "exit status: 3\nwhat went wrong"),
    ];
    for (script, metadata, why) in cases {
        world.write("script", script);
        world.write("metadata", &metadata);
        let up = rcompose(&world, ["up", "-d"]);
        assert_eq!(up.code, 1, "{}", up.stderr);
        assert!(up.stderr.contains(why), "{why}: {}", up.stderr);
        assert_eq!(world.names(), Vec::<String>::new());
    }
    let run = rcompose(&world, ["run", "my-db"]);
    assert!(run.stderr.contains("service my-db is provided by a program"), "{}", run.stderr);
}

const MODELS: &str = r#"
case "$1" in
docker-cli-plugin-metadata) echo '{"SchemaVersion": "0.1.0", "Version": "v1.0.6"}' ;;
status) echo '{"running": true, "endpoint": "http://models/v1"}' ;;
ls) cat have ;;
pull) echo "$*" >> calls; echo '[{"id": "x", "tags": ["ai/tiny"]}]' > have ;;
*) echo "$*" >> calls ;;
esac
"#;

#[test]
fn models_are_made_ready_and_their_users_told_where() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    models: {my-llm: {}, other: {endpoint_var: WHERE, model_var: WHICH}}
models:
  my-llm: {model: ai/tiny, context_size: 1024, runtime_flags: [--fast]}
  other: {model: ai/tiny}
"#,
    );
    let missing = rcompose(&world, ["up", "-d"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("'models' support requires Docker Model plugin"), "{}", missing.stderr);
    plugin(&world, "docker-model", MODELS);
    world.write("have", "[]");
    rcompose(&world, ["--parallel", "1", "up", "-d"]).succeeds();
    let mut called = calls(&world);
    called.sort();
    called.dedup();
    let configured = ["configure --context-size 1024 ai/tiny -- --fast", "configure ai/tiny", "pull ai/tiny"];
    assert_eq!(called, configured);
    assert_eq!(
        world.inside("web", "echo $MY_LLM_MODEL $MY_LLM_URL $WHICH $WHERE"),
        "ai/tiny http://models/v1 ai/tiny http://models/v1\n"
    );
    let before = world.ids();
    rcompose(&world, ["up", "-d"]).succeeds();
    assert_eq!(world.ids(), before);
    assert_eq!(calls(&world).len(), 2, "what is there is not fetched again");
}
