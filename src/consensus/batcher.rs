//! Gathers proposals into entries. While one batch is on its way the next gathers; nothing waits on a timer.
//!
//! ```text
//!   attempt ──queue──▶ one task: take all that waits, up to `batch_bytes` ─▶ leader here: one raft entry
//!                                        (at most IN_FLIGHT at a time)   └─▶ leader elsewhere: one Propose call
//! ```
//!
//! One task does it all: batches under way are polled by it, not by tasks of their own.
//!
//! An attempt is one try of some commands; [`crate::node`] tries again under the same proposal ids.
//!
//! **Invariant:** an attempt that answers [`Attempt::Refused`] or [`Attempt::NoRoom`] certainly put nothing into any log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use prost::Message as _;
use state::Outcome;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tonic::Status;

use crate::disk::Disk;
use crate::leadership::no_longer_leads;
use crate::room::Room;
use crate::state_machine::Published;
use crate::transport::{PeerTransport, is_no_room, is_refused};
use crate::types::{Batch, Member, Raft};
use openraft::async_runtime::watch::WatchReceiver as _;

/// One command, encoded. With its frame it stays below the peers' message limit.
pub const COMMAND_BYTES: usize = 3 << 20;
/// Batches on their way at a time: while one is synced, the one before is applied and answered. With more of them each is
/// smaller, and an entry costs every member more than a command in it does.
const IN_FLIGHT: usize = 2;
/// Attempts that may wait, and their bytes together in KiB.
const QUEUE: usize = 4096;
const QUEUE_KIB: usize = 64 << 10;
/// A batch that has no outcome by then is given up; its entry may still be applied.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How long past its deadline an attempt that is on its way may still be answered.
const GRACE: Duration = Duration::from_millis(500);

/// What became of one try.
#[derive(Debug)]
pub enum Attempt {
    /// The outcomes, in order, and the index of the entry; the local root contains it.
    Applied { outcomes: Vec<Outcome>, index: u64 },
    /// Certainly in no log.
    Refused(String),
    /// Nor this, and the next try will end like this one: no majority has room on its disks.
    NoRoom(String),
    /// Perhaps in a log.
    Unknown(String),
}

/// Where the commands may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Anywhere,
    /// Only into this member's own log.
    Here,
}

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

struct Item {
    commands: Vec<Bytes>,
    bytes: usize,
    route: Route,
    state: Arc<AtomicU8>,
    done: oneshot::Sender<Attempt>,
    _permit: OwnedSemaphorePermit,
}

/// Takes the item back out of the queue if its asker goes away first.
struct Ticket(Arc<AtomicU8>);

impl Ticket {
    /// True if it was not taken yet and now never will be.
    fn withdraw(&self) -> bool {
        self.0.compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.withdraw();
    }
}

pub struct Batcher {
    queue: mpsc::Sender<Item>,
    bytes: Arc<Semaphore>,
}

/// What the task needs.
pub struct Parts {
    pub id: u64,
    pub raft: Raft,
    pub transport: Arc<dyn PeerTransport>,
    pub published: Arc<Published>,
    pub disk: Arc<Disk>,
    pub room: Arc<Room>,
    /// Commands of one entry, encoded; a single larger command has an entry of its own.
    pub batch_bytes: usize,
}

