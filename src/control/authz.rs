//! Who may do what, in this order: `system:masters` everything, a node what the allow-list below says, and everyone what
//! roles and bindings allow ([`crate::rbac`]); the rest is forbidden.
//!
//! A node is known by the group `system:nodes` and the name `system:node:<node>`, which its certificate carries. It sees
//! its own Node, the pods bound to it, what those pods name, and its Lease; whether a created or changed object is its
//! own is checked where the object is at hand, in `admission`.
//!
//! **Invariant:** a node's watch or list is granted only if every object it can ever show would be granted to a get.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use objects::selector::FieldSelector;
use state::{Key, State};

use crate::rbac::{Decision, Index, Rules};
use crate::{record, tokens};

pub const MASTERS: &str = "system:masters";
pub const NODES: &str = "system:nodes";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of someone without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of all ServiceAccounts; with `:<namespace>` behind it, of those of one namespace.
pub const ACCOUNTS: &str = "system:serviceaccounts";
const NODE_PREFIX: &str = "system:node:";
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Where the Leases of nodes live.
pub const NODE_LEASES: &str = "kube-node-lease";

/// The user that a ServiceAccount acts as.
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT_PREFIX}{namespace}:{name}")
}

/// Namespace and name of the ServiceAccount that acts as this user.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':').filter(|(_, name)| !name.contains(':'))
}

/// Whoever makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Someone without credentials.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// A user of a certificate or token; everyone with a name is authenticated.
    pub fn authenticated(name: impl Into<String>, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// The identity of a node.
    pub fn node(node: &str) -> Self {
        Self::authenticated(format!("{NODE_PREFIX}{node}"), vec![NODES.into()])
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node this user is, if it is one.
    pub fn as_node(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty())?;
        self.is_in(NODES).then_some(name)
    }
}

/// What a request wants. A request for no resource has an empty `resource` and its `path`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub path: String,
    /// The field selector of a list or watch.
    pub fields: FieldSelector,
}

/// Decides requests, and keeps what roles and bindings say from one to the next. One per server, for the one state it
/// serves: a state that is older than one seen before is judged by the newer one's roles.
#[derive(Debug, Default)]
pub struct Authorizer(Mutex<Index>);

impl Authorizer {
    /// What roles and bindings say in this state, or a newer one.
    pub fn index(&self, root: &State) -> Index {
        // Nothing under this lock leaves an index half changed in a way that following again would not mend.
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        index.follow(root);
        index.clone()
    }

    /// Decides one request.
    pub fn decide(&self, user: &User, attributes: &Attributes, root: &State) -> Decision {
        let attributes = &*located(attributes);
        if user.is_in(MASTERS) || user.as_node().is_some_and(|node| node_may(node, attributes, root)) {
            return Decision { allowed: true, reason: String::new() };
        }
        self.index(root).allows(user, attributes)
    }

    /// Decides one request.
    ///
    /// # Errors
    /// The complete message of the 403, worded as Kubernetes does.
    pub fn authorize(&self, user: &User, attributes: &Attributes, root: &State) -> Result<(), String> {
        let Decision { allowed, reason } = self.decide(user, attributes, root);
        if allowed {
            return Ok(());
        }
        let message = forbidden(user, &located(attributes));
        Err(if reason.is_empty() { message } else { format!("{message}: {reason}") })
    }

    /// What the user may do in a namespace, as far as rules tell.
    pub fn rules_for(&self, user: &User, namespace: &str, root: &State) -> Rules {
        let mut rules = self.index(root).rules_for(user, namespace);
        if user.as_node().is_some() {
            rules.incomplete = true;
            let nodes = "node authorizer does not support user rule resolution";
            rules.error = if rules.error.is_empty() { nodes.into() } else { format!("[{nodes}, {}]", rules.error) };
        }
        rules
    }
}

