//! Each key of a service has the effect that it promises, seen from inside the container or by who talks to it.

use engine::container::state::State;

use crate::world::{World, get};

#[test]
fn a_service_says_what_runs_and_as_whom() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    entrypoint: ["sh", "-c"]
    command: ["echo $0 $1 > /tmp/args; exec sleep 1000", "one", "two words"]
    env_file: [first.env, {path: none.env, required: false}]
    environment: {B: from the file, C: "${FROM_DOTENV}", D: "", E: null}
    user: "1000:2000"
    group_add: ["3000"]
    working_dir: /var
    hostname: shop
    domainname: example.org
    init: true
    tmpfs: ["/tmp:mode=1777,size=1m"]
    labels: {com.example.shop: "yes"}
    container_name: the-shop
    stop_grace_period: 0s
"#,
    );
    world.write("first.env", "A=first\nB=overridden\nQUOTED=\"two words\"\n");
    world.write(".env", "FROM_DOTENV=interpolated\nE=inherited\n");
    world.write("compose.override.yaml", "services: {web: {environment: [F=overriding]}}\n");
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["the-shop"]);
    assert_eq!(
        world.inside("web", "until [ -s /tmp/args ]; do usleep 10000; done; cat /tmp/args"),
        "one two words\n"
    );
    assert_eq!(
        world.inside("web", "echo $A,$B,$C,${D-unset},$E,$F,$QUOTED"),
        "first,from the file,interpolated,,inherited,overriding,two words\n"
    );
    assert_eq!(world.inside("web", "id -u; id -g; id -G"), "1000\n2000\n2000 3000\n");
    assert_eq!(
        world.inside("web", "pwd; hostname; cat /proc/sys/kernel/domainname"),
        "/var\nshop\nexample.org\n"
    );
    let first = world.inside("web", "cat /proc/1/comm");
    assert_ne!(first, "sleep\n", "an init is process 1");
    assert_eq!(world.inside("web", "df -m /tmp | tail -1 | awk '{print $2}'"), "1\n");
    assert_eq!(world.container("the-shop").record.spec.labels["com.example.shop"], "yes");
}

