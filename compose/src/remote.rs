//! Files that are named by an address: an artifact at a registry, or a git repository.

use std::path::{Path, PathBuf};

use engine::builder::NamedBy;
use engine::error::Result;

use crate::model::{Project, ServiceVolume};
use crate::schema::Problem;
use crate::value::Path as KeyPath;
use crate::{published, repository};

/// Where files that are named by an address are fetched to. No engine is needed for that, which an ordinary user would
/// have to become root in namespaces for.
#[derive(Debug, Clone)]
pub struct Remote {
    /// What was fetched is kept below this directory.
    pub cache: PathBuf,
}

// === impl Remote ===

impl Remote {
    /// Fetches into the caller's own cache (XDG base directory specification).
    pub fn of_user() -> Self {
        let asked = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
        let home =
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
        let cache = asked.unwrap_or_else(home).join("rcompose");
        Self { cache }
    }

    /// Whether a path is of something that was fetched.
    pub fn has(&self, path: &Path) -> bool {
        path.starts_with(&self.cache)
    }

    /// Directories of fetched files that services write to. Another version has a directory of its own.
    pub(crate) fn written(&self, project: &Project) -> Vec<Problem> {
        let mut problems = Vec::new();
        for service in project.services.values() {
            for (index, volume) in service.volumes.iter().enumerate() {
                let ServiceVolume::Bind { source, .. } = volume else { continue };
                let source = Path::new(source);
                if volume.read_only() || !self.has(source) || source.is_file() {
                    continue;
                }
                let path = KeyPath::keys(&["services", &service.name, "volumes"]).index(index);
                let message = format!(
                    "what is written to {} stays with this version of the fetched files: the next one begins without it",
                    volume.target()
                );
                let help = "a named volume stays; what is only read is mounted with :ro";
                problems.push(Problem::value(&path, message).with_help(help));
            }
        }
        problems
    }

    /// The file that an address means, fetched; `None` for what is no address.
    ///
    /// # Errors
    /// When the address is no project's, or it cannot be had.
    pub fn fetch(&self, name: &str, by: NamedBy) -> Result<Option<PathBuf>> {
        if name.starts_with(published::SCHEME) {
            repository::allowed("oci", "COMPOSE_EXPERIMENTAL_OCI_REMOTE")?;
            return published::fetch(name, &self.cache.join("oci")).map(Some);
        }
        if repository::is_remote(name)? {
            return repository::fetch(name, &self.cache, by).map(Some);
        }
        Ok(None)
    }
}

/// Names that stand behind each other in a variable, each with a separator before it. An address has the usual
/// separator in itself and goes to the end.
pub(crate) fn split_names(names: &str, separator: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = names;
    while let Some((name, more)) =
        rest.split_once(separator).filter(|_| separator != ":" || !is_address(rest))
    {
        found.push(name.to_owned());
        rest = more;
    }
    found.push(rest.to_owned());
    found
}

fn is_address(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
        || text.starts_with("git@")
        || text.starts_with("github.com/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_among_names_is_not_taken_apart() {
        assert_eq!(split_names("a.yaml:b.yaml", ":"), ["a.yaml", "b.yaml"]);
        let address = "https://example.com:8443/shop.git#main:deploy";
        assert_eq!(split_names(&format!("a.yaml:{address}"), ":"), ["a.yaml", address]);
        assert_eq!(split_names(&format!("{address},b.yaml"), ","), [address, "b.yaml"]);
        assert_eq!(split_names("git@example.com:me/shop.git", ":"), ["git@example.com:me/shop.git"]);
    }
}
