//! A release: one version of a project as it was sent to hosts, with all that is needed to run it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use engine::image::Reference;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of a release: when it was made, and what tells two made at once apart: `20261128T0304050-1f3c`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

/// One version of a project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The form of this record.
    pub version: u32,
    /// Its name.
    pub id: ReleaseId,
    /// The project.
    pub project: String,
    /// The project in the canonical form of the Compose Specification, in JSON. No secret is in it.
    pub model: String,
    /// The images that were built and sent for it, by service.
    pub images: BTreeMap<String, SentImage>,
    /// What all other names of images in the model meant on the host, by name, once it has been rolled out there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, SentImage>,
    /// What it was built from.
    pub commit: Option<Commit>,
    /// Who made it: `name@machine`.
    pub author: String,
    /// When it was made.
    pub created: Timestamp,
    /// How it is rolled out.
    pub policy: Policy,
}

/// An image that went to the hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentImage {
    /// What it is called there.
    pub name: String,
    /// Its id, which is the digest of its configuration.
    pub id: String,
}

/// A commit of the user's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its full name.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
    /// Whether files differed from it.
    pub dirty: bool,
}

/// How a release is rolled out on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How containers that give way are treated, by service.
    pub strategies: BTreeMap<String, Strategy>,
    /// How long connections to a container that was replaced may go on, in milliseconds.
    pub drain_ms: u64,
    /// How long a new container may take until it is ready, in milliseconds; by its health check, or 60 s, when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ms: Option<u64>,
    /// How many releases a host keeps, the one that serves among them.
    pub keep: usize,
}

/// In which order a container and its successor stop and start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The new one is ready before the old one loses its ports.
    StartFirst,
    /// Two cannot run at once: the old one stops first, and whoever connects meanwhile waits.
    StopFirst,
}

/// How a rollout ended on a host, as its history tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The release.
    pub release: ReleaseId,
    /// The release that served before, if there was one.
    pub previous: Option<ReleaseId>,
    /// What it was built from.
    pub commit: Option<Commit>,
    /// Who rolled it out.
    pub author: String,
    /// When that began.
    pub began: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
    /// How long preparing took, in milliseconds.
    pub prepare_ms: u64,
    /// How long the change of who answers took, in milliseconds.
    pub commit_ms: u64,
    /// The longest time within which no connection to a published port was accepted, in milliseconds, as it was
    /// measured; `None` when nothing is published.
    pub downtime_ms: Option<u64>,
    /// The images, by service.
    pub images: BTreeMap<String, String>,
    /// Whether it went back to a release that was kept.
    pub rollback: bool,
}

/// What came of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It serves, or did until another one took over.
    Served,
    /// It was called off and what there was before serves on, for this reason.
    BackedOut(String),
}

/// The form of a release's record.
pub const VERSION: u32 = 1;

/// What the names of images begin their tags with that are called by what is in them, `shop-web:rdeploy-0123456789ab`: such
/// a name never means something else later.
pub const SENT_TAG: &str = "rdeploy-";

/// A text that names no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a release: `rdeploy history` lists them")]
pub struct ParseReleaseIdError(String);

/// The release that served so many rollouts before the one that serves now; rollouts of one release in a row count once.
pub fn before(entries: &[Entry], back: usize) -> Option<ReleaseId> {
    let served = line(entries);
    served.len().checked_sub(back + 1).map(|place| served[place].clone())
}

/// The releases that led to the one that serves now, which is the last of them.
pub fn line(entries: &[Entry]) -> Vec<&ReleaseId> {
    let mut served: Vec<&ReleaseId> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.outcome == Outcome::Served) {
        // Going back to a release forgets what came after it: two rollbacks in a row go back twice.
        if let Some(place) = served.iter().position(|id| **id == entry.release) {
            served.truncate(place);
        }
        served.push(&entry.release);
    }
    served
}

// === impl ReleaseId ===

