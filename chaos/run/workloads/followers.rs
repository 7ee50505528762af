//! Followers: a watch over every object that the other workloads write. One that breaks is resumed at its revision on the
//! next master; now and then a follower goes there of its own will.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt as _;
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::WatchEvent;

use super::LABEL;
use crate::run::clients::{Client, revision};
use crate::run::history::{Change, History, Part, Revision};

/// A follower stays at least and at most so long with one master, in milliseconds.
const STAY_MS: (u64, u64) = (4_000, 15_000);

pub async fn run(client: &mut Client) {
    let mut position = None;
    while !client.is_stopped() {
        if position.is_none() {
            position = begin(client).await;
        }
        if let Some(from) = position {
            position = follow(client, from).await;
        }
        moved(client);
        client.move_on().await;
    }
}

fn moved(client: &Client) {
    client.history.record().followers.entry(client.name.clone()).or_default().moves += 1;
}

/// A new part of the history begins where a list ends.
async fn begin(client: &Client) -> Option<Revision> {
    let path = format!("{}?labelSelector={LABEL}&limit=1", client.path("configmaps", ""));
    let list = client.door().get(&path).await.ok()?;
    let after = revision(&list);
    let mut record = client.history.record();
    let followed = record.followers.entry(client.name.clone()).or_default();
    followed.parts.push(Part { after, until: after, changes: Vec::new() });
    Some(after)
}

/// Follows one master; where to go on, or none when that history is gone.
async fn follow(client: &mut Client, mut position: Revision) -> Option<Revision> {
    let stay = Duration::from_millis(client.random.between(STAY_MS.0, STAY_MS.1));
    let path = format!(
        "{}?watch=1&allowWatchBookmarks=true&labelSelector={LABEL}&resourceVersion={position}",
        client.path("configmaps", "")
    );
    let Ok(request) = Request::get(path).body(Vec::new()) else { return Some(position) };
    let until = tokio::time::Instant::now() + stay;
    let api = client.door().client();
    let events = tokio::time::timeout_at(until, api.request_events::<ConfigMap>(request)).await;
    let events = match events {
        Ok(Ok(events)) => events,
        Ok(Err(kube::Error::Api(status))) if status.code == 410 => return None,
        _ => return Some(position),
    };
    let mut events = std::pin::pin!(events);
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout_at(until, events.next()) => next,
            () = client.stop.cancelled() => return Some(position),
        };
        let (change, seen) = match next {
            Ok(Some(Ok(event))) => match understand(event) {
                Ok(understood) => understood,
                Err(410) => return None,
                Err(_) => return Some(position),
            },
            _ => return Some(position),
        };
        position = position.max(seen);
        let mut record = client.history.record();
        let followed = record.followers.entry(client.name.clone()).or_default();
        if let Some(part) = followed.parts.last_mut() {
            part.until = part.until.max(seen);
            part.changes.extend(change);
        }
    }
}

/// A change, if it is one, and the revision that is reached with it; or the code of an error.
fn understand(event: WatchEvent<ConfigMap>) -> Result<(Option<Change>, Revision), u16> {
    let (object, deleted) = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
        WatchEvent::Deleted(object) => (object, true),
        WatchEvent::Bookmark(bookmark) => {
            return Ok((None, bookmark.metadata.resource_version.parse().unwrap_or_default()));
        }
        WatchEvent::Error(status) => return Err(status.code),
    };
    let revision = object.metadata.resource_version.and_then(|text| text.parse().ok()).unwrap_or_default();
    let value = object.data.and_then(|data: BTreeMap<String, String>| data.into_values().next());
    let value = if deleted { None } else { Some(value.unwrap_or_default()) };
    let change = Change { revision, object: object.metadata.name.unwrap_or_default(), value };
    Ok((Some(change), revision))
}

/// Waits until every follower has seen what was written at `revision`.
///
/// # Errors
/// Names one that has not.
pub async fn caught_up(history: &History, revision: Revision, within: Duration) -> Result<()> {
    let since = Instant::now();
    loop {
        let behind = {
            let record = history.record();
            let position =
                |followed: &crate::run::history::Followed| followed.parts.last().map_or(0, |part| part.until);
            let behind = record.followers.iter().find(|(_, followed)| position(followed) < revision);
            behind.map(|(name, followed)| (name.clone(), position(followed)))
        };
        let Some((name, position)) = behind else { return Ok(()) };
        if since.elapsed() > within {
            bail!("{name} stands at revision {position} and does not see {revision} within {} s", within.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
