//! Streams into pods over real connections: WebSocket, SPDY and what is proxied, with a node that repeats what it is told.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use apiserver::{Connection, Input, Link, Output, Session};
use futures::{SinkExt, channel::mpsc};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;

/// Pods one of whose links was dropped.
static ENDED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

struct Ends(String);

impl Drop for Ends {
    fn drop(&mut self) {
        ENDED.lock().unwrap_or_else(PoisonError::into_inner).insert(self.0.clone());
    }
}

/// The node: `cat` repeats its input, `fail` ends with 3, `hang` does nothing; port 80 repeats, or answers what is proxied.
pub fn open(pod: PodRef, session: Session) -> Result<Link, StreamError> {
    let (input, inputs) = mpsc::channel(4);
    let (output, outputs) = mpsc::channel(4);
    let ends = Ends(pod.name);
    match session {
        Session::Exec { command, .. } if command == ["fail"] => drop(tokio::spawn(fail(output))),
        Session::Exec { command, .. } if command == ["hang"] => drop(tokio::spawn(hang(inputs, output, ends))),
        Session::Exec { .. } | Session::Attach { .. } => drop(tokio::spawn(repeat(inputs, output, Output::Exit(0)))),
        Session::Connect { port: 80, asked: None } => drop(tokio::spawn(repeat(inputs, output, Output::End))),
        Session::Connect { port: 80, .. } => drop(tokio::spawn(answer(inputs, output))),
        Session::Connect { port, .. } => return Err(StreamError::Internal(format!("port {port}: connection refused"))),
    }
    let input = input.sink_map_err(|_| StreamError::Internal("over".into()));
    Ok(Link { input: Box::pin(input), output: outputs.map(Ok).boxed() })
}

async fn repeat(mut inputs: mpsc::Receiver<Input>, mut output: mpsc::Sender<Output>, last: Output) {
    while let Some(input) = inputs.next().await {
        let said = match input {
            Input::Data(bytes) => bytes,
            Input::Resize { width, height } => format!("{width}x{height}").into(),
            Input::End => break,
        };
        if output.send(Output::Data(said)).await.is_err() {
            return;
        }
    }
    let _ = output.send(last).await;
}

async fn fail(mut output: mpsc::Sender<Output>) {
    for said in [Output::Stderr(Bytes::from_static(b"no")), Output::Exit(3)] {
        let _ = output.send(said).await;
    }
}

async fn hang(mut inputs: mpsc::Receiver<Input>, output: mpsc::Sender<Output>, _ends: Ends) {
    while inputs.next().await.is_some() {}
    drop(output);
}

/// HTTP: says what was asked.
async fn answer(mut inputs: mpsc::Receiver<Input>, mut output: mpsc::Sender<Output>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let Some(Input::Data(bytes)) = inputs.next().await else { return };
        head.extend_from_slice(&bytes);
    }
    let said = format!("HTTP/1.1 203 Fine\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", head.len());
    let _ = output.send(Output::Data([said.as_bytes(), &head].concat().into())).await;
}

