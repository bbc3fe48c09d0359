//! `--call`: what is asked of a Dockerfile instead of an image.

use serde_json::{Value, json};

use crate::builder::{BuildEvent, BuildRequest, Outline, Warning, description};
use crate::cli::output;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// A question, and whether the answer is for a program.
pub(super) struct Call {
    question: Question,
    is_json: bool,
}

enum Question {
    Check,
    Outline,
    Targets,
}

// === impl Call ===

impl Call {
    /// Reads `check`, `outline,format=json`, …; `None` is a build.
    pub(super) fn parse(text: &str) -> Result<Option<Self>> {
        let (word, format) = text.split_once(',').unwrap_or((text, "format=text"));
        let invalid = || {
            Error::invalid(format!("invalid call {text:?}"))
                .with_hint("build, check, outline and targets, the last three also with ,format=json")
        };
        let question = match word {
            "build" if text == word => return Ok(None),
            "check" | "lint" => Question::Check,
            "outline" => Question::Outline,
            "targets" => Question::Targets,
            _ => return Err(invalid()),
        };
        let is_json = match format.strip_prefix("format=") {
            Some("json") => true,
            Some("text") => false,
            _ => return Err(invalid()),
        };
        Ok(Some(Self { question, is_json }))
    }

    /// Prints the answer; 1 when it is that rules are not kept.
    pub(super) fn answer(&self, engine: &Engine, request: &BuildRequest) -> Result<u8> {
        match self.question {
            Question::Check if self.is_json => check_json(engine, request),
            Question::Check => check(engine, request),
            Question::Outline if self.is_json => {
                answer_json(&outline_json(&crate::builder::outline(request)?))
            }
            Question::Outline => outline(request),
            Question::Targets if self.is_json => {
                let targets = crate::builder::targets(request)?.into_iter();
                let targets =
                    targets.map(|(name, is_default)| json!({ "name": name, "default": is_default }));
                answer_json(&json!({ "targets": targets.collect::<Vec<_>>() }))
            }
            Question::Targets => targets(request),
        }
    }
}

fn answer_json(value: &Value) -> Result<u8> {
    output::line(&format!("{value:#}"));
    Ok(0)
}

/// What is not kept, in BuildKit's words (frontend/subrequests/lint).
fn check_json(engine: &Engine, request: &BuildRequest) -> Result<u8> {
    let mut warnings = Vec::new();
    engine.check_dockerfile(request, &mut |event| {
        if let BuildEvent::Warning(warning) = event {
            warnings.push(warning_json(&warning));
        }
    })?;
    let code = u8::from(!warnings.is_empty());
    answer_json(&json!({ "warnings": warnings }))?;
    Ok(code)
}

fn warning_json(warning: &Warning) -> Value {
    let line = json!({ "line": warning.line });
    json!({
        "ruleName": warning.rule,
        "description": description(warning.rule),
        "url": page(warning.rule),
        "detail": warning.message,
        "location": { "ranges": [{ "start": line, "end": line }] },
    })
}

/// What a target can be given, in BuildKit's words (frontend/subrequests/outline).
fn outline_json(outline: &Outline) -> Value {
    let args = outline
        .args
        .iter()
        .map(|(name, value, said)| json!({ "name": name, "value": value, "description": said }));
    let needed = |(name, is_required): (&String, &bool)| json!({ "name": name, "required": is_required });
    json!({
        "name": outline.target,
        "description": outline.description,
        "args": args.collect::<Vec<_>>(),
        "secrets": outline.secrets.iter().map(needed).collect::<Vec<_>>(),
        "ssh": outline.agents.iter().map(needed).collect::<Vec<_>>(),
        "cache": outline.caches.iter().map(|target| json!({ "ID": target })).collect::<Vec<_>>(),
    })
}

/// The page that explains a rule.
fn page(rule: &str) -> String {
    format!("https://docs.docker.com/go/dockerfile/rule/{}/", dashed(rule))
}

