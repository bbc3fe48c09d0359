//! What registries tell about their images without giving them: manifests, tags, names.

use reqwest::StatusCode;
use reqwest::header::LINK;
use serde::Deserialize;
use serde_json::Value;

use crate::id::Digest;
use crate::image::assembly::described;
use crate::image::attestation::STATEMENT;
use crate::image::credentials;
use crate::image::manifest;
use crate::image::manifest::{DOCKER_MANIFEST, Descriptor, Document};
use crate::image::reference::DEFAULT_REGISTRY;
use crate::image::registry::{Fetched, RegistryError, Repository, runtime};
use crate::image::{ImageError, Images, ManifestError, Reference, http};

/// A manifest or an index at a registry.
#[derive(Debug, Clone)]
pub struct RemoteManifest {
    /// Its bytes, as they came.
    pub bytes: Vec<u8>,
    /// What the registry says it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
}

/// An image at a registry.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    /// Its name there, by digest.
    pub address: Reference,
    /// Whether it was named itself, and not as one of an index.
    pub(crate) is_named_itself: bool,
    /// What an index lists of it.
    pub(crate) descriptor: Descriptor,
    /// Its manifest, as it came.
    pub bytes: Vec<u8>,
}

/// What an image at a registry is made of, besides its layers.
#[derive(Debug, Clone)]
pub struct RemoteContent {
    /// `os/arch[/variant]`.
    pub platform: String,
    /// Its configuration.
    pub config: Value,
    /// What is attested of it: in-toto statements.
    pub statements: Vec<Value>,
}

/// One image that `search` found.
#[derive(Debug, Clone, Deserialize)]
pub struct FoundImage {
    /// Its name.
    pub name: String,
    /// What its owner says of it.
    #[serde(default)]
    pub description: String,
    /// How many people like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// Whether Docker looks after it.
    #[serde(default, rename = "is_official")]
    pub official: bool,
}

/// Pages of a list that are read at most.
const MOST_PAGES: usize = 1000;

// === impl RemoteImage ===

impl RemoteImage {
    /// Whether its manifest is of docker's family, and not OCI's.
    pub(crate) fn is_docker(&self) -> bool {
        self.descriptor.media_type == DOCKER_MANIFEST
    }

    /// The digest of the image that this is an attestation of, if it is one.
    fn attests(&self) -> Option<&str> {
        let annotations = self.descriptor.annotations.as_ref()?;
        annotations.get("vnd.docker.reference.digest").map(String::as_str)
    }
}

fn json_of(bytes: &[u8]) -> Result<Value, ManifestError> {
    Ok(serde_json::from_slice(bytes)?)
}

// === impl Images ===

impl Images {
    /// Fetches a manifest or an index and nothing of what it lists. `insecure` are registries spoken to over http, or
    /// https without verification.
    pub fn remote_manifest(
        &self,
        reference: &Reference,
        insecure: &[String],
    ) -> Result<RemoteManifest, ImageError> {
        let credentials = credentials::find(reference.registry(), reference.repository())?;
        Ok(runtime(reference.registry())?.block_on(async {
            let repository = Repository::open(reference, "pull", credentials, insecure).await?;
            let fetched = repository.manifest(reference.wanted()).await?;
            let media_type = fetched.media_type.unwrap_or_default();
            Ok::<_, RegistryError>(RemoteManifest {
                bytes: fetched.bytes,
                media_type,
                digest: fetched.digest,
            })
        })?)
    }

    /// The manifests that a name means at its registry: one, or those of an index. `insecure` is as above.
    pub fn remote_images(
        &self,
        reference: &Reference,
        insecure: &[String],
    ) -> Result<Vec<RemoteImage>, ImageError> {
        let credentials = credentials::find(reference.registry(), reference.repository())?;
        runtime(reference.registry())?.block_on(async {
            let repository = Repository::open(reference, "pull", credentials, insecure).await?;
            let top = repository.manifest(reference.wanted()).await?;
            let entries = match Document::parse(&top.bytes, top.media_type.as_deref())? {
                Document::Index(_) => {
                    manifest::listing(&top.bytes)?.map(|listing| listing.entries).unwrap_or_default()
                }
                Document::Manifest(_) => {
                    return Ok(vec![remote_image(&repository, reference, top, None).await?]);
                }
            };
            let mut images = Vec::new();
            for entry in entries {
                let fetched = repository.manifest(entry.digest.as_str()).await?;
                images.push(remote_image(&repository, reference, fetched, Some(entry)).await?);
            }
            Ok(images)
        })
    }

    /// The configurations of what a name means at its registry, and what is attested of each image.
    ///
    /// # Errors
    /// When there is nothing of that name, or it does not come whole.
    pub fn remote_contents(&self, reference: &Reference) -> Result<Vec<RemoteContent>, ImageError> {
        let images = self.remote_images(reference, &[])?;
        let credentials = credentials::find(reference.registry(), reference.repository())?;
        runtime(reference.registry())?.block_on(async {
            let repository = Repository::open(reference, "pull", credentials, &[]).await?;
            let mut contents = Vec::new();
            for image in images.iter().filter(|image| image.attests().is_none()) {
                let Document::Manifest(document) = Document::parse(&image.bytes, None)? else { continue };
                let platform = image.descriptor.platform.as_deref().cloned().unwrap_or_default();
                let mut content = RemoteContent {
                    platform: platform.to_platform().to_string(),
                    config: json_of(&repository.small_blob(&document.config.digest).await?)?,
                    statements: Vec::new(),
                };
                let digest = image.descriptor.digest.as_str();
                for attestation in images.iter().filter(|other| other.attests() == Some(digest)) {
                    let parts = manifest::parts(&attestation.bytes)?;
                    for layer in parts.iter().filter(|part| part.media_type == STATEMENT) {
                        content.statements.push(json_of(&repository.small_blob(&layer.digest).await?)?);
                    }
                }
                contents.push(content);
            }
            Ok(contents)
        })
    }

