//! What `build`'s flags ask of the builder.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::builder::AllowedDevices;
use crate::builder::{
    BuildRequest, CacheUse, DockerfileSource, Intake, NamedContext, Opening, RunOptions, Secret, SecretSource,
};
use crate::cli::build::{BuildArgs, Entitlement, OnFail};
use crate::cli::run::{memory_swap, pairs, parse_cgroup_parent};
use crate::container::spec::{NetworkAttachment, NetworkMode, Resources};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// The variable of an SSH agent's socket.
const AGENT: &str = "SSH_AUTH_SOCK";

/// A request, and what must live as long as the build.
pub(super) struct Prepared {
    pub(super) request: BuildRequest,
    pub(super) _contexts: Vec<Intake>,
}

/// What these flags ask for.
pub(super) fn prepare(engine: &Engine, args: &BuildArgs) -> Result<Prepared> {
    refuse(args)?;
    let takes_stdin = args.file.as_deref() == Some("-");
    if takes_stdin && args.context == "-" {
        return Err(Error::invalid("the Dockerfile and the context cannot both be on standard input"));
    }
    let mut stdin = std::io::stdin();
    let secrets: Vec<Secret> = args.secret.iter().map(|text| secret(text)).collect::<Result<_>>()?;
    let ssh = agents(&args.ssh)?;
    let own_agent = std::env::var_os(AGENT).map(PathBuf::from);
    let opening = Opening {
        secrets: &secrets,
        agent: ssh.get("default").or(own_agent.as_ref()).map(PathBuf::as_path),
        keeps_git: args.build_arg.iter().any(|text| text == "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"),
    };
    let intake = Intake::take(engine.root(), &args.context, &mut stdin, &opening)?;
    let mut request = BuildRequest::of(&intake.directory);
    let is_directory = Path::new(&args.context).is_dir();
    request.dockerfile = match args.file.as_deref() {
        None => intake.dockerfile.clone(),
        Some("-") => DockerfileSource::Inline(read_stdin()?),
        Some(address) if address.starts_with("http://") || address.starts_with("https://") => {
            DockerfileSource::Inline(fetched(engine, address)?)
        }
        // A file of an unpacked archive is named as it is in there.
        Some(file) if !is_directory => DockerfileSource::File(intake.directory.join(file)),
        Some(file) => DockerfileSource::File(file.into()),
    };
    let mut held = vec![intake];
    request.tags.clone_from(&args.tag);
    request.target.clone_from(&args.target);
    request.labels = pairs(args.label.clone());
    request.args = args.build_arg.iter().filter_map(|text| build_argument(text)).collect();
    request.contexts = contexts(engine, args, &mut held, &opening)?;
    request.cache = match (args.no_cache, &args.no_cache_filter) {
        (true, _) => CacheUse::None,
        (false, stages) if stages.is_empty() => CacheUse::All,
        (false, stages) => CacheUse::NotIn(stages.clone()),
    };
    request.cache_from = args.cache_from.iter().map(|text| text.parse()).collect::<Result<_>>()?;
    request.cache_to = args.cache_to.iter().map(|text| text.parse()).collect::<Result<_>>()?;
    request.pull = args.pull;
    for platform in &args.platform {
        if !request.platforms.contains(platform) {
            request.platforms.push(platform.clone());
        }
    }
    request.secrets = secrets;
    request.ssh = ssh;
    request.run = run_options(args)?;
    request.clamp_times = args.reproducible;
    request.explain = args.explain;
    request.squash = args.squash;
    reproducible(args, &mut request.args);
    Ok(Prepared { request, _contexts: held })
}

/// What cannot be done is said, not skipped.
fn refuse(args: &BuildArgs) -> Result<()> {
    if args.squash && !args.cache_to.is_empty() {
        return Err(Error::invalid(
            "--squash and --cache-to do not go together: the image has none of the layers",
        ));
    }
    if let Some(other) = args.isolation.as_deref().filter(|isolation| !matches!(*isolation, "" | "default")) {
        return Err(Error::invalid(format!("--isolation {other} is for Windows")));
    }
    if let Some(option) = args.security_opt.first() {
        return Err(Error::invalid(format!("--security-opt {option} is not supported in a build"))
            .with_hint("RUN --security=insecure, with --allow security.insecure, has all privileges"));
    }
    Ok(())
}

/// The time of everything comes from SOURCE_DATE_EPOCH, which is taken from the environment as buildx does.
fn reproducible(args: &BuildArgs, build_args: &mut BTreeMap<String, String>) {
    let name = "SOURCE_DATE_EPOCH";
    if build_args.contains_key(name) {
        return;
    }
    match std::env::var(name) {
        Ok(value) => drop(build_args.insert(name.to_owned(), value)),
        Err(_) if args.reproducible => drop(build_args.insert(name.to_owned(), "0".to_owned())),
        Err(_) => {}
    }
}

fn fetched(engine: &Engine, address: &str) -> Result<String> {
    let file = crate::builder::download(engine.root(), address)?;
    std::fs::read_to_string(file).map_err(|error| Error::failed(format!("read {address}"), error))
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Error::failed("read the Dockerfile from standard input", error))?;
    Ok(text)
}

