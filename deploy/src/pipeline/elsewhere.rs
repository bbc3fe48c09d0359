//! Builds on other machines: contexts go there, images come back, each as the difference to what is there already.

use std::collections::BTreeMap;
use std::path::PathBuf;

use compose::Project;
use compose::canonical;
use compose::model::Service;
use engine::Engine;
use engine::error::{Error, Result};
use engine::image::{Platform, Reference};

use super::delivery::{credentials, send_images};
use super::{Deployment, Task, on};
use crate::build;
use crate::builder::{Machine, platform_of};
use crate::context;
use crate::fleet::Fleet;
use crate::host::{Host, Lent};
use crate::message::{BuildOrder, Event, Outcome, Request, confused};
use crate::release::SentImage;
use crate::transfer;

impl Deployment<'_> {
    /// Builds each service on its machine, and has all images here afterwards.
    pub(super) fn build_elsewhere(&self, fleet: &mut Fleet<Task>) -> Result<BTreeMap<String, SentImage>> {
        let mut orders: BTreeMap<Machine, Vec<String>> = BTreeMap::new();
        for service in build::services(self.project, &self.services)? {
            orders.entry(self.machine(fleet, &service)?).or_default().push(service);
        }
        for (machine, services) in &orders {
            match machine {
                Machine::Here => {
                    let told = |line: &str| (self.told)("", Event::Remark(line.to_owned()));
                    build::start(self.root.as_deref(), self.project, services)?.finish(&told)?;
                }
                Machine::Host(number) => {
                    let member = fleet.members.get_mut(*number).ok_or_else(confused)?;
                    let before = member.host.sent();
                    self.build_on(&mut member.host, services)?;
                    member.task.sent += member.host.sent() - before;
                }
                Machine::At(address) => {
                    let mut host = (self.reach)(address)?;
                    self.expect_kind(&host, services)?;
                    self.build_on(&mut host, services)?;
                }
            }
        }
        build::known(self.root.as_deref(), self.project)
    }

    fn machine(&self, fleet: &Fleet<Task>, name: &str) -> Result<Machine> {
        let runs_it = |task: &Task| {
            task.services.as_ref().is_none_or(|services| services.iter().any(|service| service == name))
        };
        let hosts: Vec<(usize, Platform)> = fleet
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| runs_it(&member.task))
            .map(|(number, member)| (number, platform_of(&member.host.hello().architecture)))
            .collect();
        let wanted = self.wanted(name, &hosts)?;
        self.settings.builder.machine(name, wanted.as_ref(), &hosts)
    }

    /// The platform that a service asks for; of several, the one that the hosts are of.
    fn wanted(&self, name: &str, hosts: &[(usize, Platform)]) -> Result<Option<Platform>> {
        let Some(service) = self.project.services.get(name) else { return Ok(None) };
        let built_for = service.build.iter().flat_map(|build| &build.platforms);
        let all: Vec<Platform> = (self.project.platform(service).into_iter())
            .chain(built_for)
            .map(|text| {
                text.parse().map_err(|error| {
                    Error::invalid(format!("service {name}: platform {text:?}")).with_source(error)
                })
            })
            .collect::<Result<_>>()?;
        let of_hosts = all.iter().find(|wanted| hosts.iter().any(|(_, host)| wanted.rank(host).is_some()));
        Ok(of_hosts.or_else(|| all.first()).cloned())
    }

    /// A machine that is not what the settings say would build for another platform, and nobody would notice.
    fn expect_kind(&self, host: &Host, services: &[String]) -> Result<()> {
        let kind = platform_of(&host.hello().architecture);
        for service in services {
            if let Some(wanted) = self.wanted(service, &[(0, kind.clone())])?
                && wanted.rank(&kind).is_none()
            {
                return Err(Error::invalid(format!(
                    "the builder {} is {kind}, and service {service} is to be built for {wanted}",
                    host.name()
                ))
                .with_hint("name a machine of that kind under `builder:`"));
            }
        }
        Ok(())
    }

    fn build_on(&self, host: &mut Host, services: &[String]) -> Result<()> {
        let engine = Engine::open(self.root.as_deref())?;
        let name = host.name().to_owned();
        let Order { order, contexts, secrets, lent } = self.order(&engine, host, services)?;
        if !contexts.is_empty() {
            send_images(&engine, host, contexts.iter(), &|_, _| {}).map_err(|error| on(&name, error))?;
        }
        let told = |event| (self.told)(&name, event);
        host.say(&Request::Build(Box::new(order)))?;
        send_secrets(host, &secrets)?;
        let outcome = host.answer(&told).map_err(|error| on(&name, error))?;
        drop(lent);
        let Outcome::Built(built) = outcome else { return Err(confused()) };
        fetch(&engine, host, built.values().cloned().collect()).map_err(|error| on(&name, error))?;
        for service in services {
            self.name_here(&engine, service, &built)?;
        }
        context::forget_old(&engine, &self.project.name)
    }

    /// What is to be built, and the contexts that it takes.
    fn order(&self, engine: &Engine, host: &Host, services: &[String]) -> Result<Order> {
        let mut part = Project { name: self.project.name.clone(), ..Project::default() };
        let (mut contexts, mut named) = (BTreeMap::new(), BTreeMap::new());
        let mut all = Vec::new();
        let mut secrets = BTreeMap::new();
        let mut lent = Vec::new();
        for name in services {
            let Some(service) = self.project.services.get(name) else { continue };
            let packed = context::pack(engine, &self.project.name, name, service)?;
            if let Some(context) = packed.context {
                contexts.insert(name.clone(), context.id.clone());
                all.push(context);
            }
            let ids = packed.named.iter().map(|(name, image)| (name.clone(), image.id.clone()));
            named.insert(name.clone(), ids.collect());
            all.extend(packed.named.into_values());
            let mut build = packed.build;
            for reference in &build.secrets {
                secrets.insert(reference.source.clone(), self.secret(name, &reference.source)?);
            }
            for (id, socket) in &mut build.ssh {
                let door = host.lend(&self.agent(name, id, socket)?)?;
                *socket = door.there().to_owned();
                lent.push(door);
            }
            // Each machine builds for itself; which one that is was decided.
            build.platforms.clear();
            let bare = Service {
                name: name.clone(),
                image: service.image.clone(),
                build: Some(build),
                ..Service::default()
            };
            part.services.insert(name.clone(), bare);
        }
        let order = BuildOrder {
            project: self.project.name.clone(),
            model: canonical::to_json_text(&part),
            contexts,
            named,
            secrets: secrets.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect(),
            credentials: credentials(self.project, &BTreeMap::new())?,
        };
        Ok(Order { order, contexts: all, secrets: secrets.into_values().collect(), lent })
    }

    /// The socket of the SSH agent that a build asks: the one it names, or the user's own.
    fn agent(&self, service: &str, id: &str, socket: &str) -> Result<PathBuf> {
        if !socket.is_empty() {
            return Ok(self.project.working_dir.join(socket));
        }
        let own = self.project.environment.get("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        own.map(PathBuf::from).ok_or_else(|| {
            Error::invalid(format!("service {service}: build.ssh: {id}: SSH_AUTH_SOCK is not set")).with_hint(
                "start an agent with `eval $(ssh-agent)`, or name its socket: `ssh: [default=SOCKET]`",
            )
        })
    }

    /// What a secret of a build holds.
    fn secret(&self, service: &str, name: &str) -> Result<Vec<u8>> {
        let what = format!("service {service}: build.secrets: {name:?}");
        let object = self.project.secrets.get(name);
        let object = object.ok_or_else(|| Error::invalid(format!("{what} is not defined")))?;
        match (&object.file, &object.environment) {
            (Some(file), _) => {
                std::fs::read(file).map_err(|error| Error::failed(format!("{what}: read {file}"), error))
            }
            (None, Some(variable)) => {
                let value = self.project.environment.get(variable);
                let value = value.ok_or_else(|| Error::invalid(format!("{what}: {variable} is not set")))?;
                Ok(value.clone().into_bytes())
            }
            (None, None) => Err(Error::invalid(format!("{what} has no source on this machine"))),
        }
    }

    /// An image that came back has the name here that a build here would have given it.
    fn name_here(&self, engine: &Engine, service: &str, built: &BTreeMap<String, SentImage>) -> Result<()> {
        let Some(image) = built.get(service) else { return Err(confused()) };
        let name = build::image_name(self.project, service);
        let reference: Reference =
            name.parse().map_err(|error| Error::invalid(format!("image {name:?}")).with_source(error))?;
        Ok(engine.images().tag(&image.id, &reference)?)
    }
}

