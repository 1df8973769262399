//! The data workers of the process, as the main thread commands them.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ringkeeper_core::id::{ListenerId, WorkerId};
use ringkeeper_core::io::{Command, Mail, Notice, Parcel};
use ringkeeper_core::node::{Control, ControlPlan, WatchPlan, Worker};
use ringkeeper_core::proxy::Plan;
use ringkeeper_core::tls::{self, Tls};

use crate::host;
use crate::host::acceptor::{Acceptor, Candidate, Share};
use crate::host::errands::Errands;
use crate::host::events::EventLog;
use crate::host::pulse::{Finding, Pulse, Shown, Watch};
use crate::host::routers::Line;
use crate::host::runtime::{
    self, ControlDesk, Desk, Listener, News, Releases, Running, Selected, Switchboard,
};

/// How long workers may take to go on with another plan. They need milliseconds.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long a worker may take to close a listener. It needs a turn or two.
const UNLISTEN_PATIENCE: Duration = Duration::from_secs(1);

/// The workers, and the acceptor if there are several.
pub(crate) struct Fleet {
    workers: Vec<Running>,
    /// The worker without clients.
    control: Running,
    watches: Vec<Watch>,
    acceptor: Option<Acceptor>,
    news: mpsc::Receiver<News>,
    drained: Vec<WorkerId>,
    reloaded: Vec<WorkerId>,
}

impl Fleet {
    /// Starts `count` workers on the same plan, and the one that watches them, which may speak TLS.
    /// They listen nowhere yet. `routers` is the way to the virtual routers.
    ///
    /// # Errors
    ///
    /// The system refuses threads, descriptors or entropy.
    pub(crate) fn start(
        selected: Selected,
        plan: &Arc<Plan>,
        count: u16,
        (control, encryption): (ControlPlan, Option<tls::Plan>),
        routers: Line,
    ) -> anyhow::Result<Self> {
        let (sender, news) = mpsc::channel();
        let switchboard = Arc::new(Switchboard::new(routers.clone()));
        let start = Instant::now();
        let mut workers = Vec::new();
        let mut pulses = Vec::new();
        for worker in (0..count.max(1)).map(WorkerId) {
            let seed = host::seed().context("no seed for the worker")?;
            let pulse = Arc::new(Pulse::new(plan.clients_max));
            let zero = ringkeeper_core::time::Instant::START;
            let drive = Worker::new(Arc::clone(plan), seed, zero).with_id(worker);
            let drive = Shown::new(drive, Arc::clone(&pulse), count > 1);
            let desk = Desk {
                worker,
                log: EventLog::new(Arc::clone(plan)),
                news: sender.clone(),
                switchboard: Arc::clone(&switchboard),
            };
            let name = format!("rk-data-{}", worker.0);
            let running = runtime::start(selected, name, drive, start, desk, routers.clone())
                .context("the worker's thread could not start")?;
            workers.push(running);
            pulses.push(pulse);
        }
        switchboard.connect(workers.iter().map(|worker| worker.sender().clone()).collect());
        let drive = Control::new(control, ringkeeper_core::time::Instant::START);
        let answers = Arc::clone(&switchboard);
        let errands = Errands::start(move |answer| answers.mail_control(answer))
            .context("no thread to write files")?;
        let desk = ControlDesk { switchboard: Arc::clone(&switchboard), errands };
        let (name, line) = ("rk-watch".to_owned(), routers.clone());
        let control = match encryption {
            Some(plan) => {
                let drive = Tls::new(drive, plan, ringkeeper_core::time::Instant::START);
                runtime::start(selected, name, drive, start, desk, line)
            }
            None => runtime::start(selected, name, drive, start, desk, line),
        };
        let control = control.context("the thread that watches the workers could not start")?;
        switchboard.connect_control(control.sender().clone());
        let watcher = control.sender().clone();
        routers.set_back(move |notice| watcher.mail(Mail::Notice(notice)));
        let acceptor = if workers.len() > 1 {
            let candidates = workers.iter().zip(&pulses).map(|(worker, pulse)| Candidate {
                sender: worker.sender().clone(),
                pulse: Arc::clone(pulse),
            });
            let acceptor = Acceptor::start(candidates.collect(), routers);
            Some(acceptor.context("no thread to accept clients")?)
        } else {
            None
        };
        let watches = pulses.into_iter().map(|pulse| Watch::new(pulse, start)).collect();
        let (drained, reloaded) = (Vec::new(), Vec::new());
        Ok(Self { workers, control, watches, acceptor, news, drained, reloaded })
    }

    /// Returns how many workers there are.
    pub(crate) const fn len(&self) -> usize {
        self.workers.len()
    }

    /// Lets clients come in by a listener.
    pub(crate) fn listen(&self, share: Share) {
        match (&self.acceptor, self.workers.first()) {
            (Some(acceptor), _) => acceptor.listen(share),
            // The worker keeps to the limit itself.
            (None, Some(worker)) => worker.sender().listen(share.listener),
            (None, None) => {}
        }
    }

    /// Lets the worker without clients listen.
    pub(crate) fn listen_control(&self, listener: Listener) {
        self.control.sender().listen(listener);
    }

