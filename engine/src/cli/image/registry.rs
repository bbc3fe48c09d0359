//! The verbs that talk to registries: pull, push, login, search, manifest.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Mutex;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::form::FormWords;
use crate::cli::output;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::image::{Form, Progress, PullOptions, Pulled, PushOptions, Reference, Step};

/// The flags of `search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Only those that match: stars=N, is-official=true
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// At most so many
    #[arg(long, default_value_t = 25)]
    limit: u32,
    /// Print descriptions whole
    #[arg(long)]
    no_trunc: bool,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
    /// What to look for; after a registry and a slash, among that registry's names
    term: String,
}

/// A verb on manifests.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestVerb {
    /// Show an image's manifest, or its index, as its registry has it
    Inspect {
        /// With its digest and size
        #[arg(short, long)]
        verbose: bool,
        /// Accepted for docker's sake: daemon.json says which registries are insecure
        #[arg(long, hide = true)]
        insecure: bool,
        /// The image
        image: Reference,
    },
}

/// Pulls every tag of a repository.
pub(super) fn pull_all(
    engine: &Engine,
    reference: &Reference,
    options: &PullOptions,
    quiet: bool,
) -> Result<()> {
    for tag in engine.images().remote_tags(reference)? {
        let tagged = reference.with_tag(&tag).map_err(|error| Error::invalid("tag").with_source(error))?;
        pull_with_progress(engine, &tagged, options, quiet)?;
    }
    output::line(&reference.familiar_name());
    Ok(())
}

/// Pulls an image and tells its way, on standard error.
pub(crate) fn pull_with_progress(
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
    pulled.warnings.iter().for_each(|warning| output::warning(warning));
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

/// The form that a push asks for: every layer is packed so, whatever it was before.
pub(super) fn form(compression: Option<&str>, level: Option<&str>) -> Result<Form> {
    let mut words = FormWords::default();
    for (key, value) in [("compression", compression), ("compression-level", level)] {
        if let Some(value) = value {
            words.take(key, value)?;
            words.take("force-compression", "true")?;
        }
    }
    words.form()
}

/// Pushes an image, or every tag of its repository, in the form that it has or is to have.
pub(super) fn push(
    engine: &Engine,
    reference: &Reference,
    all: bool,
    quiet: bool,
    form: &Form,
    options: &PushOptions,
) -> Result<()> {
    if !quiet {
        output::note(&format!(
            "The push refers to repository [{}/{}]",
            reference.registry(),
            reference.repository()
        ));
    }
    if !all {
        return push_one(engine, reference, quiet, form, options);
    }
    let name = reference.familiar_name();
    let images = engine.images().list()?;
    let tags =
        images.iter().flat_map(|image| &image.references).filter(|known| known.familiar_name() == name);
    let tags: Vec<&Reference> = tags.collect();
    if tags.is_empty() {
        return Err(Error::not_found(format!("no tag of {name} is here")));
    }
    tags.into_iter().try_for_each(|tag| push_one(engine, tag, quiet, form, options))
}

fn push_one(
    engine: &Engine,
    reference: &Reference,
    quiet: bool,
    form: &Form,
    options: &PushOptions,
) -> Result<()> {
    let told = Mutex::new(BTreeMap::new());
    let tell = |progress: Progress| {
        if !quiet {
            tell_once(&told, &progress);
        }
    };
    if *form != Form::default() {
        for image in engine.images().members(reference)? {
            engine.images().shape(&image, form, &tell)?;
        }
    }
    let pushed = engine.images().push(reference, options, &tell)?;
    pushed.warnings.iter().for_each(|warning| output::warning(warning));
    if quiet {
        output::line(&reference.to_string());
    } else {
        output::line(&format!("{}: digest: {} size: {}", reference.wanted(), pushed.digest, pushed.size));
    }
    Ok(())
}

/// Keeps credentials after the registry has taken them.
pub(super) fn login(
    server: &str,
    username: Option<String>,
    password: Option<String>,
    from_stdin: bool,
) -> Result<()> {
    let is_person = !from_stdin && rustix::termios::isatty(io::stdin());
    let failed = |error| Error::failed("read the user name and the password", error);
    let username = match username {
        Some(username) => username,
        None if is_person => output::ask("Username: ").map_err(failed)?,
        None => {
            return Err(
                Error::invalid("a user name is needed").with_hint("rengine login -u NAME --password-stdin")
            );
        }
    };
    let password = match password {
        Some(password) => {
            output::warning("Using --password via the CLI is insecure. Use --password-stdin.");
            password
        }
        None if is_person => output::ask_secret("Password: ").map_err(failed)?,
        None => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(failed)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    crate::image::credentials::login(server, &username, &password)?;
    output::line("Login Succeeded");
    Ok(())
}

/// Looks for images.
pub(crate) fn search(engine: &Engine, args: &SearchArgs) -> Result<u8> {
    let mut found = engine.images().search(&args.term, args.limit)?;
    for filter in &args.filter {
        let wrong =
            || Error::invalid(format!("invalid filter {filter:?}")).with_hint("stars and is-official");
        match filter.split_once('=').ok_or_else(wrong)? {
            ("stars", text) => {
                let least: u64 = text.parse().map_err(|_| wrong())?;
                found.retain(|image| image.stars >= least);
            }
            ("is-official", text) => {
                let wanted: bool = text.parse().map_err(|_| wrong())?;
                found.retain(|image| image.official == wanted);
            }
            _ => return Err(wrong()),
        }
    }
    let short = |text: &str| {
        let text = text.replace(['\n', '\r'], " ");
        if args.no_trunc || text.chars().count() <= 45 {
            return text;
        }
        text.chars().take(44).chain(['…']).collect()
    };
    let rows: Vec<_> = found
        .iter()
        .map(|image| {
            json!({
                "Name": image.name,
                "Description": short(&image.description),
                "StarCount": image.stars,
                "IsOfficial": if image.official { "[OK]" } else { "" },
            })
        })
        .collect();
    let columns = [
        ("NAME", "Name"),
        ("DESCRIPTION", "Description"),
        ("STARS", "StarCount"),
        ("OFFICIAL", "IsOfficial"),
    ];
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(0)
}

/// Shows manifests.
pub(crate) fn manifest(engine: &Engine, verb: &ManifestVerb) -> Result<u8> {
    let ManifestVerb::Inspect { verbose, insecure: _, image } = verb;
    let manifest = engine.images().remote_manifest(image)?;
    if *verbose {
        let document: serde_json::Value = serde_json::from_slice(&manifest.bytes)
            .map_err(|error| Error::failed(format!("read the manifest of {image}"), error))?;
        output::json(&json!({
            "Ref": image.canonical(),
            "Descriptor": {
                "mediaType": manifest.media_type,
                "digest": manifest.digest.as_str(),
                "size": manifest.bytes.len(),
            },
            "Raw": document,
        }));
        return Ok(0);
    }
    // As it came: its digest is of these bytes.
    output::raw(&manifest.bytes);
    if !manifest.bytes.ends_with(b"\n") {
        output::line("");
    }
    Ok(0)
}
