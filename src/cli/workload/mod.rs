//! `get`, `apply`, `delete`, `logs`: enough for people without kubectl, over the same API as everyone else.
//!
//! Not here: anything the server does not print or decide itself. What a resource is called comes from its discovery, what
//! a table looks like from its Tables.

mod apply;
mod delete;
mod discovery;
mod get;
mod logs;
mod manifests;
mod merge;
mod patience;

pub use apply::Apply;
pub use delete::Delete;
pub use get::Get;
pub use logs::Logs;

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
