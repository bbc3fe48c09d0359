//! What is not known of a project in which something is wrong. It has been told; what follows from it is not told, too.

use std::collections::BTreeSet;

use crate::schema::{FILE, Object, Shape};
use crate::value::{Map, Path, Value};

/// How deep a hole is: what is inside a key of a service, a network and so on is known as a whole or not at all.
const DEPTH: usize = 3;

/// Places of a merged document of which something is not known. One above others stands for all that may be there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holes(BTreeSet<Path>);

// === impl Holes ===

impl Holes {
    /// Takes what is unknown out of a merged document.
    pub(crate) fn take(document: &mut Value) -> Self {
        let mut holes = Self::default();
        if *document == Value::Unknown {
            *document = Value::Map(Map::new());
            holes.0.insert(Path::default());
        }
        holes.sift(document, &FILE, &Path::default());
        holes
    }

    /// What is at a path has been found wrong, so that it is as good as not known.
    pub(crate) fn add(&mut self, path: &Path) {
        self.0.insert(Path(path.0.iter().take(DEPTH).cloned().collect()));
    }

    /// Whether it is not known what stands at a path: there is a hole, or above it.
    pub(crate) fn has(&self, path: &Path) -> bool {
        (0..=path.0.len()).any(|length| self.0.contains(&Path(path.0[..length].to_vec())))
    }

    /// Whether all is known of what is at a path.
    pub(crate) fn spare(&self, path: &Path) -> bool {
        !self.has(path) && !self.0.iter().any(|hole| hole.0.starts_with(&path.0))
    }

    fn sift(&mut self, value: &mut Value, shape: &Shape, path: &Path) {
        let (Value::Map(map), shape) = (value, bare(shape)) else { return };
        let mut unknown = Vec::new();
        for (key, entry) in map.iter_mut() {
            let path = path.key(key);
            if path.0.len() < DEPTH
                && *entry != Value::Unknown
                && let Some(shape) = inner(shape, key)
            {
                self.sift(entry, shape, &path);
                // Whether a service is active nobody knows without this.
                if self.0.contains(&path.key("profiles")) {
                    unknown.push(key.clone());
                }
            } else if entry.holds_unknown() {
                unknown.push(key.clone());
            }
        }
        for key in unknown {
            map.remove(&key);
            self.0.insert(if stands_alone(shape, &key) { path.key(&key) } else { path.clone() });
        }
    }
}

/// Whether a key says something of its own: not one that nobody knows, without which there is nothing, or that brings in
/// what others say.
fn stands_alone(shape: &Shape, key: &str) -> bool {
    match shape {
        Shape::Object(object) => {
            let Object { required, .. } = object;
            object.field(key).is_some() && !required.contains(&key) && !matches!(key, "include" | "extends")
        }
        _ => true,
    }
}

fn inner(shape: &Shape, key: &str) -> Option<&'static Shape> {
    match shape {
        Shape::Object(object) => object.field(key),
        Shape::Map(inner) => Some(inner),
        _ => None,
    }
}

fn bare(shape: &Shape) -> &Shape {
    match shape {
        Shape::Nullable(inner) | Shape::Short(_, inner) => bare(inner),
        shape => shape,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holes of a document in which `_` is unknown, and what is left of it.
    fn taken(text: &str) -> (Vec<String>, String) {
        let mut value = crate::value::read(text).unwrap().remove(0);
        forget_marked(&mut value);
        let holes = Holes::take(&mut value);
        (holes.0.iter().map(Path::to_string).collect(), value.into_json().to_string())
    }

    fn forget_marked(value: &mut Value) {
        match value {
            Value::Text(text) if text == "_" => *value = Value::Unknown,
            Value::Map(map) => map.values_mut().for_each(forget_marked),
            Value::List(items) => items.iter_mut().for_each(forget_marked),
            _ => {}
        }
    }

    fn expect(text: &str, holes: &[&str], left: &str) {
        assert_eq!(
            taken(text),
            (holes.iter().map(|hole| (*hole).to_owned()).collect(), left.to_owned()),
            "{text}"
        );
    }

    #[test]
    fn a_hole_is_as_large_as_a_key_of_a_service() {
        expect(
            "services: {a: {image: x, tty: _}}",
            &["services.a.tty"],
            r#"{"services":{"a":{"image":"x"}}}"#,
        );
        expect(
            "services: {a: {image: x, build: {args: {A: _}}}}",
            &["services.a.build"],
            r#"{"services":{"a":{"image":"x"}}}"#,
        );
        expect(
            "services: {a: _}\nvolumes: {v: }",
            &["services.a"],
            r#"{"services":{},"volumes":{"v":null}}"#,
        );
    }

    #[test]
    fn a_key_that_nobody_knows_or_that_brings_in_others_may_stand_for_any() {
        expect("services: {a: {imag: _}}", &["services.a"], r#"{"services":{"a":{}}}"#);
        expect(
            "services: {a: {tty: true, extends: _}}",
            &["services.a"],
            r#"{"services":{"a":{"tty":true}}}"#,
        );
        expect("servces: _\ninclude: _", &[""], "{}");
        expect("models: {m: {model: _}}", &["models.m"], r#"{"models":{"m":{}}}"#);
    }

    #[test]
    fn a_service_whose_profiles_nobody_knows_is_none() {
        let holes = &["services.a", "services.a.profiles"];
        expect("services: {a: {image: x, profiles: [_]}}", holes, r#"{"services":{}}"#);
    }
}
