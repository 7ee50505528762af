//! Everything is lost, and comes back from a snapshot file and the recovery key.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, PostParams};
use serde_json::Value;

use crate::support::{Local, eventually, text};
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

#[tokio::test(flavor = "multi_thread")]
async fn restore_starts_the_master_when_told_to() {
    let local = Local::up(1, 0);
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    api.create(&PostParams::default(), &config_map("kept", "1")).await.expect("create");
    let (file, key) = (local.dir().join("all.snapshot"), local.dir().join("recovery.key"));
    local.ok(&["cluster", "snapshot", "save", path(&file)]);
    local.ok(&["local", "kill", "master-1"]);
    std::fs::remove_dir_all(local.dir().join("master-1")).expect("remove");
    let mut command = local.restore_command(path(&file), path(&key), "master-1");
    command.push("--start".to_owned());
    let printed = local.ok(&strings(&command));
    assert!(!printed.contains("start this master") && printed.contains("hactl local up"), "{printed}");
    local.serves("master-1").await;
    api.get("kept").await.expect("it is there");
    assert!(local.status()["masters"][0]["pid"].is_i64(), "by the local cluster");
}

/// One machine that is master and node, in the foreground. It has no engine: its node is known, and never ready.
struct Machine {
    dir: tempfile::TempDir,
    ports: [u16; 2],
    child: Option<std::process::Child>,
}

