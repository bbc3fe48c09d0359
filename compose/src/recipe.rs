//! What is to be built, as files of `docker buildx bake` say it (docs.docker.com/build/bake/reference): targets that
//! inherit from each other, in groups, with variables and functions. Reading is pure; `cli/bake` carries it out.

mod file;
mod function;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use hcl::Expression;
use hcl::eval::{Context, Evaluate};
use regex::Regex;
use serde_json::{Map, Value as Json, json};

use self::file::{Attributes, Variable};
pub use self::file::{Contents, Form};
pub use self::target::{Order, Wishes, dependencies};

/// Why a file is not understood, or does not have what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecipeError(pub(crate) String);

type Result<T> = std::result::Result<T, RecipeError>;

/// What all files together say, with everything worked out.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    groups: BTreeMap<String, Vec<String>>,
    targets: BTreeMap<String, Map<String, Json>>,
    /// Each variable with its value and what it is for.
    pub variables: Vec<(String, Json, String)>,
}

/// `TARGET.KEY[.NAME]=VALUE` of `--set`, where the target may be a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    targets: String,
    key: String,
    name: Option<String>,
    value: String,
    adds: bool,
}

/// What a target may have, in the order in which it is shown.
const KEYS: [&str; 27] = [
    "description",
    "inherits",
    "annotations",
    "attest",
    "context",
    "contexts",
    "dockerfile",
    "dockerfile-inline",
    "args",
    "labels",
    "tags",
    "cache-from",
    "cache-to",
    "target",
    "secret",
    "ssh",
    "platforms",
    "output",
    "pull",
    "no-cache",
    "network",
    "no-cache-filter",
    "shm-size",
    "ulimits",
    "call",
    "entitlements",
    "extra-hosts",
];

/// Of these, a later definition adds to the entries of an earlier one.
const MAPS: [&str; 4] = ["args", "labels", "contexts", "extra-hosts"];

/// Of these, it adds to the list.
const LISTS: [&str; 7] = ["annotations", "attest", "cache-from", "secret", "ssh", "ulimits", "entitlements"];

// === impl Recipe ===

impl Recipe {
    /// Works out what these files say together; of two that say the same, the later one counts. `environment` overrides
    /// variables.
    ///
    /// # Errors
    /// When something is used that there is not, or makes no sense.
    pub fn of(files: Vec<Contents>, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut all = Contents::default();
        files.into_iter().for_each(|file| all.extend(file));
        let mut context = Context::new();
        function::declare(&mut context);
        let builtin = [
            ("BAKE_CMD_CONTEXT", "."),
            ("BAKE_LOCAL_PLATFORM", &engine::image::Platform::host().to_string()),
        ];
        for (name, value) in builtin {
            context.declare_var(name, value);
        }
        function::take(&mut context, &all.functions)?;
        let variables = declare_variables(&mut context, &all.variables, environment)?;
        let mut recipe = Self { variables, ..Self::default() };
        recipe.work_out_targets(&mut context, all.targets)?;
        for (name, attributes) in all.groups {
            let targets = attributes.get("targets").map(|it| value(&context, it)).transpose();
            let targets = targets.map_err(|error| RecipeError(format!("group {name}: {error}")))?;
            let targets = targets.as_ref().map(strings).unwrap_or_default();
            recipe.groups.insert(name, targets);
        }
        Ok(recipe)
    }

