//! Networks on a real kernel. Each story plays on a host of its own: a fresh network namespace, which takes every
//! bridge, table and route with it when the story is over, however it ends.
#![expect(clippy::unwrap_used, reason = "test helpers")]

mod address;
mod departure;
mod dns;
mod host;
mod macvlan;
mod ports;
mod reach;
mod wall;
