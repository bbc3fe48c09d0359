//! Devices, and containers outside of the project that a service knows.

use std::fs;

use crate::world::World;

#[test]
fn devices_of_a_vendor_and_rules_for_devices_hold_inside() {
    let world = World::new(
        r#"
services:
  pad:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    devices: [acme.com/pad=one]
    device_cgroup_rules: ["c 1:3 rw"]
    gpus: [{driver: amd, count: 1}]
    deploy: {resources: {reservations: {devices: [{capabilities: [gpu], device_ids: ["a"]}]}}}
"#,
    );
    let describe = |kind: &str, device: &str| {
        let variable = format!("{}_{device}", kind.split('.').next().unwrap());
        format!(
            r#"{{"cdiVersion": "0.6.0", "kind": "{kind}", "devices": [{{"name": "{device}",
            "containerEdits": {{"env": ["{variable}=here"]}}}}]}}"#
        )
    };
    let directory = world.engine().root().cdi();
    fs::create_dir_all(&directory).unwrap();
    for (kind, device) in [("acme.com/pad", "one"), ("amd.com/gpu", "0"), ("nvidia.com/gpu", "a")] {
        let file = directory.join(format!("{}.json", kind.replace(['.', '/'], "-")));
        fs::write(file, describe(kind, device)).unwrap();
    }
    let up = world.rcompose(["up", "-d"]).succeeds();
    assert!(!up.stderr.contains("no effect"), "{}", up.stderr);
    let set = world.inside("pad", "echo $acme_one $amd_0 $nvidia_a");
    assert_eq!(set, "here here here\n");
    let spec = world.container("p-pad-1").record.spec;
    assert_eq!(spec.device_rules.len(), 1);
}

#[test]
fn a_device_nobody_describes_is_named_with_its_service() {
    let world = World::new("services: {pad: {image: box, command: [\"true\"], gpus: all}}\n");
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1);
    assert!(up.stderr.contains("nvidia.com/gpu=all") && up.stderr.contains("pad"), "{}", up.stderr);
}

#[test]
fn a_container_outside_of_the_project_answers_to_the_name_it_is_linked_by() {
    let world = World::new(
        r#"
services:
  other: {image: box, command: [sleep, "1000"], stop_grace_period: 0s}
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    external_links: ["outside:store"]
"#,
    );
    let up = world.rcompose(["up", "-d", "web"]);
    assert!(up.code == 1 && up.stderr.contains("outside"), "{}", up.stderr);
    world.rcompose(["run", "-d", "--name", "outside", "other"]).succeeds();
    world.rcompose(["up", "-d", "web"]).succeeds();
    let found = world.inside("web", "nslookup -type=a store");
    let address = world.container("outside").endpoints[0].ipv4().unwrap().to_string();
    assert!(found.contains(&address), "{address} is missing in {found}");
}
