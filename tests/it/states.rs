//! A master whose state is lost, or differs from that of the others.

use std::path::Path;
use std::process::{Command, Stdio};

use consensus::storage::{Durability, Purpose, Storage, Write, rocks::Rocks};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use state::{Key, Op, Restore, codec};

use crate::support::{HACTL, Local, eventually, eventually_async, text};
use crate::three_masters::{config_map, everything};

async fn write(local: &Local, through: &str, names: std::ops::Range<usize>) {
    let api: Api<ConfigMap> = Api::default_namespaced(local.client(through).await);
    for number in names {
        api.create(&PostParams::default(), &config_map(&format!("kept-{number}"), "1")).await.expect("create");
    }
}

async fn get(local: &Local, master: &str, path: &str) -> Result<String, String> {
    let request = http::Request::get(path).body(Vec::new()).expect("request");
    local.client(master).await.request_text(request).await.map_err(|error| format!("{error:?}"))
}

/// The database in use.
fn current(data_dir: &Path) -> std::path::PathBuf {
    let state = data_dir.join("state");
    let name = std::fs::read_to_string(state.join("current")).expect("current");
    state.join(name.trim())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_comes_back_from_the_other_masters() {
    // The beginning of the log is gone soon.
    let local = Local::up_with(3, 0, &["--raft-log-entries", "100"]);
    let victim = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    write(&local, &victim, 0..150).await;
    local.ok(&["local", "kill", &victim]);
    let data_dir = local.dir().join(&victim);
    eventually("its log is cut", || match std::fs::read_dir(data_dir.join("snapshots")).map(Iterator::count) {
        Ok(count) if count > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    std::fs::write(current(&data_dir).join("CURRENT"), "no such file").expect("damage");
    std::fs::remove_dir_all(data_dir.join("snapshots")).expect("remove");
    write(&local, "local", 150..160).await;
    local.ok(&["local", "start", &victim]);
    local.serves(&victim).await;
    let log = local.log(&victim);
    assert!(
        log.contains("its state is fetched from another member") && log.contains("a snapshot was fetched"),
        "{log}"
    );
    assert_eq!(everything(&local.client(&victim).await).await, everything(&local.client("local").await).await);
    assert!(!data_dir.join("quarantine").exists());
    write(&local, &victim, 160..165).await;
}

/// It asks the others with a peer certificate that must not end before they answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_waits_for_its_state_renews_its_certificates() {
    let local = Local::up_with(3, 0, &["--raft-log-entries", "100", "--certificate-life", "15s"]);
    let victim = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    write(&local, &victim, 0..150).await;
    let data_dir = local.dir().join(&victim);
    eventually("its log is cut", || match std::fs::read_dir(data_dir.join("snapshots")).map(Iterator::count) {
        Ok(count) if count > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
    }
    std::fs::write(current(&data_dir).join("CURRENT"), "no such file").expect("damage");
    std::fs::remove_dir_all(data_dir.join("snapshots")).expect("remove");
    let alone = Command::new(HACTL)
        .args(["local", "start", &victim, "--dir"])
        .arg(local.dir())
        .env("HACTL_LOCAL_NO_WAIT", "true")
        .stdout(Stdio::null())
        .status();
    assert!(alone.expect("started").success());
    let ends = || {
        let credential = rpc::pki::Dir::of(&data_dir).credential(rpc::pki::files::PEER).expect("a certificate");
        rpc::pki::expiry(&credential.certificate_pem, "the peer certificate").expect("reads").not_after
    };
    let first = ends();
    eventually("the certificate it began with has ended, and it has another", || {
        let (now, ends) = (rpc::pki::unix_now(), ends());
        if first < now && now < ends { Ok(()) } else { Err(format!("{now}: from {first} to {ends}")) }
    });
    for master in local.masters().iter().filter(|name| **name != victim) {
        local.ok(&["local", "start", master]);
    }
    local.serves(&victim).await;
    assert!(local.log(&victim).contains("a snapshot was fetched"));
}

/// Deletes an object from the state of a stopped master, behind the back of its log.
fn diverge(data_dir: &Path, object: &str) {
    let storage = Rocks::new();
    let db = storage.database(&current(data_dir), Purpose::State).expect("the database");
    let mut restore = Restore::new();
    db.scan(codec::START, codec::END, &mut |key, value| {
        restore.row(key, value).expect("a row");
        Ok(true)
    })
    .expect("scan");
    let mut state = restore.finish().expect("whole");
    let command = state::Command {
        ops: vec![Op::delete(Key::new("", "configmaps", "default", object))],
        ..state::Command::default()
    };
    let applied = state.apply(state.applied(), &command);
    assert_eq!((applied.outcome.refusal.clone(), applied.events.len()), (None, 1));
    let mut rows = Vec::new();
    codec::rows(&applied, &mut |row| rows.push(row));
    rows.push(codec::meta(&state));
    let writes = rows.into_iter().map(|row| match row {
        codec::Row::Put(key, value) => Write::Put(key, value),
        codec::Row::Delete(key) => Write::Delete(key),
    });
    db.write(writes.collect(), Durability::Buffered).expect("write");
    db.flush().expect("flush");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_holds_another_state_than_most_serves_nobody_until_it_is_replaced() {
    let local = Local::up(3, 0);
    write(&local, "local", 0..10).await;
    let victim = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    let data_dir = local.dir().join(&victim);
    // In order, so that its state is on disk.
    let pid = {
        let status = local.status();
        let found = status["masters"].as_array().expect("masters").iter().find(|one| one["name"] == *victim).cloned();
        found.expect("listed")["pid"].as_i64().expect("a pid")
    };
    let process = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    eventually("it ends", || if nix::sys::signal::kill(process, None).is_err() { Ok(()) } else { Err("it runs") });
    diverge(&data_dir, "kept-3");
    local.ok(&["local", "start", &victim]);

    let cure = format!("hactl cluster replace {victim} --data-dir {}", data_dir.display());
    let mut number = 10;
    eventually_async("it finds out", async || {
        write(&local, "local", number..number + 1).await;
        number += 1;
        let status = local.ok(&["cluster", "status"]);
        let said = status.contains(&format!("master {victim} is quarantined")) && status.contains(&cure);
        if said { Ok(()) } else { Err(status) }
    })
    .await;
    let refused = get(&local, &victim, "/api/v1/configmaps?resourceVersion=0").await.expect_err("serves nobody");
    assert!(refused.contains("503") || refused.contains("not confirmed"), "{refused}");
    let ready = get(&local, &victim, "/readyz?verbose").await.expect_err("not ready");
    assert!(ready.contains("state") || ready.contains("500"), "{ready}");
    let metrics = get(&local, &victim, "/metrics").await.expect("metrics");
    assert!(metrics.lines().any(|line| line == "hactl_state_quarantined 1"), "{metrics}");
    assert!(local.log(&victim).contains(&cure));
    assert_ne!(local.leader(), victim);
    write(&local, "local", number..number + 5).await;

    // It stays so over a start, until the command that it names.
    local.ok(&["local", "kill", &victim]);
    let output =
        Command::new(HACTL).args(["run", "--data-dir"]).arg(&data_dir).stdin(Stdio::null()).output().expect("run");
    assert!(!output.status.success() && text(&output.stderr).contains(&cure), "{}", text(&output.stderr));
    let output = Command::new(HACTL)
        .args(["cluster", "replace", &victim, "--no-start", "--data-dir"])
        .arg(&data_dir)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("run hactl");
    assert!(output.status.success(), "{}", text(&output.stderr));
    local.ok(&["local", "start", &victim]);
    local.serves(&victim).await;
    let expected = everything(&local.client("local").await).await;
    assert!(expected.keys().any(|name| name.ends_with("/kept-3")));
    assert_eq!(everything(&local.client(&victim).await).await, expected);
}