impl Batcher {
    /// Must be called within the runtime that shall run it.
    pub fn start(parts: Parts) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        tokio::spawn(run(parts, items));
        Self { queue, bytes: Arc::new(Semaphore::new(QUEUE_KIB)) }
    }

    /// One try, through whichever member leads.
    pub async fn attempt(&self, commands: Vec<Bytes>, deadline: Instant) -> Attempt {
        self.enqueue(commands, Route::Anywhere, deadline).await
    }

    /// One try in this member's own log.
    pub async fn attempt_here(&self, commands: Vec<Bytes>, deadline: Instant) -> Attempt {
        self.enqueue(commands, Route::Here, deadline).await
    }

    async fn enqueue(&self, commands: Vec<Bytes>, route: Route, deadline: Instant) -> Attempt {
        let bytes: usize = commands.iter().map(Bytes::len).sum();
        let kib = (bytes >> 10).min(QUEUE_KIB - 1) as u32 + 1;
        let stopped = || Attempt::Refused("this member is stopping".into());
        let enqueued = async {
            let permit = self.bytes.clone().acquire_many_owned(kib).await.ok()?;
            let (done, outcome) = oneshot::channel();
            let state = Arc::new(AtomicU8::new(QUEUED));
            let ticket = Ticket(state.clone());
            let item = Item { commands, bytes, route, state, done, _permit: permit };
            self.queue.send(item).await.ok()?;
            Some((ticket, outcome))
        };
        let (ticket, outcome) = match tokio::time::timeout_at(deadline, enqueued).await {
            Ok(Some(enqueued)) => enqueued,
            Ok(None) => return stopped(),
            Err(_) => return Attempt::Refused("too many proposals wait".into()),
        };
        tokio::pin!(outcome);
        let answer = match tokio::time::timeout_at(deadline, &mut outcome).await {
            Ok(answer) => answer,
            Err(_) if ticket.withdraw() => return Attempt::Refused("too many proposals wait".into()),
            // On its way: most often the answer is near.
            Err(_) => match tokio::time::timeout(GRACE, outcome).await {
                Ok(answer) => answer,
                Err(_) => return Attempt::Unknown("not committed in time".into()),
            },
        };
        match answer {
            Ok(attempt) => attempt,
            Err(_) if ticket.withdraw() => stopped(),
            Err(_) => Attempt::Unknown("this member is stopping".into()),
        }
    }
}

/// A batch on its way: ends when all who wait for it are answered.
type UnderWay<'a> = BoxFuture<'a, ()>;

async fn run(parts: Parts, mut queue: mpsc::Receiver<Item>) {
    let mut under_way: FuturesUnordered<UnderWay<'_>> = FuturesUnordered::new();
    let mut held = None;
    loop {
        // While as many as may be are under way the queue fills; what waits then goes together.
        let free = under_way.len() < IN_FLIGHT;
        let first = match held.take() {
            Some(item) if free => item,
            item => {
                held = item;
                tokio::select! {
                    biased;
                    Some(()) = under_way.next() => continue,
                    item = queue.recv(), if free => match item {
                        Some(item) => item,
                        None => break,
                    },
                }
            }
        };
        let items = gather(first, &mut queue, &mut held, parts.batch_bytes);
        if !items.is_empty() {
            let dispatched = parts.dispatch(items).await;
            under_way.push(dispatched);
        }
    }
    while under_way.next().await.is_some() {}
}

/// All that waits, up to `batch_bytes`; what no longer fits is held for the next batch.
fn gather(first: Item, queue: &mut mpsc::Receiver<Item>, held: &mut Option<Item>, batch_bytes: usize) -> Vec<Item> {
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(item) = next {
        if bytes > 0 && bytes + item.bytes > batch_bytes {
            *held = Some(item);
            break;
        }
        if item.state.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            bytes += item.bytes;
            items.push(item);
        }
        next = queue.try_recv().ok();
    }
    items
}

