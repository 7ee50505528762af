//! Linearizable reads: rounds of read-index, one for all who wait.
//!
//! A reader joins the round that starts next, never one under way: only a round that began after the reader arrived proves
//! that its index covers what was acknowledged before. On a follower the round is a call to the leader.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::ReadPolicy;
use state::State;
use tokio::sync::{mpsc, oneshot};

use crate::batcher::LIMIT;
use crate::leadership::no_longer_leads;
use crate::state_machine::Published;
use crate::transport::PeerTransport;
use crate::types::Raft;
use openraft::async_runtime::watch::WatchReceiver as _;

/// Readers that may wait.
const QUEUE: usize = 16 << 10;
/// Rounds under way at a time.
const ROUNDS: usize = 2;

type Answer = Result<u64, String>;

pub struct Reads {
    readers: mpsc::Sender<Reader>,
    published: Arc<Published>,
}

struct Reader {
    /// Asked by a follower: only a round of this member as the leader will do.
    here: bool,
    done: oneshot::Sender<Answer>,
}

struct Parts {
    id: u64,
    raft: Raft,
    transport: Arc<dyn PeerTransport>,
    published: Arc<Published>,
}

impl Reads {
    /// Must be called within the runtime that shall run it.
    pub fn start(id: u64, raft: Raft, transport: Arc<dyn PeerTransport>, published: Arc<Published>) -> Self {
        let (readers, queue) = mpsc::channel(QUEUE);
        let parts = Parts { id, raft, transport, published: published.clone() };
        tokio::spawn(run(parts, queue));
        Self { readers, published }
    }

    /// One try of a linearizable read.
    pub async fn read(&self) -> Result<Arc<State>, String> {
        // The round waits for the local state, so that one waiter does it for all.
        self.join(false).await?;
        Ok(self.published.root.load_full())
    }

    /// The index that a follower's readers must wait for; this member must lead.
    pub async fn leader_index(&self) -> Answer {
        self.join(true).await
    }

    async fn join(&self, here: bool) -> Answer {
        let (done, answer) = oneshot::channel();
        self.readers.send(Reader { here, done }).await.map_err(|_| "this member is stopping".to_string())?;
        answer.await.map_err(|_| "this member is stopping".to_string())?
    }
}

async fn run(parts: Parts, mut queue: mpsc::Receiver<Reader>) {
    let mut rounds = FuturesUnordered::new();
    loop {
        let first = tokio::select! {
            biased;
            Some(()) = rounds.next() => continue,
            first = queue.recv(), if rounds.len() < ROUNDS => first,
        };
        let Some(first) = first else { break };
        let mut readers = vec![first];
        while let Ok(reader) = queue.try_recv() {
            readers.push(reader);
        }
        rounds.push(parts.round(readers));
    }
    while rounds.next().await.is_some() {}
}

impl Parts {
    async fn round(&self, readers: Vec<Reader>) {
        let (leader, member) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader;
            (leader, leader.and_then(|id| metrics.membership_config.get_node(&id).cloned()))
        };
        let (here, local): (Vec<_>, Vec<_>) = readers.into_iter().partition(|reader| reader.here);
        if leader == Some(self.id) {
            let index = self.index_here().await;
            answer(here, &index);
            self.answer_applied(local, index).await;
            return;
        }
        let why = match leader {
            Some(id) => format!("member {id} leads"),
            None => "there is no leader".to_string(),
        };
        answer(here, &Err(why.clone()));
        if local.is_empty() {
            return;
        }
        let index = match member {
            None => Err(why),
            Some(member) => tokio::select! {
                biased;
                answer = tokio::time::timeout(LIMIT, self.transport.read_index(&member)) => match answer {
                    Ok(index) => index.map_err(|status| status.message().to_string()),
                    Err(_) => Err(format!("{} does not answer", member.name)),
                },
                // It may leave the call open for long: the readers ask the next leader.
                () = no_longer_leads(&self.raft, member.id) => Err(format!("{} no longer leads", member.name)),
            },
        };
        self.answer_applied(local, index).await;
    }

    async fn index_here(&self) -> Answer {
        if state::mutants::is_chosen("stale-read") {
            return Ok(self.published.applied.borrow().next.saturating_sub(1));
        }
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        linearizer.map(|linearizer| linearizer.read_log_id().index()).map_err(|error| error.to_string())
    }

    async fn answer_applied(&self, readers: Vec<Reader>, index: Answer) {
        let outcome = match index {
            Err(error) => Err(error),
            Ok(index) => match tokio::time::timeout(LIMIT, self.published.wait_applied(index)).await {
                Ok(()) => Ok(index),
                Err(_) => Err(format!("entry {index} is not applied here within {LIMIT:?}")),
            },
        };
        answer(readers, &outcome);
    }
}

fn answer(readers: Vec<Reader>, outcome: &Answer) {
    for reader in readers {
        let _ = reader.done.send(outcome.clone());
    }
}
