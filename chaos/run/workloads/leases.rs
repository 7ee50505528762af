//! Lease objects as locks: taken when nobody holds them, by the resourceVersion that showed so; given back by whoever holds
//! them. Nobody takes one by the clock, so that two holders at once are always a fault of the store.

use serde_json::{Value, json};

use super::{LABEL, create, replace};
use crate::run::clients::Client;
use crate::run::history::{Call, Outcome};

const LOCKS: u64 = 2;
/// A held lock is given back within so many tries of a stopping client.
const GIVE_BACK_TRIES: usize = 100;

/// Its name; a cluster that began anew has others.
fn lock(client: &Client, number: u64) -> String {
    format!("lock-{}-{number}", client.history.restores())
}

fn holder(lease: &Value) -> Option<String> {
    lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
}

fn lease(client: &Client, name: &str, holder: Option<&str>, transitions: i64) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": name, "namespace": client.namespace, "labels": { LABEL: client.workload } },
        "spec": { "holderIdentity": holder, "leaseTransitions": transitions, "leaseDurationSeconds": 3600 },
    })
}

pub async fn run(client: &mut Client) {
    while !client.is_stopped() {
        let name = {
            let number = client.random.between(0, LOCKS);
            lock(client, number)
        };
        let (outcome, held) = client.read(&name, client.path("leases", &name), holder).await;
        let me = client.name.clone();
        match outcome {
            Outcome::Value(None, 0) => {
                let request = create(client, "leases", lease(client, &name, Some(&me), 1));
                client.write(&name, Call::Acquire, request).await;
            }
            Outcome::Value(None, _) => {
                let transitions = held["spec"]["leaseTransitions"].as_i64().unwrap_or_default() + 1;
                let taken = lease(client, &name, Some(&me), transitions);
                let request = replace(client, "leases", &name, taken, Some(&held));
                client.write(&name, Call::Acquire, request).await;
            }
            // Left over from a call whose outcome was unknown, or just acquired.
            Outcome::Value(Some(holder), _) if holder == me => {
                client.pause(1, 40).await;
                give_back(client, &name, &held).await;
            }
            _ => {}
        }
        client.pause(5, 50).await;
    }
    for number in 0..LOCKS {
        let name = lock(client, number);
        for _ in 0..GIVE_BACK_TRIES {
            let (outcome, held) = client.read(&name, client.path("leases", &name), holder).await;
            match outcome {
                Outcome::Value(Some(holder), _) if holder == client.name => give_back(client, &name, &held).await,
                Outcome::Value(..) => break,
                _ => {}
            }
        }
    }
}

async fn give_back(client: &mut Client, name: &str, held: &Value) {
    let transitions = held["spec"]["leaseTransitions"].as_i64().unwrap_or_default();
    let free = lease(client, name, None, transitions);
    client.write(name, Call::Release, replace(client, "leases", name, free, Some(held))).await;
}
