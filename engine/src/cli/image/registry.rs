//! The verbs that talk to registries: pull, push, login, search.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::Mutex;

use clap::Args;
use serde_json::json;

use crate::cli::form::FormWords;
use crate::cli::output;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::image::reference::ParseReferenceError;
use crate::image::{
    DEFAULT_REGISTRY, DEFAULT_TAG, Form, FoundImage, Progress, PullOptions, Pulled, PushOptions, Reference,
    Step, credentials,
};

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

/// Where the way of a pull or a push is told: nowhere, or as lines of data or for the person.
pub(crate) type Say = Option<fn(&str)>;

/// A name as it was written: without a tag, the usual one is meant, or all of them.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    reference: Reference,
    has_tag: bool,
}

/// Pulls an image for its own sake, and says its name.
pub(super) fn pull(engine: &Engine, name: &Written, options: &PullOptions, say: Say) -> Result<()> {
    let reference = &name.reference;
    name.say_default_tag(say);
    pull_with_progress(engine, reference, options, say)?;
    output::line(&reference.to_string());
    Ok(())
}

/// Pulls every tag of a repository.
pub(super) fn pull_all(engine: &Engine, name: &Written, options: &PullOptions, say: Say) -> Result<()> {
    name.refuse_tag()?;
    let reference = &name.reference;
    for tag in engine.images().remote_tags(reference)? {
        let tagged = reference.with_tag(&tag).map_err(|error| Error::invalid("tag").with_source(error))?;
        pull_with_progress(engine, &tagged, options, say)?;
    }
    output::line(&reference.familiar_name());
    Ok(())
}

/// Pulls an image and tells its way.
pub(crate) fn pull_with_progress(
    engine: &Engine,
    reference: &Reference,
    options: &PullOptions,
    say: Say,
) -> Result<Pulled> {
    if reference.canonical() == format!("{DEFAULT_REGISTRY}/library/scratch:{DEFAULT_TAG}") {
        return Err(
            Error::invalid("'scratch' is a reserved name").with_hint("it means no image at all in a FROM")
        );
    }
    let told = Mutex::new(BTreeMap::new());
    let tell = |progress: Progress| tell_once(&told, &progress, say);
    if let Some(say) = say {
        let wanted = match reference.digest() {
            Some(digest) => reference.with_digest(digest).canonical(),
            None => reference.wanted().to_owned(),
        };
        say(&format!("{wanted}: Pulling from {}", reference.repository()));
    }
    let pulled = engine.images().pull(reference, options, &tell)?;
    pulled.warnings.iter().for_each(|warning| output::warning(warning));
    if let Some(say) = say {
        say(&format!("Digest: {}", pulled.digest));
        let status = if pulled.newer { "Downloaded newer image for" } else { "Image is up to date for" };
        say(&format!("Status: {status} {reference}"));
    }
    Ok(pulled)
}

// === impl Written ===

impl Written {
    fn say_default_tag(&self, say: Say) {
        if let Some(say) = say.filter(|_| !self.has_tag) {
            say(&format!("Using default tag: {DEFAULT_TAG}"));
        }
    }

    fn refuse_tag(&self) -> Result<()> {
        if self.has_tag { Err(Error::invalid("tag can't be used with --all-tags/-a")) } else { Ok(()) }
    }
}

impl FromStr for Written {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let has_tag = text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':'));
        Ok(Self { reference: text.parse()?, has_tag })
    }
}

