//! Real processes: several workloads and nemeses on one machine, for a short while. Every law must hold, each must have had
//! something to judge, and the report must be there to read.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_short_run_keeps_every_law_and_tells_of_it() {
    let chaos = env!("CARGO_BIN_EXE_chaos");
    let hactl = std::path::Path::new(chaos).with_file_name("hactl");
    assert!(hactl.exists(), "{} is not built; test the whole workspace", hactl.display());
    let dir = tempfile::tempdir().expect("dir");
    let report = dir.path().join("report");
    let output = Command::new(chaos)
        .args(["run", "--scenario", "processes", "--duration", "20s", "--seed", "4", "--dir"])
        .arg(dir.path().join("cluster"))
        .arg("--report")
        .arg(&report)
        .output()
        .expect("chaos runs");
    // What is given with --dir is the user's, and stays.
    let down =
        Command::new(&hactl).args(["local", "down", "--delete", "--dir"]).arg(dir.path().join("cluster")).output();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(down.expect("hactl runs").status.success());

    let json: Value =
        serde_json::from_slice(&std::fs::read(report.join("report.json")).expect("report.json")).expect("JSON");
    let verdicts = json["verdicts"].as_array().expect("verdicts");
    let judged = |law: &str| {
        let found = verdicts.iter().find(|verdict| verdict["law"].as_str().is_some_and(|name| name.contains(law)));
        found.unwrap_or_else(|| panic!("{law} in {out}"))["checked"].as_u64().expect("a number")
    };
    for law in ["registers", "set", "lists", "counters", "lock", "followers", "revisions", "masters show"] {
        assert!(judged(law) > 0, "nothing to judge for {law}: {out}");
    }
    let faults = json["faults"].as_array().expect("faults");
    assert!(faults.len() >= 4, "{faults:?}");
    assert!(faults.iter().all(|fault| fault["ended"].is_u64()), "all are undone: {faults:?}");
    let page = std::fs::read_to_string(report.join("report.html")).expect("report.html");
    assert!(
        page.contains("Every law holds") && page.contains("<svg") && page.contains("leads in term"),
        "the page tells it"
    );
    let history = std::fs::read_to_string(report.join("history.jsonl")).expect("history.jsonl");
    assert!(history.lines().count() > 200, "clients were at work");
}

/// The observers, laws and exit code of a real run see what is wrong with a real cluster.
#[test]
fn a_bug_planted_in_real_masters_is_caught() {
    let chaos = env!("CARGO_BIN_EXE_chaos");
    let dir = tempfile::tempdir().expect("dir");
    let cluster = dir.path().join("cluster");
    let output = Command::new(chaos)
        .env("HACTL_MUTANT", "lost-event")
        .args(["run", "--scenario", "calm", "--duration", "10s", "--seed", "5", "--dir"])
        .arg(&cluster)
        .arg("--report")
        .arg(dir.path().join("report"))
        .output()
        .expect("chaos runs");
    let hactl = std::path::Path::new(chaos).with_file_name("hactl");
    let down = Command::new(hactl).args(["local", "down", "--delete", "--dir"]).arg(&cluster).output();
    assert!(down.expect("hactl runs").status.success());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("BROKEN  followers see every change once"), "{out}\n{err}");
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
}

#[test]
fn what_a_target_cannot_do_is_refused_in_words() {
    let refused = |arguments: &[&str], word: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_chaos")).arg("run").args(arguments).output().expect("chaos runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(word), "{arguments:?}: {error}");
    };
    refused(&["--scenario", "partitions", "--target", "local"], "take another --target");
    refused(&["--scenario", "nothing"], "chaos list");
    refused(&["--scenario", "upgrade"], "--upgrade-to");
    refused(&["--scenario", "calm", "--target", "ssh"], "--hosts");
    refused(&["--scenario", "calm", "--without", "nothing"], "no nemesis");
}
