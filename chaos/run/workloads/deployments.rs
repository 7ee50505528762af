//! Deployments: each client has one, and scales it or changes its template. Their pods run hactl's own sample program, so no
//! registry is needed.

use http::Method;
use serde_json::{Value, json};

use super::{LABEL, create};
use crate::run::clients::Client;
use crate::run::history::{Call, Outcome};

const REPLICAS_MAX: u64 = 4;
/// Says which template a pod was made of.
pub const TEMPLATE: &str = "hactl.local/template";

pub async fn run(client: &mut Client) {
    let name = format!("web-{}", client.number);
    let mut template = 1;
    while !client.is_stopped() {
        let replicas = client.random.between(1, REPLICAS_MAX + 1);
        if client.random.between(0, 3) == 0 {
            template += 1;
        }
        let call = Call::Scale(u32::try_from(replicas).unwrap_or(1), template);
        let object = deployment(client, &name, replicas, template);
        let path = client.path("deployments", &name);
        let outcome = client.write(&name, call.clone(), (Method::PUT, path, Some(object.clone()))).await;
        if matches!(&outcome, Outcome::Refused(words) if words.starts_with("404")) {
            client.write(&name, call, create(client, "deployments", object)).await;
        }
        client.pause(1_500, 6_000).await;
    }
}

fn deployment(client: &Client, name: &str, replicas: u64, template: u64) -> Value {
    let labels = json!({ "app": name, LABEL: client.workload });
    let mut of_pods = labels.clone();
    of_pods[TEMPLATE] = json!(template.to_string());
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "namespace": client.namespace, "labels": labels },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": of_pods },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "sample", "image": "hactl.local/sample:1",
                        "resources": { "requests": { "cpu": "5m", "memory": "8Mi" } },
                    }],
                },
            },
        },
    })
}
