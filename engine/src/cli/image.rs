//! The verbs on images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::build::{self, BuildArgs};
use crate::cli::list::ago;
use crate::cli::output;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::image::{Image, Platform, Progress, PullOptions, Pulled, PushOptions, Reference, Removed, Step};
use crate::quantity::ByteSize;

/// A verb on images.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Fetch an image from a registry
    Pull {
        /// Say nothing but the name
        #[arg(short, long)]
        quiet: bool,
        /// Platform of the image, os/arch
        #[arg(long)]
        platform: Option<Platform>,
        /// The image
        reference: Reference,
    },
    /// Send an image to a registry
    Push {
        /// Say nothing but the name
        #[arg(short, long)]
        quiet: bool,
        /// The image
        reference: Reference,
    },
    /// Give an image a further name
    Tag {
        /// The image
        source: String,
        /// The further name
        target: Reference,
    },
    /// Write images to an archive
    Save {
        /// Write to this file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The images
        #[arg(required = true, value_name = "IMAGE")]
        names: Vec<String>,
    },
    /// Read images from an archive
    Load {
        /// Read from this file instead of standard input
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
        /// Say less
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make an image of a root file system's tar
    Import {
        /// Instruction applied to the image: CMD ["sh"]
        #[arg(short, long)]
        change: Vec<String>,
        /// Say why
        #[arg(short, long, hide = true)]
        message: Option<String>,
        /// The tar, or - for standard input
        file: String,
        /// The image's name
        reference: Option<Reference>,
    },
    /// Show how an image was made
    History {
        /// Print values whole
        #[arg(long)]
        no_trunc: bool,
        /// Print ids alone
        #[arg(short, long)]
        quiet: bool,
        /// table, json, or a template
        #[arg(long)]
        format: Option<String>,
        /// The image
        image: String,
    },
    /// Keep a registry's credentials
    Login {
        /// User name
        #[arg(short, long)]
        username: Option<String>,
        /// Password; better given on standard input
        #[arg(short, long)]
        password: Option<String>,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
        /// The registry
        #[arg(default_value = "docker.io")]
        server: String,
    },
    /// Forget a registry's credentials
    Logout {
        /// The registry
        #[arg(default_value = "docker.io")]
        server: String,
    },
}

/// The flags of `images`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Accepted for docker's sake: there are no intermediate images
    #[arg(short, long, hide = true)]
    all: bool,
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
    /// Digests too
    #[arg(long)]
    digests: bool,
    /// Only those that match: dangling, label, reference
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
    /// Only names like this one
    pattern: Option<String>,
}

/// The flags of `rmi`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Even if a stopped container uses it
    #[arg(short, long)]
    force: bool,
    /// Accepted for docker's sake: there are no untagged parents
    #[arg(long, hide = true)]
    no_prune: bool,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

/// The flags of `image prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Every image that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

const COLUMNS: [(&str, &str); 5] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

/// Carries a verb out.
pub(super) fn run(engine: &Engine, verb: Verb) -> Result<u8> {
    match verb {
        Verb::Build(args) => return build::run(engine, &args),
        Verb::Pull { quiet, platform, reference } => {
            let options = PullOptions { platform, ..PullOptions::default() };
            pull_with_progress(engine, &reference, &options, quiet)?;
            output::line(&reference.to_string());
        }
        Verb::Push { quiet, reference } => push(engine, &reference, quiet)?,
        Verb::Tag { source, target } => engine.images().tag(&source, &target)?,
        Verb::Save { output, names } => save(engine, output, &names)?,
        Verb::Load { input, quiet } => load(engine, input.as_deref(), quiet)?,
        Verb::Import { change, file, reference, message: _ } => {
            let image = import(engine, &file, &change, reference.as_ref())?;
            output::line(image.id.as_str());
        }
        Verb::History { no_trunc, quiet, format, image } => {
            history(engine, &image, no_trunc, quiet, format.as_deref())?;
        }
        Verb::Login { username, password, password_stdin, server } => {
            login(&server, username, password, password_stdin)?;
        }
        Verb::Logout { server } => {
            crate::image::credentials::remove(&server)?;
            output::line(&format!("Removing login credentials for {server}"));
        }
    }
    Ok(0)
}

/// Pulls an image and tells its way, on standard error.
pub(super) fn pull_with_progress(
    engine: &Engine,
    reference: &Reference,
    options: &PullOptions,
    quiet: bool,
) -> Result<Pulled> {
    let told = Mutex::new(BTreeMap::new());
    let tell = |progress: Progress| {
        if !quiet {
            tell_once(&told, &progress);
        }
    };
    if !quiet {
        output::note(&format!("{}: Pulling from {}", reference.wanted(), reference.repository()));
    }
    let pulled = engine.images().pull(reference, options, &tell)?;
    if !quiet {
        output::note(&format!("Digest: {}", pulled.digest));
        let status = if pulled.newer { "Downloaded newer image for" } else { "Image is up to date for" };
        output::note(&format!("Status: {status} {reference}"));
    }
    Ok(pulled)
}

