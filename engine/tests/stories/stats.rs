//! What containers use, and how their limits change while they run.

use crate::world::{BOX, World};

#[test]
fn usage_is_shown_as_docker_shows_it() {
    let world = World::new();
    world.background("--network none --name busy -m 64m", "while :; do :; done");
    world.rengine(["create", "--network", "none", "--name", "idle", BOX, "true"]).succeeds();
    let table = world.rengine(["stats", "--no-stream"]).succeeds().stdout;
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    let columns =
        ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    assert_eq!(head.split("   ").map(str::trim).filter(|name| !name.is_empty()).collect::<Vec<_>>(), columns);
    let row = lines.next().unwrap();
    assert!(row.contains("busy") && row.contains("/ 64MiB"), "{row}");
    assert_eq!(lines.next(), None);

    let format = "{{.Name}} {{.CPUPerc}} {{.PIDs}} {{.NetIO}}";
    let rows = world.rengine(["stats", "--no-stream", "--all", "--format", format]).succeeds().stdout;
    assert!(rows.contains("idle 0.00% 0 0B / 0B\n"), "{rows}");
    let busy = rows.lines().find(|row| row.starts_with("busy")).unwrap();
    let percent: f64 = busy.split([' ', '%']).nth(1).unwrap().parse().unwrap();
    // How much it gets is the machine's business; that it gets something is not.
    assert!(percent > 0.0 && busy.ends_with(" 1 0B / 0B"), "{busy}");
    world.rengine(["stats", "--no-stream", "nosuch"]).exits(1).complains("no such container");
}

#[test]
fn limits_change_on_a_live_container_and_stay() {
    let world = World::new();
    world.background("--network none --name it -m 64m --pids-limit 50", "sleep 1000");
    let pids = [
        "exec",
        "it",
        "sh",
        "-c",
        "i=0; while [ $i -lt 8 ]; do sleep 100 >/dev/null 2>&1 & i=$((i+1)); done; echo made",
    ];
    world
        .rengine([
            "update",
            "-m",
            "128m",
            "--memory-swap",
            "256m",
            "--pids-limit",
            "5",
            "--cpu-shares",
            "512",
            "it",
        ])
        .succeeds()
        .prints("it\n");
    let made = world.rengine(pids);
    assert!(!made.stdout.contains("made"), "{made:?}");
    let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpuShares}}";
    assert_eq!(world.inspect("it", format), "134217728 268435456 5 512");
    let row = world.rengine(["stats", "--no-stream", "--format", "{{.MemUsage}}", "it"]).succeeds().line();
    assert!(row.ends_with("/ 128MiB"), "{row}");
    world.rengine(["update", "--cpuset-cpus", "0", "it"]).succeeds();
    let allowed =
        world.rengine(["exec", "it", "grep", "Cpus_allowed_list", "/proc/1/status"]).succeeds().stdout;
    assert_eq!(allowed.split_whitespace().nth(1), Some("0"));
    world.rengine(["restart", "-t", "0", "it"]).succeeds();
    let allowed =
        world.rengine(["exec", "it", "grep", "Cpus_allowed_list", "/proc/1/status"]).succeeds().stdout;
    assert_eq!(allowed.split_whitespace().nth(1), Some("0"));
}

#[test]
fn a_limit_that_cannot_hold_changes_nothing() {
    let world = World::new();
    world.background("--network none --name it -m 64m --memory-swap 64m --cpus 1", "sleep 1000");
    world.rengine(["update", "-m", "128m", "it"]).exits(1).complains("change --memory-swap");
    world.rengine(["update", "-m", "1m", "it"]).exits(1).complains("6 MiB");
    world.rengine(["update", "--cpu-quota", "5000", "it"]).exits(1).complains("--cpus");
    world.rengine(["update", "--cpuset-cpus", "4000", "it"]).exits(1).complains("cpuset");
    world.rengine(["update", "--cpus", "4000", "it"]).exits(1).complains("there are no more");
    assert_eq!(world.inspect("it", "{{.HostConfig.Memory}}/{{.HostConfig.CpusetCpus}}/"), "67108864//");
    world.rengine(["restart", "-t", "0", "it"]).succeeds();
}

#[test]
fn the_restart_policy_changes_on_a_live_container() {
    let world = World::new();
    world.background(
        "--network none --name it",
        "[ -e /go ] && sleep 1000; until [ -e /go ]; do usleep 10000; done",
    );
    world.rengine(["update", "--restart", "always", "it"]).succeeds();
    assert_eq!(world.inspect("it", "{{.HostConfig.RestartPolicy.Name}}"), "always");
    world.rengine(["exec", "it", "touch", "/go"]).succeeds();
    let mut events =
        world.follow(["events", "--since", "1h", "-f", "event=start", "--format", "{{.Action}}"]);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(events.output()));
    assert_eq!(lines.by_ref().take(2).map(Result::unwrap).collect::<Vec<_>>(), ["start", "start"]);
    world.background("--network none --name gone --rm", "sleep 1000");
    world.rengine(["update", "--restart", "always", "gone"]).exits(1).complains("it removes itself");
}
