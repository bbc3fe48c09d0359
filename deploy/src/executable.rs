//! The executable that a host runs: which file it is, where it is there, how it is started, and how it gets there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};

use engine::error::{Error, Result};
use engine::id::Digest;
use serde::{Deserialize, Serialize};

use crate::agent;
use crate::ssh::{self, Output, Session, SshError};

/// The executables that there are for machines of another kind than this one; for its own kind it is the one that runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Executables(BTreeMap<String, PathBuf>);

/// One of them, for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    file: PathBuf,
    /// The digest of what is in it.
    pub digest: String,
    /// Where it is on the host.
    pub there: String,
}

/// What a host says first.
pub enum Begun {
    /// The agent starts: the one at this place in [`Executables::on`].
    Here(usize),
    /// It is not there, and the machine is of this kind.
    Absent(String),
}

/// The file that runs, whatever is at its path by now.
const OWN: &str = "/proc/self/exe";

// === impl Executables ===

impl Executables {
    /// Reads all of them, which takes a while, for a host whose engine has this root: this one first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn on(&self, root: &str) -> Result<Vec<Executable>> {
        let mut all = vec![Executable::at(PathBuf::from(OWN), agent::executable_digest()?, root)];
        for file in self.0.values() {
            let bytes = std::fs::read(file)
                .map_err(|error| Error::failed(format!("read the executable {}", file.display()), error))?;
            all.push(Executable::at(file.clone(), Digest::of(&bytes).to_string(), root));
        }
        Ok(all)
    }

    /// The place in [`Executables::on`] of the one for a kind of machine, as `uname -m` names it.
    ///
    /// # Errors
    /// When there is none.
    pub fn place_for(&self, machine: &str, host: &str) -> Result<usize> {
        // Somebody who names one for this kind, too, wants that.
        let named = self.0.keys().position(|kind| kernel_name(kind) == machine);
        match named {
            Some(place) => Ok(place + 1),
            None if machine == std::env::consts::ARCH => Ok(0),
            None => Err(Error::invalid(format!(
                "host {host} is a machine of kind {machine:?}, and this program one for {}",
                std::env::consts::ARCH
            ))
            .with_hint(format!(
                "name an executable for it in rdeploy.yaml: `executables: {{{machine}: FILE}}`; a release has one for each kind"
            ))),
        }
    }

    /// A line of shell that says that it begins and becomes the agent, or says that there is none, and of what kind the
    /// machine is. A new one is to say what it is.
    pub fn start(&self, all: &[Executable], root: &str, is_new: bool) -> String {
        let digest = if is_new { " --digest" } else { "" };
        let choose = |place: usize| {
            let there = all.get(place).map(|one| ssh::quoted(&one.there)).unwrap_or_default();
            format!("place={place} program={there}")
        };
        let mut choice = choose(0);
        if !self.0.is_empty() {
            let others = self.0.keys().enumerate();
            let cases: Vec<String> = others
                .map(|(place, kind)| format!("{}) {};;", kernel_name(kind), choose(place + 1)))
                .collect();
            choice += &format!("; case $(uname -m) in {} esac", cases.join(" "));
        }
        format!(
            "{choice}; if [ -x \"$program\" ]; then echo here $place; exec \"$program\" rdeploy agent --root {}{digest}; fi; \
             echo absent $(uname -m)",
            ssh::quoted(root)
        )
    }

    /// Makes the paths absolute that are relative to a directory.
    pub fn relative_to(&mut self, directory: &Path) {
        self.0.values_mut().for_each(|path| *path = directory.join(&*path));
    }
}

/// A kind of machine as the kernel names it, for who writes it as images do.
fn kernel_name(kind: &str) -> &str {
    match kind {
        "amd64" | "linux/amd64" => "x86_64",
        "arm64" | "linux/arm64" => "aarch64",
        other => other,
    }
}

/// Reads what the line of [`Executables::start`] says.
pub fn begun(reader: &PipeReader) -> Option<Begun> {
    let said = ssh::first_line(reader)?;
    Some(match said.strip_prefix("here ").and_then(|place| place.parse().ok()) {
        Some(place) => Begun::Here(place),
        None => Begun::Absent(said.trim_start_matches("absent").trim().to_owned()),
    })
}

// === impl Executable ===

