//! A cluster over an in-memory network with cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use replica::{Leadership, Replica};
use state::{Command, Expect, Header, Key, Op, Outcome, Put, State};
use tokio::runtime::Handle;
use tonic::Status;

use crate::storage::{Storage, rocks::Rocks, sim::Sim};
use crate::transport::{Change, Chunk, PeerTransport, Proposed};
use crate::{Config, Consensus, Error, Member, Peers, start_here, start_on};

/// Nothing here may take longer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Who can reach whom.
#[derive(Default)]
pub struct Net {
    peers: Mutex<BTreeMap<u64, (Peers, Handle)>>,
    cut: Mutex<BTreeSet<u64>>,
    changed: tokio::sync::Notify,
}

impl Net {
    fn reach(&self, from: u64, to: u64) -> Result<(Peers, Handle), Status> {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&to) {
            Some(found) if !cut.contains(&from) && !cut.contains(&to) => Ok(found.clone()),
            _ => Err(Status::unavailable(format!("{to} cannot be reached from {from}"))),
        }
    }

    pub fn set_cut(&self, id: u64, cut: bool) {
        let mut members = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        if cut {
            members.insert(id)
        } else {
            members.remove(&id)
        };
        drop(members);
        self.changed.notify_waiters();
    }

    /// A member that stops.
    pub fn forget(&self, id: u64) {
        self.set_peers(id, None);
    }

    fn set_peers(&self, id: u64, peers: Option<(Peers, Handle)>) {
        let mut members = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers {
            Some(peers) => members.insert(id, peers),
            None => members.remove(&id),
        };
        drop(members);
        self.changed.notify_waiters();
    }
}

struct Link {
    net: Arc<Net>,
    from: u64,
}

impl Link {
    async fn call<T: Send + 'static, F>(&self, to: &Member, call: impl FnOnce(Peers) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        // What was never sent certainly changed nothing.
        let (peers, handle) =
            self.net.reach(self.from, to.id).map_err(|status| Status::failed_precondition(status.message()))?;
        let answer = handle.spawn(call(peers)).await.map_err(|error| Status::unavailable(error.to_string()))?;
        // An answer does not get through a cut either.
        self.net.reach(self.from, to.id)?;
        answer
    }

    /// Ends a stream with an error when the two are cut from each other.
    fn guard<T: Send + 'static>(
        &self,
        to: u64,
        stream: BoxStream<'static, T>,
    ) -> BoxStream<'static, Result<T, Status>> {
        let (net, from) = (self.net.clone(), self.from);
        let state = Some((stream, net));
        futures::stream::unfold(state, move |state| async move {
            let (mut stream, net) = state?;
            let item = loop {
                let changed = net.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Err(status) = net.reach(from, to) {
                    return Some((Err(status), None));
                }
                tokio::select! {
                    item = stream.next() => break item?,
                    () = changed => {}
                }
            };
            Some((Ok(item), Some((stream, net))))
        })
        .boxed()
    }
}

#[async_trait::async_trait]
impl PeerTransport for Link {
    async fn vote(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        self.call(to, |peers| async move { peers.vote(body).await }).await
    }

    async fn heartbeat(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        self.call(to, |peers| async move { peers.heartbeat(body).await }).await
    }

    async fn append(
        &self,
        to: &Member,
        requests: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let (peers, handle) = self.net.reach(self.from, to.id)?;
        let _guard = handle.enter();
        let answers = peers.append(self.guard(to.id, requests));
        Ok(self.guard(to.id, answers).map(|answer| answer?).boxed())
    }

    async fn snapshot(&self, to: &Member, chunks: BoxStream<'static, Chunk>) -> Result<Bytes, Status> {
        let chunks = self.guard(to.id, chunks);
        self.call(to, |peers| async move { peers.snapshot(chunks).await }).await
    }

    async fn fetch_snapshot(
        &self,
        to: &Member,
        body: Bytes,
    ) -> Result<BoxStream<'static, Result<Chunk, Status>>, Status> {
        let chunks = self.call(to, |peers| async move { peers.fetch_snapshot(body).await }).await?;
        Ok(self.guard(to.id, chunks).map(|chunk| chunk?).boxed())
    }

    async fn transfer_leader(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        self.call(to, |peers| async move { peers.transfer_leader(body).await }).await
    }

    async fn propose(&self, to: &Member, commands: Vec<Bytes>) -> Result<Proposed, Status> {
        self.call(to, |peers| async move { peers.propose(commands).await }).await
    }

    async fn read_index(&self, to: &Member) -> Result<u64, Status> {
        self.call(to, |peers| async move { peers.read_index().await }).await
    }

    async fn change_membership(&self, to: &Member, change: Change) -> Result<(), Status> {
        self.call(to, |peers| async move { peers.change_membership(change).await }).await
    }
}

#[derive(Clone, Copy)]
pub enum Disk {
    Real,
    Sim,
    /// As [`Disk::Sim`], and the members are tasks of the test's own runtime, whose clock may be paused.
    Tasks,
}

/// Members 1 to n, each with a data directory and (but with [`Disk::Real`]) a disk of its own.
pub struct Cluster {
    pub net: Arc<Net>,
    pub members: BTreeMap<u64, Consensus>,
    pub sims: BTreeMap<u64, Sim>,
    disk: Disk,
    dir: tempfile::TempDir,
    starts: u64,
    pub tune: fn(&mut Config),
}