/// Writes a layer's step when it is another one than before: bytes are not steps.
fn tell_once(told: &Mutex<BTreeMap<Digest, &'static str>>, progress: &Progress) {
    let word = match progress.step {
        Step::Exists => "Already exists",
        Step::Waiting => return,
        Step::Downloading(..) => "Downloading",
        Step::Unpacking => "Extracting",
        Step::Complete => "Pull complete",
        Step::Compressing => "Preparing",
        Step::Pushing(..) => "Pushing",
        Step::Pushed => "Pushed",
        Step::Retrying(_) => "Retrying",
    };
    let Ok(mut told) = told.lock() else { return };
    if told.insert(progress.layer.clone(), word) != Some(word) {
        output::note(&format!("{}: {word}", progress.layer.short()));
    }
}

fn push(engine: &Engine, reference: &Reference, quiet: bool) -> Result<()> {
    if !quiet {
        output::note(&format!(
            "The push refers to repository [{}/{}]",
            reference.registry(),
            reference.repository()
        ));
    }
    let told = Mutex::new(BTreeMap::new());
    let tell = |progress: Progress| {
        if !quiet {
            tell_once(&told, &progress);
        }
    };
    let pushed = engine.images().push(reference, &PushOptions::default(), &tell)?;
    if quiet {
        output::line(&reference.to_string());
    } else {
        output::line(&format!("{}: digest: {} size: {}", reference.wanted(), pushed.digest, pushed.size));
    }
    Ok(())
}

fn save(engine: &Engine, path: Option<PathBuf>, names: &[String]) -> Result<()> {
    let Some(path) = path else {
        let mut stdout = io::stdout().lock();
        if rustix::termios::isatty(&stdout) {
            return Err(Error::invalid("an archive is not written to a terminal")
                .with_hint("use -o FILE or redirect standard output"));
        }
        engine.images().save(names, &mut stdout)?;
        return stdout.flush().map_err(|error| Error::failed("write the archive", error));
    };
    // Half an archive under the asked name would be taken for a whole one.
    let partial = path.with_extension("partial");
    let written = File::create(&partial)
        .map_err(|error| Error::failed(format!("make {}", partial.display()), error))
        .and_then(|mut file| engine.images().save(names, &mut file).map_err(Error::from))
        .and_then(|()| {
            std::fs::rename(&partial, &path)
                .map_err(|error| Error::failed(format!("make {}", path.display()), error))
        });
    written.inspect_err(|_| drop(std::fs::remove_file(&partial)))
}

fn load(engine: &Engine, path: Option<&Path>, quiet: bool) -> Result<()> {
    let mut reader = open_input(path.map(|path| path.display().to_string()).as_deref())?;
    for loaded in engine.images().load(&mut reader)? {
        let text = match loaded.reference {
            Some(reference) => format!("Loaded image: {reference}"),
            None => format!("Loaded image ID: {}", loaded.image.id),
        };
        if quiet { output::note(&text) } else { output::line(&text) }
    }
    Ok(())
}

fn import(engine: &Engine, file: &str, changes: &[String], reference: Option<&Reference>) -> Result<Image> {
    let mut reader = open_input((file != "-").then_some(file))?;
    Ok(engine.images().import(&mut reader, changes, reference)?)
}

fn open_input(path: Option<&str>) -> Result<Box<dyn Read + Send>> {
    match path {
        Some(path) => {
            let file = File::open(path).map_err(|error| Error::failed(format!("open {path}"), error))?;
            Ok(Box::new(file))
        }
        None if rustix::termios::isatty(io::stdin()) => {
            Err(Error::invalid("requested load from stdin, but stdin is a terminal")
                .with_hint("use -i FILE or redirect standard input"))
        }
        None => Ok(Box::new(io::stdin())),
    }
}

fn history(engine: &Engine, name: &str, no_trunc: bool, quiet: bool, format: Option<&str>) -> Result<()> {
    let image = engine.images().get(name)?;
    let mut rows = Vec::new();
    for row in engine.images().history(&image)? {
        let created: Option<Timestamp> = row.created.as_deref().and_then(|text| text.parse().ok());
        let id = row.id.as_ref().map_or("<missing>", |id| if no_trunc { id.as_str() } else { id.short() });
        let by = if no_trunc || row.created_by.chars().count() <= 45 {
            row.created_by.clone()
        } else {
            row.created_by.chars().take(44).chain(['…']).collect()
        };
        rows.push(json!({
            "ID": id,
            "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |at| format!("{} ago", ago(at))),
            "CreatedAt": row.created,
            "CreatedBy": by,
            "Size": ByteSize(row.size).to_string(),
            "Comment": row.comment,
        }));
    }
    if quiet {
        rows.iter().filter_map(|row| row["ID"].as_str()).for_each(output::line);
        return Ok(());
    }
    let columns = [
        ("IMAGE", "ID"),
        ("CREATED", "CreatedSince"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    ];
    output::rows(format, &columns, &rows)
}

fn login(server: &str, username: Option<String>, password: Option<String>, from_stdin: bool) -> Result<()> {
    let username = username.ok_or_else(|| {
        Error::invalid("a user name is needed").with_hint("rengine login -u NAME --password-stdin")
    })?;
    let password = match password {
        Some(password) => {
            output::warning("Using --password via the CLI is insecure. Use --password-stdin.");
            password
        }
        None if from_stdin || !rustix::termios::isatty(io::stdin()) => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Error::failed("read the password", error))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => {
            return Err(
                Error::invalid("a password is needed on standard input").with_hint("--password-stdin")
            );
        }
    };
    crate::image::credentials::login(server, &username, &password)?;
    output::line("Login Succeeded");
    Ok(())
}

