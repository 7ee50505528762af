//! After the leader is gone: from the first write that a new one accepts to the first act of a controller, seen as a pod of a
//! Deployment that was scaled up in between.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::{Value, json};

use super::{ACCEPTED_WITHIN, Bench, Found, LOOK_EVERY, spread};
use crate::run::clients::Door;
use crate::run::history::Micros;
use crate::run::targets::Signal;

const LONGEST: Micros = 1_000_000;
/// Losses that say enough; a Deployment each.
const LOSSES_MAX: usize = 30;

pub async fn measure(bench: &mut Bench) -> Result<Found> {
    let probe = bench.probe();
    bench.session.accepted().await?;
    let mut times = Vec::new();
    for number in 0..bench.kills.min(LOSSES_MAX) {
        let leader = bench.settled().await?;
        let stage = &bench.session.stage;
        let at = stage.history.now();
        stage.target.signal(&leader, Signal::Kill).await?;
        let acted = acted(bench, &leader, number).await;
        bench.session.stage.target.start(&leader).await?;
        let acted = acted?;
        let first = bench.session.stage.history.accepted_after(at).context("no write was accepted")?;
        times.push(acted.saturating_sub(first));
    }
    bench.settled().await?;
    probe.end("a writer").await?;
    let words = format!("after {} killed leaders: {}", times.len(), spread(&mut times));
    Ok(Found { words, good: times.last().is_some_and(|longest| *longest <= LONGEST) })
}

/// When the first pod of a new Deployment is there, by way of a master that lives.
async fn acted(bench: &Bench, dead: &str, number: usize) -> Result<Micros> {
    let stage = &bench.session.stage;
    let door = stage.doors.0.iter().find(|door| door.master != dead).context("one master is not enough")?;
    let name = format!("act-{number}");
    let base = format!("namespaces/{}", bench.session.namespace);
    insist(door, Method::POST, &format!("/apis/apps/v1/{base}/deployments"), &deployment(&name)).await?;
    let since = Instant::now();
    let pods = format!("/api/v1/{base}/pods?limit=1&labelSelector=app%3D{name}");
    loop {
        if let Ok(list) = door.get(&pods).await
            && list["items"].as_array().is_some_and(|items| !items.is_empty())
        {
            return Ok(stage.history.now());
        }
        if since.elapsed() > ACCEPTED_WITHIN {
            bail!("no controller acts within {} s", ACCEPTED_WITHIN.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Repeats a request until it is accepted.
async fn insist(door: &Door, method: Method, path: &str, object: &Value) -> Result<()> {
    let since = Instant::now();
    loop {
        match door.ask(method.clone(), path, Some(object)).await {
            // There already: the answer to an earlier try was lost.
            Ok(_) | Err(crate::run::clients::Trouble::Refused(409, _)) => return Ok(()),
            Err(trouble) if since.elapsed() > ACCEPTED_WITHIN => return Err(trouble.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "sample", "image": "hactl.local/sample:1" }] },
            },
        },
    })
}