/// Writes a layer's step when it is another one than before: bytes are not steps.
fn tell_once(told: &Mutex<BTreeMap<Digest, &'static str>>, progress: &Progress, say: Say) {
    let word = match progress.step {
        Step::Exists => "Already exists",
        Step::ExistsThere => "Layer already exists",
        Step::Foreign => "Skipped foreign layer",
        Step::Waiting => return,
        Step::Downloading(..) => "Downloading",
        Step::Unpacking => "Extracting",
        Step::Complete => "Pull complete",
        Step::Compressing => "Preparing",
        Step::Pushing(..) => "Pushing",
        Step::Pushed => "Pushed",
        Step::Retrying(_) => "Retrying",
    };
    let (Some(say), Ok(mut told)) = (say, told.lock()) else { return };
    if told.insert(progress.layer.clone(), word) != Some(word) {
        say(&format!("{}: {word}", progress.layer.short()));
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
    name: &Written,
    all: bool,
    say: Say,
    form: &Form,
    options: &PushOptions,
) -> Result<()> {
    let reference = &name.reference;
    if all {
        name.refuse_tag()?;
    } else {
        name.say_default_tag(say);
    }
    if let Some(say) = say {
        say(&format!("The push refers to repository [{}/{}]", reference.registry(), reference.repository()));
    }
    if !all {
        return push_one(engine, reference, say, form, options);
    }
    let name = reference.familiar_name();
    let images = engine.images().list()?;
    let tags =
        images.iter().flat_map(|image| &image.references).filter(|known| known.familiar_name() == name);
    let tags: Vec<&Reference> = tags.collect();
    if tags.is_empty() {
        return Err(Error::not_found(format!("no tag of {name} is here")));
    }
    tags.into_iter().try_for_each(|tag| push_one(engine, tag, say, form, options))
}

fn push_one(
    engine: &Engine,
    reference: &Reference,
    say: Say,
    form: &Form,
    options: &PushOptions,
) -> Result<()> {
    let told = Mutex::new(BTreeMap::new());
    let tell = |progress: Progress| tell_once(&told, &progress, say);
    if *form != Form::default() {
        for image in engine.images().members(reference)? {
            engine.images().shape(&image, form, &tell)?;
        }
    }
    let pushed = engine.images().push(reference, options, &tell)?;
    pushed.warnings.iter().for_each(|warning| output::warning(warning));
    match say {
        None => output::line(&reference.to_string()),
        Some(say) => {
            say(&format!("{}: digest: {} size: {}", reference.wanted(), pushed.digest, pushed.size));
        }
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
    if from_stdin && password.is_some() {
        return Err(Error::invalid("--password and --password-stdin are mutually exclusive"));
    }
    if username.is_none() && password.is_none() && !from_stdin && login_again(server)? {
        output::line("Login Succeeded");
        return Ok(());
    }
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
    if let Some(file) = credentials::login(server, &username, &password)? {
        output::warning(&format!("the password is kept unencrypted in {}", file.display()));
        output::note("hint: a credential helper (credsStore in that file) keeps it better");
    }
    output::line("Login Succeeded");
    Ok(())
}

/// Tries what was kept for a registry before. Whether it takes that.
fn login_again(server: &str) -> Result<bool> {
    match credentials::try_kept(server) {
        Ok(None) => Ok(false),
        Ok(Some(())) => {
            output::line("Authenticating with existing credentials...");
            Ok(true)
        }
        Err(error) if rustix::termios::isatty(io::stdin()) => {
            output::note(&format!("the credentials kept for {server} do not work: {error}"));
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// What a found image has to be.
enum SearchFilter {
    Stars(u64),
    IsOfficial(bool),
}

impl SearchFilter {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("invalid filter {text:?}")).with_hint("stars and is-official");
        match text.split_once('=').ok_or_else(wrong)? {
            ("stars", least) => Ok(Self::Stars(least.parse().map_err(|_| wrong())?)),
            ("is-official", wanted) => Ok(Self::IsOfficial(wanted.parse().map_err(|_| wrong())?)),
            _ => Err(wrong()),
        }
    }

    fn takes(&self, image: &FoundImage) -> bool {
        match self {
            Self::Stars(least) => image.stars >= *least,
            Self::IsOfficial(wanted) => image.official == *wanted,
        }
    }
}

/// Looks for images.
pub(crate) fn search(engine: &Engine, args: &SearchArgs) -> Result<u8> {
    if !(1..=100).contains(&args.limit) {
        return Err(Error::invalid(format!("--limit {} is outside the range of 1 to 100", args.limit)));
    }
    let filters: Vec<SearchFilter> =
        args.filter.iter().map(|text| SearchFilter::parse(text)).collect::<Result<_>>()?;
    let mut found = engine.images().search(&args.term, args.limit)?;
    found.retain(|image| filters.iter().all(|filter| filter.takes(image)));
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
