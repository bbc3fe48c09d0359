//! `publish`: a project's files, at a registry.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};

use clap::Args;
use engine::id::Digest;
use engine::image::{Artifact, ArtifactFile, Reference};

use super::config::digests;
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Place;
use crate::interpolate::substitute;
use crate::load::load;
use crate::model::{Project, ServiceVolume};
use crate::output;
use crate::paths::absolute;
use crate::position::{Part, Source};
use crate::published::{PROJECT, PROJECT_CONFIG, compose_file, env_file, extended_file};
use crate::value::{Path, Value, read};

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
    let mut files = Parcel::of(&project, args.with_env)?;
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
    for service in project.services.values().filter(|service| !service.env_file.is_empty()) {
        told.push(format!("service {} has an env_file", service.name));
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

/// The files of a project, and those that they need beside them, which get names of their own there.
struct Parcel<'a> {
    project: &'a Project,
    with_env: bool,
    beside: BTreeMap<PathBuf, ArtifactFile>,
}

/// A file that a document names.
struct Named<'a> {
    path: Path,
    text: &'a str,
    role: Role,
    is_required: bool,
}

/// What a file is to the one that names it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It has services that others extend.
    Extended,
    /// It is a part of the project; `with_variables` when the entry says which variables it is read with.
    Included { with_variables: bool },
    /// It has variables.
    Variables,
    /// It has labels.
    Labels,
}

// === impl Parcel ===

impl<'a> Parcel<'a> {
    fn of(project: &'a Project, with_env: bool) -> Result<Vec<ArtifactFile>, CliError> {
        let mut parcel = Self { project, with_env, beside: BTreeMap::new() };
        let mut files = Vec::new();
        for path in &project.files {
            let bytes = parcel.pack(path, &project.working_dir)?;
            let name = path
                .file_name()
                .map_or_else(|| "compose.yaml".into(), |name| name.to_string_lossy().into_owned());
            files.push(compose_file(&name, bytes));
        }
        files.extend(parcel.beside.into_values());
        Ok(files)
    }

    /// A compose file that names the files it needs as they are called beside it. Theirs start in `directory`.
    fn pack(&mut self, file: &FsPath, directory: &FsPath) -> Result<Vec<u8>, CliError> {
        let text = String::from_utf8_lossy(&bytes_of(file)?).into_owned();
        let source = Source::new(file, text);
        let documents = read(&source.text).unwrap_or_default();
        if documents.iter().any(starts_elsewhere) {
            return Err(CliError::Invalid(format!(
                "{}: include.project_directory is a place on this machine, and cannot be published; \
                 `rcompose config -o FILE` writes all of it into one",
                file.display()
            )));
        }
        let mut edits: BTreeMap<(usize, usize), (Place, String)> = BTreeMap::new();
        for (number, document) in documents.iter().enumerate() {
            for named in named(document) {
                let Some(called) = self.take(&named, directory)? else { continue };
                let place = source.place(number, &named.path, Part::Value);
                let place = place.filter(|place| shown(place).trim_matches(['"', '\'']) == named.text);
                let place = place.ok_or_else(|| {
                    CliError::Invalid(format!(
                        "{}: {} has to be written on one line to be published",
                        file.display(),
                        named.path
                    ))
                })?;
                edits.insert((place.line, place.column), (place, called));
            }
        }
        Ok(edited(&source.text, &edits).into_bytes())
    }

    /// What a file that is needed is called in the parcel; `None` for one that need not be there and is not.
    fn take(&mut self, named: &Named<'_>, directory: &FsPath) -> Result<Option<String>, CliError> {
        let environment = &self.project.environment;
        let lookup = |name: &str| environment.get(name).cloned();
        let text = substitute(named.text, &lookup, &mut |_| {})
            .map_err(|error| CliError::Invalid(format!("{}: {error}", named.path)))?;
        // What has an address is had from there.
        if text.contains("://") || text == "/dev/null" {
            return Ok(None);
        }
        let home = environment.get("HOME").map(String::as_str);
        let file = PathBuf::from(absolute(&text, directory, home));
        if !named.is_required && !file.exists() {
            return Ok(None);
        }
        let stem = Digest::of(file.to_string_lossy().as_bytes()).hex().to_owned();
        let is_compose_file = matches!(named.role, Role::Extended | Role::Included { .. });
        let called = format!("{stem}.{}", if is_compose_file { "yaml" } else { "env" });
        if self.beside.contains_key(&file) {
            return Ok(Some(called));
        }
        if is_compose_file {
            let directory = file.parent().map(FsPath::to_path_buf).unwrap_or_default();
            if named.role == (Role::Included { with_variables: false }) {
                self.expect_no_variables(&named.path, &directory)?;
            }
            // Before its own are looked at: files may extend each other.
            self.beside.insert(file.clone(), extended_file(&called, Vec::new()));
            let bytes = self.pack(&file, &directory)?;
            self.beside.insert(file, extended_file(&called, bytes));
        } else if self.with_env || named.role == Role::Labels {
            let bytes = bytes_of(&file)?;
            self.beside.insert(file, env_file(&called, bytes));
        } else {
            return Err(CliError::Invalid(format!(
                "{} names {text}; give --with-env if everybody may read what is in the files",
                named.path
            )));
        }
        Ok(Some(called))
    }
}

