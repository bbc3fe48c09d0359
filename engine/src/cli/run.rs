//! The flags of `run` and `create`, and what they mean.

mod ahead;
mod elsewhere;
mod life;
mod limits;
mod network;
mod privilege;
mod process;
mod storage;
pub(crate) mod tunable;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::invocation::{Invocation, OfImage};
use crate::container::spec::{ContainerSpec, NamespaceMode, ProcessSpec};
use crate::container::stdio::Streams;
use crate::error::{Error, Result};
use crate::id::{ContainerId, ContainerName};

pub(super) use ahead::anticipate;
pub use life::{grace_of_seconds, parse_restart};
pub(crate) use limits::parse_cgroup_parent;
pub use limits::parse_ulimit;
pub(crate) use network::parse_host;
pub use privilege::{apply_security_option, bare_capability};
pub use process::{env_file, import_variable, pairs, read_pairs_file};
pub use storage::parse_device;
pub(crate) use tunable::memory_swap;

/// What `run` and `create` share: docker's flags under docker's names.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct CreateArgs {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Name of the container
    #[arg(long, value_parser = ContainerName::given)]
    name: Option<ContainerName>,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Attach to stdin, stdout or stderr alone
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<StandardStream>,
    /// Remove the container, with its anonymous volumes, when it ends
    #[arg(long)]
    pub rm: bool,
    /// Write the container's id to this file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Pull the image before it is used
    #[arg(long, value_enum, default_value = "missing")]
    pub pull: PullPolicy,
    /// Say nothing while pulling
    #[arg(short, long)]
    pub quiet: bool,
    /// Platform of the image, os/arch
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    process: process::ProcessArgs,
    #[command(flatten)]
    network: network::NetworkArgs,
    #[command(flatten)]
    storage: storage::StorageArgs,
    #[command(flatten)]
    limits: limits::LimitArgs,
    #[command(flatten)]
    privilege: privilege::PrivilegeArgs,
    #[command(flatten)]
    life: life::LifeArgs,
    #[command(flatten)]
    elsewhere: elsewhere::ElsewhereArgs,
    #[command(flatten)]
    invocation: Invocation<OfImage>,
}

/// When an image is pulled before a container is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Even if it is here.
    Always,
    /// If it is not here.
    Missing,
    /// Not at all.
    Never,
}

/// A standard stream by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StandardStream {
    Stdin,
    Stdout,
    Stderr,
}

/// Finds the container that a `container:NAME` names.
pub type FindContainer<'a> = &'a dyn Fn(&str) -> Result<ContainerId>;

/// What was asked, and what of it cannot be had here and is no reason to refuse.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The specification.
    pub spec: ContainerSpec,
    /// What is not as asked.
    pub warnings: Vec<String>,
}

// === impl CreateArgs ===

impl CreateArgs {
    /// What was asked, with paths resolved against this directory.
    ///
    /// # Errors
    /// Names the first option that makes no sense, contradicts another one, or cannot be had on this engine.
    pub fn into_spec(self, directory: &Path, find: FindContainer<'_>) -> Result<Asked> {
        let streams = self.streams();
        let mut spec = ContainerSpec {
            name: self.name,
            image: self.invocation.place,
            platform: self.platform,
            auto_remove: self.rm,
            ..ContainerSpec::default()
        };
        spec.process = ProcessSpec {
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive && streams.stdin,
            command: (!self.invocation.command.is_empty()).then_some(self.invocation.command),
            ..ProcessSpec::default()
        };
        let mut warnings = Vec::new();
        self.elsewhere.check()?;
        self.process.apply(&mut spec)?;
        self.network.apply(&mut spec, find, &mut warnings)?;
        self.storage.apply(&mut spec, directory)?;
        self.limits.apply(&mut spec, &mut warnings)?;
        self.privilege.apply(&mut spec, directory, find, &mut warnings)?;
        self.life.apply(&mut spec, &mut warnings)?;
        if spec.shm_size.is_some() && !matches!(spec.ipc, NamespaceMode::Private | NamespaceMode::Shareable) {
            warnings.push("--shm-size is discarded: /dev/shm is not of this container's own".to_owned());
        }
        Ok(Asked { spec, warnings })
    }