impl Api {
    /// A pod that runs on a node.
    async fn runs(name: &str) -> Self {
        let api = Self::new().await;
        api.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
        let container = json!({"name": "c", "image": "i", "ports": [{"containerPort": 80}]});
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"nodeName": "n", "containers": [container]}});
        let made = api.post(PODS, pod).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        api
    }

    /// A connection to this server, as HTTP/1.1.
    fn connection(&self) -> DuplexStream {
        self.connection_of(Connection::default())
    }

    fn connection_of(&self, connection: Connection) -> DuplexStream {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (router, user) = (self.router.clone(), self.user.clone());
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(connection.clone());
            if let Some(user) = &user {
                request.extensions_mut().insert(user.clone());
            }
            router.clone().oneshot(request)
        });
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection_with_upgrades(TokioIo::new(far), service).await;
        });
        near
    }

    async fn websocket(&self, path: &str, protocols: &str) -> Result<(WebSocketStream<DuplexStream>, String), Value> {
        use tokio_tungstenite::tungstenite::Error;
        let mut request = format!("ws://server{PODS}/{path}").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().expect("a header"));
        match client_async(request, self.connection()).await {
            Ok((socket, response)) => {
                let chosen = response.headers()["sec-websocket-protocol"].to_str().expect("text").to_owned();
                Ok((socket, chosen))
            }
            Err(Error::Http(response)) => {
                Err(serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap_or_default())
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A connection on which SPDY is spoken.
    async fn spdy(&self, path: &str, protocol: &str) -> DuplexStream {
        let mut stream = self.connection();
        let head = format!(
            "POST {PODS}/{path} HTTP/1.1\r\nhost: server\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\
             x-stream-protocol-version: {protocol}\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.expect("an answer"));
        }
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(answer.contains("upgrade: spdy/3.1\r\n"), "{answer}");
        assert!(
            answer.contains(&format!("x-stream-protocol-version: {}\r\n", protocol.to_ascii_lowercase())),
            "{answer}"
        );
        stream
    }
}

/// The next message that is no pong, as its channel and text.
async fn next(socket: &mut WebSocketStream<DuplexStream>) -> Option<(u8, String)> {
    loop {
        match socket.next().await?.expect("a message") {
            Message::Binary(bytes) => return Some((bytes[0], String::from_utf8_lossy(&bytes[1..]).into_owned())),
            Message::Close(frame) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(1000));
                return None;
            }
            _ => {}
        }
    }
}

async fn say(socket: &mut WebSocketStream<DuplexStream>, bytes: &'static [u8]) {
    socket.send(Message::Binary(Bytes::from_static(bytes))).await.expect("sent");
}

async fn until_ended(pod: &str) {
    let ended = async {
        while !ENDED.lock().unwrap_or_else(PoisonError::into_inner).contains(pod) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ends");
}

fn status(text: &str) -> Value {
    serde_json::from_str(text).expect("a status")
}

#[tokio::test]
async fn a_program_is_spoken_to_over_a_websocket() {
    let api = Api::runs("ws").await;
    // The token beside the protocols never comes back.
    let offered = "base64url.bearer.authorization.k8s.io.c2VjcmV0, v4.channel.k8s.io, v5.channel.k8s.io";
    for path in ["ws/exec?command=cat&stdin=true&stdout=true&stderr=true", "ws/attach?stdin=true&stdout=true"] {
        let (mut socket, chosen) = api.websocket(path, offered).await.expect("switched");
        assert_eq!(chosen, "v5.channel.k8s.io");
        say(&mut socket, b"\0hello").await;
        assert_eq!(next(&mut socket).await, Some((1, "hello".into())));
        socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.expect("sent");
        let answered = async {
            while socket.next().await.expect("open").expect("a message") != Message::Pong(Bytes::from_static(b"there?"))
            {
            }
        };
        tokio::time::timeout(Duration::from_secs(30), answered).await.expect("a pong");
        say(&mut socket, b"\x04{\"Width\":80,\"Height\":24}").await;
        assert_eq!(next(&mut socket).await, Some((1, "80x24".into())));
        say(&mut socket, &[255, 0]).await;
        let (channel, text) = next(&mut socket).await.expect("the end");
        assert_eq!((channel, &status(&text)["status"]), (3, &json!("Success")));
        assert_eq!(next(&mut socket).await, None);
    }
    let (mut socket, chosen) =
        api.websocket("ws/exec?command=fail&stderr=true", "v4.channel.k8s.io").await.expect("switched");
    assert_eq!(chosen, "v4.channel.k8s.io");
    assert_eq!(next(&mut socket).await, Some((2, "no".into())));
    let (channel, text) = next(&mut socket).await.expect("the end");
    let failed = status(&text);
    assert_eq!((channel, &failed["reason"]), (3, &json!("NonZeroExitCode")));
    assert_eq!(failed["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
    assert_eq!(next(&mut socket).await, None);
}

#[tokio::test]
async fn streams_are_refused_before_anything_runs() {
    let mut api = Api::runs("refused").await;
    let v4 = "v4.channel.k8s.io";
    for (path, protocols, code, message) in [
        ("refused/exec?stdout=true", v4, 400, "at least one command"),
        ("refused/exec?command=cat", v4, 400, "at least one of stdin, stdout, stderr"),
        ("refused/exec?command=cat&stdout=true&container=x", v4, 400, "container x is not valid for pod refused"),
        ("refused/exec?command=cat&stdout=true", "v9.channel.k8s.io", 400, "unable to negotiate"),
        ("nothing/exec?command=cat&stdout=true", v4, 404, "pods \"nothing\" not found"),
        ("refused/portforward", v4, 400, "at least one port"),
        ("refused/portforward?ports=x", v4, 400, "are no ports"),
    ] {
        let refused = api.websocket(path, protocols).await.map(drop).expect_err(path);
        assert_eq!(refused["code"], code, "{path}: {refused}");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains(message)), "{path}: {refused}");
    }
    let plain = api.get(&format!("{PODS}/refused/exec?command=cat&stdout=true")).await;
    assert_eq!(plain.status, StatusCode::BAD_REQUEST, "{}", plain.text);
    assert!(plain.text.contains("Upgrade request required"), "{}", plain.text);

    // A WebSocket opens by GET, and is `create` all the same.
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    for (user, verb) in [("looks", "get"), ("acts", "create")] {
        let rules = json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": [verb]}]);
        api.post(ROLES, json!({"metadata": {"name": user}, "rules": rules})).await;
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user});
        let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user});
        api.post(BINDINGS, json!({"metadata": {"name": user}, "roleRef": role, "subjects": [subject]})).await;
    }
    let path = "refused/exec?command=fail&stderr=true";
    api.user = Some(User::authenticated("looks", vec![]));
    let refused = api.websocket(path, v4).await.map(drop).expect_err("get is not enough");
    assert_eq!(refused["code"], 403, "{refused}");
    api.user = Some(User::authenticated("acts", vec![]));
    assert!(api.websocket(path, v4).await.is_ok());
    let refused = api.websocket("refused/attach?stdout=true", v4).await.map(drop).expect_err("exec is not attach");
    assert_eq!(refused["code"], 403, "{refused}");
}

