//! A key is tried out in a project that is complete without it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::container::spec::ContainerSpec;
use engine::id::{ContainerId, Digest};
use engine::image::config::RunConfig;
use serde_json::{Map, Value as Json, json};

use super::elsewhere::SAMPLES;
use super::{Key, Standing};
use crate::load::{LoadOptions, Loaded, load};
use crate::schema::{FILE, Shape};
use crate::translate::{self, Circumstances};

/// A directory with the files that samples name, and the container of the project without any key tried out.
pub(super) struct Trial {
    directory: tempfile::TempDir,
    bare: ContainerSpec,
}

/// How a key is tried out, where the middle of what it may be makes no sense.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Sample {
    /// What it is given.
    value: Option<Json>,
    /// What the project needs with it.
    beside: Json,
    /// What the project must not have with it.
    without: Vec<String>,
    /// Whether it is meant to be refused.
    refused: bool,
}

/// What a project came to.
enum Outcome {
    Refused(String),
    Loaded(Box<ContainerSpec>, Vec<(String, String)>),
}

/// A project in which service `a` uses one of everything.
fn base() -> Json {
    json!({
        "name": "p",
        "services": {
            "a": {
                "image": "box",
                "networks": {"default": {}},
                "volumes": [{"type": "volume", "source": "x", "target": "/v"}],
                "secrets": [{"source": "x"}],
                "configs": [{"source": "x"}],
            },
            "b": {"image": "box"},
        },
        "networks": {"default": {}},
        "volumes": {"x": {}},
        "secrets": {"x": {"file": "x"}},
        "configs": {"x": {"file": "x"}},
        "models": {"x": {"model": "x"}},
    })
}

// === impl Trial ===

impl Trial {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x"), "X=1\n").unwrap();
        std::fs::write(directory.path().join("base.yaml"), "services: {x: {image: box, tty: true}}\n")
            .unwrap();
        let mut trial = Self { directory, bare: ContainerSpec::default() };
        match trial.load(&base()) {
            Outcome::Loaded(spec, _) => trial.bare = *spec,
            Outcome::Refused(why) => panic!("{why}"),
        }
        trial
    }

    /// What becomes of a key; `None` when no container shows it.
    ///
    /// # Errors
    /// When it is refused and is not meant to be, or the other way round.
    pub(super) fn standing(&self, key: &Key) -> Result<Option<Standing>, String> {
        let sample = SAMPLES.iter().find(|(path, _)| *path == key.path);
        let sample: Sample = sample
            .map(|(_, text)| serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}")))
            .unwrap_or_default();
        let steps: Vec<String> = key.path.split('.').map(str::to_owned).collect();
        let mut project = base();
        for pointer in &sample.without {
            let (above, key) = pointer.rsplit_once('/').unwrap_or_default();
            project.pointer_mut(above).and_then(Json::as_object_mut).map(|above| above.remove(key));
        }
        let mut without = project.clone();
        let value = sample.value.unwrap_or_else(|| plain(key.shape));
        merge(&mut project, with(&FILE, &steps, "", Some(value)));
        merge(&mut project, sample.beside.clone());
        merge(&mut without, with(&FILE, &steps, "", None));
        merge(&mut without, sample.beside);
        let refused_on_purpose = sample.refused;
        match self.load(&project) {
            Outcome::Refused(_) if refused_on_purpose => Ok(Some(Standing::Refused)),
            Outcome::Refused(why) => Err(format!("{}: {why}", key.path)),
            Outcome::Loaded(..) if refused_on_purpose => Err(format!("{} is not refused", key.path)),
            Outcome::Loaded(spec, warnings) => {
                let warned = warnings.into_iter().find(|(path, _)| covers(path, &key.path));
                Ok(match warned {
                    Some((_, why)) => Some(Standing::Warned(why)),
                    None => (*spec != self.without(key, &without)).then_some(Standing::Honoured),
                })
            }
        }
    }

    /// The container without the key and with all that stands beside it; the bare one where that makes no sense, or where
    /// the key cannot be left out.
    fn without(&self, key: &Key, project: &Json) -> ContainerSpec {
        match self.load(project) {
            Outcome::Loaded(spec, _) if !is_required(&FILE, &key.path) => *spec,
            _ => self.bare.clone(),
        }
    }

    fn load(&self, project: &Json) -> Outcome {
        let file = self.directory.path().join("compose.yaml");
        std::fs::write(&file, project.to_string()).unwrap();
        let environment =
            [("X", "1"), ("SSH_AUTH_SOCK", "/x")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let options = LoadOptions {
            current_dir: Some(self.directory.path().to_owned()),
            files: vec![file],
            environment: environment.into(),
            profiles: vec!["*".to_owned()],
            all_resources: true,
            ..LoadOptions::default()
        };
        match load(&options) {
            Err(diagnostics) => Outcome::Refused(
                diagnostics.0.iter().map(|one| one.message.as_str()).collect::<Vec<_>>().join("; "),
            ),
            Ok(loaded) => container(&loaded),
        }
    }
}

