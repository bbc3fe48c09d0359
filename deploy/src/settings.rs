//! What `rdeploy.yaml`, or `x-rdeploy` in the compose file, says about hosts and rollouts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::error::{Error, Result};
use engine::quantity::Span;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::builder::Builder;
use crate::canary::CanaryStep;
use crate::executable::Executables;
use crate::release::Strategy;

/// The whole file. Everything has a default; a compose file and `--host` are enough.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The hosts.
    pub hosts: Vec<HostSettings>,
    /// Which services run where: the services of each role. Services in no role run everywhere.
    pub roles: BTreeMap<String, Vec<String>>,
    /// How hosts are reached.
    pub ssh: SshSettings,
    /// Executables of this program for hosts and builders of another kind than this machine: `{aarch64: FILE}`.
    pub executables: Executables,
    /// Which machine builds images.
    pub builder: Builder,
    /// How images get to the hosts.
    pub transfer: Transfer,
    /// How long connections to a container that was replaced may go on: `30s`, `5m`.
    #[serde(deserialize_with = "time")]
    pub drain: Option<Span>,
    /// What part of the new connections a new release gets first, and for how long: `['10%,5m', '50%,5m']`.
    pub canary: Vec<CanaryStep>,
    /// How many releases a host keeps.
    pub keep: Option<usize>,
    /// In which order a service's containers stop and start, when the guess is not the one that is wanted.
    pub strategy: BTreeMap<String, Strategy>,
    /// Commands that run here, at certain moments.
    pub hooks: Hooks,
}

/// A host: its address alone, or with what is particular to it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSettings {
    /// `[user@]host[:port]`, or `local` for this machine.
    pub address: String,
    /// Its roles. One without any runs every service that is in no role.
    pub roles: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostDetails {
    address: String,
    #[serde(default)]
    roles: Vec<String>,
}

/// How hosts are reached. What is secret is better given by an option or a variable.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SshSettings {
    /// A file with a private key.
    pub key: Option<PathBuf>,
    /// Fingerprints of the hosts' keys, `SHA256:…`.
    pub fingerprint: Vec<String>,
    /// A file of known host keys instead of the user's.
    pub known_hosts: Option<PathBuf>,
    /// Hosts to go through, in order.
    pub jump: Vec<String>,
    /// Whether the agent is started by `sudo`.
    pub sudo: SudoSetting,
    /// Whether an unknown host's key is taken as it is the first time.
    pub accept_new: bool,
    /// How long a connection stays for the next command: `60s`, or `0s` for not at all.
    #[serde(deserialize_with = "time")]
    pub persist: Option<Span>,
    /// Whether a builder gets to use the SSH agent of this machine, which must end with the command.
    #[serde(skip)]
    pub lends_agent: bool,
}

/// Whether the agent is started by `sudo`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SudoSetting {
    /// When the user is not root.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// How images get to the hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// Over the SSH connection: what the host lacks.
    #[default]
    Direct,
    /// Pushed to the registry that the image's name says, and pulled from there.
    Registry,
}

/// Commands that run here by `sh -c`, at certain moments. One that fails ends the deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Hooks {
    /// Before images are built.
    pub before_build: Vec<String>,
    /// Before the hosts prepare.
    pub before_prepare: Vec<String>,
    /// When all hosts are ready, before anything changes.
    pub before_commit: Vec<String>,
    /// When the new release serves everywhere.
    pub after_commit: Vec<String>,
    /// When the deployment failed; what it ends with changes nothing.
    pub after_failure: Vec<String>,
}

/// What of a compose file these settings are in.
#[derive(Deserialize)]
struct InCompose {
    #[serde(default, rename = "x-rdeploy")]
    settings: Settings,
}

/// The file that is looked for beside the compose file.
const FILE: &str = "rdeploy.yaml";

/// How long connections may go on unless somebody says otherwise.
const DRAIN: Duration = Duration::from_secs(30);

/// How many releases are kept unless somebody says otherwise.
const KEEP: usize = 5;

// === impl Settings ===