impl Parts {
    /// Sends a batch on its way. On the leader it is in openraft's queue, behind all batches before it, when this returns.
    /// On a follower the calls to the leader begin in order, but nothing orders their arrival: who needs one change after
    /// another waits for the first, or puts both into one command.
    async fn dispatch(&self, items: Vec<Item>) -> UnderWay<'_> {
        let (leader, member) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader;
            let member = leader.and_then(|id| metrics.membership_config.get_node(&id).cloned());
            (leader, member)
        };
        if leader == Some(self.id) {
            return self.propose_here(items).await;
        }
        let (away, here): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.route == Route::Anywhere);
        let why = match leader {
            Some(id) => format!("member {id} leads"),
            None => "there is no leader".into(),
        };
        answer_all(here, || Attempt::Refused(why.clone()));
        match member {
            Some(member) if !away.is_empty() => self.propose_there(member, away).boxed(),
            _ => {
                answer_all(away, || Attempt::Refused(why.clone()));
                std::future::ready(()).boxed()
            }
        }
    }

    async fn propose_here(&self, items: Vec<Item>) -> UnderWay<'_> {
        let commands: Vec<Bytes> = items.iter().flat_map(|item| item.commands.iter().cloned()).collect();
        metrics::histogram!("hactl_raft_batch_commands").record(commands.len() as f64);
        let started = Instant::now();
        let (responder, applied) = ProgressResponder::complete_only();
        if let Err(error) = self.raft.write(Batch::new(commands)).responder(responder).await {
            answer_all(items, || Attempt::Refused(error.to_string()));
            return std::future::ready(()).boxed();
        }
        async move {
            let outcome = tokio::select! {
                biased;
                outcome = tokio::time::timeout(LIMIT, applied) => outcome,
                why = self.no_room() => {
                    return answer_all(items, || Attempt::Unknown(format!("it is in the leader's log, which {why}")));
                }
            };
            match outcome {
                Ok(Ok(Ok(response))) => {
                    metrics::histogram!("hactl_raft_commit_seconds").record(started.elapsed().as_secs_f64());
                    split(items, response.data.outcomes, response.log_id.index);
                }
                Ok(Ok(Err(ClientWriteError::ForwardToLeader(error)))) => {
                    answer_all(items, || Attempt::Refused(error.to_string()));
                }
                Ok(Ok(Err(error))) => answer_all(items, || Attempt::Unknown(error.to_string())),
                Ok(Err(_)) => answer_all(items, || Attempt::Unknown("this member is stopping".into())),
                Err(_) => answer_all(items, || Attempt::Unknown(format!("not committed within {LIMIT:?}"))),
            }
        }
        .boxed()
    }

    /// Waits until no majority has room for what this leader's log holds, and says why.
    async fn no_room(&self) -> String {
        let mut room = self.room.watch();
        loop {
            room.borrow_and_update();
            if let Some(why) = self.room.lacks(&self.raft.metrics().borrow_watched(), self.disk.full()) {
                return why;
            }
            if room.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn propose_there(&self, leader: Member, items: Vec<Item>) {
        let commands = items.iter().flat_map(|item| item.commands.iter().cloned()).collect();
        let call = async {
            // A leader that is gone may leave the call open for long; the next one answers for it by the proposal ids.
            let proposed = tokio::select! {
                biased;
                answer = self.transport.propose(&leader, commands) => answer?,
                () = no_longer_leads(&self.raft, leader.id) => {
                    return Err(Status::aborted(format!("member {} no longer leads", leader.id)));
                }
            };
            self.published.wait_applied(proposed.index).await;
            Ok(proposed)
        };
        match tokio::time::timeout(LIMIT, call).await {
            Ok(Ok(proposed)) => match proposed.outcomes.into_iter().map(Outcome::decode).collect::<Result<_, _>>() {
                Ok(outcomes) => split(items, outcomes, proposed.index),
                // It was applied, but with which outcome only a newer version can say.
                Err(error) => answer_all(items, || Attempt::Unknown(format!("the leader's answer: {error}"))),
            },
            Ok(Err(status)) if is_no_room(&status) => {
                answer_all(items, || Attempt::NoRoom(status.message().to_string()));
            }
            Ok(Err(status)) if is_refused(&status) => {
                answer_all(items, || Attempt::Refused(status.message().to_string()));
            }
            Ok(Err(status)) => answer_all(items, || Attempt::Unknown(status.message().to_string())),
            Err(_) => answer_all(items, || Attempt::Unknown(format!("not applied within {LIMIT:?}"))),
        }
    }
}

fn answer_all(items: Vec<Item>, attempt: impl Fn() -> Attempt) {
    for item in items {
        // Nobody listens any more: the asker has given up.
        let _ = item.done.send(attempt());
    }
}

fn split(items: Vec<Item>, outcomes: Vec<Outcome>, index: u64) {
    let mut outcomes = outcomes.into_iter();
    for item in items {
        let own: Vec<Outcome> = outcomes.by_ref().take(item.commands.len()).collect();
        let attempt = if own.len() == item.commands.len() {
            Attempt::Applied { outcomes: own, index }
        } else {
            Attempt::Unknown("the leader answered fewer outcomes than commands".into())
        };
        let _ = item.done.send(attempt);
    }
}
