//! Fills `state/` again from another member, where it is damaged and neither the snapshot beside it nor the log can do it.
//!
//! ```text
//!   damaged state/ ─▶ ask each other member for a snapshot behind our purged log ─▶ snapshots/ ─▶ state/<n+1>
//!                                                                    the rest of our log goes on from there
//! ```
//!
//! Vote and log are whole, so this member has broken no promise and keeps its id. Any member will do, not only a leader:
//! what one has applied is committed. Nothing is served and nobody is elected here meanwhile.
//!
//! Not here: a damaged log or vote, which only a new member can take the place of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

use crate::Error;
use crate::log::LogStore;
use crate::snapshot::Snapshots;
use crate::transport::PeerTransport;
use crate::types::{LogId, Member, StoredMembership};
use crate::wire;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);

/// The other members as this one's disk knows them.
pub fn others(id: u64, log: &LogStore, noted: Option<StoredMembership>, snapshots: &Snapshots) -> Vec<Member> {
    let of_snapshot = || snapshots.current().map(|snapshot| snapshot.meta.last_membership.clone());
    let stored = || noted.or_else(of_snapshot).map(|stored| stored.membership().clone());
    let known = log.membership().cloned().or_else(stored).unwrap_or_default();
    known.nodes().filter(|(other, _)| **other != id).map(|(_, member)| member.clone()).collect()
}

/// Fetches a snapshot that reaches `purged`, from whichever member gives one. Tries until one does.
///
/// # Errors
/// [`Error::Mismatch`] when a member says that this one is of the cluster no more.
pub async fn fetch(
    transport: &dyn PeerTransport,
    others: &[Member],
    snapshots: &Arc<Snapshots>,
    purged: LogId,
) -> Result<LogId, Error> {
    let mut said = BTreeMap::new();
    loop {
        for member in others {
            let status = match one(transport, member, snapshots, purged).await {
                Ok(last) => {
                    tracing::warn!(from = member.name, index = last.index, "a snapshot was fetched");
                    return Ok(last);
                }
                Err(status) => status,
            };
            if status.code() == Code::PermissionDenied {
                return Err(Error::Mismatch(status.message().to_owned()));
            }
            if said.insert(member.id, status.message().to_owned()).as_deref() != Some(status.message()) {
                tracing::warn!(from = member.name, why = status.message(), "no snapshot yet; asking on");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn one(
    transport: &dyn PeerTransport,
    member: &Member,
    snapshots: &Arc<Snapshots>,
    purged: LogId,
) -> Result<LogId, Status> {
    let chunks = transport.fetch_snapshot(member, wire::encode_log_id(&purged)).await?;
    let (_, snapshot) = snapshots.receive(chunks).await?;
    let last = snapshot.meta.last_log_id.filter(|last| *last >= purged);
    let last = last.ok_or_else(|| Status::failed_precondition("its snapshot ends before our log begins"))?;
    snapshots.keep(snapshot.snapshot);
    Ok(last)
}
