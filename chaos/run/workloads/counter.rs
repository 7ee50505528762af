//! Counters: each addition is a JSON patch that tests the value it builds on, so that two never build on one.

use http::Method;
use serde_json::{Value, json};

use super::{config_map, create, generation, read_all};
use crate::run::clients::Client;
use crate::run::history::{Call, Outcome};

const KEY: &str = "count";

pub async fn run(client: &mut Client) {
    while !client.is_stopped() {
        let name = format!("counter-{}", generation(client));
        let path = client.path("configmaps", &name);
        let (outcome, _) = client.read(&name, path.clone(), count).await;
        if let Outcome::Value(count, _) = outcome {
            let more = i64::try_from(client.random.between(1, 10)).unwrap_or(1);
            let request = match count {
                None => create(client, "configmaps", config_map(client, &name, KEY, &more.to_string())),
                Some(count) => {
                    let next = (count.parse::<i64>().unwrap_or_default() + more).to_string();
                    let at = format!("/data/{KEY}");
                    let test = json!({ "op": "test", "path": at, "value": count });
                    let set = json!({ "op": "replace", "path": at, "value": next });
                    (Method::PATCH, path, Some(json!([test, set])))
                }
            };
            client.write(&name, Call::Add(more), request).await;
        }
        client.pause(20, 100).await;
    }
}

fn count(object: &Value) -> Option<String> {
    object["data"][KEY].as_str().map(str::to_owned)
}

pub async fn finish(client: &mut Client) {
    read_all(client, |client, name| {
        Box::pin(async move { client.read(name, client.path("configmaps", name), count).await.0 })
    })
    .await;
}
