//! Where an object stands: (group, resource, namespace, name).

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};

/// The key of one object. `resource` is the lower-case plural (`pods`); `namespace` is empty for cluster-scoped kinds;
/// `group` is empty for the core group. Keys order by these four in turn, which is also the order of lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Key {
    #[prost(string, tag = "1")]
    pub group: String,
    #[prost(string, tag = "2")]
    pub resource: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(string, tag = "4")]
    pub name: String,
}

impl Key {
    pub fn new(
        group: impl Into<String>,
        resource: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { group: group.into(), resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// The key of the Namespace object `name`.
    pub fn namespace(name: impl Into<String>) -> Self {
        Self::new("", "namespaces", "", name)
    }

    /// The key of the Node object `name`.
    pub fn node(name: impl Into<String>) -> Self {
        Self::new("", "nodes", "", name)
    }
}

impl std::fmt::Display for Key {
    /// `deployments.apps/default/web`, `nodes/node-1`: as the logs and errors name an object.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.namespace.is_empty() {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

/// The first bytes of the four parts, each with a zero byte behind it: they sort as the keys do.
type Head = [u8; 64];

fn head(key: &Key) -> Head {
    let mut head = [0; 64];
    let mut at = 0;
    for part in [&key.group, &key.resource, &key.namespace, &key.name] {
        let part = part.as_bytes();
        let len = part.len().min(head.len() - at);
        head[at..at + len].copy_from_slice(&part[..len]);
        at = (at + len + 1).min(head.len());
    }
    head
}

/// A key as maps hold it: shared, and compared by its head, which lies at one place, before its parts, which lie at four.
/// Most of what a search in a large map costs is waiting for memory.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<(Head, Key)>);

impl Shared {
    pub fn new(key: Key) -> Self {
        Self(Arc::new((head(&key), key)))
    }

    /// Before all others.
    pub fn first() -> Self {
        Self::new(Key::default())
    }
}

impl Deref for Shared {
    type Target = Key;

    fn deref(&self) -> &Key {
        &self.0.1
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Shared {}

impl PartialOrd for Shared {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Shared {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((head, key), (other_head, other_key)) = (&*self.0, &*other.0);
        head.cmp(other_head).then_with(|| key.cmp(other_key))
    }
}

/// A key that is looked up among [`Shared`] ones.
pub(crate) struct Sought<'a>(Head, &'a Key);

impl<'a> Sought<'a> {
    pub fn new(key: &'a Key) -> Self {
        Self(head(key), key)
    }
}

impl Equivalent<Shared> for Sought<'_> {
    fn equivalent(&self, key: &Shared) -> bool {
        self.compare(key).is_eq()
    }
}

impl Comparable<Shared> for Sought<'_> {
    fn compare(&self, key: &Shared) -> Ordering {
        self.0.cmp(&key.0.0).then_with(|| self.1.cmp(&key.0.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shared_keys_sort_as_keys(parts in prop::array::uniform8("[a-c-]{0,3}|[a-b]{20,70}")) {
            let [a, b, c, d, e, f, g, h] = parts;
            let (left, right) = (Key::new(a, b, c, d), Key::new(e, f, g, h));
            let expected = left.cmp(&right);
            prop_assert_eq!(Shared::new(left.clone()).cmp(&Shared::new(right.clone())), expected);
            prop_assert_eq!(Sought::new(&left).compare(&Shared::new(right)), expected);
        }
    }
}
