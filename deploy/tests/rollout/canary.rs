//! A release that gets a part of the connections before it gets all of them.

use crate::world::{World, get};

fn file(command: &str) -> String {
    format!("services: {{web: {{build: ., ports: ['80'], stop_grace_period: 0s{command}}}}}\n")
}

#[test]
fn a_part_of_the_connections_tries_the_new_release_first() {
    let world = World::new(2, &file(""));
    world.rdeploy(["up"]).succeeds();
    let ports = [world.port(0, "web"), world.port(1, "web")];
    world.page("two");
    let (up, pages) = world.clients(&ports, || world.rdeploy(["up", "--canary", "20%,1s", "--drain", "0s"]));
    let up = up.succeeds();
    assert!(up.stderr.contains("web: 20% of the new connections for 1s"), "{}", up.stderr);
    for pages in pages {
        assert!(pages.iter().all(|page| page == "one" || page == "two"), "{pages:?}");
        let first = pages.iter().position(|page| page == "two").expect("somebody tried the new release");
        let rest = &pages[first..];
        let still_old = rest.iter().filter(|page| *page == "one").count();
        assert!(still_old > 0, "all connections changed over at once");
    }
    assert!(ports.iter().all(|port| get(*port).unwrap() == "two"));
}

#[test]
fn a_canary_by_address_gives_a_caller_the_same_release_each_time() {
    let world = World::new(1, &file(""));
    world.rdeploy(["up"]).succeeds();
    let port = world.port(0, "web");
    world.page("two");
    let up = || world.rdeploy(["up", "--canary", "50%,300ms,sticky", "--canary", "90%,300ms,sticky"]);
    let (up, pages) = world.clients(&[port], up);
    let up = up.succeeds();
    assert!(up.stderr.contains("web: 50% of the addresses that connect for 300ms"), "{}", up.stderr);
    let first = pages[0].iter().position(|page| page == "two").unwrap_or(pages[0].len());
    assert!(pages[0][..first].iter().all(|page| page == "one"), "{pages:?}");
    assert!(pages[0][first..].iter().all(|page| page == "two"), "{pages:?}");
    assert_eq!(get(port).unwrap(), "two");
}

#[test]
fn a_canary_that_ends_leaves_the_old_release_to_everybody() {
    let world = World::new(2, &file(""));
    world.rdeploy(["up"]).succeeds();
    let names = world.names(0);
    world.page("two");
    // It listens, and ends a moment later.
    world.write(
        "compose.yaml",
        &file(", command: [sh, -c, 'httpd -p 80 -h /; echo out of luck; sleep 1; exit 5']"),
    );
    let up = world.rdeploy(["up", "--canary", "50%,5m"]).fails();
    assert!(up.stderr.contains("ended with code 5") && up.stderr.contains("| out of luck"), "{}", up.stderr);
    for host in 0..2 {
        assert_eq!(world.names(host), names);
        let port = world.port(host, "web");
        assert!((0..20).all(|_| get(port).unwrap() == "one"));
    }
    let history = world.rdeploy(["history"]).succeeds().stdout;
    assert!(history.contains("called off"), "{history}");
}

#[test]
fn a_canary_that_is_cut_off_ends() {
    let world = World::new(1, &file(""));
    world.rdeploy(["up"]).succeeds();
    let names = world.names(0);
    world.page("two");
    let mut up = world.spawn(["up", "--canary", "50%,5m", "--drain", "0s"]);
    let port = world.port(0, "web");
    while get(port).unwrap() != "two" {}
    up.kill().unwrap();
    up.wait().unwrap();
    world.settle(0);
    assert_eq!(world.names(0), names);
    assert!((0..20).all(|_| get(port).unwrap() == "one"));
}

#[test]
fn a_service_that_cannot_run_twice_says_that_there_is_no_canary() {
    let file = |value: &str| {
        let volume = format!(", volumes: ['data:/data'], environment: {{A: '{value}'}}");
        format!("{}volumes: {{data: {{}}}}\n", file(&volume))
    };
    let world = World::new(1, &file("1"));
    world.rdeploy(["up"]).succeeds();
    world.write("compose.yaml", &file("2"));
    let up = world.rdeploy(["up", "--canary", "50%,5m", "--drain", "0s"]).succeeds();
    assert!(up.stderr.contains("there is no canary"), "{}", up.stderr);
}
