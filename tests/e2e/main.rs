//! Real containers on the Docker engine of this machine, driven by real kubectl binaries, as users do.

mod certificates;
mod disasters;
mod failures;
mod machine;
mod machines;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
mod web;
