//! Proof by breaking: faults and workloads against a real cluster ([`run`]), and a whole control plane simulated in virtual
//! time ([`sim`]), both judged by laws.
//!
//! Not here: how the cluster works. **Invariant:** a failing run prints its seed, and the faults of a run follow from the
//! seed alone.

mod random;
pub mod run;
pub mod sim;

pub use random::Random;

use std::time::Duration;

/// `60s`, `10m`.
///
/// # Errors
/// When it is written otherwise.
pub fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| "write for example 60s or 10m".to_owned())?;
    match &text[end..] {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err("write for example 60s or 10m".to_owned()),
    }
}
