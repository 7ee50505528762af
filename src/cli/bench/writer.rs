//! The writers of the failover benchmark: one per master, each always busy with one write, going to the other masters at
//! once when its own fails.
//!
//! Every tenth write creates a ConfigMap that is looked for at the end; the others count up one ConfigMap per writer. A
//! write that was answered is remembered with the time its accepted attempt was sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::load::Measured;

/// A write that no master has answered for this long is tried on the next one.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a round over all masters without an answer.
const ROUND_PAUSE: Duration = Duration::from_millis(5);
/// Creations among all writes.
const CREATE_EVERY: u64 = 10;

/// The last acknowledged write: when its accepted attempt was sent and answered.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub sent: Instant,
    pub answered: Instant,
}

/// What one run of writers leaves behind, and what is checked of it.
pub struct Ledger {
    run: String,
    namespace: String,
    acknowledged: AtomicU64,
    latest: Mutex<Vec<Acknowledged>>,
    /// From the first attempt of a write to the answer that accepted it; an error is an attempt without one.
    measured: Mutex<Measured>,
    created: Mutex<Vec<String>>,
    counted: Mutex<Vec<u64>>,
}

impl Ledger {
    pub fn new(run: String, namespace: String, writers: usize) -> Arc<Self> {
        Arc::new(Self {
            run,
            namespace,
            acknowledged: AtomicU64::new(0),
            latest: Mutex::new(Vec::new()),
            measured: Mutex::new(Measured::new()),
            created: Mutex::new(Vec::new()),
            counted: Mutex::new(vec![0; writers]),
        })
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn counter(&self, writer: usize) -> String {
        format!("{}-writer-{writer}", self.run)
    }

    fn note(&self, writer: usize, number: u64, created: Option<String>, begun: Instant, sent: Instant) {
        let acknowledged = Acknowledged { sent, answered: Instant::now() };
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.measured().note(acknowledged.answered - begun);
        let mut latest = self.latest.lock().expect("no writer panics with the lock");
        latest.push(acknowledged);
        match created {
            Some(name) => self.created.lock().expect("as above").push(name),
            None => self.counted.lock().expect("as above")[writer] = number,
        }
    }

    /// Latencies and errors of all writers.
    pub fn measured(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.measured.lock().expect("no writer panics with the lock")
    }

    /// Forgets the times of earlier writes.
    pub fn forget_times(&self) {
        self.latest.lock().expect("no writer panics with the lock").clear();
    }

    /// The first answer to a write that was sent after `since`.
    pub fn first_after(&self, since: Instant) -> Option<Instant> {
        let latest = self.latest.lock().expect("no writer panics with the lock");
        latest.iter().filter(|one| one.sent > since).map(|one| one.answered).min()
    }

    /// Writes that were acknowledged and are not there: names, and what is missing of them.
    pub async fn lost(&self, client: kube::Client) -> Result<Vec<String>> {
        let api: Api<ConfigMap> = Api::namespaced(client, &self.namespace);
        let selector = ListParams::default().labels(&format!("hactl.local/bench={}", self.run));
        let present = api.list(&selector).await.context("cannot list what was written")?;
        let value = |name: &str| {
            present.items.iter().find(|one| one.metadata.name.as_deref() == Some(name)).map(|one| {
                one.data
                    .as_ref()
                    .and_then(|data| data.get("count"))
                    .and_then(|count| count.parse::<u64>().ok())
                    .unwrap_or(0)
            })
        };
        let mut lost = Vec::new();
        for name in self.created.lock().expect("no writer panics with the lock").iter() {
            if value(name).is_none() {
                lost.push(format!("{name} is missing"));
            }
        }
        for (writer, counted) in self.counted.lock().expect("as above").iter().enumerate() {
            let name = self.counter(writer);
            let stored = value(&name).unwrap_or(0);
            if stored < *counted {
                lost.push(format!("{name} is at {stored}, {counted} was acknowledged"));
            }
        }
        Ok(lost)
    }

    /// Removes what was written.
    pub async fn clean(&self, client: kube::Client) -> Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(client, &self.namespace);
        let selector = ListParams::default().labels(&format!("hactl.local/bench={}", self.run));
        api.delete_collection(&Default::default(), &selector).await.context("cannot remove what was written")?;
        Ok(())
    }
}

/// One writer; `clients` are all masters, its own first.
pub struct Writer {
    pub index: usize,
    pub clients: Vec<kube::Client>,
    pub ledger: Arc<Ledger>,
    /// The least time between two writes, so that the writers do not take the processor from what they measure.
    pub pace: Duration,
    /// What each write carries beside its number.
    pub filling: String,
}

impl Writer {
    /// Writes until `stop`.
    ///
    /// # Errors
    /// A refusal that no other master would answer differently.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut number = 0;
        loop {
            number += 1;
            let work = async {
                self.write(number).await?;
                tokio::time::sleep(self.pace).await;
                anyhow::Ok(())
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                done = work => done?,
            }
        }
    }

    async fn write(&self, number: u64) -> Result<()> {
        let create =
            number.is_multiple_of(CREATE_EVERY).then(|| format!("{}-{}-{number}", self.ledger.run, self.index));
        let mut attempts = 0_u32;
        let begun = Instant::now();
        loop {
            for client in &self.clients {
                let sent = Instant::now();
                let attempt = self.attempt(client, number, create.as_deref(), attempts);
                attempts += 1;
                match tokio::time::timeout(ATTEMPT_LIMIT, attempt).await {
                    Ok(Ok(())) => {
                        self.ledger.note(self.index, number, create, begun, sent);
                        return Ok(());
                    }
                    Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
                        bail!("a write was refused: {} ({})", status.message, status.code)
                    }
                    // Not answered, or answered that it cannot be done now: the next master.
                    Ok(Err(error)) => self.ledger.measured().error(error),
                    Err(_) => self.ledger.measured().error(format!("no answer within {ATTEMPT_LIMIT:?}")),
                }
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        client: &kube::Client,
        number: u64,
        create: Option<&str>,
        attempts: u32,
    ) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), &self.ledger.namespace);
        let labels = json!({ "hactl.local/bench": self.ledger.run });
        let data = json!({ "count": number.to_string(), "filling": self.filling });
        if let Some(name) = create {
            let object = serde_json::from_value(json!({
                "metadata": { "name": name, "labels": labels }, "data": data,
            }));
            let object: ConfigMap = object.map_err(kube::Error::SerdeError)?;
            return match api.create(&PostParams::default(), &object).await {
                // An earlier attempt did it, and its answer was lost.
                Err(kube::Error::Api(status)) if status.code == 409 && attempts > 0 => Ok(()),
                other => other.map(drop),
            };
        }
        let name = self.ledger.counter(self.index);
        let patch = json!({ "metadata": { "labels": labels }, "data": data });
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let object = json!({ "metadata": { "name": name, "labels": labels }, "data": data });
                let object: ConfigMap = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
                api.create(&PostParams::default(), &object).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}
