//! `build` and its flags.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::builder::progress::Plain;
use crate::builder::{
    BuildEvent, BuildRequest, CacheUse, DockerfileSource, NamedContext, RunOptions, Secret, SecretSource,
};
use crate::cli::output;
use crate::cli::run::{pairs, parse_ulimit};
use crate::container::spec::{NetworkAttachment, NetworkMode};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Platform, Reference};
use crate::quantity::ByteSize;

/// The flags of `build`.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// Name the image; may be given several times
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,
    /// The Dockerfile, or - for standard input
    #[arg(short, long)]
    file: Option<String>,
    /// Build argument; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    build_arg: Vec<String>,
    /// Further context: name=directory or name=docker-image://image
    #[arg(long, value_name = "NAME=CONTEXT")]
    build_context: Vec<String>,
    /// Stop at this stage
    #[arg(long)]
    target: Option<String>,
    /// Use no cached layer
    #[arg(long)]
    no_cache: bool,
    /// Use no cached layer of this stage
    #[arg(long, value_name = "STAGE")]
    no_cache_filter: Vec<String>,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Platform to build for
    #[arg(long)]
    platform: Option<Platform>,
    /// Network of RUN: default, none, host or a network
    #[arg(long)]
    network: Option<String>,
    /// Line of /etc/hosts for RUN: name:address
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Size of /dev/shm for RUN
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<ByteSize>,
    /// Resource limit for RUN: `name=soft[:hard]`
    #[arg(long)]
    ulimit: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long)]
    secret: Vec<String>,
    /// Entitlement: network.host or security.insecure
    #[arg(long)]
    allow: Vec<String>,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Print the image's id alone
    #[arg(short, long)]
    quiet: bool,
    /// auto, plain or quiet
    #[arg(long, default_value = "auto")]
    progress: String,
    /// Accepted for docker's sake: the image is always kept here
    #[arg(long, hide = true)]
    load: bool,
    /// Accepted for docker's sake: nothing is left of a step in any case
    #[arg(long, hide = true)]
    rm: bool,
    /// Accepted for docker's sake: nothing is left of a step in any case
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Directory that COPY and ADD read, or - for a Dockerfile on standard input
    context: String,
}

/// The flags of `builder prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// All of the cache
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Builds an image.
pub(super) fn run(engine: &Engine, args: BuildArgs) -> Result<u8> {
    let quiet = args.quiet || args.progress == "quiet";
    let iidfile = args.iidfile.clone();
    let request = request(args)?;
    let mut plain = Plain::default();
    let image = engine.build(&request, &mut |event: BuildEvent| {
        let text = plain.text(&event);
        if !quiet && !text.is_empty() {
            output::raw_error(text.as_bytes());
        } else if let (true, BuildEvent::Failure(_)) = (quiet, &event) {
            output::raw_error(text.as_bytes());
        }
    })?;
    if let Some(file) = iidfile {
        std::fs::write(&file, image.id.as_str())
            .map_err(|error| Error::failed(format!("write the id to {}", file.display()), error))?;
    }
    if quiet {
        output::line(image.id.as_str());
    }
    Ok(0)
}

