//! The selected objects of one root, a stretch at a time: what a long list or a watch's beginning is written from.
//!
//! **Invariant:** only the root and a position are held, whatever the length; the root is let go with the last object.

use std::sync::Arc;

use objects::Kind;
use state::{Key, Record, State};

use crate::query::Selectors;

/// A walk through the objects of a kind, in key order.
pub struct Rows {
    root: Option<Arc<State>>,
    kind: &'static Kind,
    /// All of them where it is empty.
    namespace: String,
    selectors: Selectors,
    after: Option<Key>,
}

impl Rows {
    pub fn new(root: Arc<State>, kind: &'static Kind, namespace: &str, selectors: Selectors) -> Self {
        Self { root: Some(root), kind, namespace: namespace.to_owned(), selectors, after: None }
    }

    /// Nothing.
    pub fn none(kind: &'static Kind, selectors: Selectors) -> Self {
        Self { root: None, kind, namespace: String::new(), selectors, after: None }
    }

    /// Whether there may be more.
    pub fn is_over(&self) -> bool {
        self.root.is_none()
    }

    /// Visits the next objects until `take` has enough and says false.
    pub fn visit(&mut self, mut take: impl FnMut(&Record) -> bool) {
        let Some(root) = self.root.take() else { return };
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        for (key, record) in root.list_after(self.kind.group, self.kind.plural, namespace, self.after.as_ref()) {
            if self.selectors.matches(record) && !take(record) {
                self.after = Some(key.clone());
                self.root = Some(root.clone());
                return;
            }
        }
    }
}
