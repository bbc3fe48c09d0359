//! Values that a file may have and no container can: found where they stand, before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path as FsPath, PathBuf};

use engine::container::capabilities::CapabilitySet;
use engine::container::logs;
use engine::container::plan::{foreign_sysctls, limit_names};
use engine::container::spec::ContainerSpec;
use engine::error::Kind;
use engine::id::{ContainerId, Digest, VolumeName};
use engine::image::config::RunConfig;
use engine::image::{Platform, Reference};
use engine::network::link::parse_mac;

use crate::holes::Holes;
use crate::model::{Project, Service, ServiceVolume};
use crate::paths::is_remote;
use crate::schema::{Problem, suggestion};
use crate::translate::{self, Circumstances, TranslateError};
use crate::unheeded::{is_log_driver, log_spec};
use crate::value::Path;

/// The least that a container can start with.
const LEAST_MEMORY: u64 = 6 << 20;

/// What is impossible in the services asked for and those that they depend on; in every one, when none is asked for.
/// What keys say together is only judged of a service of which they are all known.
pub(crate) fn find(project: &Project, asked: &[String], holes: &Holes) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in scope(project, asked) {
        let Some(service) = project.services.get(name).filter(|service| service.provider.is_none()) else {
            continue;
        };
        let at = Path::keys(&["services", name]);
        problems.extend(image(service, &at));
        if is_known(service, holes) {
            match specification(project, service) {
                Ok(spec) => problems.extend(unstartable(service, &spec, &at)),
                Err(error) => problems.push(Problem::value(&inside(&at, error.key), error.problem)),
            }
        }
        problems.extend(names(service, &at));
    }
    problems
}

/// Binds of what looks like a file and is not there, in this directory: a directory is made of it, which is hardly meant.
pub(crate) fn missing_binds(project: &Project, asked: &[String], directory: &FsPath) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in scope(project, asked) {
        let volumes = project.services.get(name).into_iter().flat_map(|service| &service.volumes);
        for (index, volume) in volumes.enumerate() {
            let ServiceVolume::Bind { source, bind, .. } = volume else { continue };
            let path = FsPath::new(source);
            let is_made = bind.as_ref().and_then(|bind| bind.create_host_path).unwrap_or(true);
            if !is_made || !path.starts_with(directory) || path.extension().is_none() || path.exists() {
                continue;
            }
            let message = format!("there is no {source}, so that an empty directory is made of it");
            let at = Path::keys(&["services", name, "volumes"]).index(index);
            let help = match path.file_name().is_some_and(|name| name == "docker.sock") {
                true => "no daemon listens here: what asks docker finds nobody",
                false => {
                    "was a file meant? Look at its name; `bind: {create_host_path: false}` makes this an error"
                }
            };
            problems.push(Problem::value(&at, message).with_help(help));
        }
    }
    problems
}

/// What a service is to be built from, and is not there. All that have a build are looked at when none is asked for.
pub(crate) fn missing_contexts(project: &Project, asked: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_asked = |name: &&Service| asked.is_empty() || asked.contains(&name.name);
    for service in project.services.values().filter(is_asked) {
        let Some(build) = &service.build else { continue };
        let at = Path::keys(&["services", &service.name, "build"]);
        let context = build.context.as_deref().unwrap_or(".");
        if is_remote(context) {
            continue;
        }
        let context = project.working_dir.join(context);
        let dockerfile = context.join(build.dockerfile.as_deref().unwrap_or("Dockerfile"));
        if !context.is_dir() {
            let message = format!("the build context {} is no directory", context.display());
            problems.push(Problem::value(&at.key("context"), message));
        } else if build.dockerfile_inline.is_none() && !dockerfile.is_file() {
            let message = format!("the Dockerfile {} is not there", dockerfile.display());
            let help = "`dockerfile:` names one that is elsewhere, relative to the context";
            problems.push(Problem::value(&at.key("dockerfile"), message).with_help(help));
        }
    }
    problems
}

/// The services asked for and those that they depend on; every one, when none is asked for.
pub(crate) fn scope<'a>(project: &'a Project, asked: &'a [String]) -> BTreeSet<&'a String> {
    let mut scope = BTreeSet::new();
    let mut open: Vec<&String> =
        if asked.is_empty() { project.services.keys().collect() } else { asked.iter().collect() };
    while let Some(name) = open.pop() {
        if scope.insert(name) {
            let service = project.services.get(name);
            open.extend(service.into_iter().flat_map(|service| service.depends_on.keys()));
        }
    }
    scope
}

/// Whether nothing is unknown of a service and of the files that it sees.
fn is_known(service: &Service, holes: &Holes) -> bool {
    let secrets = service.secrets.iter().map(|secret| ("secrets", &secret.source));
    let configs = service.configs.iter().map(|config| ("configs", &config.source));
    std::iter::once(("services", &service.name))
        .chain(secrets)
        .chain(configs)
        .all(|(section, name)| holes.spare(&Path::keys(&[section, name])))
}

fn inside(at: &Path, key: &str) -> Path {
    key.split('.').fold(at.clone(), |path, key| path.key(key))
}

fn image(service: &Service, at: &Path) -> Option<Problem> {
    let error = service.image.as_ref()?.parse::<Reference>().err()?;
    Some(Problem::value(&at.key("image"), error.to_string()))
}

