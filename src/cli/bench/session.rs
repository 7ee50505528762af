//! Many requests on one stream: what a client of a store that is in a hurry does. No request waits for another's answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rpc::pb::bench_client::BenchClient;
use rpc::pb::bench_request::Ask;
use rpc::pb::bench_response::Answer;
use rpc::pb::{BenchRequest, BenchResponse};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::super::cluster;

/// Requests that may wait to be sent.
const QUEUE: usize = 1024;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// One stream; clones share it.
#[derive(Clone)]
pub struct Session {
    requests: mpsc::Sender<BenchRequest>,
    waiting: Waiting,
    next: Arc<AtomicU64>,
}

impl Session {
    pub async fn open(channel: Channel) -> Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let answers = BenchClient::new(channel).session(ReceiverStream::new(queue)).await.map_err(cluster::refused)?;
        let waiting = Waiting::default();
        tokio::spawn(receive(answers.into_inner(), waiting.clone()));
        Ok(Self { requests, waiting, next: Arc::default() })
    }

    pub async fn ask(&self, ask: Ask) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, done);
        // A stream that ended drops everybody who waits, which the answer then shows.
        let _ = self.requests.send(BenchRequest { id, ask: Some(ask) }).await;
        match answer.await.context("the master ended the stream")? {
            Answer::Failed(failed) => Err(cluster::refused(Status::new(Code::from(failed.code), failed.message))),
            answer => Ok(answer),
        }
    }
}

async fn receive(mut answers: Streaming<BenchResponse>, waiting: Waiting) {
    while let Ok(Some(BenchResponse { id, answer: Some(answer) })) = answers.message().await {
        let asker = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(asker) = asker {
            // It may have given up.
            let _ = asker.send(answer);
        }
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
