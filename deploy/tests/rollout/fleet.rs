//! Several hosts are of one version, whatever happens on one of them.

use std::fs;

use crate::world::{World, get};

const WEB: &str = "
services:
  web: {build: ., ports: ['80'], stop_grace_period: 0s}
";

#[test]
fn a_failure_on_one_host_leaves_all_on_the_old_version() {
    let world = World::new(4, WEB);
    world.rdeploy(["up"]).succeeds();
    let ports: Vec<u16> = (0..4).map(|host| world.port(host, "web")).collect();
    world.page("two");
    // On the third host somebody has the name that the new container needs until it takes over.
    let foreign = ["run", "-d", "--name", "next_p-web-1", "--network", "none"];
    let image = world.engine(2).container("p-web-1").unwrap().record.spec.image.clone();
    world.rengine(2, foreign.into_iter().chain([image.as_str(), "sleep", "1000"])).succeeds();
    let up = world.rdeploy(["up"]).fails();
    assert!(up.stderr.contains("host2"), "{}", up.stderr);
    for (host, port) in ports.iter().enumerate() {
        assert_eq!(get(*port).unwrap(), "one", "host {host}");
    }
    assert_eq!(
        [world.names(0), world.names(1), world.names(3)],
        [(); 3].map(|()| vec!["p-web-1".to_owned()])
    );
    world.rengine(2, ["rm", "-f", "next_p-web-1"]).succeeds();
    world.rdeploy(["up"]).succeeds();
    for port in &ports {
        assert_eq!(get(*port).unwrap(), "two");
    }
}

#[test]
fn a_host_that_cannot_change_over_takes_the_others_back() {
    let world = World::new(3, WEB);
    world.rdeploy(["up"]).succeeds();
    let ports: Vec<u16> = (0..3).map(|host| world.port(host, "web")).collect();
    world.page("two");
    // When all are ready, the new container of one host is taken away under the rollout's hands and cannot be made again.
    let root = world.root(1);
    let hook = format!(
        "{} rengine --root {} rm -f next_p-web-1 && {} rengine --root {} image rm -f $({} rengine --root {} images -q | head -1)",
        env!("CARGO_BIN_EXE_rdeploy"),
        root.display(),
        env!("CARGO_BIN_EXE_rdeploy"),
        root.display(),
        env!("CARGO_BIN_EXE_rdeploy"),
        root.display(),
    );
    world.write("rdeploy.yaml", &format!("hooks:\n  before-commit: ['{hook}']\n"));
    let up = world.rdeploy(["up"]).fails();
    assert!(up.stderr.contains("host1"), "{}", up.stderr);
    for (host, port) in ports.iter().enumerate() {
        assert_eq!(get(*port).unwrap(), "one", "host {host}: {}", up.stderr);
        assert_eq!(world.names(host), ["p-web-1"]);
    }
    fs::remove_file(world.project().join("rdeploy.yaml")).unwrap();
    world.rdeploy(["up"]).succeeds();
    for port in &ports {
        assert_eq!(get(*port).unwrap(), "two");
    }
}

#[test]
fn two_deployments_of_one_project_take_turns() {
    let world = World::new(1, WEB);
    world.rdeploy(["up"]).succeeds();
    world.write(
        "rdeploy.yaml",
        "hooks:\n  before-commit: ['touch waiting; while [ -e waiting ]; do sleep 0.02; done']\n",
    );
    world.page("two");
    let first = world.spawn(["up"]);
    let waiting = world.project().join("waiting");
    while !waiting.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = world.rdeploy(["up"]).fails();
    assert!(second.stderr.contains("project p is being changed by"), "{}", second.stderr);
    fs::remove_file(&waiting).unwrap();
    let output = first.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(get(world.port(0, "web")).unwrap(), "two");
}

#[test]
fn services_run_on_the_hosts_that_have_their_role() {
    let world = World::new(
        2,
        "
services:
  web: {build: ., ports: ['80'], stop_grace_period: 0s}
  jobs: {build: ., command: [sleep, '1000'], depends_on: [web], stop_grace_period: 0s}
  logs: {build: ., command: [sleep, '1000'], stop_grace_period: 0s}
",
    );
    let host = |number| format!("local:{}", world.root(number).display());
    world.write(
        "rdeploy.yaml",
        &format!(
            "roles: {{front: [web], back: [jobs]}}
hosts:
  - {{address: '{}', roles: [front]}}
  - {{address: '{}', roles: [back]}}
",
            host(0),
            host(1)
        ),
    );
    world.rdeploy(["up"]).succeeds();
    assert_eq!(world.names(0), ["p-logs-1", "p-web-1"]);
    assert_eq!(world.names(1), ["p-jobs-1", "p-logs-1"]);
}
