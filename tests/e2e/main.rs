//! Real containers on the Docker engine of this machine, driven by real kubectl binaries, as users do.

mod failures;
#[path = "../support/mod.rs"]
mod support;
mod web;