#[test]
fn limits_and_privileges_hold_inside() {
    let world = World::new(
        r#"
services:
  tight:
    image: box
    command: [sleep, "1000"]
    read_only: true
    tmpfs: /run
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE, CAP_CHOWN]
    security_opt: ["no-new-privileges:true"]
    ulimits: {nofile: {soft: 100, hard: 200}, core: 0}
    sysctls: {net.ipv4.ip_unprivileged_port_start: 80}
    shm_size: 8m
    oom_score_adj: 500
    pids_limit: 50
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5"}}}
    devices: ["/dev/null:/dev/nothing:r"]
    stop_grace_period: 0s
  apart: {image: box, command: [sleep, "1000"], userns_mode: "auto:size=2048", stop_grace_period: 0s}
  loose: {image: box, command: [sleep, "1000"], privileged: true, pid: host, stop_grace_period: 0s}
"#,
    );
    world.rcompose(["up", "-d"]).succeeds();
    let tight = |command: &str| world.inside("tight", command);
    assert_eq!(tight("touch /file 2>/dev/null || echo refused"), "refused\n");
    assert_eq!(tight("touch /run/file && echo allowed"), "allowed\n");
    // CAP_CHOWN is bit 0, CAP_NET_BIND_SERVICE bit 10.
    assert_eq!(tight("awk '/CapBnd|NoNewPrivs/ {print $2}' /proc/1/status"), "0000000000000401\n1\n");
    assert_eq!(tight("ulimit -Sn; ulimit -Hn; ulimit -c"), "100\n200\n0\n");
    assert_eq!(tight("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "80\n");
    assert_eq!(world.inside("apart", "awk '{print $1, $3}' /proc/self/uid_map"), "0 2048\n");
    assert_eq!(tight("df -m /dev/shm | tail -1 | awk '{print $2}'"), "8\n");
    assert_eq!(tight("cat /proc/1/oom_score_adj"), "500\n");
    assert_eq!(tight("head -c1 /dev/nothing | wc -c; test -w /dev/null && echo w"), "0\nw\n");
    let resources = world.container("p-tight-1").record.spec.resources;
    assert_eq!(resources.memory.unwrap().0, 64 << 20);
    assert_eq!((resources.nano_cpus, resources.pids), (Some(500_000_000), Some(50)));
    assert_eq!(tight("i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done 2>&1 | grep -c fork"), "1\n");
    let own = std::process::id();
    assert_eq!(world.inside("loose", &format!("test -d /proc/{own} && echo seen")), "seen\n");
    assert_eq!(world.inside("loose", "awk '/NoNewPrivs|Seccomp:/ {print $2}' /proc/self/status"), "0\n0\n");
}

#[test]
fn networks_names_and_addresses_are_as_the_file_says() {
    let world = World::new(
        r#"
services:
  db:
    image: box
    command: ["httpd", "-f", "-p", "8080", "-h", "/"]
    stop_grace_period: 0s
    healthcheck: {test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/etc/hello"], interval: 1s}
    networks:
      back: {aliases: [database], ipv4_address: 10.213.7.50, mac_address: "02:42:0a:d5:07:32"}
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    networks:
      front:
        interface_name: outer
        driver_opts: {com.docker.network.endpoint.sysctls: "net.ipv4.conf.IFNAME.log_martians=1"}
      back: {}
    links: ["db:linked"]
    extra_hosts: ["elsewhere=192.0.2.7", "me:host-gateway"]
    dns_search: [example.org]
    dns_opt: [timeout:3]
  outside: {image: box, command: [sleep, "1000"], networks: [front], stop_grace_period: 0s}
  alone: {image: box, command: [sleep, "1000"], network_mode: none, stop_grace_period: 0s}
  host: {image: box, command: [sleep, "1000"], network_mode: host, stop_grace_period: 0s}
networks:
  front: {}
  back:
    name: the-back
    internal: true
    ipam: {config: [{subnet: 10.213.7.0/24, gateway: 10.213.7.1}]}
    labels: {what: for}
"#,
    );
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    for name in ["db", "database", "linked", "p-db-1", "10.213.7.50"] {
        let page = world.inside("web", &format!("wget -qO- http://{name}:8080/etc/hello"));
        assert_eq!(page, "hello\n", "{name}");
    }
    let from_outside = world.rcompose(["exec", "-T", "outside", "nslookup", "db"]);
    assert_ne!(from_outside.code, 0, "a name is known on its networks only");
    assert_eq!(world.inside("db", "cat /sys/class/net/eth0/address"), "02:42:0a:d5:07:32\n");
    assert_eq!(
        world.inside("db", "ip route | grep -c default; true"),
        "0\n",
        "an internal network leads nowhere"
    );
    let martians = "cat /proc/sys/net/ipv4/conf/$name/log_martians";
    let links =
        world.inside("web", &format!("cd /sys/class/net; for name in *; do echo $name $({martians}); done"));
    assert!(links.contains("outer 1\n") && links.lines().count() == 3, "{links}");
    let hosts = world.inside("web", "cat /etc/hosts");
    assert!(hosts.lines().any(|line| line.split_whitespace().eq(["192.0.2.7", "elsewhere"])), "{hosts}");
    assert!(hosts.lines().any(|line| line.split_whitespace().nth(1) == Some("me")), "{hosts}");
    let resolver = world.inside("web", "cat /etc/resolv.conf");
    assert!(resolver.contains("search example.org") && resolver.contains("timeout:3"), "{resolver}");
    assert_eq!(world.inside("alone", "ls /sys/class/net"), "lo\n");
    assert_eq!(world.inside("host", "readlink /proc/self/ns/net"), own_namespace("net"));
    assert!(world.engine().networks().find("p_default").is_err(), "a network nobody uses is not made");
    let back = world.engine().networks().find("the-back").unwrap();
    assert_eq!(back.spec.labels["what"], "for");
}

fn own_namespace(kind: &str) -> String {
    format!("{}\n", std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display())
}

#[test]
fn ports_are_published_in_the_short_and_in_the_long_form() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    command: ["sh", "-c", "httpd -p 8080 -h /etc; httpd -p 9090 -h /etc; exec sleep 1000"]
    stop_grace_period: 0s
    expose: ["7000-7001"]
    healthcheck: {test: ["CMD", "wget", "-qO-", "http://127.0.0.1:9090/hello"], interval: 1s}
    ports:
      - "8080"
      - {target: 9090, host_ip: 127.0.0.1, protocol: tcp, published: "42300-42399"}
"#,
    );
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    let short = world.port("web", 8080);
    let long = world.port("web", 9090);
    assert!((42300..=42399).contains(&long), "{long}");
    assert_eq!(get(short, "/hello").1, "hello\n");
    assert_eq!(get(long, "/hello").1, "hello\n");
    let ps = world.rcompose(["ps", "--format", "json"]).succeeds().stdout;
    let row: serde_json::Value = serde_json::from_str(ps.lines().next().unwrap()).unwrap();
    let publishers = row["Publishers"].as_array().unwrap();
    assert!(
        publishers.iter().any(|port| port["URL"] == "127.0.0.1" && port["PublishedPort"] == long),
        "{row}"
    );
    assert!(world.rcompose(["ps"]).succeeds().stdout.contains("7000-7001/tcp"), "what is exposed is shown");
    // Moved, the old one is free again.
    world.write(
        "compose.yaml",
        &format!("services: {{web: {{image: box, command: [sleep, \"1000\"], ports: [\"{short}:8080\"]}}}}"),
    );
    world.rcompose(["up", "-d", "-t", "0"]).succeeds();
    assert_eq!(world.port("web", 8080), short);
}

