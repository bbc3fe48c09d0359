//! A registry over HTTP (OCI distribution-spec): challenges, retries, manifests and blobs of one repository.
//!
//! Credentials go to the registry and to the token server it names, over https or on the loopback only, and never
//! along a redirect to another host. Everything fetched is verified by its digest by whoever uses it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::id::Digest;
use crate::image::challenge::Authorization;
use crate::image::credentials::{self, Credentials};
use crate::image::endpoint::{Endpoint, endpoints};
use crate::image::hosts::{Hosts, HostsError};
use crate::image::http;
use crate::image::manifest::{ACCEPTED, MOST_JSON};
use crate::image::reference::{DEFAULT_REGISTRY, Reference};
use crate::image::referrer::Referrer;
use crate::rootless::uplink;

/// One repository of a registry.
pub(crate) struct Repository {
    /// For its own address, with what the operator wants it to be sent.
    client: Client,
    /// For any other host, such as the one that gives tokens.
    plain: Client,
    /// Without a limit on silence: a registry has nothing to say while it is sent a blob.
    uploader: Client,
    plain_uploader: Client,
    pub(super) host: String,
    pub(super) base: Url,
    /// The registry that is meant, where this one stands for another.
    stands_for: Option<String>,
    pub(super) name: String,
    /// `pull` or `pull,push`.
    pub(super) actions: &'static str,
    pub(super) credentials: Option<Credentials>,
    /// What requests carry; renewed when the registry asks.
    pub(super) authorization: Mutex<Option<Authorization>>,
    /// What it wants people to read.
    warnings: std::sync::Mutex<BTreeSet<String>>,
    /// Whether it has refused to take a blob from another repository.
    pub(super) refuses_mounts: AtomicBool,
}

/// A manifest or an index as it came.
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: Option<String>,
    pub(crate) digest: Digest,
}

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such repository, tag or digest.
    #[error("{what} is not in the registry{}", said(message))]
    NotFound {
        /// Which.
        what: String,
        /// What the registry said.
        message: String,
    },
    /// Not with these credentials.
    #[error("{host} denies access to {name}{}", said(message))]
    Denied {
        /// The registry.
        host: String,
        /// The repository.
        name: String,
        /// What it said.
        message: String,
    },
    /// Nobody answers there.
    #[error("reach the registry {host}: {reason}")]
    Unreachable {
        /// The registry.
        host: String,
        /// Why not.
        reason: String,
    },
    /// The connection broke.
    #[error("talk to the registry {host}")]
    Connection {
        /// The registry.
        host: String,
        /// How.
        source: reqwest::Error,
    },
    /// A body ended before its end.
    #[error("{host} sent less than it announced")]
    CutOff {
        /// The registry.
        host: String,
    },
    /// Asked too often.
    #[error("{host} has been asked too often{}", said(message))]
    TooMany {
        /// The registry.
        host: String,
        /// What it said.
        message: String,
    },
    /// Another answer than the protocol has.
    #[error("{host} answers {status} to {step}{}", said(message))]
    Unexpected {
        /// The registry.
        host: String,
        /// What was asked.
        step: &'static str,
        /// Its answer.
        status: u16,
        /// What it said.
        message: String,
    },
    /// An answer that makes no sense.
    #[error("{host} {reason}")]
    Protocol {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The operator allows nothing of what is needed.
    #[error("hosts.toml names no address of {host} that may be {verb}")]
    Useless {
        /// The registry.
        host: String,
        /// What was to be done.
        verb: &'static str,
    },
    /// What the operator says of registries cannot be read.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// No client could be made.
    #[error("set up the connection to {host}")]
    Client {
        /// The registry.
        host: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How often a request that failed for a passing reason is made in all.
pub(super) const ATTEMPTS: u32 = 5;

/// The wait after the first failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// A registry that wants more patience than this is an error.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// How often one request gets a new token.
const MOST_CHALLENGES: u32 = 5;

/// A connection on which nothing comes for so long is dead. There is no limit on the whole.
pub(super) const STALL: Duration = Duration::from_secs(60);

/// Whether a registry takes these credentials.
pub(crate) fn check(registry: &str, credentials: &Credentials) -> Result<(), RegistryError> {
    runtime(registry)?.block_on(async {
        let endpoint = own_endpoint(registry, false)?;
        let repository = Repository::at(&endpoint, "", "", Some(credentials.clone()), &[]).await?;
        let url = repository.base.clone();
        let response = repository.send("the login", |client| client.get(url.clone())).await?;
        repository.expect(response, "the login", &[StatusCode::OK]).await.map(drop)
    })
}

/// What runs the connections of one call: a runtime on the calling thread.
pub(crate) fn runtime(host: &str) -> Result<tokio::runtime::Runtime, RegistryError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RegistryError::Client { host: host.to_owned(), source: error.into() })
}

