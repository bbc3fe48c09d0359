//! Rules for Dockerfiles that are good to keep: BuildKit's names, BuildKit's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::BuildEvent;
use super::execute::Build;
use super::fault::Fault;
use super::graph::Planned;
use super::instruction::{CommandLine, Dockerfile, Instruction, Step};
use super::report::Reporter;
use crate::image::Platform;

mod from;

/// A rule that was not kept, as a value.
type Finding = (&'static str, usize, String);

/// Words in the names of variables that should not be in an image.
const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "passwd", "password", "pword", "secret", "token"];

/// Words in such names that say that it is no secret after all.
const OPEN_WORDS: [&str; 4] = ["public", "file", "path", "version"];

/// What each rule asks for, in BuildKit's words.
const DESCRIPTIONS: [(&str, &str); 22] = [
    (
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    ("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore"),
    ("DuplicateStageName", "Stage names should be unique"),
    (
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    ),
    ("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase"),
    ("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword"),
    ("FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value"),
    ("InvalidBaseImagePlatform", "Base image platform does not match expected target platform"),
    (
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
    ),
    (
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`",
    ),
    (
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    ),
    ("LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used"),
    (
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    ),
    (
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
    ),
    ("NoEmptyContinuation", "Empty continuation lines will become errors in a future release"),
    (
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    ("ReservedStageName", "Reserved words should not be used as stage names"),
    ("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands"),
    ("StageNameCasing", "Stage names should be lowercase"),
    ("UndefinedArgInFrom", "FROM command must use declared ARGs"),
    ("UndefinedVar", "Variables should be defined before their use"),
    (
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    ),
];

/// What a rule asks for; nothing when there is no such rule.
pub fn description(rule: &str) -> &'static str {
    DESCRIPTIONS.iter().find(|(name, _)| *name == rule).map_or("", |(_, description)| description)
}

/// Tells of everything in a Dockerfile that can be seen without building it.
///
/// # Errors
/// When the Dockerfile says that what is found is an error (`# check=error=true`).
pub(crate) fn check<M: From<BuildEvent>>(
    dockerfile: &Dockerfile,
    reporter: &Reporter<M>,
) -> Result<(), Fault> {
    reporter.judge_by(Rules::of(dockerfile));
    let mut found = findings(dockerfile);
    if is_tried(dockerfile.check.as_deref(), "InvalidDefinitionDescription") {
        descriptions(dockerfile, &mut found);
    }
    for (rule, line, message) in found {
        reporter.warn(rule, line, message);
    }
    reporter.verdict()
}

/// Which rules count, and what follows from one that is not kept.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// In lower case; `all` is all.
    skipped: BTreeSet<String>,
    /// The same of single instructions, by their first lines: `# check=` right above one.
    skipped_at: BTreeMap<usize, BTreeSet<String>>,
    is_error: bool,
    broken: Mutex<BTreeMap<usize, BTreeSet<&'static str>>>,
}

// === impl Rules ===

impl Rules {
    fn of(dockerfile: &Dockerfile) -> Self {
        let check = dockerfile.check.as_deref();
        let is_error =
            |text: &str| text.split(';').any(|part| part.trim().eq_ignore_ascii_case("error=true"));
        let of_line = |(line, remarks): (&usize, &Vec<String>)| {
            let mut checks = remarks.iter().filter_map(|remark| remark.strip_prefix("check="));
            checks.next_back().map(|check| (*line, skipped(Some(check))))
        };
        Self {
            skipped: skipped(check),
            skipped_at: dockerfile.remarks.iter().filter_map(of_line).collect(),
            is_error: check.is_some_and(is_error),
            broken: Mutex::default(),
        }
    }

    /// Notes that a rule was not kept; whether that counts.
    pub(crate) fn count(&self, rule: &'static str, line: usize) -> bool {
        let name = rule.to_ascii_lowercase();
        let skips = |skipped: &BTreeSet<String>| skipped.contains("all") || skipped.contains(&name);
        if skips(&self.skipped) || self.skipped_at.get(&line).is_some_and(skips) {
            return false;
        }
        let mut broken = self.broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        broken.entry(line).or_default().insert(rule);
        true
    }

    /// The end of a build whose Dockerfile says that a rule not kept is an error.
    pub(crate) fn verdict(&self) -> Result<(), Fault> {
        let broken = self.broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match broken.keys().next() {
            Some(line) if self.is_error => {
                let rules: BTreeSet<&str> = broken.values().flatten().copied().collect();
                let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
                Err(Fault::at(*line, format!("lint violation found for rules: {rules}")))
            }
            _ => Ok(()),
        }
    }
}

/// A base image for another machine than the one that is built for.
pub(crate) fn base_platform(build: &Build<'_>, planned: &Planned, offered: &Platform) {
    let wanted = build.request.platform().cloned().unwrap_or_else(Platform::host);
    if planned.has_platform || wanted.rank(offered).is_some() {
        return;
    }
    let name = &planned.base_name;
    let message = format!(
        "Base image {name} was pulled with platform \"{offered}\", expected \"{wanted}\" for current build"
    );
    build.reporter.warn("InvalidBaseImagePlatform", planned.lines.0, message);
}

/// A source that .dockerignore leaves out.
pub(crate) fn ignored_file<M: From<BuildEvent>>(reporter: &Reporter<M>, line: usize, verb: &str, path: &str) {
    let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
    reporter.warn("CopyIgnoredFile", line, message);
}

/// A variable that nobody set.
pub(crate) fn undefined<M: From<BuildEvent>>(reporter: &Reporter<M>, line: usize, name: &str, hint: &str) {
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
    of_casing(dockerfile, &mut found);
    for stage in &dockerfile.stages {
        from::words(stage, &mut names, &mut found);
        from::variables(dockerfile, stage, &mut found);
        from::platform(stage, &mut found);
        let has_shell = stage.steps.iter().any(|step| matches!(step.instruction, Instruction::Shell(_)));
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for step in &stage.steps {
            of_step(step, &mut found);
            if !has_shell {
                shell_form(step, &mut found);
            }
            let name = match step.instruction {
                Instruction::Cmd(_) => "CMD",
                Instruction::Entrypoint(_) => "ENTRYPOINT",
                Instruction::Healthcheck(_) => "HEALTHCHECK",
                _ => continue,
            };
            // The one before is the one that has no effect.
            if let Some(before) = last.insert(name, step.lines.0) {
                let message = format!(
                    "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
                );
                found.push(("MultipleInstructionsDisallowed", before, message));
            }
        }
    }
    found
}

fn of_step(step: &Step, found: &mut Vec<Finding>) {
    let line = step.lines.0;
    if step.has_gap {
        found.push(("NoEmptyContinuation", line, "Empty continuation line".to_owned()));
    }
    match &step.instruction {
        Instruction::Expose(words) => words.iter().for_each(|word| exposed(word, line, found)),
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

/// A shell between the program and its signals; somebody who chose one knows.
fn shell_form(step: &Step, found: &mut Vec<Finding>) {
    let (name, text) = match &step.instruction {
        Instruction::Cmd(CommandLine::Shell(text)) => ("CMD", text),
        Instruction::Entrypoint(CommandLine::Shell(text)) => ("ENTRYPOINT", text),
        _ => return,
    };
    let mut message =
        format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
    // Nobody means a command that is called `[`.
    if text.trim_start().starts_with('[') {
        message.push_str(" (what stands in [ ] is no JSON: its words need double quotes)");
    }
    found.push(("JSONArgsRecommended", step.lines.0, message));
}

fn exposed(word: &str, line: usize, found: &mut Vec<Finding>) {
    if word.contains('$') {
        return;
    }
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    if protocol.chars().any(char::is_uppercase) {
        let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        found.push(("ExposeProtoCasing", line, message));
    }
    if ports.contains(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
        );
        found.push(("ExposeInvalidFormat", line, message));
    }
}

/// Instructions are written in one case throughout.
fn of_casing(dockerfile: &Dockerfile, found: &mut Vec<Finding>) {
    let word = |code: &str| code.split_whitespace().next().unwrap_or_default().to_owned();
    let mut words: Vec<(String, usize)> = Vec::new();
    words.extend(dockerfile.globals.iter().map(|step| (word(&step.code), step.lines.0)));
    for stage in &dockerfile.stages {
        words.push((word(&stage.code), stage.lines.0));
        words.extend(stage.steps.iter().map(|step| (word(&step.code), step.lines.0)));
    }
    let lower = words.iter().filter(|(word, _)| word.chars().all(char::is_lowercase)).count();
    let upper = words.iter().filter(|(word, _)| word.chars().all(char::is_uppercase)).count();
    let is_lower = lower > upper;
    for (word, line) in &words {
        let fits = word.chars().all(|c| if is_lower { c.is_lowercase() } else { c.is_uppercase() });
        if !fits {
            let case = if is_lower { "lowercase" } else { "uppercase" };
            let message = format!("Command '{word}' should match the case of the command majority ({case})");
            found.push(("ConsistentInstructionCasing", *line, message));
        }
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
    let has = |known: &[&str]| lower.split(['_', '-', '.']).any(|word| known.contains(&word));
    if has(&SECRET_WORDS) && !has(&OPEN_WORDS) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")");
        found.push(("SecretsUsedInArgOrEnv", line, message));
    }
}

/// Comments right above what has a name, which `--call outline` shows if they begin with it.
fn descriptions(dockerfile: &Dockerfile, found: &mut Vec<Finding>) {
    let mut named: Vec<(&str, &str, usize)> = Vec::new();
    let args = dockerfile.globals.iter().chain(dockerfile.stages.iter().flat_map(|stage| &stage.steps));
    for step in args {
        // Of several arguments one comment can describe none.
        if let Instruction::Arg(list) = &step.instruction
            && let [(name, _)] = list.as_slice()
        {
            named.push(("ARG", name, step.lines.0));
        }
    }
    for stage in &dockerfile.stages {
        named.extend(stage.name.as_deref().map(|name| ("FROM", name, stage.lines.0)));
    }
    for (instruction, name, line) in named {
        let last = dockerfile.remarks.get(&line).and_then(|remarks| remarks.last());
        let describes = |remark: &String| {
            remark.is_empty()
                || remark.starts_with("check=")
                || remark.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        if last.is_some_and(|remark| !describes(remark)) {
            let message =
                format!("Comment for {instruction} should follow the format: `# {name} <description>`");
            found.push(("InvalidDefinitionDescription", line, message));
        }
    }
}

/// Whether a rule that is not settled yet is asked for: `# check=experimental=A,B` or `all`.
fn is_tried(check: Option<&str>, rule: &str) -> bool {
    let mut rules = (check.unwrap_or_default().split(';'))
        .filter_map(|part| part.trim().strip_prefix("experimental="))
        .flat_map(|rules| rules.split(','));
    rules.any(|name| name.trim().eq_ignore_ascii_case(rule) || name.trim().eq_ignore_ascii_case("all"))
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
            ("FROM a\nrun b\nRUN c", ("ConsistentInstructionCasing", 2)),
            ("ARG V=1\nFROM a:$W", ("UndefinedArgInFrom", 2)),
            ("ARG V\nFROM a:$V", ("InvalidDefaultArgInFrom", 2)),
            ("FROM --platform=$TARGETPLATFORM a", ("RedundantTargetPlatform", 1)),
            ("FROM --platform=linux/amd64 a", ("FromPlatformFlagConstDisallowed", 1)),
            ("FROM a\nEXPOSE 53/UDP", ("ExposeProtoCasing", 2)),
            ("FROM a\nEXPOSE 127.0.0.1:80:80", ("ExposeInvalidFormat", 2)),
            ("FROM a\nENV API_KEY=1", ("SecretsUsedInArgOrEnv", 2)),
            ("FROM a\nRUN a \\\n\n b", ("NoEmptyContinuation", 2)),
            ("FROM a\nENV DB_CREDENTIALS=1", ("SecretsUsedInArgOrEnv", 2)),
            ("FROM a\nCMD [\"a\"]\nCMD [\"b\"]", ("MultipleInstructionsDisallowed", 2)),
        ] {
            assert!(rules(text).contains(&wanted), "{text}");
            assert_ne!(description(wanted.0), "", "{text}");
        }
        assert_eq!(rules("FROM --platform=linux/amd64 a AS of-amd64\nSHELL [\"x\"]\nCMD y"), []);
        assert_eq!(rules("FROM a AS b\nENV KEYBOARD=1 PUBLIC_KEY=x KEY_VERSION=2\nCMD [\"a\"]"), []);
    }

    #[test]
    fn comments_that_describe_nothing_are_told_of_when_asked_for() {
        let dockerfile = parse(
            "# V of it\nARG V\n# other\nARG W\n\n# apart\n\nARG X\n# b it\nFROM a AS b\n# no\nFROM b AS c",
        );
        let mut found = Vec::new();
        descriptions(&dockerfile.unwrap(), &mut found);
        let lines: Vec<usize> = found.iter().map(|(_, line, _)| *line).collect();
        assert_eq!(lines, [4, 12]);
        assert!(is_tried(Some("skip=a;experimental=all"), "InvalidDefinitionDescription"));
        assert!(!is_tried(Some("skip=InvalidDefinitionDescription"), "InvalidDefinitionDescription"));
    }

    #[test]
    fn rules_can_be_switched_off() {
        assert!(skipped(Some("skip=A,b;error=true")).contains("a"));
    }
}
