//! By way of a registry, by saving a file, and away again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Outcome, World, get};

const WEB: &str = "
services:
  web: {build: ., ports: ['80'], volumes: ['data:/data'], stop_grace_period: 0s}
volumes: {data: {}}
";

/// A registry that runs, and ends with this.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    /// With its files in a directory, for all who are in a file of users.
    fn start(directory: &Path, users: Option<&Path>) -> Self {
        // A port that was free a moment ago; the registry says when it cannot have it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let auth =
            users.map(|users| format!("auth: {{htpasswd: {{realm: story, path: {}}}}}\n", users.display()));
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{auth}",
            root = directory.join("data").display(),
            auth = auth.unwrap_or_default()
        );
        fs::write(directory.join("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.join("config.yml"))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on")));
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn images_go_by_way_of_a_registry_that_wants_a_password() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // bcrypt of "se:cret".
    let user = "me:$2b$05$FXaJyFAHkWA8CF5b9nSemuUN9WY9nBU/egrUa/nRytRfFnUHylM3W\n";
    fs::write(directory.join("users"), user).unwrap();
    let registry = Registry::start(directory, Some(&directory.join("users")));
    let port = registry.port;
    let world = World::new(
        1,
        &format!(
            "services: {{web: {{build: ., image: '127.0.0.1:{port}/shop/web:1', ports: ['80'], stop_grace_period: 0s}}}}\n"
        ),
    );
    world.write("rdeploy.yaml", "transfer: registry\n");
    let login = format!("{{\"auths\": {{\"127.0.0.1:{port}\": {{\"auth\": \"bWU6c2U6Y3JldA==\"}}}}}}");
    fs::write(directory.join("config.json"), login).unwrap();
    let up = |words: &[&str]| {
        let output = world.command(words).env("DOCKER_CONFIG", directory).output().unwrap();
        Outcome::of(&output).succeeds()
    };
    let said = world.rdeploy(["up"]).fails().stderr;
    let expected =
        [&format!("push 127.0.0.1:{port}/shop/web:")[..], "denies access", "RDEPLOY_REGISTRY_PASSWORD"];
    assert!(expected.iter().all(|part| said.contains(part)), "{said}");
    let report = up(&["--json", "up"]).json();
    assert_eq!(get(world.port(0, "web")).unwrap(), "one");
    assert_eq!(report["hosts"][0]["bytes_sent"], 0, "the image came another way: {report}");
    world.page("two");
    up(&["up"]);
    assert_eq!(get(world.port(0, "web")).unwrap(), "two");
    // The same by the inputs of the action, under the names that people know.
    world.page("three");
    fs::remove_file(world.project().join("rdeploy.yaml")).unwrap();
    let file = "services: {web: {image: '127.0.0.1:9/not/this', ports: ['80'], stop_grace_period: 0s}}\n";
    world.write("compose.yaml", file);
    // Nothing runs in it, so that it can be built for any platform.
    let file = "FROM scratch\nCOPY busybox /bin/httpd\nCOPY page /www/page\nCMD [\"httpd\", \"-f\", \"-h\", \"/www\"]\n";
    world.write("rpc.Dockerfile", file);
    let outputs = directory.join("outputs");
    let mut action = world.command(["action"]);
    action.env("GITHUB_OUTPUT", &outputs).env("INPUT_HOST", world.host(0)).env("INPUT_SERVICES", "web");
    action.env("INPUT_CONTEXT", ".").env("INPUT_FILE", "./rpc.Dockerfile").env("INPUT_PUSH", "true");
    action.env("INPUT_TAGS", format!("127.0.0.1:{port}/shop/web:2"));
    action.env("INPUT_PLATFORMS", "linux/amd64,linux/arm64").env("INPUT_LABELS", "a=b c");
    action.env("RDEPLOY_REGISTRY", format!("127.0.0.1:{port}")).env("RDEPLOY_REGISTRY_USERNAME", "me");
    action.env("RDEPLOY_REGISTRY_PASSWORD", "se:cret").env("DOCKER_CONFIG", directory.join("nothing"));
    let said = Outcome::of(&action.output().unwrap()).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "three");
    let pushed = directory.join("data/docker/registry/v2/repositories/shop/web/_manifests/tags/2");
    let link = fs::read_to_string(pushed.join("current/link")).expect("the name that was asked for is there");
    let hex = link.trim().strip_prefix("sha256:").unwrap();
    let blob = directory.join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
    let index = fs::read_to_string(blob).unwrap();
    assert!(index.contains("amd64") && index.contains("arm64"), "{index}");
    let outputs = fs::read_to_string(outputs).unwrap();
    assert!(outputs.contains("\ndeployed\n") && outputs.contains("imageid<<"), "{outputs}");
    let all = format!("{}{}", said.stdout.replace("::add-mask::se:cret", ""), said.stderr);
    assert!(!all.contains("se:cret"), "{all}");
    world.rdeploy(["rollback", "--drain", "0s"]).succeeds();
    drop(registry);
    // A rollback needs no registry.
    world.rdeploy(["rollback"]).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "one");
}

