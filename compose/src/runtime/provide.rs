//! What is not a container: services that programs provide, and language models.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use engine::error::{Error, Result};
use engine::id::Digest;

use super::{Runtime, Telling};
use crate::model::Service;
use crate::operation::Provision;
use crate::provision::model::Server;
use crate::provision::{Told, provider};

impl Runtime {
    /// Has the provider of a service do something, and keeps what it tells about how the service is reached.
    pub(super) fn provide(&self, service: &str, provision: Provision) -> Result<()> {
        let said = |text: &str| (self.tell)(Telling::Said(format!("Service {service}"), text.to_owned()));
        let variables = provider::run(&self.project, self.service(service)?, provision, &said)?;
        if provision == Provision::Up {
            self.warn_of_collisions(service, &variables);
            self.told().providers.insert(service.to_owned(), variables);
        }
        Ok(())
    }

    /// Fetches and configures a language model.
    pub(super) fn prepare_model(&self, key: &str) -> Result<()> {
        let model = self.project.models.get(key);
        let model = model.ok_or_else(|| Error::not_found(format!("the model {key} is not defined")))?;
        let server = Server::find(&self.project)?;
        let endpoint = server.endpoint()?;
        self.told().models = Some(endpoint);
        server.prepare(model)
    }

    /// What providers and models have told each service so far.
    pub fn told_to_services(&self) -> BTreeMap<String, BTreeMap<String, Digest>> {
        let services = self.project.services.iter();
        let told = services.map(|(name, service)| (name.clone(), self.told_digests(service)));
        told.filter(|(_, digests)| !digests.is_empty()).collect()
    }

    pub(super) fn told_digests(&self, service: &Service) -> BTreeMap<String, Digest> {
        self.told().digests(&self.project, service)
    }

    /// A service with the variables that tell how what it needs is reached.
    pub(super) fn with_what_was_told(&self, service: &Service) -> Service {
        let mut service = service.clone();
        let variables = self.told().variables(&self.project, &service);
        service.environment.extend(variables.into_iter().map(|(key, value)| (key, Some(value))));
        service
    }

    fn warn_of_collisions(&self, name: &str, variables: &provider::Variables) {
        let dependents = self.project.services.values().filter(|other| other.depends_on.contains_key(name));
        for dependent in dependents {
            for (key, value) in &variables.raw {
                let own = dependent.environment.get(key);
                if own.is_some_and(|own| own.as_ref() != Some(value)) {
                    (self.tell)(Telling::Warning(format!(
                        "provider {name:?} overrides environment variable {key:?} in service {:?}",
                        dependent.name
                    )));
                }
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
