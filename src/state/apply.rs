//! `apply`: the deterministic state machine and the rules that span objects.
//!
//! ```text
//!   seen before? ──▶ well-formed? ──▶ term ──▶ expects ──▶ op, op, … ──▶ history, compaction, version ──▶ outcome
//!        │                └───────────────┴────────┴─refused──┘ ops made so far are undone              remembered
//!        └──▶ the first outcome again
//! ```
//!
//! Each rule is O(1) or O(log n) through an index. Ops of one command see those before them.
//!
//! **Invariant:** a refused command changes nothing but the table of outcomes. No input makes this panic.

use std::sync::Arc;

use bytes::Bytes;

use crate::index::size;
use crate::key::Shared;
use crate::{
    Applied, Command, Condition, EntryId, Event, Expect, Header, Key, Op, Outcome, ProposalId, Put, Record, Refusal,
    Revision, State, op,
};

impl State {
    /// Applies one command of the log entry `entry`.
    pub fn apply(&mut self, entry: EntryId, command: &Command) -> Applied {
        self.applied = entry;
        let id = match proposal_id(&command.proposal) {
            Ok(id) => id,
            Err(refusal) => return self.refused(refusal),
        };
        if let Some(outcome) = id.and_then(|id| self.outcome_of(id)) {
            let outcome = outcome.clone();
            return Applied { outcome, events: Vec::new(), forgotten: Vec::new(), remembered: None };
        }
        let mut applied = match self.carry_out(entry, command) {
            Ok(applied) => applied,
            Err(refusal) => self.refused(refusal),
        };
        applied.remembered = id.map(|id| self.remember(id, &applied.outcome));
        applied
    }

    fn refused(&self, refusal: Refusal) -> Applied {
        let outcome = Outcome { revision: self.revision, revisions: Vec::new(), refusal: Some(refusal) };
        Applied { outcome, events: Vec::new(), forgotten: Vec::new(), remembered: None }
    }

    fn carry_out(&mut self, entry: EntryId, command: &Command) -> Result<Applied, Refusal> {
        let ops = command.ops.iter().map(|op| well_formed(op, self.version)).collect::<Result<Vec<_>, _>>()?;
        if command.term != 0 && command.term != entry.term {
            return Err(Refusal::Deposed(command.term));
        }
        for expect in &command.expects {
            self.expect(expect)?;
        }
        let own = command.term != 0 || (command.system && self.version >= VERSION_OWN_HEADROOM);
        let mut events = Vec::new();
        let mut revisions = Vec::with_capacity(ops.len());
        for op in &ops {
            match self.change(op, own, &mut events) {
                Ok(revision) => revisions.push(revision),
                Err(refusal) => {
                    self.undo(&events);
                    return Err(refusal);
                }
            }
        }
        for event in &events {
            self.record(event);
        }
        let mut forgotten = Vec::new();
        for op in ops {
            match op {
                op::Kind::Compact(compact) => forgotten.extend(self.compact(compact.revision)),
                op::Kind::RaiseVersion(raise) => self.version = self.version.max(raise.version),
                op::Kind::SetQuota(quota) => self.quota = quota.bytes,
                op::Kind::Put(_) | op::Kind::Delete(_) => {}
            }
        }
        let outcome = Outcome { revision: self.revision, revisions, refusal: None };
        Ok(Applied { outcome, events, forgotten, remembered: None })
    }

    fn expect(&self, expect: &Expect) -> Result<(), Refusal> {
        let key = &expect.key;
        let record = || self.get(key).ok_or_else(|| Refusal::NotFound(key.clone()));
        let holds = match &expect.condition {
            Some(Condition::Absent(_)) if self.get(key).is_some() => return Err(Refusal::AlreadyExists(key.clone())),
            Some(Condition::Absent(_)) => true,
            Some(Condition::Exists(_)) => record().map(|_| true)?,
            Some(Condition::Revision(revision)) => record()?.revision == *revision,
            Some(Condition::Uid(uid)) => record()?.header.uid == *uid,
            None => return Err(Refusal::Invalid(format!("an unknown condition on {key}"))),
        };
        if holds { Ok(()) } else { Err(Refusal::Conflict(key.clone())) }
    }

