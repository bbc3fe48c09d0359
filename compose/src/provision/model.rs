//! Language models, as docker compose does it: the program `docker-model` fetches, configures and serves them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;

use engine::error::{Error, Result};
use serde::Deserialize;

use super::program;
use crate::model::{Model, Project, Service};

/// The program that serves models.
pub(crate) struct Server {
    program: PathBuf,
    environment: BTreeMap<String, String>,
    takes_flags: bool,
}

/// From this version on the program takes flags for what runs a model.
const WITH_FLAGS: [u32; 3] = [1, 0, 6];

#[derive(Deserialize)]
struct Status {
    endpoint: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Plugin {
    #[serde(default)]
    version: String,
}

// === impl Server ===

impl Server {
    /// Finds it.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn find(project: &Project) -> Result<Self> {
        let program = program::plugin("model").ok_or_else(|| {
            Error::not_found("'models' support requires Docker Model plugin").with_hint(
                "put docker-model into a directory of docker's plugins (~/.docker/cli-plugins) or on the PATH",
            )
        })?;
        let mut server = Self { program, environment: project.environment.clone(), takes_flags: false };
        let version = server.run(&["docker-cli-plugin-metadata"]).ok();
        let version = version.and_then(|output| serde_json::from_slice::<Plugin>(&output.stdout).ok());
        server.takes_flags = version.is_some_and(|plugin| is_new_enough(&plugin.version));
        Ok(server)
    }

    /// Where models are reached.
    pub(crate) fn endpoint(&self) -> Result<String> {
        let output = self.run(&["status", "--json"])?;
        let status: Status = serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::failed("read the status of docker-model", error))?;
        Ok(status.endpoint)
    }

    /// Fetches a model that is not there, and configures it.
    pub(crate) fn prepare(&self, model: &Model) -> Result<()> {
        let listed = self.run(&["ls", "--json"])?;
        let listed: Vec<Listed> = serde_json::from_slice(&listed.stdout)
            .map_err(|error| Error::failed("read the list of docker-model", error))?;
        if !listed.iter().any(|one| one.tags.contains(&model.model)) {
            self.run(&["pull", &model.model])?;
        }
        let size = model.context_size.to_string();
        let mut arguments = vec!["configure"];
        if model.context_size > 0 {
            arguments.extend(["--context-size", &size]);
        }
        arguments.push(&model.model);
        if !model.runtime_flags.is_empty() && self.takes_flags {
            arguments.push("--");
            arguments.extend(model.runtime_flags.iter().map(String::as_str));
        }
        self.run(&arguments).map(drop)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let what = || format!("docker-model {}", arguments.join(" "));
        let mut command = program::command(&self.program, &self.environment);
        let output = command
            .args(arguments)
            .output()
            .map_err(|error| Error::failed(format!("run {}", what()), error))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::conflict(format!("{}: {}\n{}", what(), output.status, said.trim_end()).trim_end()))
    }
}

/// How a service finds the models that it uses.
pub(super) fn variables(project: &Project, service: &Service, endpoint: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (key, wanted) in &service.models {
        let Some(model) = project.models.get(key) else { continue };
        let prefix = key.to_uppercase().replace('-', "_");
        let named = |variable: Option<&String>, suffix: &str| {
            variable.filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| format!("{prefix}_{suffix}"))
        };
        let wanted = wanted.as_ref();
        let name = named(wanted.and_then(|wanted| wanted.model_var.as_ref()), "MODEL");
        let address = named(wanted.and_then(|wanted| wanted.endpoint_var.as_ref()), "URL");
        all.extend([(name, model.model.clone()), (address, endpoint.to_owned())]);
    }
    all
}

fn is_new_enough(version: &str) -> bool {
    let core = version.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<u32> = core.split('.').map_while(|part| part.parse().ok()).collect();
    !numbers.is_empty() && numbers.as_slice() >= WITH_FLAGS.as_slice()
}
