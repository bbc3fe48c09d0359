//! A project as other orchestrators take it. Every key is mapped, or reported as lost with its place and what
//! follows from that; the tables of both targets say which, and a test holds them against the schema.

#[cfg(test)]
mod document;
mod fate;
mod kubernetes;
mod limits;
mod losses;
mod swarm;
mod write;

use std::fmt;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::load::Loaded;
use crate::model::{Project, Service};
use crate::names;

pub(crate) use self::fate::Fate;
use self::losses::Losses;

/// Who is to take the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Manifests for `kubectl apply`.
    Kubernetes,
    /// A file for `docker stack deploy`.
    Swarm,
}

/// What the files of a project do not say and a target needs.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// What each volume asks a cluster for, as Kubernetes writes quantities.
    pub volume_size: String,
    /// The image of containers that wait for a service; it needs `sh`, `nslookup` and `sleep`.
    pub wait_image: String,
}

/// What a project became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// One object or file each, in the order they are applied.
    pub documents: Vec<Document>,
    /// What is lost: where it stands and what follows, sorted by place.
    pub losses: Vec<Diagnostic>,
}

/// One object, or one file.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name as a file, relative to the directory that takes them all.
    pub file: String,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Whether it belongs to the one text that stands for all: the rest are files it names.
    pub is_manifest: bool,
    /// Whether only its owner may read it.
    pub is_secret: bool,
}

/// Converts a project.
///
/// # Errors
/// What no object can be made of: names that fall together, secrets whose variable is not set, files that
/// cannot be read.
pub fn convert(loaded: &Loaded, target: Target, options: &ConvertOptions) -> Result<Conversion, Diagnostics> {
    let mut losses = Losses::new(&loaded.sources);
    let table = table(target);
    losses.of_table(table, &crate::canonical::to_json(&loaded.project));
    let documents = match target {
        Target::Kubernetes => kubernetes::convert(&loaded.project, options, &mut losses),
        Target::Swarm => swarm::convert(&loaded.project, &mut losses),
    };
    let (errors, losses) = losses.into_parts();
    if errors.is_empty() { Ok(Conversion { documents, losses }) } else { Err(Diagnostics::sorted(errors)) }
}

/// What becomes of each key, by its path in the schema.
#[cfg(test)]
pub(crate) fn fate_of(target: Target, path: &str) -> Option<&'static Fate> {
    fate::find(table(target), path)
}

fn table(target: Target) -> &'static fate::Table {
    match target {
        Target::Kubernetes => kubernetes::TABLE,
        Target::Swarm => swarm::TABLE,
    }
}

/// The image of a service. One without a name has that under which it is built, and whoever takes it, which builds
/// nothing, will not find it.
fn image(project: &Project, service: &Service, taker: &str, losses: &mut Losses<'_>) -> String {
    service.image.clone().filter(|image| !image.is_empty()).unwrap_or_else(|| {
        let name = names::image(names::Separator::Dash, &project.name, &service.name);
        let why =
            format!("{taker} builds nothing, and {name:?} is in no registry: name the image and push it");
        losses.of_service(&service.name, &["build"], why);
        name
    })
}

// === impl Target ===

/// As flags name it. What each is stands in their help: help of its own would spread every other flag's over lines.
impl ValueEnum for Target {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Kubernetes, Self::Swarm]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Kubernetes => "kubernetes",
            Self::Swarm => "swarm",
        }))
    }
}

// === impl Conversion ===

impl Conversion {
    /// All objects as one text: YAML documents one after the other.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for document in self.documents.iter().filter(|document| document.is_manifest) {
            if !text.is_empty() {
                text.extend_from_slice(b"---\n");
            }
            text.extend_from_slice(&document.bytes);
        }
        text
    }
}

// === impl ConvertOptions ===

impl Default for ConvertOptions {
    fn default() -> Self {
        Self { volume_size: "1Gi".to_owned(), wait_image: "busybox:1.36".to_owned() }
    }
}

// === impl Document ===

/// The bytes may be a secret and never reach a log.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({}, {} bytes)", self.file, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    #[test]
    fn each_key_of_the_schema_is_in_both_tables() {
        for target in [Target::Kubernetes, Target::Swarm] {
            let missing: Vec<String> =
                keys::paths().into_iter().filter(|path| fate_of(target, path).is_none()).collect();
            assert!(missing.is_empty(), "{target:?}: {missing:#?}");
        }
    }

    #[test]
    fn the_tables_name_nothing_that_is_not_in_the_schema() {
        let known = keys::paths();
        for target in [Target::Kubernetes, Target::Swarm] {
            for (pattern, _) in table(target) {
                assert!(known.iter().any(|path| keys::covers(pattern, path)), "{target:?}: {pattern}");
            }
        }
    }
}
