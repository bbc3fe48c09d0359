//! The images of services: fetched, or built and attested.

use std::collections::BTreeSet;

use engine::builder::{AttestRequest, BuildEvent, Facts, ProvenanceRequest, wants_bill};
use engine::error::{Error, Result};
use engine::id::ImageId;
use engine::image::{Form, PullOptions, Reference};
use jiff::Timestamp;

use super::{Runtime, Telling};
use crate::build;

impl Runtime {
    pub(super) fn pull(&self, image: &str, service: &str, or_build: bool) -> Result<()> {
        let pulled = self.pull_image(image, service);
        match pulled {
            Err(error) if or_build => {
                let why = engine::error::chain(&error);
                (self.tell)(Telling::Warning(format!(
                    "image {image} is built, since it cannot be pulled: {why}"
                )));
                self.build(service)
            }
            other => other,
        }
    }

    pub(super) fn pull_image(&self, image: &str, service: &str) -> Result<()> {
        let reference: Reference =
            image.parse().map_err(|error| Error::invalid(format!("image {image:?}")).with_source(error))?;
        let platform = match self.project.platform(self.service(service)?) {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|error| Error::invalid(format!("platform {text:?}")).with_source(error))?,
            ),
        };
        let options = PullOptions { platform, logins: self.flags.logins.clone(), ..PullOptions::default() };
        let progress = |progress| {
            if !self.flags.quiet_pull {
                (self.tell)(Telling::Pull(image, progress));
            }
        };
        self.engine.images().pull(&reference, &options, &progress)?;
        Ok(())
    }

    pub(super) fn build(&self, service: &str) -> Result<()> {
        let definition = self.service(service)?;
        // It is there until the build is over.
        let fetched = match &definition.build {
            Some(build) => build::fetch(self.engine.root(), &self.project, build)?,
            None => build::Fetched::default(),
        };
        let flags = &self.flags.build;
        let request = build::request(&self.project, &self.desired, definition, flags, &fetched)?;
        let (began, mut materials) = (Timestamp::now(), BTreeSet::new());
        let mut plain = engine::builder::progress::Plain::default();
        let mut tell = |event| {
            if let BuildEvent::Material(material) = &event {
                materials.insert(material.clone());
            }
            let text = plain.text(&event);
            if !flags.quiet && !text.is_empty() {
                (self.tell)(Telling::Build(service, text.as_bytes()));
            }
        };
        if flags.check {
            return self.engine.check_dockerfile(&request, &mut tell);
        }
        let images = self.engine.build(&request, &mut tell)?;
        for image in &images {
            self.engine.images().shape(image, &Form::default(), &|_| {})?;
        }
        let name = self.desired.services.get(service).map_or(service, |service| service.image.name.as_str());
        let ids: Vec<ImageId> = images.iter().map(|image| image.id.clone()).collect();
        (self.tell)(Telling::Built(name, &ids));
        let said = definition.build.as_ref();
        let (provenance, sbom) =
            said.map_or((None, None), |it| (it.provenance.as_deref(), it.sbom.as_deref()));
        // What more is asked for was warned about.
        let asked = AttestRequest {
            provenance: provenance.and_then(|text| ProvenanceRequest::parse(text).ok().flatten()),
            sbom: sbom.is_some_and(|text| wants_bill(text).unwrap_or(false)),
        };
        if asked.is_empty() {
            return Ok(());
        }
        let facts = Facts { began, ended: Timestamp::now(), materials: materials.into_iter().collect() };
        for image in &images {
            let attested = asked.predicates(self.engine.root(), &request, &facts, image, &request.tags)?;
            self.engine.images().attest(image, &request.tags, &attested.predicates, false)?;
        }
        Ok(())
    }
}