pub fn member(id: u64) -> Member {
    Member { id, name: format!("m{id}"), peer_address: format!("m{id}:6444"), api_address: format!("m{id}:6443") }
}

impl Cluster {
    /// Not started yet.
    pub fn new(disk: Disk) -> Self {
        Self {
            net: Arc::default(),
            members: BTreeMap::new(),
            sims: BTreeMap::new(),
            disk,
            dir: tempfile::tempdir().expect("a temporary directory"),
            starts: 0,
            tune: |_| {},
        }
    }

    /// `n` voters.
    pub async fn of(n: u64, disk: Disk) -> Self {
        let mut cluster = Self::new(disk);
        cluster.start(1).await.expect("starts");
        cluster.members[&1].initialize().await.expect("the first member");
        for id in 2..=n {
            cluster.join(id).await;
        }
        cluster
    }

    /// Starts `id` and makes it a voter.
    pub async fn join(&mut self, id: u64) {
        self.start(id).await.expect("starts");
        let leader = self.leader().await;
        self.members[&leader].add_learner(member(id)).await.expect("learner");
        self.members[&leader].promote(id).await.expect("voter");
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub fn config(&mut self, id: u64) -> Config {
        self.starts += 1;
        let seed = self.starts << 32 | id;
        let mut config = Config::new(self.data_dir(id), "cluster", member(id), seed);
        (config.heartbeat_ms, config.election_ms_min, config.election_ms_max) = (100, 500, 1000);
        (self.tune)(&mut config);
        config
    }

    pub async fn start(&mut self, id: u64) -> Result<(), Error> {
        let config = self.config(id);
        let storage: Arc<dyn Storage> = match self.disk {
            Disk::Real => Rocks::new(),
            Disk::Sim => Arc::new(self.sims.entry(id).or_default().clone()),
            Disk::Tasks => Arc::new(self.sims.entry(id).or_insert_with(Sim::in_tasks).clone()),
        };
        let link = Arc::new(Link { net: self.net.clone(), from: id });
        let consensus = match self.disk {
            Disk::Real | Disk::Sim => start_on(config, link, storage).await?,
            Disk::Tasks => start_here(config, link, storage).await?,
        };
        self.net.set_peers(id, Some((consensus.peers(), consensus.runtime().clone())));
        self.members.insert(id, consensus);
        Ok(())
    }

    /// As a crash of the process.
    pub async fn kill(&mut self, id: u64) {
        self.net.set_peers(id, None);
        if let Some(consensus) = self.members.remove(&id) {
            consensus.kill().await;
        }
    }

    pub fn replica(&self, id: u64) -> Replica {
        self.members[&id].replica()
    }

    pub fn root(&self, id: u64) -> Arc<State> {
        self.replica(id).root()
    }

    /// Waits until a member satisfies a condition on its leadership.
    pub async fn until(&self, id: u64, what: &str, holds: impl FnMut(&Leadership) -> bool) -> Leadership {
        let mut leadership = self.replica(id).leadership();
        let found = tokio::time::timeout(LIMIT, leadership.wait_for(holds)).await;
        found.unwrap_or_else(|_| panic!("member {id}: {what}")).expect("running").clone()
    }

    /// The member that leads, once one of those that can be reached does.
    pub async fn leader(&self) -> u64 {
        let waits = self.members.iter().filter(|(id, _)| self.net.reach(**id, **id).is_ok()).map(|(id, member)| {
            let mut leadership = member.replica().leadership();
            Box::pin(async move {
                let _ = leadership.wait_for(|leadership| leadership.leading.is_some()).await;
                *id
            })
        });
        let found = tokio::time::timeout(LIMIT, futures::future::select_all(waits)).await;
        found.expect("a leader").0
    }

    /// Waits until a member has applied what another one has.
    pub async fn catch_up(&self, id: u64, with: u64) {
        let revision = self.root(with).revision();
        let mut applied = self.replica(id).applied();
        let wait = applied.wait_for(|applied| *applied >= revision);
        tokio::time::timeout(LIMIT, wait).await.expect("catches up").expect("running");
    }

    pub fn assert_equal(&self, ids: &[u64]) {
        let states: Vec<_> = ids.iter().map(|id| (self.root(*id).revision(), self.root(*id).hash())).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    }
}

pub fn key(name: &str) -> Key {
    Key::new("", "things", "", name)
}

/// A command that creates or replaces the thing `name`.
pub fn put(name: &str, value: &str) -> Command {
    let body = format!("{{\"metadata\":{{\"resourceVersion\":}},\"value\":\"{value}\"}}");
    let split = body.find('}').expect("just written") as u32;
    let header = Header { uid: format!("uid-{name}"), ..Header::default() };
    let put = Put { key: key(name), header, body: body.into(), split, managed_fields: Bytes::new() };
    Command { ops: vec![Op::put(put)], ..Command::default() }
}

/// Creates the thing `name`, or is refused.
pub fn create(name: &str) -> Command {
    Command { expects: vec![Expect::absent(key(name))], ..put(name, "new") }
}

pub fn accepted(outcome: Result<Outcome, replica::Error>) -> Outcome {
    let outcome = outcome.expect("an outcome");
    assert_eq!(outcome.refusal, None);
    outcome
}
