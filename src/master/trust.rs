//! What this master proves itself by and trusts: its issuers and its own certificates, all of which change while it runs.
//!
//! Certificates are made anew at two thirds of their life, or when another issuer signs from now on, under the same key. What
//! changed is written first; both ports and all clients take it up with their next handshake, and nodes are told.
//!
//! Not here: when issuers change (`issuers`), and how a node gets its certificate (`service::node`).
//!
//! **Invariant:** what is served is what lies on disk.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rpc::pb;
use rpc::pki::files::Other;
use rpc::pki::{
    ApiName, Bundles, Dir, Error, Issuers, PeerName, Role, about, expiry, files, inspect, kubeconfig,
    signing_request_of,
};
use rpc::tls::{self, Certificate, Identifier, Live};
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::config::first_service_ip;
use crate::setup::api_hosts;

/// How often the ends are looked at, at most and at least: a clock may be set.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);

/// This master's certificates.
const OWN: [&str; 2] = [files::PEER, files::API];

/// The issuers of a cluster at one moment, with the keys of all that are needed.
#[derive(Clone)]
pub struct Generations {
    pub bundles: Bundles,
    /// Of those that sign.
    pub keys: [String; 3],
    pub next: Option<[String; 3]>,
    pub previous: Option<[String; 3]>,
}

/// See the module.
pub struct Trust {
    dir: Dir,
    config: Config,
    signs: ArcSwap<Issuers>,
    serves: ArcSwap<Issuers>,
    peer: Certificate,
    api: Certificate,
    pub peer_server: Live<ServerConfig>,
    pub api_server: Live<ServerConfig>,
    pub peer_client: Live<ClientConfig>,
    pub identifier: Identifier,
    told: watch::Sender<pb::Trust>,
    /// Changes come one after the other.
    changing: Mutex<()>,
}

impl Trust {
    /// Reads all of it, and renews what is due or over.
    ///
    /// # Errors
    /// When a file is missing or a pair does not belong together.
    pub fn load(dir: Dir, config: Config, now: i64) -> Result<Arc<Self>, Error> {
        let (signs, serves) = read(&dir)?;
        let bundles = signs.bundles();
        for which in OWN {
            let issuers = if which == files::API { &serves } else { &signs };
            if is_due(&described(&dir, &bundles, which)?, issuers, now) {
                renew(&dir, issuers, &config, which, now)?;
            }
        }
        let peer = Certificate::new(&dir.credential(files::PEER)?, files::PEER)?;
        let api = Certificate::new(&dir.credential(files::API)?, files::API)?;
        let trust = Self {
            peer_server: tls::peer_server(&peer, &bundles)?.into(),
            api_server: tls::api_server(&api, &bundles, config.certificate_grace)?.into(),
            peer_client: tls::peer_client(&peer, &bundles)?.into(),
            identifier: Identifier::new(&bundles)?,
            told: watch::Sender::new(told(&signs, 0)?),
            signs: ArcSwap::new(signs),
            serves: ArcSwap::new(serves),
            changing: Mutex::default(),
            peer,
            api,
            dir,
            config,
        };
        Ok(Arc::new(trust))
    }

    /// Those that sign.
    pub fn issuers(&self) -> Arc<Issuers> {
        self.signs.load_full()
    }

    /// Those that API servers' certificates are of: while issuers rotate still those before, the only ones that users know.
    pub fn serves(&self) -> Arc<Issuers> {
        self.serves.load_full()
    }

    pub fn bundles(&self) -> Bundles {
        self.signs.load().bundles()
    }

    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What nodes are told; changes when it does.
    pub fn told(&self) -> watch::Receiver<pb::Trust> {
        self.told.subscribe()
    }

