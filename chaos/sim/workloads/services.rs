//! Services that are made and removed through any master's API server: several at once ask for one address or port.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::Random;
use crate::sim::world::World;

const CLIENTS: usize = 2;
const SERVICES: u64 = 6;
/// Few, so that they are often taken.
const PORTS: u64 = 4;
const PORT_FIRST: u64 = 30_000;
const THINK_MS: u64 = 4000;
const ALL: &str = "/api/v1/namespaces/default/services";

pub async fn run(world: Arc<World>, mut random: Random) {
    if world.nodes.ids().is_empty() {
        return;
    }
    let clients = (0..CLIENTS).map(|_| client(world.clone(), random.fork()));
    futures::future::join_all(clients.collect::<Vec<_>>()).await;
}

async fn client(world: Arc<World>, mut random: Random) {
    while !world.quiet.is_cancelled() {
        let name = format!("s{}", random.between(1, SERVICES + 1));
        let one = format!("{ALL}/{name}");
        let (method, path, body) = match random.between(0, 3) {
            0 => (Method::DELETE, one.as_str(), None),
            _ => (Method::POST, ALL, Some(service(&name, &mut random))),
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

fn service(name: &str, random: &mut Random) -> Value {
    let mut spec = json!({ "selector": { "app": name }, "ports": [{ "port": 80 }] });
    match random.between(0, 4) {
        0 => spec["clusterIP"] = format!("10.96.7.{}", random.between(1, PORTS + 1)).into(),
        1 => spec["type"] = "NodePort".into(),
        2 => {
            spec["type"] = "NodePort".into();
            spec["ports"][0]["nodePort"] = (PORT_FIRST + random.between(0, PORTS)).into();
        }
        _ => {}
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}
