//! Several hosts are of one version, whatever happens on one of them.

use std::fs;

use crate::world::{World, get};

const WEB: &str = "
services:
  web: {build: ., ports: ['80'], stop_grace_period: 0s}
";

/// Where a deployment fails on one host of four.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Connect,
    Lock,
    Transfer,
    Prepare,
    Canary,
    Hook,
    Commit,
}

/// A line of shell that says this to a host's engine.
fn rengine(world: &World, host: usize, words: &str) -> String {
    format!("{} rengine --root {} {words}", env!("CARGO_BIN_EXE_rdeploy"), world.root(host).display())
}

impl Phase {
    /// Has the next deployment fail on host 1. What undoes that.
    fn break_host(self, world: &World) -> Box<dyn Fn() + '_> {
        let hooks = |line: String| {
            world.write("rdeploy.yaml", &format!("hooks:\n  before-commit: ['{line}']\n"));
            move || fs::remove_file(world.project().join("rdeploy.yaml")).unwrap()
        };
        match self {
            Self::Connect => {
                // An agent cannot open an engine whose state somebody has put a file in the way of.
                let (state, aside) = (world.root(1).join("containers"), world.root(1).join("aside"));
                fs::rename(&state, &aside).unwrap();
                fs::write(&state, "").unwrap();
                Box::new(move || {
                    fs::remove_file(&state).unwrap();
                    fs::rename(&aside, &state).unwrap();
                })
            }
            Self::Lock => {
                world.on_one(1, ["lock", "acquire", "--for", "1h"]).succeeds();
                Box::new(|| drop(world.on_one(1, ["lock", "release"]).succeeds()))
            }
            Self::Transfer => {
                let place = world.root(1).join("transfers");
                let _ = fs::remove_dir_all(&place);
                fs::write(&place, "").unwrap();
                Box::new(move || fs::remove_file(&place).unwrap())
            }
            Self::Prepare => {
                let image = world.engine(1).container("p-web-1").unwrap().record.spec.image.clone();
                let foreign = ["run", "-d", "--name", "next_p-web-1", "--network", "none", &image];
                world.rengine(1, foreign.into_iter().chain(["sleep", "1000"])).succeeds();
                Box::new(|| drop(world.rengine(1, ["rm", "-f", "next_p-web-1"]).succeeds()))
            }
            Self::Canary | Self::Commit => {
                // When all are ready, the new container of one host is taken away under the rollout's hands, and cannot be
                // made again.
                let image = rengine(world, 1, "images -q | head -1");
                let rm = rengine(world, 1, "rm -f next_p-web-1");
                Box::new(hooks(format!("{rm} && {}", rengine(world, 1, &format!("image rm -f $({image})")))))
            }
            Self::Hook => Box::new(hooks("exit 7".to_owned())),
        }
    }
}

#[test]
fn a_host_that_is_lost_does_not_hide_the_others() {
    let world = World::new(2, WEB);
    world.rdeploy(["up"]).succeeds();
    let mend = Phase::Connect.break_host(&world);
    for command in ["status", "history", "drift", "logs"] {
        let shown = world.rdeploy([command]).fails();
        assert!(command == "logs" || shown.stdout.contains(&world.host(0)), "{command}: {}", shown.stdout);
        assert!(shown.stderr.contains(&world.host(1)), "{command}: {}", shown.stderr);
    }
    // Who changes something does so on all of them or on none.
    world.page("two");
    for command in ["up", "stop"] {
        assert!(world.rdeploy([command]).fails().stderr.contains(&world.host(1)), "{command}");
    }
    assert_eq!(get(world.port(0, "web")).unwrap(), "one");
    mend();
    world.rdeploy(["status"]).succeeds();
}

#[test]
fn a_failure_on_one_of_four_hosts_leaves_all_on_the_old_version_in_each_phase() {
    use Phase::{Canary, Commit, Connect, Hook, Lock, Prepare, Transfer};
    const HOSTS: usize = 4;
    let world = World::new(HOSTS, WEB);
    world.rdeploy(["up"]).succeeds();
    let ports: Vec<u16> = (0..HOSTS).map(|host| world.port(host, "web")).collect();
    for phase in [Connect, Lock, Transfer, Prepare, Canary, Hook, Commit] {
        world.page(&format!("{phase:?}"));
        let mend = phase.break_host(&world);
        let words = if matches!(phase, Canary) { &["up", "--canary", "20%,1m"][..] } else { &["up"] };
        let up = world.rdeploy(words).fails();
        assert!(up.stderr.contains("host1") || matches!(phase, Hook), "{phase:?}: {}", up.stderr);
        mend();
        for (host, port) in ports.iter().enumerate() {
            world.settle(host);
            assert_eq!(get(*port).unwrap(), "one", "{phase:?}, host {host}: {}", up.stderr);
            assert_eq!(world.names(host), ["p-web-1"], "{phase:?}, host {host}");
        }
    }
    world.rdeploy(["up", "--drain", "0s"]).succeeds();
    for port in &ports {
        assert_eq!(get(*port).unwrap(), "Commit");
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
    // A program is run where the service is, and not on the first host there happens to be.
    assert_eq!(world.rdeploy(["exec", "jobs", "echo", "here"]).succeeds().stdout, "here\n");
    let everywhere = world.rdeploy(["exec", "--all-hosts", "logs", "echo", "here"]).succeeds().stdout;
    let mut lines: Vec<&str> = everywhere.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, [format!("{}  here", host(0)), format!("{}  here", host(1))]);
    let failing = world.rdeploy(["exec", "--all-hosts", "web", "sh", "-c", "exit 7"]);
    assert_eq!(failing.code, 7, "{}", failing.stderr);
}
