//! S3-compatible storage: `object_store` over our own HTTP client, so that no second TLS library and no second HTTP client is
//! built. Credentials come from the usual places: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`
//! (with `AWS_ALLOW_HTTP=true` for one without TLS), or the role of the machine.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::TokioExecutor;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{BackoffConfig, RetryConfig};

use crate::Error;

/// One request, and all tries of one.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
const RETRY_LIMIT: Duration = Duration::from_secs(90);
const RETRIES: usize = 3;

/// # Errors
/// When the settings in the environment make no sense.
pub fn bucket(name: &str) -> Result<AmazonS3, Error> {
    bucket_of(AmazonS3Builder::from_env(), name)
}

pub(super) fn bucket_of(settings: AmazonS3Builder, name: &str) -> Result<AmazonS3, Error> {
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_LIMIT };
    settings
        .with_bucket_name(name)
        .with_retry(retry)
        // Not every store knows requests that delete several.
        .with_disable_bulk_delete(true)
        .with_http_connector(Connector)
        .build()
        .map_err(|error| Error::Invalid(format!("s3://{name}: {error}")))
}

#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let tls = rpc::tls::web_client()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(HttpClient::new(Web(Client::builder(TokioExecutor::new()).build(https))))
    }
}

#[derive(Debug)]
struct Web(Client<HttpsConnector<Tcp>, HttpRequestBody>);

#[async_trait::async_trait]
impl HttpService for Web {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let failed = |error: hyper_util::client::legacy::Error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        };
        let answer = tokio::time::timeout(REQUEST_LIMIT, self.0.request(request)).await;
        let answer = answer.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?.map_err(failed)?;
        Ok(answer
            .map(|body| HttpResponseBody::new(body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)))))
    }
}
