//! What `convert --to` makes of projects: as it stands next to them, and as the tools that take it see it.
//!
//! With `BLESS` set the files next to the projects are written anew.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use compose::convert::{Conversion, ConvertOptions, Target, convert};
use compose::{Diagnostics, LoadOptions, load};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn options(directory: &Path) -> LoadOptions {
    LoadOptions {
        current_dir: Some(directory.to_path_buf()),
        environment: BTreeMap::from([("SHOP_PASSWORD".to_owned(), "hunter2".to_owned())]),
        ..LoadOptions::default()
    }
}

fn converted(directory: &Path, target: Target) -> Result<Conversion, Diagnostics> {
    convert(&load(&options(directory)).unwrap(), target, &ConvertOptions::default())
}

fn of_text(text: &str, target: Target) -> Conversion {
    let options = LoadOptions {
        files: vec!["-".into()],
        stdin: Some(text.to_owned()),
        current_dir: Some(std::env::temp_dir()),
        project_name: Some("p".to_owned()),
        ..LoadOptions::default()
    };
    convert(&load(&options).unwrap(), target, &ConvertOptions::default()).unwrap()
}

fn losses(conversion: &Conversion) -> Vec<String> {
    conversion.losses.iter().map(|loss| format!("{}: {}", loss.path, loss.message)).collect()
}

/// Every project of the tests that can be converted: all but those whose secrets are in files that are not there.
fn projects() -> Vec<PathBuf> {
    let all = std::fs::read_dir(tests().join("files")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.join("config.yaml").exists()).collect();
    all.push(tests().join("convert/shop"));
    all.retain(|path| !path.ends_with("full") && !path.ends_with("include") && !path.ends_with("override"));
    all
}

/// Runs a tool with a text on its standard input.
fn judge(mut command: Command, text: &[u8], what: &Path) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", what.display());
}

#[test]
fn a_shop_comes_out_as_it_stands_beside_it() {
    let directory = tests().join("convert/shop");
    for (target, file) in [(Target::Kubernetes, "kubernetes.yaml"), (Target::Swarm, "swarm.yaml")] {
        let conversion = converted(&directory, target).unwrap();
        let place = directory.to_str().unwrap();
        // The name of a mounted file's object is made from its path.
        let text = String::from_utf8(conversion.text()).unwrap().replace(place, "@DIR@");
        let text = match text.find("shop-file-") {
            Some(at) => text.replace(&text[at..at + "shop-file-01234567".len()], "shop-file-@DIGEST@"),
            None => text,
        };
        let said = losses(&conversion).join("\n").replace(place, "@DIR@") + "\n";
        for (file, found) in [(file.to_owned(), text), (file.replace("yaml", "lost"), said)] {
            let file = directory.join(file);
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&file, &found).unwrap();
            }
            assert_eq!(found, std::fs::read_to_string(&file).unwrap(), "{}", file.display());
        }
        assert_eq!(converted(&directory, target).unwrap(), conversion, "twice the same");
    }
}

/// Against the API's own schema, in which no unknown field is allowed.
#[test]
fn manifests_are_what_the_kubernetes_api_takes() {
    let tool = std::env::var_os("KUBERNETES_VALIDATE").unwrap_or_else(|| "kubernetes-validate".into());
    for directory in projects() {
        let conversion = converted(&directory, Target::Kubernetes).unwrap();
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(file.path(), conversion.text()).unwrap();
        let mut command = Command::new(&tool);
        command.args(["--strict", "--quiet", "-k", "1.33"]).arg(file.path());
        judge(command, b"", &directory);
    }
}

/// `cargo test -- --ignored` asks docker's own schema about every stack.
#[test]
#[ignore = "Debian's docker is too old to have `stack config`"]
fn stacks_are_what_docker_stack_deploy_takes() {
    for directory in projects() {
        let conversion = converted(&directory, Target::Swarm).unwrap();
        let mut command = Command::new("docker");
        command.args(["stack", "config", "-c", "-"]).current_dir(std::env::temp_dir());
        judge(command, &conversion.text(), &directory);
    }
}

#[test]
fn what_is_lost_is_said_with_its_place_and_what_follows() {
    let text =
        "services:\n  a:\n    image: box\n    ulimits:\n      nofile: 1024\n    ports: ['127.0.0.1:80:80']\n";
    let kubernetes = of_text(text, Target::Kubernetes);
    let places: Vec<usize> =
        kubernetes.losses.iter().map(|loss| loss.place.as_ref().map_or(0, |place| place.line)).collect();
    assert_eq!(places, [4, 6]);
    assert_eq!(
        losses(&kubernetes),
        [
            "services.a.ulimits: ulimits is lost: the limits of the node's container runtime hold",
            "services.a.ports[0]: ports is lost: only pods reach it, as nobody has 127.0.0.1 in common; \
             use `kubectl port-forward`",
        ]
    );
    let swarm = losses(&of_text(text, Target::Swarm));
    assert_eq!(
        swarm,
        [
            "services.a.ports[0].host_ip: host_ip is lost: a port of a swarm is published on all addresses of the nodes"
        ]
    );
}

