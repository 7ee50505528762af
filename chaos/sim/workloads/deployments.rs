//! Deployments that are made, scaled, rolled and removed through any master's API server.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::Random;
use crate::sim::nodes::IMAGES;
use crate::sim::world::World;

const DEPLOYMENTS: u64 = 3;
const REPLICAS_MAX: u64 = 5;
const THINK_MS: u64 = 1500;
const ALL: &str = "/apis/apps/v1/namespaces/default/deployments";

pub async fn run(world: Arc<World>, mut random: Random) {
    while !world.quiet.is_cancelled() && !world.nodes.ids().is_empty() {
        let name = format!("d{}", random.between(1, DEPLOYMENTS + 1));
        let one = format!("{ALL}/{name}");
        let replicas = random.between(0, REPLICAS_MAX + 1);
        let image = random.pick(&IMAGES).copied().unwrap_or_default();
        let (method, path, body) = match random.between(0, 10) {
            0..4 => (Method::POST, ALL, Some(deployment(&name, replicas, image))),
            4..7 => (Method::PATCH, one.as_str(), Some(json!({"spec": {"replicas": replicas}}))),
            7..9 => (Method::PATCH, one.as_str(), Some(rolled(image))),
            _ => (Method::DELETE, one.as_str(), None),
        };
        let processes = world.processes();
        if let Some((id, process)) = random.pick(&processes) {
            let answer = tokio::select! {
                biased;
                () = process.gone.cancelled() => None,
                answer = process.control.request(method.clone(), path, body.as_ref()) => Some(answer.0),
            };
            world.trace.say(format_args!("{method} {name} at m{id}: {answer:?}"));
        }
        world.think(random.between(0, THINK_MS)).await;
    }
}

fn rolled(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn deployment(name: &str, replicas: u64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}
