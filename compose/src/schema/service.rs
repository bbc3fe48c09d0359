//! The table: A service.

use super::build::{BUILD, DEVELOP};
use super::deploy::{BLKIO, DEPLOY, DEVICE_REQUEST, ULIMITS};
use super::rule::{container_name, ipv4, ipv6, pull_policy, restart, signal};
use super::{ANY_INT, NATURAL, Object, Shape, Short, object, requiring};

/// A service.
pub(crate) static SERVICE: Shape = Shape::Object(&object(&[
    ("annotations", Shape::Pairs(false)),
    ("attach", Shape::Bool),
    ("blkio_config", Shape::Object(&BLKIO)),
    ("build", Shape::Short(Short::Build, &BUILD)),
    ("cap_add", Shape::Texts),
    ("cap_drop", Shape::Texts),
    ("cgroup", Shape::Word(&["host", "private"])),
    ("cgroup_parent", Shape::Text),
    ("command", Shape::Command),
    ("configs", Shape::List(&REFERENCE)),
    ("container_name", Shape::Checked(container_name)),
    ("cpu_count", NATURAL),
    ("cpu_percent", Shape::Number),
    ("cpu_period", Shape::Micros),
    ("cpu_quota", Shape::Micros),
    ("cpu_rt_period", Shape::Micros),
    ("cpu_rt_runtime", Shape::Micros),
    ("cpu_shares", ANY_INT),
    ("cpus", Shape::Number),
    ("cpuset", Shape::Text),
    (
        "credential_spec",
        Shape::Object(&object(&[("config", Shape::Text), ("file", Shape::Text), ("registry", Shape::Text)])),
    ),
    ("depends_on", Shape::Short(Short::DependsOn, &Shape::Map(&DEPENDENCY))),
    ("deploy", Shape::Nullable(&DEPLOY)),
    ("develop", Shape::Nullable(&DEVELOP)),
    ("device_cgroup_rules", Shape::Texts),
    ("devices", Shape::List(&Shape::Short(Short::Device, &DEVICE))),
    ("dns", Shape::TextOrTexts),
    ("dns_opt", Shape::Texts),
    ("dns_search", Shape::TextOrTexts),
    ("domainname", Shape::Text),
    ("entrypoint", Shape::Command),
    ("env_file", Shape::Short(Short::EnvFiles, &Shape::List(&Shape::Short(Short::EnvFile, &ENV_FILE)))),
    ("environment", Shape::Pairs(true)),
    ("expose", Shape::Scalars),
    ("extends", Shape::Short(Short::Extends, &EXTENDS)),
    ("external_links", Shape::Texts),
    ("extra_hosts", Shape::Hosts),
    ("gpus", Shape::Short(Short::Gpus, &Shape::List(&DEVICE_REQUEST))),
    ("group_add", Shape::Scalars),
    ("healthcheck", HEALTHCHECK),
    ("hostname", Shape::Text),
    ("image", Shape::Text),
    ("init", Shape::Bool),
    ("ipc", Shape::Text),
    ("isolation", Shape::Text),
    ("label_file", Shape::TextOrTexts),
    ("labels", Shape::Pairs(false)),
    ("links", Shape::Texts),
    ("logging", Shape::Object(&object(&[("driver", Shape::Text), ("options", Shape::Options)]))),
    ("mac_address", Shape::Text),
    ("mem_limit", Shape::Bytes(false)),
    ("mem_reservation", Shape::Bytes(false)),
    ("mem_swappiness", Shape::Bytes(true)),
    ("memswap_limit", Shape::Bytes(true)),
    ("models", Shape::Short(Short::Names, &Shape::Map(&Shape::Nullable(&SERVICE_MODEL)))),
    ("network_mode", Shape::Text),
    ("networks", Shape::Short(Short::Names, &Shape::Map(&Shape::Nullable(&SERVICE_NETWORK)))),
    ("oom_kill_disable", Shape::Bool),
    ("oom_score_adj", Shape::Int(-1000, 1000)),
    ("pid", Shape::Nullable(&Shape::Text)),
    ("pids_limit", ANY_INT),
    ("platform", Shape::Text),
    ("ports", Shape::List(&Shape::Short(Short::Port, &PORT))),
    ("post_start", Shape::List(&HOOK)),
    ("pre_start", Shape::List(&PRE_START)),
    ("pre_stop", Shape::List(&HOOK)),
    ("privileged", Shape::Bool),
    ("profiles", Shape::Texts),
    (
        "provider",
        Shape::Object(&requiring(&[("options", Shape::MultiOptions), ("type", Shape::Text)], &["type"])),
    ),
    ("pull_policy", Shape::Checked(pull_policy)),
    ("pull_refresh_after", Shape::Text),
    ("read_only", Shape::Bool),
    ("restart", Shape::Checked(restart)),
    ("runtime", Shape::Text),
    ("scale", Shape::Int(0, u32::MAX as i64)),
    ("secrets", Shape::List(&REFERENCE)),
    ("security_opt", Shape::Texts),
    ("shm_size", Shape::Bytes(false)),
    ("stdin_open", Shape::Bool),
    ("stop_grace_period", Shape::Duration),
    ("stop_signal", Shape::Checked(signal)),
    ("storage_opt", Shape::Options),
    ("sysctls", Shape::Pairs(false)),
    ("tmpfs", Shape::TextOrTexts),
    ("tty", Shape::Bool),
    ("ulimits", ULIMITS),
    ("use_api_socket", Shape::Bool),
    ("user", Shape::Text),
    ("userns_mode", Shape::Text),
    ("uts", Shape::Text),
    ("volumes", Shape::List(&Shape::Short(Short::Mount, &MOUNT))),
    ("volumes_from", Shape::Texts),
    ("working_dir", Shape::Text),
]));

