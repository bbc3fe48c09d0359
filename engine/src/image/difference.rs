//! Why two images are not the same one: what differs of their configurations and of their layers' files.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::id::DiffId;
use crate::image::{Image, ImageError, Images};
use crate::layer::{Inventory, Item};

/// What differs between two images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Fields of the configuration.
    pub fields: Vec<FieldDifference>,
    /// The layers that are not the same.
    pub layers: Vec<LayerDifference>,
}

/// A field of the configuration that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDifference {
    /// Where it is: `config.Env[1]`.
    pub name: String,
    /// What each of the images has there.
    pub values: [Option<String>; 2],
}

/// Two layers at the same place, or one that only one of the images has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDifference {
    /// Its place, from 1.
    pub number: usize,
    /// The layer in each of the images.
    pub layers: [Option<DiffId>; 2],
    /// What made it, as the history of the first image that has it says.
    pub made_by: Option<String>,
    /// What differs in it, if both have one.
    pub files: Vec<FileDifference>,
}

/// A file that is not the same in two layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// Its path in the layer.
    pub path: String,
    /// How.
    pub change: FileChange,
}

/// How a file of two layers differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Deleted,
    /// Both have it, and these attributes differ: `mode 644 → 755`.
    Changed(Vec<String>),
}

// === impl Images ===

impl Images {
    /// What differs between two images; nothing when they are the same one.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn difference(&self, a: &Image, b: &Image) -> Result<Difference, ImageError> {
        let mut difference = Difference { fields: self.field_differences(a, b)?, layers: Vec::new() };
        let [of_a, of_b] = [a, b].map(|image| &image.config.rootfs.diff_ids);
        for at in 0..of_a.len().max(of_b.len()) {
            let layers = [of_a.get(at).cloned(), of_b.get(at).cloned()];
            if layers[0] == layers[1] {
                continue;
            }
            let files = match &layers {
                [Some(a), Some(b)] => {
                    file_differences(&self.layers().inventory(a)?, &self.layers().inventory(b)?)
                }
                _ => Vec::new(),
            };
            let made_by = [a, b].into_iter().find_map(|image| made_by(image, at));
            difference.layers.push(LayerDifference { number: at + 1, layers, made_by, files });
        }
        Ok(difference)
    }

    fn field_differences(&self, a: &Image, b: &Image) -> Result<Vec<FieldDifference>, ImageError> {
        let mut fields: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
        for (at, image) in [a, b].into_iter().enumerate() {
            let raw = self.raw_config(&image.id)?;
            let mut config: Value = serde_json::from_slice(&raw)
                .map_err(|source| ImageError::Config { id: image.id.clone(), source })?;
            if let Some(config) = config.as_object_mut() {
                // Layers are told apart by what is in them.
                config.shift_remove("rootfs");
            }
            flatten("", &config, &mut |name, value| fields.entry(name).or_default()[at] = Some(value));
        }
        let differing = fields.into_iter().filter(|(_, [a, b])| a != b);
        Ok(differing.map(|(name, values)| FieldDifference { name, values }).collect())
    }
}

/// The values of a document by their paths in it.
fn flatten(name: &str, value: &Value, tell: &mut impl FnMut(String, String)) {
    match value {
        Value::Object(fields) => {
            let gap = if name.is_empty() { "" } else { "." };
            fields.iter().for_each(|(key, value)| flatten(&format!("{name}{gap}{key}"), value, tell));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| flatten(&format!("{name}[{at}]"), value, tell));
        }
        Value::String(text) => tell(name.to_owned(), text.clone()),
        other => tell(name.to_owned(), other.to_string()),
    }
}

/// The line of an image's history that made this layer of it.
fn made_by(image: &Image, layer: usize) -> Option<String> {
    let made = image.config.history.iter().filter(|entry| !entry.empty_layer).nth(layer)?;
    image.config.rootfs.diff_ids.get(layer)?;
    made.created_by.clone()
}

fn file_differences(a: &Inventory, b: &Inventory) -> Vec<FileDifference> {
    let mut differences = BTreeMap::new();
    for (path, item) in a {
        match b.get(path) {
            None => drop(differences.insert(path, FileChange::Deleted)),
            Some(other) if other == item => {}
            Some(other) => drop(differences.insert(path, FileChange::Changed(item_differences(item, other)))),
        }
    }
    b.keys()
        .filter(|path| !a.contains_key(*path))
        .for_each(|path| drop(differences.insert(path, FileChange::Added)));
    let named = |(path, change): (&Vec<u8>, FileChange)| {
        let path = if path.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(path).into_owned() };
        FileDifference { path, change }
    };
    differences.into_iter().map(named).collect()
}

fn item_differences(a: &Item, b: &Item) -> Vec<String> {
    let owner = |item: &Item| format!("{}:{}", item.owner.0, item.owner.1);
    let time = |item: &Item| {
        jiff::Timestamp::new(item.time.0, item.time.1.cast_signed())
            .map_or_else(|_| format!("{:?}", item.time), |at| at.to_string())
    };
    let kind = |item: &Item| format!("{:?}", item.kind);
    let mode = |item: &Item| format!("{:o}", item.mode);
    let size = |item: &Item| item.size.to_string();
    let link = |item: &Item| String::from_utf8_lossy(&item.link).into_owned();
    let mut differences: Vec<String> = [
        ("kind", kind(a), kind(b)),
        ("mode", mode(a), mode(b)),
        ("owner", owner(a), owner(b)),
        ("size", size(a), size(b)),
        ("time", time(a), time(b)),
        ("link", link(a), link(b)),
    ]
    .into_iter()
    .filter(|(_, a, b)| a != b)
    .map(|(name, a, b)| format!("{name} {a} → {b}"))
    .collect();
    for (name, differs) in [
        ("device", a.device != b.device),
        ("attributes", a.xattrs != b.xattrs),
        ("content", a.content != b.content),
    ] {
        if differs {
            differences.push(name.to_owned());
        }
    }
    differences
}
