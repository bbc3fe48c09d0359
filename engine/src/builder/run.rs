//! RUN: a command of the image's own on top of its layers, with what its mounts bring.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::cache::Key;
use super::context::{Selected, Tree};
use super::copy::{Changes, Writer, Written};
use super::device::DeviceWish;
use super::error::Trouble;
use super::execute::{Broken, Message};
use super::files::literal;
use super::ignore::{Ignore, clean};
use super::instruction::{CommandLine, Run, Step};
use super::lexer::parse_heredoc;
use super::mount::{self, Mount, MountKind, Sharing};
use super::report::Work;
use super::setting::with_shell;
use super::ssh;
use super::stack::Stack;
use super::stage::{PROXIES, StageRun, fault};
use super::suspicion::Scene;
use super::{RunStep, foreign};
use crate::container::cdi::Registry;
use crate::container::spec::{MountSource, MountSpec, NetworkMode, Propagation};
use crate::id::Digest;
use crate::image::Platform;
use crate::image::config::ImageConfig;
use crate::store::scratch::Scratch;
use crate::store::{Lock, private_directory};

/// How much of the end of what a command wrote is looked at when it failed.
const MOST_SAID: usize = 4096;

/// A RUN with everything about it decided, before anything is mounted.
struct Prepared {
    argv: Vec<String>,
    env: Vec<String>,
    proxies: Vec<String>,
    network: NetworkMode,
    is_privileged: bool,
    devices: Vec<String>,
    mounts: Vec<PreparedMount>,
    script: Option<(String, String)>,
}

/// A mount, where it appears, and the files it shows unless it makes its own.
type PreparedMount = (Mount, String, Option<(Tree, Vec<Selected>)>);

/// What lives as long as the command runs.
#[derive(Default)]
pub(super) struct Held {
    mounts: Vec<MountSpec>,
    env: Vec<String>,
    pub(super) directories: Vec<Scratch>,
    locks: Vec<Lock>,
    doors: Vec<ssh::Door>,
}

/// Where the script of a here-document that starts with `#!` is shown.
const PIPES: &str = "/dev/pipes";

// === impl StageRun ===

