//! The commands besides `up` and `down`: what they print, what they change, and what they leave alone.

use std::fs;

use serde_json::Value as Json;

use crate::world::{Registry, World};

/// Two services that go on, one of which serves pages.
const PROJECT: &str = r#"
services:
  web:
    image: box
    command: ["httpd", "-f", "-p", "8080", "-h", "/etc"]
    stop_grace_period: 0s
    ports: ["8080"]
  db: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
"#;

#[test]
fn lists_are_about_the_project_and_have_dockers_shape() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d"]).succeeds();
    world.rcompose(["kill", "db"]).succeeds();
    let print = |arguments: &[&str]| world.rcompose(arguments.iter().copied()).succeeds().stdout;
    let table = print(&["ps"]);
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]);
    assert_eq!(table.lines().count(), 2, "what does not run is not shown:\n{table}");
    assert_eq!(print(&["ps", "-a"]).lines().count(), 3);
    assert_eq!(print(&["ps", "--services"]), "web\n");
    assert_eq!(print(&["ps", "-aq", "--status", "exited"]), format!("{}\n", world.ids_of("db")[0]));
    let rows: Vec<Json> = print(&["ps", "-a", "--format", "json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let db = rows.iter().find(|row| row["Service"] == "db").unwrap();
    assert_eq!((&db["State"], &db["ExitCode"], &db["Project"]), (&"exited".into(), &137.into(), &"p".into()));
    let projects: Json = serde_json::from_str(&print(&["ls", "-a", "--format", "json"])).unwrap();
    assert_eq!(projects[0]["Name"], "p");
    assert_eq!(projects[0]["Status"], "exited(1), running(1)");
    assert_eq!(projects[0]["ConfigFiles"], world.project().join("compose.yaml").to_str().unwrap());
    assert_eq!(print(&["ls", "-q"]), "p\n");
    let top = print(&["top", "web"]);
    let (head, processes) = top.split_once('\n').unwrap();
    assert!(head.starts_with("SERVICE  #   UID"), "{top}");
    assert!(
        processes.starts_with("web      1   root") && processes.ends_with("httpd -f -p 8080 -h /etc\n"),
        "{top}"
    );
    let images = print(&["images"]);
    assert!(images.contains("p-web-1") && images.contains("CREATED"), "{images}");
    let images: Json = serde_json::from_str(&print(&["images", "--format", "json"])).unwrap();
    assert!(images[0]["LastTagTime"].is_string(), "{images}");
    assert_eq!(world.rcompose(["ls", "--format", "xml"]).code, 1);
    let port = world.port("web", 8080);
    assert_eq!(print(&["port", "web", "8080"]), format!("0.0.0.0:{port}\n"));
    let version = print(&["version", "--short"]);
    assert_eq!(print(&["version", "--format", "json"]), format!("{{\"version\":\"{}\"}}\n", version.trim()));
}

#[test]
fn run_makes_a_container_of_its_own() {
    let world = World::new(PROJECT);
    let id = world.rcompose(["run", "-d", "--name", "mine", "web"]).succeeds().stdout;
    let container = world.container("mine");
    assert_eq!(id.trim(), container.id().as_str());
    assert_eq!(container.ports, [], "its ports are not published");
    assert_eq!(container.record.spec.labels["com.docker.compose.oneoff"], "True");
    let logs = world.rcompose([
        "run",
        "--rm",
        "-T",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "7",
        "db",
        "sh",
        "-c",
        "echo $A $PWD $(id -u)",
    ]);
    assert_eq!(logs.succeeds().stdout, "b /tmp 7\n");
    world.rcompose(["run", "-d", "-P", "--name", "open", "web"]).succeeds();
    assert_eq!(world.container("open").ports[0].container.port, 8080);
    assert_eq!(world.rcompose(["run", "--rm", "-T", "db", "nothing-like-this"]).code, 127);
    let own = world.rcompose(["run", "--rm", "-T", "db", "echo", "-e", "--name", "--help"]).succeeds();
    assert_eq!(own.stdout, "--name --help\n");
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.ids_of("web").len(), 3, "up leaves one-offs alone");
    world.rcompose(["down"]).succeeds();
    assert_eq!(world.names(), [] as [String; 0], "and down takes them along");
}

