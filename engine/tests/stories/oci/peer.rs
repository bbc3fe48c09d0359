//! The same bundle under runc and here: what its program sees and how it ends is the same.

use serde_json::{Value, json};

use super::shelf::{Runtime, Shelf};

/// Everything a program can tell of itself that a bundle decides.
const TELL: &str = "
id -u; id -g; id -G; umask; pwd; hostname; echo \"$A\"; ulimit -n
grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status
cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj
ls -ln /dev | grep -v -E ' (core|console|mqueue|ptmx)' | awk '{print $1, $3, $4, $5, $6, $NF}'
for file in /proc/kcore /proc/sys/kernel/hostname /sys/firmware /root /made; do
  (echo x > $file) 2>/dev/null && echo written $file; ls $file 2>/dev/null | wc -l
done
cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes
cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares
head -c 1 /dev/full | wc -c; (exec 4</dev/other) 2>/dev/null; echo $?
(exec 4<>/dev/rw) 2>/dev/null; echo $?; (exec 4<>/dev/ro) 2>/dev/null; echo $?; (exec 4</dev/ro); echo $?
chmod 600 /tmp/file 2>&1; mkdir /tmp/directory 2>&1; uname -m; cat /proc/self/personality 2>/dev/null
ifconfig lo | grep -c UP";

/// Mounts as a set of place, kind and what is said of each.
const MOUNTS: &str = "cut -d' ' -f5,6 /proc/self/mountinfo | sort";

type Change = fn(&mut Value);

const CASES: &[(&str, Change)] = &[
    ("as spec writes it", |_| {}),
    ("another user", |config| {
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o27});
        config["process"]["env"] = json!(["PATH=/bin", "A=b c"]);
        config["process"]["cwd"] = json!("/tmp/deep");
        config["root"]["readonly"] = json!(false);
    }),
    ("capabilities of every set", |config| {
        config["process"]["user"] = json!({"uid": 5, "gid": 5});
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"],
            "effective": ["CAP_CHOWN"],
        });
        config["process"]["noNewPrivileges"] = json!(false);
    }),
    ("limits", |config| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
        config["process"]["oomScoreAdj"] = json!(100);
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 96 << 20});
        config["linux"]["resources"]["cpu"] = json!({"quota": 40000, "period": 100_000, "shares": 600});
        config["linux"]["resources"]["pids"] = json!({"limit": 55});
    }),
    ("memory without a word about swap", |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    }),
    ("a filter", |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                 "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        config["root"]["readonly"] = json!(false);
    }),
    ("a filter without no_new_privs", |config| {
        config["process"]["noNewPrivileges"] = json!(false);
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
        config["root"]["readonly"] = json!(false);
    }),
    ("devices and what may be done with them", |config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/other", "type": "c", "major": 1, "minor": 11, "fileMode": 0o600, "uid": 3, "gid": 4},
            {"path": "/dev/rw", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666},
            {"path": "/dev/ro", "type": "c", "major": 10, "minor": 237, "fileMode": 0o666},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o644},
        ]);
        config["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 237, "access": "r"},
        ]);
    }),
    ("everything but one device", |config| {
        config["linux"]["devices"] =
            json!([{"path": "/dev/rw", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}]);
        config["linux"]["resources"]["devices"] = json!([
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ]);
    }),
    ("kernel parameters", |config| {
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096"});
    }),
    ("nothing hidden", |config| {
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    }),
    ("the host's network and processes", |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| !matches!(one["type"].as_str(), Some("network" | "pid")));
        namespaces.push(json!({"type": "cgroup"}));
    }),
    ("other users", |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 1_600_000_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    }),
    ("mounts of every kind", |config| {
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/home/a", "type": "tmpfs", "source": "t", "options": ["ro", "noexec", "size=1m"]}),
            json!({"destination": "/home/b", "type": "bind", "source": "rootfs/etc", "options": ["bind", "ro"]}),
            json!({"destination": "/home/c/d", "type": "none", "source": "rootfs/etc/passwd", "options": ["rbind", "rw", "nosuid", "nodev"]}),
        ]);
    }),
];

#[test]
fn a_program_sees_the_same_as_under_runc() {
    for (name, change) in CASES {
        let shelf = Shelf::script(TELL);
        // What is made in the one run must not be there in the other.
        let fresh = || {
            let _ = std::fs::remove_dir_all(shelf.bundle().join("rootfs/tmp/directory"));
            let _ = std::fs::remove_file(shelf.bundle().join("rootfs/made"));
            std::fs::write(shelf.bundle().join("rootfs/tmp/file"), "").unwrap();
        };
        shelf.change(change);
        let [ours, theirs] = [Runtime::Ours, Runtime::Runc].map(|runtime| {
            fresh();
            shelf.under(runtime, ["run", &shelf.id]).succeeds().stdout
        });
        assert_eq!(ours, theirs, "{name}");
        shelf.change(|config| config["process"]["args"] = json!(["sh", "-c", MOUNTS]));
        let [ours, theirs] = [Runtime::Ours, Runtime::Runc]
            .map(|runtime| mounts(&shelf.under(runtime, ["run", &shelf.id]).succeeds().stdout));
        assert_eq!(ours, theirs, "{name}");
    }
}

