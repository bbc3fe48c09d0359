//! From the command line to the project, its settings, and hosts that listen.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use compose::Project;
use compose::document::suggestion;
use compose::load::{LoadOptions, load};
use compose::remote::Remote;
use engine::error::{Error, Result};
use engine::quantity::Span;

use super::{Globals, alias, output};
use crate::destination::Destination;
use crate::fleet::{Failures, Fleet, Member};
use crate::host::{Host, LOCAL, is_local};
use crate::pipeline::Task;
use crate::secrets;
use crate::settings::{Hooks, HostSettings, KEY, Settings, SshSettings, SudoSetting, Transfer};
use crate::ssh::{
    Access, Address, AddressError, Fingerprint, HostKey, Jump, KeySource, KnownHosts, Login, Output, Sudo,
};

/// How hosts are reached. Secrets come by variables: RDEPLOY_SSH_KEY, RDEPLOY_SSH_PASSPHRASE, RDEPLOY_SSH_PASSWORD,
/// RDEPLOY_SUDO_PASSWORD.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "SSH (secrets by RDEPLOY_SSH_KEY, RDEPLOY_SSH_PASSPHRASE, RDEPLOY_SSH_PASSWORD, RDEPLOY_SUDO_PASSWORD)"
)]
pub(super) struct SshFlags {
    /// A file with a private key
    #[arg(short = 'i', long, global = true, value_name = "FILE", env = "RDEPLOY_SSH_KEY_FILE")]
    pub(super) ssh_key: Option<PathBuf>,
    /// A certificate for the private key
    #[arg(long, global = true, value_name = "FILE")]
    ssh_certificate: Option<PathBuf>,
    /// The fingerprint of a host's key, `SHA256:…`; may be given several times
    #[arg(
        long,
        global = true,
        value_name = "FINGERPRINT",
        env = "RDEPLOY_FINGERPRINT",
        value_delimiter = ','
    )]
    pub(super) fingerprint: Vec<String>,
    /// Known host keys instead of the user's
    #[arg(long, global = true, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Known host keys themselves, as a workflow has them.
    #[arg(skip)]
    pub(super) host_keys: Option<String>,
    /// Take an unknown host's key as it is the first time
    #[arg(long, global = true)]
    accept_new: bool,
    /// A host to go through; may be given several times, in order
    #[arg(
        short = 'J',
        long,
        global = true,
        value_name = "HOST",
        env = "RDEPLOY_JUMP",
        value_delimiter = ','
    )]
    pub(super) jump: Vec<String>,
    /// Do not use sudo
    #[arg(long, global = true)]
    no_sudo: bool,
    /// How long a connection stays for the next command, when logging in takes no secret [default: 60s for a person at a
    /// terminal, else 0s]
    #[arg(long, global = true, value_name = "TIME", env = "RDEPLOY_SSH_PERSIST")]
    pub(super) ssh_persist: Option<Span>,
}

/// How long a connection stays for a person's next command.
const PERSISTENCE: Duration = Duration::from_secs(60);

/// A project with its settings.
pub(super) struct Loaded {
    pub(super) project: Project,
    pub(super) settings: Settings,
}

/// A project as its files say, and where it goes.
pub(super) struct Files {
    pub(super) loaded: compose::Loaded,
    destination: Option<Destination>,
}

/// Loads the project's files, and prints what is odd about them.
pub(super) fn load_files(globals: &Globals) -> Result<compose::Loaded> {
    let loaded = files(globals)?.loaded;
    loaded.warnings.iter().for_each(|warning| output::note(warning.to_string().trim_end()));
    Ok(loaded)
}

/// The settings, for who needs nothing else of the project.
pub(super) fn settings_alone(globals: &Globals) -> Result<Settings> {
    let files = files(globals)?;
    settings(globals, &files)
}

fn settings(globals: &Globals, files: &Files) -> Result<Settings> {
    let of_destination = files.destination.as_ref().and_then(|destination| destination.settings.as_deref());
    let settings = Settings::find(globals.config.as_deref().or(of_destination), &files.loaded.project)?;
    alias::expect_free(&settings.aliases)?;
    Ok(settings)
}

fn files(globals: &Globals) -> Result<Files> {
    let mut options = options(globals);
    let loaded = read(&options)?;
    let Some(name) = globals.destination.as_ref().filter(|name| !name.is_empty()) else {
        return Ok(Files { loaded, destination: None });
    };
    let destination = Destination::find(name, &loaded.project.working_dir)?;
    let usual = loaded.project.name;
    options.files = loaded.project.files;
    options.files.extend(destination.file.clone());
    if let (Some(variables), true) = (&destination.variables, globals.env_file.is_empty()) {
        let all = [loaded.project.working_dir.join(".env"), variables.clone()];
        options.env_files = all.into_iter().filter(|file| file.is_file()).collect();
    }
    let mut loaded = read(&options)?;
    // Unless somebody gave it another one there.
    if options.project_name.is_none() && loaded.project.name == usual {
        options.project_name = Some(destination.name_of(&usual));
        loaded = read(&options)?;
    }
    Ok(Files { loaded, destination: Some(destination) })
}

