//! What someone meets who does not know hactl yet: words on the screen that must be true, and none that mislead.

use http::{Request, StatusCode};

use crate::support::{Local, text};

#[test]
fn the_first_minutes() {
    let local = Local::up(3, 0);
    let listed = local.hactl(&["cluster", "token", "list"]);
    assert!(listed.status.success() && text(&listed.stdout).is_empty(), "`up` leaves no tokens behind: {listed:?}");
    assert!(text(&listed.stderr).contains("No tokens"), "{listed:?}");
    local.ok(&["cluster", "token", "create", "--node"]);
    let list = local.ok(&["cluster", "token", "list"]);
    assert!(list.contains("23h59m") || list.contains("24h"), "{list}");

    let again = local.hactl(&["local", "start", "master-1"]);
    assert!(text(&again.stderr).contains("master-1 runs already (pid "), "{again:?}");
    assert!(local.ok(&["--version"]).starts_with("hactl 0."));
    let named = local.ok(&["cluster", "kubeconfig"]);
    assert_eq!(named.trim_end(), local.kubeconfig().display().to_string(), "the one in $KUBECONFIG");
    let own = local.dir().join("master-1");
    let named = local.ok(&["cluster", "kubeconfig", "--data-dir", own.to_str().expect("a path")]);
    assert_eq!(named.trim_end(), own.join("admin.kubeconfig").display().to_string(), "a flag wins over $KUBECONFIG");
    let missing = local.fails(&["get", "ns", "--data-dir", "nowhere"]);
    assert!(missing.contains("nowhere/admin.kubeconfig"), "and nothing else is taken: {missing}");
    let missing = local.fails(&["cluster", "kubeconfig", "--kubeconfig", "nowhere"]);
    assert_eq!(missing.matches("os error 2").count(), 1, "{missing}");
    let refused =
        local.fails(&["cluster", "join", "127.0.0.1:1", "--node", "--token", "hactl-x", "--data-dir", "/tmp/x"]);
    assert!(refused.starts_with("error: not a join token"), "before anything else is said: {refused}");

    let empty = local.hactl(&["get", "-n", "nosuch", "cm"]);
    assert!(empty.status.success(), "{empty:?}");
    let empty = text(&empty.stderr);
    assert!(
        empty.contains("No resources found in nosuch namespace.") && empty.contains("no namespace nosuch"),
        "{empty}"
    );
    assert!(local.fails(&["get", "-n", "nosuch", "cm", "x"]).contains("no namespace nosuch"));
}

#[test]
fn apply_takes_directories_and_agrees_with_kubectl() {
    let local = Local::up(1, 0);
    let dir = local.dir().join("manifests");
    std::fs::create_dir(&dir).expect("dir");
    let object = |name: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{two: x, one: z}}}}\ndata: {{v: '{value}'}}\n"
        )
    };
    std::fs::write(dir.join("a.yaml"), object("a", "1 < 2 & 3")).expect("write");
    std::fs::write(dir.join("b.yml"), object("b", "2")).expect("write");
    let name = dir.to_str().expect("a path");
    assert_eq!(local.ok(&["apply", "-f", name]), "configmap/a created\nconfigmap/b created\n");
    assert_eq!(local.kubectl(&["apply", "-f", name]), "configmap/a unchanged\nconfigmap/b unchanged\n");
    local.kubectl(&["delete", "-f", name]);
    local.kubectl(&["apply", "-f", name]);
    let unchanged = "configmap/a unchanged\nconfigmap/b unchanged\n";
    assert_eq!(local.ok(&["apply", "-f", name]), unchanged, "what kubectl applied");
    assert_eq!(local.kubectl(&["apply", "-f", name]), unchanged);

    // One that cannot be applied keeps no other from it.
    std::fs::write(dir.join("a.yaml"), object("A", "1")).expect("write");
    std::fs::write(dir.join("b.yml"), object("b", "3")).expect("write");
    let applied = local.hactl(&["apply", "-f", name]);
    assert!(!applied.status.success(), "{applied:?}");
    assert_eq!(text(&applied.stdout), "configmap/b configured\n");
    assert!(text(&applied.stderr).contains("1 of 2 objects could not be applied"), "{applied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_every_answer_names_the_cause_and_the_next_step() {
    let local = Local::up(3, 0);
    for master in ["master-1", "master-2"] {
        local.ok(&["local", "kill", master]);
    }
    let shown = local.hactl(&["cluster", "status"]);
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
    let said = text(&shown.stdout);
    assert!(said.contains("Nobody leads."), "{said}");
    assert!(said.contains("1 of 3 masters answers: no majority"), "{said}");
    assert!(said.contains("docs/disasters.md"), "{said}");
    let peer = format!("127.0.0.1:{}", local.plan()["masters"][0]["peer"]);
    assert!(said.contains(&format!("master-1 does not answer at {peer}")), "the true port: {said}");
    assert!(local.ok(&["local", "status"]).contains("Nobody leads: 1 of 3 masters runs, 2 are needed"));

    let waited = local.fails(&["get", "ns"]);
    assert!(waited.contains("waiting for the masters to answer, at most 20 s"), "{waited}");
    let last = waited.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: gave up after 20 s: "), "{waited}");
    assert!(last.contains("master-3 last heard master-1 ") && last.contains("2 of 3 masters are needed"), "{waited}");

    let client = local.client("master-3").await;
    let request = Request::get("/api/v1/namespaces").body(Vec::new()).expect("a request");
    match client.request::<serde_json::Value>(request).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, StatusCode::SERVICE_UNAVAILABLE.as_u16());
            assert!(status.message.contains("master-3 last heard master-1 "), "{}", status.message);
        }
        other => panic!("{other:?}"),
    }
    local.ok(&["local", "start", "master-1"]);
    local.leader();
    local.ok(&["cluster", "status"]);
    assert!(local.ok(&["get", "ns"]).contains("default"), "a majority again");
}