impl Machine {
    fn new() -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr()).expect("a port");
        Self { dir: tempfile::tempdir().expect("dir"), ports: [free().port(), free().port()], child: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Becomes what these arguments make of it; its output goes to files of this name.
    fn become_by(&mut self, arguments: &[&str], output: &str) {
        let open = |kind: &str| std::fs::File::create(self.file(&format!("{output}.{kind}"))).expect("a file");
        let [api, peer] = self.ports.map(|port| format!("127.0.0.1:{port}"));
        let child = std::process::Command::new(crate::support::HACTL)
            .args(arguments)
            .args(["--node", "--node-name", "alone", "--docker-host", "unix:///nonexistent/docker.sock"])
            .args([
                "--advertise",
                &format!("127.0.0.1:{}", self.ports[0]),
                "--listen-api",
                &api,
                "--listen-peer",
                &peer,
            ])
            .arg("--data-dir")
            .arg(self.file("data"))
            .env_remove("KUBECONFIG")
            .stdin(std::process::Stdio::null())
            .stdout(open("out"))
            .stderr(open("err"))
            .spawn()
            .expect("run hactl");
        self.child = Some(child);
    }

    fn hactl(&self, arguments: &[&str]) -> std::process::Output {
        std::process::Command::new(crate::support::HACTL)
            .args(arguments)
            .env("KUBECONFIG", self.file("data").join("admin.kubeconfig"))
            .stdin(std::process::Stdio::null())
            .output()
            .expect("run hactl")
    }

    /// The Node, once its kubelet has reported.
    fn node(&self) -> Value {
        eventually("the node reports", || {
            let output = self.hactl(&["get", "nodes", "-o", "json"]);
            let nodes: Value = serde_json::from_slice(&output.stdout).map_err(|_| text(&output.stderr))?;
            let node = nodes["items"][0].clone();
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let reported = conditions.iter().any(|one| one["reason"] == "ContainerRuntimeNotReady");
            if reported { Ok(node) } else { Err(nodes.to_string()) }
        })
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn restore_makes_the_node_of_the_snapshot_this_machines_again() {
    if std::path::Path::new("/run/systemd/system").is_dir() {
        eprintln!("skipped: where systemd runs, --start installs a unit");
        return;
    }
    let mut machine = Machine::new();
    // No network is ever made of it, but it must not be another cluster's on this machine.
    machine.become_by(&["cluster", "init", "--foreground", "--cluster-cidr", "10.127.0.0/16"], "init");
    let before = machine.node();
    let printed = eventually("the recovery key is shown", || {
        let printed = std::fs::read_to_string(machine.file("init.out")).expect("read");
        if printed.contains("AGE-SECRET-KEY-1") { Ok(printed) } else { Err(printed) }
    });
    let secret = printed.lines().map(str::trim).find(|line| line.starts_with("AGE-SECRET-KEY-1")).expect("the key");
    std::fs::write(machine.file("key"), secret).expect("write");
    let file = machine.file("all.snapshot");
    let saved = machine.hactl(&["cluster", "snapshot", "save", path(&file)]);
    assert!(saved.status.success(), "{}", text(&saved.stderr));

    machine.stop();
    std::fs::remove_dir_all(machine.file("data")).expect("remove");
    let key = machine.file("key");
    let restore = ["cluster", "snapshot", "restore", path(&file), "--recovery-key-file", path(&key), "--start"];
    machine.become_by(&restore, "restore");
    let revision =
        |node: &Value| node["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
    // Until its kubelet says something, it is as it was saved.
    eventually("the node is back", || {
        let after = machine.node();
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "the same Node, under its certificate");
        let further = revision(&after) > revision(&before).map(|revision| revision + 1_000_000_000);
        if further { Ok(()) } else { Err(after.to_string()) }
    });
    let printed = std::fs::read_to_string(machine.file("restore.out")).expect("read");
    assert!(printed.contains("hactl cluster join"), "how the others come back: {printed}");
}

#[test]
fn where_a_snapshot_goes_is_looked_at_first() {
    let local = Local::up(1, 0);
    let missing = local.dir().join("nowhere/all.snapshot");
    let error = local.fails(&["cluster", "snapshot", "save", path(&missing)]);
    assert!(error.contains("there is no directory") && error.contains("nowhere"), "{error}");
    assert!(!error.contains("saving a snapshot"), "nothing was begun: {error}");
    let file = local.dir().join("local.json/all.snapshot");
    let error = local.fails(&["cluster", "snapshot", "save", path(&file)]);
    assert!(error.contains("cannot write in") && !error.contains("saving a snapshot"), "{error}");
}

#[test]
fn a_lost_recovery_key_is_replaced() {
    let local = Local::up(1, 0);
    let (old, new) = (local.dir().join("recovery.key"), local.dir().join("new.key"));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&old).expect("the key"));
    assert_eq!(mode & 0o777, 0o600);
    let printed = local.ok(&["cluster", "recovery-key", "rotate", "-o", path(&new)]);
    assert!(!printed.contains("AGE-SECRET-KEY"), "{printed}");
    assert!(printed.contains(&format!("{} holds the key before", path(&old))), "{printed}");
    let file = local.dir().join("all.snapshot");
    local.ok(&["cluster", "snapshot", "save", path(&file)]);
    let error = local.fails(&["cluster", "snapshot", "verify", path(&file), "--recovery-key-file", path(&old)]);
    assert!(error.contains("give the key that was current"), "{error}");
    local.ok(&["cluster", "snapshot", "verify", path(&file), "--recovery-key-file", path(&new)]);
    // Where a local cluster keeps its key, the new one is kept too; the one before stays for the snapshots before.
    let first = std::fs::read(&old).expect("the key");
    let printed = local.ok(&["cluster", "recovery-key", "rotate"]);
    assert!(printed.contains(&format!("recovery key: {} (", path(&old))), "{printed}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&old).expect("the key"));
    assert_eq!(mode & 0o777, 0o600);
    let before = printed.lines().find_map(|line| line.split_once("the key before: ")?.1.strip_suffix(')'));
    assert_eq!(std::fs::read(before.expect("its name")).expect("the key before"), first);
    let file = local.dir().join("next.snapshot");
    local.ok(&["cluster", "snapshot", "save", path(&file)]);
    local.ok(&["cluster", "snapshot", "verify", path(&file), "--recovery-key-file", path(&old)]);

    // Shown when there is no such file, and nowhere else: neither the cluster's files nor its logs hold it.
    std::fs::remove_file(&old).expect("remove");
    let printed = local.ok(&["cluster", "recovery-key", "rotate"]);
    let secret = printed.lines().map(str::trim).find(|line| line.starts_with("AGE-SECRET-KEY-1")).expect("the key");
    let found = std::process::Command::new("grep").args(["-rl", secret]).arg(local.dir()).output().expect("grep");
    assert_eq!(text(&found.stdout), "");
}
