//! The conversation with the program that provides a service, as docker compose has it (its docs/extension.md): the
//! program is run as `PROGRAM compose --project-name=P up|down|stop [--OPTION=VALUE …] SERVICE` and says what happens as
//! JSON objects on its standard output.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc;

use engine::error::{Error, Result};
use serde::Deserialize;

use super::program;
use crate::model::{Project, Provider, Service};
use crate::operation::Provision;

/// What a provider says about how its service is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    /// Those that get the name of the service in front.
    pub(crate) prefixed: BTreeMap<String, String>,
    /// Those that are taken as they are.
    pub(crate) raw: BTreeMap<String, String>,
}

/// One thing that a provider says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Message {
    Error { message: String },
    Info { message: String },
    Debug {},
    Setenv { message: String },
    Rawsetenv { message: String },
    GetServiceConfig {},
}

/// What a provider says of its options; a provider need not say anything.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    description: String,
    up: Parameters,
    down: Parameters,
    stop: Option<Parameters>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    parameters: Option<Vec<Parameter>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameter {
    name: String,
    required: bool,
}

/// How many characters of what a program wrote on standard error are shown when it fails.
const LAST_WORDS: usize = 2000;

/// Has the provider of a service do something. `said` gets what it tells the user.
///
/// # Errors
/// When the program is not there, fails, says that it failed, or does not speak as it should.
pub(crate) fn run(
    project: &Project,
    service: &Service,
    provision: Provision,
    said: &dyn Fn(&str),
) -> Result<Variables> {
    let Some(provider) = &service.provider else { return Ok(Variables::default()) };
    let path = find(&provider.kind)?;
    let metadata = metadata(&path, project);
    let Some(arguments) = arguments(provider, &metadata, provision)? else { return Ok(Variables::default()) };
    let mut command = program::command(&path, &project.environment);
    command.arg("compose").arg(format!("--project-name={}", project.name)).arg(provision.word());
    command.args(arguments).arg(&service.name).stdin(Stdio::piped());
    let failed = |error| Error::failed(format!("run the provider {}", path.display()), error);
    let mut child = command.spawn().map_err(failed)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(mut stderr)) = pipes else { return Ok(Variables::default()) };
    let last_words = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What cannot be read was not said.
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let heard = Conversation { service, answers: answerer(stdin), said }.listen(stdout);
    if heard.is_err() {
        // It may wait for an answer that does not come.
        end(&mut child);
    }
    let status = child.wait().map_err(failed)?;
    let last_words = last_words.join().unwrap_or_default();
    let variables = heard?;
    if status.success() {
        return Ok(variables);
    }
    let action = match provision {
        Provision::Up => "create",
        Provision::Down => "remove",
        Provision::Stop => "stop",
    };
    let start = last_words.char_indices().rev().nth(LAST_WORDS).map_or(0, |(at, _)| at);
    let told = last_words[start..].trim_end();
    let newline = if told.is_empty() { "" } else { "\n" };
    Err(Error::conflict(format!(
        "failed to {action} service provider {}: {status}{newline}{told}",
        provider.kind
    )))
}

struct Conversation<'a> {
    service: &'a Service,
    answers: mpsc::Sender<Vec<u8>>,
    said: &'a dyn Fn(&str),
}

/// Whoever answers must not keep the one who listens from listening.
fn answerer(mut stdin: ChildStdin) -> mpsc::Sender<Vec<u8>> {
    let (sender, answers) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        for answer in answers {
            // A program that does not read its answer has what it wanted.
            if stdin.write_all(&answer).is_err() {
                return;
            }
        }
    });
    sender
}

// === impl Conversation ===

