//! Masters come, go, lead and are replaced, with the commands a user types.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};

use crate::support::{HACTL, Local, eventually, eventually_async, text};
use crate::three_masters::{config_map, everything};

fn status(local: &Local) -> serde_json::Value {
    serde_json::from_str(&local.ok(&["cluster", "status", "-o", "json"])).expect("JSON")
}

fn member<'a>(status: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    status["members"].as_array().expect("members").iter().find(|member| member["name"] == name)
}

fn replace(local: &Local, name: &str, arguments: &[&str]) -> Output {
    Command::new(HACTL)
        .args(["cluster", "replace", "--no-start", "--data-dir"])
        .arg(local.dir().join(name))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("run hactl")
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_a_lost_database_is_replaced_and_a_master_is_removed() {
    let local = Local::up(3, 0);
    for to in ["master-2", "master-3", "master-1"] {
        let printed = local.ok(&["cluster", "transfer-leadership", to]);
        assert_eq!(printed, format!("{to} leads\n"));
        assert_eq!(status(&local)["leader"], *to);
    }
    assert!(local.fails(&["cluster", "transfer-leadership", "nobody"]).contains("there is no master nobody"));
    let printed = local.ok(&["cluster", "transfer-leadership"]);
    assert!(!printed.contains("master-1 "), "{printed}");
    local.ok(&["cluster", "transfer-leadership", "master-1"]);

    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    for number in 0..20 {
        api.create(&PostParams::default(), &config_map(&format!("kept-{number}"), "1")).await.expect("create");
    }

    // One that lives is not replaced, neither this one nor another.
    let refused = replace(&local, "master-2", &[]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("runs and nothing is wrong with it"), "{}", text(&refused.stderr));
    local.serves("master-2").await;
    assert_eq!(local.log("master-2").matches("master stopped").count(), 0, "it was left alone");
    local.ok(&["local", "kill", "master-2"]);
    let refused = replace(&local, "master-2", &["master-3"]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("answers, so it is not dead"), "{}", text(&refused.stderr));

    // Its database is gone: one command, without any argument, makes a new member of the machine.
    let data = local.dir().join("master-2");
    std::fs::remove_dir_all(data.join("state")).expect("remove");
    std::fs::write(data.join("log.synced"), "damaged").expect("write");
    let old_id = member(&status(&local), "master-2").expect("listed")["id"].as_u64().expect("an id");

    // It cannot lead either, and being asked for it costs the leader nothing.
    let before = status(&local);
    let error = local.fails(&["cluster", "transfer-leadership", "master-2"]);
    assert!(error.contains("master-2") && error.contains("does not answer, so it cannot lead"), "{error}");
    let term = |status: &serde_json::Value| member(status, "master-1").expect("listed")["term"].clone();
    let after = status(&local);
    assert_eq!((&after["leader"], term(&after)), (&before["leader"], term(&before)), "no election");

    // With one of three dead a further one may not go.
    let error = eventually("the removal is judged by who answers", || {
        let output = local.hactl(&["cluster", "remove", "master-3"]);
        let error = text(&output.stderr);
        if output.status.success() || !error.contains("majority") { Err(error) } else { Ok(error) }
    });
    assert!(error.contains("start master-2 first"), "{error}");

    let output = replace(&local, "master-2", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(data.join(format!("replaced-{old_id}/log")).exists(), "the old database is put aside");
    local.ok(&["local", "start", "master-2"]);
    local.serves("master-2").await;
    let id = eventually("the new member votes", || {
        let status = status(&local);
        match member(&status, "master-2") {
            Some(found) if found["voter"] == true => Ok(found["id"].as_u64().expect("an id")),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(id > old_id);
    let expected = everything(&local.client("master-1").await).await;
    assert!(expected.keys().any(|name| name.ends_with("/kept-19")));
    assert_eq!(everything(&local.client("master-2").await).await, expected);
    assert_eq!(status(&local)["members"].as_array().map(Vec::len), Some(3));

    // The leader itself is removed: it hands over first, and is refused from then on.
    let leader = local.leader();
    let printed = local.ok(&["cluster", "remove", &leader]);
    assert!(printed.contains(&format!("{leader} (member ")), "{printed}");
    local.ok(&["local", "kill", &leader]);
    let status = status(&local);
    assert_eq!(status["members"].as_array().map(Vec::len), Some(2));
    assert!(member(&status, &leader).is_none() && status["leader"].is_string());
    eventually_async("writes go on", async || {
        match api.create(&PostParams::default(), &config_map("after", "1")).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop).map_err(|error| error.to_string()),
        }
    })
    .await;
    let error = local.fails(&["local", "start", &leader]);
    assert!(error.contains("was removed from cluster") && error.contains("hactl cluster leave --force"), "{error}");
}

#[test]
fn up_replaces_a_master_whose_data_dir_is_gone() {
    let local = Local::up(3, 0);
    let victim = local.masters().into_iter().find(|name| *name != local.leader()).expect("a follower");
    let before = member(&status(&local), &victim).expect("listed")["id"].clone();
    local.ok(&["local", "kill", &victim]);
    std::fs::remove_dir_all(local.dir().join(&victim)).expect("remove");
    let error = local.fails(&["local", "start", &victim]);
    assert!(error.contains("has no data any more") && error.contains("hactl local up --dir"), "{error}");
    local.ok(&["local", "up"]);
    let after = eventually("nothing is wrong", || {
        let status = status(&local);
        if status["problems"] == serde_json::json!([]) { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(after["members"].as_array().map(Vec::len), Some(3), "{after}");
    assert_ne!(member(&after, &victim).expect("listed")["id"], before, "under an id of its own");
}

#[test]
fn the_last_master_leaves_only_by_force() {
    let local = Local::up(1, 0);
    let data = local.dir().join("master-1");
    let leave = |further: &[&str]| {
        let mut command = Command::new(HACTL);
        command.args(["cluster", "leave", "--data-dir"]).arg(&data).args(further).env_remove("KUBECONFIG");
        command.stdin(Stdio::null()).output().expect("run hactl")
    };
    local.kubectl(&["create", "configmap", "kept"]);
    let output = leave(&[]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("this is the last master"), "{error}");
    assert!(error.contains("nothing was changed") && error.contains("--force"), "{error}");
    assert!(local.ok(&["get", "cm"]).contains("kept"), "it serves as before");
    let output = leave(&["--force"]);
    assert!(output.status.success() && !data.exists(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the cluster does not know of it"), "{}", text(&output.stderr));
    assert!(local.status()["masters"][0]["pid"].is_null(), "its process ended");
}

/// A newcomer asks those that it was told of when it joined. Since then the leader may be another, and who told it may have
/// been a newcomer itself.
/// Its kubeconfig was made when it was the only one, and names no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_master_finds_the_others_when_its_database_is_lost() {
    let local = Local::up(3, 0);
    local.ok(&["local", "kill", "master-1"]);
    let data = local.dir().join("master-1");
    std::fs::remove_dir_all(data.join("state")).expect("remove");
    std::fs::write(data.join("log.synced"), "damaged").expect("write");
    let output = replace(&local, "master-1", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    local.ok(&["local", "start", "master-1"]);
    local.serves("master-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_was_told_of_a_follower_only_finds_the_leader() {
    let local = Local::up_with(3, 0, &["--service-cidr", "10.55.0.0/16"]);
    local.ok(&["local", "kill", "master-2"]);
    let data = local.dir().join("master-2");
    std::fs::remove_dir_all(&data).expect("remove");
    let token: serde_json::Value =
        serde_json::from_str(&local.ok(&["cluster", "token", "create", "--master", "-o", "json"])).expect("JSON");
    let (plan, address) = (local.plan(), local.address("master-1"));
    let [api, peer] = ["api", "peer"].map(|port| format!("127.0.0.1:{}", plan["masters"][1][port]));
    let place = ["--node-name", "master-2", "--advertise", "127.0.0.1", "--listen-api", &api, "--listen-peer", &peer];
    let way_in = ["master-2", "--from", &address, "--token", token["token"].as_str().expect("a token")];
    // A newcomer that is refused costs the dead one nothing: it may come back.
    let others = ["--node-name", "master-2", "--advertise", &address, "--listen-api", &api, "--listen-peer", &peer];
    let output = replace(&local, "master-2", &[&way_in[..], &others[..]].concat());
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("has that address already"), "{error}");
    assert!(!data.exists() && member(&status(&local), "master-2").is_some(), "nothing has changed");
    let output = replace(&local, "master-2", &[&way_in[..], &place[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(data.join(name)).expect("read")).expect("JSON")
    };
    assert_eq!(read("hactl.json")["settings"]["service-cidr"], "10.55.0.0/16", "what init fixed was handed to it");

    local.ok(&["cluster", "transfer-leadership", "master-1"]);
    let file = data.join("master.json");
    let mut told = read("master.json");
    let members = told["members"].as_array_mut().expect("members");
    assert_eq!(members.len(), 2, "those that are members now: {members:?}");
    members.retain(|member| member["name"] == "master-3");
    std::fs::write(&file, told.to_string()).expect("write");
    local.ok(&["local", "start", "master-2"]);
    eventually("it votes", || {
        let output = local.hactl(&["cluster", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| text(&output.stderr))?;
        match member(&status, "master-2") {
            Some(found) if found["voter"] == true => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Pid of a process of the cluster.
fn pid(local: &Local, master: &str) -> i32 {
    let status = local.status();
    let masters = status["masters"].as_array().expect("masters");
    let found = masters.iter().find(|one| one["name"] == master).expect("the master");
    i32::try_from(found["pid"].as_i64().expect("a pid")).expect("a pid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_stop_of_the_leader_costs_each_client_at_most_one_retry() {
    const WRITERS: usize = 8;
    let local = Local::up(3, 0);
    let leader = local.leader();
    let ended = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
        let (ended, written) = (ended.clone(), written.clone());
        writers.push(tokio::spawn(async move {
            let mut failures: Vec<String> = Vec::new();
            for number in 0.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("w{writer}-{number}");
                let mut tries = 0;
                loop {
                    match api.create(&PostParams::default(), &config_map(&name, "1")).await {
                        Ok(_) => break,
                        // The retry of a write whose answer was lost: it had been made.
                        Err(kube::Error::Api(status)) if status.code == 409 && tries > 0 => break,
                        Err(error) => {
                            tries += 1;
                            failures.push(error.to_string());
                            // As the answer's Retry-After asks, and as clients do.
                            if matches!(&error, kube::Error::Api(status) if status.code == 503) {
                                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                            }
                        }
                    }
                }
                written.fetch_add(1, Ordering::Relaxed);
            }
            failures
        }));
    }
    let enough = async |count: usize| {
        eventually_async("the writers write", async || {
            let now = written.load(Ordering::Relaxed);
            if now >= count { Ok(()) } else { Err(now) }
        })
        .await;
    };
    enough(50).await;
    let process = nix::unistd::Pid::from_raw(pid(&local, &leader));
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    eventually("it ends", || if nix::sys::signal::kill(process, None).is_err() { Ok(()) } else { Err("it runs") });
    enough(written.load(Ordering::Relaxed) + 100).await;
    ended.store(true, Ordering::Relaxed);
    for writer in writers {
        let failures = writer.await.expect("no panic");
        assert!(failures.len() <= 1, "{} failures: {failures:?}", failures.len());
    }
    let log = local.log(&leader);
    assert!(log.contains("master stopped") && !log.contains("nobody took over"), "{log}");
}