fn container(loaded: &Loaded) -> Outcome {
    let project = &loaded.project;
    let service = &project.services["a"];
    let other: ContainerId = "a".repeat(64).parse().unwrap();
    let parents: BTreeMap<String, ContainerId> =
        translate::parents(service).into_iter().map(|name| (name, other.clone())).collect();
    let inherited: BTreeMap<PathBuf, _> = BTreeMap::new();
    let image: RunConfig = serde_json::from_value(json!({"Healthcheck": {"Test": ["CMD", "true"]}})).unwrap();
    let around = Circumstances {
        name: "p-a-1",
        number: 1,
        image: "box",
        image_id: &Digest::of(b"box"),
        image_config: &image,
        config_hash: "",
        contents_label: "",
        slug: None,
        replaces: None,
        parents: &parents,
        inherited: &inherited,
        contents: Path::new("/contents"),
    };
    match translate::container(project, service, &around) {
        Err(error) => Outcome::Refused(error.to_string()),
        Ok(translated) => {
            let mut spec = translated.spec;
            // The label of the files tells how the project was loaded, not what is in it.
            spec.labels.remove(crate::labels::CONFIG_FILES);
            let warnings = loaded.warnings.iter().filter_map(|warning| {
                let (_, why) = warning.message.split_once("has no effect: it ")?;
                Some((warning.path.clone(), why.to_owned()))
            });
            Outcome::Loaded(Box::new(spec), warnings.collect())
        }
    }
}

/// Whether a place in a file is that of a key, or of something it stands under.
fn covers(place: &str, key: &str) -> bool {
    let plain =
        |path: &str| -> Vec<String> {
            let numbers = |c: char| c.is_ascii_digit();
            path.replace("[]", ".*")
                .replace('[', ".")
                .replace(']', "")
                .split('.')
                .map(|step| {
                    if step.is_empty() || step.chars().all(numbers) {
                        "*".to_owned()
                    } else {
                        step.to_owned()
                    }
                })
                .collect()
        };
    let (place, key) = (plain(place), plain(key));
    place.len() <= key.len() && place.iter().zip(&key).all(|(place, key)| key == "*" || place == key)
}

/// A value in the middle of what it may be.
fn plain(shape: &Shape) -> Json {
    match shape {
        Shape::Text | Shape::Scalar | Shape::Checked(_) => json!("x"),
        Shape::Word(words) => json!(words.iter().find(|word| !word.is_empty())),
        Shape::Bool => json!(true),
        Shape::Int(..) => json!(2),
        Shape::Number => json!(0.5),
        Shape::Bytes(_) => json!("64m"),
        Shape::Duration => json!("2s"),
        Shape::Micros => json!(5000),
        Shape::Mode => json!("0400"),
        Shape::Count => json!(1),
        Shape::Texts | Shape::TextOrTexts | Shape::Command => json!(["x"]),
        Shape::Scalars => json!(["7"]),
        Shape::Pairs(_) | Shape::Options | Shape::MultiOptions => json!({"x": "y"}),
        Shape::Hosts => json!({"x": "10.0.0.9"}),
        Shape::Object(object) => {
            let required = |name: &&str| object.field(name).map(|shape| ((*name).to_owned(), plain(shape)));
            Json::Object(object.required.iter().filter_map(required).collect())
        }
        Shape::Map(inner) => json!({"x": plain(inner)}),
        Shape::List(inner) => json!([plain(inner)]),
        Shape::Nullable(inner) | Shape::Short(_, inner) => plain(inner),
    }
}

