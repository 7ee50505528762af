//! What masters themselves keep in the replicated state, in the group `hactl.io` that the API does not show: join tokens
//! and the register of member ids.
//!
//! A body is `{"metadata":{"name":…,"resourceVersion":…},"spec":…}`, written here and nowhere else.
//!
//! **Invariant:** a member id is registered once and its record never deleted, so ids are never reused.

use replica::Replica;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use state::{Command, Expect, Header, Key, Op, Outcome, Put, Record, Refusal, State};

const GROUP: &str = "hactl.io";
const TOKENS: &str = "jointokens";
const MEMBERS: &str = "members";
const RECOVERY: &str = "recovery";

/// How often an id that another master took meanwhile is chosen anew.
const TRIES: usize = 16;

/// A join token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    #[serde(default)]
    pub id: String,
    /// `rpc::token::hash` of the secret.
    pub hash: String,
    pub master: bool,
    pub node: bool,
    /// Seconds since 1970.
    pub expires: i64,
    pub description: String,
    /// What it demands of the issuers; empty: made before that was kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pin: String,
}

/// One member id that was ever given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    pub name: String,
    pub peer_address: String,
    pub api_address: String,
    /// Its certificate opens nothing any more.
    pub removed: bool,
    /// Fingerprint of the nonce it joined with: the same machine, asking again, is given the same id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub joiner: String,
}

/// What snapshots are encrypted to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RecoveryKey {
    recipient: String,
}

/// The last automatic snapshot: when it was tried and when one was saved, in seconds since 1970, and that one's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomaticSnapshot {
    pub tried: i64,
    pub saved: i64,
    pub name: String,
}

/// Why a record could not be read or written; for gRPC.
type Status = tonic::Status;

pub fn token_key(id: &str) -> Key {
    Key::new(GROUP, TOKENS, "", id)
}

pub fn member_key(id: u64) -> Key {
    // Padded, so that the order of keys is that of ids.
    Key::new(GROUP, MEMBERS, "", format!("{id:020}"))
}

/// What changes when a member is registered or taken away.
pub fn member_filter(id: u64) -> replica::watch::Filter {
    let key = member_key(id);
    replica::watch::Filter::resource(key.group, key.resource).named(key.name)
}

pub fn tokens(root: &State) -> Vec<Token> {
    root.list(GROUP, TOKENS, None)
        .filter_map(|(key, record)| Some(Token { id: key.name.clone(), ..spec(record)? }))
        .collect()
}

pub fn token(root: &State, id: &str) -> Option<Token> {
    Some(Token { id: id.to_owned(), ..spec(root.get(&token_key(id))?)? })
}

/// Every id that was ever given out.
pub fn members(root: &State) -> Vec<(u64, MemberRecord)> {
    root.list(GROUP, MEMBERS, None).filter_map(|(key, record)| Some((key.name.parse().ok()?, spec(record)?))).collect()
}

pub fn member(root: &State, id: u64) -> Option<MemberRecord> {
    spec(root.get(&member_key(id))?)
}

/// Whether the id was taken away. Read on every call of a peer, so it looks at the header alone.
pub fn is_removed(root: &State, id: u64) -> bool {
    root.get(&member_key(id)).is_some_and(|record| record.header.fields.contains_key("removed"))
}

/// # Errors
/// When the leader cannot be reached.
pub async fn put_token(replica: &Replica, token: &Token, now: jiff::Timestamp) -> Result<(), Status> {
    let key = token_key(&token.id);
    let command = command(vec![Expect::absent(key.clone())], put(key, token, false, now), now);
    accepted(propose(replica, command).await?)
}

/// Whether there was such a token.
///
/// # Errors
/// When the leader cannot be reached.
pub async fn delete_tokens(replica: &Replica, ids: &[String], now: jiff::Timestamp) -> Result<(), Status> {
    let ops = ids.iter().map(|id| Op::delete(token_key(id))).collect();
    accepted(propose(replica, Command { ops, time_ms: now.as_millisecond(), ..Command::default() }).await?)
}

