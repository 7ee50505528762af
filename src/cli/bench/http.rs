//! The Kubernetes API as the benchmarks of lists and watches speak it: HTTP/2 on connections of their own, so that the
//! number of connections is what was asked for and nothing parses what comes back. The servers are this cluster's masters,
//! or whatever a kubeconfig names.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::TryStreamExt;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt;
use rpc::transport::{Tcp, Transport, connect_tls};
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio_util::io::StreamReader;

use super::super::cluster;
use super::super::credentials::{self, Access};
use super::options::Load;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Objects made at a time.
const MAKERS: usize = 32;
/// What an error's answer may show.
const TEXT_MAX: usize = 300;

/// How to reach the masters.
pub struct Masters {
    pub endpoints: Vec<String>,
    tls: Arc<rustls::ClientConfig>,
    /// Whom their certificates name; none: each the host of its address.
    name: Option<String>,
    /// Where no client certificate says who asks.
    authorization: Option<HeaderValue>,
}

/// One connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Full<Bytes>>,
    address: Arc<str>,
    authorization: Option<HeaderValue>,
}

impl Masters {
    pub async fn find(load: &Load, access: &Access) -> Result<Self> {
        let (_, tls) = access.masters().await?.tls()?;
        let mut endpoints = load.addresses();
        if endpoints.is_empty() {
            let status = cluster::status_of(access).await?;
            endpoints = status.members.into_iter().filter_map(|member| Some(member.member?.api_address)).collect();
        }
        anyhow::ensure!(!endpoints.is_empty(), "no master is known; name one with --endpoints");
        Ok(Self { endpoints, tls, name: Some(rpc::tls::API_NAME.to_owned()), authorization: None })
    }

    /// Any Kubernetes API: the server of the kubeconfig, or these, with its credentials.
    pub async fn of_kubernetes(access: &Access, servers: &[String]) -> Result<Self> {
        let config = access.config().await?;
        let endpoints = match servers {
            [] => vec![credentials::address(&config.cluster_url.to_string())?],
            urls => urls.iter().map(|url| credentials::address(url)).collect::<Result<_>>()?,
        };
        let mut tls = config.rustls_client_config().context("cannot set up TLS with the kubeconfig's certificates")?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let authorization = credentials::bearer(&config)?;
        Ok(Self { endpoints, tls: Arc::new(tls), name: config.tls_server_name, authorization })
    }

    /// Connection number so and so: they go round the endpoints.
    pub async fn connect(&self, number: usize) -> Result<Connection> {
        let address = &self.endpoints[number % self.endpoints.len()];
        let tcp: Arc<dyn Transport> = Arc::new(Tcp);
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let name = self.name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
        let stream = connect_tls(&tcp, address, name, self.tls.clone(), CONNECT_LIMIT).await;
        let stream = stream.with_context(|| format!("cannot reach {address}"))?;
        let (requests, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await?;
        // It ends with an error that its requests show too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { requests, address: address.as_str().into(), authorization: self.authorization.clone() })
    }
}

impl Connection {
    /// Sends a request and returns the answer, its body unread.
    ///
    /// # Errors
    /// What the server says when it is no success.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>> {
        let body = body.map(|body| body.to_string().into()).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let mut requests = self.requests.clone();
        requests.ready().await?;
        let response = requests.send_request(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        let message = serde_json::from_slice::<Value>(&text).ok();
        let message = message.as_ref().and_then(|answer| answer["message"].as_str().map(str::to_owned));
        let message =
            message.unwrap_or_else(|| String::from_utf8_lossy(&text[..text.len().min(TEXT_MAX)]).into_owned());
        bail!("{status}: {message}")
    }

    /// As [`Self::ask`], and reads the answer.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = self.ask(method, path, body).await?.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }

    /// As [`Self::ask`], and gives the answer's lines: a watch.
    pub async fn lines(&self, path: &str) -> Result<tokio::io::Lines<impl AsyncBufRead + Unpin + use<>>> {
        let body = self.ask(Method::GET, path, None).await?.into_body().into_data_stream();
        Ok(StreamReader::new(body.map_err(std::io::Error::other)).lines())
    }

    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.ask(Method::POST, "/api/v1/namespaces", Some(&namespace)).await.context("cannot create a namespace")?;
        Ok(())
    }

    /// With all that is in it; the cluster goes on with that by itself.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{name}");
        let deleted = self.ask(Method::DELETE, &path, None).await;
        deleted.with_context(|| format!("cannot remove what was written: `kubectl delete namespace {name}`"))?;
        Ok(())
    }

    /// Creates `count` objects, several at a time.
    pub async fn create_all(&self, path: &str, count: usize, object: impl Fn(usize) -> Value) -> Result<()> {
        let object = &object;
        let makers = (0..MAKERS.min(count)).map(|first| async move {
            for number in (first..count).step_by(MAKERS) {
                self.json(Method::POST, path, Some(&object(number))).await?;
            }
            anyhow::Ok(())
        });
        futures::future::try_join_all(makers).await.context("cannot write what is to be measured")?;
        Ok(())
    }
}
