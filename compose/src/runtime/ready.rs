//! When a container counts as ready to serve.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use engine::Engine;
use engine::container::spec::{ContainerPort, NetworkMode, Protocol};
use engine::container::state::{HealthStatus, State};
use engine::engine::Container;
use engine::error::{Error, Result};
use engine::id::ContainerId;
use engine::network::Endpoint;
use engine::quantity::Span;
use jiff::Timestamp;

use super::listeners;
use crate::names;

/// How long a container without a health check may take until it listens.
const LISTENING: Duration = Duration::from_secs(60);

/// How long a container without a health check has to run until it counts as up.
const SETTLING: Duration = Duration::from_millis(500);

/// How often a container may be started again until then: ten seconds and more, at the pace of restarts.
const TRIES: u32 = 7;

/// How often a container that is watched is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// How long one try to connect may take.
const TRY: Duration = Duration::from_secs(1);

/// Waits until a container can serve: healthy where it has a health check, listening on what it publishes otherwise. For
/// so long at most; when that is `None`, as its health check says, or 60 s.
///
/// # Errors
/// When it ends, gets unhealthy, or takes too long.
pub fn wait(engine: &Engine, id: &ContainerId, limit: Option<Duration>) -> Result<()> {
    let container = engine.container(id.as_str())?;
    if container.record.spec.healthcheck.is_some() {
        return engine.wait_healthy(id, limit);
    }
    listening(engine, id, limit)
}

/// Waits until a container without a health check accepts connections to every TCP port that it publishes, or has run for a
/// while when there is none: a program that cannot start mostly ends at once. The kernel tells nobody when a program in
/// another network namespace begins to listen, so it is tried.
pub(super) fn listening(engine: &Engine, id: &ContainerId, limit: Option<Duration>) -> Result<()> {
    let limit = limit.unwrap_or(LISTENING);
    let container = plugged(engine, id)?;
    let spec = &container.record.spec;
    if spec.healthcheck.is_some() {
        return Ok(());
    }
    let reached = container.endpoints.iter().find(|endpoint| endpoint.is_reached_by_host());
    let published = spec.ports.iter().map(|port| port.container);
    let ports: Vec<ContainerPort> = published.filter(|port| port.protocol == Protocol::Tcp).collect();
    let Some(address) = reached.and_then(Endpoint::ipv4).filter(|_| !ports.is_empty()) else {
        return settled(engine, id);
    };
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    for port in ports {
        while TcpStream::connect_timeout(&SocketAddr::new(address, port.port), TRY.min(limit)).is_err() {
            if began.elapsed() >= limit {
                return Err(deaf(&container, &port, limit));
            }
            running(&engine.container(id.as_str())?)?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// A container that does not listen on a port, with where it listens instead.
fn deaf(container: &Container, port: &ContainerPort, limit: Duration) -> Error {
    let listeners = match &container.state {
        State::Running(running) => listeners::of(running.pid),
        _ => Vec::new(),
    };
    Error::conflict(format!(
        "container {} does not listen on {port} {} after its start: {}",
        called(container),
        Span(limit),
        listeners::described(&listeners)
    ))
}

/// A container with its networks. One that runs without them is about to end: they go before that is on record.
fn plugged(engine: &Engine, id: &ContainerId) -> Result<Container> {
    let began = Instant::now();
    loop {
        let container = engine.container(id.as_str())?;
        running(&container)?;
        let is_apart = container.state.is_running()
            && container.endpoints.is_empty()
            && matches!(&container.record.spec.network, NetworkMode::Bridge(all) if !all.is_empty());
        if !is_apart || began.elapsed() > TRY {
            return Ok(container);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a container without a health check has run for a while, or ended well. One that its policy starts
/// again gets several tries: what it needs may come up meanwhile.
pub(super) fn settled(engine: &Engine, id: &ContainerId) -> Result<()> {
    let mut seen: Option<(u32, Instant)> = None;
    loop {
        let container = engine.container(id.as_str())?;
        match &container.state {
            State::Running(running) if !running.paused => {
                let since = match seen {
                    Some((restarts, since)) if restarts == running.restarts => since,
                    _ => seen.insert((running.restarts, Instant::now())).1,
                };
                let ran = Timestamp::now().duration_since(running.started).unsigned_abs();
                let left = SETTLING.saturating_sub(ran.max(since.elapsed()));
                if left.is_zero() {
                    return Ok(());
                }
                std::thread::sleep(left.min(GLANCE));
            }
            State::Restarting(exited) if exited.restarts < TRIES => std::thread::sleep(GLANCE),
            _ => return running(&container),
        }
    }
}

/// Sees that a container which is ready does not fail for so long: it neither ends, unless well and for good, nor is
/// started again, nor gets unhealthy.
pub(super) fn steady(engine: &Engine, id: &ContainerId, time: Duration) -> Result<()> {
    let began = Instant::now();
    let container = engine.container(id.as_str())?;
    running(&container)?;
    let State::Running(first) = container.state else { return Ok(()) };
    loop {
        let left = time.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(GLANCE));
        let container = engine.container(id.as_str())?;
        if let Some(trouble) = trouble(&container, first.restarts) {
            return Err(Error::conflict(format!("container {} {trouble}", called(&container))));
        }
    }
}

/// What is wrong with a container that ran and had been started again so many times.
fn trouble(container: &Container, restarts: u32) -> Option<String> {
    match &container.state {
        State::Running(running) if running.restarts > restarts => Some("was started again".to_owned()),
        State::Running(running) => match running.health.as_ref().map(|health| health.status) {
            Some(HealthStatus::Unhealthy) => Some("is unhealthy".to_owned()),
            _ => None,
        },
        State::Exited(exited) if exited.code == 0 => None,
        State::Exited(exited) | State::Restarting(exited) => Some(format!("ended with code {}", exited.code)),
        other => Some(format!("is {}", other.word())),
    }
}

/// Without a health check, ready is what runs, or ended well and is not meant to go on.
pub(super) fn running(container: &Container) -> Result<()> {
    match &container.state {
        State::Running(_) => Ok(()),
        State::Exited(exited) if exited.code == 0 => Ok(()),
        State::Exited(exited) | State::Restarting(exited) => {
            Err(Error::conflict(format!("container {} ended with code {}", called(container), exited.code)))
        }
        other => Err(Error::conflict(format!("container {} is {}", called(container), other.word()))),
    }
}

/// What people know a container by.
fn called(container: &Container) -> &str {
    names::lasting(container.name().as_str(), container.record.spec.held)
}
