//! Which files make up the project: asked for, named by the environment, or found upwards from here.

use std::path::{Path as FsPath, PathBuf};

use engine::builder::NamedBy;

use crate::diagnostic::Diagnostic;
use crate::environment::{Environment, Variables, explicit_files, is_disabled};
use crate::load::LoadOptions;
use crate::remote::split_names;
use crate::session::{Failed, Session};

/// What was found.
pub(crate) struct Found {
    /// The files, absolute, in order; `-` is standard input.
    pub(crate) files: Vec<PathBuf>,
    /// Where relative paths start, absolute.
    pub(crate) directory: PathBuf,
    /// The caller's variables over those of `.env` files.
    pub(crate) environment: Environment,
}

/// What a project's file is called when nobody says.
pub(crate) const NAMES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// Finds the files, the directory and the environment.
pub(crate) fn find(session: &mut Session, options: &LoadOptions) -> Result<Found, Failed> {
    let here = current_dir(session, options)?;
    session.shown_from.clone_from(&here);
    session.stdin.clone_from(&options.stdin);
    session.remote.clone_from(&options.remote);
    let mut environment = Environment { variables: options.environment.clone(), is_whole: true };
    let asked = options.project_directory.as_ref().map(|directory| here.join(directory));
    let explicit = explicit_files(&options.env_files, &environment.variables, &here);
    let is_disabled = is_disabled(&environment.variables);
    let by_default = explicit.is_empty() && !is_disabled;
    if by_default {
        add_dotenv(session, &mut environment, asked.as_deref().unwrap_or(&here));
    } else if !is_disabled {
        session.errors.extend(environment.add_files(&explicit));
    }
    let files = compose_files(session, options, &here, asked.as_deref(), &environment.variables)?;
    let directory = match asked {
        Some(directory) => directory,
        None => match files.first().filter(|file| *file != FsPath::new("-")) {
            Some(file) => file.parent().map_or_else(|| here.clone(), FsPath::to_path_buf),
            None => here.clone(),
        },
    };
    let directory = PathBuf::from(crate::shorthand::clean(&directory.to_string_lossy()));
    if by_default {
        add_dotenv(session, &mut environment, &directory);
    }
    Ok(Found { files, directory, environment })
}

fn current_dir(session: &mut Session, options: &LoadOptions) -> Result<PathBuf, Failed> {
    match options.current_dir.clone().map_or_else(std::env::current_dir, std::path::absolute) {
        Ok(directory) => Ok(directory),
        Err(error) => session.fail(Diagnostic::error(format!("cannot find the current directory: {error}"))),
    }
}

fn add_dotenv(session: &mut Session, environment: &mut Environment, directory: &FsPath) {
    let file = directory.join(".env");
    if file.is_file() {
        session.errors.extend(environment.add_files(&[file]));
    }
}

fn compose_files(
    session: &mut Session,
    options: &LoadOptions,
    here: &FsPath,
    asked: Option<&FsPath>,
    environment: &Variables,
) -> Result<Vec<PathBuf>, Failed> {
    if !options.files.is_empty() {
        return options.files.iter().map(|file| local(session, file, here)).collect();
    }
    if let Some(named) = environment.get("COMPOSE_FILE").filter(|named| !named.is_empty()) {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty());
        let separator = separator.map_or(":", String::as_str);
        let names = split_names(named, separator);
        return names.iter().map(|file| local(session, FsPath::new(file), here)).collect();
    }
    for directory in asked.unwrap_or(here).ancestors() {
        if let Some(main) = pick(session, directory, &NAMES) {
            let over = pick(session, directory, &OVERRIDES);
            return Ok([Some(main), over].into_iter().flatten().collect());
        }
    }
    let message = "no configuration file provided: not found";
    let help = format!("looked for {} in {} and above it", NAMES.join(", "), asked.unwrap_or(here).display());
    session.fail(Diagnostic::error(message).with_help(help))
}

/// The file that is meant: standard input, one that is fetched, or one here.
fn local(session: &mut Session, file: &FsPath, here: &FsPath) -> Result<PathBuf, Failed> {
    if file == FsPath::new("-") {
        return Ok(file.to_path_buf());
    }
    match session.fetch(&file.to_string_lossy(), NamedBy::Caller) {
        Ok(Some(fetched)) => Ok(fetched),
        Ok(None) => Ok(PathBuf::from(crate::shorthand::clean(&here.join(file).to_string_lossy()))),
        Err(diagnostic) => session.fail(*diagnostic),
    }
}

/// The first of these files that is there, with a warning when there are more.
fn pick(session: &mut Session, directory: &FsPath, names: &[&str]) -> Option<PathBuf> {
    let there: Vec<&str> = names.iter().copied().filter(|name| directory.join(name).is_file()).collect();
    let (first, rest) = there.split_first()?;
    if !rest.is_empty() {
        let message = format!("{} and {first} are both there, {first} is used", rest.join(", "));
        session.warnings.push(Diagnostic::warning(message));
    }
    Some(directory.join(first))
}
