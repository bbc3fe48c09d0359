//! One project in several places, each with what is particular to it: `compose.staging.yaml` over the compose file,
//! `rdeploy.staging.yaml` in place of the settings, `.env.staging` over `.env`.

use std::path::{Path, PathBuf};

use compose::document::suggestion;
use engine::error::{Error, Result};

/// What is particular to a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its name, which is behind the project's.
    pub name: String,
    /// A compose file that is merged over the others.
    pub file: Option<PathBuf>,
    /// Settings in place of the usual ones.
    pub settings: Option<PathBuf>,
    /// Variables over those of `.env`.
    pub variables: Option<PathBuf>,
}

/// How the names of these files begin and end, with the destination in between.
const FILES: [(&str, &[&str]); 3] =
    [("compose", &["yaml", "yml"]), ("rdeploy", &["yaml", "yml"]), (".env", &[""])];

// === impl Destination ===

impl Destination {
    /// Looks for what a directory has of a destination.
    ///
    /// # Errors
    /// When there is nothing, or the name is none that a project could have behind its own.
    pub fn find(name: &str, directory: &Path) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(Error::invalid(format!(
                "destination {name:?}: a name has lower-case letters, digits, - and _"
            )));
        }
        let [file, settings, variables] = FILES.map(|(stem, endings)| {
            let named =
                |ending: &&str| directory.join(format!("{stem}.{name}.{ending}").trim_end_matches('.'));
            endings.iter().map(named).find(|path| path.is_file())
        });
        if file.is_none() && settings.is_none() && variables.is_none() {
            let wanted = format!("compose.{name}.yaml, rdeploy.{name}.yaml or .env.{name}");
            let all = names(directory);
            let hint = suggestion(name, all.iter().map(String::as_str))
                .or_else(|| (!all.is_empty()).then(|| format!("there is {}", all.join(", "))));
            return Err(Error::not_found(format!(
                "destination {name}: there is no {wanted} in {}",
                directory.display()
            ))
            .with_hint_if(hint));
        }
        Ok(Self { name: name.to_owned(), file, settings, variables })
    }

    /// The project's name there: so that two may be on one host.
    pub fn name_of(&self, project: &str) -> String {
        format!("{project}-{}", self.name)
    }
}

/// The destinations that a directory has something of.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<String> = entries
        .filter_map(|entry| {
            let file = entry.file_name().to_string_lossy().into_owned();
            FILES.iter().find_map(|(stem, endings)| {
                let rest = file.strip_prefix(stem)?.strip_prefix('.')?;
                endings.iter().find_map(|ending| match *ending {
                    "" => Some(rest.to_owned()),
                    ending => Some(rest.strip_suffix(ending)?.strip_suffix('.')?.to_owned()),
                })
            })
        })
        .filter(|name| !name.is_empty() && name != "override" && !name.contains('.'))
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_the_files_that_have_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(directory.path().join(name), "").unwrap();
        [
            "compose.yaml",
            "compose.override.yaml",
            ".env",
            "compose.staging.yml",
            ".env.staging",
            "rdeploy.live.yaml",
        ]
        .into_iter()
        .for_each(write);
        let staging = Destination::find("staging", directory.path()).unwrap();
        assert_eq!(staging.file, Some(directory.path().join("compose.staging.yml")));
        assert_eq!(staging.variables, Some(directory.path().join(".env.staging")));
        assert_eq!((staging.settings.clone(), staging.name_of("shop")), (None, "shop-staging".to_owned()));
        for (name, hint) in [("stagign", "\"staging\"?"), ("test", "there is live, staging")] {
            let error = Destination::find(name, directory.path()).unwrap_err();
            assert!(error.to_string().contains(&format!("compose.{name}.yaml")), "{error}");
            assert!(error.hint().unwrap().contains(hint), "{error:?}");
        }
        assert!(Destination::find("../x", directory.path()).unwrap_err().to_string().contains("letters"));
    }
}
