//! Options that mean something to a swarm of docker's alone. They are known, so that they can be refused by name.

use clap::Args;

use crate::cli::refusal::refuse;
use crate::error::Result;

/// What `docker network create` asks of a swarm, and of drivers that others bring.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// Where it is known: local
    #[arg(long, hide = true)]
    scope: Option<String>,
    /// The network by which a swarm is reached
    #[arg(long, hide = true)]
    ingress: bool,
    /// A configuration for other networks
    #[arg(long, hide = true)]
    config_only: bool,
    /// The network whose configuration is taken
    #[arg(long, hide = true)]
    config_from: Option<String>,
    /// Option of the driver of addresses
    #[arg(long, hide = true)]
    ipam_opt: Vec<String>,
}

/// What `docker volume create` asks of a cluster's volumes.
#[derive(Debug, Args)]
pub(super) struct VolumeArgs {
    /// Who may use it: single or multi
    #[arg(long, hide = true)]
    scope: Option<String>,
    /// How it is shared
    #[arg(long, hide = true)]
    sharing: Option<String>,
    /// block or mount
    #[arg(long = "type", hide = true)]
    kind: Option<String>,
    /// active, pause or drain
    #[arg(long, hide = true)]
    availability: Option<String>,
    /// Volumes of one kind
    #[arg(long, hide = true)]
    group: Option<String>,
    /// At most as large
    #[arg(long, hide = true)]
    limit_bytes: Option<String>,
    /// At least as large
    #[arg(long, hide = true)]
    required_bytes: Option<String>,
    /// A secret for its driver
    #[arg(long, hide = true)]
    secret: Vec<String>,
    /// Where it should be
    #[arg(long, hide = true)]
    topology_preferred: Vec<String>,
    /// Where it must be
    #[arg(long, hide = true)]
    topology_required: Vec<String>,
}

const NO_SWARM: &str = "it is for a swarm, and this engine is one host's";

// === impl NetworkArgs ===

impl NetworkArgs {
    /// Refuses what was asked for and is not what happens anyway.
    pub(super) fn check(&self) -> Result<()> {
        let is_beyond = self.scope.as_ref().is_some_and(|scope| scope != "local");
        refuse(&[
            (is_beyond, "scope", NO_SWARM),
            (self.ingress, "ingress", NO_SWARM),
            (self.config_only, "config-only", "a network here is made, not described"),
            (self.config_from.is_some(), "config-from", "no network here is a description of others"),
            (!self.ipam_opt.is_empty(), "ipam-opt", "the only driver of addresses has no options"),
        ])
    }
}

// === impl VolumeArgs ===

impl VolumeArgs {
    /// Refuses what was asked for.
    pub(super) fn check(&self) -> Result<()> {
        refuse(&[
            (self.scope.is_some(), "scope", NO_SWARM),
            (self.sharing.is_some(), "sharing", NO_SWARM),
            (self.kind.is_some(), "type", NO_SWARM),
            (self.availability.is_some(), "availability", NO_SWARM),
            (self.group.is_some(), "group", NO_SWARM),
            (self.limit_bytes.is_some(), "limit-bytes", NO_SWARM),
            (self.required_bytes.is_some(), "required-bytes", NO_SWARM),
            (!self.secret.is_empty(), "secret", NO_SWARM),
            (!self.topology_preferred.is_empty(), "topology-preferred", NO_SWARM),
            (!self.topology_required.is_empty(), "topology-required", NO_SWARM),
        ])
    }
}
