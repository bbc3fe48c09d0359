//! A release on the engine of this host: its model loaded, with this host's paths in it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use compose::desired::{Changes, Desired, Update};
use compose::load::{LoadOptions, load};
use compose::observe::{Observed, observe};
use compose::plan::images::{self, Building};
use compose::plan::stages::Stages;
use compose::plan::up::{Orphans, UpOptions, scope, up};
use compose::plan::{Plan, PlanError};
use compose::runtime::{Flags, Runtime, Telling};
use engine::Engine;
use engine::error::{Error, Result};
use engine::image::Login;
use engine::store::{self, Durability};
use jiff::Timestamp;
use serde_json::Value;

use super::Tell;
use super::places::Places;
use crate::message::{Event, RegistryLogin, Rollout};
use crate::pace::Pace;
use crate::parcel;
use crate::release::{Policy, Release, SentImage, Strategy};

/// A release with all that plans and steps need.
pub(crate) struct Opened {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) policy: Policy,
    /// When its rollout began; `None` when none goes on.
    pub(crate) began: Option<Timestamp>,
    /// Which names of images are not asked about at their registries any more.
    pub(crate) settled: Settled,
    services: Vec<String>,
}

/// Names of images whose meaning is what it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// These.
    Some(BTreeSet<String>),
    /// All that mean something here.
    Here,
}

impl Opened {
    /// Loads what is to be rolled out.
    pub(crate) fn new(engine: &Engine, places: &Places, rollout: &Rollout, tell: &Tell) -> Result<Self> {
        let release = &rollout.release;
        let options = LoadOptions {
            files: vec![PathBuf::from("-")],
            stdin: Some(at_home(release, places)?),
            project_directory: Some(places.state().to_owned()),
            project_name: Some(release.project.clone()),
            // The user's environment was put in where the release was made.
            env_files: vec![PathBuf::from("/dev/null")],
            all_resources: true,
            ..LoadOptions::default()
        };
        let loaded = load(&options).map_err(|diagnostics| {
            Error::invalid(format!("the release {} cannot be loaded: {diagnostics}", release.id))
        })?;
        let mut desired = Desired::of(&loaded.project, &Changes::default());
        for (name, service) in &mut desired.services {
            let strategy = release.policy.strategies.get(name).copied().unwrap_or(Strategy::StopFirst);
            let monitor = service.update.and_then(|update| update.monitor);
            service.update = Some(Update {
                start_first: strategy == Strategy::StartFirst,
                monitor,
                // A rollout has a way back of its own, for all services at once.
                ..Update::default()
            });
        }
        let flags = Flags {
            logins: logins(&rollout.credentials),
            keep_failed: true,
            ready_within: release.policy.ready_within(),
            ..Flags::default()
        };
        let (teller, pace) = (tell.clone(), Pace::default());
        let tell = Box::new(move |telling: Telling<'_>| match telling {
            Telling::Warning(text) => teller(Event::Remark(format!("WARNING: {text}"))),
            Telling::Pull(image, progress) => {
                if let Some(text) = pace.remark_on_layer(image, &progress) {
                    teller(Event::Remark(format!("Image {image}  Pulling: {text}")));
                }
            }
            Telling::Hook(container, line) => teller(Event::Remark(format!("{container} ->  | {line}"))),
            Telling::Build(..) | Telling::Built(..) | Telling::Said(..) => {}
        });
        // Whoever goes back goes back to what was there.
        let settled = if rollout.rollback { Settled::Here } else { Settled::Some(BTreeSet::new()) };
        let runtime = Arc::new(Runtime::new(engine.clone(), loaded.project, desired, flags, tell));
        Ok(Self {
            runtime,
            policy: release.policy.clone(),
            began: None,
            settled,
            services: rollout.services.clone(),
        })
    }

    /// Loads a release that was decided about before, for all its services.
    pub(crate) fn as_it_serves(
        engine: &Engine,
        places: &Places,
        release: Release,
        tell: &Tell,
    ) -> Result<Self> {
        let rollout = Rollout {
            release,
            rollback: false,
            author: String::new(),
            services: Vec::new(),
            credentials: BTreeMap::new(),
        };
        Ok(Self { settled: Settled::Here, ..Self::new(engine, places, &rollout, tell)? })
    }

    /// What there is now, what is to be done about it, and in which stages.
    pub(crate) fn plan(&self) -> Result<(Observed, Plan, Stages)> {
        let observed = observe(self.runtime.engine(), self.runtime.desired())?;
        let (plan, stages) = self.plan_for(&observed)?;
        Ok((observed, plan, stages))
    }

    /// As [`Opened::plan`], as if images that are still to be sent were here. Those that are not.
    pub(crate) fn foresee(
        &self,
        images: &BTreeMap<String, SentImage>,
    ) -> Result<(Vec<String>, Plan, Stages)> {
        let mut observed = observe(self.runtime.engine(), self.runtime.desired())?;
        let mut absent = BTreeSet::new();
        for (service, image) in images {
            let Some(wanted) = self.runtime.desired().services.get(service) else { continue };
            if let Entry::Vacant(place) = observed.images.entry(wanted.image.name.clone()) {
                let id = image.id.parse().map_err(|error| {
                    Error::invalid(format!("the image of service {service}: {}", image.id)).with_source(error)
                })?;
                place.insert(id);
                absent.insert(image.name.clone());
            }
        }
        let (plan, stages) = self.plan_for(&observed)?;
        Ok((absent.into_iter().collect(), plan, stages))
    }

    fn plan_for(&self, observed: &Observed) -> Result<(Plan, Stages)> {
        let settled = match &self.settled {
            Settled::Some(names) => names.clone(),
            Settled::Here => observed.images.keys().cloned().collect(),
        };
        let plan =
            up(self.runtime.desired(), observed, &UpOptions { settled_images: settled, ..self.options() })
                .map_err(|error| Error::invalid(error.to_string()))?;
        let stages = Stages::of(&plan);
        Ok((plan, stages))
    }

    /// The images that have to come first, since what becomes of containers depends on them; nothing when all are settled.
    pub(crate) fn decisive(&self, observed: &Observed) -> Result<Plan> {
        if self.settled == Settled::Here {
            return Ok(Plan::default());
        }
        let desired = self.runtime.desired();
        let wrong = |error: PlanError| Error::invalid(error.to_string());
        let services = scope(desired, &self.options()).map_err(wrong)?;
        images::decisive(desired, observed, &services, Building::default()).map_err(wrong)
    }

    fn options(&self) -> UpOptions {
        UpOptions {
            services: self.services.clone(),
            orphans: if self.services.is_empty() { Orphans::Remove } else { Orphans::Ignore },
            staged: true,
            began: self.began,
            ..UpOptions::default()
        }
    }
}

