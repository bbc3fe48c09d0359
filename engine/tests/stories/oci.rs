//! Bundles by the OCI runtime interface, and the same bundles under runc.

mod containerd;
mod life;
mod listener;
mod peer;
mod process;
mod shelf;
