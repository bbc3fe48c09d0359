//! What `rdeploy.yaml`, or `x-rdeploy` in the compose file, says about hosts and rollouts.

mod check;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use compose::document::Document;
use compose::{Diagnostics, Project};
use engine::error::{Error, Result};
use engine::quantity::Span;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use self::check::check;
use crate::builder::Builder;
use crate::canary::CanaryStep;
use crate::executable::Executables;
use crate::patience::Patience;
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
    /// How long a new container may take until it is ready: `30s`, `2m`. By its health check, or 60 s, when nobody says.
    pub deploy_timeout: Option<Patience>,
    /// What part of the new connections a new release gets first, and for how long: `['10%,5m', '50%,5m,sticky']`.
    pub canary: Vec<CanaryStep>,
    /// How many releases a host keeps.
    pub keep: Option<usize>,
    /// In which order a service's containers stop and start, when the guess is not the one that is wanted.
    pub strategy: BTreeMap<String, Strategy>,
    /// Commands that run here, at certain moments.
    pub hooks: Hooks,
    /// Command lines of `rdeploy` by other names: `{console: exec web bin/console}`.
    pub aliases: BTreeMap<String, String>,
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

/// The files that are looked for beside the compose file; the first one counts.
const FILES: [&str; 2] = ["rdeploy.yaml", "rdeploy.yml"];

/// The key of a compose file that says the same.
pub const KEY: &str = "x-rdeploy";

/// How long connections may go on unless somebody says otherwise.
const DRAIN: Duration = Duration::from_secs(30);

/// How many releases are kept unless somebody says otherwise.
const KEEP: usize = 5;

// === impl Settings ===

impl Settings {
    /// Reads a file that was named, or the one beside the project, or the key in the compose files; nothing at all
    /// when there is none. Variables count as in compose files, but in hooks of a file of their own, whose shell reads them.
    ///
    /// # Errors
    /// Names each file, line and column, and what is wrong there.
    pub fn find(named: Option<&Path>, project: &Project) -> Result<Self> {
        let beside =
            || FILES.map(|name| project.working_dir.join(name)).into_iter().find(|file| file.exists());
        let file = named.map(Path::to_owned).or_else(beside);
        if let Some(path) = file {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Error::failed(format!("read {}", path.display()), error))?;
            return Ok(Self::read(&path, &text, None, project)?.unwrap_or_default());
        }
        for path in project.files.iter().filter(|path| path.is_file()) {
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            if text.contains(KEY)
                && let Some(settings) = Self::read(path, &text, Some(KEY), project)?
            {
                return Ok(settings);
            }
        }
        Ok(Self::default())
    }

    fn read(path: &Path, text: &str, key: Option<&str>, project: &Project) -> Result<Option<Self>> {
        let wrong = |diagnostics: Diagnostics| Error::invalid(diagnostics.to_string().trim_end().to_owned());
        let Some(mut document) = Document::read(path, text, key).map_err(wrong)? else { return Ok(None) };
        document.interpolate(&project.environment, "hooks").map_err(wrong)?;
        let services = project.services.keys().chain(project.disabled_services.keys());
        check(&mut document, &services.map(String::as_str).collect()).map_err(wrong)?;
        // What the table lets through, and cannot be read all the same, has no place.
        let mut settings: Self = serde_json::from_value(document.value)
            .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))?;
        let home = project.environment.get("HOME").map(String::as_str);
        for file in [&mut settings.ssh.key, &mut settings.ssh.known_hosts].into_iter().flatten() {
            *file = below(&project.working_dir, file, home);
        }
        Ok(Some(settings))
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

