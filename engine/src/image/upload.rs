//! Sending a blob (distribution-spec, "Pushing blobs in chunks"): in one stream that is taken up where it broke,
//! with a new token when the old one ran out on the way, or at once where a registry knows nothing else.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use crate::id::Digest;
use crate::image::http;
use crate::image::registry::{ATTEMPTS, RegistryError, Repository, header, is_worth, same_host, wait};

/// What is sent.
pub(crate) struct Blob<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    pub(crate) bytes: Bytes<'a>,
}

/// Where a blob's bytes are.
#[derive(Clone, Copy)]
pub(crate) enum Bytes<'a> {
    /// In this file.
    In(&'a Path),
    /// Here.
    Here(&'a [u8]),
}

/// Bytes a body is sent in at once.
const PIECE: usize = 256 << 10;

const BYTES: &str = "application/octet-stream";

// === impl Repository ===

impl Repository {
    /// Sends a blob, or lets the registry take it from another repository of its own. `tell` learns the bytes sent.
    pub(crate) async fn upload(
        &self,
        blob: &Blob<'_>,
        from: Option<&str>,
        tell: impl Fn(u64) + Clone + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        let Some(mut session) = self.begin_upload(blob.digest, from).await? else { return Ok(()) };
        let (mut offset, mut fruitless) = (0, 0);
        loop {
            let error = match self.go_on(&mut session, blob, offset, tell.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_refused_stream() && offset == 0 => {
                    return self.upload_at_once(blob, tell).await;
                }
                Err(error) => error,
            };
            if !error.is_passing() || fruitless >= ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(wait(fruitless + 1, None)).await;
            // This gets a new token if the old one ran out. The answer to the last byte may have been lost.
            if self.has_blob(blob.digest).await? {
                return Ok(());
            }
            let received = match self.received(&mut session).await {
                Ok(received) => received,
                // The registry has forgotten: from the beginning.
                Err(_) => match self.begin_upload(blob.digest, None).await? {
                    Some(anew) => {
                        session = anew;
                        0
                    }
                    None => return Ok(()),
                },
            };
            fruitless = if received > offset { 0 } else { fruitless + 1 };
            offset = received;
        }
    }

    /// Sends a few bytes, unless they are there.
    pub(crate) async fn upload_small(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest).await? {
            return Ok(());
        }
        let blob = Blob { digest: &digest, size: bytes.len() as u64, bytes: Bytes::Here(bytes) };
        self.upload(&blob, None, |_| ()).await
    }

    /// Whether the registry takes a blob from another repository of its own.
    pub(crate) async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, RegistryError> {
        // An upload that was begun instead ends by itself.
        Ok(self.begin_upload(digest, Some(from)).await?.is_none())
    }

    /// Starts an upload; `None` when the registry took the blob from where it had it. Who may not read where that is can
    /// send the blob all the same.
    async fn begin_upload(&self, digest: &Digest, from: Option<&str>) -> Result<Option<Url>, RegistryError> {
        let from = from.filter(|_| !self.refuses_mounts.load(Ordering::Relaxed));
        match self.start_upload(digest, from).await {
            Err(RegistryError::Denied { .. } | RegistryError::NotFound { .. }) if from.is_some() => {
                self.refuses_mounts.store(true, Ordering::Relaxed);
                self.start_upload(digest, None).await
            }
            other => other,
        }
    }

    async fn start_upload(&self, digest: &Digest, from: Option<&str>) -> Result<Option<Url>, RegistryError> {
        let mut start = self.url("blobs/uploads/")?;
        if let Some(from) = from {
            start.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
        }
        let response =
            self.send("an upload", |client| client.post(start.clone()).header(CONTENT_LENGTH, 0)).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(None);
        }
        let response = self.expect(response, "an upload", &[StatusCode::ACCEPTED]).await?;
        self.location(&response).map(Some)
    }

    /// Sends what is missing from an offset on, and closes the upload.
    async fn go_on(
        &self,
        session: &mut Url,
        blob: &Blob<'_>,
        offset: u64,
        tell: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        if offset < blob.size {
            let mut request = self
                .uploader_for(session)
                .patch(session.clone())
                .header(CONTENT_TYPE, BYTES)
                .header(CONTENT_LENGTH, blob.size - offset);
            if offset > 0 {
                request = request.header(CONTENT_RANGE, format!("{offset}-{}", blob.size - 1));
            }
            let request = request.body(body(&self.host, blob, offset..blob.size, tell)?);
            let response = self.to(session, request).await?;
            let accepted = [StatusCode::ACCEPTED, StatusCode::NO_CONTENT, StatusCode::CREATED];
            let response = self.expect(response, "a blob", &accepted).await?;
            *session = self.location(&response)?;
        }
        let mut end = session.clone();
        end.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let request = self.uploader_for(session).put(end).header(CONTENT_LENGTH, 0);
        let response = self.to(session, request).await?;
        self.expect(response, "a blob's end", &[StatusCode::CREATED, StatusCode::NO_CONTENT]).await.map(drop)
    }

    /// How many bytes of an upload have come.
    async fn received(&self, session: &mut Url) -> Result<u64, RegistryError> {
        let response = self.to(session, self.uploader_for(session).get(session.clone())).await?;
        let known = [StatusCode::NO_CONTENT, StatusCode::ACCEPTED, StatusCode::OK];
        let response = self.expect(response, "how much of a blob it has", &known).await?;
        if response.headers().contains_key(LOCATION) {
            *session = self.location(&response)?;
        }
        let range = header(response.headers(), RANGE.as_str()).unwrap_or_default();
        let last = range.trim_start_matches("bytes=").split_once('-').and_then(|(_, last)| last.parse().ok());
        // An upload without a byte and one with a single byte look the same: 0-0.
        Ok(last.filter(|last| *last > 0).map_or(0, |last: u64| last + 1))
    }

    /// Sends a blob in one request.
    async fn upload_at_once(
        &self,
        blob: &Blob<'_>,
        tell: impl Fn(u64) + Clone + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        let mut attempt = 1;
        loop {
            let Some(session) = self.begin_upload(blob.digest, None).await? else { return Ok(()) };
            let mut target = session.clone();
            target.query_pairs_mut().append_pair("digest", blob.digest.as_str());
            let request = self
                .uploader_for(&session)
                .put(target)
                .header(CONTENT_TYPE, BYTES)
                .header(CONTENT_LENGTH, blob.size)
                .body(body(&self.host, blob, 0..blob.size, tell.clone())?);
            let result = match self.to(&session, request).await {
                Ok(response) => {
                    let done = [StatusCode::CREATED, StatusCode::NO_CONTENT];
                    self.expect(response, "a blob's end", &done).await.map(drop)
                }
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                    tokio::time::sleep(wait(attempt, None)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Makes a request to where an upload goes. Where the registry keeps its blobs elsewhere, the address itself is
    /// the permission.
    async fn to(&self, session: &Url, request: RequestBuilder) -> Result<Response, RegistryError> {
        let sent = self.authorization().await;
        let request = match &sent {
            Some(authorization) if same_host(session, &self.base) => authorization.put(request),
            _ => request,
        };
        let response = request.send().await.map_err(|source| self.connection(source))?;
        let asked = http::retry_after(response.headers());
        match response.status() {
            // The token ran out on the way; the next attempt gets another.
            StatusCode::UNAUTHORIZED => {
                // Unless somebody else has got it already.
                let mut now = self.authorization.lock().await;
                if *now == sent {
                    *now = None;
                }
            }
            StatusCode::TOO_MANY_REQUESTS if is_worth(asked) => {
                tokio::time::sleep(asked.unwrap_or_default()).await;
            }
            // The registry has forgotten the upload; another one is begun.
            StatusCode::NOT_FOUND => {}
            _ => return Ok(response),
        }
        Err(self.unexpected(response, "a blob's end").await.passing())
    }

    fn location(&self, response: &Response) -> Result<Url, RegistryError> {
        header(response.headers(), LOCATION.as_str())
            .and_then(|location| response.url().join(&location).ok())
            .ok_or_else(|| self.protocol("does not say where to send a blob"))
    }
}

/// A part of a blob as a body for this host; a file is read as it is sent.
pub(super) fn body(
    host: &str,
    blob: &Blob<'_>,
    range: Range<u64>,
    tell: impl Fn(u64) + Send + Sync + 'static,
) -> Result<reqwest::Body, RegistryError> {
    let path = match blob.bytes {
        Bytes::In(path) => path,
        Bytes::Here(bytes) => {
            let place = |at: u64| usize::try_from(at).unwrap_or(bytes.len()).min(bytes.len());
            return Ok(bytes[place(range.start)..place(range.end)].to_vec().into());
        }
    };
    let open = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(range.start)).map(|_| file)
    };
    let file = open().map_err(|error| RegistryError::Client {
        host: host.to_owned(),
        source: format!("{}: {error}", path.display()).into(),
    })?;
    let pieces = futures_util::stream::unfold((file, range.start), move |(mut file, sent)| {
        let left = usize::try_from(range.end.saturating_sub(sent)).unwrap_or(PIECE);
        let mut piece = vec![0; PIECE.min(left)];
        let next = match file.read(&mut piece) {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                let sent = sent + length as u64;
                tell(sent);
                Some((Ok(piece), (file, sent)))
            }
            Err(error) => Some((Err(error), (file, sent))),
        };
        std::future::ready(next)
    });
    Ok(reqwest::Body::wrap_stream(pieces.boxed()))
}

// === impl RegistryError ===

impl RegistryError {
    /// Whether a registry only takes blobs at once.
    fn is_refused_stream(&self) -> bool {
        matches!(self, Self::Unexpected { status: 400 | 405 | 411 | 415 | 501, .. })
    }
}
