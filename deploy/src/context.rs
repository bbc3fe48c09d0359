//! A build's context as an image of one layer, so that it goes to another machine as images do: what is there already is
//! not sent, and a file that was changed goes as the difference.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use compose::build::is_remote;
use compose::model::{Build, Service};
use engine::Engine;
use engine::builder::{BuildRequest, DockerfileSource};
use engine::error::{Error, Result};
use engine::id::Digest;
use engine::image::Image;

use crate::release::SentImage;

/// A build that another machine can do.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The image with the context; `None` when the context is an address.
    pub(crate) context: Option<SentImage>,
    /// The images with further contexts, by their names.
    pub(crate) named: BTreeMap<String, SentImage>,
    /// How it is built, without anything of this machine.
    pub(crate) build: Build,
}

/// What stands for standard input where a context is named.
const STDIN: &str = "-";

/// What an image with a context is labelled with: the project.
pub(crate) const LABEL: &str = "rdeploy.context";

/// The instructions that make one.
const PACK: &str = "FROM scratch\nCOPY . /\n";

/// Packs what a service is built from.
///
/// # Errors
/// When something is needed that does not go along, or the context cannot be read.
pub(crate) fn pack(engine: &Engine, project: &str, name: &str, service: &Service) -> Result<Packed> {
    let Some(build) = &service.build else {
        return Err(Error::invalid(format!("service {name} has no build")));
    };
    let mut build = build.clone();
    let packing = Packing { engine, project, service: name };
    let mut named = BTreeMap::new();
    for (other, source) in &build.additional_contexts {
        if source.starts_with("oci-layout://") || source == STDIN {
            return Err(Error::invalid(format!(
                "service {name}: additional_contexts.{other}: {source} does not go to another machine that builds"
            ))
            .with_hint("build it here: `builder: here`"));
        }
        if is_remote(source) {
            continue;
        }
        // A name may be one of an image, with what has no place in a tag.
        let digest = Digest::of(other.as_bytes());
        let tag = format!("{project}-{name}-{}", &digest.hex()[..12]);
        named.insert(other.clone(), packing.image(source, &tag, None)?);
    }
    let context = build.context.clone().unwrap_or_default();
    if context == STDIN {
        return Err(Error::invalid(format!(
            "service {name}: build.context: standard input does not go to another machine that builds"
        ))
        .with_hint("build it here: `builder: here`"));
    }
    if is_remote(&context) {
        return Ok(Packed { context: None, named, build });
    }
    let mut ignored = None;
    if build.dockerfile_inline.is_none() {
        let file =
            Path::new(&context).join(build.dockerfile.take().unwrap_or_else(|| "Dockerfile".to_owned()));
        let text = fs::read_to_string(&file)
            .map_err(|error| Error::failed(format!("service {name}: read {}", file.display()), error))?;
        build.dockerfile_inline = Some(text);
        // What a Dockerfile leaves out by a list of its own is left out here; there, nothing more is.
        let mut ignore = file.into_os_string();
        ignore.push(".dockerignore");
        ignored = fs::read_to_string(ignore).ok();
    }
    let context = packing.image(&context, &format!("{project}-{name}"), ignored)?;
    build.context = None;
    Ok(Packed { context: Some(context), named, build })
}

/// Makes images of the directories that a service is built from.
struct Packing<'a> {
    engine: &'a Engine,
    project: &'a str,
    service: &'a str,
}

// === impl Packing ===

impl Packing<'_> {
    /// An image of one layer with what is in a directory, without what a list leaves out besides the directory's own.
    fn image(&self, directory: &str, tag: &str, ignored: Option<String>) -> Result<SentImage> {
        let step = format!("service {}: pack the context {directory}", self.service);
        let failed = |error| Error::failed(step.clone(), error);
        if !Path::new(directory).is_dir() {
            return Err(Error::not_found(format!("{step}: there is no such directory")));
        }
        let place = tempfile::tempdir().map_err(failed)?;
        let instructions = place.path().join("Dockerfile");
        fs::write(&instructions, PACK).map_err(failed)?;
        if let Some(list) = ignored {
            fs::write(place.path().join("Dockerfile.dockerignore"), list + "\n.dockerignore\n")
                .map_err(failed)?;
        }
        let reference = format!("rdeploy/context:{tag}");
        let mut request = BuildRequest::of(Path::new(directory));
        request.dockerfile = DockerfileSource::File(instructions);
        request.labels.insert(LABEL.to_owned(), self.project.to_owned());
        let name = reference
            .parse()
            .map_err(|error| Error::invalid(format!("image {reference}")).with_source(error))?;
        request.tags = vec![name];
        let made = self.engine.build(&request, &mut |_| {}).map_err(|error| Error::failed(step, error))?;
        let image = made.first().ok_or_else(|| Error::conflict("the context became no image"))?;
        Ok(SentImage { name: reference, id: image.id.to_string() })
    }
}

/// Forgets contexts of a project that newer ones have replaced.
pub(crate) fn forget_old(engine: &Engine, project: &str) -> Result<()> {
    forget(engine, project, &|image| image.references.is_empty())
}

/// Forgets all contexts of a project.
pub(crate) fn forget_all(engine: &Engine, project: &str) -> Result<()> {
    forget(engine, project, &|_| true)
}

fn forget(engine: &Engine, project: &str, which: &dyn Fn(&Image) -> bool) -> Result<()> {
    let is_its = |image: &Image| image.config.config.labels.get(LABEL).is_some_and(|of| of == project);
    for image in engine.images().list()?.iter().filter(|image| is_its(image) && which(image)) {
        engine.images().remove(image.id.as_str(), true, &Default::default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_fetched_where_it_is_built() {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::open(Some(directory.path())).unwrap();
        let packed = |build: &str| {
            let service: Service = serde_json::from_str(&format!(r#"{{"build": {build}}}"#)).unwrap();
            pack(&engine, "p", "web", &service)
        };
        let more = r#"{"a": "github.com/a/b", "b": "service:db", "c": "docker-image://box"}"#;
        let there =
            packed(&format!(r#"{{"context": "github.com/a/b", "additional_contexts": {more}}}"#)).unwrap();
        assert!(there.context.is_none() && there.named.is_empty(), "{there:?}");
        for build in [
            r#"{"context": "-"}"#,
            r#"{"context": "github.com/a/b", "additional_contexts": {"a": "oci-layout://x"}}"#,
        ] {
            assert!(packed(build).unwrap_err().to_string().contains("does not go to another machine"));
        }
        // It has a directory beside its root, too.
        engine.down().unwrap();
    }
}
