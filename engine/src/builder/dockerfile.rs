//! Where a build's instructions come from.

use std::path::PathBuf;

use super::fault::Source;
use super::{BuildError, BuildRequest, DockerfileSource};

/// The Dockerfile's text, and its path when it is a file.
pub(super) fn read(request: &BuildRequest) -> Result<(Source, Option<PathBuf>), BuildError> {
    let path = match &request.dockerfile {
        DockerfileSource::Inline(text) => {
            return Ok((Source { name: "Dockerfile".to_owned(), text: text.clone() }, None));
        }
        DockerfileSource::File(path) => usual_dockerfile(path.clone()),
        DockerfileSource::Default => usual_dockerfile(request.context.join("Dockerfile")),
    };
    let bytes = std::fs::read(&path).map_err(|source| BuildError::Read { path: path.clone(), source })?;
    // People know it as they named it; below the context that is its path there.
    let name = path.strip_prefix(&request.context).unwrap_or(&path).display().to_string();
    Ok((Source { name, text: String::from_utf8_lossy(&bytes).into_owned() }, Some(path)))
}

/// The file that is meant by the usual name where there is none of it: spelled in lower case as docker takes it, or
/// as podman has it.
fn usual_dockerfile(path: PathBuf) -> PathBuf {
    if path.file_name().is_none_or(|name| name != "Dockerfile") || path.exists() {
        return path;
    }
    let others = ["dockerfile", "Containerfile"].map(|name| path.with_file_name(name));
    others.into_iter().find(|other| other.exists()).unwrap_or(path)
}
