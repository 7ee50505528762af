//! What clients and leaders do while faults happen. To add one: a file and a row.

pub mod configs;
mod deployments;
mod hoard;
mod quotas;
pub mod registers;
mod services;
pub mod terms;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use state::{Command, Header, Key, Op, Put, Record};

use super::observe::{GROUP, RESOURCE};
use super::world::World;
use crate::Random;

/// Runs until the world is quiet.
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(Arc<World>, Random) -> BoxFuture<'static, ()>,
}

pub const ALL: &[Workload] = &[
    Workload {
        name: "registers",
        about: "clients read, write, create, swap and delete a few keys through any master",
        run: |world, random| Box::pin(registers::run(world, random)),
    },
    Workload {
        name: "configs",
        about: "ConfigMaps are made, read, listed, replaced, removed and followed through any master's API server",
        run: |world, random| Box::pin(configs::run(world, random)),
    },
    Workload {
        name: "deployments",
        about: "deployments are made, scaled, rolled and removed through any master's API server",
        run: |world, random| Box::pin(deployments::run(world, random)),
    },
    Workload {
        name: "services",
        about: "services that ask for the same addresses and ports are made and removed through any master's API server",
        run: |world, random| Box::pin(services::run(world, random)),
    },
    Workload {
        name: "hoard",
        about: "where the quota is small, the store is filled until it is refused, and emptied",
        run: |world, random| Box::pin(hoard::run(world, random)),
    },
    Workload {
        name: "terms",
        about: "whoever leads writes its term, in its term",
        run: |world, random| Box::pin(terms::run(world, random)),
    },
    Workload {
        name: "quotas",
        about: "more is asked for than a ResourceQuota leaves, through any master's API server, while it is changed",
        run: |world, random| Box::pin(quotas::run(world, random)),
    },
];

pub fn key(name: &str) -> Key {
    Key::new(GROUP, RESOURCE, "", name)
}

/// A command that creates or replaces a thing.
pub fn put(name: &str, value: &str) -> Command {
    const BEFORE: &str = "{\"metadata\":{\"resourceVersion\":";
    let body: Bytes = format!("{BEFORE}}},\"value\":\"{value}\"}}").into();
    let header = Header { uid: format!("uid-{name}"), ..Header::default() };
    let put = Put { key: key(name), header, body, split: BEFORE.len() as u32, managed_fields: Bytes::new() };
    Command { ops: vec![Op::put(put)], ..Command::default() }
}

/// The value of a thing.
pub fn value(record: &Record) -> String {
    let body = String::from_utf8_lossy(&record.body);
    body.rsplit('"').nth(1).unwrap_or_default().to_owned()
}
