//! From files to a [`Project`], in the reference's order of stages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FsPath, PathBuf};
use std::rc::Rc;

use engine::id::Digest;
use serde::Deserialize as _;

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::environment::Environment;
use crate::extends::{self, Origin};
use crate::holes::Holes;
use crate::merge::merge;
use crate::model::{Project, Service};
use crate::position::{Part, Sources};
use crate::remote::Remote;
use crate::schema::Problem;
use crate::session::{Failed, Session};
use crate::value::{Map, Path, Value};
use crate::written::as_written;
use crate::{
    consistency, discover, env_file, impossible, include, interpolate, normalize, paths, schema, shorthand,
    unheeded,
};

/// What to load, and with what.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The directory discovery starts in and relative files are found from; the current one when `None`.
    pub current_dir: Option<PathBuf>,
    /// The files (`-` is standard input), in order; looked for when empty: `COMPOSE_FILE`, then `compose.yaml`, ….
    pub files: Vec<PathBuf>,
    /// Where relative paths start; the directory of the first file when `None`.
    pub project_directory: Option<PathBuf>,
    /// The project's name; `COMPOSE_PROJECT_NAME`, `name:`, then the directory's when `None`.
    pub project_name: Option<String>,
    /// Files instead of `.env`.
    pub env_files: Vec<PathBuf>,
    /// Profiles that are active, besides `COMPOSE_PROFILES`; `*` is all.
    pub profiles: Vec<String>,
    /// Services asked for by name: their profiles become active. All when empty.
    pub services: Vec<String>,
    /// The caller's environment, usually [`own_environment`].
    pub environment: BTreeMap<String, String>,
    /// What standard input holds when `-` is among the files.
    pub stdin: Option<String>,
    /// How files are had that are named by an address; they are not, when `None`.
    pub remote: Option<Remote>,
    /// Leave out the services that are not asked for and that none of those depends on.
    pub only_services: bool,
    /// Leave `${…}` as it is.
    pub no_interpolate: bool,
    /// Leave out implicit networks, names and dependencies.
    pub no_normalize: bool,
    /// Leave relative paths as they are.
    pub no_path_resolution: bool,
    /// Leave out the check that what is referred to is there.
    pub no_consistency: bool,
    /// Leave `env_file` unread.
    pub no_env_resolution: bool,
    /// The files of secrets and configurations have to be there: containers are about to be made.
    pub needs_files: bool,
    /// What images are built from has to be there: they are about to be built.
    pub needs_contexts: bool,
    /// Keep networks, volumes, secrets and configurations that no active service uses.
    pub all_resources: bool,
    /// Keep what services do not need of those that no profile asks for.
    pub keep_optional: bool,
}

/// A project and what is odd about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Things that are allowed but perhaps not meant.
    pub warnings: Vec<Diagnostic>,
    /// The model as it is written, where nothing was interpolated.
    pub(crate) written: Option<serde_json::Value>,
    /// The files it was read from, for whoever has something to say about a key later on.
    pub(crate) sources: Rc<Sources>,
}

/// What a set of files is loaded with: its directory, its environment, and the files that led to it.
pub(crate) struct Scope<'a> {
    /// Where relative paths start.
    pub(crate) directory: PathBuf,
    /// What it is interpolated with.
    pub(crate) environment: &'a Environment,
    /// The files that include each other down to here.
    pub(crate) included: Vec<PathBuf>,
    /// Whether paths become absolute.
    pub(crate) resolve_paths: bool,
}

/// The environment of this process. What is no text in it, as anything may be, does not keep a project from being loaded:
/// it has the character for what cannot be read in the place of each such byte.
pub fn own_environment() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// Loads a project.
///
/// All errors are found in one run and come sorted by place: what is wrong in one stage is unknown to those that follow,
/// and what follows from it is not told.
pub fn load(options: &LoadOptions) -> Result<Loaded, Diagnostics> {
    let mut session = Session::default();
    match load_project(&mut session, options) {
        Ok((project, written)) => Ok(Loaded {
            project,
            written,
            warnings: Diagnostics::sorted(session.warnings).0,
            sources: Rc::new(session.sources),
        }),
        Err(Failed) => Err(session.into_diagnostics()),
    }
}

