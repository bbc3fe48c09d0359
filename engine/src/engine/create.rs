//! Making containers: everything is decided and written before the name is claimed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use jiff::Timestamp;

use crate::container::client;
use crate::container::idmap::{UserMap, UserMode};
use crate::container::merge::merge;
use crate::container::plan::LaunchPlan;
use crate::container::record::{ContainerRecord, Purpose};
use crate::container::spec::{
    ContainerSpec, HealthTiming, MountSource, MountSpec, NamespaceMode, NetworkMode, PortBinding,
    Propagation, RestartPolicy,
};
use crate::container::state::State;
use crate::container::subordinate::Pool;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::id::{ContainerId, ContainerName, VolumeName};
use crate::image::{Image, Platform};
use crate::rootless::uplink;
use crate::store::{self, Lock};
use crate::volume::VolumeSpec;

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its identity.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// What was asked and cannot be had here.
    pub warnings: Vec<String>,
}

impl AsRef<Self> for Created {
    fn as_ref(&self) -> &Self {
        self
    }
}

const ADJECTIVES: [&str; 32] = [
    "able", "bold", "brave", "bright", "calm", "clear", "clever", "cool", "deft", "eager", "early", "fair",
    "fast", "fine", "firm", "free", "fresh", "glad", "grand", "keen", "kind", "light", "lucid", "merry",
    "neat", "noble", "quick", "quiet", "sharp", "steady", "swift", "warm",
];

const NAMES: [&str; 32] = [
    "babbage",
    "bartik",
    "bell",
    "borg",
    "boole",
    "curie",
    "darwin",
    "dijkstra",
    "einstein",
    "engelbart",
    "euclid",
    "fermat",
    "franklin",
    "gauss",
    "goldberg",
    "hamilton",
    "hopper",
    "hypatia",
    "kepler",
    "knuth",
    "lamarr",
    "liskov",
    "lovelace",
    "meitner",
    "neumann",
    "newton",
    "noether",
    "ritchie",
    "shannon",
    "thompson",
    "turing",
    "wozniak",
];

impl Engine {
    /// Makes a container without starting it. Its image must be here.
    ///
    /// # Errors
    /// When the image, a network or another container does not exist, the name is taken, or the specification
    /// contradicts itself. Nothing is left behind then.
    pub fn create(&self, spec: ContainerSpec) -> Result<Created> {
        self.make(ContainerId::random(), spec)
    }

    /// Makes the container of this id.
    pub(super) fn make(&self, id: ContainerId, spec: ContainerSpec) -> Result<Created> {
        let image = self.image_for(&spec)?;
        let mut warnings: Vec<String> = check_platform(&spec, &image)?.into_iter().collect();
        let retimed = spec.health_timing != HealthTiming::default();
        let merged = merge(spec, &image.config.config)?;
        if retimed && merged.spec.healthcheck.is_none() {
            warnings.push("the health options are discarded: there is no health check to time".to_owned());
        }
        let mut spec = merged.spec;
        if matches!(spec.network, NetworkMode::Bridge(_) | NetworkMode::Host) {
            warnings.extend(uplink::lack());
        }
        publish_all(&mut spec);
        self.take_volumes_from(&mut spec)?;
        validate(&spec)?;
        LaunchPlan::check(self.root(), &spec)?;
        self.check_networks(&spec.network)?;
        self.check_peers(&spec)?;
        self.settle_hostname(&mut spec)?;
        self.find_mounted_images(&mut spec)?;
        make_bind_sources(&spec)?;
        let _making = Lock::shared(&self.root().making_lock())
            .map_err(|error| Error::failed("lock the directory of containers", error))?;
        let volumes = self.make_volumes(&mut spec)?;
        let (users, _until_on_record) =
            self.map_users(&spec.userns).inspect_err(|_| self.remove_anonymous(&volumes))?;
        let made_up = spec.name.is_none();
        let mut record = ContainerRecord {
            version: ContainerRecord::VERSION,
            id,
            name: spec.name.clone().map_or_else(|| self.free_name(), Ok)?,
            created: Timestamp::now(),
            image: image.id.clone(),
            spec,
            argv: merged.argv,
            lower: self.images().lower_dirs(&image),
            purpose: Purpose::Service,
            users,
        };
        while let Err(error) = self.write_container(&record) {
            // Somebody else has made up the same name meanwhile.
            if made_up && self.claimed(&record.name).is_some() {
                record.name = self.free_name()?;
                continue;
            }
            self.remove_anonymous(&volumes);
            return Err(error);
        }
        record.announce(self.root(), "create", &[]);
        Ok(Created { id: record.id, name: record.name, warnings })
    }

