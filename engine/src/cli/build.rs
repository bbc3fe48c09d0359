//! `build` and its flags.

mod attest;
mod call;
mod request;
mod show;
mod target;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde_json::{Value, json};

use crate::builder::{Attested, BuildEvent, BuildRequest, Facts, Warning};
use crate::cli::form::FormWords;
use crate::cli::run::{parse_host, parse_ulimit};
use crate::cli::{builder, output};
use crate::container::spec::Ulimit;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Image, Platform, Reference};
use crate::quantity::ByteSize;
use call::Call;
use show::Show;
use target::Target;

/// The flags of `build`.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// Name the image; may be given several times
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,
    /// The Dockerfile, its address, or - for standard input
    #[arg(short, long)]
    file: Option<String>,
    /// Build argument; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    build_arg: Vec<String>,
    /// Further context: name=DIR, docker-image://IMAGE, oci-layout://DIR or an address
    #[arg(long, value_name = "NAME=CONTEXT")]
    build_context: Vec<String>,
    /// Stop at this stage
    #[arg(long)]
    target: Option<String>,
    /// Use no cached layer
    #[arg(long)]
    no_cache: bool,
    /// Use no cached layer of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Note something on the image's manifest, or on its index: [manifest:|index:]KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Platforms to build for: of several comes one image each, and one name for all
    #[arg(long, value_delimiter = ',')]
    platform: Vec<Platform>,
    /// What becomes of the image: DIR, or type=local|tar|oci|docker|image|registry|cacheonly,dest=…
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Push the image: --output type=registry
    #[arg(long)]
    push: bool,
    /// Same files, same image: times from SOURCE_DATE_EPOCH, or 1970 without it
    #[arg(long)]
    reproducible: bool,
    /// Network of RUN: default, none, host or a network
    #[arg(long)]
    network: Option<String>,
    /// Line of /etc/hosts for RUN: name:address
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = parse_host)]
    add_host: Vec<(String, String)>,
    /// Size of /dev/shm for RUN
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<ByteSize>,
    /// Resource limit for RUN: name=soft:hard, or name=both
    #[arg(long, value_parser = parse_ulimit)]
    ulimit: Vec<(String, Ulimit)>,
    /// Memory limit for RUN
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<ByteSize>,
    /// Limit of memory and swap together for RUN; -1 for no limit
    #[arg(long, value_name = "BYTES")]
    memory_swap: Option<String>,
    /// Control group that those of RUN are in
    #[arg(long, value_name = "GROUP")]
    cgroup_parent: Option<String>,
    /// Accepted for docker's sake: there is one isolation here
    #[arg(long, hide = true)]
    isolation: Option<String>,
    /// Not supported
    #[arg(long, hide = true)]
    security_opt: Vec<String>,
    /// Share of the processors for RUN
    #[arg(long)]
    cpu_shares: Option<u64>,
    /// Microseconds of the period of --cpu-quota
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Microseconds of processor time per period for RUN
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// Processors for RUN
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes for RUN
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long)]
    secret: Vec<String>,
    /// SSH agent for RUN --mount=type=ssh: default, id=SOCKET, or id=KEY for one with a key
    #[arg(long, value_name = "default|ID[=SOCKET|KEY]")]
    ssh: Vec<String>,
    /// What RUN may ask for: network.host, security.insecure, device or device=NAME
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<Entitlement>,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write digests, names and warnings to this file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Print the image's id alone
    #[arg(short, long)]
    quiet: bool,
    /// auto, plain, tty, quiet or rawjson
    #[arg(long, default_value = "auto", env = "BUILDKIT_PROGRESS")]
    progress: String,
    /// Only check the Dockerfile: --call check
    #[arg(long)]
    check: bool,
    /// build, check, outline, or targets; of the latter as JSON with ,format=json
    #[arg(long, default_value = "build")]
    call: String,
    /// Say of each step that is not cached what has changed
    #[arg(long)]
    explain: bool,
    /// What is done when a step fails: shell, a prompt in its sandbox
    #[arg(long, value_name = "ACTION", value_enum)]
    on_fail: Option<OnFail>,
    /// Attest how the image was made: mode=min|max, builder-id=URI, or false
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    provenance: Option<String>,
    /// Attest what is in the image, from the lists of dpkg, apk, Python and Node, as SPDX; or false
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sbom: Option<String>,
    /// The same as type=provenance,… or type=sbom
    #[arg(long, value_name = "type=TYPE")]
    attest: Vec<String>,
    /// One layer of all that are made
    #[arg(long)]
    squash: bool,
    /// Take layers from this cache: type=registry,ref=NAME or type=local,src=DIR
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Write a cache: type=registry,ref=NAME or type=local,dest=DIR, each with mode=min|max, or type=inline
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Accepted for docker's sake: there is one builder
    #[arg(long, hide = true)]
    builder: Option<String>,
    /// Accepted for docker's sake: the image is always kept here
    #[arg(long, hide = true)]
    load: bool,
    /// Accepted for docker's sake: nothing is transferred
    #[arg(long, hide = true)]
    compress: bool,
    /// Accepted for docker's sake: nothing is left of a step in any case
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    rm: Option<bool>,
    /// Accepted for docker's sake: nothing is left of a step in any case
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Directory that COPY and ADD read, an archive's address, or - for an archive or a Dockerfile on standard input
    context: String,
}

/// Builds an image, or looks at its Dockerfile.
pub(super) fn run(engine: &Engine, args: &BuildArgs) -> Result<u8> {
    let prepared = request::prepare(engine, args)?;
    match Call::parse(if args.check { "check" } else { &args.call })? {
        None => build(engine, args, prepared.request.clone()),
        Some(call) => call.answer(engine, &prepared.request),
    }
}

