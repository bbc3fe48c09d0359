//! The GitHub Action, in workflows that `act` runs on this very machine, deploying to servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::deploy::{get, project_files, take_down};
use crate::server::{Kind, Network, PASSWORD, Server};

/// A repository with a project, the action, and one workflow.
pub(crate) struct Repository {
    directory: tempfile::TempDir,
}

impl Repository {
    pub(crate) fn new(workflow: &str) -> Self {
        let repository = Self { directory: tempfile::tempdir().unwrap() };
        let path = repository.path();
        fs::create_dir_all(path.join("action")).unwrap();
        project_files(&path);
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../action")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), path.join("action").join(entry.file_name())).unwrap();
        }
        repository.write(".github/workflows/deploy.yml", workflow);
        repository
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("shop")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Commits all of it and runs the workflow as a push does.
    fn push(&self, server: &Server) -> Output {
        let secrets = [
            format!("HOST={}", server.ip()),
            format!("PASSWORD={PASSWORD}"),
            "USERNAME=root".to_owned(),
            format!("FINGERPRINT={}", server.fingerprint("ed25519")),
            format!("KNOWN_HOSTS={}", server.host_keys()),
        ];
        self.run(server, "push", "{}", &secrets)
    }

    /// Commits all of it and runs the workflow that this event starts.
    pub(crate) fn happen(&self, server: &Server, name: &str, event: &str) -> Output {
        let key = fs::read_to_string(server.key()).unwrap();
        self.run(server, name, event, &[format!("SSH_KEY={key}")])
    }

    fn run(&self, server: &Server, name: &str, event: &str, secrets: &[String]) -> Output {
        let payload = self.directory.path().join("event.json");
        fs::write(&payload, event).unwrap();
        let identity = ["-c", "user.name=story", "-c", "user.email=story@example.invalid"];
        let remote = ["config", "remote.origin.url", "https://github.com/shop/shop"];
        let commit = ["commit", "-q", "--allow-empty", "-m", "story"];
        for arguments in [&["init", "-q"][..], &remote, &["add", "-A"], &commit] {
            let mut git = Command::new("git");
            assert!(git.args(identity).args(arguments).current_dir(self.path()).status().unwrap().success());
        }
        let act = std::env::var_os("ACT").map_or_else(|| "act".into(), PathBuf::from);
        let mut act = Command::new(act);
        act.args([name, "-P", "ubuntu-latest=-self-hosted", "-P", "ubuntu-24.04=-self-hosted"]);
        act.args(["--pull=false", "--no-cache-server", "--eventpath"]).arg(payload);
        act.args(secrets.iter().flat_map(|secret| ["-s", secret]));
        act.args(["--var", &format!("HOSTS={}", server.ip())]);
        act.args(["--var", &format!("FINGERPRINTS={}", server.fingerprint("ed25519"))]);
        act.arg("--env").arg(format!("BUILT={}", env!("CARGO_BIN_EXE_rdeploy")));
        act.arg("--env").arg(format!("RENGINE_ROOT={}", self.directory.path().join("engine").display()));
        act.current_dir(self.path()).env("HOME", self.directory.path().join("home")).output().unwrap()
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        take_down(&self.directory.path().join("engine"));
    }
}

/// The workflow of the lesson, with one step for the two that built, pushed, and ran a script over SSH.
const WORKFLOW: &str = "
name: deploy web
on: push
jobs:
  deploy:
    runs-on: ubuntu-latest
    steps:
      - name: Checkout the repository
        uses: actions/checkout@v4
      - name: Build, send and roll out
        id: rollout
        uses: ./action
        with:
          binary: ${{ env.BUILT }}
          host: ${{ secrets.HOST }}
          username: ${{ secrets.USERNAME }}
          password: ${{ secrets.PASSWORD }}
          fingerprint: ${{ secrets.FINGERPRINT }}
          services: web
      - name: Say what came of it
        run: |
          echo \"status=${{ steps.rollout.outputs.status }} changed=${{ steps.rollout.outputs.changed }}\"
          echo \"down=${{ steps.rollout.outputs.downtime-ms }} before=${{ steps.rollout.outputs.previous }}\"
";

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_workflow_of_the_lesson_deploys_and_a_sick_release_turns_it_red() {
    let network = Network::new();
    let server = Server::of(&network, Kind::default().root_password());
    let repository = Repository::new(WORKFLOW);
    // Without its secrets, as for a fork.
    let red = repository.run(&server, "push", "{}", &[]);
    let said = text(&red);
    assert!(!red.status.success() && said.contains("the input host is empty"), "{said}");
    let green = repository.push(&server);
    let said = text(&green);
    assert!(green.status.success(), "{said}");
    assert_eq!(get(server.ip()).unwrap(), "one");
    assert!(said.contains("status=deployed changed=true"), "{said}");

    // The same server, known by its keys.
    let fingerprint = "fingerprint: ${{ secrets.FINGERPRINT }}";
    let known = WORKFLOW.replace(fingerprint, "known_hosts: ${{ secrets.KNOWN_HOSTS }}");
    assert_ne!(known, WORKFLOW);
    repository.write(".github/workflows/deploy.yml", &known);
    repository.write("page", "two\n");
    let green = repository.push(&server);
    let said = text(&green);
    assert!(green.status.success(), "{said}");
    assert_eq!(get(server.ip()).unwrap(), "two");
    assert!(said.contains("down=0 before=2"), "{said}");

    repository.write("page", "three\n");
    let healthy = fs::read_to_string(repository.path().join("compose.yaml")).unwrap();
    let sick = "healthcheck: {test: [CMD, sh, -c, 'echo no database; exit 1'], interval: 100ms, retries: 2}";
    repository.write("compose.yaml", &healthy.replace("build: .,", &format!("build: ., {sick},")));
    let red = repository.push(&server);
    let said = text(&red);
    assert!(!red.status.success(), "{said}");
    assert!(said.contains("is unhealthy") && said.contains("no database"), "{said}");
    assert!(!said.contains("status=deployed"), "what follows must not run: {said}");
    assert_eq!(get(server.ip()).unwrap(), "two");
    assert!(!said.contains(PASSWORD), "the password is in the log");
}