/// The name of an entry of a mapping that the base has, where it has one.
fn entry(above: &str) -> &'static str {
    match above {
        "services" => "a",
        "depends_on" => "b",
        "networks" => "default",
        "ulimits" => "nofile",
        _ => "x",
    }
}

/// Whether the mapping a key stands in cannot do without it.
fn is_required(shape: &Shape, path: &str) -> bool {
    match shape {
        Shape::Nullable(inner) | Shape::Short(_, inner) => is_required(inner, path),
        Shape::Map(inner) | Shape::List(inner) => {
            let below = path.strip_prefix("[]").or_else(|| path.strip_prefix(".*")).unwrap_or(path);
            is_required(inner, below.strip_prefix('.').unwrap_or(below))
        }
        Shape::Object(object) => object.fields.iter().any(|(name, field)| {
            path.strip_prefix(name).is_some_and(|rest| match rest {
                "" => object.required.contains(name),
                rest if rest.starts_with(".*") || rest.starts_with('[') => is_required(field, rest),
                rest if rest.starts_with('.') => is_required(field, &rest[1..]),
                _ => false,
            })
        }),
        _ => false,
    }
}

/// A document with nothing but one value, or a place for it, and what must stand beside it.
fn with(shape: &Shape, steps: &[String], above: &str, value: Option<Json>) -> Json {
    match (shape, steps) {
        (Shape::Nullable(inner) | Shape::Short(_, inner), _) => with(inner, steps, above, value),
        (_, []) => value.unwrap_or_default(),
        (Shape::Map(inner), [_, rest @ ..]) => {
            Json::Object(Map::from_iter([(entry(above).to_owned(), with(inner, rest, above, value))]))
        }
        (Shape::Object(object), [step, rest @ ..]) => {
            let name = step.trim_end_matches("[]");
            let mut fields = plain(shape);
            let field = object.field(name);
            let is_left_out = rest.is_empty() && value.is_none();
            if let (Some(fields), Some(field), false) = (fields.as_object_mut(), field, is_left_out) {
                let inner = if step.ends_with("[]") {
                    in_list(field, rest, name, value)
                } else {
                    with(field, rest, name, value)
                };
                fields.insert(name.to_owned(), inner);
            }
            fields
        }
        _ => value.unwrap_or_default(),
    }
}

fn in_list(shape: &Shape, rest: &[String], name: &str, value: Option<Json>) -> Json {
    match shape {
        Shape::Nullable(inner) | Shape::Short(_, inner) => in_list(inner, rest, name, value),
        Shape::List(inner) => json!([with(inner, rest, name, value)]),
        _ => value.unwrap_or_default(),
    }
}

/// Lays one document over another; a list takes the place of a list, unless both have one item with keys.
fn merge(below: &mut Json, above: Json) {
    match (below, above) {
        (_, Json::Null) => {}
        (Json::Object(below), Json::Object(above)) => {
            for (key, value) in above {
                merge(below.entry(key).or_insert(Json::Null), value);
            }
        }
        (Json::Array(below), Json::Array(above))
            if below.len() == 1 && above.len() == 1 && above[0].is_object() =>
        {
            above.into_iter().zip(below).for_each(|(above, below)| merge(below, above));
        }
        (below, above) => *below = above,
    }
}
