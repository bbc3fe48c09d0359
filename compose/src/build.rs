//! From a service's `build` to what the builder is asked. Pure but for the caller's own environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::Root;
use engine::builder::AllowedDevices;
use engine::builder::{
    BuildRequest, CacheUse, DockerfileSource, Intake, NamedContext, Opening, RunOptions, Secret, SecretSource,
};
use engine::container::spec::{NetworkAttachment, NetworkMode, Ulimit};
use engine::error::{Error, Result};
use engine::image::Reference;

use crate::desired::Desired;
use crate::model::{Build, Project, Service};
pub use crate::paths::is_remote;

/// What the command line adds to every build.
#[derive(Debug, Clone, Default)]
pub struct BuildFlags {
    /// Nothing is taken from the cache.
    pub no_cache: bool,
    /// Base images are always asked for at their registry.
    pub pull: bool,
    /// Further build arguments.
    pub args: BTreeMap<String, String>,
    /// Whether the steps are not shown.
    pub quiet: bool,
    /// Whether the Dockerfiles are only checked.
    pub check: bool,
    /// Further SSH agents: an id, or `id=socket`.
    pub ssh: Vec<String>,
}

/// Contexts that were elsewhere. They last as long as this does.
#[derive(Debug, Default)]
pub struct Fetched {
    context: Option<Intake>,
    named: BTreeMap<String, Intake>,
}

/// Fetches the contexts of a service that are git repositories, or archives at an address or on standard input.
///
/// # Errors
/// When one cannot be had.
pub fn fetch(root: &Root, project: &Project, build: &Build) -> Result<Fetched> {
    let wrong = |key: &str, problem: String| Error::invalid(format!("build.{key}: {problem}"));
    let secrets = secrets(project, build, &wrong)?;
    let is_elsewhere = |source: &str| is_remote(source) && !is_image_or_service(source);
    let named = build.additional_contexts.iter().filter(|(_, source)| is_elsewhere(source));
    let context = build.context.as_ref().filter(|context| is_elsewhere(context));
    let keeps_git =
        build.args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").is_some_and(|value| value.as_deref() == Some("1"));
    let agents = if context.is_some() { agents(project, build, &wrong)? } else { BTreeMap::new() };
    let agent = agents.get("default").map(PathBuf::as_path);
    let opening = Opening { secrets: &secrets, agent, keeps_git };
    let take = |source: &String| Intake::take(root, source, &mut std::io::stdin(), &opening);
    Ok(Fetched {
        context: context.map(take).transpose()?,
        named: named.map(|(name, source)| Ok((name.clone(), take(source)?))).collect::<Result<_>>()?,
    })
}

/// What a named context may be that is no directory.
fn is_image_or_service(source: &str) -> bool {
    ["docker-image://", "service:", "oci-layout://", "target:"]
        .iter()
        .any(|scheme| source.starts_with(scheme))
}

/// The request to build the image of a service.
///
/// # Errors
/// When a value makes no sense to the builder.
pub fn request(
    project: &Project,
    desired: &Desired,
    service: &Service,
    flags: &BuildFlags,
    fetched: &Fetched,
) -> Result<BuildRequest> {
    let wrong = |key: &str, problem: String| Error::invalid(format!("build.{key}: {problem}"));
    let build = service
        .build
        .as_ref()
        .ok_or_else(|| Error::invalid(format!("service {} says nothing of a build", service.name)))?;
    let context = match &fetched.context {
        Some(intake) => intake.directory.clone(),
        None => project.working_dir.join(build.context.as_deref().unwrap_or(".")),
    };
    if !context.is_dir() {
        return Err(wrong("context", format!("{} is not a directory", context.display())));
    }
    let reference = |name: &str| name.parse::<Reference>().map_err(|error| wrong("tags", error.to_string()));
    let name = &desired.services[service.name.as_str()].image.name;
    let mut request = BuildRequest::of(&context);
    request.dockerfile = dockerfile(build, &context, fetched);
    request.contexts = contexts(project, desired, build, fetched, &wrong)?;
    request.target = build.target.clone();
    request.args = arguments(project, build);
    request.args.extend(flags.args.clone());
    request.tags = vec![reference(name)?];
    for tag in &build.tags {
        request.tags.push(reference(tag)?);
    }
    request.labels = build.labels.clone();
    request.cache = match (&build.no_cache_filter, build.no_cache || flags.no_cache) {
        (_, true) => CacheUse::None,
        (stages, false) if stages.is_empty() => CacheUse::All,
        (stages, false) => CacheUse::NotIn(stages.clone()),
    };
    for text in &build.cache_from {
        request.cache_from.push(text.parse().map_err(|error: Error| wrong("cache_from", error.to_string()))?);
    }
    for text in &build.cache_to {
        request.cache_to.push(text.parse().map_err(|error: Error| wrong("cache_to", error.to_string()))?);
    }
    request.pull = build.pull || flags.pull;
    let default = project.platform(service).filter(|_| build.platforms.is_empty());
    for text in build.platforms.iter().chain(default) {
        request.platforms.push(text.parse().map_err(|error| wrong("platforms", format!("{error}")))?);
    }
    request.run = run_options(build, &wrong)?;
    request.secrets = secrets(project, build, &wrong)?;
    request.ssh = agents(project, build, &wrong)?;
    let more = flags.ssh.iter().map(|text| text.split_once('=').unwrap_or((text, "")));
    let more = more.map(|(id, socket)| (id.to_owned(), socket.to_owned())).collect();
    request.ssh.extend(agents(project, &Build { ssh: more, ..Build::default() }, &wrong)?);
    Ok(request)
}