#[test]
fn files_are_copied_both_ways_and_images_made() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d", "--scale", "db=2"]).succeeds();
    world.write("here/file", "from here\n");
    world.rcompose(["cp", "here", "db:/there"]).succeeds();
    for index in ["1", "2"] {
        let read = world.rcompose(["exec", "-T", "--index", index, "db", "cat", "/there/file"]);
        assert_eq!(read.succeeds().stdout, "from here\n", "all containers get it");
    }
    world.rcompose(["exec", "-T", "--index", "2", "db", "sh", "-c", "echo back > /back"]).succeeds();
    world.rcompose(["cp", "--index", "2", "db:/back", "back"]).succeeds();
    assert_eq!(fs::read_to_string(world.project().join("back")).unwrap(), "back\n");
    assert_eq!(world.rcompose(["cp", "back", "nobody:/"]).code, 1);
    world.rcompose(["commit", "db", "copied"]).succeeds();
    assert!(world.engine().images().find("copied").unwrap().is_some());
    world.rcompose(["export", "-o", "root.tar", "db"]).succeeds();
    assert!(fs::metadata(world.project().join("root.tar")).unwrap().len() > 10_000);
}

#[test]
fn images_are_built_pushed_pulled_and_removed() {
    let registry = Registry::start();
    let world = World::new(&format!(
        r#"
services:
  named: {{build: src, image: "{0}/named:1"}}
  local: {{build: {{context: src, args: {{PAGE: other}}, provenance: true}}}}
  fetched: {{image: "{0}/named:1", command: [cat, /page], pull_policy: always}}
"#,
        registry.address
    ));
    world.write(
        "src/Dockerfile",
        "FROM box\nARG PAGE=page\nRUN echo $PAGE > /page\nCMD [\"cat\", \"/page\"]\n",
    );
    // The place where docker compose had the option at first.
    let told = world.rcompose(["build", "--progress=json"]).succeeds().stderr;
    assert!(told.contains(r#""text":"Built""#), "{told}");
    let named = format!("{}/named:1", registry.address);
    let has = |image: &str| world.engine().images().find(image).unwrap().is_some();
    assert!(has(&named) && has("p-local"));
    // An attestation is beside its image in an index.
    let is_attested = |image: &str| {
        let images = world.engine().images();
        let (media_type, ..) = images.descriptor(&[images.get(image).unwrap()]).unwrap();
        media_type.ends_with("index.v1+json")
    };
    assert!(is_attested("p-local") && !is_attested(&named));
    let told = world.rcompose(["push"]).succeeds().stderr;
    assert!(told.contains("Service local  Skipped") && told.contains("Service fetched  Skipped"), "{told}");
    assert!(told.contains(&format!("Image {named}  Pushed")), "{told}");
    world.rcompose(["up", "--no-color"]).succeeds();
    world.rcompose(["down", "--rmi", "local"]).succeeds();
    assert!(has(&named) && !has("p-local"), "what no file names was made here");
    world.rcompose(["down", "--rmi", "all"]).succeeds();
    assert!(!has(&named));
    world.rcompose(["pull", "fetched"]).succeeds();
    assert!(has(&named));
    let run = world.rcompose(["run", "--rm", "-T", "fetched"]).succeeds();
    assert_eq!(run.stdout, "page\n");
    // It is missing, and here is how to make it.
    let run = world.rcompose(["run", "--rm", "-T", "local"]).succeeds();
    assert_eq!(run.stdout, "other\n");
}

#[test]
fn events_tell_what_happened_to_the_project() {
    let world = World::new(PROJECT);
    world.rcompose(["up", "-d"]).succeeds();
    world.rcompose(["restart", "-t", "0", "db"]).succeeds();
    world.rcompose(["kill", "db"]).succeeds();
    let told = world.rcompose(["events", "--json", "--since", "1h", "--until", "0s", "db"]).succeeds().stdout;
    let events: Vec<Json> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let actions: Vec<&str> = events.iter().filter_map(|event| event["action"].as_str()).collect();
    assert!(actions.starts_with(&["create", "start"]) && actions.contains(&"die"), "{told}");
    assert!(actions.windows(2).any(|two| two == ["start", "restart"]), "{told}");
    assert!(events.iter().all(|event| event["service"] == "db" && event["type"] == "container"), "{told}");
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let world = World::new(PROJECT);
    let dry = |arguments: &[&str]| {
        let dry = ["--dry-run"].iter().chain(arguments).copied();
        world.rcompose(dry).succeeds().stdout
    };
    assert!(dry(&["up", "-d"]).contains("container p-web-1: create (missing)"));
    assert_eq!(world.names(), [] as [String; 0]);
    assert!(world.engine().networks().find("p_default").is_err());
    world.rcompose(["up", "-d"]).succeeds();
    let before = (world.ids(), world.running());
    world.write("file", "");
    for arguments in [
        &["up", "-d", "--force-recreate"][..],
        &["down", "-v", "--rmi", "all"],
        &["stop"],
        &["restart"],
        &["kill"],
        &["pause"],
        &["rm", "-sf"],
        &["scale", "web=3"],
        &["run", "web", "true"],
        &["exec", "-T", "web", "kill", "1"],
        &["cp", "file", "web:/"],
        &["pull"],
        &["build"],
        &["push"],
    ] {
        dry(arguments);
        assert_eq!((world.ids(), world.running()), before, "{arguments:?}");
    }
    assert_ne!(world.rcompose(["exec", "-T", "web", "test", "-e", "/file"]).code, 0);
    let json = world.rcompose(["plan", "--json", "--force-recreate"]).succeeds().stdout;
    let steps: Vec<Json> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(steps.iter().any(|step| step["cause"] == "asked"), "{json}");
}

#[test]
fn configuration_can_be_asked_for_in_parts() {
    let world = World::new(
        "services: {web: {image: \"box:${TAG:-1}\", profiles: [a]}, db: {image: \"${DB:?which}\", volumes: [\"data:/d\"]}}\nvolumes: {data: {}}\n",
    );
    world.write(".env", "DB=box\n");
    let print = |arguments: &[&str]| world.rcompose(arguments.iter().copied()).succeeds().stdout;
    assert_eq!(print(&["config", "--services"]), "db\n");
    assert_eq!(print(&["config", "--volumes"]), "data\n");
    assert_eq!(print(&["config", "--profiles"]), "a\n");
    assert_eq!(print(&["config", "--images"]), "box\n");
    assert_eq!(print(&["config", "-q"]), "");
    assert!(print(&["config", "--hash", "*"]).starts_with("db "));
    let variables = print(&["config", "--variables"]);
    let rows: Vec<Vec<&str>> =
        variables.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [vec!["DB", "true"], vec!["TAG", "false", "1"]]);
    let raw = print(&["--profile", "a", "config", "--no-interpolate"]);
    assert!(raw.contains("image: box:${TAG:-1}"), "{raw}");
    // What has to be more than a text, and is one as long as nothing is put in.
    world.write(
        "open.yaml",
        "services:\n  web:\n    image: box\n    cpus: ${CPUS:-0.5}\n    restart: ${RESTART}\n    ports: ['${PORT}:80']\n    \
         extra_hosts: ['${HOST}']\n    command: run $WHAT\n    mem_limit: 64m\nsecrets: {s: {file: '${FILE}'}}\n",
    );
    let variables = print(&["-f", "open.yaml", "config", "--variables"]);
    let names: Vec<&str> =
        variables.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["CPUS", "FILE", "HOST", "PORT", "RESTART", "WHAT"]);
    let raw = print(&["-f", "open.yaml", "config", "--no-interpolate"]);
    for line in ["cpus: ${CPUS:-0.5}", "- ${PORT}:80", "command: run $WHAT", "mem_limit: 64m", "file: "] {
        assert!(raw.contains(&format!("  {line}")), "{line} is missing in {raw}");
    }
    let json: Json = serde_json::from_str(&print(&["config", "--format", "json"])).unwrap();
    assert_eq!(json["services"]["db"]["image"], "box");
    world.rcompose(["config", "-o", "out.yaml"]).succeeds();
    assert!(fs::read_to_string(world.project().join("out.yaml")).unwrap().starts_with("name: p\n"));
}

