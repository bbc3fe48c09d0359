//! The engine's side: one image, pulled into roots of their own and pushed from a common one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::Root;
use engine::id::Digest;
use engine::image::{ImageConfig, Images, Reference};

use crate::fault::{Lie, Schedule};
use crate::registry::{Content, PASSWORD, Registry, USER};

/// An image, as it is here and as a registry has it.
pub(crate) struct Base {
    pub(crate) root: World,
    pub(crate) id: String,
    pub(crate) content: Content,
}

/// A root of its own.
pub(crate) struct World {
    directory: tempfile::TempDir,
}

/// The name that the image has in every registry.
pub(crate) const NAME: &str = "app:1";

impl Drop for World {
    fn drop(&mut self) {
        let _ = engine::store::remove_tree(Root::at(&self.state()).run());
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> std::path::PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn images(&self) -> Images {
        Images::at(&Root::at(&self.state()))
    }

    fn rengine(&self, registry: &Registry, arguments: &[&str]) -> Output {
        let secret = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let login = format!(r#"{{"auths":{{"{}":{{"auth":"{secret}"}}}}}}"#, registry.address);
        Command::new(env!("CARGO_BIN_EXE_rengine"))
            .arg("--root")
            .arg(self.state())
            .args(arguments)
            .env("DOCKER_CONFIG", self.directory.path().join("none"))
            .env("DOCKER_AUTH_CONFIG", login)
            .env_remove("REGISTRY_AUTH_FILE")
            .output()
            .unwrap()
    }
}

impl Base {
    pub(crate) fn new() -> Self {
        let root = World::new();
        let layer = |name: &str, content: &[u8]| {
            let upper = root.state().join("upper");
            fs::create_dir_all(upper.join("dir")).unwrap();
            fs::write(upper.join("dir").join(name), content).unwrap();
            root.images().layers().adopt(&upper).unwrap()
        };
        // Not compressible, so that what travels is large.
        let noise: Vec<u8> = (0..10_000u32)
            .flat_map(|n| Digest::of(&n.to_le_bytes()).hex().as_bytes()[..32].to_vec())
            .collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let mut config =
            ImageConfig { os: "linux".into(), architecture: architecture.into(), ..Default::default() };
        config.rootfs.diff_ids = vec![layer("small", b"hello"), layer("large", &noise)];
        let registry = Registry::start(Schedule::none(0), Content::default());
        let name: Reference = registry.name(NAME).parse().unwrap();
        let image = root.images().commit(&config, &[name]).unwrap();
        let pushed = root.rengine(&registry, &["push", &registry.name(NAME)]);
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        let content = registry.content();
        Self { root, id: image.id.to_string(), content }
    }

    /// Pulls the image from a registry that misbehaves.
    pub(crate) fn pull(&self, schedule: &Schedule) -> Result<(), String> {
        let registry = Registry::start(schedule.clone(), self.content.clone());
        let world = World::new();
        let output = world.rengine(&registry, &["pull", &registry.name(NAME)]);
        let images = world.images().list().map_err(|error| error.to_string())?;
        let is_here = images.iter().any(|image| image.id.as_str() == self.id);
        let outcome = expected(schedule, &output)
            .and_then(|()| match (output.status.success(), is_here, images.len()) {
                (true, true, 1) if said_once(&output) => Ok(()),
                (false, false, 0) => Ok(()),
                (success, ..) => Err(format!("success is {success}, and there are {} images", images.len())),
            })
            .and_then(|()| is_sound(&world))
            .and_then(|()| registry.complaints());
        outcome.map_err(|problem| explain(&problem, schedule, &output, &registry))
    }

    /// Pushes the image to a registry that misbehaves.
    pub(crate) fn push(&self, schedule: &Schedule) -> Result<(), String> {
        let registry = Registry::start(schedule.clone(), Content::default());
        let name = registry.name(NAME);
        self.root.images().tag(&self.id, &name.parse().unwrap()).map_err(|error| error.to_string())?;
        let output = self.root.rengine(&registry, &["push", &name]);
        let there = registry.content();
        let outcome = expected(schedule, &output)
            .and_then(|()| {
                let is_there = there.manifests.get("1") == self.content.manifests.get("1");
                if output.status.success() && !is_there {
                    return Err("the image is not at the registry".to_owned());
                }
                Ok(())
            })
            .and_then(|()| registry.complaints());
        outcome.map_err(|problem| explain(&problem, schedule, &output, &registry))
    }
}

/// Whether the command has passed on what the registry says to people, once.
fn said_once(output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| *line == "WARNING: mind the gap").count() == 1
}

/// Where nothing is wrong for good the command succeeds; where something is, it says so once.
fn expected(schedule: &Schedule, output: &Output) -> Result<(), String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let failures = said.lines().filter(|line| line.starts_with("rengine: ")).count();
    let is_quota = schedule.lie == Some(Lie::Quota);
    if is_quota && failures == 1 && !said.contains("0 of 100 are left within 6 h") {
        return Err("does not say how often the registry may be asked".to_owned());
    }
    match (schedule.lie, output.status.code()) {
        (None, Some(0)) if failures == 0 => Ok(()),
        (Some(_), Some(1)) if failures == 1 => Ok(()),
        (_, code) => Err(format!("ended with {code:?} and {failures} lines about a failure")),
    }
}

/// Nothing that a root has taken in is something else than its digest says.
pub(crate) fn is_sound(world: &World) -> Result<(), String> {
    let blobs = world.state().join("content/blobs/sha256");
    for (name, bytes) in files(&blobs) {
        if Digest::of(&bytes).hex() != name {
            return Err(format!("the blob {name} is another one"));
        }
    }
    let layers = world.images().layers();
    for diff in fs::read_dir(world.state().join("layers")).into_iter().flatten().flatten() {
        let name = diff.file_name().to_string_lossy().into_owned();
        let Ok(diff) = format!("sha256:{}", name.trim_start_matches("sha256:")).parse::<Digest>() else {
            continue;
        };
        if !layers.contains(&diff) {
            continue;
        }
        let mut tar = Vec::new();
        layers.pack(&diff, &mut tar).map_err(|error| error.to_string())?;
        if Digest::of(&tar) != diff {
            return Err(format!("the layer {name} is another one"));
        }
    }
    Ok(())
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?)))
        .collect()
}

fn explain(problem: &str, schedule: &Schedule, output: &Output, registry: &Registry) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    format!("{problem}\n  {schedule:?}\n  it said: {}\n  {}", said.trim(), registry.log().join("\n  "))
}
