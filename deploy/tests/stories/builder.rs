//! A machine of its own that builds.

use crate::deploy::{Project, get, succeeds};
use crate::server::{Kind, Network, Server};

/// Bytes that have come to a server so far.
fn arrived(server: &Server) -> u64 {
    server.run("cat /sys/class/net/eth0/statistics/rx_bytes").parse().unwrap()
}

#[test]
fn a_machine_of_the_images_kind_builds_and_gets_only_what_changed() {
    let network = Network::new();
    let (host, builder) = (Server::of(&network, Kind::default()), Server::of(&network, Kind::default()));
    let project = Project::new();
    let kind = engine::image::Platform::host();
    project.write("rdeploy.yaml", &format!("builder: {{{kind}: 'root@{}'}}\n", builder.ip()));
    // In the context, and in no image.
    let noise: Vec<u8> =
        (0..1_u32 << 20).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(project.path().join("large"), noise).unwrap();
    let pin = builder.fingerprint("ed25519").to_string();
    let up = |words: &[&str]| {
        let words: Vec<&str> = ["--fingerprint", &pin, "up"].iter().chain(words).copied().collect();
        succeeds(&project.rdeploy(&[&host], &words))
    };
    up(&[]);
    assert_eq!(get(host.ip()).unwrap(), "one");
    let images = |server: &Server| server.run("$(ls /var/lib/rengine/bin/*/rdeploy) rengine images");
    assert!(images(&builder).contains("rdeploy/context") && !images(&host).contains("rdeploy/context"));
    project.write("page", "two\n");
    let before = arrived(&builder);
    up(&["--drain", "0s"]);
    assert_eq!(get(host.ip()).unwrap(), "two");
    let came = arrived(&builder) - before;
    assert!(came < 300_000, "{came} bytes for one line");
}