impl Conversation<'_> {
    /// Until the program has nothing more to say.
    fn listen(self, stdout: ChildStdout) -> Result<Variables> {
        let mut variables = Variables::default();
        let kind = self.service.provider.as_ref().map(|provider| provider.kind.clone()).unwrap_or_default();
        for message in serde_json::Deserializer::from_reader(stdout).into_iter::<Message>() {
            let message = message.map_err(|error| {
                Error::invalid(format!("invalid response from the provider {kind}")).with_source(error)
            })?;
            match message {
                Message::Error { message } => return Err(Error::conflict(message.trim_end().to_owned())),
                Message::Info { message } => (self.said)(message.lines().next().unwrap_or_default()),
                Message::Debug {} => {}
                Message::Setenv { message } => variables.prefixed.extend([pair(&kind, &message)?]),
                Message::Rawsetenv { message } => variables.raw.extend([pair(&kind, &message)?]),
                Message::GetServiceConfig {} => {
                    let mut answer = serde_json::to_vec(self.service).unwrap_or_default();
                    answer.push(b'\n');
                    // Nobody listens any more when the program closed its standard input.
                    let _ = self.answers.send(answer);
                }
            }
        }
        Ok(variables)
    }
}

fn pair(kind: &str, message: &str) -> Result<(String, String)> {
    let (key, value) = message.split_once('=').ok_or_else(|| {
        Error::invalid(format!("invalid response from the provider {kind}: {message:?} is not KEY=VALUE"))
    })?;
    Ok((key.to_owned(), value.to_owned()))
}

fn find(kind: &str) -> Result<PathBuf> {
    if kind == "compose" {
        return Err(Error::invalid("'compose' is not a valid provider type"));
    }
    program::plugin(kind).or_else(|| program::on_path(kind)).ok_or_else(|| {
        Error::not_found(format!("the provider {kind:?} is not there")).with_hint(format!(
            "put docker-{kind} into a directory of docker's plugins, or {kind} on the PATH"
        ))
    })
}

/// Whoever does not know the question is a provider that takes every option.
fn metadata(path: &Path, project: &Project) -> Option<Metadata> {
    let output = program::command(path, &project.environment).args(["compose", "metadata"]).output().ok()?;
    let metadata: Metadata =
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()?;
    let is_empty = metadata.description.is_empty()
        && metadata.up.parameters.is_none()
        && metadata.down.parameters.is_none();
    // A provider that can stop says so, whatever else it says.
    (!is_empty || metadata.stop.is_some()).then_some(metadata)
}

/// The options of a command; `None` for a stop that the provider does not know.
fn arguments(
    provider: &Provider,
    metadata: &Option<Metadata>,
    provision: Provision,
) -> Result<Option<Vec<String>>> {
    let parameters = match (metadata, provision) {
        (None, Provision::Stop) => return Ok(None),
        (None, _) => None,
        (Some(metadata), Provision::Up) => Some(&metadata.up),
        (Some(metadata), Provision::Down) => Some(&metadata.down),
        (Some(Metadata { stop: None, .. }), Provision::Stop) => return Ok(None),
        (Some(Metadata { stop: Some(stop), .. }), Provision::Stop) => Some(stop),
    };
    let known: Option<&[Parameter]> =
        parameters.map(|parameters| parameters.parameters.as_deref().unwrap_or_default());
    let missing = known
        .into_iter()
        .flatten()
        .find(|parameter| parameter.required && !provider.options.contains_key(&parameter.name));
    if let Some(Parameter { name, .. }) = missing {
        return Err(Error::invalid(format!(
            "required parameter {name:?} is missing from provider {:?} definition",
            provider.kind
        )));
    }
    let takes =
        |name: &String| known.is_none_or(|known| known.iter().any(|parameter| parameter.name == *name));
    let given = provider.options.iter().filter(|(name, _)| takes(name));
    Ok(Some(
        given
            .flat_map(|(name, values)| values.iter().map(move |value| format!("--{name}={value}")))
            .collect(),
    ))
}

fn end(child: &mut Child) {
    // One that has ended needs no killing.
    let _ = child.kill();
}
