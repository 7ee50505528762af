//! The hosts file of the target `ssh`: a machine per line, `NAME [USER@]HOST master|node`; `#` begins a comment.

use anyhow::{Result, bail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As `hactl cluster status` shows it.
    pub name: String,
    /// What ssh is given.
    pub login: String,
    /// Where the other machines reach it.
    pub address: String,
    pub master: bool,
}

/// # Errors
/// Names the line that cannot be understood.
pub fn parse(text: &str) -> Result<Vec<Host>> {
    let mut hosts: Vec<Host> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, login, role) = match words.as_slice() {
            [] => continue,
            [name, login, role] => (*name, *login, *role),
            _ => bail!("line {}: write NAME [USER@]HOST master|node", number + 1),
        };
        if role != "master" && role != "node" {
            bail!("line {}: `{role}` is neither master nor node", number + 1);
        }
        // ssh would take it for an option.
        if login.starts_with('-') {
            bail!("line {}: `{login}` is no host", number + 1);
        }
        if hosts.iter().any(|host| host.name == name) {
            bail!("line {}: {name} is there twice", number + 1);
        }
        let address = login.rsplit('@').next().unwrap_or_default().to_owned();
        hosts.push(Host { name: name.to_owned(), login: login.to_owned(), address, master: role == "master" });
    }
    if !hosts.iter().any(|host| host.master) {
        bail!("no line names a master");
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_files() {
        let hosts = parse("# ours\nm1 root@10.0.0.1 master\n\nn1 10.0.0.2 node # soon\n").expect("hosts");
        assert_eq!(
            (hosts[0].login.as_str(), hosts[0].address.as_str(), hosts[0].master),
            ("root@10.0.0.1", "10.0.0.1", true)
        );
        assert_eq!((hosts[1].name.as_str(), hosts[1].master), ("n1", false));
        for (bad, why) in [
            ("m1 10.0.0.1", "line 1"),
            ("m1 10.0.0.1 boss", "neither"),
            ("m1 -oProxyCommand=x master", "no host"),
            ("m1 a master\nm1 b master", "twice"),
            ("n1 a node", "no line names a master"),
        ] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