fn request(args: BuildArgs) -> Result<BuildRequest> {
    let stdin = || {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Error::failed("read the Dockerfile from standard input", error))?;
        Ok::<_, Error>(DockerfileSource::Inline(text))
    };
    let empty_context = args.context == "-";
    let context = if empty_context { PathBuf::from("/var/empty") } else { PathBuf::from(&args.context) };
    if !empty_context && !context.is_dir() {
        return Err(Error::invalid(format!("the build context {} is not a directory", context.display()))
            .with_hint("the last argument is the directory that COPY reads, often a dot"));
    }
    let dockerfile = match args.file.as_deref() {
        None if empty_context => stdin()?,
        Some("-") => stdin()?,
        None => DockerfileSource::Default,
        Some(file) => DockerfileSource::File(file.into()),
    };
    let mut request = BuildRequest::of(context);
    request.dockerfile = dockerfile;
    request.tags = args.tag;
    request.target = args.target;
    request.labels = pairs(args.label);
    request.args = args.build_arg.into_iter().filter_map(build_argument).collect();
    request.contexts = args.build_context.iter().map(|text| named_context(text)).collect::<Result<_>>()?;
    request.cache = match (args.no_cache, args.no_cache_filter) {
        (true, _) => CacheUse::None,
        (false, stages) if stages.is_empty() => CacheUse::All,
        (false, stages) => CacheUse::NotIn(stages),
    };
    request.pull = args.pull;
    request.platform = args.platform;
    request.secrets = args.secret.iter().map(|text| secret(text)).collect::<Result<_>>()?;
    request.run = RunOptions {
        network: network(args.network.as_deref())?,
        allow_host_network: args.allow.iter().any(|allowed| allowed == "network.host"),
        allow_insecure: args.allow.iter().any(|allowed| allowed == "security.insecure"),
        extra_hosts: args
            .add_host
            .iter()
            .map(|text| {
                text.split_once(['=', ':'])
                    .map(|(name, address)| (name.to_owned(), address.to_owned()))
                    .ok_or_else(|| Error::invalid(format!("invalid host {text:?}: name:address is needed")))
            })
            .collect::<Result<_>>()?,
        shm_size: args.shm_size,
        ulimits: args.ulimit.iter().map(|text| parse_ulimit(text)).collect::<Result<_>>()?,
        ..RunOptions::default()
    };
    Ok(request)
}

/// `KEY=VALUE`, or `KEY` with the value it has here; a variable that is not set here is no argument.
fn build_argument(text: String) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) => Some((key.to_owned(), value.to_owned())),
        None => std::env::var(&text).ok().map(|value| (text, value)),
    }
}

fn named_context(text: &str) -> Result<(String, NamedContext)> {
    let (name, source) = text
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("invalid build context {text:?}: name=directory is needed")))?;
    let context = match source.strip_prefix("docker-image://") {
        Some(image) => NamedContext::Image(
            image.parse().map_err(|error| Error::invalid(format!("image {image:?}")).with_source(error))?,
        ),
        None if Path::new(source).is_dir() => NamedContext::Directory(source.into()),
        None => return Err(Error::invalid(format!("the build context {source:?} is not a directory"))),
    };
    Ok((name.to_owned(), context))
}

fn secret(text: &str) -> Result<Secret> {
    let wrong = || {
        Error::invalid(format!("invalid secret {text:?}"))
            .with_hint("write id=NAME,src=FILE or id=NAME,env=VARIABLE")
    };
    let (mut id, mut source) = (None, None);
    for field in text.split(',') {
        match field.split_once('=').ok_or_else(wrong)? {
            ("id", value) => id = Some(value.to_owned()),
            ("src" | "source", value) => source = Some(SecretSource::File(value.into())),
            ("env", value) => source = Some(SecretSource::Variable(value.to_owned())),
            ("type", _) => {}
            _ => return Err(wrong()),
        }
    }
    let id = id.ok_or_else(wrong)?;
    let source = source.unwrap_or_else(|| match std::env::var_os(&id) {
        Some(_) => SecretSource::Variable(id.clone()),
        None => SecretSource::File(id.clone().into()),
    });
    Ok(Secret { id, source })
}

fn network(text: Option<&str>) -> Result<NetworkMode> {
    Ok(match text {
        None | Some("default" | "bridge") => NetworkMode::Bridge(Vec::new()),
        Some("host") => NetworkMode::Host,
        Some("none") => NetworkMode::None,
        Some(name) => {
            let name = name.parse().map_err(|error| Error::invalid("--network").with_source(error))?;
            NetworkMode::Bridge(vec![NetworkAttachment::to(&name)])
        }
    })
}

/// Removes what the builder keeps.
pub(super) fn prune(engine: &Engine, args: &PruneArgs) -> Result<u8> {
    if !args.force && !output::confirm("This will remove the build cache. Continue?") {
        return Ok(0);
    }
    let bytes = engine.prune_build_cache(args.all)?;
    output::line(&format!("Total:\t{}", ByteSize(bytes)));
    Ok(0)
}
