//! Which kubeconfig a command uses, and the clients made of it. Credentials are read here and never printed.
//!
//! Order: `--kubeconfig`, that of `--data-dir`, `$KUBECONFIG`, this machine's own (`<data dir>/admin.kubeconfig`), a local cluster's
//! in `~/.hactl/local`. **Invariant:** what is typed wins over what the environment says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::local::Layout;

/// Where `init` puts the admin's kubeconfig, inside the data dir.
pub const FILE: &str = "admin.kubeconfig";
/// The data dir of an installed machine.
pub const DATA_DIR: &str = "/var/lib/hactl";

/// How a command finds its cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Access {
    /// The kubeconfig to use [default: $KUBECONFIG, then this machine's own]
    #[arg(long, value_name = "FILE", help_heading = "Cluster access")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in it [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Cluster access")]
    pub context: Option<String>,
    /// The data dir whose admin.kubeconfig is used, rather than $KUBECONFIG [default: /var/lib/hactl, after $KUBECONFIG]
    #[arg(long = "data-dir", value_name = "DIR", help_heading = "Cluster access")]
    pub given_data_dir: Option<PathBuf>,
    /// Masters, as `host:port`, that are tried beside those which the kubeconfig names
    #[arg(skip)]
    pub also: Vec<String>,
}

impl Access {
    pub fn of(kubeconfig: impl Into<PathBuf>) -> Self {
        Self { kubeconfig: Some(kubeconfig.into()), ..Self::default() }
    }

    /// The data dir of this machine, or the one that was given.
    pub fn data_dir(&self) -> PathBuf {
        let variable = || std::env::var_os("HACTL_DATA_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
        self.given_data_dir.clone().or_else(variable).unwrap_or_else(|| PathBuf::from(DATA_DIR))
    }

    /// The file to use.
    ///
    /// # Errors
    /// Lists the places looked at.
    pub fn path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.kubeconfig {
            return Ok(path.clone());
        }
        if let Some(dir) = &self.given_data_dir {
            return Ok(dir.join(FILE));
        }
        let variable = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
        if let Some(list) = variable {
            let first = std::env::split_paths(&list).find(|path| path.exists());
            return first.with_context(|| {
                format!(
                    "$KUBECONFIG names {}, which does not exist; unset it or give --kubeconfig",
                    list.to_string_lossy()
                )
            });
        }
        let own = self.data_dir().join(FILE);
        let local = Layout::default_dir().join(FILE);
        for path in [&own, &local] {
            match std::fs::metadata(path) {
                Ok(_) => return Ok(path.clone()),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    bail!("{} is only readable by root; use sudo, or copy it and give --kubeconfig", path.display())
                }
                Err(_) => {}
            }
        }
        bail!(
            "no credentials found: give --kubeconfig, set $KUBECONFIG, or run this on a master (looked for {} and {}); \
             `hactl local up` makes a cluster on this machine",
            own.display(),
            local.display()
        )
    }

    fn read(&self) -> Result<(Kubeconfig, PathBuf)> {
        let path = self.path()?;
        std::fs::File::open(&path).with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
        let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("cannot use {}", path.display()))?;
        // What else may be wrong with it is said where it is used.
        if let Ok(found) = Masters::from_kubeconfig(&kubeconfig, self.context.as_deref()) {
            check_end(&found.certificate_pem, &path)?;
        }
        Ok((kubeconfig, path))
    }

    fn options(&self) -> KubeConfigOptions {
        KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() }
    }

    pub async fn config(&self) -> Result<kube::Config> {
        let (kubeconfig, path) = self.read()?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &self.options())
            .await
            .with_context(|| format!("cannot use {}", path.display()))?;
        config.connect_timeout = Some(Duration::from_secs(5));
        Ok(config)
    }

    /// A client of the Kubernetes API.
    pub async fn kube(&self) -> Result<kube::Client> {
        client(self.config().await?)
    }

    /// A client of hactl's own calls, for the addresses of every cluster entry of the kubeconfig.
    pub async fn masters(&self) -> Result<Masters> {
        let (kubeconfig, path) = self.read()?;
        let mut masters = Masters::from_kubeconfig(&kubeconfig, self.context.as_deref())
            .with_context(|| format!("cannot use {}", path.display()))?;
        for address in &self.also {
            if !masters.addresses.contains(address) {
                masters.addresses.push(address.clone());
            }
        }
        Ok(masters)
    }
}

/// A master would only end the connection.
fn check_end(certificate_pem: &str, path: &Path) -> Result<()> {
    let Ok(end) = rpc::pki::expiry(certificate_pem, "the certificate") else { return Ok(()) };
    if end.is_over(rpc::pki::unix_now()) {
        let when = jiff::Timestamp::from_second(end.not_after).map(|time| time.to_string()).unwrap_or_default();
        let local = path.parent().filter(|dir| Layout::exists(dir));
        let cure = match local {
            Some(dir) => format!("`hactl local up --dir {}` writes another", dir.display()),
            None => "make another with `hactl cluster kubeconfig -o FILE` on a master, which need not run".to_owned(),
        };
        bail!("the certificate in {} ended on {when}; {cure}", path.display());
    }
    Ok(())
}

