//! The simulation as a test: fixed seeds in which every fault takes effect, that a seed means one thing, and that what is planted
//! on purpose is found.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use chaos::sim::{Report, faults};

/// Simulations at a time.
const JOBS: usize = 2;

/// Fixed runs: together they meet every fault, a store that fills up, five masters, and many nodes.
const RUNS: &[&str] = &[
    "--seed 1874 --duration 20s --pace 1",
    "--seed 19 --duration 20s --pace 1",
    "--seed 1471 --duration 20s --pace 1",
    "--seed 1817 --duration 20s --pace 1",
    "--seed 1124 --duration 20s --pace 1",
    "--seed 203 --duration 20s --pace 1",
    "--seed 3 --duration 20s --pace 1",
    "--seed 3248 --duration 6s --pace 1",
    "--seed 1 --duration 20s --pace 1 --nodes 0",
    "--seed 1 --duration 10s --pace 1 --nodes 1 --masters 5",
    "--seed 1 --duration 4s --pace 1 --nodes 24",
];
/// Short, and yet with a machine that loses power, a change of members and a fault of a node.
const TRACED: &str = "--seed 3248 --duration 6s --pace 1";

fn chaos<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chaos")).args(arguments).output().expect("chaos runs")
}

/// One simulation, which keeps every law.
#[track_caller]
fn holds(run: &str, more: &[&str]) -> Report {
    let output = chaos(["sim", "--alone"].into_iter().chain(run.split(' ')).chain(more.iter().copied()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{run}: {error}\n{out}\n{err}"));
    assert!(report.broken.is_empty(), "{run}: {:?}", report.broken);
    report
}

/// The names of the faults that did anything.
fn effective(report: &Report) -> BTreeSet<&str> {
    report.effective.iter().filter_map(|fault| Some(fault.split_once(':')?.1)).collect()
}

#[test]
fn fixed_seeds_keep_every_law_and_meet_every_fault() {
    let next = AtomicUsize::new(0);
    let some = || -> Vec<Report> {
        let runs = std::iter::from_fn(|| RUNS.get(next.fetch_add(1, Ordering::Relaxed)));
        runs.map(|run| holds(run, &[])).collect()
    };
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..JOBS).map(|_| scope.spawn(some)).collect();
        jobs.into_iter().flat_map(|job| job.join().expect("a run keeps every law")).collect()
    });
    let met: BTreeSet<&str> = reports.iter().flat_map(effective).collect();
    let unmet: Vec<&str> = faults::ALL.iter().map(|fault| fault.name).filter(|name| !met.contains(name)).collect();
    assert!(unmet.is_empty(), "these faults take effect in none of the runs: {unmet:?}");
    assert!(reports.iter().any(|report| report.over_quota > 0), "some store fills up");
}

fn traced(run: &str, to: &Path) -> (Vec<u8>, Report) {
    let to = to.join("trace");
    let report = holds(run, &["--trace", to.to_str().expect("text")]);
    (std::fs::read(to).expect("a trace"), report)
}

#[test]
fn a_seed_gives_the_same_trace_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (first, report) = traced(TRACED, dir.path());
    let met = effective(&report);
    for one_of in [
        &["power", "power-all", "power-at", "reseed"][..],
        &["replace", "relieve", "damaged-log", "damaged-state"],
        &["kubelet", "machine", "cut-node", "engine", "container"],
    ] {
        assert!(one_of.iter().any(|fault| met.contains(fault)), "none of {one_of:?} among {met:?}");
    }
    let text = String::from_utf8_lossy(&first);
    assert!(text.lines().any(|line| line.contains("configmaps/k1 Swap") && line.contains(": Done(")), "the API writes");
    assert!(first == traced(TRACED, dir.path()).0, "two traces of one seed");
    let other = TRACED.replace("--seed 3248", "--seed 3249");
    assert!(first != traced(&other, dir.path()).0, "another seed is another story");
}

/// All of them, each with the seed that is written down for it, which breaks no law without the bug.
/// A checker that never failed proves nothing.
#[test]
fn planted_bugs_are_caught() {
    let output = chaos("mutants --seeds 1 --jobs 2".split(' '));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
}