    /// A target may say what another one says, so those that can be worked out come first.
    fn work_out_targets(
        &mut self,
        context: &mut Context<'static>,
        open: Vec<(String, Attributes)>,
    ) -> Result<()> {
        let mut open = open;
        while !open.is_empty() {
            let known = hcl::to_value(json!(self.targets)).map_err(|error| RecipeError(error.to_string()))?;
            context.declare_var("target", known);
            let (before, mut failure) = (open.len(), None);
            let mut later = Vec::new();
            for (name, attributes) in open {
                match baked(context, &name, &attributes) {
                    Ok(targets) => self.add(&name, targets),
                    Err(error) => {
                        failure.get_or_insert(error);
                        later.push((name, attributes));
                    }
                }
            }
            open = later;
            if let Some(error) = failure.filter(|_| open.len() == before) {
                return Err(error);
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, targets: Vec<(String, Map<String, Json>)>) {
        if let [(only, _)] = targets.as_slice()
            && only == name
        {
        } else {
            let names = targets.iter().map(|(name, _)| name.clone()).collect();
            self.groups.insert(name.to_owned(), names);
        }
        for (name, target) in targets {
            merge(self.targets.entry(name).or_default(), target);
        }
    }

    /// The targets that these names mean, with what they inherit and what is changed of them, and those they start from.
    ///
    /// # Errors
    /// When there is no such target, or one inherits from itself.
    pub fn chosen(&self, names: &[String], changes: &[Change]) -> Result<Chosen> {
        let mut groups = BTreeMap::new();
        let mut asked = Vec::new();
        let default = ["default".to_owned()];
        let names = if names.is_empty() { &default } else { names };
        for name in names {
            self.expand(name, &mut asked, &mut groups)?;
        }
        if names != default {
            groups.insert("default".to_owned(), names.to_vec());
        }
        let (mut targets, mut open) = (BTreeMap::new(), asked.clone());
        while let Some(name) = open.pop() {
            if targets.contains_key(&name) {
                continue;
            }
            let mut target = self.inherited(&name, &mut Vec::new())?;
            let mut set = BTreeSet::new();
            for change in changes.iter().filter(|change| change.is_for(&name)) {
                change.apply(&mut target, &mut set);
            }
            target.remove("inherits");
            open.extend(dependencies(&target).into_values());
            targets.insert(name, target);
        }
        for change in changes {
            if !targets.keys().any(|name| change.is_for(name))
                && !self.targets.keys().any(|name| change.is_for(name))
            {
                return Err(self.unknown(&change.targets));
            }
        }
        Ok(Chosen { groups, asked, targets })
    }

    /// The targets by name, with what is said of them.
    pub fn described(&self) -> impl Iterator<Item = (&String, &str)> {
        self.targets.iter().map(|(name, target)| {
            (name, target.get("description").and_then(Json::as_str).unwrap_or_default())
        })
    }

    /// The targets that a name means, and the groups on the way to them. A group may have the name of a target in it.
    fn expand(
        &self,
        name: &str,
        asked: &mut Vec<String>,
        groups: &mut BTreeMap<String, Vec<String>>,
    ) -> Result<()> {
        if let Some(members) = self.groups.get(name).filter(|_| !groups.contains_key(name)) {
            groups.insert(name.to_owned(), members.clone());
            return members.iter().try_for_each(|member| self.expand(member, asked, groups));
        }
        if !self.targets.contains_key(name) {
            return if self.groups.contains_key(name) { Ok(()) } else { Err(self.unknown(name)) };
        }
        if !asked.iter().any(|known| known == name) {
            asked.push(name.to_owned());
        }
        Ok(())
    }

    fn inherited(&self, name: &str, below: &mut Vec<String>) -> Result<Map<String, Json>> {
        if below.iter().any(|known| known == name) {
            return Err(RecipeError(format!(
                "target {name} inherits from itself: {} → {name}",
                below.join(" → ")
            )));
        }
        let own = self.targets.get(name).ok_or_else(|| self.unknown(name))?;
        below.push(name.to_owned());
        let mut target = Map::new();
        for parent in own.get("inherits").map(strings).unwrap_or_default() {
            merge(&mut target, self.inherited(&parent, below)?);
        }
        below.pop();
        merge(&mut target, own.clone());
        Ok(target)
    }

    fn unknown(&self, name: &str) -> RecipeError {
        let known: Vec<&str> = self.targets.keys().chain(self.groups.keys()).map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        RecipeError(format!("failed to find target {name}; there are {known}"))
    }
}

/// Targets that are to be built.
#[derive(Debug, Clone)]
pub struct Chosen {
    groups: BTreeMap<String, Vec<String>>,
    /// Those that were asked for, in order.
    pub asked: Vec<String>,
    /// All, with those that they start from.
    pub targets: BTreeMap<String, Map<String, Json>>,
}

// === impl Chosen ===

impl Chosen {
    /// As `--print` shows it.
    pub fn shown(&self) -> Json {
        let groups: Map<String, Json> =
            self.groups.iter().map(|(name, targets)| (name.clone(), json!({ "targets": targets }))).collect();
        let target = |target: &Map<String, Json>| -> Json {
            let mut target = target.clone();
            target.entry("context").or_insert_with(|| ".".into());
            if !target.contains_key("dockerfile-inline") {
                target.entry("dockerfile").or_insert_with(|| "Dockerfile".into());
            }
            KEYS.iter()
                .filter_map(|key| Some(((*key).to_owned(), target.remove(*key)?)))
                .collect::<Map<_, _>>()
                .into()
        };
        let targets: Map<String, Json> =
            self.targets.iter().map(|(name, it)| (name.clone(), target(it))).collect();
        json!({ "group": groups, "target": targets })
    }
}

// === impl Change ===

impl std::str::FromStr for Change {
    type Err = RecipeError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            RecipeError(format!(
                "invalid --set {text:?}: TARGET.KEY=VALUE is needed, as in app.args.VERSION=1"
            ))
        };
        let (place, value) = text.split_once('=').ok_or_else(wrong)?;
        let (place, adds) = place.strip_suffix('+').map_or((place, false), |place| (place, true));
        let (targets, place) = place.split_once('.').ok_or_else(wrong)?;
        let (key, name) =
            place.split_once('.').map_or((place, None), |(key, name)| (key, Some(name.to_owned())));
        let key = match key {
            "platform" => "platforms",
            "secrets" => "secret",
            "tag" => "tags",
            "cache_from" => "cache-from",
            "outputs" => "output",
            "load" | "push" => key,
            _ => KEYS.iter().find(|known| **known == key).ok_or_else(wrong)?,
        };
        if MAPS.contains(&key) && name.is_none() {
            return Err(wrong());
        }
        Ok(Self { targets: targets.to_owned(), key: key.to_owned(), name, value: value.to_owned(), adds })
    }
}

