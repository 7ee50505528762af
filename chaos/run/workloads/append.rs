//! Lists of numbers: an append reads the list and replaces exactly that version by one with a number more.

use serde_json::Value;

use super::{config_map, create, generation, read_all, replace};
use crate::run::clients::Client;
use crate::run::history::{Call, Outcome};

const LISTS: u64 = 2;
const KEY: &str = "items";

pub async fn run(client: &mut Client) {
    while !client.is_stopped() {
        let name = format!("list-{}-{}", generation(client), client.random.between(0, LISTS));
        let path = client.path("configmaps", &name);
        let (outcome, held) = client.read(&name, path, items).await;
        if let Outcome::Value(items, _) = outcome
            && client.random.between(0, 3) > 0
        {
            let number = client.unique();
            let request = match items {
                None => create(client, "configmaps", config_map(client, &name, KEY, &number.to_string())),
                Some(items) => {
                    let longer = config_map(client, &name, KEY, &format!("{items},{number}"));
                    replace(client, "configmaps", &name, longer, Some(&held))
                }
            };
            client.write(&name, Call::Append(number), request).await;
        }
        client.pause(20, 120).await;
    }
}

fn items(object: &Value) -> Option<String> {
    object["data"][KEY].as_str().map(str::to_owned)
}

pub async fn finish(client: &mut Client) {
    read_all(client, |client, name| {
        Box::pin(async move { client.read(name, client.path("configmaps", name), items).await.0 })
    })
    .await;
}
