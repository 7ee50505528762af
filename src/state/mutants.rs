//! Bugs planted on purpose: a checker that never failed proves nothing. Each is an `if` at the place it is planted in, and none
//! acts before it is chosen, which only `chaos` does.
//!
//! **Invariant:** a release build has none: there [`is_chosen`] is a constant, and the compiler drops what it guards. Builds for
//! development and tests have them all, so that no second build is needed to see them caught; the feature `mutants` puts them
//! into an optimized one.

#[cfg(any(debug_assertions, feature = "mutants"))]
mod planted {
    use std::sync::OnceLock;

    pub const ARE_PLANTED: bool = true;

    static CHOSEN: OnceLock<String> = OnceLock::new();

    /// Plants one in this process, for good. False where a build has none.
    pub fn choose(name: &str) -> bool {
        CHOSEN.set(name.to_owned()).is_ok()
    }

    pub fn is_chosen(name: &str) -> bool {
        CHOSEN.get().is_some_and(|chosen| chosen == name)
    }
}

#[cfg(not(any(debug_assertions, feature = "mutants")))]
mod planted {
    pub const ARE_PLANTED: bool = false;

    /// Plants one in this process, for good. False where a build has none.
    pub fn choose(_: &str) -> bool {
        false
    }

    #[inline(always)]
    pub fn is_chosen(_: &str) -> bool {
        false
    }
}

pub use planted::{ARE_PLANTED, choose, is_chosen};

impl crate::State {
    /// A revision that nothing present was made by is free again, as it would be if the counter were not stored.
    pub(crate) fn forget_last_deletions(&mut self) {
        while self.events.get(&self.revision).is_some_and(|event| event.new.is_none()) {
            self.events.remove(&self.revision);
            self.revision -= 1;
        }
    }
}
