//! Several documents into one. What differs from "mappings merge, lists append, scalars replace" is a row of a table.

use std::collections::HashMap;

use crate::value::{Map, Value};

/// How two values at one place become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The later one counts alone.
    Replace,
    /// Key by key, and a key without a value counts as one.
    Pairs,
    /// As mappings, if the drivers are the same or one does not name any.
    Logging,
    /// As lists whose items are the same thing when this is equal; the later one takes the place of the earlier.
    Unique(Same),
}

/// What makes two items of a list the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Same {
    /// Their text up to a `=`.
    Key,
    /// Their whole text.
    Text,
    /// What they have under this key.
    Field(&'static str),
    /// Where they appear: `target`, else this directory and `source`.
    Target(&'static str),
    /// Address, both ports and protocol.
    Port,
}

/// The exceptions, by place; `*` is any key.
const RULES: &[(&str, Rule)] = &[
    ("networks.*.ipam.config", Rule::Unique(Same::Field("subnet"))),
    ("services.*.annotations", Rule::Pairs),
    ("services.*.build.args", Rule::Pairs),
    ("services.*.build.extra_hosts", Rule::Unique(Same::Text)),
    ("services.*.build.platforms", Rule::Unique(Same::Text)),
    ("services.*.build.tags", Rule::Unique(Same::Text)),
    ("services.*.cap_add", Rule::Unique(Same::Text)),
    ("services.*.cap_drop", Rule::Unique(Same::Text)),
    ("services.*.command", Rule::Replace),
    ("services.*.configs", Rule::Unique(Same::Target(""))),
    ("services.*.devices", Rule::Unique(Same::Field("target"))),
    ("services.*.dns", Rule::Unique(Same::Text)),
    ("services.*.dns_opt", Rule::Unique(Same::Key)),
    ("services.*.dns_search", Rule::Unique(Same::Text)),
    ("services.*.entrypoint", Rule::Replace),
    ("services.*.env_file", Rule::Unique(Same::Field("path"))),
    ("services.*.environment", Rule::Pairs),
    ("services.*.expose", Rule::Unique(Same::Text)),
    ("services.*.external_links", Rule::Unique(Same::Text)),
    ("services.*.extra_hosts", Rule::Unique(Same::Text)),
    ("services.*.group_add", Rule::Unique(Same::Text)),
    ("services.*.healthcheck.test", Rule::Replace),
    ("services.*.label_file", Rule::Unique(Same::Text)),
    ("services.*.links", Rule::Unique(Same::Text)),
    ("services.*.logging", Rule::Logging),
    ("services.*.networks.*.aliases", Rule::Unique(Same::Text)),
    ("services.*.networks.*.link_local_ips", Rule::Unique(Same::Text)),
    ("services.*.ports", Rule::Unique(Same::Port)),
    ("services.*.profiles", Rule::Unique(Same::Text)),
    ("services.*.secrets", Rule::Unique(Same::Target("/run/secrets"))),
    ("services.*.security_opt", Rule::Unique(Same::Text)),
    ("services.*.tmpfs", Rule::Unique(Same::Text)),
    ("services.*.ulimits.*", Rule::Replace),
    ("services.*.volumes", Rule::Unique(Same::Field("target"))),
    ("services.*.volumes_from", Rule::Unique(Same::Text)),
];

/// Merges an expanded document over what was there before it, and does what its tags say.
pub(crate) fn merge(base: &mut Value, over: Value) {
    merge_at(base, over, &mut Vec::new());
}

/// Merges one service over another.
pub(crate) fn merge_service(base: &mut Value, over: Value) {
    merge_at(base, over, &mut vec!["services".to_owned(), "*".to_owned()]);
}

fn merge_at(base: &mut Value, over: Value, at: &mut Vec<String>) {
    let rule = rule(at);
    match (&mut *base, over) {
        (base, Value::Override(inner)) => {
            *base = Value::Null;
            merge_at(base, *inner, at);
        }
        (_, Value::Null) => {}
        (base, Value::Unknown) => *base = Value::Unknown,
        (base, Value::Reset) => *base = Value::Null,
        (base, over) if rule == Some(Rule::Replace) => *base = settled(over, at),
        (Value::Unknown, Value::Map(_) | Value::List(_)) => {}
        (Value::Map(base), Value::Map(over)) => {
            let replaced = rule == Some(Rule::Logging) && {
                let driver = |map: &Map| map.get("driver").and_then(Value::as_text).map(str::to_owned);
                matches!((driver(base), driver(&over)), (Some(a), Some(b)) if a != b)
            };
            if replaced {
                base.clear();
            }
            merge_maps(base, over, at, rule == Some(Rule::Pairs));
        }
        (Value::List(base), Value::List(over)) => {
            base.extend(over.into_iter().filter_map(|item| match item {
                Value::Reset => None,
                Value::Override(inner) => Some(*inner),
                item => Some(item),
            }));
            if let Some(Rule::Unique(same)) = rule {
                unique(base, same);
            }
            // The reference keeps hosts in a map.
            if at.last().is_some_and(|key| key == "extra_hosts") {
                base.sort_by_cached_key(Value::scalar_text);
            }
        }
        (base, over) => *base = settled(over, at),
    }
}

fn merge_maps(base: &mut Map, over: Map, at: &mut Vec<String>, keep_nothing: bool) {
    for (key, value) in over {
        match value {
            Value::Reset => drop(base.remove(&key)),
            Value::Null if keep_nothing => drop(base.insert(key, Value::Null)),
            value => {
                at.push(key.clone());
                match base.get_mut(&key) {
                    Some(old) => merge_at(old, value, at),
                    None => drop(base.insert(key, settled(value, at))),
                }
                at.pop();
            }
        }
    }
}

/// A value that nothing was there before: its tags have done their work, its lists hold nothing twice.
fn settled(value: Value, at: &mut Vec<String>) -> Value {
    match value {
        Value::Reset => Value::Null,
        Value::Override(inner) => settled(*inner, at),
        Value::Map(mut map) => {
            if map.values().any(|value| *value == Value::Reset) {
                map.retain(|_, value| *value != Value::Reset);
            }
            // Most values have nothing in them, and need no place.
            let is_deep =
                |value: &Value| matches!(value, Value::Map(_) | Value::List(_) | Value::Override(_));
            for (key, value) in map.iter_mut().filter(|(_, value)| is_deep(value)) {
                at.push(key.clone());
                *value = settled(std::mem::replace(value, Value::Null), at);
                at.pop();
            }
            Value::Map(map)
        }
        Value::List(items) => {
            let mut list = Value::List(Vec::new());
            if matches!(rule(at), Some(Rule::Replace) | None) {
                return Value::List(items.into_iter().filter(|item| *item != Value::Reset).collect());
            }
            merge_at(&mut list, Value::List(items), at);
            list
        }
        value => value,
    }
}

fn rule(at: &[String]) -> Option<Rule> {
    // Only three levels down and more is there anything out of the ordinary.
    let [section, _, inner @ ..] = at else { return None };
    if inner.is_empty() {
        return None;
    }
    let matches = |pattern: &str| {
        let Some(pattern) = pattern.strip_prefix(section.as_str()).and_then(|rest| rest.strip_prefix(".*."))
        else {
            return false;
        };
        let mut keys = inner.iter();
        pattern.split('.').all(|part| keys.next().is_some_and(|key| part == "*" || part == key))
            && keys.next().is_none()
    };
    RULES.iter().find(|(pattern, _)| matches(pattern)).map(|(_, rule)| *rule)
}

fn unique(items: &mut Vec<Value>, same: Same) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Value> = Vec::with_capacity(items.len());
    for item in std::mem::take(items) {
        match identity(&item, same) {
            Some(identity) => match seen.get(&identity) {
                Some(position) => kept[*position] = item,
                None => {
                    seen.insert(identity, kept.len());
                    kept.push(item);
                }
            },
            None => kept.push(item),
        }
    }
    *items = kept;
}

