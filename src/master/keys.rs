//! The keys that Secrets are sealed with: held by every master, outside the databases; one of them, named in the replicated
//! state, is sealed with.
//!
//! ```text
//! rotate: fresh key ─▶ every master has it on disk ─▶ the state names it ─▶ every Secret is proposed again
//!                      ─▶ no version in the history needs the old one ─▶ every master forgets it
//! ```
//! Each step can be repeated, and whoever leads goes on where another stopped.
//!
//! **Invariant:** a key is named only when all members hold it, and forgotten only when nothing readable needs it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use control::seal::{self, Sealer};
use replica::Replica;
use rpc::pb;
use rpc::peer::Lane;
use rpc::pki::{DataKeys, Dir, Error};
use state::{Command, Expect, Op, State};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::records;
use crate::rotate::Told;
use crate::service::{Shared, status};

/// How often a leader looks whether something is left to do, and how often it asks what the others hold.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const ASK_EVERY: u32 = 12;
/// A member that does not take keys within this does not answer.
const INSTALL_LIMIT: Duration = Duration::from_secs(5);

/// This master's keys. Cheap to share.
#[derive(Debug)]
pub struct Keyring {
    dir: Dir,
    keys: ArcSwap<DataKeys>,
    store: OnceLock<Store>,
    writing: Mutex<()>,
}

struct Store(Replica);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Keyring {
    /// # Errors
    /// When the file is damaged.
    pub fn load(dir: Dir) -> Result<Arc<Self>, Error> {
        let keys = ArcSwap::from_pointee(dir.data_keys()?);
        Ok(Arc::new(Self { dir, keys, store: OnceLock::new(), writing: Mutex::default() }))
    }

    /// From now on the state says which key to seal with.
    pub fn follow(&self, replica: Replica) {
        let _ = self.store.set(Store(replica));
    }

    pub fn ids(&self) -> Vec<String> {
        self.keys.load().ids().map(str::to_owned).collect()
    }

    /// The key to seal with: that which the state names, else the cluster's first; `None` in a cluster older than keys.
    pub fn active(&self) -> Option<String> {
        let named = self.store.get().and_then(|store| records::active_key(&store.0.root()));
        named.or_else(|| Some(self.keys.load().active().to_owned()).filter(|id| !id.is_empty()))
    }

    /// For a joiner or a snapshot: all keys, and which one is sealed with.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let mut keys = DataKeys::clone(&self.keys.load());
        if let Some(active) = self.active() {
            keys.activate(&active);
        }
        keys.to_json()
    }

    /// On disk first. Blocks.
    fn change(&self, change: impl FnOnce(&mut DataKeys) -> Result<(), Error>) -> Result<(), Error> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.keys.load_full();
        let mut keys = DataKeys::clone(&before);
        change(&mut keys)?;
        if keys != *before {
            self.dir.write_data_keys(&keys)?;
            self.keys.store(Arc::new(keys));
        }
        Ok(())
    }

    /// A new key beside those there are, which nothing is sealed with yet; its id.
    async fn add_fresh(self: &Arc<Self>) -> Result<String, Status> {
        let keys = self.clone();
        let added = tokio::task::spawn_blocking(move || {
            let mut fresh = String::new();
            keys.change(|keys| keys.add_fresh().map(|id| fresh = id)).map(|()| fresh)
        });
        ended(added.await)
    }

    /// Takes over keys of the leader; with `only`, forgets all others.
    ///
    /// # Errors
    /// When they make no sense or the disk refuses.
    pub async fn install(self: &Arc<Self>, json: bytes::Bytes, only: String) -> Result<(), Status> {
        let keys = self.clone();
        let installed = tokio::task::spawn_blocking(move || {
            let theirs = DataKeys::from_json(&json)?;
            keys.change(|keys| {
                keys.merge(&theirs);
                if !only.is_empty() {
                    keys.keep_only(&only);
                }
                Ok(())
            })
        });
        ended(installed.await)
    }
}

