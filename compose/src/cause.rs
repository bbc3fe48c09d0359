//! Why an operation is in a plan, in the words the user sees.

use std::fmt;

/// The reason for one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It does not exist.
    Missing,
    /// It exists and does not run.
    NotRunning,
    /// Its definition is not the one it was made from.
    ConfigChanged,
    /// A secret or configuration holds something else now.
    ContentChanged {
        /// Which: `secrets.token`.
        object: String,
    },
    /// Its image is not the one it was made from.
    ImageChanged,
    /// It was last fetched longer ago than its policy allows.
    Stale,
    /// It is not on a network it should be on, or that network is made anew.
    NetworkChanged {
        /// The network.
        network: String,
    },
    /// A volume it should have is not mounted.
    VolumeChanged {
        /// The volume.
        volume: String,
    },
    /// A container whose namespaces or volumes it shares is made anew.
    ParentReplaced {
        /// The other service.
        service: String,
    },
    /// A service it depends on with `restart: true` is made anew.
    DependencyReplaced {
        /// The other service.
        service: String,
    },
    /// Its successor takes its place.
    Replaced,
    /// A step of an earlier run left it behind.
    LeftOver,
    /// An earlier run made it and never let it serve.
    NeverServed,
    /// The update it is a part of failed.
    UpdateFailed,
    /// More containers are wanted than there are.
    ScaledUp,
    /// Fewer containers are wanted than there are.
    ScaledDown,
    /// Its service is in no file any more.
    Orphan,
    /// What its name means is asked for at its registry each time.
    PulledEachTime,
    /// The user asked for it.
    Asked,
    /// A service that is asked for needs it.
    NeededBy {
        /// The service that needs it.
        service: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::NotRunning => f.write_str("not running"),
            Self::ConfigChanged => f.write_str("configuration changed"),
            Self::ContentChanged { object } => write!(f, "content of {object} changed"),
            Self::ImageChanged => f.write_str("image changed"),
            Self::Stale => f.write_str("last pulled too long ago"),
            Self::NetworkChanged { network } => write!(f, "network {network} changed"),
            Self::VolumeChanged { volume } => write!(f, "volume {volume} changed"),
            Self::ParentReplaced { service } => write!(f, "shares with {service}, which is recreated"),
            Self::DependencyReplaced { service } => {
                write!(f, "restarts with {service}, which is recreated")
            }
            Self::Replaced => f.write_str("replaced"),
            Self::LeftOver => f.write_str("left over"),
            Self::NeverServed => f.write_str("never served"),
            Self::UpdateFailed => f.write_str("update failed"),
            Self::ScaledUp => f.write_str("scaled up"),
            Self::ScaledDown => f.write_str("scaled down"),
            Self::Orphan => f.write_str("orphan"),
            Self::PulledEachTime => f.write_str("its pull policy is always"),
            Self::Asked => f.write_str("asked"),
            Self::NeededBy { service } => write!(f, "needed by {service}"),
        }
    }
}