impl Change {
    fn is_for(&self, target: &str) -> bool {
        let pattern = regex::escape(&self.targets).replace("\\*", ".*").replace("\\?", ".");
        Regex::new(&format!("^{pattern}$")).is_ok_and(|pattern| pattern.is_match(target))
    }

    /// `set` are the lists that were changed before, whose entries all count.
    fn apply<'a>(&'a self, target: &mut Map<String, Json>, set: &mut BTreeSet<&'a str>) {
        let value = Json::from(self.value.as_str());
        match (&self.name, self.key.as_str()) {
            (Some(name), key) => {
                if let Some(map) = target.entry(key).or_insert_with(|| json!({})).as_object_mut() {
                    map.insert(name.clone(), value);
                }
            }
            (None, "push" | "load") => {
                if self.value == "true" {
                    let kind = if self.key == "push" { "type=image,push=true" } else { "type=docker" };
                    target.insert("output".to_owned(), json!([kind]));
                }
            }
            (
                None,
                "context" | "dockerfile" | "dockerfile-inline" | "target" | "network" | "shm-size" | "call"
                | "description",
            ) => {
                drop(target.insert(self.key.clone(), value));
            }
            (None, "pull" | "no-cache") => {
                drop(target.insert(self.key.clone(), (self.value == "true").into()))
            }
            (None, key) => {
                let list = target.entry(key).or_insert_with(|| json!([]));
                if !list.is_array() {
                    *list = json!([list.take()]);
                }
                if let Some(list) = list.as_array_mut() {
                    if set.insert(key) && !self.adds {
                        list.clear();
                    }
                    list.push(value);
                }
            }
        }
    }
}

/// The targets that a block makes: one, or one for each combination of its matrix.
fn baked(
    context: &Context<'static>,
    name: &str,
    attributes: &Attributes,
) -> Result<Vec<(String, Map<String, Json>)>> {
    let wrong = |what: String| RecipeError(format!("target {name}: {what}"));
    for key in attributes.keys().filter(|key| !matches!(key.as_str(), "matrix" | "name")) {
        if !KEYS.contains(&key.as_str()) {
            return Err(wrong(format!("there is no attribute {key}")));
        }
    }
    let Some(matrix) = attributes.get("matrix") else {
        return Ok(vec![(name.to_owned(), worked_out(context, name, attributes)?)]);
    };
    let matrix = value(context, matrix).map_err(&wrong)?;
    let matrix = matrix.as_object().ok_or_else(|| wrong("matrix is not an object of lists".to_owned()))?;
    let called =
        attributes.get("name").ok_or_else(|| wrong("a matrix needs a name for each target".to_owned()))?;
    let mut combinations: Vec<Vec<(&String, &Json)>> = vec![Vec::new()];
    for (key, values) in matrix {
        let values = values.as_array().ok_or_else(|| wrong(format!("matrix.{key} is not a list")))?;
        combinations = combinations
            .into_iter()
            .flat_map(|before| {
                values.iter().map(move |value| before.iter().copied().chain([(key, value)]).collect())
            })
            .collect();
    }
    let mut targets = Vec::new();
    for combination in combinations {
        let mut inner = context.clone();
        for (key, value) in combination {
            inner.declare_var(key.as_str(), hcl::to_value(value).map_err(|error| wrong(error.to_string()))?);
        }
        let called = value(&inner, called).map_err(&wrong)?;
        let called = called.as_str().unwrap_or_default().to_owned();
        if called.is_empty() || !called.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
            return Err(wrong(format!("invalid name {called:?}: letters, digits, - and _ are allowed")));
        }
        targets.push((called, worked_out(&inner, name, attributes)?));
    }
    Ok(targets)
}

