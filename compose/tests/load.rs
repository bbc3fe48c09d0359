//! Projects in `tests/files`, against what the reference implementation makes of them.
//!
//! `config.yaml` and `hashes` next to a project are the output of docker-compose 2.40.3 (`config` and
//! `config --hash '*'`), with the project's directory written as `@DIR@`. With `COMPOSE_REFERENCE` naming that
//! executable, `the_reference_still_says_so` asks it again.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use compose::canonical::{config_hash, to_json_text, to_yaml};
use compose::{LoadOptions, load};

/// Where paths of projects that read no files start, so that their hashes are the same everywhere.
const ELSEWHERE: &str = "/srv/app";

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files")
}

fn projects() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(files())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("config.yaml").exists())
        .collect();
    found.sort();
    assert!(found.len() >= 8, "{found:?}");
    found
}

fn options(directory: &Path) -> LoadOptions {
    LoadOptions {
        current_dir: Some(directory.to_path_buf()),
        environment: BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]),
        keep_optional: true,
        ..LoadOptions::default()
    }
}

fn hashes(directory: &Path) -> String {
    let options = LoadOptions {
        project_directory: Some(ELSEWHERE.into()),
        no_env_resolution: true,
        ..options(directory)
    };
    let file = directory.join("compose.yaml");
    let options = LoadOptions { files: vec![file], ..options };
    let project = load(&options).unwrap().project;
    project.services.iter().fold(String::new(), |mut text, (name, service)| {
        writeln!(text, "{name} {}", config_hash(service)).unwrap();
        text
    })
}

#[test]
fn each_project_comes_out_as_in_the_reference() {
    for directory in projects() {
        let expected = std::fs::read_to_string(directory.join("config.yaml")).unwrap();
        let expected = expected.replace("@DIR@", directory.to_str().unwrap());
        let loaded =
            load(&options(&directory)).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        assert_eq!(to_yaml(&loaded.project), expected, "{}", directory.display());
    }
}

#[test]
fn hashes_are_those_of_the_reference() {
    let mut compared = 0;
    for directory in projects() {
        let Ok(expected) = std::fs::read_to_string(directory.join("hashes")) else { continue };
        assert_eq!(hashes(&directory), expected, "{}", directory.display());
        compared += 1;
    }
    assert!(compared >= 4);
}

fn loads(file: &str) -> usize {
    let options = LoadOptions {
        files: vec!["-".into()],
        stdin: Some(file.to_owned()),
        current_dir: Some(std::env::temp_dir()),
        project_name: Some("p".to_owned()),
        ..LoadOptions::default()
    };
    load(&options).unwrap().project.services.len()
}

/// docker compose needs 40 s for twelve layers, and each further one takes six times as long.
#[test]
fn every_path_through_a_dense_graph_is_not_walked() {
    let mut file = "services:\n".to_owned();
    for layer in 0..40 {
        for number in 0..4 {
            write!(file, "  l{layer}n{number}: {{image: box, depends_on: [").unwrap();
            let below = (0..4).filter(|_| layer > 0).map(|below| format!("l{}n{below}", layer - 1));
            writeln!(file, "{}]}}", below.collect::<Vec<_>>().join(", ")).unwrap();
        }
    }
    assert_eq!(loads(&file), 160);
}

#[test]
fn a_chain_of_a_thousand_services_is_a_thousand_steps() {
    let mut file = "services:\n  s0: {image: box}\n".to_owned();
    for number in 1..1000 {
        writeln!(file, "  s{number}: {{image: box, depends_on: [s{}]}}", number - 1).unwrap();
    }
    assert_eq!(loads(&file), 1000);
}

/// What `config` prints loads again and prints the same.
#[test]
fn the_canonical_form_is_a_fixed_point() {
    for directory in projects() {
        // What is switched off is not there when it is read again.
        let first = load(&LoadOptions { keep_optional: false, ..options(&directory) }).unwrap().project;
        let again = LoadOptions {
            files: vec!["-".into()],
            stdin: Some(to_yaml(&first)),
            all_resources: true,
            ..options(&directory)
        };
        let second = load(&again).unwrap_or_else(|error| panic!("{}: {error}", directory.display())).project;
        assert_eq!(to_yaml(&second), to_yaml(&first), "{}", directory.display());
        assert_eq!(to_json_text(&second), to_json_text(&first), "{}", directory.display());
    }
}

#[test]
fn the_reference_still_says_so() {
    let Some(reference) = std::env::var_os("COMPOSE_REFERENCE") else { return };
    let output = |directory: &Path, arguments: &[&str]| {
        let mut command = Command::new(&reference);
        command.current_dir(directory).env_clear().env("HOME", "/root").args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        format!("{}\n", text.trim_end())
    };
    for directory in projects() {
        let place = directory.to_str().unwrap();
        let config = output(&directory, &["config"]).replace(place, "@DIR@");
        let file = directory.join("config.yaml");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, &config).unwrap();
            if directory.join("hashes").exists() {
                let arguments =
                    ["-f", "compose.yaml", "--project-directory", ELSEWHERE, "config", "--hash", "*"];
                std::fs::write(directory.join("hashes"), output(&directory, &arguments)).unwrap();
            }
        }
        assert_eq!(config, std::fs::read_to_string(file).unwrap(), "{place}");
        let json = output(&directory, &["config", "--format", "json"]);
        assert_eq!(to_json_text(&load(&options(&directory)).unwrap().project), json.trim_end(), "{place}");
    }
}