#[tokio::test]
async fn a_program_ends_with_its_client_and_with_the_connection() {
    let path = |pod: &str| format!("{pod}/exec?command=hang&stdout=true");
    let api = Api::runs("left").await;
    let (socket, _) = api.websocket(&path("left"), "v5.channel.k8s.io").await.expect("switched");
    drop(socket);
    until_ended("left").await;

    // A node or user that is let in no longer.
    let api = Api::runs("revoked").await;
    let connection = Connection::default();
    let mut request = format!("ws://server{PODS}/{}", path("revoked")).into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().expect("a header"));
    let (_socket, _) = client_async(request, api.connection_of(connection.clone())).await.expect("switched");
    connection.tasks.close();
    assert!(!connection.tasks.is_empty(), "whoever accepted the connection sees that it goes on");
    connection.ended.cancel();
    until_ended("revoked").await;
    connection.tasks.wait().await;

    let api = Api::runs("shutdown").await;
    let (_socket, _) = api.websocket(&path("shutdown"), "v5.channel.k8s.io").await.expect("switched");
    api.shutdown.cancel();
    until_ended("shutdown").await;
}

#[tokio::test]
async fn open_streams_are_bounded_until_they_end() {
    let limits = apiserver::Limits { logs: 1, logs_per_user: 1, requests: 1, ..apiserver::Limits::default() };
    let api = Api::bounded(Api::runs("bounded").await.replica, limits);
    let path = "bounded/exec?command=cat&stdin=true&stdout=true";
    let (mut first, _) = api.websocket(path, "v5.channel.k8s.io").await.expect("switched");
    let refused = api.websocket(path, "v5.channel.k8s.io").await.map(drop).expect_err("full");
    assert_eq!(refused["code"], 429, "{refused}");
    assert_eq!(api.get(MAPS).await.status, StatusCode::OK, "a stream takes no seat of requests");
    say(&mut first, &[255, 0]).await;
    while next(&mut first).await.is_some() {}
    let again = async { while api.websocket(path, "v5.channel.k8s.io").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("the seat is given back");
}

#[tokio::test]
async fn ports_are_forwarded_over_a_websocket() {
    let api = Api::runs("ports").await;
    let (mut socket, _) = api.websocket("ports/portforward?ports=80,9", "v4.channel.k8s.io").await.expect("switched");
    for (channel, port) in [(0, "P\0"), (1, "P\0"), (2, "\t\0"), (3, "\t\0")] {
        assert_eq!(next(&mut socket).await, Some((channel, port.into())), "each channel begins with its port");
    }
    let (channel, why) = next(&mut socket).await.expect("an error");
    assert_eq!(channel, 3);
    assert!(why.starts_with("error forwarding port 9 to pod ports") && why.contains("connection refused"), "{why}");
    say(&mut socket, b"\0over and back").await;
    assert_eq!(next(&mut socket).await, Some((0, "over and back".into())));
}

/// `streamtype: error|data, port: 80, requestid: 0` as zlib compresses them one behind the other.
const ERROR_BLOCK: &[u8] = b"\x78\xf9\xe3\xc6\xa7\xc2\x02\x25\x3a\x70\x3a\x2b\x29\x4a\x4d\xcc\x85\x16\x25\xac\xa9\xa0\x80\x86\x14\xcb\x45\xa0\x24\xcc\x64\x61\x00\x24\x39\x8b\x20\x91\x98\x09\x4a\xdc\x8c\x06\x00\x00\x00\x00\xff\xff";
const DATA_BLOCK: &[u8] = b"\xc2\xaa\x15\x54\x0a\x25\x12\xd2\x09\x00\x00\x00\xff\xff";

fn syn(stream: u8, block: &[u8]) -> Vec<u8> {
    [&[0x80, 3, 0, 1, 0, 0, 0, 10 + block.len() as u8, 0, 0, 0, stream, 0, 0, 0, 0, 0, 0], block].concat()
}

fn data(stream: u8, fin: bool, bytes: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, stream, u8::from(fin), 0, 0, bytes.len() as u8], bytes].concat()
}

