//! YAML as the loader works on it: plain values by key, with compose's two tags and nothing of the syntax.

mod typed;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{
    self, Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess as _, Visitor,
};

/// A value of a compose file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<Value>),
    /// A mapping. Its order never means anything in a compose file.
    Map(Map),
    /// `!reset`: removes what earlier files said here.
    Reset,
    /// `!override`: replaces what earlier files said here instead of merging with it.
    Override(Box<Value>),
    /// Something stands here and makes no sense. That has been told; the stages that follow pass it over.
    Unknown,
}

/// A mapping.
pub(crate) type Map = BTreeMap<String, Value>;

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a sequence, counting from 0.
    Index(usize),
}

/// Where a value is in a document.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(pub(crate) Vec<Step>);

/// Reads every document of a file. What stands under a key that is there twice is [`Value::Unknown`].
pub(crate) fn read(text: &str) -> Result<Vec<Value>, serde_yaml::Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        documents.push(Value::deserialize(document)?);
    }
    Ok(documents)
}

// === impl Value ===

impl Value {
    /// The mapping, if it is one.
    pub(crate) fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The mapping, if it is one.
    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The sequence, if it is one.
    pub(crate) fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value under a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    /// The value under a key, if this is a mapping that has it.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.as_map_mut()?.get_mut(key)
    }

    /// Makes unknown what a path leads to, or else the last that is there on the way.
    pub(crate) fn forget(&mut self, path: &[Step]) {
        let is_there = match (&*self, path.first()) {
            (Self::Map(map), Some(Step::Key(key))) => map.contains_key(key),
            (Self::List(items), Some(Step::Index(index))) => *index < items.len(),
            (Self::Override(_), _) => true,
            _ => false,
        };
        match (self, path) {
            (Self::Map(map), [Step::Key(key), rest @ ..]) if is_there => {
                map.entry(key.clone()).and_modify(|value| value.forget(rest));
            }
            (Self::List(items), [Step::Index(index), rest @ ..]) if is_there => items[*index].forget(rest),
            (Self::Override(inner), path) => inner.forget(path),
            (value, _) => *value = Self::Unknown,
        }
    }

    /// Makes unknown what a mapping has under a key, even if that is nothing.
    pub(crate) fn say_unknown(&mut self, key: &str) {
        match self {
            Self::Map(map) => drop(map.insert(key.to_owned(), Self::Unknown)),
            value => *value = Self::Unknown,
        }
    }

    /// The paths to what is unknown in it.
    pub(crate) fn unknown(&self) -> Vec<Path> {
        let mut found = Vec::new();
        self.collect_unknown(&mut Path::default(), &mut found);
        found
    }

    fn collect_unknown(&self, path: &mut Path, found: &mut Vec<Path>) {
        let mut inside = |step: Step, value: &Self| {
            path.0.push(step);
            value.collect_unknown(path, found);
            path.0.pop();
        };
        match self {
            Self::Unknown => found.push(path.clone()),
            Self::Map(map) => map.iter().for_each(|(key, value)| inside(Step::Key(key.clone()), value)),
            Self::List(items) => {
                items.iter().enumerate().for_each(|(index, value)| inside(Step::Index(index), value));
            }
            Self::Override(inner) => inner.collect_unknown(path, found),
            _ => {}
        }
    }

    /// Whether anything in it is unknown.
    pub(crate) fn holds_unknown(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Map(map) => map.values().any(Self::holds_unknown),
            Self::List(items) => items.iter().any(Self::holds_unknown),
            Self::Override(inner) => inner.holds_unknown(),
            _ => false,
        }
    }

    /// What it is, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null | Self::Unknown => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Reset | Self::Override(_) => "a tagged value",
        }
    }

    /// A scalar's text as Go prints it; `None` for nothing, sequences and mappings.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(value.to_string()),
            Self::Int(value) => Some(value.to_string()),
            Self::Float(value) => Some(go_float(*value)),
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The same as JSON.
    pub(crate) fn into_json(self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null | Self::Reset | Self::Unknown => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Int(value) => i64::try_from(value)
                .map(Json::from)
                .or_else(|_| u64::try_from(value).map(Json::from))
                .unwrap_or_else(|_| Json::from(value as f64)),
            Self::Float(value) => Json::from(value),
            Self::Text(text) => Json::String(text),
            Self::List(list) => Json::Array(list.into_iter().map(Self::into_json).collect()),
            Self::Map(map) => {
                Json::Object(map.into_iter().map(|(key, value)| (key, value.into_json())).collect())
            }
            Self::Override(value) => value.into_json(),
        }
    }
}

