//! `hactl cluster init`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::credentials::{Access, FILE};
use super::super::installation::Installation;
use super::super::progress::Progress;
use super::super::run;
use super::super::settings::Flags;
use super::{DataDir, prepare, recovery_key, unit};

/// How long the first leader may take.
const LEADS_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the printed tokens are valid.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Make a new cluster with this machine as its first master
#[derive(Debug, clap::Args)]
pub struct Init {
    #[command(flatten)]
    data_dir: DataDir,
    /// The address or name that users, nodes and other masters reach this machine at [default: that of its default route]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Run pods here too
    #[arg(long)]
    node: bool,
    /// The node's (and this master's) name [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Become the server instead of installing a systemd unit (the default where systemd does not run)
    #[arg(long)]
    foreground: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Init {
    pub async fn run(self) -> Result<()> {
        let settings = self.flags.resolve(&Default::default())?;
        let (advertise_api, advertise_peer) = addresses(self.advertise.as_deref(), &settings)?;
        let name = own_name(self.node_name.as_deref())?;
        let data_dir = std::path::absolute(&self.data_dir.data_dir)?;
        check(&data_dir, self.foreground)?;
        let progress = Progress::start("making the cluster");
        let installation = prepare::init(prepare::Init {
            data_dir: data_dir.clone(),
            name: name.clone(),
            advertise_api,
            advertise_peer,
            node: self.node.then_some(name),
            flags: self.flags.clone(),
        })
        .await?;
        progress.done("made");
        serve(&data_dir, &installation, self.foreground, &self.flags, announce_first(&data_dir)).await
    }
}

/// Whether the machine runs by a systemd unit rather than by this process.
fn installs(foreground: bool) -> bool {
    !foreground && unit::systemd_runs()
}

/// What `serve` would fail on, found out before anything is made.
pub fn check(data_dir: &Path, foreground: bool) -> Result<()> {
    if installs(foreground) { unit::check(data_dir) } else { Ok(()) }
}

/// Runs the installation as a unit or in this process, and `announce` once it is under way.
pub async fn serve(
    data_dir: &Path,
    installation: &Installation,
    foreground: bool,
    flags: &Flags,
    announce: impl Future<Output = Result<()>>,
) -> Result<()> {
    if installs(foreground) {
        unit::install(data_dir).with_context(|| {
            format!(
                "{} is prepared but not started: mend what stands below and run `hactl run --data-dir` on it, or undo it with `hactl cluster leave`",
                data_dir.display()
            )
        })?;
        return announce.await;
    }
    let roles = run::roles(data_dir, installation, flags);
    let announce = async {
        announce.await?;
        // From here on this process is the server; only its roles end it.
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        ended = roles => ended,
        failed = announce => failed,
    }
}

/// Waits until the first master leads, then prints the kubeconfig's path and the join commands.
async fn announce_first(data_dir: &Path) -> Result<()> {
    let kubeconfig = data_dir.join(FILE);
    let access = Access::of(&kubeconfig);
    let mut progress = Progress::start("waiting until this master leads");
    let since = Instant::now();
    let status = loop {
        match super::status_of(&access).await {
            Ok(status) if super::leader_name(&status).is_some() => break status,
            Ok(_) => progress.detail("no leader yet"),
            Err(_) => progress.detail("it does not answer yet"),
        }
        if since.elapsed() > LEADS_WITHIN {
            bail!("this master does not lead after {} s; look at `journalctl -u hactl`", LEADS_WITHIN.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    progress.done("done");
    let master = super::create_token(&access, true, true, TOKEN_TTL, "printed by init, for masters").await?;
    let node = super::create_token(&access, false, true, TOKEN_TTL, "printed by init, for nodes").await?;
    let info =
        status.members.first().and_then(|member| member.member.as_ref()).context("the status names no master")?;
    println!("kubeconfig: {}", kubeconfig.display());
    println!("\nThe tokens in these commands are secret and valid for 24 hours.");
    println!("On two further machines that shall be masters (add --node to run pods there too):");
    println!("  hactl cluster join {} --master --token {master}", info.api_address);
    println!("On every machine that shall run pods:");
    println!("  hactl cluster join {} --node --token {node}", info.api_address);
    let key = master::snapshot::RecoveryKey::generate();
    match recovery_key::set(&access, &key, true).await {
        Ok(true) => recovery_key::show(&key),
        Ok(false) => {}
        Err(error) => {
            if matches!(error, recovery_key::NotSet::Unknown(_)) {
                recovery_key::show(&key);
            }
            return Err(recovery_key::give_up(None, error));
        }
    }
    Ok(())
}

/// `host:port` of the API and of the peer port.
pub fn addresses(advertise: Option<&str>, settings: &super::super::settings::Settings) -> Result<(String, String)> {
    let host = match advertise {
        Some(host) if host.is_empty() || host.contains('/') => bail!("--advertise takes a host name or an address"),
        Some(host) => host.to_owned(),
        None => own_address()?,
    };
    let port = |name: &str| {
        settings.text(name).and_then(|text| text.rsplit_once(':')).map_or("0", |(_, port)| port).to_owned()
    };
    // `--advertise host:port` names the API's port, for a machine behind a port mapping.
    match host.rsplit_once(':') {
        Some((bare, api)) if !bare.contains(':') && api.parse::<u16>().is_ok() => {
            Ok((host.clone(), format!("{bare}:{}", port("listen-peer"))))
        }
        _ => Ok((format!("{host}:{}", port("listen-api")), format!("{host}:{}", port("listen-peer")))),
    }
}

/// The address this machine would use towards the rest of the world.
fn own_address() -> Result<String> {
    let found = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // A UDP connect sends nothing; it only makes the kernel choose a route.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let address = found.context("cannot find this machine's address; give it with --advertise")?;
    Ok(address.ip().to_string())
}

pub fn own_name(given: Option<&str>) -> Result<String> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => {
            run::host_name().context("this machine has no usable host name; give one with --node-name")?.to_lowercase()
        }
    };
    let part = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
    let letters = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
    if name.len() > 253 || !letters || !name.split('.').all(part) {
        bail!("`{name}` cannot be a node's name (letters a-z, digits, `-`, `.`); give another with --node-name");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        assert!(own_name(Some("node-1.example")).is_ok());
        for wrong in ["", "Node", "a_b", "-a", "a..b"] {
            assert!(own_name(Some(wrong)).is_err(), "{wrong}");
        }
        let settings = Flags::default().resolve(&Default::default()).expect("defaults");
        for (given, api, peer) in
            [("10.0.0.1", "10.0.0.1:6443", "10.0.0.1:6444"), ("m.example:8443", "m.example:8443", "m.example:6444")]
        {
            assert_eq!(addresses(Some(given), &settings).expect(given), (api.to_owned(), peer.to_owned()));
        }
    }
}
