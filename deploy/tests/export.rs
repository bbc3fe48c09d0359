//! `rdeploy export`: the project for other orchestrators.

use std::process::Command;

#[test]
fn a_project_is_exported_as_compose_converts_it() {
    let directory = tempfile::tempdir().unwrap();
    let file =
        "name: p\nservices:\n  web:\n    image: box\n    ports: ['80:8080']\n    ulimits: {nofile: 1024}\n";
    std::fs::write(directory.path().join("compose.yaml"), file).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdeploy"));
        let output = command.args(arguments).current_dir(directory.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, manifests, lost) = run(&["export", "--to", "kubernetes"]);
    assert_eq!(code, Some(0), "{lost}");
    assert!(
        manifests.contains("kind: Deployment") && manifests.contains("type: LoadBalancer"),
        "{manifests}"
    );
    assert!(lost.contains("compose.yaml:6:5"), "{lost}");
    let (code, told, _) = run(&["export", "--to", "kubernetes", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["losses"][0]["place"]["line"]), (Some(0), &6.into()), "{told}");
    assert!(told["files"][0]["content"].as_str().unwrap().contains("kind: "), "{told}");
    let (code, manifests, _) = run(&["export", "--to", "kubernetes", "--strict"]);
    assert_eq!((code, manifests.as_str()), (Some(1), ""));
    let (code, _, errors) = run(&["export", "--to", "swarm", "--strict", "-o", "stack/"]);
    assert_eq!(code, Some(0), "{errors}");
    let stack = std::fs::read_to_string(directory.path().join("stack/stack.yaml")).unwrap();
    assert!(stack.starts_with("version: \"3.13\"\n"), "{stack}");
}
