//! The model as it is written: what `config --no-interpolate` prints, and where `--variables` looks for them.

use serde_json::Value as Json;

use crate::canonical::to_json;
use crate::model::Project;
use crate::value::Value;

/// The merged files, and `with_implied` what they leave unsaid as it is in the project made of them. Keys are sorted.
pub(crate) fn as_written(document: Value, project: &Project, with_implied: bool) -> Json {
    let mut written = document.into_json();
    if with_implied {
        let mut whole = project.clone();
        whole.services.extend(std::mem::take(&mut whole.disabled_services));
        let mut implied = to_json(&whole);
        drop_empty(&mut implied);
        add(&mut written, implied);
    }
    sort(&mut written);
    written
}

/// What is written stays as it is.
fn add(written: &mut Json, implied: Json) {
    match (written, implied) {
        (Json::Object(written), Json::Object(implied)) => {
            for (key, implied) in implied {
                match written.get_mut(&key) {
                    Some(value) => add(value, implied),
                    None => {
                        written.insert(key, implied);
                    }
                }
            }
        }
        (Json::Array(written), Json::Array(implied)) if written.len() == implied.len() => {
            written.iter_mut().zip(implied).for_each(|(written, implied)| add(written, implied));
        }
        (written @ Json::Null, implied @ Json::Object(_)) => *written = implied,
        _ => {}
    }
}

/// The canonical form has some keys in every object, written or not.
fn drop_empty(value: &mut Json) {
    match value {
        Json::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|key, value| match value {
                Json::Null => !matches!(key.as_str(), "command" | "entrypoint"),
                Json::Object(map) => {
                    !(map.is_empty() && matches!(key.as_str(), "exec" | "ipam" | "placement" | "resources"))
                }
                _ => true,
            });
        }
        Json::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

fn sort(value: &mut Json) {
    match value {
        Json::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort);
        }
        Json::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}
