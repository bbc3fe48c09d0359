//! A container's networks while it runs: one more, or one less. Its interfaces, routes, names, published ports and
//! the files that show them follow; what is not concerned keeps what it has.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::container::monitor::launch::host_file;
use crate::container::monitor::{Monitor, Phase};
use crate::container::record::ContainerRecord;
use crate::container::spec::{AttachError, ContainerSpec, NetworkAttachment};
use crate::error::{Error, Result};
use crate::network::{
    self, DnsSockets, Endpoint, FirewallWatch, Network, Party, Resolver, Watch, configure_inside,
    forget_link, inside_links, open_dns_sockets, visit,
};

/// Keeps a running container's networks as they are meant to be.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    watch: Option<Watch>,
    /// When there is something to put back.
    due: Option<Instant>,
    /// When something was put back, or tried to be, for the last time; and how long to leave it alone after that.
    last: Option<(Instant, Duration)>,
}

/// Whoever removes a link over and over again gets it back this often. A container may do that to its own.
const PAUSE: Duration = Duration::from_secs(1);
/// What cannot be put back is tried again after longer and longer pauses, up to this one.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

// === impl Upkeep ===

impl Upkeep {
    /// What becomes readable when something was removed.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.watch.iter().flat_map(Watch::descriptors)
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something was removed, perhaps.
    fn hear(&mut self, firewall: Option<&FirewallWatch>, now: Instant) {
        let of_links = self.watch.as_ref().is_some_and(Watch::heard);
        let of_firewall = firewall.is_some_and(FirewallWatch::heard);
        if of_links || of_firewall {
            let earliest = self.last.map_or(now, |(last, pause)| last + pause);
            self.due.get_or_insert(earliest.max(now));
        }
    }

    /// Something was put back, or nothing was missed.
    fn succeed(&mut self, now: Instant, changed: bool) {
        self.due = None;
        if changed {
            self.last = Some((now, PAUSE));
        }
    }

    fn fail(&mut self, now: Instant) {
        let pause = self.last.map_or(PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        self.last = Some((now, pause));
        self.due = Some(now + pause);
    }
}

// === impl Monitor ===

impl Monitor {
    /// Attaches the container to one more network, now if it runs, and puts that on record.
    pub(super) fn connect(&mut self, attachment: &NetworkAttachment) -> Result<()> {
        let network = self.networks.check(attachment)?;
        let mut record = self.record_of_now()?;
        let mode = record.spec.network.with(attachment, |name| self.means(name, &network));
        record.spec.network = mode.map_err(|error| self.unchanged("connect", &network, &error))?;
        if matches!(self.phase, Phase::Running(_)) {
            self.attach_running(&record.spec, attachment)?;
        }
        self.put_on_record(record)
    }

    /// Detaches the container from a network, now if it runs, and puts that on record.
    pub(super) fn disconnect(&mut self, name: &str) -> Result<()> {
        let network = self.networks.find(name)?;
        let mut record = self.record_of_now()?;
        let mode = record.spec.network.without(|name| self.means(name, &network));
        record.spec.network = mode.map_err(|error| self.unchanged("disconnect", &network, &error))?;
        if matches!(self.phase, Phase::Running(_)) {
            self.detach_running(&record.spec, &network)?;
        }
        self.put_on_record(record)
    }

    /// The kernel told something: what is missed is put back, now or, if it was just now, a little later.
    pub(super) fn hear_of_networks(&mut self, now: Instant) {
        if let Phase::Running(run) = &mut self.phase {
            run.upkeep.hear(self.firewall.as_ref(), now);
        }
    }

    /// Puts back what is missed of the networks, when it is time.
    pub(super) fn keep_networks(&mut self, now: Instant) {
        let Phase::Running(run) = &mut self.phase else { return };
        let due = run.upkeep.due.is_some_and(|due| due <= now);
        let (Some(watch), Some(pid)) = (&run.upkeep.watch, rustix::process::Pid::from_raw(run.pid())) else {
            return;
        };
        if !due {
            return;
        }
        let endpoints = self.networks.endpoints(&self.id).unwrap_or_default();
        match self.networks.put_back(watch, &endpoints, pid, run.pidfd()) {
            Ok(changed) => {
                if changed {
                    self.watch_anew(&endpoints);
                }
                if let Phase::Running(run) = &mut self.phase {
                    run.upkeep.succeed(now, changed);
                }
            }
            Err(_) => run.upkeep.fail(now),
        }
    }