/// Where mounts are and whether they can be written. The covers of what is hidden are each one's own.
fn mounts(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let (place, attributes) = line.split_once(' ').unwrap();
        let hidden = ["/proc/", "/sys/firmware"].iter().any(|hidden| place.starts_with(hidden));
        let cover = hidden || place == "/sys/fs/cgroup";
        format!("{place} {}", if cover { "" } else { attributes })
    };
    text.lines().map(line).collect()
}

#[test]
fn programs_end_with_the_same_codes_as_under_runc() {
    for script in ["exit 0", "exit 42", "kill -TERM $$; exit 3", "exec /etc/passwd", "exec /nope"] {
        let shelf = Shelf::script(script);
        let theirs = shelf.under(Runtime::Runc, ["run", &shelf.id]);
        let ours = shelf.ours(["run", &shelf.id]);
        assert_eq!(ours.code(), theirs.code(), "{script}");
    }
    let shelf = Shelf::new(&["/etc/passwd"]);
    let theirs = shelf.under(Runtime::Runc, ["run", &shelf.id]);
    let ours = shelf.ours(["run", &shelf.id]);
    assert_eq!(ours.code(), theirs.code());
}

#[test]
fn what_is_counted_has_the_same_names_as_under_runc() {
    let shelf = Shelf::new(&["sleep", "100"]);
    // Without limits there are no such control groups here, and nothing is counted that nobody limits.
    let counted = ["cpu", "memory", "pids"];
    let [ours, theirs] = [Runtime::Ours, Runtime::Runc].map(|runtime| {
        shelf.detach(runtime, &[]);
        let text = shelf.under(runtime, ["events", "--stats", &shelf.id]).succeeds().stdout;
        shelf.under(runtime, ["delete", "-f", &shelf.id]).succeeds();
        let stats: Value = serde_json::from_str(&text).unwrap();
        counted.map(|part| names(&stats["data"][part]))
    });
    assert_eq!(ours, theirs);
}

/// The names in an object, and in the objects in it. What is nothing is left out, and what is there differs by chance.
fn names(value: &Value) -> Vec<String> {
    let Value::Object(fields) = value else { return Vec::new() };
    let mut all: Vec<String> = Vec::new();
    for (name, value) in fields {
        if !matches!(name.as_str(), "cache" | "usage" | "max" | "throttledPeriods") || value.is_object() {
            all.push(name.clone());
        }
        all.extend(names(value).iter().map(|below| format!("{name}.{below}")));
    }
    all.sort();
    all
}

#[test]
fn device_rules_that_cgroup_v1_cannot_keep_are_refused_as_under_runc() {
    let shelf = Shelf::script("true");
    shelf.change(|config| {
        config["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 7, "access": "rw"},
            {"allow": false, "type": "b", "major": 7, "minor": 3, "access": "w"},
        ]);
    });
    let theirs = shelf.under(Runtime::Runc, ["run", &shelf.id]);
    let ours = shelf.ours(["run", &shelf.id]);
    assert_eq!(ours.code(), theirs.code());
    if engine::container::cgroup::Layout::detect()
        .unwrap()
        .v1_mount(engine::container::cgroup::Controller::Devices)
        .is_some()
    {
        assert!(ours.stderr.contains("\\\"b 7:3 w\\\""), "{}", ours.stderr);
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_found_out_at_creation() {
    for program in ["/nope", "/etc", "/etc/passwd"] {
        let shelf = Shelf::new(&[program]);
        for runtime in [Runtime::Ours, Runtime::Runc] {
            let created = shelf.under(runtime, ["create", &shelf.id]);
            assert_eq!(created.code(), Some(1), "{program}: {runtime:?}");
        }
    }
}

#[test]
fn huge_pages_are_limited_where_the_kernel_has_them() {
    let shelf = Shelf::new(&["sleep", "100"]);
    shelf.change(|config| {
        config["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4 << 20}]);
    });
    shelf.detach(Runtime::Ours, &[]);
    let limits = ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"];
    assert!(limits.iter().any(|file| shelf.has_limit(file, "4194304")));
}

#[test]
fn no_file_of_the_unified_hierarchy_is_elsewhere() {
    let shelf = Shelf::script("true");
    let outside = shelf.path("outside");
    std::fs::write(&outside, "untouched").unwrap();
    shelf.change(|config| config["linux"]["resources"]["unified"] = json!({outside.to_str().unwrap(): "x"}));
    let refused = shelf.ours(["run", &shelf.id]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("no slashes"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "untouched");
}
