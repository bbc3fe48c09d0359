//! `stop`, `start` and `restart`.

use std::process::ExitCode;

use clap::Args;
use engine::error::Result;
use serde_json::json;

use super::output;
use super::{Globals, connect, rollout};
use crate::message::{Request, Turn};

/// The flags of `stop`, `start` and `restart`.
#[derive(Debug, Args)]
pub(super) struct TurnArgs {
    /// The services; all when none is named
    services: Vec<String>,
}

/// `stop`, `start` and `restart`: on every host at once, which nobody else changes meanwhile.
pub(super) fn turn(globals: &Globals, args: &TurnArgs, turn: Turn) -> Result<ExitCode> {
    let loaded = connect::load_project(globals)?;
    connect::expect_services(&loaded.project, &args.services)?;
    let mut fleet = connect::fleet(globals, &loaded)?;
    fleet.each(|host, _| host.expect_served(&loaded.project.name))?;
    rollout::lock(&mut fleet, &loaded)?;
    let told = rollout::teller(globals);
    fleet.each(|host, _| {
        let name = host.name().to_owned();
        let (project, services) = (loaded.project.name.clone(), args.services.clone());
        host.ask(&Request::Turn { project, services, turn }, &|event| told(&name, event)).map(drop)
    })?;
    if globals.json {
        fleet.names().into_iter().for_each(|name| output::json(&json!({ "host": name })));
    }
    Ok(ExitCode::SUCCESS)
}