impl StageRun<'_> {
    /// RUN.
    pub(super) fn run_command(&mut self, step: &Step, run: &Run) -> Result<(), Box<Broken>> {
        let work = self.work(&format!("{}{}", step.code, summary(run, self.build.escape)));
        let prepared = match self.prepare_run(step, run) {
            Ok(prepared) => prepared,
            Err(trouble) => {
                let failure = work.failed(&trouble.summary());
                return Err(Broken::at(step, trouble, failure));
            }
        };
        let key = match self.run_key(&prepared) {
            Ok(key) => key,
            Err(trouble) => {
                let failure = work.failed(&trouble.summary());
                return Err(Broken::at(step, trouble, failure));
            }
        };
        let entry = self.run_entry(&prepared.argv);
        let origin = self.layer(step, &key, work, &Vec::new, |stage, upper, work| {
            stage.run_step(&prepared, upper, work)
        })?;
        self.add(origin, entry);
        Ok(())
    }

    fn prepare_run(&self, step: &Step, run: &Run) -> Result<Prepared, Trouble> {
        let (command, script) = command_of(run, self.build.escape);
        let argv = match script {
            Some((ref name, _)) => vec![format!("{PIPES}/{name}")],
            None => with_shell(self.config.config.shell.as_deref(), &command),
        };
        let options = &self.build.request.run;
        let network = match run.network.as_deref() {
            Some("none") => NetworkMode::None,
            Some("host") if !options.allow_host_network && options.network != NetworkMode::Host => {
                return Err(fault(step, "RUN --network=host needs --allow network.host"));
            }
            Some("host") => NetworkMode::Host,
            _ => options.network.clone(),
        };
        let is_privileged = run.security.as_deref() == Some("insecure");
        if is_privileged && !options.allow_insecure {
            return Err(fault(step, "RUN --security=insecure needs --allow security.insecure"));
        }
        let mut devices = Vec::new();
        for text in &run.devices {
            let text = self.expand(step, text)?.text;
            let wish = DeviceWish::parse(&text).map_err(|message| fault(step, message))?;
            devices.extend(wish.find(&Registry::of(self.build.root), &options.allow_devices)?);
        }
        let mut env = self.config.config.env.clone();
        let is_in_env =
            |name: &str| self.config.config.env.iter().any(|pair| pair.split('=').next() == Some(name));
        for (name, value) in &self.args {
            if let Some(value) = value.as_ref().filter(|_| !is_in_env(name)) {
                env.push(format!("{name}={value}"));
            }
        }
        let proxies = self.proxies().filter(|(name, _)| !is_in_env(name));
        let proxies = proxies.map(|(name, value)| format!("{name}={value}")).collect();
        let mut mounts = Vec::new();
        for (number, text) in run.mounts.iter().enumerate() {
            mounts.push(self.prepare_mount(step, text, number)?);
        }
        Ok(Prepared { argv, env, proxies, network, is_privileged, devices, mounts, script })
    }

    /// What RUN sees of arguments about proxies without declaring them. Half of all programs read the one spelling
    /// only, so each is there under both.
    fn proxies(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let args = &self.build.request.args;
        let is_declared = |name: &str| self.args.iter().any(|(known, _)| known == name);
        let value =
            |[name, twin]: [&'static str; 2]| Some((name, args.get(name).or(args.get(twin))?.as_str()));
        let both = |[upper, lower]: [&'static str; 2]| [[upper, lower], [lower, upper]];
        PROXIES.into_iter().flat_map(both).filter_map(value).filter(move |(name, _)| !is_declared(name))
    }

    fn prepare_mount(&self, step: &Step, text: &str, number: usize) -> Result<PreparedMount, Trouble> {
        let expand =
            |text: &str| self.expand(step, text).map(|it| it.text).map_err(|trouble| trouble.summary());
        let mount =
            mount::parse(text, &expand).map_err(|message| fault(step, format!("--mount: {message}")))?;
        let target = match (&mount.target, mount.kind) {
            (None, MountKind::Ssh) => format!("/run/buildkit/ssh_agent.{number}"),
            (None, _) => format!("/run/secrets/{}", secret_file(mount.secret_id().unwrap_or_default())),
            (Some(target), _) if target.starts_with('/') => clean(target),
            (Some(target), _) => clean(&format!("{}/{target}", self.config.config.working_dir)),
        };
        if target == "/" {
            return Err(fault(step, "--mount: invalid mount target \"/\""));
        }
        let has_files = mount.kind == MountKind::Bind
            || (mount.kind == MountKind::Cache && (mount.from.is_some() || mount.source.is_some()));
        if !has_files {
            return Ok((mount, target, None));
        }
        let tree = match mount.from.as_ref().and_then(|from| self.planned.sources.get(from)) {
            Some(source) => self.build.tree(source)?,
            None => self.build.context.clone(),
        };
        let source = mount.source.clone().unwrap_or_else(|| "/".to_owned());
        // A path here is a path: wildcards mean themselves.
        let selected = tree.select(&literal(&source), &Ignore::default(), false);
        let selected = selected.map_err(|error| Trouble::invalid(format!("--mount: {error}")))?;
        Ok((mount, target, Some((tree, selected))))
    }

    fn run_key(&self, prepared: &Prepared) -> Result<Key, Trouble> {
        let config = &self.config.config;
        let mut key = self.key("RUN").named_all("the command", &prepared.argv);
        for pair in &prepared.env {
            let name = pair.split('=').next().unwrap_or_default();
            key = key.named(format!("${name}"), pair);
        }
        key = key
            .with((prepared.env.len() as u64).to_le_bytes())
            .named("WORKDIR", &config.working_dir)
            .named("USER", &config.user)
            .with(format!("{:?} {}", prepared.network, prepared.is_privileged))
            // Where a name leads may change, as with a registry's mirror; whether there is one says what is made.
            .named_all("--add-host", self.build.request.run.extra_hosts.iter().map(|(name, _)| name))
            .named("the host name", self.hostname())
            .with(format!("{}/{}", self.config.os, self.config.architecture))
            .with_all(prepared.script.iter().flat_map(|(name, text)| [name, text]));
        if !prepared.devices.is_empty() {
            key = key.named_all("--device", &prepared.devices);
        }
        for (mount, target, files) in &prepared.mounts {
            key = key.with(format!("{:?}", mount.kind)).with(target);
            match (mount.kind, files) {
                (MountKind::Bind, Some((tree, selected))) => {
                    let digest = tree
                        .digest(selected, &self.build.digests)
                        .map_err(Trouble::io("read the files to mount"))?;
                    key = key
                        .named(format!("the files mounted at {target}"), digest)
                        .with([u8::from(mount.read_only != Some(false))]);
                }
                (MountKind::Secret, _) => {
                    key = key.with(mount.secret_id().unwrap_or_default());
                    key = key.with(mount.env.as_deref().unwrap_or_default());
                }
                (MountKind::Tmpfs, _) => key = key.with(format!("{:?}", mount.size)),
                (MountKind::Ssh, _) => key = key.with(mount.id.as_deref().unwrap_or(ssh::DEFAULT)),
                _ => {}
            }
        }
        Ok(key)
    }

    /// The host name in the sandbox.
    fn hostname(&self) -> &str {
        let asked = self.build.request.args.get("BUILDKIT_SANDBOX_HOSTNAME").filter(|name| !name.is_empty());
        asked.map_or("buildkitsandbox", String::as_str)
    }

    /// `RUN |1 V=1 /bin/sh -c … # buildkit`, as histories have it.
    fn run_entry(&self, argv: &[String]) -> String {
        let args: Vec<String> = self
            .args
            .iter()
            .map(|(name, _)| format!("{name}={}", self.value_of(name).unwrap_or_default()))
            .collect();
        let mut words = Vec::new();
        if !args.is_empty() {
            words.push(format!("|{}", args.len()));
            words.extend(args);
        }
        words.extend(argv.iter().cloned());
        format!("RUN {} # buildkit", words.join(" "))
    }

    /// Whether this is what the shell is given for an instruction in its form.
    fn is_shell(&self, argv: &[String]) -> bool {
        let usual = ["/bin/sh", "-c"].map(str::to_owned);
        let shell = self.config.config.shell.as_deref().unwrap_or(&usual);
        argv.len() == shell.len() + 1 && argv.starts_with(shell)
    }

    fn run_step(
        &self,
        prepared: &Prepared,
        upper: &Path,
        work: &mut Work<Message>,
    ) -> Result<Written, Trouble> {
        let ImageConfig { os, architecture, variant, .. } = &self.config;
        foreign::make_ready(&Platform::new(os, architecture, variant.as_deref()))?;
        let lower = self.build.lower(&self.config.rootfs.diff_ids);
        let stack = Stack::of(lower.clone());
        take_root_attributes(upper, &lower).map_err(Trouble::io("prepare a layer's directory"))?;
        let directory = upper.with_file_name("work");
        fs::create_dir(&directory).map_err(Trouble::io("make overlay's work directory"))?;
        let mut held = Held::default();
        for (mount, target, files) in &prepared.mounts {
            self.hold_mount(mount, target, files.as_ref(), &mut held)?;
        }
        if let Some((name, text)) = &prepared.script {
            self.hold_script(name, text, &mut held)?;
        }
        let options = &self.build.request.run;
        let config = &self.config.config;
        let targets: Vec<PathBuf> = held.mounts.iter().map(|mount| mount.target.clone()).collect();
        let mut env = prepared.env.clone();
        env.extend(prepared.proxies.iter().cloned());
        env.extend(std::mem::take(&mut held.env));
        let step = RunStep {
            lower,
            upper: upper.to_owned(),
            work: directory,
            argv: prepared.argv.clone(),
            env,
            cwd: PathBuf::from(&config.working_dir),
            user: Some(config.user.clone()).filter(|user| !user.is_empty()),
            hostname: self.hostname().to_owned(),
            network: prepared.network.clone(),
            privileged: prepared.is_privileged,
            devices: prepared.devices.clone(),
            mounts: std::mem::take(&mut held.mounts),
            extra_hosts: options.extra_hosts.clone(),
            shm_size: options.shm_size,
            ulimits: options.ulimits.clone(),
            resources: options.resources.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
        };
        let mut said = Vec::new();
        let ran = self.build.runner.run(&step, &mut |stream, bytes| {
            said.extend_from_slice(bytes);
            said.drain(..said.len().saturating_sub(MOST_SAID));
            work.output(stream, bytes);
        });
        let files = stack.below(upper);
        let scene = Scene {
            argv: &prepared.argv,
            is_shell: self.is_shell(&prepared.argv),
            cwd: &step.cwd,
            stack: &files,
            said: &said,
            is_limited: step.resources.memory.is_some(),
        };
        let code = ran.map_err(|error| match error.hint() {
            None => {
                let hint = scene.of_start(&error.to_string());
                error.with_hint_if(hint)
            }
            Some(_) => error,
        })?;
        if code != 0 {
            let hint = scene.of_code(code);
            if options.shell_on_failure {
                let shell = self.config.config.shell.as_ref().and_then(|shell| shell.first());
                self.build.remains.keep(step, shell.map_or("/bin/sh", String::as_str).to_owned(), held);
            }
            return Err(Trouble::Command { command: prepared.argv.join(" "), code, hint });
        }
        drop(held);
        clean_stubs(upper, &stack, &targets).map_err(Trouble::io("clean up after the command"))?;
        Ok(Written { is_steady: true, ..Written::default() })
    }

    fn hold_mount(
        &self,
        mount: &Mount,
        target: &str,
        files: Option<&(Tree, Vec<Selected>)>,
        held: &mut Held,
    ) -> Result<(), Trouble> {
        let source = match (mount.kind, files) {
            // Compilers run what they have just built there.
            (MountKind::Tmpfs, _) => {
                MountSource::Tmpfs { size: mount.size, mode: None, options: vec!["exec".to_owned()] }
            }
            (MountKind::Secret, _) => return self.hold_secret(mount, target, held),
            (MountKind::Ssh, _) => return self.hold_agent(mount, target, held),
            (MountKind::Cache, files) => bind(self.cache_directory(mount, target, files, held)?),
            (MountKind::Bind, files) => {
                let Some((tree, selected)) = files else { return Ok(()) };
                self.shown(tree, selected, mount.read_only != Some(false), held)?
            }
        };
        let read_only = mount.read_only.unwrap_or(mount.kind == MountKind::Bind);
        held.mounts.push(MountSpec { target: target.into(), source, read_only });
        Ok(())
    }

    /// The directory of a cache mount, made when it is new.
    fn cache_directory(
        &self,
        mount: &Mount,
        target: &str,
        files: Option<&(Tree, Vec<Selected>)>,
        held: &mut Held,
    ) -> Result<PathBuf, Trouble> {
        let failed = |step: &str| Trouble::io(format!("{step} a cache mount"));
        let base = self.build.root.build_cache().join("mounts");
        private_directory(&base).map_err(failed("make"))?;
        let name = self.cache_name(mount, target, files)?;
        let mut directory = base.join(name.hex());
        match mount.sharing.unwrap_or_default() {
            Sharing::Shared => {}
            Sharing::Locked => {
                let lock = base.join(format!("{}.lock", name.hex()));
                held.locks.push(Lock::exclusive(&lock).map_err(failed("lock"))?);
            }
            Sharing::Private => {
                for turn in 0.. {
                    let lock = base.join(format!("{}.{turn}.lock", name.hex()));
                    if let Some(lock) = Lock::try_exclusive(&lock).map_err(failed("lock"))? {
                        held.locks.push(lock);
                        directory = base.join(format!("{}.{turn}", name.hex()));
                        break;
                    }
                }
            }
        }
        // Stages that run at once may want the same one, and it is made once.
        let making = base.join(format!("{}.making", name.hex()));
        let _making = Lock::exclusive(&making).map_err(failed("lock"))?;
        let is_renewed = !self.build.uses_cache(self.planned.name.as_deref())
            && self.build.joint.renewed.lock().is_ok_and(|mut renewed| renewed.insert(directory.clone()));
        if is_renewed {
            crate::store::remove_tree(&directory).map_err(failed("reset"))?;
        }
        if !directory.exists() {
            self.make_cache_directory(&directory, mount, files)?;
        }
        Ok(directory)
    }

    /// What a cache is kept under: the id, the namespace that the build gives all ids, and what it is filled with.
    fn cache_name(
        &self,
        mount: &Mount,
        target: &str,
        files: Option<&(Tree, Vec<Selected>)>,
    ) -> Result<Digest, Trouble> {
        let mut name = mount.id.as_deref().unwrap_or(target).to_owned();
        if let Some(space) = self.build.request.args.get("BUILDKIT_CACHE_MOUNT_NS") {
            name = format!("{space}/{name}");
        }
        // The directory of one who asked for nothing of the kind is root's, and of no use to others.
        if mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some() {
            name = format!("{name}\0{:?} {:?} {:?}", mount.mode, mount.uid, mount.gid);
        }
        if let Some((tree, selected)) = files {
            let seed = tree.digest(selected, &self.build.digests);
            let seed = seed.map_err(Trouble::io("read what a cache mount begins with"))?;
            name = format!("{name}\0{}", crate::id::hex(&seed));
        }
        Ok(Digest::of(name.as_bytes()))
    }

    fn make_cache_directory(
        &self,
        directory: &Path,
        mount: &Mount,
        files: Option<&(Tree, Vec<Selected>)>,
    ) -> Result<(), Trouble> {
        let room = self.build.scratch()?;
        let fresh = room.path().join("cache");
        let make = || -> io::Result<()> {
            fs::DirBuilder::new().mode(0o755).create(&fresh)?;
            if let Some((tree, selected)) = files {
                let changes = Changes { keep_owners: tree.keeps_owners, ..Changes::default() };
                let mut writer = Writer::new(&fresh, &Stack::of(Vec::new()), changes, self.build.now)?;
                for source in selected {
                    writer.copy(source, Path::new("/"), true)?;
                }
                writer.finish()?;
            }
            chown(&fresh, Some(mount.uid.unwrap_or(0)), Some(mount.gid.unwrap_or(0)))?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(mount.mode.unwrap_or(0o755)))?;
            fs::rename(&fresh, directory)
        };
        make().map_err(Trouble::io("make a cache mount"))
    }

    /// The value of a secret that was given to the build.
    pub(super) fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let secret = self.build.request.secrets.iter().find(|secret| secret.id == id);
        let value = secret.map_or(Ok(None), super::Secret::value);
        value.map_err(Trouble::io(format!("read the secret {id}")))
    }

    fn hold_secret(&self, mount: &Mount, target: &str, held: &mut Held) -> Result<(), Trouble> {
        let id = mount.secret_id().unwrap_or_default();
        let Some(value) = self.secret(id)? else {
            return if mount.required == Some(true) {
                let error = crate::Error::not_found(format!("secret {id}: not found"));
                Err(error.with_hint(format!("--secret id={id},src=FILE or ,env=VARIABLE gives it")).into())
            } else {
                Ok(())
            };
        };
        if let Some(name) = &mount.env {
            held.env.push(format!("{name}={}", String::from_utf8_lossy(&value)));
            if mount.target.is_none() {
                return Ok(());
            }
        }
        // The run directory is in memory: the value never reaches a disk.
        let mut keep = || -> io::Result<PathBuf> {
            let room = Scratch::directory_in(self.build.root.run())?;
            let file = room.path().join("value");
            crate::store::write_atomic(&file, &value, 0o400, crate::store::Durability::Rename)?;
            held.directories.push(room);
            Ok(file)
        };
        let file = keep().map_err(Trouble::io(format!("hand over the secret {id}")))?;
        let source = MountSource::Content {
            file,
            mode: mount.mode.unwrap_or(0o400),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        };
        held.mounts.push(MountSpec { target: target.into(), source, read_only: true });
        Ok(())
    }

    /// Lets the command talk to an SSH agent of ours, through a socket that belongs to whoever it is for.
    fn hold_agent(&self, mount: &Mount, target: &str, held: &mut Held) -> Result<(), Trouble> {
        let id = mount.id.as_deref().unwrap_or(ssh::DEFAULT);
        let Some(agent) = self.build.agent(id)? else {
            return if mount.required == Some(true) {
                let message = format!("no SSH agent {id:?} was given to the build");
                let hint =
                    format!("rengine build --ssh {id}, with SSH_AUTH_SOCK set, or --ssh {id}=SOCKET or =KEY");
                Err(Trouble::Step(crate::Error::not_found(message).with_hint(hint)))
            } else {
                Ok(())
            };
        };
        let open = || {
            private_directory(self.build.root.run())?;
            ssh::Door::open(self.build.root.run(), agent.socket(), mount)
        };
        let door = open().map_err(Trouble::io(format!("offer the SSH agent {id}")))?;
        if !held.env.iter().any(|pair| pair.starts_with("SSH_AUTH_SOCK=")) {
            held.env.push(format!("SSH_AUTH_SOCK={target}"));
        }
        let source = bind(door.socket());
        held.mounts.push(MountSpec { target: target.into(), source, read_only: false });
        held.doors.push(door);
        Ok(())
    }

    fn hold_script(&self, name: &str, text: &str, held: &mut Held) -> Result<(), Trouble> {
        let room = self.build.scratch()?;
        let write = || -> io::Result<()> {
            fs::set_permissions(room.path(), fs::Permissions::from_mode(0o755))?;
            let file = room.path().join(name);
            fs::write(&file, text)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
        };
        write().map_err(Trouble::io("write the script of a here-document"))?;
        let source = bind(room.path().to_owned());
        held.mounts.push(MountSpec { target: PIPES.into(), source, read_only: true });
        held.directories.push(room);
        Ok(())
    }
}

