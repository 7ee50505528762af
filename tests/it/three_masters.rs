//! What three masters promise together: one history, seen alike and at once on each of them, over deaths and restarts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Local, eventually_async};

pub fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

/// Every object of every listable resource, by path, uid and revision.
pub async fn everything(client: &kube::Client) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for path in [
        "/api/v1/namespaces",
        "/api/v1/nodes",
        "/api/v1/configmaps",
        "/api/v1/secrets",
        "/api/v1/services",
        "/api/v1/serviceaccounts",
        "/api/v1/pods",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
    ] {
        let request = http::Request::get(path).body(Vec::new()).expect("request");
        let list: Value = client.request(request).await.expect(path);
        for item in list["items"].as_array().expect("items") {
            let meta = &item["metadata"];
            let name =
                format!("{path} {}/{}", meta["namespace"].as_str().unwrap_or(""), meta["name"].as_str().expect("name"));
            all.insert(name, format!("{}@{}", meta["uid"], meta["resourceVersion"]));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_master_reads_what_was_written_through_any() {
    let local = Local::up(3, 0);
    let masters = local.masters();
    for writer in &masters {
        let through: Api<ConfigMap> = Api::default_namespaced(local.client(writer).await);
        let name = format!("written-through-{writer}");
        through.create(&PostParams::default(), &config_map(&name, "1")).await.expect("create");
        for round in 2..12 {
            let patch = json!({ "data": { "value": round.to_string() } });
            let written = through.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch");
            for reader in &masters {
                let read: Api<ConfigMap> = Api::default_namespaced(local.client(reader).await);
                let read = read.get(&name).await.expect("get");
                assert_eq!(read, written, "{reader} after a write through {writer}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_and_writes_go_on_and_it_comes_back_equal() {
    let local = Local::up(3, 0);
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    api.create(&PostParams::default(), &config_map("before", "1")).await.expect("create");
    let first = local.leader();
    local.ok(&["local", "kill", &first]);
    eventually_async("a write is accepted again", async || {
        match api.create(&PostParams::default(), &config_map("after", "1")).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop).map_err(|error| error.to_string()),
        }
    })
    .await;
    assert_ne!(local.leader(), first);
    let status = local.status();
    let dead = status["masters"].as_array().expect("masters").iter().find(|one| one["name"] == *first).expect("it");
    assert!(dead["pid"].is_null(), "{dead}");

    local.ok(&["local", "start", &first]);
    local.serves(&first).await;
    let expected = everything(&local.client("local").await).await;
    assert!(expected.keys().any(|name| name.ends_with("/after")));
    for master in local.masters() {
        assert_eq!(everything(&local.client(&master).await).await, expected, "{master}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_masters_killed_at_once_come_back_with_every_object() {
    let local = Local::up(3, 0);
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    for number in 0..50 {
        api.create(&PostParams::default(), &config_map(&format!("kept-{number}"), "1")).await.expect("create");
    }
    let before = everything(&local.client("local").await).await;
    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
    }
    // `up` on a dead cluster starts what is missing and makes nothing new.
    local.ok(&["local", "up", "--masters", "3", "--nodes", "0"]);
    for master in local.masters() {
        local.serves(&master).await;
        assert_eq!(everything(&local.client(&master).await).await, before, "{master}");
    }
    let list = api.list(&ListParams::default()).await.expect("list");
    assert_eq!(
        list.items.iter().filter(|one| one.metadata.name.as_deref().unwrap_or("").starts_with("kept-")).count(),
        50
    );
}
