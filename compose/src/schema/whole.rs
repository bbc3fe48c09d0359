//! What only the merged whole can tell: keys that are missing, and what is left out of the model.

use super::{FILE, Problem, Shape};
use crate::value::{Map, Path, Step, Value};

pub(super) fn complete(value: &Value, shape: &Shape, path: &mut Path, problems: &mut Vec<Problem>) {
    match (shape, value) {
        (Shape::Nullable(_) | Shape::Command, Value::Null) | (_, Value::Unknown) => {}
        (_, Value::Null) if !path.0.is_empty() => {
            let key = match path.0.last() {
                Some(Step::Key(key)) => key.as_str(),
                _ => "an item",
            };
            problems.push(
                Problem::key(path, format!("{key} has no value"))
                    .with_help("give it one or leave the key out"),
            );
        }
        (Shape::Nullable(inner) | Shape::Short(_, inner), value) => complete(value, inner, path, problems),
        (Shape::Object(object), Value::Map(map)) => {
            // A key that nobody understands may be the one that is missing.
            let is_whole =
                !map.iter().any(|(key, entry)| *entry == Value::Unknown && object.field(key).is_none());
            for name in object.required.iter().filter(|name| is_whole && !map.contains_key(**name)) {
                problems.push(Problem::key(path, format!("{name} is missing in {path}")));
            }
            // Nothing is missing in a value that has nothing in it.
            let is_bare = |entry: &Value| {
                matches!(entry, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_))
            };
            for (key, entry) in map.iter().filter(|(_, entry)| !is_bare(entry)) {
                let Some(shape) = object.field(key) else { continue };
                complete_entry(map, (key, entry), shape, path, problems);
            }
        }
        (Shape::Map(inner), Value::Map(map)) => {
            for entry in map {
                complete_entry(map, entry, inner, path, problems);
            }
        }
        (Shape::List(inner), Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                path.0.push(Step::Index(index));
                complete(item, inner, path, problems);
                path.0.pop();
            }
        }
        _ => {}
    }
}

/// What has no value may be what something beside it that nobody understands belongs to.
fn complete_entry(
    map: &Map,
    (key, entry): (&String, &Value),
    shape: &Shape,
    path: &mut Path,
    problems: &mut Vec<Problem>,
) {
    let before = problems.len();
    path.0.push(Step::Key(key.clone()));
    complete(entry, shape, path, problems);
    path.0.pop();
    if *entry == Value::Null
        && let Some((beside, _)) = map.iter().find(|(_, entry)| **entry == Value::Unknown)
    {
        problems[before..].iter_mut().for_each(|problem| problem.rests_on.push(path.key(beside)));
    }
}

/// Drops what says nothing from a merged document: texts that are empty, and keys without a value.
pub(crate) fn prune(value: &mut Value) {
    prune_at(value, &FILE);
}

pub(super) fn prune_at(value: &mut Value, shape: &Shape) {
    match (shape, value) {
        (Shape::Nullable(inner) | Shape::Short(_, inner), value) => prune_at(value, inner),
        (Shape::Object(object), Value::Map(map)) => {
            let is_text = |key: &str| {
                matches!(object.field(key), Some(Shape::Text | Shape::Checked(_) | Shape::Word(_)))
            };
            let says_nothing = |key: &str, entry: &Value| match entry {
                Value::Null => true,
                Value::Text(text) => text.is_empty() && is_text(key),
                _ => false,
            };
            let goes = |key: &str, entry: &Value| {
                says_nothing(key, entry) && !key.starts_with("x-") && !object.required.contains(&key)
            };
            // Mostly nothing goes, and to look is less work than to put a map together again.
            if map.iter().any(|(key, entry)| goes(key, entry)) {
                map.retain(|key, entry| !goes(key, entry));
            }
            for (key, entry) in map {
                if matches!(entry, Value::Map(_) | Value::List(_))
                    && let Some(shape) = object.field(key)
                {
                    prune_at(entry, shape);
                }
            }
        }
        (Shape::Map(inner), Value::Map(map)) => map.values_mut().for_each(|entry| prune_at(entry, inner)),
        (Shape::List(inner), Value::List(items)) => items.iter_mut().for_each(|item| prune_at(item, inner)),
        _ => {}
    }
}

/// Drops what still has a variable in it and has to be more than a text.
pub(super) fn drop_open(value: &mut Value, shape: &Shape) {
    let is_open = |entry: &Value, shape: &Shape| {
        let is_plain = matches!(shape, Shape::Text | Shape::Scalar);
        !is_plain && entry.as_text().is_some_and(|text| text.contains('$'))
    };
    match (shape, value) {
        (Shape::Nullable(inner) | Shape::Short(_, inner), value) => drop_open(value, inner),
        (Shape::Object(object), Value::Map(map)) => {
            for (name, shape) in object.fields {
                if map.get(*name).is_some_and(|entry| is_open(entry, shape)) {
                    map.remove(*name);
                } else if let Some(entry) = map.get_mut(*name) {
                    drop_open(entry, shape);
                }
            }
        }
        (Shape::Map(inner), Value::Map(map)) => {
            map.retain(|_, entry| !is_open(entry, inner));
            map.values_mut().for_each(|entry| drop_open(entry, inner));
        }
        (Shape::List(inner), Value::List(items)) => {
            items.retain(|item| !is_open(item, inner));
            items.iter_mut().for_each(|item| drop_open(item, inner));
        }
        _ => {}
    }
}

/// `did you mean "image"?`, when one of the names is near enough.
pub(crate) fn suggestion<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = (wrong.chars().count() / 3).clamp(1, 3);
    names
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| format!("did you mean {name:?}?"))
}

/// How many letters must be added, dropped, replaced or swapped to make one word of the other.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
