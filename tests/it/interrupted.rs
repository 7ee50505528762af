//! Beginning a new epoch is killed at each of its steps: typed again it ends right, and nothing is half done.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};

use crate::disks::with_shim;
use crate::support::{HACTL, Local, text};
use crate::three_masters::config_map;

const KEPT: usize = 12;
/// More steps than any of these commands has.
const STEPS_MAX: usize = 400;

async fn write(local: &Local) {
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    for number in 0..KEPT {
        api.create(&PostParams::default(), &config_map(&format!("kept-{number}"), "1")).await.expect("create");
    }
}

/// Whether the state of a stopped master holds everything, for one member alone.
fn holds_all(data_dir: &Path) {
    let installation: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data_dir.join("hactl.json")).expect("hactl.json")).expect("JSON");
    let member = installation["master"]["member_id"].as_u64().expect("an id");
    let cluster = installation["cluster_id"].as_str().expect("an id");
    let survey = master::epoch::survey(data_dir, cluster, member).expect("whole");
    assert_eq!((survey.voters.as_slice(), survey.members.len()), (&[member][..], 1));
    for number in 0..KEPT {
        let key = state::Key::new("", "configmaps", "default", format!("kept-{number}"));
        assert!(survey.state.get(&key).is_some(), "kept-{number}");
    }
}

/// Runs a command until it survives, each time on a fresh start and killed one step later, and each time once more to the
/// end. How many steps it has.
fn at_each_step(shim: &[(String, String)], data_dir: &Path, fresh: impl Fn(), command: &[&str]) -> usize {
    // There are a hundred: a third of them each time, or all with HACTL_EVERY_STEP=1.
    let every = if std::env::var_os("HACTL_EVERY_STEP").is_some() { 1 } else { 3 };
    let first = 1 + usize::try_from(std::process::id()).expect("a pid") % every;
    for steps in (first..STEPS_MAX).step_by(every) {
        fresh();
        let run = |die_at: Option<usize>| {
            let mut process = Command::new(HACTL);
            process.args(command).stdin(Stdio::null()).env_remove("KUBECONFIG");
            if let Some(step) = die_at {
                process.envs(shim.iter().cloned()).env("DISK_SHIM_DIE_AT", step.to_string());
            }
            process.output().expect("run hactl")
        };
        let first = run(Some(steps));
        if first.status.success() {
            return steps - 1;
        }
        assert_eq!(first.status.code(), Some(137), "step {steps}: {}", text(&first.stderr));
        if data_dir.join("hactl.json").exists() && data_dir.join("recovery.json").exists() {
            let refused = Command::new(HACTL).args(["run", "--data-dir"]).arg(data_dir).stdin(Stdio::null()).output();
            let refused = text(&refused.expect("run hactl").stderr);
            assert!(refused.contains("was interrupted"), "step {steps}: {refused}");
        }
        let again = run(None);
        // Killed before the last word, but after the last step that matters: there is nothing left to do.
        let said = text(&again.stderr);
        let complete = said.contains("already belongs to cluster") || said.contains("there is nothing to recover from");
        assert!(again.status.success() || complete, "step {steps}: {}", text(&again.stderr));
        holds_all(data_dir);
        for left in ["draft", "recovery.json"] {
            assert!(complete || !data_dir.join(left).exists(), "step {steps}: {left} is left");
        }
    }
    panic!("more than {STEPS_MAX} steps");
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(copied.success());
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_killed_at_any_step_is_completed() {
    let local = Local::up(3, 0);
    write(&local).await;
    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
    }
    let (before, data_dir): (PathBuf, PathBuf) = (local.dir().join("before"), local.dir().join("master-2"));
    copy(&data_dir, &before);
    let shim = with_shim(local.dir());
    let dir = path(&data_dir);
    let command = ["cluster", "recover", "--from-this-member", "--yes", "--data-dir", &dir];
    let steps = at_each_step(&shim, &data_dir, || copy(&before, &data_dir), &command);
    assert!(steps > 10, "{steps}");
    // The last one was not killed at all.
    holds_all(&data_dir);
    local.ok(&["local", "start", "master-2"]);
    local.serves("master-2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_killed_at_any_step_can_be_typed_again() {
    let local = Local::up(1, 0);
    write(&local).await;
    let (file, key) = (path(&local.dir().join("all.snapshot")), path(&local.dir().join("recovery.key")));
    local.ok(&["cluster", "snapshot", "save", &file]);
    local.ok(&["local", "kill", "master-1"]);
    let data_dir = local.dir().join("master-1");
    let shim = with_shim(local.dir());
    let command = local.restore_command(&file, &key, "master-1");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let fresh = || {
        let _ = std::fs::remove_dir_all(&data_dir);
    };
    let steps = at_each_step(&shim, &data_dir, fresh, &command);
    assert!(steps > 10, "{steps}");
    holds_all(&data_dir);
    local.ok(&["local", "start", "master-1"]);
    local.serves("master-1").await;

    // With a node on the same machine: one that the snapshot does not know is made with the state.
    local.ok(&["local", "kill", "master-1"]);
    fresh();
    local.ok(&[&command[..], &["--node"]].concat());
    let installation: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data_dir.join("hactl.json")).expect("hactl.json")).expect("JSON");
    let (cluster, member) = (&installation["cluster_id"], &installation["master"]["member_id"]);
    let survey = master::epoch::survey(&data_dir, cluster.as_str().expect("an id"), member.as_u64().expect("an id"));
    let state = survey.expect("whole").state;
    let node = state.get(&state::Key::node("master-1")).expect("the Node");
    assert_eq!(installation["node"]["uid"], node.header.uid.as_str());
    assert!(data_dir.join("pki/node.pem").exists());
    let refused = local.fails(&[&command[..], &["--start"]].concat());
    assert!(refused.contains("already belongs to cluster") || refused.contains("needs systemd"), "{refused}");
}
