//! The roles and bindings every cluster has, as data, and what of them a state lacks.
//!
//! They are those of Kubernetes that users meet: for discovery, for oneself, for admins, editors and viewers of
//! namespaces, for monitoring, and for servers that delegate their decisions. Kubernetes' roles for its own controllers,
//! scheduler, proxies and nodes are not here: ours write no requests, and nodes have their own list in [`crate::authz`].
//! Neither are the resources of groups that no longer exist (`extensions`).
//!
//! As in Kubernetes, a default gets back what it lost (rules, subjects, labels) and keeps what was added, unless its
//! annotation `autoupdate` says `false`.
//!
//! **Invariant:** a state that got what was missing misses nothing.

use std::sync::LazyLock;

use objects::meta;
use serde_json::{Value, json};
use state::{Key, State};

use super::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, Rule, covers};
use crate::authz::{AUTHENTICATED, MASTERS, UNAUTHENTICATED};
use crate::{json, record};

/// The label of every default.
const LABEL: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// `false`: nothing that an admin took from this default comes back.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One role; its binding, if it has any, has its name.
struct Role {
    name: &'static str,
    /// The role whose aggregation takes this one's rules in.
    part_of: &'static str,
    /// Its rules are those of its parts.
    aggregates: bool,
    rules: &'static [Permit],
    groups: &'static [&'static str],
}

