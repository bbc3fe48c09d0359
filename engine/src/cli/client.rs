//! What docker's client is told before the verb: which daemon it talks to, and how. There is no daemon here.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::output;
use crate::cli::refusal::refuse;
use crate::error::Result;
use crate::image;

/// The flags of docker's client.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// Directory of the credentials for registries, instead of ~/.docker
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// The least that is said on standard error
    #[arg(short, long, value_enum, hide = true, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// The daemon
    #[arg(short = 'H', long, hide = true)]
    host: Vec<String>,
    /// A name for a daemon
    #[arg(short, long, hide = true)]
    context: Option<String>,
    /// Reach the daemon by TLS
    #[arg(long, hide = true)]
    tls: bool,
    /// Reach it by TLS, and be sure of it
    #[arg(long, hide = true)]
    tlsverify: bool,
    /// Who vouches for it
    #[arg(long, hide = true)]
    tlscacert: Option<PathBuf>,
    /// Who is asking it
    #[arg(long, hide = true)]
    tlscert: Option<PathBuf>,
    /// The key of who is asking
    #[arg(long, hide = true)]
    tlskey: Option<PathBuf>,
}

/// Docker's levels of what is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

// === impl ClientArgs ===

impl ClientArgs {
    /// What is logged, as a filter of tracing's, when any of it was asked for.
    pub(super) fn log_filter(&self) -> Option<&'static str> {
        self.log_level.map(|level| match level {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error | LogLevel::Fatal => "error",
        })
    }

    /// Does what was asked.
    ///
    /// # Errors
    /// Refuses what names another daemon than the one that there is not.
    pub(super) fn apply(self) -> Result<()> {
        const NO_DAEMON: &str = "there is no daemon, containers run on this machine; rdeploy reaches others";
        let tls = self.tls || self.tlsverify;
        let keys = [&self.tlscacert, &self.tlscert, &self.tlskey].into_iter().any(Option::is_some);
        refuse(&[
            (!self.host.is_empty(), "host", NO_DAEMON),
            (self.context.is_some_and(|name| name != "default"), "context", NO_DAEMON),
            (tls || keys, "tls", NO_DAEMON),
        ])?;
        if let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| is_elsewhere(host)) {
            output::warning(&format!("DOCKER_HOST={host} has no effect: containers run on this machine"));
        }
        if let Some(directory) = self.config {
            image::keep_credentials_in(directory);
        }
        Ok(())
    }
}

/// Whether the address of a daemon is one on another machine.
fn is_elsewhere(host: &str) -> bool {
    ["tcp://", "ssh://", "http://", "https://"].iter().any(|scheme| host.starts_with(scheme))
}