#[test]
fn nothing_is_said_where_nothing_is_lost() {
    let text = "services:\n  a:\n    image: box\n    command: [serve]\n    ports: ['80:8080']\n    volumes: [data:/data]\nvolumes: {data: }\n";
    for target in [Target::Kubernetes, Target::Swarm] {
        assert_eq!(losses(&of_text(text, target)), [] as [String; 0], "{target:?}");
    }
}

#[test]
fn a_volume_of_one_container_is_its_own_and_a_shared_one_a_claim() {
    let kinds = |text: &str| -> Vec<String> {
        of_text(text, Target::Kubernetes)
            .documents
            .into_iter()
            .map(|document| document.file.trim_end_matches(".yaml").to_owned())
            .filter(|file| file.ends_with("set") || file.ends_with("deployment") || file.ends_with("claim"))
            .collect()
    };
    let one = "services: {a: {image: box, volumes: ['d:/d']}}\nvolumes: {d: }\n";
    assert_eq!(kinds(one), ["a-statefulset"]);
    let shared = "services: {a: {image: box, volumes: ['d:/d']}, b: {image: box, volumes: ['d:/d']}}\nvolumes: {d: }\n";
    assert_eq!(kinds(shared), ["p-d-persistentvolumeclaim", "a-deployment", "b-deployment"]);
    let replicas = "services: {a: {image: box, scale: 2, volumes: ['d:/d']}}\nvolumes: {d: }\n";
    assert_eq!(kinds(replicas), ["p-d-persistentvolumeclaim", "a-deployment"]);
}

#[test]
fn names_that_fall_together_in_a_cluster_are_refused() {
    let options = LoadOptions {
        files: vec!["-".into()],
        stdin: Some("services: {a_b: {image: box}, a-b: {image: box}}\n".to_owned()),
        current_dir: Some(std::env::temp_dir()),
        project_name: Some("p".to_owned()),
        ..LoadOptions::default()
    };
    let loaded = load(&options).unwrap();
    let error = convert(&loaded, Target::Kubernetes, &ConvertOptions::default()).unwrap_err();
    assert!(error.to_string().contains(r#"services "a-b" and "a_b" would both be "a-b""#), "{error}");
}

#[test]
fn a_secret_that_is_not_set_is_an_error_and_no_empty_secret() {
    let directory = tests().join("convert/shop");
    let options = LoadOptions { environment: BTreeMap::new(), ..options(&directory) };
    for target in [Target::Kubernetes, Target::Swarm] {
        let error = convert(&load(&options).unwrap(), target, &ConvertOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("the variable SHOP_PASSWORD is not set") && text.contains("compose.yaml:"),
            "{text}"
        );
    }
}

fn rcompose(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rcompose"));
    command.args(["-f", tests().join("convert/shop/compose.yaml").to_str().unwrap()]);
    command.args(arguments).current_dir(directory).env("SHOP_PASSWORD", "hunter2");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_directory_takes_a_file_an_object_and_secrets_are_for_their_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let (code, _, errors) = rcompose(directory.path(), &["convert", "--to", "kubernetes", "-o", "out/"]);
    assert_eq!(code, Some(0), "{errors}");
    let out = directory.path().join("out");
    let secret = std::fs::metadata(out.join("shop-password-secret.yaml")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    assert!(
        std::fs::read_to_string(out.join("db-statefulset.yaml"))
            .unwrap()
            .starts_with("apiVersion: apps/v1\n")
    );
    let (code, _, errors) = rcompose(directory.path(), &["convert", "--to", "swarm", "-o", "stack/"]);
    assert_eq!(code, Some(0), "{errors}");
    let secret = directory.path().join("stack/secrets/password");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "hunter2");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    // What the stack names must be somewhere.
    let (code, text, errors) = rcompose(directory.path(), &["convert", "--to", "swarm"]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(errors.contains("name a directory with -o DIRECTORY/"), "{errors}");
}

#[test]
fn strict_writes_nothing_when_anything_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (code, text, errors) = rcompose(directory.path(), &["convert", "--to", "kubernetes", "--strict"]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(errors.contains("compose.yaml:68:40"), "{errors}");
}

#[test]
fn without_a_target_convert_is_config() {
    let directory = tempfile::tempdir().unwrap();
    let convert = rcompose(directory.path(), &["convert"]);
    assert_eq!(convert.0, Some(0), "{}", convert.2);
    assert_eq!(convert, rcompose(directory.path(), &["config"]));
}
