//! An informer's beginning: until it has every object, decoded, in its store, and its watch open.
//!
//! Both ways in are measured: pages of a list and then a watch, as most controllers do, and a watch that begins with all
//! objects, as newer ones do.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use http::Method;
use http_body_util::BodyExt;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, WatchEvent};
use k8s_openapi::{List, ListableResource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::http::{Connection, Masters};

/// Each way is gone so often; the middle one counts.
const RUNS: usize = 3;
/// Objects of a page, as clients ask for them.
const PAGE: usize = 500;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Seconds until all is there.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Followed {
    pub list_s: f64,
    /// Absent where the server refuses such a watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch_s: Option<f64>,
}

type Store<T> = HashMap<String, T>;

/// # Errors
/// When an informer does not find all `count` objects.
pub async fn measure<T>(masters: &Masters, path: &str, count: usize) -> Result<Followed>
where
    T: ListableResource + Metadata<Ty = ObjectMeta> + DeserializeOwned,
{
    let (mut lists, mut watches) = (Vec::new(), Vec::new());
    for number in 0..RUNS {
        let connection = masters.connect(number).await?;
        let since = Instant::now();
        let store: Store<T> = by_list(&connection, path).await?;
        lists.push(since.elapsed().as_secs_f64());
        // A server may put objects of its own beside them.
        anyhow::ensure!(store.len() >= count, "a list has {} objects, {count} are there", store.len());
        drop(store);
        let since = Instant::now();
        let Some(store) = by_watch::<T>(&connection, path).await? else { continue };
        watches.push(since.elapsed().as_secs_f64());
        anyhow::ensure!(store.len() >= count, "a watch began with {} objects, {count} are there", store.len());
    }
    Ok(Followed { list_s: middle(lists).context("nothing was measured")?, watch_s: middle(watches) })
}

fn middle(mut seconds: Vec<f64>) -> Option<f64> {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

fn keep<T: Metadata<Ty = ObjectMeta>>(store: &mut Store<T>, object: T) {
    store.insert(object.metadata().name.clone().unwrap_or_default(), object);
}

async fn by_list<T>(connection: &Connection, path: &str) -> Result<Store<T>>
where
    T: ListableResource + Metadata<Ty = ObjectMeta> + DeserializeOwned,
{
    let (mut store, mut next) = (Store::new(), String::new());
    loop {
        let from = if next.is_empty() { "&resourceVersion=0".to_owned() } else { format!("&continue={next}") };
        let page = connection.ask(Method::GET, &format!("{path}?limit={PAGE}{from}"), None).await?;
        let page: List<T> = serde_json::from_slice(&page.into_body().collect().await?.to_bytes())?;
        page.items.into_iter().for_each(|object| keep(&mut store, object));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(more) => next = more,
            None => {
                let revision = page.metadata.resource_version.unwrap_or_default();
                let watch = format!("{path}?watch=1&allowWatchBookmarks=true&resourceVersion={revision}");
                // Open, and nothing more to come.
                drop(connection.ask(Method::GET, &watch, None).await?);
                return Ok(store);
            }
        }
    }
}

/// `None` where the server refuses it.
async fn by_watch<T>(connection: &Connection, path: &str) -> Result<Option<Store<T>>>
where
    T: ListableResource + Metadata<Ty = ObjectMeta> + DeserializeOwned,
{
    let watch = format!(
        "{path}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion="
    );
    let mut lines = match connection.lines(&watch).await {
        Ok(lines) => lines,
        Err(error) if error.to_string().starts_with("422") => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut store = Store::new();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str::<WatchEvent<T>>(&line)? {
            WatchEvent::Added(object) => keep(&mut store, object),
            WatchEvent::Bookmark { annotations, .. } if annotations.contains_key(INITIAL_EVENTS_END) => {
                return Ok(Some(store));
            }
            WatchEvent::Bookmark { .. } => {}
            _ => bail!("an event that is no beginning: {}", &line[..line.floor_char_boundary(200)]),
        }
    }
    bail!("the watch ended before it had told all objects")
}
