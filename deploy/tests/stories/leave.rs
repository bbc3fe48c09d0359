//! What is left of a project that has gone.

use crate::deploy::{Project, succeeds};
use crate::server::{Kind, Network, Server};

/// Everything that a project may leave on a server: files, mounts, links, and what the firewall has.
fn traces(server: &Server) -> String {
    server.run(
        "find /var/lib/rengine /var/lib/rdeploy /run /tmp /root /usr/local/bin /etc/systemd -printf '%p %y\\n' | \
             grep -v -e /run/utmp -e /run/sshd.pid | sort; \
         findmnt -rno TARGET; ls /sys/class/net; nft list tables",
    )
}

#[test]
fn the_last_project_of_a_server_leaves_no_trace() {
    let systemd = "mkdir -p /run/systemd/system";
    let server = Server::of(&Network::new(), Kind::default().script(systemd));
    let before = traces(&server);
    let (first, second) = (Project::new(), Project::new());
    let other = "name: other\nservices:\n  web: {build: ., ports: ['8081:80'], stop_grace_period: 0s}\n";
    second.write("compose.yaml", other);
    succeeds(&first.rdeploy(&[&server], &["up"]));
    succeeds(&first.rdeploy(&[&server], &["setup"]));
    succeeds(&second.rdeploy(&[&server], &["up"]));
    let gone = succeeds(&first.rdeploy(&[&server], &["uninstall", "--volumes", "--json"]));
    assert!(gone.contains("\"engine_removed\":false"), "{gone}");
    let status = succeeds(&second.rdeploy(&[&server], &["status"]));
    assert!(status.contains("running"), "{status}");
    let gone = succeeds(&second.rdeploy(&[&server], &["uninstall", "--volumes", "--json"]));
    assert!(gone.contains("\"engine_removed\":true"), "{gone}");
    assert_eq!(traces(&server), before);
    // And it is a server like any other afterwards.
    succeeds(&first.rdeploy(&[&server], &["up"]));
}

#[test]
fn executables_that_nobody_runs_any_more_are_pruned() {
    let server = Server::start();
    let project = Project::new();
    let bring = |name: &str| {
        format!("mkdir -p /var/lib/rengine/bin/{name}; cp /bin/sleep /var/lib/rengine/bin/{name}/rdeploy")
    };
    server.run(&format!("{}; {}; {}", bring("old"), bring("runs"), bring("linked")));
    server.run("/var/lib/rengine/bin/runs/rdeploy 1000 >/dev/null 2>&1 &");
    server.run("ln -s /var/lib/rengine/bin/linked/rdeploy /usr/local/bin/rdeploy");
    succeeds(&project.rdeploy(&[&server], &["up"]));
    assert_eq!(server.run("ls /var/lib/rengine/bin | wc -l"), "4");
    succeeds(&project.rdeploy(&[&server], &["prune"]));
    assert_eq!(server.run("ls /var/lib/rengine/bin | grep -v sha256"), "linked\nruns");
    assert_eq!(server.run("ls /var/lib/rengine/bin | wc -l"), "3");
}
