//! What is not a container: services that a program of somebody else provides (`provider`), and language models
//! (`models`). What these say about how they are reached are variables of the services that need them.

pub(crate) mod model;
pub(crate) mod program;
pub(crate) mod provider;

use std::collections::BTreeMap;

use engine::id::Digest;

use crate::model::{Project, Service};

/// What providers and models have told so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// By the name of the service that is provided.
    pub(crate) providers: BTreeMap<String, provider::Variables>,
    /// Where language models are reached.
    pub(crate) models: Option<String>,
}

// === impl Told ===

impl Told {
    /// What a service that depends on them gets to know: variables, in the order in which later ones win.
    pub(crate) fn variables(&self, project: &Project, service: &Service) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let needed = self.providers.iter().filter(|(name, _)| service.depends_on.contains_key(*name));
        for (name, told) in needed {
            let prefix = name.to_uppercase();
            all.extend(told.prefixed.iter().map(|(key, value)| (format!("{prefix}_{key}"), value.clone())));
            all.extend(told.raw.clone());
        }
        if let Some(endpoint) = &self.models {
            all.extend(model::variables(project, service, endpoint));
        }
        all
    }

    /// The digest of that, by what it is about. Nothing is said of what has not told anything.
    pub(crate) fn digests(&self, project: &Project, service: &Service) -> BTreeMap<String, Digest> {
        let digest = |text: String| Digest::of(text.as_bytes());
        let needed = self.providers.iter().filter(|(name, _)| service.depends_on.contains_key(*name));
        let mut all: BTreeMap<String, Digest> =
            needed.map(|(name, told)| (format!("providers.{name}"), digest(format!("{told:?}")))).collect();
        if let Some(endpoint) = self.models.as_ref().filter(|_| !service.models.is_empty()) {
            let variables = model::variables(project, service, endpoint);
            all.insert("models".to_owned(), digest(format!("{variables:?}")));
        }
        all
    }
}
