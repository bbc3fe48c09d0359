//! Files environment variables are read from.

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize};

use super::form;

/// A file environment variables are read from. The reference writes a required one as its path alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EnvFile {
    /// Its absolute path.
    pub path: String,
    /// Whether it must exist.
    #[serde(default = "form::yes")]
    pub required: bool,
    /// `raw`, or the grammar of `.env` files when `None`.
    #[serde(default)]
    pub format: Option<String>,
}

// === impl EnvFile ===

impl Serialize for EnvFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.required {
            return serializer.serialize_str(&self.path);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("required", &false)?;
        if let Some(format) = &self.format {
            map.serialize_entry("format", format)?;
        }
        map.end()
    }
}
