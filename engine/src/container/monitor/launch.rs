//! Starting the container: everything outside of it first, then the launch, then the record.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Pid;

use crate::container::cgroup::Cgroup;
use crate::container::health::Checkup;
use crate::container::launch::{self, Child, Links, NoLinks, Stdio};
use crate::container::monitor::output::{Input, Outputs};
use crate::container::monitor::run::Run;
use crate::container::monitor::{Monitor, Phase};
use crate::container::mounted::Mounted;
use crate::container::plan::LaunchPlan;
use crate::container::record::ContainerRecord;
use crate::container::restart::{self, Verdict};
use crate::container::spec::NetworkMode;
use crate::container::state::{Event, Exited, State};
use crate::container::stdio::Pipe;
use crate::error::{Error, Kind, Result};
use crate::network::{self, DnsSockets, Endpoint, InsideLink, Party, Resolver};
use crate::store::{self, Lock};
use crate::volume::Volumes;

/// What the start of a container gives: its process and what was not as asked.
type Started = (i32, Vec<String>);

/// The links of a container with a network namespace of its own.
struct Plugged<'a> {
    namespace: Option<OwnedFd>,
    endpoints: &'a [Endpoint],
    /// Whether it has a name server of its own.
    resolves: bool,
}

/// A launched child with what surrounds it.
struct Launched {
    child: Child,
    plan: LaunchPlan,
    cgroup: Cgroup,
    outputs: Outputs,
    input: Input,
    endpoints: Vec<Endpoint>,
    warnings: Vec<String>,
    /// Until it is on record that the container runs.
    turn: Option<Lock>,
    mounted: Mounted,
}

// === impl Monitor ===

impl Monitor {
    /// The start that a command asked for. When it fails, the monitor has nothing to watch over.
    pub(super) fn start_first(&mut self) -> Result<Started> {
        match &self.state {
            State::Removing => {
                self.phase = Phase::Over(None);
                return Err(Error::conflict(format!("container {} is being removed", self.record.name)));
            }
            // The last monitor was killed and nobody has noticed yet.
            State::Running(_) => self.state = State::Created,
            _ => {}
        }
        let started = self.start();
        if let Err(error) = &started {
            self.start_failed(error, false);
            self.phase = Phase::Over(None);
        }
        started
    }

    /// The start that a command asked for while the back-off lasts.
    pub(super) fn start_now(&mut self) -> Result<Started> {
        let started = self.start();
        if let Err(error) = &started {
            self.start_failed_again(error);
        }
        started
    }

    /// The start that the restart policy asks for.
    pub(super) fn start_again(&mut self) {
        if let Err(error) = self.start() {
            self.start_failed_again(&error);
        }
    }

    fn start_failed_again(&mut self, error: &Error) {
        let run = restart::Run { code: exit_code(error), lasted: Duration::ZERO, stopped: false };
        match self.backoff.ended(run) {
            Verdict::Again(delay) => {
                self.start_failed(error, true);
                self.phase = Phase::Waiting(Instant::now() + delay);
            }
            Verdict::Stay => {
                let exit = self.start_failed(error, false);
                self.over(&exit);
            }
        }
    }

    fn start_failed(&mut self, error: &Error, again: bool) -> Exited {
        let restarts = match &self.state {
            State::Restarting(last) => last.restarts,
            _ => 0,
        };
        let exit = Exited {
            code: exit_code(error),
            started: None,
            finished: Timestamp::now(),
            oom_killed: false,
            error: Some(crate::error::chain(error)),
            stopped_by_hand: false,
            restarts,
        };
        if let Ok(state) = self.state.clone().on(Event::Ended { exit: exit.clone(), again }) {
            self.state = state;
            self.record_state();
        }
        exit
    }

    fn start(&mut self) -> Result<Started> {
        let failed = |error: io::Error| Error::failed("read the container's record", error);
        if let Some(record) = ContainerRecord::read(&self.root, &self.id).map_err(failed)? {
            self.record = record;
        }
        self.backoff.set_policy(self.record.spec.restart, self.record.spec.restart_pace);
        let launched = self.surround().inspect_err(|_| self.release_network())?;
        self.watch_over(launched)
    }

