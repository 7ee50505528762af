//! Roles and bindings compiled once, so that a request costs the bindings of its own subjects in its own scope: no JSON
//! is parsed and no other binding looked at.
//!
//! The maps are persistent, so a clone is cheap and stays as it was. [`Index::follow`] asks the state's history which
//! roles and bindings changed since the revision the index is of (four look-ups when none did) and reads those again;
//! where history no longer reaches back that far it reads all. The events only say where to look: what holds is read
//! from the state.
//!
//! While the state holds no default role yet, the defaults hold as if they were stored: a cluster can be discovered
//! before its first leader has written them, and under masters of a version that does not write them.
//!
//! **Invariant:** an index that followed is equal to one that read everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use serde::Deserialize;
use state::{Compacted, Key, Revision, State, Topic};

use super::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, ROLE_BINDINGS, ROLES, Rule, defaults};
use crate::authz::{Attributes, User, service_account};
use crate::record;

const RESOURCES: [&str; 4] = [ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS];

/// An answer and, where there is one, its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// Worded as Kubernetes does; empty where it says nothing.
    pub reason: String,
}

/// The rules that hold for someone in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Of these only what concerns resources, and of the others only what concerns paths.
    pub resources: Vec<Rule>,
    pub paths: Vec<Rule>,
    /// There may be more: `error` says why.
    pub incomplete: bool,
    pub error: String,
}

/// What roles and bindings say at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    revision: Revision,
    /// Whether the default roles stand in the state; until then they hold without.
    written: bool,
    roles: OrdMap<Key, Arc<[Rule]>>,
    bindings: OrdMap<Key, Arc<Binding>>,
    bound: OrdMap<Place, Bound>,
}

/// Where a request looks: a subject, then the namespace ("" for all of them), then the binding's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    subject: Subject,
    namespace: String,
    binding: String,
}

/// Whom a binding binds. A ServiceAccount is the user it acts as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    User(String),
    Group(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Binding {
    key: Key,
    role: RoleRef,
    /// The role's key; a reference of an unknown kind has none.
    role_key: Option<Key>,
    places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq)]
struct Bound {
    binding: Arc<Binding>,
    /// The subject as the binding names it.
    to: String,
}

/// What is read of an object; a role has the first, a binding the others.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Body {
    rules: Vec<Rule>,
    role_ref: RoleRef,
    subjects: Vec<SubjectRef>,
}

/// Which role a binding is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SubjectRef {
    kind: String,
    namespace: String,
    name: String,
}

impl Default for Index {
    /// Of the empty state: the defaults.
    fn default() -> Self {
        Self::of(&State::default())
    }
}

impl Index {
    /// Reads all roles and bindings of a state.
    pub fn of(root: &State) -> Self {
        let mut index = Self {
            revision: root.revision(),
            written: defaults::are_written(root),
            roles: OrdMap::new(),
            bindings: OrdMap::new(),
            bound: OrdMap::new(),
        };
        if !index.written {
            for (key, object) in defaults::all() {
                index.put(key, serde_json::from_value(object.clone()).unwrap_or_default());
            }
        }
        for resource in RESOURCES {
            for (key, _) in root.list(GROUP, resource, None) {
                index.read(root, key);
            }
        }
        index
    }

    /// Takes up what changed since. A state that is older than the index changes nothing.
    pub fn follow(&mut self, root: &State) {
        if root.revision() <= self.revision {
            return;
        }
        match self.changed(root) {
            Ok(keys) if keys.is_empty() => {}
            Ok(keys) if self.written && defaults::are_written(root) => keys.iter().for_each(|key| self.read(root, key)),
            _ => *self = Self::of(root),
        }
        self.revision = root.revision();
    }

    fn changed(&self, root: &State) -> Result<BTreeSet<Key>, Compacted> {
        let mut keys = BTreeSet::new();
        for resource in RESOURCES {
            let events = root.events_on(Topic::resource(GROUP, resource), self.revision)?;
            let ours = events.filter(|event| event.key.group == GROUP && event.key.resource == resource);
            keys.extend(ours.map(|event| event.key.clone()));
        }
        Ok(keys)
    }

    fn read(&mut self, root: &State, key: &Key) {
        match root.get(key) {
            // Stored objects passed validation; one that does not fit its type allows nothing.
            Some(record) => self.put(key, record::typed(record).unwrap_or_default()),
            None => self.remove(key),
        }
    }

