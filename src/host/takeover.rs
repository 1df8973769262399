//! Both sides of an upgrade: giving everything to another process, and taking it.

use std::path::PathBuf;

use crate::host::control::Control;
use crate::host::drained::Drained;
use crate::host::fleet::Fleet;
use crate::host::sockets::{self, Inherited, Sockets};

#[cfg(not(target_os = "linux"))]
pub(crate) use self::elsewhere::{Takeover, begin_upgrade};
#[cfg(target_os = "linux")]
pub(crate) use self::linux::{Takeover, begin_upgrade};

/// How the new process opens the way for commands, once the old one has closed its own.
type OpenControl = Box<dyn Fn() -> Option<Control> + Send>;

/// What a process finds when it begins.
#[derive(Debug, Default)]
pub(crate) struct Legacy {
    /// Sockets that listen already.
    pub(crate) sockets: Vec<Inherited>,
    /// What the operator has taken out of service.
    pub(crate) drained: Drained,
    /// Processes that have handed their clients on up to this one.
    pub(crate) predecessors: u16,
}

impl Legacy {
    /// Begins after nobody, with what the service manager has.
    pub(crate) fn of_manager() -> Self {
        Self { sockets: sockets::given(), ..Self::default() }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::sync::{Arc, mpsc};
    use std::time::{Duration, Instant};

    use anyhow::Context as _;
    use ringkeeper_core::config::nutcracker::Config;
    use ringkeeper_core::id::ListenerId;
    use ringkeeper_core::io::Parcel;
    use ringkeeper_core::proxy::ClientState;
    use socket2::Socket;

    use super::{Control, Drained, Fleet, Inherited, Legacy, OpenControl, Sockets};
    use crate::host::acceptor::Candidate;
    use crate::host::signal;
    use crate::host::upgrade::{Predecessor, Successor};

    /// How long clients may take until nothing is under way for them. One that does not read its
    /// replies, or waits for a server that is silent, is cut off then.
    const LIMIT: Duration = Duration::from_secs(30);

    /// How much longer than [`LIMIT`] the workers may take to say that they are done.
    const GRACE: Duration = Duration::from_secs(2);

    /// How long to wait for clients that are not ready, or for a worker that is busy.
    const PAUSE: Duration = Duration::from_millis(1);

    /// What the new process has to do until it is alone.
    pub(crate) struct Takeover {
        predecessor: Option<Predecessor>,
        open_control: OpenControl,
        adopted: Option<mpsc::Receiver<(Predecessor, u32)>>,
    }

    impl Takeover {
        /// Returns what is to be taken over, if a process started this one for that.
        pub(crate) fn find(open_control: OpenControl) -> Result<Self, OpenControl> {
            match Predecessor::find() {
                Some(predecessor) => {
                    Ok(Self { predecessor: Some(predecessor), open_control, adopted: None })
                }
                None => Err(open_control),
            }
        }

        /// Takes all but the clients.
        ///
        /// # Errors
        ///
        /// The old process has ended.
        pub(crate) fn legacy(&self) -> anyhow::Result<Legacy> {
            let predecessor = self.predecessor.as_ref().context("asked twice")?;
            let (sockets, text) =
                predecessor.legacy().context("taking over the listeners of the old process")?;
            let inherited = |(place, socket)| Inherited { place, name: None, socket };
            let (number, drained) = text.split_once('\n').unwrap_or_default();
            Ok(Legacy {
                sockets: sockets.into_iter().map(inherited).collect(),
                drained: Drained::decode(drained),
                predecessors: number.parse().unwrap_or(0),
            })
        }

        /// Says that clients are served, and takes those of the old process as they come.
        ///
        /// # Errors
        ///
        /// The old process has ended, or there is no thread.
        pub(crate) fn begin(
            &mut self,
            fleet: &Fleet,
            sockets: &Sockets,
            config: &Config,
        ) -> anyhow::Result<()> {
            let Some(predecessor) = self.predecessor.take() else { return Ok(()) };
            predecessor.ready().context("telling the old process that this one serves")?;
            let pools = config
                .pools
                .iter()
                .filter_map(|pool| Some((pool.name.clone(), sockets.of_pool(&pool.name).next()?)));
            let (pools, workers) = (pools.collect::<Vec<_>>(), fleet.candidates());
            let (done, adopted) = mpsc::channel();
            std::thread::Builder::new()
                .name("rk-adopt".to_owned())
                .spawn(move || {
                    let count = adopt_all(&predecessor, &workers, &pools);
                    let _ = done.send((predecessor, count));
                    signal::call_for_attention();
                })
                .context("no thread to take over clients")?;
            self.adopted = Some(adopted);
            Ok(())
        }

        /// Comes to the end if all clients are here: then this process alone takes commands, at
        /// the returned socket, if there is one.
        pub(crate) fn finish(&mut self) -> Option<Option<Control>> {
            let (predecessor, clients) = self.adopted.as_ref()?.try_recv().ok()?;
            let control = (self.open_control)();
            tracing::info!(clients, "the old process is replaced");
            if let Err(error) = predecessor.finished(clients) {
                tracing::warn!("the old process has ended without waiting: {error}");
            }
            Some(control)
        }
    }

    fn adopt_all(
        predecessor: &Predecessor,
        workers: &[Candidate],
        pools: &[(String, ListenerId)],
    ) -> u32 {
        let mut count = 0;
        loop {
            match predecessor.next_client() {
                Ok(Some((state, socket))) => {
                    if adopt(workers, pools, &state, socket) {
                        count += 1;
                    }
                }
                Ok(None) => return count,
                Err(error) => {
                    tracing::error!("the old process left before all its clients came: {error}");
                    return count;
                }
            }
        }
    }

    /// Gives a client to a worker. Returns false, and closes it, if its pool is not served here.
    fn adopt(
        workers: &[Candidate],
        pools: &[(String, ListenerId)],
        state: &[u8],
        socket: Socket,
    ) -> bool {
        let Some(state) = ClientState::decode(state) else {
            tracing::warn!("a client of the old process is not understood and closed");
            return false;
        };
        let Some((_, listener)) = pools.iter().find(|(name, _)| *name == state.pool) else {
            tracing::info!(pool = state.pool, "a client is closed: its pool is gone");
            return false;
        };
        let state = Parcel::new(Arc::new(state));
        let mut socket = socket;
        loop {
            let Some(worker) = workers.iter().min_by_key(|worker| worker.pulse.load(*listener))
            else {
                return false;
            };
            worker.pulse.add(*listener);
            match worker.sender.adopt(*listener, socket, state.clone()) {
                Ok(()) => return true,
                Err(back) => {
                    worker.pulse.remove(*listener);
                    socket = back;
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// The old process on its way out.
    pub(crate) struct Replaced(Successor);

    /// Starts another process that takes over, and waits until it serves.
    pub(crate) fn begin_upgrade(
        sockets: &Sockets,
        drained: &Drained,
        predecessors: u16,
    ) -> io::Result<Replaced> {
        let mut successor = Successor::start()?;
        let lent = sockets.inherited().iter().map(|one| (one.place.clone(), &one.socket));
        for (place, socket) in sockets.places().chain(lent) {
            successor.give_listener(&place, socket)?;
        }
        let text = format!("{}\n{}", predecessors.wrapping_add(1), drained.encode());
        successor.wait_ready(&text)?;
        Ok(Replaced(successor))
    }

    impl Replaced {
        /// Gives all clients away.
        pub(crate) fn hand_over(&self, fleet: &mut Fleet) -> io::Result<()> {
            let releases = fleet.hand_over(LIMIT);
            let end = Instant::now() + LIMIT + GRACE;
            loop {
                // Asked first: whoever is given away is in the channel before the worker is empty.
                let is_over = fleet.is_drained() || Instant::now() > end;
                let mut is_idle = true;
                for releases in &releases {
                    while let Some((socket, state, late)) = releases.next() {
                        is_idle = false;
                        let Some(state) = state.open::<ClientState>() else { continue };
                        let mut state = ClientState::clone(&state);
                        state.input.extend_from_slice(&late);
                        self.0.give_client(&state.encode(), &socket)?;
                    }
                }
                if is_over && is_idle {
                    return Ok(());
                }
                if is_idle {
                    std::thread::sleep(PAUSE);
                }
            }
        }

        /// Returns the number of the new process.
        pub(crate) fn id(&self) -> u32 {
            self.0.id()
        }

        /// Waits until the new process is alone; returns how many clients it has taken.
        pub(crate) fn finish(&self) -> io::Result<u32> {
            self.0.finish()
        }
    }
}

/// Other systems drain: `Takeover` is never found there.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;

    use ringkeeper_core::config::nutcracker::Config;

    use super::{Control, Drained, Fleet, Legacy, OpenControl, Sockets};

    pub(crate) enum Takeover {}

    impl Takeover {
        pub(crate) fn find(open_control: OpenControl) -> Result<Self, OpenControl> {
            Err(open_control)
        }

        pub(crate) fn legacy(&self) -> anyhow::Result<Legacy> {
            match *self {}
        }

        pub(crate) fn begin(
            &mut self,
            _fleet: &Fleet,
            _sockets: &Sockets,
            _config: &Config,
        ) -> anyhow::Result<()> {
            match *self {}
        }

        pub(crate) fn finish(&mut self) -> Option<Option<Control>> {
            match *self {}
        }
    }

    pub(crate) enum Replaced {}

    pub(crate) fn begin_upgrade(
        _sockets: &Sockets,
        _drained: &Drained,
        _predecessors: u16,
    ) -> io::Result<Replaced> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "only Linux passes connections on; drain this process and start another",
        ))
    }

    impl Replaced {
        pub(crate) fn hand_over(&self, _fleet: &mut Fleet) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn id(&self) -> u32 {
            match *self {}
        }

        pub(crate) fn finish(&self) -> io::Result<u32> {
            match *self {}
        }
    }
}

/// Returns what opens the socket for commands at `path`, or at the default place, and says so when
/// it can't.
pub(crate) fn open_control(path: Option<PathBuf>) -> OpenControl {
    Box::new(move || match Control::open(path.as_deref()) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!(
                "no commands are taken: {}; `--control FILE` chooses another place",
                super::reason(&error)
            );
            None
        }
    })
}
