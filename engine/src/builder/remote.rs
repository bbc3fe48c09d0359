//! Files that come over HTTP: for ADD, and whole contexts. Each is kept with its ETag and asked for again by that.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_DISPOSITION, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use reqwest::{Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::id::Digest;
use crate::image::http;
use crate::store::{Durability, Lock, private_directory, read_json, write_json};

/// A file that was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The directory it is in, alone.
    pub(crate) directory: PathBuf,
    /// Its name: the one the server gives it, or the last part of the address.
    pub(crate) name: String,
}

/// What is known of a file that was fetched before.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    name: String,
    etag: Option<String>,
    digest: Digest,
}

const VERSION: u32 = 1;

/// What is known of the file that is kept.
const RECORD: &str = "record.json";

/// The file while it comes.
const ARRIVING: &str = "arriving";

/// How often it is tried in all.
const ATTEMPTS: u32 = 4;

/// The wait after the first failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A server that wants more patience than this is an error.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// A connection on which nothing comes for so long is dead.
const STALL: Duration = Duration::from_secs(60);

/// Whether a source of ADD or a context is an address of a file.
pub(crate) fn is_http(source: &str) -> bool {
    let lower = source.get(..8).unwrap_or(source).to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// Whether it is a git repository (moby's urlutil and BuildKit's gitutil).
pub(crate) fn is_git(source: &str) -> bool {
    let path = source.split(['#', '?']).next().unwrap_or(source);
    if is_http(source) {
        return path.ends_with(".git")
            || path.split('/').nth(2) == Some("github.com") && source.contains('#');
    }
    let is_scp = || {
        source.split_once('@').is_some_and(|(user, rest)| {
            !user.contains(['/', ':']) && rest.split_once(':').is_some_and(|(host, _)| !host.contains('/'))
        })
    };
    ["git://", "ssh://", "github.com/"].iter().any(|start| source.starts_with(start)) || is_scp()
}

/// Fetches a file into this cache. One with the wanted digest that is here already is not asked for.
pub(crate) fn fetch(
    cache: &Path,
    address: &str,
    wanted: Option<&Digest>,
    authorization: Option<&str>,
) -> Result<Fetched> {
    let url = Url::parse(address)
        .map_err(|error| Error::invalid(format!("invalid address {}", shown(address))).with_source(error))?;
    let failed = |error: io::Error| Error::failed(format!("keep {}", shown(address)), error);
    let room = cache.join("http").join(Digest::of(address.as_bytes()).hex());
    private_directory(&room).map_err(failed)?;
    let _lock = Lock::exclusive(&room.join("lock")).map_err(failed)?;
    let known = known(&room);
    if let (Some(record), Some(wanted)) = (&known, wanted)
        && record.digest == *wanted
    {
        return Ok(record.fetched(&room));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let record = runtime.block_on(async {
        let request = Request { url, shown: shown(address), authorization };
        let response = request.send(known.as_ref().and_then(|record| record.etag.as_deref())).await?;
        match known {
            Some(record) if response.status() == StatusCode::NOT_MODIFIED => Ok(record),
            _ => request.keep(response, &room).await,
        }
    })?;
    if let Some(wanted) = wanted.filter(|wanted| **wanted != record.digest) {
        let text = format!("{}: digest mismatch {}: {wanted}", shown(address), record.digest);
        return Err(
            Error::invalid(text).with_hint("the file is another one than when --checksum was written")
        );
    }
    write_json(&room.join(RECORD), &record, Durability::Rename).map_err(failed)?;
    Ok(record.fetched(&room))
}

/// An address without what only its owner should read.
pub fn shown(address: &str) -> String {
    match Url::parse(address) {
        Ok(mut url)
            if url.password().is_none() && url.scheme().starts_with("http") && !url.username().is_empty() =>
        {
            // A name without a password is a token.
            let _ = url.set_username("xxxxx");
            url.to_string()
        }
        Ok(mut url) if url.password().is_some() => {
            // An address that can have a password can have another one.
            let _ = url.set_password(Some("xxxxx"));
            url.to_string()
        }
        _ => address.to_owned(),
    }
}

fn known(room: &Path) -> Option<Record> {
    let record: Record = read_json(&room.join(RECORD)).ok().flatten()?;
    let is_here = room.join("files").join(&record.name).is_file();
    (record.version == VERSION && is_here).then_some(record)
}

struct Request<'a> {
    url: Url,
    shown: String,
    authorization: Option<&'a str>,
}

// === impl Request ===

impl Request<'_> {
    /// Asks for the file until there is an answer that will not change by waiting.
    async fn send(&self, etag: Option<&str>) -> Result<Response> {
        let client = http::client().read_timeout(STALL).build();
        let client = client.map_err(|error| Error::failed(format!("fetch {}", self.shown), error))?;
        let mut attempt = 1;
        loop {
            let sent = client.get(self.url.clone()).headers(self.headers(etag)?).send().await;
            let (passes, asked) = match &sent {
                Ok(response) => {
                    let status = response.status();
                    let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                    (passes, http::retry_after(response.headers()))
                }
                Err(error) => (!error.is_builder() && !error.is_redirect() && !error.is_connect(), None),
            };
            if passes && attempt < ATTEMPTS && asked.is_none_or(|wait| wait <= LONGEST_WAIT) {
                tokio::time::sleep(asked.unwrap_or(FIRST_WAIT * 2u32.pow(attempt - 1))).await;
                attempt += 1;
                continue;
            }
            let response = sent.map_err(|error| self.broken(error))?;
            return match response.status() {
                status if status.is_success() || status == StatusCode::NOT_MODIFIED => Ok(response),
                status => Err(self.refused(status)),
            };
        }
    }

    fn headers(&self, etag: Option<&str>) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut add = |name: HeaderName, text: &str| {
            let value = HeaderValue::from_str(text);
            let value = value.map_err(|_| Error::invalid(format!("fetch {}: bad header {name}", self.shown)));
            value.map(|value| drop(headers.insert(name, value)))
        };
        if let Some(etag) = etag {
            add(IF_NONE_MATCH, etag)?;
        }
        if let Some(authorization) = self.authorization {
            add(AUTHORIZATION, authorization)?;
        }
        Ok(headers)
    }

    /// Writes the file as BuildKit has it: for its owner alone, as old as the server says.
    async fn keep(&self, mut response: Response, room: &Path) -> Result<Record> {
        let failed = |error: io::Error| Error::failed(format!("keep {}", self.shown), error);
        let text =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let etag = text(ETAG);
        let modified = text(LAST_MODIFIED).and_then(|date| http::date(&date));
        let name = name_of(response.url(), text(CONTENT_DISPOSITION).as_deref());
        // Whoever was killed here left his. There is one at a time.
        crate::store::remove_file(&room.join(ARRIVING)).map_err(failed)?;
        let mut file =
            tempfile::Builder::new().prefix(ARRIVING).rand_bytes(0).tempfile_in(room).map_err(failed)?;
        let mut hash = Sha256::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            hash.update(&chunk);
            file.write_all(&chunk).map_err(failed)?;
        }
        let mtime = modified.map_or(std::time::UNIX_EPOCH, Into::into);
        let settle = |file: &File| -> io::Result<()> {
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.set_modified(mtime)
        };
        settle(file.as_file()).map_err(failed)?;
        // A record without its file is none, and so is a file without its record.
        crate::store::remove_file(&room.join(RECORD)).map_err(failed)?;
        let files = room.join("files");
        crate::store::remove_tree(&files).map_err(failed)?;
        fs::create_dir(&files).map_err(failed)?;
        file.persist(files.join(&name)).map_err(|error| failed(error.error))?;
        Ok(Record { version: VERSION, name, etag, digest: Digest::from_sha256(&hash.finalize()) })
    }

    fn broken(&self, error: reqwest::Error) -> Error {
        // The address is in the message already, without its password.
        Error::failed(format!("fetch {}", self.shown), error.without_url())
    }

    fn refused(&self, status: StatusCode) -> Error {
        let kind = match status.as_u16() {
            404 | 410 => Kind::NotFound,
            401 | 403 => Kind::Denied,
            _ => Kind::Failed,
        };
        Error::new(kind, format!("fetch {}: invalid response status {}", self.shown, status.as_u16()))
    }
}