/// Where a registry is sent to, or what it is asked that its mirrors are not.
fn own_endpoint(registry: &str, is_push: bool) -> Result<Endpoint, RegistryError> {
    let mut endpoints = endpoints(registry)?;
    let at = if is_push {
        endpoints.iter().position(|endpoint| endpoint.may.push)
    } else {
        Some(endpoints.len() - 1)
    };
    let at = at.ok_or_else(|| RegistryError::Useless { host: registry.to_owned(), verb: "pushed to" })?;
    Ok(endpoints.swap_remove(at))
}

// === impl Repository ===

impl Repository {
    /// The repository a reference names, at the first of its registry's addresses that may be sent to, or at its own.
    pub(crate) async fn open(
        reference: &Reference,
        actions: &'static str,
        credentials: Option<Credentials>,
        insecure: &[String],
    ) -> Result<Self, RegistryError> {
        let endpoint = own_endpoint(reference.registry(), actions.contains("push"))?;
        let credentials = if endpoint.host == reference.registry() {
            credentials
        } else {
            let found = credentials::find(&endpoint.host, reference.repository());
            found.map_err(|error| RegistryError::Client {
                host: endpoint.host.clone(),
                source: error.into(),
            })?
        };
        Self::at(&endpoint, reference.repository(), actions, credentials, insecure).await
    }

    /// A repository at one of its registry's addresses.
    pub(crate) async fn at(
        endpoint: &Endpoint,
        name: &str,
        actions: &'static str,
        credentials: Option<Credentials>,
        insecure: &[String],
    ) -> Result<Self, RegistryError> {
        let host = &endpoint.host;
        let is_insecure = || Hosts::read().map(|hosts| hosts.is_insecure(host));
        let is_called_insecure = insecure.iter().any(|named| named == host) || is_insecure()?;
        // Where it is said how to speak to it, nothing is tried.
        let may_be_plain = endpoint.base.is_none() && (is_loopback(host) || is_called_insecure);
        let build = |headers: &HeaderMap, limit: fn(ClientBuilder) -> ClientBuilder| {
            let builder = endpoint.client(may_be_plain || is_called_insecure);
            let built =
                builder.and_then(|builder| Ok(limit(builder).default_headers(headers.clone()).build()?));
            built.map_err(|source| RegistryError::Client { host: host.clone(), source })
        };
        let client = build(&endpoint.headers, |builder| builder.read_timeout(STALL))?;
        let uploader = build(&endpoint.headers, |builder| builder.tcp_user_timeout(STALL))?;
        // Reading the system's authorities takes its time, so it is not done for nothing.
        let (plain, plain_uploader) = if endpoint.headers.is_empty() {
            (client.clone(), uploader.clone())
        } else {
            let none = HeaderMap::new();
            let plain = build(&none, |builder| builder.read_timeout(STALL))?;
            (plain, build(&none, |builder| builder.tcp_user_timeout(STALL))?)
        };
        let address = if host == DEFAULT_REGISTRY { "registry-1.docker.io" } else { host };
        let url = |scheme| {
            Url::parse(&format!("{scheme}://{address}/v2/"))
                .map_err(|error| RegistryError::Client { host: host.clone(), source: error.into() })
        };
        let mut repository = Self {
            client,
            plain,
            uploader,
            plain_uploader,
            host: host.clone(),
            base: endpoint.base.clone().map_or_else(|| url("https"), Ok)?,
            stands_for: endpoint.stands_for.clone(),
            name: name.to_owned(),
            actions,
            credentials,
            authorization: Mutex::new(None),
            warnings: std::sync::Mutex::default(),
            refuses_mounts: AtomicBool::new(false),
        };
        if may_be_plain && !repository.answers().await {
            repository.base = url("http")?;
        }
        Ok(repository)
    }

