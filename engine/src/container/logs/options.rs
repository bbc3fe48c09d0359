//! Options of the log drivers: which there are, and what they add to each line. Pure.

use std::collections::BTreeMap;

use crate::container::record::ContainerRecord;
use crate::container::spec::LogSpec;
use crate::error::{Error, Kind, Result};
use crate::quantity::ByteSize;

/// What a tag can name, by docker's templates.
const TAGS: [&str; 6] = ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName"];

/// Refuses drivers and options that do not exist. Returns what is known and not done.
///
/// # Errors
/// Names the driver or the option.
pub fn check(spec: &LogSpec) -> Result<Vec<String>> {
    let LogSpec { driver, options } = spec;
    if !matches!(driver.as_str(), "json-file" | "local" | "none") {
        return Err(Error::new(
            Kind::Unsupported,
            format!("log driver {driver:?} does not exist: json-file, local or none"),
        ));
    }
    let mut warnings = Vec::new();
    for (key, value) in options {
        let wrong = |problem: &str| Error::invalid(format!("log option {key}={value}: {problem}"));
        if driver == "none" {
            return Err(wrong("the driver none has no options"));
        }
        match key.as_str() {
            "max-size" if value == "-1" => {}
            "max-size" => {
                value.parse::<ByteSize>().map_err(|error| wrong("not a size").with_source(error))?;
            }
            "max-file" if value.parse::<u32>().is_ok_and(|files| files > 0) => {}
            "max-file" => return Err(wrong("a number of files is needed")),
            "labels" | "env" => {}
            "tag" => {
                render_tag(value, |_| Some(String::new())).ok_or_else(|| wrong("unknown template"))?;
            }
            "compress" if value == "false" => {}
            "mode" if value == "blocking" => {}
            "compress" if value == "true" => {
                warnings.push("log option compress: rotated files stay as they are".to_owned());
            }
            "mode" if value == "non-blocking" => {
                warnings.push("log option mode: what is written is always waited for".to_owned());
            }
            "max-buffer-size" => {
                warnings.push("log option max-buffer-size: there is no buffer".to_owned());
            }
            "compress" | "mode" => return Err(wrong("unknown value")),
            "labels-regex" | "env-regex" => {
                return Err(Error::new(Kind::Unsupported, format!("log option {key} is not supported"))
                    .with_hint(format!("list the names with {}", key.trim_end_matches("-regex"))));
            }
            _ => return Err(wrong(&format!("the driver {driver} has no such option"))),
        }
    }
    Ok(warnings)
}

/// What is said with each line of a container's log: its tag, and the labels and variables that were asked for.
pub(crate) fn attributes(record: &ContainerRecord) -> BTreeMap<String, String> {
    let options = &record.spec.log.options;
    let mut attributes = BTreeMap::new();
    let names =
        |key: &str| options.get(key).map_or("", String::as_str).split(',').filter(|name| !name.is_empty());
    for name in names("labels") {
        if let Some(value) = record.spec.labels.get(name) {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    for name in names("env") {
        let mut entries = record.spec.process.env.iter().filter_map(|entry| entry.split_once('='));
        if let Some((_, value)) = entries.find(|(key, _)| *key == name) {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(template) = options.get("tag") {
        let image = record.image.as_str();
        let bare = image.split_once(':').map_or(image, |(_, hex)| hex);
        let value = |word: &str| {
            Some(match word {
                "ID" => record.id.short().to_owned(),
                "FullID" => record.id.to_string(),
                "Name" => record.name.to_string(),
                "ImageID" => bare.get(..12).unwrap_or(bare).to_owned(),
                "ImageFullID" => image.to_owned(),
                "ImageName" => record.spec.image.clone(),
                _ => return None,
            })
        };
        attributes.extend(render_tag(template, value).map(|tag| ("tag".to_owned(), tag)));
    }
    attributes
}

/// A template with every `{{.Word}}` replaced; `None` when there is another kind of template in it.
fn render_tag(template: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (word, after) = after.split_once("}}")?;
        let word = word.trim().strip_prefix('.').filter(|word| TAGS.contains(word))?;
        text.push_str(before);
        text.push_str(&value(word)?);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(driver: &str, options: &[(&str, &str)]) -> Result<Vec<String>> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        check(&LogSpec { driver: driver.to_owned(), options })
    }

    #[test]
    fn options_are_those_of_their_driver() {
        let all = [
            ("max-size", "10m"),
            ("max-file", "3"),
            ("labels", "a,b"),
            ("env", "C"),
            ("tag", "{{.Name}}/{{ .ID }}"),
        ];
        assert_eq!(checked("json-file", &all).unwrap(), Vec::<String>::new());
        assert_eq!(checked("local", &[("compress", "true"), ("mode", "non-blocking")]).unwrap().len(), 2);
        for (driver, key, value) in [
            ("none", "max-size", "1m"),
            ("json-file", "syslog-address", "x"),
            ("local", "max-file", "0"),
            ("local", "max-size", "x"),
            ("local", "mode", "sometimes"),
            ("local", "tag", "{{.Nosuch}}"),
            ("local", "tag", "{{.ID"),
            ("local", "labels-regex", "a.*"),
            ("fluentd", "tag", "x"),
        ] {
            assert!(checked(driver, &[(key, value)]).is_err(), "{driver} {key}={value}");
        }
    }
}
