//! `builder create`, `use`, `ls` and the like: docker's plugin has many builders, the engine has one, always there.

use clap::Args;
use serde_json::json;

use crate::cli::output;
use crate::error::{Error, Result};
use crate::image::Platform;

/// The name of the one builder.
pub(super) const NAME: &str = "default";

/// The flags of `builder create`. What they would choose is there already, but for machines elsewhere.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The name to answer with; the builder is the same
    #[arg(long, default_value = NAME)]
    name: String,
    /// Accepted for docker's sake: there is no other to use
    #[arg(long = "use", hide = true)]
    uses: bool,
    /// Accepted for docker's sake: nothing has to start
    #[arg(long, hide = true)]
    bootstrap: bool,
    /// Accepted for docker's sake: there is one kind
    #[arg(long, hide = true)]
    driver: Option<String>,
    /// Accepted for docker's sake: there is one kind
    #[arg(long, hide = true)]
    driver_opt: Vec<String>,
    /// Accepted for docker's sake: what can be built for is what programs can be run for
    #[arg(long, hide = true)]
    platform: Vec<String>,
    /// Accepted for docker's sake: `build --allow` allows
    #[arg(long, hide = true, allow_hyphen_values = true)]
    buildkitd_flags: Option<String>,
    /// Accepted for docker's sake: registries are configured as they are for pull
    #[arg(long, visible_alias = "config", hide = true)]
    buildkitd_config: Option<String>,
    /// Not supported: a builder on another machine
    #[arg(hide = true)]
    endpoint: Option<String>,
}

/// The builders that are meant; all names mean the same.
#[derive(Debug, Args)]
pub(super) struct NamedArgs {
    /// The builder
    #[arg(default_value = NAME)]
    names: Vec<String>,
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    bootstrap: bool,
    /// Accepted for docker's sake
    #[arg(short, long, hide = true)]
    force: bool,
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    keep_state: bool,
    /// Accepted for docker's sake
    #[arg(long = "default", hide = true)]
    is_default: bool,
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    global: bool,
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    builder: Option<String>,
}

/// The flags of `builder ls`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
}

/// Answers with the name of a builder, for scripts that make one before they build.
pub(super) fn create(args: &CreateArgs) -> Result<u8> {
    if let Some(endpoint) = &args.endpoint {
        return Err(Error::invalid(format!("a builder at {endpoint} is not supported"))
            .with_hint("what is built, is built here"));
    }
    output::line(&args.name);
    Ok(0)
}

/// Shows the builder.
pub(super) fn inspect(_: &NamedArgs) -> u8 {
    output::line(&format!(
        "Name:   {NAME}\nDriver: rengine\n\nNodes:\nName:      {NAME}\nEndpoint:  {NAME}\nStatus:    running\nPlatforms: {}",
        Platform::host()
    ));
    0
}

/// Lists the one builder.
pub(super) fn list(args: &ListArgs) -> Result<u8> {
    let columns = [
        ("NAME/NODE", "Name"),
        ("DRIVER/ENDPOINT", "Driver"),
        ("STATUS", "Status"),
        ("PLATFORMS", "Platforms"),
    ];
    let row = json!({
        "Name": format!("{NAME}*"),
        "Driver": "rengine",
        "Status": "running",
        "Platforms": Platform::host().to_string(),
    });
    output::rows(args.format.as_deref(), &columns, &[row])?;
    Ok(0)
}

/// Says of each builder that it is removed; what the builder keeps goes with `builder prune`.
pub(super) fn remove(args: &NamedArgs) -> u8 {
    args.names.iter().for_each(|name| output::line(&format!("{name} removed")));
    0
}
