//! Whole pods on the hollow runtime.
