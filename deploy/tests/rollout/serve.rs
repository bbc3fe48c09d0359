//! Nobody is refused while a new release takes over.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::world::{STORE, World, get};

/// A service that starts first, and one that has to stop first.
fn both_kinds() -> String {
    let web = "
  web:
    build: .
    container_name: web
    ports: ['80']
    stop_grace_period: 0s";
    STORE.replace("services:", &format!("services:{web}"))
}

/// Every answer was the old page until it was the new one.
#[track_caller]
pub(crate) fn assert_one_change(pages: &[String], old: &str, new: &str) {
    let moved = pages.iter().position(|page| page != old).unwrap_or(pages.len());
    assert!(!pages.is_empty() && moved > 0, "nobody was served before");
    assert!(pages[moved..].iter().all(|page| page == new), "{:?}", &pages[moved..]);
}

#[test]
fn a_new_release_takes_over_and_nobody_is_refused() {
    let world = World::new(1, &both_kinds());
    world.rdeploy(["up"]).succeeds();
    let ports = [world.port(0, "web"), world.port(0, "store")];
    assert_eq!(get(ports[0]).unwrap(), "one");
    world.rdeploy(["exec", "store", "sh", "-c", "echo kept > /data/file"]).succeeds();

    world.page("two");
    let (up, pages) = world.clients(&ports, || world.rdeploy(["--json", "up"]));
    let report = up.succeeds().json();
    assert_one_change(&pages[0], "one", "two");
    assert_one_change(&pages[1], "one", "two");
    assert_eq!(report["hosts"][0]["downtime_ms"], 0, "{report}");
    assert_eq!(report["hosts"][0]["changed"], serde_json::json!(["store", "web"]));
    assert_eq!([world.port(0, "web"), world.port(0, "store")], ports, "the ports have moved");
    assert_eq!(world.names(0), ["p-store-1", "web"]);
    let file = world.rdeploy(["exec", "store", "cat", "/data/file"]).succeeds();
    assert_eq!(file.stdout.trim(), "kept");
}

#[test]
fn a_neighbour_who_calls_by_name_or_by_the_published_port_is_served_all_along() {
    // It asks over and over: whom the name leads to, and by the gateway, which is this machine, what is published.
    let script = "
        ask() { printf 'GET /page HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $$1 $$2 | grep -q one || echo FAILED $$1 $$2; }
        gateway=$$(ip route | awk '/^default/ {print $$3}')
        while :; do
          ask $$(nslookup web | awk '/^Name:/ {found = 1} found && /^Address/ {print $$NF; exit}') 80
          ask $$gateway PORT
          echo asked
        done";
    let file = |version: u8, port: u16| {
        let published = if port == 0 { "'80'".to_owned() } else { format!("'{port}:80'") };
        let script = script.replace("PORT", &port.to_string()).replace('\n', "\n      ");
        format!(
            "
services:
  web: {{build: ., ports: [{published}], environment: {{V: '{version}'}}, stop_grace_period: 0s}}
  neighbour:
    build: .
    command:
    - sh
    - -c
    - |
      {script}
    stop_grace_period: 0s
"
        )
    };
    let world = World::new(1, &file(0, 0));
    world.rdeploy(["up", "web"]).succeeds();
    let port = world.port(0, "web");
    world.write("compose.yaml", &file(0, port));
    world.rdeploy(["up"]).succeeds();
    for version in 1..=3 {
        world.write("compose.yaml", &file(version, port));
        world.rdeploy(["up", "web", "--drain", "0s"]).succeeds();
    }
    let said = world.rdeploy(["logs", "neighbour"]).succeeds().stdout;
    assert!(said.matches("asked").count() > 10, "{said}");
    assert!(!said.contains("FAILED"), "{said}");
}

#[test]
fn no_change_moves_nothing_and_a_rollback_moves_everything_back() {
    let world = World::new(1, &both_kinds());
    world.rdeploy(["up"]).succeeds();
    let before = world.engine(0).containers().unwrap().iter().map(|c| c.id().clone()).collect::<Vec<_>>();
    let report = world.rdeploy(["--json", "up"]).succeeds().json();
    assert_eq!(report["changed"], false, "{report}");
    let after = world.engine(0).containers().unwrap().iter().map(|c| c.id().clone()).collect::<Vec<_>>();
    assert_eq!(before, after);

    world.page("two");
    world.rdeploy(["up"]).succeeds();
    let ports = [world.port(0, "web"), world.port(0, "store")];
    // Somebody stays connected: for as long as is said now, whatever was said when the release was made.
    let idle = TcpStream::connect(("127.0.0.1", ports[0])).unwrap();
    let began = Instant::now();
    // The images that a rollback needs are on the host: nothing is built or sent.
    let (rollback, pages) = world.clients(&ports, || world.rdeploy(["--json", "rollback", "--drain", "1s"]));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(20), "{took:?}");
    drop(idle);
    let told = ["is told to end with ", " after 1s"];
    assert!(told.iter().all(|part| rollback.stderr.contains(part)), "{}", rollback.stderr);
    let report = rollback.succeeds().json();
    assert_one_change(&pages[0], "two", "one");
    assert_one_change(&pages[1], "two", "one");
    assert_eq!(report["hosts"][0]["bytes_sent"], 0);
    let history = world.rdeploy(["history"]).succeeds().stdout;
    let outcomes: Vec<&str> =
        history.lines().skip(1).filter_map(|line| line.split("   ").last()).map(str::trim).collect();
    assert_eq!(outcomes, ["served", "served", "served (rollback)"], "{history}");
    let served = world.rdeploy(["--json", "history"]).succeeds().stdout;
    let served: Vec<serde_json::Value> =
        served.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(served.iter().all(|line| line["kept"] == true), "{served:?}");
    let [one, two] = [0, 1].map(|at| served[at]["entry"]["release"].as_str().unwrap());
    let too_far = world.rdeploy(["rollback"]).fails().stderr;
    assert!(too_far.contains(&format!("no release served before {one}")), "{too_far}");
    assert!(too_far.contains(&format!("rdeploy rollback --to {two}")), "{too_far}");
    let unknown = world.rdeploy(["rollback", "--to", "other"]).fails().stderr;
    assert!(unknown.contains("is not kept here") && unknown.contains(two), "{unknown}");
}

