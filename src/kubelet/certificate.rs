//! The node's certificate and what the node trusts: renewed at two thirds of its life, or when the masters say so, under the same
//! key; taken up by the next connection.
//!
//! A certificate that has ended opens the masters for its renewal alone, for as long as they say (`certificate-grace`); so does one
//! that has not begun, since a clock was wrong when it was made.
//!
//! Invariant: what the masters said is on disk before it counts.

use std::time::Duration;

use rpc::client::Masters;
use rpc::pb;
use rpc::pb::node_session_client::NodeSessionClient;
use rpc::pki::{self, Bundles, Dir, Said, files};
use rpc::tls;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error};

/// How often the end is looked at, at most and at least: a clock may be set.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(600);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
const RENEW_LIMIT: Duration = Duration::from_secs(10);

pub struct Keeper {
    dir: Dir,
    masters: Masters,
    certificate: tls::Certificate,
    /// What the masters said last.
    told: watch::Receiver<Option<pb::Trust>>,
    said: watch::Sender<Said>,
}

/// What the session and the Node object need of it.
pub struct Known {
    pub masters: Masters,
    pub told: watch::Sender<Option<pb::Trust>>,
    pub said: watch::Receiver<Said>,
}

impl Keeper {
    /// # Errors
    /// When certificate or issuers cannot be read.
    pub fn load(config: &Config) -> Result<(Self, Known), Error> {
        let wrong = |error: pki::Error| {
            Error::Invalid(format!(
                "the node's certificate cannot be used: {error}; this machine joins anew with `hactl cluster join`"
            ))
        };
        let dir = Dir::of(&config.data_dir);
        let certificate = tls::Certificate::new(&dir.credential(files::NODE).map_err(wrong)?, "node").map_err(wrong)?;
        let client = tls::api_client(&dir.bundles().map_err(wrong)?.client, Some(&certificate)).map_err(wrong)?;
        let masters = Masters::new(config.masters.clone(), client);
        let (told, seen) = watch::channel(None);
        let said = watch::Sender::new(said(&dir).map_err(wrong)?);
        let known = Known { masters: masters.clone(), told, said: said.subscribe() };
        Ok((Self { dir, masters, certificate, told: seen, said }, known))
    }

    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = RETRY_MIN;
        loop {
            let told = self.told.borrow_and_update().clone();
            let pause = match self.look(told.as_ref()).await {
                Ok(pause) => {
                    retry = RETRY_MIN;
                    pause
                }
                Err(error) => {
                    tracing::warn!(%error, "the node's certificate was not renewed, trying again");
                    retry = (retry * 2).min(RETRY_MAX);
                    retry
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                changed = self.told.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Does what is due; when to look again.
    async fn look(&self, told: Option<&pb::Trust>) -> Result<Duration, String> {
        let text = |error: pki::Error| error.to_string();
        if let Some(told) = told {
            self.trust(told).map_err(text)?;
        }
        let now = pki::unix_now();
        let present = said(&self.dir).map_err(text)?;
        if is_due(&present, told, now) {
            self.renew(&present, now).await?;
        }
        let present = said(&self.dir).map_err(text)?;
        let end = expiry(&present);
        self.said.send_if_modified(|known| {
            let differs = *known != present;
            *known = present;
            differs
        });
        let left = Duration::from_secs(u64::try_from(end.renew_at() - pki::unix_now()).unwrap_or(0));
        Ok(left.clamp(RETRY_MIN, LOOK_EVERY_MAX))
    }

    fn trust(&self, told: &pb::Trust) -> Result<(), pki::Error> {
        let bundles = Bundles {
            peer: told.peer_issuer_pem.clone(),
            node: told.node_issuer_pem.clone(),
            client: told.client_issuer_pem.clone(),
        };
        if bundles.pin()? == self.dir.bundles()?.pin()? {
            return Ok(());
        }
        let client = tls::api_client(&bundles.client, Some(&self.certificate))?;
        self.dir.write_bundles(&bundles)?;
        self.masters.set_tls(client);
        tracing::info!("the masters' issuers have changed");
        Ok(())
    }

    async fn renew(&self, present: &Said, now: i64) -> Result<(), String> {
        let mut credential = self.dir.credential(files::NODE).map_err(|e| e.to_string())?;
        let request = pki::signing_request_of(&credential.key_pem).map_err(|e| e.to_string())?;
        let asked = async {
            let (_, channel) = self.masters.connect().await.map_err(|e| e.to_string())?;
            let asked = pb::RenewRequest { csr_pem: request };
            let answer = NodeSessionClient::new(channel).renew_certificate(asked).await;
            answer.map_err(|status| status.message().to_owned())
        };
        let answer = match tokio::time::timeout(RENEW_LIMIT, asked).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(why)) => {
                // The next master may answer better.
                self.masters.move_on();
                return Err(if expiry(present).is_over(now) { ended(&why) } else { why });
            }
            Err(_) => return Err("no answer".to_owned()),
        };
        credential.certificate_pem = answer.certificate_pem;
        // One that does not fit the key, or does not hold now, must not take the present one's place.
        tls::Certificate::new(&credential, "node").map_err(|e| e.to_string())?;
        let made = pki::expiry(&credential.certificate_pem, "the node certificate").map_err(|e| e.to_string())?;
        if let Some(why) = not_now(made, pki::unix_now()) {
            self.masters.move_on();
            return Err(why);
        }
        self.dir.write_certificate(files::NODE, &credential.certificate_pem).map_err(|e| e.to_string())?;
        self.certificate.replace(&credential, "node").map_err(|e| e.to_string())?;
        tracing::info!("the node's certificate was renewed");
        Ok(())
    }
}

/// What to do about a certificate that has ended and is not renewed.
fn ended(why: &str) -> String {
    format!(
        "{why}. It has ended. Masters that run renew it for as long as their setting certificate-grace says: raise it there until this \
         node is back, or take this machine out (`hactl cluster leave --force`, `kubectl delete node`) and join it again"
    )
}

/// Why a new certificate is no use at this time of this machine.
fn not_now(made: pki::Expiry, now: i64) -> Option<String> {
    (!made.holds(now)).then(|| {
        format!(
            "a master made one that holds from {} to {}, and here it is {now} (seconds since 1970): set the clocks of both",
            made.not_before, made.not_after
        )
    })
}

fn is_due(present: &Said, told: Option<&pb::Trust>, now: i64) -> bool {
    let end = expiry(present);
    let unwanted = told.is_some_and(|told| present.issuer != told.signs_with || end.issued() < told.renew_before);
    unwanted || end.is_due(now)
}

fn expiry(said: &Said) -> pki::Expiry {
    pki::Expiry { not_before: said.not_before, not_after: said.not_after }
}

/// What there is on disk.
fn said(dir: &Dir) -> Result<Said, pki::Error> {
    let bundles = dir.bundles()?;
    let about = pki::about(&dir.credential(files::NODE)?.certificate_pem, &bundles.node, "the node certificate")?;
    Ok(Said {
        not_before: about.expiry.not_before,
        not_after: about.expiry.not_after,
        serial: about.serial,
        issuer: about.issuer,
        trust: bundles.pin()?,
        file: dir.path().join("node.pem").display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_another_time_is_not_taken() {
        let made = pki::Expiry { not_before: 940, not_after: 1060 };
        for (now, taken) in [(939, false), (940, true), (1059, true), (1060, false)] {
            assert_eq!(not_now(made, now).is_none(), taken, "{now}");
        }
    }

    #[test]
    fn a_certificate_is_due_at_two_thirds_before_it_begins_and_when_the_masters_say_so() {
        // Made at 1000, ends at 1060.
        let present = Said { not_before: 940, not_after: 1060, issuer: "a".into(), ..Said::default() };
        let told = |signs_with: &str, renew_before| pb::Trust {
            signs_with: signs_with.into(),
            renew_before,
            ..Default::default()
        };
        for (told, now, want) in [
            (None, 939, true),
            (None, 940, false),
            (None, 1039, false),
            (None, 1040, true),
            (Some(told("a", 0)), 1001, false),
            (Some(told("b", 0)), 1001, true),
            (Some(told("a", 1000)), 1001, false),
            (Some(told("a", 1001)), 1001, true),
        ] {
            assert_eq!(is_due(&present, told.as_ref(), now), want, "{told:?} at {now}");
        }
    }
}
