//! A release that does not get ready changes nothing, and says why.

use std::fs;
use std::io::{BufRead as _, BufReader};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{STORE, World, get};

fn file(health: &str) -> String {
    format!(
        "
services:
  web:
    build: .
    ports: ['80']
    stop_grace_period: 0s
    healthcheck: {{test: [CMD, sh, -c, '{health}'], interval: 100ms, retries: 2}}
"
    )
}

#[test]
fn a_failing_health_check_leaves_the_old_release_and_says_what_it_saw() {
    let world = World::new(1, &file("true"));
    world.rdeploy(["up"]).succeeds();
    let port = world.port(0, "web");
    let names = world.names(0);
    world.page("two");
    world.write("compose.yaml", &file("echo no database; exit 1"));
    let (up, pages) = world.clients(&[port], || world.rdeploy(["up"]));
    let up = up.fails();
    assert!(up.stderr.contains("container p-web-1 is unhealthy"), "{}", up.stderr);
    assert!(up.stderr.contains("no database"), "{}", up.stderr);
    assert!(up.stderr.contains("called off: every host is as it was before"), "{}", up.stderr);
    assert!(pages[0].iter().all(|page| page == "one"), "{:?}", pages[0]);
    assert_eq!(world.names(0), names);
    let history = world.rdeploy(["history"]).succeeds().stdout;
    assert!(history.lines().last().unwrap().contains("called off"), "{history}");
    // What failed is in nobody's way.
    world.write("compose.yaml", &file("true"));
    world.write("rdeploy.yaml", "hooks: {after-commit: ['exit 4']}\n");
    let up = world.rdeploy(["up"]).fails();
    assert!(up.stderr.contains("serves all the same"), "{}", up.stderr);
    assert_eq!(get(port).unwrap(), "two");
}

#[test]
fn a_program_that_ends_or_never_listens_is_found_out_with_its_last_words() {
    let healthy = "
services:
  web: {build: ., ports: ['80'], stop_grace_period: 0s}
";
    let world = World::new(1, healthy);
    world.rdeploy(["up"]).succeeds();
    let port = world.port(0, "web");
    let command = "command: [sh, -c, 'echo cannot bind >&2; exit 7'], ";
    world.write("compose.yaml", &healthy.replace("build: ., ", &format!("build: ., {command}")));
    let up = world.rdeploy(["up"]).fails();
    assert!(up.stderr.contains("ended with code 7"), "{}", up.stderr);
    assert!(up.stderr.contains("| cannot bind"), "{}", up.stderr);
    assert_eq!(get(port).unwrap(), "one");
    assert_eq!(world.names(0), ["p-web-1"]);
}

#[test]
fn a_service_that_has_to_stop_first_comes_back_when_its_successor_fails() {
    let world = World::new(1, STORE);
    world.rdeploy(["up"]).succeeds();
    let (port, id) = (world.port(0, "store"), world.engine(0).container("p-store-1").unwrap().id().clone());
    world.write("compose.yaml", &STORE.replace("ports:", "command: [sh, -c, 'exit 7']\n    ports:"));
    world.rdeploy(["up"]).fails();
    assert_eq!(world.names(0), ["p-store-1"]);
    assert_eq!(world.port(0, "store"), port, "{}", world.account(0));
    assert_eq!(world.engine(0).container("p-store-1").unwrap().id(), &id);
    assert_eq!((get(port).unwrap().as_str(), world.port(0, "store")), ("one", port));
    world.page("two");
    world.write("compose.yaml", STORE);
    world.rdeploy(["up"]).succeeds();
    assert_eq!(get(port).unwrap(), "two");
}

#[test]
fn a_successor_that_takes_too_long_gives_way_and_who_waits_is_served_by_the_old_one() {
    let world = World::new(1, STORE);
    world.rdeploy(["up"]).succeeds();
    let (port, names) = (world.port(0, "store"), world.names(0));
    let deaf = STORE.replace("ports:", "command: [sleep, '1000']\n    ports:");
    world.write("compose.yaml", &deaf);
    let (up, pages) = world.clients(&[port], || world.rdeploy(["up", "--deploy-timeout", "1s"]));
    let up = up.fails();
    let said = "does not listen on 80/tcp 1s after its start: it listens nowhere";
    assert!(up.stderr.contains(said), "{}", up.stderr);
    assert!(pages[0].iter().all(|page| page == "one"), "{:?}", pages[0]);
    assert_eq!((get(port).unwrap().as_str(), world.names(0)), ("one", names.clone()));

    // A health check that never comes to an end has one, too.
    let check = "healthcheck: {test: [CMD, sh, -c, 'echo no database; exit 3'], interval: 100ms, start_period: 1h}\n    ports:";
    world.write("compose.yaml", &STORE.replace("ports:", check));
    world.write("rdeploy.yaml", "deploy_timeout: 1s\n");
    let (up, pages) = world.clients(&[port], || world.rdeploy(["up"]));
    let up = up.fails();
    let said = "is not healthy 1s after its start: its last check ended with code 3: no database";
    assert!(up.stderr.contains(said), "{}", up.stderr);
    assert!(pages[0].iter().all(|page| page == "one"), "{:?}", pages[0]);
    assert_eq!((get(port).unwrap().as_str(), world.names(0)), ("one", names));
}

