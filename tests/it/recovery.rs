//! The majority is lost for good and one survivor goes on; and data dirs that come back although they must not.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use serde_json::Value;

use crate::support::{HACTL, Local, eventually, text};
use crate::three_masters::{config_map, everything};

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Runs a data dir that must be refused; the reason.
fn refused(data_dir: &Path, further: &[&str]) -> String {
    // Should it start after all, it is ended rather than waited for.
    let output = Command::new("timeout")
        .args(["60", HACTL, "run", "--data-dir", path(data_dir)])
        .args(further)
        .stdin(Stdio::null())
        .output()
        .expect("run hactl");
    assert_ne!(output.status.code(), Some(124), "{} started", data_dir.display());
    assert!(!output.status.success());
    let error = text(&output.stderr);
    error.lines().last().unwrap_or_default().to_owned()
}

fn copied(local: &Local, master: &str, name: &str) -> PathBuf {
    let to = local.dir().join(name);
    let done = Command::new("cp").arg("-a").arg(local.dir().join(master)).arg(&to).status().expect("cp");
    assert!(done.success());
    to
}

async fn write(local: &Local, through: &str, names: std::ops::Range<usize>) {
    let api: Api<ConfigMap> = Api::default_namespaced(local.client(through).await);
    for number in names {
        api.create(&PostParams::default(), &config_map(&format!("kept-{number}"), "1")).await.expect("create");
    }
}

