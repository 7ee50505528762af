//! Who serves a connection: the port's own runtime, and for bulk another.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rpc::pki::{Issuers, PeerName, signing_request};

use super::*;
use crate::PortLimits;
use crate::ports::{Handlers, PEER, Port};

/// What the thread is called that answers over a connection with this configuration.
async fn served_by(address: &str, name: &str, config: Arc<rustls::ClientConfig>) -> String {
    let transport: Arc<dyn Transport> = Arc::new(Tcp);
    let io = connect_tls(&transport, address, name, config, LIMIT).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("handshake");
    tokio::spawn(connection);
    let request = Request::get("https://hactl/").body(Body::empty()).expect("a request");
    let body = sender.send_request(request).await.expect("answers").into_body().collect().await.expect("a body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

#[test]
fn bulk_never_passes_through_the_thread_of_the_port() {
    let runtime = |name: &str| {
        let built =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build();
        built.expect("a runtime")
    };
    let (port_runtime, bulk_runtime, test) = (runtime("port"), runtime("bulk"), runtime("test"));
    let issuers = Issuers::create("c", &Lifetimes::default(), unix_now()).expect("issuers");
    let peer = |member| {
        let name = PeerName { cluster_id: "c".into(), epoch: 1, member };
        let (key_pem, csr) = signing_request().expect("a key");
        let certificate_pem = issuers.issue_peer(&csr, &name, LIMIT * 60, unix_now()).expect("signed");
        tls::Certificate::new(&rpc::pki::Credential { certificate_pem, key_pem }, "peer").expect("pair")
    };
    let bundles = issuers.bundles();
    let server = tls::peer_server(&peer(1), &bundles).expect("a server");
    let client = tls::peer_client(&peer(2), &bundles).expect("a client");
    let answer = || async { std::thread::current().name().unwrap_or_default().to_owned() };
    let handlers = Handlers {
        grpc: axum::Router::new(),
        http: Some(axum::Router::new().fallback(answer)),
        admitted: Arc::new(|_| Ok(())),
        revoked: Arc::new(|_| Some(Box::pin(std::future::pending()))),
        bulk: Some(bulk_runtime.handle().clone()),
    };
    let stop = CancellationToken::new();
    let transport: Arc<dyn Transport> = Arc::new(Tcp);
    let identifier = tls::Identifier::new(&bundles).expect("an identifier");
    let port = test
        .block_on(Port::bind(&transport, PEER, "127.0.0.1:0", server.into(), identifier, PortLimits::peers()))
        .expect("a port");
    let address = port.address().expect("bound").to_string();
    port_runtime.spawn(port.serve(handlers, stop.clone()));
    let name = PeerName::dns("c", 1);
    test.block_on(async {
        assert_eq!(served_by(&address, &name, client.clone()).await, "port");
        assert_eq!(served_by(&address, &name, tls::for_bulk(&client)).await, "bulk");
    });
    stop.cancel();
}