#[test]
fn who_interrupts_is_told_what_becomes_of_the_hosts() {
    let file = |check: &str| {
        format!("services: {{web: {{build: ., ports: ['80'], stop_grace_period: 0s{check}}}}}\n")
    };
    let world = World::new(1, &file(""));
    world.rdeploy(["up"]).succeeds();
    let (port, names) = (world.port(0, "web"), world.names(0));
    world.write(
        "compose.yaml",
        &file(", healthcheck: {test: [CMD, 'false'], interval: 100ms, start_period: 1h}"),
    );
    let mut up = world.spawn(["up"]);
    let mut said = BufReader::new(up.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("Container p-web-1  Started")), "nothing was started");
    kill_process(Pid::from_child(&up), Signal::INT).unwrap();
    assert!(said.any(|line| line.starts_with("interrupted: within seconds")), "nothing was said");
    assert_eq!(up.wait().unwrap().code(), Some(130));
    world.settle(0);
    assert_eq!((get(port).unwrap().as_str(), world.names(0)), ("one", names));
}

#[test]
fn hooks_are_told_of_every_failure_and_write_nothing_between_the_data() {
    let world = World::new(1, &file("true"));
    let hooks = "hooks: {before-build: [echo building], after-failure: ['echo \"$RDEPLOY_HOOK $RDEPLOY_ERROR\" > failure']}\n";
    world.write("rdeploy.yaml", hooks);
    let up = world.rdeploy(["--json", "up"]).succeeds();
    assert_eq!(up.json()["changed"], true);
    assert!(up.stderr.contains("building"), "{}", up.stderr);
    let failure = || {
        world.rdeploy(["up"]).fails();
        let path = world.project().join("failure");
        let text = fs::read_to_string(&path).expect("the hook has run");
        fs::remove_file(path).unwrap();
        text
    };
    assert!(!world.project().join("failure").exists());
    world.write("rdeploy.yaml", &hooks.replace("before-build: [echo building]", "before-commit: ['exit 7']"));
    world.page("two");
    assert!(failure().contains("after-failure the hook before-commit"));
    world.write("Dockerfile", "FROM scratch\nCOPY nothing /\n");
    assert!(failure().contains("nothing"));
    world.rdeploy(["lock", "acquire", "-m", "not now"]).succeeds();
    world.write("rdeploy.yaml", hooks);
    assert!(failure().contains("not now"));
}

