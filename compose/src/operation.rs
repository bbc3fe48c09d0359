//! The steps a plan is made of. Each one carries all it needs; nothing here decides or does anything.

use std::fmt;

use engine::container::spec::Grace;
use engine::id::{ContainerId, NetworkId};
use engine::quantity::Span;
use engine::signal::Signal;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Fetch an image, or build it when that fails and the service says how.
    PullImage {
        /// The reference.
        image: String,
        /// The service it is for.
        service: String,
        /// Whether the service's `build` makes up for a failure.
        or_build: bool,
    },
    /// Build a service's image.
    BuildImage {
        /// The service.
        service: String,
        /// The name it gets.
        image: String,
    },
    /// Have the program that provides a service do something.
    Provide {
        /// The service.
        service: String,
        /// The provider.
        by: String,
        /// What it does.
        provision: Provision,
    },
    /// Fetch and configure a language model.
    PrepareModel {
        /// Its key in the file.
        model: String,
    },
    /// Make a network.
    CreateNetwork {
        /// Its key in the model.
        key: String,
        /// Its name.
        name: String,
    },
    /// Take a network away.
    RemoveNetwork {
        /// The network.
        id: NetworkId,
        /// Its name.
        name: String,
    },
    /// Make a volume.
    CreateVolume {
        /// Its key in the model.
        key: String,
        /// Its name.
        name: String,
    },
    /// Take a volume away, with what it holds.
    RemoveVolume {
        /// Its name.
        name: String,
    },
    /// Take an image away.
    RemoveImage {
        /// The reference.
        image: String,
    },
    /// Make a container.
    CreateContainer {
        /// The service.
        service: String,
        /// Which of the service's containers.
        number: u32,
        /// Its name.
        name: String,
        /// The container whose place and anonymous volumes it takes.
        replaces: Option<ContainerId>,
        /// Whether its name, ports and DNS names are held back until they are handed over.
        held: bool,
    },
    /// Wait until a container that is held back is ready. When it does not get ready it goes, unless it is `kept`.
    Prove {
        /// The container.
        instance: Instance,
        /// How long it has to run before it counts as ready without a health check.
        monitor: Option<Span>,
        /// Whether it stays when it does not get ready.
        kept: bool,
    },
    /// See that a container which is ready does not fail for so long.
    Watch {
        /// The container.
        instance: Instance,
        /// How long.
        time: Span,
    },
    /// Let the update of a service go on. It is the one step that follows steps which failed, when they are few enough.
    Proceed {
        /// The service.
        service: String,
        /// How many of its containers may have failed.
        borne: usize,
        /// How many are replaced.
        of: usize,
    },
    /// Keep a container that does not run from answering when it starts, until it takes over.
    HoldBack {
        /// The container.
        container: Existing,
    },
    /// Hand name, published ports and DNS names over to a container.
    HandOver {
        /// The container that has them; nobody when `None`.
        from: Option<Existing>,
        /// The container that gets them.
        to: Instance,
        /// The name it gets.
        name: String,
    },
    /// Let some time pass before the next containers of a service are replaced.
    Rest {
        /// The service.
        service: String,
        /// How long.
        time: Span,
    },
    /// Give a container another name.
    RenameContainer {
        /// The container.
        container: Existing,
        /// The new name.
        to: String,
    },
    /// Start a container.
    StartContainer {
        /// The container.
        instance: Instance,
    },
    /// Ask a container to end, and make it end.
    StopContainer {
        /// The container.
        container: Existing,
        /// How long it may take; what the container says when `None`.
        grace: Option<Grace>,
    },
    /// Send a signal.
    KillContainer {
        /// The container.
        container: Existing,
        /// The signal.
        signal: Signal,
    },
    /// Freeze a container.
    PauseContainer {
        /// The container.
        container: Existing,
    },
    /// Thaw a container.
    UnpauseContainer {
        /// The container.
        container: Existing,
    },
    /// Take a container away.
    RemoveContainer {
        /// The container.
        container: Existing,
        /// Whether its anonymous volumes go too.
        volumes: bool,
    },
    /// Wait until a service's containers are as far as another one needs them.
    Await {
        /// The service.
        service: String,
        /// Its containers.
        instances: Vec<Instance>,
        /// How far.
        milestone: Milestone,
        /// Whether a failure is one; otherwise it is a warning and what follows goes on.
        required: bool,
    },
}

/// What the provider of a service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provision {
    /// Makes it available.
    Up,
    /// Takes it away.
    Down,
    /// Lets it rest, when the provider knows how to.
    Stop,
}

