//! How many containers, how updates roll, and where.

use std::collections::BTreeMap;

use engine::quantity::Span;
use serde::{Deserialize, Serialize};

use super::Resources;
use super::form;
use super::form::is_default;

/// Replicas, resources and how updates roll.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deploy {
    /// `replicated`, `global`, …
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<String>,
    /// How many containers; see [`super::Service::replicas`].
    #[serde(skip_serializing_if = "is_default")]
    pub replicas: Option<u32>,
    /// Labels of the service, not of its containers.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// How an update rolls.
    #[serde(skip_serializing_if = "is_default")]
    pub update_config: Option<UpdateConfig>,
    /// How a step back rolls.
    #[serde(skip_serializing_if = "is_default")]
    pub rollback_config: Option<UpdateConfig>,
    /// Limits and reservations.
    pub resources: Resources,
    /// When its containers are started again by themselves.
    #[serde(skip_serializing_if = "is_default")]
    pub restart_policy: Option<DeployRestart>,
    /// Where it may run.
    pub placement: Placement,
    /// `vip` or `dnsrr`.
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_mode: Option<String>,
}

/// How a change of containers rolls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateConfig {
    /// How many at a time; all at once when 0.
    #[serde(skip_serializing_if = "is_default")]
    pub parallelism: Option<u64>,
    /// Time between two groups.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub delay: Option<Span>,
    /// `continue`, `pause` or `rollback`.
    #[serde(skip_serializing_if = "is_default")]
    pub failure_action: Option<String>,
    /// How long a new container is watched for failure.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub monitor: Option<Span>,
    /// What share of failures is borne.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::number")]
    pub max_failure_ratio: f64,
    /// `stop-first` or `start-first`.
    #[serde(skip_serializing_if = "is_default")]
    pub order: Option<String>,
}

/// When containers are started again by themselves, as a cluster says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployRestart {
    /// `none`, `on-failure` or `any`.
    #[serde(skip_serializing_if = "is_default")]
    pub condition: Option<String>,
    /// Time before the next attempt.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub delay: Option<Span>,
    /// How often; without end when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub max_attempts: Option<u64>,
    /// How long it must run to count as started.
    #[serde(skip_serializing_if = "is_default", with = "form::span")]
    pub window: Option<Span>,
}

/// Where a service may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// Conditions on the node.
    #[serde(skip_serializing_if = "is_default")]
    pub constraints: Vec<String>,
    /// Wishes about the node.
    #[serde(skip_serializing_if = "is_default")]
    pub preferences: Vec<PlacementPreference>,
    /// At most this many containers on one node.
    #[serde(skip_serializing_if = "is_default")]
    pub max_replicas_per_node: u64,
}

/// A wish about the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementPreference {
    /// Spread evenly over the values of this label.
    #[serde(skip_serializing_if = "is_default")]
    pub spread: Option<String>,
}
