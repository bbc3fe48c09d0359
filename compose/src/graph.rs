//! The order services depend on each other in. Pure; who waits for what is the plan's affair.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction;
use petgraph::graphmap::DiGraphMap;

use crate::desired::Desired;

/// Services that depend on each other in a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dependency cycle detected: {}", .0.join(" -> "))]
pub struct Cycle(pub Vec<String>);

/// The services asked for and all they depend on; every service when none is asked for.
pub fn with_dependencies(desired: &Desired, asked: &[String]) -> BTreeSet<String> {
    let mut scope = BTreeSet::new();
    let mut open: Vec<&String> =
        if asked.is_empty() { desired.services.keys().collect() } else { asked.iter().collect() };
    while let Some(name) = open.pop() {
        let Some(service) = desired.services.get(name) else { continue };
        if scope.insert(name.clone()) {
            open.extend(service.depends_on.keys().chain(&service.shares));
        }
    }
    scope
}

/// All services, dependencies first, those of one rank in alphabetical order. Each edge is looked at once.
pub fn order(desired: &Desired) -> Result<Vec<String>, Cycle> {
    let graph = edges(desired);
    let mut missing: BTreeMap<&str, usize> =
        graph.nodes().map(|name| (name, graph.neighbors(name).count())).collect();
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    let mut order = Vec::new();
    let mut rank: BTreeSet<&str> =
        missing.iter().filter(|(_, missing)| **missing == 0).map(|(name, _)| *name).collect();
    while !rank.is_empty() {
        let mut next = BTreeSet::new();
        for name in rank {
            placed.insert(name);
            order.push(name.to_owned());
            for dependent in graph.neighbors_directed(name, Direction::Incoming) {
                if let Some(missing) = missing.get_mut(dependent) {
                    *missing -= 1;
                    if *missing == 0 {
                        next.insert(dependent);
                    }
                }
            }
        }
        rank = next;
    }
    if order.len() < desired.services.len() { Err(ring(&graph, &placed)) } else { Ok(order) }
}

/// The services that depend on each one or share something of it.
pub fn dependents(desired: &Desired) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut dependents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, service) in &desired.services {
        for dependency in service.depends_on.keys().chain(&service.shares) {
            dependents.entry(dependency).or_default().insert(name);
        }
    }
    dependents
}

/// An edge leads from a service to one it depends on. Services that are not there have no edges.
fn edges(desired: &Desired) -> DiGraphMap<&str, ()> {
    let mut graph = DiGraphMap::new();
    for (name, service) in &desired.services {
        graph.add_node(name.as_str());
        for dependency in service.depends_on.keys().chain(&service.shares) {
            if desired.services.contains_key(dependency) {
                graph.add_edge(name.as_str(), dependency.as_str(), ());
            }
        }
    }
    graph
}

/// Follows edges among the services that could not be placed until one comes up again.
fn ring(graph: &DiGraphMap<&str, ()>, placed: &BTreeSet<&str>) -> Cycle {
    let mut path: Vec<&str> = Vec::new();
    let mut here = graph.nodes().find(|name| !placed.contains(name));
    while let Some(name) = here {
        if let Some(start) = path.iter().position(|seen| *seen == name) {
            path.drain(..start);
            path.push(name);
            break;
        }
        path.push(name);
        here = graph.neighbors(name).find(|next| !placed.contains(next));
    }
    Cycle(path.into_iter().map(str::to_owned).collect())
}
