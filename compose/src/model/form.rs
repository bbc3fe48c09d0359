//! How single values look in the reference's JSON.

use std::collections::BTreeMap;

use engine::container::spec::Protocol;
use engine::quantity::ByteSize;
use serde::Serializer;
use serde::ser::SerializeSeq as _;

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn tcp() -> Protocol {
    Protocol::Tcp
}

/// Whole numbers have no decimal point in Go.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(super) fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

pub(super) fn bytes<S: Serializer>(value: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.0.to_string())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(super) fn signed_bytes<S: Serializer>(value: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
pub(super) fn mode<S: Serializer>(value: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(mode) => serializer.serialize_str(&format!("0{mode:o}")),
        None => serializer.serialize_none(),
    }
}

pub(super) fn ssh<S: Serializer>(keys: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(keys.len()))?;
    for (id, path) in keys {
        let text = if path.is_empty() { id.clone() } else { format!("{id}={path}") };
        sequence.serialize_element(&text)?;
    }
    sequence.end()
}

/// Durations are Go's text, not nanoseconds.
pub(super) mod span {
    use engine::quantity::Span;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Span>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(span) => serializer.collect_str(span),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Span>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}

/// Restart policies are `on-failure:3` and the like.
pub(super) mod restart {
    use engine::container::spec::RestartPolicy;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<RestartPolicy>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(policy) => serializer.collect_str(policy),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<RestartPolicy>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let policy = match text.split_once(':').unwrap_or((&text, "")) {
            ("", "") => return Ok(None),
            ("no", "") => RestartPolicy::No,
            ("always", "") => RestartPolicy::Always,
            ("unless-stopped", "") => RestartPolicy::UnlessStopped,
            ("on-failure", "") => RestartPolicy::OnFailure(0),
            ("on-failure", limit) => RestartPolicy::OnFailure(limit.parse().map_err(de::Error::custom)?),
            _ => return Err(de::Error::custom(format_args!("invalid restart policy {text:?}"))),
        };
        Ok(Some(policy))
    }
}