/// Registers a member under the next free id, or under the one that the same joiner was given before.
///
/// # Errors
/// When the leader cannot be reached.
pub async fn register_member(replica: &Replica, member: &MemberRecord, now: jiff::Timestamp) -> Result<u64, Status> {
    for _ in 0..TRIES {
        let root = replica.root();
        let same = |known: &MemberRecord| !known.removed && !known.joiner.is_empty() && known.joiner == member.joiner;
        if let Some((id, known)) = members(&root).into_iter().find(|(_, known)| same(known)) {
            if known == *member {
                return Ok(id);
            }
            let key = member_key(id);
            let expects = vec![Expect::exists(key.clone())];
            accepted(propose(replica, command(expects, put(key, member, false, now), now)).await?)?;
            return Ok(id);
        }
        let id = last_member(&root) + 1;
        let key = member_key(id);
        let command = command(vec![Expect::absent(key.clone())], put(key, member, member.removed, now), now);
        match propose(replica, command).await?.refusal {
            None => return Ok(id),
            Some(Refusal::AlreadyExists(_) | Refusal::Conflict(_)) => {}
            Some(other) => return Err(Status::internal(format!("{other:?}"))),
        }
    }
    Err(Status::unavailable("other masters keep joining; try again"))
}

/// The highest id ever given out.
fn last_member(root: &State) -> u64 {
    root.list(GROUP, MEMBERS, None).last().and_then(|(key, _)| key.name.parse().ok()).unwrap_or(0)
}

/// Makes a member's certificate worthless.
///
/// # Errors
/// When the leader cannot be reached.
pub async fn remove_member(replica: &Replica, id: u64, now: jiff::Timestamp) -> Result<(), Status> {
    let Some(mut present) = member(&replica.root(), id) else { return Ok(()) };
    present.removed = true;
    let key = member_key(id);
    let command = command(vec![Expect::exists(key.clone())], put(key, &present, true, now), now);
    accepted(propose(replica, command).await?)
}

/// The next free member id, and the command that registers it; for a cluster that does not run.
pub fn registration(root: &State, member: &MemberRecord, now: jiff::Timestamp) -> (u64, Command) {
    let id = last_member(root) + 1;
    let key = member_key(id);
    (id, command(vec![Expect::absent(key.clone())], put(key, member, member.removed, now), now))
}

/// Makes the certificates of all members but one worthless; for a cluster that does not run.
pub fn remove_members(root: &State, but: Option<u64>, now: jiff::Timestamp) -> Command {
    let kept = but.map(member_key);
    let ops =
        root.list(GROUP, MEMBERS, None).filter(|(key, _)| Some(*key) != kept.as_ref()).filter_map(|(key, record)| {
            let present = MemberRecord { removed: true, ..spec(record)? };
            Some(Op::put(put(key.clone(), &present, true, now)))
        });
    Command { ops: ops.collect(), time_ms: now.as_millisecond(), ..Command::default() }
}

fn recovery_key() -> Key {
    Key::new(GROUP, RECOVERY, "", "key")
}

/// What snapshots are encrypted to; none in a cluster that never had one.
pub fn recovery_recipient(root: &State) -> Option<String> {
    spec::<RecoveryKey>(root.get(&recovery_key())?).map(|key| key.recipient)
}

/// The key that Secrets are sealed with, once a rotation has named one.
pub fn active_key(root: &State) -> Option<String> {
    spec::<ActiveKey>(root.get(&active_key_key())?).map(|active| active.id)
}

/// When it was named, in milliseconds since 1970.
pub fn active_key_since(root: &State) -> Option<i64> {
    root.get(&active_key_key()).map(|record| record.header.creation_ms)
}

#[derive(Serialize, Deserialize)]
struct ActiveIssuers {
    trust: String,
    signs_with: String,
}

fn issuers_key() -> Key {
    Key::new(GROUP, "issuers", "", "active")
}

/// Fingerprints of the issuers that count, trusted and signing, once a rotation has begun.
pub fn issuers(root: &State) -> Option<(String, String)> {
    spec::<ActiveIssuers>(root.get(&issuers_key())?).map(|active| (active.trust, active.signs_with))
}

/// # Errors
/// When the leader cannot be reached.
pub async fn set_issuers(replica: &Replica, trust: &str, signs_with: &str, now: jiff::Timestamp) -> Result<(), Status> {
    let active = ActiveIssuers { trust: trust.to_owned(), signs_with: signs_with.to_owned() };
    let put = put(issuers_key(), &active, false, now);
    accepted(propose(replica, command(Vec::new(), put, now)).await?)
}

#[derive(Serialize, Deserialize)]
struct ActiveKey {
    id: String,
}

fn active_key_key() -> Key {
    Key::new(GROUP, "datakeys", "", "active")
}

