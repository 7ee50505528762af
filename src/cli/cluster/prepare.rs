//! Preparing a data dir, for `init`, `join` and `hactl local up` alike: the masters' part makes ids and certificates, this
//! adds the record `hactl.json`. Whatever fails, nothing half made is left.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::super::credentials::FILE;
use super::super::installation::{Draft, Installation, MasterRole, NodeRole};
use super::super::run;
use super::super::settings::{FIXED, Flags, Settings};

/// Settings that a joiner takes over unless it was given its own.
const SHARED: [&str; 2] = ["node-silence", "eviction-after"];

/// What the first master is made of.
pub struct Init {
    pub data_dir: PathBuf,
    pub name: String,
    pub advertise_api: String,
    pub advertise_peer: String,
    /// The node's name, where this machine runs pods too.
    pub node: Option<String>,
    pub flags: Flags,
}

/// How a machine joins.
pub struct Join {
    pub data_dir: PathBuf,
    pub name: String,
    /// `host:port` of any master's API.
    pub address: String,
    pub token: String,
    /// Of a master: the `host:port` of its API and peer port.
    pub master: Option<(String, String)>,
    /// Of a node: its name.
    pub node: Option<String>,
    /// Of a master: name or id of the dead one whose place it takes.
    pub replaces: Option<String>,
    pub flags: Flags,
}

pub async fn init(options: Init) -> Result<Installation> {
    let settings = options.flags.resolve(&Default::default())?;
    for name in ["listen-api", "listen-peer"] {
        check_port(settings.text(name).unwrap_or_default(), name)?;
    }
    check_ranges(&settings)?;
    let draft = Draft::begin(&options.data_dir)?;
    let created = master::create(&master::Create {
        data_dir: options.data_dir.clone(),
        kubeconfig: options.data_dir.join(FILE),
        advertise_api: options.advertise_api.clone(),
        api_names: run::api_names(),
        node: options.node.clone(),
        settings: run::control_settings(&settings)?,
        lifetimes: run::lifetimes(&settings)?,
    })?;
    let node = options.node.zip(created.node_uid).map(|(name, uid)| NodeRole {
        name,
        uid,
        masters: vec![options.advertise_api.clone()],
    });
    let installation = Installation {
        cluster_id: created.cluster_id,
        epoch: created.epoch,
        name: options.name,
        master: Some(MasterRole {
            member_id: created.member_id,
            advertise_api: options.advertise_api,
            advertise_peer: options.advertise_peer,
        }),
        node,
        settings: recorded(options.flags.given(), settings.fixed()),
    };
    installation.save(&options.data_dir)?;
    draft.keep();
    Ok(installation)
}

pub async fn join(options: Join) -> Result<Installation> {
    let settings = options.flags.resolve(&Default::default())?;
    if options.master.is_some() {
        for name in ["listen-api", "listen-peer"] {
            check_port(settings.text(name).unwrap_or_default(), name)?;
        }
    }
    let draft = Draft::begin(&options.data_dir)?;
    let master = options.master.clone().map(|(advertise_api, advertise_peer)| master::JoinMaster {
        name: options.name.clone(),
        advertise_api,
        advertise_peer,
        kubeconfig: options.data_dir.join(FILE),
    });
    let asked = master::Join {
        data_dir: options.data_dir.clone(),
        address: options.address.clone(),
        token: options.token,
        master,
        node: options.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nonce: draft.nonce()?,
        replaces: options.replaces,
        epoch: 0,
    };
    let joined = match master::join(&asked).await {
        Ok(joined) => joined,
        Err(error @ master::Error::Lost(_)) => {
            draft.keep_nonce();
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    if let Err(error) = settings.keeps(&joined.settings) {
        // It has joined, and asks again once that is mended.
        draft.keep_nonce();
        return Err(error.context("this machine cannot run in that cluster; mend this and join again"));
    }
    let node =
        options.node.zip(joined.node_uid).map(|(name, uid)| NodeRole { name, uid, masters: joined.masters.clone() });
    let master = options.master.zip(joined.member_id).map(|((advertise_api, advertise_peer), member_id)| MasterRole {
        member_id,
        advertise_api,
        advertise_peer,
    });
    let mut shared = settings.fixed();
    shared.extend(joined.settings);
    let recorded = recorded(options.flags.given(), shared);
    let installation = Installation {
        cluster_id: joined.cluster_id,
        epoch: joined.epoch,
        name: options.name,
        master,
        node,
        settings: recorded,
    };
    installation.save(&options.data_dir)?;
    draft.keep();
    Ok(installation)
}

/// The settings to write down: those given here and those that all machines share. What `init` fixed wins over what a
/// joiner says.
pub fn recorded(given: BTreeMap<String, String>, shared: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut recorded = given;
    for (name, value) in shared {
        // A newer master may share settings that this version does not know.
        if FIXED.contains(&name.as_str()) {
            recorded.insert(name, value);
        } else if SHARED.contains(&name.as_str()) {
            recorded.entry(name).or_insert(value);
        }
    }
    recorded
}

/// # Errors
/// When another process listens there: found out before anything is made.
fn check_port(address: &str, setting: &str) -> Result<()> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "cannot listen on {address}: {error}; stop what uses it (`ss -ltnp` shows it), or choose another with --{setting}"
        ),
    }
}

