//! The verbs on images.

mod difference;
mod filter;
mod list;
mod manifest;
mod registry;
mod tools;
mod tree;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::cli::build::{self, BuildArgs};
use crate::cli::lazy::Lazy;
use crate::cli::list::ago;
use crate::cli::output;
use crate::cli::sink::Sink;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::image::config::RunConfig;
use crate::image::{Image, ImageError, Platform, PullOptions, PushOptions, Reference, Removed};
use crate::quantity::ByteSize;

pub(super) use difference::{DifferenceArgs, difference};
pub(super) use list::{ListArgs, PruneArgs, list, prune, warn_of_damage};
pub(super) use manifest::{ManifestVerb, manifest};
pub(super) use registry::pull_with_progress;
use registry::{SearchArgs, Written};
pub(super) use tools::{ToolsVerb, tools};

/// A verb on images.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Build an image from a Dockerfile
    Build(Lazy<BuildArgs>),
    /// Fetch an image from a registry
    Pull {
        /// Say nothing but the name
        #[arg(short, long)]
        quiet: bool,
        /// Platform of the image, os/arch
        #[arg(long)]
        platform: Option<Platform>,
        /// Every tag of the repository
        #[arg(short, long)]
        all_tags: bool,
        /// The image
        name: Written,
    },
    /// Send an image to a registry
    Push {
        /// Say nothing but the name
        #[arg(short, long)]
        quiet: bool,
        /// Every tag of the repository
        #[arg(short, long)]
        all_tags: bool,
        /// The image for this platform alone, of a name for several
        #[arg(long)]
        platform: Option<Platform>,
        /// Pack the layers anew: gzip, zstd or uncompressed
        #[arg(long, value_name = "FORMAT")]
        compression: Option<String>,
        /// How hard: 0 to 9 for gzip, 0 to 22 for zstd
        #[arg(long, value_name = "LEVEL")]
        compression_level: Option<String>,
        /// The image
        name: Written,
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
        /// Only for these platforms, of names that mean several: os/arch[,os/arch…]
        #[arg(long, value_delimiter = ',', value_name = "PLATFORM")]
        platform: Vec<Platform>,
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
        /// Only for these platforms: os/arch[,os/arch…]
        #[arg(long, value_delimiter = ',', value_name = "PLATFORM")]
        platform: Vec<Platform>,
    },
    /// Make an image of a root file system's tar
    Import {
        /// Instruction applied to the image: CMD ["sh"]
        #[arg(short, long)]
        change: Vec<String>,
        /// What the image's history says of it
        #[arg(short, long)]
        message: Option<String>,
        /// What the image is for, os/arch, when it is not this machine
        #[arg(long)]
        platform: Option<Platform>,
        /// The tar, its address, or - for standard input
        file: String,
        /// The image's name
        reference: Option<Reference>,
    },
    /// Show how an image was made
    History {
        /// Print values whole
        #[arg(long)]
        no_trunc: bool,
        /// Sizes and dates for people; =false for bytes and RFC 3339
        #[arg(short = 'H', long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
        human: bool,
        /// Print ids alone
        #[arg(short, long)]
        quiet: bool,
        /// table, json, or a template
        #[arg(long)]
        format: Option<String>,
        /// Of a name that means images for several platforms, the one for this, os/arch
        #[arg(long)]
        platform: Option<Platform>,
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
    /// Look for images at Docker Hub or at another registry
    Search(SearchArgs),
    /// Forget a registry's credentials
    Logout {
        /// The registry
        #[arg(default_value = "docker.io")]
        server: String,
    },
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
    /// Only the images for these platforms, of names that mean several: os/arch[,os/arch…]
    #[arg(long, value_delimiter = ',', value_name = "PLATFORM")]
    platform: Vec<Platform>,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

/// Carries a verb out.
pub(super) fn run(engine: &Engine, verb: Verb) -> Result<u8> {
    match verb {
        Verb::Build(args) => return build::run(engine, &args),
        Verb::Pull { quiet, platform, all_tags: true, name } => {
            let options = PullOptions { platform, ..PullOptions::default() };
            registry::pull_all(engine, &name, &options, lines(quiet))?;
        }
        Verb::Pull { quiet, platform, all_tags: false, name } => {
            let options = PullOptions { platform, ..PullOptions::default() };
            registry::pull(engine, &name, &options, lines(quiet))?;
        }
        Verb::Push { quiet, all_tags, platform, compression, compression_level, name } => {
            let form = registry::form(compression.as_deref(), compression_level.as_deref())?;
            let options = PushOptions { platform, ..PushOptions::default() };
            registry::push(engine, &name, all_tags, lines(quiet), &form, &options)?;
        }
        Verb::Tag { source, target } => engine.images().tag(&source, &target)?,
        Verb::Save { output, platform, names } => {
            Sink::private(output).write(|file| Ok(engine.images().save_for(&names, &platform, file)?))?;
        }
        // There is no progress to be quiet about.
        Verb::Load { input, quiet: _, platform } => load(engine, input.as_deref(), &platform)?,
        Verb::Import { change, file, reference, message, platform } => {
            let about = (message.as_deref(), reference.as_ref(), platform.as_ref());
            let image = import(engine, &file, &change, about)?;
            output::line(image.id.as_str());
        }
        Verb::History { no_trunc, human, quiet, format, platform, image } => {
            let image = engine.images().get_for(&image, platform.as_ref())?;
            let shown = Shown { is_whole: no_trunc, is_human: human, quiet };
            history(engine, &image, shown, format.as_deref())?;
        }
        Verb::Login { username, password, password_stdin, server } => {
            registry::login(&server, username, password, password_stdin)?;
        }
        Verb::Search(args) => return registry::search(engine, &args),
        Verb::Logout { server } => {
            crate::image::credentials::remove(&server)?;
            output::line(&format!("Removing login credentials for {server}"));
        }
    }
    Ok(0)
}

/// Progress as lines of data, as docker has it, unless it is to be quiet.
fn lines(quiet: bool) -> registry::Say {
    if quiet { None } else { Some(output::line) }
}

fn load(engine: &Engine, path: Option<&Path>, platforms: &[Platform]) -> Result<()> {
    let name = path.map(|path| path.display().to_string());
    let mut reader = open_input(name.as_deref())?;
    let loaded =
        engine.images().load_for(&mut reader, platforms).map_err(|error| of_file(name.as_deref(), error))?;
    for loaded in loaded {
        let text = match loaded.reference {
            Some(reference) => format!("Loaded image: {reference}"),
            None => format!("Loaded image ID: {}", loaded.image.id),
        };
        output::line(&text);
    }
    Ok(())
}

fn import(
    engine: &Engine,
    file: &str,
    changes: &[String],
    (message, reference, platform): (Option<&str>, Option<&Reference>, Option<&Platform>),
) -> Result<Image> {
    // Before the long part: a typing mistake should not cost the unpacking.
    let mut config = RunConfig::default();
    crate::builder::change(&mut config, changes)?;
    let is_address = file.starts_with("http://") || file.starts_with("https://");
    let fetched = if is_address { Some(crate::builder::download(engine.root(), file)?) } else { None };
    let name = Some(file).filter(|file| *file != "-");
    let mut reader = open_input(fetched.as_deref().and_then(Path::to_str).or(name))?;
    let imported = engine.images().import_for(&mut reader, config, message, reference, platform);
    imported.map_err(|error| of_file(name, error))
}

/// A failure with the name of the file that was read.
fn of_file(name: Option<&str>, error: ImageError) -> Error {
    let error = Error::from(error);
    let Some(name) = name else { return error };
    let hint = error.hint().map(str::to_owned);
    let named = Error::new(error.kind(), format!("read {name}")).with_source(error);
    match hint {
        Some(hint) => named.with_hint(hint),
        None => named,
    }
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

/// How a history is shown.
#[derive(Clone, Copy)]
struct Shown {
    is_whole: bool,
    is_human: bool,
    quiet: bool,
}

fn history(engine: &Engine, image: &Image, shown: Shown, format: Option<&str>) -> Result<()> {
    let Shown { is_whole: no_trunc, is_human, quiet } = shown;
    let mut rows = Vec::new();
    for row in engine.images().history(image)? {
        let created: Option<Timestamp> = row.created.as_deref().and_then(|text| text.parse().ok());
        let id = row.id.as_ref().map_or("<missing>", |id| if no_trunc { id.as_str() } else { id.short() });
        let by = if no_trunc || row.created_by.chars().count() <= 45 {
            row.created_by.clone()
        } else {
            row.created_by.chars().take(44).chain(['…']).collect()
        };
        rows.push(json!({
            "ID": id,
            "CreatedSince": match created {
                Some(at) if is_human => format!("{} ago", ago(at)),
                Some(at) => at.to_string(),
                None => "N/A".to_owned(),
            },
            "CreatedAt": row.created,
            "CreatedBy": by,
            "Size": if is_human { ByteSize(row.size).to_string() } else { row.size.to_string() },
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

/// Removes images.
pub(super) fn remove(engine: &Engine, args: &RemoveArgs) -> Result<u8> {
    let mut code = 0;
    for name in &args.names {
        let removed = match args.platform.as_slice() {
            [] => engine.remove_image(name, args.force),
            platforms => engine.remove_image_for(name, platforms, args.force),
        };
        match removed {
            Ok(removed) => removed.iter().for_each(tell_removed),
            Err(error) => {
                output::failure(&error);
                // By force it is to be gone, and it is.
                if !(args.force && error.kind() == Kind::NotFound) {
                    code = 1;
                }
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
