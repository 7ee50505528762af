//! What a damaged log does: a torn last record is dropped, a flipped byte before it refuses the start and says what to do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};

use crate::support::{HACTL, Local, eventually, text};
use crate::three_masters::{config_map, everything};

/// The write-ahead log file of `log/` that holds most.
fn write_ahead_log(data_dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(data_dir.join("log")).expect("log").flatten().map(|entry| entry.path());
    let logs = files.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    logs.max_by_key(|path| path.metadata().map_or(0, |meta| meta.len())).expect("a write-ahead log")
}

async fn written(local: &Local) {
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    for number in 0..40 {
        api.create(&PostParams::default(), &config_map(&format!("kept-{number}"), &"x".repeat(200)))
            .await
            .expect("create");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_last_record_was_never_acknowledged() {
    let local = Local::up(3, 0);
    written(&local).await;
    let victim = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    local.ok(&["local", "kill", &victim]);
    let file = write_ahead_log(&local.dir().join(&victim));
    // Half a record behind the last one, as a power cut leaves it.
    let mut bytes = std::fs::read(&file).expect("read");
    let tail: Vec<u8> = bytes[bytes.len() - 40..].to_vec();
    bytes.extend_from_slice(&tail[..17]);
    std::fs::write(&file, bytes).expect("write");
    local.ok(&["local", "start", &victim]);
    local.serves(&victim).await;
    let expected = everything(&local.client("local").await).await;
    assert_eq!(everything(&local.client(&victim).await).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_log_refuses_the_start() {
    let local = Local::up(3, 0);
    written(&local).await;
    let victim = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    local.ok(&["local", "kill", &victim]);
    let file = write_ahead_log(&local.dir().join(&victim));
    let mut bytes = std::fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&file, bytes).expect("write");
    let output = Command::new(HACTL)
        .args(["run", "--data-dir"])
        .arg(local.dir().join(&victim))
        .stdin(Stdio::null())
        .output()
        .expect("run hactl");
    let error = text(&output.stderr);
    assert!(!output.status.success(), "it started with a damaged log: {error}");
    let last = error.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("error: ") && last.contains("hactl cluster replace"),
        "the message says what to do: {error}"
    );
    // The others go on without it.
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    api.create(&PostParams::default(), &config_map("after", "1")).await.expect("two of three accept writes");
    eventually("the status names it", || {
        let status = local.ok(&["cluster", "status"]);
        if status.contains(&victim) && status.contains("unreachable") { Ok(()) } else { Err(status) }
    });
}