#[test]
fn a_host_that_cannot_end_what_is_decided_is_tried_again() {
    let world = World::new(1, &file("true"));
    world.rdeploy(["up"]).succeeds();
    let place = world.root(0).join("deploy/p");
    let holder = world.engine(0).root().deployment_runs().join("p/holder");
    // A directory is nothing to write a history to. It is one until another agent holds the project, and so the first
    // one has failed.
    let script = format!(
        "cd {}; mv history.jsonl kept; mkdir history.jsonl; began=$(stat -c %y {holder})
        (while [ \"$began\" = \"$(stat -c %y {holder})\" ]; do sleep 0.01; done; rmdir history.jsonl; mv kept history.jsonl) \
         >/dev/null 2>&1 </dev/null &",
        place.display(),
        holder = holder.display()
    );
    world.write("break.sh", &script);
    world.write("rdeploy.yaml", "hooks: {before-commit: [sh break.sh]}\n");
    world.page("two");
    let up = world.rdeploy(["up", "--drain", "0s"]).succeeds();
    assert!(
        up.stderr.contains("write the history: Is a directory (os error 21); trying again"),
        "{}",
        up.stderr
    );
    assert_eq!(get(world.port(0, "web")).unwrap(), "two");
    assert!(world.rdeploy(["history"]).succeeds().stdout.lines().count() == 3);
}

#[test]
fn a_mistake_in_the_settings_or_no_host_at_all_is_said_before_anything_happens() {
    let world = World::new(0, "services: {web: {build: .}}\n");
    let up = world.rdeploy(["up"]).fails();
    assert!(
        up.stderr.contains("no host to deploy to") && up.stderr.contains("--host user@server"),
        "{}",
        up.stderr
    );
    world.write("rdeploy.yaml", "hosts: [local]\ndrian: 3s\n");
    let up = world.rdeploy(["up"]).fails();
    let said = ["unknown key \"drian\"", "rdeploy.yaml:2:1", "did you mean \"drain\"?"];
    assert!(said.iter().all(|part| up.stderr.contains(part)), "{}", up.stderr);
}

#[test]
fn what_is_lacking_here_is_shown_at_its_line_before_any_host_is_asked() {
    let file = "
services:
  web: {build: ., ports: ['80'], secrets: [token], stop_grace_period: 0s}
  jobs: {build: ./jobs}
secrets:
  token: {file: ./token}
";
    let world = World::new(0, file);
    let nobody = ["--host", "nobody@192.0.2.1"];
    let up =
        |services: &[&'static str]| world.rdeploy([&nobody[..], &["up"], services].concat()).fails().stderr;
    let said = up(&[]);
    let token = ["the file of secret \"token\" cannot be read", "compose.yaml:6:17"];
    let jobs = ["jobs is no directory", "compose.yaml:4:17"];
    assert!(token.iter().chain(&jobs).all(|part| said.contains(part)), "{said}");
    // What is not deployed may be lacking.
    let said = up(&["web"]);
    assert!(said.contains(token[0]) && !said.contains(jobs[0]), "{said}");
    world.write("token", "t");
    world.write("rdeploy.yaml", "transfer: registry\n");
    let said = up(&["web"]);
    assert!(said.contains("service web has no `image:`") && said.contains("transfer: direct"), "{said}");
    // A hook may make it.
    fs::remove_file(world.project().join("token")).unwrap();
    world.write("rdeploy.yaml", "hooks: {before-build: ['echo t > token']}\n");
    world.rdeploy(["--host", &world.host(0), "up", "web"]).succeeds();
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let world = World::new(1, "services: {web: {build: ., ports: ['80'], stop_grace_period: 0s}}\n");
    let relative = world.rdeploy(["--remote-root", "here", "status"]);
    assert!(relative.code == 2 && relative.stderr.contains("begin with /"), "{}", relative.stderr);
    let here = world.host(0);
    let twice = world.rdeploy(["--host", &here, "status"]).fails().stderr;
    assert!(twice.contains(&format!("the host {here} is named twice")), "{twice}");
    for words in [["up", "wep"], ["plan", "wep"], ["logs", "wep"]] {
        let said = world.rdeploy(words).fails().stderr;
        assert!(said.contains("no such service: wep") && said.contains("the project p has: web"), "{said}");
    }
    for words in [&["exec", "web", "true"][..], &["logs"], &["run", "web", "true"]] {
        let said = world.rdeploy(words).fails().stderr;
        assert!(
            said.contains("nothing of the project p is deployed there") && said.contains("rdeploy up"),
            "{said}"
        );
    }
}

#[test]
fn a_port_that_somebody_else_has_is_found_before_anything_changes() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    let file = |port: u16| {
        format!("services: {{web: {{build: ., ports: ['127.0.0.1:{port}:80'], stop_grace_period: 0s}}}}\n")
    };
    let world = World::new(1, &file(taken));
    let up = world.rdeploy(["up"]).fails();
    let pid = std::process::id();
    let said = format!("service web: port 127.0.0.1:{taken}/tcp is in use by another program (pid {pid} ");
    assert!(up.stderr.contains(&said) && up.stderr.contains("publish another one"), "{}", up.stderr);
    assert!(!up.stderr.contains("Container"), "something was made: {}", up.stderr);
    assert_eq!(world.names(0), [] as [String; 0]);
    drop(listener);
    world.rdeploy(["up"]).succeeds();
    // Its own port is in nobody's way.
    world.page("two");
    world.rdeploy(["up", "--drain", "0s"]).succeeds();
    assert_eq!(get(taken).unwrap(), "two");
    // By the name that it has now, not the one that it was made under.
    let other = world.rdeploy(["-p", "other", "up"]).fails();
    assert!(other.stderr.contains("is in use by container p-web-1\n"), "{}", other.stderr);
}
