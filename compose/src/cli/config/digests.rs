//! Images by their digests, so that two machines at two times run the same bytes.

use engine::Engine;
use engine::error::Error;
use engine::image::Reference;
use serde_json::{Map, Value as Json, json};

use crate::cli::failure::CliError;
use crate::model::Project;

/// Asks the registries what the images of all services are at the moment. A service that is only built has none.
pub(in crate::cli) fn resolve(engine: &Engine, project: &mut Project) -> Result<(), CliError> {
    for (name, service) in &mut project.services {
        let Some(image) = service.image.as_ref().filter(|image| !image.is_empty()) else { continue };
        let wrong = |error: Error| {
            Error::new(error.kind(), format!("service {name}: the digest of image {image}"))
                .with_source(error)
        };
        let reference: Reference = image
            .parse()
            .map_err(|error| wrong(Error::invalid(format!("image {image:?}")).with_source(error)))?;
        if reference.digest().is_some() {
            continue;
        }
        let manifest =
            engine.images().remote_manifest(&reference, &[]).map_err(|error| wrong(error.into()))?;
        service.image = Some(format!("{}@{}", reference.canonical(), manifest.digest));
    }
    Ok(())
}

/// Names the images of the model as it is written by their digests, too.
pub(in crate::cli) fn write_down(project: &Project, written: &mut Json) {
    for (name, service) in &project.services {
        let image = written.get_mut("services").and_then(|services| services.get_mut(name)?.get_mut("image"));
        if let (Some(image), Some(resolved)) = (image, &service.image) {
            *image = Json::from(resolved.clone());
        }
    }
}

/// A file to be given behind the others: images and nothing else.
pub(in crate::cli) fn lock_file(project: &Project, format: &str) -> String {
    let images: Map<String, Json> = project
        .services
        .iter()
        .filter_map(|(name, service)| Some((name.clone(), json!({ "image": service.image.as_ref()? }))))
        .collect();
    let file = json!({ "services": images });
    match format {
        "json" => format!("{file:#}\n"),
        _ => crate::yaml::write(&file),
    }
}