impl Loaded {
    /// What is lacking here of what `project`, which was made of this one, takes to other machines: files that services
    /// see, and what images are built from. Only services asked for and those that they depend on are looked at, all when
    /// none is asked for; what is outside the project's directory, and devices, those machines have themselves.
    ///
    /// Returns warnings.
    ///
    /// # Errors
    /// When no container can be made of it.
    pub fn expect_here(&self, project: &Project, asked: &[String]) -> Result<Vec<Diagnostic>, Diagnostics> {
        let scope = impossible::scope(project, asked);
        let mut part = project.clone();
        part.services.retain(|name, _| scope.contains(name));
        part.services.values_mut().for_each(|service| service.devices.clear());
        let mut errors = impossible::find(&part, &[], &Holes::default());
        errors.extend(consistency::missing_files(&part, &[]));
        errors.extend(impossible::missing_contexts(&part, asked));
        let warnings = impossible::missing_binds(&part, &[], &part.working_dir);
        let shown = |problems: &[Problem], severity| {
            let shown = problems.iter().map(|problem| {
                let place = self.sources.locate(&problem.path, problem.part);
                problem.diagnostic(place, severity)
            });
            Diagnostics::sorted(shown.collect())
        };
        match errors.as_slice() {
            [] => Ok(shown(&warnings, Severity::Warning).0),
            _ => Err(shown(&errors, Severity::Error)),
        }
    }
}

/// Loads files into one expanded document: each is read, prepared, extended and merged over those before it. What is
/// wrong is unknown in it; for a file that cannot be read this is `include`, which may stand for as much.
pub(crate) fn load_files(session: &mut Session, files: &[PathBuf], scope: &Scope<'_>) -> Value {
    let mut merged = Value::Map(Map::new());
    let mut is_whole = true;
    for file in files {
        let Ok(read) = session.read(file) else {
            is_whole = false;
            continue;
        };
        let mut inner =
            Scope { included: scope.included.clone(), directory: scope.directory.clone(), ..*scope };
        inner.included.push(file.clone());
        let mut is_empty = true;
        for (number, mut document) in read.documents.into_iter().enumerate() {
            if document == Value::Null {
                continue;
            }
            is_empty = false;
            session.prepare(read.source, number, &mut document, scope.environment);
            let origin = Origin {
                file: file.clone(),
                directory: scope.directory.clone(),
                environment: scope.environment,
            };
            extends::apply(session, &mut document, origin);
            include::apply(session, &mut document, &inner);
            match document {
                Value::Unknown => is_whole = false,
                document => merge(&mut merged, document),
            }
        }
        if is_empty {
            let shown = file.strip_prefix(&session.shown_from).unwrap_or(file).display().to_string();
            session.errors.push(Diagnostic::error(format!("{shown} is empty")));
            is_whole = false;
        }
    }
    if !is_whole {
        merged.say_unknown("include");
    }
    for problem in schema::check_complete(&merged) {
        // What it would rest on is unknown.
        if problem.rests_on.is_empty() {
            session.merged_problem(&problem, Severity::Error);
        }
        merged.forget(&problem.path.0);
    }
    for problem in normalize::set_defaults(&mut merged) {
        session.merged_problem(&problem, Severity::Warning);
    }
    let variables = &scope.environment.variables;
    if scope.resolve_paths {
        let home = variables.get("HOME").map(String::as_str);
        paths::resolve(&mut merged, &scope.directory, home);
    }
    normalize::resolve_environment(&mut merged, variables);
    merged
}

fn load_project(
    session: &mut Session,
    options: &LoadOptions,
) -> Result<(Project, Option<serde_json::Value>), Failed> {
    let found = discover::find(session, options)?;
    session.raw = options.no_interpolate;
    let mut environment = found.environment;
    let named = project_name(session, options, &found.files, &environment);
    // What was fetched is called after the repository, of which each version has a directory of its own.
    let is_fetched = options.remote.as_ref().is_some_and(|remote| remote.has(&found.directory));
    let home = (named.is_none() && !is_fetched).then(|| found.directory.clone());
    let name = named.unwrap_or_else(|| name_of(session, &found.directory));
    environment.variables.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    let scope = Scope {
        directory: found.directory.clone(),
        environment: &environment,
        included: Vec::new(),
        resolve_paths: !options.no_path_resolution,
    };
    let mut document = load_files(session, &found.files, &scope);
    if !session.errors.is_empty() {
        session.holes = Holes::take(&mut document);
    }
    warn_version(session, &document);
    warn_refresh(session, &document);
    let written = options.no_interpolate.then(|| document.clone());
    if options.no_interpolate {
        schema::cast(&mut document);
        shorthand::split_commands(&mut document);
    }
    let mut project = decode(session, document)?;
    project.name = name;
    project.working_dir = found.directory;
    project.home = home;
    project.files = found.files;
    project.environment = environment.variables;
    normalize::agree_on_scale(&mut project);
    if !options.no_normalize {
        normalize::normalize(&mut project);
    }
    apply_profiles(session, &mut project, options);
    drop_optional_dependencies(session, &mut project, options.keep_optional);
    if !options.no_consistency && !options.no_interpolate {
        let problems = consistency::check(&project);
        for problem in &problems {
            session.merged_problem(problem, Severity::Error);
        }
        problems.iter().for_each(|problem| session.holes.add(&problem.path));
    }
    if options.only_services {
        let scope: BTreeSet<String> =
            impossible::scope(&project, &options.services).into_iter().cloned().collect();
        project.services.retain(|name, _| scope.contains(name));
    }
    if !options.all_resources {
        normalize::drop_unused(&mut project);
    }
    let written = written.map(|document| as_written(document, &project, !options.no_normalize));
    read_values(&mut project);
    if options.needs_files {
        for problem in options.remote.iter().flat_map(|remote| remote.written(&project)) {
            session.merged_problem(&problem, Severity::Warning);
        }
        for problem in impossible::missing_binds(&project, &options.services, FsPath::new("/")) {
            session.merged_problem(&problem, Severity::Warning);
        }
        let mut wrong = impossible::find(&project, &options.services, &session.holes);
        wrong.extend(consistency::missing_files(&project, &options.services));
        for problem in &wrong {
            session.merged_problem(problem, Severity::Error);
        }
    }
    if options.needs_contexts {
        for problem in impossible::missing_contexts(&project, &options.services) {
            session.merged_problem(&problem, Severity::Error);
        }
    }
    if !options.no_env_resolution && !options.no_interpolate {
        env_file::read_variables(session, &mut project, environment.is_whole);
    }
    if !options.no_interpolate {
        env_file::read_labels(session, &mut project);
    }
    session.settle()?;
    for problem in unheeded::find(&project) {
        session.merged_problem(&problem, Severity::Warning);
    }
    Ok((project, written))
}

