//! `update`: other limits and another restart policy for containers that are there.

use clap::Args;

use crate::cli::output;
use crate::cli::run::parse_restart;
use crate::container::spec::Resources;
use crate::engine::{Engine, UpdateOptions};
use crate::error::{Error, Result};
use crate::quantity::ByteSize;

/// The flags of `update`.
#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<ByteSize>,
    /// Limit of memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory kept under pressure
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<ByteSize>,
    /// Number of processors
    #[arg(long)]
    cpus: Option<f64>,
    /// Relative weight, 2 to 262144
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// Microseconds of processor time per period
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// The period in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Processors it may run on: 0-2,4
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Limit of processes and threads; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// no, always, unless-stopped, on-failure or on-failure:N
    #[arg(long)]
    restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

/// Changes containers.
pub(super) fn update(engine: &Engine, args: UpdateArgs) -> Result<u8> {
    let names = args.names.clone();
    let options = args.options()?;
    let mut code = 0;
    for name in &names {
        match engine.find_id(name).and_then(|id| engine.update(&id, &options)) {
            Ok(warnings) => {
                output::line(name);
                warnings.iter().for_each(|warning| output::warning(warning));
            }
            Err(error) => {
                output::failure(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

// === impl UpdateArgs ===

impl UpdateArgs {
    fn options(self) -> Result<UpdateOptions> {
        let memory_swap = match self.memory_swap.as_deref() {
            None => None,
            Some("-1") => Some(-1),
            Some(text) => {
                let size: ByteSize =
                    text.parse().map_err(|error| Error::invalid("--memory-swap").with_source(error))?;
                Some(i64::try_from(size.0).unwrap_or(i64::MAX))
            }
        };
        let resources = Resources {
            memory: self.memory,
            memory_swap,
            memory_reservation: self.memory_reservation,
            nano_cpus: self.cpus.map(|cpus| (cpus * 1e9).round() as u64).filter(|nano| *nano > 0),
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            pids: self.pids_limit,
            ..Resources::default()
        };
        Ok(UpdateOptions { resources, restart: self.restart.as_deref().map(parse_restart).transpose()? })
    }
}