/// # Errors
/// When the ranges of pods and Services overlap each other or a network of this host.
fn check_ranges(settings: &Settings) -> Result<()> {
    let [pods, services] = FIXED.map(|name| settings.text(name).unwrap_or_default());
    if let (Some(of_pods), Some(of_services)) = (parse(pods), parse(services))
        && overlap(of_pods, of_services)
    {
        bail!(
            "cluster-cidr {pods} and service-cidr {services} overlap: pods and Services need ranges of their own; choose another with \
             --service-cidr, such as 10.96.0.0/16, or with --cluster-cidr"
        );
    }
    for (cidr, setting) in [(pods, "cluster-cidr"), (services, "service-cidr")] {
        check_range(cidr, setting)?;
    }
    Ok(())
}

/// # Errors
/// When a network of this host lies in the range.
fn check_range(cidr: &str, setting: &str) -> Result<()> {
    let Some(range) = parse(cidr) else { return Ok(()) };
    if let Some((name, network)) = routes().into_iter().find(|(_, network)| overlap(range, *network)) {
        bail!(
            "{cidr} overlaps {}/{} of the interface {name} of this host; choose another range with --{setting}, such as 10.200.0.0/16",
            network.0,
            network.1
        );
    }
    Ok(())
}

/// A range for the pods of a local cluster that neither `taken` nor a network of this host overlaps. Several clusters live side
/// by side, and a range shows as taken only once its first node has its bridge: so where the search begins is left to chance.
pub fn free_range(taken: &str) -> Result<String> {
    let mut networks: Vec<Network> = routes().into_iter().map(|(_, network)| network).collect();
    networks.extend(parse(taken));
    let first = rand::random::<u8>() % 127;
    let ranges = (0..127).map(|step| (Ipv4Addr::new(10, 128 + (first + step) % 127, 0, 0), 16));
    let free = ranges.into_iter().find(|range| !networks.iter().any(|network| overlap(*range, *network)));
    let (address, length) = free.context("every range of 10.128.0.0/9 is in use here; give --cluster-cidr")?;
    Ok(format!("{address}/{length}"))
}

type Network = (Ipv4Addr, u32);

fn parse(cidr: &str) -> Option<Network> {
    let (address, length) = cidr.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok()?))
}

fn overlap(one: Network, other: Network) -> bool {
    let shift = 32 - one.1.min(other.1);
    shift == 32 || u32::from(one.0) >> shift == u32::from(other.0) >> shift
}

/// The networks this host has a route to, by interface; default routes do not count.
fn routes() -> Vec<(String, Network)> {
    let text = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(name), Some(address), Some(mask)) = (fields.first(), fields.get(1), fields.get(7)) else { continue };
        let number = |text: &str| u32::from_str_radix(text, 16).map(u32::swap_bytes);
        let (Ok(address), Ok(mask)) = (number(address), number(mask)) else { continue };
        if mask != 0 {
            found.push(((*name).to_owned(), (Ipv4Addr::from(address), mask.leading_ones())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_fixed_wins_over_what_a_joiner_says() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let given = map(&[("service-cidr", "10.1.0.0/16"), ("node-silence", "9s"), ("log", "debug")]);
        let shared = map(&[
            ("service-cidr", "10.96.0.0/16"),
            ("node-silence", "5000ms"),
            ("eviction-after", "5000ms"),
            ("of-a-newer-version", "1"),
        ]);
        let want = map(&[
            ("service-cidr", "10.96.0.0/16"),
            ("node-silence", "9s"),
            ("log", "debug"),
            ("eviction-after", "5000ms"),
        ]);
        assert_eq!(recorded(given, shared), want);
    }

    #[test]
    fn pods_and_services_have_ranges_of_their_own() {
        let ranges = |pods: &str, services: &str| {
            let mut flags = Flags::default();
            flags.set("cluster-cidr", pods);
            flags.set("service-cidr", services);
            check_ranges(&flags.resolve(&Default::default()).expect("valid")).map_err(|error| error.to_string())
        };
        let error = ranges("198.18.0.0/16", "198.18.128.0/24").expect_err("they overlap");
        assert!(error.contains("198.18.128.0/24 overlap") && error.contains("--service-cidr"), "{error}");
        assert_eq!(ranges("198.18.0.0/16", "198.19.0.0/16"), Ok(()));
        assert!(free_range("10.128.0.0/9").is_err(), "nothing is left beside the Services");
    }

    #[test]
    fn overlapping_ranges() {
        for (one, other, expected) in [
            ("10.244.0.0/16", "10.244.3.0/24", true),
            ("10.244.3.0/24", "10.244.0.0/16", true),
            ("10.244.0.0/16", "10.245.0.0/16", false),
            ("10.244.0.0/16", "10.0.0.0/8", true),
            ("192.168.0.0/24", "10.0.0.0/8", false),
        ] {
            let (one, other) = (parse(one).expect(one), parse(other).expect(other));
            assert_eq!(overlap(one, other), expected, "{one:?} {other:?}");
        }
    }
}