/// An order with what goes to the machine that builds.
struct Order {
    order: BuildOrder,
    /// The images with the contexts.
    contexts: Vec<SentImage>,
    /// The bytes of the secrets, in the order's order.
    secrets: Vec<Vec<u8>>,
    /// The SSH agents that the machine reaches as long as it builds.
    lent: Vec<Lent>,
}

/// Secrets go as data: they are in no message, and in no message's debug output.
fn send_secrets(host: &mut Host, secrets: &[Vec<u8>]) -> Result<()> {
    let name = host.name().to_owned();
    let failed = |error| Error::failed(format!("host {name}: send the secrets of a build"), error);
    for bytes in secrets.iter().flat_map(|secret| secret.chunks(crate::protocol::LONGEST)) {
        host.channel().send_data(bytes).map_err(failed)?;
    }
    host.channel().flush().map_err(failed)
}

/// Has a host send images, which are here then.
fn fetch(engine: &Engine, host: &mut Host, images: Vec<SentImage>) -> Result<()> {
    host.say(&Request::SendImages { images })?;
    let received = transfer::receive(host.channel(), engine).map_err(|error| {
        let hint = error.hint();
        Error::failed("fetch the images that were built", error).with_hint_if(hint)
    });
    let answered = host.answer(&|_| {});
    received?;
    answered.map(drop)
}
