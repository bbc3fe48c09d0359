//! Rules for Dockerfiles that are good to keep: BuildKit's names, BuildKit's words.

use std::collections::BTreeSet;

use super::BuildEvent;
use super::instruction::{CommandLine, Dockerfile, Instruction, Stage, Step};
use super::report::Reporter;

/// A rule that was not kept, as a value.
type Finding = (&'static str, usize, String);

/// Words in the names of variables that should not be in an image.
const SECRET_WORDS: [&str; 7] = ["apikey", "auth", "credential", "key", "password", "secret", "token"];

/// Tells of everything in a Dockerfile that can be seen without building it.
pub(crate) fn check<M: From<BuildEvent>>(dockerfile: &Dockerfile, reporter: &Reporter<M>) {
    let skipped = skipped(dockerfile.check.as_deref());
    for (rule, line, message) in findings(dockerfile) {
        if !skipped.contains("all") && !skipped.contains(&rule.to_ascii_lowercase()) {
            reporter.warn(rule, line, message);
        }
    }
}

/// A variable that nobody set.
pub(crate) fn undefined<M: From<BuildEvent>>(
    reporter: &Reporter<M>,
    line: usize,
    name: &str,
    meant: Option<&str>,
) {
    let hint = meant.map(|meant| format!(" (did you mean ${meant}?)")).unwrap_or_default();
    reporter.warn("UndefinedVar", line, format!("Usage of undefined variable '${name}'{hint}"));
}

/// A WORKDIR that depends on the base image.
pub(crate) fn relative_workdir<M: From<BuildEvent>>(reporter: &Reporter<M>, line: usize, path: &str) {
    let message =
        format!("Relative workdir \"{path}\" can have unexpected results if the base image changes");
    reporter.warn("WorkdirRelativePath", line, message);
}

fn findings(dockerfile: &Dockerfile) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    dockerfile.globals.iter().for_each(|step| of_step(step, &mut found));
    for stage in &dockerfile.stages {
        of_from(stage, &mut names, &mut found);
        let mut commands = [("CMD", 0), ("ENTRYPOINT", 0), ("HEALTHCHECK", 0)];
        for step in &stage.steps {
            of_step(step, &mut found);
            let name = match step.instruction {
                Instruction::Cmd(_) => "CMD",
                Instruction::Entrypoint(_) => "ENTRYPOINT",
                Instruction::Healthcheck(_) => "HEALTHCHECK",
                _ => continue,
            };
            if let Some((_, count)) = commands.iter_mut().find(|(known, _)| *known == name) {
                *count += 1;
                if *count > 1 {
                    let message = format!(
                        "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
                    );
                    found.push(("MultipleInstructionsDisallowed", step.lines.0, message));
                }
            }
        }
    }
    found
}

fn of_from<'a>(stage: &'a Stage, names: &mut BTreeSet<&'a str>, found: &mut Vec<Finding>) {
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

fn of_step(step: &Step, found: &mut Vec<Finding>) {
    let line = step.lines.0;
    if step.has_gap {
        found.push(("NoEmptyContinuation", line, "Empty continuation line".to_owned()));
    }
    let arguments_recommended = |name: &str| {
        format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals")
    };
    match &step.instruction {
        Instruction::Cmd(CommandLine::Shell(_)) => {
            found.push(("JSONArgsRecommended", line, arguments_recommended("CMD")));
        }
        Instruction::Entrypoint(CommandLine::Shell(_)) => {
            found.push(("JSONArgsRecommended", line, arguments_recommended("ENTRYPOINT")));
        }
        Instruction::Maintainer(_) => {
            let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
            found.push(("MaintainerDeprecated", line, message));
        }
        Instruction::Env(pairs, legacy) => {
            legacy_form("ENV", *legacy, line, found);
            pairs.iter().for_each(|(name, _)| secret_name("ENV", name, line, found));
        }
        Instruction::Label(_, legacy) => legacy_form("LABEL", *legacy, line, found),
        Instruction::Arg(list) => list.iter().for_each(|(name, _)| secret_name("ARG", name, line, found)),
        _ => {}
    }
}

fn legacy_form(instruction: &str, is_legacy: bool, line: usize, found: &mut Vec<Finding>) {
    if is_legacy {
        let message = format!(
            "\"{instruction} key=value\" should be used instead of legacy \"{instruction} key value\" format"
        );
        found.push(("LegacyKeyValueFormat", line, message));
    }
}

fn secret_name(instruction: &str, name: &str, line: usize, found: &mut Vec<Finding>) {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(['_', '-', '.']);
    let is_public = lower.contains("public") || lower.ends_with("_file") || lower.ends_with("_path");
    if !is_public && words.any(|word| SECRET_WORDS.contains(&word) || word == "passwd") {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")");
        found.push(("SecretsUsedInArgOrEnv", line, message));
    }
}

/// The rules that `# check=skip=A,B` leaves out, in lower case.
fn skipped(check: Option<&str>) -> BTreeSet<String> {
    check
        .unwrap_or_default()
        .split(';')
        .filter_map(|part| part.trim().strip_prefix("skip="))
        .flat_map(|rules| rules.split(','))
        .map(|rule| rule.trim().to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::parser::parse;

    fn rules(text: &str) -> Vec<(&'static str, usize)> {
        findings(&parse(text).unwrap()).into_iter().map(|(rule, line, _)| (rule, line)).collect()
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        for (text, wanted) in [
            ("FROM a\nCMD x", ("JSONArgsRecommended", 2)),
            ("FROM a\nMAINTAINER x", ("MaintainerDeprecated", 2)),
            ("FROM a\nENV a b", ("LegacyKeyValueFormat", 2)),
            ("FROM a as b", ("FromAsCasing", 1)),
            ("FROM a AS B", ("StageNameCasing", 1)),
            ("FROM a AS b\nFROM a AS b", ("DuplicateStageName", 2)),
            ("FROM a AS scratch", ("ReservedStageName", 1)),
            ("FROM a\nENV API_KEY=1", ("SecretsUsedInArgOrEnv", 2)),
            ("FROM a\nRUN a \\\n\n b", ("NoEmptyContinuation", 2)),
            ("FROM a\nCMD [\"a\"]\nCMD [\"b\"]", ("MultipleInstructionsDisallowed", 3)),
        ] {
            assert_eq!(rules(text), [wanted], "{text}");
        }
        assert_eq!(rules("FROM a AS b\nENV KEYBOARD=1 PUBLIC_KEY=x\nCMD [\"a\"]"), []);
    }

    #[test]
    fn rules_can_be_switched_off() {
        assert!(skipped(Some("skip=A,b;error=true")).contains("a"));
    }
}