/// What a client of SPDY sends to have one connection forwarded, and to hang up.
fn forwarded() -> Vec<u8> {
    [syn(1, ERROR_BLOCK), data(1, true, b""), syn(3, DATA_BLOCK), data(3, false, b"over"), data(3, true, b"")].concat()
}

/// The data frames of an answer, by stream; whether it ended.
fn said(answer: &[u8], stream: u8) -> (String, bool) {
    let (mut rest, mut text, mut ended) = (answer, String::new(), false);
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        if head[0] == 0 && head[3] == stream {
            text.push_str(&String::from_utf8_lossy(payload));
            ended |= head[4] == 1;
        }
        rest = after;
    }
    (text, ended)
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_plain_and_in_a_websocket() {
    let api = Api::runs("spdy").await;
    let whole = |answer: &[u8]| said(answer, 1) == (String::new(), true) && said(answer, 3) == ("over".into(), true);
    let mut stream = api.spdy("spdy/portforward", "portforward.k8s.io").await;
    stream.write_all(&forwarded()).await.expect("sent");
    let mut answer = Vec::new();
    while !whole(&answer) {
        answer.push(stream.read_u8().await.expect("a byte"));
    }

    let protocol = "SPDY/3.1+portforward.k8s.io";
    let (mut socket, chosen) = api.websocket("spdy/portforward", protocol).await.expect("switched");
    assert_eq!(chosen, protocol);
    // One byte at a time, as clients do.
    for byte in forwarded() {
        socket.send(Message::Binary(vec![byte].into())).await.expect("sent");
    }
    let mut answer = Vec::new();
    while !whole(&answer) {
        if let Message::Binary(bytes) = socket.next().await.expect("open").expect("a message") {
            answer.extend_from_slice(&bytes);
        }
    }
}