pub fn client(config: kube::Config) -> Result<kube::Client> {
    kube::Client::try_from(config).context("cannot set up TLS with the kubeconfig's certificates")
}

/// The same credentials for one given master.
pub async fn client_of(kubeconfig: &Path, url: &str, timeout: Duration) -> Result<kube::Client> {
    let mut config = Access::of(kubeconfig).config().await?;
    config.cluster_url = url.parse().with_context(|| format!("{url} is no URL"))?;
    config.connect_timeout = Some(timeout);
    config.default_retry = false;
    client(config)
}

/// What a failed connection means, where its reason is, or may be, that master and credentials do not know each other.
pub fn foreign(reason: &str) -> Option<&'static str> {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["UnknownIssuer", "UnknownCA", "UnknownCa"]) {
        return Some(
            "these credentials are of another cluster than the master that answers, or older than its issuers: unset KUBECONFIG, or take \
             the kubeconfig that `hactl cluster kubeconfig` names without it on a master of this cluster",
        );
    }
    // A master that does not know the client ends the connection right after the handshake, as one does that stops.
    has(&["operation was canceled", "transport error"]).then_some(
        "the master ended the connection: unless it stopped just now, these credentials are of another cluster (unset KUBECONFIG, or \
         take the kubeconfig that `hactl cluster kubeconfig` names without it on a master of this one)",
    )
}

/// What the gRPC client needs: addresses and certificates out of a kubeconfig.
pub struct Masters {
    pub addresses: Vec<String>,
    pub issuer_pem: String,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Masters {
    /// The addresses, and how to speak to them.
    pub fn tls(self) -> Result<(Vec<String>, Arc<rustls::ClientConfig>)> {
        let credential = rpc::pki::Credential { certificate_pem: self.certificate_pem, key_pem: self.key_pem };
        let certificate = rpc::tls::Certificate::new(&credential, "admin's")?;
        Ok((self.addresses, rpc::tls::api_client(&self.issuer_pem, Some(&certificate))?))
    }

    fn from_kubeconfig(kubeconfig: &Kubeconfig, context: Option<&str>) -> Result<Self> {
        let name = context.or(kubeconfig.current_context.as_deref()).context("it has no current context")?;
        let context = kubeconfig
            .contexts
            .iter()
            .find(|known| known.name == name)
            .and_then(|known| known.context.as_ref())
            .with_context(|| format!("it has no context `{name}`"))?;
        let cluster = |name: &str| kubeconfig.clusters.iter().find(|known| known.name == name)?.cluster.as_ref();
        let chosen = cluster(&context.cluster).with_context(|| format!("it has no cluster `{}`", context.cluster))?;
        let user = context.user.as_deref().unwrap_or_default();
        let user = kubeconfig
            .auth_infos
            .iter()
            .find(|known| known.name == user)
            .and_then(|known| known.auth_info.as_ref())
            .with_context(|| format!("it has no user `{user}`"))?;
        // Other entries of the same issuer are the same cluster's masters: more ways in.
        let same = kubeconfig.clusters.iter().filter_map(|known| known.cluster.as_ref()).filter(|other| {
            other.certificate_authority_data == chosen.certificate_authority_data
                && other.certificate_authority == chosen.certificate_authority
        });
        let mut addresses = Vec::new();
        for server in std::iter::once(chosen).chain(same).filter_map(|cluster| cluster.server.as_deref()) {
            let address = address(server)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        // Through its written form, because the typed one hides the key.
        let key = serde_json::to_value(user)?["client-key-data"].as_str().map(str::to_owned);
        Ok(Self {
            addresses,
            issuer_pem: pem(
                &chosen.certificate_authority_data,
                &chosen.certificate_authority,
                "certificate-authority",
            )?,
            certificate_pem: pem(&user.client_certificate_data, &user.client_certificate, "client-certificate")?,
            key_pem: pem(&key, &user.client_key, "client-key")?,
        })
    }
}

/// What says who asks where no client certificate does: a token, in place or in a file.
///
/// # Errors
/// A token that cannot be read, or is none.
pub fn bearer(config: &kube::Config) -> Result<Option<http::HeaderValue>> {
    // Through its written form, because the typed one hides the token.
    let user = serde_json::to_value(&config.auth_info)?;
    let token = match (user["token"].as_str(), user["tokenFile"].as_str()) {
        (Some(token), _) => token.to_owned(),
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?,
        (None, None) => return Ok(None),
    };
    let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.trim())).context("that is no token")?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// `host:port` of an https URL.
pub fn address(url: &str) -> Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
    let host = uri.host().with_context(|| format!("`{url}` names no host"))?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(443)))
}

/// A PEM text given in place (base64) or as a file.
fn pem(data: &Option<String>, file: &Option<String>, what: &str) -> Result<String> {
    use base64::Engine;
    if let Some(data) = data {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(data.trim())
            .with_context(|| format!("{what}-data is not base64"))?;
        return String::from_utf8(bytes).with_context(|| format!("{what}-data is not PEM"));
    }
    let Some(file) = file else { bail!("it has no {what}; `hactl` commands need a client certificate") };
    std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
}
