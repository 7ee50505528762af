//! What is secret lies sealed in everything a master writes down, and its key can be changed.

use std::path::Path;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{Local, eventually_async};

const PLAIN: [&str; 3] = ["correct-horse-battery", "staple-in-an-annotation", "the-second-password"];

/// Files below a directory that hold one of the plain texts, or its base64.
fn files_with(dir: &Path, found: &mut Vec<String>) {
    use base64::Engine;
    let needles: Vec<Vec<u8>> = PLAIN
        .iter()
        .flat_map(|plain| {
            [plain.as_bytes().to_vec(), base64::engine::general_purpose::STANDARD_NO_PAD.encode(plain).into_bytes()]
        })
        .collect();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_with(&path, found);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        if needles.iter().any(|needle| bytes.windows(needle.len()).any(|part| part == needle)) {
            found.push(path.display().to_string());
        }
    }
}

fn keys(local: &Local) -> std::collections::BTreeSet<String> {
    let status: serde_json::Value =
        serde_json::from_str(&local.ok(&["cluster", "status", "-o", "json"])).expect("JSON");
    let members = status["members"].as_array().expect("members");
    members.iter().map(|member| member["sealingKey"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_on_the_masters_disks_and_keys_rotate() {
    let local = Local::up(3, 0);
    let api: Api<Secret> = Api::default_namespaced(local.client("local").await);
    let secret = |name: &str| -> Secret {
        serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {"note": PLAIN[1]}, "labels": {"of": "test"}},
            "stringData": {"password": PLAIN[0]},
        }))
        .expect("a Secret")
    };
    for name in ["kept", "updated", "deleted"] {
        let created = api.create(&PostParams::default(), &secret(name)).await.expect("create");
        assert_eq!(created.data.expect("data")["password"].0, PLAIN[0].as_bytes());
    }
    let patch = json!({"stringData": {"password": PLAIN[2]}});
    let patched = api.patch("updated", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch");
    let unchanged = api.patch("updated", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch again");
    assert_eq!(
        patched.metadata.resource_version, unchanged.metadata.resource_version,
        "writing the same again changes nothing"
    );
    api.delete("deleted", &DeleteParams::default()).await.expect("delete");

    let read = async |name: &str| {
        let mut seen = Vec::new();
        for master in local.masters() {
            let api: Api<Secret> = Api::default_namespaced(local.client(&master).await);
            let found = api.get(name).await.expect("get");
            assert_eq!(found.metadata.annotations.expect("annotations")["note"], PLAIN[1]);
            seen.push(String::from_utf8_lossy(&found.data.expect("data")["password"].0).into_owned());
        }
        seen
    };
    assert_eq!(read("kept").await, [PLAIN[0]; 3]);
    assert_eq!(read("updated").await, [PLAIN[2]; 3]);
    let table = local.ok(&["get", "secrets"]);
    let row = table.lines().find(|line| line.starts_with("kept")).expect("a row");
    assert!(row.split_whitespace().any(|cell| cell == "1"), "the number of keys is shown: {row}");

    let before = keys(&local);
    assert_eq!(before.len(), 1, "all masters seal with one key: {before:?}");
    let printed = local.ok(&["cluster", "secrets", "rotate-key"]);
    assert!(printed.contains("new key"), "{printed}");
    eventually_async("all masters seal with the new key", async || {
        let now = keys(&local);
        if now.len() == 1 && now != before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(read("kept").await, [PLAIN[0]; 3]);
    assert_eq!(read("updated").await, [PLAIN[2]; 3]);

    // A master that was down gets what it missed; a rotation that would leave one behind is refused.
    let victim = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    local.ok(&["local", "kill", &victim]);
    let refused = local.fails(&["cluster", "secrets", "rotate-key"]);
    assert!(refused.contains(&victim) && refused.contains("start that master"), "{refused}");
    local.ok(&["local", "start", &victim]);
    local.serves(&victim).await;
    assert_eq!(read("kept").await, [PLAIN[0]; 3]);

    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
    }
    let mut found = Vec::new();
    for master in local.masters() {
        files_with(&local.dir().join(master), &mut found);
    }
    assert!(found.is_empty(), "plain text in {found:?}");
}
