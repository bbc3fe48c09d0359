//! Every path under the state root and the run root, as methods of one [`Root`]. Only this room joins them.

use std::path::{Path, PathBuf};

use crate::id::{ContainerId, Digest, NetworkId, VolumeName};

/// Where one engine keeps itself. Two roots are two engines that do not see each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    state: PathBuf,
    run: PathBuf,
    tag: String,
}

/// Where the runtime interface keeps its containers: in memory, as nothing of them outlives a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeRoot(PathBuf);

/// Where they are, unless `--root` says otherwise.
pub const DEFAULT_RUNTIME: &str = "/run/rengine-oci";

/// The lock that engines of all roots on this machine share, for what they must not choose at the same time.
pub const MACHINE_LOCK: &str = "/run/rengine.lock";

/// Where an ordinary user's engine finds the [`RootlessRun`] of its namespaces, and nobody else anything.
pub const ROOTLESS_INSIDE: &str = "/run/rengine-rootless";

/// Where an ordinary user keeps what leads into the namespaces of the user's engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootlessRun(PathBuf);

/// What survives a reboot, unless `--root` or `RENGINE_ROOT` says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/rengine";

// === impl RootlessRun ===

impl RootlessRun {
    /// The one in this directory.
    pub fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The lock of whoever looks for the keeper or starts one.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The lock that a keeper holds.
    pub fn alive(&self) -> PathBuf {
        self.0.join("alive")
    }

    /// Who the keeper is.
    pub fn keeper(&self) -> PathBuf {
        self.0.join("keeper.json")
    }

    /// What is `/run` in the namespaces. It outlives a keeper, so that whoever has a lock in it is still seen.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Which control group the user has been given.
    pub fn cgroup(&self) -> PathBuf {
        self.0.join("cgroup")
    }

    /// What leads out, and why nothing does.
    pub fn uplink(&self) -> PathBuf {
        self.0.join("uplink.json")
    }

    /// Where it writes its number.
    pub fn uplink_pid(&self) -> PathBuf {
        self.0.join("uplink.pid")
    }

    /// What it has to say.
    pub fn uplink_words(&self) -> PathBuf {
        self.0.join("uplink.log")
    }

    /// The lock that an outpost holds.
    pub fn outpost_alive(&self) -> PathBuf {
        self.0.join("outpost.alive")
    }

    /// Who the outpost is.
    pub fn outpost_record(&self) -> PathBuf {
        self.0.join("outpost.json")
    }

    /// The socket of the outpost.
    pub fn outpost(&self) -> PathBuf {
        self.0.join("outpost")
    }

    /// The lock that a porter holds.
    pub fn porter_alive(&self) -> PathBuf {
        self.0.join("porter.alive")
    }

    /// The socket of the porter.
    pub fn porter(&self) -> PathBuf {
        self.0.join("porter")
    }

    /// The ports of the host that the porter has.
    pub fn doors(&self) -> PathBuf {
        self.0.join("doors.json")
    }

    /// What was put right and is not told yet, a line each.
    pub fn repairs(&self) -> PathBuf {
        self.0.join("repairs")
    }
}

// === impl Root ===

impl Root {
    /// The root at this absolute directory. The default root runs in `/run/rengine` under the tag `rengine`;
    /// any other one has a tag of its own made from its path, so that interface names, cgroups and firewall
    /// tables of two roots never meet.
    pub fn at(state: &Path) -> Self {
        if state == Path::new(DEFAULT_STATE) {
            return Self { state: state.to_owned(), run: "/run/rengine".into(), tag: "rengine".into() };
        }
        let digest = Digest::of(state.as_os_str().as_encoded_bytes());
        let tag = format!("rengine-{}", &digest.hex()[..8]);
        Self { state: state.to_owned(), run: Path::new("/run").join(&tag), tag }
    }

    /// The directory that survives a reboot.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory that does not survive a reboot.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The word that marks this root's kernel objects: the cgroup parent and the nft table.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Four to eight characters that mark this root's network interfaces, whose names are 15 bytes at most.
    pub fn short_tag(&self) -> &str {
        self.tag.strip_prefix("rengine-").unwrap_or("re")
    }

    /// All containers' state.
    pub fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// One container's state: `config.json`, `state.json`, logs, `upper`, `work`, `hosts`, …
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// The lock that whoever makes a container shares until its record is written. With it held exclusively,
    /// what has no record is what a crash left.
    pub fn making_lock(&self) -> PathBuf {
        self.containers().join(".making")
    }

    /// The lock on which ranges of user ids containers have.
    pub fn user_ranges_lock(&self) -> PathBuf {
        self.containers().join(".users")
    }

    /// The claimed container names: a symbolic link a name, whose target is the id.
    pub fn container_names(&self) -> PathBuf {
        self.state.join("names")
    }

    /// All containers' run directories.
    pub fn container_runs(&self) -> PathBuf {
        self.run.join("containers")
    }

    /// One container's run directory: the monitor's lock and control socket.
    pub fn container_run(&self, id: &ContainerId) -> PathBuf {
        self.container_runs().join(id.as_str())
    }

    /// The monitor's control socket; short enough for `sun_path` (108 bytes) with every root.
    pub fn control_socket(&self, id: &ContainerId) -> PathBuf {
        self.container_run(id).join("ctl")
    }