fn worked_out(context: &Context<'static>, name: &str, attributes: &Attributes) -> Result<Map<String, Json>> {
    let mut target = Map::new();
    for (key, expression) in attributes.iter().filter(|(key, _)| !matches!(key.as_str(), "matrix" | "name")) {
        let value = value(context, expression)
            .map_err(|error| RecipeError(format!("target {name}: {key}: {error}")))?;
        if !value.is_null() {
            target.insert(key.clone(), value);
        }
    }
    Ok(target)
}

/// A later definition over an earlier one.
fn merge(target: &mut Map<String, Json>, more: Map<String, Json>) {
    for (key, value) in more {
        match (target.get_mut(&key), value) {
            (Some(Json::Object(known)), Json::Object(more)) if MAPS.contains(&key.as_str()) => {
                known.extend(more)
            }
            (Some(Json::Array(known)), Json::Array(more)) if LISTS.contains(&key.as_str()) => {
                for value in more {
                    if !known.contains(&value) {
                        known.push(value);
                    }
                }
            }
            (_, value) => drop(target.insert(key, value)),
        }
    }
}

/// Declares variables by what the environment says or else by their defaults, which may use others.
fn declare_variables(
    context: &mut Context<'static>,
    variables: &[(String, Variable)],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Json, String)>> {
    let mut known = Vec::new();
    let mut open = variables.to_vec();
    while !open.is_empty() {
        let (before, mut failure, mut later) = (open.len(), None, Vec::new());
        for (name, variable) in open {
            match variable_value(context, &name, &variable, environment) {
                Ok(value) => {
                    let json = serde_json::to_value(&value).unwrap_or_default();
                    context.declare_var(name.as_str(), value);
                    function::see(context);
                    known.push((name, json, variable.description));
                }
                Err(error) => {
                    failure.get_or_insert(RecipeError(format!("variable {name}: {error}")));
                    later.push((name, variable));
                }
            }
        }
        open = later;
        if let Some(error) = failure.filter(|_| open.len() == before) {
            return Err(error);
        }
    }
    for (name, variable) in variables {
        for (condition, message) in &variable.validations {
            let holds = value(context, condition)
                .map_err(|error| RecipeError(format!("variable {name}: {error}")))?;
            if holds != Json::Bool(true) {
                return Err(RecipeError(format!("variable {name}: {message}")));
            }
        }
    }
    Ok(known)
}

fn variable_value(
    context: &Context<'static>,
    name: &str,
    variable: &Variable,
    environment: &dyn Fn(&str) -> Option<String>,
) -> std::result::Result<hcl::Value, String> {
    let default = variable.default.as_ref().map(|it| it.evaluate(context)).transpose();
    let default = default.map_err(|error| error.to_string())?;
    let Some(said) = environment(name).filter(|_| variable.may_be_said) else {
        return Ok(default.unwrap_or_else(|| String::new().into()));
    };
    let kind = variable.kind.as_deref().unwrap_or(match &default {
        Some(hcl::Value::Bool(_)) => "bool",
        Some(hcl::Value::Number(_)) => "number",
        Some(hcl::Value::Array(_) | hcl::Value::Object(_)) => "list",
        _ => "string",
    });
    match kind {
        "string" => Ok(said.into()),
        "bool" => said
            .to_lowercase()
            .parse::<bool>()
            .or(match said.as_str() {
                "1" => Ok(true),
                "0" | "" => Ok(false),
                _ => Err(format!("{said:?} is neither true nor false")),
            })
            .map(Into::into),
        "number" => {
            let number: serde_json::Number = said.parse().map_err(|_| format!("{said:?} is no number"))?;
            hcl::to_value(number).map_err(|error| error.to_string())
        }
        // As BuildKit has it: JSON, or words between commas.
        _ => match serde_json::from_str::<Json>(&said) {
            Ok(value) if value.is_array() || value.is_object() => {
                hcl::to_value(value).map_err(|error| error.to_string())
            }
            _ => hcl::to_value(said.split(',').collect::<Vec<_>>()).map_err(|error| error.to_string()),
        },
    }
}

fn value(context: &Context<'static>, expression: &Expression) -> std::result::Result<Json, String> {
    let value = expression.evaluate(context).map_err(|error| error.to_string())?;
    serde_json::to_value(value).map_err(|error| error.to_string())
}

/// The texts of a list, or a text alone.
fn strings(value: &Json) -> Vec<String> {
    match value {
        Json::Array(list) => list.iter().map(text).filter(|text| !text.is_empty()).collect(),
        Json::Null => Vec::new(),
        other => vec![text(other)],
    }
}

/// A value as one writes it: an object as `key=value,…`.
fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        Json::Object(fields) => {
            let field = |(key, value): (&String, &Json)| {
                let field = format!("{key}={}", text(value));
                if field.contains(',') { format!("\"{field}\"") } else { field }
            };
            fields.iter().map(field).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