impl Settings {
    /// Reads a file that was named, or the one beside the project, or the key in the compose files; nothing at all
    /// when there is none.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong there.
    pub fn find(named: Option<&Path>, directory: &Path, compose_files: &[PathBuf]) -> Result<Self> {
        if let Some(path) = named {
            return Self::read(path);
        }
        let beside = directory.join(FILE);
        if beside.exists() {
            return Self::read(&beside);
        }
        for path in compose_files.iter().filter(|path| path.is_file()) {
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            if text.contains("x-rdeploy:") {
                let inner: InCompose =
                    serde_yaml::from_str(&text).map_err(|error| unreadable(path, &error))?;
                return Ok(inner.settings);
            }
        }
        Ok(Self::default())
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::failed(format!("read {}", path.display()), error))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_yaml::from_str(&text).map_err(|error| unreadable(path, &error))
    }

    /// How long connections to a container that was replaced may go on.
    pub fn drain(&self) -> Duration {
        self.drain.map_or(DRAIN, |span| span.0)
    }

    /// How many releases a host keeps.
    pub fn keep(&self) -> usize {
        self.keep.unwrap_or(KEEP)
    }

    /// The services that a host with these roles runs, of all; `None` when it runs all of them.
    pub fn services_of<'a>(
        &self,
        roles: &[String],
        all: impl Iterator<Item = &'a str>,
    ) -> Result<Option<Vec<String>>> {
        if self.roles.is_empty() {
            return match roles.first() {
                None => Ok(None),
                Some(role) => Err(Error::invalid(format!("no role {role:?} is defined under `roles`"))),
            };
        }
        if let Some(unknown) = roles.iter().find(|role| !self.roles.contains_key(*role)) {
            let known = self.roles.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(format!("no role {unknown:?} is defined under `roles`: {known}")));
        }
        let in_role = |service: &str| self.roles.values().flatten().any(|other| other == service);
        let here =
            |service: &str| roles.iter().any(|role| self.roles[role].iter().any(|other| other == service));
        Ok(Some(all.filter(|service| here(service) || !in_role(service)).map(str::to_owned).collect()))
    }
}

/// A time as Compose files have it.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Span>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

fn unreadable(path: &Path, error: &serde_yaml::Error) -> Error {
    let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
    let text = error.to_string();
    // The place is said once, where editors find it.
    let what = text.split(" at line ").next().unwrap_or(&text);
    Error::invalid(format!("{}{place}: {what}", path.display()))
}

// === impl HostSettings ===

impl HostSettings {
    /// One without anything particular.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), roles: Vec::new() }
    }
}

/// By hand, since what is wrong with one form must not be hidden by the other one.
impl<'de> Deserialize<'de> for HostSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = HostSettings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a map with `address` and `roles`")
            }

            fn visit_str<E: de::Error>(self, address: &str) -> std::result::Result<HostSettings, E> {
                Ok(HostSettings::at(address))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<HostSettings, A::Error> {
                let HostDetails { address, roles } =
                    HostDetails::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(HostSettings { address, roles })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Settings::find(Some(file.path()), Path::new("/"), &[])
    }

    #[test]
    fn a_mistake_has_its_file_and_line() {
        let text = read("hosts: [a]\ndrian: 3s\n").unwrap_err().to_string();
        assert!(text.contains(":2:1: unknown field `drian`"), "{text}");
        let text = read("hosts:\n  - {adress: a}\n").unwrap_err().to_string();
        assert!(text.contains(":2:") && text.contains("unknown field `adress`"), "{text}");
        let text = read("hosts: [a]\nstrategy: {db: backwards}\n").unwrap_err().to_string();
        assert!(text.contains(":2:") && text.contains("start-first"), "{text}");
    }

    #[test]
    fn the_key_in_a_compose_file_says_the_same_as_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let compose = directory.path().join("compose.yaml");
        std::fs::write(&compose, "services: {web: {image: x}}\nx-rdeploy:\n  hosts: [root@a]\n  drain: 3s\n")
            .unwrap();
        let settings = Settings::find(None, directory.path(), &[compose]).unwrap();
        assert_eq!(settings.hosts, [HostSettings::at("root@a")]);
        assert_eq!(settings.drain(), Duration::from_secs(3));
        assert_eq!(settings.keep(), 5);
    }

    #[test]
    fn services_run_where_their_role_is() {
        let settings = read("roles: {web: [front], work: [jobs]}\n").unwrap();
        let of = |roles: &[&str]| {
            let roles: Vec<String> = roles.iter().map(|&role| role.to_owned()).collect();
            settings.services_of(&roles, ["front", "jobs", "logs"].into_iter())
        };
        assert_eq!(of(&["web"]).unwrap().unwrap(), ["front", "logs"]);
        assert_eq!(of(&["web", "work"]).unwrap().unwrap(), ["front", "jobs", "logs"]);
        assert_eq!(of(&[]).unwrap().unwrap(), ["logs"]);
        assert!(of(&["wrok"]).unwrap_err().to_string().contains("web, work"));
    }
}