/// Says which rules the Dockerfile does not keep; 1 if there are any.
fn check(engine: &Engine, request: &BuildRequest) -> Result<u8> {
    let mut count = 0;
    engine.check_dockerfile(request, &mut |event| match event {
        BuildEvent::Warning(warning) => {
            count += 1;
            output::line(&format!(
                "WARNING: {} - {}\n{}\n{}\n",
                warning.rule,
                page(warning.rule),
                warning.message,
                warning.excerpt
            ));
        }
        BuildEvent::Failure(failure) => {
            output::raw_error(crate::builder::progress::explain(&failure).as_bytes());
        }
        _ => {}
    })?;
    match count {
        0 => output::line("Check complete, no warnings found."),
        1 => output::line("Check complete, 1 warning has been found!"),
        more => output::line(&format!("Check complete, {more} warnings have been found!")),
    }
    Ok(u8::from(count > 0))
}

/// `FromAsCasing` as `from-as-casing`.
fn dashed(rule: &str) -> String {
    let mut text = String::new();
    let letters: Vec<char> = rule.chars().collect();
    for (at, c) in letters.iter().enumerate() {
        let begins = c.is_uppercase()
            && at > 0
            && (letters[at - 1].is_lowercase()
                || letters.get(at + 1).is_some_and(|next| next.is_lowercase()));
        if begins {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    text
}

/// Columns and rows.
type Listing<'a> = (Vec<(&'a str, &'a str)>, Vec<Value>);

/// Prints what the target can be given, as BuildKit does.
fn outline(request: &BuildRequest) -> Result<u8> {
    let outline = crate::builder::outline(request)?;
    if !outline.target.is_empty() {
        output::line(&format!("TARGET:      {}", outline.target));
        if !outline.description.is_empty() {
            output::line(&format!("DESCRIPTION: {}", outline.description));
        }
        output::line("");
    }
    let row = |(name, value, said): &(String, String, String)| json!({ "Name": name, "Value": value, "Said": said });
    let needed = |(name, is_required): (&String, &bool)| json!({ "Name": name, "Required": if *is_required { "true" } else { "" } });
    let tables: [Listing; 4] = [
        (
            vec![("BUILD ARG", "Name"), ("VALUE", "Value"), ("DESCRIPTION", "Said")],
            outline.args.iter().map(row).collect(),
        ),
        (vec![("SECRET", "Name"), ("REQUIRED", "Required")], outline.secrets.iter().map(needed).collect()),
        (vec![("SSH", "Name"), ("REQUIRED", "Required")], outline.agents.iter().map(needed).collect()),
        (
            vec![("CACHE TARGET", "Name")],
            outline.caches.iter().map(|target| json!({ "Name": target })).collect(),
        ),
    ];
    for (columns, rows) in tables.iter().filter(|(_, rows)| !rows.is_empty()) {
        output::rows(None, columns, rows)?;
        output::line("");
    }
    Ok(0)
}

fn targets(request: &BuildRequest) -> Result<u8> {
    let rows: Vec<_> = crate::builder::targets(request)?
        .into_iter()
        .map(|(name, is_default)| {
            json!({ "Target": if is_default { format!("{name} (default)") } else { name } })
        })
        .collect();
    output::rows(None, &[("TARGET", "Target")], &rows)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_may_want_json_for_an_answer() {
        let is_json = |text: &str| Call::parse(text).unwrap().map(|call| call.is_json);
        assert_eq!(is_json("build"), None);
        assert_eq!(is_json("check"), Some(false));
        assert_eq!(is_json("outline,format=json"), Some(true));
        for wrong in ["build,format=json", "check,format=yaml", "check,json", "what"] {
            assert!(Call::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_has_the_name_its_page_has() {
        assert_eq!(dashed("JSONArgsRecommended"), "json-args-recommended");
        assert_eq!(dashed("FromAsCasing"), "from-as-casing");
    }
}