/// The name of the file a secret becomes when it is not said: ids may be paths, as in `--secret id=aws/key`.
fn secret_file(id: &str) -> &str {
    id.rsplit('/').find(|part| !part.is_empty()).unwrap_or("secret")
}

/// A mount of just this path of the host.
pub(super) fn bind(path: PathBuf) -> MountSource {
    MountSource::Bind {
        path,
        create: false,
        propagation: Propagation::Rprivate,
        recursive: true,
        writable_below: false,
    }
}

/// The beginning of the script of a here-document, for people: ` (apt-get update...)`.
fn summary(run: &Run, escape: char) -> String {
    let (Some(first), CommandLine::Shell(text)) = (run.heredocs.first(), &run.command) else {
        return String::new();
    };
    let mut lines = first.text.trim().lines();
    match lines.next().filter(|_| parse_heredoc(text, escape).is_some()) {
        Some(line) => format!(" ({}{})", line.trim(), if lines.next().is_some() { "..." } else { "" }),
        None => String::new(),
    }
}

/// What a RUN with here-documents runs: one alone is the script itself, with `#!` a program of its own; any
/// other use of them is put together again for the shell.
fn command_of(run: &Run, escape: char) -> (CommandLine, Option<(String, String)>) {
    let (Some(first), CommandLine::Shell(text)) = (run.heredocs.first(), &run.command) else {
        return (run.command.clone(), None);
    };
    if parse_heredoc(text, escape).is_some() {
        let body = first.body();
        if body.starts_with("#!") {
            return (run.command.clone(), Some((first.name.clone(), body)));
        }
        return (CommandLine::Shell(body), None);
    }
    let mut full = text.clone();
    for heredoc in &run.heredocs {
        full.push_str(&format!("\n{}{}", heredoc.text, heredoc.name));
    }
    (CommandLine::Shell(full), None)
}