/// A container that was there when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its identity.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
}

/// A container that is there or that an earlier step of the plan makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// There when the plan was made.
    Existing(Existing),
    /// Made by the plan under this name.
    Planned {
        /// Its name.
        name: String,
        /// Its service.
        service: String,
    },
}

/// How far a service has to be before another one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Milestone {
    /// Started.
    Started,
    /// Running, and healthy where it has a health check.
    Ready,
    /// The same, and without a health check still running a while after its start (`up --wait`).
    Settled,
    /// Healthy.
    Healthy,
    /// Ended with code 0.
    Completed,
}

// === impls ===

impl Provision {
    /// As providers hear it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Stop => "stop",
        }
    }
}

impl Instance {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Existing(existing) => &existing.name,
            Self::Planned { name, .. } => name,
        }
    }

    /// Its service.
    pub fn service(&self) -> &str {
        match self {
            Self::Existing(existing) => &existing.service,
            Self::Planned { service, .. } => service,
        }
    }
}

impl Operation {
    /// What it is done to: `Container shop-web-1`, `Network shop_default`, …, as progress lines begin.
    pub fn object(&self) -> String {
        match self {
            Self::PullImage { image, .. } | Self::BuildImage { image, .. } | Self::RemoveImage { image } => {
                format!("Image {image}")
            }
            Self::CreateNetwork { name, .. } | Self::RemoveNetwork { name, .. } => format!("Network {name}"),
            Self::CreateVolume { name, .. } | Self::RemoveVolume { name } => format!("Volume {name}"),
            Self::CreateContainer { name, .. } => format!("Container {name}"),
            Self::RenameContainer { container, .. }
            | Self::StopContainer { container, .. }
            | Self::KillContainer { container, .. }
            | Self::PauseContainer { container }
            | Self::UnpauseContainer { container }
            | Self::HoldBack { container }
            | Self::RemoveContainer { container, .. } => format!("Container {}", container.name),
            Self::StartContainer { instance }
            | Self::Prove { instance, .. }
            | Self::Watch { instance, .. } => format!("Container {}", instance.name()),
            Self::HandOver { name, .. } => format!("Container {name}"),
            Self::Rest { service, .. }
            | Self::Proceed { service, .. }
            | Self::Provide { service, .. }
            | Self::Await { service, .. } => format!("Service {service}"),
            Self::PrepareModel { model } => format!("Model {model}"),
        }
    }

