//! GET of one object, of its status, of its scale.

use axum::response::Response;
use http::StatusCode;

use crate::negotiate;
use crate::read;
use crate::server::Call;
use crate::shape::Shape;
use crate::status::{Failure, Result};

pub async fn get(call: &Call) -> Result<Response> {
    let version = read::object_version(&call.query)?;
    let root = read::at(call.replica(), version).await?;
    let record = root.get(&call.key()).ok_or_else(|| Failure::not_found(call.kind, &call.resource.name))?;
    let record = call.opened(record)?;
    let mut json = Vec::new();
    if call.resource.subresource == "scale" {
        let scale = call.kind.scale(&control::record::parse(&record));
        return call.plain(Vec::new())?.json(StatusCode::OK, scale.to_string().into_bytes());
    }
    let accepted = negotiate::accepted(&call.headers, true)?;
    let shape = Shape::new(call, accepted.form)?;
    shape.write_object(&record, record.revision, true, &mut json);
    call.answer(accepted.encoding, Vec::new()).json(StatusCode::OK, json)
}
