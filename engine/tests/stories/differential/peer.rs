//! Random Dockerfiles built by us and by buildah: the same files, the same configuration.
//!
//! Where the two are meant to differ, with BuildKit on our side:
//!
//! 1. Buildah labels an image with its version, and sorts the environment otherwise.
//! 2. A configuration without WORKDIR says `/` here, and nothing there.
//! 3. Buildah makes the directories of VOLUME, and keeps a range of ports as a range.
//! 4. Buildah loses the bits that set a user or a group of whatever it copies.
//! 5. `ADD --chown` gives the files of an archive another owner here.
//! 6. `COPY --chmod` holds for the directories that are made on the way here.
//! 7. A wildcard that matches nothing copies nothing here, and is an error there.
//! 8. Of two sources with the same name the last one wins here, and either there.
//! 9. An exception with a wildcard brings back files of an ignored directory here, and does not there.
//! 10. WORKDIR with `..` is cleaned here, and kept as it is there.
//! 11. A file with several names that gets another owner or mode by one of them is a file of its own here, as overlayfs has it.
//!
//! `DIFFERENTIAL_SEED=7 cargo test -p engine --test stories differential::peer` runs one seed alone, `7..90` several.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::dice::Dice;
use super::dockerfile::{dockerfile, write_context};
use super::tree::listed;
use crate::world::{BOX, Outcome, Running, World, box_archive};

/// How many seeds every run tries.
const SEEDS: u64 = 8;

/// What is in a configuration besides Docker's bookkeeping.
const FIELDS: [&str; 12] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
];

/// Buildah, with a store of its own that needs no mounts, in memory.
struct Buildah {
    store: tempfile::TempDir,
}

/// What came out of a build.
struct Built {
    files: Vec<String>,
    config: Map<String, Value>,
}

impl Built {
    /// The same without a word about which names mean one file.
    fn apart(self, parts: bool) -> Self {
        let plain =
            |line: String| line.rsplit_once("\" is /").map_or(line.clone(), |(line, _)| format!("{line}\""));
        let files = self.files.into_iter().map(|line| if parts { plain(line) } else { line }).collect();
        Self { files, ..self }
    }
}

impl Buildah {
    fn run(&self, args: &[&str]) -> Outcome {
        let store = |name: &str| self.store.path().join(name);
        let mut command = Command::new("buildah");
        command.arg("--root").arg(store("root")).arg("--runroot").arg(store("run"));
        command.args(["--storage-driver", "vfs"]).args(args);
        Running::start(&mut command).ends()
    }

    /// One that has the image `localhost/box`.
    fn new() -> Self {
        let buildah = Self { store: tempfile::tempdir_in("/dev/shm").unwrap() };
        let base = buildah.store.path().join("base");
        fs::create_dir(&base).unwrap();
        fs::write(base.join("Dockerfile"), "FROM scratch\nADD box.tar /\n").unwrap();
        fs::copy(box_archive(), base.join("box.tar")).unwrap();
        buildah.run(&["bud", "-q", "-t", "localhost/box", base.to_str().unwrap()]).succeeds();
        buildah
    }

    fn build(&self, context: &Path) -> Result<Built, String> {
        let context = context.to_str().unwrap();
        let outcome = self.run(&[
            "bud",
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--layers=false",
            "--pull-never",
            "-q",
            "-t",
            "peer",
            context,
        ]);
        if !outcome.is_success() {
            return Err(outcome.stderr);
        }
        // It says first what it makes of triggers.
        let said = self.run(&["from", "--pull-never", "peer"]).succeeds().stdout;
        let container = said.lines().last().unwrap();
        let root = self.run(&["mount", container]).succeeds().line();
        let files = listed(Path::new(&root));
        let said = self.run(&["inspect", "--type", "image", "peer"]).succeeds().stdout;
        self.run(&["rm", container]).succeeds();
        let said: Value = serde_json::from_str(&said).unwrap();
        Ok(Built { files, config: config(&said["Docker"]["config"]) })
    }
}