#[tokio::test]
async fn a_program_is_spoken_to_over_spdy() {
    let api = Api::runs("old").await;
    let path = "old/exec?command=fail&stdout=true";
    let mut stream = api.spdy(path, "v4.channel.k8s.io").await;
    // Opens the streams `error` and `stdout`, with headers stored as they are.
    let stored = |first: bool, kind: &str| {
        let plain =
            [&[0, 0, 0, 1, 0, 0, 0, 10][..], b"streamtype", &[0, 0, 0, kind.len() as u8], kind.as_bytes()].concat();
        let length = plain.len() as u16;
        let begin: &[u8] = if first { &[0x78, 0x01] } else { &[] };
        [begin, &[0], &length.to_le_bytes(), &(!length).to_le_bytes(), &plain].concat()
    };
    let opened = [syn(1, &stored(true, "error")), syn(3, &stored(false, "stdout"))].concat();
    stream.write_all(&opened).await.expect("sent");
    let mut answer = Vec::new();
    while !said(&answer, 1).1 || !said(&answer, 3).1 {
        answer.push(stream.read_u8().await.expect("a byte"));
    }
    assert_eq!(status(&said(&answer, 1).0)["details"]["causes"][0]["message"], "3");
}

#[tokio::test]
async fn requests_are_carried_to_pods_and_services() {
    let api = Api::runs("web").await;
    let secret = [("authorization", "Bearer secret"), ("x-kept", "yes"), ("connection", "x-gone"), ("x-gone", "x")];
    let answer = api.send("PATCH", &format!("{PODS}/web:80/proxy/a//b%2Fc/?d=e"), &secret, b"body".to_vec()).await;
    assert_eq!(answer.status.as_u16(), 203, "{}", answer.text);
    let head = answer.text.to_ascii_lowercase();
    assert!(head.starts_with("patch /a//b%2fc/?d=e http/1.1\r\n"), "{head}");
    assert!(head.contains("host: web:80\r\n") && head.contains("x-kept: yes\r\n"), "{head}");
    assert!(!head.contains("secret") && !head.contains("x-gone"), "{head}");

    let moved = api.get(&format!("{PODS}/web/proxy?a=b")).await;
    let place = format!("{PODS}/web/proxy/?a=b");
    assert_eq!(
        (moved.status, moved.headers["location"].to_str().ok()),
        (StatusCode::MOVED_PERMANENTLY, Some(place.as_str()))
    );
    for (path, code, message) in [
        ("web:9/proxy/", 503, "connection refused"),
        ("nothing/proxy/", 404, "not found"),
        ("https:web:80/proxy/", 400, "no HTTPS"),
        ("a:b:c:d/proxy/", 400, "invalid pods request"),
    ] {
        let refused = api.get(&format!("{PODS}/{path}")).await;
        assert_eq!(refused.status.as_u16(), code, "{path}: {}", refused.text);
        assert!(
            refused.text.contains(message) && !refused.headers.contains_key("retry-after"),
            "{path}: {}",
            refused.text
        );
    }

    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8000}]}});
    assert_eq!(api.post(SERVICES, service).await.status, StatusCode::CREATED);
    let none = api.get(&format!("{SERVICES}/s/proxy/")).await;
    assert_eq!(none.status.as_u16(), 503, "{}", none.text);
    assert!(none.text.contains("no endpoints available for service"), "{}", none.text);
    let slice = json!({
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": "web", "namespace": "default"}}],
    });
    let made = api.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    for name in ["s", "s:http", "s:8000", "http:s:8000"] {
        let answer = api.get(&format!("{SERVICES}/{name}/proxy/page")).await;
        assert_eq!(answer.status.as_u16(), 203, "{name}: {}", answer.text);
        assert!(answer.text.starts_with("GET /page HTTP/1.1"), "{name}: {}", answer.text);
    }
    assert_eq!(api.get(&format!("{SERVICES}/s:81/proxy/")).await.status.as_u16(), 503);
}
