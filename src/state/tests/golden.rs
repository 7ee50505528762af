//! The bytes of everything stored or sent. `HACTL_GOLDEN=write cargo test -p state golden` writes them anew.

use prost::Message;

use super::*;
use crate::codec::{Row, dump, meta, rows};
use crate::{Beyond, Compact, Condition, Exceeded, RaiseVersion};

fn check(name: &str, bytes: &[u8], golden: &[u8]) {
    if std::env::var_os("HACTL_GOLDEN").is_some_and(|mode| mode == "write") {
        let path = format!("{}/../../tests/golden/state/{name}.bin", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, bytes).expect("golden bytes can be written");
        return;
    }
    assert!(
        bytes == golden,
        "the bytes of {name} have changed. Logs, stored states and masters of other versions hold the old form: \
         changing a format is a visible decision (append a field; never change one)"
    );
}

fn full() -> Put {
    let mut put = thing("a/x").node("n1").claims(&["ip/1"]).owned_by(&["uid-o"]).terminating().0;
    put.managed_fields = Bytes::from_static(b"[{}]");
    put.header.owners[0].controller = true;
    put.header.owners[0].block_deletion = true;
    put.header.labels.insert("app", "web");
    put.header.fields.insert("status.phase", "Running");
    put.header.creation_ms = 1_700_000_000_000;
    put.header.generation = 2;
    put.header.finalizers.push("example.com/f".into());
    put
}

#[test]
fn commands() {
    let full = Command {
        proposal: Bytes::copy_from_slice(&7u128.to_be_bytes()),
        term: 3,
        time_ms: 1_700_000_000_001,
        expects: vec![
            Expect::absent(Key::new("apps", "deployments", "a", "web")),
            Expect::exists(key("@a")),
            Expect::revision(key("a/x"), 5),
            Expect { key: key("n1"), condition: Some(Condition::Uid("uid-n1".into())) },
        ],
        ops: vec![
            Op::put(full()),
            delete("a/y"),
            Op { kind: Some(op::Kind::Compact(Compact { revision: 300 })) },
            Op { kind: Some(op::Kind::RaiseVersion(RaiseVersion { version: 2 })) },
        ],
        system: false,
    };
    // As the field that came last is appended, so that logs of before are read as they were meant.
    let system = Command { system: true, ..full.clone() }.encode_to_vec();
    assert_eq!(system, [full.encode_to_vec().as_slice(), &[0x30, 1]].concat());
    let golden = include_bytes!("../../../tests/golden/state/command.bin");
    check("command", &full.encode_to_vec(), golden);
    assert_eq!(Command::decode(golden.as_slice()), Ok(full));
}

#[test]
fn outcomes() {
    let refusals = [
        Refusal::AlreadyExists(key("a/x")),
        Refusal::NotFound(key("a/x")),
        Refusal::Conflict(key("a/x")),
        Refusal::NamespaceMissing(key("@a")),
        Refusal::NamespaceTerminating(key("@a")),
        Refusal::Claimed("ip/1 held by pods/a/x".into()),
        Refusal::Bind("node \"n1\" does not exist".into()),
        Refusal::Deposed(2),
        Refusal::Invalid("what".into()),
        Refusal::OverQuota("how much".into()),
        Refusal::Exceeded(Exceeded {
            by: "q".into(),
            parts: vec![Beyond { name: "pods".into(), asked: 1, taken: 2, limit: 2 }],
        }),
    ];
    let mut bytes = accepted(9, &[8, 0, 9]).encode_length_delimited_to_vec();
    for refusal in refusals {
        bytes.extend(refused(9, refusal).encode_length_delimited_to_vec());
    }
    check("outcomes", &bytes, include_bytes!("../../../tests/golden/state/outcomes.bin"));
}

/// Rows of every kind, each as length, key, length, value; and the hash.
#[test]
fn stored_rows() {
    let mut state = state([vec![thing("@a").put(), thing("n1").put(), thing("a/y").put()]]);
    let mut all = Vec::new();
    let mut write = |key: &[u8], value: &[u8]| {
        for part in [key, value] {
            all.extend((part.len() as u32).to_be_bytes());
            all.extend(part);
        }
    };
    let proposal = Bytes::copy_from_slice(&7u128.to_be_bytes());
    let applied = apply(&mut state, &Command { proposal, ..command(vec![Op::put(full()), delete("a/y"), compact(2)]) });
    let mut changes = Vec::new();
    rows(&applied, &mut |row| changes.push(row));
    changes.push(meta(&state));
    for row in changes {
        match row {
            Row::Put(key, value) => write(&key, &value),
            Row::Delete(key) => write(&key, b"deleted"),
        }
    }
    for (key, value) in dump(&state) {
        write(&key, &value);
    }
    all.extend(state.hash().to_be_bytes());
    check("rows", &all, include_bytes!("../../../tests/golden/state/rows.bin"));
}