impl ReleaseId {
    /// A name nobody else makes at the same moment.
    pub fn new(now: Timestamp) -> Self {
        let mut random = [0_u8; 2];
        // The kernel's generator answers once the machine has started; a name without it is good enough before that.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let tail = u16::from_be_bytes(random);
        Self(format!("{}-{tail:04x}", now.strftime("%Y%m%dT%H%M%S")))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReleaseId {
    type Err = ParseReleaseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // It becomes the name of a file.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_plain) {
            return Err(ParseReleaseIdError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = ParseReleaseIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Release ===

impl Release {
    /// The images that containers of its services are made of, by service, as hosts know them.
    pub fn images_of_services(&self) -> BTreeMap<String, String> {
        // What cannot be read has none.
        let model: Value = serde_json::from_str(&self.model).unwrap_or_default();
        let services = model.get("services").and_then(Value::as_object).cloned().unwrap_or_default();
        let image =
            |service: &Value| service.get("image").and_then(Value::as_str).unwrap_or_default().to_owned();
        services.iter().map(|(name, service)| (name.clone(), image(service))).collect()
    }

    /// The names of all images that hosts need for it.
    pub fn images_there(&self) -> BTreeSet<Reference> {
        let sent = self.images.values().chain(self.pins.values()).map(|image| image.name.clone());
        let all = self.images_of_services().into_values().chain(sent);
        // What is no name is found out where it is needed.
        all.filter_map(|name| name.parse().ok()).collect()
    }

    /// Whether a service is in `other` the same but for its image.
    pub fn differs_by_image(&self, other: &Self, service: &str) -> bool {
        let split = |release: &Self| {
            let mut model: Value = serde_json::from_str(&release.model).ok()?;
            let mut service = model.get_mut("services")?.get_mut(service)?.take();
            let image = service.as_object_mut()?.remove("image");
            Some((service, image))
        };
        match (split(self), split(other)) {
            (Some((rest, image)), Some((other_rest, other_image))) => {
                rest == other_rest && image != other_image
            }
            _ => false,
        }
    }
}

// === impl Policy ===

impl Policy {
    /// How long connections to a container that was replaced may go on.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    /// How long a new container may take until it is ready; by its health check, or 60 s, when `None`.
    pub fn ready_within(&self) -> Option<Duration> {
        self.ready_ms.map(Duration::from_millis)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { strategies: BTreeMap::new(), drain_ms: 30_000, ready_ms: None, keep: 5 }
    }
}

// === impl Commit ===

impl Commit {
    /// As it is shown: twelve digits, and a mark when files differed.
    pub fn short(&self) -> String {
        let digits = self.id.get(..12).unwrap_or(&self.id);
        if self.dirty { format!("{digits}+") } else { digits.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: i64, outcome: Outcome) -> Entry {
        Entry {
            release: format!("r{number}").parse().unwrap(),
            previous: None,
            commit: None,
            author: String::new(),
            began: Timestamp::UNIX_EPOCH,
            outcome,
            prepare_ms: 0,
            commit_ms: 0,
            downtime_ms: None,
            images: BTreeMap::new(),
            rollback: false,
        }
    }

    #[test]
    fn going_back_twice_goes_back_two_releases() {
        let mut entries: Vec<Entry> = (1..=3).map(|number| entry(number, Outcome::Served)).collect();
        entries.push(entry(4, Outcome::BackedOut("sick".to_owned())));
        let back = |entries: &[Entry], back| before(entries, back).map(String::from);
        assert_eq!(back(&entries, 1).as_deref(), Some("r2"));
        assert_eq!(back(&entries, 2).as_deref(), Some("r1"));
        assert_eq!(back(&entries, 3), None);
        entries.push(entry(2, Outcome::Served));
        assert_eq!(back(&entries, 1).as_deref(), Some("r1"));
    }

    #[test]
    fn another_image_is_told_from_another_configuration() {
        let release = |service: &str| Release {
            version: VERSION,
            id: "r".parse().unwrap(),
            project: "p".to_owned(),
            model: format!("{{\"services\": {{\"web\": {service}}}}}"),
            images: BTreeMap::new(),
            pins: BTreeMap::new(),
            commit: None,
            author: String::new(),
            created: Timestamp::UNIX_EPOCH,
            policy: Policy::default(),
        };
        let before = release(r#"{"image": "a:1", "user": "me"}"#);
        let differs = |service: &str| release(service).differs_by_image(&before, "web");
        assert!(differs(r#"{"image": "a:2", "user": "me"}"#));
        assert!(!differs(r#"{"image": "a:2", "user": "you"}"#));
        assert!(!differs(r#"{"image": "a:1", "user": "me"}"#));
        assert!(!before.differs_by_image(&before, "db"));
    }

    #[test]
    fn a_name_never_leaves_its_directory() {
        for text in ["", "..", "a/b", "../../etc/passwd", "a\0b"] {
            assert!(text.parse::<ReleaseId>().is_err(), "{text:?}");
            assert!(serde_json::from_value::<ReleaseId>(text.into()).is_err(), "{text:?}");
        }
        let id = ReleaseId::new(Timestamp::from_second(1_700_000_000).unwrap());
        assert!(id.as_str().starts_with("20231114T221320-"), "{id}");
        assert_eq!(id.as_str().parse(), Ok(id));
    }
}
