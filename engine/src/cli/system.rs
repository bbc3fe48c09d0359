//! The engine itself: version, facts, disk usage, repair and removal of what is unused.

mod prune;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::disk::{self, DiskArgs};
use crate::cli::events::{self, EventsArgs};
use crate::cli::output;
use crate::container::cgroup::detect::Layout;
use crate::engine::{BootUnit, Engine, Findings, UNITS, machine_memory};
use crate::error::{Error, Result};
use prune::PruneArgs;

/// A verb on the engine.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show what takes space
    Df(DiskArgs),
    /// Show facts of the engine and the machine
    Info(InfoArgs),
    /// Tell what happens, as it happens
    Events(EventsArgs),
    /// Find what crashes left behind, and remove it
    Check {
        /// Read every blob and layer too, and compare them with their digests
        #[arg(long)]
        verify: bool,
    },
    /// Start the containers whose restart policy asks for it, as after a reboot
    Boot,
    /// Have systemd do so with every boot
    InstallBoot {
        /// Where the machine's units are
        #[arg(long, value_name = "DIR", default_value = UNITS)]
        directory: PathBuf,
    },
    /// Remove stopped containers, unused networks, dangling images and the build cache
    Prune(PruneArgs),
    /// Stop every container and remove every trace of this root from the kernel; files stay
    Down,
}

/// The flags of `version`.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// json, or a template
    #[arg(short, long)]
    format: Option<String>,
}

/// The flags of `info`.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// json, or a template
    #[arg(short, long)]
    format: Option<String>,
}

/// Carries a verb out.
pub(super) fn run(engine: &Engine, verb: &Verb) -> Result<u8> {
    match verb {
        Verb::Df(args) => disk::usage(engine, args),
        Verb::Info(args) => info(engine, args),
        Verb::Events(args) => events::events(engine, args),
        Verb::Check { verify } => check(engine, *verify),
        Verb::Boot => boot(engine),
        Verb::InstallBoot { directory } => install_boot(engine, directory),
        Verb::Prune(args) => prune::prune(engine, args),
        Verb::Down => down(engine),
    }
}

/// Shows the version.
pub(super) fn version(args: &VersionArgs) -> Result<u8> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let server = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": crate::image::Platform::host().architecture,
        "KernelVersion": kernel,
    });
    let facts = json!({ "Client": server.clone(), "Server": server });
    match args.format.as_deref() {
        None => {
            let text = |name: &str| facts["Server"][name].as_str().unwrap_or_default().to_owned();
            let platform = format!("{}/{}", text("Os"), text("Arch"));
            // One program is both; docker's two parts are where scripts look for them.
            output::line(&format!(
                "Client: rengine\n Version:    {}\n OS/Arch:    {platform}\n",
                text("Version")
            ));
            output::line(&format!(
                "Server: rengine\n Engine:\n  Version:   {}\n  OS/Arch:   {platform}",
                text("Version")
            ));
            output::line(&format!("  Kernel:    {kernel}"));
        }
        Some("json") => output::line(&facts.to_string()),
        format => output::inspected(format, &[facts])?,
    }
    Ok(0)
}

/// Shows facts of the engine and the machine.
pub(super) fn info(engine: &Engine, args: &InfoArgs) -> Result<u8> {
    let containers = engine.containers()?;
    let count = |word: &str| containers.iter().filter(|container| container.state.word() == word).count();
    let uname = rustix::system::uname();
    let layout = Layout::detect().map_err(|error| Error::failed("look at the control groups", error))?;
    let is_pure = layout.v1_mounts().is_empty();
    let facts = json!({
        "Containers": containers.len(),
        "ContainersRunning": count("running"),
        "ContainersPaused": count("paused"),
        "ContainersStopped": count("exited") + count("created"),
        "Images": engine.images().list()?.len(),
        "Driver": "overlay",
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if is_pure { "2" } else { "1" },
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "macvlan", "null"],
            "Log": ["json-file", "local", "none"],
        },
        "Runtimes": { "rengine": {} },
        "DefaultRuntime": "rengine",
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "Swarm": { "LocalNodeState": "inactive" },
        "DockerRootDir": engine.root().state(),
        "OSType": std::env::consts::OS,
        "OperatingSystem": operating_system(),
        "KernelVersion": uname.release().to_string_lossy(),
        "Architecture": uname.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": machine_memory(),
        "Name": uname.nodename().to_string_lossy(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Warnings": Value::Null,
    });
    match args.format.as_deref() {
        None => {
            let text =
                |name: &str| facts[name].as_str().map_or_else(|| facts[name].to_string(), str::to_owned);
            output::line("Server:");
            for (label, name) in [
                (" Containers", "Containers"),
                ("  Running", "ContainersRunning"),
                ("  Paused", "ContainersPaused"),
                ("  Stopped", "ContainersStopped"),
                (" Images", "Images"),
                (" Server Version", "ServerVersion"),
                (" Storage Driver", "Driver"),
                (" Logging Driver", "LoggingDriver"),
                (" Cgroup Driver", "CgroupDriver"),
                (" Cgroup Version", "CgroupVersion"),
                (" Kernel Version", "KernelVersion"),
                (" Operating System", "OperatingSystem"),
                (" OSType", "OSType"),
                (" Architecture", "Architecture"),
                (" CPUs", "NCPU"),
                (" Total Memory", "MemTotal"),
                (" Name", "Name"),
                (" Root Dir", "DockerRootDir"),
            ] {
                output::line(&format!("{label}: {}", text(name)));
            }
        }
        Some("json") => output::line(&facts.to_string()),
        format => output::inspected(format, &[facts])?,
    }
    Ok(0)
}

/// What the host's system calls itself (os-release(5)).
fn operating_system() -> String {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok());
    let name = text.as_deref().unwrap_or_default().lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn check(engine: &Engine, verify: bool) -> Result<u8> {
    let mut findings = engine.check()?;
    if verify {
        findings.damaged.extend(engine.images().verify()?);
    }
    if findings == Findings::default() {
        output::line("nothing was left behind");
    }
    findings.repaired.iter().for_each(|finding| output::line(finding));
    findings.damaged.iter().for_each(|finding| output::warning(finding));
    Ok(u8::from(!findings.damaged.is_empty()))
}

fn boot(engine: &Engine) -> Result<u8> {
    let mut code = 0;
    for (name, result) in engine.boot()? {
        match result {
            Ok(()) => output::line(name.as_str()),
            Err(error) => {
                output::failure(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn install_boot(engine: &Engine, directory: &Path) -> Result<u8> {
    let program = std::env::current_exe().map_err(|error| Error::failed("find this program", error))?;
    let path = BootUnit::new(&program, engine.root()).install(directory)?;
    output::line(&path.display().to_string());
    if directory == Path::new(UNITS) {
        output::note("systemd reads it at the next boot, or now after: systemctl daemon-reload");
    }
    Ok(0)
}

fn down(engine: &Engine) -> Result<u8> {
    engine.down()?;
    Ok(0)
}