    /// Keys of another generation of issuers, while they rotate.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn other_keys(&self, which: Other) -> Result<Option<[String; 3]>, Error> {
        self.dir.other_keys(which)
    }

    /// Other issuers count from now on; on disk first. Own certificates of others are made anew.
    ///
    /// # Errors
    /// When they make no sense, and nothing has changed then, or the disk refuses.
    pub fn install(&self, generations: &Generations, now: i64) -> Result<(), Error> {
        let Generations { bundles, keys, next, previous } = generations;
        let signs = Issuers::from_parts(bundles, keys)?;
        for other in [next, previous].into_iter().flatten() {
            Issuers::from_parts(bundles, other)?;
        }
        let bundles = signs.bundles();
        let peer_server = tls::peer_server(&self.peer, &bundles)?;
        let api_server = tls::api_server(&self.api, &bundles, self.config.certificate_grace)?;
        let peer_client = tls::peer_client(&self.peer, &bundles)?;
        let _one_at_a_time = self.lock();
        // Whichever of the files a crash leaves, each key has its certificate, and no key is lost that is still needed.
        self.dir.write_bundles(&bundles.and(&self.bundles())?)?;
        if next.is_some() {
            self.dir.write_other_keys(Other::Next, next.as_ref())?;
        }
        self.dir.write_other_keys(Other::Previous, previous.as_ref())?;
        self.dir.write_issuers(&signs)?;
        if next.is_none() {
            self.dir.write_other_keys(Other::Next, None)?;
        }
        let (signs, serves) = read(&self.dir)?;
        self.identifier.replace(&bundles)?;
        self.peer_server.replace(peer_server);
        self.api_server.replace(api_server);
        self.peer_client.replace(peer_client);
        self.signs.store(signs.clone());
        self.serves.store(serves);
        let renew_before = self.told.borrow().renew_before;
        self.told.send_replace(told(&signs, renew_before)?);
        self.renew_where(now, |about, issuers| !is_of(issuers, about))
    }

    /// New certificates of its own, whatever the present ones' age, and nodes are told to get theirs.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn renew_all(&self, now: i64) -> Result<(), Error> {
        let _one_at_a_time = self.lock();
        self.renew_where(now, |_, _| true)?;
        self.told.send_modify(|told| told.renew_before = now);
        Ok(())
    }

    fn renew_due(&self, now: i64) -> Result<(), Error> {
        let _one_at_a_time = self.lock();
        self.renew_where(now, |about, issuers| is_due(about, issuers, now))?;
        self.renew_kubeconfig(&self.issuers(), now)
    }

    fn renew_where(&self, now: i64, wanted: impl Fn(&inspect::About, &Issuers) -> bool) -> Result<(), Error> {
        let bundles = self.bundles();
        for (which, certificate, issuers) in
            [(files::PEER, &self.peer, self.issuers()), (files::API, &self.api, self.serves())]
        {
            if wanted(&described(&self.dir, &bundles, which)?, &issuers) {
                renew(&self.dir, &issuers, &self.config, which, now)?;
                certificate.replace(&self.dir.credential(which)?, which)?;
                tracing::info!(which, "certificate renewed");
            }
        }
        Ok(())
    }

    /// The administrator's kubeconfig in the data dir, where there is one.
    fn renew_kubeconfig(&self, issuers: &Issuers, now: i64) -> Result<(), Error> {
        let Some(path) = &self.config.kubeconfig else { return Ok(()) };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::File { path: path.clone(), source }),
        };
        // One that somebody put in its place is theirs.
        let Ok(pem) = kubeconfig::certificate(&text) else { return Ok(()) };
        let about = about(&pem, &issuers.own().client, "the kubeconfig's certificate")?;
        let trusts = kubeconfig::issuer(&text)? == issuers.bundles().client;
        if trusts && !about.issuer.is_empty() && !about.expiry.is_due(now) {
            return Ok(());
        }
        let credential = kubeconfig::admin_credential(issuers, &self.config.lifetimes, now)?;
        let renewed = kubeconfig::renewed(&text, &credential, &issuers.bundles().client)?;
        files::write_private(path, renewed.as_bytes())?;
        tracing::info!(path = %path.display(), "the administrator's kubeconfig was renewed");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the certificate that ends first, and whether one of them missed its renewal.
    pub fn expires(&self, now: i64) -> (i64, bool) {
        let ends = self.expiries();
        (ends.iter().map(|end| end.not_after).min().unwrap_or_default(), ends.iter().any(|end| end.is_late(now)))
    }

    /// What is wrong with the age of the issuers that sign: less than a tenth of their life is left, or nothing.
    pub fn issuers_age(&self, now: i64) -> Option<&'static str> {
        let own = self.signs.load().own();
        let ends: Vec<_> = Role::ALL.into_iter().filter_map(|role| expiry(own.of(role), role.name()).ok()).collect();
        if ends.iter().any(|end| end.is_over(now)) {
            return Some(
                "has issuers that have ended, so that kubectl and others refuse its certificates: `hactl cluster certs rotate-issuers` and \
                 then the same with --finish make new ones",
            );
        }
        let soon = ends.iter().any(|end| (end.not_after - now) * 10 < end.not_after - end.issued());
        soon.then_some("has issuers that end soon: `hactl cluster certs rotate-issuers` makes new ones")
    }

    fn publish(&self) {
        for which in OWN {
            let pem = self.dir.credential(which).map(|pair| pair.certificate_pem);
            if let Ok(end) = pem.and_then(|pem| expiry(&pem, which)) {
                metrics::gauge!("hactl_certificate_end_seconds", "certificate" => which).set(end.not_after as f64);
            }
        }
    }

    fn expiries(&self) -> Vec<inspect::Expiry> {
        let end = |which| expiry(&self.dir.credential(which).ok()?.certificate_pem, which).ok();
        OWN.into_iter().filter_map(end).collect()
    }

    /// All that this master has, for whoever asks: its own, and the issuers that it trusts.
    pub fn certificates(&self) -> Vec<pb::CertificateInfo> {
        listed(&self.dir, &self.bundles(), &self.config.name, &OWN)
    }

    pub async fn keep(
        self: Arc<Self>,
        now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>,
        shutdown: CancellationToken,
    ) {
        let mut told = self.told();
        loop {
            let trust = self.clone();
            let at = now().as_second();
            let renewed = tokio::task::spawn_blocking(move || trust.renew_due(at)).await;
            if let Ok(Err(error)) = renewed {
                tracing::error!(%error, "cannot renew a certificate; tried again");
            }
            self.publish();
            let due = self.expiries().iter().map(|end| end.renew_at()).min().unwrap_or_default();
            let left = Duration::from_secs(u64::try_from(due - now().as_second()).unwrap_or(0));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(left.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)) => {}
                // Other issuers: the kubeconfig follows.
                Ok(()) = told.changed() => {}
            }
        }
    }
}

