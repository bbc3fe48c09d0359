//! A release that is about some services alone. The others stay what the release that serves has of them, also when this
//! machine never built them, and those that no host has are left to a later release.

use std::collections::{BTreeMap, BTreeSet};

use compose::Project;
use compose::desired::{Changes, Desired};
use compose::plan::up::{UpOptions, scope};
use engine::error::{Error, Result};

use crate::project;
use crate::release::{Release, SentImage};

/// Some services of a project, with all that they depend on.
#[derive(Debug)]
pub struct Selection {
    named: Vec<String>,
    all: BTreeSet<String>,
}

// === impl Selection ===

impl Selection {
    /// These services and all that they depend on; `None` when none is named, which is all of them.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn of(project: &Project, services: &[String]) -> Result<Option<Self>> {
        if services.is_empty() {
            return Ok(None);
        }
        let desired = Desired::of(project, &Changes::default());
        let options = UpOptions { services: services.to_vec(), ..UpOptions::default() };
        let all = scope(&desired, &options).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Some(Self { named: services.to_vec(), all }))
    }

    /// The part of a project that a host has afterwards, and the images of its services: what is here for those that are
    /// selected, and what serves for the others.
    ///
    /// # Errors
    /// When a service that is needed has no image on either side.
    pub fn beside(
        &self,
        part: &Project,
        here: &BTreeMap<String, SentImage>,
        serving: Option<&Release>,
    ) -> Result<(Project, BTreeMap<String, SentImage>)> {
        let there = serving.map(Release::images_of_services).unwrap_or_default();
        let is_kept = |name: &&String| self.all.contains(*name) || there.contains_key(*name);
        let kept: Vec<String> = part.services.keys().filter(is_kept).cloned().collect();
        let mut part = project::only(part, Some(&kept));
        let mut images = BTreeMap::new();
        for (name, service) in &mut part.services {
            let from_there = serving.and_then(|release| release.images.get(name));
            let image = match self.all.contains(name) {
                true => here.get(name).or(from_there),
                false => from_there,
            };
            match (image, there.get(name)) {
                (Some(image), _) => drop(images.insert(name.clone(), image.clone())),
                (None, Some(image)) if !self.all.contains(name) => service.image = Some(image.clone()),
                _ if service.build.is_some() => return Err(self.lacking(name)),
                _ => {}
            }
        }
        Ok((part, images))
    }

    fn lacking(&self, name: &str) -> Error {
        let named = self.named.join(" ");
        Error::invalid(format!("service {name}, which {named} needs, was never built for this host"))
            .with_hint(format!("deploy it, too: `rdeploy up {named} {name}`"))
    }
}
