//! The connection to the masters: assignments down, heartbeats and writes up; moves on when it breaks.
//!
//! ```text
//!   connect ─► Hello ─► Welcome ─► { heartbeat each second · outbox · assignments } ─► broken ─► next master
//! ```
//! Not here: what an assignment leads to (`sync`), streams (`streams`, a connection of their own). Invariant: a write that was not
//! acknowledged is made again on the next session, unless a newer one replaced it; without masters the node runs on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use rpc::pb;
use rpc::pb::master_message::Message as Down;
use rpc::pb::node_message::Message as Up;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::outbox::{Outbox, Subject, Write};
use crate::shared::Shared;
use crate::streams;
use crate::uplink::{Downs, Uplink};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// A master that says nothing for so long, heartbeats unanswered, is given up.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// A master that does not welcome within this is passed over; it may be waiting for a leader.
const WELCOME_MAX: Duration = Duration::from_secs(4);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Writes under way at once; the master takes 64.
const WRITES_MAX: usize = 32;
/// A write that the master could not make now is made again after this.
const WRITE_AGAIN: Duration = Duration::from_millis(500);
/// A session in which no write is answered for so long is given up.
const ANSWER_MAX: Duration = Duration::from_secs(30);

pub struct Session {
    pub shared: Arc<Shared>,
    pub uplink: Arc<dyn Uplink>,
    pub cluster_id: String,
    pub node_name: String,
    pub node_uid: String,
    /// The Node object as it is now.
    pub node: watch::Receiver<Bytes>,
    pub assignments: mpsc::Sender<pb::Assignment>,
    /// What the masters say about certificates.
    pub trust: watch::Sender<Option<pb::Trust>>,
    /// What this node uses, as measured last.
    pub usage: watch::Receiver<Option<Arc<pb::NodeUsage>>>,
}

enum End {
    Shutdown,
    /// Why, and whether the session had been welcomed.
    Broken(String, bool),
}

