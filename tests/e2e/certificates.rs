//! Pods while certificates and issuers change under their node.

use serde_json::Value;

use crate::failures::{containers, node_is, web};
use crate::support::{Local, eventually, kubectl_default, text};

fn serials(local: &Local, holder: &str) -> Vec<String> {
    let all: Value = serde_json::from_str(&local.ok(&["cluster", "certs", "show", "-o", "json"])).expect("JSON");
    let of = all.as_array().expect("a list").iter().filter(|one| one["holder"] == holder);
    of.map(|one| one["serial"].as_str().expect("a serial").to_owned()).collect()
}

#[test]
fn pods_run_on_while_certificates_and_issuers_change() {
    let local = Local::up_with(3, 1, &["--certificate-life", "30s", "--node-silence", "30s"]);
    web(&local, "3");
    let before = containers(&local);
    assert_eq!(before.len(), 3);
    let mut known = serials(&local, "node-1");
    for _ in 0..2 {
        known = eventually("the node's certificate is renewed", || {
            let now = serials(&local, "node-1");
            if now.len() == 1 && now != known { Ok(now) } else { Err(format!("{now:?}")) }
        });
    }
    local.ok(&["cluster", "certs", "rotate-issuers"]);
    local.ok(&["cluster", "certs", "rotate-issuers", "--finish"]);
    node_is(&local, "node-1", "True");
    assert_eq!(containers(&local), before, "no container was touched");
    // Another connection of the node's, made with what counts now.
    let pods = local.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]);
    let first = pods.lines().next().expect("a pod");
    eventually("its log can be read", || {
        let output = local.try_kubectl(&kubectl_default(), &["logs", first]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
    local.kubectl(&["scale", "deployment/web", "--replicas=4"]);
    local.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);
}