fn told(issuers: &Issuers, renew_before: i64) -> Result<pb::Trust, Error> {
    let bundles = issuers.bundles();
    Ok(pb::Trust {
        peer_issuer_pem: bundles.peer,
        node_issuer_pem: bundles.node,
        client_issuer_pem: bundles.client,
        signs_with: fingerprint(&issuers.own().node, "node")?,
        renew_before,
    })
}

/// Of the first certificate of a bundle.
fn fingerprint(bundle: &str, what: &str) -> Result<String, Error> {
    Ok(inspect::fingerprint_of(&inspect::certificates(bundle, what)?[0]))
}

/// Those that sign, and those that API servers' certificates are of.
fn read(dir: &Dir) -> Result<(Arc<Issuers>, Arc<Issuers>), Error> {
    let signs = Arc::new(dir.issuers()?);
    let serves = match dir.other_keys(Other::Previous)? {
        Some(keys) => Arc::new(Issuers::from_parts(&signs.bundles(), &keys)?),
        None => signs.clone(),
    };
    Ok((signs, serves))
}

/// What a certificate of this data dir is, by the issuers that it may be of.
fn described(dir: &Dir, bundles: &Bundles, which: &str) -> Result<inspect::About, Error> {
    about(&dir.credential(which)?.certificate_pem, role_of(which, bundles), which)
}

fn role_of<'a>(which: &str, bundles: &'a Bundles) -> &'a str {
    match which {
        files::PEER => &bundles.peer,
        files::NODE => &bundles.node,
        _ => &bundles.client,
    }
}

fn is_of(issuers: &Issuers, about: &inspect::About) -> bool {
    let own = issuers.own();
    Role::ALL.into_iter().any(|role| fingerprint(own.of(role), role.name()).is_ok_and(|own| own == about.issuer))
}

