//! Members: who takes part, how far each is, and changes of both. Changes are carried out by the leader; asked elsewhere
//! they are passed on to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, RaftMetrics, ServerState};
use replica::MemberId;
use tokio::time::Instant;
use tonic::Code;

use crate::Error;
use crate::disk::SyncFigures;
use crate::node::Inner;
use crate::transport::Change;
use crate::types::{LogId, Member, Raft, Types};
use openraft::async_runtime::watch::WatchReceiver as _;

/// How long a learner may take to catch up before its promotion fails, a change to be committed, and a leader to hand over.
const CATCH_UP: Duration = Duration::from_secs(25);
const HAND_OVER: Duration = Duration::from_secs(5);
/// A member that does not answer the leader within this does not count as alive when a change is judged.
const ALIVE: Duration = Duration::from_secs(3);
/// How long to follow a leadership that moves, from one leader to the next and in all, and the pause between tries.
const MOVING: Duration = Duration::from_secs(10);
const MOVING_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);
/// How often a hand-over to one member is asked for again because leadership went elsewhere meanwhile: each try costs the
/// cluster an election.
const HAND_OVERS: u32 = 2;
/// A learner at most this many entries behind is caught up.
const LAG: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Candidate,
    Stopped,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Candidate => "candidate",
            Self::Stopped => "stopped",
        })
    }
}

/// One member as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    pub member: Member,
    pub voter: bool,
    /// As the leader: the last log index known to be on its disk, entries it is behind, and how long ago it answered.
    pub matched: Option<u64>,
    pub lag: Option<u64>,
    pub heard: Option<Duration>,
}

/// What one member knows about itself and the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub id: MemberId,
    pub role: Role,
    pub term: u64,
    pub leader: Option<MemberId>,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub revision: state::Revision,
    /// Equal on all members at equal revisions.
    pub state_hash: String,
    pub members: Vec<MemberState>,
    /// On disk. Files that state and snapshots share count as the state's.
    pub log_bytes: u64,
    pub state_bytes: u64,
    pub snapshot_bytes: u64,
    /// Why this member takes nothing new, if its disk is full.
    pub disk_full: Option<String>,
    /// How long syncs of the log took lately.
    pub syncs: Option<SyncFigures>,
    /// Why this member has stopped, or can write nothing as the leader.
    pub problem: Option<String>,
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Learner => Role::Learner,
        ServerState::Candidate => Role::Candidate,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn members(metrics: &RaftMetrics<Types>) -> Vec<MemberState> {
    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let nodes = metrics.membership_config.nodes();
    let last = metrics.last_log_index.unwrap_or(0);
    let mut members: Vec<MemberState> = nodes
        .map(|(id, member)| {
            let own = *id == metrics.id;
            let matched = match &metrics.replication {
                Some(_) if own => metrics.last_log_index,
                Some(replication) => replication.get(id).and_then(|matched| matched.map(|id| id.index)),
                None => None,
            };
            let lag = metrics.replication.is_some().then(|| last.saturating_sub(matched.unwrap_or(0)));
            let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(id)).and_then(|heard| *heard);
            let heard = heard.map(|instant| openraft::Instant::elapsed(&*instant));
            MemberState { member: member.clone(), voter: voters.contains(id), matched, lag, heard }
        })
        .collect();
    members.sort_by_key(|member| member.member.id);
    members
}

type Refused = RaftError<Types, ClientWriteError<Types>>;

/// Whether another change must end first or came in between, or the leader has only just become one. Every change may be
/// proposed again: it names what shall be, not a step.
fn is_under_way(error: &Refused) -> bool {
    match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            matches!(error, ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_))
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => true,
        _ => false,
    }
}

/// Waits for a change, but not for a majority that does not come.
async fn committed<T>(change: impl Future<Output = T>) -> Result<T, Error> {
    let changed = tokio::time::timeout(CATCH_UP, change).await;
    changed.map_err(|_| {
        Error::Timeout(format!(
            "no majority of the masters took the change within {CATCH_UP:?}; it may still happen. Start the missing masters"
        ))
    })
}