fn read(options: &LoadOptions) -> Result<compose::Loaded> {
    load(options).map_err(|diagnostics| Error::invalid(diagnostics.to_string().trim_end().to_owned()))
}

fn options(globals: &Globals) -> LoadOptions {
    LoadOptions {
        files: globals.file.clone(),
        project_directory: globals.project_directory.clone(),
        project_name: globals.project_name.clone(),
        env_files: globals.env_file.clone(),
        profiles: globals.profile.clone(),
        environment: compose::load::own_environment(),
        remote: Some(Remote::of_user()),
        ..LoadOptions::default()
    }
}

/// Loads the project and its settings, and prints what is odd about it.
pub(super) fn load_project(globals: &Globals) -> Result<Loaded> {
    read_project(globals).map(|(loaded, _)| loaded)
}

/// Loads the project of which these services, all when none is named, are about to be built and sent: what is lacking
/// here is told with its place, before any host is asked.
pub(super) fn load_to_send(globals: &Globals, services: &[String]) -> Result<Loaded> {
    let (loaded, files) = read_project(globals)?;
    expect_services(&loaded.project, services)?;
    let hooks = &loaded.settings.hooks;
    // A hook may make what is not there yet.
    if hooks.before_build.is_empty() && hooks.before_prepare.is_empty() {
        let odd = files
            .expect_here(&loaded.project, services)
            .map_err(|diagnostics| Error::invalid(diagnostics.to_string().trim_end().to_owned()))?;
        odd.iter().for_each(|warning| output::note(warning.to_string().trim_end()));
    }
    if loaded.settings.transfer == Transfer::Registry {
        expect_names(&loaded.project, services)?;
    }
    Ok(loaded)
}

/// What goes by way of a registry has to say which one.
fn expect_names(project: &Project, services: &[String]) -> Result<()> {
    let is_asked = |name: &String| services.is_empty() || services.contains(name);
    let nameless = project
        .services
        .values()
        .find(|service| is_asked(&service.name) && service.build.is_some() && service.image.is_none());
    let Some(service) = nameless else { return Ok(()) };
    let name = &service.name;
    Err(Error::invalid(format!("service {name} has no `image:` that says to which registry its image goes"))
        .with_hint(format!(
            "give it one, as in `image: registry.example.org/me/{name}`, or send it over the connection: `transfer: direct`"
        )))
}

fn read_project(globals: &Globals) -> Result<(Loaded, compose::Loaded)> {
    let files = files(globals)?;
    files.loaded.warnings.iter().for_each(|warning| output::note(warning.to_string().trim_end()));
    let mut settings = settings(globals, &files)?;
    let mut project = files.loaded.project.clone();
    globals.image.say(&mut project, &mut settings, &globals.image_services)?;
    settings.executables.relative_to(&project.working_dir);
    settings.ssh.lends_agent =
        project.services.values().flat_map(|it| &it.build).any(|it| !it.ssh.is_empty());
    let is_fetched = Remote::of_user().has(&project.working_dir);
    if is_fetched && globals.config.is_none() && settings.hooks != Hooks::default() {
        return Err(Error::invalid(
            "the settings that came with the project have hooks, which run on this machine",
        )
        .with_hint("name settings of your own with --config"));
    }
    globals
        .host
        .iter()
        .filter(|host| !host.is_empty() && !is_local(host))
        .try_for_each(|host| address("--host", host).map(drop))?;
    if globals.host.iter().any(|host| !host.is_empty()) {
        let named = |address: &String| {
            let known = settings.hosts.iter().find(|host| host.address == *address);
            known.cloned().unwrap_or_else(|| HostSettings::at(address.clone()))
        };
        settings.hosts = globals.host.iter().map(named).collect();
    }
    expect_once(&settings.hosts)?;
    Ok((Loaded { project, settings }, files.loaded))
}

/// An address, or why `what` is none. It may have a secret in it, and is shown only as far as it has not.
fn address(what: &str, text: &str) -> Result<Address> {
    text.parse().map_err(|error| {
        let hint = matches!(error, AddressError::Password(_))
            .then_some("give it by RDEPLOY_SSH_PASSWORD, that of a jump host by RDEPLOY_JUMP_PASSWORD");
        Error::invalid(what).with_source(error).with_hint_if(hint.map(str::to_owned))
    })
}