    /// The service it is about; none for networks, volumes and images that are taken away.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::PullImage { service, .. }
            | Self::BuildImage { service, .. }
            | Self::CreateContainer { service, .. }
            | Self::Provide { service, .. }
            | Self::Rest { service, .. }
            | Self::Proceed { service, .. }
            | Self::Await { service, .. } => Some(service),
            Self::StartContainer { instance }
            | Self::Prove { instance, .. }
            | Self::Watch { instance, .. }
            | Self::HandOver { to: instance, .. } => Some(instance.service()),
            Self::RenameContainer { container, .. }
            | Self::StopContainer { container, .. }
            | Self::KillContainer { container, .. }
            | Self::PauseContainer { container }
            | Self::UnpauseContainer { container }
            | Self::HoldBack { container }
            | Self::RemoveContainer { container, .. } => Some(&container.service),
            Self::CreateNetwork { .. }
            | Self::RemoveNetwork { .. }
            | Self::CreateVolume { .. }
            | Self::RemoveVolume { .. }
            | Self::PrepareModel { .. }
            | Self::RemoveImage { .. } => None,
        }
    }

    /// Whether it fails when a container that is updated fails. An update bears such failures, and no others.
    pub fn tells_of_a_container(&self) -> bool {
        matches!(
            self,
            Self::StartContainer { .. }
                | Self::StopContainer { .. }
                | Self::Await { .. }
                | Self::Prove { .. }
                | Self::Watch { .. }
                | Self::HandOver { .. }
        )
    }

    /// What progress says while it goes on and when it is done: `("Starting", "Started")`.
    pub fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::PullImage { .. } => ("Pulling", "Pulled"),
            Self::BuildImage { .. } => ("Building", "Built"),
            Self::CreateNetwork { .. }
            | Self::CreateVolume { .. }
            | Self::Provide { provision: Provision::Up, .. } => ("Creating", "Created"),
            Self::Provide { provision: Provision::Down, .. } => ("Removing", "Removed"),
            Self::Provide { provision: Provision::Stop, .. } => ("Stopping", "Stopped"),
            Self::PrepareModel { .. } => ("Configuring", "Configured"),
            Self::CreateContainer { replaces: None, .. } => ("Creating", "Created"),
            Self::CreateContainer { replaces: Some(_), .. } => ("Recreate", "Recreated"),
            Self::RemoveNetwork { .. }
            | Self::RemoveVolume { .. }
            | Self::RemoveImage { .. }
            | Self::RemoveContainer { .. } => ("Removing", "Removed"),
            Self::RenameContainer { .. } => ("Renaming", "Renamed"),
            Self::StartContainer { .. } => ("Starting", "Started"),
            Self::Prove { .. } => ("Waiting", "Ready"),
            Self::HandOver { .. } => ("Switching", "Switched"),
            Self::Rest { .. } => ("Resting", "Rested"),
            Self::Watch { .. } => ("Watching", "Steady"),
            Self::Proceed { .. } => ("Updating", "Updating"),
            Self::HoldBack { .. } => ("Holding back", "Held back"),
            Self::StopContainer { .. } => ("Stopping", "Stopped"),
            Self::KillContainer { .. } => ("Killing", "Killed"),
            Self::PauseContainer { .. } => ("Pausing", "Paused"),
            Self::UnpauseContainer { .. } => ("Unpausing", "Unpaused"),
            Self::Await { milestone: Milestone::Completed, .. } => ("Waiting", "Exited"),
            Self::Await { milestone: Milestone::Healthy | Milestone::Ready | Milestone::Settled, .. } => {
                ("Waiting", "Healthy")
            }
            Self::Await { milestone: Milestone::Started, .. } => ("Waiting", "Started"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullImage { image, or_build: false, .. } => write!(f, "image {image}: pull"),
            Self::PullImage { image, or_build: true, .. } => write!(f, "image {image}: pull or build"),
            Self::BuildImage { image, .. } => write!(f, "image {image}: build"),
            Self::Provide { service, by, provision } => {
                write!(f, "service {service}: {} by {by}", provision.word())
            }
            Self::PrepareModel { model } => write!(f, "model {model}: fetch and configure"),
            Self::CreateNetwork { name, .. } => write!(f, "network {name}: create"),
            Self::RemoveNetwork { name, .. } => write!(f, "network {name}: remove"),
            Self::CreateVolume { name, .. } => write!(f, "volume {name}: create"),
            Self::RemoveVolume { name } => write!(f, "volume {name}: remove"),
            Self::RemoveImage { image } => write!(f, "image {image}: remove"),
            Self::CreateContainer { name, replaces: None, .. } => write!(f, "container {name}: create"),
            Self::CreateContainer { name, replaces: Some(old), .. } => {
                write!(f, "container {name}: create in place of {}", old.short())
            }
            Self::RenameContainer { container, to } => {
                write!(f, "container {}: rename to {to}", container.name)
            }
            Self::StartContainer { instance } => write!(f, "container {}: start", instance.name()),
            Self::HandOver { from: Some(from), name, .. } => {
                write!(f, "container {name}: take over from {}", from.id.short())
            }
            Self::HandOver { from: None, name, .. } => write!(f, "container {name}: take its place"),
            Self::Prove { instance, .. } => write!(f, "container {}: wait until ready", instance.name()),
            Self::Watch { instance, time } => {
                write!(f, "container {}: see that it does not fail for {time}", instance.name())
            }
            Self::Proceed { service, borne, of } => {
                write!(f, "service {service}: go on unless more than {borne} of {of} failed")
            }
            Self::HoldBack { container } => write!(f, "container {}: hold back", container.name),
            Self::Rest { service, time } => write!(f, "service {service}: wait {time}"),
            Self::StopContainer { container, .. } => write!(f, "container {}: stop", container.name),
            Self::KillContainer { container, signal } => {
                write!(f, "container {}: send {signal}", container.name)
            }
            Self::PauseContainer { container } => write!(f, "container {}: pause", container.name),
            Self::UnpauseContainer { container } => write!(f, "container {}: unpause", container.name),
            Self::RemoveContainer { container, volumes: false } => {
                write!(f, "container {}: remove", container.name)
            }
            Self::RemoveContainer { container, volumes: true } => {
                write!(f, "container {}: remove with volumes", container.name)
            }
            Self::Await { service, milestone, required, .. } => {
                let tolerance = if *required { "" } else { " if it can be" };
                write!(f, "service {service}: wait until {milestone}{tolerance}")
            }
        }
    }
}

impl fmt::Display for Milestone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Ready | Self::Settled => "ready",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        })
    }
}