// === impl Record ===

impl Record {
    fn fetched(&self, room: &Path) -> Fetched {
        Fetched { directory: room.join("files"), name: self.name.clone() }
    }
}

/// The name a fetched file goes by.
fn name_of(url: &Url, disposition: Option<&str>) -> String {
    let given = disposition.and_then(|text| {
        let (_, name) = text.split_once("filename=")?;
        let name = name.split(';').next()?.trim().trim_matches('"');
        Some(name.rsplit('/').next().unwrap_or(name).to_owned())
    });
    let last = || url.path_segments().and_then(|mut parts| parts.next_back()).map(str::to_owned);
    let is_name =
        |name: &String| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    given.filter(is_name).or_else(last).filter(is_name).unwrap_or_else(|| "download".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_files_or_repositories() {
        for git in [
            "https://example.com/a.git",
            "https://example.com/a.git#main:sub",
            "git@github.com:a/b.git",
            "git://x/y",
            "ssh://git@x/y",
            "github.com/a/b",
            "https://github.com/a/b#v1",
        ] {
            assert!(is_git(git), "{git}");
        }
        for file in
            ["https://example.com/a.tar.gz", "./a@b:c/d", "a/b", "https://github.com/a/b/archive/v1.zip"]
        {
            assert!(!is_git(file), "{file}");
        }
        assert!(is_http("HTTPS://x/y") && !is_http("httpsx") && !is_http("h"));
    }

    #[test]
    fn a_fetched_file_has_a_name_of_its_own() {
        let name = |url: &str, given| name_of(&Url::parse(url).unwrap(), given);
        assert_eq!(name("http://x/a/b.txt?c=d", None), "b.txt");
        assert_eq!(name("http://x/a", Some("attachment; filename=\"../../n.tar\"; x=y")), "n.tar");
        assert_eq!(name("http://x/", Some("attachment; filename=..")), "download");
        assert_eq!(shown("http://u:p@x/a"), "http://u:xxxxx@x/a");
    }
}