    /// Network, files, control groups, streams; then the container itself.
    fn surround(&mut self) -> Result<Launched> {
        let endpoints = self.attach_network()?;
        self.write_network_files(&endpoints)?;
        let turn = Volumes::at(&self.root).turn(self.record.spec.volumes())?;
        let mut plan = LaunchPlan::for_container(&self.root, &self.record)?;
        if let Some(terminal) = &mut plan.process.terminal {
            *terminal = self.size.unwrap_or(*terminal);
        }
        let resources = &self.record.spec.resources;
        if let Some(parent) = &self.record.spec.cgroup_parent {
            Cgroup::place_below(&self.root, &self.id, parent)?;
        }
        let mounted = Mounted::claim(&self.root, &self.id)?;
        // What a killed monitor left may still count against the limits.
        Cgroup::open(&self.root, &self.id)?.remove()?;
        let (cgroup, limits) = Cgroup::create(&self.root, &self.id, resources, &plan.device_rules)?;
        match self.launch(&plan, &cgroup, &endpoints) {
            Ok((child, outputs, input)) => {
                let mut warnings: Vec<String> = limits.iter().map(ToString::to_string).collect();
                warnings.append(&mut plan.warnings);
                Ok(Launched { child, plan, cgroup, outputs, input, endpoints, warnings, turn, mounted })
            }
            Err(error) => {
                // The first failure is the one to tell; an empty node that stays is swept later.
                let _ = cgroup.remove();
                Err(error)
            }
        }
    }

    fn launch(
        &mut self,
        plan: &LaunchPlan,
        cgroup: &Cgroup,
        endpoints: &[Endpoint],
    ) -> Result<(Child, Outputs, Input)> {
        let namespace = self.network_namespace.take();
        let resolves = network::needs_name_server(
            endpoints,
            &self.record.spec.dns,
            &host_file(network::HOST_RESOLV_CONF),
        );
        let mut plugged = Plugged { namespace, endpoints, resolves };
        let mut none = NoLinks;
        let links: &mut dyn Links = match &self.record.spec.network {
            NetworkMode::Bridge(_) | NetworkMode::None => &mut plugged,
            NetworkMode::Host | NetworkMode::Container(_) => &mut none,
        };
        let failed = |error: io::Error| Error::failed("open the container's streams", error);
        if plan.process.terminal.is_some() {
            let mut child = launch::launch(plan, cgroup, Stdio::Terminal, links)?;
            let master = child.terminal.take().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            let (outputs, input) = terminal_ends(master).map_err(failed)?;
            return Ok((child, outputs, input));
        }
        let (stdout, stderr) = (Pipe::new().map_err(failed)?, Pipe::new().map_err(failed)?);
        let (stdin, input) = self.stdin().map_err(failed)?;
        let streams = launch::Streams::new(&stdin, &stdout.write, &stderr.write);
        let child = launch::launch(plan, cgroup, Stdio::Streams(streams), links)?;
        let outputs = Outputs::pipes(stdout.read, stderr.read).map_err(failed)?;
        Ok((child, outputs, input))
    }

    /// The container's standard input and our end of it.
    fn stdin(&self) -> io::Result<(OwnedFd, Input)> {
        if !self.record.spec.process.open_stdin {
            return Ok((fs::File::open("/dev/null")?.into(), Input::none()));
        }
        let pipe = Pipe::new()?;
        Ok((pipe.read, Input::pipe(pipe.write)?))
    }

    /// The container runs: from now on it is watched over.
    fn watch_over(&mut self, launched: Launched) -> Result<Started> {
        let Launched { mut child, plan, cgroup, outputs, input, endpoints, mut warnings, turn, mut mounted } =
            launched;
        warnings.append(&mut child.warnings);
        let pid = child.pid.as_raw_nonzero().get();
        mounted.hold(pid);
        self.mounted = Some(mounted);
        let resolver = self.resolver(std::mem::take(&mut child.sockets), &endpoints, &mut warnings);
        let now = Instant::now();
        let mut checkup = self.record.spec.healthcheck.as_ref().map(|check| Checkup::new(check, now));
        if let Some(checkup) = &mut checkup {
            checkup.watch(self.somebody_watches(), now);
        }
        let health = checkup.as_ref().map(|checkup| checkup.health().clone());
        let at = Timestamp::now();
        self.state = std::mem::replace(&mut self.state, State::Created)
            .on(Event::Started { pid, at, health })
            .map_err(|error| Error::conflict(error.to_string()))?;
        self.record_state();
        drop(turn);
        for endpoint in &endpoints {
            self.networks.announce_endpoint(endpoint, &self.id, "connect");
        }
        self.announce_mounts("mount");
        self.announce("start", &[]);
        self.stopping = None;
        self.phase = Phase::Running(Box::new(Run::new(
            child,
            plan.process,
            cgroup,
            outputs,
            input,
            resolver,
            checkup,
        )));
        self.watch_anew(&endpoints);
        if self.is_abandoned() {
            self.kill_all();
        }
        Ok((pid, warnings))
    }

