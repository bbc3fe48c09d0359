//! The table: How images are built, and what is watched.

use super::deploy::ULIMITS;
use super::service::{HOOK, REFERENCE};
use super::{Shape, object, requiring};

pub(super) static BUILD: Shape = Shape::Object(&object(&[
    ("additional_contexts", Shape::Pairs(false)),
    ("args", Shape::Pairs(true)),
    ("cache_from", Shape::Texts),
    ("cache_to", Shape::Texts),
    ("context", Shape::Text),
    ("dockerfile", Shape::Text),
    ("dockerfile_inline", Shape::Text),
    ("entitlements", Shape::Texts),
    ("extra_hosts", Shape::Hosts),
    ("isolation", Shape::Text),
    ("labels", Shape::Pairs(false)),
    ("network", Shape::Text),
    ("no_cache", Shape::Bool),
    ("no_cache_filter", Shape::TextOrTexts),
    ("platforms", Shape::Texts),
    ("privileged", Shape::Bool),
    ("provenance", Shape::Scalar),
    ("pull", Shape::Bool),
    ("sbom", Shape::Scalar),
    ("secrets", Shape::List(&REFERENCE)),
    ("shm_size", Shape::Bytes(false)),
    ("ssh", Shape::Pairs(false)),
    ("tags", Shape::Texts),
    ("target", Shape::Text),
    ("ulimits", ULIMITS),
]));

pub(super) static DEVELOP: Shape = Shape::Object(&object(&[("watch", Shape::List(&WATCH))]));

pub(super) static WATCH: Shape = Shape::Object(&requiring(
    &[
        ("action", Shape::Word(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])),
        ("exec", HOOK),
        ("ignore", Shape::TextOrTexts),
        ("include", Shape::TextOrTexts),
        ("initial_sync", Shape::Bool),
        ("path", Shape::Text),
        ("target", Shape::Text),
    ],
    &["path", "action"],
));
