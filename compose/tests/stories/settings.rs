//! What `COMPOSE_*` variables say of the tool, in the environment and in the project's `.env`.

use crate::world::{Outcome, World};

const PROJECT: &str = "services:\n  web: {image: box, command: [sleep, '1000'], stop_grace_period: 0s}\n";
const OTHER: &str = "services:\n  job: {image: box, command: [sleep, '1000'], stop_grace_period: 0s}\n";

#[test]
fn the_projects_env_file_speaks_for_the_tool_and_the_caller_has_the_last_word() {
    let world = World::new(PROJECT);
    world.write(".env", "COMPOSE_COMPATIBILITY=1\nCOMPOSE_REMOVE_ORPHANS=true\n");
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p_web_1"]);
    world.write("compose.yaml", OTHER);
    let mut kept = world.command(["up", "-d"]);
    let kept = Outcome::of(kept.env("COMPOSE_REMOVE_ORPHANS", "0")).succeeds();
    assert!(kept.stderr.contains("p_web_1"), "{}", kept.stderr);
    assert_eq!(world.running(), ["p_job_1", "p_web_1"]);
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p_job_1"]);
    world.write("elsewhere/tool.env", "COMPOSE_COMPATIBILITY=0\n");
    let plan = world.rcompose(["--env-file", "elsewhere/tool.env", "plan"]).succeeds();
    assert!(plan.stdout.contains("p-job-"), "{}", plan.stdout);
}

#[test]
fn the_proxies_of_dockers_configuration_are_variables_unless_the_service_has_its_own() {
    let world =
        World::new("services:\n  job: {image: box, command: [env], environment: {HTTP_PROXY: own}}\n");
    world.write("docker/config.json", r#"{"proxies": {"default": {"httpProxy": "http://here:1"}}}"#);
    let mut up = world.command(["up"]);
    let up = Outcome::of(up.env("DOCKER_CONFIG", world.project().join("docker"))).succeeds();
    let mut seen: Vec<&str> = up
        .stdout
        .lines()
        .filter_map(|line| line.split_once("| ").filter(|(_, text)| text.to_lowercase().contains("proxy")))
        .map(|(_, text)| text)
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, ["HTTP_PROXY=own", "http_proxy=http://here:1"]);
}

#[test]
fn progress_goes_where_the_caller_wants_it() {
    let world = World::new(PROJECT);
    let mut up = world.command(["up", "-d"]);
    let up = Outcome::of(up.env("COMPOSE_STATUS_STDOUT", "1").env("COMPOSE_PROGRESS", "json")).succeeds();
    assert_eq!(up.stderr, "");
    assert!(up.stdout.lines().all(|line| line.starts_with("{\"id\":")), "{}", up.stdout);
    assert!(up.stdout.contains(r#"{"id":"Container p-web-1","status":"Done","text":"Started"}"#));
    for (variable, value, why) in [
        ("COMPOSE_PROGRESS", "loud", "\"loud\" is not auto, tty, plain, json, quiet"),
        ("COMPOSE_ANSI", "blue", "\"blue\" is not auto, always, never"),
        ("COMPOSE_PARALLEL_LIMIT", "many", "\"many\" is not a whole number"),
    ] {
        let refused = Outcome::of(world.command(["stop"]).env(variable, value));
        let said = format!("rcompose: {variable}: {why}\n");
        assert_eq!((refused.code, refused.stderr), (1, said));
    }
}

#[test]
fn a_flag_may_be_given_a_value_as_dockers_may() {
    let world = World::new(PROJECT);
    world.rcompose(["--dry-run=false", "up", "--detach=true", "--no-deps=0", "-V=f"]).succeeds();
    assert_eq!(world.running(), ["p-web-1"]);
    let help = world.rcompose(["up", "--help"]).succeeds().stdout;
    assert!(help.contains("-d, --detach   "), "{help}");
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let world = World::new(PROJECT);
    for (flags, why) in [
        (&["-d", "--attach", "web"][..], "--detach cannot be combined with --attach"),
        (&["--wait", "--watch"], "--wait cannot be combined with --watch"),
        (&["-d", "--exit-code-from", "web"], "--detach cannot be combined with --exit-code-from"),
        (&["--abort-on-container-exit", "--abort-on-container-failure"], "cannot be combined"),
        (&["--exit-code-from", "nobody"], "no such service: nobody"),
        (&["--attach", "nobody"], "no such service: nobody"),
    ] {
        let refused = world.rcompose(["up"].iter().chain(flags));
        assert!(refused.code == 1 && refused.stderr.contains(why), "{flags:?}: {}", refused.stderr);
        assert_eq!(world.running(), [] as [String; 0]);
    }
}

#[test]
fn the_last_of_an_option_that_is_given_twice_counts() {
    let world = World::new(PROJECT);
    world.rcompose(["-p", "first", "-p", "last", "up", "-d", "-d", "-t", "1", "-t", "2"]).succeeds();
    assert_eq!(world.running(), ["last-web-1"]);
}