    /// Makes one op's change to the objects. Returns the revision it took, or the present one of what it left alone.
    fn change(&mut self, op: &op::Kind, own: bool, events: &mut Vec<Arc<Event>>) -> Result<Revision, Refusal> {
        let (key, new) = match op {
            op::Kind::Put(put) => {
                let (key, old) = self.held(&put.key).unzip();
                if let Some(old) = old.filter(|old| is_same(old, put)) {
                    return Ok(old.revision);
                }
                self.allows(put, old.map(|old| &old.header))?;
                let revision = self.revision + 1;
                let new = record(put, old.map_or(revision, |old| old.created), revision);
                self.allows_bytes(&put.key, old, &new, own)?;
                (key.cloned().unwrap_or_else(|| Shared::new(put.key.clone())), Some(Arc::new(new)))
            }
            op::Kind::Delete(key) => match self.held(key) {
                Some((key, _)) => (key.clone(), None),
                None => return Ok(0),
            },
            op::Kind::Compact(_) | op::Kind::RaiseVersion(_) | op::Kind::SetQuota(_) => return Ok(self.revision),
        };
        self.revision += 1;
        let old = self.replace(&key, new.clone());
        events.push(Arc::new(Event { revision: self.revision, key: Key::clone(&key), old, new }));
        Ok(self.revision)
    }

    fn undo(&mut self, events: &[Arc<Event>]) {
        for event in events.iter().rev() {
            self.replace(&Shared::new(event.key.clone()), event.old.clone());
        }
        self.revision -= events.len() as u64;
    }

    /// The rules on a version that is about to be stored.
    fn allows(&self, put: &Put, old: Option<&Header>) -> Result<(), Refusal> {
        if old.is_none() {
            self.allows_create(&put.key)?;
        }
        self.allows_claims(&put.key, old, &put.header)?;
        self.allows_node(&put.key, old.map_or("", |old| old.node.as_str()), &put.header.node)?;
        self.allows_uses(&put.key, old, &put.header)
    }

    /// Over its quota the store takes no new objects of users, over half of the headroom behind it nothing of theirs that
    /// grows, and over all of it nothing at all that grows; what is being deleted, and what does not grow, is always taken.
    fn allows_bytes(&self, key: &Key, old: Option<&Arc<Record>>, new: &Record, own: bool) -> Result<(), Refusal> {
        if self.quota == 0 || self.version < VERSION_QUOTA || new.header.deletion_ms != 0 {
            return Ok(());
        }
        let (before, after) = (old.map_or(0, |old| size(old)), size(new));
        let headroom = self.quota / HEADROOM;
        let limit = match old {
            _ if own => self.quota + headroom,
            None => self.quota,
            Some(_) if self.version >= VERSION_OWN_HEADROOM => self.quota + headroom / 2,
            Some(_) => self.quota + headroom,
        };
        let would = self.bytes - before + after;
        if after <= before || would <= limit {
            return Ok(());
        }
        Err(Refusal::OverQuota(format!(
            "the store is full: with {key} its objects would take {would} bytes of {} (setting store-quota); \
             delete objects, which is always possible, or raise the setting",
            self.quota
        )))
    }

    /// A namespace takes new objects while it exists and is not being deleted.
    fn allows_create(&self, key: &Key) -> Result<(), Refusal> {
        if key.namespace.is_empty() {
            return Ok(());
        }
        let namespace = Key::namespace(key.namespace.as_str());
        match self.get(&namespace) {
            None => Err(Refusal::NamespaceMissing(namespace)),
            Some(record) if record.header.deletion_ms != 0 => Err(Refusal::NamespaceTerminating(namespace)),
            Some(_) => Ok(()),
        }
    }

