//! The cache service of GitHub's actions (`type=gha`): entries by key, written once, found by the beginning of their key,
//! the newest first. A runner tells where it is and lends a token.
//!
//! There are two generations of it. The first is REST and takes an entry in pieces; the second speaks Twirp
//! (github.actions.results.api.v1, `CacheService`) and leaves the bytes to Azure's block blobs. GitHub has the second; its
//! Enterprise Server, and runners of others, the first. What is asked and answered is as go-actions-cache does it.

use std::env;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::id::Digest;
use crate::image::http;
use crate::image::manifest::{Descriptor, MOST_JSON};
use crate::image::registry::{ATTEMPTS, RegistryError, authority, begin_of, is_worth, may_pass, wait};
use crate::image::transfer::Source;
use crate::image::upload::{Blob, Bytes, body};
use crate::quantity::truth;

/// Which cache at the service, and how it is reached where the environment does not say.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ActionsCache {
    /// What tells it from other caches of the repository; `buildkit` when `None`, as there.
    pub scope: Option<String>,
    /// The service, else `ACTIONS_CACHE_URL` for the first generation and `ACTIONS_RESULTS_URL` for the second.
    pub url: Option<String>,
    /// The token, else `ACTIONS_RUNTIME_TOKEN`.
    pub token: Option<String>,
    /// The generation, else the second where `ACTIONS_CACHE_SERVICE_V2` is true.
    pub generation: Option<Generation>,
}

/// A generation of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// REST.
    First,
    /// Twirp and block blobs.
    Second,
}

/// The service, for one job.
pub(crate) struct Service {
    generation: Generation,
    url: Url,
    token: String,
    client: Client,
    /// Without a limit on silence, for what is sent.
    uploader: Client,
    scope: String,
    branches: Branches,
}

/// Whose entries a job may read, and where it writes: references of git.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Branches {
    readable: Vec<String>,
    writable: String,
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its whole key.
    pub(crate) key: String,
    /// Where its bytes are. The address is the permission.
    location: Url,
}

/// A blob that is an entry of the service.
pub(crate) struct StoredBlob<'a> {
    pub(crate) service: &'a Service,
}

/// Where an entry's bytes go.
enum Place {
    Numbered(u64),
    Signed(Url),
}

/// What may not be changed without leaving older caches alone.
const FORMAT: &str = "rengine-1";

/// The largest piece that is sent at once. It is sent again when its connection breaks.
const PIECE: u64 = 32 << 20;

const BYTES: &str = "application/octet-stream";

/// How the first generation wants to be spoken to.
const REST: &str = "application/json;api-version=6.0-preview.1";

// === impl ActionsCache ===

/// Never shows the token.
impl fmt::Debug for ActionsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ActionsCache { scope, url, generation, .. } = self;
        let mut shown = f.debug_struct("ActionsCache");
        shown.field("scope", scope).field("url", url).field("generation", generation).finish_non_exhaustive()
    }
}

impl ActionsCache {
    /// What is lacking to reach the service: a variable that nobody set.
    pub(crate) fn lacks(&self) -> Option<&'static str> {
        let is_set = |given: &Option<String>, name| given.is_some() || variable(name).is_some();
        let generation = self.generation();
        let url = [generation.variable(), "ACTIONS_RESULTS_URL"];
        if !url.iter().any(|name| is_set(&self.url, name)) {
            return Some(generation.variable());
        }
        (!is_set(&self.token, TOKEN)).then_some(TOKEN)
    }

    fn generation(&self) -> Generation {
        let is_second = variable("ACTIONS_CACHE_SERVICE_V2").and_then(|text| truth(&text)) == Some(true);
        self.generation.unwrap_or(if is_second { Generation::Second } else { Generation::First })
    }
}

const TOKEN: &str = "ACTIONS_RUNTIME_TOKEN";