/// The root directory looks as it did in the layer below.
fn take_root_attributes(upper: &Path, lower: &[PathBuf]) -> io::Result<()> {
    let (mode, uid, gid) = match lower.first() {
        Some(top) => {
            let metadata = fs::symlink_metadata(top)?;
            (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
        }
        None => (0o755, 0, 0),
    };
    chown(upper, Some(uid), Some(gid))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(mode))
}

/// Takes away the empty files and directories that were only made to be mounted on.
fn clean_stubs(upper: &Path, lower: &Stack, targets: &[PathBuf]) -> io::Result<()> {
    const ALWAYS: [&str; 12] = [
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev",
        "/proc",
        "/sys",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/etc/mtab",
        "/run/secrets",
        "/etc",
    ];
    let mut paths: Vec<PathBuf> = targets.to_vec();
    paths.extend(targets.iter().flat_map(|target| target.ancestors().skip(1).map(Path::to_owned)));
    paths.extend(ALWAYS.iter().map(PathBuf::from));
    // Deeper ones first, so that what becomes empty on the way goes too.
    paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    paths.dedup();
    for path in paths {
        let Ok(relative) = path.strip_prefix("/") else { continue };
        if relative.as_os_str().is_empty() {
            continue;
        }
        let host = upper.join(relative);
        let Ok(metadata) = fs::symlink_metadata(&host) else { continue };
        match lower.resolve(relative, false)?.entry {
            // Overlay copied it up only because something below it was mounted on.
            Some(below) if metadata.is_dir() && below.metadata.is_dir() => {
                let same = below.metadata.mode() == metadata.mode()
                    && below.metadata.uid() == metadata.uid()
                    && below.metadata.gid() == metadata.gid();
                if same && is_plain_empty(&host)? {
                    fs::remove_dir(&host)?;
                }
            }
            Some(_) => {}
            None if metadata.is_dir() && is_plain_empty(&host)? => fs::remove_dir(&host)?,
            None if metadata.is_file() && metadata.len() == 0 => fs::remove_file(&host)?,
            None => {}
        }
    }
    Ok(())
}