/// What RUN asks for with --network=host, --security=insecure and --device.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entitlement {
    NetworkHost,
    SecurityInsecure,
    Device(Option<String>),
}

impl FromStr for Entitlement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if text == "network.host" => Ok(Self::NetworkHost),
            None if text == "security.insecure" => Ok(Self::SecurityInsecure),
            None if text == "device" => Ok(Self::Device(None)),
            Some(("device", name)) => Ok(Self::Device(Some(name.to_owned()))),
            _ => Err("network.host, security.insecure and device are there".to_owned()),
        }
    }
}

/// What is done when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnFail {
    Shell,
}

fn build(engine: &Engine, args: &BuildArgs, mut request: BuildRequest) -> Result<u8> {
    let attested = attest::asked(args)?;
    let mut words = FormWords::default();
    args.annotation.iter().try_for_each(|text| words.take_annotation(text))?;
    let mut targets =
        args.output.iter().map(|text| Target::parse(text, &words)).collect::<Result<Vec<_>>>()?;
    if args.push {
        let push = Some(target::Push::default());
        targets.push(Target::Image { names: Vec::new(), push, form: words.form()? });
    }
    request.clamp_times |=
        args.output.iter().any(|text| text.split(',').any(|key| key == "rewrite-timestamp=true"));
    if request.clamp_times && !request.args.contains_key("SOURCE_DATE_EPOCH") {
        return Err(Error::invalid("rewrite-timestamp needs the time that files are to have")
            .with_hint("SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) rengine build …"));
    }
    let pushes =
        |target: &Target| matches!(target, Target::Image { names, push: Some(_), .. } if names.is_empty());
    if args.tag.is_empty() && targets.iter().any(pushes) {
        return Err(Error::invalid("what is pushed needs a name").with_hint("-t NAME"));
    }
    // An image that only files are wanted of is not kept, unless it was here before.
    let is_kept = targets.is_empty() || targets.iter().any(|target| matches!(target, Target::Image { .. }));
    let before: Vec<_> = if is_kept { Vec::new() } else { ids(engine)? };
    if !is_kept {
        request.tags.clear();
    }
    let is_quiet = args.quiet || args.progress == "quiet";
    let mut show = Show::of(if is_quiet { "quiet" } else { &args.progress })?;
    let (mut warnings, mut materials) = (Vec::new(), BTreeSet::new());
    let began = jiff::Timestamp::now();
    let built = engine.build(&request, &mut |event: BuildEvent| {
        show.event(&event);
        match event {
            BuildEvent::Warning(warning) => warnings.push(warning),
            BuildEvent::Material(material) => drop(materials.insert(material)),
            _ => {}
        }
    });
    show.finish(built.is_ok());
    let images = built?;
    let Some(image) = images.first() else { return Ok(0) };
    let epoch = request.args.get("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok());
    let facts = Facts { began, ended: jiff::Timestamp::now(), materials: materials.into_iter().collect() };
    let attested: Vec<Attested> = (images.iter())
        .map(|image| attested.predicates(engine.root(), &request, &facts, image, &args.tag))
        .collect::<Result<_>>()?;
    let remarks: BTreeSet<&String> = attested.iter().flat_map(|attested| &attested.remarks).collect();
    remarks.into_iter().for_each(|remark| output::warning(remark));
    if targets.is_empty() {
        targets.push(Target::Image { names: Vec::new(), push: None, form: words.form()? });
    }
    for target in &targets {
        target.write(engine, &images, &args.tag, epoch, &attested)?;
    }
    let told = attested.first().and_then(Attested::provenance);
    let names: BTreeSet<&Reference> =
        args.tag.iter().chain(targets.iter().flat_map(|target| target.names())).collect();
    report(engine, args, &images, names, &warnings, told)?;
    let is_new = |image: &&Image| image.references.is_empty() && !before.contains(&image.id);
    for image in images.iter().filter(is_new).filter(|_| !is_kept) {
        engine.remove_image(image.id.as_str(), false)?;
    }
    if is_quiet && !targets.iter().any(Target::takes_stdout) {
        output::line(image.id.as_str());
    }
    Ok(0)
}

fn ids(engine: &Engine) -> Result<Vec<crate::id::ImageId>> {
    Ok(engine.images().list()?.into_iter().map(|image| image.id).collect())
}

/// The files that tell other programs what was built.
fn report(
    engine: &Engine,
    args: &BuildArgs,
    images: &[Image],
    names: BTreeSet<&Reference>,
    warnings: &[Warning],
    provenance: Option<&Value>,
) -> Result<()> {
    let Some(image) = images.first() else { return Ok(()) };
    if let Some(file) = &args.iidfile {
        write(file, image.id.as_str())?;
    }
    let Some(file) = &args.metadata_file else { return Ok(()) };
    let (media_type, digest, size) = engine.images().descriptor(images)?;
    let names: Vec<String> = names.into_iter().map(Reference::canonical).collect();
    let warnings: Vec<_> = warnings
        .iter()
        .map(|warning| json!({ "rule": warning.rule, "message": warning.message, "line": warning.line }))
        .collect();
    let mut data = json!({
        "buildx.build.ref": format!("{0}/{0}/{1}", builder::NAME, crate::id::ContainerId::random().as_str()),
        "containerimage.config.digest": image.id.as_str(),
        "containerimage.descriptor": { "mediaType": media_type, "digest": digest.as_str(), "size": size },
        "containerimage.digest": digest.as_str(),
        "image.name": names.join(","),
    });
    if let Some(provenance) = provenance {
        data["buildx.build.provenance"] = provenance.clone();
    }
    if !warnings.is_empty() {
        data["buildx.build.warnings"] = warnings.into();
    }
    write(file, &format!("{data:#}\n"))
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(|error| Error::failed(format!("write {}", file.display()), error))
}