pub(super) static DEPENDENCY: Shape = Shape::Object(&requiring(
    &[
        ("condition", Shape::Word(&["service_started", "service_healthy", "service_completed_successfully"])),
        ("required", Shape::Bool),
        ("restart", Shape::Bool),
    ],
    &["condition"],
));

pub(super) const HOOK: Shape = Shape::Object(&requiring(
    &[
        ("command", Shape::Command),
        ("environment", Shape::Pairs(true)),
        ("privileged", Shape::Bool),
        ("user", Shape::Text),
        ("working_dir", Shape::Text),
    ],
    &["command"],
));

pub(super) static PRE_START: Shape = Shape::Object(&object(&[
    ("command", Shape::Command),
    ("environment", Shape::Pairs(true)),
    ("image", Shape::Text),
    ("per_replica", Shape::Bool),
    ("privileged", Shape::Bool),
    ("user", Shape::Text),
    ("working_dir", Shape::Text),
]));

pub(super) static DEVICE: Shape = Shape::Object(&requiring(
    &[("permissions", Shape::Text), ("source", Shape::Text), ("target", Shape::Text)],
    &["source"],
));

pub(super) static ENV_FILE: Shape = Shape::Object(&Object {
    fields: &[("format", Shape::Text), ("path", Shape::Text), ("required", Shape::Bool)],
    required: &["path"],
    extensions: false,
});

pub(super) static EXTENDS: Shape = Shape::Object(&Object {
    fields: &[("file", Shape::Text), ("service", Shape::Text)],
    required: &["service"],
    extensions: false,
});

pub(super) const HEALTHCHECK: Shape = Shape::Object(&object(&[
    ("disable", Shape::Bool),
    ("interval", Shape::Duration),
    ("retries", Shape::Int(0, u32::MAX as i64)),
    ("start_interval", Shape::Duration),
    ("start_period", Shape::Duration),
    ("test", Shape::Short(Short::HealthTest, &Shape::Texts)),
    ("timeout", Shape::Duration),
]));

pub(super) static SERVICE_MODEL: Shape =
    Shape::Object(&object(&[("endpoint_var", Shape::Text), ("model_var", Shape::Text)]));

pub(super) static SERVICE_NETWORK: Shape = Shape::Object(&object(&[
    ("aliases", Shape::Texts),
    ("driver_opts", Shape::Options),
    ("gw_priority", ANY_INT),
    ("interface_name", Shape::Text),
    ("ipv4_address", Shape::Checked(ipv4)),
    ("ipv6_address", Shape::Checked(ipv6)),
    ("link_local_ips", Shape::Texts),
    ("mac_address", Shape::Text),
    ("priority", ANY_INT),
]));

pub(super) static PORT: Shape = Shape::Object(&requiring(
    &[
        ("app_protocol", Shape::Text),
        ("host_ip", Shape::Text),
        ("mode", Shape::Text),
        ("name", Shape::Text),
        ("protocol", Shape::Text),
        ("published", Shape::Scalar),
        ("target", Shape::Int(1, 65_535)),
    ],
    &["target"],
));

pub(super) static MOUNT: Shape = Shape::Object(&requiring(
    &[
        (
            "bind",
            Shape::Object(&object(&[
                ("create_host_path", Shape::Bool),
                (
                    "propagation",
                    Shape::Word(&["", "rprivate", "private", "rshared", "shared", "rslave", "slave"]),
                ),
                ("recursive", Shape::Word(&["enabled", "disabled", "writable", "readonly"])),
                ("selinux", Shape::Word(&["z", "Z"])),
            ])),
        ),
        ("consistency", Shape::Text),
        ("image", Shape::Object(&object(&[("subpath", Shape::Text)]))),
        ("read_only", Shape::Bool),
        ("source", Shape::Text),
        ("target", Shape::Text),
        ("tmpfs", Shape::Object(&object(&[("mode", Shape::Mode), ("size", Shape::Bytes(false))]))),
        ("type", Shape::Word(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
        (
            "volume",
            Shape::Object(&object(&[
                ("labels", Shape::Pairs(false)),
                ("nocopy", Shape::Bool),
                ("subpath", Shape::Text),
            ])),
        ),
    ],
    &["type", "target"],
));

pub(super) static REFERENCE: Shape = Shape::Short(
    Short::Reference,
    &Shape::Object(&requiring(
        &[
            ("gid", Shape::Text),
            ("mode", Shape::Mode),
            ("source", Shape::Text),
            ("target", Shape::Text),
            ("uid", Shape::Text),
        ],
        &["source"],
    )),
);
