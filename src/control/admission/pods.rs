//! Pods: the account they run as, and how long they tolerate a lost node.

use objects::meta;
use serde_json::{Value, json};
use state::{Key, State};

use super::{Denied, Request};
use crate::record;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The account that a controller makes in every namespace.
const DEFAULT_ACCOUNT: &str = "default";

/// Every pod runs as some ServiceAccount, and pulls with its secrets unless it names its own. The account `default` is on its
/// way wherever it is not there yet, so that a namespace and its pods may come in one file. No token is mounted: no kubelet
/// honours one yet.
pub(super) fn service_account(request: &mut Request<'_>, root: &State) -> Result<(), Denied> {
    let pod = &mut *request.object;
    if meta::text(pod, &["spec", "serviceAccountName"]).is_empty() {
        meta::set(pod, &["spec", "serviceAccountName"], DEFAULT_ACCOUNT.into());
    }
    // The deprecated alias, which older clients read.
    let name = meta::text(pod, &["spec", "serviceAccountName"]).to_owned();
    meta::set(pod, &["spec", "serviceAccount"], name.as_str().into());
    let namespace = meta::namespace(pod);
    match root.get(&Key::new("", "serviceaccounts", namespace, &name)) {
        Some(account) if meta::list(pod, &["spec", "imagePullSecrets"]).is_empty() => {
            let account = record::parse(account);
            if !meta::list(&account, &["imagePullSecrets"]).is_empty() {
                let secrets = meta::list(&account, &["imagePullSecrets"]).to_vec();
                meta::set(pod, &["spec", "imagePullSecrets"], secrets.into());
            }
            Ok(())
        }
        None if name != DEFAULT_ACCOUNT => Err(Denied::Forbidden(format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// How long a pod stays on a node that is not ready or not heard of, unless it says so itself.
pub(super) fn default_tolerations(request: &mut Request<'_>, _root: &State) -> Result<(), Denied> {
    let present = meta::list(request.object, &["spec", "tolerations"]);
    let added: Vec<Value> = [NOT_READY, UNREACHABLE]
        .into_iter()
        .filter(|taint| !present.iter().any(|toleration| tolerates(toleration, taint)))
        .map(|taint| {
            json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": request.settings.toleration_s,
            })
        })
        .collect();
    if !added.is_empty() {
        let tolerations = [present, &added].concat();
        meta::set(request.object, &["spec", "tolerations"], tolerations.into());
    }
    Ok(())
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let is = |field, values: &[&str]| values.contains(&meta::text(toleration, &[field]));
    is("key", &[taint, ""]) && is("effect", &["NoExecute", ""])
}
