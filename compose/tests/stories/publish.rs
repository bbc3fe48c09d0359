//! A project's files at a registry.

use crate::world::{Outcome, Registry, World};

#[test]
fn a_project_is_published_and_started_from_where_it_was_published() {
    let registry = Registry::start();
    let world = World::new(
        "services:\n  web:\n    image: box\n    command: [sleep, \"1000\"]\n    stop_grace_period: 0s\n",
    );
    world.write("more.yaml", "services: {web: {labels: {from: more}}}\n");
    let name = format!("{}/team/shop:1", registry.address);
    let published = world.rcompose(["-f", "compose.yaml", "-f", "more.yaml", "publish", &name]).succeeds();
    assert!(published.stdout.starts_with("sha256:"), "{}", published.stdout);
    // Nothing of the directory it came from is needed.
    let address = format!("oci://{name}");
    let config = world.rcompose(["-f", &address, "config"]).succeeds().stdout;
    assert!(config.contains("from: more"), "{config}");
    world.rcompose(["-f", &address, "up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p-web-1"]);
    world.rcompose(["-f", &address, "down"]).succeeds();
    let mut forbidden = world.command(["-f", &address, "config"]);
    let forbidden = Outcome::of(forbidden.env("COMPOSE_EXPERIMENTAL_OCI_REMOTE", "0"));
    assert!(forbidden.code == 1 && forbidden.stderr.contains("disabled"), "{}", forbidden.stderr);
    // A registry that knows no kinds of artifacts is told by the configuration's.
    let old = format!("{name}.0");
    world.rcompose(["publish", "--oci-version", "1.0", &old]).succeeds();
    world.rcompose(["-f", &format!("oci://{old}"), "config", "-q"]).succeeds();
    let app = world.rcompose(["publish", "--app", &name]);
    assert!(app.code == 1 && app.stderr.contains("--app is not supported"), "{}", app.stderr);
    let missing = world.rcompose(["-f", &format!("{address}0"), "config"]);
    assert!(missing.code == 1 && missing.stderr.contains(&format!("{address}0")), "{}", missing.stderr);
}

#[test]
fn files_that_services_extend_and_their_variables_go_along() {
    let registry = Registry::start();
    let world = World::new("");
    world.write(
        "compose.yaml",
        "services:
  web: {extends: {service: base, file: '${PARTS}/base.yaml'}, env_file: [web.env, {path: \"no.env\", required: false}]}
  two: {extends: {service: base, file: parts/base.yaml}}
",
    );
    world.write(".env", "PARTS=parts\n");
    world.write("web.env", "A=1\n");
    world.write(
        "parts/base.yaml",
        "services: {base: {extends: {file: root.yaml, service: root}, env_file: base.env}}\n",
    );
    world.write("parts/root.yaml", "services: {root: {image: box, command: [sleep, '9']}}\n");
    world.write("parts/base.env", "B=2\n");
    let name = format!("{}/team/parts:1", registry.address);
    let refused = world.rcompose(["publish", &name]);
    assert!(refused.code == 1 && refused.stderr.contains("--with-env"), "{}", refused.stderr);
    let here = world.rcompose(["config"]).succeeds().stdout;
    world.rcompose(["publish", "--with-env", &name]).succeeds();
    for file in ["compose.yaml", ".env", "web.env", "parts/base.yaml", "parts/root.yaml", "parts/base.env"] {
        std::fs::remove_file(world.project().join(file)).unwrap();
    }
    let there = world.rcompose(["-p", "p", "-f", &format!("oci://{name}"), "config"]).succeeds().stdout;
    assert_eq!(there, here);
}

#[test]
fn files_that_are_included_and_labels_go_along() {
    let registry = Registry::start();
    let world = World::new("");
    world.write(
        "compose.yaml",
        "include:
  - parts/db.yaml
  - {path: [more/a.yaml, more/b.yaml], env_file: more/own.env}
services:
  web: {image: box, label_file: web.labels, depends_on: [db]}
",
    );
    world.write("web.labels", "team=shop\n");
    world.write("parts/db.yaml", "services: {db: {image: box, label_file: [db.labels]}}\n");
    world.write("parts/db.labels", "team=data\n");
    world.write("more/a.yaml", "services: {more: {image: box, labels: {level: '${LEVEL}'}}}\n");
    world.write("more/b.yaml", "services: {more: {user: '7'}}\n");
    world.write("more/own.env", "LEVEL=high\n");
    let name = format!("{}/team/whole:1", registry.address);
    let refused = world.rcompose(["publish", &name]);
    assert!(refused.code == 1 && refused.stderr.contains("--with-env"), "{}", refused.stderr);
    world.write("parts/.env", "A=1\n");
    let refused = world.rcompose(["publish", "--with-env", &name]);
    assert!(refused.code == 1 && refused.stderr.contains("parts/.env"), "{}", refused.stderr);
    std::fs::remove_file(world.project().join("parts/.env")).unwrap();
    let here = world.rcompose(["config"]).succeeds().stdout;
    assert!(here.contains("team: data") && here.contains("level: high"), "{here}");
    world.rcompose(["publish", "--with-env", &name]).succeeds();
    for part in ["compose.yaml", "web.labels", "parts", "more"] {
        let path = world.project().join(part);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
    }
    let there = world.rcompose(["-p", "p", "-f", &format!("oci://{name}"), "config"]).succeeds().stdout;
    assert_eq!(there, here);
}

#[test]
fn what_others_could_not_start_or_should_not_read_is_not_published() {
    let world = World::new("");
    let refuse = |file: &str, wanted: &str| {
        world.write("compose.yaml", file);
        let outcome = world.rcompose(["publish", "127.0.0.1:1/team/shop"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(wanted), "{wanted} is missing in {}", outcome.stderr);
    };
    refuse("services: {web: {build: .}}\n", "need an `image:`");
    refuse("services: {web: {image: box, environment: {KEY: secret}}}\n", "--with-env");
    world.write("web.env", "KEY=secret\n");
    refuse("services: {web: {image: box, env_file: web.env}}\n", "env_file");
    world.write("compose.yaml", "services: {web: {image: box, volumes: [\"/etc:/host\"]}}\n");
    let asked = world.rcompose(["publish", "127.0.0.1:1/team/shop"]);
    assert!(asked.code == 1 && asked.stderr.contains("web: /etc"), "{} {}", asked.stdout, asked.stderr);
}