fn dockerfile(build: &Build, context: &Path, fetched: &Fetched) -> DockerfileSource {
    match (&build.dockerfile_inline, &build.dockerfile) {
        (Some(text), _) => DockerfileSource::Inline(text.clone()),
        (None, Some(file)) => DockerfileSource::File(context.join(file)),
        // What was fetched may be a Dockerfile and nothing else.
        (None, None) => {
            fetched.context.as_ref().map_or(DockerfileSource::Default, |intake| intake.dockerfile.clone())
        }
    }
}

/// Arguments without a value have the one of the project's environment, or none at all.
pub(crate) fn arguments(project: &Project, build: &Build) -> BTreeMap<String, String> {
    build
        .args
        .iter()
        .filter_map(|(key, value)| {
            let value = value.as_ref().or_else(|| project.environment.get(key))?;
            Some((key.clone(), value.clone()))
        })
        .collect()
}

fn contexts(
    project: &Project,
    desired: &Desired,
    build: &Build,
    fetched: &Fetched,
    wrong: &dyn Fn(&str, String) -> Error,
) -> Result<BTreeMap<String, NamedContext>> {
    let key = "additional_contexts";
    let mut contexts = BTreeMap::new();
    for (name, source) in &build.additional_contexts {
        let image = match source.strip_prefix("service:") {
            Some(other) => {
                let other = desired
                    .services
                    .get(other)
                    .ok_or_else(|| wrong(key, format!("there is no service {other:?}")))?;
                Some(other.image.name.as_str())
            }
            None => source.strip_prefix("docker-image://"),
        };
        let context = match image {
            Some(image) => {
                NamedContext::Image(image.parse().map_err(|error| wrong(key, format!("{image:?}: {error}")))?)
            }
            None => {
                let directory = match fetched.named.get(name) {
                    Some(intake) => intake.directory.clone(),
                    None => project.working_dir.join(source),
                };
                if !directory.is_dir() {
                    return Err(wrong(key, format!("{source:?} is not a directory")));
                }
                NamedContext::Directory(directory)
            }
        };
        contexts.insert(name.clone(), context);
    }
    Ok(contexts)
}

fn run_options(build: &Build, wrong: &dyn Fn(&str, String) -> Error) -> Result<RunOptions> {
    let network = match build.network.as_deref() {
        None | Some("" | "default" | "bridge") => NetworkMode::Bridge(Vec::new()),
        Some("host") => NetworkMode::Host,
        Some("none") => NetworkMode::None,
        Some(name) => {
            let name = name.parse().map_err(|error| wrong("network", format!("{error}")))?;
            NetworkMode::Bridge(vec![NetworkAttachment::to(&name)])
        }
    };
    let mut extra_hosts = Vec::new();
    for line in &build.extra_hosts {
        let (name, address) = line
            .split_once(['=', ':'])
            .ok_or_else(|| wrong("extra_hosts", format!("{line:?} is not name=address")))?;
        extra_hosts.push((name.to_owned(), address.to_owned()));
    }
    let ulimits = build
        .ulimits
        .iter()
        .map(|(name, limit)| (name.clone(), Ulimit { soft: limit.soft(), hard: limit.hard() }));
    let mut allow_devices = AllowedDevices::default();
    for entitlement in &build.entitlements {
        match entitlement.split_once('=') {
            None if entitlement == "device" => allow_devices.allow(None),
            Some(("device", name)) => allow_devices.allow(Some(name)),
            _ => {}
        }
    }
    Ok(RunOptions {
        allow_devices,
        allow_host_network: matches!(network, NetworkMode::Host)
            || build.entitlements.iter().any(|entitlement| entitlement == "network.host"),
        allow_insecure: build.privileged
            || build.entitlements.iter().any(|entitlement| entitlement == "security.insecure"),
        network,
        extra_hosts,
        shm_size: Some(build.shm_size).filter(|size| size.0 > 0),
        ulimits: ulimits.collect(),
        ..RunOptions::default()
    })
}

/// The SSH agents that `ssh` names: its sockets, or the caller's own agent for an id alone.
fn agents(
    project: &Project,
    build: &Build,
    wrong: &dyn Fn(&str, String) -> Error,
) -> Result<BTreeMap<String, PathBuf>> {
    let agent = |(id, socket): (&String, &String)| {
        let own = || project.environment.get("SSH_AUTH_SOCK").cloned();
        let socket = Some(socket.clone()).filter(|socket| !socket.is_empty()).or_else(own);
        let socket = socket.ok_or_else(|| wrong("ssh", format!("{id}: SSH_AUTH_SOCK is not set")))?;
        Ok((id.clone(), project.working_dir.join(socket)))
    };
    build.ssh.iter().map(agent).collect()
}

fn secrets(project: &Project, build: &Build, wrong: &dyn Fn(&str, String) -> Error) -> Result<Vec<Secret>> {
    let secret = |reference: &crate::model::FileReference| {
        let object = project
            .secrets
            .get(&reference.source)
            .ok_or_else(|| wrong("secrets", format!("{:?} is not defined", reference.source)))?;
        let source = match (&object.file, &object.environment) {
            (Some(file), _) => SecretSource::File(PathBuf::from(file)),
            (None, Some(variable)) => SecretSource::Variable(variable.clone()),
            (None, None) => return Err(wrong("secrets", format!("{:?} has no source", reference.source))),
        };
        let id = reference.target.clone().filter(|target| !target.is_empty());
        Ok(Secret { id: id.unwrap_or_else(|| reference.source.clone()), source })
    };
    build.secrets.iter().map(secret).collect()
}