impl Generation {
    /// The variable with the address of the service.
    fn variable(self) -> &'static str {
        match self {
            Self::First => "ACTIONS_CACHE_URL",
            Self::Second => "ACTIONS_RESULTS_URL",
        }
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

// === impl Service ===

impl Service {
    /// The service that a cache is at.
    pub(crate) fn open(cache: &ActionsCache) -> Result<Self, RegistryError> {
        let generation = cache.generation();
        let said = cache.url.clone().or_else(|| variable(generation.variable()));
        let said = said.or_else(|| variable("ACTIONS_RESULTS_URL")).unwrap_or_default();
        let wrong = |host: &str, source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Client {
            host: host.to_owned(),
            source,
        };
        let url = format!("{}/", said.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| wrong(&said, error.into()))?;
        let token = cache.token.clone().or_else(|| variable(TOKEN)).unwrap_or_default();
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| wrong(&authority(&url), error.into()))
        };
        let client = build(http::client().read_timeout(crate::image::registry::STALL))?;
        let uploader = build(http::client().tcp_user_timeout(crate::image::registry::STALL))?;
        let scope = cache.scope.clone().unwrap_or_else(|| "buildkit".to_owned());
        let branches = Branches::in_token(&token);
        Ok(Self { generation, url, token, client, uploader, scope, branches })
    }

    /// The indexes of this cache that may be read: this branch's, and those of branches that lend theirs.
    pub(crate) async fn indexes(&self) -> Result<Vec<Vec<u8>>, RegistryError> {
        let mut indexes = Vec::new();
        for branch in &self.branches.readable {
            if let Some(entry) = self.newest_index(branch).await? {
                indexes.push(self.read(&entry).await?);
            }
        }
        Ok(indexes)
    }

    /// Writes the index of this branch, as a further entry: those that there are stay as they are.
    pub(crate) async fn write_index(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let branch = &self.branches.writable;
        let newest = self.newest_index(branch).await?;
        let number = newest.and_then(|entry| entry.key.rsplit('#').next()?.parse::<u64>().ok()).unwrap_or(0);
        // Somebody else may write one at the same time; the later counts.
        for number in (number + 1..).take(MOST_TRIES) {
            let key = format!("{}#{number}", self.index_key(branch));
            let digest = Digest::of(bytes);
            let blob = Blob { digest: &digest, size: bytes.len() as u64, bytes: Bytes::Here(bytes) };
            if self.write(&key, &blob).await? {
                return Ok(());
            }
        }
        Err(self.refused("takes no index: too many builds write this cache at once"))
    }

    /// Keeps a blob, unless it is there.
    pub(crate) async fn keep(&self, blob: &Blob<'_>) -> Result<(), RegistryError> {
        let key = blob_key(blob.digest);
        if self.find(&key).await?.is_some_and(|entry| entry.key.eq_ignore_ascii_case(&key)) {
            return Ok(());
        }
        // Whoever is writing it right now writes the same.
        self.write(&key, blob).await.map(drop)
    }

    async fn newest_index(&self, branch: &str) -> Result<Option<Entry>, RegistryError> {
        self.find(&format!("{}#", self.index_key(branch))).await
    }

    fn index_key(&self, branch: &str) -> String {
        format!("index-{}-{FORMAT}-{}", self.scope, &Digest::of(branch.as_bytes()).hex()[..8])
    }

    /// The newest entry whose key begins so.
    async fn find(&self, key: &str) -> Result<Option<Entry>, RegistryError> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default, alias = "matched_key", alias = "matchedKey", rename = "cacheKey")]
            key: String,
            #[serde(
                default,
                alias = "signed_download_url",
                alias = "signedDownloadUrl",
                rename = "archiveLocation"
            )]
            location: String,
        }
        let step = "which entry of a cache it has";
        let answer = match self.generation {
            Generation::First => {
                let mut url = self.rest("cache")?;
                url.query_pairs_mut().append_pair("keys", key).append_pair("version", &version());
                self.ask(step, |client| self.authorized(client.get(url.clone()))).await?
            }
            Generation::Second => {
                let body = json!({ "key": key, "restore_keys": [key], "version": version() });
                self.call(step, "GetCacheEntryDownloadURL", &body).await?
            }
        };
        if answer.status == StatusCode::NO_CONTENT || answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let found: Found = self.expect(step, &answer)?;
        if found.location.is_empty() {
            return Ok(None);
        }
        let location =
            Url::parse(&found.location).map_err(|_| self.refused("names no address for an entry"))?;
        Ok(Some(Entry { key: found.key, location }))
    }

    /// Reads a small entry whole.
    async fn read(&self, entry: &Entry) -> Result<Vec<u8>, RegistryError> {
        let location = &entry.location;
        let answer = self.ask("an entry of a cache", |client| client.get(location.clone())).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            _ => Err(self.unexpected("an entry of a cache", &answer)),
        }
    }

    /// Writes an entry; false when there is one of this key.
    async fn write(&self, key: &str, blob: &Blob<'_>) -> Result<bool, RegistryError> {
        let Some(place) = self.reserve(key).await? else { return Ok(false) };
        let mut pieces = Vec::new();
        let mut begin = 0;
        while begin < blob.size || pieces.is_empty() {
            let length = PIECE.min(blob.size - begin);
            self.send(&place, blob, begin..begin + length, pieces.len()).await?;
            pieces.push(block_id(pieces.len()));
            begin += length;
        }
        if let Place::Signed(url) = &place {
            self.close_blocks(url, &pieces).await?;
        }
        self.finish(&place, key, blob.size).await.map(|()| true)
    }

    /// Claims a key; `None` when somebody has it.
    async fn reserve(&self, key: &str) -> Result<Option<Place>, RegistryError> {
        #[derive(Deserialize)]
        struct Reserved {
            #[serde(rename = "cacheId", alias = "cacheID")]
            number: Option<u64>,
            #[serde(default)]
            ok: bool,
            #[serde(default, alias = "signedUploadUrl")]
            signed_upload_url: String,
        }
        let step = "a new entry of a cache";
        let body = json!({ "key": key, "version": version() });
        let answer = match self.generation {
            Generation::First => {
                let url = self.rest("caches")?;
                self.ask(step, |client| self.authorized(client.post(url.clone()).json(&body))).await?
            }
            Generation::Second => self.call(step, "CreateCacheEntry", &body).await?,
        };
        if answer.status == StatusCode::CONFLICT {
            return Ok(None);
        }
        let reserved: Reserved = self.expect(step, &answer)?;
        match (reserved.number, reserved.ok) {
            (Some(number), _) => Ok(Some(Place::Numbered(number))),
            (None, true) => match Url::parse(&reserved.signed_upload_url) {
                Ok(url) => Ok(Some(Place::Signed(url))),
                Err(_) => Err(self.refused("names no address for a new entry")),
            },
            (None, false) => Ok(None),
        }
    }

    /// Sends a piece of an entry.
    async fn send(
        &self,
        place: &Place,
        blob: &Blob<'_>,
        range: std::ops::Range<u64>,
        number: usize,
    ) -> Result<(), RegistryError> {
        let (step, host) = ("a piece of a cache", self.host());
        let url = match place {
            Place::Numbered(id) => self.rest(&format!("caches/{id}"))?,
            Place::Signed(url) => with_parameters(url, &[("comp", "block"), ("blockid", &block_id(number))]),
        };
        let mut attempt = 1;
        loop {
            let request = match place {
                Place::Numbered(_) => self.authorized(self.uploader.patch(url.clone())).header(
                    CONTENT_RANGE,
                    format!("bytes {}-{}/*", range.start, range.end.saturating_sub(1).max(range.start)),
                ),
                Place::Signed(_) => self.uploader.put(url.clone()),
            };
            let bytes = body(&host, blob, range.clone(), |_| ())?;
            let request = request.header(CONTENT_TYPE, BYTES).body(bytes);
            let length = range.end - range.start;
            let sent = request.header(reqwest::header::CONTENT_LENGTH, length).send().await;
            let error = match sent {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => {
                    let answer = Answer::of(&host, response).await?;
                    let passes = answer.passes();
                    let error = self.unexpected(step, &answer);
                    if !passes {
                        return Err(error);
                    }
                    error
                }
                Err(error) if error.is_connect() => return Err(RegistryError::broken(&host, error)),
                Err(error) => RegistryError::broken(&host, error),
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(wait(attempt, None)).await;
            attempt += 1;
        }
    }

    /// Makes one blob of its blocks (Azure, "Put Block List").
    async fn close_blocks(&self, url: &Url, blocks: &[String]) -> Result<(), RegistryError> {
        let list: String = blocks.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        let url = with_parameters(url, &[("comp", "blocklist")]);
        let step = "the end of a new entry of a cache";
        let request = |client: &Client| {
            client.put(url.clone()).header(CONTENT_TYPE, "application/xml").body(list.clone())
        };
        let answer = self.ask(step, request).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.unexpected(step, &answer)) }
    }

    /// Says that an entry is whole.
    async fn finish(&self, place: &Place, key: &str, size: u64) -> Result<(), RegistryError> {
        let step = "the end of a new entry of a cache";
        let answer = match place {
            Place::Numbered(id) => {
                let (url, body) = (self.rest(&format!("caches/{id}"))?, json!({ "size": size }));
                self.ask(step, |client| self.authorized(client.post(url.clone()).json(&body))).await?
            }
            Place::Signed(_) => {
                let body = json!({ "key": key, "size_bytes": size, "version": version() });
                self.call(step, "FinalizeCacheEntryUpload", &body).await?
            }
        };
        let is_taken = answer.status.is_success()
            && (self.generation == Generation::First
                || serde_json::from_slice::<Value>(&answer.body).is_ok_and(|body| body["ok"] == true));
        if is_taken { Ok(()) } else { Err(self.unexpected(step, &answer)) }
    }

    /// An address of the first generation.
    fn rest(&self, path: &str) -> Result<Url, RegistryError> {
        let joined = self.url.join(&format!("_apis/artifactcache/{path}"));
        joined.map_err(|_| self.refused("has an address that nothing can be added to"))
    }

    /// Calls a procedure of the second generation.
    async fn call(&self, step: &'static str, name: &str, body: &Value) -> Result<Answer, RegistryError> {
        let url = self.url.join(&format!("twirp/github.actions.results.api.v1.CacheService/{name}"));
        let url = url.map_err(|_| self.refused("has an address that nothing can be added to"))?;
        self.ask(step, |client| self.authorized(client.post(url.clone()).json(body))).await
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header(AUTHORIZATION, format!("Bearer {}", self.token));
        match self.generation {
            Generation::First => request.header(ACCEPT, REST),
            Generation::Second => request,
        }
    }

    /// Makes a request, again while its failure may pass.
    async fn ask(
        &self,
        step: &'static str,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer, RegistryError> {
        let host = self.host();
        let mut attempt = 1;
        loop {
            let may_wait = attempt < ATTEMPTS;
            let pause = match request(&self.client).send().await {
                Ok(response) => {
                    let asked = http::retry_after(response.headers());
                    let answer = Answer::of(&host, response).await?;
                    if !answer.passes() {
                        return Ok(answer);
                    }
                    if !may_wait || !is_worth(asked) {
                        return Err(self.unexpected(step, &answer));
                    }
                    asked
                }
                Err(error) if may_wait && may_pass(&error) => None,
                Err(error) => return Err(RegistryError::broken(&host, error)),
            };
            tokio::time::sleep(wait(attempt, pause)).await;
            attempt += 1;
        }
    }

    fn expect<T: DeserializeOwned>(&self, step: &'static str, answer: &Answer) -> Result<T, RegistryError> {
        if !answer.status.is_success() {
            return Err(self.unexpected(step, answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| self.refused("answers with something else than JSON"))
    }

    fn unexpected(&self, step: &'static str, answer: &Answer) -> RegistryError {
        /// What either generation says of a failure.
        #[derive(Deserialize)]
        struct Failure {
            #[serde(alias = "msg", alias = "error")]
            message: String,
        }
        let said = serde_json::from_slice::<Failure>(&answer.body).map(|failure| failure.message);
        let (host, status) = (self.host(), answer.status.as_u16());
        RegistryError::Unexpected { host, step, status, message: said.unwrap_or_default() }
    }

    fn refused(&self, reason: &'static str) -> RegistryError {
        RegistryError::Protocol { host: self.host(), reason }
    }

    /// Who is asked, as failures name it.
    fn host(&self) -> String {
        authority(&self.url)
    }
}

/// How many numbers are tried for a new index.
const MOST_TRIES: usize = 20;

// === impl StoredBlob ===

impl Source for StoredBlob<'_> {
    fn host(&self) -> String {
        self.service.host()
    }

    async fn part(&self, blob: &Descriptor, offset: u64) -> Result<(Response, u64), RegistryError> {
        let step = "a blob of a cache";
        let key = blob_key(&blob.digest);
        let gone = || RegistryError::not_found(&format!("the blob {} of the cache", blob.digest));
        // Each time anew: the address holds for some minutes only.
        let entry = self.service.find(&key).await?.ok_or_else(gone)?;
        let mut request = self.service.client.get(entry.location.clone());
        if offset > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={offset}-"));
        }
        let host = self.host();
        let response = request.send().await.map_err(|error| RegistryError::broken(&host, error))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => begin_of(&host, response, offset),
            _ => Err(self.service.unexpected(step, &Answer::of(&host, response).await?)),
        }
    }
}