#[test]
fn run_means_the_projects_volume_where_it_is_named_as_in_the_file() {
    let world = World::new(
        r#"
services:
  web: {image: box, command: [sleep, "1000"], stop_grace_period: 0s, environment: {LEVEL: file}}
volumes: {data: {}, other: {external: true}}
"#,
    );
    world.rcompose(["run", "--rm", "-v", "data:/data", "web", "touch", "/data/here"]).succeeds();
    world.rcompose(["run", "--rm", "-v", "data:/data", "web", "ls", "/data/here"]).succeeds();
    assert_eq!(world.rcompose(["volumes", "-q"]).succeeds().stdout, "p_data\n");
    let run = world.rcompose(["run", "--rm", "-v", "other:/data", "web", "true"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("external volume \"other\" not found"), "{}", run.stderr);
    world.rcompose(["up", "-d"]).succeeds();
    let level = |variable: &str| {
        let exec = world.rcompose(["exec", "-e", variable, "web", "sh", "-c", "echo ${LEVEL-unset}"]);
        exec.succeeds().stdout
    };
    assert_eq!(level("LEVEL=here"), "here\n");
    assert_eq!(level("LEVEL"), "unset\n", "a name alone that is set nowhere here is taken away");
}

#[test]
fn what_is_no_text_in_the_environment_does_no_harm() {
    use std::os::unix::ffi::OsStrExt as _;

    let world = World::new("services: {web: {image: box}}\n");
    let mut config = world.command(["config", "--services"]);
    config.env("NO_TEXT", std::ffi::OsStr::from_bytes(b"\xff"));
    let config = config.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&config.stdout), "web\n", "{config:?}");
}
