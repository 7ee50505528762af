//! Services that ask for the same few node ports: each client makes one after the other, and gives back the one before.

use http::Method;
use serde_json::json;

use super::{LABEL, create, generation};
use crate::run::clients::Client;
use crate::run::history::{Call, Outcome};

/// The ports that all ask for.
const PORTS: (u64, u64) = (31_100, 31_104);

pub async fn run(client: &mut Client) {
    let mut held: Option<String> = None;
    while !client.is_stopped() {
        if let Some(name) = held.take() {
            let request = (Method::DELETE, client.path("services", &name), None);
            match client.write(&name, Call::Delete, request).await {
                Outcome::Failed(_) | Outcome::Unknown(_) => held = Some(name),
                _ => {}
            }
        } else {
            let name = format!("service-{}-{}", generation(client), client.unique());
            let port = client.random.between(PORTS.0, PORTS.1);
            let object = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": name, "namespace": client.namespace, "labels": { LABEL: client.workload } },
                "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": port }] },
            });
            match client.write(&name, Call::Create(port.to_string()), create(client, "services", object)).await {
                Outcome::Refused(_) | Outcome::Failed(_) => {}
                // Also what is unknown is given back: it may be there.
                _ => held = Some(name),
            }
        }
        client.pause(50, 400).await;
    }
}