/// A path as people write it: from the home directory, or from where relative paths start.
fn below(directory: &Path, file: &Path, home: Option<&str>) -> PathBuf {
    match (file.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Path::new(home).join(rest),
        _ => directory.join(file),
    }
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

    fn project(directory: &Path, file: &str) -> Project {
        let compose = directory.join("compose.yaml");
        std::fs::write(&compose, file).unwrap();
        let service = |name: &str| (name.to_owned(), compose::model::Service::default());
        Project {
            working_dir: directory.to_owned(),
            files: vec![compose],
            services: ["front", "jobs", "web"].into_iter().map(service).collect(),
            environment: [("HOST", "root@b"), ("HOME", "/home/me")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Project::default()
        }
    }

    fn read(text: &str) -> Result<Settings> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILES[0]), text).unwrap();
        Settings::find(None, &project(directory.path(), ""))
    }

    #[test]
    fn a_mistake_is_shown_where_it_stands_with_what_to_do() {
        for (text, place, message, help) in [
            ("host: root@a", "1:1", "unknown key \"host\"", "did you mean \"hosts\"?"),
            ("servers: [a]", "1:1", "unknown key \"servers\"", "here it is hosts"),
            ("ssh: {x: 1}", "1:7", "unknown key \"x\"", "the keys here are key, fingerprint"),
            ("hosts: root@a", "1:8", "hosts must be a list, not a string", "write hosts: [root@a]"),
            ("hosts: [a]\nhosts: [b]", "2:1", "the key \"hosts\" is there twice", "1:1"),
            ("hosts:\n\t- a", "2:", "invalid YAML", "spaces instead of the tab"),
            ("hosts: [{adress: a}]", "1:10", "unknown key \"adress\"", "did you mean \"address\"?"),
            ("hosts: [{roles: []}]", "1:9", "address is missing in an item of hosts", ""),
            ("hosts: ['a:99999']", "1:9", "\"99999\" in \"a:99999\" is no port", ""),
            ("hosts: [a, a]", "1:12", "the host a is there twice", ""),
            (
                "hosts: [{address: a, roles: [wbe]}]\nroles: {web: [web]}",
                "1:30",
                "no role \"wbe\"",
                "\"web\"?",
            ),
            ("roles: {web: [wbe]}", "1:15", "no service \"wbe\" is in the project", "\"web\"?"),
            ("strategy: {xx: stop-first}", "1:12", "no service \"xx\"", "there is front, jobs, web"),
            ("strategy: {web: stop_first}", "1:17", "start-first or stop-first is needed", "\"stop-first\"?"),
            (
                "drain: 30",
                "1:8",
                "drain must be a length of time such as 30s, not a number",
                "with its unit: 30s",
            ),
            ("deploy_timeout: 0s", "1:17", "nothing is ready in no time", ""),
            ("drain: 30 sec", "1:8", "invalid duration \"30 sec\"", ""),
            ("keep: -1", "1:7", "keep must be a whole number from 0 on, not a negative number", ""),
            ("canary: 10%,5m", "1:9", "canary must be a list", "write canary: ['10%,5m']"),
            ("canary: ['10,5m']", "1:10", "invalid percentage \"10\"", ""),
            ("hooks: {before_build: [a]}", "1:9", "unknown key", "did you mean \"before-build\"?"),
            ("hooks: {after-commit: a b}", "1:23", "after-commit must be a list", "['a b']"),
            ("ssh: {fingerprint: ['MD5:aa']}", "1:21", "MD5 fingerprint, which is not safe", ""),
            ("ssh: {password: x}", "1:7", "unknown key", "RDEPLOY_SSH_PASSWORD"),
            ("aliases: {x: \"exec 'a\"}", "1:14", "a quote is not closed", ""),
            ("aliases: {x: exec a | b}", "1:14", "means something to a shell only", ""),
            ("builder: remote", "1:10", "here or host is needed", ""),
            ("builder: {arm/linux/x/y: a}", "1:11", "arm/linux/x/y", ""),
            ("hosts: ['${NOBODY}']", "1:9", "the variable NOBODY is not set", ""),
            ("- a", "1:1", "the settings must be a mapping, not a list", "its keys are hosts"),
        ] {
            let said = read(text).expect_err(text).to_string();
            assert!(said.contains(&format!("rdeploy.yaml:{place}")), "{text}: {said}");
            assert!(said.contains(message) && said.contains(help) && said.contains('^'), "{text}: {said}");
        }
        assert_eq!(read("drain: 0").unwrap().drain(), Duration::ZERO);
        // All of them at once.
        let said = read("kep: 1\nhosts: [a]\ndrian: 3s\n").unwrap_err().to_string();
        assert!(said.contains("\"keep\"?") && said.contains("\"drain\"?"), "{said}");
    }

    #[test]
    fn variables_and_home_mean_what_they_mean_elsewhere() {
        let settings =
            read("hosts: ['$HOST']\nkeep: '${KEEP:-3}'\nssh: {key: ~/k, known_hosts: known}\nhooks: {after-commit: ['echo $X']}\n")
                .unwrap();
        assert_eq!((settings.hosts, settings.keep), (vec![HostSettings::at("root@b")], Some(3)));
        assert_eq!(settings.ssh.key, Some("/home/me/k".into()));
        assert!(settings.ssh.known_hosts.is_some_and(|file| file.is_absolute()));
        assert_eq!(settings.hooks.after_commit, ["echo $X"]);
    }

    #[test]
    fn the_key_in_a_compose_file_says_the_same_as_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let of = |settings: &str| {
            let file = format!("services: {{web: {{image: x}}}}\nx-rdeploy:\n{settings}");
            Settings::find(None, &project(directory.path(), &file))
        };
        let settings = of("  hosts: [root@a]\n  drain: 3s\n").unwrap();
        assert_eq!(settings.hosts, [HostSettings::at("root@a")]);
        assert_eq!(settings.drain(), Duration::from_secs(3));
        assert_eq!(settings.keep(), 5);
        let said = of("  drian: 3s\n").unwrap_err().to_string();
        assert!(said.contains("compose.yaml:3:3") && said.contains("key: x-rdeploy.drian"), "{said}");
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
