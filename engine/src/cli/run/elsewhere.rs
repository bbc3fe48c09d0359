//! Options that mean something to docker on other systems or with parts this engine does not have. They are known, so
//! that they can be refused by name.

use clap::Args;

use crate::cli::refusal::refuse;
use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct ElsewhereArgs {
    /// Isolation technology: default
    #[arg(long, hide = true)]
    isolation: Option<String>,
    /// Another runtime
    #[arg(long, hide = true)]
    runtime: Option<String>,
    /// Option of the storage driver
    #[arg(long, hide = true)]
    storage_opt: Vec<String>,
    /// Driver of volumes: local
    #[arg(long, hide = true)]
    volume_driver: Option<String>,
    /// Limit of kernel memory
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
    /// Number of processors
    #[arg(long, hide = true)]
    cpu_count: Option<String>,
    /// Share of the processors
    #[arg(long, hide = true)]
    cpu_percent: Option<String>,
    /// Bandwidth of the system drive
    #[arg(long, hide = true)]
    io_maxbandwidth: Option<String>,
    /// Operations a second of the system drive
    #[arg(long, hide = true)]
    io_maxiops: Option<String>,
    /// Do not verify signatures
    #[arg(long, hide = true, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    disable_content_trust: bool,
    /// Give the engine's socket to the container
    #[arg(long, hide = true)]
    use_api_socket: bool,
}

const ONLY_WINDOWS: &str = "it is for Windows alone";

impl ElsewhereArgs {
    /// Refuses what was asked for and is not what happens anyway.
    pub(super) fn check(&self) -> Result<()> {
        let is_other = |value: &Option<String>, usual: &str| {
            value.as_ref().is_some_and(|value| !value.is_empty() && value != usual)
        };
        refuse(&[
            (is_other(&self.isolation, "default"), "isolation", ONLY_WINDOWS),
            (
                is_other(&self.runtime, ""),
                "runtime",
                "this engine starts containers itself; devices of a vendor come with --gpus or --device",
            ),
            (
                !self.storage_opt.is_empty(),
                "storage-opt",
                "the storage driver overlay has no options for single containers",
            ),
            (is_other(&self.volume_driver, "local"), "volume-driver", "there is the driver local alone"),
            (
                self.kernel_memory.is_some(),
                "kernel-memory",
                "kernels no longer limit it by itself; --memory covers it",
            ),
            (self.cpu_count.is_some(), "cpu-count", ONLY_WINDOWS),
            (self.cpu_percent.is_some(), "cpu-percent", ONLY_WINDOWS),
            (self.io_maxbandwidth.is_some(), "io-maxbandwidth", ONLY_WINDOWS),
            (self.io_maxiops.is_some(), "io-maxiops", ONLY_WINDOWS),
            (!self.disable_content_trust, "disable-content-trust=false", "signatures are not verified here"),
            (self.use_api_socket, "use-api-socket", "there is no daemon and so no socket to give away"),
        ])
    }
}
