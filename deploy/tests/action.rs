//! The GitHub Action, in workflows that `act` runs on this very machine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A repository with the action in it, as a user has it, and with one workflow.
struct Repository {
    directory: tempfile::TempDir,
}

impl Repository {
    fn new(workflow: &str) -> Self {
        let repository = Self { directory: tempfile::tempdir().unwrap() };
        let action = repository.path().join("action");
        // The runner copies the repository into its home, which therefore lies beside it.
        fs::create_dir_all(&action).unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../action")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), action.join(entry.file_name())).unwrap();
        }
        let workflows = repository.path().join(".github/workflows");
        fs::create_dir_all(&workflows).unwrap();
        fs::write(workflows.join("story.yml"), workflow).unwrap();
        for arguments in [&["init", "-q"][..], &["add", "-A"], &["commit", "-q", "-m", "story"]] {
            let identity = ["-c", "user.name=story", "-c", "user.email=story@example.invalid"];
            let status =
                Command::new("git").args(identity).args(arguments).current_dir(repository.path()).status();
            assert!(status.unwrap().success());
        }
        repository
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    /// Runs the workflow as a push would.
    fn push(&self) -> Output {
        let mut act = Command::new(act());
        act.args(["push", "-P", "ubuntu-latest=-self-hosted", "--pull=false"]);
        act.arg("--env").arg(format!("BUILT={}", env!("CARGO_BIN_EXE_rdeploy")));
        act.current_dir(self.path()).env("HOME", self.directory.path().join("home")).output().unwrap()
    }
}

/// `make test` says where it put it; elsewhere it is looked up.
fn act() -> PathBuf {
    std::env::var_os("ACT").map_or_else(|| "act".into(), PathBuf::from)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn workflow(binary: &str, steps: &str) -> String {
    format!(
        "on: push
jobs:
  story:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - id: rengine
        uses: ./action
        with:
          binary: {binary}
{steps}"
    )
}

#[test]
fn all_three_programs_are_on_the_path_afterwards() {
    let steps = "      - run: |
          rengine version
          rcompose version
          rdeploy version
          echo \"outputs ${{ steps.rengine.outputs.version }} in ${{ steps.rengine.outputs.path }}\"
";
    let output = Repository::new(&workflow("${{ env.BUILT }}", steps)).push();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.contains(&format!("rdeploy version {version}")), "{text}");
    assert!(text.contains(&format!("outputs {version} in /")), "{text}");
}

#[test]
fn a_binary_that_is_not_there_fails_the_job_and_says_so() {
    let output = Repository::new(&workflow("/no/such/file", "      - run: echo went on\n")).push();
    let text = text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("there is no file /no/such/file") && !text.contains("went on\n"), "{text}");
}
