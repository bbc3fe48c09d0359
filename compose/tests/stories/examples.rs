//! The examples of the repository keep what they promise.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use engine::container::state::State;
use engine::network::NetworkSpec;
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::world::{World, get, http};

#[test]
fn the_quickstart_counts_its_visitors_and_goes_on_after_down() {
    let world = World::example("quickstart");
    world.place_program("web", "web/web");
    world.place_program("counter", "counter/counter");
    world.rcompose(["up", "-d", "--build", "--wait"]).succeeds();
    let visit = || get(world.port("web", 8080), "/");
    assert_eq!(visit(), (200, "You are visitor number 1.\n".to_owned()), "web asks counter, by its name");
    assert_eq!(visit(), (200, "You are visitor number 2.\n".to_owned()));
    // One port is published, and it is not the counter's.
    let refused = world.rcompose(["port", "counter", "7000"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("no port 7000/tcp for container p-counter-1"), "{}", refused.stderr);
    let before = world.ids();
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(world.ids(), before, "nothing has changed");
    world.rcompose(["down"]).succeeds();
    assert_eq!(world.ids(), [] as [String; 0]);
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(visit(), (200, "You are visitor number 3.\n".to_owned()), "the number is in the volume");
    world.rcompose(["down", "-v"]).succeeds();
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(visit(), (200, "You are visitor number 1.\n".to_owned()), "and the volume is gone with -v");
}

#[test]
fn the_shop_opens_sells_and_remembers() {
    let world = World::example("shop");
    world.import(&shop_base(), "shop-base");
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    let running = ["p-cache-1", "p-db-1", "p-front-1", "p-web-1", "p-web-2", "p-web-3"];
    assert_eq!(world.running(), running);
    the_gates_held(&world);
    let shop = || page(get(world.port("front", 80), "/"));
    let products = shop()["products"].clone();
    assert_eq!(products, serde_json::json!(["lamp", "chair", "teapot"]), "the migration ran, once");
    all_replicas_answer(&world, &shop);
    let visits = shop()["visits"].as_u64().unwrap();
    assert_eq!(shop()["visits"].as_u64(), Some(visits + 1), "the cache counts for all replicas");
    assert_eq!(shop()["orders"], 0);
    assert_eq!(order(&world, r#"{"product": 2}"#).0, 201);
    assert_eq!(order(&world, "nonsense").0, 400);
    assert_eq!(shop()["orders"], 1);
    secrets_stay_secret(&world);
    // The proxy is on no network of the database's, which leads nowhere else either.
    let names = world.rcompose(["exec", "-T", "front", "getent", "hosts", "db"]);
    assert_ne!(names.code, 0, "{}", names.stdout);
    assert_eq!(world.rcompose(["plan"]).succeeds().stdout, "nothing to do\n");
    world.rcompose(["down"]).succeeds();
    assert_eq!(world.names(), [] as [String; 0]);
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(shop()["orders"], 1, "what was sold stays sold");
    assert_eq!(shop()["products"], products);
}

#[test]
fn what_watches_over_others_hears_sees_and_finds() {
    let world = World::example("observability");
    world.import(&shop_base(), "shop-base");
    let refused = world.rcompose(["up", "-d"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("network watch declared as external"),
        "{}",
        refused.stderr
    );
    world.engine().networks().create(NetworkSpec::new("watch".parse().unwrap())).unwrap();
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    assert_eq!(world.running().len(), 10);
    let ask = |service: &str, port: u16, path: &str| page(get(world.port(service, port), path));
    // A line that a program writes goes through shipper, queue and stash, and people find it.
    world.write("logs/shop.log", "ordered: a teapot\nordered: a lamp\n");
    let found =
        until(|| ask("search-ui", 5601, "/logs?q=teapot"), |page| page["hits"] != serde_json::json!([]));
    assert_eq!(found["hits"], serde_json::json!([{"message": "ordered: a teapot"}]));
    // A span comes by UDP and is kept where the documents are.
    let shown = world.rcompose(["port", "--protocol", "udp", "tracing", "6831"]).succeeds().stdout;
    let port = shown.trim().rsplit(':').next().unwrap();
    let span =
        || UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"span", format!("127.0.0.1:{port}")).unwrap();
    // What was asked before it could answer is asked again a second later.
    let all_up = |up: &serde_json::Map<String, Json>| up.len() == 3 && up.values().all(|up| up == 1);
    let sees = |page: &Json| page["traces"].as_u64() > Some(0) && page["up"].as_object().is_some_and(all_up);
    let seen = until(
        || {
            span();
            ask("dashboard", 3000, "/")
        },
        sees,
    );
    assert_eq!(seen["host"], "dashboard");
    let host = std::fs::read_to_string("/proc/1/comm").unwrap();
    let said = world.rcompose(["logs", "--no-log-prefix", "host"]).succeeds().stdout;
    assert!(said.contains(&format!("process 1 of the host is {}", host.trim())), "{said}");
    world.rcompose(["down", "-v", "-t", "1"]).succeeds();
    assert!(
        world.engine().networks().list().unwrap().iter().any(|network| network.spec.name.as_str() == "watch")
    );
}

/// Asks until the answer is as it will be.
fn until(ask: impl Fn() -> Json, good: impl Fn(&Json) -> bool) -> Json {
    let began = std::time::Instant::now();
    loop {
        let answer = ask();
        if good(&answer) {
            return answer;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{answer}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Each service started only after what it waits for was as far as it says.
fn the_gates_held(world: &World) {
    let started = |name: &str| -> Timestamp {
        match world.container(name).state {
            State::Running(running) => running.started,
            State::Exited(exited) => exited.started.unwrap(),
            other => panic!("{name} is {}", other.word()),
        }
    };
    let State::Exited(migrated) = world.container("p-migrate-1").state else { panic!("migrate goes on") };
    assert_eq!(migrated.code, 0);
    assert!(started("p-db-1") < started("p-migrate-1"));
    for web in ["p-web-1", "p-web-2", "p-web-3"] {
        assert!(migrated.finished <= started(web), "{web} started before the database was up to date");
        assert!(started(web) < started("p-front-1"));
    }
}

/// nginx takes one of the addresses behind the name at random for each request.
fn all_replicas_answer(world: &World, shop: &dyn Fn() -> Json) {
    let hosts = |name: &str| world.container(name).id().short().to_owned();
    let wanted: BTreeSet<String> = ["p-web-1", "p-web-2", "p-web-3"].into_iter().map(hosts).collect();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        seen.insert(shop()["served_by"].as_str().unwrap().to_owned());
        if seen == wanted {
            return;
        }
    }
    panic!("only {seen:?} of {wanted:?} answered");
}

fn secrets_stay_secret(world: &World) {
    let password = std::fs::read_to_string(world.project().join("secrets/database_password")).unwrap();
    let password = password.trim();
    assert_eq!(world.inside("web", "cat /run/secrets/database_password").trim(), password);
    assert!(!world.inside("web", "cat /proc/*/environ /proc/*/cmdline 2>/dev/null; true").contains(password));
    assert!(!world.state_contains(password), "the password lies in the engine's files");
}

fn order(world: &World, body: &str) -> (u16, String) {
    let length = body.len();
    http(
        world.port("front", 80),
        &format!(
            "POST /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

#[track_caller]
fn page((status, body): (u16, String)) -> Json {
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The base image, made the first time and kept outside of the checkout.
fn shop_base() -> PathBuf {
    let cache = std::env::var_os("SHOP_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/rengine-bases"),
        PathBuf::from,
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/bases.sh");
    let output = Command::new(script).arg(cache).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}