#[test]
fn what_is_empty_where_something_is_needed_is_refused_where_it_stands() {
    for (key, at, said) in [
        ("extends:", "1:26", "does not say which service it extends"),
        ("extends: {}", "1:26", "does not say which service it extends"),
        ("pull_policy: ''", "1:39", "always, never, missing"),
        ("container_name: ''", "1:42", "two or more letters"),
        ("env_file: ''", "1:36", "env file: a path is needed"),
    ] {
        let options = LoadOptions {
            files: vec!["-".into()],
            stdin: Some(format!("services: {{a: {{image: x, {key} }}}}\n")),
            ..options(&std::env::temp_dir())
        };
        let error = load(&options).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(&format!("-:{at}\n")), "{key}: {error}");
    }
}

/// A project with an error of each kind, in one run, and without what follows from another one.
#[test]
fn all_that_is_wrong_is_told_at_once_and_nothing_that_follows_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(".env", "GOOD=1\nA B=2\nC=3\nD!=4\n");
    write(
        "compose.yaml",
        "include: [nowhere.yaml, part.yaml]
services:
  web:
    imag: nginx
    ports: [\"80:80:80:80\"]
    networks: [unknown]
    environment: {A: \"${LOST:?needed}\", B: \"${C/d}\"}
  db: {image: \"${TAG}\", image: b, mem_limit: 5q, pull_policy: often, shm_size: 6q}
  one: {extends: {service: none}}
  two: {extends: {file: base.yaml, service: base}, depends_on: [web, nobody]}
  three: {extends: {file: base.yaml, service: lost}, hostname: x}
  a1: {image: x, depends_on: [a2]}
  a2: {image: x, depends_on: [a1]}
  b1: {image: x, links: [b2]}
  b2: {image: x, links: [b1]}
  c1: {extends: c2}
  c2: {extends: c1}
  env: {image: x, env_file: x.env, secrets: [s], cap_add: [NONE_SUCH]}
  bare: {tty: true}
secrets: {s: {}}
",
    );
    write("compose.override.yaml", "services:\n  late:\n    image: x\n     tty: true\n");
    write(
        "part.yaml",
        "services: {inner: {image: x, cpus: many, networks: [inside]}}\nnetworks: {inside: [x]}\n",
    );
    write("base.yaml", "services: {base: {build: {contxt: .}, restart: never}}\n");
    write("x.env", "E F=1\n\nG=${H\n");
    let wrong = |options: LoadOptions| -> Vec<String> {
        let found = load(&LoadOptions { needs_files: true, ..options }).unwrap_err();
        let told = |one: &compose::Diagnostic| {
            let place = one.place.as_ref().map(|place| format!("{}:{}", place.file.display(), place.line));
            format!("{} {}", place.unwrap_or_default(), one.path)
        };
        found.0.iter().map(told).collect()
    };
    let whole = wrong(options(directory.path()));
    let expected = [
        ".env:2 ",
        ".env:4 ",
        "compose.override.yaml:4 ",
        "compose.yaml:1 include[0]",
        "compose.yaml:4 services.web.imag",
        "compose.yaml:5 services.web.ports[0]",
        "compose.yaml:7 services.web.environment.B",
        "compose.yaml:8 services.db.image",
        "compose.yaml:8 services.db.mem_limit",
        "compose.yaml:8 services.db.pull_policy",
        "compose.yaml:8 services.db.shm_size",
        "compose.yaml:9 services.one.extends.service",
        "compose.yaml:11 services.three.extends.service",
        "compose.yaml:13 services.a2.depends_on.a1",
        "compose.yaml:15 services.b2.depends_on.b1",
        "compose.yaml:16 services.c1.extends",
        "compose.yaml:18 services.env.cap_add[0]",
        "base.yaml:1 services.base.build.contxt",
        "base.yaml:1 services.base.restart",
        "part.yaml:1 services.inner.cpus",
        "part.yaml:2 networks.inside",
        "x.env:1 ",
        "x.env:3 ",
    ];
    let mut sorted = expected.to_vec();
    sorted.sort_by_key(|text| text.split(':').next());
    assert_eq!(whole, sorted, "{whole:#?}");
    // With all files known, what is not defined is not; with all variables, what is not set is not.
    std::fs::remove_file(directory.path().join(".env")).unwrap();
    std::fs::remove_file(directory.path().join("compose.override.yaml")).unwrap();
    write("nowhere.yaml", "services: {}\n");
    let closed = wrong(options(directory.path()));
    let more: Vec<&String> = closed.iter().filter(|one| !whole.contains(one)).collect();
    let expected = [
        "compose.yaml:6 services.web.networks.unknown",
        "compose.yaml:7 services.web.environment.A",
        "compose.yaml:10 services.two.depends_on.nobody",
        "compose.yaml:19 services.bare",
        "compose.yaml:20 secrets.s",
    ];
    assert_eq!(more, expected, "{closed:#?}");
    assert_eq!(whole.len() - 4, closed.len() - more.len(), "{closed:#?}");
}

/// The file of a lesson as it was printed: its last three services are indented by less than the others.
#[test]
fn the_lesson_as_printed_is_refused_with_what_to_do() {
    let directory = files().join("lesson");
    let options = LoadOptions { files: vec![directory.join("printed.yaml")], ..options(&directory) };
    let said = load(&options).unwrap_err().to_string();
    for text in [
        "printed.yaml:134:2",
        "line 134 begins with 1 space, and \"filebeat\" in line 115 beside it under \"services\" with 2",
        "by 1 more; so do lines 148 and 167",
    ] {
        assert!(said.contains(text), "{text} is missing in\n{said}");
    }
}