    /// A claim, and a uid, belongs to one object. What the version before had is this object's already.
    fn allows_claims(&self, key: &Key, old: Option<&Header>, header: &Header) -> Result<(), Refusal> {
        if old.is_some_and(|old| old.uid == header.uid && old.claims == header.claims) {
            return Ok(());
        }
        let other = |holder: Option<&Key>| holder.filter(|holder| *holder != key).cloned();
        for claim in &header.claims {
            if let Some(holder) = other(self.claimed(claim)) {
                return Err(Refusal::Claimed(format!("{claim} held by {holder}")));
            }
        }
        match other(self.by_uid(&header.uid)) {
            Some(holder) => Err(Refusal::Claimed(format!("uid/{} held by {holder}", header.uid))),
            None => Ok(()),
        }
    }

    /// Bound once, to a node that exists, and never moved.
    fn allows_node(&self, key: &Key, old: &str, new: &str) -> Result<(), Refusal> {
        if old == new {
            return Ok(());
        }
        if !old.is_empty() {
            return Err(Refusal::Bind(format!("{key} is already assigned to node {old:?}")));
        }
        if self.get(&Key::node(new)).is_none() {
            return Err(Refusal::Bind(format!("node {new:?} does not exist")));
        }
        Ok(())
    }
}

fn proposal_id(bytes: &Bytes) -> Result<Option<ProposalId>, Refusal> {
    match <[u8; 16]>::try_from(bytes.as_ref()) {
        Ok(id) => Ok(Some(ProposalId::from_be_bytes(id))),
        Err(_) if bytes.is_empty() => Ok(None),
        Err(_) => Err(Refusal::Invalid(format!("a proposal id of {} bytes", bytes.len()))),
    }
}

/// The first version that knows a quota.
const VERSION_QUOTA: u32 = 2;
/// The first version in which users' changes leave half of the headroom to the cluster itself: what nodes report of
/// themselves and their pods must go on.
const VERSION_OWN_HEADROOM: u32 = 3;
/// Beyond its quota by this part of it the store still takes what a running cluster needs to get smaller again.
const HEADROOM: u64 = 16;

/// What can be said of an op without looking at the objects.
fn well_formed(op: &Op, version: u32) -> Result<&op::Kind, Refusal> {
    let unknown = || Refusal::Invalid("an unknown operation".into());
    let kind = op.kind.as_ref().ok_or_else(unknown)?;
    // As a member answers that does not know it.
    if matches!(kind, op::Kind::SetQuota(_)) && version < VERSION_QUOTA {
        return Err(unknown());
    }
    if let op::Kind::Put(put) = kind {
        well_formed_key(&put.key)?;
        if put.split as usize > put.body.len() {
            return Err(Refusal::Invalid(format!("{} is split behind its end", put.key)));
        }
    }
    Ok(kind)
}

/// Keys are stored with a zero byte behind each part.
fn well_formed_key(key: &Key) -> Result<(), Refusal> {
    let parts = [&key.group, &key.resource, &key.namespace, &key.name];
    if key.resource.is_empty() || key.name.is_empty() || parts.iter().any(|part| part.contains('\0')) {
        return Err(Refusal::Invalid(format!("{:?} cannot be a key", key.to_string())));
    }
    Ok(())
}

fn is_same(record: &Record, put: &Put) -> bool {
    record.header == put.header
        && record.body == put.body
        && record.split == put.split
        && record.managed_fields == put.managed_fields
}

/// The bytes are copied, so that a small object does not keep the whole log entry in memory that it arrived in.
fn record(put: &Put, created: Revision, revision: Revision) -> Record {
    Record {
        header: put.header.clone(),
        body: Bytes::copy_from_slice(&put.body),
        split: put.split,
        managed_fields: Bytes::copy_from_slice(&put.managed_fields),
        created,
        revision,
    }
}