    /// Fetches a manifest or an index by tag or digest, and verifies it in the latter case.
    pub(crate) async fn manifest(&self, wanted: &str) -> Result<Fetched, RegistryError> {
        self.again(async || self.manifest_once(wanted).await).await
    }

    async fn manifest_once(&self, wanted: &str) -> Result<Fetched, RegistryError> {
        let url = self.url(&format!("manifests/{wanted}"))?;
        let accept = ACCEPTED.join(", ");
        let response =
            self.send("a manifest", |client| client.get(url.clone()).header(ACCEPT, &accept)).await?;
        let response = self.expect(response, "a manifest", &[StatusCode::OK]).await?;
        let media_type = header(response.headers(), CONTENT_TYPE.as_str());
        let bytes = self.small_body(response).await?;
        let digest = match wanted.parse::<Digest>() {
            Ok(wanted) if wanted.is_of(&bytes) => wanted,
            Ok(_) => return Err(self.protocol("sent another manifest than the one asked for by digest")),
            Err(_) => Digest::of(&bytes),
        };
        Ok(Fetched { bytes, media_type, digest })
    }

    /// What a tag points to, without fetching it; `None` when the registry does not say.
    pub(crate) async fn tag(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let url = self.url(&format!("manifests/{tag}"))?;
        let accept = ACCEPTED.join(", ");
        let response = self.send("a tag", |client| client.head(url.clone()).header(ACCEPT, &accept)).await?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        Ok(header(response.headers(), "docker-content-digest").and_then(|digest| digest.parse().ok()))
    }

    /// Fetches a small blob whole.
    pub(crate) async fn small_blob(&self, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let bytes = self.again(async || self.small_body(self.blob(digest, 0).await?.0).await).await?;
        if digest.is_of(&bytes) {
            Ok(bytes)
        } else {
            Err(self.protocol("sent another blob than the one asked for"))
        }
    }

