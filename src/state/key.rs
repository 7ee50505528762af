//! Where an object stands: (group, resource, namespace, name).

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
