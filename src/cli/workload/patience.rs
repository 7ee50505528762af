//! Asking the API while the masters may have no leader: a moment in silence, then saying what is waited for, and an error
//! at a stated limit. Whoever runs a command without a majority must not look at a cursor that blinks.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::super::progress::Progress;

/// A failover is over sooner: no word about it.
const SILENT: Duration = Duration::from_millis(1500);
/// The longest time for one answer.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Tries until the server answers, for at most [`LIMIT`]. Only what certainly changed nothing is tried again: 503 and 429.
pub async fn answered<T>(attempt: impl AsyncFnMut() -> Result<T, kube::Error>) -> Result<Result<T, kube::Error>> {
    within(LIMIT, attempt).await
}

async fn within<T>(
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, kube::Error>,
) -> Result<Result<T, kube::Error>> {
    let begun = Instant::now();
    let deadline = begun + limit;
    let seconds = limit.as_secs();
    let mut said = None;
    let mut progress: Option<Progress> = None;
    loop {
        let outcome = {
            let attempt = attempt();
            let mut attempt = std::pin::pin!(attempt);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut attempt => break Some(outcome),
                    () = tokio::time::sleep_until(deadline) => break None,
                    () = tokio::time::sleep(PAUSE) => show(begun, seconds, &mut progress, said.as_deref()),
                }
            }
        };
        match outcome {
            Some(Err(kube::Error::Api(status))) if matches!(status.code, 429 | 503) => {
                let late = Instant::now() + PAUSE >= deadline;
                said = Some(status.message.clone());
                if late {
                    bail!("gave up after {seconds} s: {}", status.message);
                }
            }
            Some(outcome) => {
                if let Some(progress) = progress {
                    progress.done("answered");
                }
                return Ok(outcome);
            }
            None => {
                let last = said.map_or(String::new(), |said| format!(" (the last one: {said})"));
                bail!("no answer within {seconds} s{last}; `hactl cluster status` shows which masters live");
            }
        }
        show(begun, seconds, &mut progress, said.as_deref());
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(begun: Instant, seconds: u64, progress: &mut Option<Progress>, said: Option<&str>) {
    if begun.elapsed() < SILENT {
        return;
    }
    progress
        .get_or_insert_with(|| Progress::start(format!("waiting for the masters to answer, at most {seconds} s")))
        // What follows changes from second to second, and stands in the error if it comes to that.
        .detail(said.and_then(|said| said.split(';').next()).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str) -> kube::Error {
        let status = serde_json::json!({ "status": "Failure", "code": code, "message": message, "reason": "" });
        kube::Error::Api(serde_json::from_value(status).expect("a status"))
    }

    #[tokio::test]
    async fn an_answer_is_waited_for_and_not_for_ever() {
        let mut tries = 0;
        let answer = within(LIMIT, async || {
            tries += 1;
            if tries < 2 { Err(refused(503, "no leader")) } else { Ok(tries) }
        });
        assert_eq!(answer.await.expect("in time").expect("an answer"), 2);

        let (limit, silence) = (Duration::from_millis(1), std::future::pending::<Result<(), kube::Error>>);
        let error = within(limit, async || Err::<(), _>(refused(503, "no leader"))).await.expect_err("never");
        assert_eq!(error.to_string(), "gave up after 0 s: no leader");

        let error = within(limit, async || silence().await).await.expect_err("never");
        assert!(error.to_string().starts_with("no answer within 0 s;"), "{error}");
    }

    #[tokio::test]
    async fn what_may_have_happened_is_not_tried_again() {
        let mut tries = 0;
        let answer = answered(async || {
            tries += 1;
            Err::<(), _>(refused(504, "unknown"))
        });
        assert!(answer.await.expect("an answer").is_err());
        assert_eq!(tries, 1);
    }
}
