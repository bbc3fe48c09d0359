//! What runs and what it is told: environment, user, names, labels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::container::spec::ContainerSpec;
use crate::error::{Error, Result};
use crate::image::proxy_variables;

#[derive(Debug, Args)]
pub(super) struct ProcessArgs {
    /// Set an environment variable; without a value it is taken from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User name or id, with an optional group: `user[:group]`
    #[arg(short, long)]
    user: Option<String>,
    /// Further groups
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Program instead of the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Host name inside
    #[arg(short, long)]
    hostname: Option<String>,
    /// NIS domain name inside
    #[arg(long)]
    domainname: Option<String>,
    /// Run an init as process 1 that forwards signals and reaps children
    #[arg(long)]
    init: bool,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set an OCI annotation
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

// === impl ProcessArgs ===

impl ProcessArgs {
    pub(super) fn apply(self, spec: &mut ContainerSpec) -> Result<()> {
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(env_file(file)?);
        }
        let is_asked = |name: &str| self.env.iter().any(|entry| entry.split('=').next() == Some(name));
        env.extend(proxy_variables(is_asked));
        for entry in self.env {
            require_key("environment variable", &entry)?;
            env.push(import_variable(entry));
        }
        spec.process.env = env;
        spec.process.user = self.user;
        spec.process.group_add = self.group_add;
        spec.process.working_dir = self.workdir;
        spec.process.entrypoint =
            self.entrypoint.map(|program| if program.is_empty() { Vec::new() } else { vec![program] });
        spec.hostname = self.hostname;
        spec.domainname = self.domainname;
        spec.init = self.init;
        let mut labels = Vec::new();
        for file in &self.label_file {
            labels.extend(read_pairs_file(file)?);
        }
        for label in self.label {
            require_key("label", &label)?;
            labels.push(label);
        }
        spec.labels = pairs(labels);
        self.annotation.iter().try_for_each(|text| require_key("annotation", text))?;
        spec.annotations = pairs(self.annotation);
        Ok(())
    }
}

fn require_key(what: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.starts_with('=') {
        return Err(Error::invalid(format!("invalid {what} {text:?}: its name is empty")));
    }
    Ok(())
}

/// `KEY` alone is taken from here; unset here, it stays without a value, and so is removed.
pub fn import_variable(entry: String) -> String {
    if entry.contains('=') {
        return entry;
    }
    match std::env::var(&entry) {
        Ok(value) => format!("{entry}={value}"),
        Err(_) => entry,
    }
}

/// `KEY=VALUE` texts as a map; a key alone has the empty value.
pub fn pairs(texts: Vec<String>) -> BTreeMap<String, String> {
    texts
        .into_iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (text, String::new()),
        })
        .collect()
}

/// The variables of an environment file, as docker reads it: what follows `=` is the value as it stands, without any
/// quoting; a name alone is taken from here, and is nothing when it is unset here.
///
/// # Errors
/// When the file cannot be read, or a line has no name.
pub fn env_file(path: &Path) -> Result<Vec<String>> {
    let lines = read_pairs_file(path)?.into_iter().map(import_variable);
    Ok(lines.filter(|entry| entry.contains('=')).collect())
}

/// The lines of an environment or label file; comments and empty lines are not lines.
///
/// # Errors
/// When the file cannot be read, or a line has no name.
pub fn read_pairs_file(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::invalid(format!("read {}", path.display())).with_source(error))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.split('=').next().unwrap_or_default();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(Error::invalid(format!(
                "{}:{}: {key:?} is not a variable's name",
                path.display(),
                number + 1
            )));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_to_the_letter() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "\u{feff}# remark\n\n  A=1\nQUOTED=\"two words\" # no remark\nEMPTY=\nTRAIL=x \nEQUALS=a=b\nSURELY_UNSET\nPATH\r\n",
        )
        .unwrap();
        let path = std::env::var("PATH").unwrap();
        assert_eq!(
            env_file(file.path()).unwrap(),
            [
                "A=1",
                "QUOTED=\"two words\" # no remark",
                "EMPTY=",
                "TRAIL=x ",
                "EQUALS=a=b",
                &format!("PATH={path}")
            ]
        );
        for wrong in ["=x\n", "two words=x\n", "A =x\n"] {
            std::fs::write(file.path(), wrong).unwrap();
            let error = env_file(file.path()).unwrap_err();
            assert!(error.to_string().contains(":1:"), "{error}");
        }
    }
}
