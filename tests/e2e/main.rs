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

/// One test at a time: all share this machine's engine, and each judges what the others' clusters would disturb, from the ranges of
/// pods to how long a start takes.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ENGINE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