/// An answer that has come whole.
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

// === impl Answer ===

impl Answer {
    async fn of(host: &str, mut response: Response) -> Result<Self, RegistryError> {
        let (status, mut body) = (response.status(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| RegistryError::broken(host, error))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MOST_INDEX {
                let reason = "sent a document that is too large";
                return Err(RegistryError::Protocol { host: host.to_owned(), reason });
            }
        }
        Ok(Self { status, body })
    }

    /// Whether the same request may do better later.
    fn passes(&self) -> bool {
        self.status.is_server_error() || matches!(self.status.as_u16(), 408 | 429)
    }
}

/// The largest index that is read: that of some ten thousand steps.
const MOST_INDEX: u64 = 4 * MOST_JSON;

// === impl Branches ===

impl Branches {
    /// What the token allows, as its claim `ac` says. One that says nothing is somebody's who asks no questions.
    fn in_token(token: &str) -> Self {
        #[derive(Deserialize)]
        struct Claims {
            ac: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Access {
            scope: String,
            permission: u32,
        }
        const WRITE: u32 = 2;
        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
        let access = claims.and_then(|claims| serde_json::from_str::<Vec<Access>>(&claims.ac).ok());
        let access = access.unwrap_or_default();
        let writable = access.iter().rfind(|access| access.permission & WRITE != 0);
        let writable = writable.map(|access| access.scope.clone()).unwrap_or_default();
        let mut readable: Vec<String> = access.into_iter().map(|access| access.scope).collect();
        if readable.is_empty() {
            readable.push(String::new());
        }
        Self { readable, writable }
    }
}

/// The key of a blob.
fn blob_key(digest: &Digest) -> String {
    format!("blob-{FORMAT}-{digest}")
}

/// What tells our entries from those of other programs with the same keys.
fn version() -> String {
    Digest::of(format!("build cache {FORMAT}").as_bytes()).hex().to_owned()
}

/// The name of a block. All blocks of a blob have names of one length.
fn block_id(number: usize) -> String {
    STANDARD.encode(format!("{number:08}"))
}

/// A signed address, with what is wanted of it.
fn with_parameters(url: &Url, parameters: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(parameters);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_which_branches_are_read_and_written() {
        let claims = r#"{"ac": "[{\"Scope\":\"refs/heads/topic\",\"Permission\":3},{\"Scope\":\"refs/heads/main\",\"Permission\":1}]"}"#;
        let token = format!("e30.{}.signature", URL_SAFE_NO_PAD.encode(claims));
        let branches = Branches::in_token(&token);
        assert_eq!(branches.readable, ["refs/heads/topic", "refs/heads/main"]);
        assert_eq!(branches.writable, "refs/heads/topic");
        for token in ["", "opaque", "a.b.c"] {
            assert_eq!(Branches::in_token(token).readable, [""], "{token:?}");
        }
    }

    #[test]
    fn a_signed_address_keeps_its_signature() {
        let url: Url = "https://blobs/a?sig=a%2Bb&sv=1".parse().unwrap();
        let url = with_parameters(&url, &[("comp", "block"), ("blockid", &block_id(7))]);
        assert_eq!(url.as_str(), "https://blobs/a?sig=a%2Bb&sv=1&comp=block&blockid=MDAwMDAwMDc%3D");
    }

    #[test]
    fn the_token_is_not_in_debug_output() {
        let cache = ActionsCache { token: Some("hush".into()), ..ActionsCache::default() };
        assert!(!format!("{cache:?}").contains("hush"));
    }
}
