//! Certificates of a running master: made anew at two thirds of their life, under the same key, taken up by both ports
//! without a restart. When one was over at start, it is made anew at once.

use std::sync::Arc;
use std::time::Duration;

use rpc::pki::{ApiName, Dir, Error, Issuers, PeerName, expiry, files, signing_request_of};
use rpc::tls::Certificate;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::config::first_service_ip;
use crate::setup::api_hosts;

/// How often the end is looked at, at most; a shorter life is looked at more often.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(3600);
const LOOK_EVERY_MIN: Duration = Duration::from_secs(10);

/// This master's own certificates.
pub struct Own {
    pub peer: Certificate,
    pub api: Certificate,
    dir: Dir,
    issuers: Arc<Issuers>,
    config: Config,
}

impl Own {
    /// Loads both, renewing what is due.
    ///
    /// # Errors
    /// When a file is missing or a pair does not belong together.
    pub fn load(dir: Dir, issuers: Arc<Issuers>, config: Config, now: i64) -> Result<Self, Error> {
        for which in [files::PEER, files::API] {
            renew(&dir, &issuers, &config, which, now)?;
        }
        let peer = Certificate::new(&dir.credential(files::PEER)?, files::PEER)?;
        let api = Certificate::new(&dir.credential(files::API)?, files::API)?;
        Ok(Self { peer, api, dir, issuers, config })
    }

    /// The earliest end of both, in seconds since 1970.
    pub fn expires(dir: &Dir) -> i64 {
        let end = |which| Some(expiry(&dir.credential(which).ok()?.certificate_pem, which).ok()?.not_after);
        [files::PEER, files::API].into_iter().filter_map(end).min().unwrap_or_default()
    }

    pub async fn keep(self, now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>, shutdown: CancellationToken) {
        let shortest = self.config.lifetimes.peer.min(self.config.lifetimes.api);
        let every = (shortest / 10).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            for (which, certificate) in [(files::PEER, &self.peer), (files::API, &self.api)] {
                match renew(&self.dir, &self.issuers, &self.config, which, now().as_second()) {
                    Ok(false) => {}
                    Ok(true) => {
                        let taken = self.dir.credential(which).and_then(|pair| certificate.replace(&pair, which));
                        match taken {
                            Ok(()) => tracing::info!(which, "certificate renewed"),
                            Err(error) => tracing::error!(which, %error, "the renewed certificate cannot be used"),
                        }
                    }
                    Err(error) => tracing::error!(which, %error, "cannot renew a certificate; tried again"),
                }
            }
        }
    }
}

/// Whether it was due.
fn renew(dir: &Dir, issuers: &Issuers, config: &Config, which: &'static str, now: i64) -> Result<bool, Error> {
    let present = dir.credential(which)?;
    if now < expiry(&present.certificate_pem, which)?.renew_at() {
        return Ok(false);
    }
    let csr = signing_request_of(&present.key_pem)?;
    let pem = if which == files::PEER {
        let name = PeerName { cluster_id: config.cluster_id.clone(), epoch: config.epoch, member: config.member_id };
        issuers.issue_peer(&csr, &name, config.lifetimes.peer, now)?
    } else {
        let name = ApiName {
            member: config.member_id,
            hosts: api_hosts(&config.advertise_api, &config.api_names),
            service_ip: first_service_ip(&config.settings),
        };
        issuers.issue_api(&csr, &name, config.lifetimes.api, now)?
    };
    dir.write_certificate(which, &pem)?;
    Ok(true)
}