    /// Starts to fetch a blob from an offset on. With the answer comes where it begins, which is the offset or before
    /// it: not every registry knows ranges.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<(Response, u64), RegistryError> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let request = |client: &Client| match offset {
            0 => client.get(url.clone()),
            _ => client.get(url.clone()).header(RANGE, format!("bytes={offset}-")),
        };
        let response = self.send("a blob", request).await?;
        let response =
            self.expect(response, "a blob", &[StatusCode::OK, StatusCode::PARTIAL_CONTENT]).await?;
        begin_of(&self.host, response, offset)
    }

    /// Starts to fetch a blob from one of the addresses that its descriptor names, with no credentials.
    pub(super) async fn elsewhere(
        &self,
        addresses: &[String],
        offset: u64,
    ) -> Result<(Response, u64), RegistryError> {
        let step = "a layer that is kept there";
        let mut failure = self.protocol("names no address where a layer is kept");
        for url in addresses.iter().filter_map(|text| Url::parse(text).ok()) {
            if !matches!(url.scheme(), "http" | "https") {
                continue;
            }
            let host = authority(&url);
            let request = async || match offset {
                0 => self.plain.get(url.clone()),
                _ => self.plain.get(url.clone()).header(RANGE, format!("bytes={offset}-")),
            };
            failure = match self.patiently(step, request).await {
                Ok(response) if response.status().is_success() => {
                    return begin_of(&host, response, offset);
                }
                Ok(response) if response.status() == StatusCode::NOT_FOUND => {
                    RegistryError::not_found(url.as_str())
                }
                Ok(response) => {
                    let (status, message) = (response.status().as_u16(), String::new());
                    RegistryError::Unexpected { host, step, status, message }
                }
                Err(RegistryError::Connection { source, .. }) => RegistryError::broken(&host, source),
                Err(RegistryError::Unreachable { reason, .. }) => RegistryError::Unreachable { host, reason },
                Err(other) => other,
            };
        }
        Err(failure)
    }

    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.send("whether it has a blob", |client| client.head(url.clone())).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => {
                self.expect(response, "whether it has a blob", &[StatusCode::OK]).await?;
                Ok(true)
            }
        }
    }

    /// Sends a manifest under a tag or its digest.
    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let url = self.url(&format!("manifests/{name}"))?;
        let request =
            |client: &Client| client.put(url.clone()).header(CONTENT_TYPE, media_type).body(bytes.to_vec());
        let response = self.send("a manifest to keep", request).await?;
        let kept = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        let response = self.expect(response, "a manifest to keep", &kept).await?;
        // A registry that knows of referrers says so (distribution-spec, "Pushing Manifests with Subject").
        let is_listed = response.headers().contains_key("oci-subject");
        match Referrer::in_manifest(media_type, bytes).filter(|_| !is_listed) {
            Some(referrer) => Box::pin(self.list_referrer(&referrer)).await,
            None => Ok(()),
        }
    }

    /// A failure of the connection while a body came.
    pub(crate) fn connection(&self, source: reqwest::Error) -> RegistryError {
        RegistryError::broken(&self.host, source)
    }

    /// An answer that makes no sense.
    pub(crate) fn protocol(&self, reason: &'static str) -> RegistryError {
        RegistryError::Protocol { host: self.host.clone(), reason }
    }

    /// Makes a request, with credentials once they are asked for, again when the failure may pass.
    pub(super) async fn send(
        &self,
        step: &'static str,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut challenges = 0;
        loop {
            let sent = self.authorization().await;
            let authorized = async || {
                let builder = request(&self.client);
                match &sent {
                    Some(authorization) => authorization.put(builder),
                    None => builder,
                }
            };
            let response = self.patiently(step, authorized).await?;
            // A password that is refused once is wrong; a token may run out between two requests.
            let may_renew = challenges == 0
                || (challenges < MOST_CHALLENGES && sent.as_ref().is_none_or(Authorization::is_token));
            let is_refused = response.status() == StatusCode::UNAUTHORIZED
                || (challenges == 0 && Authorization::is_too_narrow(&response));
            if !is_refused || !may_renew {
                return Ok(response);
            }
            challenges += 1;
            self.answer_challenge(response, sent.as_ref()).await?;
        }
    }

    /// Makes a request again while its failure may pass.
    pub(super) async fn patiently(
        &self,
        step: &'static str,
        request: impl AsyncFn() -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut attempt = 1;
        loop {
            let response = match request().await.send().await {
                Ok(response) => response,
                Err(error) if attempt < ATTEMPTS && may_pass(&error) => {
                    tokio::time::sleep(wait(attempt, None)).await;
                    attempt += 1;
                    continue;
                }
                Err(error) => return Err(self.connection(error)),
            };
            self.warnings().extend(http::warning(response.headers()));
            let status = response.status();
            let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
            let asked = http::retry_after(response.headers());
            if passes && attempt < ATTEMPTS && is_worth(asked) {
                tokio::time::sleep(wait(attempt, asked)).await;
                attempt += 1;
                continue;
            }
            if passes {
                return Err(self.unexpected(response, step).await);
            }
            return Ok(response);
        }
    }

    /// Who makes a request to this address.
    pub(super) fn client_for(&self, url: &Url) -> &Client {
        if same_host(url, &self.base) { &self.client } else { &self.plain }
    }

    /// Who sends a blob to this address.
    pub(super) fn uploader_for(&self, url: &Url) -> &Client {
        if same_host(url, &self.base) { &self.uploader } else { &self.plain_uploader }
    }

    /// What the registry wanted people to read so far.
    pub(super) fn warnings(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks again for a document whose connection broke on the way.
    async fn again<T>(&self, ask: impl AsyncFn() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut attempt = 1;
        loop {
            match ask().await {
                Err(RegistryError::Connection { .. } | RegistryError::CutOff { .. })
                    if attempt < ATTEMPTS =>
                {
                    tokio::time::sleep(wait(attempt, None)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    pub(super) async fn expect(
        &self,
        response: Response,
        step: &'static str,
        statuses: &[StatusCode],
    ) -> Result<Response, RegistryError> {
        if statuses.contains(&response.status()) {
            Ok(response)
        } else {
            Err(self.unexpected(response, step).await)
        }
    }

    pub(super) async fn unexpected(&self, response: Response, step: &'static str) -> RegistryError {
        let (host, name) = (self.host.clone(), self.name.clone());
        let status = response.status();
        let url = response.url().path().trim_start_matches("/v2/").to_owned();
        let quota = http::quota(response.headers());
        let mut message = self.small_body(response).await.map(|body| message_in(&body)).unwrap_or_default();
        if let Some(quota) = quota.filter(|_| status == StatusCode::TOO_MANY_REQUESTS) {
            let gap = if message.is_empty() { "" } else { "; " };
            message.push_str(&format!("{gap}{quota}"));
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied { host, name, message },
            StatusCode::NOT_FOUND => {
                RegistryError::NotFound { what: format!("{host}/{}", asked_for(&url)), message }
            }
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooMany { host, message },
            _ => RegistryError::Unexpected { host, step, status: status.as_u16(), message },
        }
    }

    /// Reads a body that may not be large.
    pub(super) async fn small_body(&self, mut response: Response) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|source| self.connection(source))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MOST_JSON {
                return Err(self.protocol("sent a document of more than four megabytes"));
            }
        }
        Ok(bytes)
    }

    pub(super) fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let mut url = self
            .base
            .join(&format!("{}/{path}", self.name))
            .map_err(|error| RegistryError::Client { host: self.host.clone(), source: error.into() })?;
        if let Some(registry) = &self.stands_for {
            // A mirror of several registries is told which one is meant, as containerd does.
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    /// Whether somebody speaks https there.
    async fn answers(&self) -> bool {
        self.client.get(self.base.clone()).send().await.is_ok()
    }
}

// === impl RegistryError ===

impl RegistryError {
    /// Nothing of this name.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::NotFound { what: what.to_owned(), message: String::new() }
    }

    /// A connection to this host that failed.
    pub(super) fn broken(host: &str, source: reqwest::Error) -> Self {
        let host = host.to_owned();
        if source.is_connect() { Self::unreachable(host, &source) } else { Self::Connection { host, source } }
    }

    /// No connection to this host, for the innermost reason: those around it name layers of the client.
    pub(crate) fn unreachable(host: String, error: &reqwest::Error) -> Self {
        let mut reason = String::new();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(cause) = next {
            reason = cause.to_string();
            if reason == "dns error" {
                reason = "its name is not known to the name servers".to_owned();
                break;
            }
            next = cause.source();
        }
        Self::Unreachable { host, reason }
    }

    /// Whether the same request may do better later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::CutOff { .. } => true,
            Self::Unexpected { status, .. } => {
                *status >= 500 || matches!(*status, 401 | 404 | 408 | 416 | 429)
            }
            _ => false,
        }
    }

    /// The same refusal as one that a new token, some patience, or another upload may lift.
    pub(super) fn passing(self) -> Self {
        let step = "a blob";
        match self {
            Self::Denied { host, message, .. } => Self::Unexpected { host, step, status: 401, message },
            Self::TooMany { host, message } => Self::Unexpected { host, step, status: 429, message },
            Self::NotFound { what, message } => Self::Unexpected { host: what, step, status: 404, message },
            other => other,
        }
    }
}

