//! A few registers, and clients that change them through whichever master they happen to ask. Every value is written once,
//! so that what a reader sees names the call that wrote it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use state::{Command, Expect, Op, Outcome, Refusal, Revision};

use super::{key, put, value};
use crate::Random;
use crate::sim::laws::{Answer, Call};
use crate::sim::observe::{GROUP, RESOURCE};
use crate::sim::world::{Process, World};

const CLIENTS: usize = 4;
const REGISTERS: u64 = 5;
/// The longest pause between two calls.
const THINK_MS: u64 = 120;

/// Whether a thing of this name is a register.
pub fn is_one(name: &str) -> bool {
    name.strip_prefix('r').is_some_and(|number| number.parse::<u64>().is_ok())
}

pub async fn run(world: Arc<World>, mut random: Random) {
    let clients = (1..=CLIENTS).map(|number| {
        let client = Client {
            world: world.clone(),
            name: format!("c{number}"),
            random: random.fork(),
            known: BTreeMap::new(),
            made: 0,
        };
        client.run()
    });
    join_all(clients).await;
}

struct Client {
    world: Arc<World>,
    name: String,
    random: Random,
    /// The last version it saw of each register.
    known: BTreeMap<String, (String, Revision)>,
    made: u64,
}

impl Client {
    async fn run(mut self) {
        while !self.world.quiet.is_cancelled() {
            let register = format!("r{}", self.random.between(1, REGISTERS + 1));
            let processes = self.world.processes();
            if let Some((_, process)) = self.random.pick(&processes) {
                self.call(process, &register).await;
            }
            self.world.think(self.random.between(0, THINK_MS)).await;
        }
    }

    fn fresh(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.name, self.made)
    }

    async fn call(&mut self, process: &Process, register: &str) {
        let (call, command) = match self.random.between(0, 100) {
            0..8 => return self.list(process).await,
            8..35 => return self.read(process, register).await,
            35..60 => {
                let value = self.fresh();
                (Call::Write(value.clone()), put(register, &value))
            }
            60..85 => {
                let Some((known, revision)) = self.known.get(register).cloned() else {
                    return self.read(process, register).await;
                };
                let value = self.fresh();
                let expects = vec![Expect::revision(key(register), revision)];
                (Call::Swap(known, value.clone()), Command { expects, ..put(register, &value) })
            }
            85..93 => {
                let value = self.fresh();
                let expects = vec![Expect::absent(key(register))];
                (Call::Create(value.clone()), Command { expects, ..put(register, &value) })
            }
            _ => (Call::Delete, Command { ops: vec![Op::delete(key(register))], ..Command::default() }),
        };
        let number = self.world.laws.begin(&self.name, register, call.clone());
        let outcome = tokio::select! {
            biased;
            () = process.gone.cancelled() => Err(replica::Error::Unknown("the connection was reset".into())),
            outcome = process.replica.propose(command) => outcome,
        };
        let answer = answer(&call, outcome);
        if let (Some(value), Answer::Done(revision)) = (call.writes(), &answer) {
            self.known.insert(register.to_owned(), (value.to_owned(), *revision));
        }
        self.world.laws.end(number, answer);
    }

    async fn list(&mut self, process: &Process) {
        let number = self.world.laws.begin(&self.name, "", Call::List);
        let root = tokio::select! {
            biased;
            () = process.gone.cancelled() => None,
            root = process.replica.read() => root.ok(),
        };
        let Some(root) = root else { return self.world.laws.end(number, Answer::Failed) };
        let things = root.list(GROUP, RESOURCE, None).filter(|(key, _)| is_one(&key.name));
        let all = things.map(|(key, record)| (key.name.clone(), value(record))).collect();
        self.world.laws.end(number, Answer::All(all, root.revision()));
    }

    async fn read(&mut self, process: &Process, register: &str) {
        let number = self.world.laws.begin(&self.name, register, Call::Read);
        let root = tokio::select! {
            biased;
            () = process.gone.cancelled() => None,
            root = process.replica.read() => root.ok(),
        };
        let Some(root) = root else { return self.world.laws.end(number, Answer::Failed) };
        let held = root.get(&key(register)).map(|record| (value(record), record.revision));
        self.world.laws.end(number, Answer::Value(held.clone().map(|(value, _)| value), root.revision()));
        match held {
            Some(held) => self.known.insert(register.to_owned(), held),
            None => self.known.remove(register),
        };
    }
}

fn answer(call: &Call, outcome: Result<Outcome, replica::Error>) -> Answer {
    match outcome {
        Ok(Outcome { refusal: Some(Refusal::OverQuota(_)), .. }) => Answer::Failed,
        Ok(outcome) if outcome.refusal.is_some() => Answer::Refused(outcome.revision),
        // Nothing was there to delete.
        Ok(outcome) if *call == Call::Delete && outcome.revisions.first() == Some(&0) => {
            Answer::Refused(outcome.revision)
        }
        Ok(outcome) => Answer::Done(outcome.revisions.first().copied().unwrap_or_default()),
        Err(replica::Error::Unknown(_)) => Answer::Unknown,
        Err(_) => Answer::Failed,
    }
}
