//! How the containers of a service are replaced: by default as fast as can be, or as `deploy.update_config` says.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::world::{World, get, while_asked};

/// A service that serves a page; `program` runs after the page is written.
fn project(page: &str, program: &str) -> String {
    format!(
        r#"
services:
  web:
    image: box
    command: ["sh", "-c", "mkdir /www; echo {page} > /www/page; {program}"]
    ports: ["8080"]
    stop_grace_period: 1s
    healthcheck: {{test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/page"], interval: 1s, retries: 2}}
    deploy: {{update_config: {{order: start-first}}}}
"#
    )
}

const SERVE: &str = "exec httpd -f -p 8080 -h /www";

#[test]
fn an_update_that_starts_first_refuses_nobody_and_a_bad_one_changes_nothing() {
    let world = World::new(&project("one", SERVE));
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    let port = world.port("web", 8080);
    world.write("compose.yaml", &project("two", SERVE));
    let (up, pages) = while_asked(|| Some(get(port, "/page").1), || world.rcompose(["up", "-d"]));
    up.succeeds();
    let moved = pages.iter().position(|page| page == "two\n").unwrap_or(pages.len());
    assert!(pages[..moved].iter().all(|page| page == "one\n"), "{pages:?}");
    assert!(pages[moved..].iter().all(|page| page == "two\n"), "{pages:?}");
    assert_eq!(world.port("web", 8080), port);
    assert_eq!(get(port, "/page").1, "two\n");
    assert_eq!(world.names(), ["p-web-1"]);
    // One that does not get ready never gets the ports.
    let before = world.ids();
    world.write("compose.yaml", &project("three", "exit 3"));
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1, "{}", up.stderr);
    assert!(up.stderr.contains("service web: container p-web-1"), "{}", up.stderr);
    assert_eq!(get(port, "/page").1, "two\n");
    assert_eq!((world.ids(), world.names()), (before, vec!["p-web-1".to_owned()]));
    // Killed half-way, the next one goes on.
    world.write("compose.yaml", &project("four", SERVE));
    world.kill_at("Container p-web-1  Started", ["up", "-d"]);
    assert_eq!(get(port, "/page").1, "two\n");
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(get(port, "/page").1, "four\n");
    assert_eq!(world.names(), ["p-web-1"]);
    // What it publishes it publishes again when it starts again.
    world.rcompose(["restart"]).succeeds();
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(get(world.port("web", 8080), "/page").1, "four\n");
}

#[test]
fn who_connects_while_a_service_stops_first_waits_for_its_successor() {
    // It listens a while after it has started, and longer yet after the one before has stopped.
    let file = |page: &str| {
        project(page, &format!("sleep 1; {SERVE}")).replace("start-first", "stop-first").replace(
            r#"healthcheck: {test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/page"], interval: 1s, retries: 2}"#,
            "init: true",
        )
    };
    let world = World::new(&file("one"));
    world.rcompose(["up", "-d"]).succeeds();
    let port = world.port("web", 8080);
    let connect = || TcpStream::connect(("127.0.0.1", port));
    while connect().and_then(ask).ok().is_none_or(|page| page.is_empty()) {
        std::thread::yield_now();
    }
    world.write("compose.yaml", &file("two"));
    // A connection that the old container had is cut when that ends.
    let client = || ask(connect().expect("nobody is refused")).ok();
    let (up, pages) = while_asked(client, || world.rcompose(["up", "-d"]));
    up.succeeds();
    assert!(
        pages.iter().any(|page| page == "one\n") && pages.iter().any(|page| page == "two\n"),
        "{pages:?}"
    );
    assert_eq!(get(port, "/page").1, "two\n");
    assert_eq!(world.names(), ["p-web-1"]);
    // Killed while they wait, the next one goes on.
    world.write("compose.yaml", &file("three").replace("\"8080\"", &format!("\"{port}:8080\"")));
    world.kill_at("Container p-web-1  Stopped", ["up", "-d"]);
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!((world.port("web", 8080), world.names()), (port, vec!["p-web-1".to_owned()]));
    assert_eq!(get(port, "/page").1, "three\n");
}

/// Asks for the page over a connection that is there.
fn ask(mut connection: TcpStream) -> std::io::Result<String> {
    connection.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, page)| page.to_owned()))
}

#[test]
fn replicas_are_replaced_as_many_at_a_time_as_the_service_says() {
    let file = |value: &str| {
        format!(
            r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    environment: {{VALUE: {value}}}
    deploy: {{replicas: 3, update_config: {{parallelism: 1, delay: 10ms}}}}
"#
        )
    };
    let world = World::new(&file("one"));
    world.rcompose(["up", "-d"]).succeeds();
    world.write("compose.yaml", &file("two"));
    let up = world.rcompose(["up", "-d"]).succeeds();
    let seen: Vec<&str> = up
        .stderr
        .lines()
        .map(str::trim)
        .filter(|line| line.ends_with("Stopped") || line.ends_with("Started"))
        .collect();
    let wanted: Vec<String> = (1..=3)
        .flat_map(|number| ["Stopped", "Started"].map(|word| format!("Container p-web-{number}  {word}")))
        .collect();
    assert_eq!(seen, wanted);
}

#[test]
fn a_secret_or_configuration_that_changes_is_noticed() {
    let file = |value: &str| {
        format!(
            r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    secrets: [plain, token]
    configs: [{{source: settings, target: /etc/settings}}]
  other: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s}}
secrets:
  plain: {{file: ./plain.txt}}
  token: {{environment: TOKEN}}
configs:
  settings: {{content: "value={value}"}}
"#
        )
    };
    let world = World::new(&file("one"));
    world.write("plain.txt", "one");
    world.write(".env", "TOKEN=one\n");
    world.rcompose(["up", "-d"]).succeeds();
    let other = world.ids_of("other");
    let plan = || world.rcompose(["plan"]).succeeds().stdout;
    assert_eq!(plan(), "nothing to do\n");
    let changes: [(&str, &dyn Fn(), &str); 3] = [
        ("configs.settings", &|| world.write("compose.yaml", &file("two")), "cat /etc/settings"),
        ("secrets.token", &|| world.write(".env", "TOKEN=two\n"), "cat /run/secrets/token"),
        ("secrets.plain", &|| world.write("plain.txt", "two"), "cat /run/secrets/plain"),
    ];
    for (name, change, read) in changes {
        let before = world.ids_of("web");
        change();
        assert!(plan().contains(&format!("(content of {name} changed)")), "{}", plan());
        world.rcompose(["up", "-d"]).succeeds();
        assert_ne!(world.ids_of("web"), before);
        assert!(world.inside("web", read).ends_with("two"), "{name}");
        assert_eq!(plan(), "nothing to do\n");
    }
    assert_eq!(world.ids_of("other"), other, "the others are left alone");
}