    /// From now on these attachments are watched over.
    pub(super) fn watch_anew(&mut self, endpoints: &[Endpoint]) {
        if let Phase::Running(run) = &mut self.phase {
            // A container that has ended needs no watch. Without a socket for it, what was watched so far still is.
            if let Ok(watch) = Watch::begin(endpoints, run.pidfd()) {
                run.upkeep.watch = watch;
            }
            if run.upkeep.watch.is_some() && self.firewall.is_none() {
                self.firewall = FirewallWatch::begin(&self.networks).ok();
            }
        }
    }

    fn attach_running(&mut self, spec: &ContainerSpec, attachment: &NetworkAttachment) -> Result<()> {
        let before = self.networks.endpoints(&self.id)?;
        let party = Party {
            container: self.id.clone(),
            name: self.record.name.clone(),
            hostname: self.record.spec.hostname.clone(),
            held: self.record.spec.held,
        };
        let endpoint = self.networks.connect(&party, attachment)?;
        let mut after = before.clone();
        after.push(endpoint.clone());
        after.sort_by_key(Endpoint::number);
        let attached = self
            .plug_in(&endpoint, &after)
            .and_then(|()| self.publish(spec, &after))
            .and_then(|()| self.rewrite_network_files(spec, &before, &after));
        if attached.is_err() {
            // The first failure is the one to tell; the link may not be there at all.
            let _ = self.unplug(&endpoint, &before);
            let _ = self.networks.disconnect(&endpoint.network, &self.id);
            let _ = self.publish(spec, &before);
        } else {
            self.watch_anew(&after);
            self.networks.announce_endpoint(&endpoint, &self.id, "connect");
        }
        attached
    }

    /// Publishes the ports on these endpoints, unless they are held back.
    fn publish(&self, spec: &ContainerSpec, endpoints: &[Endpoint]) -> Result<()> {
        if !spec.held {
            self.networks.publish(&self.id, &spec.ports, endpoints)?;
        }
        Ok(())
    }

    fn detach_running(&mut self, spec: &ContainerSpec, network: &Network) -> Result<()> {
        let before = self.networks.endpoints(&self.id)?;
        let Some(endpoint) = before.iter().find(|endpoint| endpoint.network == network.id) else {
            return Ok(());
        };
        let after: Vec<Endpoint> = before.iter().filter(|other| *other != endpoint).cloned().collect();
        // Nobody shall be led to an address that is about to go.
        self.publish(spec, &after)?;
        self.unplug(endpoint, &after)?;
        self.networks.disconnect(&network.id, &self.id)?;
        self.watch_anew(&after);
        self.networks.announce_endpoint(endpoint, &self.id, "disconnect");
        self.rewrite_network_files(spec, &before, &after)
    }

    /// Makes the link of one attachment, and a name server when it is the first one that needs one.
    fn plug_in(&mut self, endpoint: &Endpoint, all: &[Endpoint]) -> Result<()> {
        let Phase::Running(run) = &mut self.phase else { return Ok(()) };
        let pid = rustix::process::Pid::from_raw(run.pid())
            .ok_or_else(|| Error::invalid("a container without a process has no network"))?;
        network::plug(std::slice::from_ref(endpoint), pid)?;
        let mut links = inside_links(all);
        links.retain(|link| link.interface == endpoint.interface);
        let dns = &self.record.spec.dns;
        let needs_resolver = !run.has_resolver()
            && network::needs_name_server(all, dns, &host_file(network::HOST_RESOLV_CONF));
        let sockets = visit(run.pidfd(), || {
            configure_inside(&links)?;
            needs_resolver.then(open_dns_sockets).transpose()
        })?;
        if let Some(sockets) = sockets {
            run.resolve_with(new_resolver(sockets, &self.networks, &self.record)?);
        }
        Ok(())
    }

    fn unplug(&self, endpoint: &Endpoint, remaining: &[Endpoint]) -> Result<()> {
        let Phase::Running(run) = &self.phase else { return Ok(()) };
        Ok(visit(run.pidfd(), || forget_link(endpoint, remaining))?)
    }

    /// What the container or a person wrote into /etc/hosts stays; /etc/resolv.conf is left alone when somebody
    /// wrote into it.
    fn rewrite_network_files(
        &self,
        spec: &ContainerSpec,
        before: &[Endpoint],
        after: &[Endpoint],
    ) -> Result<()> {
        let hostname = self.record.hostname();
        let hosts = |endpoints: &[Endpoint]| {
            network::render_hosts(hostname, spec.domainname.as_deref(), endpoints, &spec.dns)
        };
        let host = host_file(network::HOST_RESOLV_CONF);
        let resolver = |endpoints: &[Endpoint]| network::render_resolv_conf(endpoints, &spec.dns, &host);
        let directory = self.root.container(&self.id);
        let failed = |name: &str| {
            let step = format!("write {name} of container {}", self.record.name);
            move |error: io::Error| Error::failed(step, error)
        };
        change_in_place(&directory.join("hosts"), |now| Some(with_lines(now, &hosts(before), &hosts(after))))
            .map_err(failed("hosts"))?;
        change_in_place(&directory.join("resolv.conf"), |now| {
            (now == resolver(before)).then(|| resolver(after))
        })
        .map_err(failed("resolv.conf"))
    }