    /// The tags of a repository at its registry.
    pub fn remote_tags(&self, reference: &Reference) -> Result<Vec<String>, ImageError> {
        let credentials = credentials::find(reference.registry(), reference.repository())?;
        Ok(runtime(reference.registry())?.block_on(async {
            let repository = Repository::open(reference, "pull", credentials, &[]).await?;
            repository.list("tags/list", "tags").await
        })?)
    }

    /// Images whose names or descriptions have a word: at Docker Hub, or by name at the registry before a slash.
    pub fn search(&self, term: &str, limit: u32) -> Result<Vec<FoundImage>, ImageError> {
        let registry = term.split_once('/').filter(|(host, _)| {
            host.contains(['.', ':']) || *host == "localhost" || host.chars().any(char::is_uppercase)
        });
        match registry {
            Some((host, word)) => catalog(host, word, limit),
            None => hub(term, limit),
        }
    }
}

async fn remote_image(
    repository: &Repository,
    reference: &Reference,
    fetched: Fetched,
    entry: Option<Descriptor>,
) -> Result<RemoteImage, ImageError> {
    let is_named_itself = entry.is_none();
    let descriptor = match entry {
        Some(entry) if entry.platform.is_some() || entry.is_attestation() => entry,
        _ => match Document::parse(&fetched.bytes, fetched.media_type.as_deref())? {
            Document::Manifest(manifest) => {
                described(repository, &manifest, &fetched.digest, fetched.bytes.len() as u64).await?
            }
            Document::Index(_) => return Err(ManifestError::Contradiction("is an index in an index").into()),
        },
    };
    let address = reference.with_digest(&fetched.digest);
    Ok(RemoteImage { address, is_named_itself, descriptor, bytes: fetched.bytes })
}

fn catalog(host: &str, word: &str, limit: u32) -> Result<Vec<FoundImage>, ImageError> {
    let credentials = credentials::find(host, "")?;
    let names = runtime(host)?.block_on(async {
        let reference: Reference =
            format!("{host}/catalog").parse().map_err(|_| RegistryError::not_found(host))?;
        let mut repository = Repository::open(&reference, "pull", credentials, &[]).await?;
        repository.name = String::new();
        repository.list("_catalog", "repositories").await
    })?;
    let found = names.into_iter().filter(|name| name.contains(word)).take(limit as usize);
    let image = |name| FoundImage { name, description: String::new(), stars: 0, official: false };
    Ok(found.map(|name| image(format!("{host}/{name}"))).collect())
}

fn hub(term: &str, limit: u32) -> Result<Vec<FoundImage>, ImageError> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<FoundImage>,
    }
    let host = DEFAULT_REGISTRY;
    let broken = |source: reqwest::Error| RegistryError::unreachable(host.to_owned(), &source);
    let answer = runtime(host)?.block_on(async {
        let client = http::client().build().map_err(broken)?;
        let query = [("q", term.to_owned()), ("n", limit.to_string())];
        let response = client.get("https://index.docker.io/v1/search").query(&query).send().await;
        let response = response.map_err(broken)?;
        let (status, step, message) = (response.status(), "a search", String::new());
        if !status.is_success() {
            return Err(match status {
                StatusCode::TOO_MANY_REQUESTS => RegistryError::TooMany { host: host.to_owned(), message },
                _ => RegistryError::Unexpected {
                    host: host.to_owned(),
                    step,
                    status: status.as_u16(),
                    message,
                },
            });
        }
        response.json::<Answer>().await.map_err(broken)
    })?;
    Ok(answer.results)
}

// === impl Repository ===

impl Repository {
    /// A list that comes in pages, each naming the next (RFC 8288, `Link`).
    async fn list(&self, path: &str, key: &str) -> Result<Vec<String>, RegistryError> {
        let mut url = if self.name.is_empty() { self.base.join(path).ok() } else { Some(self.url(path)?) };
        let mut items = Vec::new();
        for _ in 0..MOST_PAGES {
            let Some(page) = url.take() else { break };
            let response = self.send("a list", |client| client.get(page.clone())).await?;
            let response = self.expect(response, "a list", &[StatusCode::OK]).await?;
            let links = response.headers().get_all(LINK).iter().filter_map(|link| link.to_str().ok());
            url = links.filter_map(next).next().and_then(|next| page.join(next).ok());
            let body: serde_json::Value = serde_json::from_slice(&self.small_body(response).await?)
                .map_err(|_| self.protocol("sent a list that is not JSON"))?;
            let page = body.get(key).and_then(serde_json::Value::as_array).into_iter().flatten();
            items.extend(page.filter_map(|item| item.as_str().map(str::to_owned)));
        }
        Ok(items)
    }
}

/// The address in `<…>; rel="next"`, of several.
fn next(links: &str) -> Option<&str> {
    links.split('<').skip(1).find_map(|link| {
        let (address, parameters) = link.split_once('>')?;
        let is_next = |parameter: &str| matches!(parameter.trim(), "rel=\"next\"" | "rel=next");
        parameters.split([';', ',']).any(is_next).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one() {
        assert_eq!(next("</v2/a/tags/list?last=b&n=2>; rel=\"next\""), Some("/v2/a/tags/list?last=b&n=2"));
        assert_eq!(next("<x>; rel=\"prev\""), None);
        assert_eq!(next("<x>; rel=\"prev\", <y>; title=\"next\"; rel=next"), Some("y"));
        assert_eq!(next("x"), None);
    }
}
