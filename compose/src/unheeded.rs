//! Keys that are valid and that nothing here acts upon: each is named in a warning where it stands. None is accepted
//! in silence. Keys that are remarks to people and other tools (`labels` of a deployment, names of ports) are not here.

use std::collections::BTreeMap;

use engine::builder::ProvenanceRequest;
use engine::container::logs;
use engine::container::spec::LogSpec;
use engine::error::Kind;
use engine::network::LinkOptions;

use crate::model::{Build, Deploy, Network, Project, Service, ServiceVolume, UpdateConfig};
use crate::schema::Problem;
use crate::value::Path;

const WINDOWS: &str = "concerns Windows containers";
const CLUSTER: &str = "concerns a cluster, and this is one machine";
const ABSENT: &str = "is not supported";
const OPTIONS: &str =
    "is meant for a vendor's driver, and the vendor's description of the device is what is followed";

/// Every key of the project that has no effect.
pub(crate) fn find(project: &Project) -> Vec<Problem> {
    let mut unheeded = Unheeded { problems: Vec::new(), at: Path::default() };
    for (name, service) in &project.services {
        unheeded.at = Path::keys(&["services", name]);
        unheeded.service(service);
        unheeded.logging(service);
        if let Some(build) = &service.build {
            unheeded.at = Path::keys(&["services", name, "build"]);
            unheeded.build(build);
            unheeded.build_secrets(name, build);
        }
        if let Some(deploy) = &service.deploy {
            unheeded.at = Path::keys(&["services", name, "deploy"]);
            unheeded.deploy(deploy, crate::desired::can_stand_beside(service));
        }
        unheeded.items(name, service);
        unheeded.attachments(name, service);
    }
    for (key, network) in &project.networks {
        unheeded.at = Path::keys(&["networks", key]);
        unheeded.network(network);
    }
    for (section, objects) in [("secrets", &project.secrets), ("configs", &project.configs)] {
        for (key, object) in objects {
            unheeded.at = Path::keys(&[section, key]);
            unheeded.those([
                (&["driver"][..], object.driver.is_some(), ABSENT),
                (&["driver_opts"], !object.driver_opts.is_empty(), ABSENT),
                (&["template_driver"], object.template_driver.is_some(), ABSENT),
            ]);
        }
    }
    unheeded.problems
}

/// Whether the kernel confines processes by labels of files (selinuxfs).
fn has_selinux() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
}

/// Whether the engine has a log driver of this name, or is to take its own.
pub(crate) fn is_log_driver(driver: &str) -> bool {
    driver.is_empty() || logs::check(&LogSpec { driver: driver.to_owned(), options: BTreeMap::new() }).is_ok()
}

/// A driver with one option.
pub(crate) fn log_spec(driver: &str, key: &str, value: &str) -> LogSpec {
    let driver = if driver.is_empty() { LogSpec::default().driver } else { driver.to_owned() };
    LogSpec { driver, options: BTreeMap::from([(key.to_owned(), value.to_owned())]) }
}

struct Unheeded {
    problems: Vec<Problem>,
    at: Path,
}

// === impl Unheeded ===

impl Unheeded {
    fn those<const N: usize>(&mut self, keys: [(&[&str], bool, &str); N]) {
        for (keys, _, why) in keys.into_iter().filter(|(_, is_set, _)| *is_set) {
            let path = keys.iter().fold(self.at.clone(), |path, key| path.key(key));
            self.problems.push(Problem::key(&path, format!("{} has no effect: it {why}", keys.join("."))));
        }
    }

    fn service(&mut self, service: &Service) {
        self.those([
            (&["cpu_count"][..], service.cpu_count != 0, WINDOWS),
            (&["cpu_percent"], service.cpu_percent != 0.0, WINDOWS),
            (&["credential_spec"], service.credential_spec.is_some(), WINDOWS),
            (&["isolation"], service.isolation.is_some(), WINDOWS),
            (&["runtime"], service.runtime.is_some(), "names another runtime, and this engine is its own"),
            (&["storage_opt"], !service.storage_opt.is_empty(), ABSENT),
            (
                &["use_api_socket"],
                service.use_api_socket,
                "asks for the socket of a daemon, and there is none",
            ),
        ]);
        self.ports(service);
        let apparmor = |option: &String| option.starts_with("apparmor") || option.starts_with("label");
        self.those([(
            &["security_opt"],
            service.security_opt.iter().any(apparmor),
            "asks for a confinement that this engine does not have",
        )]);
    }

    /// Who has no network of their own has no ports to publish.
    fn ports(&mut self, service: &Service) {
        let why = match service.network_mode.as_deref() {
            Some("host") => "in the host's network, the program listens on the host itself",
            Some("none") => "the service has no network",
            _ => return,
        };
        if !service.ports.is_empty() {
            let path = self.at.key("ports");
            self.problems.push(Problem::key(&path, format!("ports has no effect: {why}")));
        }
    }