/// A host that is named twice would be in its own way.
fn expect_once(hosts: &[HostSettings]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match hosts.iter().find(|host| !seen.insert(&host.address)) {
        Some(host) => Err(Error::invalid(format!("the host {} is named twice", host.address))
            .with_hint("a host is named once, with all of its roles")),
        None => Ok(()),
    }
}

/// The project's hosts, each with an agent that listens, reached all at once.
pub(super) fn fleet(globals: &Globals, loaded: &Loaded) -> Result<Fleet<Task>> {
    reach(globals, loaded, tasks(loaded)?)
}

/// Expects that all of these are services of the project.
pub(super) fn expect_services(project: &Project, services: &[String]) -> Result<()> {
    let Some(unknown) = services.iter().find(|name| !project.services.contains_key(*name)) else {
        return Ok(());
    };
    if unknown.contains('@') || is_local(unknown) {
        return Err(Error::not_found(format!("no such service: {unknown}"))
            .with_hint(format!("a host is named with --host: `--host {unknown}`")));
    }
    let known = project.services.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    Err(Error::not_found(format!("no such service: {unknown}"))
        .with_hint(format!("the project {} has: {known}", project.name)))
}

/// Warns of services that are in a role which no host has. It is no error: somebody may deploy to some hosts only.
pub(super) fn warn_of_roles(settings: &Settings) {
    for (role, services) in &settings.roles {
        if !settings.hosts.iter().any(|host| host.roles.contains(role)) {
            let services = services.join(", ");
            output::note(&format!("WARNING: no host has the role {role}: {services} of it run nowhere"));
        }
    }
}

/// What each of the project's hosts is to do, before any of them is reached.
pub(super) fn tasks(loaded: &Loaded) -> Result<Vec<Task>> {
    let Loaded { project, settings } = loaded;
    if settings.hosts.is_empty() {
        let meant = project.extensions.keys().find(|key| suggestion(key, std::iter::once(KEY)).is_some());
        let usual = "name one: `rdeploy up --host user@server`, or list them under `hosts:` in rdeploy.yaml";
        let hint = meant.map_or_else(|| usual.to_owned(), |key| format!("{key:?}: did you mean {KEY:?}?"));
        return Err(Error::invalid("no host to deploy to").with_hint(hint));
    }
    let services = |host: &HostSettings| {
        settings.services_of(&host.roles, project.services.keys().map(String::as_str)).map(Task::of)
    };
    settings.hosts.iter().map(services).collect()
}

/// Reaches the project's hosts all at once.
pub(super) fn reach(globals: &Globals, loaded: &Loaded, tasks: Vec<Task>) -> Result<Fleet<Task>> {
    let (fleet, lost) = try_to_reach(globals, loaded, tasks);
    if lost.0.is_empty() { Ok(fleet) } else { Err(lost.into()) }
}

/// Those of the project's hosts that are reached, for who only looks, and why the others are not.
///
/// # Errors
/// When none is.
pub(super) fn reachable(globals: &Globals, loaded: &Loaded) -> Result<(Fleet<Task>, Failures)> {
    let (fleet, lost) = try_to_reach(globals, loaded, tasks(loaded)?);
    if fleet.members.is_empty() { Err(lost.into()) } else { Ok((fleet, lost)) }
}

fn try_to_reach(globals: &Globals, loaded: &Loaded, tasks: Vec<Task>) -> (Fleet<Task>, Failures) {
    let settings = &loaded.settings;
    let connected: Vec<(String, Result<Host>)> = thread::scope(|scope| {
        let running: Vec<_> = settings
            .hosts
            .iter()
            .map(|host| (host.address.clone(), scope.spawn(move || connect(globals, settings, host))))
            .collect();
        let wait = |thread: thread::ScopedJoinHandle<'_, Result<Host>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().map(|(name, thread)| (name, wait(thread))).collect()
    });
    let mut members = Vec::new();
    let mut failed = Vec::new();
    for ((name, host), task) in connected.into_iter().zip(tasks) {
        match host {
            Ok(host) => members.push(Member { host, task }),
            Err(error) => failed.push((name, error)),
        }
    }
    (Fleet { members }, Failures(failed))
}

/// A command line of `rcompose` for hosts.
pub(super) struct Words {
    /// All of it.
    pub(super) all: Vec<String>,
    /// What is put down of it in the hosts' audit trails; nothing when it only looks.
    pub(super) deed: Option<String>,
}

impl Words {
    /// Sees that the project is there, and puts down what is about to be done.
    fn begin(&self, host: &mut Host, project: &str) -> Result<()> {
        let Some(deed) = &self.deed else { return host.expect_served(project) };
        let name = host.name().to_owned();
        host.expect_served_for(project, deed, &|event| output::event(&name, &event))
    }
}