    /// The record as it is now: a rename may have passed by.
    fn record_of_now(&self) -> Result<ContainerRecord> {
        let failed = |error: io::Error| Error::failed("read the container's record", error);
        let record = ContainerRecord::read(&self.root, &self.id).map_err(failed)?;
        Ok(record.unwrap_or_else(|| self.record.clone()))
    }

    fn put_on_record(&mut self, record: ContainerRecord) -> Result<()> {
        let failed = |error: io::Error| Error::failed("write the container's record", error);
        record.write(&self.root).map_err(failed)?;
        self.record = record;
        Ok(())
    }

    fn means(&self, name: &str, network: &Network) -> bool {
        self.networks.find(name).is_ok_and(|found| found.id == network.id)
    }

    fn unchanged(&self, verb: &str, network: &Network, error: &AttachError) -> Error {
        refused(verb, &self.record, network, error)
    }
}

/// Why a container was not connected or disconnected, in one sentence.
pub(crate) fn refused(verb: &str, record: &ContainerRecord, network: &Network, error: &AttachError) -> Error {
    let (name, network) = (&record.name, &network.spec.name);
    let preposition = if verb == "connect" { "to" } else { "from" };
    Error::conflict(format!("cannot {verb} container {name} {preposition} the network {network}: {error}"))
}

fn new_resolver(
    sockets: DnsSockets,
    networks: &network::Networks,
    record: &ContainerRecord,
) -> Result<Resolver> {
    Ok(Resolver::new(sockets, networks, &record.id, &record.spec.dns)?)
}

/// Rewrites a file that the container has mounted, so it must stay the same file.
fn change_in_place(path: &Path, change: impl FnOnce(&str) -> Option<String>) -> io::Result<()> {
    let now = fs::read_to_string(path)?;
    match change(&now) {
        Some(text) if text != now => {
            OpenOptions::new().write(true).truncate(true).open(path)?.write_all(text.as_bytes())
        }
        _ => Ok(()),
    }
}

/// A text whose lines of before are exchanged for those of after; all other lines stay where they are.
fn with_lines(now: &str, before: &str, after: &str) -> String {
    let has = |text: &str, line: &str| text.lines().any(|other| other == line);
    let kept = now.lines().filter(|line| !has(before, line) || has(after, line));
    let new = after.lines().filter(|line| !has(now, line));
    kept.chain(new).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::spec::NetworkMode;

    #[test]
    fn lines_of_others_stay_in_a_file() {
        let before = "127.0.0.1\tlocalhost\n172.18.0.2\tweb\n";
        let after = "127.0.0.1\tlocalhost\n172.18.0.2\tweb\n172.19.0.2\tweb\n";
        let edited = "127.0.0.1\tlocalhost\n172.18.0.2\tweb\n10.0.0.1\tmine";
        let more = with_lines(edited, before, after);
        assert_eq!(more, "127.0.0.1\tlocalhost\n172.18.0.2\tweb\n10.0.0.1\tmine\n172.19.0.2\tweb\n");
        assert_eq!(with_lines(&more, after, before), format!("{edited}\n"));
    }

    #[test]
    fn attachments_come_and_go() {
        let is = |wanted: &'static str| move |name: &str| name == wanted;
        let lan = NetworkAttachment::to(&"lan".parse().unwrap());
        let both = NetworkMode::Bridge(Vec::new()).with(&lan, is("lan")).unwrap();
        assert_eq!(both.names(), ["bridge", "lan"]);
        assert!(both.with(&lan, is("lan")).is_err());
        let one = both.without(is("bridge")).unwrap();
        assert_eq!(one.names(), ["lan"]);
        assert_eq!(one.without(is("lan")), Ok(NetworkMode::None));
        assert!(one.without(is("bridge")).is_err());
        assert_eq!(NetworkMode::None.with(&lan, is("lan")), Ok(NetworkMode::Bridge(vec![lan.clone()])));
        assert!(NetworkMode::Host.with(&lan, is("lan")).is_err());
    }
}
