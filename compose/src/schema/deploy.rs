//! The table: Replicas, resources, limits.

use super::{ANY_INT, MAX, NATURAL, Object, Shape, Short, object, requiring};

pub(super) static BLKIO: Object = object(&[
    ("device_read_bps", Shape::List(&THROTTLE)),
    ("device_read_iops", Shape::List(&THROTTLE)),
    ("device_write_bps", Shape::List(&THROTTLE)),
    ("device_write_iops", Shape::List(&THROTTLE)),
    ("weight", Shape::Int(0, 1000)),
    ("weight_device", Shape::List(&WEIGHT)),
]);

pub(super) static THROTTLE: Shape =
    Shape::Object(&object(&[("path", Shape::Text), ("rate", Shape::Bytes(false))]));

pub(super) static WEIGHT: Shape =
    Shape::Object(&object(&[("path", Shape::Text), ("weight", Shape::Int(0, 1000))]));

pub(super) static DEPLOY: Shape = Shape::Object(&object(&[
    ("endpoint_mode", Shape::Text),
    ("labels", Shape::Pairs(false)),
    ("mode", Shape::Text),
    (
        "placement",
        Shape::Object(&object(&[
            ("constraints", Shape::Texts),
            ("max_replicas_per_node", NATURAL),
            ("preferences", Shape::List(&Shape::Object(&PREFERENCE))),
        ])),
    ),
    ("replicas", Shape::Int(0, u32::MAX as i64)),
    (
        "resources",
        Shape::Object(&object(&[("limits", LIMITS), ("reservations", Shape::Object(&RESERVATIONS))])),
    ),
    (
        "restart_policy",
        Shape::Object(&object(&[
            ("condition", Shape::Text),
            ("delay", Shape::Duration),
            ("max_attempts", NATURAL),
            ("window", Shape::Duration),
        ])),
    ),
    ("rollback_config", UPDATE),
    ("update_config", UPDATE),
]));

pub(super) static PREFERENCE: Object = object(&[("spread", Shape::Text)]);

pub(super) const LIMITS: Shape =
    Shape::Object(&object(&[("cpus", Shape::Number), ("memory", Shape::Bytes(false)), ("pids", ANY_INT)]));

pub(super) static RESERVATIONS: Object = object(&[
    ("cpus", Shape::Number),
    ("devices", Shape::List(&DEVICE_REQUEST)),
    ("generic_resources", Shape::List(&GENERIC)),
    ("memory", Shape::Bytes(false)),
]);

pub(super) static GENERIC: Shape = Shape::Object(&object(&[(
    "discrete_resource_spec",
    Shape::Object(&object(&[("kind", Shape::Text), ("value", ANY_INT)])),
)]));

pub(super) const UPDATE: Shape = Shape::Object(&object(&[
    ("delay", Shape::Duration),
    ("failure_action", Shape::Text),
    ("max_failure_ratio", Shape::Number),
    ("monitor", Shape::Duration),
    ("order", Shape::Word(&["start-first", "stop-first"])),
    ("parallelism", NATURAL),
]));

pub(super) static DEVICE_REQUEST: Shape = Shape::Object(&object(&[
    ("capabilities", Shape::Texts),
    ("count", Shape::Count),
    ("device_ids", Shape::Texts),
    ("driver", Shape::Text),
    ("options", Shape::Pairs(false)),
]));

pub(super) const ULIMITS: Shape = Shape::Map(&Shape::Short(
    Short::Ulimit,
    &Shape::Object(&requiring(
        &[("hard", Shape::Int(-1, MAX)), ("soft", Shape::Int(-1, MAX))],
        &["soft", "hard"],
    )),
));