    fn put(&mut self, key: &Key, body: Body) {
        self.remove(key);
        if matches!(key.resource.as_str(), ROLES | CLUSTER_ROLES) {
            self.roles.insert(key.clone(), body.rules.into());
            return;
        }
        let subjects = body.subjects.iter().filter_map(|subject| subject.of(key));
        let (places, names): (Vec<Place>, Vec<String>) = subjects.unzip();
        let role_key = body.role_ref.key(&key.namespace);
        let binding = Arc::new(Binding { key: key.clone(), role: body.role_ref, role_key, places });
        for (place, to) in binding.places.iter().zip(names) {
            // Of two names for one subject the first one counts.
            self.bound.entry(place.clone()).or_insert_with(|| Bound { binding: binding.clone(), to });
        }
        self.bindings.insert(key.clone(), binding);
    }

    fn remove(&mut self, key: &Key) {
        self.roles.remove(key);
        if let Some(binding) = self.bindings.remove(key) {
            for place in &binding.places {
                self.bound.remove(place);
            }
        }
    }

    /// Whether a role allows the request, and by which binding. The reason for a refusal names roles that are missing.
    pub fn allows(&self, user: &User, asked: &Attributes) -> Decision {
        let namespace = if asked.resource.is_empty() { "" } else { &asked.namespace };
        let mut missing = Vec::new();
        for bound in self.bound_to(user, namespace) {
            match self.rules(&bound.binding) {
                Ok(rules) if rules.iter().any(|rule| rule.allows(asked)) => {
                    return Decision { allowed: true, reason: format!("RBAC: allowed by {bound}") };
                }
                Ok(_) => {}
                Err(error) => missing.push(error),
            }
        }
        let reason = if missing.is_empty() { String::new() } else { format!("RBAC: {}", aggregate(missing)) };
        Decision { allowed: false, reason }
    }

    /// All rules that hold for the user in a namespace ("": those that hold everywhere), and what was not found.
    pub fn held(&self, user: &User, namespace: &str) -> (Vec<&Rule>, Vec<String>) {
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for bound in self.bound_to(user, namespace).filter(|bound| seen.insert(&bound.binding.key)) {
            match self.rules(&bound.binding) {
                Ok(of_role) => rules.extend(of_role),
                Err(error) => missing.push(error),
            }
        }
        (rules, missing)
    }

    /// The same, apart for resources and paths.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let (held, missing) = self.held(user, namespace);
        let mut rules = Rules::default();
        for rule in held {
            if !rule.resources.is_empty() {
                rules.resources.push(Rule { non_resource_urls: Vec::new(), ..rule.clone() });
            }
            if !rule.non_resource_urls.is_empty() {
                let (urls, verbs) = (rule.non_resource_urls.clone(), rule.verbs.clone());
                rules.paths.push(Rule { non_resource_urls: urls, verbs, ..Rule::default() });
            }
        }
        if !missing.is_empty() {
            rules.error = aggregate(missing);
        }
        rules
    }

    /// The rules of a role, as a binding in this namespace means it.
    ///
    /// # Errors
    /// The role is missing, or the reference of an unknown kind.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<&[Rule], String> {
        self.find(role, role.key(namespace).as_ref())
    }

    fn rules(&self, binding: &Binding) -> Result<&[Rule], String> {
        self.find(&binding.role, binding.role_key.as_ref())
    }

    fn find(&self, role: &RoleRef, key: Option<&Key>) -> Result<&[Rule], String> {
        let key = key.ok_or_else(|| format!("unsupported role reference kind: {:?}", role.kind))?;
        let found = self.roles.get(key).map(|rules| &**rules);
        found.ok_or_else(|| format!("{}.{GROUP} {:?} not found", role.kind.to_lowercase(), role.name))
    }

    /// What binds the user, first everywhere, then in the namespace.
    fn bound_to<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Bound> {
        let scopes = ["", namespace].into_iter().take(if namespace.is_empty() { 1 } else { 2 });
        scopes.flat_map(move |scope| {
            let groups = user.groups.iter().cloned().map(Subject::Group);
            let subjects = std::iter::once(Subject::User(user.name.clone())).chain(groups);
            subjects.flat_map(move |subject| self.at(subject, scope))
        })
    }

    fn at(&self, subject: Subject, namespace: &str) -> impl Iterator<Item = &Bound> {
        let from = Place { subject, namespace: namespace.to_owned(), binding: String::new() };
        self.bound
            .range(from.clone()..)
            .take_while(move |(place, _)| place.subject == from.subject && place.namespace == from.namespace)
            .map(|(_, bound)| bound)
    }
}

