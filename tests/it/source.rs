//! Rules about the source itself: imports run downwards, every module says what it is for, and forbidden things stay out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in ["src", "tests", "chaos"] {
        sources(&root().join(dir), &mut found);
    }
    found
}

/// What each crate of the workspace may import of the others.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("objects", &[]),
    ("state", &[]),
    ("control", &["objects", "state"]),
    ("replica", &["control", "objects", "state"]),
    ("rpc", &[]),
    ("consensus", &["control", "replica", "rpc", "state"]),
    ("apiserver", &["control", "objects", "replica", "state"]),
    ("master", &["apiserver", "consensus", "control", "objects", "replica", "rpc", "state"]),
    ("kubelet", &["objects", "rpc"]),
];

/// Heavy dependencies and the only crates that may name them.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("openraft", &["consensus"]),
    ("rocksdb", &["consensus"]),
    ("bollard", &["kubelet"]),
    ("k8s-pb", &["apiserver"]),
    ("kube", &["hactl", "chaos"]),
];

/// The names under `[dependencies]` of a manifest.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(manifest).expect("a manifest");
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line == "[build-dependencies]";
        } else if inside && !line.starts_with('#') {
            names.extend(line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    names
}

#[test]
fn imports_run_downwards() {
    let mut manifests: BTreeMap<&str, PathBuf> =
        MAY_IMPORT.iter().map(|(name, _)| (*name, root().join("src").join(name).join("Cargo.toml"))).collect();
    manifests.insert("hactl", root().join("Cargo.toml"));
    manifests.insert("chaos", root().join("chaos/Cargo.toml"));
    let ours: BTreeSet<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    for (name, manifest) in &manifests {
        let dependencies = dependencies(manifest);
        if let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| known == name) {
            for import in dependencies.iter().filter(|import| ours.contains(import.as_str())) {
                assert!(allowed.contains(&import.as_str()), "{name} must not import {import}");
            }
        }
        for (heavy, homes) in ONLY_IN {
            assert!(
                !dependencies.contains(*heavy) || homes.contains(name),
                "{heavy} belongs to {homes:?}, not to {name}"
            );
        }
    }
}

#[test]
fn pure_crates_know_no_clock_and_no_runtime() {
    for name in ["objects", "state", "control"] {
        let dependencies = dependencies(&root().join("src").join(name).join("Cargo.toml"));
        for banned in ["tokio", "rand", "tonic", "reqwest"] {
            assert!(!dependencies.contains(banned), "{name} is pure and must not use {banned}");
        }
        assert!(root().join("src").join(name).join("clippy.toml").exists(), "{name} has its list of banned things");
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    // A `tests.rs` says it by its name.
    for path in all_sources().into_iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = std::fs::read_to_string(&path).expect("a source");
        assert!(text.starts_with("//!"), "{} does not open with its purpose (`//!`)", path.display());
    }
}

#[test]
fn files_stay_readable() {
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).expect("a source");
        let lines = text.lines().count();
        assert!(lines <= 900, "{} has {lines} lines; split it by what it decides", path.display());
    }
}

#[test]
fn nothing_unfinished_is_in_the_source() {
    // Put together here, so that this file does not hold them itself.
    let marks =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["unimplemented", "!("], ["todo", "!("]].map(|mark| mark.concat());
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).expect("a source");
        for mark in &marks {
            assert!(
                !text.contains(mark.as_str()),
                "{} holds {mark}: do it, or say in words what does not work",
                path.display()
            );
        }
    }
}