fn ended<T>(work: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Status> {
    let internal = |error: String| Status::internal(error);
    work.map_err(|error| internal(error.to_string()))?.map_err(|error| internal(error.to_string()))
}

impl Sealer for Keyring {
    fn seal(&self, place: &str, plain: &[u8]) -> Result<Option<(String, Vec<u8>)>, String> {
        let Some(active) = self.active() else { return Ok(None) };
        let blob = self.keys.load().seal(&active, place, plain).map_err(|error| error.to_string())?;
        Ok(Some((active, blob)))
    }

    fn open(&self, key: &str, place: &str, blob: &[u8]) -> Result<Vec<u8>, String> {
        self.keys.load().open(key, place, blob).map_err(|error| error.to_string())
    }
}

/// A new key for all Secrets, as the leader.
///
/// # Errors
/// When a member cannot be given the key (nothing has changed then), or this member no longer leads.
pub async fn rotate(shared: &Shared, told: &Told) -> Result<(), Status> {
    let fresh = shared.keys.add_fresh().await?;
    told.step(format!("made key {fresh}")).await;
    for member in shared.addresses.members() {
        install(shared, &member, "").await.map_err(|status| {
            Status::failed_precondition(format!(
                "master {} did not take the new key ({}), so the old one stays in use: start that master, or take it out \
                 with `hactl cluster remove {}`",
                member.name,
                status.message(),
                member.id
            ))
        })?;
        told.step(format!("master {} has it", member.name)).await;
    }
    records::set_active_key(&shared.replica, &fresh, shared.now()).await?;
    told.step(format!("Secrets are sealed with key {fresh} from now on")).await;
    let count = reseal(shared).await?;
    told.step(format!(
        "{count} Secrets were sealed anew; the old key is forgotten when no version in the history needs it"
    ))
    .await;
    Ok(())
}

/// Proposes every Secret again that is not sealed with the present key; how many.
async fn reseal(shared: &Shared) -> Result<usize, Status> {
    let mut count = 0;
    let Some(active) = shared.keys.active() else { return Ok(0) };
    loop {
        let root = shared.replica.root();
        let left: Vec<_> = root
            .list("", "secrets", None)
            .filter(|(_, record)| seal::key_of(record) != Some(active.as_str()))
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect();
        drop(root);
        if left.is_empty() {
            return Ok(count);
        }
        for (key, record) in left {
            let put = seal::again(&record, &*shared.keys).map_err(Status::internal)?;
            let Some(put) = put else { return Ok(count) };
            let command = Command {
                expects: vec![Expect::revision(key, record.revision)],
                ops: vec![Op::put(put)],
                time_ms: shared.now().as_millisecond(),
                ..Command::default()
            };
            // Refused: somebody wrote it meanwhile. It is looked at again.
            if records::propose(&shared.replica, command).await?.refusal.is_none() {
                count += 1;
            }
        }
    }
}

/// Whether a Secret of the state, or a version in its history, is sealed with another key than `active`.
fn others_in_use(root: &State, active: &str) -> bool {
    let other = |record: &Arc<state::Record>| seal::key_of(record).is_some_and(|key| key != active);
    let present = root.list("", "secrets", None).any(|(_, record)| other(record));
    present
        || root.events_after(root.compacted()).map_or(true, |mut events| {
            events.any(|event| seal::concerns(&event.key) && event.old.iter().chain(event.new.iter()).any(other))
        })
}

/// Gives a member all keys.
async fn install(shared: &Shared, member: &pb::MemberInfo, only: &str) -> Result<(), Status> {
    let json = shared.keys.to_json().map_err(|error| Status::internal(error.to_string()))?;
    if member.id == shared.config.member_id {
        return shared.keys.install(json.into(), only.to_owned()).await;
    }
    let mut request = Request::new(pb::InstallDataKeysRequest { data_keys: json.into(), only: only.to_owned() });
    request.set_timeout(INSTALL_LIMIT);
    let mut client = shared.peers.client(member.id, &member.peer_address, Lane::General);
    let answer = tokio::time::timeout(INSTALL_LIMIT, client.install_data_keys(request)).await;
    answer.map_err(|_| Status::deadline_exceeded("it does not answer"))??;
    Ok(())
}

/// While this member leads: ends what a rotation left, and gives keys to members that lack them.
pub async fn keep(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut turn = 0_u32;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if shared.replica.leadership().borrow().leading.is_none() {
            continue;
        }
        turn = turn.wrapping_add(1);
        if let Err(status) = tidy(&shared, turn.is_multiple_of(ASK_EVERY)).await {
            tracing::warn!(message = status.message(), "the keys for Secrets are not as they should be yet");
        }
    }
}

async fn tidy(shared: &Shared, ask: bool) -> Result<(), Status> {
    let Some(active) = shared.keys.active() else { return Ok(()) };
    let ids = shared.keys.ids();
    if !ids.contains(&active) {
        return Err(Status::internal(format!(
            "this master lacks the key {active}; let another lead (`hactl cluster transfer-leadership`), which passes it on"
        )));
    }
    reseal(shared).await?;
    let root = shared.replica.root();
    // A fresh key that is not named yet belongs to a rotation under way.
    // A write that was sealed with the former key may be on its way still.
    let settled_ms = i64::try_from(shared.config.keys_settle.as_millis()).unwrap_or(i64::MAX);
    let settled =
        records::active_key_since(&root).is_none_or(|since_ms| shared.now().as_millisecond() - since_ms > settled_ms);
    let stale = ids.len() > 1 && settled && !shared.rotations.is_under_way() && !others_in_use(&root, &active);
    if !stale && !ask {
        return Ok(());
    }
    for member in shared.addresses.members() {
        if member.id == shared.config.member_id {
            continue;
        }
        let Some(status) = status::ask(shared, &member).await else {
            // It would come back with the old key only, or with too many: asked again.
            if stale {
                return Err(Status::unavailable(format!("master {} does not answer", member.name)));
            }
            continue;
        };
        if stale && status.sealing_key != active {
            return Err(Status::unavailable(format!("master {} still seals with a former key", member.name)));
        }
        let lacks = !status.data_keys.contains(&active);
        if stale || lacks {
            install(shared, &member, if stale { &active } else { "" }).await?;
        }
    }
    if stale {
        // Last, so that the one who leads still knows that there is something to forget.
        let json = shared.keys.to_json().map_err(|error| Status::internal(error.to_string()))?;
        shared.keys.install(json.into(), active.clone()).await?;
        tracing::info!(key = active, "the former keys for Secrets are forgotten");
    }
    Ok(())
}