    fn resolver(
        &self,
        sockets: Vec<OwnedFd>,
        endpoints: &[Endpoint],
        warnings: &mut Vec<String>,
    ) -> Option<Resolver> {
        if endpoints.is_empty() {
            return None;
        }
        let sockets = DnsSockets::from_descriptors(sockets)?;
        match Resolver::new(sockets, &self.networks, &self.id, &self.record.spec.dns) {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                warnings.push(crate::error::chain(&error));
                None
            }
        }
    }

    fn attach_network(&self) -> Result<Vec<Endpoint>> {
        let NetworkMode::Bridge(attachments) = &self.record.spec.network else { return Ok(Vec::new()) };
        let party = Party {
            container: self.id.clone(),
            name: self.record.name.clone(),
            hostname: self.record.spec.hostname.clone(),
            held: self.record.spec.held,
        };
        let endpoints = self.networks.attach(&party, attachments)?;
        if !self.record.spec.ports.is_empty() && !self.record.spec.held {
            self.networks.publish(&self.id, &self.record.spec.ports, &endpoints)?;
        }
        Ok(endpoints)
    }

    /// /etc/hosts, /etc/hostname and /etc/resolv.conf, unless another container's are shown.
    fn write_network_files(&self, endpoints: &[Endpoint]) -> Result<()> {
        let spec = &self.record.spec;
        if matches!(spec.network, NetworkMode::Container(_)) {
            return Ok(());
        }
        let hostname = self.record.hostname();
        let mut dns = spec.dns.clone();
        dns.extra_hosts.extend(self.linked_hosts(endpoints)?);
        let host = host_file(network::HOST_RESOLV_CONF);
        let hosts = match spec.network {
            NetworkMode::Host => network::render_hosts_of_host(&host_file(network::HOST_HOSTS), &dns),
            _ => network::render_hosts(hostname, spec.domainname.as_deref(), endpoints, &dns),
        };
        let directory = self.root.container(&self.id);
        for (name, text) in [
            ("hosts", hosts),
            ("hostname", network::render_hostname(hostname)),
            ("resolv.conf", network::render_resolv_conf(endpoints, &spec.dns, &host)),
        ] {
            write_in_place(&directory.join(name), &text).map_err(|error| {
                Error::failed(format!("write {name} of container {}", self.record.name), error)
            })?;
        }
        Ok(())
    }

    /// Links on a network whose names are not resolved: the addresses that their containers have now.
    fn linked_hosts(&self, endpoints: &[Endpoint]) -> Result<Vec<(String, String)>> {
        let mut hosts = Vec::new();
        let links = &self.record.spec.dns.links;
        if endpoints.iter().any(|endpoint| endpoint.resolves) {
            return Ok(hosts);
        }
        for (alias, id) in links {
            let theirs = self.networks.endpoints(id)?;
            let common = theirs.iter().find(|their| endpoints.iter().any(|own| own.network == their.network));
            let common = common.ok_or_else(|| {
                Error::conflict(format!("cannot link to container {}: it does not run here", id.short()))
                    .with_hint("start it first, on the same network")
            })?;
            hosts.extend(common.addresses.iter().map(|entry| (alias.clone(), entry.address.to_string())));
        }
        Ok(hosts)
    }

    /// Gives back addresses and ports. What cannot be given back now is swept later.
    pub(super) fn release_network(&self) {
        let _ = self.networks.release(&self.id);
    }
}

/// What the host has in such a file. A host without it has no names or name servers to tell of.
pub(super) fn host_file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Programs inside read these files, whoever they run as.
fn write_in_place(path: &Path, text: &str) -> io::Result<()> {
    store::write_atomic(path, text.as_bytes(), 0o644, store::Durability::Rename)
}

fn terminal_ends(master: OwnedFd) -> io::Result<(Outputs, Input)> {
    let input = Input::terminal(master.try_clone()?)?;
    Ok((Outputs::terminal(master)?, input))
}

/// The exit code a container gets that could not be started, as in docker.
fn exit_code(error: &Error) -> i32 {
    match error.kind() {
        Kind::CommandNotFound => 127,
        Kind::NotExecutable => 126,
        _ => 125,
    }
}

// === impl Links ===

impl Links for Plugged<'_> {
    fn namespace(&mut self) -> Option<OwnedFd> {
        self.namespace.take()
    }

    fn outside(&mut self, pid: Pid) -> Result<Vec<u8>> {
        if self.endpoints.is_empty() {
            return Ok(Vec::new());
        }
        let links = network::plug(self.endpoints, pid)?;
        serde_json::to_vec(&links).map_err(|error| Error::failed("describe the links", error))
    }

    fn inside(&self, message: &[u8]) -> Result<Vec<OwnedFd>> {
        let links: Vec<InsideLink> = if message.is_empty() {
            Vec::new()
        } else {
            serde_json::from_slice(message).map_err(|error| Error::failed("understand the links", error))?
        };
        network::configure_inside(&links)?;
        if self.resolves {
            return Ok(network::open_dns_sockets()?.into_descriptors());
        }
        Ok(Vec::new())
    }
}
