//! `publish`: a project's files, at a registry.

use std::collections::BTreeSet;

use clap::Args;
use engine::image::{Artifact, Reference};

use super::config::digests;
use super::failure::CliError;
use super::session::Session;
use crate::load::load;
use crate::model::{Project, ServiceVolume};
use crate::output;
use crate::published::{PROJECT, PROJECT_CONFIG, compose_file};
use crate::value::{Value, read};

/// The flags of `publish`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Not supported: the images stay in the registries that the files name
    #[arg(long)]
    app: bool,
    /// Version of the OCI specification: 1.0 for a registry that knows no kinds of artifacts
    #[arg(long, value_name = "VERSION", value_parser = ["1.0", "1.1"], default_value = "1.1")]
    oci_version: String,
    /// Name images by their digests, as their registries have them now
    #[arg(long)]
    resolve_image_digests: bool,
    /// Publish values of environment variables too
    #[arg(long)]
    with_env: bool,
    /// Answer yes to every question
    #[arg(short, long)]
    yes: bool,
    /// Where to: `REPOSITORY[:TAG]`
    #[arg(value_name = "REPOSITORY")]
    name: String,
}

/// `publish`. The images are pushed first where the project builds them.
pub(super) fn publish(session: &Session, args: &PublishArgs) -> Result<u8, CliError> {
    if args.app {
        return Err(CliError::Engine(
            engine::Error::new(engine::error::Kind::Unsupported, "publish --app is not supported").with_hint(
                "the images stay in the registries that the files name, to which `publish` sends those that are built; \
                 --resolve-image-digests makes sure that they stay the same",
            ),
        ));
    }
    let config = (args.oci_version == "1.0").then_some(PROJECT_CONFIG);
    let reference: Reference =
        args.name.parse().map_err(|error| CliError::Invalid(format!("{:?}: {error}", args.name)))?;
    let mut options = session.load_options(&[])?;
    options.profiles.push("*".to_owned());
    options.no_env_resolution = true;
    let loaded = load(&options)?;
    let mut project = loaded.project;
    check(&project, args)?;
    let mut files = files(&project)?;
    let binds = binds(&project);
    if !args.yes && !binds.is_empty() && !ask(&binds) {
        return Ok(1);
    }
    if session.is_dry_run() {
        output::note(&format!("publish {reference}"));
        return Ok(0);
    }
    super::images::push_all(session)?;
    let engine = session.engine()?;
    if args.resolve_image_digests {
        digests::resolve(&engine, &mut project)?;
        files.push(compose_file("image-digests.yaml", digests::lock_file(&project, "yaml").into_bytes()));
    }
    let artifact = Artifact { kind: PROJECT.to_owned(), config: config.map(str::to_owned), files };
    output::note(&format!(" {}  publishing", args.name));
    let digest = engine.images().push_artifact(&reference, &artifact).map_err(engine::Error::from)?;
    output::note(&format!(" {}  published", args.name));
    output::line(digest.as_str());
    Ok(0)
}

/// What nobody else could start, and what nobody meant to show.
fn check(project: &Project, args: &PublishArgs) -> Result<(), CliError> {
    let only_built: Vec<&str> = project
        .services
        .values()
        .filter(|service| service.build.is_some() && service.image.is_none())
        .map(|service| service.name.as_str())
        .collect();
    if !only_built.is_empty() {
        return Err(CliError::Invalid(format!(
            "services that are built need an `image:` under which others find them: {}",
            only_built.join(", ")
        )));
    }
    let mut told: Vec<String> = Vec::new();
    for service in project.services.values().filter(|service| !service.environment.is_empty()) {
        told.push(format!("service {} sets environment variables", service.name));
    }
    for (key, _) in project.configs.iter().filter(|(_, config)| config.environment.is_some()) {
        told.push(format!("config {key} is an environment variable"));
    }
    if args.with_env || told.is_empty() {
        return Ok(());
    }
    Err(CliError::Invalid(format!(
        "{}; give --with-env if everybody may read what is in the files",
        told.join(", ")
    )))
}

/// The files as they are. One that needs others beside it cannot stand alone.
fn files(project: &Project) -> Result<Vec<engine::image::ArtifactFile>, CliError> {
    let mut files = Vec::new();
    for path in &project.files {
        let bytes = std::fs::read(path)
            .map_err(|error| engine::Error::failed(format!("read {}", path.display()), error))?;
        let documents = read(&String::from_utf8_lossy(&bytes)).unwrap_or_default();
        let needed: BTreeSet<&str> = documents.iter().flat_map(needs).collect();
        if !needed.is_empty() {
            return Err(CliError::Invalid(format!(
                "{} needs files beside it, which are not published: {}; `rcompose config -o FILE` writes all of it into one",
                path.display(),
                needed.into_iter().collect::<Vec<_>>().join(", ")
            )));
        }
        let name = path
            .file_name()
            .map_or_else(|| "compose.yaml".into(), |name| name.to_string_lossy().into_owned());
        files.push(compose_file(&name, bytes));
    }
    Ok(files)
}

/// The keys by which a document takes in other files.
fn needs(document: &Value) -> Vec<&'static str> {
    let mut found = Vec::new();
    if document.get("include").is_some() {
        found.push("include");
    }
    for service in
        document.get("services").and_then(Value::as_map).into_iter().flatten().map(|(_, value)| value)
    {
        if service.get("extends").is_some_and(|extends| extends.get("file").is_some()) {
            found.push("extends");
        }
        found.extend(["env_file", "label_file"].into_iter().filter(|key| service.get(key).is_some()));
    }
    found
}

fn binds(project: &Project) -> Vec<String> {
    let of_service = |service: &crate::model::Service| -> Vec<String> {
        let source = |volume: &ServiceVolume| match volume {
            ServiceVolume::Bind { source, .. } => Some(format!("{}: {source}", service.name)),
            _ => None,
        };
        service.volumes.iter().filter_map(source).collect()
    };
    project.services.values().flat_map(of_service).collect()
}

fn ask(binds: &[String]) -> bool {
    output::confirm(&format!(
        "These paths of the host are named in the files, and what is in them is not published:\n  {}\nPublish?",
        binds.join("\n  ")
    ))
}
