//! The engine: opens a root directory and is the one door other crates use.

mod attach;
mod boot;
mod check;
mod create;
mod disk;
mod files;
mod find;
mod handover;
pub(crate) mod life;
mod poised;
mod process;
mod sandbox;
mod unused;
mod update;
mod usage;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::container::record::ContainerRecord;
use crate::container::spec::Grace;
use crate::container::state::State;
use crate::error::{Error, Result};
use crate::id::{ContainerId, ContainerName, ImageId};
use crate::image::Images;
use crate::layer::Layers;
use crate::network::{Endpoint, Networks, PublishedPort};
use crate::paths::{DEFAULT_STATE, Root};
use crate::rootless;
use crate::signal::Signal;
use crate::store;
use crate::volume::Volumes;

pub use boot::{BootUnit, UNITS};
pub use check::Findings;
pub use create::Created;
pub use disk::{ContainerUsage, DiskUsage, ImageUsage, VolumeUsage};
pub use files::CommitOptions;
pub use poised::{Anticipated, Poised};
pub use process::{Process, processes};
pub use update::UpdateOptions;
pub use usage::Usage;
pub(crate) use usage::machine_memory;

/// An engine on one root directory. Cheap to make and to clone; it holds no lock and no process.
#[derive(Debug, Clone)]
pub struct Engine {
    root: Root,
}

/// A container as one look found it.
#[derive(Debug, Clone)]
pub struct Container {
    /// What was asked.
    pub record: ContainerRecord,
    /// Where it is in its life.
    pub state: State,
    /// Its addresses while it runs.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports while it runs.
    pub ports: Vec<PublishedPort>,
}

/// How a container is asked to end. `None` is what the container itself says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// The signal that asks.
    pub signal: Option<Signal>,
    /// How long it may take before it is killed.
    pub grace: Option<Grace>,
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Whether a running one is killed first.
    pub force: bool,
    /// Whether its anonymous volumes go with it.
    pub volumes: bool,
}

/// Becomes a container's monitor, or a process that works on its files, when this process was executed as one. Every program on this crate calls it first
/// thing in `main`, before it makes a thread.
pub fn enter_monitor_if_asked() -> Option<std::process::ExitCode> {
    crate::container::monitor::enter_if_asked(life::discard)
        .or_else(crate::container::files::enter_if_asked)
        .or_else(crate::network::relay::enter_if_asked)
        .or_else(crate::rootless::enter_if_asked)
}

// === impl Engine ===

impl Engine {
    /// Opens the engine at this directory, at `RENGINE_ROOT`, or at its usual place. For an ordinary user this process
    /// moves into the namespaces where that user is root first: it must have one thread only.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state: Option<&Path>) -> Result<Self> {
        rootless::enter()?;
        let chosen =
            state.map(Path::to_owned).or_else(|| std::env::var_os("RENGINE_ROOT").map(PathBuf::from));
        let usual =
            || if rootless::is_inside() { rootless::default_state() } else { Ok(DEFAULT_STATE.into()) };
        let path = chosen.map_or_else(usual, Ok)?;
        let absolute = std::path::absolute(&path)
            .map_err(|error| Error::failed(format!("find the root {}", path.display()), error))?;
        let root = Root::at(&absolute);
        for directory in
            [root.state().to_owned(), root.containers(), root.container_names(), root.container_runs()]
        {
            store::private_directory(&directory).map_err(|error| open_error(&directory, error))?;
        }
        Ok(Self { root })
    }

    /// Where it keeps itself.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Its images.
    pub fn images(&self) -> Images {
        Images::at(&self.root)
    }

    /// Its unpacked layers.
    pub fn layers(&self) -> Layers {
        Layers::at(&self.root)
    }

    /// Its networks.
    pub fn networks(&self) -> Networks {
        Networks::at(&self.root)
    }

    /// Its volumes.
    pub fn volumes(&self) -> Volumes {
        Volumes::at(&self.root)
    }
}

fn open_error(directory: &Path, error: std::io::Error) -> Error {
    let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    let error = Error::failed(format!("make the directory {}", directory.display()), error);
    if denied { error.with_hint("the engine needs root: run it with sudo") } else { error }
}

// === impl Container ===

impl Container {
    /// Its identity.
    pub fn id(&self) -> &ContainerId {
        &self.record.id
    }

    /// Its name.
    pub fn name(&self) -> &ContainerName {
        &self.record.name
    }

    /// The image it was made from.
    pub fn image(&self) -> &ImageId {
        &self.record.image
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        self.record.created
    }

    /// Its directory under the state root.
    pub fn directory(&self, root: &Root) -> PathBuf {
        root.container(&self.record.id)
    }
}
