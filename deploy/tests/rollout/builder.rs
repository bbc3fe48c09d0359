//! Images that another machine builds.

use crate::world::{World, get};

const WEB: &str = "services: {web: {build: ., ports: ['80'], stop_grace_period: 0s}}\n";

/// The names of all images of a host, by what `rengine` says.
fn images(world: &World, host: usize) -> String {
    world.rengine(host, ["images", "--format", "{{.Repository}}:{{.Tag}}"]).succeeds().stdout
}

#[test]
fn a_host_builds_for_itself_and_gets_only_what_changed_of_the_context() {
    let world = World::new(1, WEB);
    world.write("rdeploy.yaml", "builder: host\n");
    // The list leaves out what the build is told by, and the large file is in no image.
    world.write(".dockerignore", "Dockerfile\ncompose.yaml\n");
    let noise: Vec<u8> =
        (0..1_u32 << 20).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(world.project().join("large"), noise).unwrap();
    let first = world.rdeploy(["--json", "up"]).succeeds().json();
    let port = world.port(0, "web");
    assert_eq!(get(port).unwrap(), "one");
    assert!(first["hosts"][0]["bytes_sent"].as_u64().unwrap() > 2 << 20, "{first}");
    assert!(images(&world, 0).contains("rdeploy/context:p-web"), "{}", images(&world, 0));
    world.page("two");
    let second = world.rdeploy(["--json", "up", "--drain", "0s"]).succeeds().json();
    assert_eq!(get(port).unwrap(), "two");
    assert!(second["hosts"][0]["bytes_sent"].as_u64().unwrap() < 20_000, "{second}");
    assert_eq!(images(&world, 0).matches("<none>").count(), 0, "the old context is still there");
    // Nothing changed, nothing moves; and the release before is still there.
    assert_eq!(world.rdeploy(["--json", "up"]).succeeds().json()["changed"], false);
    world.rdeploy(["rollback", "--drain", "0s"]).succeeds();
    assert_eq!(get(port).unwrap(), "one");
    // What was built there goes with the project, and so does what it was built from.
    world.rdeploy(["uninstall"]).succeeds();
    assert_eq!(images(&world, 0), "");
}

#[test]
fn several_hosts_have_one_image_that_one_of_them_built() {
    let world = World::new(3, WEB);
    world.write("rdeploy.yaml", "builder: host\n");
    let report = world.rdeploy(["--json", "up"]).succeeds().json();
    let ids: Vec<String> = (0..3)
        .map(|host| world.engine(host).container("p-web-1").unwrap().record.image.to_string())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(report["images"]["web"]["id"], ids[0], "{report}");
    let contexts = (0..3).filter(|host| images(&world, *host).contains("rdeploy/context")).count();
    assert_eq!(contexts, 1, "more than one has built");
}

#[test]
fn a_build_that_fails_elsewhere_says_why_and_changes_nothing() {
    let world = World::new(1, WEB);
    world.write("rdeploy.yaml", "builder: host\n");
    world.rdeploy(["up"]).succeeds();
    let dockerfile = std::fs::read_to_string(world.project().join("Dockerfile")).unwrap();
    world.write(
        "Dockerfile",
        &dockerfile.replace("COPY page", "RUN [\"sh\", \"-c\", \"echo no compiler; exit 9\"]\nCOPY page"),
    );
    let up = world.rdeploy(["up"]).fails();
    assert!(up.stderr.contains("no compiler") && up.stderr.contains("host0"), "{}", up.stderr);
    assert_eq!(get(world.port(0, "web")).unwrap(), "one");
    world.write("Dockerfile", &dockerfile);
    world.write("compose.yaml", &WEB.replace("build: .", "build: ., platform: linux/riscv64"));
    let up = world.rdeploy(["up"]).fails();
    assert!(
        up.stderr.contains("service web is to be built for linux/riscv64, and no host is of that kind"),
        "{}",
        up.stderr
    );
    assert!(up.stderr.contains("builder: {linux/riscv64: user@machine}"), "{}", up.stderr);
    world
        .write("rdeploy.yaml", &format!("builder: {{linux/riscv64: 'local:{}'}}\n", world.root(7).display()));
    let up = world.rdeploy(["up"]).fails();
    assert!(up.stderr.contains("and service web is to be built for linux/riscv64"), "{}", up.stderr);
    let secrets = "secrets: {token: {environment: NOSUCH}}\n";
    world
        .write("compose.yaml", &(WEB.replace("build: .", "build: {context: ., secrets: [token]}") + secrets));
    world.write("rdeploy.yaml", "builder: host\n");
    let up = world.rdeploy(["up"]).fails();
    assert!(up.stderr.contains("build.secrets: \"token\": NOSUCH is not set"), "{}", up.stderr);
}

#[test]
fn secrets_and_further_contexts_go_along_and_no_secret_is_left() {
    let world = World::new(1, "");
    world.write("rdeploy.yaml", "builder: host\n");
    world.write(
        "compose.yaml",
        "services:
  web:
    build:
      context: .
      secrets: [token, {source: key, target: renamed}]
      additional_contexts: {more: ./more, 'example.com/like:an-image': ./like}
    ports: ['80']
    stop_grace_period: 0s
secrets:
  token: {environment: TOKEN}
  key: {file: ./key}
",
    );
    let secret = "s3cret-that-is-nowhere";
    world.write(".env", &format!("TOKEN={secret}\n"));
    world.write("key", "a key\nof two lines");
    for directory in ["more", "like"] {
        std::fs::create_dir(world.project().join(directory)).unwrap();
    }
    world.write("more/file", "more");
    world.write("like/file", "like");
    world.write(".dockerignore", ".env\nkey\n");
    let dockerfile = std::fs::read_to_string(world.project().join("Dockerfile")).unwrap();
    let steps = "RUN --mount=type=secret,id=token --mount=type=secret,id=renamed \\
  [\"sh\", \"-c\", \"wc -c </run/secrets/token >/www/token; wc -l </run/secrets/renamed >/www/key\"]
COPY --from=more file /www/more
COPY --from=example.com/like:an-image file /www/like
";
    world.write("Dockerfile", &dockerfile.replace("CMD", &format!("{steps}CMD")));
    world.rdeploy(["up"]).succeeds();
    let inside =
        |file: &str| world.rdeploy(["exec", "web", "cat", &format!("/www/{file}")]).succeeds().stdout;
    assert_eq!(inside("token").trim(), secret.len().to_string());
    assert_eq!(inside("key").trim(), "1");
    assert_eq!((inside("more"), inside("like")), ("more".to_owned(), "like".to_owned()));
    let engine = world.engine(0);
    for root in [engine.root().state(), engine.root().run()] {
        let found = std::process::Command::new("grep").args(["-rl", secret]).arg(root).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "a secret was left");
    }
}
