//! Short ways to write commands, and the tests of this crate by what they claim.

mod apply;
mod bounds;
mod codec;
mod golden;
mod history;
mod laws;
mod outcomes;
mod quota;
mod recorded;

use bytes::Bytes;

use crate::{Applied, Command, EntryId, Expect, Header, Key, Op, Outcome, Owner, Put, Refusal, State, op};

pub(crate) const TERM: u64 = 3;

/// `node n`, `ns/pod`, `namespace a`: `x` is a Node, `@x` a Namespace, `a/x` a Pod.
pub(crate) fn key(short: &str) -> Key {
    match (short.split_once('/'), short.strip_prefix('@')) {
        (Some((namespace, name)), _) => Key::new("", "pods", namespace, name),
        (None, Some(name)) => Key::namespace(name),
        (None, None) => Key::node(short),
    }
}

pub(crate) struct Thing(pub(crate) Put);

/// An object whose uid is its key and whose body is `{}`.
pub(crate) fn thing(short: &str) -> Thing {
    let header = Header { uid: format!("uid-{short}"), ..Header::default() };
    let body = Bytes::from_static(b"{\"metadata\":{\"resourceVersion\":}}");
    Thing(Put { key: key(short), header, body, split: 31, managed_fields: Bytes::new() })
}

impl Thing {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Header)) -> Self {
        change(&mut self.0.header);
        self
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        self.0.body = Bytes::copy_from_slice(body.as_bytes());
        self.0.split = 0;
        self
    }

    pub(crate) fn node(self, node: &str) -> Self {
        self.with(|header| header.node = node.into())
    }

    pub(crate) fn claims(self, claims: &[&str]) -> Self {
        self.with(|header| header.claims = claims.iter().map(ToString::to_string).collect())
    }

    pub(crate) fn owned_by(self, uids: &[&str]) -> Self {
        let owner = |uid: &&str| Owner { uid: uid.to_string(), ..Owner::default() };
        self.with(|header| header.owners = uids.iter().map(owner).collect())
    }

    pub(crate) fn field(self, name: &str, value: &str) -> Self {
        self.with(|header| header.fields.insert(name, value))
    }

    pub(crate) fn terminating(self) -> Self {
        self.with(|header| header.deletion_ms = 1)
    }

    pub(crate) fn put(self) -> Op {
        Op::put(self.0)
    }
}

pub(crate) fn delete(short: &str) -> Op {
    Op::delete(key(short))
}

pub(crate) fn compact(revision: u64) -> Op {
    Op { kind: Some(op::Kind::Compact(crate::Compact { revision })) }
}

pub(crate) fn raise(version: u32) -> Op {
    Op { kind: Some(op::Kind::RaiseVersion(crate::RaiseVersion { version })) }
}

pub(crate) fn quota(bytes: u64) -> Op {
    Op { kind: Some(op::Kind::SetQuota(crate::SetQuota { bytes })) }
}

pub(crate) fn command(ops: Vec<Op>) -> Command {
    Command { ops, ..Command::default() }
}

pub(crate) fn expecting(expects: Vec<Expect>, ops: Vec<Op>) -> Command {
    Command { expects, ops, ..Command::default() }
}

/// Applies in the next entry of [`TERM`].
pub(crate) fn apply(state: &mut State, command: &Command) -> Applied {
    let entry = EntryId { term: TERM, index: state.applied().index + 1 };
    state.apply(entry, command)
}

/// A state in which these commands have been accepted.
pub(crate) fn state(commands: impl IntoIterator<Item = Vec<Op>>) -> State {
    let mut state = State::default();
    for ops in commands {
        let outcome = apply(&mut state, &command(ops)).outcome;
        assert_eq!(outcome.refusal, None);
    }
    state
}

pub(crate) fn accepted(revision: u64, revisions: &[u64]) -> Outcome {
    Outcome { revision, revisions: revisions.to_vec(), refusal: None }
}

pub(crate) fn refused(revision: u64, refusal: Refusal) -> Outcome {
    Outcome { revision, revisions: Vec::new(), refusal: Some(refusal) }
}