/// Runs `rcompose` on a host, with this process's own input and output.
pub(super) fn compose_on(project: &str, mut member: Member<Task>, words: &Words) -> Result<ExitCode> {
    words.begin(&mut member.host, project)?;
    member.host.into_shell().compose(project, &words.all).map(ExitCode::from)
}

/// Runs `rcompose` on these hosts, all at once and without input. `take` gets the lines that it writes as they come, with
/// the host. How it ended on each.
pub(super) fn compose_told(
    project: &str,
    mut fleet: Fleet<Task>,
    words: &Words,
    take: &(dyn Fn(&str, &str) + Sync),
) -> Result<Vec<(String, Output)>> {
    let one = |mut member: Member<Task>| {
        words.begin(&mut member.host, project)?;
        let name = member.host.name().to_owned();
        let output =
            member.host.into_shell().compose_told(project, &words.all, &mut |line| take(&name, line))?;
        Ok((name, output))
    };
    thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = std::mem::take(&mut fleet.members)
            .into_iter()
            .map(|member| scope.spawn(move || one(member)))
            .collect();
        let wait = |thread: thread::ScopedJoinHandle<'_, Result<(String, Output)>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().map(wait).collect()
    })
}

/// A host with an agent that listens.
pub(super) fn connect(globals: &Globals, settings: &Settings, host: &HostSettings) -> Result<Host> {
    let text = host.address.as_str();
    if is_local(text) {
        let rest = text.strip_prefix(LOCAL).unwrap_or_default();
        let root = rest.strip_prefix(':').or(globals.remote_root.as_deref());
        return Host::local(text, root);
    }
    let address = address("host", text)?;
    let access = access(&globals.ssh, &settings.ssh)?;
    Host::over_ssh(&address, &access, globals.remote_root.as_deref(), &settings.executables)
}

/// What the options, the settings and the secrets say together. An option wins.
fn access(flags: &SshFlags, settings: &SshSettings) -> Result<Access> {
    let pins = if flags.fingerprint.is_empty() { &settings.fingerprint } else { &flags.fingerprint };
    let pins: Vec<Fingerprint> = pins
        .iter()
        .filter(|pin| !pin.is_empty())
        .map(|pin| pin.parse().map_err(|error| Error::invalid("the fingerprint").with_source(error)))
        .collect::<Result<_>>()?;
    let known = flags.known_hosts.clone().or_else(|| settings.known_hosts.clone());
    let host_key = match (known, &flags.host_keys) {
        _ if !pins.is_empty() => HostKey::Pinned(pins),
        (_, Some(keys)) => HostKey::KnownIn(KnownHosts::Text(keys.clone())),
        (file, None) if flags.accept_new || settings.accept_new => HostKey::FirstUse(file),
        (Some(file), None) => HostKey::KnownIn(KnownHosts::File(file)),
        (None, None) => HostKey::Known,
    };
    let file = flags.ssh_key.clone().or_else(|| settings.key.clone()).map(KeySource::File);
    let key = secrets::get(secrets::SSH_KEY).map(KeySource::Text).or(file);
    let login = Login {
        password: secrets::get(secrets::SSH_PASSWORD),
        key: key.clone(),
        passphrase: secrets::get(secrets::SSH_PASSPHRASE),
        agent: None,
        certificate: flags.ssh_certificate.clone(),
        host_key,
    };
    let jump_login = Login {
        password: secrets::get(secrets::JUMP_PASSWORD).or_else(|| login.password.clone()),
        key: secrets::get(secrets::JUMP_KEY).map(KeySource::Text).or(key),
        passphrase: secrets::get(secrets::JUMP_PASSPHRASE).or_else(|| login.passphrase.clone()),
        ..login.clone()
    };
    let hops = if flags.jump.is_empty() { &settings.jump } else { &flags.jump };
    let hop = |text: &String| Ok(Jump { address: address("jump host", text)?, login: jump_login.clone() });
    let sudo = match secrets::get(secrets::SUDO_PASSWORD) {
        _ if flags.no_sudo || settings.sudo == SudoSetting::Never => Sudo::Never,
        Some(password) => Sudo::Password(password),
        None => Sudo::Auto,
    };
    Ok(Access {
        jump: hops.iter().filter(|hop| !hop.is_empty()).map(hop).collect::<Result<_>>()?,
        sudo,
        keep: if settings.lends_agent { Duration::ZERO } else { kept(flags, settings) },
        ..Access::by(login)
    })
}

fn kept(flags: &SshFlags, settings: &SshSettings) -> Duration {
    flags.ssh_persist.or(settings.persist).map_or_else(usual_persistence, |span| span.0)
}

/// A person gives one command after another; a pipeline must not leave anything behind.
fn usual_persistence() -> Duration {
    let is_person = io::stdin().is_terminal() && std::env::var_os("CI").is_none();
    if is_person { PERSISTENCE } else { Duration::ZERO }
}
