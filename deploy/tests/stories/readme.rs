//! The workflows of the action's README, as they stand there.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::action::{Repository, text};
use crate::server::{Kind, Network, Server};

/// The block of YAML in the README that begins with this line.
fn block(first: &str) -> String {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../action/README.md")).unwrap();
    let start = readme.find(&format!("```yaml\n{first}")).unwrap() + "```yaml\n".len();
    readme[start..].split("```").next().unwrap().to_owned()
}

/// A workflow of the README with the executable under test.
fn workflow(name: &str) -> String {
    let text = block(&format!("name: {name}\n"));
    let with = "uses: ./action\n        with:\n";
    assert!(text.contains(with), "{text}");
    text.replace(with, &format!("{with}          binary: ${{{{ env.BUILT }}}}\n"))
}

fn page(server: Ipv4Addr, port: u16) -> std::io::Result<String> {
    crate::deploy::get_at((server, port).into())
}

/// The port that the first preview's environment has as its `url`.
fn port_of(said: &str, server: Ipv4Addr) -> u16 {
    let (_, rest) = said.split_once(&format!("http://{server}:")).unwrap_or_else(|| panic!("no url: {said}"));
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn a_pull_request_has_a_preview_until_it_is_closed() {
    let network = Network::new();
    let server = Server::of(&network, Kind::default());
    let repository = Repository::new(&workflow("preview"));
    repository.write("compose.preview.yaml", &block("# compose.preview.yaml"));
    let event = |number: u32, action: &str| {
        let event = format!(
            "{{\"action\": \"{action}\", \"number\": {number}, \"repository\": {{\"full_name\": \"shop/shop\"}}, \
             \"pull_request\": {{\"number\": {number}, \"head\": {{\"ref\": \"topic\", \"repo\": {{\"full_name\": \"shop/shop\"}}}}, \
             \"base\": {{\"ref\": \"main\"}}}}}}"
        );
        let output = repository.happen(&server, "pull_request", &event);
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        said
    };
    let seventh = port_of(&event(7, "opened"), server.ip());
    assert_eq!(page(server.ip(), seventh).unwrap(), "one");
    repository.write("page", "two\n");
    let eighth = port_of(&event(8, "opened"), server.ip());
    assert_eq!(page(server.ip(), eighth).unwrap(), "two");
    assert_eq!(page(server.ip(), seventh).unwrap(), "one", "one preview is in the way of the other");
    repository.write("page", "three\n");
    assert_eq!(port_of(&event(7, "synchronize"), server.ip()), seventh);
    assert_eq!(page(server.ip(), seventh).unwrap(), "three");
    event(7, "closed");
    page(server.ip(), seventh).unwrap_err();
    assert_eq!(page(server.ip(), eighth).unwrap(), "two");
    let names = server.run("$(ls /var/lib/rengine/bin/*/rdeploy) rengine ps -a --format '{{.Names}}'");
    assert_eq!(names, "pr-8-web-1");
}

#[test]
fn a_commit_is_in_staging_before_it_is_in_production() {
    let network = Network::new();
    let server = Server::of(&network, Kind::default());
    let repository = Repository::new(&workflow("environments"));
    repository.write("compose.preview.yaml", &block("# compose.preview.yaml"));
    let output = repository.happen(&server, "push", "{\"ref\": \"refs/heads/main\"}");
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(crate::deploy::get(server.ip()).unwrap(), "one");
    assert_eq!(page(server.ip(), port_of(&said, server.ip())).unwrap(), "one");
}
