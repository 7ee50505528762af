//! The simulation as a test: a fixed set of seeds, that a seed means one thing, and that what is planted on purpose is found.

use std::path::Path;
use std::process::{Command, Output};

fn chaos(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chaos")).args(arguments).output().expect("chaos runs")
}

#[track_caller]
fn succeeds(arguments: &[&str]) {
    let output = chaos(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
}

#[track_caller]
fn holds(arguments: &[&str]) {
    succeeds(&[&["sim"], arguments].concat());
}

fn trace(seed: &str, to: &Path) -> Vec<u8> {
    let to = to.join("trace");
    holds(&["--seed", seed, "--duration", "6s", "--trace", to.to_str().expect("text")]);
    std::fs::read(to).expect("a trace")
}

#[test]
fn a_seed_gives_the_same_trace_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = trace("7", dir.path());
    assert!(first.len() > 1_000, "something happens: {}", first.len());
    assert!(first == trace("7", dir.path()), "two traces of one seed");
    assert!(first != trace("8", dir.path()), "another seed is another story");
}

#[test]
fn three_masters_keep_every_law() {
    holds(&["--seed", "1", "--seeds", "3", "--duration", "12s"]);
}

#[test]
fn the_store_alone_keeps_every_law() {
    holds(&["--seed", "1", "--seeds", "2", "--nodes", "0", "--duration", "20s"]);
}

#[test]
fn five_masters_keep_every_law() {
    holds(&["--seed", "1", "--seeds", "1", "--masters", "5", "--nodes", "1", "--duration", "10s"]);
}

/// All of them, each with the seed that is written down for it, which breaks no law without the bug.
/// A checker that never failed proves nothing.
#[test]
fn planted_bugs_are_caught() {
    succeeds(&["mutants", "--seeds", "1", "--jobs", "2"]);
}
