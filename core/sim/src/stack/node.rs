//! A node from its file: the composition of the product, with three threads as on a host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ringkeeper_core::config::failover::Fence;
use ringkeeper_core::config::native::{self, Own, Watch};
use ringkeeper_core::config::nutcracker::Config;
use ringkeeper_core::config::{keepalived, sentinel as conf};
use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::Drive;
use ringkeeper_core::node::vrrp::VrrpWorker;
use ringkeeper_core::node::{Control, ControlPlan, ControlRole, WatchPlan, Worker, compose};
use ringkeeper_core::proxy::{Plan, Policy};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::sentinel::machine::{Process, Setup};

use super::judge::Judge;
use super::plan::Scenario;
use super::probe::{Ear, Mutation, Probe};
use crate::sentinel::ours::{Boot, Make};

/// Where a Sentinel keeps what it learns.
const STATE: &str = "sentinel.state";

/// The name of the pool.
pub(crate) const POOL: &str = "cache";

/// Writes the file of a node.
fn file(host: usize, scenario: &Scenario) -> String {
    let mut text = String::from("control: off\nadmin:\n  listen: off\nstats:\n  listen: off\n");
    let _ = write!(
        text,
        "sentinel:\n  mode: own\n  listen: 10.0.{host}.1:26379\n  announce: 10.0.{host}.1:26379\n\
         \x20 state: {STATE}\n  quorum: 2\n  down_after: {} ms\n  failover_timeout: {} ms\n\
         \x20 fast_down: {}\n",
        scenario.down_after.as_millis(),
        scenario.failover_timeout.as_millis(),
        scenario.is_fast_down
    );
    let _ = write!(
        text,
        "vrrp:\n  main:\n    interface: e0\n    id: 51\n    addresses: [10.77.0.100/24]\n    \
         priority: {}\n    interval: {} ms\n",
        [150, 120, 100][host % 3],
        scenario.interval.as_millis()
    );
    let fence = match scenario.fence {
        Fence::Off => "off",
        Fence::BestEffort => "best-effort",
        Fence::Strict => "strict",
    };
    let _ = write!(
        text,
        "pools:\n  {POOL}:\n    listen: 10.77.0.100:6379\n    timeout: 3 s\n    hold: 4 s\n    \
         fence: {fence}\n    server_connections: {}\n",
        scenario.connections
    );
    if scenario.is_replicated {
        text.push_str("    replicated: 1\n    replicated_timeout: 2 s\n");
    }
    text.push_str("    servers:\n");
    for shard in 0..super::plan::SHARDS.len() {
        let name = super::plan::SHARDS[shard];
        let address = super::plan::server_address(shard, 0);
        let _ = write!(text, "      - name: {name}\n        address: {address}\n");
    }
    text
}

/// A node's file, read.
pub(crate) struct Node {
    config: Config,
    own: Own,
    routers: keepalived::Config,
}

impl Node {
    pub(crate) fn new(host: usize, scenario: &Scenario) -> Self {
        let text = file(host, scenario);
        let parsed = native::parse("ringkeeper.yml", &text);
        let problems = &parsed.diagnostics;
        let config = parsed.config.unwrap_or_else(|| panic!("{text}\n{problems:?}"));
        let Some(Watch::Own(own)) = parsed.settings.sentinel else { panic!("no Sentinel: {text}") };
        let routers = parsed.settings.vrrp.unwrap_or_else(|| panic!("no routers: {text}"));
        Self { config, own: *own, routers }
    }

    /// Returns what the Sentinel begins with, as the host finds it.
    fn setup(&self, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<Setup, String> {
        let path = PathBuf::from(STATE);
        let setup = compose::setup(&self.own, "ringkeeper.yml".to_owned());
        let state = files.get(&path).map(Vec::as_slice);
        let setup = setup.with_state(path, state).map_err(|error| format!("{error:?}"))?;
        Ok(compose::Asked::by(Some(&self.config)).put_into(setup))
    }

    /// The thread that watches masters.
    pub(crate) fn control(self: &Rc<Self>, host: usize, judge: &Rc<RefCell<Judge>>) -> Make {
        let (node, judge) = (Rc::clone(self), Rc::clone(judge));
        Rc::new(move |boot: &Boot| {
            let mut setup = node.setup(&boot.files)?;
            let mut rng = Rng::new(boot.seed);
            let mut bits = [0; 20];
            bits.iter_mut().for_each(|bit| *bit = rng.below(256) as u8);
            let run_id = conf::RunId::from_random(bits);
            setup.process = Process { run_id, ..setup.process };
            let watch = WatchPlan::Own { setup: Box::new(setup), seed: boot.seed };
            let plan = ControlPlan {
                listeners: BTreeMap::from([(ListenerId(0), ControlRole::Sentinel)]),
                admin: None,
                watch: Some(watch),
                overseen: Some(1),
            };
            let control = Control::new(plan, boot.now);
            Ok(Box::new(Ear::new(control, host, Rc::clone(&judge))) as Box<dyn Drive>)
        })
    }

    /// The plan of the worker: masters are where the Sentinel had them last.
    pub(crate) fn plan(
        &self,
        files: &BTreeMap<PathBuf, Vec<u8>>,
        is_drained: bool,
    ) -> Result<Plan, String> {
        let known = compose::places(&self.setup(files)?.config);
        let mut config = self.config.clone();
        compose::settle(&mut config, &known);
        let mut plan = Plan::new(&config, Policy::RINGKEEPER);
        plan.pools.iter_mut().for_each(|pool| pool.is_drained = is_drained);
        Ok(plan)
    }

    /// The thread with the clients.
    pub(crate) fn worker(
        self: &Rc<Self>,
        host: usize,
        judge: &Rc<RefCell<Judge>>,
        mutation: Option<Mutation>,
    ) -> Make {
        let (node, judge) = (Rc::clone(self), Rc::clone(judge));
        Rc::new(move |boot: &Boot| {
            let plan = Arc::new(node.plan(&boot.files, false)?);
            let worker = Worker::new(plan, boot.seed, boot.now);
            Ok(Box::new(Probe::new(worker, host, Rc::clone(&judge), mutation)) as Box<dyn Drive>)
        })
    }

    /// The thread with the virtual routers.
    pub(crate) fn routers(self: &Rc<Self>, host: usize, judge: &Rc<RefCell<Judge>>) -> Make {
        let (node, judge) = (Rc::clone(self), Rc::clone(judge));
        Rc::new(move |boot: &Boot| {
            let routers = VrrpWorker::new(node.routers.clone(), true, boot.now);
            Ok(Box::new(Ear::new(routers, host, Rc::clone(&judge))) as Box<dyn Drive>)
        })
    }
}
