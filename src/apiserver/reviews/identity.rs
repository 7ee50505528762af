//! Who somebody is: oneself, as this server sees it, or the bearer of a token.

use objects::meta;
use serde_json::{Value, json};

use super::Question;
use crate::audit::described;
use crate::authn;
use crate::status::{Failure, Result};

pub fn of_oneself(question: &Question<'_>) -> Value {
    json!({"userInfo": described(question.user)})
}

/// By the same code that judges the token of a request.
pub async fn of_a_token(question: &Question<'_>) -> Result<Value> {
    let spec = &question.object["spec"];
    let token = meta::text(spec, &["token"]);
    if token.is_empty() {
        return Err(Failure::bad_request("token is required for TokenReview in authentication"));
    }
    let asked = meta::list(spec, &["audiences"]);
    let audiences: Vec<String> = asked.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    Ok(match authn::holder(question.server, token, &audiences).await? {
        Ok(holder) => json!({
            "authenticated": true, "user": described(&holder.user), "audiences": holder.audiences,
        }),
        Err(why) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
    })
}