    /// Where output goes. An option that is wrong is an error where containers are made.
    fn logging(&mut self, service: &Service) {
        let Some(logging) = &service.logging else { return };
        let driver = logging.driver.as_deref().unwrap_or_default();
        if !is_log_driver(driver) {
            let why = "is not supported, and what is written is kept here, as json-file keeps it";
            self.those([
                (&["logging", "driver"][..], true, why),
                (&["logging", "options"], !logging.options.is_empty(), "belongs to that driver"),
            ]);
            return;
        }
        for (key, value) in &logging.options {
            let path = self.at.key("logging").key("options").key(key);
            let warnings = match logs::check(&log_spec(driver, key, value)) {
                Err(error) if error.kind() == Kind::Unsupported => vec![error.to_string()],
                checked => checked.unwrap_or_default(),
            };
            self.problems.extend(warnings.into_iter().map(|warning| Problem::key(&path, warning)));
        }
    }

    fn build(&mut self, build: &Build) {
        let is_more = |text: &str| ProvenanceRequest::parse(text).is_err();
        let is_scanned = |text: &str| engine::builder::wants_bill(text).is_err();
        self.those([
            (&["isolation"][..], build.isolation.is_some(), WINDOWS),
            (
                &["provenance"],
                build.provenance.as_deref().is_some_and(is_more),
                "has mode and builder-id alone",
            ),
            (&["sbom"], build.sbom.as_deref().is_some_and(is_scanned), "runs no scanner: true or false"),
        ]);
    }

    fn build_secrets(&mut self, name: &str, build: &Build) {
        const OWNER: &str = "says who may read a file, and a build reads it as root";
        for (index, secret) in build.secrets.iter().enumerate() {
            self.at = Path::keys(&["services", name, "build", "secrets"]).index(index);
            self.those([
                (&["uid"][..], secret.uid.is_some(), OWNER),
                (&["gid"], secret.gid.is_some(), OWNER),
                (&["mode"], secret.mode.is_some(), OWNER),
            ]);
        }
    }

    fn deploy(&mut self, deploy: &Deploy, can_stand_beside: bool) {
        let reserved = deploy.resources.reservations.clone().unwrap_or_default();
        let limits = deploy.resources.limits.clone().unwrap_or_default();
        self.those([
            (&["mode"][..], deploy.mode.as_deref().is_some_and(|mode| mode != "replicated"), CLUSTER),
            (&["endpoint_mode"], deploy.endpoint_mode.is_some(), CLUSTER),
            (&["placement"], deploy.placement != crate::model::Placement::default(), CLUSTER),
            (&["resources", "limits", "devices"], !limits.devices.is_empty(), ABSENT),
            (&["resources", "reservations", "cpus"], reserved.cpus != 0.0, CLUSTER),
            (&["resources", "reservations", "pids"], reserved.pids != 0, CLUSTER),
            (
                &["resources", "reservations", "generic_resources"],
                !reserved.generic_resources.is_empty(),
                CLUSTER,
            ),
        ]);
        for (key, config) in
            [("update_config", &deploy.update_config), ("rollback_config", &deploy.rollback_config)]
        {
            if let Some(config) = config {
                self.pace(key, config, can_stand_beside);
            }
        }
    }

    fn pace(&mut self, key: &str, config: &UpdateConfig, can_stand_beside: bool) {
        let action = config.failure_action.as_deref().unwrap_or("pause");
        self.those([
            (
                &[key, "order"][..],
                config.order.as_deref() == Some("start-first") && !can_stand_beside,
                "needs two containers at once, and one of them would lack the address or namespace that is there once",
            ),
            (
                &[key, "failure_action"],
                !["", "pause", "continue", "rollback"].contains(&action),
                "is none of pause, continue and rollback, and pause is what follows",
            ),
            (
                &[key, "failure_action"],
                key == "rollback_config" && action == "rollback",
                "asks to go back from going back, and pause is what follows",
            ),
        ]);
    }

    fn items(&mut self, name: &str, service: &Service) {
        for (index, request) in service.gpus.iter().enumerate() {
            self.at = Path::keys(&["services", name, "gpus"]).index(index);
            self.those([(&["options"], !request.options.is_empty(), OPTIONS)]);
        }
        let reserved = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.as_ref());
        for (index, request) in reserved.iter().flat_map(|reserved| &reserved.devices).enumerate() {
            let keys = ["services", name, "deploy", "resources", "reservations", "devices"];
            self.at = Path::keys(&keys).index(index);
            self.those([(&["options"], !request.options.is_empty(), OPTIONS)]);
        }
        for (index, volume) in service.volumes.iter().enumerate() {
            self.at = Path::keys(&["services", name, "volumes"]).index(index);
            if let ServiceVolume::Bind { bind: Some(bind), .. } = volume {
                let labels = bind.selinux.is_some() && has_selinux();
                self.those([(
                    &["bind", "selinux"],
                    labels,
                    "labels files for SELinux, which is left to you here",
                )]);
            }
        }
    }

    fn attachments(&mut self, name: &str, service: &Service) {
        for (key, network) in &service.networks {
            let Some(network) = network else { continue };
            self.at = Path::keys(&["services", name, "networks", key]);
            for key in network.driver_opts.keys().filter(|key| !LinkOptions::knows(key)) {
                self.those([(&["driver_opts", key][..], true, ABSENT)]);
            }
        }
    }

    fn network(&mut self, network: &Network) {
        let ipam = network.ipam.driver.as_deref();
        self.those([
            (&["attachable"][..], network.attachable, CLUSTER),
            (&["ipam", "driver"], ipam.is_some_and(|driver| driver != "default"), ABSENT),
            (&["ipam", "options"], !network.ipam.options.is_empty(), ABSENT),
        ]);
    }
}
