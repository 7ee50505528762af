//! The daily verbs: enough for people without kubectl, over the same API as everyone else, in kubectl's words.
//!
//! Not here: anything the server does not print or decide itself. What a resource is called comes from its discovery, what
//! a table looks like from its Tables.

mod apply;
mod create;
mod delete;
mod describe;
mod discovery;
mod events;
mod expose;
mod get;
mod logs;
mod making;
mod manifests;
mod merge;
mod patience;
mod rollout;
mod scale;
mod set;
mod top;

pub use apply::Apply;
pub use create::Create;
pub use delete::Delete;
pub use describe::Describe;
pub use events::Events;
pub use expose::Expose;
pub use get::Get;
pub use logs::Logs;
pub use rollout::Rollout;
pub use scale::Scale;
pub use set::Set;
pub use top::Top;

use std::io::Write;

use anyhow::{Context, Result};
use http::Request;
use serde_json::Value;

use super::credentials::{self, Access};
use manifests::Files;
use patience::answered;

/// Where a command acts.
#[derive(Debug, clap::Args)]
pub struct Scope {
    /// The namespace [default: the context's, else `default`]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    #[command(flatten)]
    pub access: Access,
}

impl Scope {
    async fn client(&self) -> Result<kube::Client> {
        let mut config = self.access.config().await?;
        // Asking again is `answered`'s, which says so.
        config.default_retry = false;
        credentials::client(config)
    }

    fn namespace<'a>(&'a self, client: &'a kube::Client) -> &'a str {
        self.namespace.as_deref().unwrap_or_else(|| client.default_namespace())
    }
}

fn request(method: &str, path: &str, accept: &str, content: Option<(&str, Vec<u8>)>) -> Result<Request<Vec<u8>>> {
    let mut builder = Request::builder().method(method).uri(path).header(http::header::ACCEPT, accept);
    let body = match content {
        Some((kind, body)) => {
            builder = builder.header(http::header::CONTENT_TYPE, kind);
            body
        }
        None => Vec::new(),
    };
    builder.body(body).with_context(|| format!("cannot ask for {path}"))
}

async fn read(client: &kube::Client, path: &str) -> Result<Value> {
    json(client, request("GET", path, "application/json", None)?).await
}

/// Sends an object or a patch of this media type.
async fn send(client: &kube::Client, method: &str, path: &str, media: &str, body: &Value) -> Result<Value> {
    let content = Some((media, serde_json::to_vec(body)?));
    json(client, request(method, path, "application/json", content)?).await
}

/// A value in the query of a path.
fn encoded(text: &str) -> String {
    let byte = |byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// `key=value,key=value` of an object's labels, as a selector.
fn selector_of(labels: &serde_json::Map<String, Value>) -> String {
    let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

/// Prints; a reader that has gone, as in `… | head`, is no error.
///
/// # Errors
/// Where it cannot be printed for another reason.
pub fn print_all(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

async fn json(client: &kube::Client, request: Request<Vec<u8>>) -> Result<Value> {
    ask(client, request).await?.map_err(explain)
}

/// The server's answer, good or bad.
async fn ask(client: &kube::Client, request: Request<Vec<u8>>) -> Result<Result<Value, kube::Error>> {
    answered(async || client.request::<Value>(request.clone()).await).await
}

/// The server's own words where it answered, what to do where it did not.
pub fn explain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            let error = anyhow::Error::new(error);
            let away = "no master answers; look at `hactl cluster status` or `hactl local status`";
            let cure = super::credentials::foreign(&format!("{error:#}")).unwrap_or(away);
            error.context(cure)
        }
        other => anyhow::Error::new(other),
    }
}

/// Whether the server answered with this HTTP status.
fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
