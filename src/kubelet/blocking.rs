//! Calls that block, off the threads of async code. Where there is one thread only, as in a simulation, they are made in place:
//! nothing else could run meanwhile anyway, and the order of everything stays its own.

use tokio::runtime::{Handle, RuntimeFlavor};

/// # Errors
/// When the call panicked.
pub async fn call<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, tokio::task::JoinError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(call());
    }
    tokio::task::spawn_blocking(call).await
}
