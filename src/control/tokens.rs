//! Tokens of ServiceAccounts: what a token says, and whom it makes of its bearer as long as what it names is there.
//!
//! ```text
//! wanted ─ issue ─▶ claims ─ (signed, carried, checked by the caller) ─▶ claims ─ holder ─▶ user
//!             ▲ account, pod, Secret or Node it is bound to                  ▲ the same, looked at with each request
//! ```
//!
//! Not here: the keys and the signature. **Invariant:** a token counts only while the ServiceAccount it names, and the object
//! it is bound to, are there under the uid they had when it was issued.

use std::collections::BTreeMap;

use jiff::Timestamp;
use objects::{FieldError, Reason};
use serde::{Deserialize, Serialize};
use state::{Key, Record, State};

use crate::authz::{ACCOUNTS, User, service_account};

/// Who issues the tokens of every cluster: the name that pods reach the API by. It is also whom they are for, unless others
/// are named.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Seconds that a token is valid where the request says nothing, and those it may ask for.
pub const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
/// Seconds by which the clocks of masters may differ, and by which what is being deleted outlives its time.
const LEEWAY_S: i64 = 60;

const EXTRA: &str = "authentication.kubernetes.io/";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub names: Names,
    pub nbf: i64,
    pub sub: String,
}

/// The objects that a token names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub namespace: String,
    pub serviceaccount: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// A token that somebody asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub namespace: String,
    pub account: String,
    /// Whom it is for; none: this API.
    pub audiences: Vec<String>,
    pub seconds: i64,
    pub bound: Option<Bound>,
}

/// The object that a token ends with.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    /// Empty: whichever is there.
    pub uid: String,
}

/// Why no token is issued.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    Invalid(Vec<FieldError>),
    BadRequest(String),
    Forbidden(String),
    /// What is not there.
    Missing(Key),
    /// It is there under another uid.
    Replaced {
        kind: String,
        name: String,
        why: String,
    },
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Invalid(errors) => f.write_str(&objects::aggregate(errors)),
            Refused::BadRequest(why) | Refused::Forbidden(why) => f.write_str(why),
            Refused::Missing(key) => write!(f, "{} {:?} not found", key.resource, key.name),
            Refused::Replaced { kind, name, why } => write!(f, "{kind} {name:?}: {why}"),
        }
    }
}

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// By what it says itself.
    Always(String),
    /// By this state; a newer one may know what it names.
    AsOf(String),
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Invalid::Always(why) | Invalid::AsOf(why)) = self;
        f.write_str(why)
    }
}

/// Who bears a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub user: User,
    /// Those asked for that it is for.
    pub audiences: Vec<String>,
}

/// What the token says that `asker` wants.
///
/// # Errors
/// When the request makes no sense, names what is not there, or is not the asker's to make.
pub fn issue(wanted: &Wanted, asker: &User, root: &State, now: Timestamp, id: String) -> Result<Claims, Refused> {
    let Wanted { namespace, account, seconds, .. } = wanted;
    let key = Key::new("", "serviceaccounts", namespace.as_str(), account.as_str());
    let holder = root.get(&key).ok_or(Refused::Missing(key))?;
    check_seconds(*seconds)?;
    let mut names = Names {
        namespace: namespace.clone(),
        serviceaccount: name(account, holder),
        pod: None,
        secret: None,
        node: None,
    };
    if let Some(node) = asker.as_node() {
        check_node(node, wanted, root)?;
    }
    if let Some(bound) = &wanted.bound {
        bind(&mut names, bound, root)?;
    }
    let audiences = if wanted.audiences.is_empty() { vec![ISSUER.to_owned()] } else { wanted.audiences.clone() };
    let iat = now.as_second();
    Ok(Claims {
        aud: audiences,
        exp: iat.saturating_add(*seconds),
        iat,
        iss: ISSUER.to_owned(),
        jti: id,
        sub: service_account(namespace, account),
        names,
        nbf: iat,
    })
}

fn name(name: &str, record: &Record) -> Name {
    Name { name: name.to_owned(), uid: record.header.uid.clone() }
}