enum Permit {
    Resources { group: &'static str, resources: &'static [&'static str], verbs: &'static [&'static str] },
    Paths { paths: &'static [&'static str], verbs: &'static [&'static str] },
}

const fn on(group: &'static str, resources: &'static [&'static str], verbs: &'static [&'static str]) -> Permit {
    Permit::Resources { group, resources, verbs }
}

const fn get(paths: &'static [&'static str]) -> Permit {
    Permit::Paths { paths, verbs: &["get"] }
}

impl Role {
    const BASE: Role = Role { name: "", part_of: "", aggregates: false, rules: &[], groups: &[] };
}

static ROLES: &[Role] = &[
    Role {
        name: "cluster-admin",
        rules: &[on("*", &["*"], &["*"]), Permit::Paths { paths: &["*"], verbs: &["*"] }],
        groups: &[MASTERS],
        ..Role::BASE
    },
    Role {
        name: "system:discovery",
        rules: &[get(&[
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/version",
            "/version/",
        ])],
        groups: &[AUTHENTICATED],
        ..Role::BASE
    },
    Role {
        name: "system:basic-user",
        rules: &[
            on("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
            on("authentication.k8s.io", &["selfsubjectreviews"], &["create"]),
        ],
        groups: &[AUTHENTICATED],
        ..Role::BASE
    },
    Role {
        name: "system:public-info-viewer",
        rules: &[get(&["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        groups: &[AUTHENTICATED, UNAUTHENTICATED],
        ..Role::BASE
    },
    Role {
        name: "system:monitoring",
        rules: &[get(&[
            "/healthz",
            "/healthz/*",
            "/livez",
            "/livez/*",
            "/metrics",
            "/metrics/slis",
            "/readyz",
            "/readyz/*",
        ])],
        groups: &["system:monitoring"],
        ..Role::BASE
    },
    Role {
        name: "system:service-account-issuer-discovery",
        rules: &[get(&["/.well-known/openid-configuration", "/openid/v1/jwks"])],
        groups: &["system:serviceaccounts"],
        ..Role::BASE
    },
    Role {
        name: "system:auth-delegator",
        rules: &[
            on("authentication.k8s.io", &["tokenreviews"], &["create"]),
            on("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
        ],
        ..Role::BASE
    },
    Role { name: "admin", aggregates: true, ..Role::BASE },
    Role { name: "edit", part_of: "admin", aggregates: true, ..Role::BASE },
    Role { name: "view", part_of: "edit", aggregates: true, ..Role::BASE },
    Role {
        name: "system:aggregate-to-admin",
        part_of: "admin",
        rules: &[
            on("authorization.k8s.io", &["localsubjectaccessreviews"], &["create"]),
            on(GROUP, &["rolebindings", "roles"], READ_WRITE),
        ],
        ..Role::BASE
    },
    Role {
        name: "system:aggregate-to-edit",
        part_of: "edit",
        rules: &[
            on("", &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"], READ),
            on("", &["serviceaccounts"], &["impersonate"]),
            on("", &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"], WRITE),
            on("", &["pods/eviction"], &["create"]),
            on(
                "",
                &[
                    "configmaps",
                    "events",
                    "persistentvolumeclaims",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "secrets",
                    "serviceaccounts",
                    "services",
                    "services/proxy",
                ],
                WRITE,
            ),
            on("", &["serviceaccounts/token"], &["create"]),
            on(
                "apps",
                &[
                    "daemonsets",
                    "deployments",
                    "deployments/rollback",
                    "deployments/scale",
                    "replicasets",
                    "replicasets/scale",
                    "statefulsets",
                    "statefulsets/scale",
                ],
                WRITE,
            ),
            on("autoscaling", &["horizontalpodautoscalers"], WRITE),
            on("batch", &["cronjobs", "jobs"], WRITE),
            on("policy", &["poddisruptionbudgets"], WRITE),
            on("networking.k8s.io", &["ingresses", "networkpolicies"], WRITE),
            on("coordination.k8s.io", &["leases"], READ_WRITE),
        ],
        ..Role::BASE
    },
    Role {
        name: "system:aggregate-to-view",
        part_of: "view",
        rules: &[
            on(
                "",
                &[
                    "configmaps",
                    "endpoints",
                    "persistentvolumeclaims",
                    "persistentvolumeclaims/status",
                    "pods",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "serviceaccounts",
                    "services",
                    "services/status",
                ],
                READ,
            ),
            on(
                "",
                &[
                    "bindings",
                    "events",
                    "limitranges",
                    "namespaces/status",
                    "pods/log",
                    "pods/status",
                    "replicationcontrollers/status",
                    "resourcequotas",
                    "resourcequotas/status",
                ],
                READ,
            ),
            on("", &["namespaces"], READ),
            on("discovery.k8s.io", &["endpointslices"], READ),
            on(
                "apps",
                &[
                    "controllerrevisions",
                    "daemonsets",
                    "daemonsets/status",
                    "deployments",
                    "deployments/scale",
                    "deployments/status",
                    "replicasets",
                    "replicasets/scale",
                    "replicasets/status",
                    "statefulsets",
                    "statefulsets/scale",
                    "statefulsets/status",
                ],
                READ,
            ),
            on("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"], READ),
            on("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"], READ),
            on("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"], READ),
            on("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"], READ),
        ],
        ..Role::BASE
    },
    // In Kubernetes metrics-server brings it along.
    Role {
        name: "system:aggregated-metrics-reader",
        part_of: "view",
        rules: &[on("metrics.k8s.io", &["nodes", "pods"], READ)],
        ..Role::BASE
    },
];

impl Permit {
    fn rule(&self) -> Rule {
        let list = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
        match self {
            Self::Resources { group, resources, verbs } => {
                Rule { api_groups: list(&[*group]), resources: list(resources), verbs: list(verbs), ..Rule::default() }
            }
            Self::Paths { paths, verbs } => {
                Rule { non_resource_urls: list(paths), verbs: list(verbs), ..Rule::default() }
            }
        }
    }
}

impl Role {
    fn metadata(&self) -> Value {
        json!({
            "name": self.name,
            "labels": { LABEL.0: LABEL.1 },
            "annotations": { AUTOUPDATE: "true" },
        })
    }

    fn role(&self) -> Value {
        let mut role =
            json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": self.metadata() });
        if !self.part_of.is_empty() {
            role["metadata"]["labels"][format!("{AGGREGATE_TO}{}", self.part_of)] = "true".into();
        }
        if self.aggregates {
            let labels = json!({ format!("{AGGREGATE_TO}{}", self.name): "true" });
            role["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": labels }] });
        } else {
            role["rules"] = json!(self.rules.iter().map(Permit::rule).collect::<Vec<_>>());
        }
        role
    }

    fn binding(&self) -> Value {
        let subject = |group: &&str| json!({ "apiGroup": GROUP, "kind": "Group", "name": group });
        json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": self.metadata(),
            "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": self.name },
            "subjects": self.groups.iter().map(subject).collect::<Vec<_>>(),
        })
    }
}

/// Every default with its key: first the roles, then their bindings.
pub fn all() -> &'static [(Key, Value)] {
    static ALL: LazyLock<Vec<(Key, Value)>> = LazyLock::new(|| {
        let roles = ROLES.iter().map(|role| (Key::new(GROUP, CLUSTER_ROLES, "", role.name), role.role()));
        let bound = ROLES.iter().filter(|role| !role.groups.is_empty());
        let bindings = bound.map(|role| (Key::new(GROUP, CLUSTER_ROLE_BINDINGS, "", role.name), role.binding()));
        roles.chain(bindings).collect()
    });
    &ALL
}

