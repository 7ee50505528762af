//! Counts the records and index entries that a thread has looked at, so that tests can say what a plan costs without
//! measuring time. Compiled with the feature `visits` only; without it nothing is counted.

/// How many this thread has looked at so far.
#[cfg(feature = "visits")]
pub fn count() -> u64 {
    VISITS.with(std::cell::Cell::get)
}

#[cfg(feature = "visits")]
thread_local! {
    static VISITS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// One more.
#[inline]
pub(crate) fn one() {
    #[cfg(feature = "visits")]
    VISITS.with(|visits| visits.set(visits.get() + 1));
}
