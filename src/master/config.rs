//! What a master is told at start, and what it keeps for itself beside consensus: `<data-dir>/master.json`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rpc::pb::MemberInfo;
use serde::{Deserialize, Serialize};

use crate::{Error, PortLimits, StoreBounds};

/// How often a leader is heard and how long its silence is borne.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(60),
            election_min: Duration::from_millis(120),
            election_max: Duration::from_millis(200),
        }
    }
}

/// One master.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub cluster_id: String,
    pub epoch: u64,
    pub member_id: u64,
    pub name: String,
    /// host:port to listen on; port 0 takes a free one.
    pub listen_api: String,
    pub listen_peer: String,
    /// host:port that users and nodes, and that other masters, reach it at.
    pub advertise_api: String,
    pub advertise_peer: String,
    /// `masters` and `root_ca_pem` are filled in here.
    pub settings: control::Settings,
    pub timing: Timing,
    pub bounds: StoreBounds,
    /// Snapshots that the leader saves by itself; none: it does not.
    pub automatic_snapshots: Option<crate::snapshot::Plan>,
    pub lifetimes: rpc::pki::Lifetimes,
    /// How long after its end a node's certificate still gets the node a new one.
    pub certificate_grace: Duration,
    /// The administrator's kubeconfig in the data dir, which is kept valid.
    pub kubeconfig: Option<PathBuf>,
    /// A key for Secrets is not forgotten sooner after another took its place.
    pub keys_settle: Duration,
    /// What the API takes on at once.
    pub api_limits: apiserver::Limits,
    pub port_limits: PortLimits,
    /// Further names and addresses of the API's certificate.
    pub api_names: Vec<String>,
    pub version: String,
    pub commit: String,
}

impl Config {
    /// With defaults for everything but who it is and where it listens.
    pub fn new(data_dir: impl Into<PathBuf>, cluster_id: impl Into<String>, member_id: u64) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster_id: cluster_id.into(),
            epoch: 1,
            member_id,
            name: format!("master-{member_id}"),
            listen_api: "0.0.0.0:6443".into(),
            listen_peer: "0.0.0.0:6444".into(),
            advertise_api: "127.0.0.1:6443".into(),
            advertise_peer: "127.0.0.1:6444".into(),
            settings: control::Settings::default(),
            timing: Timing::default(),
            bounds: StoreBounds::default(),
            automatic_snapshots: None,
            lifetimes: rpc::pki::Lifetimes::default(),
            certificate_grace: Duration::from_secs(30 * 24 * 3600),
            kubeconfig: None,
            keys_settle: Duration::from_secs(60),
            api_limits: apiserver::Limits::default(),
            port_limits: PortLimits::default(),
            api_names: Vec::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: String::new(),
        }
    }

    /// This member as the others reach it.
    pub fn member(&self) -> MemberInfo {
        MemberInfo {
            id: self.member_id,
            name: self.name.clone(),
            peer_address: self.advertise_peer.clone(),
            api_address: self.advertise_api.clone(),
        }
    }
}

/// What `create` or `join` left for the first start. Later starts take the members from consensus.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MasterFile {
    pub cluster_id: String,
    pub member_id: u64,
    /// The members at the time of joining; empty for the first member, which makes the cluster.
    pub members: Vec<Member>,
    /// It has taken part: from now on its log exists, and a data dir without one must not begin anew under its id.
    #[serde(default)]
    pub started: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    pub id: u64,
    pub name: String,
    pub peer_address: String,
    pub api_address: String,
}

impl From<Member> for consensus::Member {
    fn from(member: Member) -> Self {
        let Member { id, name, peer_address, api_address } = member;
        Self { id, name, peer_address, api_address }
    }
}

impl From<MemberInfo> for Member {
    fn from(info: MemberInfo) -> Self {
        let MemberInfo { id, name, peer_address, api_address } = info;
        Self { id, name, peer_address, api_address }
    }
}

impl MasterFile {
    const NAME: &str = "master.json";

    /// # Errors
    /// When it is missing or damaged.
    pub fn load(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join(Self::NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Invalid(format!(
                    "there is no {}, though this machine is a master: its data was lost. A new member takes its place: `hactl cluster \
                     replace --data-dir {}`",
                    path.display(),
                    data_dir.display()
                )));
            }
            Err(source) => return Err(Error::File { path, source }),
        };
        serde_json::from_slice(&bytes).map_err(|cause| {
            Error::Invalid(format!(
                "{} is damaged ({cause}); restore it, or remove this master and join it again",
                path.display()
            ))
        })
    }

    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, data_dir: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|cause| Error::Invalid(cause.to_string()))?;
        Ok(rpc::pki::files::write_private(&data_dir.join(Self::NAME), &bytes)?)
    }
}

/// The host of `host:port`, `[v6]:port` or a bare host.
pub fn host(address: &str) -> &str {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    }
}

/// The first address of the Service range, that of the Service `kubernetes`.
pub fn first_service_ip(settings: &control::Settings) -> Option<IpAddr> {
    settings.service_cidr.hosts().next().map(IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        for (address, want) in [
            ("10.0.0.1:6443", "10.0.0.1"),
            ("[::1]:6443", "::1"),
            ("m.example:1", "m.example"),
            ("m", "m"),
            ("::1", "::1"),
        ] {
            assert_eq!(host(address), want);
        }
    }
}