#[test]
fn a_name_that_means_another_image_is_another_release() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start(directory.path(), None);
    let image = format!("127.0.0.1:{}/shop/web:latest", registry.port);
    let file = |more: &str| {
        format!(
            "services: {{web: {{image: '{image}', pull_policy: always, ports: ['80'], stop_grace_period: 0s{more}}}}}\n"
        )
    };
    let world = World::new(1, &file(""));
    let publish = |page: &str| {
        world.page(page);
        world.rengine_here(["build", "-q", "-t", &image, "."]).succeeds();
        world.rengine_here(["push", "-q", &image]).succeeds();
        // What is here alone would be sent.
        world.rengine_here(["rmi", &image]).succeeds();
    };
    publish("one");
    world.rdeploy(["up"]).succeeds();
    let page = || get(world.port(0, "web")).unwrap();
    publish("two");
    let up = world.rdeploy(["--json", "up", "--drain", "0s"]).succeeds();
    assert_eq!((page().as_str(), &up.json()["changed"]), ("two", &serde_json::json!(true)));
    assert_eq!(up.stderr.matches("Pulled").count(), 1, "{}", up.stderr);
    let up = world.rdeploy(["--json", "up"]).succeeds();
    assert_eq!(up.json()["changed"], false, "{}", up.stderr);

    // What is called off leaves the name what it was.
    publish("three");
    world.write("compose.yaml", &file(", command: ['false']"));
    world.rdeploy(["up"]).fails();
    world.write("compose.yaml", &file(""));
    world.rdeploy(["drift"]).succeeds();
    drop(registry);
    world.rdeploy(["rollback", "--drain", "0s"]).succeeds();
    assert_eq!(page(), "one");
    world.rdeploy(["drift"]).succeeds();
    world.rdeploy(["prune"]).succeeds();
    let all = world.engine(0).images().list().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    world.rdeploy(["uninstall"]).succeeds();
    assert_eq!(world.engine(0).images().list().unwrap().len(), 0);
}

#[test]
fn an_image_that_is_only_here_goes_along() {
    let world = World::new(
        1,
        "services: {web: {image: '127.0.0.1:9/made/here', ports: ['80'], stop_grace_period: 0s}}\n",
    );
    let build = |page: &str| {
        world.page(page);
        world.rengine_here(["build", "-q", "-t", "127.0.0.1:9/made/here", "."]).succeeds();
    };
    world.rdeploy(["up"]).fails();
    build("one");
    world.rdeploy(["up"]).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "one");
    build("two");
    world.rdeploy(["up", "--drain", "0s"]).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "two");
    world.rdeploy(["rollback"]).succeeds();
    assert_eq!(get(world.port(0, "web")).unwrap(), "one");
}

