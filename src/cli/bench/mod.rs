//! `hactl bench …`: measuring a real cluster, and etcd beside it.
//!
//! ```text
//!   options   what each is told ──▶ load   clients, warm-up, histogram ──▶ report   lines or JSON
//!   kv (session), etcd, list, watch (http)   one kind of load each
//!   api                             all that clients of a Kubernetes API feel, beside what is aimed at
//!   failover, writer                kills the leader under a counting load
//! ```

mod api;
mod etcd;
mod failover;
mod http;
mod kv;
mod list;
mod load;
mod options;
mod report;
mod session;
mod watch;
mod writer;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    Put(kv::Put),
    Get(kv::Get),
    List(list::List),
    Watch(watch::Watch),
    Api(api::Api),
    Failover(failover::Failover),
    EtcdPut(etcd::Put),
    EtcdGet(etcd::Get),
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        match self {
            Verb::Put(verb) => verb.run().await,
            Verb::Get(verb) => verb.run().await,
            Verb::List(verb) => verb.run().await,
            Verb::Watch(verb) => verb.run().await,
            Verb::Api(verb) => verb.run().await,
            Verb::Failover(verb) => verb.run().await,
            Verb::EtcdPut(verb) => verb.run().await,
            Verb::EtcdGet(verb) => verb.run().await,
        }
    }
}
