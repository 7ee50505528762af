//! A set that only grows: each element an object of its own, read by lists.

use http::Method;
use serde_json::{Value, json};

use super::{LABEL, config_map, create, generation, read_all};
use crate::run::clients::{Client, revision};
use crate::run::history::{Call, Outcome};

/// One list comes after so many creations.
const LIST_EVERY: u64 = 30;
const SET: &str = "hactl.local/set";

pub async fn run(client: &mut Client) {
    let mut made = 0;
    while !client.is_stopped() {
        made += 1;
        let set = format!("set-{}", generation(client));
        if made % LIST_EVERY == 0 {
            list(client, &set).await;
        }
        let name = format!("{set}-{}", client.unique());
        let mut object = config_map(client, &name, "value", &made.to_string());
        object["metadata"]["labels"][SET] = json!(set);
        client.write(&set, Call::Create(name), create(client, "configmaps", object)).await;
        client.pause(5, 25).await;
    }
}

async fn list(client: &mut Client, set: &str) -> Outcome {
    let path = format!("{}?labelSelector={LABEL}%3D{},{SET}%3D{set}", client.path("configmaps", ""), client.workload);
    client.call(set, Call::List, (Method::GET, path, None), names).await.0
}

fn names(list: &Value) -> Outcome {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names: Vec<String> =
        items.iter().filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect();
    names.sort_unstable();
    Outcome::Names(names, revision(list))
}

pub async fn finish(client: &mut Client) {
    read_all(client, |client, set| Box::pin(list(client, set))).await;
}