impl Inner {
    /// Reads directory sizes. Blocks.
    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let root = self.published.root.load_full();
        let [log_bytes, state_bytes, snapshot_bytes] = self.disk.sizes();
        Status {
            id: metrics.id,
            role: if metrics.running_state.is_ok() { role(metrics.state) } else { Role::Stopped },
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: self.published.applied.borrow().next.saturating_sub(1),
            snapshot_index: metrics.snapshot.map_or(0, |id| id.index),
            revision: root.revision(),
            state_hash: format!("{:032x}", root.hash()),
            members: members(&metrics),
            log_bytes,
            state_bytes,
            snapshot_bytes,
            disk_full: self.disk.full(),
            syncs: self.disk.syncs.figures(),
            problem: metrics.running_state.err().map(|error| error.to_string()).or_else(|| self.lacks_room()),
        }
    }

    pub(crate) fn members(&self) -> Vec<MemberState> {
        members(&self.raft.metrics().borrow_watched())
    }

    fn leader(&self) -> Option<Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.current_leader.and_then(|id| metrics.membership_config.get_node(&id).cloned())
    }

    fn not_leader(&self) -> Error {
        Error::NotLeader { leader: self.raft.metrics().borrow_watched().current_leader }
    }

    /// Carries out a change, here or at the leader; follows a leadership that is just moving.
    pub(crate) async fn change(&self, change: Change) -> Result<(), Error> {
        let latest = Instant::now() + MOVING_MAX;
        let mut deadline = Instant::now() + MOVING;
        let mut asked = None;
        let mut moves = 0;
        loop {
            let mut metrics = self.raft.metrics();
            let before = metrics.borrow_and_update().current_leader;
            let outcome = match self.leader() {
                None => Err(self.not_leader()),
                // It has gone elsewhere, which was all that was wanted.
                Some(leader) if change == Change::Transfer(0) && asked.is_some_and(|asked| asked != leader.id) => {
                    return Ok(());
                }
                Some(leader) if matches!(change, Change::Transfer(to) if to == leader.id) => return Ok(()),
                Some(leader) => {
                    // What the one before took is not what this one has.
                    let one_before = asked.replace(leader.id);
                    if one_before != Some(leader.id) {
                        deadline = latest.min(Instant::now() + MOVING);
                        moves += u32::from(one_before.is_some());
                    }
                    if matches!(change, Change::Transfer(_)) && moves > HAND_OVERS {
                        return Err(Error::Timeout(format!(
                            "leadership went to other members {moves} times instead (member {} leads now); try again when \
                             it is at rest",
                            leader.id
                        )));
                    }
                    if leader.id == self.id {
                        self.change_here(change.clone()).await
                    } else {
                        self.change_there(&leader, change.clone()).await
                    }
                }
            };
            // One whose leader has changed meanwhile asks the next one, however long that took.
            let moved = asked.is_some() && self.leader().is_some_and(|leader| asked != Some(leader.id));
            let over = Instant::now() >= if moved { latest } else { deadline };
            if !matches!(outcome, Err(Error::NotLeader { .. })) || over {
                return outcome;
            }
            let until = latest.min(Instant::now() + RETRY);
            // Not any change of the metrics: being asked is one, and a leader that hands over refuses at once.
            let moved = metrics.wait_until(|metrics| metrics.current_leader != before);
            let _ = tokio::time::timeout_at(until, moved).await;
        }
    }

    async fn change_there(&self, leader: &Member, change: Change) -> Result<(), Error> {
        let outcome = self.transport.change_membership(leader, change).await;
        outcome.map_err(|status| match status.code() {
            // Whoever died over it did it or not: a change names what shall be, so the next leader may be asked for it too.
            Code::FailedPrecondition | Code::Unavailable | Code::Cancelled | Code::Unknown => self.not_leader(),
            Code::InvalidArgument => Error::Invalid(status.message().to_string()),
            _ => Error::Timeout(status.message().to_string()),
        })
    }

    fn check_leads(&self) -> Result<(), Error> {
        match self.raft.metrics().borrow_watched().current_leader {
            Some(leader) if leader == self.id => Ok(()),
            leader => Err(Error::NotLeader { leader }),
        }
    }

    /// Carries out a change as the leader.
    pub(crate) async fn change_here(&self, change: Change) -> Result<(), Error> {
        self.check_leads()?;
        match change {
            Change::AddLearner(member) => self.add_learner_here(member).await,
            Change::Promote(id) => self.promote_here(id).await,
            Change::Remove(id) => self.remove_here(id).await,
            Change::Transfer(0) => self.transfer_away().await,
            Change::Transfer(id) => self.transfer_to(id).await,
        }
    }

    /// Ends a change that an earlier leader died in the middle of: between its two entries the cluster needs majorities of
    /// both the old and the new voters. Called whenever this member begins to lead.
    pub(crate) async fn finish_change(&self) -> Result<(), Error> {
        let half_made = || {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().get_joint_config().len() > 1
        };
        if !half_made() {
            return Ok(());
        }
        tracing::warn!("an earlier leader left a change of members half made; finishing it");
        // Changes nothing but that the newest voters become the only ones.
        self.propose_membership(ChangeMembers::AddVoterIds(BTreeSet::new())).await
    }

    async fn add_learner_here(&self, member: Member) -> Result<(), Error> {
        if member.id == 0 {
            return Err(Error::Invalid("0 is no member id".into()));
        }
        if let Some(known) = self.members().into_iter().find(|known| known.member.id == member.id) {
            if known.member == member {
                return Ok(());
            }
            self.check_address(&member)?;
            let nodes = BTreeMap::from([(member.id, member.clone())]);
            self.propose_membership(ChangeMembers::SetNodes(nodes)).await?;
            let now = self.members().into_iter().find(|known| known.member.id == member.id);
            return match now {
                Some(now) if now.member == member => Ok(()),
                _ => Err(Error::Timeout(format!("another change of member {} came in between; try again", member.id))),
            };
        }
        self.check_address(&member)?;
        self.propose(move |raft| {
            let member = member.clone();
            async move { raft.add_learner(member.id, member, false).await }
        })
        .await
    }

    /// Two members at one peer address would both be half reachable.
    fn check_address(&self, member: &Member) -> Result<(), Error> {
        let taken =
            |known: &MemberState| known.member.id != member.id && known.member.peer_address == member.peer_address;
        match self.members().into_iter().find(taken) {
            None => Ok(()),
            Some(other) => Err(Error::Invalid(format!(
                "member {} ({}) has the peer address {} already",
                other.member.id, other.member.name, member.peer_address
            ))),
        }
    }

    async fn promote_here(&self, id: MemberId) -> Result<(), Error> {
        let find = || self.members().into_iter().find(|member| member.member.id == id);
        match find() {
            None => return Err(Error::Invalid(format!("member {id} is not known; it must join as a learner first"))),
            Some(member) if member.voter => return Ok(()),
            Some(_) => {}
        }
        let caught_up = async {
            let mut metrics = self.raft.metrics();
            loop {
                metrics.borrow_and_update();
                if find().is_none_or(|member| member.matched.is_some() && member.lag.is_some_and(|lag| lag <= LAG)) {
                    return;
                }
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
            return Err(Error::Timeout(format!(
                "member {id} has not caught up within {CATCH_UP:?}; it stays a learner"
            )));
        }
        self.propose_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    async fn remove_here(&self, id: MemberId) -> Result<(), Error> {
        let members = self.members();
        let Some(member) = members.iter().find(|member| member.member.id == id) else { return Ok(()) };
        if !member.voter {
            return self.propose_membership(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await;
        }
        if members.iter().filter(|member| member.voter).count() == 1 {
            return Err(Error::Invalid("the last master cannot be removed".into()));
        }
        self.check_majority(id).await?;
        if id == self.id {
            self.transfer_away().await?;
            return Err(self.not_leader());
        }
        self.propose_membership(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await
    }

    /// The voters that answer this leader from now on, itself among them. Waits until they are `enough`, but not for long.
    /// That one answered a moment ago is not asked: it may have died since, and a change that counts on it hangs.
    async fn living(&self, enough: impl Fn(&BTreeSet<MemberId>) -> bool + Send + Sync) -> BTreeSet<MemberId> {
        let since = Instant::now();
        let living = |metrics: &RaftMetrics<Types>| -> BTreeSet<MemberId> {
            let answered = |one: &MemberState| one.heard.is_some_and(|heard| heard < since.elapsed());
            let all = members(metrics).into_iter();
            all.filter(|one| one.voter && (one.member.id == self.id || answered(one)))
                .map(|one| one.member.id)
                .collect()
        };
        let mut metrics = self.raft.metrics();
        let found = metrics.wait_until(|metrics| enough(&living(metrics)));
        // In vain when some are down, which is what the caller then sees.
        let _ = tokio::time::timeout(ALIVE, found).await;
        living(&self.raft.metrics().borrow_watched().clone())
    }

    /// A change needs a majority of the voters before and after it: one that would not get it hangs half made, or leaves a
    /// cluster that cannot write.
    async fn check_majority(&self, removed: MemberId) -> Result<(), Error> {
        let voters: Vec<MemberState> = self.members().into_iter().filter(|member| member.voter).collect();
        let ids: BTreeSet<MemberId> = voters.iter().map(|one| one.member.id).collect();
        let rest: BTreeSet<MemberId> = ids.iter().copied().filter(|id| *id != removed).collect();
        let majority =
            |of: &BTreeSet<MemberId>, living: &BTreeSet<MemberId>| of.intersection(living).count() > of.len() / 2;
        let living = self.living(|living| majority(&ids, living) && majority(&rest, living)).await;
        // Nobody answers one that no longer leads: that says nothing.
        self.check_leads()?;
        for (who, of) in [("present", &ids), ("remaining", &rest)] {
            if !majority(of, &living) {
                let silent =
                    voters.iter().filter(|one| of.contains(&one.member.id) && !living.contains(&one.member.id));
                let silent: Vec<&str> = silent.map(|one| one.member.name.as_str()).collect();
                return Err(Error::Invalid(format!(
                    "without member {removed} the cluster would lose its majority: of the {who} {} voting masters it needs \
                     {} and hears {}; start {} first",
                    of.len(),
                    of.len() / 2 + 1,
                    of.intersection(&living).count(),
                    silent.join(", ")
                )));
            }
        }
        Ok(())
    }

    async fn propose_membership(&self, change: ChangeMembers<u64, Member>) -> Result<(), Error> {
        self.propose(move |raft| {
            let change = change.clone();
            async move { raft.change_membership(change, false).await }
        })
        .await
    }

    /// Proposes a change as soon as no other one is under way.
    async fn propose<F>(&self, change: impl Fn(Raft) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<ClientWriteResponse<Types>, Refused>> + Send + 'static,
    {
        let deadline = Instant::now() + MOVING;
        loop {
            // A change of voters is two entries: a caller that goes away in between must not leave it half made.
            let changed = tokio::spawn(change(self.raft.clone()));
            match committed(changed).await?.map_err(|error| Error::Stopped(error.to_string()))? {
                Ok(changed) => return self.seen(changed.log_id).await,
                Err(error) if is_under_way(&error) && Instant::now() < deadline => tokio::time::sleep(RETRY).await,
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Waits until the metrics show a change that is applied: the next question is answered from them.
    async fn seen(&self, change: LogId) -> Result<(), Error> {
        let mut metrics = self.raft.metrics();
        let seen = metrics.wait_until(move |metrics| *metrics.membership_config.log_id() >= Some(change)).await;
        seen.map(drop).map_err(|_| Error::Stopped("while a member changed".into()))
    }

    fn failed(&self, error: Refused) -> Error {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => self.not_leader(),
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                Error::Timeout("the leader changed before the change was committed".into())
            }
            RaftError::APIError(error) => Error::Invalid(error.to_string()),
            RaftError::Fatal(error) => Error::Stopped(error.to_string()),
        }
    }

    /// Hands leadership to the voter that is furthest, and waits until it leads.
    pub(crate) async fn transfer_away(&self) -> Result<(), Error> {
        let living = self.living(|living| living.len() > 1).await;
        self.check_leads()?;
        let members = self.members();
        let others = members.iter().filter(|one| living.contains(&one.member.id) && one.member.id != self.id);
        let best = others.max_by_key(|member| (member.matched, std::cmp::Reverse(member.heard)));
        let best = best.ok_or_else(|| Error::Invalid("no other voting master answers".into()))?;
        match self.hand_over(best.member.id).await {
            // Another one won the election: it is away all the same.
            Err(Error::NotLeader { leader: Some(_) }) => Ok(()),
            outcome => outcome,
        }
    }

    /// Hands leadership to one member. One that does not answer would not take it, and nobody would lead until this member
    /// or another one wins an election.
    pub(crate) async fn transfer_to(&self, to: MemberId) -> Result<(), Error> {
        self.check_leads()?;
        if to == self.id {
            return Ok(());
        }
        let members = self.members();
        let known = members.iter().find(|one| one.member.id == to);
        let target = known.filter(|one| one.voter).ok_or_else(|| Error::Invalid(format!("member {to} is no voter")))?;
        let living = self.living(|living| living.contains(&to)).await;
        // Nobody answers one that no longer leads: that says nothing.
        self.check_leads()?;
        if !living.contains(&to) {
            return Err(Error::Invalid(format!(
                "{} (member {to}) does not answer, so it cannot lead; start it first, or name another master",
                target.member.name
            )));
        }
        self.hand_over(to).await
    }

    /// Hands leadership to a voter that answers, and waits until it leads.
    async fn hand_over(&self, to: MemberId) -> Result<(), Error> {
        let mut metrics = self.raft.metrics();
        let deadline = Instant::now() + HAND_OVER;
        loop {
            let term = metrics.borrow_and_update().current_term;
            self.raft.trigger().transfer_leader(to).await.map_err(|error| Error::Stopped(error.to_string()))?;
            let moved = metrics.wait_until(|metrics| match metrics.current_leader {
                Some(leader) if leader == self.id => metrics.current_term > term,
                leader => leader.is_some(),
            });
            let moved = tokio::time::timeout_at(deadline, moved).await;
            // Whoever should have taken over did not win its election, and this member won the next one: once more.
            match (moved, self.check_leads()) {
                (Ok(_), Ok(())) => {}
                (Ok(_), Err(Error::NotLeader { leader: Some(leader) })) if leader == to => return Ok(()),
                // Another one won it, and may be asked for the rest.
                (Ok(_), Err(error)) => return Err(error),
                (Err(_), Ok(())) => {
                    return Err(Error::Timeout(format!("member {to} does not lead after {HAND_OVER:?}")));
                }
                (Err(_), Err(error)) => return Err(error),
            }
        }
    }
}