    /// The lock a live monitor holds.
    pub fn monitor_lock(&self, id: &ContainerId) -> PathBuf {
        self.container_run(id).join("lock")
    }

    /// The lock that whoever has a container's root mounted holds.
    pub fn mounted_lock(&self, id: &ContainerId) -> PathBuf {
        self.container_run(id).join("mounted")
    }

    /// The journal of events.
    pub fn events(&self) -> PathBuf {
        self.run.join("events")
    }

    /// Where the container's control groups lie when not below the engine's own.
    pub fn cgroup_parent(&self, id: &ContainerId) -> PathBuf {
        self.container_run(id).join("cgroup-parent")
    }

    /// Descriptions of devices for the container device interface, besides those in /etc/cdi and /var/run/cdi.
    pub fn cdi(&self) -> PathBuf {
        self.state.join("cdi")
    }

    /// The content store, an OCI image layout.
    pub fn content(&self) -> PathBuf {
        self.state.join("content")
    }

    /// All unpacked layers.
    pub fn layers(&self) -> PathBuf {
        self.state.join("layers")
    }

    /// One unpacked layer, by the digest of its uncompressed tar.
    pub fn layer(&self, diff: &Digest) -> PathBuf {
        self.layers().join(diff.hex())
    }

    /// Image records and references.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// The builder's cache records.
    pub fn build_cache(&self) -> PathBuf {
        self.state.join("build")
    }

    /// Files being made, on the file system they will be renamed within.
    pub fn scratch(&self) -> PathBuf {
        self.state.join("tmp")
    }

    /// What has arrived of layers that are not whole yet, to be taken up by the next attempt.
    pub fn transfers(&self) -> PathBuf {
        self.state.join("transfers")
    }

    /// What has arrived of one layer.
    pub fn transfer(&self, diff: &Digest) -> PathBuf {
        self.transfers().join(diff.hex())
    }

    /// Network records.
    pub fn networks(&self) -> PathBuf {
        self.state.join("networks")
    }

    /// One network's record.
    pub fn network(&self, id: &NetworkId) -> PathBuf {
        self.networks().join(id.as_str())
    }

    /// Live endpoints of all networks.
    pub fn network_runs(&self) -> PathBuf {
        self.run.join("networks")
    }

    /// Live endpoints of one network: a file a container, read by its resolvers.
    pub fn network_run(&self, id: &NetworkId) -> PathBuf {
        self.network_runs().join(id.as_str())
    }

    /// Who is about to leave the networks: an empty file a container.
    pub fn departures(&self) -> PathBuf {
        self.run.join("departures")
    }

    /// The word of one container that it leaves.
    pub fn departure(&self, id: &ContainerId) -> PathBuf {
        self.departures().join(id.as_str())
    }

    /// The lock on everything below [`Root::network_runs`], [`Root::port_runs`] and [`Root::departures`].
    pub fn network_lock(&self) -> PathBuf {
        self.run.join("networks.lock")
    }

    /// The published ports of all live containers.
    pub fn port_runs(&self) -> PathBuf {
        self.run.join("ports")
    }

    /// The published ports of one live container.
    pub fn port_run(&self, id: &ContainerId) -> PathBuf {
        self.port_runs().join(id.as_str())
    }

    /// The lock of the relay, which holds it as long as it lives.
    pub fn relay(&self) -> PathBuf {
        self.run.join("relay")
    }

    /// What deployments keep: releases, history, and the journal of one that goes on.
    pub fn deployments(&self) -> PathBuf {
        self.state.join("deploy")
    }

    /// Secrets of deployments, which must not survive a reboot.
    pub fn deployment_runs(&self) -> PathBuf {
        self.run.join("deploy")
    }

    /// What a compose project keeps while it runs: its lock, and contents that are in no file of the user's.
    pub fn project(&self, name: &str) -> PathBuf {
        self.run.join("projects").join(name)
    }

    /// All volumes.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// One volume: its record and `_data`.
    pub fn volume(&self, name: &VolumeName) -> PathBuf {
        self.volumes().join(name.as_str())
    }
}

// === impl RuntimeRoot ===

impl RuntimeRoot {
    /// The root at this directory.
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// One container's directory.
    pub fn container(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// What is kept of it.
    pub fn state(&self, id: &str) -> PathBuf {
        self.container(id).join("state.json")
    }

    /// The socket that its program waits at for the start.
    pub fn gate(&self, id: &str) -> PathBuf {
        Self::gate_in(&self.container(id))
    }

    /// The same in a directory that goes by another name.
    pub fn gate_in(directory: &Path) -> PathBuf {
        directory.join("start.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_socket_fits_into_a_socket_address() {
        let root =
            Root::at(Path::new("/some/very/long/path/that/a/test/made/for/itself/in/a/temporary/folder"));
        assert!(root.control_socket(&ContainerId::random()).as_os_str().len() < 108);
    }

    #[test]
    fn two_roots_share_no_tag() {
        assert_eq!(Root::at(Path::new(DEFAULT_STATE)).tag(), "rengine");
        assert_ne!(Root::at(Path::new("/a")).tag(), Root::at(Path::new("/b")).tag());
    }
}