/// Whether the state holds default roles. They are written together, so any of them tells.
pub fn are_written(root: &State) -> bool {
    !root.labelled(GROUP, CLUSTER_ROLES, "", &[LABEL]).is_empty()
}

/// What the state lacks of the defaults: objects to create, and present ones with what they lost.
pub fn missing(root: &State) -> Vec<(Key, Value)> {
    let lacking = all().iter().filter_map(|(key, wanted)| {
        let object = match root.get(key) {
            Some(present) => repaired(&record::parse(present), wanted)?,
            None => wanted.clone(),
        };
        Some((key.clone(), object))
    });
    lacking.collect()
}

/// The present object with what it lost; `None` when it lost nothing, or wants nothing back.
fn repaired(present: &Value, wanted: &Value) -> Option<Value> {
    if meta::annotation(present, AUTOUPDATE) == "false" {
        return None;
    }
    let mut object = present.clone();
    for path in ["metadata.annotations", "metadata.labels"] {
        for (name, value) in json::at(wanted, path).as_object().into_iter().flatten() {
            if json::entry(present, path, name).is_none() {
                json::set_entry(&mut object, path, name, value.clone());
            }
        }
    }
    match wanted.get("roleRef") {
        Some(role) => repair_binding(&mut object, wanted, role),
        None => repair_role(&mut object, wanted),
    }
    (object != *present).then_some(object)
}

fn repair_role(role: &mut Value, wanted: &Value) {
    let rules = |object: &Value| -> Vec<Rule> { serde_json::from_value(object["rules"].clone()).unwrap_or_default() };
    let (held, wanted_rules) = (rules(role), rules(wanted));
    // A role too large to compare gets them all; it allows no less then.
    let lost = covers::uncovered(&held.iter().collect::<Vec<_>>(), &wanted_rules).unwrap_or(wanted_rules);
    add(role, "rules", covers::compact(lost).into_iter().map(|rule| json!(rule)));
    let selectors = "aggregationRule.clusterRoleSelectors";
    if wanted.get("aggregationRule").is_none() {
        // What it aggregates would be added to what everyone is bound to.
        json::remove(role, "aggregationRule");
    }
    let present = json::items(role, selectors).to_vec();
    let lost = json::items(wanted, selectors).iter().filter(|selector| !present.contains(selector)).cloned();
    add(role, selectors, lost);
}

fn repair_binding(binding: &mut Value, wanted: &Value, role: &Value) {
    // A reference is never changed: such a binding was made anew, and is not the default one.
    if binding.get("roleRef") != Some(role) {
        json::set(binding, "roleRef", role.clone());
        json::set(binding, "subjects", wanted["subjects"].clone());
        return;
    }
    let named = |subject: &Value| ["kind", "namespace", "name"].map(|field| json::text(subject, field).to_owned());
    let present: Vec<_> = json::items(binding, "subjects").iter().map(named).collect();
    let lost = json::items(wanted, "subjects").iter().filter(|subject| !present.contains(&named(subject))).cloned();
    add(binding, "subjects", lost);
}