    /// The streams that are attached in the foreground: those named with `-a`, else both outputs, and the input of an
    /// interactive container.
    pub fn streams(&self) -> Streams {
        let named = |stream| self.attach.contains(&stream);
        if self.attach.is_empty() {
            return Streams { stdin: self.interactive, stdout: true, stderr: true };
        }
        Streams {
            stdin: named(StandardStream::Stdin),
            stdout: named(StandardStream::Stdout),
            stderr: named(StandardStream::Stderr),
        }
    }

    /// Whether streams were named with `-a`.
    pub fn names_streams(&self) -> bool {
        !self.attach.is_empty()
    }
}

// === impl StandardStream ===

impl std::str::FromStr for StandardStream {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "stdin" => Ok(Self::Stdin),
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            _ => Err(Error::invalid("valid streams are stdin, stdout and stderr")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::lazy::Lazy;
    use crate::container::spec::{BlockLimitKind, NetworkMode, RestartPolicy, Seccomp, Ulimit};
    use crate::quantity::{ByteSize, Span};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Lazy<CreateArgs>,
    }

    fn asked(words: &[&str]) -> Result<Asked> {
        let words = std::iter::once("run").chain(words.iter().copied());
        let line = Line::try_parse_from(words).map_err(|error| Error::invalid(error.to_string()))?;
        line.args.0.into_spec(Path::new("/work"), &|_| Ok(ContainerId::random()))
    }

    fn spec(line: &str) -> Result<ContainerSpec> {
        asked(&line.split_whitespace().collect::<Vec<_>>()).map(|asked| asked.spec)
    }

    #[test]
    fn what_follows_the_image_is_the_command() {
        let spec = spec("-it --rm --name web -e A=1 -h box busybox ls -l --color").unwrap();
        assert_eq!(spec.process.command.unwrap(), ["ls", "-l", "--color"]);
        assert_eq!(spec.image, "busybox");
        assert_eq!(spec.hostname.as_deref(), Some("box"));
        assert!(spec.process.tty && spec.process.open_stdin && spec.auto_remove);
    }

