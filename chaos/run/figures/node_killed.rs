//! A node dies with its pods, perhaps the leader with it: how long until as many are ready elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};

use super::{Bench, Found, LOOK_EVERY, WHOLE_WITHIN, spread};
use crate::run::history::Micros;
use crate::run::report::time;
use crate::run::targets::Signal;

const REPLICAS: usize = 4;
/// How often; each costs a minute.
const ROUNDS_MAX: usize = 5;

pub async fn measure(bench: &mut Bench, leader_too: bool, promised: Duration) -> Result<Found> {
    let probe = bench.probe();
    bench.session.accepted().await?;
    deploy(bench).await?;
    let (mut times, mut gaps) = (Vec::new(), Vec::new());
    for round in 0..bench.kills.min(ROUNDS_MAX) {
        // As many on each as there were when the first node died.
        let nodes: Vec<String> = bench.session.stage.target.nodes().into_iter().map(|node| node.name).collect();
        for node in &nodes {
            nodes_ready(bench, node).await?;
        }
        redeploy(bench, round).await?;
        ready_without(bench, None, Some(round)).await?;
        let leader = bench.settled().await?;
        let victim = &nodes[round % nodes.len()];
        let stage = &bench.session.stage;
        let at = stage.history.now();
        if leader_too {
            stage.target.signal(&leader, Signal::Kill).await?;
        }
        stage.target.lose_node(victim).await?;
        if leader_too {
            gaps.push(bench.gap(at).await?);
        }
        let ready = ready_without(bench, Some(victim), Some(round)).await;
        if leader_too {
            bench.session.stage.target.start(&leader).await?;
        }
        bench.session.stage.target.start(victim).await?;
        times.push(ready?.saturating_sub(at));
        eprintln!("{victim} died: pods elsewhere after {}", time(times.last().copied().unwrap_or_default()));
    }
    probe.end("a writer").await?;
    let mut words = format!("pods ready elsewhere: {}", spread(&mut times));
    if leader_too {
        words = format!("{words}; gap in writes: {}", spread(&mut gaps));
    }
    let promised = Micros::try_from(promised.as_micros()).unwrap_or(Micros::MAX);
    let good = times.last().is_some_and(|longest| *longest <= promised) && gaps.iter().all(|gap| *gap <= 1_500_000);
    Ok(Found { words, good })
}

/// Pods that run and are ready, for another figure.
pub async fn deployed(bench: &Bench) -> Result<()> {
    deploy(bench).await?;
    ready_without(bench, None, None).await.map(drop)
}

fn base(bench: &Bench) -> String {
    format!("namespaces/{}", bench.session.namespace)
}

async fn deploy(bench: &Bench) -> Result<()> {
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": REPLICAS,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "sample", "image": "hactl.local/sample:1",
                        "resources": { "requests": { "cpu": "5m", "memory": "8Mi" } },
                    }],
                },
            },
        },
    });
    let path = format!("/apis/apps/v1/{}/deployments", base(bench));
    bench.session.stage.doors.0[0].ask(Method::POST, &path, Some(&object)).await?;
    Ok(())
}

/// Pods are made anew, so that they spread over all nodes.
async fn redeploy(bench: &Bench, round: usize) -> Result<()> {
    let path = format!("/apis/apps/v1/{}/deployments/web", base(bench));
    let patch = json!([{ "op": "add", "path": "/spec/template/metadata/annotations", "value": { "round": round.to_string() } }]);
    bench.session.stage.doors.0[0].ask(Method::PATCH, &path, Some(&patch)).await?;
    Ok(())
}

async fn nodes_ready(bench: &Bench, node: &str) -> Result<()> {
    let since = Instant::now();
    loop {
        let found = bench.session.stage.doors.0[0].get(&format!("/api/v1/nodes/{node}")).await;
        if found.is_ok_and(|node| condition(&node, "Ready")) {
            return Ok(());
        }
        if since.elapsed() > WHOLE_WITHIN {
            bail!("{node} is not Ready");
        }
        tokio::time::sleep(LOOK_EVERY * 20).await;
    }
}

fn condition(object: &Value, name: &str) -> bool {
    let all = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().any(|one| one["type"] == name && one["status"] == "True")
}

/// Waits until all replicas of this round are ready on other nodes than this one, and the roll-out is over; when.
async fn ready_without(bench: &Bench, dead: Option<&str>, round: Option<usize>) -> Result<Micros> {
    let stage = &bench.session.stage;
    let since = Instant::now();
    let round = round.map(|round| round.to_string());
    let mut at = 0;
    loop {
        // A master may be dead too: the next one is asked.
        let door = &stage.doors.0[at % stage.doors.0.len()];
        match door.get(&format!("/api/v1/{}/pods", base(bench))).await {
            Ok(list) => {
                let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                let here = |pod: &&Value| dead.is_none_or(|dead| pod["spec"]["nodeName"] != dead);
                let living = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null() && condition(pod, "Ready");
                let of_round = |pod: &&Value| pod["metadata"]["annotations"]["round"].as_str() == round.as_deref();
                let ready = items.iter().filter(here).filter(living).filter(of_round).count();
                let rolled = dead.is_some() || items.len() == REPLICAS;
                if ready == REPLICAS && rolled {
                    return Ok(stage.history.now());
                }
            }
            Err(_) => at += 1,
        }
        if since.elapsed() > WHOLE_WITHIN {
            bail!("{REPLICAS} pods are not ready within {} s", WHOLE_WITHIN.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY * 4).await;
    }
}
