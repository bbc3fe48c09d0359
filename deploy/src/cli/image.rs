//! What a workflow says of an image in place of the compose file: the inputs of docker/build-push-action.

use compose::Project;
use compose::build::is_remote;
use compose::model::Build;
use engine::error::{Error, Result};

use crate::settings::{Settings, Transfer};

/// What is said; nothing of it leaves everything to the compose file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ImageInputs {
    /// Where the files are that it is built from.
    pub(super) context: Option<String>,
    /// The instructions.
    pub(super) dockerfile: Option<String>,
    /// The stage that becomes the image.
    pub(super) target: Option<String>,
    /// `NAME=VALUE`, or a name whose value the environment has.
    pub(super) args: Vec<String>,
    /// `NAME=VALUE`.
    pub(super) labels: Vec<String>,
    /// What it is called; the first one is the name that the service has it by.
    pub(super) tags: Vec<String>,
    /// What it is built for.
    pub(super) platforms: Vec<String>,
    /// Where earlier results may be taken from, and where those of this build go.
    pub(super) cache_from: Vec<String>,
    pub(super) cache_to: Vec<String>,
    /// Further contexts, `NAME=PLACE`.
    pub(super) contexts: Vec<String>,
    /// `NAME:ADDRESS`, for the steps.
    pub(super) hosts: Vec<String>,
    /// The network of the steps.
    pub(super) network: Option<String>,
    /// Whether nothing is taken from the cache.
    pub(super) no_cache: bool,
    /// Whether bases are asked for at their registry.
    pub(super) pull: bool,
    /// Whether it goes by way of the registry that its name says.
    pub(super) push: bool,
}

// === impl ImageInputs ===

impl ImageInputs {
    /// Says it of the services that are built among these, or among all when none is named.
    ///
    /// # Errors
    /// When what can be said of one image only is meant for several.
    pub(super) fn say(
        &self,
        project: &mut Project,
        settings: &mut Settings,
        services: &[String],
    ) -> Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        if self.push {
            settings.transfer = Transfer::Registry;
        }
        let chosen = self.chosen(project, services)?;
        for name in chosen {
            let Some(service) = project.services.get_mut(&name) else { continue };
            self.say_of(service.build.get_or_insert_default());
            if let Some((first, more)) = self.tags.split_first() {
                service.image = Some(first.clone());
                service.build.get_or_insert_default().tags = more.to_vec();
            }
        }
        Ok(())
    }

    fn chosen(&self, project: &Project, services: &[String]) -> Result<Vec<String>> {
        // A context makes something to build of a service that only had an image.
        let is_built = |name: &&String| {
            self.context.is_some() && services.contains(*name)
                || project.services.get(*name).is_some_and(|service| service.build.is_some())
        };
        let among = |name: &&String| services.is_empty() || services.contains(*name);
        let chosen: Vec<String> = project.services.keys().filter(among).filter(is_built).cloned().collect();
        let single = [
            ("context", self.context.is_some()),
            ("dockerfile", self.dockerfile.is_some()),
            ("target", self.target.is_some()),
            ("tags", !self.tags.is_empty()),
        ];
        let Some((input, _)) = single.into_iter().find(|(_, is_given)| *is_given) else { return Ok(chosen) };
        match chosen.as_slice() {
            [_] => Ok(chosen),
            _ => {
                let all = if chosen.is_empty() { project.services.keys().cloned().collect() } else { chosen };
                Err(Error::invalid(format!("{input}: the image of which service is meant is not clear"))
                    .with_hint(format!("name one in `services`: {}", all.join(", "))))
            }
        }
    }

    fn say_of(&self, build: &mut Build) {
        let pairs = |texts: &[String]| {
            let pair = |text: &String| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text.clone(), std::env::var(text).ok()),
            };
            texts.iter().map(pair).collect::<Vec<_>>()
        };
        if let Some(context) = &self.context {
            // Nothing of what stood there belongs to another context.
            *build = Build { context: Some(context.clone()), args: build.args.clone(), ..Build::default() };
        }
        if let Some(file) = &self.dockerfile {
            build.dockerfile = Some(file.clone());
            build.dockerfile_inline = None;
        }
        build.target = self.target.clone().or(build.target.take());
        build.args.extend(pairs(&self.args));
        build
            .labels
            .extend(pairs(&self.labels).into_iter().map(|(name, value)| (name, value.unwrap_or_default())));
        if !self.platforms.is_empty() {
            build.platforms.clone_from(&self.platforms);
        }
        for (name, place) in pairs(&self.contexts) {
            build.additional_contexts.extend(place.map(|place| (name, place)));
        }
        build.extra_hosts.extend(self.hosts.iter().map(|host| host.replacen(':', "=", 1)));
        build.network = self.network.clone().or(build.network.take());
        build.cache_from.extend(self.cache_from.iter().cloned());
        build.cache_to.extend(self.cache_to.iter().cloned());
        build.no_cache |= self.no_cache;
        build.pull |= self.pull;
    }
}

