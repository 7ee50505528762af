//! Writers that only write, as fast as is needed to see short gaps: each replaces one object of its own again and again, asks
//! the next master at once when one fails it, and repeats a write until it is accepted, as clients do.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::run::clients::{Client, Trouble, revision};
use crate::run::history::{Call, Outcome};
use crate::run::workloads::Workload;

/// Between two writes, in milliseconds.
const PACE_MS: (u64, u64) = (4, 6);
/// A write is given up after so long; that is a failed request.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Before a master is asked again, or the next one.
const RETRY: Duration = Duration::from_millis(20);

pub static PROBE: Workload = Workload {
    name: "probe",
    about: "writes, one after the other, each repeated until it is accepted",
    clients: 3,
    last: false,
    run: |client| Box::pin(run(client)),
    finish: |_| Box::pin(async {}),
};

async fn run(client: &mut Client) {
    let name = format!("probe-{}", client.number);
    while !client.is_stopped() {
        let value = client.unique().to_string();
        let on = &client.door().master;
        let number = client.history.begin(client.workload, &client.name, on, &name, Call::Write(value.clone()));
        let outcome = accepted(client, &name, &value).await;
        client.history.end(number, outcome);
        client.pause(PACE_MS.0, PACE_MS.1).await;
    }
}

async fn accepted(client: &mut Client, name: &str, value: &str) -> Outcome {
    let object: Value = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": client.namespace }, "data": { "value": value },
    });
    let since = Instant::now();
    let mut missing = false;
    loop {
        let (method, path) = if missing {
            (Method::POST, client.path("configmaps", ""))
        } else {
            (Method::PUT, client.path("configmaps", name))
        };
        let trouble = match client.door().ask(method, &path, Some(&object)).await {
            Ok(answer) => return Outcome::Done(revision(&answer)),
            Err(trouble) => trouble,
        };
        match &trouble {
            Trouble::Refused(404, _) => missing = true,
            Trouble::Refused(409, _) if missing => missing = false,
            _ if since.elapsed() > GIVE_UP => return trouble.outcome(),
            _ => {
                client.next();
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
