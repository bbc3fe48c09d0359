//! What a deployment needs, on its way to the hosts: files that containers mount, and images, over the connection or by
//! way of a registry.

use std::collections::{BTreeMap, BTreeSet};

use compose::Project;
use engine::Engine;
use engine::error::{Error, Kind, Result};
use engine::image::{PushOptions, Reference, kept_login};
use engine::quantity::ByteSize;

use super::{Deployment, Task};
use crate::fleet::Fleet;
use crate::host::Host;
use crate::message::{Event, KeptFile, RegistryLogin, Request};
use crate::pace::Pace;
use crate::project::Parcel;
use crate::release::SentImage;
use crate::settings::Transfer;
use crate::transfer::{self, Progress};

impl Deployment<'_> {
    /// Sends every image to the registry that its name says; the hosts fetch it from there. They do so by a name that
    /// never means anything else; those that the project has for it are for whoever else wants the image.
    fn push(&self, images: &BTreeMap<String, SentImage>) -> Result<()> {
        let engine = Engine::open(self.root.as_deref())?;
        let names: BTreeMap<&String, &String> =
            images.values().map(|image| (&image.name, &image.id)).collect();
        for (name, id) in names {
            engine.images().tag(id, &reference(name)?)?;
        }
        let built = images.keys().filter_map(|service| self.project.services.get(service));
        let own = built
            .filter_map(|service| Some((service.image.as_ref()?, &service.build.as_ref()?.tags)))
            .flat_map(|(image, tags)| std::iter::once(image).chain(tags));
        let all: BTreeSet<&String> = images.values().map(|image| &image.name).chain(own).collect();
        for name in all {
            let reference = reference(name)?;
            let pace = Pace::default();
            let progress = |progress| {
                if let Some(text) = pace.remark_on_layer(name, &progress) {
                    (self.told)("", Event::Remark(format!("pushing {name}: {text}")));
                }
            };
            engine.images().push(&reference, &PushOptions::default(), &progress).map_err(|error| {
                let error = Error::from(error);
                let hint = match error.kind() {
                    Kind::Denied => Some(format!(
                        "RDEPLOY_REGISTRY_USERNAME and RDEPLOY_REGISTRY_PASSWORD with --registry {}, or `rengine login {0}`; the repository may \
                         also not exist, or be somebody else's",
                        reference.registry()
                    )),
                    _ => error.hint().map(str::to_owned),
                };
                Error::failed(format!("push {name}"), error).with_hint_if(hint)
            })?;
            (self.told)("", Event::Remark(format!("{name} pushed")));
        }
        Ok(())
    }

    pub(super) fn send(
        &self,
        fleet: &mut Fleet<Task>,
        images: &BTreeMap<String, SentImage>,
        parcels: &[Parcel],
    ) -> Result<()> {
        if self.settings.transfer == Transfer::Registry {
            self.push(images)?;
        }
        let by_name: BTreeMap<String, &Parcel> =
            fleet.names().into_iter().map(str::to_owned).zip(parcels).collect();
        let project = &self.project.name;
        fleet.each(|host, task| {
            let before = host.sent();
            if let Some(parcel) = by_name.get(host.name()).filter(|parcel| !parcel.files.is_empty()) {
                send_files(host, project, parcel)?;
            }
            let here = task.rollout.as_ref().map(|rollout| &rollout.release.images);
            let wanted: BTreeMap<&String, &SentImage> = images
                .iter()
                .filter(|(service, image)| here.is_some_and(|here| here.get(*service) == Some(*image)))
                .collect();
            if !wanted.is_empty() && self.settings.transfer == Transfer::Direct {
                let engine = Engine::open(self.root.as_deref())?;
                send_images(&engine, host, wanted.into_values(), self.told)?;
            }
            task.sent += host.sent() - before;
            Ok(())
        })?;
        Ok(())
    }
}

fn reference(name: &str) -> Result<Reference> {
    name.parse().map_err(|error| Error::invalid(format!("image {name:?}")).with_source(error))
}

fn send_files(host: &mut Host, project: &str, parcel: &Parcel) -> Result<()> {
    let files: Vec<KeptFile> = parcel.files.iter().map(|piece| piece.file.clone()).collect();
    host.say(&Request::KeepFiles { project: project.to_owned(), files })?;
    let name = host.name().to_owned();
    let failed = |error| Error::failed(format!("host {name}: send files"), error);
    for piece in &parcel.files {
        for bytes in piece.bytes.chunks(crate::protocol::LONGEST) {
            host.channel().send_data(bytes).map_err(failed)?;
        }
    }
    host.channel().flush().map_err(failed)?;
    host.answer(&|_| {}).map(drop)
}

pub(super) fn send_images<'a>(
    engine: &Engine,
    host: &mut Host,
    images: impl Iterator<Item = &'a SentImage>,
    told: &(dyn Fn(&str, Event) + Sync),
) -> Result<()> {
    let images: Vec<SentImage> = images.cloned().collect();
    let names = images.iter().map(|image| reference(&image.name)).collect::<Result<_>>()?;
    host.say(&Request::ReceiveImages { names })?;
    let name = host.name().to_owned();
    let pace = Pace::default();
    let progress = |progress| {
        if let Progress::Sending { done, of } = progress
            && let Some(text) = pace.remark("", "", done, of)
        {
            told(&name, Event::Remark(format!("sending images: {text}")));
        }
    };
    let sent = transfer::send_named(host.channel(), engine, &images, &progress);
    let answered = host.answer(&|_| {});
    let sent = sent?;
    answered?;
    let layers: usize = sent.images.iter().map(|image| image.layers_sent).sum();
    if layers > 0 {
        let size = ByteSize(sent.bytes_out);
        let noun = if layers == 1 { "layer" } else { "layers" };
        told(&name, Event::Remark(format!("{layers} {noun} sent in {size}")));
    }
    Ok(())
}

/// What the hosts need to say to the registries of images that they fetch themselves.
pub(super) fn credentials(
    project: &Project,
    images: &BTreeMap<String, SentImage>,
) -> Result<BTreeMap<String, RegistryLogin>> {
    let mut all = BTreeMap::new();
    let named = project.services.values().filter_map(|service| service.image.as_ref());
    for image in named.chain(images.values().map(|image| &image.name)) {
        let Ok(reference) = image.parse::<Reference>() else { continue };
        let registry = reference.registry().to_owned();
        let login = kept_login(&registry, reference.repository())
            .map_err(|error| Error::failed(format!("find the login of {registry}"), error))?;
        if let Some(login) = login {
            all.insert(registry, RegistryLogin { username: login.username, password: login.password });
        }
    }
    Ok(all)
}
