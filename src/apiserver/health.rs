//! `/healthz`, `/livez`, `/readyz` with their reasons, `/version` and `/metrics`.

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;
use state::State;

use crate::config::Check;
use crate::query::Query;
use crate::server::Server;

/// What this server calls itself: clients choose their behaviour by it.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";

/// The answer, if the path is one of these.
pub fn answer(server: &Server, path: &str, query: &Query) -> Option<Response> {
    let (root, check) = match path.trim_matches('/').split_once('/') {
        Some((root, check)) => (root, Some(check)),
        None => (path.trim_matches('/'), None),
    };
    match (root, check) {
        ("version", None) => Some(version(server)),
        ("metrics", None) => Some(match &server.config.metrics {
            Some(handle) => {
                measure_store(&server.config.replica.root());
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }),
        ("healthz" | "livez", check) => checks(root, server.config.health.live(), check, query),
        ("readyz", check) => checks(root, server.config.health.ready(), check, query),
        _ => None,
    }
}

/// What the store holds; looked at only when asked for.
fn measure_store(root: &State) {
    metrics::gauge!("hactl_store_revision").set(root.revision() as f64);
    metrics::gauge!("hactl_store_compacted_revision").set(root.compacted() as f64);
    metrics::gauge!("hactl_store_objects").set(root.len() as f64);
    metrics::gauge!("hactl_store_bytes").set(root.bytes() as f64);
    metrics::gauge!("hactl_bound_used", "setting" => "store-quota").set(root.bytes() as f64);
    metrics::gauge!("hactl_store_history_bytes").set(root.history_bytes() as f64);
}

fn version(server: &Server) -> Response {
    let config = &server.config;
    let body = json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+hactl-{}", config.version),
        "gitCommit": config.commit,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, crate::config::architecture()),
    });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Text as Kubernetes prints it: `[+]ping ok`, `[-]leader failed: reason`.
fn checks(root: &str, checks: Vec<Check>, only: Option<&str>, query: &Query) -> Option<Response> {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let ping = Check { name: "ping", result: Ok(()) };
    let mut all: Vec<Check> = std::iter::once(ping).chain(checks).collect();
    if let Some(only) = only {
        all.retain(|check| check.name == only);
        if all.is_empty() {
            return None;
        }
    }
    let mut text = String::new();
    let mut failed = false;
    for check in &all {
        // Writing into a String cannot fail.
        let _ = match &check.result {
            _ if excluded.contains(&check.name) => writeln!(text, "[+]{} excluded: ok", check.name),
            Ok(()) => writeln!(text, "[+]{} ok", check.name),
            Err(why) => {
                failed = true;
                writeln!(text, "[-]{} failed: {why}", check.name)
            }
        };
    }
    let (status, body) = match (failed, query.flag("verbose")) {
        (true, _) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{root} check failed\n")),
        (false, true) => (StatusCode::OK, format!("{text}{root} check passed\n")),
        (false, false) => (StatusCode::OK, "ok".to_owned()),
    };
    Some((status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}
