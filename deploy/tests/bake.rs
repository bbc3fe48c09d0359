//! `rengine buildx bake`: what a file says is built.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

const FILE: &str = r#"
variable "WHAT" { default = "nothing" }
group "default" { targets = ["app", "other"] }
target "base" {
  dockerfile-inline = "FROM scratch\nCOPY said /base\n"
}
target "app" {
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nCOPY said /app\nLABEL what=${WHAT}\n"
  tags = ["app:1"]
}
target "other" {
  context = "dir"
  tags = ["other:1"]
}
"#;

#[test]
fn targets_of_files_are_built_each_with_what_it_starts_from() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    fs::create_dir(directory.path().join("dir")).unwrap();
    write("said", "something");
    write("dir/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    write("docker-bake.hcl", FILE);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdeploy"));
        command.arg0("rengine").arg("--root").arg(directory.path().join("root")).args(arguments);
        let output = command.current_dir(directory.path()).env("WHAT", "else").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let inspect = |name: &str, form: &str| run(&["image", "inspect", "-f", form, name]).1.trim().to_owned();
    let metadata = directory.path().join("metadata.json");
    let (code, _, told) = run(&["buildx", "bake", "--metadata-file", metadata.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("[app] #") && told.contains("[other] #"), "{told}");
    assert_eq!(inspect("app:1", "{{.Config.Labels.what}} {{len .RootFS.Layers}}"), "else 2");
    let metadata: serde_json::Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["app"]["containerimage.config.digest"], inspect("app:1", "{{.Id}}"));
    // What the images that others start from were called is gone with the builds.
    let (_, names, _) = run(&["images", "--format", "{{.Repository}}"]);
    assert!(!names.contains("bake.local"), "{names}");
    // A compose file's builds are targets, too, and what the command line says comes last.
    write(
        "compose.yaml",
        "services: {web: {image: 'web:1', build: {context: dir, x-bake: {tags: ['web:2']}}}}\n",
    );
    let (code, shown, told) = run(&["bake", "-f", "compose.yaml", "--print", "--set", "*.labels.a=b"]);
    assert_eq!(code, Some(0), "{told}");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["target"]["web"]["tags"], serde_json::json!(["web:2"]), "{shown}");
    assert_eq!(shown["target"]["web"]["labels"]["a"], "b", "{shown}");
    let (code, _, told) = run(&["bake", "nosuch"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("failed to find target nosuch; there are app, base, other"), "{told}");
    write("dir/Dockerfile", "FROM scratch\nCOPY nosuch /\n");
    let (code, _, told) = run(&["bake", "other", "app"]);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("Dockerfile:2: \"/nosuch\": not found") && told.contains("target other failed"),
        "{told}"
    );
    run(&["system", "down"]);
}