fn build(world: &World, context: &Path, files: &Path) -> Result<Built, Outcome> {
    let tar = files.with_extension("tar");
    let output = format!("type=tar,dest={}", tar.display());
    let context = context.to_str().unwrap();
    let outcome = world.rengine(["build", "-q", "-t", "ours", context]);
    if !outcome.is_success() {
        return Err(outcome);
    }
    world.rengine(["build", "-q", "-o", &output, context]).succeeds();
    fs::create_dir(files).unwrap();
    let mut unpack = Command::new("tar");
    unpack.arg("-C").arg(files).arg("-xpf").arg(&tar).arg("--numeric-owner");
    Running::start(&mut unpack).ends().succeeds();
    let id = world.inspect("ours", "{{.Id}}");
    let blob = world.root().content().join("blobs/sha256").join(id.trim_start_matches("sha256:"));
    let raw: Value = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
    Ok(Built { files: listed(files), config: config(&raw["config"]) })
}

/// The fields of a configuration that say something.
fn config(raw: &Value) -> Map<String, Value> {
    let mut raw = raw.clone();
    raw["Labels"].as_object_mut().map(|labels| labels.remove("io.buildah.version"));
    if let Some(variables) = raw["Env"].as_array_mut() {
        variables.sort_by_key(Value::to_string);
    }
    let is_empty = |value: &Value| [Value::Null, json!(""), json!([]), json!({})].contains(value);
    let fields = FIELDS.iter().map(|field| ((*field).to_owned(), raw[field].clone()));
    let says = |(field, value): &(String, Value)| !is_empty(value) && (field != "WorkingDir" || value != "/");
    fields.filter(says).collect()
}

fn difference(ours: &Built, peers: &Built) -> Vec<String> {
    let mut lines = Vec::new();
    let only = |these: &[String], those: &[String], mark: &str| {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .map(|line| format!("{mark} {line}"))
            .collect::<Vec<_>>()
    };
    lines.extend(only(&ours.files, &peers.files, "ours:"));
    lines.extend(only(&peers.files, &ours.files, "theirs:"));
    for field in FIELDS {
        let (one, other) = (ours.config.get(field), peers.config.get(field));
        if one != other {
            lines.push(format!("{field}: ours {one:?}, theirs {other:?}"));
        }
    }
    lines
}

/// Compares what a seed comes to. What we refuse is left out of the Dockerfile, and wildcards that match nothing.
fn try_seed(world: &World, buildah: &Buildah, seed: u64) -> Result<(), String> {
    let mut dice = Dice::of(seed);
    let context = world.path(&format!("context-{seed}"));
    write_context(&mut dice, &context);
    let mut lines = dockerfile(&mut dice);
    loop {
        fs::write(context.join("Dockerfile"), lines.join("\n") + "\n").unwrap();
        let files = world.path(&format!("files-{seed}-{}", lines.len()));
        let ours = match build(world, &context, &files) {
            Ok(built) => built,
            Err(outcome) => {
                let place = outcome.stderr.split("Dockerfile:").nth(1).expect(&outcome.stderr);
                let digits: String = place.chars().take_while(char::is_ascii_digit).collect();
                lines.remove(digits.parse::<usize>().unwrap() - 1);
                continue;
            }
        };
        let rules = fs::read_to_string(context.join(".dockerignore")).unwrap();
        let complain = |what: &str| Err(format!("{what}\n{}\n.dockerignore:\n{rules}\n", lines.join("\n")));
        match buildah.build(&context) {
            Ok(peers) => {
                let parts = lines.iter().any(|line| line.contains("chown -R") || line.contains("chmod "));
                let differences = difference(&ours.apart(parts), &peers.apart(parts));
                return if differences.is_empty() { Ok(()) } else { complain(&differences.join("\n")) };
            }
            Err(said) => {
                let step = said.split("at STEP \"").nth(1).and_then(|rest| rest.split("\": ").next());
                let at = lines.iter().position(|line| Some(line.as_str()) == step);
                match at.filter(|_| said.contains("no items matching glob")) {
                    Some(at) => drop(lines.remove(at)),
                    None => return complain(&format!("buildah refuses: {said}")),
                }
            }
        }
    }
}

#[test]
fn buildah_makes_the_same_of_a_dockerfile() {
    let world = World::new();
    world.rengine(["tag", BOX, "localhost/box"]).succeeds();
    let buildah = Buildah::new();
    let seeds = match std::env::var("DIFFERENTIAL_SEED") {
        Err(_) => 0..SEEDS,
        Ok(text) => match text.split_once("..") {
            Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
            None => text.parse().unwrap()..text.parse::<u64>().unwrap() + 1,
        },
    };
    let complaints: Vec<String> = seeds
        .filter_map(|seed| {
            try_seed(&world, &buildah, seed).err().map(|complaint| format!("seed {seed}:\n{complaint}"))
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