/// The name that somebody gave it: by option, `COMPOSE_PROJECT_NAME`, the last `name:`. One that is none is told, and
/// what it comes near to takes its place.
fn project_name(
    session: &mut Session,
    options: &LoadOptions,
    files: &[PathBuf],
    environment: &Environment,
) -> Option<String> {
    let given = options
        .project_name
        .as_ref()
        .or_else(|| environment.variables.get("COMPOSE_PROJECT_NAME"))
        .filter(|name| !name.is_empty());
    if let Some(name) = given {
        let normal = normal_name(name);
        if normal != *name {
            let message =
                format!("invalid project name {name:?}: lower-case letters, digits, `-` and `_` are allowed");
            let help = format!("a letter or digit comes first, as in {normal:?}");
            session.errors.push(Diagnostic::error(message).with_help(help));
        }
        return Some(normal);
    }
    let mut name = String::new();
    for file in files {
        for document in session.peek(file) {
            if let Some(text) = document.get("name").and_then(Value::as_text) {
                let lookup = |name: &str| environment.variables.get(name).cloned();
                name = interpolate::substitute(text, &lookup, &mut |_| {}).unwrap_or_default();
            }
        }
    }
    let normal = normal_name(&name);
    if normal.is_empty() && !name.is_empty() && environment.is_whole {
        session.errors.push(nameless());
    }
    Some(normal).filter(|normal| !normal.is_empty())
}

/// What a project is called that nobody named.
fn name_of(session: &mut Session, directory: &FsPath) -> String {
    let name = directory.file_name().map(|name| normal_name(&name.to_string_lossy())).unwrap_or_default();
    if name.is_empty() && session.errors.is_empty() {
        session.errors.push(nameless());
    }
    name
}

fn nameless() -> Diagnostic {
    Diagnostic::error("the project has no name").with_help("name it with -p or the top-level key `name`")
}