    /// The ids of a container's users. A range of its own stays free until the container is on record, as long as the
    /// lock is held.
    fn map_users(&self, mode: &UserMode) -> Result<(Option<UserMap>, Option<Lock>)> {
        let size = match mode {
            UserMode::Host => return Ok((None, None)),
            UserMode::Mapped(map) => return Ok((Some(map.clone()), None)),
            UserMode::Auto { size } => size.unwrap_or(UserMode::SIZE),
        };
        let lock = Lock::exclusive(&self.root().user_ranges_lock())
            .map_err(|error| Error::failed("lock the ranges of users", error))?;
        // One whose record cannot be read cannot start.
        let records =
            self.ids()?.into_iter().filter_map(|id| ContainerRecord::read(self.root(), &id).ok()?);
        let taken: Vec<UserMap> = records.filter_map(|record| record.users).collect();
        match Pool::of_machine().free(size, &taken) {
            Some(Ok(map)) => Ok((Some(map), Some(lock))),
            Some(Err(error)) => Err(Error::failed("find a range of users", error)),
            None => Err(Error::conflict(format!("no range of {size} user ids is free")).with_hint(
                "give rengine more in /etc/subuid and /etc/subgid, or remove containers that have some",
            )),
        }
    }

    /// Claims the name and writes the record, or leaves nothing.
    pub(super) fn write_container(&self, record: &ContainerRecord) -> Result<()> {
        let failed = |error| Error::failed(format!("write container {}", record.name), error);
        let names = self.root().container_names();
        let _one_at_a_time = Lock::exclusive(&names.join(".lock")).map_err(failed)?;
        if let Some(owner) = self.holder(&record.name) {
            return Err(Error::conflict(format!(
                "the container name {:?} is already in use by container {}",
                record.name.as_str(),
                owner.short()
            ))
            .with_hint(format!("remove it with: rengine rm {}, or choose another name", record.name)));
        }
        let directory = self.root().container(&record.id);
        let write = || -> std::io::Result<()> {
            for part in ["upper", "work"] {
                store::private_directory(&directory.join(part))?;
            }
            // The root of the container is the top of its writable layer: everybody may pass through it.
            fs::set_permissions(
                directory.join("upper"),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )?;
            // Programs look for it to know that they run in a container.
            fs::File::create(directory.join("upper/.dockerenv"))?;
            State::Created.write(self.root(), record)?;
            record.write(self.root())?;
            let link = names.join(record.name.as_str());
            // A name whose container is gone was left by a crash; the lock makes this look certain.
            store::remove_file(&link)?;
            symlink(record.id.as_str(), &link)
        };
        write().map_err(|error| {
            // The first failure is what the user needs; the half-made directory has no record and no name.
            let _ = store::remove_tree(&directory);
            failed(error)
        })
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn rename(&self, id: &ContainerId, name: &ContainerName) -> Result<()> {
        let failed = |error| Error::failed(format!("rename container {} to {name}", id.short()), error);
        let names = self.root().container_names();
        let one_at_a_time = Lock::exclusive(&names.join(".lock")).map_err(failed)?;
        let mut record = ContainerRecord::read(self.root(), id)
            .map_err(failed)?
            .ok_or_else(|| Error::not_found(format!("no such container: {}", id.short())))?;
        match self.holder(name) {
            Some(owner) if owner == *id => {
                return Err(Error::conflict(format!("container {name} has that name already")));
            }
            Some(owner) => {
                return Err(Error::conflict(format!(
                    "the container name {:?} is already in use by container {}",
                    name.as_str(),
                    owner.short()
                )));
            }
            None => {}
        }
        let old = std::mem::replace(&mut record.name, name.clone());
        let link = names.join(name.as_str());
        store::remove_file(&link).and_then(|()| symlink(id.as_str(), &link)).map_err(failed)?;
        record.write(self.root()).map_err(failed)?;
        store::remove_file(&names.join(old.as_str())).map_err(failed)?;
        // A running one answers to the new name from now on.
        self.networks().rename(id, name)?;
        drop(one_at_a_time);
        if let Some(mut monitor) = client::connect(self.root(), id)? {
            // It only has to know what to call the container; one that ends meanwhile need not.
            let _ = monitor.reload();
        }
        record.announce(self.root(), "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    /// Takes over the mounts of other containers; the container's own mounts win at the same path.
    fn take_volumes_from(&self, spec: &mut ContainerSpec) -> Result<()> {
        for from in std::mem::take(&mut spec.volumes_from) {
            for mount in self.container(&from.container)?.record.spec.mounts {
                let shared = matches!(
                    mount.source,
                    MountSource::Volume { .. } | MountSource::Bind { .. } | MountSource::Image { .. }
                );
                // The image's own volumes are anonymous until now and give way to the other container's.
                let own = spec.mounts.iter().position(|own| own.target == mount.target);
                let taken = MountSpec { read_only: from.read_only.unwrap_or(mount.read_only), ..mount };
                match own {
                    _ if !shared => {}
                    None => spec.mounts.push(taken),
                    Some(at) if matches!(spec.mounts[at].source, MountSource::Volume { name: None, .. }) => {
                        spec.mounts[at] = taken;
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn check_networks(&self, mode: &NetworkMode) -> Result<()> {
        match mode {
            NetworkMode::Bridge(attachments) => {
                for attachment in attachments {
                    self.networks().check(attachment)?;
                }
                Ok(())
            }
            NetworkMode::Container(id) => self.container(id.as_str()).map(|_| ()),
            NetworkMode::Host | NetworkMode::None => Ok(()),
        }
    }

    /// Refuses to join what is not meant to be joined.
    fn check_peers(&self, spec: &ContainerSpec) -> Result<()> {
        if let NamespaceMode::Container(id) = &spec.ipc {
            let peer = self.container(id.as_str())?;
            if matches!(peer.record.spec.ipc, NamespaceMode::Private | NamespaceMode::None) {
                return Err(Error::conflict(format!(
                    "cannot join the IPC namespace of container {}: it is not shareable",
                    peer.name()
                ))
                .with_hint("run that container with --ipc shareable"));
            }
        }
        spec.dns.links.iter().try_for_each(|(_, id)| self.container(id.as_str()).map(drop))
    }

    /// Whoever is in another container's network is known there by that container's name, and in the host's own by the
    /// host's unless another is asked for.
    fn settle_hostname(&self, spec: &mut ContainerSpec) -> Result<()> {
        if let NetworkMode::Container(id) = &spec.network {
            spec.hostname = Some(self.container(id.as_str())?.record.hostname().to_owned());
        }
        let is_the_hosts = spec.network == NetworkMode::Host || spec.uts == NamespaceMode::Host;
        if is_the_hosts && spec.hostname.is_none() {
            spec.hostname = Some(rustix::system::uname().nodename().to_string_lossy().into_owned());
        }
        Ok(())
    }

    /// The image for the platform asked for; whatever its name means when there is none for that.
    fn image_for(&self, spec: &ContainerSpec) -> Result<Image> {
        let wanted: Option<Platform> = (spec.platform.as_deref().map(str::parse).transpose())
            .map_err(|error| Error::invalid("the platform").with_source(error))?;
        match self.images().find_for(&spec.image, wanted.as_ref())? {
            Some(image) => Ok(image),
            None => Ok(self.images().get(&spec.image)?),
        }
    }

    /// Looks up the images that are mounted, so that a later change of their names changes nothing.
    fn find_mounted_images(&self, spec: &mut ContainerSpec) -> Result<()> {
        for mount in &mut spec.mounts {
            if let MountSource::Image { image, lower, .. } = &mut mount.source {
                let found = self.images().get(image)?;
                *lower = self.images().lower_dirs(&found);
                *image = found.id.to_string();
            }
        }
        Ok(())
    }

    /// Makes the volumes that are not there yet, and returns the anonymous ones.
    fn make_volumes(&self, spec: &mut ContainerSpec) -> Result<Vec<VolumeName>> {
        let mut anonymous = Vec::new();
        for mount in &mut spec.mounts {
            if let MountSource::Volume { name, making, .. } = &mut mount.source {
                let made = self
                    .volumes()
                    .create(VolumeSpec {
                        name: name.clone(),
                        options: making.options.clone(),
                        labels: making.labels.clone(),
                        ..VolumeSpec::default()
                    })
                    .inspect_err(|_| self.remove_anonymous(&anonymous))?;
                if name.is_none() {
                    anonymous.push(made.name.clone());
                }
                *name = Some(made.name);
            }
        }
        Ok(anonymous)
    }

    fn remove_anonymous(&self, volumes: &[VolumeName]) {
        for volume in volumes {
            // They are empty and known to nobody; the failure that led here is the one to report.
            let _ = self.volumes().remove(volume);
        }
    }

    fn free_name(&self) -> Result<ContainerName> {
        loop {
            let random = ContainerId::random();
            let byte =
                |at: usize| usize::from_str_radix(&random.as_str()[at..at + 2], 16).unwrap_or_default();
            let text = format!("{}_{}", ADJECTIVES[byte(0) % ADJECTIVES.len()], NAMES[byte(2) % NAMES.len()]);
            let is_taken = self.root().container_names().join(&text).is_symlink();
            let text = if is_taken { format!("{text}_{}", &random.as_str()[4..8]) } else { text };
            let name: ContainerName =
                text.parse().map_err(|error| Error::invalid("make up a name").with_source(error))?;
            if self.claimed(&name).is_none() {
                return Ok(name);
            }
        }
    }
}

/// Whether the image is for the platform asked for; a warning when none was and it is not for this machine.
fn check_platform(spec: &ContainerSpec, image: &Image) -> Result<Option<String>> {
    let offered = image.platform();
    let Some(wanted) = &spec.platform else {
        let host = Platform::host();
        let foreign = host.rank(&offered).is_none();
        return Ok(foreign.then(|| {
            format!(
                "the image's platform {offered} does not match the machine's, {host}, and none was asked for"
            )
        }));
    };
    let wanted: Platform =
        wanted.parse().map_err(|error| Error::invalid("the platform").with_source(error))?;
    if wanted.rank(&offered).is_some() {
        return Ok(None);
    }
    Err(Error::not_found(format!("image {} is not for the platform {wanted} but for {offered}", spec.image))
        .with_hint("pull it for that platform with --pull always"))
}

fn publish_all(spec: &mut ContainerSpec) {
    if !std::mem::take(&mut spec.publish_all) {
        return;
    }
    for port in &spec.expose {
        if spec.ports.iter().all(|binding| binding.container != *port) {
            spec.ports.push(PortBinding { host_ip: None, host_port: None, container: *port });
        }
    }
}

/// Makes the missing directories of `-v`, and refuses the missing sources of `--mount`.
fn make_bind_sources(spec: &ContainerSpec) -> Result<()> {
    for mount in &spec.mounts {
        let MountSource::Bind { path, create, propagation, .. } = &mount.source else { continue };
        if path.exists() {
            check_propagation(path, *propagation)?;
            continue;
        }
        if !create {
            return Err(Error::invalid(format!("bind source path does not exist: {}", path.display())));
        }
        fs::create_dir_all(path)
            .map_err(|error| Error::failed(format!("make the directory {}", path.display()), error))?;
    }
    Ok(())
}

/// Mounts travel only where the host's own mount lets them: otherwise nobody would notice that they do not.
fn check_propagation(path: &Path, propagation: Propagation) -> Result<()> {
    let wanted: &[&str] = match propagation {
        Propagation::Private | Propagation::Rprivate => return Ok(()),
        Propagation::Shared | Propagation::Rshared => &["shared:"],
        Propagation::Slave | Propagation::Rslave => &["shared:", "master:"],
    };
    let failed = |error| Error::failed(format!("find the mount of {}", path.display()), error);
    let real = fs::canonicalize(path).map_err(failed)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    // Fields as in proc_pid_mountinfo(5): the mount point is the fifth, the optional ones end with a dash.
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let covering = fields.filter(|fields| fields.get(4).is_some_and(|point| real.starts_with(point)));
    let Some(mount) = covering.max_by_key(|fields| fields[4].len()) else { return Ok(()) };
    let mut optional = mount.iter().skip(6).take_while(|field| **field != "-");
    if optional.any(|field| wanted.iter().any(|kind| field.starts_with(kind))) {
        return Ok(());
    }
    Err(Error::invalid(format!("{} is mounted on {}, which is private", path.display(), mount[4]))
        .with_hint(format!("let its mounts travel with: mount --make-shared {}", mount[4])))
}

/// Refuses what contradicts itself, before anything is made.
fn validate(spec: &ContainerSpec) -> Result<()> {
    let mut targets = BTreeSet::new();
    for mount in &spec.mounts {
        if !targets.insert(&mount.target) {
            return Err(Error::invalid(format!("duplicate mount point: {}", mount.target.display())));
        }
        if mount.target == Path::new("/") || mount.target.starts_with("/proc") {
            return Err(Error::invalid(format!("nothing can be mounted at {}", mount.target.display())));
        }
    }
    if let Some(directory) = spec.process.working_dir.as_ref().filter(|path| !path.is_absolute()) {
        return Err(Error::invalid(format!("the working directory {} is not absolute", directory.display())));
    }
    if spec.auto_remove && spec.restart != RestartPolicy::No {
        return Err(Error::invalid("a container that removes itself cannot have a restart policy"));
    }
    if !spec.ports.is_empty() && matches!(spec.network, NetworkMode::Container(_)) {
        return Err(Error::new(Kind::Conflict, "ports cannot be published in another container's network")
            .with_hint("publish them on the container whose network it is"));
    }
    if spec.resources.memory.is_some_and(|limit| limit.0 < 6 << 20) {
        return Err(Error::invalid("the memory limit is below 6 MiB, with which nothing can start"));
    }
    Ok(())
}