impl Session {
    /// Until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wait = RETRY_MIN;
        let mut said = String::new();
        loop {
            match self.once(&shutdown).await {
                End::Shutdown => return,
                End::Broken(why, welcomed) => {
                    if welcomed {
                        wait = RETRY_MIN;
                    }
                    if welcomed || why != said {
                        tracing::warn!(%why, "no session with a master; pods run on");
                        said = why;
                    }
                    self.uplink.move_on();
                }
            }
            // Spread, so that all nodes of a dead master do not arrive at the next one together.
            let spread = Duration::from_millis(rand::random_range(0..=u64::try_from(wait.as_millis()).unwrap_or(1000)));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(spread) => {}
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn once(&self, shutdown: &CancellationToken) -> End {
        let opening = async {
            let (up, outgoing) = mpsc::channel(64);
            let (epoch, revision) = self.shared.position();
            let hello = pb::Hello {
                node: self.node_name.clone(),
                uid: self.node_uid.clone(),
                epoch,
                revision,
                node_json: self.node.borrow().clone(),
                epoch_proof: self.shared.epoch_proof().into(),
                wire_version: rpc::version::WIRE,
                wire_needs: rpc::version::OLDEST,
            };
            let first = message(Up::Hello(hello));
            up.send(first).await.map_err(|e| e.to_string())?;
            let (address, mut incoming) = self.uplink.open(outgoing).await?;
            let first = incoming.next().await.transpose();
            match first.map_err(|status| format!("{address}: {}", status.message()))? {
                Some(pb::MasterMessage { message: Some(Down::Welcome(welcome)) }) => {
                    Ok((address, up, incoming, welcome))
                }
                _ => Err(format!("{address}: the session did not begin with a welcome")),
            }
        };
        let opened = tokio::select! {
            () = shutdown.cancelled() => return End::Shutdown,
            opened = tokio::time::timeout(WELCOME_MAX, opening) => opened,
        };
        let (address, up, incoming, welcome) = match opened {
            Err(_) => return End::Broken("no master welcomed this node in time".to_owned(), false),
            Ok(Err(why)) => return End::Broken(why, false),
            Ok(Ok(opened)) => opened,
        };
        if welcome.cluster_id != self.cluster_id {
            return End::Broken(format!("{address} is a master of another cluster, {}", welcome.cluster_id), false);
        }
        let (epoch, _) = self.shared.position();
        if welcome.epoch < epoch {
            let why = format!(
                "{address} is of epoch {}, older than epoch {epoch} which this node follows: that master belongs to a state that was recovered from; remove it",
                welcome.epoch
            );
            return End::Broken(why, false);
        }
        let understood = rpc::version::check(&address, welcome.wire_version, welcome.wire_needs);
        if let Err(why) = understood {
            return End::Broken(why, false);
        }
        self.shared.keep_proof(String::from_utf8_lossy(&welcome.epoch_proof).into_owned());
        tracing::info!(master = %address, "session opened");
        let tells = welcome.wire_version >= rpc::version::USAGE;
        self.talk(&address, up, incoming, tells, shutdown).await
    }

    /// An open session, until it breaks. `tells`: the master takes what the node uses.
    async fn talk(
        &self,
        address: &str,
        up: mpsc::Sender<pb::NodeMessage>,
        mut incoming: Downs,
        tells: bool,
        shutdown: &CancellationToken,
    ) -> End {
        let mut under_way = UnderWay::default();
        let mut usage = self.usage.clone();
        // This master knows nothing of it yet.
        usage.mark_changed();
        let streams: tokio::sync::OnceCell<Channel> = tokio::sync::OnceCell::new();
        let streams = Arc::new(streams);
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sequence = 0;
        let mut heard = tokio::time::Instant::now();
        let outbox = self.shared.outbox.clone();
        outbox.wake();
        let why = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    under_way.put_back(&outbox);
                    return End::Shutdown;
                }
                _ = beat.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        break format!("{address} has said nothing for {} s", SILENCE_MAX.as_secs());
                    }
                    if under_way.oldest.is_some_and(|oldest| oldest.elapsed() > ANSWER_MAX) {
                        break format!("{address} has not answered a write for {} s", ANSWER_MAX.as_secs());
                    }
                    sequence += 1;
                    if up.try_send(message(Up::Heartbeat(pb::Heartbeat { sequence }))).is_err() && up.is_closed() {
                        break format!("{address} closed the connection");
                    }
                }
                received = incoming.next() => match received {
                    Some(Ok(received)) => {
                        heard = tokio::time::Instant::now();
                        if let Some(down) = received.message
                            && !self.receive(address, down, &mut under_way, &streams).await
                        {
                            return End::Shutdown;
                        }
                    }
                    None => break format!("{address} ended the session"),
                    Some(Err(status)) => break format!("{address}: {}", status.message()),
                },
                Ok(()) = usage.changed(), if tells => {
                    let measured = usage.borrow_and_update().clone();
                    // Where there is no room the next one serves as well.
                    if let Some(measured) = measured {
                        let _ = up.try_send(message(Up::Usage((*measured).clone())));
                    }
                }
                () = outbox.changed(), if under_way.room() => {}
                () = under_way.rested() => {}
            }
            while under_way.room() {
                let Ok(permit) = up.try_reserve() else { break };
                let Some(write) = outbox.take(&under_way.busy) else { break };
                permit.send(message(Up::Write(under_way.begin(write))));
            }
        };
        under_way.put_back(&outbox);
        End::Broken(why, true)
    }

    /// Says whether the node goes on.
    async fn receive(
        &self,
        address: &str,
        down: Down,
        under_way: &mut UnderWay,
        streams: &Arc<tokio::sync::OnceCell<Channel>>,
    ) -> bool {
        match down {
            Down::Assignment(assignment) => return self.assignments.send(assignment).await.is_ok(),
            Down::Masters(masters) => {
                self.uplink.set_addresses(masters.api_addresses.clone());
                if !masters.api_addresses.is_empty() {
                    self.shared.change(|saved, _| saved.masters = masters.api_addresses);
                }
            }
            Down::Trust(trust) => drop(self.trust.send_replace(Some(trust))),
            Down::WriteResult(result) => under_way.end(&self.shared.outbox, &result),
            Down::Stream(request) => {
                let Some(masters) = self.uplink.dialler() else { return true };
                let (address, streams) = (address.to_owned(), streams.clone());
                let shared = self.shared.clone();
                tokio::spawn(async move {
                    // Of its own, so that bulk never delays a heartbeat.
                    match streams.get_or_try_init(|| masters.connect_to(&address)).await {
                        Ok(channel) => streams::serve(shared, channel.clone(), request).await,
                        Err(error) => tracing::warn!(%error, "cannot open the connection for streams"),
                    }
                });
            }
            Down::Welcome(_) | Down::HeartbeatAck(_) => {}
        }
        true
    }
}

