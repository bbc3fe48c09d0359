//! Projects that are in git repositories, fetched by the real git from a real server of files.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{Outcome, World};

/// Serves the files of a directory, which is all that git needs, for as long as the tests run.
fn serve(directory: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
            let found = fs::read(directory.join(path.trim_start_matches('/')));
            let status = if found.is_ok() { "200 OK" } else { "404 Not Found" };
            let body = found.unwrap_or_default();
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // Whoever asked may have gone.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    address
}

fn git(directory: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=me", "-c", "user.email=me@example.com"])
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success(), "{arguments:?}");
}

/// A repository with two versions of a project, at the address that is returned.
fn repository(world: &World) -> String {
    let work = world.project().join("shop.git");
    world.write("shop.git/.env", "WORDS=from the top\n");
    world.write(
        "shop.git/compose.yaml",
        "services: {web: {image: box, command: [sleep, '1000'], stop_grace_period: 0s, environment: {W: $WORDS}, volumes: ['./page:/page:ro']}}\n",
    );
    world.write("shop.git/page", "one\n");
    world.write("shop.git/deploy/compose.yml", "services: {job: {image: box}}\n");
    world.write("shop.git/deploy/other.yaml", "services: {other: {image: box}}\n");
    world.write(
        "shop.git/image/Dockerfile",
        "FROM box\nCOPY page /page\nCOPY --from=more compose.yml /more\n",
    );
    world.write("shop.git/image/page", "built\n");
    git(&work, &["init", "-q", "-b", "main"]);
    for page in ["one\n", "two\n"] {
        world.write("shop.git/page", page);
        git(&work, &["add", "-A"]);
        git(&work, &["commit", "-q", "-m", "x"]);
        git(&work, &["tag", if page == "one\n" { "v1" } else { "v2" }]);
    }
    git(&work, &["update-server-info"]);
    // As it lies on a server: the repository alone.
    fs::rename(work.join(".git"), world.project().join("bare")).unwrap();
    fs::remove_dir_all(&work).unwrap();
    fs::rename(world.project().join("bare"), &work).unwrap();
    format!("{}/shop.git", serve(world.project()))
}

#[test]
fn a_project_is_started_from_a_repository() {
    let world = World::new("services: {}\n");
    let address = repository(&world);
    let rcompose = |from: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rcompose"));
        command.args(["-f", from]).args(args).current_dir(world.project());
        command.env("RENGINE_ROOT", world.engine().root().state());
        command.env("XDG_CACHE_HOME", world.project().join("cache"));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        Outcome::of(&mut command)
    };
    rcompose(&format!("{address}#v1"), &["up", "-d"]).succeeds();
    let page = ["exec", "-T", "web", "sh", "-c", "cat /page; echo $W"];
    assert_eq!(world.running(), ["shop-web-1"], "it is called after the repository");
    assert_eq!(rcompose(&format!("{address}#v1"), &page).succeeds().stdout, "one\nfrom the top\n");
    rcompose(&address, &["up", "-d"]).succeeds();
    assert_eq!(rcompose(&address, &page).succeeds().stdout, "two\nfrom the top\n");
    let services = |from: &str| rcompose(&format!("{address}{from}"), &["config", "--services"]);
    assert_eq!(services("#main:deploy").succeeds().stdout, "job\n");
    assert_eq!(services("#:deploy/other.yaml").succeeds().stdout, "other\n");
    for (from, why) in [
        ("#nosuch", "has no refs/heads/nosuch"),
        ("#main:nosuch", "has no directory \"nosuch\""),
        ("#main:../..", "not in the repository"),
    ] {
        let refused = services(from);
        assert!(refused.code == 1 && refused.stderr.contains(why), "{}", refused.stderr);
    }
    let page = rcompose(&format!("{address}.html"), &["config"]);
    assert!(page.code == 1 && page.stderr.contains("is no git repository"), "{}", page.stderr);
    rcompose(&address, &["down"]).succeeds();
    // Mounts of files that are fetched: what is written to one stays with this version of them.
    world.write(
        "more.yaml",
        "services: {web: {volumes: ['./data:/data', './image:/image:ro', './.env:/env', 'own:/own']}}\nvolumes: {own: }\n",
    );
    let more = world.project().join("more.yaml");
    let up = rcompose(&address, &["-f", more.to_str().unwrap(), "up", "-d"]).succeeds();
    let warned: Vec<&str> = up.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warned.len(), 1, "{}", up.stderr);
    assert!(warned[0].contains("what is written to /data stays with this version"), "{}", up.stderr);
    assert!(up.stderr.contains("more.yaml:1:"), "{}", up.stderr);
    rcompose(&address, &["-f", more.to_str().unwrap(), "down", "-v"]).succeeds();
}

#[test]
fn files_of_a_repository_are_included_and_extended_and_named_by_the_environment() {
    let world = World::new("services: {}\n");
    let address = repository(&world);
    let config = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rcompose"));
        command.args(args).current_dir(world.project()).envs(variables.iter().copied());
        command.env("RENGINE_ROOT", world.engine().root().state());
        command.env("XDG_CACHE_HOME", world.project().join("cache"));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        Outcome::of(&mut command)
    };
    let file = "include: ['@#v1']\nservices:\n  own:\n    extends: {file: '@#main:deploy/other.yaml', service: other}\n";
    world.write("compose.yaml", &file.replace('@', &address));
    let whole = config(&[], &["config"]).succeeds().stdout;
    // The included project has its own directory and its own .env.
    for part in ["  own:", "  web:", "W: from the top", "/shop/page"] {
        assert!(whole.contains(part), "{part} is missing in {whole}");
    }
    let named = format!("compose.yaml:{address}#main:deploy");
    let services = config(&[("COMPOSE_FILE", &named)], &["config", "--services"]).succeeds();
    assert_eq!(services.stdout, "job\nown\nweb\n");
    for (from, to, why) in [
        ("#v1", "#nosuch", "key: include[0]"),
        ("main:deploy/other.yaml", "nosuch", "key: services.own.extends.file"),
    ] {
        world.write("compose.yaml", &file.replace('@', &address).replace(from, to));
        let refused = config(&[], &["config"]);
        let says = |wanted: &str| refused.stderr.contains(wanted);
        assert!(refused.code == 1 && says("has no refs/heads/nosuch") && says(why), "{}", refused.stderr);
    }
    let forbidden = config(&[("COMPOSE_EXPERIMENTAL_GIT_REMOTE", "0")], &["config"]);
    assert!(forbidden.code == 1 && forbidden.stderr.contains("disabled"), "{}", forbidden.stderr);
}

#[test]
fn an_image_is_built_from_a_repository() {
    let world = World::new("services: {}\n");
    let address = repository(&world);
    let file = "services: {web: {build: {context: '@#main:image', additional_contexts: {more: '@#main:deploy'}}, command: [sleep, '1000'], stop_grace_period: 0s}}\n";
    world.write("compose.yaml", &file.replace('@', &address));
    world.rcompose(["build", "--check"]).succeeds();
    assert!(world.engine().images().find("p-web").unwrap().is_none(), "a check builds nothing");
    world.rcompose(["up", "-d", "--build"]).succeeds();
    assert_eq!(world.inside("web", "cat /page /more"), "built\nservices: {job: {image: box}}\n");
    world.write("compose.yaml", &file.replace('@', &format!("{address}#nosuch")).replace("#main", ""));
    let missing = world.rcompose(["build"]);
    assert!(missing.code == 1 && missing.stderr.contains("has no refs/heads/nosuch"), "{}", missing.stderr);
}