impl Executable {
    fn at(file: PathBuf, digest: String, root: &str) -> Self {
        let there = format!("{root}/bin/{}/rdeploy", digest.replace(':', "-"));
        Self { file, digest, there }
    }

    /// Brings it to a host.
    ///
    /// # Errors
    /// When the connection is lost, or the host has no room or no leave for it.
    pub fn bring(&self, session: &Session, name: &str) -> Result<()> {
        let expect = |output: std::result::Result<Output, SshError>, step: &str| {
            output.and_then(|output| output.expect_success(name, step)).map_err(|error| error.on(name))
        };
        let mut file = File::open(&self.file)
            .map_err(|error| Error::failed(format!("read the executable {}", self.file.display()), error))?;
        // The user's own directory first: where the agent belongs only root may write. Somebody else may bring the same
        // one at this moment, so the name has the number of a process in it; what one that was killed has left goes.
        let name_there = self.digest.replace(':', "-");
        let receive = format!(
            "umask 077; cd && mkdir -p .cache/rdeploy || exit 1; {}; file=$PWD/.cache/rdeploy/{name_there}.$$; \
             cat >\"$file\" && echo \"$file\" || {{ rm -f \"$file\"; exit 1; }}",
            sweep(".cache/rdeploy", "*.[0-9]*")
        );
        let brought = expect(session.upload(&mut file, &receive), "bring the agent there")?;
        let brought = String::from_utf8_lossy(&brought);
        let (from, to) = (ssh::quoted(brought.trim_end_matches('\n')), ssh::quoted(&self.there));
        // Whole or not at all, for whoever starts it meanwhile; and one that somebody runs already stays where it is.
        let install = format!(
            "set -e; from={from}; to={to}; part=$to.$$; trap 'rm -f \"$from\" \"$part\"' EXIT; \
             mkdir -p \"$(dirname \"$to\")\"; {}; cp \"$from\" \"$part\"; chmod 755 \"$part\"; \
             ln \"$part\" \"$to\" 2>/dev/null || [ -x \"$to\" ] || mv \"$part\" \"$to\"",
            sweep("$(dirname \"$to\")", "rdeploy.[0-9]*")
        );
        expect(session.run_as_root(&install, b""), "install the agent").map(drop)
    }
}

/// A line of shell that removes files of such a name which nobody has written to for an hour.
fn sweep(directory: &str, name: &str) -> String {
    format!("find \"{directory}\" -name '{name}' -type f -mmin +60 -exec rm -f {{}} + 2>/dev/null || :")
}

/// What an executable that cannot be read is to the one who connects.
pub(crate) fn unreadable(error: Error) -> SshError {
    SshError::Local { step: "find out which executable a host needs", source: io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn executables(text: &str) -> Executables {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn each_kind_of_machine_has_its_own_executable() {
        let some = executables("{arm64: a, riscv64: b}");
        assert_eq!(some.place_for(std::env::consts::ARCH, "h").unwrap(), 0);
        assert_eq!(some.place_for("riscv64", "h").unwrap(), 2);
        if std::env::consts::ARCH != "aarch64" {
            assert_eq!(some.place_for("aarch64", "h").unwrap(), 1);
        }
        let error = some.place_for("s390x", "web1").unwrap_err();
        assert!(error.to_string().contains("host web1 is a machine of kind \"s390x\""), "{error}");
        assert!(error.hint().unwrap().contains("executables: {s390x: FILE}"));
    }

    #[test]
    fn the_line_that_starts_an_agent_asks_for_the_kind_only_when_there_is_a_choice() {
        let one = |file: &str| Executable::at(file.into(), format!("sha256:{file}"), "/r");
        let line = Executables::default().start(&[one("own")], "/r", false);
        assert!(line.starts_with("place=0 program='/r/bin/sha256-own/rdeploy'; if [ -x "), "{line}");
        let line = executables("{arm64: a}").start(&[one("own"), one("a")], "/r", true);
        assert!(
            line.contains("case $(uname -m) in aarch64) place=1 program='/r/bin/sha256-a/rdeploy';; esac"),
            "{line}"
        );
        assert!(line.contains("--root '/r' --digest"), "{line}");
        assert!(matches!(said("here 1\n"), Begun::Here(1)));
        assert!(matches!(said("absent riscv64\n"), Begun::Absent(machine) if machine == "riscv64"));
    }

    fn said(text: &str) -> Begun {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        begun(&reader).unwrap()
    }
}
