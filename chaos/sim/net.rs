//! The network between masters, at [`PeerTransport`]: real bodies, delivered later, twice, or not at all.
//!
//! ```text
//!   call ──travel──▶ the other process (a task of its own) ──travel──▶ answer
//!                └ a blocked direction holds the message until it opens, or the connection is given up
//! ```
//! As over TCP a lost packet is sent again, so loss is delay; within one stream nothing overtakes. Calls do overtake each
//! other, and some arrive twice. TLS and HTTP/2 are left out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use consensus::transport::{Change, Proposed};
use consensus::{Chunk, Member, PeerTransport, Peers};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::trace::Trace;
use crate::Random;

/// A connection over which nothing comes for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// What TCP waits before it sends a lost packet again; doubled each time.
const AGAIN: Duration = Duration::from_millis(200);
/// Of a thousand messages so many take longer than an instant, up to [`LATENCY_MS`], without any fault.
const LATE_PER_MILLE: u64 = 300;
const LATENCY_MS: u64 = 4;

pub struct Net {
    inner: Mutex<Inner>,
    changed: Notify,
    trace: Arc<Trace>,
}

struct Inner {
    random: Random,
    hosts: BTreeMap<u64, Host>,
    /// How many faults block each direction at present.
    blocked: BTreeMap<(u64, u64), u32>,
    /// The longest delay of a link beyond the ordinary.
    slow: BTreeMap<(u64, u64), Duration>,
    lost_per_mille: u64,
    twice_per_mille: u64,
    /// How often something found a direction blocked.
    held: BTreeMap<(u64, u64), u64>,
    met: Met,
}

/// How many messages met which fault so far.
#[derive(Clone, Copy, Default)]
pub struct Met {
    /// On a link that was slow.
    pub late: u64,
    pub lost: u64,
    pub twice: u64,
}

/// One process that can be reached.
#[derive(Clone)]
struct Host {
    peers: Peers,
    gone: CancellationToken,
}