fn add(object: &mut Value, path: &str, entries: impl Iterator<Item = Value>) {
    let mut entries = entries.peekable();
    if entries.peek().is_some() {
        json::list(object, path).extend(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::User;
    use crate::rbac::Index;
    use crate::rbac::testing::{asked, key, put, remove};

    /// Stores what is missing; how many objects that were.
    fn mend(root: &mut State) -> usize {
        let missing = missing(root);
        for (key, object) in &missing {
            put(root, &format!("{}/{}", key.resource, key.name), object.clone());
        }
        missing.len()
    }

    fn written() -> State {
        let mut root = State::default();
        assert_eq!(mend(&mut root), ROLES.len() + 6);
        assert_eq!(mend(&mut root), 0);
        assert!(are_written(&root));
        root
    }

    fn edit(root: &mut State, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = record::parse(root.get(&key(path)).expect("present"));
        change(&mut object);
        put(root, path, object);
    }

    #[test]
    fn what_everyone_may() {
        let index = Index::of(&written());
        let someone = User::authenticated("eve", vec![]);
        let nobody = User::anonymous();
        let account = User::authenticated("system:serviceaccount:a:b", vec!["system:serviceaccounts".into()]);
        let prometheus = User::authenticated("p", vec!["system:monitoring".into()]);
        let selves = "authorization.k8s.io|selfsubjectaccessreviews|||";
        for (user, verb, what, expected) in [
            (&someone, "get", ":/apis/apps/v1", true),
            (&someone, "get", ":/openapi/v3", true),
            (&someone, "get", ":/apisx", false),
            (&someone, "get", ":/metrics", false),
            (&someone, "post", ":/api", false),
            (&someone, "create", selves, true),
            (&someone, "create", "authentication.k8s.io|selfsubjectreviews|||", true),
            (&someone, "create", "authorization.k8s.io|subjectaccessreviews|||", false),
            (&someone, "list", "|pods||default|", false),
            (&nobody, "get", ":/healthz", true),
            (&nobody, "get", ":/version/", true),
            (&nobody, "get", ":/readyz/etcd", false),
            (&nobody, "get", ":/api", false),
            (&nobody, "create", selves, false),
            (&account, "get", ":/openid/v1/jwks", true),
            (&someone, "get", ":/openid/v1/jwks", false),
            (&prometheus, "get", ":/metrics", true),
            (&prometheus, "get", ":/readyz/leader", true),
        ] {
            assert_eq!(index.allows(user, &asked(verb, what)).allowed, expected, "{} {verb} {what}", user.name);
        }
        assert!(index.allows(&User { groups: vec![MASTERS.into()], ..User::default() }, &asked("x", "y|z|||")).allowed);
    }

    #[test]
    fn what_was_lost_comes_back_and_what_was_added_stays() {
        let discovery = "clusterroles/system:discovery";
        let basic = "clusterrolebindings/system:basic-user";
        let mut root = written();
        edit(&mut root, discovery, |role| {
            role["rules"] = json!([{"nonResourceURLs": ["/api", "/mine"], "verbs": ["get"]}]);
            role["metadata"]["labels"] = json!({"x": "y"});
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{}]});
        });
        edit(&mut root, basic, |binding| {
            binding["subjects"] = json!([{"apiGroup": GROUP, "kind": "User", "name": "joe"}]);
        });
        edit(&mut root, "clusterroles/edit", |role| {
            role["aggregationRule"]["clusterRoleSelectors"] = json!([{"matchLabels": {"own": "part"}}]);
            role["rules"] = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        });
        edit(&mut root, "clusterrolebindings/system:monitoring", |binding| {
            binding["roleRef"]["name"] = "cluster-admin".into();
        });
        remove(&mut root, "clusterroles/view");
        assert_eq!(mend(&mut root), 5);
        assert_eq!(mend(&mut root), 0);
        let object = |path: &str| record::parse(root.get(&key(path)).expect("present"));
        let role = object(discovery);
        assert_eq!(role["metadata"]["labels"], json!({"x": "y", LABEL.0: LABEL.1}));
        assert_eq!(role.get("aggregationRule"), None);
        assert_eq!(role["rules"][0], json!({"nonResourceURLs": ["/api", "/mine"], "verbs": ["get"]}));
        let someone = User::authenticated("eve", vec![]);
        let index = Index::of(&root);
        for path in [":/api", ":/mine", ":/apis/apps", ":/openapi/v2", ":/version"] {
            assert!(index.allows(&someone, &asked("get", path)).allowed, "{path}");
        }
        let names = |list: &Value| -> Vec<String> {
            list.as_array().expect("a list").iter().map(|s| s["name"].as_str().unwrap_or("").to_owned()).collect()
        };
        assert_eq!(names(&object(basic)["subjects"]), ["joe", AUTHENTICATED]);
        let edit = object("clusterroles/edit");
        assert_eq!(edit["aggregationRule"]["clusterRoleSelectors"].as_array().map(Vec::len), Some(2));
        assert_eq!(edit["rules"].as_array().map(Vec::len), Some(1), "the rules of a sum are not touched");
        assert_eq!(object("clusterrolebindings/system:monitoring")["roleRef"]["name"], "system:monitoring");
    }

    #[test]
    fn who_says_no_is_left_alone() {
        let public = "clusterrolebindings/system:public-info-viewer";
        let mut root = written();
        edit(&mut root, public, |binding| {
            binding["metadata"]["annotations"][AUTOUPDATE] = "false".into();
            binding["subjects"] = json!([]);
        });
        assert_eq!(mend(&mut root), 0);
        assert!(!Index::of(&root).allows(&User::anonymous(), &asked("get", ":/healthz")).allowed);
        remove(&mut root, public);
        assert_eq!(mend(&mut root), 1);
    }
}
