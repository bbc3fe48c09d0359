//! The GitHub Action, in workflows that `act` runs on this very machine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

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
        let cache = self.directory.path().join("tools");
        let mut act = Command::new(act());
        act.arg("--env").arg(format!("RUNNER_TOOL_CACHE={}", cache.display()));
        act.args(["push", "-P", "ubuntu-latest=-self-hosted", "--pull=false"]);
        act.arg("--env").arg(format!("BUILT={}", env!("CARGO_BIN_EXE_rdeploy")));
        act.arg("--env").arg(format!("ROOTS={}", self.directory.path().display()));
        act.current_dir(self.path()).env("HOME", self.directory.path().join("home")).output().unwrap()
    }
}

/// What engines leave in the run directory, of which the test's own directory knows nothing.
impl Drop for Repository {
    fn drop(&mut self) {
        for name in ["one", "two"] {
            let _ = engine::store::remove_tree(engine::Root::at(&self.directory.path().join(name)).run());
        }
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

/// A place of releases on this machine: files by their path. What it was asked for, in order.
struct Releases {
    address: std::net::SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Releases {
    fn of(files: Vec<(String, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                reader.read_line(&mut line).unwrap();
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                let found = files.iter().find(|(name, _)| *name == path);
                log.lock().unwrap().push(path.clone());
                let (status, body) = found.map_or(("404 Not Found", &[][..]), |(_, body)| ("200 OK", body));
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // Whoever hangs up early has what it wants.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
                while matches!(reader.read_line(&mut line), Ok(count) if count > 2) {}
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn workflow(&self, more: &str) -> String {
        let inputs =
            format!("''\n          version: v9.8.7\n          releases: http://{}\n{more}", self.address);
        workflow(&inputs, "      - run: rdeploy version\n")
    }
}

/// The executable that was built, and where a release has it.
fn released() -> (String, Vec<u8>, String) {
    let bytes = fs::read(env!("CARGO_BIN_EXE_rdeploy")).unwrap();
    let digest = engine::id::Digest::of(&bytes).hex().to_owned();
    (format!("/v9.8.7/rdeploy-{}-linux", std::env::consts::ARCH), bytes, digest)
}

#[test]
fn a_released_version_is_fetched_once_and_checked() {
    let (path, bytes, digest) = released();
    let list = format!("{digest}  rdeploy\n").into_bytes();
    let releases = Releases::of(vec![(path.clone(), bytes), (format!("{path}.sha256"), list)]);
    let repository = Repository::new(&releases.workflow(""));
    let output = repository.push();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(releases.asked(), [path.clone(), format!("{path}.sha256")]);
    let output = repository.push();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(releases.asked(), Vec::<String>::new(), "the tool cache has it");
}

#[test]
fn a_released_version_that_is_not_what_was_promised_is_not_installed() {
    let (path, bytes, digest) = released();
    let releases = Releases::of(vec![(path, bytes)]);
    let wrong = format!("          sha256: {}\n", "0".repeat(64));
    let output = Repository::new(&releases.workflow(&wrong)).push();
    let said = text(&output);
    assert!(!output.status.success() && said.contains(&format!("has the digest {digest}")), "{said}");
    assert!(!said.contains("rdeploy version 0"), "{said}");
}

#[test]
fn a_version_that_was_never_released_fails_the_job_and_says_where_it_was_looked_for() {
    let releases = Releases::of(Vec::new());
    let output = Repository::new(&releases.workflow("")).push();
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&format!("http://{}/v9.8.7/rdeploy-", releases.address)), "{said}");
}

#[test]
fn a_runner_that_does_not_say_which_action_it_runs_has_it_in_the_path() {
    let (_, bytes, digest) = released();
    let place = format!("/o/r/releases/download/v9.8.7/rdeploy-{}-linux", std::env::consts::ARCH);
    let list = format!("{digest}  rdeploy\n").into_bytes();
    let releases = Releases::of(vec![(place.clone(), bytes), (format!("{place}.sha256"), list)]);
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("_actions/o/r/v9/action");
    fs::create_dir_all(&at).unwrap();
    fs::write(at.join("../Cargo.toml"), "[workspace.package]\nversion = \"9.8.7\"\n").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../action/install.sh");
    let mut install = Command::new("bash");
    install.arg(script).env("GITHUB_ACTION_PATH", &at).env("SOURCE", at.join(".."));
    install.env("SERVER", format!("http://{}", releases.address)).env("REF", "").env("REPOSITORY", "");
    for (name, file) in [("GITHUB_PATH", "path"), ("GITHUB_OUTPUT", "output"), ("RUNNER_TEMP", "temp")] {
        install.env(name, directory.path().join(file));
    }
    install.env("RUNNER_TOOL_CACHE", directory.path().join("tools"));
    let output = install.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(releases.asked(), [place.clone(), format!("{place}.sha256")]);
}

#[test]
fn a_build_finds_in_the_runners_cache_what_another_one_put_there() {
    // The runner serves the first generation of GitHub's service; its token goes to actions that are no shell only.
    let steps = "      - env:
          ACTIONS_RUNTIME_TOKEN: story
        run: |
          mkdir context
          echo hello > context/file
          printf 'FROM scratch\\nCOPY file /file\\nWORKDIR /work\\n' > context/Dockerfile
          rengine --root \"$ROOTS/one\" build --cache-to type=gha,mode=max context
          rengine --root \"$ROOTS/two\" build --progress plain --cache-from type=gha context 2> said
          echo \"taken from there: $(grep -c CACHED said)\"
";
    let output = Repository::new(&workflow("${{ env.BUILT }}", steps)).push();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("taken from there: 2"), "{text}");
}