impl From<RegistryError> for crate::Error {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match &error {
            RegistryError::NotFound { .. } => crate::Error::not_found(message)
                .with_hint("check the name and the tag; a private one needs `rengine login`"),
            RegistryError::Denied { host, .. } => {
                let server = if host == DEFAULT_REGISTRY { String::new() } else { format!(" {host}") };
                crate::Error::new(crate::Kind::Denied, message)
                    .with_hint(format!("`rengine login{server}`, or the repository does not exist"))
            }
            RegistryError::TooMany { .. } => crate::Error::failed(message, error)
                .with_hint("wait, or `rengine login`: registries allow more to people they know"),
            RegistryError::Unreachable { host, .. } => {
                let usual = if host == DEFAULT_REGISTRY {
                    "a name without a host is looked for at docker.io; `rengine images` shows what is here"
                } else {
                    "check that the registry runs, and that this machine reaches it by that name"
                };
                crate::Error::new(crate::Kind::Failed, message)
                    .with_hint(uplink::lack().unwrap_or_else(|| usual.to_owned()))
            }
            _ => crate::Error::failed(message, error),
        }
    }
}

/// What a path below `/v2/` means, as people write it: `app:1` of `app/manifests/1`.
fn asked_for(path: &str) -> String {
    match path.rsplit_once("/manifests/") {
        Some((name, digest)) if digest.contains(':') => format!("{name}@{digest}"),
        Some((name, tag)) => format!("{name}:{tag}"),
        None => path.to_owned(),
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// Where an answer to a request for a blob from an offset on begins: there, or before it.
pub(super) fn begin_of(
    host: &str,
    response: Response,
    offset: u64,
) -> Result<(Response, u64), RegistryError> {
    if response.status() == StatusCode::OK {
        return Ok((response, 0));
    }
    let range = header(response.headers(), "content-range").unwrap_or_default();
    let begin = range.strip_prefix("bytes ").and_then(|range| range.split('-').next()?.parse().ok());
    let reason = "sent another part of a blob than the one asked for";
    let wrong = || RegistryError::Protocol { host: host.to_owned(), reason };
    let begin = begin.filter(|begin| *begin <= offset).ok_or_else(wrong)?;
    Ok((response, begin))
}

/// Whether a registry that wants to be left alone for so long is waited for.
pub(super) fn is_worth(asked: Option<Duration>) -> bool {
    asked.is_none_or(|wait| wait <= LONGEST_WAIT)
}

pub(super) fn may_pass(error: &reqwest::Error) -> bool {
    // Nobody there, a name that is not one, or a certificate nobody trusts: that will not pass in a second.
    !error.is_connect() && (error.is_timeout() || error.is_request() || error.is_body())
}

/// Doubling waits with some jitter, so that several clients do not come back at once.
pub(super) fn wait(attempt: u32, asked: Option<Duration>) -> Duration {
    let mut byte = [0u8; 1];
    // Without randomness there is no jitter, which is no harm.
    let _ = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
    let usual = FIRST_WAIT * 2u32.saturating_pow(attempt - 1);
    asked.unwrap_or(usual) + usual * u32::from(byte[0]) / 512
}

pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

pub(super) fn same_host(one: &Url, other: &Url) -> bool {
    one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
        && (one.scheme() == other.scheme())
}

/// `host` or `host:port`, as registries are named.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or(host),
        None => host,
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a registry says in a failure (distribution-spec, "Error Codes"), or the beginning of any other text.
fn message_in(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    if let Ok(Errors { errors }) = serde_json::from_slice(body) {
        let texts: Vec<String> = errors.into_iter().map(|entry| told(entry.code, entry.message)).collect();
        return texts.join(", ");
    }
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default().trim();
    if line.starts_with('<') { String::new() } else { line.chars().take(200).collect() }
}

/// A message, with its code unless the message says as much.
fn told(code: String, message: String) -> String {
    let is_told = message.to_lowercase().contains(&code.to_lowercase().replace('_', " "));
    match (message.is_empty(), is_told) {
        (true, _) => code,
        (false, true) => message,
        (false, false) => format!("{message} ({code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
            "::1",
            "a.localhost:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "10.0.0.1:5000", "localhost.example.com", "[2001:db8::1]:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_registrys_own_words_are_passed_on() {
        assert_eq!(
            message_in(br#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}"#),
            "no (DENIED), X"
        );
        let told = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        assert_eq!(message_in(told), "manifest unknown");
        assert_eq!(message_in(b"<html>"), "");
        assert_eq!(message_in(b"plain words\nmore"), "plain words");
    }
}
