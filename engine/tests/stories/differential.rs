//! Random Dockerfiles, and what other programs make of them or of the images that come out.

mod dice;
mod dockerfile;
mod peer;
mod tree;
mod unpack;