/// # Errors
/// When the leader cannot be reached.
pub async fn put_recovery_recipient(replica: &Replica, recipient: &str, now: jiff::Timestamp) -> Result<(), Status> {
    let key = RecoveryKey { recipient: recipient.to_owned() };
    let command = command(Vec::new(), put(recovery_key(), &key, false, now), now);
    accepted(propose(replica, command).await?)
}

fn automatic_key() -> Key {
    Key::new(GROUP, RECOVERY, "", "automatic")
}

/// The last automatic snapshot; none before the first try.
pub fn automatic_snapshot(root: &State) -> Option<AutomaticSnapshot> {
    spec(root.get(&automatic_key())?)
}

/// As the leader of a term. False: it is over.
///
/// # Errors
/// When the majority cannot be reached.
pub async fn note_automatic_snapshot(
    replica: &Replica,
    term: replica::Term,
    snapshot: &AutomaticSnapshot,
    now: jiff::Timestamp,
) -> Result<bool, Status> {
    let command = command(Vec::new(), put(automatic_key(), snapshot, false, now), now);
    match replica.propose_as_leader(term, command).await {
        Ok(outcome) => accepted(outcome).map(|()| true),
        Err(replica::Error::Deposed(_)) => Ok(false),
        Err(error) => Err(Status::unavailable(error.to_string())),
    }
}

/// # Errors
/// When the leader cannot be reached.
pub async fn set_active_key(replica: &Replica, id: &str, now: jiff::Timestamp) -> Result<(), Status> {
    let put = put(active_key_key(), &ActiveKey { id: id.to_owned() }, false, now);
    accepted(propose(replica, command(Vec::new(), put, now)).await?)
}

/// Proposes, with errors as gRPC words them.
///
/// # Errors
/// `UNAVAILABLE` without a leader.
pub async fn propose(replica: &Replica, command: Command) -> Result<Outcome, Status> {
    replica.propose(command).await.map_err(|error| match error {
        replica::Error::TooLarge(_) => Status::invalid_argument(error.to_string()),
        replica::Error::Unknown(_) => Status::deadline_exceeded(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    })
}

fn accepted(outcome: Outcome) -> Result<(), Status> {
    match outcome.refusal {
        None => Ok(()),
        Some(refusal) => Err(Status::aborted(format!("another change came first: {refusal:?}"))),
    }
}

fn command(expects: Vec<Expect>, put: Put, now: jiff::Timestamp) -> Command {
    let time_ms = now.as_millisecond();
    Command { expects, ops: vec![Op::put(put)], time_ms, system: true, ..Command::default() }
}

fn put(key: Key, spec: &impl Serialize, removed: bool, now: jiff::Timestamp) -> Put {
    let name = serde_json::Value::from(key.name.as_str());
    let head = format!(r#"{{"metadata":{{"name":{name},"resourceVersion":"#);
    // These specs are plain structs of strings, numbers and booleans: they always serialize.
    let spec = serde_json::to_string(spec).unwrap_or_else(|_| "null".into());
    let mut header = Header { uid: format!("{key}"), creation_ms: now.as_millisecond(), ..Header::default() };
    if removed {
        header.fields.insert("removed", "true");
    }
    let split = u32::try_from(head.len()).unwrap_or(u32::MAX);
    Put { key, header, body: format!(r#"{head}}},"spec":{spec}}}"#).into(), split, ..Put::default() }
}

fn spec<T: DeserializeOwned>(record: &Record) -> Option<T> {
    #[derive(Deserialize)]
    struct Body<T> {
        spec: T,
    }
    serde_json::from_slice::<Body<T>>(&record.json()).ok().map(|body| body.spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_record() {
        let token = Token {
            id: "0a".into(),
            hash: "ff".into(),
            master: true,
            node: false,
            expires: 7,
            description: "for \"b\"".into(),
            pin: "ee".into(),
        };
        let put = put(token_key("0a"), &token, false, jiff::Timestamp::UNIX_EPOCH);
        let record = Record {
            header: put.header,
            body: put.body,
            split: put.split,
            managed_fields: put.managed_fields,
            created: 3,
            revision: 3,
        };
        assert_eq!(spec::<Token>(&record), Some(token));
        let json: serde_json::Value = serde_json::from_slice(&record.json()).expect("JSON");
        assert_eq!(json["metadata"]["resourceVersion"], "3");
    }
}