#[test]
fn mounts_show_what_they_say_where_they_say() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    volumes:
      - ./src:/src:ro
      - ./made:/made
      - data:/data
      - /anonymous
      - {type: volume, source: data, target: /part, volume: {subpath: sub}, read_only: true}
      - {type: tmpfs, target: /cache, tmpfs: {size: 1048576, mode: 0700}}
      - {type: bind, source: ./src/file, target: /one}
  heir: {image: box, command: [sleep, "1000"], volumes_from: ["web:ro"], stop_grace_period: 0s}
volumes:
  data: {labels: {what: for}}
"#,
    );
    world.write("src/file", "from the host\n");
    // The part has to be there before it is shown.
    world.rcompose(["create"]).succeeds();
    let data = world.engine().volumes().get("p_data").unwrap();
    assert_eq!(data.labels["what"], "for");
    std::fs::create_dir_all(world.engine().root().volume(&data.name).join("_data/sub")).unwrap();
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.inside("web", "cat /src/file /one"), "from the host\nfrom the host\n");
    assert_eq!(world.inside("web", "touch /src/new 2>/dev/null || echo refused"), "refused\n");
    world.inside("web", "echo out > /made/file; echo kept > /data/sub/file");
    assert_eq!(std::fs::read_to_string(world.project().join("made/file")).unwrap(), "out\n");
    assert_eq!(
        world.inside("web", "cat /part/file; touch /part/x 2>/dev/null || echo refused"),
        "kept\nrefused\n"
    );
    assert_eq!(
        world.inside("web", "stat -c %a /cache; df -k /cache | tail -1 | awk '{print $2}'"),
        "700\n1024\n"
    );
    assert_eq!(world.inside("heir", "cat /data/sub/file /made/file"), "kept\nout\n");
    assert_eq!(world.inside("heir", "touch /data/x 2>/dev/null || echo refused"), "refused\n");
}

#[test]
fn a_container_is_stopped_with_its_signal_and_within_its_grace() {
    let world = World::new(
        r#"
services:
  polite:
    image: box
    command: ["sh", "-c", "trap 'echo bye > /out/word; exit 5' USR1; touch /ready; while :; do sleep 0.05; done"]
    healthcheck: {test: ["CMD", "test", "-e", "/ready"], interval: 1s}
    stop_signal: SIGUSR1
    volumes: ["./out:/out"]
  deaf: {image: box, command: ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], stop_grace_period: 100ms}
"#,
    );
    world.rcompose(["up", "-d", "--wait"]).succeeds();
    world.rcompose(["stop"]).succeeds();
    assert_eq!(std::fs::read_to_string(world.project().join("out/word")).unwrap(), "bye\n");
    let code = |name: &str| match world.container(name).state {
        State::Exited(exited) => exited.code,
        other => panic!("{name} is {}", other.word()),
    };
    assert_eq!((code("p-polite-1"), code("p-deaf-1")), (5, 137));
}

#[test]
fn what_fails_is_started_again_as_often_as_its_policy_says() {
    let world = World::new(
        r#"
services:
  fails: {image: box, command: ["sh", "-c", "echo again >> /out/log; exit 3"], restart: "on-failure:2", volumes: ["./out:/out"]}
  paced:
    image: box
    command: ["sh", "-c", "echo again >> /out/paced"]
    volumes: ["./out:/out"]
    deploy: {restart_policy: {condition: any, max_attempts: 3, delay: 10ms, window: 1h}}
  never: {image: box, command: ["false"], restart: "no"}
  deployed: {image: box, command: ["false"], restart: always, deploy: {restart_policy: {condition: none}}}
"#,
    );
    world.rcompose(["up", "-d"]).succeeds();
    // `wait` is about one end, as docker's is.
    while !matches!(world.container("p-fails-1").state, State::Exited(_)) {
        assert_eq!(world.rcompose(["wait", "fails"]).code, 3);
    }
    assert_eq!(std::fs::read_to_string(world.project().join("out/log")).unwrap(), "again\n".repeat(3));
    while !matches!(world.container("p-paced-1").state, State::Exited(_)) {
        assert_eq!(world.rcompose(["wait", "paced"]).code, 0);
    }
    assert_eq!(std::fs::read_to_string(world.project().join("out/paced")).unwrap(), "again\n".repeat(4));
    assert_eq!(world.rcompose(["wait", "never"]).code, 1);
    assert_eq!(world.rcompose(["wait", "deployed"]).code, 1);
}