impl Parcel<'_> {
    /// An included file is read with the variables that lie beside it, which nobody would find there.
    fn expect_no_variables(&self, path: &Path, directory: &FsPath) -> Result<(), CliError> {
        let file = directory.join(".env");
        if directory == self.project.working_dir || !file.exists() {
            return Ok(());
        }
        Err(CliError::Invalid(format!(
            "{path} is read with {}, which has to be named to be published: `include: [{{path: …, env_file: …}}]`",
            file.display()
        )))
    }
}

fn bytes_of(file: &FsPath) -> Result<Vec<u8>, CliError> {
    let failed = |error| engine::Error::failed(format!("read {}", file.display()), error);
    Ok(std::fs::read(file).map_err(failed)?)
}

/// The text at a place.
fn shown(place: &Place) -> String {
    place.excerpt.chars().skip(place.column.saturating_sub(1)).take(place.width).collect()
}

/// The text with other words at some places.
fn edited(text: &str, edits: &BTreeMap<(usize, usize), (Place, String)>) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    for (place, word) in edits.values().rev() {
        let Some(line) = lines.get_mut(place.line.saturating_sub(1)) else { continue };
        let before: String = line.chars().take(place.column.saturating_sub(1)).collect();
        let behind: String = line.chars().skip(place.column.saturating_sub(1) + place.width).collect();
        *line = format!("{before}{word}{behind}");
    }
    lines.join("\n")
}

fn services(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    document.get("services").and_then(Value::as_map).into_iter().flatten()
}

/// Whether files are included as if they lay elsewhere.
fn starts_elsewhere(document: &Value) -> bool {
    let mut entries = document.get("include").and_then(Value::as_list).into_iter().flatten();
    entries.any(|entry| entry.get("project_directory").is_some())
}

/// A text, or each of several, with its path.
fn texts(value: Option<&Value>, at: Path) -> Vec<(Path, &Value)> {
    match value {
        Some(Value::List(items)) => {
            items.iter().enumerate().map(|(index, item)| (at.index(index), item)).collect()
        }
        Some(item) => vec![(at, item)],
        None => Vec::new(),
    }
}

/// The files that a document includes, and those of their variables.
fn included(document: &Value) -> Vec<Named<'_>> {
    let mut found = Vec::new();
    for (at, entry) in texts(document.get("include"), Path::keys(&["include"])) {
        let with_variables = entry.get("env_file").is_some();
        let files = match entry.as_text() {
            Some(_) => vec![(at.clone(), entry)],
            None => texts(entry.get("path"), at.key("path")),
        };
        let variables = texts(entry.get("env_file"), at.key("env_file"));
        let files = files.into_iter().map(|file| (file, Role::Included { with_variables }));
        for ((path, value), role) in files.chain(variables.into_iter().map(|file| (file, Role::Variables))) {
            found.extend(value.as_text().map(|text| Named { path, text, role, is_required: true }));
        }
    }
    found
}

/// The files that a document includes, that its services extend, and those of their variables and labels.
fn named(document: &Value) -> Vec<Named<'_>> {
    let mut found = included(document);
    for (name, service) in services(document) {
        let at = Path::keys(&["services", name]);
        let file = service.get("extends").and_then(|extends| extends.get("file")).and_then(Value::as_text);
        if let Some(text) = file {
            let path = at.key("extends").key("file");
            found.push(Named { path, text, role: Role::Extended, is_required: true });
        }
        for (path, entry) in texts(service.get("label_file"), at.key("label_file")) {
            let role = Role::Labels;
            found.extend(entry.as_text().map(|text| Named { path, text, role, is_required: true }));
        }
        for (path, entry) in texts(service.get("env_file"), at.key("env_file")) {
            let long = entry.get("path").and_then(Value::as_text);
            let path = if long.is_some() { path.key("path") } else { path };
            let is_required = entry.get("required") != Some(&Value::Bool(false));
            if let Some(text) = long.or_else(|| entry.as_text()) {
                found.push(Named { path, text, role: Role::Variables, is_required });
            }
        }
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