/// Go's `%v` of a float: the shortest text, with an exponent below -4 and from 21 on.
fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..21).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    value.to_string()
}

// === impl Path ===

impl Path {
    /// The path of these keys.
    pub(crate) fn keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// One step on.
    pub(crate) fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// One step on.
    pub(crate) fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

// === reading ===

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = access.next_key::<Value>()? {
            let value: Value = access.next_value()?;
            let key = match key {
                Value::Null => "null".to_owned(),
                Value::Text(text) => text,
                key => key.scalar_text().ok_or_else(|| de::Error::custom("a key must be a string"))?,
            };
            if key == "<<" {
                merged.push(value);
                continue;
            }
            match map.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(value)),
                // Which one is meant nobody knows.
                Entry::Occupied(mut entry) => drop(entry.insert(Value::Unknown)),
            }
        }
        for value in merged {
            merge_key(&mut map, value).map_err(de::Error::custom)?;
        }
        Ok(Value::Map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (tag, contents) = access.variant::<String>()?;
        let value: Value = contents.newtype_variant()?;
        Ok(match tag.trim_start_matches('!') {
            "reset" => Value::Reset,
            "override" => Value::Override(Box::new(value)),
            _ => value,
        })
    }
}

/// `<<`: keys that are not there yet are taken over, from the first mapping that has them.
fn merge_key(map: &mut Map, value: Value) -> Result<(), &'static str> {
    match value {
        Value::Map(base) => {
            for (key, value) in base {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::List(bases) => bases.into_iter().try_for_each(|base| match base {
            Value::Map(_) => merge_key(map, base),
            _ => Err("`<<` takes a mapping or a list of mappings"),
        }),
        _ => Err("`<<` takes a mapping or a list of mappings"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Value {
        read(text).unwrap().remove(0)
    }

    #[test]
    fn anchors_and_merge_keys_are_resolved_and_the_own_key_wins() {
        let value = one("base: &b {a: 1, b: 2}\nx: {<<: *b, b: 3}\ny: {<<: [{a: 9}, *b]}");
        assert_eq!(value.get("x").unwrap().clone().into_json().to_string(), r#"{"a":1,"b":3}"#);
        assert_eq!(value.get("y").unwrap().clone().into_json().to_string(), r#"{"a":9,"b":2}"#);
    }

    #[test]
    fn compose_tags_are_kept_and_others_are_not() {
        let value = one("a: !reset null\nb: !override [1]\nc: !other x\nd: !reset\ne: !!str 5");
        assert_eq!(value.get("a"), Some(&Value::Reset));
        assert_eq!(value.get("b"), Some(&Value::Override(Box::new(Value::List(vec![Value::Int(1)])))));
        assert_eq!(value.get("c"), Some(&Value::Text("x".to_owned())));
        assert_eq!(value.get("d"), Some(&Value::Reset));
        assert_eq!(value.get("e"), Some(&Value::Text("5".to_owned())));
    }

    #[test]
    fn several_documents_are_several_values() {
        assert_eq!(read("a: 1\n---\nb: 2\n").unwrap().len(), 2);
    }

    #[test]
    fn what_stands_under_a_key_that_is_there_twice_is_unknown() {
        let value = one("a: 1\nb: {c: 1, d: 2, c: 3}\na: 2");
        let paths: Vec<String> = value.unknown().iter().map(Path::to_string).collect();
        assert_eq!(paths, ["a", "b.c"]);
    }

    #[test]
    fn as_much_is_forgotten_as_is_there_of_a_path() {
        let mut value = one("a: [1, {b: 2}]\nc: !override {d: 3}\ne: 4");
        value.forget(&Path::keys(&["a"]).index(1).key("b").0);
        value.forget(&Path::keys(&["c", "d"]).0);
        value.forget(&Path::keys(&["e", "f", "g"]).0);
        let paths: Vec<String> = value.unknown().iter().map(Path::to_string).collect();
        assert_eq!(paths, ["a[1].b", "c.d", "e"]);
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, base) in
            ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"])
        {
            let aliases = vec![format!("*{base}"); 9].join(", ");
            bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        assert!(read(&bomb).is_err());
    }

    #[test]
    fn numbers_print_as_in_go() {
        for (number, text) in [(1.0, "1"), (1.1, "1.1"), (1e21, "1e+21"), (1e-6, "1e-06"), (0.5, "0.5")] {
            assert_eq!(go_float(number), text);
        }
    }
}
