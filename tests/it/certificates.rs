//! Certificates: renewed while running, revived after their end, worthless once their holder is taken out, and new issuers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use rpc::pb;
use rpc::pb::node_session_client::NodeSessionClient;
use rpc::pki::{Dir, NodeName, PeerName, kubeconfig, signing_request_of, unix_now};
use serde_json::{Value, json};

use crate::support::{HACTL, Local, PATIENCE, eventually, eventually_async, text};

const LIMIT: Duration = Duration::from_secs(10);

/// A node without an engine: it never runs a pod, but it joins, has a certificate and keeps its session.
struct Machine {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Machine {
    fn join(local: &Local, name: &str) -> Self {
        let answer: Value =
            serde_json::from_str(&local.ok(&["cluster", "token", "create", "--node", "-o", "json"])).expect("JSON");
        let mut machine = Self { dir: tempfile::tempdir().expect("dir"), child: None };
        let joined = machine.spawn(&[
            "cluster",
            "join",
            &local.address("master-1"),
            "--foreground",
            "--node-name",
            name,
            "--token",
            answer["token"].as_str().expect("a token"),
            "--docker-host",
            "unix:///nonexistent/docker.sock",
        ]);
        machine.child = Some(joined);
        machine
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("log");
        let mut command = Command::new(HACTL);
        command.args(arguments).arg("--data-dir").arg(self.data()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(log).spawn().expect("run hactl")
    }

    fn start(&mut self) {
        self.child = Some(self.spawn(&["run"]));
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read(self.dir.path().join("log")).map(|bytes| text(&bytes)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- node\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
        }
    }
}

/// The serial of every certificate, by holder and purpose. Issuers may stand there twice.
fn serials(local: &Local) -> BTreeMap<(String, String), Vec<String>> {
    let all: Value = serde_json::from_str(&local.ok(&["cluster", "certs", "show", "-o", "json"])).expect("JSON");
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for one in all.as_array().expect("a list") {
        let word = |name: &str| one[name].as_str().expect("a text").to_owned();
        found.entry((word("holder"), word("purpose"))).or_default().push(word("serial"));
    }
    found
}

fn serial(local: &Local, holder: &str, purpose: &str) -> Result<String, String> {
    let all = serials(local);
    let found = all.get(&(holder.to_owned(), purpose.to_owned())).and_then(|serials| serials.first());
    found.cloned().ok_or_else(|| format!("no {purpose} certificate of {holder} in {all:?}"))
}

/// Waits until the node's session is open: its own word stands, whatever that is.
fn in_session(local: &Local, name: &str) {
    eventually(&format!("{name} reports"), || -> Result<(), String> {
        let nodes: Value = serde_json::from_str(&local.ok(&["get", "nodes", "-o", "json"])).expect("JSON");
        let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
        let node = nodes.iter().find(|node| node["metadata"]["name"] == name).ok_or("it is not there yet")?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let reports =
            conditions.iter().any(|one| one["type"] == "Ready" && one["reason"] == "ContainerRuntimeNotReady");
        if reports { Ok(()) } else { Err(node["status"]["conditions"].to_string()) }
    });
}

/// Rotates until it is done: an election in the middle ends the command, and the same one goes on from there.
fn rotate(local: &Local, further: &[&str]) -> String {
    let command = [&["cluster", "certs", "rotate-issuers"], further].concat();
    eventually("the issuers rotate", || {
        let output = local.hactl(&command);
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    })
}

fn installation(data: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(data.join("hactl.json")).expect("hactl.json")).expect("JSON")
}

fn node_name(data: &Path) -> NodeName {
    let installation = installation(data);
    let word = |value: &Value| value.as_str().expect("a text").to_owned();
    NodeName {
        cluster_id: word(&installation["cluster_id"]),
        name: word(&installation["node"]["name"]),
        uid: word(&installation["node"]["uid"]),
    }
}

/// Gives a stopped node a certificate that ended so long ago.
fn end_node(local: &Local, data: &Path, ago: i64) {
    let issuers = Dir::of(&local.dir().join("master-1")).issuers().expect("issuers");
    let dir = Dir::of(data);
    let csr = signing_request_of(&dir.credential("node").expect("a pair").key_pem).expect("request");
    let minute = Duration::from_secs(60);
    let pem = issuers.issue_node(&csr, &node_name(data), minute, unix_now() - 60 - ago).expect("signed");
    dir.write_certificate("node", &pem).expect("written");
}

fn end_kubeconfig(local: &Local) {
    let issuers = Dir::of(&local.dir().join("master-1")).issuers().expect("issuers");
    let lifetimes = rpc::pki::Lifetimes { user: Duration::from_secs(60), ..Default::default() };
    let ended = kubeconfig::admin_credential(&issuers, &lifetimes, unix_now() - 3600).expect("signed");
    let before = std::fs::read_to_string(local.kubeconfig()).expect("kubeconfig");
    let text = kubeconfig::renewed(&before, &ended, &issuers.bundles().client).expect("ours");
    std::fs::write(local.kubeconfig(), text).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_renew_while_masters_and_nodes_run() {
    const LIFE_S: i64 = 24;
    let local = Local::up_with(3, 0, &["--certificate-life", "24s"]);
    let machine = Machine::join(&local, "late-1");
    in_session(&local, "late-1");
    eventually("the node says what it has", || serial(&local, "late-1", "node"));
    let first = serials(&local);
    let since = unix_now();

    // A watch and a writer go on meanwhile.
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    let made: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "beat"}})).expect("a ConfigMap");
    let made = api.create(&PostParams::default(), &made).await.expect("created");
    let version = made.metadata.resource_version.expect("a version");
    let watch = WatchParams::default().timeout(290);
    let mut seen = api.watch(&watch, &version).await.expect("a watch").boxed();
    let own =
        [("master-1", "peer"), ("master-2", "peer"), ("master-3", "peer"), ("master-1", "api"), ("late-1", "node")];
    let mut beats = 0;
    eventually_async("all certificates were renewed, and those of before have ended", async || {
        beats += 1;
        let patch = json!({"data": {"beat": beats.to_string()}});
        api.patch("beat", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("writes go on");
        let event = tokio::time::timeout(PATIENCE, seen.try_next()).await.expect("in time").expect("no error");
        match event {
            Some(WatchEvent::Modified(seen)) => {
                assert_eq!(seen.data.expect("data")["beat"], beats.to_string(), "each change once, in order");
            }
            other => panic!("the watch goes on: {other:?}"),
        }
        let now = serials(&local);
        for (holder, purpose) in own {
            let key = (holder.to_owned(), purpose.to_owned());
            assert!(now.contains_key(&key), "{key:?} in {now:?}");
            if now[&key] == first[&key] {
                return Err(format!("{holder}'s {purpose} certificate is the same"));
            }
        }
        if unix_now() <= since + LIFE_S { Err("those of before may still hold".to_owned()) } else { Ok(()) }
    })
    .await;
    in_session(&local, "late-1");
    // Ordered by hand, too; and a kubeconfig with it.
    let before = serials(&local);
    let kubeconfig = std::fs::read_to_string(local.kubeconfig()).expect("kubeconfig");
    let printed = local.ok(&["cluster", "certs", "renew"]);
    assert!(printed.contains("master-1, master-2, master-3 renewed") && printed.contains("late-1 told"), "{printed}");
    assert_ne!(kubeconfig, std::fs::read_to_string(local.kubeconfig()).expect("kubeconfig"));
    eventually("they are new", || {
        let now = serials(&local);
        let same = own.iter().find(|(holder, purpose)| {
            let key = ((*holder).to_owned(), (*purpose).to_owned());
            now.get(&key) == before.get(&key)
        });
        same.map_or(Ok(()), |same| Err(format!("{same:?} is the same")))
    });
    let shown = local.ok(&["cluster", "status"]);
    let row = shown.lines().find(|line| line.starts_with("late-1")).expect("a row").to_owned();
    assert!(row.contains("s left"), "{shown}");
    drop(machine);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_certificates_have_ended_comes_back() {
    let local = Local::up(1, 0);
    let mut machine = Machine::join(&local, "long-gone");
    in_session(&local, "long-gone");
    let before = eventually("the node says what it has", || serial(&local, "long-gone", "node"));
    let data = local.dir().join("master-1");
    let data = data.to_str().expect("a path");
    let kubeconfig = local.kubeconfig();
    let offline =
        ["cluster", "certs", "renew", "--offline", "--data-dir", data, "-o", kubeconfig.to_str().expect("a path")];
    let refused = local.fails(&offline);
    assert!(refused.contains("renews its certificates itself"), "{refused}");

    machine.stop();
    local.ok(&["local", "kill", "master-1"]);
    // Everything has ended, the node's certificate longer ago than is forgiven.
    let dir = Dir::of(&local.dir().join("master-1"));
    let issuers = dir.issuers().expect("issuers");
    let cluster_id = node_name(&machine.data()).cluster_id;
    let csr = signing_request_of(&dir.credential("peer").expect("a pair").key_pem).expect("request");
    let name = PeerName { cluster_id, epoch: 1, member: 1 };
    let ended = issuers.issue_peer(&csr, &name, Duration::from_secs(60), unix_now() - 3600).expect("signed");
    dir.write_certificate("peer", &ended).expect("written");
    end_kubeconfig(&local);
    end_node(&local, &machine.data(), 31 * 24 * 3600);

    let refused = local.fails(&["get", "nodes"]);
    assert!(refused.contains("ended on") && refused.contains("hactl local up --dir"), "{refused}");
    let printed = local.ok(&offline);
    assert!(printed.contains("master-1") && printed.contains(" d left") && !printed.contains("expired"), "{printed}");
    assert!(printed.contains("Now start this master"), "{printed}");
    assert_ne!(dir.credential("peer").expect("a pair").certificate_pem, ended);
    local.ok(&["local", "start", "master-1"]);
    local.serves("master-1").await;

    machine.start();
    eventually("the node says what to do", || {
        let log = machine.log();
        if log.contains("certificate-grace") { Ok(()) } else { Err(log) }
    });
    machine.stop();
    end_node(&local, &machine.data(), 3600);
    machine.start();
    eventually("the node has a new certificate", || {
        let now = serial(&local, "long-gone", "node")?;
        if now == before { Err("the same".to_owned()) } else { Ok(()) }
    });
    in_session(&local, "long-gone");
    assert!(local.log("master-1").contains("late=true"), "it came with the certificate that had ended");

    // One whose Node was deleted gets none, however lately its certificate ended.
    machine.stop();
    end_node(&local, &machine.data(), 3600);
    let held = Dir::of(&machine.data()).credential("node").expect("a pair").certificate_pem;
    let api: Api<Node> = Api::all(local.client("local").await);
    api.delete("long-gone", &DeleteParams::default()).await.expect("deleted");
    machine.start();
    eventually("the node is told", || {
        let log = machine.log();
        if log.contains("node long-gone was deleted") { Ok(()) } else { Err(log) }
    });
    assert_eq!(Dir::of(&machine.data()).credential("node").expect("a pair").certificate_pem, held);
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_that_have_ended_sign_until_they_are_rotated() {
    let local = Local::up(3, 0);
    let config_map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "kept"}})).expect("a ConfigMap");
    let api: Api<ConfigMap> = Api::default_namespaced(local.client("local").await);
    api.create(&PostParams::default(), &config_map).await.expect("created");
    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
    }
    // As if they had made the cluster eleven years ago.
    let cluster_id = installation(&local.dir().join("master-1"))["cluster_id"].as_str().expect("an id").to_owned();
    let day = 24 * 3600;
    let lifetimes = rpc::pki::Lifetimes { issuer: Duration::from_secs(3650 * day), ..Default::default() };
    let ended = rpc::pki::Issuers::create(&cluster_id, &lifetimes, unix_now() - 4000 * day as i64).expect("issuers");
    assert!(rpc::pki::expiry(&ended.own().client, "client").expect("readable").is_over(unix_now()));
    for master in local.masters() {
        Dir::of(&local.dir().join(master)).write_issuers(&ended).expect("written");
    }
    end_kubeconfig(&local);

    // A long stop: everything has ended.
    for master in ["master-1", "master-2", "master-3"] {
        let data = local.dir().join(master);
        let kubeconfig = local.kubeconfig();
        let arguments = ["cluster", "certs", "renew", "--offline", "--data-dir", data.to_str().expect("a path")];
        let printed = local.ok(&[&arguments[..], &["-o", kubeconfig.to_str().expect("a path")]].concat());
        assert!(
            printed.contains("issuer itself has ended") && printed.contains("rotate-issuers --finish"),
            "{printed}"
        );
    }
    for master in ["master-1", "master-2", "master-3"] {
        local.ok(&["local", "start", master]);
    }
    for master in local.masters() {
        local.serves(&master).await;
    }
    let status = local.ok(&["cluster", "status"]);
    assert!(status.contains("has issuers that have ended") && status.contains("rotate-issuers"), "{status}");
    local.ok(&["get", "configmaps"]);
    let others = |wanted: bool| {
        let output = local.try_kubectl(&crate::support::kubectl_default(), &["get", "configmaps"]);
        assert_eq!(output.status.success(), wanted, "{}", text(&output.stderr));
    };
    others(false);
    rotate(&local, &[]);
    rotate(&local, &["--finish"]);
    others(true);
    let status = local.ok(&["cluster", "status"]);
    assert!(!status.contains("issuers"), "{status}");
}

