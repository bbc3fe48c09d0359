//! `--filter` of networks and volumes: all keys must match; of a key one value is enough, but labels must all be there.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::quantity::Span;

/// What `--filter` asks for.
#[derive(Debug)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `key=value` texts; only these keys are known.
    pub(super) fn parse(texts: &[String], known: &[&str]) -> Result<Self> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in texts {
            // Docker writes `label!=key` for what must not be there.
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key.trim().to_ascii_lowercase(), value.trim()),
                None => return Err(Error::invalid(format!("invalid filter {text:?}: key=value is needed"))),
            };
            if !known.contains(&key.as_str()) {
                return Err(Error::invalid(format!("invalid filter '{key}'"))
                    .with_hint(format!("known filters are {}", known.join(", "))));
            }
            filters.entry(key).or_default().push(value.to_owned());
        }
        Ok(Self(filters))
    }

    /// Whether everything that is asked for matches; `is` tells it of one key and value.
    pub(super) fn match_all(&self, mut is: impl FnMut(&str, &str) -> Result<bool>) -> Result<bool> {
        for (key, values) in &self.0 {
            let mut matching = values.iter().map(|value| is(key, value));
            let matched = if key.starts_with("label") {
                matching.try_fold(true, |all, one| one.map(|one| all && one))?
            } else {
                matching.try_fold(false, |any, one| one.map(|one| any || one))?
            };
            if !matched {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The value of a key that makes sense only once.
    pub(super) fn last(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.last().map(String::as_str)
    }
}

/// Whether labels have `key` or `key=value`.
pub(super) fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

/// `true`, `1`, `false` or `0`.
pub(super) fn truth(key: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::invalid(format!("invalid filter '{key}={value}': true or false is needed"))),
    }
}

/// Whether something was made before the moment that `until` names.
pub(super) fn is_before(created: Timestamp, until: &str) -> Result<bool> {
    Ok(created < moment(until)?)
}

/// The moment that `until` names: a time, seconds since 1970, or how long ago.
pub(super) fn moment(until: &str) -> Result<Timestamp> {
    let wrong = |error: jiff::Error| {
        Error::invalid(format!("invalid filter 'until={until}'"))
            .with_source(error)
            .with_hint("write how long ago, as in 24h, or a time, as in 2026-01-31T12:00:00Z")
    };
    if let Ok(span) = until.parse::<Span>() {
        return Timestamp::now().checked_sub(span.0).map_err(wrong);
    }
    let seconds = || Timestamp::from_second(until.parse().ok()?).ok();
    until.parse::<Timestamp>().or_else(|error| seconds().ok_or(error)).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(texts: &[&str]) -> Result<Filters> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Filters::parse(&texts, &["name", "label", "label!"])
    }

    #[test]
    fn one_value_is_enough_but_all_labels_are_needed() {
        let among = |wanted: &'static [&'static str]| move |_: &str, value: &str| Ok(wanted.contains(&value));
        let both = filters(&["name=a", "name=b"]).unwrap();
        assert!(both.match_all(among(&["b"])).unwrap());
        let labels = filters(&["label=a", "label=b"]).unwrap();
        assert!(!labels.match_all(among(&["b"])).unwrap());
        assert!(labels.match_all(among(&["a", "b"])).unwrap());
        assert!(filters(&[]).unwrap().match_all(among(&[])).unwrap());
        assert!(filters(&["label!=a"]).is_ok());
        assert!(filters(&["nmae=a"]).is_err() && filters(&["name"]).is_err());
    }

    #[test]
    fn a_moment_is_a_time_or_an_age() {
        let old = Timestamp::from_second(1_000_000).unwrap();
        for until in ["1h", "2020-01-01T00:00:00Z", "1000001"] {
            assert!(is_before(old, until).unwrap(), "{until}");
            assert!(!is_before(Timestamp::now(), until).unwrap(), "{until}");
        }
        assert!(is_before(old, "soon").is_err());
    }
}
