//! A target as a command line of `rengine build`. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{RecipeError, Result, strings, text};

/// What the command line of `bake` asks of all targets.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// They are pushed.
    pub push: bool,
    /// They are kept here.
    pub load: bool,
    /// Nothing of the cache is used.
    pub no_cache: bool,
    /// Base images are asked for again.
    pub pull: bool,
    /// Flags of `build` that hold as they are.
    pub flags: Vec<String>,
}

/// One call of `rengine build`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its arguments.
    pub words: Vec<String>,
    /// What it is given on standard input: the Dockerfile.
    pub input: Option<String>,
}

/// The targets that a target starts from, by the names of its contexts.
pub fn dependencies(target: &Map<String, Json>) -> BTreeMap<String, String> {
    let contexts = target.get("contexts").and_then(Json::as_object).into_iter().flatten();
    contexts
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.strip_prefix("target:")?.to_owned())))
        .collect()
}

// === impl Order ===

impl Order {
    /// How a target is built. `names` are what the images of targets are called that others start from.
    ///
    /// # Errors
    /// When something is asked for that has no flag.
    pub fn of(
        target: &Map<String, Json>,
        own_name: Option<&str>,
        names: &BTreeMap<String, String>,
        wishes: &Wishes,
    ) -> Result<Self> {
        let word = |key: &str| target.get(key).map(text).filter(|text| !text.is_empty());
        let is_set = |key: &str| word(key).is_some_and(|text| text == "true");
        let mut words = vec!["build".to_owned()];
        let mut flag = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        let context = word("context").unwrap_or_else(|| ".".to_owned());
        let context = context.strip_prefix("cwd://").map_or(context.clone(), str::to_owned);
        let input = word("dockerfile-inline");
        if input.is_some() {
            flag("file", "-".to_owned());
        } else if let Some(file) = word("dockerfile") {
            let is_remote = context.contains("://") || context.starts_with("git@");
            let is_whole = file.starts_with('/') || is_remote || context == ".";
            flag("file", if is_whole { file } else { format!("{}/{file}", context.trim_end_matches('/')) });
        }
        let dependencies = dependencies(target);
        for (name, value) in fields(target, "contexts") {
            let value = match dependencies.get(&name) {
                Some(base) => match names.get(base) {
                    Some(image) => format!("docker-image://{image}"),
                    None => return Err(RecipeError(format!("context {name}: there is no target {base}"))),
                },
                None => value,
            };
            flag("build-context", format!("{name}={value}"));
        }
        for (key, name) in [("args", "build-arg"), ("labels", "label"), ("extra-hosts", "add-host")] {
            for (key, value) in fields(target, key) {
                flag(name, format!("{key}={value}"));
            }
        }
        for (key, name) in [
            ("tags", "tag"),
            ("annotations", "annotation"),
            ("attest", "attest"),
            ("cache-from", "cache-from"),
            ("cache-to", "cache-to"),
            ("secret", "secret"),
            ("ssh", "ssh"),
            ("no-cache-filter", "no-cache-filter"),
            ("ulimits", "ulimit"),
            ("entitlements", "allow"),
        ] {
            target.get(key).map(strings).unwrap_or_default().into_iter().for_each(|value| flag(name, value));
        }
        for (key, name) in
            [("target", "target"), ("network", "network"), ("shm-size", "shm-size"), ("call", "call")]
        {
            if let Some(value) =
                word(key).map(|value| if value == "lint" { "check".to_owned() } else { value })
            {
                flag(name, value);
            }
        }
        let platforms = target.get("platforms").map(strings).unwrap_or_default();
        if !platforms.is_empty() {
            flag("platform", platforms.join(","));
        }
        for output in outputs(target, wishes) {
            flag("output", output);
        }
        if let Some(name) = own_name {
            flag("output", format!("type=image,name={name}"));
        }
        if wishes.no_cache || is_set("no-cache") {
            words.push("--no-cache".to_owned());
        }
        if wishes.pull || is_set("pull") {
            words.push("--pull".to_owned());
        }
        words.extend(wishes.flags.iter().cloned());
        words.push(context);
        Ok(Self { words, input })
    }
}

/// What becomes of it: what it says, or what the command line says instead.
fn outputs(target: &Map<String, Json>, wishes: &Wishes) -> Vec<String> {
    let mut outputs = target.get("output").map(strings).unwrap_or_default();
    if wishes.load {
        outputs = vec!["type=docker".to_owned()];
    }
    if wishes.push {
        let is_image = |output: &&mut String| {
            let kind = |kind: &str| output.split(',').any(|field| field == kind);
            kind("type=image") || kind("type=registry")
        };
        match outputs.iter_mut().find(is_image) {
            Some(output) if output.contains("push=") || output.contains("type=registry") => {}
            Some(output) => output.push_str(",push=true"),
            None => outputs.push("type=registry".to_owned()),
        }
    }
    outputs
}

fn fields(target: &Map<String, Json>, key: &str) -> Vec<(String, String)> {
    match target.get(key) {
        Some(Json::Object(map)) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), text(value)))
            .collect(),
        // Compose has hosts as a list, too.
        Some(list) => {
            let pair = |text: String| text.split_once(['=', ':']).map(|(a, b)| (a.to_owned(), b.to_owned()));
            strings(list).into_iter().filter_map(pair).collect()
        }
        None => Vec::new(),
    }
}
