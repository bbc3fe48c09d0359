//! A build's context as an image of one layer, so that it goes to another machine as images do: what is there already is
//! not sent, and a file that was changed goes as the difference.

use std::fs;
use std::path::Path;

use compose::model::{Build, Service};
use engine::Engine;
use engine::builder::{BuildRequest, DockerfileSource};
use engine::error::{Error, Result};
use engine::image::Image;

use crate::release::SentImage;

/// A build that another machine can do.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The image with the context; `None` when the context is an address.
    pub(crate) context: Option<SentImage>,
    /// How it is built, without anything of this machine.
    pub(crate) build: Build,
}

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
    refuse_what_stays(name, build)?;
    let mut build = build.clone();
    let context = build.context.clone().unwrap_or_default();
    if context.contains("://") || context.starts_with("git@") {
        return Ok(Packed { context: None, build });
    }
    let directory = Path::new(&context);
    let failed = |error| Error::failed(format!("service {name}: pack the context {context}"), error);
    let place = tempfile::tempdir().map_err(failed)?;
    let instructions = place.path().join("Dockerfile");
    fs::write(&instructions, PACK).map_err(failed)?;
    if build.dockerfile_inline.is_none() {
        let file = directory.join(build.dockerfile.take().unwrap_or_else(|| "Dockerfile".to_owned()));
        let text = fs::read_to_string(&file)
            .map_err(|error| Error::failed(format!("service {name}: read {}", file.display()), error))?;
        build.dockerfile_inline = Some(text);
        // What a Dockerfile leaves out by a list of its own is left out here; there, nothing more is.
        let mut ignore = file.into_os_string();
        ignore.push(".dockerignore");
        if let Ok(list) = fs::read_to_string(ignore) {
            fs::write(place.path().join("Dockerfile.dockerignore"), list + "\n.dockerignore\n")
                .map_err(failed)?;
        }
    }
    let reference = format!("rdeploy/context:{project}-{name}");
    let mut request = BuildRequest::of(directory);
    request.dockerfile = DockerfileSource::File(instructions);
    request.labels.insert(LABEL.to_owned(), project.to_owned());
    let tag =
        reference.parse().map_err(|error| Error::invalid(format!("image {reference}")).with_source(error))?;
    request.tags = vec![tag];
    let made = engine.build(&request, &mut |_| {});
    let made =
        made.map_err(|error| Error::failed(format!("service {name}: pack the context {context}"), error))?;
    let image = made.first().ok_or_else(|| Error::conflict("the context became no image"))?;
    build.context = None;
    Ok(Packed { context: Some(SentImage { name: reference, id: image.id.to_string() }), build })
}

/// Forgets contexts of a project that newer ones have replaced.
pub(crate) fn forget_old(engine: &Engine, project: &str) -> Result<()> {
    let is_old = |image: &Image| {
        image.references.is_empty() && image.config.config.labels.get(LABEL).is_some_and(|of| of == project)
    };
    for image in engine.images().list()?.iter().filter(|image| is_old(image)) {
        engine.images().remove(image.id.as_str(), false, &Default::default())?;
    }
    Ok(())
}

/// What is on this machine alone and must not or cannot go along.
fn refuse_what_stays(name: &str, build: &Build) -> Result<()> {
    let is_here = |context: &String| !context.contains("://") && !context.starts_with("service:");
    let what = if !build.secrets.is_empty() {
        "secrets"
    } else if !build.ssh.is_empty() {
        "ssh"
    } else if build.additional_contexts.values().any(is_here) {
        "additional_contexts of this machine"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("service {name}: build.{what} do not go to another machine that builds"))
        .with_hint("build it here: `builder: here`"))
}