fn is_due(about: &inspect::About, issuers: &Issuers, now: i64) -> bool {
    about.expiry.is_due(now) || !is_of(issuers, about)
}

/// Under the key that is there.
fn renew(dir: &Dir, issuers: &Issuers, config: &Config, which: &str, now: i64) -> Result<(), Error> {
    let csr = signing_request_of(&dir.credential(which)?.key_pem)?;
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
    dir.write_certificate(which, &pem)
}

/// Certificates of a data dir and the issuers it trusts, as they are shown.
fn listed(dir: &Dir, bundles: &Bundles, holder: &str, own: &[&str]) -> Vec<pb::CertificateInfo> {
    let file = |name: &str| dir.path().join(name).display().to_string();
    let info = |holder: &str, name: String, about: inspect::About, file: String| pb::CertificateInfo {
        holder: holder.to_owned(),
        name,
        not_before: about.expiry.not_before,
        not_after: about.expiry.not_after,
        issuer: about.issuer,
        serial: about.serial,
        file,
        trust: String::new(),
    };
    let mut all: Vec<_> = own
        .iter()
        .filter_map(|which| Some((which, described(dir, bundles, which).ok()?)))
        .map(|(which, about)| info(holder, (*which).to_owned(), about, file(&format!("{which}.pem"))))
        .collect();
    for role in Role::ALL {
        let certificates = inspect::certificates(bundles.of(role), role.name()).unwrap_or_default();
        for certificate in certificates {
            let pem = rpc::pki::pem_of(&certificate);
            let Ok(about) = about(&pem, &pem, role.name()) else { continue };
            let name = format!("{} issuer", role.name());
            all.push(info("cluster", name, about, file(&format!("{}-issuer.pem", role.name()))));
        }
    }
    all
}

/// What [`renew_offline`] renews.
#[derive(Clone, Debug)]
pub struct Offline {
    pub config: Config,
    /// The node of this machine, if it is one too: its name and uid.
    pub node: Option<(String, String)>,
}

/// New certificates for a master that does not run, by the issuers' keys in its data dir, and a new kubeconfig; what there is
/// now. Blocks.
///
/// Issuers that have ended sign all the same: masters, nodes and our own clients count the keys that they trust, not how
/// long these were meant to last, so the cluster comes back and its issuers can be rotated. Other clients refuse them until then.
///
/// # Errors
/// When this is no master's data dir, or the disk refuses.
pub fn renew_offline(offline: &Offline, kubeconfig: &PathBuf) -> Result<Vec<pb::CertificateInfo>, crate::Error> {
    let config = &offline.config;
    let dir = Dir::of(&config.data_dir);
    let (issuers, serves) = read(&dir)?;
    let now = rpc::pki::unix_now();
    let mut which = OWN.to_vec();
    renew(&dir, &issuers, config, files::PEER, now)?;
    renew(&dir, &serves, config, files::API, now)?;
    if let Some((name, uid)) = &offline.node {
        let csr = signing_request_of(&dir.credential(files::NODE)?.key_pem)?;
        let name = rpc::pki::NodeName { cluster_id: config.cluster_id.clone(), name: name.clone(), uid: uid.clone() };
        dir.write_certificate(files::NODE, &issuers.issue_node(&csr, &name, config.lifetimes.node, now)?)?;
        which.push(files::NODE);
    }
    let credential = kubeconfig::admin_credential(&issuers, &config.lifetimes, now)?;
    let bundles = issuers.bundles();
    let text = std::fs::read_to_string(kubeconfig).unwrap_or_default();
    let text = kubeconfig::renewed(&text, &credential, &bundles.client).unwrap_or_else(|_| {
        let server = kubeconfig::Server {
            context: "hactl".to_owned(),
            url: format!("https://{}", config.advertise_api),
            tls_name: Some(tls::API_NAME.to_owned()),
        };
        kubeconfig::render(kubeconfig::ADMIN_USER, &[server], &credential, &bundles)
    });
    files::write_private(kubeconfig, text.as_bytes())?;
    Ok(listed(&dir, &bundles, &config.name, &which))
}
