//! Bugs planted on purpose: a checker that never failed proves nothing. Compiled only with the feature `mutants`; each is
//! an `if` at the place it is planted in, and none acts before it is chosen.

use std::sync::OnceLock;

static CHOSEN: OnceLock<String> = OnceLock::new();

/// The mutant of this process, for good.
pub fn choose(name: &str) {
    let _ = CHOSEN.set(name.to_owned());
}

pub fn is_chosen(name: &str) -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen == name)
}