/// Writes the model down for `rcompose -f` on the host.
pub(crate) fn write_model(places: &Places, release: &Release) -> Result<()> {
    let text = at_home(release, places)?;
    store::write_atomic(&places.model(), text.as_bytes(), 0o600, Durability::Rename)
        .map_err(|error| Error::failed("write the model", error))
}

pub(crate) fn logins(credentials: &BTreeMap<String, RegistryLogin>) -> Vec<Login> {
    credentials
        .iter()
        .map(|(registry, login)| Login {
            registry: registry.clone(),
            username: login.username.clone(),
            password: login.password.clone(),
        })
        .collect()
}

/// The model with this host's paths where the release has names.
fn at_home(release: &Release, places: &Places) -> Result<String> {
    let mut model: Value = serde_json::from_str(&release.model)
        .map_err(|error| Error::failed(format!("read the model of the release {}", release.id), error))?;
    let translate = |value: &mut Value| {
        if let Some(path) = value.as_str().and_then(|text| path(text, places)) {
            *value = Value::String(path.to_string_lossy().into_owned());
        }
    };
    for section in ["secrets", "configs"] {
        for object in model.get_mut(section).and_then(Value::as_object_mut).into_iter().flatten() {
            object.1.get_mut("file").map(translate);
        }
    }
    for service in model.get_mut("services").and_then(Value::as_object_mut).into_iter().flatten() {
        let volumes = service.1.get_mut("volumes").and_then(Value::as_array_mut);
        for volume in volumes.into_iter().flatten() {
            volume.get_mut("source").map(translate);
        }
    }
    Ok(model.to_string())
}

/// Where a name of the release is on this host. Names with `..` lead nowhere.
fn path(name: &str, places: &Places) -> Option<PathBuf> {
    if name.split('/').any(|part| part == "..") {
        return None;
    }
    let kept = name.strip_prefix(parcel::FILES).map(|name| places.kept(name));
    let secret = || name.strip_prefix(parcel::SECRETS).map(|name| places.secret(name));
    let data = || name.strip_prefix(parcel::DATA).map(|name| places.data(name));
    kept.or_else(secret).or_else(data)
}
