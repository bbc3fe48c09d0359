//! `exec` and `attach`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use engine::cli::invocation::{InService, Invocation};
use engine::cli::run::import_variable;
use engine::container::client::{AttachEnd, AttachOptions};
use engine::container::exec::ExecSpec;
use engine::container::terminal::DetachKeys;
use engine::error::Error;

use super::failure::CliError;
use super::session::{Opened, Session, Wanted};
use crate::observe::{Life, SeenContainer};
use crate::output;

/// The flags of `exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Run it in the background
    #[arg(short, long)]
    detach: bool,
    /// Set a variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Run as this user
    #[arg(short, long)]
    user: Option<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Give it all privileges
    #[arg(long)]
    privileged: bool,
    /// Which of the service's containers
    #[arg(long)]
    index: Option<u32>,
    /// Give it no terminal
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    no_tty: bool,
    /// Accepted for docker's sake: standard input is always connected
    #[arg(short, long, hide = true, default_value_t = true)]
    interactive: bool,
    /// Accepted for docker's sake: a terminal is given where there is one
    #[arg(short, long, hide = true)]
    tty: bool,
    #[command(flatten)]
    invocation: Invocation<InService>,
}

/// The flags of `attach`.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// Which of the service's containers
    #[arg(long)]
    index: Option<u32>,
    /// Leave standard input unconnected
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
    /// Keys that leave the container without ending it
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// The service
    service: String,
}

/// `exec`.
pub(super) fn exec(session: &Session, args: ExecArgs) -> Result<u8, CliError> {
    let opened =
        session.open(Wanted { services: vec![args.invocation.place.clone()], ..Wanted::default() })?;
    let container = running(&opened, &args.invocation.place, args.index)?;
    if opened.is_dry_run() {
        output::note(&format!("run {:?} in container {}", args.invocation.command.join(" "), container.name));
        return Ok(0);
    }
    let terminals = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let tty = terminals && !args.no_tty && !args.detach;
    let spec = ExecSpec {
        argv: args.invocation.command,
        env: args.env.into_iter().map(import_variable).collect(),
        user: args.user,
        working_dir: args.workdir,
        tty,
        interactive: !args.detach,
        privileged: args.privileged,
    };
    let failed = |error: Error| CliError::Program(error.of_execution());
    if args.detach {
        opened.engine().exec_detached(&container.id, &spec).map_err(failed)?;
        return Ok(0);
    }
    let options = AttachOptions { stdin: true, tty, ..AttachOptions::default() };
    let end = opened.engine().exec(&container.id, &spec, &options).map_err(failed)?;
    Ok(code(end))
}

/// `attach`.
pub(super) fn attach(session: &Session, args: &AttachArgs) -> Result<u8, CliError> {
    let opened = session.open(Wanted { services: vec![args.service.clone()], ..Wanted::default() })?;
    let container = running(&opened, &args.service, args.index)?;
    let process = opened.engine().container(container.id.as_str())?.record.spec.process;
    let options = AttachOptions {
        stdin: process.open_stdin && !args.no_stdin,
        tty: process.tty,
        sig_proxy: args.sig_proxy,
        detach_keys: args.detach_keys.clone(),
        ..AttachOptions::default()
    };
    Ok(code(opened.engine().attach(&container.id, &options)?))
}

/// The exit code an end has for a shell.
pub(super) fn code(end: AttachEnd) -> u8 {
    match end {
        AttachEnd::Exited(code) => code as u8,
        AttachEnd::Detached => 0,
    }
}

/// The service's running container with this number; the lowest one when none is given.
fn running(opened: &Opened, service: &str, index: Option<u32>) -> Result<SeenContainer, CliError> {
    if !opened.desired().services.contains_key(service) {
        return Err(CliError::Invalid(format!("no such service: {service}")));
    }
    let all = opened.containers()?;
    all.into_iter()
        .filter(|container| container.service == service && !container.one_off)
        .filter(|container| matches!(container.life, Life::Running | Life::Paused))
        .find(|container| index.is_none_or(|index| index == container.number))
        .ok_or_else(|| not_running(service, index))
}

/// There is no such container to do something with.
pub(super) fn not_running(service: &str, index: Option<u32>) -> CliError {
    CliError::Invalid(match index {
        None => format!("service {service:?} is not running"),
        Some(index) => format!("service {service:?} has no running container #{index}"),
    })
}