#[test]
fn a_saved_file_is_a_new_release() {
    let world = World::new(1, WEB);
    // It makes the same file again and again.
    world.write("rdeploy.yaml", "hooks: {before-build: ['echo t > token']}\n");
    let mut watch = world.spawn(["watch", "--drain", "0s"]);
    let mut said = BufReader::new(watch.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut next = |part: &str| said.find(|line| line.starts_with(part)).unwrap_or_default();
    assert!(!next("watching").is_empty(), "it never watched");
    let port = world.port(0, "web");
    assert_eq!(get(port).unwrap(), "one");
    assert_eq!(next("changed: "), "changed: token");
    next("watching");
    for page in ["two", "three"] {
        world.page(page);
        assert_eq!(next("changed: "), "changed: page");
        assert!(next("release").contains("serves"), "no new release");
        assert_eq!(get(port).unwrap(), page);
        next("watching");
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn uninstalling_leaves_the_data_or_nothing() {
    let world = World::new(1, WEB);
    world.rdeploy(["up"]).succeeds();
    world.rdeploy(["exec", "web", "sh", "-c", "echo mine > /data/file"]).succeeds();
    // Releases that are called off leave no image for ever.
    let images = || world.engine(0).images().list().unwrap().len();
    let fails = |page: &str| {
        world.page(page);
        world.write("compose.yaml", &WEB.replace("build: .,", "build: ., command: [sh, -c, 'exit 7'],"));
        world.rdeploy(["up"]).fails();
    };
    fails("two");
    assert_eq!(images(), 2, "who tries again need not send it again");
    world.rdeploy(["prune"]).succeeds();
    assert_eq!(images(), 1);
    fails("three");
    world.write("compose.yaml", WEB);
    world.rdeploy(["uninstall"]).succeeds();
    assert_eq!(world.names(0), Vec::<String>::new());
    let volumes = || world.engine(0).volumes().list().unwrap().len();
    assert_eq!((volumes(), world.engine(0).images().list().unwrap().len()), (1, 0));
    world.rdeploy(["up"]).succeeds();
    assert_eq!(world.rdeploy(["exec", "web", "cat", "/data/file"]).succeeds().stdout, "mine\n");
    world.rdeploy(["uninstall", "--volumes"]).succeeds();
    assert_eq!(volumes(), 0);
    let left: Vec<_> = fs::read_dir(world.root(0).join("deploy/p"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn images_of_a_rollout_that_never_began_are_taken_away_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let world = World::new(
        1,
        &format!("services: {{web: {{build: ., ports: ['{taken}:80'], stop_grace_period: 0s}}}}\n"),
    );
    let images = || world.engine(0).images().list().unwrap().len();
    world.rdeploy(["up"]).fails();
    assert_eq!(images(), 1, "who tries again need not send it again");
    world.rdeploy(["prune"]).succeeds();
    assert_eq!(images(), 0);
    world.rdeploy(["up"]).fails();
    world.rdeploy(["uninstall"]).succeeds();
    assert_eq!(images(), 0);
    // What was here before is somebody else's.
    world.rdeploy(["up"]).fails();
    let name = world.engine(0).images().list().unwrap()[0].references[0].to_string();
    fs::remove_file(world.root(0).join("deploy/p/brought.json")).unwrap();
    world.rdeploy(["up"]).fails();
    world.rdeploy(["uninstall"]).succeeds();
    assert!(world.engine(0).images().find(&name).unwrap().is_some());
}

#[test]
fn a_locked_project_is_left_alone_until_it_is_released() {
    let world = World::new(2, WEB);
    world.rdeploy(["up"]).succeeds();
    let port = world.port(1, "web");
    world.rdeploy(["lock", "acquire", "-m", "the database moves", "--for", "1h"]).succeeds();
    let refused = world.rdeploy(["lock", "acquire"]).fails().stderr;
    assert!(refused.contains("the database moves") && refused.contains("rdeploy lock release"), "{refused}");
    world.page("two");
    let refused = world.rdeploy(["up"]).fails().stderr;
    assert!(refused.contains("project p is locked by") && refused.contains("until"), "{refused}");
    world.rdeploy(["rollback"]).fails();
    world.rdeploy(["uninstall"]).fails();
    assert_eq!(get(port).unwrap(), "one");
    let shown = world.rdeploy(["lock"]).succeeds().stdout;
    assert_eq!(shown.matches("the database moves").count(), 2, "{shown}");
    assert!(world.rdeploy(["status"]).succeeds().stderr.contains("locked by"));
    // Whoever waits says for whom, and goes on as soon as it is released.
    let mut waiting = world.spawn(["up", "--lock-wait", "1m", "--drain", "0s"]);
    let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("waiting: project p is locked by")));
    std::thread::spawn(move || said.count());
    world.rdeploy(["lock", "release"]).succeeds();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(get(port).unwrap(), "two");
    assert!(world.rdeploy(["lock"]).succeeds().stdout.contains("free"));
}

#[test]
fn a_project_that_cannot_be_locked_everywhere_is_locked_nowhere() {
    let world = World::new(2, WEB);
    world.rdeploy(["up"]).succeeds();
    world.on_one(1, ["lock", "acquire", "--for", "1h"]).succeeds();
    world.rdeploy(["lock", "acquire"]).fails();
    world.on_one(0, ["up"]).succeeds();
}

#[test]
fn a_rollback_takes_less_than_a_second_on_four_hosts() {
    let world = World::new(4, WEB);
    world.rdeploy(["up"]).succeeds();
    world.page("two");
    world.rdeploy(["up", "--drain", "0s"]).succeeds();
    let began = Instant::now();
    world.rdeploy(["rollback", "--drain", "0s"]).succeeds();
    // The bound is loose, for machines that are busy with other tests; the bench has the figure.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for host in 0..4 {
        assert_eq!(get(world.port(host, "web")).unwrap(), "one");
    }
}

#[test]
fn an_ordinary_user_needs_no_engine_to_read_a_published_project() {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
    // Where the user may execute it, wherever this was built.
    let program = home.path().join("rdeploy");
    fs::copy(env!("CARGO_BIN_EXE_rdeploy"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["-f", "oci://127.0.0.1:9/a/b", "-H", "root@127.0.0.1", "plan"]);
    command.uid(65534).gid(65534).current_dir(home.path()).env_clear();
    let output = command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("fetch oci://127.0.0.1:9/a/b") && said.contains("refused"), "{said}");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["rdeploy"], "something of an engine was made");
}