/// One connection, held open; ends when the other end closes it.
async fn hold(
    address: &str,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> (hyper::client::conn::http2::SendRequest<http_body_util::Empty<bytes::Bytes>>, tokio::task::JoinHandle<()>) {
    let transport: Arc<dyn rpc::transport::Transport> = Arc::new(rpc::transport::Tcp);
    let stream = rpc::transport::connect_tls(&transport, address, name, config, LIMIT).await.expect("let in");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("HTTP/2");
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

/// The status code of one request on it.
async fn ask(sender: &mut hyper::client::conn::http2::SendRequest<http_body_util::Empty<bytes::Bytes>>) -> u16 {
    let request = http::Request::get("https://kubernetes/livez").body(http_body_util::Empty::new()).expect("request");
    sender.send_request(request).await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_node_and_a_removed_member_are_out_at_once() {
    let local = Local::up(3, 0);
    let machine = Machine::join(&local, "removed");
    in_session(&local, "removed");
    let address = local.address("master-2");
    let dir = Dir::of(&machine.data());
    let certificate = rpc::tls::Certificate::new(&dir.credential("node").expect("a pair"), "node").expect("a pair");
    let tls = rpc::tls::api_client(&dir.bundles().expect("bundles").client, Some(&certificate)).expect("client");
    let (mut sender, mut connection) = hold(&address, rpc::tls::API_NAME, tls.clone()).await;
    assert_eq!(ask(&mut sender).await, 200);
    let api: Api<Node> = Api::all(local.client("local").await);
    api.delete("removed", &DeleteParams::default()).await.expect("deleted");
    tokio::time::timeout(PATIENCE, &mut connection).await.expect("its connection is closed").expect("ends");
    eventually("the node knows", || {
        let log = machine.log();
        if log.contains("node removed was deleted") { Ok(()) } else { Err(log) }
    });
    let masters = rpc::client::Masters::new(vec![address], tls);
    let (_, channel) = masters.connect().await.expect("the certificate still opens the port");
    let (_, csr_pem) = rpc::pki::signing_request().expect("request");
    let refused = NodeSessionClient::new(channel).renew_certificate(pb::RenewRequest { csr_pem }).await;
    assert!(refused.expect_err("refused").message().contains("was deleted"));

    // A master's certificate, in another's hands, and the master is taken out.
    let leader = local.leader();
    let victim = local.masters().into_iter().find(|name| *name != leader).expect("a follower");
    let dir = Dir::of(&local.dir().join(&victim));
    let installation = installation(&local.dir().join(&victim));
    let cluster_id = installation["cluster_id"].as_str().expect("an id").to_owned();
    let certificate = rpc::tls::Certificate::new(&dir.credential("peer").expect("a pair"), "peer").expect("a pair");
    let tls = rpc::tls::peer_client(&certificate, &dir.bundles().expect("bundles")).expect("client");
    let plan = local.plan();
    let other = local.masters().into_iter().find(|name| *name != victim && *name != leader).expect("a third");
    let place = plan["masters"].as_array().expect("masters").iter().find(|one| one["name"] == *other).expect("it");
    let address = format!("127.0.0.1:{}", place["peer"]);
    let (mut sender, mut connection) = hold(&address, &PeerName::any_dns(&cluster_id), tls).await;
    assert_eq!(ask(&mut sender).await, 404, "only masters' calls are answered there");
    local.ok(&["cluster", "remove", &victim]);
    tokio::time::timeout(PATIENCE, &mut connection).await.expect("its connection is closed").expect("ends");
    eventually("the others let go of it", || {
        let log = local.log(&other);
        if log.contains("its connections are closed") { Ok(()) } else { Err("not said") }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_rotate_under_a_running_cluster() {
    let local = Local::up(3, 0);
    let machine = Machine::join(&local, "comes-along");
    in_session(&local, "comes-along");
    eventually("the node says what it has", || serial(&local, "comes-along", "node"));
    let early: Value =
        serde_json::from_str(&local.ok(&["cluster", "token", "create", "--node", "-o", "json"])).expect("JSON");
    let kubeconfig_before = std::fs::read_to_string(local.kubeconfig()).expect("kubeconfig");
    let old = local.dir().join("before.kubeconfig");
    std::fs::write(&old, &kubeconfig_before).expect("written");
    let old = old.to_str().expect("a path");
    let before = serials(&local);
    let of = |all: &BTreeMap<(String, String), Vec<String>>, holder: &str, purpose: &str| {
        all.get(&(holder.to_owned(), purpose.to_owned())).cloned().unwrap_or_default()
    };
    assert_eq!(of(&before, "cluster", "client issuer").len(), 1);
    let refused = local.fails(&["cluster", "certs", "rotate-issuers", "--finish"]);
    assert!(refused.contains("only one generation"), "{refused}");

    // Nothing begins while somebody would be left behind.
    let leader = local.leader();
    let victim = local.masters().into_iter().find(|name| *name != leader).expect("a follower");
    local.ok(&["local", "kill", &victim]);
    let refused = local.fails(&["cluster", "certs", "rotate-issuers"]);
    assert!(refused.contains("nothing was changed") && refused.contains(&victim), "{refused}");
    local.ok(&["local", "start", &victim]);
    local.serves(&victim).await;

    let printed = rotate(&local, &[]);
    assert!(printed.contains("rotate-issuers --finish"), "{printed}");
    let between = serials(&local);
    for role in ["peer", "node", "client"] {
        assert_eq!(of(&between, "cluster", &format!("{role} issuer")).len(), 2, "both are trusted: {between:?}");
    }
    for (holder, purpose) in [("master-1", "peer"), ("master-3", "peer"), ("comes-along", "node")] {
        assert_ne!(of(&before, holder, purpose), of(&between, holder, purpose), "{holder} {purpose} is new");
    }
    // Users know the issuers before only.
    assert_eq!(of(&before, "master-2", "api"), of(&between, "master-2", "api"));
    local.ok(&["get", "nodes", "--kubeconfig", old]);
    local.ok(&["get", "nodes"]);

    let printed = rotate(&local, &["--finish"]);
    assert!(printed.contains("Only the new issuers count"), "{printed}");
    let after = serials(&local);
    for role in ["peer", "node", "client"] {
        let issuer = of(&after, "cluster", &format!("{role} issuer"));
        assert!(issuer.len() == 1 && issuer != of(&before, "cluster", &format!("{role} issuer")), "{after:?}");
    }
    assert_ne!(of(&between, "master-2", "api"), of(&after, "master-2", "api"));
    let refused = local.fails(&["get", "nodes", "--kubeconfig", old]);
    assert!(refused.contains("of another cluster"), "{refused}");
    in_session(&local, "comes-along");

    // What lies on disk is what is served: masters and the node come back, and another machine joins.
    let mut machine = machine;
    machine.stop();
    for master in local.masters() {
        local.ok(&["local", "kill", &master]);
    }
    for master in ["master-1", "master-2", "master-3"] {
        local.ok(&["local", "start", master]);
    }
    for master in local.masters() {
        local.serves(&master).await;
    }
    let log = machine.log().matches("session opened").count();
    machine.start();
    eventually("it has a session again", || {
        let count = machine.log().matches("session opened").count();
        if count > log { Ok(()) } else { Err(machine.log()) }
    });
    let stranger = tempfile::tempdir().expect("dir");
    let output = Command::new(HACTL)
        .args(["cluster", "join", &local.address("master-1"), "--foreground", "--node-name", "stranger", "--token"])
        .arg(early["token"].as_str().expect("a token"))
        .arg("--data-dir")
        .arg(stranger.path().join("data"))
        .stdin(Stdio::null())
        .output()
        .expect("run hactl");
    let refused = text(&output.stderr);
    assert!(
        refused.contains("other issuers than when this token was made") && refused.contains("token create"),
        "{refused}"
    );
    assert!(local.ok(&["cluster", "token", "list"]).contains("nothing: other issuers"));
    let _another = Machine::join(&local, "afterwards");
    in_session(&local, "afterwards");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rotation_goes_on_under_another_leader() {
    let local = Local::up(3, 0);
    let mut machine = Machine::join(&local, "sleeps");
    in_session(&local, "sleeps");
    eventually("the node says what it has", || serial(&local, "sleeps", "node"));
    let issuers = || {
        let all = serials(&local);
        all.get(&("cluster".to_owned(), "node issuer".to_owned())).cloned().unwrap_or_default()
    };
    let before = issuers();
    machine.stop();
    // It waits for the node at its first step, when all masters have taken that.
    let rotation = Command::new(HACTL)
        .args(["cluster", "certs", "rotate-issuers"])
        .env("KUBECONFIG", local.kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run hactl");
    eventually("every master has the new issuers", || {
        let all = local.masters();
        let have = all.iter().filter(|name| local.dir().join(name).join("pki/next-issuers.sealed").exists()).count();
        if have == all.len() { Ok(()) } else { Err(format!("{have} have")) }
    });
    let leader = local.leader();
    local.ok(&["local", "kill", &leader]);
    let ended = rotation.wait_with_output().expect("it ends");
    assert!(!ended.status.success(), "{}", text(&ended.stderr));
    let next = local.leader();
    assert_ne!(next, leader);
    local.ok(&["local", "start", &leader]);
    local.serves(&leader).await;
    let made = issuers();
    assert_eq!(made.len(), 2, "trusted, and not dropped");

    machine.start();
    rotate(&local, &[]);
    rotate(&local, &["--finish"]);
    let after = issuers();
    assert!(after.len() == 1 && after != before && made.contains(&after[0]), "{before:?} {made:?} {after:?}");
    for master in local.masters() {
        for file in ["next-issuers.sealed", "previous-issuers.sealed"] {
            assert!(!local.dir().join(&master).join("pki").join(file).exists(), "{master} keeps {file}");
        }
    }
    in_session(&local, "sleeps");
}
