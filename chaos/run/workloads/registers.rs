//! Registers: ConfigMaps with one value. Those of even number are also written without a condition, those of odd number
//! deleted and created again; both are replaced by the resourceVersion a client read. One client stays with each master, so
//! that whoever is cut off is asked all the same; the others go where they are served.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

use super::{config_map, create, generation, read_all, replace};
use crate::run::clients::Client;
use crate::run::history::{Call, Outcome};

/// Registers at a time.
const REGISTERS: u64 = 4;
const KEY: &str = "value";

fn value(object: &Value) -> Option<String> {
    object["data"][KEY].as_str().map(str::to_owned)
}

pub async fn run(client: &mut Client) {
    // What this client read last, by register.
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    if client.number < client.masters() {
        client.stay();
    }
    while !client.is_stopped() {
        let number = client.random.between(0, REGISTERS);
        let name = format!("register-{}-{number}", generation(client));
        let dice = client.random.between(0, 100);
        let new = client.unique().to_string();
        let object = config_map(client, &name, KEY, &new);
        match seen.get(&name).cloned() {
            Some(Value::Null) if dice < 50 => {
                client.write(&name, Call::Create(new), create(client, "configmaps", object)).await;
                seen.remove(&name);
            }
            Some(held) if !held.is_null() && dice < 40 => {
                let before = value(&held).unwrap_or_default();
                let request = replace(client, "configmaps", &name, object, Some(&held));
                client.write(&name, Call::Swap(before, new), request).await;
                // Sometimes what is stale now is used again, and must be refused.
                if dice < 35 {
                    seen.remove(&name);
                }
            }
            Some(held) if !held.is_null() && dice < 50 && number.is_multiple_of(2) => {
                client.write(&name, Call::Write(new), replace(client, "configmaps", &name, object, None)).await;
            }
            Some(held) if !held.is_null() && dice < 50 => {
                let request = (Method::DELETE, client.path("configmaps", &name), None);
                client.write(&name, Call::Delete, request).await;
                seen.remove(&name);
            }
            _ => {
                let (outcome, object) = client.read(&name, client.path("configmaps", &name), value).await;
                if matches!(outcome, Outcome::Value(..)) {
                    seen.insert(name, object);
                }
            }
        }
        client.pause(10, 60).await;
    }
}

pub async fn finish(client: &mut Client) {
    read_all(client, |client, name| {
        Box::pin(async move { client.read(name, client.path("configmaps", name), value).await.0 })
    })
    .await;
}
