//! Logs and snapshots as earlier versions wrote them: replayed by this version they end in the same state.
//!
//! `tests/golden/state/recorded-<version>.{log,rows}` were written once, when that version of the rules was the newest, and
//! are never written again: a change that makes one of these tests fail would make members of two versions differ. When
//! [`crate::VERSION`] grows, `HACTL_GOLDEN=write cargo test -p state recorded` adds the recording of the new one.

use std::path::PathBuf;

use prost::Message;

use super::codec::restore;
use super::*;
use crate::codec::dump;

/// Commands of one recording.
const COMMANDS: u64 = 400;

fn path(version: u32, kind: &str) -> PathBuf {
    PathBuf::from(format!("{}/../../tests/golden/state/recorded-{version}.{kind}", env!("CARGO_MANIFEST_DIR")))
}

/// A log that visits every rule of `version`, the same at every call.
fn log(version: u32) -> Vec<Command> {
    let mut seed = u64::from(version);
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut all = vec![command(["@a", "@b", "n1", "n2"].map(|short| thing(short).put()).to_vec())];
    if version > 1 {
        all.push(command(vec![raise(version)]));
    }
    for number in 0..COMMANDS {
        let short = match draw(4) {
            0 => format!("n{}", draw(3)),
            1 if draw(8) == 0 => format!("@{}", ["a", "b", "c"][draw(3) as usize]),
            _ => format!("{}/{}", ["a", "b", "c"][draw(3) as usize], ["v", "w", "x", "y"][draw(4) as usize]),
        };
        let op = match draw(12) {
            0..=2 => delete(&short),
            3 => compact(draw(number + 1)),
            4 if version > 1 => quota(draw(3) * 2000),
            _ => {
                let mut thing = thing(&short).body(&format!("{{\"at\":{}}}", draw(5)));
                if short.contains('/') {
                    thing = thing.node(["", "n1", "n2"][draw(3) as usize]);
                }
                if draw(4) == 0 {
                    thing = thing.claims(&[["ip/1", "ip/2", "port/3"][draw(3) as usize]]);
                }
                if draw(5) == 0 {
                    thing = thing.owned_by(&["uid-n1"]);
                }
                if version > 3 && short.contains('/') {
                    thing = match draw(6) {
                        0 => thing.field("bound/pods", &format!("count/pods {}", draw(3))),
                        1 => thing.field("bound/ore", &format!("ore {}", draw(4))).field("bound-scope", "!raw|fine"),
                        2 => thing.field("uses/ore", "3").field("class", "raw"),
                        _ => thing.field("uses/ore", &draw(4).to_string()),
                    };
                }
                if draw(20) == 0 { thing.terminating().put() } else { thing.put() }
            }
        };
        let expects = match draw(6) {
            0 => vec![Expect::absent(key(&short))],
            1 => vec![Expect::exists(key(&short))],
            2 => vec![Expect::revision(key(&short), draw(number + 1))],
            _ => Vec::new(),
        };
        let proposal = u128::from(if draw(20) == 0 { number.saturating_sub(1) } else { number }) + 1;
        let term = if draw(30) == 0 { TERM - 1 } else { 0 };
        let system = version > 2 && draw(3) == 0;
        let proposal = Bytes::copy_from_slice(&proposal.to_be_bytes());
        all.push(Command {
            proposal,
            term,
            system,
            time_ms: 1_700_000_000_000 + number as i64,
            ..expecting(expects, vec![op])
        });
    }
    all
}

fn replay(state: &mut State, log: &[Command]) {
    for command in log {
        apply(state, command);
    }
}

/// The state's hash, its revision, then the log; the rows of the state after the first half.
fn record(version: u32) {
    let log = log(version);
    let half = log.len() / 2;
    let mut state = State::default();
    replay(&mut state, &log[..half]);
    let mut rows = Vec::new();
    for (key, value) in dump(&state) {
        for part in [key, value] {
            rows.extend((part.len() as u32).to_be_bytes());
            rows.extend(part);
        }
    }
    replay(&mut state, &log[half..]);
    let mut bytes = state.hash().to_be_bytes().to_vec();
    bytes.extend(state.revision().to_be_bytes());
    for command in &log {
        bytes.extend(command.encode_length_delimited_to_vec());
    }
    std::fs::write(path(version, "log"), bytes).expect("a recording can be written");
    std::fs::write(path(version, "rows"), rows).expect("a recording can be written");
}

#[test]
fn every_version_ends_in_the_state_it_recorded() {
    for version in 1..=crate::VERSION {
        let exists = path(version, "log").exists();
        if !exists && std::env::var_os("HACTL_GOLDEN").is_some_and(|mode| mode == "write") {
            record(version);
        }
        let bytes = std::fs::read(path(version, "log")).unwrap_or_else(|error| {
            panic!("version {version} has no recording ({error}): HACTL_GOLDEN=write cargo test -p state recorded")
        });
        let (hash, rest) = bytes.split_at(16);
        let (revision, mut rest) = rest.split_at(8);
        let mut log = Vec::new();
        while !rest.is_empty() {
            log.push(Command::decode_length_delimited(&mut rest).expect("a command"));
        }
        let mut state = State::default();
        replay(&mut state, &log);
        assert_eq!(state.revision().to_be_bytes(), revision, "version {version}: the revision");
        assert_eq!(state.hash().to_be_bytes(), hash, "version {version}: the state's hash");

        // A member that begins with the snapshot and takes the rest of the log ends in the same state.
        let stored = std::fs::read(path(version, "rows")).expect("rows beside the log");
        let mut parts = Vec::new();
        let mut left = stored.as_slice();
        while let Some((length, tail)) = left.split_first_chunk::<4>() {
            let (part, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            parts.push(part.to_vec());
            left = tail;
        }
        let rows: Vec<_> = parts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let mut restored = restore(&rows).expect("a snapshot of an earlier version");
        replay(&mut restored, &log[log.len() / 2..]);
        assert_eq!(restored, state, "version {version}: snapshot and the rest of the log");
    }
}
