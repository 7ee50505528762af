//! Who gets in: tokens, certificates, and what each is refused with.

use std::process::{Command, Output, Stdio};

use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, PostParams};
use rpc::pb;

use crate::support::{HACTL, Local, eventually, text};

/// Joins a machine that is not meant to run; its data dir must stay empty when it is refused.
fn join(local: &Local, arguments: &[&str]) -> (Output, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("dir");
    let output = Command::new(HACTL)
        .args(["cluster", "join", &local.address("master-1"), "--foreground", "--node-name", "stranger", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("run hactl");
    (output, dir)
}

fn refused(local: &Local, token: &str, expected: &str) {
    let (output, dir) = join(local, &["--token", token]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains(expected), "expected {expected:?} in: {error}");
    assert!(!error.contains(token), "the token is not repeated: {error}");
    assert!(!dir.path().join("data").exists(), "nothing half made is left");
}

#[test]
fn joining_needs_a_valid_token_of_this_cluster() {
    let local = Local::up(1, 0);
    let create = |arguments: &[&str]| {
        let mut all = vec!["cluster", "token", "create", "-o", "json"];
        all.extend(arguments);
        let answer: serde_json::Value = serde_json::from_str(&local.ok(&all)).expect("JSON");
        answer["token"].as_str().expect("a token").to_owned()
    };
    let good = create(&["--node"]);
    refused(&local, "hactl-nonsense", "not a join token");

    let (head, pin) = good.rsplit_once('.').expect("three parts");
    let flipped = if pin.starts_with('0') { "1" } else { "0" };
    refused(
        &local,
        &format!("{head}.{flipped}{}", &pin[1..]),
        "is not a master of the cluster this token was made for",
    );

    let (id, secret) = head.split_once('.').expect("three parts");
    let flipped = if secret.starts_with('0') { "1" } else { "0" };
    refused(&local, &format!("{id}.{flipped}{}.{pin}", &secret[1..]), "the token's secret is wrong");

    // A token for nodes makes no master.
    let (output, _dir) =
        join(&local, &["--token", &good, "--master", "--listen-api", "127.0.0.1:0", "--listen-peer", "127.0.0.1:0"]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("this token admits as node only"), "{error}");

    let revoked = create(&["--node"]);
    let id = revoked.trim_start_matches("hactl-").split('.').next().expect("an id").to_owned();
    assert!(local.ok(&["cluster", "token", "list"]).contains(&id));
    local.ok(&["cluster", "token", "revoke", &id]);
    refused(&local, &revoked, "the token is unknown: it was revoked");

    let short = create(&["--node", "--ttl", "1s"]);
    eventually("the token expires", || {
        let list = local.ok(&["cluster", "token", "list"]);
        let id = short.trim_start_matches("hactl-").split('.').next().expect("an id");
        // An expired token is shown as such, or is gone already.
        list.lines()
            .find(|line| line.contains(id))
            .is_none_or(|line| line.contains("expired"))
            .then_some(())
            .ok_or(list)
    });
    refused(&local, &short, "the token has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_certificate_may_look_at_health_only() {
    let local = Local::up(1, 0);
    let kubeconfig = kube::config::Kubeconfig::read_from(local.kubeconfig()).expect("kubeconfig");
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
        .await
        .expect("config");
    config.auth_info = kube::config::AuthInfo::default();
    let client = kube::Client::try_from(config).expect("client");
    let ask = async |path: &str| {
        let request = http::Request::get(path).body(kube::client::Body::empty()).expect("request");
        client.send(request).await.expect(path).status().as_u16()
    };
    for path in ["/api/v1/namespaces/default/secrets", "/api/v1/nodes", "/apis/apps/v1/deployments"] {
        assert!([401, 403].contains(&ask(path).await), "{path}");
    }
    assert_eq!(ask("/livez").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_certificate_opens_no_peer_port_and_no_secret() {
    let local = Local::up(1, 0);
    // A node that is registered and never runs: its certificate is what matters.
    let admin = local.client("local").await;
    let uid = register(&admin, "intruder").await;
    register(&admin, "other").await;
    let issuers = rpc::pki::Dir::of(&local.dir().join("master-1")).issuers().expect("issuers");
    let (key_pem, csr) = rpc::pki::signing_request().expect("request");
    let installation = std::fs::read(local.dir().join("master-1/hactl.json")).expect("hactl.json");
    let installation: serde_json::Value = serde_json::from_slice(&installation).expect("JSON");
    let cluster_id = installation["cluster_id"].as_str().expect("an id").to_owned();
    let name = rpc::pki::NodeName { cluster_id: cluster_id.clone(), name: "intruder".into(), uid };
    let hour = std::time::Duration::from_secs(3600);
    let certificate_pem = issuers.issue_node(&csr, &name, hour, rpc::pki::unix_now()).expect("certificate");
    let credential = rpc::pki::Credential { certificate_pem: certificate_pem.clone(), key_pem: key_pem.clone() };
    let certificate = rpc::tls::Certificate::new(&credential, "node").expect("certificate");

    let tls = rpc::tls::peer_client(&certificate, &issuers.bundles()).expect("tls");
    let target = rpc::channel::Target {
        transport: std::sync::Arc::new(rpc::transport::Tcp),
        tls: tls.into(),
        address: format!("127.0.0.1:{}", local.plan()["masters"][0]["peer"]),
        name: rpc::pki::PeerName::dns(&cluster_id, 1),
        connect_limit: std::time::Duration::from_secs(5),
        keep_alive: std::time::Duration::from_secs(5),
        bulk: false,
        severed: Default::default(),
    };
    let answer = match target.connect().await {
        Err(error) => Err(error.to_string()),
        Ok(channel) => pb::peer_client::PeerClient::new(channel)
            .member_status(pb::MemberStatusRequest::default())
            .await
            .map(drop)
            .map_err(|status| status.to_string()),
    };
    let error = answer.expect_err("the peer port trusts peers only");
    assert!(!error.contains("refused (os error"), "something listens there: {error}");

    // The same certificate on the API port is a node's: it reads what its own pods name, and nobody else's.
    for (node, name) in [("intruder", "own"), ("other", "theirs")] {
        let secret = serde_json::json!({ "metadata": { "name": name }, "stringData": { "key": "value" } });
        let secret = serde_json::from_value(secret).expect("a Secret");
        Api::<Secret>::default_namespaced(admin.clone()).create(&PostParams::default(), &secret).await.expect("create");
        let pod = serde_json::json!({ "metadata": { "name": name }, "spec": {
            "nodeName": node, "containers": [{ "name": "c", "image": "hactl.local/sample:1" }],
            "volumes": [{ "name": "v", "secret": { "secretName": name } }],
            // It stays, though its node never comes.
            "tolerations": [{ "operator": "Exists" }],
        } });
        let pod = serde_json::from_value(pod).expect("a Pod");
        Api::<Pod>::default_namespaced(admin.clone()).create(&PostParams::default(), &pod).await.expect("create");
    }
    let text = std::fs::read_to_string(local.kubeconfig()).expect("kubeconfig");
    let mut kubeconfig: serde_json::Value = serde_json::from_str(&text).expect("a kubeconfig of ours is JSON");
    let file = |name: &str, pem: &str| {
        let path = local.dir().join(name);
        std::fs::write(&path, pem).expect("write");
        path.display().to_string()
    };
    kubeconfig["users"][0]["user"] = serde_json::json!({
        "client-certificate": file("node.pem", &certificate_pem), "client-key": file("node.key", &key_pem),
    });
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&kubeconfig.to_string()).expect("kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
        .await
        .expect("config");
    let client = kube::Client::try_from(config).expect("client");
    let ask = async |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).expect("request");
        match client.request::<serde_json::Value>(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
            Err(error) => panic!("{path}: {error}"),
        }
    };
    ask("/api/v1/namespaces/default/secrets/own").await.expect("what its own pod names");
    for (path, what) in [
        ("/api/v1/namespaces/default/secrets/theirs", "cannot get resource \"secrets\""),
        ("/api/v1/secrets", "cannot list resource \"secrets\""),
        ("/api/v1/namespaces/default/secrets", "cannot list resource \"secrets\""),
        ("/api/v1/namespaces/kube-system/configmaps", "cannot list resource \"configmaps\""),
    ] {
        let (code, message) = ask(path).await.expect_err(path);
        assert_eq!(code, 403, "{path}: {message}");
        assert!(message.contains("User \"system:node:intruder\"") && message.contains(what), "{path}: {message}");
    }
}

/// Registers a Node of this name; its uid.
async fn register(admin: &kube::Client, name: &str) -> String {
    let node = serde_json::from_value(serde_json::json!({ "metadata": { "name": name } })).expect("a Node");
    let node = Api::<Node>::all(admin.clone()).create(&PostParams::default(), &node).await.expect("create");
    node.metadata.uid.expect("a uid")
}

#[test]
fn credentials_of_another_cluster_are_called_so() {
    let (one, other) = (Local::up(1, 0), Local::up(1, 0));
    let read = |local: &Local| -> serde_json::Value {
        let text = std::fs::read_to_string(local.kubeconfig()).expect("kubeconfig");
        serde_json::from_str(&text).expect("a kubeconfig of ours is JSON")
    };
    let path = one.dir().join("mixed");
    let refused = |kubeconfig: &serde_json::Value| {
        std::fs::write(&path, kubeconfig.to_string()).expect("write");
        for verb in [["get", "nodes"], ["cluster", "status"]] {
            let error = one.fails(&[verb[0], verb[1], "--kubeconfig", path.to_str().expect("a path")]);
            assert!(error.contains("of another cluster"), "{verb:?}: {error}");
        }
    };
    // A stranger's certificate with the right issuer, and everything right but the address.
    let mut mixed = read(&one);
    mixed["users"] = read(&other)["users"].clone();
    refused(&mixed);
    let mut mixed = read(&one);
    for (cluster, foreign) in mixed["clusters"]
        .as_array_mut()
        .expect("clusters")
        .iter_mut()
        .zip(read(&other)["clusters"].as_array().expect("clusters"))
    {
        cluster["cluster"]["server"] = foreign["cluster"]["server"].clone();
    }
    refused(&mixed);
}

#[test]
fn two_machines_with_one_node_name() {
    let local = Local::up(1, 0);
    let answer: serde_json::Value =
        serde_json::from_str(&local.ok(&["cluster", "token", "create", "--node", "-o", "json"])).expect("JSON");
    let token = answer["token"].as_str().expect("a token");
    // The first has no engine: it says so, and leaves without one when told to.
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("data");
    let mut first = Command::new(HACTL)
        .args([
            "cluster",
            "join",
            &local.address("master-1"),
            "--foreground",
            "--node-name",
            "stranger",
            "--token",
            token,
        ])
        .args(["--docker-host", "unix:///nonexistent/docker.sock", "--data-dir"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run hactl");
    eventually("it joins and misses its engine", || {
        let nodes = local.kubectl(&["get", "nodes", "-o", "json"]);
        if nodes.contains("no Docker Engine answers at unix:///nonexistent/docker.sock") { Ok(()) } else { Err(nodes) }
    });
    refused(&local, token, "a node named stranger exists already");
    let leave = |further: &[&str]| {
        let mut command = Command::new(HACTL);
        command.args(["cluster", "leave", "--data-dir"]).arg(&data).args(further).env_remove("KUBECONFIG");
        command.stdin(Stdio::null()).output().expect("run hactl")
    };
    let output = leave(&[]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("--force") && data.exists(), "{error}");
    let output = leave(&["--force"]);
    assert!(output.status.success() && !data.exists(), "{}", text(&output.stderr));
    first.wait().expect("it was stopped");
}