impl Net {
    pub fn new(random: Random, trace: Arc<Trace>) -> Arc<Self> {
        let inner = Inner {
            random,
            hosts: BTreeMap::new(),
            blocked: BTreeMap::new(),
            slow: BTreeMap::new(),
            lost_per_mille: 0,
            twice_per_mille: 0,
            held: BTreeMap::new(),
            met: Met::default(),
        };
        Arc::new(Self { inner: Mutex::new(inner), changed: Notify::new(), trace })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn listen(&self, id: u64, peers: Peers, gone: CancellationToken) {
        self.lock().hosts.insert(id, Host { peers, gone });
    }

    pub fn close(&self, id: u64) {
        self.lock().hosts.remove(&id);
    }

    /// The transport of one process.
    pub fn link(self: &Arc<Self>, from: u64, gone: CancellationToken) -> Arc<dyn PeerTransport> {
        Arc::new(Link { net: self.clone(), from, gone })
    }

    /// Blocks these directions until [`Self::unblock`] is called as often.
    pub fn block(&self, directions: &[(u64, u64)]) {
        let mut inner = self.lock();
        for direction in directions {
            *inner.blocked.entry(*direction).or_default() += 1;
        }
    }

    pub fn unblock(&self, directions: &[(u64, u64)]) {
        let mut inner = self.lock();
        for direction in directions {
            if let Some(count) = inner.blocked.get_mut(direction) {
                *count = count.saturating_sub(1);
            }
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// How often something found these directions blocked so far.
    pub fn held(&self, directions: &[(u64, u64)]) -> u64 {
        let inner = self.lock();
        directions.iter().filter_map(|direction| inner.held.get(direction)).sum()
    }

    pub fn met(&self) -> Met {
        self.lock().met
    }

    /// Delays messages of a link by up to so much.
    pub fn slow(&self, from: u64, to: u64, most: Duration) {
        self.lock().slow.insert((from, to), most);
    }

    pub fn lose(&self, per_mille: u64) {
        self.lock().lost_per_mille = per_mille;
    }

    pub fn repeat(&self, per_mille: u64) {
        self.lock().twice_per_mille = per_mille;
    }

    /// Ends every fault.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.blocked.clear();
        inner.slow.clear();
        inner.lost_per_mille = 0;
        inner.twice_per_mille = 0;
        drop(inner);
        self.changed.notify_waiters();
    }

    pub fn is_blocked(&self, from: u64, to: u64) -> bool {
        self.lock().blocked.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    fn host(&self, id: u64) -> Option<Host> {
        self.lock().hosts.get(&id).cloned()
    }

    /// Whether a call arrives twice.
    fn is_repeated(&self) -> bool {
        let mut inner = self.lock();
        let per_mille = inner.twice_per_mille;
        let twice = per_mille > 0 && inner.random.between(0, 1000) < per_mille;
        inner.met.twice += u64::from(twice);
        twice
    }

    /// How long a message takes that is sent now; none while nothing gets through.
    fn delay(&self, from: u64, to: u64) -> Option<Duration> {
        let mut inner = self.lock();
        if inner.blocked.get(&(from, to)).is_some_and(|count| *count > 0) {
            *inner.held.entry((from, to)).or_default() += 1;
            return None;
        }
        let mut delay = Duration::ZERO;
        if inner.random.between(0, 1000) < LATE_PER_MILLE {
            delay += Duration::from_millis(inner.random.between(1, LATENCY_MS + 1));
        }
        if let Some(most) = inner.slow.get(&(from, to)).copied().filter(|most| !most.is_zero()) {
            inner.met.late += 1;
            delay += Duration::from_millis(inner.random.between(0, most.as_millis() as u64 + 1));
        }
        let mut again = AGAIN;
        while inner.lost_per_mille > 0 && inner.random.between(0, 1000) < inner.lost_per_mille {
            delay += again;
            again *= 2;
            inner.met.lost += 1;
        }
        Some(delay)
    }

    /// As [`Self::delay`], once something gets through.
    async fn passage(&self, from: u64, to: u64) -> Result<Duration, Status> {
        let given_up = Instant::now() + SILENCE_MAX;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(delay) = self.delay(from, to) {
                return Ok(delay);
            }
            if tokio::time::timeout_at(given_up, changed).await.is_err() {
                return Err(Status::unavailable(format!("nothing gets from {from} to {to}")));
            }
        }
    }

    /// Returns when a message has arrived.
    pub async fn travel(&self, from: u64, to: u64, kind: &str, bytes: usize) -> Result<(), Status> {
        self.trace.message(from, to, kind, bytes);
        let delay = match self.delay(from, to) {
            Some(delay) => delay,
            None => self.passage(from, to).await?,
        };
        if delay.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    /// A stream as the other end receives it, for as long as both ends live.
    pub fn carry<T: Send + 'static>(
        self: &Arc<Self>,
        (from, to): (u64, u64),
        kind: &'static str,
        stream: impl Stream<Item = T> + Send + Unpin + 'static,
        ends: [CancellationToken; 2],
    ) -> BoxStream<'static, Result<T, Status>> {
        let state = Some((stream, self.clone(), ends));
        futures::stream::unfold(state, move |state| async move {
            let (mut stream, net, ends) = state?;
            let item = tokio::select! {
                biased;
                () = ends[0].cancelled() => return Some((Err(reset()), None)),
                () = ends[1].cancelled() => return Some((Err(reset()), None)),
                item = stream.next() => item?,
            };
            match net.travel(from, to, kind, 0).await {
                Ok(()) => Some((Ok(item), Some((stream, net, ends)))),
                Err(status) => Some((Err(status), None)),
            }
        })
        .boxed()
    }
}

struct Link {
    net: Arc<Net>,
    from: u64,
    /// This process is dead: whatever of it still runs reaches nobody.
    gone: CancellationToken,
}

fn reset() -> Status {
    Status::unavailable("the connection was reset")
}

impl Link {
    fn alive(&self) -> Result<(), Status> {
        if self.gone.is_cancelled() { Err(reset()) } else { Ok(()) }
    }

    /// One call. What could not even connect says so: it certainly changed nothing.
    async fn call<T, F>(
        &self,
        to: &Member,
        kind: &'static str,
        bytes: usize,
        call: impl Fn(Peers) -> F + Send + Sync + 'static,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.alive()?;
        self.net.travel(self.from, to.id, kind, bytes).await?;
        self.alive()?;
        let refused = || Status::failed_precondition(format!("{} refuses the connection", to.name));
        let host = self.net.host(to.id).ok_or_else(refused)?;
        let call = Arc::new(call);
        if self.net.is_repeated() {
            let (net, from, to, call) = (self.net.clone(), self.from, to.id, call.clone());
            tokio::spawn(async move {
                if net.travel(from, to, "again", bytes).await.is_ok()
                    && let Some(host) = net.host(to)
                {
                    // Whoever sent it has its answer already.
                    let _ = call(host.peers).await;
                }
            });
        }
        // The other process goes on with it, whether its answer is waited for or not.
        let answer = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = host.gone.cancelled() => Err(reset()),
                answer = call(host.peers) => answer,
            }
        });
        let answer = answer.await.map_err(|error| Status::unavailable(error.to_string()))?;
        self.net.travel(to.id, self.from, kind, 0).await?;
        self.alive()?;
        answer
    }
}