    #[test]
    fn limits_and_policies_are_values() {
        let spec = spec(
            "-m 64m --cpus 0.5 --restart on-failure:3 --ulimit nofile=10:20 --cap-add cap_net_admin \
             --memory-swappiness 0 --blkio-weight 300 --device-read-bps /dev/vda:1mb --device-write-iops \
             /dev/vda:100 --cpu-rt-runtime 95000 --cgroup-parent a-b.slice x",
        )
        .unwrap();
        assert_eq!(spec.resources.memory, Some(ByteSize(64 << 20)));
        assert_eq!(spec.resources.nano_cpus, Some(500_000_000));
        assert_eq!(spec.restart, RestartPolicy::OnFailure(3));
        assert_eq!(spec.ulimits["nofile"], Ulimit { soft: 10, hard: 20 });
        assert_eq!(spec.security.cap_add, ["NET_ADMIN"]);
        assert_eq!(spec.resources.memory_swappiness, Some(0));
        assert_eq!(spec.resources.blkio_weight, Some(300));
        assert_eq!(spec.resources.cpu_rt_runtime, Some(95_000));
        assert_eq!(spec.cgroup_parent.unwrap(), Path::new("a.slice/a-b.slice"));
        let rates: Vec<_> = spec.resources.blkio_devices.iter().map(|one| (one.kind, one.value)).collect();
        assert_eq!(rates, [(BlockLimitKind::ReadBytes, 1 << 20), (BlockLimitKind::WriteOperations, 100)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--restart sometimes x",
            "--rm --restart always x",
            "--restart always:3 x",
            "--ulimit nofile x",
            "--ulimit nofile=20:10 x",
            "--ulimit nosuch=1 x",
            "--add-host name x",
            "--security-opt magic x",
            "--log-driver syslog x",
            "--log-opt max-sise=1m x",
            "--log-opt max-size=much x",
            "--log-opt max-file=0 x",
            "--log-driver none --log-opt max-size=1m x",
            "--pid somewhere x",
            "--pid shareable x",
            "--uts container:y x",
            "--cgroupns container:y x",
            "--userns mapped x",
            "--uts host --hostname y x",
            "--network container:y --hostname z x",
            "--network container:y -p 80 x",
            "--network none --link y x",
            "--network container:y --dns 1.1.1.1 x",
            "--network host --network other x",
            "--network host --mac-address 02:00:00:00:00:01 x",
            "--network none --network-alias y x",
            "--ip 10.0.0.2 x",
            "--network-alias y x",
            "--mac-address zz x",
            "-p 80:x x",
            "-a stdwhat x",
            "-m 1m x",
            "-m 64m --memory-reservation 128m x",
            "--memory-swap 64m x",
            "-m 64m --memory-swap 32m x",
            "--memory-swappiness 101 x",
            "--oom-score-adj 1001 x",
            "--cpus 100000 x",
            "--cpus -1 x",
            "--cpus 1 --cpu-quota 5000 x",
            "--cpu-period 10 x",
            "--cpu-quota 10 x",
            "--cpuset-cpus 100000 x",
            "--cpuset-cpus a x",
            "--blkio-weight 5 x",
            "--blkio-weight-device /dev/vda:5 x",
            "--device-read-bps /dev/vda x",
            "--device-read-bps vda:1m x",
            "--device /dev/null:/dev/x:q x",
            "--device-cgroup-rule nonsense x",
            "--sysctl a x",
            "-e =x x",
            "-l =x x",
            "--health-interval 1us --health-cmd y x",
            "--no-healthcheck --health-retries 1 x",
            "--stop-signal nosuch x",
            "--gpus some x",
            "--cgroup-parent ../x x",
            "--link :y x",
            "--isolation hyperv x",
            "--runtime runsc x",
            "--storage-opt size=1g x",
            "--volume-driver nfs x",
            "--kernel-memory 1g x",
            "--disable-content-trust=false x",
            "--use-api-socket x",
            "--cpu-count 1 x",
            "",
        ] {
            assert!(spec(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn values_that_ask_for_what_is_anyway_are_fine() {
        for line in [
            "--isolation default x",
            "--disable-content-trust x",
            "--volume-driver local x",
            "--userns host x",
            "--cgroupns private x",
            "--ipc private x",
            "--memory-swap 0 --memory-swappiness -1 --pids-limit 0 --blkio-weight 0 x",
            "--security-opt apparmor=unconfined --security-opt label=disable x",
        ] {
            let asked = asked(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
            assert_eq!(asked.warnings, Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn streams_are_those_named() {
        let streams = |line: &str| {
            let words = std::iter::once("run").chain(line.split_whitespace());
            let streams = Line::try_parse_from(words).unwrap().args.streams();
            (streams.stdin, streams.stdout, streams.stderr)
        };
        assert_eq!(streams("x"), (false, true, true));
        assert_eq!(streams("-i x"), (true, true, true));
        assert_eq!(streams("-a STDOUT x"), (false, true, false));
        assert_eq!(streams("-i -a stderr x"), (false, false, true));
        assert_eq!(streams("-a stdin -a stdout x"), (true, true, false));
    }

    #[test]
    fn modes_and_options_of_security_are_values() {
        let spec = spec(
            "--security-opt no-new-privileges:true --security-opt seccomp=unconfined --security-opt \
             systempaths=unconfined --pid host --ipc shareable --uts host --network host x",
        )
        .unwrap();
        assert!(spec.security.no_new_privileges && spec.security.unmask_system_paths);
        assert_eq!(spec.security.seccomp, Seccomp::Unconfined);
        assert_eq!(
            (spec.pid, spec.ipc, spec.uts),
            (NamespaceMode::Host, NamespaceMode::Shareable, NamespaceMode::Host)
        );
        assert_eq!(spec.network, NetworkMode::Host);
    }

    #[test]
    fn health_options_without_a_command_change_the_images() {
        let spec = spec("--health-interval 2s --health-retries 7 x").unwrap();
        assert_eq!(spec.healthcheck, None);
        assert_eq!(spec.health_timing.interval, Some(Span::seconds(2)));
        assert_eq!(spec.health_timing.retries, Some(7));
    }

    #[test]
    fn gpus_are_devices_by_name() {
        let devices = |gpus: &str| asked(&["--gpus", gpus, "x"]).unwrap().spec.cdi_devices;
        assert_eq!(devices("all"), ["nvidia.com/gpu=all"]);
        assert_eq!(devices("2"), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        assert_eq!(devices("\"device=0,3\""), ["nvidia.com/gpu=0", "nvidia.com/gpu=3"]);
        assert_eq!(devices("driver=amd,count=all"), ["amd.com/gpu=all"]);
        let spec = spec("--device acme.com/pad=one x").unwrap();
        assert_eq!((spec.cdi_devices, spec.devices), (vec!["acme.com/pad=one".to_owned()], Vec::new()));
    }
}
