//! From a commit to running servers. Today it knows its names: the verbs that deploy are not there yet.

pub mod cli;