/// What a stream's handler yields, driven by a task of its process until that dies or nobody listens.
fn driven<T: Send + 'static>(
    mut answers: BoxStream<'static, Result<T, Status>>,
    gone: CancellationToken,
) -> ReceiverStream<Result<T, Status>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let answer = tokio::select! {
                biased;
                () = gone.cancelled() => Some(Err(reset())),
                () = sender.closed() => return,
                answer = answers.next() => answer,
            };
            let Some(answer) = answer else { return };
            let last = answer.is_err();
            if sender.send(answer).await.is_err() || last {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

#[async_trait::async_trait]
impl PeerTransport for Link {
    async fn vote(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        self.call(to, "vote", body.len(), move |peers| {
            let body = body.clone();
            async move { peers.vote(body).await }
        })
        .await
    }

    async fn heartbeat(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        self.call(to, "heartbeat", body.len(), move |peers| {
            let body = body.clone();
            async move { peers.heartbeat(body).await }
        })
        .await
    }

    async fn append(
        &self,
        to: &Member,
        requests: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        self.alive()?;
        self.net.travel(self.from, to.id, "append", 0).await?;
        let refused = || Status::failed_precondition(format!("{} refuses the connection", to.name));
        let host = self.net.host(to.id).ok_or_else(refused)?;
        let answers = host.peers.append(self.net.carry(
            (self.from, to.id),
            "entries",
            requests,
            [self.gone.clone(), host.gone.clone()],
        ));
        let ends = [self.gone.clone(), CancellationToken::new()];
        let answers = driven(answers, host.gone);
        Ok(self.net.carry((to.id, self.from), "matched", answers, ends).map(|answer| answer?).boxed())
    }

    async fn snapshot(&self, to: &Member, chunks: BoxStream<'static, Chunk>) -> Result<Bytes, Status> {
        let ends = [self.gone.clone(), CancellationToken::new()];
        let chunks = self.net.carry((self.from, to.id), "chunk", chunks, ends);
        // A stream can be had once, so this call never arrives twice.
        let chunks = Mutex::new(Some(chunks));
        self.call(to, "snapshot", 0, move |peers| {
            let chunks = chunks.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move {
                match chunks {
                    Some(chunks) => peers.snapshot(chunks).await,
                    None => Err(reset()),
                }
            }
        })
        .await
    }

    async fn fetch_snapshot(
        &self,
        to: &Member,
        body: Bytes,
    ) -> Result<BoxStream<'static, Result<Chunk, Status>>, Status> {
        let chunks = self.call(to, "fetch", body.len(), move |peers| {
            let body = body.clone();
            async move { peers.fetch_snapshot(body).await }
        });
        let ends = [self.gone.clone(), CancellationToken::new()];
        Ok(self.net.carry((to.id, self.from), "chunk", chunks.await?, ends).map(|chunk| chunk?).boxed())
    }

    async fn transfer_leader(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        self.call(to, "transfer", body.len(), move |peers| {
            let body = body.clone();
            async move { peers.transfer_leader(body).await }
        })
        .await
    }

    async fn propose(&self, to: &Member, commands: Vec<Bytes>) -> Result<Proposed, Status> {
        let bytes = commands.iter().map(Bytes::len).sum();
        self.call(to, "propose", bytes, move |peers| {
            let commands = commands.clone();
            async move { peers.propose(commands).await }
        })
        .await
    }

    async fn read_index(&self, to: &Member) -> Result<u64, Status> {
        self.call(to, "read", 0, |peers| async move { peers.read_index().await }).await
    }

    async fn change_membership(&self, to: &Member, change: Change) -> Result<(), Status> {
        self.call(to, "change", 0, move |peers| {
            let change = change.clone();
            async move { peers.change_membership(change).await }
        })
        .await
    }
}
