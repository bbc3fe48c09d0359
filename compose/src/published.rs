//! A project's files at a registry, in the form docker compose publishes and reads: an artifact with a layer a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::error::{Error, Result};
use engine::image::{Artifact, ArtifactFile, Images, Reference};
use engine::store::{Durability, write_atomic};

/// What the whole is.
pub const PROJECT: &str = "application/vnd.docker.compose.project";
/// What the whole is where a registry knows no types of artifacts (OCI 1.0).
pub const PROJECT_CONFIG: &str = "application/vnd.docker.compose.config.empty.v1+json";
/// A compose file.
const COMPOSE_FILE: &str = "application/vnd.docker.compose.file+yaml";
/// A file of variables.
const ENV_FILE: &str = "application/vnd.docker.compose.envfile";
/// The annotation with a file's name.
const NAME: &str = "com.docker.compose.file";
/// The annotation with the name of a file of variables.
const ENV_NAME: &str = "com.docker.compose.envfile";
/// The annotation of a file that another one extends: it is no part of the project by itself.
const EXTENDED: &str = "com.docker.compose.extends";
/// The annotation with who published.
const VERSION: &str = "com.docker.compose.version";

/// What `-f` begins with when it names an artifact.
pub const SCHEME: &str = "oci://";

/// A compose file as a part of an artifact.
pub fn compose_file(name: &str, bytes: Vec<u8>) -> ArtifactFile {
    part(COMPOSE_FILE, &[(NAME, name)], bytes)
}

/// A file that another one extends or includes, as a part of an artifact.
pub fn extended_file(name: &str, bytes: Vec<u8>) -> ArtifactFile {
    part(COMPOSE_FILE, &[(NAME, name), (EXTENDED, "true")], bytes)
}

/// A file of variables as a part of an artifact.
pub fn env_file(name: &str, bytes: Vec<u8>) -> ArtifactFile {
    part(ENV_FILE, &[(ENV_NAME, name)], bytes)
}

fn part(media_type: &str, annotations: &[(&str, &str)], bytes: Vec<u8>) -> ArtifactFile {
    let version = [(VERSION, env!("CARGO_PKG_VERSION"))];
    ArtifactFile {
        media_type: media_type.to_owned(),
        annotations: version
            .iter()
            .chain(annotations)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        bytes,
    }
}

/// Fetches the project behind `oci://…` into a directory of the cache, and gives the file to load. A project that
/// names itself nowhere is called after its repository, which the directory is named for.
///
/// # Errors
/// When there is no such project, or its files cannot be written.
pub fn fetch(address: &str, cache: &Path) -> Result<PathBuf> {
    let name = address.strip_prefix(SCHEME).unwrap_or(address);
    let reference: Reference = name
        .parse()
        .map_err(|error| Error::invalid(format!("the address {address:?}")).with_source(error))?;
    let failed = |error: Error| Error::new(error.kind(), format!("fetch {address}")).with_source(error);
    let found = Images::fetch_artifact(&reference, &[PROJECT, PROJECT_CONFIG])
        .map_err(|error| failed(error.into()))?;
    let Some((digest, artifact)) = found else {
        return Err(Error::invalid(format!("{address} is no compose project"))
            .with_hint("`rcompose publish` makes one of it; an image is named by `image:`"));
    };
    let called = reference.repository().rsplit('/').next().unwrap_or_default();
    let directory = cache.join(digest.hex()).join(called);
    for (file, bytes) in files(&artifact)? {
        write(&directory.join(file), &bytes)?;
    }
    Ok(directory.join("compose.yaml"))
}

/// The files of an artifact by name: the compose files as documents of one, the others beside it.
fn files(artifact: &Artifact) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for file in &artifact.files {
        let annotation = |key: &str| file.annotations.get(key);
        let is_beside = annotation(EXTENDED).is_some();
        match (file.media_type.as_str(), annotation(NAME), annotation(ENV_NAME)) {
            (COMPOSE_FILE, Some(name), _) if is_beside => {
                files.insert(plain(name)?, file.bytes.clone());
            }
            (COMPOSE_FILE, ..) => {
                let whole = files.entry("compose.yaml".to_owned()).or_default();
                if !whole.is_empty() {
                    whole.extend_from_slice(b"\n---\n");
                }
                whole.extend_from_slice(&file.bytes);
            }
            (ENV_FILE, _, Some(name)) => {
                files.insert(plain(name)?, file.bytes.clone());
            }
            // What a later version may add is for that version.
            _ => {}
        }
    }
    if files.contains_key("compose.yaml") {
        return Ok(files);
    }
    Err(Error::invalid("the project has no compose file"))
}

/// Whoever published the files has no say in where they are written.
fn plain(name: &str) -> Result<String> {
    let is_plain = !name.contains(['/', '\0']) && !["", ".", "..", "compose.yaml"].contains(&name);
    if is_plain { Ok(name.to_owned()) } else { Err(Error::invalid(format!("the file name {name:?}"))) }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::failed(format!("write {}", path.display()), error);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    write_atomic(path, bytes, 0o644, Durability::Rename).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[(&str, &[(&str, &str)])]) -> Result<Vec<String>> {
        let file = |(media_type, annotations): &(&str, &[(&str, &str)])| ArtifactFile {
            media_type: (*media_type).to_owned(),
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            bytes: b"{}".to_vec(),
        };
        let artifact =
            Artifact { kind: PROJECT.to_owned(), config: None, files: files.iter().map(file).collect() };
        super::files(&artifact).map(|files| files.into_keys().collect())
    }

    #[test]
    fn files_lie_beside_each_other_and_nowhere_else() {
        let main: (&str, &[(&str, &str)]) = (COMPOSE_FILE, &[(NAME, "../../x.yaml")]);
        let below: (&str, &[(&str, &str)]) = (COMPOSE_FILE, &[(NAME, "ab.yaml"), (EXTENDED, "true")]);
        assert_eq!(
            names(&[main, below, (ENV_FILE, &[(ENV_NAME, "a.env")])]).unwrap(),
            ["a.env", "ab.yaml", "compose.yaml"]
        );
        for name in ["../x", "/etc/passwd", "..", "compose.yaml"] {
            assert!(names(&[main, (ENV_FILE, &[(ENV_NAME, name)])]).is_err(), "{name}");
        }
        assert!(names(&[below]).is_err());
    }
}