impl RoleRef {
    fn key(&self, namespace: &str) -> Option<Key> {
        match self.kind.as_str() {
            "Role" => Some(Key::new(GROUP, ROLES, namespace, self.name.as_str())),
            "ClusterRole" => Some(Key::new(GROUP, CLUSTER_ROLES, "", self.name.as_str())),
            _ => None,
        }
    }
}

impl SubjectRef {
    /// Where the binding of this key is found for the subject, and how messages name it; `None` for nobody.
    fn of(&self, binding: &Key) -> Option<(Place, String)> {
        let named = |name: &str| format!("{} {name:?}", self.kind);
        let (subject, to) = match self.kind.as_str() {
            "User" => (Subject::User(self.name.clone()), named(&self.name)),
            "Group" => (Subject::Group(self.name.clone()), named(&self.name)),
            "ServiceAccount" => {
                let own = if self.namespace.is_empty() { &binding.namespace } else { &self.namespace };
                if own.is_empty() {
                    return None;
                }
                (Subject::User(service_account(own, &self.name)), named(&format!("{}/{own}", self.name)))
            }
            _ => return None,
        };
        Some((Place { subject, namespace: binding.namespace.clone(), binding: binding.name.clone() }, to))
    }
}

impl std::fmt::Display for Bound {
    /// `ClusterRoleBinding "x" of ClusterRole "y" to User "z"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Binding { key, role, .. } = &*self.binding;
        match key.namespace.as_str() {
            "" => write!(f, "ClusterRoleBinding {:?}", key.name)?,
            namespace => write!(f, "RoleBinding {:?}", format!("{}/{namespace}", key.name))?,
        }
        write!(f, " of {} {:?} to {}", role.kind, role.name, self.to)
    }
}