/// Lists images.
pub(super) fn list(engine: &Engine, args: &ListArgs) -> Result<u8> {
    let mut rows: Vec<Value> = Vec::new();
    for image in engine.images().list()? {
        rows.extend(image_rows(&image, args)?);
    }
    if args.quiet {
        let mut seen = BTreeSet::new();
        rows.iter().filter_map(|row| row["ID"].as_str()).filter(|id| seen.insert(*id)).for_each(output::line);
        return Ok(0);
    }
    let mut columns = COLUMNS.to_vec();
    if args.digests {
        columns.insert(2, ("DIGEST", "Digest"));
    }
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(0)
}

fn image_rows(image: &Image, args: &ListArgs) -> Result<Vec<Value>> {
    let created: Option<Timestamp> = image.config.created.as_deref().and_then(|text| text.parse().ok());
    let row = |repository: &str, tag: &str, digest: &str| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "ID": if args.no_trunc { image.id.as_str() } else { image.id.short() },
            "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |at| format!("{} ago", ago(at))),
            "CreatedAt": image.config.created,
            "Size": ByteSize(image.size).to_string(),
        })
    };
    let dangling = image.references.is_empty();
    for filter in &args.filter {
        let kept = match filter.split_once('=') {
            Some(("dangling", value)) => dangling == matches!(value, "true" | "1"),
            Some(("label", value)) => match value.split_once('=') {
                Some((key, wanted)) => {
                    image.config.config.labels.get(key).is_some_and(|value| value == wanted)
                }
                None => image.config.config.labels.contains_key(value),
            },
            Some(("reference", pattern)) => {
                image.references.iter().any(|reference| matches_pattern(reference, pattern))
            }
            _ => return Err(Error::invalid(format!("invalid filter '{filter}'"))),
        };
        if !kept {
            return Ok(Vec::new());
        }
    }
    let digest = |name: &str| {
        image
            .digests
            .iter()
            .find(|known| known.familiar_name() == name)
            .and_then(|known| known.digest())
            .map_or("<none>".to_owned(), ToString::to_string)
    };
    if dangling {
        return Ok(if args.pattern.is_none() { vec![row("<none>", "<none>", "<none>")] } else { Vec::new() });
    }
    Ok(image
        .references
        .iter()
        .filter(|reference| args.pattern.as_ref().is_none_or(|pattern| matches_pattern(reference, pattern)))
        .map(|reference| {
            let repository = reference.familiar_name();
            row(&repository, reference.tag().unwrap_or("<none>"), &digest(&repository))
        })
        .collect())
}

/// Whether a name is meant by a pattern with `*`: with its tag, or without when the pattern has none.
fn matches_pattern(reference: &Reference, pattern: &str) -> bool {
    glob(pattern, &reference.to_string()) || glob(pattern, &reference.familiar_name())
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at) && !rest[..*at].contains('/'))
                .any(|at| glob(tail, &rest[at..]))
        }),
    }
}

/// Removes images.
pub(super) fn remove(engine: &Engine, args: &RemoveArgs) -> Result<u8> {
    let mut code = 0;
    for name in &args.names {
        match engine.remove_image(name, args.force) {
            Ok(removed) => removed.iter().for_each(tell_removed),
            Err(error) => {
                output::failure(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn tell_removed(removed: &Removed) {
    output::line(&match removed {
        Removed::Untagged(reference) => format!("Untagged: {reference}"),
        Removed::Deleted(digest) => format!("Deleted: {digest}"),
    });
}

/// Removes images that nothing uses.
pub(super) fn prune(engine: &Engine, args: &PruneArgs) -> Result<u8> {
    let which = if args.all { "all images without a container" } else { "all dangling images" };
    if !args.force && !output::confirm(&format!("This will remove {which}. Continue?")) {
        return Ok(0);
    }
    let (removed, bytes) = engine.prune_images(args.all)?;
    if !removed.is_empty() {
        output::line("Deleted Images:");
        removed.iter().for_each(tell_removed);
        output::line("");
    }
    output::line(&format!("Total reclaimed space: {}", ByteSize(bytes)));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_does_not_cross_a_slash() {
        assert!(glob("busy*", "busybox"));
        assert!(glob("*:1", "a:1"));
        assert!(!glob("*", "a/b"));
        assert!(glob("a/*", "a/b"));
    }
}