#[test]
fn the_plan_says_what_is_done_and_does_nothing() {
    let world = World::new(1, &both_kinds());
    let plan = world.rdeploy(["plan"]).succeeds().stdout;
    assert!(plan.contains("  prepare  image p-") && plan.contains("container web: create"), "{plan}");
    assert_eq!(world.names(0), Vec::<String>::new());
    world.rdeploy(["up"]).succeeds();
    assert_eq!(world.rdeploy(["plan"]).succeeds().stdout.lines().nth(1), Some("  nothing to do"));
    world.page("two");
    let plan = world.rdeploy(["plan", "web"]).succeeds().stdout;
    assert!(plan.contains("(image changed)") && !plan.contains("(configuration changed)"), "{plan}");
    world.page("one");
    let file = both_kinds().replace("container_name: web", "container_name: web\n    environment: {A: b}");
    world.write("compose.yaml", &file);
    let plan = world.rdeploy(["plan"]).succeeds().stdout;
    let steps: Vec<&str> = plan.lines().skip(1).collect();
    let id = world.engine(0).container("web").unwrap().id().short().to_owned();
    assert_eq!(
        steps,
        [
            format!("  prepare  container web: create in place of {id} (configuration changed)"),
            "  prepare  container web: start (configuration changed)".to_owned(),
            "  prepare  container web: wait until ready (asked)".to_owned(),
            format!("  commit   container web: take over from {id} (asked)"),
            "  retire   container web: stop (replaced)".to_owned(),
            "  retire   container web: remove (replaced)".to_owned(),
        ]
    );
    assert_eq!(world.engine(0).container("web").unwrap().id().short(), id);
    // What the image of the next release is made from has changed since the last one was built.
    world.write("compose.yaml", &both_kinds());
    world.page("two");
    let plan = world.rdeploy(["plan"]).succeeds().stdout;
    assert!(plan.contains(": bring (not here)") && plan.contains(&format!("take over from {id}")), "{plan}");
    assert_eq!(get(world.port(0, "web")).unwrap(), "one");
}

#[test]
fn what_somebody_changes_on_a_host_is_found_and_put_right() {
    let world = World::new(1, &both_kinds());
    world.rdeploy(["up"]).succeeds();
    world.rdeploy(["drift"]).succeeds();
    let engine = world.engine(0);
    engine.stop(&engine.find_id("web").unwrap(), &engine::StopOptions::default()).unwrap();
    let drift = world.rdeploy(["drift"]).fails();
    assert!(drift.stdout.contains("container web: start (not running)"), "{}", drift.stdout);
    world.rdeploy(["up"]).succeeds();
    world.rdeploy(["drift"]).succeeds();
}

#[test]
fn files_and_secrets_of_the_project_are_where_the_services_look() {
    let world = World::new(
        1,
        "
services:
  web:
    build: .
    ports: ['80']
    stop_grace_period: 0s
    volumes: ['./settings.conf:/etc/settings.conf:ro', './pages:/pages:ro', './uploads:/uploads']
    secrets: [token, word]
    configs: [{source: limits, target: /etc/limits}]
secrets:
  token: {file: ./token.txt}
  word: {environment: WORD}
configs:
  limits: {file: ./limits.txt}
",
    );
    world.write("settings.conf", "a $PATH\n");
    std::fs::create_dir(world.project().join("pages")).unwrap();
    world.write("pages/index", "index\n");
    world.write("token.txt", "t0k3n-of-the-story");
    world.write("limits.txt", "10");
    let up = |word: &str| {
        let output = world.command(["up"]).env("WORD", word).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let read = |path: &str| world.rdeploy(["exec", "web", "cat", path]).succeeds().stdout;
    up("w0rd-of-the-story");
    assert_eq!(read("/etc/settings.conf"), "a $PATH\n");
    assert_eq!(read("/pages/index"), "index\n");
    assert_eq!(read("/run/secrets/token"), "t0k3n-of-the-story");
    assert_eq!(read("/run/secrets/word"), "w0rd-of-the-story");
    assert_eq!(read("/etc/limits"), "10");
    world.rdeploy(["exec", "web", "sh", "-c", "echo mine > /uploads/file"]).succeeds();
    // No secret is on the host's disk.
    let found = std::process::Command::new("grep")
        .args(["-rlE", "t0k3n-of-the-story|w0rd-of-the-story"])
        .arg(world.root(0))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    // A file that changes makes a new container, and so does a secret; what was written stays.
    let first = world.engine(0).container("p-web-1").unwrap().id().clone();
    world.write("settings.conf", "b\n");
    up("w0rd-of-the-story");
    let second = world.engine(0).container("p-web-1").unwrap().id().clone();
    assert_ne!(first, second);
    assert_eq!(read("/etc/settings.conf"), "b\n");
    up("an0ther-word");
    assert_ne!(world.engine(0).container("p-web-1").unwrap().id(), &second);
    assert_eq!(read("/run/secrets/word"), "an0ther-word");
    assert_eq!(read("/uploads/file"), "mine\n");
}