/// One error as it is, several in brackets, each once.
fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = BTreeSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use state::{Compact, Op, op, visits};

    use super::*;
    use crate::rbac::testing::{apply, asked, binding, put, remove, role};

    fn user(name: &str, groups: &[&str]) -> User {
        User { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..User::default() }
    }

    /// The examples of Kubernetes' documentation.
    fn documented() -> State {
        let mut root = State::default();
        let read = json!(["get", "watch", "list"]);
        put(
            &mut root,
            "roles/default/pod-reader",
            role(json!([{"apiGroups": [""], "resources": ["pods"], "verbs": read}])),
        );
        let secrets = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": read}]);
        put(&mut root, "clusterroles/secret-reader", role(secrets));
        let update = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["my-configmap"], "verbs": ["update", "get"]}]);
        put(&mut root, "roles/default/configmap-updater", role(update));
        let bindings = [
            ("rolebindings/default/read-pods", "Role:pod-reader", vec!["User:jane"]),
            ("rolebindings/development/read-secrets", "ClusterRole:secret-reader", vec!["User:dave"]),
            ("clusterrolebindings/read-secrets-global", "ClusterRole:secret-reader", vec!["Group:manager"]),
            (
                "rolebindings/default/update",
                "Role:configmap-updater",
                vec!["ServiceAccount:deployer", "ServiceAccount:ci/bot"],
            ),
            ("rolebindings/default/lost", "Role:gone", vec!["User:lost", "Group:lost"]),
            ("clusterrolebindings/lost", "ClusterRole:gone", vec!["User:lost"]),
            ("clusterrolebindings/odd", "Gang:x", vec!["User:odd", "Robot:r"]),
            ("clusterrolebindings/homeless", "ClusterRole:secret-reader", vec!["ServiceAccount:deployer"]),
        ];
        for (path, of, subjects) in bindings {
            put(&mut root, path, binding(of, &subjects));
        }
        root
    }

    #[test]
    fn who_may_what_and_why() {
        let index = Index::of(&documented());
        let jane = user("jane", &[]);
        let dave = user("dave", &["dev"]);
        let boss = user("boss", &["manager"]);
        let deployer = user("system:serviceaccount:default:deployer", &[]);
        let bot = user("system:serviceaccount:ci:bot", &[]);
        let robot = user("r", &[]);
        for (user, verb, what, expected) in [
            (
                &jane,
                "list",
                "|pods||default|",
                r#"RoleBinding "read-pods/default" of Role "pod-reader" to User "jane""#,
            ),
            (&jane, "list", "|pods||other|", ""),
            (&jane, "list", "|pods|||", ""),
            (&jane, "delete", "|pods||default|x", ""),
            (
                &dave,
                "get",
                "|secrets||development|x",
                r#"RoleBinding "read-secrets/development" of ClusterRole "secret-reader" to User "dave""#,
            ),
            (&dave, "get", "|secrets||default|x", ""),
            (
                &boss,
                "watch",
                "|secrets||anywhere|",
                r#"ClusterRoleBinding "read-secrets-global" of ClusterRole "secret-reader" to Group "manager""#,
            ),
            (
                &boss,
                "watch",
                "|secrets|||",
                r#"ClusterRoleBinding "read-secrets-global" of ClusterRole "secret-reader" to Group "manager""#,
            ),
            (
                &deployer,
                "update",
                "|configmaps||default|my-configmap",
                r#"RoleBinding "update/default" of Role "configmap-updater" to ServiceAccount "deployer/default""#,
            ),
            (&deployer, "update", "|configmaps||default|other", ""),
            (&deployer, "get", "|secrets||default|x", ""),
            (
                &bot,
                "get",
                "|configmaps||default|my-configmap",
                r#"RoleBinding "update/default" of Role "configmap-updater" to ServiceAccount "bot/ci""#,
            ),
            (&robot, "get", "|pods||default|x", ""),
        ] {
            let decision = index.allows(user, &asked(verb, what));
            let reason = if expected.is_empty() { String::new() } else { format!("RBAC: allowed by {expected}") };
            assert_eq!(decision, Decision { allowed: !expected.is_empty(), reason }, "{} {verb} {what}", user.name);
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let index = Index::of(&documented());
        let group = "rbac.authorization.k8s.io";
        for (user, expected) in [
            (
                user("lost", &["lost"]),
                format!("RBAC: [clusterrole.{group} \"gone\" not found, role.{group} \"gone\" not found]"),
            ),
            (user("x", &["lost"]), format!("RBAC: role.{group} \"gone\" not found")),
            (user("odd", &[]), "RBAC: unsupported role reference kind: \"Gang\"".to_owned()),
            (user("nobody", &[]), String::new()),
        ] {
            let decision = index.allows(&user, &asked("get", "|pods||default|x"));
            assert_eq!(decision, Decision { allowed: false, reason: expected }, "{}", user.name);
        }
    }

    #[test]
    fn the_rules_of_someone() {
        let mut root = documented();
        let both = json!([
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
            {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
        ]);
        put(&mut root, "clusterroles/both", role(both.clone()));
        put(&mut root, "clusterrolebindings/both", binding("ClusterRole:both", &["User:jane", "Group:g"]));
        let index = Index::of(&root);
        let jane = user("jane", &["g"]);
        let rules = index.rules_for(&jane, "default");
        assert_eq!(serde_json::to_value(&rules.paths).expect("JSON"), json!([both[1]]));
        let resources: Vec<String> = rules.resources.iter().map(|rule| rule.resources.join(",")).collect();
        assert_eq!(resources, ["deployments", "pods"], "each binding once, of this namespace only");
        assert!(!rules.incomplete && rules.error.is_empty());
        assert_eq!(index.rules_for(&jane, "other").resources.len(), 1);
        let lost = index.rules_for(&user("lost", &[]), "");
        assert_eq!(lost.error, "clusterrole.rbac.authorization.k8s.io \"gone\" not found");
    }

    #[test]
    fn the_defaults_hold_until_they_are_written() {
        let mut root = State::default();
        let someone = user("eve", &["system:authenticated"]);
        let discovers = |index: &Index| index.allows(&someone, &asked("get", ":/apis/apps/v1")).allowed;
        let mut index = Index::default();
        assert!(discovers(&index));
        // Roles of users alone do not end that.
        put(&mut root, "clusterroles/mine", role(json!([])));
        index.follow(&root);
        assert!(discovers(&index));
        let label = json!({"metadata": {"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": []});
        put(&mut root, "clusterroles/system:discovery", label);
        index.follow(&root);
        assert!(!discovers(&index));
        assert_eq!(index, Index::of(&root));
        remove(&mut root, "clusterroles/system:discovery");
        index.follow(&root);
        assert!(discovers(&index));
    }

    #[test]
    fn an_older_state_changes_nothing() {
        let old = documented();
        let mut root = old.clone();
        put(&mut root, "clusterrolebindings/new", binding("ClusterRole:secret-reader", &["User:new"]));
        let mut index = Index::of(&root);
        index.follow(&old);
        assert!(index.allows(&user("new", &[]), &asked("get", "|secrets|||")).allowed);
    }

    #[test]
    fn a_request_costs_the_bindings_of_its_subjects() {
        let mut root = documented();
        for i in 0..500 {
            put(&mut root, &format!("rolebindings/default/b{i}"), binding("Role:pod-reader", &[&format!("User:u{i}")]));
        }
        let index = Index::of(&root);
        assert_eq!(index.bound_to(&user("u7", &["a", "b"]), "default").count(), 1);
        let before = visits::count();
        assert!(index.allows(&user("u7", &["a", "b"]), &asked("get", "|pods||default|x")).allowed);
        assert_eq!(visits::count(), before, "the state is not read");
        // Following what does not concern it reads nothing, what does only that.
        let mut follower = index.clone();
        apply(
            &mut root,
            Op::put(state::Put { key: Key::node("n"), header: state::Header::default(), ..Default::default() }),
        );
        let before = visits::count();
        follower.follow(&root);
        assert_eq!(visits::count(), before);
        put(&mut root, "rolebindings/default/b7", binding("Role:pod-reader", &["User:other"]));
        let label = json!({"metadata": {"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": []});
        put(&mut root, "clusterroles/view", label);
        follower.follow(&root);
        put(&mut root, "rolebindings/default/b8", binding("Role:pod-reader", &["User:other"]));
        let before = visits::count();
        follower.follow(&root);
        assert!(visits::count() - before < 20, "{}", visits::count() - before);
        assert_eq!(follower, Index::of(&root));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Role(usize, u8),
        Bind(usize, usize, Vec<u8>),
        Remove(usize),
        Default(bool),
        Compact,
        Follow,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0usize..4, 0u8..4).prop_map(|(i, n)| Step::Role(i, n)),
            4 => (4usize..10, 0usize..5, proptest::collection::vec(0u8..5, 0..4)).prop_map(|(i, r, s)| Step::Bind(i, r, s)),
            2 => (0usize..10).prop_map(Step::Remove),
            1 => any::<bool>().prop_map(Step::Default),
            1 => Just(Step::Compact),
            2 => Just(Step::Follow),
        ]
    }

    const PATHS: [&str; 10] = [
        "clusterroles/a",
        "clusterroles/b",
        "roles/n/a",
        "roles/m/a",
        "clusterrolebindings/a",
        "clusterrolebindings/b",
        "rolebindings/n/a",
        "rolebindings/n/b",
        "rolebindings/m/a",
        "rolebindings/m/b",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        /// Following is reading everything, whatever happens in between.
        #[test]
        fn following_is_reading_everything(steps in proptest::collection::vec(step(), 1..40)) {
            let subjects = ["User:u", "User:v", "Group:g", "ServiceAccount:n/s", "ServiceAccount:s"];
            let roles = ["ClusterRole:a", "ClusterRole:b", "Role:a", "Role:x", "Odd:x"];
            let mut root = State::default();
            let mut index = Index::default();
            for step in steps {
                match step {
                    Step::Role(i, n) => put(&mut root, PATHS[i], role(json!([{"verbs": [format!("v{n}")]}]))),
                    Step::Bind(i, r, s) => {
                        let s: Vec<&str> = s.iter().map(|s| subjects[usize::from(*s)]).collect();
                        put(&mut root, PATHS[i], binding(roles[r], &s));
                    }
                    Step::Remove(i) => remove(&mut root, PATHS[i]),
                    Step::Default(true) => {
                        let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
                        put(&mut root, "clusterroles/edit", json!({"metadata": {"labels": labels}}));
                    }
                    Step::Default(false) => remove(&mut root, "clusterroles/edit"),
                    Step::Compact => {
                        let revision = root.revision();
                        apply(&mut root, Op { kind: Some(op::Kind::Compact(Compact { revision })) });
                    }
                    Step::Follow => {
                        index.follow(&root);
                        prop_assert_eq!(&index, &Index::of(&root));
                    }
                }
            }
            index.follow(&root);
            prop_assert_eq!(index, Index::of(&root));
        }
    }
}
