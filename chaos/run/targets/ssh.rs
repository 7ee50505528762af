//! A user's own hosts over ssh: installed by `hactl cluster init` and `join`, so that systemd runs them. The same scripts run
//! there that run in the lab. Nothing is made or removed; faults are undone by the run, and those of the network also by the
//! host itself should the run be cut off (see `nemeses::partition`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::process::Command;

use super::hosts::{self, Host};
use super::{Ability, Machine, Signal, Target, quoted, run, verb};

const API_PORT: u16 = 6443;
const PEER_PORT: u16 = 6444;
const DATA_DIR: &str = "/var/lib/hactl";
const PROGRAM: &str = "/usr/local/bin/hactl";
const CONNECT_LIMIT: &str = "ConnectTimeout=10";

pub struct Ssh {
    program: PathBuf,
    hosts: Vec<Host>,
    kubeconfig: PathBuf,
}

impl Ssh {
    pub fn new(program: PathBuf, hosts: &Path, kubeconfig: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(hosts).with_context(|| format!("cannot read {}", hosts.display()))?;
        let hosts = hosts::parse(&text).with_context(|| format!("{} is no hosts file", hosts.display()))?;
        Ok(Self { program, hosts, kubeconfig })
    }

    fn host(&self, machine: &str) -> Result<&Host> {
        self.hosts.iter().find(|host| host.name == machine).with_context(|| format!("there is no host {machine}"))
    }

    fn machine(host: &Host) -> Machine {
        let port = |port: u16| if host.master { format!("{}:{port}", host.address) } else { String::new() };
        let api = if host.master { format!("https://{}", port(API_PORT)) } else { String::new() };
        Machine { name: host.name.clone(), api, peer: port(PEER_PORT), address: host.address.clone() }
    }
}

/// The words of the command that runs a script on a host as root.
fn command(host: &Host, script: &str) -> Vec<String> {
    let options = ["-o", "BatchMode=yes", "-o", CONNECT_LIMIT];
    let mut words: Vec<String> = std::iter::once("ssh").chain(options).map(str::to_owned).collect();
    // The far shell splits what it gets into words, so the script is one quoted word.
    let sudo = if host.login.starts_with("root@") { "" } else { "sudo -n " };
    words.extend([host.login.clone(), "--".to_owned(), format!("{sudo}sh -c {}", quoted(script))]);
    words
}

/// The script that carries out a signal. A unit is started again when its process dies, so a kill also stops the unit.
fn signal_script(signal: Signal) -> &'static str {
    match signal {
        Signal::Kill => "systemctl kill --kill-whom=main --signal=KILL hactl; systemctl stop hactl",
        Signal::Terminate => "systemctl stop hactl",
        Signal::Stop => "systemctl kill --kill-whom=main --signal=STOP hactl",
        Signal::Continue => "systemctl kill --kill-whom=main --signal=CONT hactl",
    }
}

#[async_trait]
impl Target for Ssh {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn abilities(&self) -> Vec<Ability> {
        let mut abilities = vec![Ability::Partitions, Ability::Files];
        if self.hosts.iter().any(|host| !host.master) {
            abilities.push(Ability::Nodes);
        }
        abilities
    }

    async fn up(&self) -> Result<()> {
        for host in &self.hosts {
            self.shell(&host.name, "systemctl is-active --quiet hactl && command -v nft >/dev/null")
                .await
                .with_context(|| format!("{} must run the unit hactl and have nftables", host.name))?;
        }
        Ok(())
    }

    async fn down(&self, _keep: bool) -> Result<()> {
        Ok(())
    }

    fn masters(&self) -> Vec<Machine> {
        self.hosts.iter().filter(|host| host.master).map(Self::machine).collect()
    }

    fn nodes(&self) -> Vec<Machine> {
        self.hosts.iter().filter(|host| !host.master).map(Self::machine).collect()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    fn program(&self, _machine: &str) -> String {
        PROGRAM.to_owned()
    }

    fn data_dir(&self, _machine: &str) -> String {
        DATA_DIR.to_owned()
    }

    async fn signal(&self, machine: &str, signal: Signal) -> Result<()> {
        self.shell(machine, signal_script(signal)).await.map(drop)
    }

    async fn start(&self, machine: &str) -> Result<()> {
        self.shell(machine, "systemctl start hactl").await.map(drop)
    }

    async fn shell(&self, machine: &str, script: &str) -> Result<String> {
        let words = command(self.host(machine)?, script);
        run(Command::new(&words[0]).args(&words[1..])).await
    }

    async fn hactl(&self, arguments: &[&str]) -> Result<String> {
        verb(&self.program, &self.kubeconfig, arguments).await
    }

    async fn engines(&self, arguments: &[&str]) -> Result<Option<String>> {
        let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        let mut all = String::new();
        for host in self.hosts.iter().filter(|host| !host.master) {
            all.push_str(&self.shell(&host.name, &format!("docker {}", words.join(" "))).await?);
        }
        Ok(self.nodes().first().map(|_| all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(login: &str) -> Host {
        Host { name: "m1".into(), login: login.into(), address: "10.0.0.1".into(), master: true }
    }

    #[test]
    fn scripts_reach_the_far_shell_as_one_word() {
        let words = command(&host("root@10.0.0.1"), "nft 'x' | cat; echo $HOME");
        let expected = [
            "ssh",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            "root@10.0.0.1",
            "--",
            r#"sh -c 'nft '\''x'\'' | cat; echo $HOME'"#,
        ];
        assert_eq!(words, expected);
        let words = command(&host("me@10.0.0.1"), "true");
        assert_eq!(words.last().map(String::as_str), Some("sudo -n sh -c 'true'"));
    }

    #[test]
    fn a_kill_does_not_end_in_a_restart() {
        assert!(
            signal_script(Signal::Kill).contains("--signal=KILL")
                && signal_script(Signal::Kill).ends_with("systemctl stop hactl")
        );
        assert!(signal_script(Signal::Stop).contains("STOP") && signal_script(Signal::Continue).contains("CONT"));
    }
}
