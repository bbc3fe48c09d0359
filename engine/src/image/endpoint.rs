//! At which addresses a registry's repositories are found, in which order, and how each is spoken to: mirrors, the
//! operator's `certs.d` with docker's certificates or containerd's `hosts.toml` (containerd, docs/hosts.md).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{ClientBuilder, Url};
use serde::Deserialize;

use crate::image::hosts::{Hosts, HostsError};
use crate::image::http;
use crate::image::reference::DEFAULT_REGISTRY;
use crate::image::registry::{authority, is_loopback};
use crate::quantity::Span;

/// One address of a registry's repositories.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoint {
    /// `host[:port]`: whose credentials it gets, and what failures name.
    pub(crate) host: String,
    /// The root of the API, with a slash at the end; `None` where the scheme has to be found out.
    pub(crate) base: Option<Url>,
    /// The registry whose repositories it has, where that is another one.
    pub(crate) stands_for: Option<String>,
    /// What it may be used for.
    pub(crate) may: Uses,
    trust: Trust,
    /// What requests to this address carry, and no others.
    pub(crate) headers: HeaderMap,
    dial_timeout: Option<Duration>,
}

/// What an endpoint may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Fetching by digest.
    pub(crate) pull: bool,
    /// Saying what a tag means.
    pub(crate) resolve: bool,
    /// Sending.
    pub(crate) push: bool,
}

/// Whom an endpoint is believed to be, and who asks it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Trust {
    /// Files of certificates that are trusted besides the system's.
    roots: Vec<PathBuf>,
    /// Our own certificate and its key, in one file or in two.
    identity: Option<(PathBuf, Option<PathBuf>)>,
    skip_verify: bool,
}

/// `hosts.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostsFile {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Clients>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: toml::Table,
    dial_timeout: Option<String>,
}

/// What is said of one address in it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostEntry {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Clients>,
    skip_verify: bool,
    override_path: bool,
    header: toml::Table,
    dial_timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Clients {
    One(PathBuf),
    Files(Vec<PathBuf>),
    Pairs(Vec<Vec<PathBuf>>),
}

/// Directories with one for each registry, before docker's and others' own.
const VARIABLE: &str = "RENGINE_CERTS_D";

/// Where they usually are.
const USUAL: [&str; 3] = ["/etc/containerd/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"];

/// Stands for every registry that has no directory of its own.
const ANY: &str = "_default";

/// The addresses of a registry in the order they are asked, itself the last.
pub(crate) fn endpoints(registry: &str) -> Result<Vec<Endpoint>, HostsError> {
    let directories = directories();
    let mut endpoints = Vec::new();
    let mut own = Endpoint::of(registry, &directories)?;
    let names = [with_port_spelled(registry), registry.to_owned(), ANY.to_owned()];
    let files =
        names.iter().flat_map(|name| directories.iter().map(move |room| room.join(name).join("hosts.toml")));
    for path in files {
        let text = match std::fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            other => other.map_err(|source| HostsError { path: path.clone(), source })?,
        };
        let read = toml::from_str::<HostsFile>(&text).map_err(|error| error.to_string());
        let parsed =
            read.and_then(|file| file.endpoints(registry, own, path.parent().unwrap_or(Path::new(""))));
        let wrong = |reason| HostsError { path: path.clone(), source: io::Error::other(reason) };
        (endpoints, own) = parsed.map_err(wrong)?;
        break;
    }
    if registry == DEFAULT_REGISTRY {
        for mirror in Hosts::read()?.mirrors() {
            endpoints.push(Endpoint::mirror(mirror, &directories)?);
        }
    }
    endpoints.push(own);
    Ok(endpoints)
}

/// What the operator says, the first to be read before the others.
fn directories() -> Vec<PathBuf> {
    match std::env::var_os(VARIABLE) {
        Some(named) => std::env::split_paths(&named).collect(),
        None => {
            let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
            let own = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
            // An ordinary user need not be where they are root to ask a registry.
            let is_ordinary = crate::rootless::is_inside() || !rustix::process::geteuid().is_root();
            let own = own.filter(|_| is_ordinary).map(|own| own.join("docker/certs.d"));
            own.into_iter().chain(USUAL.map(PathBuf::from)).collect()
        }
    }
}

