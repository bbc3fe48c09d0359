//! Rules about FROM: its words, its variables and its platform.

use std::collections::BTreeSet;

use super::Finding;
use crate::builder::expand::Expander;
use crate::builder::fault::nearest;
use crate::builder::instruction::{Dockerfile, Instruction, Stage};
use crate::image::Reference;

/// The arguments that are there without being declared.
const GIVEN: [&str; 9] = [
    "BUILDARCH",
    "BUILDOS",
    "BUILDPLATFORM",
    "BUILDVARIANT",
    "TARGETARCH",
    "TARGETOS",
    "TARGETPLATFORM",
    "TARGETSTAGE",
    "TARGETVARIANT",
];

/// What is to be said about the words of a FROM.
pub(super) fn words<'a>(stage: &'a Stage, names: &mut BTreeSet<&'a str>, found: &mut Vec<Finding>) {
    let line = stage.lines.0;
    let words: Vec<&str> = stage.code.split_whitespace().filter(|word| !word.starts_with("--")).collect();
    if let [from, _, keyword, name] = words[..] {
        let is_lower = |word: &str| word.chars().all(char::is_lowercase);
        if is_lower(from) != is_lower(keyword) {
            let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
            found.push(("FromAsCasing", line, message));
        }
        if name.chars().any(char::is_uppercase) {
            found.push(("StageNameCasing", line, format!("Stage name '{name}' should be lowercase")));
        }
    }
    let Some(name) = stage.name.as_deref() else { return };
    if matches!(name, "scratch" | "context") {
        let message = format!("Stage name should not use the same name as reserved stage \"{name}\"");
        found.push(("ReservedStageName", line, message));
    }
    if !names.insert(name) {
        let message = format!("Duplicate stage name \"{name}\", stage names should be unique");
        found.push(("DuplicateStageName", line, message));
    }
}

/// What is to be said about the variables of a FROM.
pub(super) fn variables(dockerfile: &Dockerfile, stage: &Stage, found: &mut Vec<Finding>) {
    let line = stage.lines.0;
    let declared: Vec<(&str, Option<&str>)> = dockerfile
        .globals
        .iter()
        .filter_map(|step| match &step.instruction {
            Instruction::Arg(list) => Some(list),
            _ => None,
        })
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    let is_known = |name: &str| GIVEN.contains(&name) || declared.iter().any(|(known, _)| *known == name);
    let expander = Expander::new(dockerfile.escape);
    for text in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
        let lookup = |name: &str| is_known(name).then(|| "x".to_owned());
        let Ok(expanded) = expander.expand(text, &lookup) else { continue };
        for name in expanded.unset {
            let known = declared.iter().map(|(known, _)| *known).chain(GIVEN);
            let hint = nearest(&name, known).map(|meant| format!(" (did you mean {meant}?)"));
            let message = format!("FROM argument '{name}' is not declared{}", hint.unwrap_or_default());
            found.push(("UndefinedArgInFrom", line, message));
        }
    }
    if !stage.base.contains('$') {
        return;
    }
    let default = |name: &str| {
        let declared = declared.iter().rev().find(|(known, _)| *known == name)?;
        declared.1.map(|value| value.trim_matches('"').to_owned())
    };
    let base = expander.expand(&stage.base, &default).map(|expanded| expanded.text);
    if base.is_ok_and(|base| base.is_empty() || base.parse::<Reference>().is_err()) {
        let message =
            format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
        found.push(("InvalidDefaultArgInFrom", line, message));
    }
}

/// What is to be said about the platform of a FROM.
pub(super) fn platform(stage: &Stage, found: &mut Vec<Finding>) {
    let line = stage.lines.0;
    let Some(platform) = stage.platform.as_deref() else { return };
    if matches!(platform, "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
        let message = format!(
            "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
        );
        found.push(("RedundantTargetPlatform", line, message));
    }
    // A stage that is called after its platform is meant for that one.
    let mut parts = platform.split('/');
    let is_in_name = stage.name.as_deref().is_some_and(|name| parts.any(|part| name.contains(part)));
    if !platform.contains('$') && !is_in_name {
        let message = format!("FROM --platform flag should not use constant value {platform:?}");
        found.push(("FromPlatformFlagConstDisallowed", line, message));
    }
}
