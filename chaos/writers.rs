//! Counting writers: each creates one ConfigMap after the other, numbered, over any master that answers, and keeps what was
//! acknowledged.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A write without an answer for this long is tried on the next master.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// Between two writes, so that the writers leave the processor to the masters.
const PACE: Duration = Duration::from_millis(10);

/// The label of all that the writers write.
pub const LABEL: &str = "hactl.local/chaos";

/// What was acknowledged.
#[derive(Default)]
pub struct Ledger {
    pub names: Vec<String>,
    last: Option<Instant>,
    pub stall_max: Duration,
}

/// Writers at work.
pub struct Writers {
    ledger: Arc<Mutex<Ledger>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
}

impl Writers {
    /// One writer per client, each beginning with its own.
    pub fn start(clients: &[kube::Client]) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for index in 0..clients.len() {
            let mut own = clients.to_vec();
            own.rotate_left(index);
            tasks.spawn(write(index, own, ledger.clone(), stopped.clone()));
        }
        Self { ledger, stop, tasks }
    }

    /// How much was acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.ledger.lock().map_or(0, |ledger| ledger.names.len())
    }

    /// Ends the writers after their present write.
    ///
    /// # Errors
    /// When a write was refused.
    pub async fn stop(mut self) -> Result<Ledger> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let mut ledger = self.ledger.lock().expect("no writer panics with the lock");
        Ok(std::mem::take(&mut *ledger))
    }
}

async fn write(
    index: usize,
    clients: Vec<kube::Client>,
    ledger: Arc<Mutex<Ledger>>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let mut number = 0_u64;
    while !*stopped.borrow() {
        number += 1;
        let name = format!("chaos-{index}-{number}");
        create(&clients, &name, number, &stopped).await.map(|acknowledged| {
            if acknowledged {
                let mut ledger = ledger.lock().expect("no writer panics with the lock");
                let now = Instant::now();
                if let Some(last) = ledger.last {
                    ledger.stall_max = ledger.stall_max.max(now - last);
                }
                ledger.last = Some(now);
                ledger.names.push(name);
            }
        })?;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// Creates one object; false when stopped before any master answered.
async fn create(clients: &[kube::Client], name: &str, number: u64, stopped: &watch::Receiver<bool>) -> Result<bool> {
    let object = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(LABEL.to_owned(), "written".to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([("number".to_owned(), number.to_string())].into()),
        ..ConfigMap::default()
    };
    let mut attempts = 0_u32;
    while !*stopped.borrow() {
        for client in clients {
            let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
            attempts += 1;
            match tokio::time::timeout(ATTEMPT_LIMIT, api.create(&PostParams::default(), &object)).await {
                Ok(Ok(_)) => return Ok(true),
                // An earlier attempt did it, and its answer was lost.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 && attempts > 1 => return Ok(true),
                Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
                    bail!("{name} was refused: {}", status.message)
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(false)
}