/// `host:5000` as a directory is called where a colon may not be: `host_5000_`.
fn with_port_spelled(registry: &str) -> String {
    match registry.rsplit_once(':') {
        Some((host, port)) => format!("{host}_{port}_").replace(':', ""),
        None => registry.to_owned(),
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// A registry at its own address, with docker's certificates for it.
    fn of(registry: &str, directories: &[PathBuf]) -> Result<Self, HostsError> {
        let trust = Trust::in_directories(registry, directories)?;
        Ok(Self { host: registry.to_owned(), trust, ..Self::default() })
    }

    /// A mirror of Docker Hub that docker's configuration names.
    fn mirror(address: &str, directories: &[PathBuf]) -> Result<Self, HostsError> {
        let wrong = |reason: String| HostsError { path: Hosts::path(), source: io::Error::other(reason) };
        let base = api(address, false).map_err(wrong)?;
        let host = authority(&base);
        let mut trust = Trust::in_directories(&host, directories)?;
        trust.skip_verify = is_loopback(&host) || Hosts::read()?.is_insecure(&host);
        let may = Uses { push: false, ..Uses::default() };
        let stands_for = Some(DEFAULT_REGISTRY.to_owned());
        Ok(Self { host, base: Some(base), stands_for, may, trust, ..Self::default() })
    }

    /// What every client of this endpoint has in common. `is_insecure` leaves out who it is.
    pub(crate) fn client(
        &self,
        is_insecure: bool,
    ) -> Result<ClientBuilder, Box<dyn std::error::Error + Send + Sync>> {
        let mut builder =
            http::client().tls_danger_accept_invalid_certs(is_insecure || self.trust.skip_verify);
        if let Some(timeout) = self.dial_timeout {
            builder = builder.connect_timeout(timeout);
        }
        let mut roots = Vec::new();
        for path in &self.trust.roots {
            roots.extend(reqwest::Certificate::from_pem_bundle(&read(path)?)?);
        }
        if !roots.is_empty() {
            builder = builder.tls_certs_merge(roots);
        }
        if let Some((certificate, key)) = &self.trust.identity {
            let mut pem = read(certificate)?;
            if let Some(key) = key {
                pem.push(b'\n');
                pem.extend(read(key)?);
            }
            builder = builder.identity(reqwest::Identity::from_pem(&pem)?);
        }
        Ok(builder)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, HostsError> {
    std::fs::read(path).map_err(|source| HostsError { path: path.to_owned(), source })
}

/// The root of the API at an address: `/v2/` below its path, unless the path is the root already.
fn api(address: &str, is_root: bool) -> Result<Url, String> {
    let full = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let mut url = Url::parse(&full).map_err(|error| format!("{address:?}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{address:?} is not an address of http or https"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let has_root = is_root || path.ends_with("/v2");
    url.set_path(&if has_root { format!("{path}/") } else { format!("{path}/v2/") });
    Ok(url)
}

// === impl HostsFile ===

impl HostsFile {
    /// The addresses before the registry's own, and that one. Relative paths start at the file's directory.
    fn endpoints(
        self,
        registry: &str,
        own: Endpoint,
        directory: &Path,
    ) -> Result<(Vec<Endpoint>, Endpoint), String> {
        let mut endpoints = Vec::new();
        for (address, value) in self.host {
            let entry: HostEntry = value.try_into().map_err(|error| format!("host {address:?}: {error}"))?;
            let endpoint =
                Endpoint { base: Some(api(&address, entry.override_path)?), ..Endpoint::default() };
            let endpoint = entry
                .applied_to(endpoint, directory)
                .map_err(|reason| format!("host {address:?}: {reason}"))?;
            endpoints.push(endpoint.named(registry));
        }
        let entry = HostEntry {
            capabilities: self.capabilities,
            ca: self.ca,
            client: self.client,
            skip_verify: self.skip_verify,
            override_path: self.override_path,
            header: self.header,
            dial_timeout: self.dial_timeout,
        };
        let server = self.server.map(|address| api(&address, entry.override_path)).transpose()?;
        let own = match server {
            Some(base) => Endpoint { base: Some(base), ..own }.named(registry),
            None => own,
        };
        Ok((endpoints, entry.applied_to(own, directory)?))
    }
}

impl Endpoint {
    /// Named by its address. Hub's name is not the address of its API.
    fn named(mut self, registry: &str) -> Self {
        let host = self.base.as_ref().map(authority).unwrap_or_default();
        let is_hub = registry == DEFAULT_REGISTRY && host == "registry-1.docker.io";
        if host == registry || is_hub {
            self.host = registry.to_owned();
        } else {
            (self.host, self.stands_for) = (host, Some(registry.to_owned()));
        }
        self
    }
}

// === impl HostEntry ===

impl HostEntry {
    fn applied_to(self, mut endpoint: Endpoint, directory: &Path) -> Result<Endpoint, String> {
        if let Some(words) = self.capabilities {
            endpoint.may = Uses::of(&words)?;
        }
        let roots = match self.ca {
            None => Vec::new(),
            Some(OneOrMore::One(path)) => vec![path],
            Some(OneOrMore::More(paths)) => paths,
        };
        endpoint.trust.roots.extend(roots.iter().map(|path| directory.join(path)));
        if let Some(client) = self.client {
            let (certificate, key) = client.identity()?;
            endpoint.trust.identity = Some((directory.join(certificate), key.map(|key| directory.join(key))));
        }
        endpoint.trust.skip_verify |= self.skip_verify;
        for (name, value) in self.header {
            let values = match value {
                toml::Value::String(text) => vec![text],
                toml::Value::Array(values) => {
                    values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
                }
                _ => return Err(format!("header {name:?} is neither a text nor several")),
            };
            for value in values {
                let wrong = || format!("header {name:?} cannot be sent");
                let name: HeaderName = name.parse().map_err(|_| wrong())?;
                let value: HeaderValue = value.parse().map_err(|_| wrong())?;
                endpoint.headers.append(name, value);
            }
        }
        if let Some(text) = self.dial_timeout {
            let span: Span = text.parse().map_err(|error| format!("dial_timeout: {error}"))?;
            endpoint.dial_timeout = Some(span.0);
        }
        Ok(endpoint)
    }
}

impl Clients {
    /// The first certificate, and its key where that is in a file of its own.
    fn identity(self) -> Result<(PathBuf, Option<PathBuf>), String> {
        let mut files = match self {
            Self::One(path) => return Ok((path, None)),
            Self::Files(paths) => paths.into_iter().take(1),
            Self::Pairs(pairs) => pairs.into_iter().next().unwrap_or_default().into_iter().take(2),
        };
        let certificate = files.next().ok_or("client names no file")?;
        Ok((certificate, files.next()))
    }
}

// === impl Uses ===

impl Default for Uses {
    fn default() -> Self {
        Self { pull: true, resolve: true, push: true }
    }
}

impl Uses {
    fn of(words: &[String]) -> Result<Self, String> {
        let mut uses = Self { pull: false, resolve: false, push: false };
        for word in words {
            match word.as_str() {
                "pull" => uses.pull = true,
                "resolve" => uses.resolve = true,
                "push" => uses.push = true,
                other => {
                    return Err(format!(
                        "there is no capability {other:?}: pull, resolve and push are there"
                    ));
                }
            }
        }
        Ok(uses)
    }
}

// === impl Trust ===

impl Trust {
    /// What docker's form of `certs.d` says of a host: every `.crt` is trusted, a `.cert` with its `.key` is ours.
    fn in_directories(host: &str, directories: &[PathBuf]) -> Result<Self, HostsError> {
        let mut trust = Self::default();
        for directory in directories {
            let Ok(entries) = std::fs::read_dir(directory.join(host)) else { continue };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => trust.roots.push(path),
                    Some("cert") => trust.identity = Some((path.clone(), Some(path.with_extension("key")))),
                    _ => {}
                }
            }
        }
        Ok(trust)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Endpoint>, String> {
        let file: HostsFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let own = Endpoint { host: "reg:5000".to_owned(), ..Endpoint::default() };
        let (mut endpoints, own) = file.endpoints("reg:5000", own, Path::new("/certs"))?;
        endpoints.push(own);
        Ok(endpoints)
    }

    #[test]
    fn hosts_come_in_their_order_with_all_that_is_said_of_them() {
        let endpoints = read(
            r#"
            server = "https://up.stream"
            ca = "server.pem"
            [host."https://z.first"]
              capabilities = ["pull"]
              client = [["one.cert", "/keys/one.key"]]
              dial_timeout = "1m5s"
              [host."https://z.first".header]
                x-one = "1"
                x-many = ["a", "b"]
            [host."http://a.second:80/team/v2"]
              skip_verify = true
            [host."third/root"]
              override_path = true
              ca = ["a.pem", "b.pem"]
            "#,
        )
        .unwrap();
        let bases: Vec<&str> =
            endpoints.iter().map(|endpoint| endpoint.base.as_ref().unwrap().as_str()).collect();
        assert_eq!(
            bases,
            [
                "https://z.first/v2/",
                "http://a.second/team/v2/",
                "https://third/root/",
                "https://up.stream/v2/"
            ]
        );
        let [first, second, third, server] = endpoints.as_slice() else { panic!() };
        assert_eq!(first.may, Uses { pull: true, resolve: false, push: false });
        assert_eq!(first.trust.identity, Some(("/certs/one.cert".into(), Some("/keys/one.key".into()))));
        assert_eq!(first.dial_timeout, Some(Duration::from_secs(65)));
        assert_eq!(first.headers.get_all("x-many").iter().count(), 2);
        assert!(second.trust.skip_verify && second.may == Uses::default());
        assert_eq!(third.trust.roots, [Path::new("/certs/a.pem"), Path::new("/certs/b.pem")]);
        assert_eq!((server.host.as_str(), server.stands_for.as_deref()), ("up.stream", Some("reg:5000")));
        assert_eq!(server.trust.roots, [Path::new("/certs/server.pem")]);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (text, reason) in [
            ("[host.\"https://a\"]\ncapabilities = [\"fly\"]", "fly"),
            ("[host.\"https://a\"]\npull_timeout = 5", "pull_timeout"),
            ("servers = \"https://a\"", "servers"),
            ("[host.\"ftp://a\"]", "ftp://a"),
            ("[host.\"https://a\"]\ndial_timeout = \"soon\"", "dial_timeout"),
        ] {
            assert!(read(text).unwrap_err().contains(reason), "{text}");
        }
    }

    #[test]
    fn a_port_has_two_spellings() {
        assert_eq!(with_port_spelled("host:5000"), "host_5000_");
        assert_eq!(with_port_spelled("host"), "host");
    }
}
