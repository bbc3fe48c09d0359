//! What is printed for other programs: builds for `docker buildx bake`, the services for graphviz.

use serde_json::{Value, json};

use crate::world::{Outcome, World};

const FILE: &str = r#"
services:
  web:
    build:
      context: .
      dockerfile: web.Dockerfile
      args: {A: "1", UNSET: }
      target: final
      additional_contexts: {base: service:base, more: ./sub}
      platforms: [linux/amd64, linux/arm64]
      secrets: [s, e]
      ssh: [default]
      shm_size: 64m
      ulimits: {nofile: 100, nproc: {soft: 1, hard: 2}}
      privileged: true
      provenance: mode=max
    ports: ["8080:80", "127.0.0.1:9000:90/udp"]
    depends_on: [base]
  base:
    image: example.com/base
    build: {dockerfile_inline: "FROM scratch"}
  job: {image: box}
secrets:
  s: {file: ./s}
  e: {environment: HOME}
"#;

#[test]
fn builds_are_written_for_another_builder_as_docker_compose_writes_them() {
    let world = World::new(FILE);
    let here = world.project().display().to_string();
    let printed = |more: &[&str]| -> Value {
        let outcome = world.rcompose(["build", "--print", "web"].iter().chain(more)).succeeds();
        serde_json::from_str(&outcome.stdout).unwrap()
    };
    let web = json!({
        "context": here,
        "contexts": {"base": "target:base", "more": format!("{here}/sub")},
        "dockerfile": format!("{here}/web.Dockerfile"),
        "args": {"A": "1"},
        "tags": ["p-web"],
        "target": "final",
        "secret": [format!("id=s,type=file,src={here}/s"), "id=e,type=env,env=HOME"],
        "ssh": ["default="],
        "platforms": ["linux/amd64", "linux/arm64"],
        "shm-size": "67108864",
        "ulimits": ["nofile=100", "nproc=1:2"],
        "entitlements": ["security.insecure"],
        "output": ["type=image,push=false"],
        "attest": ["type=provenance,mode=max"],
    });
    let base = json!({
        "context": here,
        "dockerfile-inline": "FROM scratch",
        "tags": ["example.com/base"],
        "output": ["type=docker"],
    });
    let whole = printed(&[]);
    assert_eq!(whole["target"], json!({"web": web, "base": base}));
    assert_eq!(whole["group"]["default"]["targets"], json!(["base", "web"]));
    let mut elsewhere = world.command(["build", "--print", "base"]);
    let printed_for = Outcome::of(elsewhere.env("DOCKER_DEFAULT_PLATFORM", "linux/arm64")).succeeds().stdout;
    assert!(printed_for.contains("\"linux/arm64\""), "{printed_for}");
    let base = &printed(&["--push", "--pull", "--build-arg", "Z=1", "--sbom", "true"])["target"]["base"];
    assert_eq!(base["output"], json!(["type=registry"]));
    assert_eq!((&base["pull"], &base["args"]["Z"]), (&json!(true), &json!("1")));
    assert_eq!(base["attest"], json!(["type=sbom"]), "the command line speaks for every service");
    for (flag, asked, why) in
        [("--provenance", "a=b", "a=b is not supported"), ("--sbom", "generator=x", "no scanner")]
    {
        let refused = world.rcompose(["build", flag, asked]);
        assert!(refused.code == 1 && refused.stderr.contains(why), "{}", refused.stderr);
    }
}

#[test]
fn builds_whose_names_would_be_the_same_and_hosts_with_several_addresses_all_stay() {
    let world = World::new(
        "services:\n  a.b: {build: {extra_hosts: ['h=10.0.0.1', 'h=10.0.0.2', 'g=::1']}}\n  \
         a_b: {build: {additional_contexts: {base: 'service:a.b'}}}\n",
    );
    let printed: Value =
        serde_json::from_str(&world.rcompose(["build", "--print"]).succeeds().stdout).unwrap();
    assert_eq!(printed["group"]["default"]["targets"], json!(["a_b_", "a_b"]));
    let targets = &printed["target"];
    assert_eq!(targets["a_b_"]["tags"], json!(["p-a.b"]));
    assert_eq!(targets["a_b_"]["extra-hosts"], json!({"h": "10.0.0.1,10.0.0.2", "g": "::1"}));
    assert_eq!(targets["a_b"]["contexts"], json!({"base": "target:a_b_"}));
}

#[test]
fn services_are_drawn_as_a_graph() {
    let world = World::new(FILE);
    let plain = world.rcompose(["alpha", "viz"]).succeeds().stdout;
    for line in [
        "digraph \"p\" {\n\tlayout=dot;\n",
        "\n\t\"job\" [style=\"filled\" ",
        "\n\t\"web\" -> \"base\";\n}\n",
    ] {
        assert!(plain.contains(line), "{line} is missing in {plain}");
    }
    assert!(!plain.contains("p-web") && !plain.contains("8080"), "{plain}");
    let flags = ["--image", "--networks", "--ports", "--indentation-size", "2", "--spaces"];
    let whole = world.rcompose(["alpha", "viz"].iter().chain(&flags)).succeeds().stdout;
    for part in [
        "\n  \"web\" [",
        "<b>Networks:</b><br/>default<",
        "<b>Ports:</b><br/>8080:80 (tcp, ingress)<br/>127.0.0.1:9000:90 (udp, ingress)<",
        "<b>Image:</b><br/>p-web<",
    ] {
        assert!(whole.contains(part), "{part} is missing in {whole}");
    }
}
