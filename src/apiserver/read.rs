//! Which state a read sees: the newest acknowledged one, whatever is at hand, or one at least as new as a revision.

use std::sync::Arc;
use std::time::Duration;

use replica::Replica;
use state::{Revision, State};

use crate::query::{Query, Version, parse_revision};
use crate::status::{Failure, Result};

/// How long a master that is behind waits for a revision before it says 504.
const CATCH_UP: Duration = Duration::from_secs(3);

/// The version a GET of one object asks for.
pub fn object_version(query: &Query) -> Result<Version> {
    Ok(match query.get("resourceVersion") {
        "" => Version::Newest,
        "0" => Version::Any,
        text => Version::NotOlderThan(parse_revision(text)?),
    })
}

/// A root that satisfies `version`. For an exact one: a root that knows that revision.
pub async fn at(replica: &Replica, version: Version) -> Result<Arc<State>> {
    match version {
        Version::Newest => Ok(replica.read().await?),
        Version::Any => Ok(replica.root()),
        Version::NotOlderThan(revision) | Version::Exact(revision) => not_older(replica, revision).await,
    }
}

/// Waits until the local root has reached `revision`.
pub async fn not_older(replica: &Replica, revision: Revision) -> Result<Arc<State>> {
    let root = replica.root();
    if root.revision() >= revision {
        return Ok(root);
    }
    let mut applied = replica.applied();
    let caught_up = tokio::time::timeout(CATCH_UP, applied.wait_for(|applied| *applied >= revision)).await;
    let root = replica.root();
    if matches!(caught_up, Ok(Ok(_))) && root.revision() >= revision {
        return Ok(root);
    }
    Err(Failure::future_revision(revision, root.revision()))
}