#[test]
fn services_are_as_many_and_only_those_that_are_asked_for() {
    let world = World::new(
        r#"
services:
  web: {image: box, command: [sleep, "1000"], deploy: {replicas: 2}, stop_grace_period: 0s}
  worker: {image: box, command: [sleep, "1000"], scale: 2, stop_grace_period: 0s}
  none: {image: box, scale: 0}
  debug: {image: box, command: [sleep, "1000"], profiles: [tools], stop_grace_period: 0s}
"#,
    );
    world.rcompose(["up", "-d"]).succeeds();
    assert_eq!(world.running(), ["p-web-1", "p-web-2", "p-worker-1", "p-worker-2"]);
    world.rcompose(["--profile", "tools", "up", "-d"]).succeeds();
    assert!(world.running().contains(&"p-debug-1".to_owned()));
    world.rcompose(["scale", "web=1", "worker=3"]).succeeds();
    assert_eq!(world.running(), ["p-debug-1", "p-web-1", "p-worker-1", "p-worker-2", "p-worker-3"]);
    // A service of a profile that is off is no orphan; down takes it along all the same.
    let down = world.rcompose(["down"]).succeeds();
    assert!(!down.stderr.contains("orphan"), "{}", down.stderr);
    assert_eq!(world.names(), [] as [String; 0]);
    world.rcompose(["up", "-d", "debug"]).succeeds();
    assert_eq!(world.running(), ["p-debug-1"], "a service asked for by name needs no profile");
}

#[test]
fn logs_are_kept_as_the_service_says() {
    let world = World::new(
        r#"
services:
  short:
    image: box
    command: ["sh", "-c", "i=0; while [ $$i -lt 1000 ]; do echo line number $$i; i=$$((i+1)); done"]
    logging: {driver: json-file, options: {max-size: 1k, max-file: "2"}}
  silent: {image: box, command: [echo, nothing], logging: {driver: none}}
"#,
    );
    world.rcompose(["up", "-d"]).succeeds();
    world.rcompose(["wait", "short"]).succeeds();
    world.rcompose(["wait", "silent"]).succeeds();
    let logs = world.rcompose(["logs", "--no-log-prefix", "short"]).succeeds().stdout;
    assert!(logs.ends_with("line number 999\n") && !logs.contains("line number 500\n"), "{logs}");
    let tail = world.rcompose(["logs", "--no-log-prefix", "-n", "2", "short"]).succeeds().stdout;
    assert_eq!(tail, "line number 998\nline number 999\n");
}

#[test]
fn a_network_without_ipv4_has_ipv6_alone() {
    let file = |families: &str| {
        format!(
            r#"
services:
  web: {{image: box, command: [httpd, -f, -p, "80", -h, /etc], stop_grace_period: 0s, networks: [six]}}
  peer: {{image: box, command: [sleep, "1000"], stop_grace_period: 0s, networks: [six]}}
networks: {{six: {{{families}}}}}
"#
        )
    };
    let world = World::new(&file("enable_ipv4: false, enable_ipv6: true"));
    let up = world.rcompose(["up", "-d"]).succeeds();
    assert!(!up.stderr.contains("enable_ipv4"), "{}", up.stderr);
    let routes = world.inside("peer", "tail -n +2 /proc/net/route");
    assert_eq!(routes, "", "no route of IPv4");
    let page = world.inside("peer", "until wget -qO- http://web/passwd; do usleep 10000; done");
    assert!(page.starts_with("root:"), "{page}");
    world.rcompose(["down"]).succeeds();
    world.write("compose.yaml", &file("enable_ipv4: false"));
    let up = world.rcompose(["up", "-d"]);
    assert_eq!(up.code, 1);
    assert!(
        up.stderr.contains("network p_six") && up.stderr.contains("neither IPv4 nor IPv6"),
        "{}",
        up.stderr
    );
}

#[test]
fn ports_that_nobody_can_be_led_to_are_warned_about() {
    let world = World::new(
        "services:\n  web: {image: box, network_mode: host, ports: ['80:80']}\n  job: {image: box, network_mode: none, ports: ['81:80']}\n",
    );
    let said = world.rcompose(["config", "-q"]).succeeds().stderr;
    assert!(said.contains("ports has no effect: in the host's network"), "{said}");
    assert!(said.contains("compose.yaml:2:") && said.contains("compose.yaml:3:"), "{said}");
}
