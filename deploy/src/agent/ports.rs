//! Who is in the way of a release's published ports, known before anything changes.

use compose::Project;
use compose::model::Service;
use compose::observe::Observed;
use engine::Engine;
use engine::container::spec::{ContainerPort, NetworkMode, PortBinding};
use engine::error::{Error, Kind, Result};
use engine::id::ContainerId;

/// The option of a network that says on which address of the host it publishes.
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

/// Expects that the ports of these services, of all when none is named, are free but for the project's own containers.
///
/// # Errors
/// When a program of the host or another project's container has one, naming it.
pub(crate) fn expect_free(
    engine: &Engine,
    project: &Project,
    services: &[String],
    observed: &Observed,
) -> Result<()> {
    let own: Vec<ContainerId> = observed.containers.iter().map(|container| container.id.clone()).collect();
    let concerned =
        project.services.values().filter(|service| services.is_empty() || services.contains(&service.name));
    let shares_host = |id: &ContainerId| {
        engine.container(id.as_str()).is_ok_and(|it| it.record.spec.network == NetworkMode::Host)
    };
    // What the project's own program in the host's network listens on, nobody can tell from what others do.
    if own.iter().any(shares_host) {
        return Ok(());
    }
    for service in concerned.filter(|service| publishes(project, service)) {
        engine.networks().expect_free(&bindings(project, service), &own).map_err(|error| {
            Error::new(Kind::Conflict, format!("service {}", service.name)).with_source(error).with_hint(
                "stop what has the port on that host, or publish another one: `ports: [\"8080:80\"]`",
            )
        })?;
    }
    Ok(())
}

/// Whether the service will have containers that the host leads to, over IPv4.
fn publishes(project: &Project, service: &Service) -> bool {
    let leads_there = |key: &String| {
        project.networks.get(key).is_none_or(|network| {
            !network.internal
                && network.enable_ipv4 != Some(false)
                && network.driver.as_deref().is_none_or(|driver| driver == "bridge")
        })
    };
    service.network_mode.is_none() && service.replicas() > 0 && service.networks.keys().any(leads_there)
}

/// The ports of a service that are certain: a network may say on which address those without one are.
fn bindings(project: &Project, service: &Service) -> Vec<PortBinding> {
    let says_where = project.networks.values().any(|network| network.driver_opts.contains_key(HOST_BINDING));
    let binding = |port: &compose::model::Port| {
        let host_ip = match port.host_ip.as_deref().filter(|address| !address.is_empty()) {
            None if says_where => return None,
            None => None,
            Some(text) => Some(text.parse().ok()?),
        };
        Some(PortBinding {
            host_ip,
            host_port: port.published_range(),
            container: ContainerPort { port: port.target, protocol: port.protocol },
        })
    };
    service.ports.iter().filter_map(binding).collect()
}
