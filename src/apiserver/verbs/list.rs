//! LIST: which state, which page, which objects.

use std::borrow::Cow;
use std::sync::Arc;

use axum::response::Response;
use control::seal;
use state::{Key, Record, Revision};

use crate::negotiate;
use crate::query::{ListOptions, Token, Version};
use crate::read;
use crate::respond::Items;
use crate::rows::Rows;
use crate::server::Call;
use crate::shape::{ListMeta, Shape};
use crate::status::{Failure, Result};

const TOKEN_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

pub async fn list(call: &Call) -> Result<Response> {
    let accepted = negotiate::accepted(&call.headers, true)?;
    let options = ListOptions::parse(call, false)?;
    let shape = Shape::new(call, accepted.form)?;
    // What lies sealed is opened first, so that one that does not open fails the list instead of cutting it short.
    let sealed = seal::concerns(&call.key());
    // Few have a label, as a rule: those are found by it, and need not be streamed.
    let by_label = !call.resource.namespace.is_empty() && !options.selectors.labels.pairs().is_empty();
    let present = options.limit == 0 && options.token.is_none() && !matches!(options.version, Version::Exact(_));
    let (meta, items) = if present && !sealed && !by_label {
        let root = read::at(call.replica(), options.version).await?;
        let meta = ListMeta { revision: root.revision(), ..ListMeta::default() };
        (meta, Items::All(Rows::new(root, call.kind, &call.resource.namespace, options.selectors)))
    } else {
        let mut page = page(call, &options).await?;
        for record in &mut page.records {
            if let Cow::Owned(opened) = call.opened(record)? {
                *record = Arc::new(opened);
            }
        }
        (page.meta, Items::Page(page.records.into_iter()))
    };
    call.answer(accepted.encoding, Vec::new()).list(shape, &meta, items)
}

pub struct Page {
    pub meta: ListMeta,
    pub records: Vec<Arc<Record>>,
}

/// One page of the objects that match.
pub async fn page(call: &Call, options: &ListOptions) -> Result<Page> {
    // A page that continues is served at the first page's revision; one that may be inconsistent at the newest.
    let version = match &options.token {
        Some(token) if token.revision == 0 => Version::Newest,
        Some(token) => Version::Exact(token.revision),
        None => options.version,
    };
    let root = read::at(call.replica(), version).await?;
    let exact = match version {
        Version::Exact(revision) if revision != root.revision() => Some(revision),
        _ => None,
    };
    let namespace = Some(call.resource.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let pager = Pager { options, revision: exact.unwrap_or(root.revision()) };
    let labels = options.selectors.labels.pairs();
    let Some(revision) = exact else {
        if let Some(namespace) = namespace.filter(|_| !labels.is_empty()) {
            let labelled = root.labelled(call.kind.group, call.kind.plural, namespace, &labels);
            return Ok(pager.collect(labelled.into_iter()));
        }
        return Ok(pager.collect(root.list(call.kind.group, call.kind.plural, namespace)));
    };
    let old = root.list_at(call.kind.group, call.kind.plural, namespace, revision);
    let old = old.map_err(|compacted| match &options.token {
        Some(token) => Failure::expired(TOKEN_EXPIRED, Some(Token { revision: 0, ..token.clone() }.encode())),
        None => Failure::expired(
            format!("The resourceVersion for the provided list is too old: {revision} ({})", compacted.compacted),
            None,
        ),
    })?;
    Ok(pager.collect(old.into_iter()))
}

struct Pager<'a> {
    options: &'a ListOptions,
    revision: Revision,
}

impl Pager<'_> {
    fn collect<'k>(&self, objects: impl Iterator<Item = (&'k Key, &'k Arc<Record>)>) -> Page {
        let after = self.options.token.as_ref().map(|token| (token.namespace.as_str(), token.name.as_str()));
        let limit = if self.options.limit == 0 { usize::MAX } else { self.options.limit };
        let mut records = Vec::new();
        let mut last: Option<&Key> = None;
        let mut remaining = 0;
        for (key, record) in objects {
            if after.is_some_and(|after| (key.namespace.as_str(), key.name.as_str()) <= after) {
                continue;
            }
            if !self.options.selectors.matches(record) {
                continue;
            }
            if records.len() < limit {
                records.push(record.clone());
                last = Some(key);
            } else {
                remaining += 1;
            }
        }
        let token = last.filter(|_| remaining > 0).map(|key| {
            Token { revision: self.revision, namespace: key.namespace.clone(), name: key.name.clone() }.encode()
        });
        let counted = token.is_some() && self.options.selectors.is_empty();
        let meta = ListMeta { revision: self.revision, token, remaining: counted.then_some(remaining) };
        Page { meta, records }
    }
}
