//! Images that are built on this machine for a client, from contexts that have come as images.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use compose::load::{LoadOptions, load};
use compose::runtime::Flags;
use engine::Engine;
use engine::error::{Error, Result};
use engine::id::ImageId;
use serde_json::Value;

use super::{Tell, opened};
use crate::build;
use crate::context;
use crate::message::{BuildOrder, Event};
use crate::release::SentImage;

/// Builds what is ordered. The images, by service.
pub(crate) fn build(engine: &Engine, order: &BuildOrder, tell: &Tell) -> Result<BTreeMap<String, SentImage>> {
    // No context goes while it is read.
    let _hold = engine.layers().hold().map_err(|error| Error::failed("keep the contexts", error))?;
    let options = LoadOptions {
        files: vec![PathBuf::from("-")],
        stdin: Some(with_contexts(engine, order)?),
        project_directory: Some(engine.root().state().to_owned()),
        project_name: Some(order.project.clone()),
        // The user's environment was put in where the order was made.
        env_files: vec![PathBuf::from("/dev/null")],
        ..LoadOptions::default()
    };
    let project = load(&options)
        .map_err(|diagnostics| {
            Error::invalid(format!("what is to be built cannot be loaded: {diagnostics}"))
        })?
        .project;
    let flags = Flags { logins: opened::logins(&order.credentials), ..Flags::default() };
    let (lines, said) = mpsc::channel();
    let images = thread::scope(|scope| {
        let building = scope.spawn(|| build::with(engine, &project, &[], flags, lines));
        said.iter().for_each(|line| tell(Event::Remark(line)));
        building.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    context::forget_old(engine, &order.project)?;
    Ok(images)
}

/// The model with the place of each context on this machine. An image of a context has one layer, which is a directory.
fn with_contexts(engine: &Engine, order: &BuildOrder) -> Result<String> {
    let mut model: Value = serde_json::from_str(&order.model)
        .map_err(|error| Error::failed("read what is to be built", error))?;
    for (service, id) in &order.contexts {
        let id: ImageId =
            id.parse().map_err(|error| Error::invalid(format!("context {id:?}")).with_source(error))?;
        let image = engine.images().get(id.as_str())?;
        let [layer] = image.config.rootfs.diff_ids.as_slice() else {
            return Err(Error::invalid(format!("the context of service {service} is not one layer")));
        };
        let directory = engine.layers().dir(layer).to_string_lossy().into_owned();
        if let Some(build) = model.pointer_mut(&format!("/services/{service}/build")) {
            build["context"] = Value::String(directory);
        }
    }
    Ok(model.to_string())
}
