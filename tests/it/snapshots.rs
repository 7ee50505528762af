//! Everything is lost, and comes back from a snapshot file and the recovery key.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, PostParams};
use serde_json::Value;

use crate::support::{Local, text};
use crate::three_masters::{config_map, everything};

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// uids by name: revisions stay too, but new members are registered.
fn uids(everything: &std::collections::BTreeMap<String, String>) -> Vec<String> {
    everything.iter().map(|(name, uid)| format!("{name} {uid}")).collect()
}

fn flipped(file: &Path, at: usize) -> PathBuf {
    let mut bytes = std::fs::read(file).expect("read");
    bytes[at] ^= 0x10;
    let damaged = file.with_extension("damaged");
    std::fs::write(&damaged, bytes).expect("write");
    damaged
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_lost_comes_back_from_a_file() {
    let local = Local::up(3, 0);
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    for number in 0..30 {
        api.create(&PostParams::default(), &config_map(&format!("kept-{number}"), "1")).await.expect("create");
    }
    let password = serde_json::json!({ "metadata": { "name": "password" }, "stringData": { "value": "hunter2" } });
    let password: Secret = serde_json::from_value(password).expect("a Secret");
    let secrets: Api<Secret> = Api::default_namespaced(local.client("local").await);
    let password = secrets.create(&PostParams::default(), &password).await.expect("create");
    assert_eq!(password.data.as_ref().expect("data")["value"].0, b"hunter2");
    let before = everything(&local.client("local").await).await;
    let (file, key) = (local.dir().join("all.snapshot"), local.dir().join("recovery.key"));
    let (file_name, key_name) = (path(&file).to_owned(), path(&key).to_owned());

    // Through a follower, so that the read must be a linearizable one.
    let follower = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    let saved = local.ok(&["cluster", "snapshot", "save", &file_name, "--context", &follower, "-o", "json"]);
    let saved: Value = serde_json::from_str(&saved).expect("JSON");
    let revision = saved["revision"].as_u64().expect("a revision");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).expect("the file"));
    assert_eq!(mode & 0o777, 0o600);
    let error = local.fails(&["cluster", "snapshot", "save", &file_name]);
    assert!(error.contains("not overwritten"), "{error}");
    api.create(&PostParams::default(), &config_map("later", "1")).await.expect("create");

    // What can be checked without the key, and with it.
    let printed = local.ok(&["cluster", "snapshot", "verify", &file_name]);
    assert!(printed.contains("checksums") && printed.contains("not looked at"), "{printed}");
    let printed = local.ok(&["cluster", "snapshot", "verify", &file_name, "--recovery-key-file", &key_name]);
    assert!(printed.contains("was recomputed: the same"), "{printed}");
    let length = std::fs::metadata(&file).expect("the file").len() as usize;
    for at in [length / 3, length / 2, length - 10] {
        let damaged = flipped(&file, at);
        let error = local.fails(&["cluster", "snapshot", "verify", path(&damaged)]);
        assert!(error.contains("damaged") || error.contains("do not match"), "byte {at}: {error}");
    }
    // Nothing of it can be read without the key.
    let bytes = text(&std::fs::read(&file).expect("read"));
    assert!(!bytes.contains("kept-1") && !bytes.contains("PRIVATE KEY"));

    // The disaster.
    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
    }
    let to = local.dir().join("master-1");
    let command = local.restore_command(&file_name, &key_name, "master-1");
    let error = local.fails(&strings(&command));
    assert!(error.contains("already belongs to cluster"), "{error}");
    for master in local.masters() {
        std::fs::remove_dir_all(local.dir().join(master)).expect("remove");
    }
    let damaged = flipped(&file, length / 2);
    let error = local.fails(&strings(&local.restore_command(path(&damaged), &key_name, "master-1")));
    assert!(error.contains("cannot be used") && !to.exists(), "{error}");

    let printed = local.ok(&strings(&command));
    assert!(printed.contains("hactl local start master-1"), "{printed}");
    local.ok(&["local", "start", "master-1"]);
    local.serves("master-1").await;
    // The kubeconfig of before, objects with their uids and revisions, and only those of then.
    let after = everything(&local.client("master-1").await).await;
    assert_eq!(uids(&after), uids(&before));
    let secrets: Api<Secret> = Api::default_namespaced(local.client("master-1").await);
    assert_eq!(secrets.get("password").await.expect("the Secret"), password, "with its key");
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("master-1").await);
    let created = api.create(&PostParams::default(), &config_map("new", "1")).await.expect("create");
    let now: u64 = created.metadata.resource_version.expect("a revision").parse().expect("a number");
    assert!(now > revision + 1_000_000_000, "{now} after {revision}");
    // History before the restore is gone, and says so.
    let client = local.client("master-1").await;
    let old = format!("/api/v1/configmaps?watch=true&resourceVersion={}", revision + 1);
    let answer = client.request_text(http::Request::get(old).body(Vec::new()).expect("request")).await;
    let answer = format!("{answer:?}");
    assert!(answer.contains("410") || answer.contains("Expired"), "{answer}");

    // The others join anew, under ids that were never used.
    local.ok(&["local", "up", "--masters", "3", "--nodes", "0"]);
    let status: Value = serde_json::from_str(&local.ok(&["cluster", "status", "-o", "json"])).expect("JSON");
    let ids: Vec<u64> =
        status["members"].as_array().expect("members").iter().filter_map(|m| m["id"].as_u64()).collect();
    assert_eq!(ids, [4, 5, 6], "{status}");
    let expected = everything(&local.client("master-1").await).await;
    for master in local.masters() {
        local.serves(&master).await;
        assert_eq!(everything(&local.client(&master).await).await, expected, "{master}");
    }
}

#[test]
fn a_lost_recovery_key_is_replaced() {
    let local = Local::up(1, 0);
    let (old, new) = (local.dir().join("recovery.key"), local.dir().join("new.key"));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&old).expect("the key"));
    assert_eq!(mode & 0o777, 0o600);
    let printed = local.ok(&["cluster", "recovery-key", "rotate", "-o", path(&new)]);
    assert!(!printed.contains("AGE-SECRET-KEY"), "{printed}");
    let file = local.dir().join("all.snapshot");
    local.ok(&["cluster", "snapshot", "save", path(&file)]);
    let error = local.fails(&["cluster", "snapshot", "verify", path(&file), "--recovery-key-file", path(&old)]);
    assert!(error.contains("give the key that was current"), "{error}");
    local.ok(&["cluster", "snapshot", "verify", path(&file), "--recovery-key-file", path(&new)]);
    // Shown when no file is given, and nowhere else: neither the cluster's files nor its logs hold it.
    let printed = local.ok(&["cluster", "recovery-key", "rotate"]);
    let secret = printed.lines().map(str::trim).find(|line| line.starts_with("AGE-SECRET-KEY-1")).expect("the key");
    let found = std::process::Command::new("grep").args(["-rl", secret]).arg(local.dir()).output().expect("grep");
    assert_eq!(text(&found.stdout), "");
}
