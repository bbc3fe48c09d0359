//! Names, labels and quantities as the API server takes them.

use std::collections::BTreeMap;

use engine::container::merge::expand_exposed;
use engine::container::spec::Protocol;
use engine::quantity::ByteSize;
use serde_json::{Map, Value as Json};

use crate::model::Service;

/// A name for objects that are also host names (RFC 1035): lower-case letters, digits and `-`, a letter first.
pub(super) fn label(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let mut name: String = text.to_lowercase().chars().map(allowed).collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert(0, 'x');
    }
    name.truncate(63);
    name.trim_end_matches('-').to_owned()
}

/// A key of a ConfigMap or Secret: letters, digits, `-`, `_` and `.`.
pub(super) fn data_key(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    text.chars().map(allowed).collect()
}

/// Whether a text can be the key of a label or an annotation.
pub(super) fn is_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(|part| label(part) == part);
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_prefix)
}

/// Whether a text can be the value of a label.
pub(super) fn is_value(text: &str) -> bool {
    let is_end = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && (text.is_empty() || (text.starts_with(is_end) && text.ends_with(is_end)))
}

/// Texts as annotations; keys that cannot be one are given back.
pub(super) fn annotations(texts: &BTreeMap<String, String>) -> (Map<String, Json>, Vec<&str>) {
    let (good, bad): (Vec<_>, Vec<_>) = texts.iter().partition(|(key, _)| is_key(key));
    let good = good.into_iter().map(|(key, value)| (key.clone(), Json::from(value.clone()))).collect();
    (good, bad.into_iter().map(|(key, _)| key.as_str()).collect())
}

/// The labels by which a service's pods are found.
pub(super) fn selector(project: &str, service: &str) -> Map<String, Json> {
    Map::from_iter([
        ("app.kubernetes.io/name".to_owned(), Json::from(label(service))),
        ("app.kubernetes.io/part-of".to_owned(), Json::from(label(project))),
    ])
}

/// The label of pods that are attached to a network.
pub(super) fn network_label(network: &str) -> String {
    format!("network.compose-spec.io/{}", label(network))
}

/// Processors: `2`, `500m`.
pub(super) fn processors(number: f64) -> Json {
    let milli = (number * 1000.0).ceil().max(1.0) as u64;
    Json::from(if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") })
}

/// Bytes in the largest unit that divides them.
pub(super) fn bytes(size: ByteSize) -> Json {
    let unit = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")]
        .into_iter()
        .find(|(unit, _)| size.0 > 0 && size.0.is_multiple_of(*unit));
    Json::from(unit.map_or_else(|| size.0.to_string(), |(unit, name)| format!("{}{name}", size.0 / unit)))
}

/// A text in which the API server would expand `$(NAME)`, so that it stays as it is.
pub(super) fn literal(text: &str) -> Json {
    Json::from(text.replace("$(", "$$("))
}

/// A number, if that is what a user or group is.
pub(super) fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| *number >= 0)
}

/// The ports a service's containers are known to listen on, with their protocols, sorted.
pub(super) fn ports(service: &Service) -> Vec<(u16, &'static str)> {
    let mut ports: Vec<_> = service.ports.iter().map(|port| (port.target, protocol(port.protocol))).collect();
    for text in &service.expose {
        let exposed = expand_exposed(text).unwrap_or_default();
        ports.extend(exposed.into_iter().map(|port| (port.port, protocol(port.protocol))));
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// A protocol as the API writes it.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names() {
        assert_eq!(label("Web_Front.1"), "web-front-1");
        assert_eq!(label("2048"), "x2048");
        assert_eq!(label(&"a".repeat(70)).len(), 63);
    }

    #[test]
    fn quantities_are_exact() {
        assert_eq!(processors(0.5), "500m");
        assert_eq!(processors(2.0), "2");
        assert_eq!(bytes(ByteSize(64 << 20)), "64Mi");
        assert_eq!(bytes(ByteSize(1000)), "1000");
    }

    #[test]
    fn what_would_be_expanded_is_escaped() {
        assert_eq!(literal("$(HOME) $HOME"), "$$(HOME) $HOME");
    }

    #[test]
    fn labels_of_docker_are_told_from_those_of_the_cluster() {
        assert!(is_key("com.example.team") && is_key("example.com/team"));
        assert!(!is_key("a/b/c") && !is_key("-x") && !is_key("two words"));
        assert!(is_value("1.2") && !is_value("Host(`a`)"));
    }
}