fn message(message: Up) -> pb::NodeMessage {
    pb::NodeMessage { message: Some(message) }
}

/// Writes whose answer has not come, and those that rest before they are made again.
#[derive(Default)]
struct UnderWay {
    last: u64,
    writes: BTreeMap<u64, Write>,
    /// Their subjects, and those at rest.
    busy: BTreeSet<Subject>,
    /// Subjects whose write the master could not make now, and until when they rest. The writes themselves wait in the
    /// outbox again, where a newer one takes their place.
    resting: VecDeque<(tokio::time::Instant, Subject)>,
    /// Since when an answer is waited for: the last answer, or the first write after none were open.
    oldest: Option<tokio::time::Instant>,
}

impl UnderWay {
    fn room(&self) -> bool {
        self.writes.len() < WRITES_MAX
    }

    fn begin(&mut self, write: Write) -> pb::Write {
        self.last += 1;
        self.oldest.get_or_insert_with(tokio::time::Instant::now);
        self.busy.insert(write.0.clone());
        let sent = pb::Write { id: self.last, write: Some(write.1.clone()) };
        self.writes.insert(self.last, write);
        sent
    }

    fn end(&mut self, outbox: &Outbox, result: &pb::WriteResult) {
        let Some(write) = self.writes.remove(&result.id) else { return };
        self.oldest = (!self.writes.is_empty()).then(tokio::time::Instant::now);
        if matches!(result.code, 429 | 500..) {
            // Busy meanwhile: were a newer one sent, this one would come after it.
            self.resting.push_back((tokio::time::Instant::now() + WRITE_AGAIN, write.0.clone()));
            outbox.put_back(write);
        } else {
            self.busy.remove(&write.0);
            if !matches!(result.code, 200..300 | 404) {
                refused(&write.0, result);
            }
        }
        // There may be room again for what waits.
        outbox.wake();
    }

    /// Waits until a write may be made again; forever where none rests.
    async fn rested(&mut self) {
        let Some((until, _)) = self.resting.front() else { return std::future::pending().await };
        tokio::time::sleep_until(*until).await;
        if let Some((_, subject)) = self.resting.pop_front() {
            self.busy.remove(&subject);
        }
    }

    fn put_back(&mut self, outbox: &Outbox) {
        for (_, write) in std::mem::take(&mut self.writes) {
            outbox.put_back(write);
        }
        self.busy.clear();
        self.resting.clear();
        self.oldest = None;
    }
}

/// The end of a pod that the masters count as alive, for example: the next assignment decides.
fn refused(subject: &Subject, result: &pb::WriteResult) {
    let (code, message) = (result.code, &result.message);
    if matches!(subject, Subject::Event(_)) {
        tracing::debug!(code, message, ?subject, "write refused");
    } else {
        tracing::warn!(code, message, ?subject, "write refused");
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