/// Whether what `file` names is not a compose file but the instructions of an image, as with docker/build-push-action.
pub(super) fn is_dockerfile(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default();
    let lower = name.to_lowercase();
    ["dockerfile", "containerfile"].iter().any(|word| {
        lower == *word || lower.starts_with(&format!("{word}.")) || lower.ends_with(&format!(".{word}"))
    })
}

/// A place as a workflow names it: from where its step runs, or an address.
pub(super) fn absolute(place: &str) -> Result<String> {
    if is_remote(place) {
        return Ok(place.to_owned());
    }
    let path = std::path::absolute(place).map_err(|error| Error::failed(format!("find {place}"), error))?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use compose::model::Service;

    use super::*;

    fn project(services: &[(&str, bool)]) -> Project {
        let service = |(name, is_built): &(&str, bool)| {
            let build = is_built.then(|| Build { context: Some("/there".into()), ..Build::default() });
            ((*name).to_owned(), Service { name: (*name).to_owned(), build, ..Service::default() })
        };
        Project { services: services.iter().map(service).collect(), ..Project::default() }
    }

    #[test]
    fn the_inputs_of_build_push_action_are_of_the_service_that_is_deployed() {
        let inputs = ImageInputs {
            context: Some("/here".into()),
            dockerfile: Some("/here/rpc/Dockerfile".into()),
            tags: vec!["me/chat:1".into(), "me/chat:latest".into()],
            platforms: vec!["linux/amd64".into(), "linux/arm64".into()],
            args: vec!["A=b".into()],
            contexts: vec!["assets=/there".into()],
            hosts: vec!["db:fd00::1".into()],
            network: Some("none".into()),
            push: true,
            ..ImageInputs::default()
        };
        let (mut project, mut settings) = (project(&[("chat", false), ("web", true)]), Settings::default());
        inputs.say(&mut project, &mut settings, &["chat".into()]).unwrap();
        assert_eq!(settings.transfer, Transfer::Registry);
        let chat = &project.services["chat"];
        assert_eq!(chat.image.as_deref(), Some("me/chat:1"));
        let build = chat.build.as_ref().unwrap();
        assert_eq!(
            (build.context.as_deref(), build.tags.as_slice()),
            (Some("/here"), &["me/chat:latest".into()][..])
        );
        assert_eq!(build.args["A"].as_deref(), Some("b"));
        assert_eq!(build.additional_contexts["assets"], "/there");
        assert_eq!(
            (build.extra_hosts.as_slice(), build.network.as_deref()),
            (&["db=fd00::1".into()][..], Some("none"))
        );
        assert_eq!(project.services["web"].build.as_ref().unwrap().context.as_deref(), Some("/there"));
    }

    #[test]
    fn what_is_of_one_image_is_not_said_of_several() {
        let inputs = ImageInputs { tags: vec!["a".into()], ..ImageInputs::default() };
        let mut two = project(&[("jobs", true), ("web", true)]);
        let error = inputs.say(&mut two, &mut Settings::default(), &[]).unwrap_err();
        assert!(error.to_string().starts_with("tags: ") && error.hint().unwrap().contains("jobs, web"));
        let all = ImageInputs { no_cache: true, ..ImageInputs::default() };
        all.say(&mut two, &mut Settings::default(), &[]).unwrap();
        assert!(two.services.values().all(|service| service.build.as_ref().unwrap().no_cache));
    }

    #[test]
    fn file_may_name_either_kind() {
        for name in ["Dockerfile", "a/Dockerfile", "Dockerfile.prod", "web.Dockerfile", "x/Containerfile"] {
            assert!(is_dockerfile(name), "{name}");
        }
        for name in ["compose.yaml", "docker-compose.yml", "dockerfiles/compose.yaml"] {
            assert!(!is_dockerfile(name), "{name}");
        }
    }
}