fn is_plain_empty(directory: &Path) -> io::Result<bool> {
    let mut value = [0u8; 1];
    let is_opaque =
        rustix::fs::lgetxattr(directory, crate::layer::unpack::opaque_xattr(), &mut value) == Ok(1);
    Ok(!is_opaque && fs::read_dir(directory)?.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::lexer::Heredoc;

    fn run(command: &str, name: &str, text: &str) -> Run {
        Run {
            command: CommandLine::Shell(command.to_owned()),
            mounts: Vec::new(),
            network: None,
            security: None,
            devices: Vec::new(),
            heredocs: vec![Heredoc { name: name.into(), expand: true, chomp: false, text: text.into() }],
        }
    }

    #[test]
    fn a_heredoc_is_a_script_a_program_or_input() {
        let shell = |text: &str| (CommandLine::Shell(text.to_owned()), None);
        assert_eq!(command_of(&run("<<EOF", "EOF", "a\nb\n"), '\\'), shell("a\nb\n"));
        assert_eq!(command_of(&run("<<EOF cat", "EOF", "a\n"), '\\'), shell("<<EOF cat\na\nEOF"));
        let (_, script) = command_of(&run("<<EOF", "EOF", "#!/bin/x\n"), '\\');
        assert_eq!(script, Some(("EOF".into(), "#!/bin/x\n".into())));
    }

    #[test]
    fn what_was_only_mounted_on_leaves_no_trace() {
        let temp = tempfile::tempdir().unwrap();
        let (upper, low) = (temp.path().join("upper"), temp.path().join("low"));
        for dir in ["upper/etc", "upper/proc", "upper/kept", "upper/mnt/cache", "low/etc"] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        fs::write(upper.join("etc/hosts"), "").unwrap();
        let lower = Stack::of(vec![low]);
        clean_stubs(&upper, &lower, &[PathBuf::from("/mnt/cache")]).unwrap();
        let left: Vec<_> = fs::read_dir(&upper).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
    }
}