fn identity(item: &Value, same: Same) -> Option<String> {
    let field = |key: &str| item.get(key).and_then(Value::scalar_text);
    match same {
        Same::Text => item.scalar_text(),
        Same::Key => item.as_text().map(|text| text.split('=').next().unwrap_or_default().to_owned()),
        Same::Field(key) => field(key),
        Same::Target(directory) => {
            field("target").or_else(|| Some(format!("{directory}/{}", field("source")?)))
        }
        Same::Port => Some(format!(
            "{}:{}:{}/{}",
            field("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned()),
            field("published").unwrap_or_default(),
            field("target")?,
            field("protocol").unwrap_or_else(|| "tcp".to_owned())
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::read;

    /// Merges documents as `load` does and prints what is under `services.a`.
    fn merged(documents: &str) -> String {
        let mut base = Value::Map(Map::new());
        for mut document in read(documents).unwrap() {
            crate::schema::check(&mut document, false);
            crate::shorthand::expand(&mut document, false);
            merge(&mut base, document);
        }
        base.get("services").and_then(|services| services.get("a")).unwrap().clone().into_json().to_string()
    }

    fn two(first: &str, second: &str) -> String {
        merged(&format!("services: {{a: {first}}}\n---\nservices: {{a: {second}}}"))
    }

    #[test]
    fn each_rule_of_the_table() {
        for (first, second, expected) in [
            ("{image: x, hostname: h}", "{image: y}", r#"{"hostname":"h","image":"y"}"#),
            ("{image: x}", "{image: }", r#"{"image":"x"}"#),
            ("{command: [a, b]}", "{command: c}", r#"{"command":["c"]}"#),
            (
                "{environment: {A: 1, B: 2}}",
                "{environment: [B=3, A]}",
                r#"{"environment":{"A":null,"B":"3"}}"#,
            ),
            ("{labels: [a=1]}", "{labels: {a: 2, b: 3}}", r#"{"labels":{"a":"2","b":"3"}}"#),
            ("{expose: [80]}", "{expose: [\"80\", 81]}", r#"{"expose":["80","81"]}"#),
            ("{dns: 1.1.1.1}", "{dns: [1.1.1.1, 2.2.2.2]}", r#"{"dns":["1.1.1.1","2.2.2.2"]}"#),
            ("{ulimits: {n: {soft: 1, hard: 2}}}", "{ulimits: {n: 5}}", r#"{"ulimits":{"n":5}}"#),
            (
                "{logging: {driver: x, options: {a: 1}}}",
                "{logging: {driver: y, options: {b: 2}}}",
                r#"{"logging":{"driver":"y","options":{"b":"2"}}}"#,
            ),
            (
                "{logging: {driver: x, options: {a: 1}}}",
                "{logging: {options: {b: 2}}}",
                r#"{"logging":{"driver":"x","options":{"a":"1","b":"2"}}}"#,
            ),
            (
                "{healthcheck: {test: [CMD, a]}}",
                "{healthcheck: {test: [CMD, b]}}",
                r#"{"healthcheck":{"test":["CMD","b"]}}"#,
            ),
        ] {
            assert_eq!(two(first, second), expected);
        }
    }

    #[test]
    fn ports_and_volumes_are_the_same_by_what_they_are() {
        assert_eq!(
            two("{ports: [\"80:80\", \"81:81\"]}", "{ports: [{target: 80, published: 80, name: x}]}"),
            r#"{"ports":[{"name":"x","published":"80","target":80},{"mode":"ingress","protocol":"tcp","published":"81","target":81}]}"#
        );
        assert_eq!(
            two("{volumes: [\"a:/x\", \"b:/y\"]}", "{volumes: [\"c:/x/\"]}"),
            r#"{"volumes":[{"source":"c","target":"/x","type":"volume","volume":{}},{"source":"b","target":"/y","type":"volume","volume":{}}]}"#
        );
    }

    #[test]
    fn reset_removes_and_override_replaces() {
        assert_eq!(two("{image: x, ports: [\"80\"]}", "{ports: !reset null}"), r#"{"image":"x"}"#);
        assert_eq!(
            two("{environment: {A: 1, B: 2}}", "{environment: {A: !reset null}}"),
            r#"{"environment":{"B":"2"}}"#
        );
        assert_eq!(two("{dns: [1.1.1.1]}", "{dns: !override [2.2.2.2]}"), r#"{"dns":["2.2.2.2"]}"#);
        assert_eq!(two("{labels: {a: 1}}", "{labels: !override {b: 2}}"), r#"{"labels":{"b":"2"}}"#);
    }

    #[test]
    fn one_document_alone_holds_nothing_twice() {
        assert_eq!(
            merged("services: {a: {cap_add: [A, A], command: [x, x]}}"),
            r#"{"cap_add":["A"],"command":["x","x"]}"#
        );
    }
}