    /// Tells the worker without clients how reading the configuration again went.
    pub(crate) fn note_reload(&self, is_good: bool) {
        self.control.sender().mail(Mail::Notice(Notice::ConfigRead { is_good }));
    }

    /// Lets the worker without clients watch the masters of shards.
    pub(crate) fn watch(&self, plan: WatchPlan) {
        let plan = Parcel::new(Arc::new(plan));
        let limit = Duration::ZERO;
        self.control.sender().mail(Mail::Command(Command::Reload { plan, limit }));
    }

    /// Lets it stop, because another process does so from here on.
    pub(crate) fn stop_watching(&self) {
        let limit = Duration::ZERO;
        self.control.sender().mail(Mail::Command(Command::HandOver { limit }));
    }

    /// Sets whose a listener is, and how many clients that pool may have.
    pub(crate) fn limit(&self, id: ListenerId, pool: &str, clients_max: Option<u32>) {
        if let Some(acceptor) = &self.acceptor {
            acceptor.limit(id, pool.into(), clients_max);
        }
    }

    /// Closes a listener and waits for that. Who waits there comes in before.
    pub(crate) fn unlisten(&self, id: ListenerId) {
        match (&self.acceptor, self.workers.first()) {
            (Some(acceptor), _) => acceptor.unlisten(id),
            (None, Some(worker)) => {
                // One that does not turn closes it when it turns again.
                let _ = worker.sender().unlisten(id).recv_timeout(UNLISTEN_PATIENCE);
            }
            (None, None) => {}
        }
    }

    /// Gives every worker a command.
    pub(crate) fn command(&self, command: &Command) {
        for worker in &self.workers {
            worker.sender().mail(Mail::Command(command.clone()));
        }
    }

    /// Lets every worker go on with another plan; returns when all have, or how many have not in
    /// good time: they will as soon as they turn again.
    pub(crate) fn reload(&mut self, plan: &Arc<Plan>, limit: Duration) -> Result<(), usize> {
        self.reloaded.clear();
        let clients_max = plan.clients_max;
        let plan = Parcel::new(Arc::clone(plan));
        self.command(&Command::Reload { plan, limit });
        let end = Instant::now() + RELOAD_PATIENCE;
        while self.reloaded.len() < self.workers.len() {
            let left = end.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left) {
                Ok(news) => self.note(news),
                Err(_) => return Err(self.workers.len() - self.reloaded.len()),
            }
        }
        for watch in &self.watches {
            watch.pulse().set_clients_max(clients_max);
        }
        Ok(())
    }

    /// Lets every worker give its clients away, as soon as nothing is under way for them; returns
    /// where they arrive.
    pub(crate) fn hand_over(&self, limit: Duration) -> Vec<Releases> {
        let releases = self.workers.iter().map(|worker| worker.sender().releases()).collect();
        self.command(&Command::HandOver { limit });
        releases
    }

    /// Returns the workers, for whoever gives them clients.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let workers = self.workers.iter().zip(&self.watches);
        workers
            .map(|(worker, watch)| Candidate {
                sender: worker.sender().clone(),
                pulse: Arc::clone(watch.pulse()),
            })
            .collect()
    }

    fn note(&mut self, news: News) {
        let (list, worker) = match news {
            News::Drained(worker) => (&mut self.drained, worker),
            News::Reloaded(worker) => (&mut self.reloaded, worker),
        };
        if !list.contains(&worker) {
            list.push(worker);
        }
    }

    /// Returns whether every worker is without clients after a drain.
    pub(crate) fn is_drained(&mut self) -> bool {
        while let Ok(news) = self.news.try_recv() {
            self.note(news);
        }
        self.drained.len() == self.workers.len()
    }

    /// Returns whether any worker, or who accepts for them, has ended, which without
    /// [`Fleet::stop`] is a failure.
    pub(crate) fn has_ended(&self) -> bool {
        self.workers.iter().any(Running::has_ended)
            || self.control.has_ended()
            || self.acceptor.as_ref().is_some_and(Acceptor::has_ended)
    }

    /// Returns whether every worker turned when it was last looked at.
    pub(crate) fn is_turning(&self) -> bool {
        !self.watches.iter().any(Watch::is_stalled)
    }

    /// Looks after the workers, and reports those that do not turn.
    pub(crate) fn look(&mut self, now: Instant) {
        for (number, (worker, watch)) in self.workers.iter().zip(&mut self.watches).enumerate() {
            match watch.look(now, worker.sender()) {
                Finding::Well => {}
                Finding::Stalled(late) => {
                    let stalled_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(worker = number, stalled_ms, "a worker does not turn");
                }
                Finding::Recovered(late) => {
                    let stalled_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(worker = number, stalled_ms, "the worker turns again");
                }
            }
        }
    }

    /// Ends all workers at once and waits for their threads.
    ///
    /// # Errors
    ///
    /// The first failure of a worker.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        // First, so that nobody gets a client that nobody serves.
        self.acceptor = None;
        let workers = self.workers.into_iter().chain([self.control]);
        let results: Vec<io::Result<()>> = workers.map(|worker| worker.stop()).collect();
        results.into_iter().collect()
    }
}