/// A request for a Namespace is one in that namespace: who reads all in it reads it too.
fn located(attributes: &Attributes) -> Cow<'_, Attributes> {
    let Attributes { group, resource, namespace, name, .. } = attributes;
    if group.is_empty() && resource == "namespaces" && namespace.is_empty() && !name.is_empty() {
        return Cow::Owned(Attributes { namespace: name.clone(), ..attributes.clone() });
    }
    Cow::Borrowed(attributes)
}

/// The message of a refusal.
fn forbidden(user: &User, attributes: &Attributes) -> String {
    let Attributes { verb, group, resource, subresource, namespace, name, path, .. } = attributes;
    let user = &user.name;
    if resource.is_empty() {
        return format!("forbidden: User {user:?} cannot {verb} path {path:?}");
    }
    let qualified = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
    let object = if name.is_empty() { qualified } else { format!("{qualified} {name:?}") };
    let resource = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    let scope = match namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("{object} is forbidden: User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
}

/// The allow-list of nodes.
fn node_may(node: &str, attributes: &Attributes, root: &State) -> bool {
    let verb = attributes.verb.as_str();
    let own = attributes.name == node;
    let read = verb == "get";
    let watch = matches!(verb, "list" | "watch");
    let write = matches!(verb, "update" | "patch");
    match (attributes.group.as_str(), attributes.resource.as_str(), attributes.subresource.as_str()) {
        ("", "nodes", "") => verb == "create" || (own && (read || write)) || (watch && names(attributes, node)),
        ("", "nodes", "status") => own && (read || write),
        ("", "pods", "") => {
            (watch && attributes.fields.exact("spec.nodeName") == Some(node))
                || ((read || verb == "delete") && bound_to(node, attributes, root))
        }
        ("", "pods", "status") => (read || write) && bound_to(node, attributes, root),
        ("", "secrets" | "configmaps", "") => (read || watch) && used_on(node, attributes, root),
        ("" | "events.k8s.io", "events", "") => verb == "create" || write,
        // Which token exactly is looked at where the request is at hand: `tokens::issue`.
        ("", "serviceaccounts", "token") => verb == "create" && runs_as(node, attributes, root),
        ("coordination.k8s.io", "leases", "") => {
            attributes.namespace == NODE_LEASES
                && (verb == "create"
                    || (own && (read || write || verb == "delete"))
                    || (watch && names(attributes, node)))
        }
        _ => false,
    }
}

/// Whether a list or watch is restricted to this name.
fn names(attributes: &Attributes, name: &str) -> bool {
    attributes.fields.exact("metadata.name") == Some(name)
}

fn bound_to(node: &str, attributes: &Attributes, root: &State) -> bool {
    let key = Key::new("", "pods", attributes.namespace.as_str(), attributes.name.as_str());
    root.get(&key).is_some_and(|pod| pod.header.node == node)
}

/// Whether some pod on the node runs as this ServiceAccount.
fn runs_as(node: &str, attributes: &Attributes, root: &State) -> bool {
    let pods = root.on_node(node).filter(|key| key.resource == "pods" && key.namespace == attributes.namespace);
    pods.filter_map(|key| root.get(key)).any(|pod| tokens::account_of(pod) == attributes.name)
}

/// Whether some pod on the node names this Secret or ConfigMap. Costs one parse per pod of that node and namespace.
fn used_on(node: &str, attributes: &Attributes, root: &State) -> bool {
    let name = match attributes.name.as_str() {
        "" => attributes.fields.exact("metadata.name").unwrap_or(""),
        name => name,
    };
    if name.is_empty() || attributes.namespace.is_empty() {
        return false;
    }
    let pods = root.on_node(node).filter(|key| key.resource == "pods" && key.namespace == attributes.namespace);
    pods.filter_map(|key| root.get(key)).any(|pod| {
        let references = objects::kinds::pod_references(&record::parse(pod));
        match attributes.resource.as_str() {
            "secrets" => references.secrets.contains(name),
            _ => references.config_maps.contains(name),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rbac::testing::{asked, binding, put, role};

    fn authorize(user: &User, attributes: &Attributes, root: &State) -> Result<(), String> {
        Authorizer::default().authorize(user, attributes, root)
    }

    #[test]
    fn who_may_what() {
        let root = State::default();
        let admin = User::authenticated("admin", vec![MASTERS.into()]);
        let someone = User::authenticated("eve", vec![]);
        let nobody = User::anonymous();
        let node = User::node("n1");
        let impostor = User::authenticated("system:node:n1", vec![]);
        for (user, verb, path, expected) in [
            (&admin, "delete", "|secrets||x|y", true),
            (&admin, "get", ":/metrics", true),
            (&someone, "get", ":/apis/apps/v1", true),
            (&someone, "get", ":/openapi/v3", true),
            (&someone, "get", ":/apisx", false),
            (&someone, "get", ":/metrics", false),
            (&someone, "list", "|pods||default|", false),
            (&someone, "create", "authorization.k8s.io|selfsubjectaccessreviews|||", true),
            (&nobody, "get", ":/healthz", true),
            (&nobody, "get", ":/api", false),
            (&node, "get", ":/apis", true),
            (&node, "get", "|nodes|||n1", true),
            (&node, "get", "|nodes|||n2", false),
            (&node, "patch", "|nodes|status||n1", true),
            (&node, "delete", "|nodes|||n1", false),
            (&node, "watch", "|pods||||spec.nodeName=n1", true),
            (&node, "watch", "|pods||||spec.nodeName!=n1", false),
            (&node, "watch", "|pods||||spec.nodeName=n2", false),
            (&node, "get", "|pods||default|p", false),
            (&node, "get", "|secrets||default|s", false),
            (&node, "list", "|secrets||default|", false),
            (&node, "create", "|events||default|", true),
            (&node, "update", "coordination.k8s.io|leases||kube-node-lease|n1", true),
            (&node, "update", "coordination.k8s.io|leases||default|n1", false),
            (&node, "create", "|pods|binding|default|p", false),
            (&impostor, "get", "|nodes|||n1", false),
        ] {
            let result = authorize(user, &asked(verb, path), &root);
            assert_eq!(result.is_ok(), expected, "{} {verb} {path}: {result:?}", user.name);
        }
    }

    #[test]
    fn a_node_reads_what_its_pods_name() {
        let mut world = crate::harness::World::with_nodes(2);
        let pod = json!({
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {
                "nodeName": "node-1",
                "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "m"}}]}],
                "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
            },
        });
        world.create("", "pods", pod);
        let (own, other) = (User::node("node-1"), User::node("node-2"));
        for (user, verb, path, expected) in [
            (&own, "get", "|secrets||default|s", true),
            (&own, "watch", "|secrets||default||metadata.name=s", true),
            (&own, "get", "|configmaps||default|m", true),
            (&own, "get", "|secrets||default|m", false),
            (&own, "get", "|secrets||kube-system|s", false),
            (&own, "update", "|secrets||default|s", false),
            (&own, "get", "|pods||default|p", true),
            (&own, "patch", "|pods|status|default|p", true),
            (&own, "patch", "|pods||default|p", false),
            (&own, "create", "|serviceaccounts|token|default|default", true),
            (&own, "create", "|serviceaccounts|token|default|other", false),
            (&own, "create", "|serviceaccounts|token|kube-system|default", false),
            (&other, "create", "|serviceaccounts|token|default|default", false),
            (&other, "get", "|secrets||default|s", false),
            (&other, "get", "|pods||default|p", false),
            (&other, "patch", "|pods|status|default|p", false),
        ] {
            let result = authorize(user, &asked(verb, path), &world.root);
            assert_eq!(result.is_ok(), expected, "{} {verb} {path}: {result:?}", user.name);
        }
    }

    #[test]
    fn messages() {
        let user = User::authenticated("u", vec![]);
        let root = State::default();
        for (verb, path, expected) in [
            (
                "get",
                "|pods||ns|x",
                "pods \"x\" is forbidden: User \"u\" cannot get resource \"pods\" in API group \"\" in the namespace \"ns\"",
            ),
            (
                "list",
                "apps|deployments|||",
                "deployments.apps is forbidden: User \"u\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope",
            ),
            (
                "get",
                "|pods|log|ns|x",
                "pods \"x\" is forbidden: User \"u\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"ns\"",
            ),
            ("get", ":/metrics", "forbidden: User \"u\" cannot get path \"/metrics\""),
        ] {
            assert_eq!(authorize(&user, &asked(verb, path), &root), Err(expected.to_owned()));
        }
    }
    #[test]
    fn roles_come_after_masters_and_nodes() {
        let mut root = State::default();
        let pods = json!([{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list"]}]);
        put(&mut root, "clusterroles/view", role(pods));
        put(&mut root, "rolebindings/ns/jane", binding("ClusterRole:view", &["User:jane", "User:system:node:n1"]));
        put(&mut root, "rolebindings/ns/lost", binding("Role:gone", &["User:eve"]));
        let authorizer = Authorizer::default();
        let decide = |user: &User, verb: &str, what: &str| authorizer.decide(user, &asked(verb, what), &root);
        let jane = User::authenticated("jane", vec![]);
        let found = decide(&jane, "list", "|pods||ns|");
        assert_eq!(found.reason, r#"RBAC: allowed by RoleBinding "jane/ns" of ClusterRole "view" to User "jane""#);
        assert!(decide(&jane, "get", "|namespaces|||ns").allowed, "the namespace she reads in");
        assert!(!decide(&jane, "get", "|namespaces|||other").allowed);
        assert!(!decide(&jane, "list", "|namespaces|||").allowed);
        assert!(decide(&User::node("n1"), "get", "|pods||ns|p").allowed, "a node may have roles too");
        let own = decide(&User::node("n1"), "get", "|nodes|||n1");
        assert_eq!(own, Decision { allowed: true, reason: String::new() });
        let admin = User::authenticated("admin", vec![MASTERS.into()]);
        assert_eq!(decide(&admin, "x", "y|z|||"), Decision { allowed: true, reason: String::new() });
        // What is missing is part of the refusal.
        let refused = authorizer.authorize(&User::authenticated("eve", vec![]), &asked("get", "|pods||ns|p"), &root);
        let expected = "pods \"p\" is forbidden: User \"eve\" cannot get resource \"pods\" in API group \"\" in the namespace \"ns\": RBAC: role.rbac.authorization.k8s.io \"gone\" not found";
        assert_eq!(refused, Err(expected.to_owned()));
        // Of a node the rules tell only a part.
        assert!(!authorizer.rules_for(&jane, "ns", &root).incomplete);
        let rules = authorizer.rules_for(&User::node("n1"), "ns", &root);
        assert!(rules.incomplete && rules.resources.iter().any(|rule| rule.resources.contains(&"pods".to_owned())));
        assert_eq!(rules.error, "node authorizer does not support user rule resolution");
    }

    #[test]
    fn the_authorizer_follows_the_state() {
        let mut root = State::default();
        let authorizer = Authorizer::default();
        let jane = User::authenticated("jane", vec![]);
        let may = |root: &State| authorizer.authorize(&jane, &asked("get", "|pods||ns|p"), root).is_ok();
        put(
            &mut root,
            "clusterroles/view",
            role(json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])),
        );
        assert!(!may(&root));
        put(&mut root, "rolebindings/ns/jane", binding("ClusterRole:view", &["User:jane"]));
        assert!(may(&root));
        crate::rbac::testing::remove(&mut root, "rolebindings/ns/jane");
        assert!(!may(&root));
    }
}
