//! The table: What stands at the top of a file: networks, volumes, secrets, configurations, models.

use super::service::SERVICE;
use super::{ANY_INT, Object, Shape, Short, object, requiring};

/// The whole file.
pub(crate) static FILE: Shape = Shape::Object(&Object {
    fields: &[
        ("configs", Shape::Map(&CONFIG)),
        ("include", Shape::List(&Shape::Short(Short::Include, &INCLUDE))),
        ("models", Shape::Map(&MODEL)),
        ("name", Shape::Text),
        ("networks", Shape::Map(&Shape::Nullable(&NETWORK))),
        ("secrets", Shape::Map(&SECRET)),
        ("services", Shape::Map(&SERVICE)),
        ("version", Shape::Scalar),
        ("volumes", Shape::Map(&Shape::Nullable(&VOLUME))),
    ],
    required: &[],
    extensions: true,
});

pub(super) static INCLUDE: Shape = Shape::Object(&Object {
    fields: &[
        ("env_file", Shape::TextOrTexts),
        ("path", Shape::TextOrTexts),
        ("project_directory", Shape::Text),
    ],
    required: &[],
    extensions: false,
});

pub(super) static MODEL: Shape = Shape::Object(&requiring(
    &[
        ("context_size", ANY_INT),
        ("model", Shape::Text),
        ("name", Shape::Text),
        ("runtime_flags", Shape::Texts),
    ],
    &["model"],
));

pub(super) static EXTERNAL: Shape =
    Shape::Short(Short::External, &Shape::Object(&object(&[("name", Shape::Text)])));

pub(super) static NETWORK: Shape = Shape::Object(&object(&[
    ("attachable", Shape::Bool),
    ("driver", Shape::Text),
    ("driver_opts", Shape::Options),
    ("enable_ipv4", Shape::Bool),
    ("enable_ipv6", Shape::Bool),
    ("external", Shape::Nullable(&EXTERNAL)),
    ("internal", Shape::Bool),
    (
        "ipam",
        Shape::Object(&object(&[
            ("config", Shape::List(&POOL)),
            ("driver", Shape::Text),
            ("options", Shape::Options),
        ])),
    ),
    ("labels", Shape::Pairs(false)),
    ("name", Shape::Text),
]));

pub(super) static POOL: Shape = Shape::Object(&object(&[
    ("aux_addresses", Shape::Options),
    ("gateway", Shape::Text),
    ("ip_range", Shape::Text),
    ("subnet", Shape::Text),
]));

pub(super) static VOLUME: Shape = Shape::Object(&object(&[
    ("driver", Shape::Text),
    ("driver_opts", Shape::Options),
    ("external", Shape::Nullable(&EXTERNAL)),
    ("labels", Shape::Pairs(false)),
    ("name", Shape::Text),
]));

pub(super) static SECRET: Shape = Shape::Object(&object(&[
    ("driver", Shape::Text),
    ("driver_opts", Shape::Options),
    ("environment", Shape::Text),
    ("external", Shape::Nullable(&EXTERNAL)),
    ("file", Shape::Text),
    ("labels", Shape::Pairs(false)),
    ("name", Shape::Text),
    ("template_driver", Shape::Text),
]));

pub(super) static CONFIG: Shape = Shape::Object(&object(&[
    ("content", Shape::Text),
    ("environment", Shape::Text),
    ("external", Shape::Nullable(&EXTERNAL)),
    ("file", Shape::Text),
    ("labels", Shape::Pairs(false)),
    ("name", Shape::Text),
    ("template_driver", Shape::Text),
]));