fn run_options(args: &BuildArgs) -> Result<RunOptions> {
    let shell_on_failure = args.on_fail == Some(OnFail::Shell);
    if shell_on_failure && !rustix::termios::isatty(std::io::stdin()) {
        return Err(Error::invalid("--on-fail shell needs a terminal on standard input"));
    }
    Ok(RunOptions {
        network: network(args.network.as_deref())?,
        allow_host_network: args.allow.contains(&Entitlement::NetworkHost),
        allow_insecure: args.allow.contains(&Entitlement::SecurityInsecure),
        allow_devices: {
            let mut allowed = AllowedDevices::default();
            for entitlement in &args.allow {
                if let Entitlement::Device(name) = entitlement {
                    allowed.allow(name.as_deref());
                }
            }
            allowed
        },
        extra_hosts: args.add_host.clone(),
        shm_size: args.shm_size,
        ulimits: args.ulimit.iter().cloned().collect(),
        resources: Resources {
            memory: args.memory,
            memory_swap: memory_swap(args.memory_swap.as_deref())?,
            cpu_shares: args.cpu_shares,
            cpu_period: args.cpu_period,
            cpu_quota: args.cpu_quota,
            cpuset_cpus: args.cpuset_cpus.clone(),
            cpuset_mems: args.cpuset_mems.clone(),
            ..Resources::default()
        },
        cgroup_parent: args.cgroup_parent.as_deref().map(parse_cgroup_parent).transpose()?.flatten(),
        shell_on_failure,
    })
}

/// `KEY=VALUE`, or `KEY` with the value it has here; a variable that is not set here is no argument.
fn build_argument(text: &str) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) => Some((key.to_owned(), value.to_owned())),
        None => std::env::var(text).ok().map(|value| (text.to_owned(), value)),
    }
}

fn contexts(
    engine: &Engine,
    args: &BuildArgs,
    held: &mut Vec<Intake>,
    opening: &Opening<'_>,
) -> Result<BTreeMap<String, NamedContext>> {
    let mut contexts = BTreeMap::new();
    for text in &args.build_context {
        let (name, source) = text.split_once('=').ok_or_else(|| {
            Error::invalid(format!("invalid build context {text:?}: name=directory is needed"))
        })?;
        let context = match source.split_once("://") {
            Some(("docker-image", image)) => {
                let image = image.parse();
                NamedContext::Image(
                    image.map_err(|error| {
                        Error::invalid(format!("build context {text:?}")).with_source(error)
                    })?,
                )
            }
            Some(("oci-layout", directory)) => layout(engine, directory)?,
            Some((scheme @ ("target" | "docker"), _)) => {
                return Err(Error::invalid(format!("build context {text:?}: {scheme}:// is not supported")));
            }
            _ if source == "-" => {
                return Err(Error::invalid(format!("build context {text:?}: not from here")));
            }
            _ => {
                let intake = Intake::take(engine.root(), source, &mut std::io::empty(), opening)?;
                let directory = intake.directory.clone();
                held.push(intake);
                NamedContext::Directory(directory)
            }
        };
        contexts.insert(name.to_owned(), context);
    }
    Ok(contexts)
}

/// The image of an OCI layout on the disk: `oci-layout://DIRECTORY`.
fn layout(engine: &Engine, directory: &str) -> Result<NamedContext> {
    let loaded = engine.images().load_directory(Path::new(directory))?;
    let first = loaded.into_iter().next();
    let first = first.ok_or_else(|| Error::not_found(format!("the layout {directory} has no image")))?;
    match first.reference {
        Some(reference) => Ok(NamedContext::Image(reference)),
        None => {
            // An image without a name gets one, so that it can be asked for.
            let name = format!("localhost/oci-layout:{}", first.image.id.short()).parse();
            let name = name.map_err(|error| Error::invalid("name the layout's image").with_source(error))?;
            engine.images().tag(first.image.id.as_str(), &name)?;
            Ok(NamedContext::Image(name))
        }
    }
}

fn secret(text: &str) -> Result<Secret> {
    let wrong = || {
        Error::invalid(format!("invalid secret {text:?}"))
            .with_hint("write id=NAME,src=FILE or id=NAME,env=VARIABLE")
    };
    let (mut id, mut source, mut kind) = (None, None, None);
    for field in text.split(',') {
        match field.split_once('=').ok_or_else(wrong)? {
            ("id", value) => id = Some(value.to_owned()),
            ("src" | "source", value) => source = Some(value.to_owned()),
            ("env", value) => (source, kind) = (Some(value.to_owned()), Some("env")),
            ("type", value @ ("env" | "file")) => kind = Some(value),
            _ => return Err(wrong()),
        }
    }
    let id = id.ok_or_else(wrong)?;
    let name = source.clone().unwrap_or_else(|| id.clone());
    // Without a word about it, the variable of that name comes before the file.
    let is_variable = match kind {
        Some(kind) => kind == "env",
        None => source.is_none() && std::env::var_os(&id).is_some(),
    };
    let source = if is_variable { SecretSource::Variable(name) } else { SecretSource::File(name.into()) };
    if let SecretSource::File(path) = &source
        && !path.is_file()
    {
        return Err(Error::not_found(format!("the secret {id} has no file {}", path.display())));
    }
    Ok(Secret { id, source })
}

/// The agents of `--ssh default`, `--ssh id=SOCKET` and `--ssh id=KEY`.
fn agents(texts: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let mut agents = BTreeMap::new();
    for text in texts {
        let (id, socket) = match text.split_once('=') {
            Some((id, socket)) => (id, Some(PathBuf::from(socket))),
            None => (text.as_str(), std::env::var_os(AGENT).map(PathBuf::from)),
        };
        let socket = socket.ok_or_else(|| {
            Error::invalid(format!("--ssh {id}: no agent, {AGENT} is not set"))
                .with_hint("eval \"$(ssh-agent)\"; ssh-add")
        })?;
        let is_either = std::fs::metadata(&socket).is_ok_and(|metadata| {
            metadata.is_file() || std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
        });
        if !is_either {
            let message = format!("--ssh {id}: {} is neither an agent's socket nor a key", socket.display());
            return Err(Error::invalid(message));
        }
        agents.insert(id.to_owned(), socket);
    }
    Ok(agents)
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
