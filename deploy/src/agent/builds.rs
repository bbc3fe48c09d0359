//! Images that are built on this machine for a client, from contexts that have come as images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use compose::load::{LoadOptions, load};
use compose::runtime::Flags;
use engine::Engine;
use engine::error::{Error, Result};
use engine::id::ImageId;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};

use super::places::Places;
use super::{Tell, brought, opened};
use crate::build;
use crate::context;
use crate::message::{BuildOrder, Event};
use crate::protocol::Channel;
use crate::release::SentImage;

/// The secrets of a build, by name, in memory that has no name in any file system: nothing of them outlives this process.
pub(crate) type Secrets = BTreeMap<String, File>;

/// Takes the bytes of secrets from the channel.
pub(crate) fn take_secrets(channel: &mut Channel, secrets: &[(String, u64)]) -> Result<Secrets> {
    let mut taken = Secrets::new();
    for (name, size) in secrets {
        let failed = |error| Error::failed(format!("keep the secret {name}"), error);
        let memory = memfd_create("secret", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let mut memory = File::from(memory);
        let mut left = *size;
        while left > 0 {
            let bytes = channel
                .receive_data()
                .map_err(|error| Error::failed(format!("receive the secret {name}"), error))?;
            left = left.saturating_sub(bytes.len() as u64);
            memory.write_all(&bytes).map_err(failed)?;
        }
        taken.insert(name.clone(), memory);
    }
    Ok(taken)
}

/// Builds what is ordered. The images, by service. On a host of the project, they go with it.
pub(crate) fn build(
    engine: &Engine,
    places: Option<&Places>,
    order: &BuildOrder,
    secrets: &Secrets,
    tell: &Tell,
) -> Result<BTreeMap<String, SentImage>> {
    // No context goes while it is read.
    let _hold = engine.layers().hold().map_err(|error| Error::failed("keep the contexts", error))?;
    let options = LoadOptions {
        files: vec![PathBuf::from("-")],
        stdin: Some(with_places(engine, order, secrets)?),
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
    if let Some(places) = places {
        let names = project.services.keys().map(|service| build::image_name(&project, service));
        brought::expect(engine, places, names.filter_map(|name| name.parse().ok()))?;
    }
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

/// The model with the place of each context and secret on this machine.
fn with_places(engine: &Engine, order: &BuildOrder, secrets: &Secrets) -> Result<String> {
    let mut model: Value = serde_json::from_str(&order.model)
        .map_err(|error| Error::failed("read what is to be built", error))?;
    for (service, id) in &order.contexts {
        if let Some(build) = model.pointer_mut(&format!("/services/{service}/build")) {
            build["context"] = directory(engine, service, id)?.into();
        }
    }
    for (service, named) in &order.named {
        for (name, id) in named {
            if let Some(build) = model.pointer_mut(&format!("/services/{service}/build")) {
                build["additional_contexts"][name] = directory(engine, service, id)?.into();
            }
        }
    }
    for (name, memory) in secrets {
        model["secrets"][name] = json!({ "file": format!("/proc/self/fd/{}", memory.as_raw_fd()) });
    }
    Ok(model.to_string())
}

/// Where the files of a context are. Its image has one layer, which is a directory.
fn directory(engine: &Engine, service: &str, id: &str) -> Result<String> {
    let id: ImageId =
        id.parse().map_err(|error| Error::invalid(format!("context {id:?}")).with_source(error))?;
    let image = engine.images().get(id.as_str())?;
    let [layer] = image.config.rootfs.diff_ids.as_slice() else {
        return Err(Error::invalid(format!("a context of service {service} is not one layer")));
    };
    Ok(engine.layers().dir(layer).to_string_lossy().into_owned())
}
