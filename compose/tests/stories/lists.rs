//! Lists and tables: what they show, and in which form.

use crate::world::{Registry, World};

const PROJECT: &str = r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    labels: {tier: front}
    stop_grace_period: 0s
  db: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
"#;

#[test]
fn rows_take_the_form_of_a_template() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d"]).succeeds();
    let print = |arguments: &[&str]| world.rcompose(arguments.iter().copied()).succeeds().stdout;
    assert_eq!(print(&["ps", "--format", "{{.Service}}={{.State}}"]), "db=running\nweb=running\n");
    assert_eq!(print(&["ps", "web", "--format", r#"{{.Label "tier"}} {{.Project}}"#]), "front p\n");
    let table = print(&["ps", "--format", "table {{.Name}}\t{{.Service}}"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["NAME", "SERVICE"], ["p-db-1", "db"], ["p-web-1", "web"]]);
    let wrong = world.rcompose(["ps", "--format", "{{.Name"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (1, ""));
    assert!(wrong.stderr.contains("not closed"), "{}", wrong.stderr);
}

#[test]
fn volumes_are_those_of_the_project_or_of_some_services() {
    let world = World::new(
        "services: {web: {image: box, command: 'true', volumes: ['pages:/w']}, db: {image: box, command: 'true', volumes: ['data:/d']}}\nvolumes: {pages: {}, data: {}}\n",
    );
    world.rcompose(["create"]).succeeds();
    let print = |arguments: &[&str]| world.rcompose(arguments.iter().copied()).succeeds().stdout;
    assert_eq!(print(&["volumes", "-q"]), "p_data\np_pages\n");
    assert_eq!(print(&["volumes", "-q", "web"]), "p_pages\n");
    assert_eq!(print(&["volumes", "db", "--format", "{{.Scope}} {{.Size}}"]), "local N/A\n");
    assert_eq!(world.rcompose(["volumes", "nobody"]).code, 1);
}

#[test]
fn projects_are_found_by_a_regular_expression() {
    let world = World::new("services: {web: {image: box, command: 'true'}}\n");
    for project in ["shop", "shop-test", "wiki"] {
        world.rcompose(["-p", project, "create"]).succeeds();
    }
    for (filters, found) in [
        (&["name=^shop$"][..], "shop\n"),
        (&["name=^(shop|wiki)"], "shop\nshop-test\nwiki\n"),
        (&["name=op"], "shop\nshop-test\n"),
        (&["name=test", "name=wiki"], "shop-test\nwiki\n"),
    ] {
        let flags = filters.iter().flat_map(|filter| ["--filter", filter]);
        let listed = world.rcompose(["ls", "-aq"].into_iter().chain(flags)).succeeds().stdout;
        assert_eq!(listed, found, "{filters:?}");
    }
}

#[test]
fn stats_are_those_of_the_projects_services() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d"]).succeeds();
    let print = |arguments: &[&str]| world.rcompose(arguments.iter().copied()).succeeds().stdout;
    let table = print(&["stats", "--no-stream"]);
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    for column in ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "NET I/O", "BLOCK I/O", "PIDS"] {
        assert!(head.contains(column), "{table}");
    }
    assert_eq!(lines.count(), 2, "{table}");
    let one = print(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web"]);
    assert_eq!(one, "p-web-1 1\n");
    let unknown = world.rcompose(["stats", "--no-stream", "nobody"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("no such service: nobody"), "{}", unknown.stderr);
}

#[test]
fn a_range_of_ports_is_listed_as_one() {
    let taken: Vec<_> = (0..1).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let first = taken[0].local_addr().unwrap().port();
    drop(taken);
    // Three neighbours that nobody listens on; the engine says so if one is taken meanwhile.
    let file = format!(
        "services:\n  web:\n    image: box\n    command: [sleep, \"1000\"]\n    stop_grace_period: 0s\n    ports: [\"127.0.0.5:{first}-{}:{first}-{}\"]\n",
        first + 2,
        first + 2
    );
    let world = World::new(&file);
    world.rcompose(["up", "-d"]).succeeds();
    let last = first + 2;
    let ports = world.rcompose(["ps", "--format", "{{.Ports}}"]).succeeds().stdout;
    assert_eq!(ports, format!("127.0.0.5:{first}-{last}->{first}-{last}/tcp\n"));
}

#[test]
fn images_are_named_by_the_digests_their_registry_has() {
    let registry = Registry::start();
    let image = format!("{}/shop/web:1", registry.address);
    let world =
        World::new(&format!("services:\n  web: {{image: \"{image}\", build: .}}\n  own: {{build: .}}\n"));
    world.engine().images().tag("box", &image.parse().unwrap()).unwrap();
    world.rcompose(["push", "web"]).succeeds();
    let config = world.rcompose(["config", "--resolve-image-digests"]).succeeds().stdout;
    let named = config.lines().find(|line| line.contains("image:")).unwrap().trim().to_owned();
    assert!(named.starts_with(&format!("image: {image}@sha256:")), "{config}");
    let lock = world.rcompose(["config", "--lock-image-digests"]).succeeds().stdout;
    assert_eq!(lock, format!("services:\n  web:\n    {named}\n"));
    // The override is one that can be used.
    world.write("lock.yaml", &lock);
    let locked = world.rcompose(["-f", "compose.yaml", "-f", "lock.yaml", "config"]).succeeds().stdout;
    assert!(locked.contains(&named), "{locked}");
}

#[test]
fn filters_that_mean_nothing_are_refused_and_nobody_need_read_what_is_said() {
    let world =
        World::new("services: {web: {image: box, command: [sleep, '1000'], stop_grace_period: 0s}}\n");
    for (args, why) in [
        (["ls", "--filter", "nosuch=x"], "name=REGEX is needed"),
        (["ls", "--filter", "name=a["], "invalid filter \"name=a[\""),
        (["ps", "--filter", "nosuch=x"], "status=STATE is needed"),
        (["ps", "--status", "nosuch"], "the states are created, running"),
    ] {
        let refused = world.rcompose(args);
        assert!(refused.code == 1 && refused.stderr.contains(why), "{args:?}: {}", refused.stderr);
    }
    // Whoever read what is said has gone: the work is done all the same.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = world.command(["up", "-d"]).stderr(writer).status().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(world.running(), ["p-web-1"]);
}
