//! Several clients make and remove ConfigMaps through any master's API server in a namespace whose ResourceQuota leaves room
//! for fewer than they want, and is itself changed now and then.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::Random;
use crate::sim::world::World;

const CLIENTS: usize = 3;
const MAPS: u64 = 8;
const ROOM_MAX: u64 = 4;
const THINK_MS: u64 = 3000;
/// Of so many steps one is about the quota.
const QUOTA_ONE_IN: u64 = 8;
const ALL: &str = "/api/v1/namespaces/default/configmaps";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

pub async fn run(world: Arc<World>, mut random: Random) {
    if world.nodes.ids().is_empty() {
        return;
    }
    let clients = (0..CLIENTS).map(|_| client(world.clone(), random.fork()));
    futures::future::join_all(clients.collect::<Vec<_>>()).await;
}

async fn client(world: Arc<World>, mut random: Random) {
    while !world.quiet.is_cancelled() {
        let (method, path, body) = step(&mut random);
        let processes = world.processes();
        if let Some((id, process)) = random.pick(&processes) {
            let answer = tokio::select! {
                biased;
                () = process.gone.cancelled() => None,
                answer = process.control.request(method.clone(), &path, body.as_ref()) => Some(answer.0),
            };
            world.trace.say(format_args!("{method} {path} at m{id}: {answer:?}"));
        }
        world.think(random.between(0, THINK_MS)).await;
    }
}

fn step(random: &mut Random) -> (Method, String, Option<Value>) {
    let one = format!("m{}", random.between(1, MAPS + 1));
    let quota =
        |room: u64| json!({ "metadata": { "name": "few" }, "spec": { "hard": { "configmaps": room.to_string() } } });
    match random.between(0, QUOTA_ONE_IN) {
        0 if random.between(0, 2) == 0 => (Method::POST, QUOTAS.to_owned(), Some(quota(ROOM_MAX))),
        0 => (Method::PATCH, format!("{QUOTAS}/few"), Some(quota(random.between(1, ROOM_MAX + 1)))),
        1 | 2 => (Method::DELETE, format!("{ALL}/{one}"), None),
        _ => (Method::POST, ALL.to_owned(), Some(json!({ "metadata": { "name": one }, "data": { "k": "v" } }))),
    }
}