/// Lower case, without what is not allowed, beginning with a letter or digit.
pub(crate) fn normal_name(name: &str) -> String {
    let lower = name.to_lowercase();
    let kept: String = lower
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

fn warn_version(session: &mut Session, document: &Value) {
    if document.get("version").is_some() {
        let path = Path::keys(&["version"]);
        let place = session.locate(&path, Part::Key);
        let message = "`version` is obsolete and ignored";
        session.warnings.push(Diagnostic::warning(message).at(place).on("version").with_help("remove it"));
    }
}

/// Nobody reads this key, the reference no more than this program.
fn warn_refresh(session: &mut Session, document: &Value) {
    for (name, service) in document.get("services").and_then(Value::as_map).into_iter().flatten() {
        if service.get("pull_refresh_after").is_some() {
            let path = Path::keys(&["services", name, "pull_refresh_after"]);
            let why = "pull_refresh_after has no effect: it is said with `pull_policy: every_<time>`";
            session.merged_problem(&schema::Problem::key(&path, why), Severity::Warning);
        }
    }
}

fn decode(session: &mut Session, mut document: Value) -> Result<Project, Failed> {
    schema::prune(&mut document);
    let mut extensions = take_extensions(&mut document);
    let mut of_services = BTreeMap::new();
    if let Some(services) = document.get_mut("services").and_then(Value::as_map_mut) {
        for (name, service) in services {
            of_services.insert(name.clone(), take_extensions(service));
        }
    }
    let mut inner = Vec::new();
    inner_extensions(&document, &mut Vec::new(), &mut inner);
    match Project::deserialize(document) {
        Ok(mut project) => {
            project.inner_extensions = inner;
            project.extensions = std::mem::take(&mut extensions);
            for (name, service) in &mut project.services {
                service.name.clone_from(name);
                service.extensions = of_services.remove(name).unwrap_or_default();
            }
            Ok(project)
        }
        // What is wrong has been told.
        Err(_) if !session.errors.is_empty() => Err(Failed),
        Err(error) => session.fail(Diagnostic::error(format!("the project makes no sense: {error}"))),
    }
}

fn take_extensions(value: &mut Value) -> BTreeMap<String, serde_json::Value> {
    let Some(map) = value.as_map_mut() else { return BTreeMap::new() };
    let keys: Vec<String> = map.keys().filter(|key| key.starts_with("x-")).cloned().collect();
    keys.into_iter().filter_map(|key| map.remove(&key).map(|value| (key, value.into_json()))).collect()
}

/// A step on the way into a value.
#[derive(Clone, Copy)]
enum Inward<'a> {
    Key(&'a str),
    Item(usize),
}

/// The `x-…` keys of what is inside.
fn inner_extensions<'a>(
    value: &'a Value,
    path: &mut Vec<Inward<'a>>,
    found: &mut Vec<(Vec<String>, serde_json::Value)>,
) {
    match value {
        Value::Map(map) => {
            for (key, value) in map {
                path.push(Inward::Key(key));
                if key.starts_with("x-") {
                    found.push((words(path), value.clone().into_json()));
                } else {
                    inner_extensions(value, path, found);
                }
                path.pop();
            }
        }
        Value::List(items) => {
            for (at, item) in items.iter().enumerate() {
                path.push(Inward::Item(at));
                inner_extensions(item, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

fn words(path: &[Inward<'_>]) -> Vec<String> {
    let word = |step: &Inward<'_>| match step {
        Inward::Key(key) => (*key).to_owned(),
        Inward::Item(at) => at.to_string(),
    };
    path.iter().map(word).collect()
}

/// Moves the services that no profile asks for aside.
fn apply_profiles(session: &mut Session, project: &mut Project, options: &LoadOptions) {
    let mut active: BTreeSet<String> = options.profiles.iter().cloned().collect();
    let named = project.environment.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
    active.extend(named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned));
    for name in &options.services {
        match project.services.get(name) {
            Some(service) => active.extend(service.profiles.iter().cloned()),
            None if session.holes.has(&Path::keys(&["services", name])) => {}
            None => {
                let mut diagnostic = Diagnostic::error(format!("no such service: {name}"));
                let known: Vec<&str> = project.services.keys().map(String::as_str).collect();
                diagnostic.help = schema::suggestion(name, known.iter().copied())
                    .or_else(|| Some(format!("the services are {}", known.join(", "))));
                session.errors.push(diagnostic);
            }
        }
    }
    let is_active = |service: &Service| {
        service.profiles.is_empty()
            || active.contains("*")
            || service.profiles.iter().any(|profile| active.contains(profile))
    };
    let services = std::mem::take(&mut project.services);
    (project.services, project.disabled_services) =
        services.into_iter().partition(|(_, service)| is_active(service));
}

/// Dependencies that need not be there and are not, are none.
fn drop_optional_dependencies(session: &mut Session, project: &mut Project, keep: bool) {
    let known: BTreeSet<String> = project.services.keys().cloned().collect();
    let disabled: BTreeSet<String> = project.disabled_services.keys().cloned().collect();
    let mut missing = Vec::new();
    for service in project.services.values_mut() {
        service.depends_on.retain(|name, dependency| {
            let is_kept = keep && disabled.contains(name);
            let stays = dependency.required || known.contains(name) || is_kept;
            if !stays && !disabled.contains(name) {
                missing.push((service.name.clone(), name.clone()));
            }
            stays
        });
    }
    for (service, name) in missing {
        let path = Path::keys(&["services", &service, "depends_on", &name]);
        let place = session.locate(&path, Part::Key);
        let message =
            format!("service {service:?} depends on {name:?}, which is not defined and not required");
        session.warnings.push(Diagnostic::warning(message).at(place).on(path.to_string()));
    }
}

/// Secrets and configurations from variables: taken now, so that nothing below asks the environment.
fn read_values(project: &mut Project) {
    for object in project.secrets.values_mut().chain(project.configs.values_mut()) {
        if let Some(name) = &object.environment {
            object.value = project.environment.get(name).cloned();
        }
        let text = object.value.as_ref().or(object.content.as_ref());
        object.digest = match (&object.file, text) {
            (Some(file), _) => std::fs::read(file).ok().map(|bytes| Digest::of(&bytes)),
            (None, text) => text.map(|text| Digest::of(text.as_bytes())),
        };
    }
}
