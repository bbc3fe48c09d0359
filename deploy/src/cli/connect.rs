//! From the command line to the project, its settings, and hosts that listen.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use compose::Project;
use compose::load::{LoadOptions, load};
use engine::error::{Error, Result};

use super::{Globals, output};
use crate::fleet::{Fleet, Member};
use crate::host::{Host, LOCAL};
use crate::pipeline::Task;
use crate::settings::{HostSettings, Settings};

/// How hosts are reached.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SshFlags {
    /// A file with a private key
    #[arg(short = 'i', long, global = true, value_name = "FILE", help_heading = "SSH")]
    ssh_key: Option<PathBuf>,
}

/// A project with its settings.
pub(super) struct Loaded {
    pub(super) project: Project,
    pub(super) settings: Settings,
}

/// Loads the project and its settings, and prints what is odd about it.
pub(super) fn load_project(globals: &Globals) -> Result<Loaded> {
    let options = LoadOptions {
        files: globals.file.clone(),
        project_directory: globals.project_directory.clone(),
        project_name: globals.project_name.clone(),
        env_files: globals.env_file.clone(),
        profiles: globals.profile.clone(),
        environment: std::env::vars().collect(),
        ..LoadOptions::default()
    };
    let loaded = load(&options)
        .map_err(|diagnostics| Error::invalid(diagnostics.to_string().trim_end().to_owned()))?;
    loaded.warnings.iter().for_each(|warning| output::note(warning.to_string().trim_end()));
    let project = loaded.project;
    let mut settings = Settings::find(globals.config.as_deref(), &project.working_dir, &project.files)?;
    if !globals.host.is_empty() {
        let named = |address: &String| {
            let known = settings.hosts.iter().find(|host| host.address == *address);
            known.cloned().unwrap_or_else(|| HostSettings::at(address.clone()))
        };
        settings.hosts = globals.host.iter().map(named).collect();
    }
    Ok(Loaded { project, settings })
}

/// The project's hosts, each with an agent that listens, reached all at once.
pub(super) fn fleet(globals: &Globals, loaded: &Loaded) -> Result<Fleet<Task>> {
    let Loaded { project, settings } = loaded;
    if settings.hosts.is_empty() {
        return Err(Error::invalid("no host to deploy to").with_hint(
            "name one: `rdeploy up --host user@server`, or list them under `hosts:` in rdeploy.yaml",
        ));
    }
    let mut members = Vec::new();
    for host in &settings.hosts {
        let services = settings.services_of(&host.roles, project.services.keys().map(String::as_str))?;
        members.push(Member { host: connect(globals, host)?, task: Task::of(services) });
    }
    Ok(Fleet { members })
}

/// Runs `rcompose` on every host, one after the other, with this process's own input and output.
pub(super) fn compose_on_hosts(globals: &Globals, words: &[String]) -> Result<ExitCode> {
    let loaded = load_project(globals)?;
    let mut worst = ExitCode::SUCCESS;
    for member in fleet(globals, &loaded)?.members {
        let code = member.host.compose(&loaded.project.name, words)?;
        if code != 0 {
            worst = ExitCode::from(code);
        }
    }
    Ok(worst)
}

/// Runs `rcompose` on the first host, with this process's own input and output.
pub(super) fn compose_on_one(globals: &Globals, words: &[String]) -> Result<ExitCode> {
    let mut loaded = load_project(globals)?;
    loaded.settings.hosts.truncate(1);
    let fleet = fleet(globals, &loaded)?;
    let Some(member) = fleet.members.first() else { return Err(Error::invalid("no host")) };
    member.host.compose(&loaded.project.name, words).map(ExitCode::from)
}

fn connect(globals: &Globals, host: &HostSettings) -> Result<Host> {
    let address = host.address.as_str();
    if let Some(rest) = address.strip_prefix(LOCAL).filter(|rest| rest.is_empty() || rest.starts_with(':')) {
        let root = rest.strip_prefix(':').or(globals.remote_root.as_deref());
        return Host::local(address, root);
    }
    Err(Error::invalid(format!("host {}: not reachable yet", host.address)))
}
