//! How health is found out.

use engine::quantity::Span;
use serde::{Deserialize, Serialize};

use super::form;
use super::form::is_default;

/// How health is found out. What is unset is the image's, then docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// `NONE`, `CMD` with a program, or `CMD-SHELL` with a line for the shell; the image's when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub test: Vec<String>,
    /// How long one probe may take.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub timeout: Option<Span>,
    /// Time between two probes.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub interval: Option<Span>,
    /// How many in a row must fail.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: Option<u32>,
    /// How long failures do not count after the start.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub start_period: Option<Span>,
    /// Time between two probes in the start period.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub start_interval: Option<Span>,
    /// Whether there is no check, not even the image's.
    #[serde(skip_serializing_if = "is_default")]
    pub disable: bool,
}