/// The specification as it would be in the best of circumstances.
fn specification(project: &Project, service: &Service) -> Result<ContainerSpec, TranslateError> {
    let id = Digest::of(service.name.as_bytes());
    let parents: BTreeMap<String, ContainerId> = translate::parents(service)
        .into_iter()
        .filter_map(|name| Some((name, id.hex().parse().ok()?)))
        .collect();
    let inherited: BTreeMap<PathBuf, VolumeName> = BTreeMap::new();
    let around = Circumstances {
        name: service.container_name.as_deref().unwrap_or("container"),
        number: 1,
        image: service.image.as_deref().unwrap_or_default(),
        image_id: &id,
        image_config: &RunConfig::default(),
        config_hash: "",
        contents_label: "",
        slug: None,
        replaces: None,
        parents: &parents,
        inherited: &inherited,
        contents: FsPath::new("/"),
    };
    translate::container(project, service, &around).map(|translated| translated.spec)
}

/// What the engine would refuse at the last moment.
fn unstartable(service: &Service, spec: &ContainerSpec, at: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.process.working_dir.as_ref().is_some_and(|directory| !directory.is_absolute()) {
        problems.push(Problem::value(&at.key("working_dir"), "the working directory must be absolute"));
    }
    if spec.resources.memory.is_some_and(|limit| limit.0 < LEAST_MEMORY) {
        let key = if service.mem_limit.0 > 0 { "mem_limit" } else { "deploy.resources.limits.memory" };
        problems.push(Problem::value(&inside(at, key), "with less than 6 MiB of memory nothing can start"));
    }
    for name in foreign_sysctls(spec) {
        let message =
            format!("the kernel parameter {name} does not belong to a namespace of the container's own");
        problems.push(Problem::value(&at.key("sysctls").key(name), message).with_help(
            "those of `net.`, `fs.mqueue.` and System V IPC do, unless the service shares the namespace with the host",
        ));
    }
    problems
}

/// Options that the log driver does not have, or not with this value.
fn log_options(service: &Service, at: &Path) -> Vec<Problem> {
    let Some(logging) = &service.logging else { return Vec::new() };
    let driver = logging.driver.as_deref().unwrap_or_default();
    if !is_log_driver(driver) {
        return Vec::new();
    }
    let wrong = |(key, value): (&String, &String)| {
        let error = logs::check(&log_spec(driver, key, value)).err()?;
        if error.kind() == Kind::Unsupported {
            return None;
        }
        let mut problem =
            Problem::key(&at.key("logging").key("options").key(key), engine::error::chain(&error));
        problem.help = error.hint().map(str::to_owned);
        Some(problem)
    };
    logging.options.iter().filter_map(wrong).collect()
}

/// Devices of the host that are not there.
fn devices(service: &Service, at: &Path) -> Vec<Problem> {
    let is_missing = |source: &str| source.starts_with('/') && !FsPath::new(source).exists();
    let missing = service.devices.iter().enumerate().filter(|(_, device)| is_missing(&device.source));
    missing
        .map(|(index, device)| {
            let message = format!("this machine has no device {}", device.source);
            Problem::value(&at.key("devices").index(index), message)
        })
        .collect()
}

/// Names of which there is a list, paths and addresses.
fn names(service: &Service, at: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, capabilities) in [("cap_add", &service.cap_add), ("cap_drop", &service.cap_drop)] {
        for (index, name) in capabilities.iter().enumerate() {
            if !name.eq_ignore_ascii_case("ALL") && CapabilitySet::named(name).is_err() {
                let message = format!("there is no capability {name:?}");
                let mut problem = Problem::value(&at.key(key).index(index), message);
                let bare = name.to_ascii_uppercase();
                let all = CapabilitySet::all().names().map(|name| name.trim_start_matches("CAP_"));
                problem.help = suggestion(bare.strip_prefix("CAP_").unwrap_or(&bare), all);
                problems.push(problem);
            }
        }
    }
    for name in service.ulimits.keys().filter(|name| !limit_names().any(|known| known == *name)) {
        let mut problem = Problem::key(&at.key("ulimits").key(name), format!("there is no ulimit {name:?}"));
        let all = || format!("there are {}", limit_names().collect::<Vec<_>>().join(", "));
        problem.help = suggestion(name, limit_names()).or_else(|| Some(all()));
        problems.push(problem);
    }
    let of_networks = service.networks.iter().flat_map(|(key, network)| {
        let place = at.key("networks").key(key).key("mac_address");
        network.as_ref().and_then(|network| Some((place, network.mac_address.as_ref()?)))
    });
    let of_service = service.mac_address.iter().map(|text| (at.key("mac_address"), text));
    for (place, text) in of_service.chain(of_networks).filter(|(_, text)| !text.is_empty()) {
        if parse_mac(text).is_none() {
            let problem = Problem::value(&place, format!("{text:?} is no hardware address of a link"));
            problems.push(
                problem.with_help("six bytes are needed and the first one is even, as in 02:42:ac:11:00:03"),
            );
        }
    }
    for (index, volume) in service.volumes.iter().enumerate() {
        if !volume.target().starts_with('/') {
            let message = format!("the target {:?} must be absolute", volume.target());
            problems.push(Problem::value(&at.key("volumes").index(index), message));
        }
    }
    problems.extend(log_options(service, at));
    problems.extend(devices(service, at));
    if let Some(error) = service.platform.as_ref().and_then(|text| text.parse::<Platform>().err()) {
        problems.push(Problem::value(&at.key("platform"), error.to_string()));
    }
    for (index, host) in service.extra_hosts.iter().enumerate() {
        let address = host.split_once('=').map_or("", |(_, address)| address);
        if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
            let message = format!("{address:?} is no address");
            let problem = Problem::value(&at.key("extra_hosts").index(index), message);
            problems.push(problem.with_help("an IP address or host-gateway is needed"));
        }
    }
    problems
}