/// A moment without a leader looks like a lost majority until the others were asked, for which the master must stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_recovery_leaves_the_master_running() {
    let local = Local::up_with(3, 0, &["--heartbeat", "500ms", "--election-min", "3s", "--election-max", "6s"]);
    write(&local, "local", 0..3).await;
    let leader = local.leader();
    let other = local.masters().into_iter().find(|name| *name != leader).expect("a follower");
    let data_dir = local.dir().join(&other);
    local.ok(&["local", "kill", &leader]);
    eventually("no leader is known", || {
        let error = local.fails(&["cluster", "recover", "--from-this-member", "--yes", "--data-dir", path(&data_dir)]);
        if error.contains("leads, so") {
            return Err(error);
        }
        assert!(error.contains("can be reached"), "{error}");
        Ok(())
    });
    assert_eq!(local.log(&other).matches("master stopped").count(), 1, "it had to stop");
    local.serves(&other).await;
    write(&local, &other, 3..6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_survivor_goes_on_and_the_others_are_locked_out() {
    let local = Local::up(3, 0);
    write(&local, "local", 0..20).await;
    let before = everything(&local.client("local").await).await;
    let leader = local.leader();
    let survivor = local.masters().into_iter().find(|name| *name != leader).expect("a follower");
    let third = local.masters().into_iter().find(|name| *name != leader && *name != survivor).expect("the third");
    let data_dir = local.dir().join(&survivor);
    let recover = ["cluster", "recover", "--from-this-member", "--data-dir", path(&data_dir)];

    let error = local.fails(&recover);
    assert!(error.contains("leads, so a majority of the masters lives"), "{error}");
    assert!(local.log(&survivor).matches("master stopped").count() == 0, "it was left alone");
    local.ok(&["local", "kill", &survivor]);
    let error = local.fails(&[&recover[..], &["--yes"]].concat());
    assert!(error.contains("that is a majority of the 3 masters") && error.contains(&leader), "{error}");
    local.ok(&["local", "kill", &third]);
    let error = local.fails(&[&recover[..], &["--yes"]].concat());
    assert!(error.contains(&leader), "with one other it is a majority still: {error}");
    local.ok(&["local", "kill", &leader]);
    let output = local.hactl(&recover);
    let printed = text(&output.stdout);
    assert!(!output.status.success() && text(&output.stderr).contains("--yes"), "{}", text(&output.stderr));
    assert!(printed.contains("What may be lost") && printed.contains(&format!("{leader} (id")), "{printed}");
    // One that runs, as it does on a real machine, is stopped and started by the same command.
    local.ok(&["local", "start", &survivor]);
    let masters = local.status()["masters"].as_array().expect("masters").clone();
    let api =
        masters.iter().find(|one| one["name"] == *survivor).and_then(|one| one["api"].as_str()).expect("its address");
    let api = api.trim_start_matches("https://").to_owned();
    eventually("it listens", || std::net::TcpStream::connect(&api).map_err(|error| error.to_string()));
    let output = local.hactl(&recover);
    let printed = text(&output.stdout);
    assert!(!output.status.success() && text(&output.stderr).contains("--yes"), "{}", text(&output.stderr));
    assert!(printed.contains("it runs, and would be stopped") && printed.contains("What may be lost"), "{printed}");
    assert!(printed.contains(&format!("{leader} (id")) && printed.contains("lost (cannot be reached)"), "{printed}");
    let printed = eventually("it is recovered", || {
        let output = local.hactl(&[&recover[..], &["--yes"]].concat());
        let error = text(&output.stderr);
        // In its first moments it does not answer yet.
        assert!(output.status.success() || error.contains("does not answer"), "{error}");
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(error) }
    });
    assert!(printed.contains("epoch") && printed.contains("hactl local up"), "{printed}");
    assert!(!printed.contains("Next, start this master"), "it runs: {printed}");
    local.serves(&survivor).await;
    assert_eq!(everything(&local.client(&survivor).await).await, before, "objects stay, with uids and revisions");
    let api: Api<ConfigMap> = Api::default_namespaced(local.client(&survivor).await);
    let created = api.create(&PostParams::default(), &config_map("after", "1")).await.expect("create");
    let revision: u64 = created.metadata.resource_version.expect("a revision").parse().expect("a number");
    assert!(revision > 1_000_000_000, "{revision}");

    // Together the others would be a majority of the epoch before.
    for old in [&leader, &third] {
        let error = local.fails(&["local", "start", old]);
        assert!(error.contains("went on in epoch"), "{error}");
    }
    for old in [&leader, &third] {
        eventually(&format!("{old} is refused"), || {
            let log = local.log(old);
            let said = log.contains("went on in epoch") && log.contains("join this machine again");
            let pid = &local.status()["masters"].as_array().expect("masters").clone();
            let dead = pid.iter().any(|one| one["name"] == **old && one["pid"].is_null());
            if said && dead { Ok(()) } else { Err(log) }
        });
        std::fs::remove_dir_all(local.dir().join(old)).expect("remove");
    }
    local.ok(&["local", "up", "--masters", "3", "--nodes", "0"]);
    let expected = everything(&local.client(&survivor).await).await;
    for master in local.masters() {
        local.serves(&master).await;
        assert_eq!(everything(&local.client(&master).await).await, expected, "{master}");
    }
    let status: Value = serde_json::from_str(&local.ok(&["cluster", "status", "-o", "json"])).expect("JSON");
    let members = status["members"].as_array().expect("members");
    assert_eq!(members.iter().filter(|member| member["voter"] == true).count(), 3, "{status}");
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloned_data_dir_is_refused() {
    let local = Local::up(3, 0);
    let original = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    let clone = copied(&local, &original, "clone");
    let elsewhere = ["--listen-api", "127.0.0.1:0", "--listen-peer", "127.0.0.1:0"];
    let error = refused(&clone, &elsewhere);
    assert!(error.contains("is a copy of its data dir") && error.contains("under an id of its own"), "{error}");

    // Begun while the original was away, the copy ends when that one is back.
    local.ok(&["local", "kill", &original]);
    let log = std::fs::File::create(local.dir().join("clone.log")).expect("log");
    let started = Command::new(HACTL)
        .args(["run", "--data-dir", path(&clone)])
        .args(elsewhere)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("run hactl");
    let mut started = Running(started);
    let said = || text(&std::fs::read(local.dir().join("clone.log")).expect("log"));
    eventually("the copy runs", || if said().contains("master runs") { Ok(()) } else { Err(said()) });
    local.ok(&["local", "start", &original]);
    local.serves(&original).await;
    eventually("the copy ends", || match started.0.try_wait() {
        Ok(Some(status)) if !status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(said().contains("is a copy of its data dir"), "{}", said());
    write(&local, "local", 0..5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_a_data_dir_is_refused() {
    let local = Local::up(3, 0);
    let leader = local.leader();
    let victim = local.masters().into_iter().find(|name| *name != leader).expect("a follower");
    write(&local, &leader, 0..5).await;
    local.ok(&["local", "kill", &victim]);
    let copy = copied(&local, &victim, "copy");
    local.ok(&["local", "start", &victim]);
    local.serves(&victim).await;
    write(&local, &leader, 5..15).await;
    // It has acknowledged them, and the leader knows.
    let expected = everything(&local.client(&leader).await).await;
    assert_eq!(everything(&local.client(&victim).await).await, expected);
    local.ok(&["local", "kill", &victim]);
    let data_dir = local.dir().join(&victim);
    std::fs::remove_dir_all(&data_dir).expect("remove");
    std::fs::rename(&copy, &data_dir).expect("rename");
    let error = refused(&data_dir, &[]);
    assert!(error.contains("this is an old copy") && error.contains("hactl cluster replace --data-dir"), "{error}");
    write(&local, &leader, 15..20).await;

    // What it says is what helps.
    local.ok(&["cluster", "replace", "--no-start", "--data-dir", path(&data_dir)]);
    local.ok(&["local", "start", &victim]);
    local.serves(&victim).await;
    let expected = everything(&local.client(&leader).await).await;
    assert_eq!(everything(&local.client(&victim).await).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_data_dir_is_refused() {
    let local = Local::up(3, 0);
    let victim = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    local.ok(&["local", "kill", &victim]);
    let data_dir = local.dir().join(&victim);
    std::fs::remove_dir_all(data_dir.join("log")).expect("remove");
    std::fs::remove_dir_all(data_dir.join("state")).expect("remove");
    let _ = std::fs::remove_dir_all(data_dir.join("snapshots"));
    std::fs::remove_file(data_dir.join("log.synced")).expect("remove");
    let error = refused(&data_dir, &[]);
    assert!(error.contains("its data was lost") && error.contains("hactl cluster replace --data-dir"), "{error}");
    std::fs::remove_dir_all(&data_dir).expect("remove");
    let error = refused(&data_dir, &[]);
    assert!(error.contains("hactl cluster join"), "{error}");
    write(&local, "local", 0..5).await;
}
