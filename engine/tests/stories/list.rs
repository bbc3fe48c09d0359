//! What is there, shown: lists with filters and formats, processes, facts, space.

use crate::world::{BOX, World};

#[test]
fn containers_are_listed_by_what_they_are() {
    let world = World::new();
    world.background("--network none --name web-1 -l tier=front -v data:/data --expose 80", "sleep 1000");
    world
        .rengine(["create", "--network", "none", "--name", "web-2", "-l", "tier=back", BOX, "true"])
        .succeeds();
    world.run("--network none --name gone", "true").succeeds();
    world.rengine(["run", "--network", "none", "--name", "failed", BOX, "sh", "-c", "exit 3"]).exits(3);
    let names = |filters: &[&str]| {
        let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
        filters.iter().for_each(|filter| args.extend(["-f", filter]));
        world.rengine(args).succeeds().stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (filters, expected) in [
        (&["name=web"][..], "web-2 web-1"),
        (&["name=^web-1$", "name=failed"], "failed web-1"),
        (&["label=tier=back"], "web-2"),
        (&["label=tier", "status=running"], "web-1"),
        (&["exited=3"], "failed"),
        (&["status=created", "status=exited"], "failed web-2"),
        (&["volume=data"], "web-1"),
        (&["volume=/data"], "web-1"),
        (&["expose=70-90/tcp"], "web-1"),
        (&["ancestor=box", "before=web-2"], "web-1"),
        (&["since=web-2"], "failed"),
        (&["health=none", "network=none", "name=failed"], "failed"),
        (&["health=healthy"], ""),
    ] {
        assert_eq!(names(filters), expected, "{filters:?}");
    }
    world.rengine(["ps", "-f", "status=asleep"]).exits(1).complains("status is one of");
    world.rengine(["ps", "-f", "isolation=x"]).exits(1).complains("invalid filter 'isolation'");
    let format = r#"{{.Names}} {{.Label "tier"}}/{{.Label "none"}} {{.LocalVolumes}}"#;
    world.rengine(["ps", "--format", format]).succeeds().prints("web-1 front/ 1\n");
    let json = world.rengine(["ps", "--format", "json"]).succeeds().line();
    assert!(json.contains(r#""Names":"web-1""#) && !json.contains("methods"), "{json}");
    world.rengine(["exec", "web-1", "sh", "-c", "printf 12345 >/file"]).succeeds();
    world.rengine(["ps", "-s", "--format", "{{.Size}}"]).succeeds().shows("5B (virtual ");
    world.rengine(["ps", "--format", "{{.Size}}"]).succeeds().shows("5B (virtual ");
    assert_eq!(world.rengine(["inspect", "-s", "-f", "{{.SizeRw}}", "web-1"]).succeeds().line(), "5");
}

#[test]
fn only_those_that_match_are_pruned() {
    let world = World::new();
    for (name, label) in [("one", "keep=no"), ("two", "keep=yes"), ("three", "other=x")] {
        world.rengine(["create", "--network", "none", "--name", name, "-l", label, BOX, "true"]).succeeds();
    }
    world.rengine(["container", "prune", "-f", "--filter", "until=1h"]).succeeds().shows("0B");
    world.rengine(["container", "prune", "-f", "--filter", "label=keep=no"]).succeeds();
    world.rengine(["container", "prune", "-f", "--filter", "label!=keep"]).succeeds();
    world.rengine(["ps", "-a", "--format", "{{.Names}}"]).succeeds().prints("two\n");
    world
        .rengine(["container", "prune", "-f", "--filter", "name=two"])
        .exits(1)
        .complains("invalid filter 'name'");
    world.rengine(["volume", "prune", "-f"]).succeeds();
    let told =
        world.rengine(["events", "--since", "1h", "--until", "0s", "--filter", "event=prune"]).succeeds();
    let told: Vec<&str> = told.stdout.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    let container = "container prune  (reclaimed=0)";
    assert_eq!(told, [container, container, container, "volume prune  (reclaimed=0)"]);
}

#[test]
fn processes_are_shown_in_the_columns_that_ps_is_asked_for() {
    let world = World::new();
    world.background("--network none --name it -u guest", "sleep 1000");
    let head = |options: &[&str]| {
        let table = world.rengine(["top", "it"].iter().chain(options)).succeeds().stdout;
        let lines: Vec<Vec<String>> =
            table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        (lines[0].join(" "), lines[1].join(" "))
    };
    let (columns, row) = head(&[]);
    assert_eq!(columns, "UID PID PPID C STIME TTY TIME CMD");
    assert!(row.ends_with("sleep 1000"), "{row}");
    let (columns, row) = head(&["-o", "pid,uid,comm,nlwp"]);
    assert_eq!(columns, "PID UID COMMAND NLWP");
    assert!(row.ends_with(" 1000 sleep 1") || row.ends_with(" 1000 busybox 1"), "{row}");
    assert_eq!(head(&["aux"]).0, "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
    world.rengine(["top", "it", "--forest"]).exits(1).complains("--forest");
}

#[test]
fn space_is_counted_once() {
    let world = World::new();
    world.rengine(["tag", BOX, "again:1"]).succeeds();
    world.background(
        "--network none --name it -v data:/data",
        "printf 123 >/data/file; printf 12345 >/file; echo out; sleep 1000",
    );
    world.await_file("it", "/file");
    world.rengine(["commit", "it", "made:1"]).succeeds();
    let rows =
        world.rengine(["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Reclaimable}}"]);
    let rows = rows.succeeds().stdout;
    let row = |kind: &str| rows.lines().find(|row| row.starts_with(kind)).unwrap().to_owned();
    assert_eq!(row("Images"), "Images|2|1|5B (0%)");
    assert_eq!(row("Containers"), "Containers|1|1|0B (0%)");
    assert_eq!(row("Local Volumes"), "Local Volumes|1|1|0B (0%)");
    let json = world.rengine(["system", "df", "--format", "json"]).succeeds().stdout;
    assert!(json.contains(r#""Type":"Local Volumes""#) && json.contains(r#""Size":"3B""#), "{json}");
    let all = world.rengine(["system", "df", "-v"]).succeeds().stdout;
    let made = all.lines().find(|line| line.starts_with("made ")).unwrap();
    assert!(made.contains(" 5B ") && all.contains("Local Volumes space usage:"), "{all}");
}

#[test]
fn everything_known_of_a_container_is_in_dockers_places() {
    let world = World::new();
    world
        .rengine([
            "run",
            "-d",
            "--name",
            "it",
            "-v",
            "data:/data:ro",
            "-e",
            "A=1",
            "-w",
            "/tmp",
            BOX,
            "sleep",
            "1000",
        ])
        .succeeds();
    for (format, expected) in [
        ("{{.Path}} {{.Args}} {{json .Config.Cmd}}", r#"sleep [1000] ["sleep","1000"]"#),
        (
            "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.Mode}} {{.RW}}{{end}}",
            "volume data /data ro false",
        ),
        (
            "{{.State.Status}} {{.State.Running}} {{.State.OOMKilled}} {{.State.ExitCode}}",
            "running true false 0",
        ),
        ("{{.Config.WorkingDir}} {{.Config.Tty}} {{.HostConfig.NetworkMode}}", "/tmp false bridge"),
        ("{{json .ExecIDs}}{{json .NetworkSettings.Bridge}}", r#"null"""#),
        ("{{.GraphDriver.Name}} {{.Driver}} {{.Platform}}", "overlay overlay linux"),
    ] {
        assert_eq!(world.inspect("it", format), expected);
    }
    let address = world.inspect("it", "{{.NetworkSettings.IPAddress}}");
    assert_eq!(world.inspect("it", "{{.NetworkSettings.Networks.bridge.IPAddress}}"), address);
}