fn check_seconds(seconds: i64) -> Result<(), Refused> {
    let why = match seconds {
        ..SECONDS_MIN => "may not specify a duration less than 10 minutes",
        SECONDS_MIN..=SECONDS_MAX => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::new("spec.expirationSeconds", Reason::Invalid, why);
    Err(Refused::Invalid(vec![error.with_value(seconds.into())]))
}

/// Names the object that the token ends with.
fn bind(names: &mut Names, bound: &Bound, root: &State) -> Result<(), Refused> {
    let key = match (bound.api_version.as_str(), bound.kind.as_str()) {
        ("v1", "Pod") => Key::new("", "pods", names.namespace.as_str(), bound.name.as_str()),
        ("v1", "Secret") => Key::new("", "secrets", names.namespace.as_str(), bound.name.as_str()),
        ("v1", "Node") => Key::node(bound.name.as_str()),
        (version, kind) => {
            return Err(Refused::BadRequest(format!("cannot bind token to object of type {version}, Kind={kind}")));
        }
    };
    let record = root.get(&key).ok_or(Refused::Missing(key.clone()))?;
    if !bound.uid.is_empty() && bound.uid != record.header.uid {
        return Err(Refused::Replaced {
            kind: bound.kind.clone(),
            name: bound.name.clone(),
            why: replaced(&bound.uid),
        });
    }
    let found = Some(name(&bound.name, record));
    match key.resource.as_str() {
        "pods" => {
            let account = &names.serviceaccount.name;
            if account_of(record) != account {
                return Err(Refused::BadRequest(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            names.pod = found;
            let node = record.header.node.as_str();
            names.node = (!node.is_empty()).then(|| {
                let uid = root.get(&Key::node(node)).map(|node| node.header.uid.clone()).unwrap_or_default();
                Name { name: node.to_owned(), uid }
            });
        }
        "secrets" => names.secret = found,
        _ => names.node = found,
    }
    Ok(())
}

fn replaced(uid: &str) -> String {
    format!(
        "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
    )
}

/// The ServiceAccount that a pod runs as.
pub fn account_of(pod: &Record) -> &str {
    match pod.header.fields.get("spec.serviceAccountName") {
        None | Some("") => "default",
        Some(name) => name,
    }
}

/// A node asks for tokens that end with its own pods, and for no other.
fn check_node(node: &str, wanted: &Wanted, root: &State) -> Result<(), Refused> {
    let forbidden = |why: &str| Err(Refused::Forbidden(why.to_owned()));
    let bound = match &wanted.bound {
        Some(bound) if bound.api_version == "v1" && bound.kind == "Pod" && !bound.name.is_empty() => bound,
        _ => return forbidden("node requested token not bound to a pod"),
    };
    if bound.uid.is_empty() {
        return forbidden("node requested token with a pod binding without a uid");
    }
    let key = Key::new("", "pods", wanted.namespace.as_str(), bound.name.as_str());
    let pod = root.get(&key).ok_or(Refused::Missing(key))?;
    if pod.header.uid != bound.uid {
        return forbidden(&replaced(&bound.uid));
    }
    if pod.header.node != node {
        return forbidden("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
}

/// Who bears a token that says this, for one of these audiences (none: this API).
///
/// # Errors
/// When it is over, for others, or of what is no longer there.
pub fn holder(claims: &Claims, audiences: &[String], root: &State, now: Timestamp) -> Result<Holder, Invalid> {
    let never = |why: &str| Err(Invalid::Always(why.to_owned()));
    let now_s = now.as_second();
    if claims.iss != ISSUER {
        return never("the token is of another issuer");
    }
    if now_s > claims.exp.saturating_add(LEEWAY_S) {
        return never("service account token has expired");
    }
    if now_s < claims.nbf.saturating_sub(LEEWAY_S) {
        return never("service account token is not valid yet");
    }
    let api = [ISSUER.to_owned()];
    let asked = if audiences.is_empty() { &api[..] } else { audiences };
    let audiences: Vec<String> = asked.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
    if audiences.is_empty() {
        let why = format!("token audiences {:?} is invalid for the target audiences {asked:?}", claims.aud);
        return Err(Invalid::Always(why));
    }
    let Names { namespace, serviceaccount, pod, secret, node } = &claims.names;
    if claims.sub != service_account(namespace, &serviceaccount.name) {
        return never("the token contradicts itself");
    }
    let there = |resource: &str, name: &Name| is_there(root, resource, namespace, name, now);
    there("serviceaccounts", serviceaccount)?;
    if let Some(pod) = pod {
        there("pods", pod)?;
    }
    if let Some(secret) = secret {
        there("secrets", secret)?;
    }
    // That of a pod is where the pod ran; the pod counts.
    if let (Some(node), None) = (node, pod) {
        is_there(root, "nodes", "", node, now)?;
    }
    Ok(Holder { user: user(claims), audiences })
}

fn is_there(root: &State, resource: &str, namespace: &str, named: &Name, now: Timestamp) -> Result<(), Invalid> {
    let key = Key::new("", resource, namespace, named.name.as_str());
    let record = root.get(&key).filter(|record| {
        let over_ms = now.as_millisecond() - LEEWAY_S * 1000;
        record.header.uid == named.uid && (record.header.deletion_ms == 0 || record.header.deletion_ms >= over_ms)
    });
    let name = if namespace.is_empty() { named.name.clone() } else { format!("{namespace}/{}", named.name) };
    match record {
        Some(_) => Ok(()),
        None => Err(Invalid::AsOf(format!("the token ended with {resource} {name:?}"))),
    }
}

fn user(claims: &Claims) -> User {
    let Names { namespace, serviceaccount, pod, node, .. } = &claims.names;
    let groups = vec![ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")];
    let mut extra = BTreeMap::new();
    let mut note = |key: &str, value: String| {
        if !value.is_empty() {
            extra.insert(format!("{EXTRA}{key}"), vec![value]);
        }
    };
    if !claims.jti.is_empty() {
        note("credential-id", format!("JTI={}", claims.jti));
    }
    for (what, named) in [("pod", pod), ("node", node)] {
        if let Some(named) = named {
            note(&format!("{what}-name"), named.name.clone());
            note(&format!("{what}-uid"), named.uid.clone());
        }
    }
    let user = User::authenticated(claims.sub.clone(), groups);
    User { uid: serviceaccount.uid.clone(), extra, ..user }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::harness::World;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn world() -> World {
        let mut world = World::with_nodes(2);
        let meta = |name: &str| json!({"name": name, "namespace": "default"});
        world.create("", "serviceaccounts", json!({"metadata": meta("app")}));
        world.create("", "serviceaccounts", json!({"metadata": meta("other")}));
        world.create("", "secrets", json!({"metadata": meta("s")}));
        for (name, account, node) in [("p", "app", "node-1"), ("q", "other", "node-1"), ("d", "", "node-2")] {
            let mut spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
            if !account.is_empty() {
                spec["serviceAccountName"] = account.into();
            }
            world.create("", "pods", json!({"metadata": meta(name), "spec": spec}));
        }
        world
    }

    fn uid(world: &World, resource: &str, name: &str) -> String {
        let namespace = if resource == "nodes" { "" } else { "default" };
        world.root.get(&Key::new("", resource, namespace, name)).expect("there").header.uid.clone()
    }

    fn wanted(bound: Option<(&str, &str, &str)>) -> Wanted {
        let bound = bound.map(|(kind, name, uid)| Bound {
            api_version: "v1".into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
        });
        Wanted {
            namespace: "default".into(),
            account: "app".into(),
            audiences: Vec::new(),
            seconds: SECONDS_DEFAULT,
            bound,
        }
    }

    fn issued(world: &World, wanted: &Wanted) -> Claims {
        issue(wanted, &User::default(), &world.root, at(0), "id".into()).expect("issued")
    }

    #[test]
    fn a_token_says_whose_it_is_and_makes_that_of_its_bearer() {
        let world = world();
        let claims = issued(&world, &wanted(Some(("Pod", "p", ""))));
        let text = serde_json::to_value(&claims).expect("JSON");
        assert_eq!(text["sub"], "system:serviceaccount:default:app");
        assert_eq!(text["aud"], json!([ISSUER]));
        assert_eq!(text["exp"], 1_800_003_600);
        assert_eq!(text["kubernetes.io"]["pod"], json!({"name": "p", "uid": uid(&world, "pods", "p")}));
        assert_eq!(text["kubernetes.io"]["node"], json!({"name": "node-1", "uid": uid(&world, "nodes", "node-1")}));
        let read: Claims = serde_json::from_value(text).expect("claims");
        let holder = holder(&read, &[], &world.root, at(1)).expect("valid");
        assert_eq!(holder.user.name, "system:serviceaccount:default:app");
        assert_eq!(holder.user.uid, uid(&world, "serviceaccounts", "app"));
        let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
        assert_eq!(holder.user.groups, groups);
        assert_eq!(holder.user.extra["authentication.kubernetes.io/credential-id"], ["JTI=id"]);
        assert_eq!(holder.user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert_eq!(holder.user.extra["authentication.kubernetes.io/node-name"], ["node-1"]);
        assert_eq!(holder.audiences, [ISSUER]);
    }

    #[test]
    fn what_is_not_issued() {
        let world = world();
        let refused = |wanted: &Wanted, asker: &User| {
            issue(wanted, asker, &world.root, at(0), String::new()).map(drop).expect_err("refused")
        };
        let anyone = User::default();
        let with = |seconds: i64| Wanted { seconds, ..wanted(None) };
        for (wanted, text) in [
            (with(599), "less than 10 minutes"),
            (with((1 << 32) + 1), "larger than 2^32 seconds"),
            (Wanted { account: "nobody".into(), ..wanted(None) }, "nobody"),
            (wanted(Some(("Pod", "gone", ""))), "gone"),
            (wanted(Some(("Pod", "q", ""))), "different serviceaccount name"),
            (wanted(Some(("Pod", "p", "old"))), "does not match the UID in record"),
            (wanted(Some(("Secret", "gone", ""))), "gone"),
            (wanted(Some(("Node", "gone", ""))), "gone"),
            (wanted(Some(("ConfigMap", "s", ""))), "cannot bind token to object of type v1, Kind=ConfigMap"),
        ] {
            let refusal = format!("{:?}", refused(&wanted, &anyone));
            assert!(refusal.contains(text), "{refusal}");
        }
        let pod = uid(&world, "pods", "p");
        let (own, other) = (User::node("node-1"), User::node("node-2"));
        for (wanted, node, text) in [
            (wanted(None), &own, "not bound to a pod"),
            (wanted(Some(("Secret", "s", ""))), &own, "not bound to a pod"),
            (wanted(Some(("Pod", "p", ""))), &own, "without a uid"),
            (wanted(Some(("Pod", "p", "old"))), &own, "does not match the UID in record"),
            (wanted(Some(("Pod", "p", &pod))), &other, "on a different node"),
        ] {
            let refusal = refused(&wanted, node);
            assert!(matches!(&refusal, Refused::Forbidden(why) if why.contains(text)), "{refusal:?}");
        }
        issue(&wanted(Some(("Pod", "p", &pod))), &own, &world.root, at(0), String::new()).expect("its own pod");
        for bound in [("Secret", "s"), ("Node", "node-2")] {
            issued(&world, &wanted(Some((bound.0, bound.1, ""))));
        }
        let default = Wanted { account: "default".into(), ..wanted(Some(("Pod", "d", ""))) };
        issued(&world, &default);
    }

    #[test]
    fn a_token_ends_with_its_time_and_with_what_it_names() {
        let check = |claims: &Claims, audiences: &[&str], world: &World, second: i64| {
            let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
            holder(claims, &audiences, &world.root, at(second)).map(|holder| holder.audiences)
        };
        let mut world = world();
        let plain = issued(&world, &wanted(None));
        let for_others = issued(&world, &Wanted { audiences: vec!["a".into(), "b".into()], ..wanted(None) });
        let [pod, secret, node] = [("Pod", "p"), ("Secret", "s"), ("Node", "node-2")]
            .map(|(kind, name)| issued(&world, &wanted(Some((kind, name, "")))));
        assert!(check(&plain, &[], &world, 3660).is_ok(), "clocks differ");
        assert!(check(&plain, &[], &world, -60).is_ok(), "clocks differ");
        for (claims, audiences, second) in
            [(&plain, &[][..], 3661), (&plain, &[], -61), (&for_others, &[], 0), (&for_others, &["c"], 0)]
        {
            assert!(matches!(check(claims, audiences, &world, second), Err(Invalid::Always(_))), "{claims:?} {second}");
        }
        assert_eq!(check(&for_others, &["b", "c"], &world, 0), Ok(vec!["b".to_owned()]));
        let foreign = Claims { iss: "https://other".into(), ..plain.clone() };
        assert!(matches!(check(&foreign, &[], &world, 0), Err(Invalid::Always(_))));
        let forged = Claims { sub: "system:serviceaccount:kube-system:app".into(), ..plain.clone() };
        assert!(matches!(check(&forged, &[], &world, 0), Err(Invalid::Always(_))));
        for (claims, resource, name) in [(&pod, "pods", "p"), (&secret, "secrets", "s"), (&node, "nodes", "node-2")] {
            assert!(check(claims, &[], &world, 0).is_ok());
            let namespace = if resource == "nodes" { "" } else { "default" };
            world.remove(&Key::new("", resource, namespace, name));
            assert!(matches!(check(claims, &[], &world, 0), Err(Invalid::AsOf(_))), "{resource}");
        }
        world.remove(&Key::new("", "serviceaccounts", "default", "app"));
        assert!(matches!(check(&plain, &[], &world, 0), Err(Invalid::AsOf(_))));
        let again = json!({"metadata": {"name": "app", "namespace": "default"}});
        world.create("", "serviceaccounts", again);
        assert!(matches!(check(&plain, &[], &world, 0), Err(Invalid::AsOf(_))), "another one of that name");
    }
}
